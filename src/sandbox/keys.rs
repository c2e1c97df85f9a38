//! The hospital's own signing keys, published at `/jwk` without `alg` and `use`, as Oracle Health does.

use serde_json::{Value, json};

use crate::clock::Timestamp;
use crate::crypto::{Algorithm, Jwk, KeyError, KeyPair, KeyType, Random, base64url};

/// The key that signs id tokens, and two elliptic ones that sign nothing but stand in the set.
pub(super) struct ServerKeys {
    rsa: KeyPair,
    kid: String,
    others: Vec<Jwk>,
}

impl ServerKeys {
    /// Makes the keys; some tenths of a second.
    pub(super) fn generate(random: &Random, now: Timestamp) -> Result<Self, KeyError> {
        let make = |kind| KeyPair::generate(kind, random).and_then(|der| KeyPair::from_pkcs8(&der));
        let stamp = now.to_string().trim_end_matches('Z').to_owned();
        let mut others = Vec::new();
        for (kind, name) in [(KeyType::EcP256, "es256"), (KeyType::EcP384, "es384")] {
            others.push(bare(make(kind)?.public_jwk(), &format!("{stamp}.ec.{name}")));
        }
        Ok(Self { rsa: make(KeyType::Rsa2048)?, kid: format!("{stamp}.rsa"), others })
    }

    /// The `kid` of the published key.
    pub(super) fn kid(&self) -> &str {
        &self.kid
    }

    /// The key set, with the same RSA key under a second name if `late` is given.
    pub(super) fn published(&self, late: Option<&str>) -> Value {
        let mut keys = self.others.clone();
        for kid in std::iter::once(self.kid.as_str()).chain(late) {
            keys.push(bare(self.rsa.public_jwk(), kid));
        }
        json!({ "keys": keys })
    }

    /// Signs an id token with RS256.
    pub(super) fn id_token(&self, kid: &str, claims: &Value) -> Result<String, KeyError> {
        let header = json!({"kid": kid, "typ": "JWT", "alg": Algorithm::Rs256.name()});
        let signed = format!(
            "{}.{}",
            base64url(header.to_string().as_bytes()),
            base64url(claims.to_string().as_bytes())
        );
        let signature = self.rsa.sign(Algorithm::Rs256, signed.as_bytes())?;
        Ok(format!("{signed}.{}", base64url(&signature)))
    }
}

fn bare(mut key: Jwk, kid: &str) -> Jwk {
    key.kid = Some(kid.to_owned());
    key.alg = None;
    key.use_ = None;
    key.key_ops = None;
    key
}

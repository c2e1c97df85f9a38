//! JSON Web Signatures in compact form (RFC 7515): ours are client assertions, the EHRs' are id tokens.

use ring::signature::{self, RsaPublicKeyComponents, UnparsedPublicKey};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::crypto::{Jwk, KeyError, KeyPair, base64url, from_base64url};

/// Signature algorithms we know. There is no `none` and no HMAC, so neither can be tricked in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Algorithm {
    /// RSASSA-PKCS1-v1_5 with SHA-256: id tokens of most EHRs.
    #[serde(rename = "RS256")]
    Rs256,
    /// RSASSA-PKCS1-v1_5 with SHA-384: client assertions.
    #[serde(rename = "RS384")]
    Rs384,
    /// ECDSA P-256 with SHA-256.
    #[serde(rename = "ES256")]
    Es256,
    /// ECDSA P-384 with SHA-384: client assertions.
    #[serde(rename = "ES384")]
    Es384,
}

impl Algorithm {
    /// The name in `alg` (RFC 7518 section 3.1).
    pub const fn name(self) -> &'static str {
        match self {
            Self::Rs256 => "RS256",
            Self::Rs384 => "RS384",
            Self::Es256 => "ES256",
            Self::Es384 => "ES384",
        }
    }

    /// The inverse of [`Algorithm::name`].
    pub fn from_name(name: &str) -> Option<Self> {
        [Self::Rs256, Self::Rs384, Self::Es256, Self::Es384].into_iter().find(|known| known.name() == name)
    }
}

/// Why a JWS was refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum JwsError {
    /// Not three base64url parts with a JSON header.
    #[error("not a signed JWT")]
    Malformed,
    /// `alg` is not one we accept.
    #[error("signed with an algorithm that is not accepted")]
    Algorithm,
    /// The key's type does not fit `alg`, or the key is unusable.
    #[error("the key does not fit the signature's algorithm")]
    Key,
    /// The signature does not verify.
    #[error("the signature does not verify")]
    Signature,
}

/// A compact JWS, taken apart but not yet believed: claims come out only through [`Jws::verify`].
#[derive(Debug, Clone)]
pub struct Jws {
    /// From the header.
    pub algorithm: Algorithm,
    /// From the header.
    pub kid: Option<String>,
    /// From the header.
    pub typ: Option<String>,
    /// From the header: where the sender says its keys are.
    pub jku: Option<String>,
    signed: String,
    payload: Vec<u8>,
    signature: Vec<u8>,
}

#[derive(Deserialize)]
struct Header {
    alg: String,
    kid: Option<String>,
    typ: Option<String>,
    jku: Option<String>,
}

impl Jws {
    /// Takes a compact JWS apart.
    pub fn parse(compact: &str) -> Result<Self, JwsError> {
        let mut parts = compact.split('.');
        let (Some(header), Some(payload), Some(signature), None) =
            (parts.next(), parts.next(), parts.next(), parts.next())
        else {
            return Err(JwsError::Malformed);
        };
        let signed = compact[..header.len() + 1 + payload.len()].to_owned();
        let decoded = from_base64url(header).ok_or(JwsError::Malformed)?;
        let fields: Header = serde_json::from_slice(&decoded).map_err(|_| JwsError::Malformed)?;
        Ok(Self {
            algorithm: Algorithm::from_name(&fields.alg).ok_or(JwsError::Algorithm)?,
            kid: fields.kid,
            typ: fields.typ,
            jku: fields.jku,
            signed,
            payload: from_base64url(payload).ok_or(JwsError::Malformed)?,
            signature: from_base64url(signature).ok_or(JwsError::Malformed)?,
        })
    }

    /// The claims, after the signature was found to be made with `key`.
    pub fn verify<C: serde::de::DeserializeOwned>(&self, key: &Jwk) -> Result<C, JwsError> {
        self.check(key)?;
        serde_json::from_slice(&self.payload).map_err(|_| JwsError::Malformed)
    }

    /// Claims nobody has vouched for: only to choose the key or the issuer to verify with, never to act on.
    pub fn unverified_claims<C: serde::de::DeserializeOwned>(&self) -> Result<C, JwsError> {
        serde_json::from_slice(&self.payload).map_err(|_| JwsError::Malformed)
    }

    fn check(&self, key: &Jwk) -> Result<(), JwsError> {
        let message = self.signed.as_bytes();
        match (self.algorithm, key.kty.as_str(), key.crv.as_deref()) {
            (Algorithm::Rs256 | Algorithm::Rs384, "RSA", _) => {
                let (n, e) = key.rsa_components().ok_or(JwsError::Key)?;
                let parameters = if self.algorithm == Algorithm::Rs256 {
                    &signature::RSA_PKCS1_2048_8192_SHA256
                } else {
                    &signature::RSA_PKCS1_2048_8192_SHA384
                };
                RsaPublicKeyComponents { n, e }
                    .verify(parameters, message, &self.signature)
                    .map_err(|_| JwsError::Signature)
            }
            (Algorithm::Es384, "EC", Some("P-384")) => {
                let point = key.ec_point().ok_or(JwsError::Key)?;
                UnparsedPublicKey::new(&signature::ECDSA_P384_SHA384_FIXED, point)
                    .verify(message, &self.signature)
                    .map_err(|_| JwsError::Signature)
            }
            (Algorithm::Es256, "EC", Some("P-256")) => {
                let point = key.ec_point().ok_or(JwsError::Key)?;
                UnparsedPublicKey::new(&signature::ECDSA_P256_SHA256_FIXED, point)
                    .verify(message, &self.signature)
                    .map_err(|_| JwsError::Signature)
            }
            (Algorithm::Rs256 | Algorithm::Rs384 | Algorithm::Es256 | Algorithm::Es384, _, _) => {
                Err(JwsError::Key)
            }
        }
    }
}

/// Signs `claims` as a compact JWS with header `alg`, `kid` and `typ: JWT`.
pub fn sign_jws(key: &KeyPair, algorithm: Algorithm, claims: &Value) -> Result<String, KeyError> {
    let header = serde_json::json!({ "alg": algorithm.name(), "kid": key.kid(), "typ": "JWT" });
    let mut compact = base64url(header.to_string().as_bytes());
    compact.push('.');
    compact.push_str(&base64url(claims.to_string().as_bytes()));
    let signature = key.sign(algorithm, compact.as_bytes())?;
    compact.push('.');
    compact.push_str(&base64url(&signature));
    Ok(compact)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::crypto::{KeyType, Random};
    use serde_json::json;

    fn pair(kind: KeyType) -> KeyPair {
        KeyPair::from_pkcs8(&KeyPair::generate(kind, &Random::seeded(9)).expect("a key")).expect("usable")
    }

    #[test]
    fn what_we_sign_verifies_with_the_published_key_and_with_no_other() {
        let rsa = pair(KeyType::Rsa2048);
        let ec = pair(KeyType::EcP384);
        for (key, other, algorithm) in [(&rsa, &ec, Algorithm::Rs384), (&ec, &rsa, Algorithm::Es384)] {
            let compact = sign_jws(key, algorithm, &json!({"iss": "me"})).expect("signed");
            let jws = Jws::parse(&compact).expect("a JWS");
            assert_eq!(jws.kid.as_deref(), Some(key.kid()));
            assert_eq!(jws.typ.as_deref(), Some("JWT"));
            assert_eq!(jws.verify::<Value>(&key.public_jwk()), Ok(json!({"iss": "me"})));
            assert_eq!(jws.verify::<Value>(&other.public_jwk()), Err(JwsError::Key));
        }
        let es384 = sign_jws(&ec, Algorithm::Es384, &json!({})).expect("signed");
        let signature = from_base64url(es384.rsplit('.').next().expect("three parts")).expect("base64url");
        assert_eq!(signature.len(), 96, "JOSE wants r || s, not DER");
    }

    #[test]
    fn unsigned_and_symmetric_tokens_are_never_accepted() {
        for alg in ["none", "HS256", "RS512"] {
            let header = base64url(format!(r#"{{"alg":"{alg}"}}"#).as_bytes());
            let compact = format!("{header}.{}.", base64url(b"{}"));
            assert_eq!(Jws::parse(&compact).map(|_| ()), Err(JwsError::Algorithm));
        }
        assert_eq!(Jws::parse("a.b").map(|_| ()), Err(JwsError::Malformed));
    }

    #[test]
    fn a_changed_payload_does_not_verify() {
        let key = pair(KeyType::EcP384);
        let compact = sign_jws(&key, Algorithm::Es384, &json!({"sub": "a"})).expect("signed");
        let parts: Vec<&str> = compact.split('.').collect();
        let forged = format!("{}.{}.{}", parts[0], base64url(br#"{"sub":"b"}"#), parts[2]);
        let jws = Jws::parse(&forged).expect("well formed");
        assert_eq!(jws.verify::<Value>(&key.public_jwk()), Err(JwsError::Signature));
    }
}

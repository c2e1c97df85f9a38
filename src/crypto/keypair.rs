//! Private signing keys. RSA keys are made by the `rsa` crate, because ring cannot, and used by ring only: the `rsa`
//! crate's private-key operations are slower and carry a timing advisory. P-256 and P-384 keys are ring's own.

use ring::rand::SystemRandom;
use ring::signature::{
    self, ECDSA_P256_SHA256_FIXED_SIGNING, ECDSA_P384_SHA384_FIXED_SIGNING, EcdsaKeyPair, KeyPair as _,
    RsaKeyPair,
};
use rsa::pkcs8::EncodePrivateKey;
use serde::{Deserialize, Serialize};
use zeroize::Zeroizing;

use crate::crypto::jwk::Jwk;
use crate::crypto::{Algorithm, Random};

/// Which kind of key to make.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum KeyType {
    /// RSA, 2048 bits: the default.
    Rsa2048,
    /// RSA, 3072 bits.
    Rsa3072,
    /// RSA, 4096 bits: seven times slower to sign with than 2048.
    Rsa4096,
    /// Elliptic curve P-384, for ES384.
    EcP384,
    /// Elliptic curve P-256, for ES256; not used towards EHRs.
    EcP256,
}

/// A private key in PKCS#8 DER, wiped from memory when dropped.
pub type PrivateKeyDer = Zeroizing<Vec<u8>>;

/// A key that can't be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum KeyError {
    /// Not PKCS#8 DER of a supported kind.
    #[error("not a usable private key ({0}); wanted is PKCS#8 with RSA of 2048 to 4096 bits, P-384 or P-256")]
    Unusable(String),
    /// The key does not sign with the wanted algorithm.
    #[error("a key of this kind cannot sign with {0:?}")]
    WrongAlgorithm(Algorithm),
    /// Signing failed inside ring.
    #[error("signing failed")]
    SigningFailed,
}

/// A private key ready to sign.
pub struct KeyPair {
    inner: Inner,
    public: Jwk,
    kid: String,
}

enum Inner {
    Rsa(RsaKeyPair),
    P384(EcdsaKeyPair),
    P256(EcdsaKeyPair),
}

impl std::fmt::Debug for KeyPair {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(out, "KeyPair({})", self.kid)
    }
}

impl KeyPair {
    /// Makes a new private key. RSA takes from 0.1 s (2048) to seconds (4096): call it off the async threads.
    pub fn generate(kind: KeyType, random: &Random) -> Result<PrivateKeyDer, KeyError> {
        let bits = match kind {
            KeyType::Rsa2048 => 2048,
            KeyType::Rsa3072 => 3072,
            KeyType::Rsa4096 => 4096,
            KeyType::EcP384 => return generate_ec(&ECDSA_P384_SHA384_FIXED_SIGNING),
            KeyType::EcP256 => return generate_ec(&ECDSA_P256_SHA256_FIXED_SIGNING),
        };
        let key = rsa::PrivateKey::new(&mut random.clone(), bits).map_err(|error| unusable(&error))?;
        let der = key.to_pkcs8_der().map_err(|error| unusable(&error))?;
        Ok(Zeroizing::new(der.as_bytes().to_vec()))
    }

    /// Loads a PKCS#8 DER private key; ring checks its consistency.
    pub fn from_pkcs8(der: &[u8]) -> Result<Self, KeyError> {
        let system = SystemRandom::new();
        let inner = match RsaKeyPair::from_pkcs8(der) {
            Ok(key) => Inner::Rsa(key),
            Err(rejected) => {
                if let Ok(key) = EcdsaKeyPair::from_pkcs8(&ECDSA_P384_SHA384_FIXED_SIGNING, der, &system) {
                    Inner::P384(key)
                } else if let Ok(key) =
                    EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, der, &system)
                {
                    Inner::P256(key)
                } else {
                    return Err(unusable(&rejected));
                }
            }
        };
        let public = match &inner {
            Inner::Rsa(key) => {
                let public: ring::rsa::PublicKeyComponents<Vec<u8>> = key.public().into();
                Jwk::rsa(&public.n, &public.e)
            }
            Inner::P384(key) => Jwk::ec("P-384", key.public_key().as_ref()),
            Inner::P256(key) => Jwk::ec("P-256", key.public_key().as_ref()),
        };
        let kid = public.thumbprint();
        Ok(Self { inner, public, kid })
    }

    /// The same key under a name of its owner's choice, which EHRs know it by.
    #[must_use]
    pub fn named(self, kid: &str) -> Self {
        Self { kid: kid.to_owned(), ..self }
    }

    /// What the key is called in the JWKS and in what it signs: its thumbprint, unless it was [`KeyPair::named`].
    pub fn kid(&self) -> &str {
        &self.kid
    }

    /// The RFC 7638 thumbprint of the public key.
    pub fn thumbprint(&self) -> String {
        self.public.thumbprint()
    }

    /// The algorithm this key signs with towards an EHR: RS384, ES384 or (P-256) ES256.
    pub fn algorithm(&self) -> Algorithm {
        match self.inner {
            Inner::Rsa(_) => Algorithm::Rs384,
            Inner::P384(_) => Algorithm::Es384,
            Inner::P256(_) => Algorithm::Es256,
        }
    }

    /// The public key for our JWKS: public members, `kid`, `alg`, `use`, `key_ops`.
    pub fn public_jwk(&self) -> Jwk {
        let mut jwk = self.public.clone();
        jwk.kid = Some(self.kid.clone());
        jwk.alg = Some(self.algorithm().name().to_owned());
        jwk.use_ = Some("sig".to_owned());
        jwk.key_ops = Some(vec!["verify".to_owned()]);
        jwk
    }

    /// Signs `message`. ECDSA signatures have the JOSE form `r || s`. One RSA signature takes 0.5 ms (2048 bits) to
    /// 3 ms (4096): call it off the async threads.
    pub fn sign(&self, algorithm: Algorithm, message: &[u8]) -> Result<Vec<u8>, KeyError> {
        let system = SystemRandom::new();
        match (&self.inner, algorithm) {
            (Inner::Rsa(key), Algorithm::Rs256 | Algorithm::Rs384) => {
                let padding: &dyn signature::RsaEncoding = if algorithm == Algorithm::Rs256 {
                    &signature::RSA_PKCS1_SHA256
                } else {
                    &signature::RSA_PKCS1_SHA384
                };
                let mut out = vec![0; key.public().modulus_len()];
                key.sign(padding, &system, message, &mut out).map_err(|_| KeyError::SigningFailed)?;
                Ok(out)
            }
            (Inner::P384(key), Algorithm::Es384) | (Inner::P256(key), Algorithm::Es256) => {
                Ok(key.sign(&system, message).map_err(|_| KeyError::SigningFailed)?.as_ref().to_vec())
            }
            (Inner::Rsa(_) | Inner::P384(_) | Inner::P256(_), _) => Err(KeyError::WrongAlgorithm(algorithm)),
        }
    }
}

fn generate_ec(algorithm: &'static signature::EcdsaSigningAlgorithm) -> Result<PrivateKeyDer, KeyError> {
    let document =
        EcdsaKeyPair::generate_pkcs8(algorithm, &SystemRandom::new()).map_err(|error| unusable(&error))?;
    Ok(Zeroizing::new(document.as_ref().to_vec()))
}

fn unusable(cause: &impl std::fmt::Display) -> KeyError {
    KeyError::Unusable(cause.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rsa_and_ec_keys_are_made_loaded_and_published_without_private_members() {
        for kind in [KeyType::Rsa2048, KeyType::EcP384, KeyType::EcP256] {
            let der = KeyPair::generate(kind, &Random::seeded(5)).expect("a key");
            let pair = KeyPair::from_pkcs8(&der).expect("a usable key");
            let json = serde_json::to_value(pair.public_jwk()).expect("json");
            let members: Vec<&str> =
                json.as_object().expect("an object").keys().map(String::as_str).collect();
            for private in ["d", "p", "q", "dp", "dq", "qi", "oth", "k"] {
                assert!(!members.contains(&private), "{private} was published");
            }
            assert_eq!(json["kid"], pair.kid());
        }
    }

    #[test]
    fn what_is_no_key_is_refused_in_words() {
        let error = KeyPair::from_pkcs8(b"not a key").expect_err("refused");
        assert!(error.to_string().contains("PKCS#8"), "{error}");
    }
}

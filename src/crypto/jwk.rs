//! JSON Web Keys (RFC 7517), public members only.

use serde::{Deserialize, Serialize};

use crate::crypto::{base64url, from_base64url, sha256};

/// A public key. Members of private keys have no place to go, so they can neither be read in nor written out.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Jwk {
    /// `RSA` or `EC`.
    pub kty: String,
    /// Key id. Ours is the RFC 7638 thumbprint, unless the key was brought along with another.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub kid: Option<String>,
    /// `sig` in ours; absent at some vendors.
    #[serde(rename = "use", default, skip_serializing_if = "Option::is_none")]
    pub use_: Option<String>,
    /// Algorithm. Ours always say it, because some servers need it; Oracle Health's own keys carry none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub alg: Option<String>,
    /// Allowed operations.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub key_ops: Option<Vec<String>>,
    /// RSA modulus.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub n: Option<String>,
    /// RSA exponent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub e: Option<String>,
    /// Curve of an EC key.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub crv: Option<String>,
    /// EC coordinate.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub x: Option<String>,
    /// EC coordinate.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub y: Option<String>,
}

impl Jwk {
    fn bare(kty: &str) -> Self {
        Self {
            kty: kty.to_owned(),
            kid: None,
            use_: None,
            alg: None,
            key_ops: None,
            n: None,
            e: None,
            crv: None,
            x: None,
            y: None,
        }
    }

    /// An RSA key from its big-endian modulus and exponent.
    pub(super) fn rsa(modulus: &[u8], exponent: &[u8]) -> Self {
        let trimmed = |bytes: &[u8]| base64url(&bytes[bytes.iter().take_while(|byte| **byte == 0).count()..]);
        Self { n: Some(trimmed(modulus)), e: Some(trimmed(exponent)), ..Self::bare("RSA") }
    }

    /// An EC key from its uncompressed point `04 || x || y`; coordinates keep their leading zeros (RFC 7518 6.2.1.2).
    pub(super) fn ec(curve: &str, point: &[u8]) -> Self {
        let (x, y) = point[1..].split_at((point.len() - 1) / 2);
        Self { crv: Some(curve.to_owned()), x: Some(base64url(x)), y: Some(base64url(y)), ..Self::bare("EC") }
    }

    /// RFC 7638 thumbprint: base64url of SHA-256 over the required members in alphabetical order.
    pub fn thumbprint(&self) -> String {
        let empty = String::new();
        let member = |value: &Option<String>| value.as_ref().unwrap_or(&empty).clone();
        let canonical = if self.kty == "RSA" {
            format!(r#"{{"e":"{}","kty":"RSA","n":"{}"}}"#, member(&self.e), member(&self.n))
        } else {
            format!(
                r#"{{"crv":"{}","kty":"EC","x":"{}","y":"{}"}}"#,
                member(&self.crv),
                member(&self.x),
                member(&self.y)
            )
        };
        base64url(&sha256(canonical.as_bytes()))
    }

    pub(super) fn rsa_components(&self) -> Option<(Vec<u8>, Vec<u8>)> {
        Some((from_base64url(self.n.as_deref()?)?, from_base64url(self.e.as_deref()?)?))
    }

    pub(super) fn ec_point(&self) -> Option<Vec<u8>> {
        let mut point = vec![4];
        point.extend(from_base64url(self.x.as_deref()?)?);
        point.extend(from_base64url(self.y.as_deref()?)?);
        Some(point)
    }
}

/// A JSON Web Key Set. Keys of kinds we do not know are left out when reading (RFC 7517 section 5).
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Jwks {
    /// The keys.
    pub keys: Vec<Jwk>,
}

impl Jwks {
    /// Reads a key set; `None` when it is not one.
    pub fn parse(json: &[u8]) -> Option<Self> {
        #[derive(Deserialize)]
        struct Raw {
            keys: Vec<serde_json::Value>,
        }
        let raw: Raw = serde_json::from_slice(json).ok()?;
        let keys = raw.keys.into_iter().filter_map(|key| serde_json::from_value(key).ok()).collect();
        Some(Self { keys })
    }

    /// The keys with this `kid`. SMART App Launch 2.2 wants exactly one; the caller decides.
    pub fn by_kid<'k>(&'k self, kid: &'k str) -> impl Iterator<Item = &'k Jwk> {
        self.keys.iter().filter(move |key| key.kid.as_deref() == Some(kid))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_thumbprint_is_that_of_rfc_7638_section_3_1() {
        let jwk = Jwk {
            n: Some(
                concat!(
                    "0vx7agoebGcQSuuPiLJXZptN9nndrQmbXEps2aiAFbWhM78LhWx4cbbfAAtVT86zwu1RK7aPFFxuhDR1L6tSoc_BJECPebWK",
                    "RXjBZCiFV4n3oknjhMstn64tZ_2W-5JsGY4Hc5n9yBXArwl93lqt7_RN5w6Cf0h4QyQ5v-65YGjQR0_FDW2QvzqY368QQMic",
                    "AtaSqzs8KJZgnYb9c7d0zgdAZHzu6qMQvRL5hajrn1n91CbOpbISD08qNLyrdkt-bFTWhAI4vMQFh6WeZu0fM4lFd2NcRwr3",
                    "XPksINHaQ-G_xBniIqbw0Ls1jF44-csFCur-kEgU8awapJzKnqDKgw"
                )
                .to_owned(),
            ),
            e: Some("AQAB".to_owned()),
            ..Jwk::bare("RSA")
        };
        assert_eq!(jwk.thumbprint(), "NzbLsXh8uDCcd-6MNwXF4W_7noWXFZAfHkxZsRGC9Xs");
    }

    #[test]
    fn unknown_kinds_of_keys_do_not_spoil_the_set() {
        let set =
            Jwks::parse(br#"{"keys":[{"kty":"OKP","crv":"Ed25519","x":"AA","kid":"a"},{"kid":"no kty"}]}"#);
        assert_eq!(set.map(|set| set.keys.len()), Some(1));
        assert_eq!(Jwks::parse(b"<html>"), None);
    }
}

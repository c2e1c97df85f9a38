//! All cryptography, and the only user of ring: random bytes, digests, sealing, key pairs, JWS and JWK.
//! Knows nothing of HTTP or of the store.

mod digest;
mod import;
mod jwk;
mod jws;
mod keypair;
mod random;
mod seal;

pub use digest::{Digester, constant_time_eq, hmac_sha256, sha256};
pub use import::{ImportError, read_private_key};
pub use jwk::{Jwk, Jwks};
pub use jws::{Algorithm, Jws, JwsError, sign_jws};
pub use keypair::{KeyError, KeyPair, KeyType, PrivateKeyDer};
pub use random::Random;
pub use seal::{OpenError, SealingKey};

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;

/// Base64url without padding (RFC 4648 section 5), the spelling of every JOSE member.
pub fn base64url(bytes: &[u8]) -> String {
    URL_SAFE_NO_PAD.encode(bytes)
}

/// The inverse of [`base64url`]; `None` for anything else, padding included.
pub fn from_base64url(text: &str) -> Option<Vec<u8>> {
    URL_SAFE_NO_PAD.decode(text).ok()
}

/// Standard base64 with padding, as HTTP Basic and FHIR `base64Binary` use it.
pub fn base64(bytes: &[u8]) -> String {
    base64::engine::general_purpose::STANDARD.encode(bytes)
}

/// The inverse of [`base64`]; `None` for anything else.
pub fn from_base64(text: &str) -> Option<Vec<u8>> {
    base64::engine::general_purpose::STANDARD.decode(text).ok()
}

/// Lower-case hexadecimal.
pub fn lower_hex(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    let nibbles = bytes.iter().flat_map(|byte| [byte >> 4, byte & 15]);
    nibbles.map(|nibble| char::from(DIGITS[usize::from(nibble)])).collect()
}

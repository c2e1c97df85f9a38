//! Sealing: AES-256-GCM with a random nonce, bound to the place where the value is kept.

use ring::aead::{AES_256_GCM, Aad, LessSafeKey, NONCE_LEN, Nonce, UnboundKey};
use zeroize::Zeroizing;

use crate::crypto::Random;

/// A 256-bit key that seals and opens. Sealed form: nonce (12 bytes), ciphertext, tag (16 bytes).
pub struct SealingKey(LessSafeKey);

impl std::fmt::Debug for SealingKey {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        out.write_str("SealingKey(«secret»)")
    }
}

/// The value was not sealed by this key for this place, or it was damaged.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a sealed value could not be opened: wrong key, wrong place or damaged")]
pub struct OpenError;

impl SealingKey {
    /// Bytes that [`SealingKey::seal`] adds to a value.
    pub const OVERHEAD: usize = NONCE_LEN + 16;

    /// From 32 bytes of key.
    pub fn new(key: &[u8; 32]) -> Self {
        let key = UnboundKey::new(&AES_256_GCM, key).expect("an AES-256 key has 32 bytes");
        Self(LessSafeKey::new(key))
    }

    /// Appends the sealed form of `plain` to `out`. `place` is authenticated, not stored: opening needs the same one.
    pub fn seal_into(&self, out: &mut Vec<u8>, place: &[u8], plain: &[u8], random: &Random) {
        let nonce = random.bytes::<NONCE_LEN>();
        out.reserve(plain.len() + Self::OVERHEAD);
        out.extend_from_slice(&nonce);
        let start = out.len();
        out.extend_from_slice(plain);
        let nonce = Nonce::assume_unique_for_key(nonce);
        let tag = self
            .0
            .seal_in_place_separate_tag(nonce, Aad::from(place), &mut out[start..])
            .expect("a value in memory is far below AES-GCM's limit of 64 GiB");
        out.extend_from_slice(tag.as_ref());
    }

    /// The sealed form of `plain`.
    pub fn seal(&self, place: &[u8], plain: &[u8], random: &Random) -> Vec<u8> {
        let mut out = Vec::new();
        self.seal_into(&mut out, place, plain, random);
        out
    }

    /// The inverse of [`SealingKey::seal`].
    pub fn open(&self, place: &[u8], sealed: &[u8]) -> Result<Zeroizing<Vec<u8>>, OpenError> {
        let (nonce, rest) = sealed.split_at_checked(NONCE_LEN).ok_or(OpenError)?;
        let nonce = Nonce::try_assume_unique_for_key(nonce).map_err(|_| OpenError)?;
        let mut bytes = Zeroizing::new(rest.to_vec());
        let length = self.0.open_in_place(nonce, Aad::from(place), &mut bytes).map_err(|_| OpenError)?.len();
        bytes.truncate(length);
        Ok(bytes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sealed_value_opens_only_with_its_key_in_its_place_undamaged() {
        let random = Random::seeded(1);
        let key = SealingKey::new(&[7; 32]);
        let sealed = key.seal(b"grants.v1/a", b"token", &random);
        assert_eq!(sealed.len(), 5 + SealingKey::OVERHEAD);
        assert_eq!(key.open(b"grants.v1/a", &sealed).as_deref().map(Vec::as_slice), Ok(&b"token"[..]));
        assert_eq!(key.open(b"grants.v1/b", &sealed).map(|_| ()), Err(OpenError));
        assert_eq!(SealingKey::new(&[8; 32]).open(b"grants.v1/a", &sealed).map(|_| ()), Err(OpenError));
        let mut damaged = sealed.clone();
        damaged[14] ^= 1;
        assert_eq!(key.open(b"grants.v1/a", &damaged).map(|_| ()), Err(OpenError));
        assert_eq!(key.open(b"grants.v1/a", &sealed[..9]).map(|_| ()), Err(OpenError));
    }
}

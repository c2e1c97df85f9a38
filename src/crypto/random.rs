//! Randomness as an argument.

use std::convert::Infallible;
use std::sync::{Arc, Mutex};

use ring::rand::{SecureRandom, SystemRandom};
use rsa::rand_core::{TryCryptoRng, TryRng};

use crate::clock::Timestamp;
use crate::crypto::{base64url, lower_hex, sha256};
use crate::id::{Id, ReferenceCode};

/// A source of random bytes: the operating system's, or a seeded one that makes the same bytes in every run.
#[derive(Debug, Clone)]
pub struct Random(Source);

#[derive(Debug, Clone)]
enum Source {
    System(SystemRandom),
    Seeded(Arc<Mutex<Seeded>>),
}

#[derive(Debug)]
struct Seeded {
    seed: [u8; 32],
    counter: u64,
}

impl Random {
    /// The operating system's generator.
    pub fn system() -> Self {
        Self(Source::System(SystemRandom::new()))
    }

    /// A reproducible stream for tests and for the sandbox's synthetic patients. Never for keys that guard anything.
    pub fn seeded(seed: u64) -> Self {
        Self(Source::Seeded(Arc::new(Mutex::new(Seeded { seed: sha256(&seed.to_be_bytes()), counter: 0 }))))
    }

    /// Fills `out`.
    pub fn fill(&self, out: &mut [u8]) {
        match &self.0 {
            Source::System(system) => {
                system.fill(out).expect("the kernel's random generator does not fail once the machine is up");
            }
            Source::Seeded(seeded) => {
                let mut seeded = seeded.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
                for chunk in out.chunks_mut(32) {
                    seeded.counter += 1;
                    let mut block = [0; 40];
                    block[..32].copy_from_slice(&seeded.seed);
                    block[32..].copy_from_slice(&seeded.counter.to_be_bytes());
                    chunk.copy_from_slice(&sha256(&block)[..chunk.len()]);
                }
            }
        }
    }

    /// `N` random bytes.
    pub fn bytes<const N: usize>(&self) -> [u8; N] {
        let mut out = [0; N];
        self.fill(&mut out);
        out
    }

    /// `N` random bytes in base64url: 32 bytes make the 43 characters of a PKCE verifier or of a `state`.
    pub fn token<const N: usize>(&self) -> String {
        base64url(&self.bytes::<N>())
    }

    /// `N` random bytes in lower-case hexadecimal.
    pub fn hex<const N: usize>(&self) -> String {
        lower_hex(&self.bytes::<N>())
    }

    /// A new id.
    pub fn id<T: Id>(&self, now: Timestamp) -> T {
        T::from_parts(now, self.bytes())
    }

    /// A new reference code.
    pub fn reference(&self) -> ReferenceCode {
        ReferenceCode::from_random(self.bytes())
    }

    /// A version 4 UUID in its usual spelling: request ids, `jti`.
    pub fn uuid(&self) -> String {
        uuid::Builder::from_random_bytes(self.bytes()).into_uuid().to_string()
    }

    /// A number below `bound` (at least 1), close enough to even for synthetic data and jitter.
    pub fn below(&self, bound: u64) -> u64 {
        u64::from_be_bytes(self.bytes()) % bound.max(1)
    }
}

impl TryRng for Random {
    type Error = Infallible;

    fn try_next_u32(&mut self) -> Result<u32, Infallible> {
        Ok(u32::from_be_bytes(self.bytes()))
    }

    fn try_next_u64(&mut self) -> Result<u64, Infallible> {
        Ok(u64::from_be_bytes(self.bytes()))
    }

    fn try_fill_bytes(&mut self, out: &mut [u8]) -> Result<(), Infallible> {
        self.fill(out);
        Ok(())
    }
}

impl TryCryptoRng for Random {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_seed_gives_the_same_stream_and_another_seed_another() {
        let first: [u8; 70] = Random::seeded(1).bytes();
        assert_eq!(first, Random::seeded(1).bytes());
        assert_ne!(first, Random::seeded(2).bytes());
        assert_ne!(Random::system().bytes::<16>(), Random::system().bytes::<16>());
    }

    #[test]
    fn a_token_of_32_bytes_is_a_legal_code_verifier() {
        // RFC 7636 section 4.1: 43 to 128 characters of the unreserved set.
        let token = Random::seeded(3).token::<32>();
        assert_eq!(token.len(), 43);
        assert!(token.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_')));
    }
}

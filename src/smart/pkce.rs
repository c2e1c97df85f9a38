//! Proof Key for Code Exchange, RFC 7636, method S256 only.

use crate::crypto::{Random, base64url, sha256};
use crate::secret::secret_type;

secret_type!(
    /// What proves at the token endpoint that we started the launch. Kept with the launch attempt, used once.
    CodeVerifier);

impl CodeVerifier {
    /// A fresh verifier: 32 random bytes, 43 characters (RFC 7636 section 4.1). One for each authorization request.
    pub fn generate(random: &Random) -> Self {
        Self::new(random.token::<32>())
    }

    /// `code_challenge` for `code_challenge_method=S256` (RFC 7636 section 4.2). Not a secret.
    pub fn challenge(&self) -> String {
        base64url(&sha256(self.expose().as_bytes()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_challenge_is_that_of_rfc_7636_appendix_b() {
        let verifier = CodeVerifier::new("dBjftJeZ4CVP-mB92K27uhbUJU1p1r_wW1gFWFOEjXk");
        assert_eq!(verifier.challenge(), "E9Melhoa2OwvFrEMTJguCHaoeK1t8URWbuGJSstw-cM");
    }

    #[test]
    fn each_verifier_is_new_and_has_the_form_of_section_4_1() {
        let random = Random::seeded(1);
        let (first, second) = (CodeVerifier::generate(&random), CodeVerifier::generate(&random));
        assert_ne!(first, second);
        assert_eq!(first.expose().len(), 43);
        assert!(first.expose().bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_')));
        assert!(!format!("{first:?}").contains(first.expose()));
    }
}

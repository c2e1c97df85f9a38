//! The client assertion of `private_key_jwt`: RFC 7523 section 2.2 as SMART App Launch 2.2 narrows it
//! ("Client Authentication: Asymmetric").

use std::time::Duration;

use serde_json::json;

use crate::clock::Timestamp;
use crate::crypto::{Algorithm, KeyError, KeyPair, Random, sign_jws};
use crate::secret::secret_type;

/// The value of `client_assertion_type`.
pub const CLIENT_ASSERTION_TYPE: &str = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer";

/// Servers accept at most five minutes; one minute is left for a clock that is ahead of theirs.
pub(super) const LIFETIME: Duration = Duration::from_mins(4);
/// Servers refuse an `iat` that lies ahead: a minute is left for that, too.
const BACKDATED: Duration = Duration::from_mins(1);

secret_type!(
    /// A signed JWT that says who we are. Valid for four minutes and for one request: a retry makes a new one.
    ClientAssertion);

/// Signs a new assertion. `now` is the server's time as far as it is known; it may be a minute off. `audience` is the token endpoint as discovery spells it, unless the vendor profile says
/// otherwise. Only RS384 and ES384 exist in SMART, so a P-256 key is refused. An RSA signature takes 0.5 to 3 ms: call
/// it off the async threads.
pub fn client_assertion(
    key: &KeyPair,
    client_id: &str,
    audience: &str,
    now: Timestamp,
    random: &Random,
) -> Result<ClientAssertion, KeyError> {
    let algorithm = match key.algorithm() {
        algorithm @ (Algorithm::Rs384 | Algorithm::Es384) => algorithm,
        other @ (Algorithm::Rs256 | Algorithm::Es256) => return Err(KeyError::WrongAlgorithm(other)),
    };
    let claims = json!({
        "iss": client_id,
        "sub": client_id,
        "aud": audience,
        "iat": now.before(BACKDATED).seconds(),
        "exp": now.after(LIFETIME).seconds(),
        "jti": random.uuid(),
    });
    // No `nbf`: a server whose clock is behind ours would refuse it.
    sign_jws(key, algorithm, &claims).map(ClientAssertion::new)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::crypto::{Jws, KeyType};
    use serde_json::Value;

    fn pair(kind: KeyType) -> KeyPair {
        KeyPair::from_pkcs8(&KeyPair::generate(kind, &Random::seeded(3)).expect("a key")).expect("usable")
    }

    #[test]
    fn an_assertion_has_the_claims_of_smart_and_verifies_with_the_published_key() {
        let now = Timestamp::from_seconds(1_793_607_165);
        let random = Random::seeded(4);
        let key = pair(KeyType::EcP384);
        let audience = "https://as.example/token";
        let made = client_assertion(&key, "client-1", audience, now, &random).expect("signed");
        let jws = Jws::parse(made.expose()).expect("a JWS");
        assert_eq!(jws.algorithm, Algorithm::Es384);
        assert_eq!(jws.typ.as_deref(), Some("JWT"));
        assert_eq!(jws.kid.as_deref(), Some(key.kid()));
        let claims: Value = jws.verify(&key.public_jwk()).expect("our signature");
        assert_eq!(claims["iss"], "client-1");
        assert_eq!(claims["sub"], "client-1");
        assert_eq!(claims["aud"], audience);
        assert_eq!(claims["iat"], 1_793_607_165 - 60, "servers refuse what was issued ahead of their time");
        assert_eq!(claims["exp"], 1_793_607_165 + 240);
        assert_eq!(claims["jti"].as_str().map(str::len), Some(36));
        assert!(claims.get("nbf").is_none());
    }

    #[test]
    fn every_assertion_has_its_own_jti() {
        let (now, random) = (Timestamp::from_seconds(1_000), Random::seeded(4));
        let key = pair(KeyType::Rsa2048);
        let jti = || {
            let made = client_assertion(&key, "c", "https://as.example/token", now, &random).expect("signed");
            let jws = Jws::parse(made.expose()).expect("a JWS");
            assert_eq!(jws.algorithm, Algorithm::Rs384);
            jws.verify::<Value>(&key.public_jwk()).expect("our signature")["jti"].clone()
        };
        assert_ne!(jti(), jti());
    }

    #[test]
    fn a_key_that_smart_does_not_know_is_refused() {
        let (now, random) = (Timestamp::from_seconds(1_000), Random::seeded(4));
        let refused = client_assertion(&pair(KeyType::EcP256), "c", "https://as.example", now, &random);
        assert_eq!(refused, Err(KeyError::WrongAlgorithm(Algorithm::Es256)));
    }
}

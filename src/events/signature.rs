//! How a delivery proves whom it comes from: the platform's own header, and those of Standard Webhooks.

use crate::clock::Timestamp;
use crate::crypto::{base64, from_base64, hmac_sha256, lower_hex};
use crate::events::{SigningSecret, WebhookEndpoint};

/// What the secret's text begins with; Standard Webhooks takes what follows for base64.
pub(super) const PREFIX: &str = "whsec_";

/// The headers of one attempt.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Signatures {
    /// `Medblocks-Signature`
    pub(super) platform: String,
    /// `webhook-timestamp`
    pub(super) timestamp: String,
    /// `webhook-signature`
    pub(super) standard: String,
}

/// Signs a body as it stands. The time is that of the attempt: receivers refuse what is older than a few minutes.
pub(super) fn sign(endpoint: &WebhookEndpoint, id: &str, now: Timestamp, body: &str) -> Signatures {
    let seconds = now.seconds().to_string();
    // After a rotation the platform's header is made with the new secret only. The contract knows one signature there, and
    // receivers that read the header into a map would take the last of two for the only one.
    let message = [seconds.as_str(), ".", body].concat();
    let platform = lower_hex(&hmac_sha256(endpoint.secret.expose().as_bytes(), message.as_bytes()));
    // Standard Webhooks lets several signatures stand side by side, for exactly this purpose.
    let message = [id, ".", seconds.as_str(), ".", body].concat();
    let earlier = endpoint.earlier_secret.as_ref().filter(|earlier| now < earlier.until);
    let secrets = std::iter::once(&endpoint.secret).chain(earlier.map(|earlier| &earlier.secret));
    let standard: Vec<String> = secrets
        .map(|secret| format!("v1,{}", base64(&hmac_sha256(&standard_key(secret), message.as_bytes()))))
        .collect();
    Signatures {
        platform: format!("t={seconds},v1={platform}"),
        timestamp: seconds,
        standard: standard.join(" "),
    }
}

fn standard_key(secret: &SigningSecret) -> zeroize::Zeroizing<Vec<u8>> {
    let text = secret.expose();
    let decoded = text.strip_prefix(PREFIX).and_then(from_base64);
    zeroize::Zeroizing::new(decoded.unwrap_or_else(|| text.as_bytes().to_vec()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Environment;
    use crate::events::{EarlierSecret, EndpointStatus};
    use crate::id::{Id as _, WebhookEndpointId, WorkspaceId};

    fn endpoint(secret: &str) -> WebhookEndpoint {
        let now = Timestamp::from_seconds(0);
        WebhookEndpoint {
            id: WebhookEndpointId::from_bytes([1; 16]),
            workspace: WorkspaceId::from_bytes([2; 16]),
            environment: Environment::Sandbox,
            url: "https://app.example/hooks".to_owned(),
            events: vec!["*".to_owned()],
            status: EndpointStatus::Active,
            description: None,
            metadata: serde_json::Map::new(),
            api_version: "2026-04-25".to_owned(),
            created_at: now,
            updated_at: now,
            secret: SigningSecret::new(secret),
            earlier_secret: None,
        }
    }

    #[test]
    fn the_example_of_standard_webhooks_comes_out_as_published() {
        // The example of the specification's own libraries.
        let endpoint = endpoint("whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw");
        let signed = sign(
            &endpoint,
            "msg_p5jXN8AQM9LWM0D4loKWxJek",
            Timestamp::from_seconds(1_614_265_330),
            r#"{"test": 2432232314}"#,
        );
        assert_eq!(signed.standard, "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=");
        assert_eq!(signed.timestamp, "1614265330");
    }

    #[test]
    fn the_platforms_signature_takes_the_whole_secret_for_the_key() {
        // Computed with `openssl dgst -sha256 -hmac 'whsec_c2VjcmV0'`.
        let signed = sign(&endpoint("whsec_c2VjcmV0"), "evt_1", Timestamp::from_seconds(1_793_607_165), "{}");
        assert_eq!(signed.platform, format!("t=1793607165,v1={PLATFORM_EXAMPLE}"));
    }

    const PLATFORM_EXAMPLE: &str = "bbd888c7c33f47bf469eeb6ab46b3bd519f206620b50022d73ac0ae954f786dc";

    #[test]
    fn after_a_rotation_the_old_secret_counts_for_a_while_and_only_for_standard_webhooks() {
        let earlier = endpoint("whsec_b2xkZXI=");
        let mut rotated = endpoint("whsec_bmV3ZXI=");
        rotated.earlier_secret =
            Some(EarlierSecret { secret: earlier.secret.clone(), until: Timestamp::from_seconds(1_000) });
        let at = |seconds| sign(&rotated, "evt_1", Timestamp::from_seconds(seconds), "{}");
        let by_old = sign(&earlier, "evt_1", Timestamp::from_seconds(999), "{}");
        let signed = at(999);
        let both: Vec<&str> = signed.standard.split(' ').collect();
        assert_eq!(both.len(), 2);
        assert_eq!(both[1], by_old.standard);
        assert_eq!(signed.platform.matches("v1=").count(), 1);
        assert_ne!(signed.platform, by_old.platform);
        assert_eq!(at(1_000).standard.split(' ').count(), 1, "its time is over");
    }
}

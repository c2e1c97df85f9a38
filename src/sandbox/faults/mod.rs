//! The fault switches: each makes the hospital misbehave in one way that a real server was seen to, or might.
//!
//! All are off by default. They are set with `POST {control}/faults`, whose JSON object is merged over the present
//! switches (`null` turns one off), and all turned off with `DELETE {control}/faults`.

mod values;

use std::collections::BTreeMap;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::clock::Timestamp;

pub use self::values::{
    ExpiresIn, ExpiresInForm, FhirFault, FhirFaultKind, GraceAnswer, RefusalStatus, RetryAfter,
    RetryAfterForm, RevocationFault, RightOrWrong, Rotation, SmartConfigurationFault, TokenEndpointFault,
    TokenError,
};

/// The switches. Names and values are those of the JSON object.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
#[expect(clippy::struct_excessive_bools, reason = "independent switches, not states")]
pub struct Faults {
    /// Seconds an authorization code lives, instead of 60.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub code_life_seconds: Option<u64>,
    /// Whether a refresh replaces the refresh token; the personality decides when absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub refresh_rotation: Option<Rotation>,
    /// For so many seconds after its replacement a superseded refresh token is accepted once more, as servers do that
    /// reckon with lost answers; absent: its use ends the grant.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub superseded_grace_seconds: Option<u64>,
    /// What such a late use gets: `"new"` tokens, which supersede those of the first answer (so it is when absent), or the
    /// `"same"` answer as the first use.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub superseded_grace_answer: Option<GraceAnswer>,
    /// Refreshes refused although the grant holds, as of a suspended app: by patient id, by `grant-` and the grant's
    /// number, or `*` for all. Access tokens stay good. Lasts until it is switched off; then the same refresh token works.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub suspended: BTreeMap<String, TokenError>,
    /// A grant that was refreshed less than so many seconds ago is not refreshed again: 429.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub refresh_interval_seconds: Option<u64>,
    /// No token response carries a refresh token; one given out before stays good.
    #[serde(skip_serializing_if = "is_off")]
    pub no_refresh_token: bool,
    /// Only these resource types are granted, whatever the patient agreed to.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub narrow_scopes: Option<Vec<String>>,
    /// Token responses carry no `patient`.
    #[serde(skip_serializing_if = "is_off")]
    pub drop_patient: bool,
    /// Id tokens carry neither `fhirUser` nor `profile`.
    #[serde(skip_serializing_if = "is_off")]
    pub drop_fhir_user: bool,
    /// Id tokens come from an issuer of another tenant.
    #[serde(skip_serializing_if = "is_off")]
    pub wrong_id_token_issuer: bool,
    /// Id tokens are meant for another client.
    #[serde(skip_serializing_if = "is_off")]
    pub wrong_id_token_audience: bool,
    /// Id tokens carry another `nonce` than was sent.
    #[serde(skip_serializing_if = "is_off")]
    pub wrong_nonce: bool,
    /// Id tokens are signed with a `kid` that the next so many fetches of `/jwk` do not show.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub id_token_unpublished_kid: Option<u32>,
    /// `expires_in` as another number (fractions too), as `"string"`, `"float"` or `"missing"`. A number is also the
    /// real life of the access token, give or take the usual 30 s.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub expires_in: Option<ExpiresIn>,
    /// What the token endpoint does instead of answering.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub token_endpoint: Option<TokenEndpointFault>,
    /// A refusal at the token endpoint, before anything is checked.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub token_error: Option<TokenError>,
    /// `Retry-After` of every 429 and 503 that a switch causes, here, at the revocation endpoint and for FHIR requests.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub retry_after: Option<RetryAfter>,
    /// What the revocation endpoint does instead of revoking.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub revocation_endpoint: Option<RevocationFault>,
    /// How many seconds this hospital's wall clock is ahead of the right time (negative: behind): in `Date`, in the dates
    /// of id tokens, and when an assertion's dates are checked. How long tokens live does not change.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub clock_skew_seconds: Option<i64>,
    /// An OAuth error code that authorize redirects with, or `page` for an error page without a redirect.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub authorize_error: Option<String>,
    /// RFC 9207: the authorization response carries `iss`, and the metadata announces it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub authorize_iss: Option<RightOrWrong>,
    /// The authorization response carries another `state` than was sent.
    #[serde(skip_serializing_if = "is_off")]
    pub wrong_state: bool,
    /// What happens to FHIR requests, by resource type; `*` is every type.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub fhir: BTreeMap<String, FhirFault>,
    /// `next` links lead to another origin.
    #[serde(skip_serializing_if = "is_off")]
    pub next_elsewhere: bool,
    /// `next` links lead to the page they stand on.
    #[serde(skip_serializing_if = "is_off")]
    pub next_loop: bool,
    /// Each later page begins with the last entry of the page before it.
    #[serde(skip_serializing_if = "is_off")]
    pub repeated_ids: bool,
    /// Search results carry an OperationOutcome entry with code `suppressed`.
    #[serde(skip_serializing_if = "is_off")]
    pub suppressed_outcome_entry: bool,
    /// A search page that would show this resource (`Type/id`) answers 500, as that of a server which cannot express one of
    /// its records.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub inexpressible: Option<String>,
    /// `next` links are no longer good (400) when so many pages have been given out.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pages_lapse_after: Option<u32>,
    /// The first page of a search is empty but has a `next` link.
    #[serde(skip_serializing_if = "is_off")]
    pub empty_page_with_next: bool,
    /// What becomes of `smart-configuration`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub smart_configuration: Option<SmartConfigurationFault>,
    /// `smart-configuration` is missing; the CapabilityStatement still names the endpoints.
    #[serde(skip_serializing_if = "is_off")]
    pub capability_statement_only: bool,
    /// A cached client JWKS is kept until it ends, also when an assertion names a key that is not in it.
    #[serde(skip_serializing_if = "is_off")]
    pub no_jwks_refetch: bool,
    /// How many requests are spoilt before all switches turn themselves off; absent: no end.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub times: Option<u32>,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde hands references to `skip_serializing_if`")]
fn is_off(switch: &bool) -> bool {
    !switch
}

impl Faults {
    /// Lays the members of `patch` over the present switches. The error names what is wrong.
    pub(super) fn merged(&self, patch: &Value) -> Result<Self, String> {
        let Value::Object(patch) = patch else {
            return Err("a JSON object of switches is needed".to_owned());
        };
        let mut whole = serde_json::to_value(self).map_err(|error| error.to_string())?;
        if let Value::Object(present) = &mut whole {
            for (name, value) in patch {
                if value.is_null() {
                    present.remove(name);
                } else {
                    present.insert(name.clone(), value.clone());
                }
            }
        }
        serde_json::from_value(whole).map_err(|error| error.to_string())
    }

    /// The refusal of a suspended grant, if it is one.
    pub(super) fn suspension(&self, grant: u64, patient_id: &str) -> Option<&TokenError> {
        let by_grant = self.suspended.get(&format!("grant-{grant}"));
        by_grant.or_else(|| self.suspended.get(patient_id)).or_else(|| self.suspended.get("*"))
    }

    /// This hospital's wall clock, when the right time is `now`.
    pub(super) fn wall_clock(&self, now: Timestamp) -> Timestamp {
        let skew = self.clock_skew_seconds.unwrap_or_default();
        let span = Duration::from_secs(skew.unsigned_abs());
        if skew < 0 { now.before(span) } else { now.after(span) }
    }

    /// The value of `Retry-After`, when it is on.
    pub(super) fn retry_after_value(&self, now: Timestamp) -> Option<String> {
        self.retry_after.map(|wanted| match wanted.form {
            RetryAfterForm::Seconds => wanted.seconds.to_string(),
            RetryAfterForm::Date => {
                self.wall_clock(now).after(Duration::from_secs(wanted.seconds)).http_date()
            }
        })
    }

    /// Whether a later page is still given out; counts it.
    pub(super) fn page_lapsed(&mut self) -> bool {
        match &mut self.pages_lapse_after {
            Some(0) => {
                self.pages_lapse_after = None;
                true
            }
            Some(left) => {
                *left -= 1;
                false
            }
            None => false,
        }
    }

    /// The fault for one resource type, if any.
    pub(super) fn for_type(&self, resource_type: &str) -> Option<FhirFaultKind> {
        self.fhir.get(resource_type).or_else(|| self.fhir.get("*")).map(|fault| fault.status)
    }

    /// Counts one spoilt request; `resource_type` says whose own counter runs down too.
    pub(super) fn spend(&mut self, resource_type: Option<&str>) {
        if let Some(wanted) = resource_type {
            let name = if self.fhir.contains_key(wanted) { wanted } else { "*" };
            let left = self.fhir.get_mut(name).and_then(|fault| fault.times.as_mut());
            if let Some(left) = left {
                *left = left.saturating_sub(1);
                if *left == 0 {
                    self.fhir.remove(name);
                }
            }
        }
        if let Some(left) = &mut self.times {
            *left = left.saturating_sub(1);
            if *left == 0 {
                *self = Self::default();
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn switches_are_merged_and_unknown_ones_refused() {
        let faults = Faults::default()
            .merged(&json!({"drop_patient": true, "fhir": {"Observation": {"status": 429, "times": 2}}}))
            .expect("known switches");
        let faults = faults.merged(&json!({"expires_in": "float", "drop_patient": null})).expect("known");
        assert!(!faults.drop_patient);
        assert_eq!(faults.for_type("Observation"), Some(FhirFaultKind::Status(429)));
        assert_eq!(faults.for_type("Goal"), None);
        let text = serde_json::to_value(&faults).expect("json");
        assert_eq!(
            text,
            json!({"expires_in": "float", "fhir": {"Observation": {"status": 429, "times": 2}}})
        );
        assert!(Faults::default().merged(&json!({"drop_patients": true})).is_err());
        assert!(Faults::default().merged(&json!({"fhir": {"Goal": {"status": 418}}})).is_err());
        let teapot = json!({"suspended": {"*": {"error": "invalid_grant", "status": 418}}});
        assert!(Faults::default().merged(&teapot).is_err());
    }

    #[test]
    fn a_suspension_is_found_by_grant_then_patient_then_for_all() {
        let refusal = |error: &str| json!({ "error": error });
        let patch = json!({"suspended": {
            "*": refusal("everyone"), "p-1": refusal("patient"), "grant-7": refusal("grant"),
        }});
        let faults = Faults::default().merged(&patch).expect("known");
        let found = |grant, patient| faults.suspension(grant, patient).map(|found| found.error.as_str());
        assert_eq!(found(7, "p-1"), Some("grant"));
        assert_eq!(found(8, "p-1"), Some("patient"));
        assert_eq!(found(8, "p-2"), Some("everyone"));
        assert_eq!(Faults::default().suspension(7, "p-1"), None);
    }

    #[test]
    fn retry_after_is_a_number_or_a_date_of_the_skewed_clock() {
        let now = Timestamp::parse("2026-11-02T08:00:00Z").expect("a time");
        let value = |patch: Value| Faults::default().merged(&patch).expect("known").retry_after_value(now);
        assert_eq!(value(json!({})), None);
        assert_eq!(value(json!({"retry_after": {"seconds": 30}})).as_deref(), Some("30"));
        let date = json!({"retry_after": {"seconds": 30, "form": "date"}, "clock_skew_seconds": -60});
        assert_eq!(value(date).as_deref(), Some("Mon, 02 Nov 2026 07:59:30 GMT"));
    }

    #[test]
    fn a_counted_fault_ends_by_itself() {
        let mut faults = Faults::default().merged(&json!({"drop_patient": true, "times": 2})).expect("known");
        faults.spend(None);
        assert!(faults.drop_patient);
        faults.spend(None);
        assert_eq!(faults, Faults::default());

        let mut faults =
            Faults::default().merged(&json!({"fhir": {"*": {"status": "html", "times": 1}}})).expect("known");
        faults.spend(Some("Goal"));
        assert_eq!(faults, Faults::default());
    }
}

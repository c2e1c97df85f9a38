//! Id tokens: what they claim, and the switches that spoil them. OpenID Connect Core section 2.

use serde_json::{Value, json};

use super::Sandbox;
use super::chart::clinician;
use super::faults::Faults;
use super::personality::FhirUser;
use super::state::{Grant, State};
use crate::clock::Timestamp;

/// What an id token takes from the authorization request.
pub(super) struct IdTokenFor {
    pub nonce: Option<String>,
}

impl Sandbox {
    /// The `kid` to sign with: the published one, or one that `/jwk` will show only later.
    pub(super) fn id_token_kid(&self, state: &mut State, faults: &Faults) -> (String, bool) {
        match faults.id_token_unpublished_kid {
            None => (self.keys.kid().to_owned(), false),
            Some(fetches) => {
                let kid = format!("{}.late", self.random.hex::<8>());
                state.late_kid = Some((kid.clone(), fetches));
                (kid, true)
            }
        }
    }

    pub(super) fn id_token_claims(
        &self,
        grant: &Grant,
        wanted: IdTokenFor,
        faults: &Faults,
        now: Timestamp,
        spoilt: &mut bool,
    ) -> Value {
        let person = self.person(&grant.username);
        // Who signed in, which for a caregiver is not whose record is open.
        let clinician = clinician(&grant.username);
        let own = match (&clinician, person) {
            (Some(clinician), _) => format!("Practitioner/{}", clinician.id),
            (None, Some(person)) => format!("Patient/{}", person.patient_id),
            (None, None) => format!("Patient/{}", grant.patient_id),
        };
        let fhir_user = match self.personality.traits().fhir_user {
            FhirUser::Relative => Some(own),
            FhirUser::Absolute => Some(format!("{}/{own}", self.fhir_base_url())),
            FhirUser::Missing => None,
        };
        let name = clinician.as_ref().map(|one| one.display.as_str());
        let now = faults.wall_clock(now);
        let mut claims = json!({
            "iss": self.id_token_issuer(),
            "sub": grant.username,
            "aud": grant.client_id,
            "iat": now.seconds(),
            "exp": now.seconds() + 600,
            "name": name.or(person.map(|person| person.display.as_str())),
        });
        let has = |wanted: &str| grant.scopes.iter().any(|scope| scope == wanted);
        if let Some(fhir_user) = fhir_user.filter(|_| has("fhirUser") || has("profile")) {
            claims["fhirUser"] = json!(fhir_user);
            claims["profile"] = json!(fhir_user);
        }
        if let Some(nonce) = wanted.nonce {
            claims["nonce"] = json!(nonce);
        }
        if faults.drop_fhir_user
            && let Some(members) = claims.as_object_mut()
        {
            members.remove("fhirUser");
            members.remove("profile");
        }
        if faults.wrong_id_token_issuer {
            let other = "00000000-0000-4000-8000-000000000000";
            claims["iss"] = json!(format!("{}/tenants/{other}/oidc/idsps/{other}/", self.urls.origin));
        }
        if faults.wrong_id_token_audience {
            claims["aud"] = json!("another-client");
        }
        if faults.wrong_nonce {
            claims["nonce"] = json!(self.random.token::<16>());
        }
        *spoilt |= faults.drop_fhir_user
            || faults.wrong_id_token_issuer
            || faults.wrong_id_token_audience
            || faults.wrong_nonce;
        claims
    }
}

//! EHR launches: a person in the portal, or a clinician in front of a chart, opens an app.
//! SMART App Launch 2.2 "Launch app: EHR launch".

use std::time::Duration;

use hyper::StatusCode;

use super::authorize::{Objection, with_parameters};
use super::population::{Clinician, clinicians};
use super::state::{Chart, Launch};
use super::web::{Incoming, Reply};
use super::{RegisteredClient, Sandbox, pages};
use crate::clock::Timestamp;

/// The clinician of this login name.
pub(super) fn clinician(username: &str) -> Option<Clinician> {
    clinicians().find(|one| one.username == username)
}

/// How long the value of an EHR launch is good.
const LAUNCH_LIFE: Duration = Duration::from_mins(5);

impl Sandbox {
    /// A clinician's view: this patient, and the visit or else the latest one. `None`: no such clinician, patient or visit.
    pub(super) fn chart(&self, clinician: &str, patient: Option<&str>, visit: Option<&str>) -> Option<Chart> {
        let clinician = self::clinician(clinician)?;
        let mut patients = self.population.patient_ids();
        let patient_id = match patient {
            None => patients.next()?,
            Some(wanted) => patients.find(|known| *known == wanted)?,
        };
        let visits = self.population.of(patient_id, "Encounter");
        let encounter = match visit {
            None => visits.last(),
            Some(wanted) => Some(visits.iter().find(|known| known.id == wanted)?),
        };
        Some(Chart {
            username: clinician.username,
            patient_id: patient_id.to_owned(),
            encounter: encounter.map(|known| known.id.clone()),
            clinician: Some(clinician.id),
        })
    }

    /// What a person sees in the portal: the own record.
    pub(super) fn own_record(&self, username: &str) -> Option<Chart> {
        let person = self.person(username)?;
        Some(Chart {
            username: username.to_owned(),
            patient_id: person.patient_id.clone(),
            encounter: None,
            clinician: None,
        })
    }

    /// Starts an EHR launch; the answer is where the browser goes. `None`: no such client or launch URL.
    pub(super) fn launch_url(&self, client_id: &str, chart: Chart, now: Timestamp) -> Option<String> {
        let launch = self.random.token::<24>();
        let mut state = self.state();
        let target = state.clients.get(client_id)?.launch_url.clone()?;
        let entry = Launch { client_id: client_id.to_owned(), chart, expires_at: now.after(LAUNCH_LIFE) };
        state.launches.insert(launch.clone(), entry);
        Some(with_parameters(&target, &[("iss", self.fhir_base_url().as_str()), ("launch", launch.as_str())]))
    }

    /// What is open behind an EHR launch. The value is good once, and only with the scope `launch`.
    pub(super) fn take_launch(
        &self,
        client: &RegisteredClient,
        launch: Option<&str>,
        scopes: &[String],
        now: Timestamp,
    ) -> Result<Option<Chart>, Objection> {
        let wanted = scopes.iter().any(|scope| scope == "launch");
        match (launch, wanted) {
            (None, false) => Ok(None),
            (None, true) => {
                let urn = "smart-v1:grant:launch:launch-code-required";
                Err(("invalid_request", urn, "scope launch without a launch value"))
            }
            (Some(value), _) => {
                let known = self.state().launches.remove(value);
                match known {
                    Some(known)
                        if wanted && known.expires_at > now && known.client_id == client.client_id =>
                    {
                        Ok(Some(known.chart))
                    }
                    _ => {
                        let urn = "smart-v1:grant:launch:invalid-code";
                        Err((
                            "invalid_request",
                            urn,
                            "launch value unknown, used, old, or scope launch missing",
                        ))
                    }
                }
            }
        }
    }

    /// The buttons that open an app: of the portal (`username`), and of a chart (`clinician` and `patient`).
    pub(super) fn portal_launch(&self, incoming: &Incoming, now: Timestamp) -> Reply {
        let form = incoming.form().unwrap_or_default();
        let chart = match form.one("clinician") {
            Some(clinician) => self.chart(clinician, form.one("patient"), None),
            None => self.own_record(form.one("username").unwrap_or_default()),
        };
        let client = form.one("client_id").unwrap_or_default();
        match chart.and_then(|chart| self.launch_url(client, chart, now)) {
            Some(url) => Reply::redirect(StatusCode::SEE_OTHER, &url),
            None => pages::not_found(),
        }
    }
}

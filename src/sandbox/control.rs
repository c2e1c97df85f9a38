//! The control address, for tests. Its requests are documented at the top of the room.

use std::collections::BTreeMap;
use std::sync::atomic::Ordering;

use hyper::{Method, StatusCode};
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

use super::state::{AutoApprove, GrantId};
use super::web::{Form, Incoming, Reply};
use super::{Faults, RegisteredClient, Sandbox, pages};
use crate::clock::Timestamp;
use crate::crypto::{base64url, sha256};

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Revoke {
    #[serde(default)]
    patient: Option<String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct AdvanceClock {
    seconds: u64,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct StartLaunch {
    client_id: String,
    /// A patient, who opens the app in the portal.
    #[serde(default)]
    username: Option<String>,
    /// A clinician, who opens it in a chart.
    #[serde(default)]
    clinician: Option<String>,
    #[serde(default)]
    patient: Option<String>,
    #[serde(default)]
    encounter: Option<String>,
}

impl Sandbox {
    /// Everything under `{origin}/control/`.
    pub(super) fn control(&self, rest: &[&str], incoming: &Incoming, now: Timestamp) -> Reply {
        let outcome = match (rest, &incoming.method) {
            (["faults"], &Method::GET) => self.show_faults(),
            (["faults"], &Method::POST) => self.merge_faults(incoming),
            (["faults"], &Method::DELETE) => {
                self.state().faults = Faults::default();
                self.show_faults()
            }
            (["auto-approve"], &Method::POST) => self.auto_approve(incoming),
            (["grants"], &Method::GET) => Ok(self.show_grants(incoming)),
            (["revoke"], &Method::POST) => self.revoke_grants(incoming),
            (["advance-clock"], &Method::POST) => self.advance_clock(incoming),
            (["clients"], &Method::POST) => self.register(incoming),
            (["launch"], &Method::POST) => self.start_launch(incoming, now),
            (["log"], &Method::GET) => Ok(json!(self.state().log)),
            (["log"], &Method::DELETE) => {
                let mut state = self.state();
                state.log.clear();
                state.counters.clear();
                Ok(json!({}))
            }
            (["counters"], &Method::GET) => Ok(json!(self.state().counters)),
            _ => return pages::not_found(),
        };
        match outcome {
            Ok(answer) => Reply::json(StatusCode::OK, &answer),
            Err(error) => Reply::json(StatusCode::BAD_REQUEST, &json!({ "error": error })),
        }
    }

    fn start_launch(&self, incoming: &Incoming, now: Timestamp) -> Result<Value, String> {
        let wanted: StartLaunch = read(incoming)?;
        let chart = match (&wanted.username, &wanted.clinician) {
            (Some(username), None) => self.own_record(username),
            (None, Some(clinician)) => {
                self.chart(clinician, wanted.patient.as_deref(), wanted.encounter.as_deref())
            }
            _ => return Err("give either `username` or `clinician`".to_owned()),
        };
        let chart = chart.ok_or("no such user, clinician, patient or encounter")?;
        let url = self.launch_url(&wanted.client_id, chart, now);
        url.map(|url| json!({ "url": url }))
            .ok_or_else(|| "no such client, or it has no launch URL".to_owned())
    }

    fn show_faults(&self) -> Result<Value, String> {
        serde_json::to_value(&self.state().faults).map_err(|error| error.to_string())
    }

    fn merge_faults(&self, incoming: &Incoming) -> Result<Value, String> {
        let patch: Value = read(incoming)?;
        let mut state = self.state();
        state.faults = state.faults.merged(&patch)?;
        drop(state);
        self.show_faults()
    }

    fn auto_approve(&self, incoming: &Incoming) -> Result<Value, String> {
        let wanted: AutoApprove = read(incoming)?;
        if let Some(username) = &wanted.username {
            let records = self.records_of(username);
            if records.is_empty() {
                return Err(format!("no user `{username}`"));
            }
            let patient = wanted.patient.as_ref();
            if patient.is_some_and(|id| !records.iter().any(|one| one.patient_id == *id)) {
                return Err("that user may not open that record".to_owned());
            }
        }
        let answer = json!(wanted);
        self.state().auto_approve = wanted.username.is_some().then_some(wanted);
        Ok(answer)
    }

    /// The grants with the life of their refresh tokens. No token stands in the answer, only digests to compare with.
    fn show_grants(&self, incoming: &Incoming) -> Value {
        let query = Form::parse(incoming.query.as_bytes());
        let patient = query.one("patient");
        let state = self.state();
        let mut tokens: BTreeMap<GrantId, Vec<Value>> = BTreeMap::new();
        for (token, entry) in &state.refresh_tokens {
            tokens.entry(entry.grant).or_default().push(json!({
                "generation": entry.generation, "sha256": base64url(&sha256(token.as_bytes())),
                "current": entry.superseded.is_none(),
            }));
        }
        let meant = state.grants.iter();
        let meant = meant.filter(|(_, grant)| patient.is_none_or(|wanted| grant.patient_id == wanted));
        let shown = meant.map(|(id, grant)| {
            let mut tokens = tokens.remove(id).unwrap_or_default();
            tokens.sort_by_key(|token| token["generation"].as_u64());
            json!({
                "grant": id, "client_id": grant.client_id, "patient": grant.patient_id,
                "username": grant.username, "scope": grant.scopes.join(" "),
                "agreed_at": grant.agreed_at.to_string(), "refreshed_at": grant.refreshed_at.to_string(),
                "refreshes": grant.refreshes, "generation": grant.generation,
                "reuses": grant.reuses, "graced": grant.graced, "ended": grant.ended,
                "refresh_tokens": tokens,
            })
        });
        shown.collect()
    }

    fn revoke_grants(&self, incoming: &Incoming) -> Result<Value, String> {
        let wanted: Revoke = read(incoming)?;
        let mut state = self.state();
        let meant: Vec<u64> = state
            .grants
            .iter()
            .filter(|(_, grant)| grant.ended.is_none())
            .filter(|(_, grant)| wanted.patient.as_ref().is_none_or(|patient| grant.patient_id == *patient))
            .map(|(id, _)| *id)
            .collect();
        for id in &meant {
            state.end_grant(*id, "withdrawn by the patient");
        }
        Ok(json!({"revoked": meant.len()}))
    }

    fn advance_clock(&self, incoming: &Incoming) -> Result<Value, String> {
        let wanted: AdvanceClock = read(incoming)?;
        self.ahead_millis.fetch_add(wanted.seconds.saturating_mul(1000), Ordering::Relaxed);
        Ok(json!({"now": self.now().to_string()}))
    }

    fn register(&self, incoming: &Incoming) -> Result<Value, String> {
        let client: RegisteredClient = read(incoming)?;
        let answer = json!({"client_id": client.client_id});
        let mut state = self.state();
        // The old registration's keys must not stay good for the new one.
        if let Some(uri) = &client.jwks_uri {
            state.jwks.remove(uri.as_str());
        }
        state.clients.insert(client.client_id.clone(), client);
        Ok(answer)
    }
}

/// An empty body counts as `{}`.
fn read<T: DeserializeOwned>(incoming: &Incoming) -> Result<T, String> {
    let body: &[u8] = if incoming.body.is_empty() { b"{}" } else { &incoming.body };
    serde_json::from_slice(body).map_err(|error| error.to_string())
}

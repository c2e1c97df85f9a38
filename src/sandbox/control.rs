//! The control address: see the module's own documentation for every request.

use std::sync::atomic::Ordering;
use std::time::Duration;

use hyper::{Method, StatusCode};
use serde_json::{Value, json};

use super::faults::Faults;
use super::state::AutoApprove;
use super::web::{Incoming, Reply};
use super::{RegisteredClient, Sandbox};
use crate::clock::Timestamp;

impl Sandbox {
    pub(super) fn control(&self, rest: &[&str], incoming: &Incoming, now: Timestamp) -> Reply {
        match self.control_answer(rest, incoming, now) {
            Ok(Some(value)) => Reply::json(StatusCode::OK, &value),
            Ok(None) => Reply::json(StatusCode::NOT_FOUND, &json!({"error": "no such control address"})),
            Err(error) => Reply::json(StatusCode::BAD_REQUEST, &json!({"error": error})),
        }
    }

    fn control_answer(
        &self,
        rest: &[&str],
        incoming: &Incoming,
        now: Timestamp,
    ) -> Result<Option<Value>, String> {
        let method = &incoming.method;
        let answer = match rest {
            ["faults"] if method == Method::POST => {
                let patch = body(incoming)?;
                let mut state = self.state();
                state.faults = state.faults.merged(&patch)?;
                shown(&state.faults)
            }
            ["faults"] if method == Method::DELETE => {
                self.state().faults = Faults::default();
                json!({})
            }
            ["faults"] if method == Method::GET => shown(&self.state().faults),
            ["auto-approve"] if method == Method::POST => {
                let choice: AutoApprove = read(incoming)?;
                if let Some(name) = choice.username.as_deref().filter(|name| self.person(name).is_none()) {
                    return Err(format!("there is no user `{name}`"));
                }
                let value = serde_json::to_value(&choice).unwrap_or_default();
                self.state().auto_approve = Some(choice);
                value
            }
            ["revoke"] if method == Method::POST => {
                let wanted = body(incoming)?;
                let patient = wanted["patient"].as_str();
                let mut state = self.state();
                let ids: Vec<u64> = state
                    .grants
                    .iter()
                    .filter(|(_, grant)| {
                        grant.ended.is_none() && patient.is_none_or(|id| grant.patient_id == id)
                    })
                    .map(|(id, _)| *id)
                    .collect();
                for id in &ids {
                    state.end_grant(*id, "revoked by the control address");
                }
                json!({"revoked": ids.len()})
            }
            ["advance-clock"] if method == Method::POST => {
                let seconds =
                    body(incoming)?["seconds"].as_u64().ok_or("`seconds` must be a whole number")?;
                let millis = seconds.checked_mul(1000).ok_or("`seconds` is too large")?;
                self.ahead_millis.fetch_add(millis, Ordering::Relaxed);
                json!({"now": now.after(Duration::from_secs(seconds)).to_string()})
            }
            ["clients"] if method == Method::POST => {
                let client: RegisteredClient = read(incoming)?;
                let id = client.client_id.clone();
                let mut state = self.state();
                state.jwks.clear();
                state.clients.insert(id.clone(), client);
                json!({"client_id": id})
            }
            ["launch"] if method == Method::POST => {
                let wanted = body(incoming)?;
                let text = |name: &str| wanted[name].as_str().unwrap_or_default().to_owned();
                let url = self.launch_url(&text("client_id"), &text("username"), now);
                json!({"url": url.ok_or("no such client with a launch URL, or no such user")?})
            }
            ["log"] if method == Method::GET => {
                let state = self.state();
                serde_json::to_value(state.log.iter().collect::<Vec<_>>())
                    .map_err(|error| error.to_string())?
            }
            ["log"] if method == Method::DELETE => {
                let mut state = self.state();
                state.log.clear();
                state.counters.clear();
                json!({})
            }
            ["counters"] if method == Method::GET => json!(self.state().counters),
            _ => return Ok(None),
        };
        Ok(Some(answer))
    }
}

fn shown(faults: &Faults) -> Value {
    serde_json::to_value(faults).unwrap_or_default()
}

fn body(incoming: &Incoming) -> Result<Value, String> {
    if incoming.body.is_empty() {
        return Ok(json!({}));
    }
    serde_json::from_slice(&incoming.body).map_err(|error| format!("the body is not JSON: {error}"))
}

fn read<T: serde::de::DeserializeOwned>(incoming: &Incoming) -> Result<T, String> {
    serde_json::from_value(body(incoming)?).map_err(|error| error.to_string())
}

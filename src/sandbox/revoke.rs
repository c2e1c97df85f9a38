//! Revocation (RFC 7009) and introspection (RFC 7662).

use hyper::StatusCode;
use serde_json::{Value, json};

use super::assertion::Refusal;
use super::faults::RevocationFault;
use super::state::{GrantId, State};
use super::web::{Form, Incoming, Reply};
use super::{Sandbox, pages};
use crate::clock::Timestamp;
use crate::crypto::Jws;

impl Sandbox {
    /// RFC 7009. An unknown token is no error; a refresh token takes its access tokens along.
    pub(super) async fn revoke(&self, incoming: &Incoming, now: Timestamp) -> Reply {
        let form = incoming.form().unwrap_or_default();
        let asked = json!({"client_id": form.one("client_id"), "hint": form.one("token_type_hint")});
        if let Some(reply) = self.revocation_fault(now) {
            return reply.faulty().asked(asked);
        }
        if !self.revokes() {
            return pages::not_found().asked(asked);
        }
        // The endpoint itself may be named as `aud`, but SMART's assertions are for the token URL; both pass.
        let audiences = [self.urls.token(), self.urls.token_without_host(), self.urls.revoke()];
        let named = named_audience(&form);
        let own_url = audiences.iter().find(|one| Some(*one) == named.as_ref()).unwrap_or(&audiences[2]);
        let client = match self.authenticate(incoming, &form, own_url, now).await {
            Ok((client, _)) => client,
            Err(refusal) => return self.refuse_token(&refusal).asked(asked),
        };
        let Some(token) = form.one("token") else {
            let refusal = Refusal::new("invalid_request", "oauth2:token:invalid-request", "no token");
            return self.refuse_token(&refusal).asked(asked);
        };
        let mut state = self.state();
        let refresh = state.refresh_tokens.get(token).map(|entry| entry.grant);
        let access = state.access_tokens.get(token).map(|entry| entry.grant);
        let owned = |state: &State, id: GrantId| {
            state.grants.get(&id).is_some_and(|grant| grant.client_id == client.client_id)
        };
        let reason = if let Some(grant) = refresh.filter(|id| owned(&state, *id)) {
            state.end_grant(grant, "revoked by the client");
            "grant revoked"
        } else if access.is_some_and(|id| owned(&state, id)) {
            state.access_tokens.remove(token);
            "access token revoked"
        } else {
            "unknown token"
        };
        drop(state);
        Reply::status(StatusCode::OK, reason).asked(asked)
    }

    fn revocation_fault(&self, now: Timestamp) -> Option<Reply> {
        let faults = self.state().faults.clone();
        Some(match faults.revocation_endpoint? {
            RevocationFault::Absent => pages::not_found().because("switched"),
            RevocationFault::Unavailable => Reply::status(StatusCode::SERVICE_UNAVAILABLE, "switched")
                .retry_after(faults.retry_after_value(now)),
            RevocationFault::UnsupportedTokenType => {
                let urn = "oauth2:token:unsupported-token-type";
                self.refuse_token(&Refusal::new("unsupported_token_type", urn, "switched"))
            }
            RevocationFault::Hang => Reply::hanging("held back"),
        })
    }

    /// RFC 7662, for clients that authenticate.
    pub(super) async fn introspect(&self, incoming: &Incoming, now: Timestamp) -> Reply {
        if !self.personality.traits().introspects {
            return pages::not_found();
        }
        let form = incoming.form().unwrap_or_default();
        let own_url = match named_audience(&form) {
            Some(named) if named == self.urls.token() => named,
            _ => self.urls.introspect(),
        };
        let client = match self.authenticate(incoming, &form, &own_url, now).await {
            Ok((client, _)) => client,
            Err(refusal) => return self.refuse_token(&refusal),
        };
        let state = self.state();
        let token = form.one("token").unwrap_or_default();
        let entry = state.access_tokens.get(token).filter(|entry| entry.expires_at > now);
        let found = entry.and_then(|entry| {
            let grant = state.grants.get(&entry.grant)?;
            (grant.client_id == client.client_id).then(|| {
                json!({
                    "active": true, "scope": entry.scopes.join(" "), "client_id": grant.client_id,
                    "exp": entry.expires_at.seconds(), "patient": grant.patient_id,
                    "iss": self.id_token_issuer(), "sub": grant.username,
                })
            })
        });
        Reply::json(StatusCode::OK, &found.unwrap_or(json!({"active": false})))
    }
}

/// What an assertion says it is for; only to choose among our own addresses, the signature is checked later.
fn named_audience(form: &Form) -> Option<String> {
    let jws = Jws::parse(form.one("client_assertion")?).ok()?;
    let claims: Value = jws.unverified_claims().ok()?;
    claims["aud"].as_str().map(str::to_owned)
}

//! The token endpoint: who asks, the code exchange, and the answer. `refresh` decides about refreshes.
//! SMART App Launch 2.2 "Obtain access token", RFC 6749 sections 4.1.3 and 5, RFC 7636.

use std::time::Duration;

use hyper::{StatusCode, header};
use serde_json::{Map, Value, json};

use super::assertion::Refusal;
use super::authorize::{full_urn, set_correlation_id};
use super::faults::{ExpiresIn, ExpiresInForm, Faults, TokenEndpointFault};
use super::id_token::IdTokenFor;
use super::personality::ErrorStyle;
use super::state::{AccessTokenEntry, CodeUse, Grant, GrantId};
use super::web::{Form, Incoming, Reply};
use super::{RegisteredClient, Sandbox, scope};
use crate::clock::Timestamp;
use crate::crypto::{Jws, base64url, constant_time_eq, sha256};

/// How long a code is good (SMART: about a minute).
const CODE_LIFE: Duration = Duration::from_mins(1);
/// What `expires_in` leaves out of a token's real life: Oracle Health says 570 of 600.
const UNSPOKEN_LIFE: Duration = Duration::from_secs(30);

const BAD_CODE: &str = "oauth2:token:code-invalid-or-expired";

/// What a request for tokens comes to.
pub(super) enum Granted {
    /// Tokens are to be written out.
    Issue(Issue),
    /// The answer that was given before.
    Again(GrantId, Value),
}

/// A grant for which tokens are to be written out.
pub(super) struct Issue {
    pub grant: GrantId,
    pub scopes: Vec<String>,
    /// Sign-in data for the id token; a refresh has none.
    pub id_token: Option<IdTokenFor>,
    pub new_refresh_token: bool,
    /// The refresh token that was used.
    pub replaces: Option<String>,
    /// A switch let pass what would have been refused.
    pub switched: bool,
}

impl Sandbox {
    /// POST of the token endpoint. `own_url` is the URL that was posted to, if it is one of this tenant's.
    pub(super) async fn token(&self, own_url: Option<&str>, incoming: &Incoming, now: Timestamp) -> Reply {
        let form = incoming.form();
        let field = |name| form.as_ref().and_then(|form| form.one(name)).map(str::to_owned);
        let mut asked = json!({
            "grant_type": field("grant_type"), "client_id": field("client_id"), "scope": field("scope"),
            "redirect_uri": field("redirect_uri"), "code_verifier": field("code_verifier").is_some(),
            "client_id_in_body": field("client_id").is_some(), "assertion_alg": field("client_assertion")
                .and_then(|assertion| Jws::parse(&assertion).ok().map(|jws| jws.algorithm.name())),
            "content_type": incoming.header(&header::CONTENT_TYPE),
        });
        let faults = self.state().faults.clone();
        if let Some(reply) = self.endpoint_fault(&faults, now) {
            return reply.asked(asked);
        }
        let outcome = self.grant_tokens(own_url, form.as_ref(), incoming, &mut asked, now).await;
        let reply = match outcome {
            Err(refusal) => self.refuse_token(&refusal),
            Ok(Granted::Issue(issue)) => self.write_tokens(issue, &faults, now),
            Ok(Granted::Again(_, answer)) => {
                Reply::json(StatusCode::OK, &answer).faulty().because("the first answer again")
            }
        };
        let lost = faults.token_endpoint == Some(TokenEndpointFault::TimeoutAfterRotation);
        let mut reply = reply.asked(asked);
        if lost {
            reply.hangs = true;
            reply = reply.faulty().because("carried out, the answer held back");
        }
        reply
    }

    fn endpoint_fault(&self, faults: &Faults, now: Timestamp) -> Option<Reply> {
        if let Some(error) = &faults.token_error {
            return Some(self.refuse_token(&Refusal::switched(error, "server-error", "switched")));
        }
        let retry_after = faults.retry_after_value(now);
        let reply = match faults.token_endpoint? {
            TokenEndpointFault::TooMany => {
                Reply::status(StatusCode::TOO_MANY_REQUESTS, "switched").retry_after(retry_after)
            }
            TokenEndpointFault::Unavailable => {
                Reply::status(StatusCode::SERVICE_UNAVAILABLE, "switched").retry_after(retry_after)
            }
            TokenEndpointFault::Html => {
                Reply::bytes(StatusCode::FORBIDDEN, "text/html", "<html><h1>Request blocked</h1></html>")
            }
            TokenEndpointFault::Hang => Reply::hanging("held back"),
            TokenEndpointFault::Redirect => {
                let to = format!("{}/token", self.urls.elsewhere);
                Reply::redirect(StatusCode::TEMPORARY_REDIRECT, &to)
            }
            TokenEndpointFault::Empty => Reply::status(StatusCode::OK, "switched"),
            TokenEndpointFault::TimeoutAfterRotation => return None,
        };
        Some(reply.faulty())
    }

    async fn grant_tokens(
        &self,
        own_url: Option<&str>,
        form: Option<&Form>,
        incoming: &Incoming,
        asked: &mut Value,
        now: Timestamp,
    ) -> Result<Granted, Refusal> {
        let malformed =
            |reason: &str| Refusal::new("invalid_request", "oauth2:token:invalid-request", reason);
        let own_url = own_url.ok_or_else(|| {
            Refusal::new("invalid_grant", "oauth2:token:invalid-tenant", "not a token URL of this tenant")
        })?;
        let form = form.ok_or_else(|| malformed("the body is not a form"))?;
        if let Some(name) = form.repeated() {
            return Err(malformed(&format!("`{name}` came twice")));
        }
        let (client, method) = self.authenticate(incoming, form, own_url, now).await?;
        asked["auth_method"] = json!(method);
        asked["client_id"] = json!(client.client_id);
        let outcome = match form.one("grant_type") {
            Some("authorization_code") => self.exchange_code(&client, form, now).map(Granted::Issue),
            Some("refresh_token") => self.refresh(&client, form, now),
            Some(_) => {
                let urn = "oauth2:token:unsupported-grant-type";
                Err(Refusal::new("unsupported_grant_type", urn, "unknown grant_type"))
            }
            None => Err(malformed("no grant_type")),
        };
        if let Ok(Granted::Issue(Issue { grant, .. }) | Granted::Again(grant, _)) = &outcome {
            asked["grant"] = json!(grant);
        }
        outcome.map_err(|refusal| Refusal { client_id: Some(client.client_id), ..refusal })
    }

    fn exchange_code(
        &self,
        client: &RegisteredClient,
        form: &Form,
        now: Timestamp,
    ) -> Result<Issue, Refusal> {
        let traits = self.personality.traits();
        let refuse = |urn: &str, reason: &str| {
            let (status, error) = traits.dead_code;
            Refusal::with_status(status, error, urn, reason)
        };
        let code = form
            .one("code")
            .ok_or_else(|| Refusal::new("invalid_request", "oauth2:token:code:invalid", "no code"))?;
        let mut state = self.state();
        let life = state.faults.code_life_seconds.map_or(CODE_LIFE, Duration::from_secs);
        let narrow = state.faults.narrow_scopes.clone();
        let known = state.codes.get_mut(code).ok_or_else(|| refuse(BAD_CODE, "unknown code"))?;
        if known.asked.client_id != client.client_id {
            // Someone else's attempt must not spoil the code for its owner.
            return Err(refuse("oauth2:token:code:client:mismatch", "the code belongs to another client"));
        }
        match std::mem::replace(&mut known.used, CodeUse::Failed) {
            CodeUse::Unused => {}
            CodeUse::Failed => return Err(refuse(BAD_CODE, "the code was tried before")),
            CodeUse::Redeemed(grant) => {
                // RFC 6749 section 4.1.2: tokens issued from a code that is used again should be revoked.
                state.end_grant(grant, "its code was used twice");
                return Err(refuse(BAD_CODE, "the code was used before"));
            }
        }
        let known = known.clone();
        if known.issued_at.after(life) <= now {
            return Err(refuse(BAD_CODE, "the code is too old"));
        }
        if form.one("redirect_uri") != Some(known.asked.redirect_uri.as_str()) {
            return Err(refuse(
                "oauth2:token:invalid-redirect-uri",
                "another redirect_uri than at authorize",
            ));
        }
        let verifier = form.one("code_verifier").ok_or_else(|| refuse(BAD_CODE, "no code_verifier"))?;
        if !is_verifier(verifier) {
            return Err(refuse(BAD_CODE, "code_verifier is not 43 to 128 unreserved characters"));
        }
        let challenge = base64url(&sha256(verifier.as_bytes()));
        if !constant_time_eq(challenge.as_bytes(), known.asked.challenge.as_bytes()) {
            return Err(refuse(BAD_CODE, "wrong code_verifier"));
        }
        let mut scopes = known.asked.scopes;
        if let Some(types) = narrow {
            scopes.retain(|scope| {
                scope::parse(scope).is_none_or(|one| types.iter().any(|kept| kept == one.resource_type))
            });
        }
        if scopes.is_empty() {
            return Err(Refusal::new("invalid_scope", "oauth2:token:empty-scopes", "no scope is left"));
        }
        let grant = state.add_grant(Grant {
            client_id: client.client_id.clone(),
            username: known.username,
            patient_id: known.patient_id,
            chart: known.asked.launched_by,
            scopes: scopes.clone(),
            agreed_at: now,
            refreshed_at: now,
            refreshes: 0,
            generation: 0,
            reuses: 0,
            graced: 0,
            ended: None,
        });
        if let Some(code) = state.codes.get_mut(code) {
            code.used = CodeUse::Redeemed(grant);
        }
        let has = |wanted: &str| scopes.iter().any(|scope| scope == wanted);
        let id_token = has("openid").then_some(IdTokenFor { nonce: known.asked.nonce });
        let asked = has("offline_access") || has("online_access");
        let lasting = asked || (traits.offline_by_registration && client.offline);
        let new_refresh_token = lasting && !state.faults.no_refresh_token;
        Ok(Issue { grant, scopes, id_token, new_refresh_token, replaces: None, switched: false })
    }

    /// The answer of RFC 6749 section 5.1 with SMART's context.
    fn write_tokens(&self, issue: Issue, faults: &Faults, now: Timestamp) -> Reply {
        let traits = self.personality.traits();
        let mut spoilt = faults.drop_patient || issue.switched;
        let announced = match &faults.expires_in {
            Some(ExpiresIn::Number(number)) => number.as_f64().unwrap_or_default().max(0.0),
            Some(ExpiresIn::Form(_)) | None => traits.expires_in,
        };
        let life = Duration::try_from_secs_f64(announced).unwrap_or_default() + UNSPOKEN_LIFE;
        let access_token = self.random.token::<192>();
        let mut answer = json!({
            "access_token": access_token,
            "token_type": "Bearer",
            "scope": scope::echo(&issue.scopes, traits),
        });
        let more: Map<String, Value> = serde_json::from_str(traits.more_members).unwrap_or_default();
        for (name, value) in more {
            answer[name.as_str()] = value;
        }
        match &faults.expires_in {
            None => answer["expires_in"] = seconds(traits.expires_in),
            Some(ExpiresIn::Number(number)) => answer["expires_in"] = json!(number),
            Some(ExpiresIn::Form(ExpiresInForm::String)) => {
                answer["expires_in"] = json!(seconds(traits.expires_in).to_string());
            }
            Some(ExpiresIn::Form(ExpiresInForm::Float)) => answer["expires_in"] = json!(announced + 0.52),
            Some(ExpiresIn::Form(ExpiresInForm::Missing)) => {}
        }
        spoilt |= faults.expires_in.is_some() || faults.narrow_scopes.is_some() || faults.no_refresh_token;
        let mut state = self.state();
        let Some(grant) = state.grants.get(&issue.grant).cloned() else {
            drop(state);
            return self.refuse_token(&Refusal::new("server_error", "server-error", "the grant is gone"));
        };
        if traits.names_patient && !faults.drop_patient {
            answer["patient"] = json!(grant.patient_id);
        }
        if let Some(chart) = &grant.chart {
            answer["user"] = json!(chart.clinician);
            answer["username"] = json!(chart.username);
            answer["smart_style_url"] = json!("https://style.sandbox-hospital.example/smart-v1.json");
            if let Some(encounter) = &chart.encounter {
                answer["encounter"] = json!(encounter);
            }
        }
        if issue.new_refresh_token {
            let token = self.new_refresh_token();
            answer["refresh_token"] = json!(token);
            state.add_refresh_token(issue.grant, token);
            let replaced = issue.replaces.and_then(|old| state.refresh_tokens.get_mut(&old));
            if let Some(since) = replaced.and_then(|old| old.superseded.as_mut()) {
                since.answer = Some(answer.clone());
            }
        }
        let entry =
            AccessTokenEntry { grant: issue.grant, scopes: issue.scopes, expires_at: now.after(life) };
        state.access_tokens.insert(access_token, entry);
        if let Some(wanted) = issue.id_token {
            let (kid, id_fault) = self.id_token_kid(&mut state, faults);
            drop(state);
            spoilt |= id_fault;
            let claims = self.id_token_claims(&grant, wanted, faults, now, &mut spoilt);
            match self.keys.id_token(&kid, &claims) {
                Ok(token) => answer["id_token"] = json!(token),
                Err(error) => {
                    let refusal = Refusal::new("server_error", "server-error", error.to_string());
                    return self.refuse_token(&refusal);
                }
            }
        }
        Reply::json(StatusCode::OK, &answer).faulty_if(spoilt)
    }

    /// Long and opaque; inside it looks like the real ones, base64 of a small object.
    fn new_refresh_token(&self) -> String {
        let inside = json!({
            "id": self.random.uuid(), "secret": self.random.token::<32>(), "ver": "1.0",
            "type": "offline_access", "profile": "smart-v1", "persona": "patient",
        });
        base64url(inside.to_string().as_bytes())
    }

    /// The refusal as Oracle Health writes it: `error_uri`, no `error_description`.
    pub(super) fn refuse_token(&self, refusal: &Refusal) -> Reply {
        let status = refusal.status;
        if status == StatusCode::TOO_MANY_REQUESTS {
            // A limit stands in front of the authorization server, which never sees the request.
            let retry_after = self.state().faults.retry_after_value(self.now());
            return Reply::status(status, refusal.reason.as_str()).retry_after(retry_after).faulty();
        }
        let instance = self.random.uuid();
        let client = refusal.client_id.as_deref().unwrap_or("unknown");
        let mut body = json!({ "error": refusal.error });
        match self.personality.traits().error_style {
            ErrorStyle::Uri => {
                body["error_uri"] = json!(self.urls.error(&full_urn(&refusal.urn), &instance, client));
            }
            ErrorStyle::Description => body["error_description"] = json!(refusal.reason),
            ErrorStyle::NullDescription => body["error_description"] = Value::Null,
        }
        let mut reply = Reply::json(status, &body).because(format!("{}: {}", refusal.error, refusal.reason));
        set_correlation_id(&mut reply, &instance);
        if status == StatusCode::UNAUTHORIZED {
            reply = reply.with(header::WWW_AUTHENTICATE, "Basic realm=\"sandbox\"");
        }
        reply.faulty_if(refusal.switched)
    }
}

/// Whole seconds are written as such.
fn seconds(seconds: f64) -> Value {
    let whole = Duration::try_from_secs_f64(seconds).unwrap_or_default();
    if whole.subsec_nanos() == 0 { json!(whole.as_secs()) } else { json!(seconds) }
}

/// RFC 7636 section 4.1.
fn is_verifier(text: &str) -> bool {
    (43..=128).contains(&text.len())
        && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_' | b'~'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_verifier_has_43_to_128_unreserved_characters() {
        assert!(is_verifier("dBjftJeZ4CVP-mB92K27uhbUJU1p1r_wW1gFWFOEjXk"));
        assert!(!is_verifier(&"a".repeat(42)));
        assert!(!is_verifier(&"a".repeat(129)));
        assert!(!is_verifier(&"+".repeat(43)));
    }
}

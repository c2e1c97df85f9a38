//! The authorization endpoint: checks of the request, log-in, consent, and the way back to the client.
//! SMART App Launch 2.2 "Obtain authorization code"; RFC 6749 section 4.1; RFC 7636; RFC 9207.

use std::time::Duration;

use hyper::{Method, StatusCode};
use serde_json::json;
use url::Url;

use super::personality::{Audience, ErrorStyle};
use super::state::{Asked, Code, CodeUse, Ticket};
use super::urls::{TENANT, encode};
use super::web::{Form, Incoming, Reply};
use super::{RegisteredClient, Sandbox, pages, scope};
use crate::clock::Timestamp;

/// How long a log-in page may stay open. Hospital log-ins are slow.
const TICKET_LIFE: Duration = Duration::from_hours(1);

/// Why a request is refused with a redirect: OAuth code, urn suffix, reason for the log.
pub(super) type Objection = (&'static str, &'static str, &'static str);

/// What a person decided on the consent page.
pub(super) struct Decision<'d> {
    pub username: &'d str,
    pub patient_id: &'d str,
    /// Scopes that stay.
    pub scopes: Vec<String>,
}

impl Sandbox {
    /// GET or POST of the authorization endpoint.
    pub(super) fn authorize(
        &self,
        tenant: &str,
        persona: &str,
        incoming: &Incoming,
        now: Timestamp,
    ) -> Reply {
        let form = if incoming.method == Method::GET {
            Form::parse(incoming.query.as_bytes())
        } else {
            incoming.form().unwrap_or_default()
        };
        let asked = json!({
            "client_id": form.one("client_id"), "redirect_uri": form.one("redirect_uri"),
            "scope": form.one("scope"), "aud": form.one("aud"), "response_type": form.one("response_type"),
            "code_challenge_method": form.one("code_challenge_method"),
            "state": form.one("state").is_some(), "nonce": form.one("nonce").is_some(),
            "launch": form.one("launch").is_some(), "persona": persona,
        });
        self.consider(tenant, persona, &form, now).asked(asked)
    }

    fn consider(&self, tenant: &str, persona: &str, form: &Form, now: Timestamp) -> Reply {
        let client_id = form.one("client_id").unwrap_or_default();
        // Until client and redirect URI are known to belong together, nothing may be redirected (RFC 6749 4.1.2.1).
        let page = |urn: &str, reason: &str| self.error_page(urn, client_id, reason);
        if tenant != TENANT {
            return page("oauth2:grant:unknown-tenant", "unknown tenant");
        }
        if form.repeated().is_some() {
            return page("oauth2:grant:invalid-request", "a parameter came twice");
        }
        let (client, faults) = {
            let state = self.state();
            (state.clients.get(client_id).cloned(), state.faults.clone())
        };
        let Some(client) = client else {
            return page("oauth2:grant:unknown-client", "unknown client");
        };
        let redirect_uri = match check_redirect_uri(&client, form.one("redirect_uri")) {
            Ok(uri) => uri.to_owned(),
            Err(urn) => return page(urn, "redirect_uri is not registered"),
        };
        if let Some(error) = &faults.authorize_error {
            if error == "page" {
                return page("oauth2:grant:server-error", "switched").faulty();
            }
            let urn = match error.as_str() {
                "access_denied" => "oauth2:grant:denied-by-server",
                "unauthorized_client" => "oauth2:grant:unauthorized-client-for-tenant",
                _ => "server-error",
            };
            return self
                .refuse(&redirect_uri, form.one("state"), client_id, (error, urn), "switched")
                .faulty();
        }
        match self.check_request(persona, &client, form, &redirect_uri, now) {
            Err((error, urn, reason)) => {
                self.refuse(&redirect_uri, form.one("state"), client_id, (error, urn), reason)
            }
            Ok(asked) => self.meet(&asked, now),
        }
    }

    fn check_request(
        &self,
        persona: &str,
        client: &RegisteredClient,
        form: &Form,
        redirect_uri: &str,
        now: Timestamp,
    ) -> Result<Asked, Objection> {
        const MALFORMED: &str = "oauth2:grant:invalid-request";
        const AUDIENCE: &str = "smart-v1:grant:launch:unknown-resource-server";
        let invalid = |urn, reason| ("invalid_request", urn, reason);
        let traits = self.personality.traits();
        if persona != traits.persona.word() {
            let urn = "oauth2:grant:client-persona-mismatch";
            return Err(("unauthorized_client", urn, "another persona than this server's"));
        }
        match form.one("response_type") {
            Some("code") => {}
            Some(_) => {
                let urn = "oauth2:grant:unsupported-response-type";
                return Err(("unsupported_response_type", urn, "response_type is not code"));
            }
            None => return Err(invalid(MALFORMED, "no response_type")),
        }
        let state = form.one("state").ok_or(invalid(MALFORMED, "no state"))?;
        let wanted = form.one("scope").ok_or(invalid(MALFORMED, "no scope"))?;
        match (form.one("aud"), traits.audience) {
            (None, Audience::Required) => {
                return Err(invalid("smart-v1:grant:launch:audience-required", "no aud"));
            }
            (Some(_), Audience::Refused) => return Err(invalid(MALFORMED, "aud is not known here")),
            // Compared as it is: neither another case nor a slash more is the same server.
            (Some(audience), _) if audience != self.fhir_base_url() => {
                return Err(invalid(AUDIENCE, "aud is not this FHIR base"));
            }
            (Some(_) | None, _) => {}
        }
        let challenge = form.one("code_challenge").ok_or(invalid(MALFORMED, "no code_challenge"))?;
        if form.one("code_challenge_method") != Some("S256") {
            return Err(invalid(MALFORMED, "code_challenge_method is not S256"));
        }
        let is_base64url = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_');
        if challenge.len() != 43 || !challenge.bytes().all(is_base64url) {
            return Err(invalid(MALFORMED, "code_challenge is no base64url of a SHA-256"));
        }
        let scopes = scope::trim(wanted, client, traits);
        if scopes.is_empty() {
            return Err(("invalid_scope", "oauth2:token:empty-scopes", "no scope is left after trimming"));
        }
        let launched_by = self.take_launch(client, form.one("launch"), &scopes, now)?;
        Ok(Asked {
            client_id: client.client_id.clone(),
            redirect_uri: redirect_uri.to_owned(),
            state: state.to_owned(),
            scopes,
            challenge: challenge.to_owned(),
            nonce: form.one("nonce").map(str::to_owned),
            launched_by,
        })
    }

    /// A valid request meets its person: the stand-in of auto-approval, someone logged in already, or the log-in page.
    fn meet(&self, asked: &Asked, now: Timestamp) -> Reply {
        let stand_in = self.state().auto_approve.clone();
        // Staff who opened an app need no stand-in, unless it is to say no.
        let staff = asked.launched_by.as_ref().is_some_and(|chart| chart.clinician.is_some());
        let stand_in = stand_in.filter(|choice| !staff || choice.deny);
        if let Some((username, choice)) =
            stand_in.and_then(|one| one.username.clone().map(|name| (name, one)))
        {
            if choice.deny {
                return self.deny(asked);
            }
            let records = self.records_of(&username);
            let wanted = choice.patient.as_deref().or(records.first().map(|one| one.patient_id.as_str()));
            let Some(patient_id) = wanted.map(str::to_owned) else {
                return self.deny(asked);
            };
            let refused = |scope: &String| {
                choice.deny_scopes.iter().any(|denied| {
                    denied == scope
                        || scope::parse(scope).is_some_and(|parsed| parsed.resource_type == denied)
                })
            };
            let scopes = asked.scopes.iter().filter(|scope| !refused(scope)).cloned().collect();
            return self.agree(asked, Decision { username: &username, patient_id: &patient_id, scopes }, now);
        }
        if let Some(chart) = asked.launched_by.clone() {
            if chart.clinician.is_none() {
                return self.consent_page(asked, &chart.username, now);
            }
            // The hospital has decided for its staff.
            let (username, patient_id) = (chart.username.as_str(), chart.patient_id.as_str());
            let scopes = asked.scopes.clone();
            return self.agree(asked, Decision { username, patient_id, scopes }, now);
        }
        let ticket = self.issue_ticket(asked.clone(), None, now);
        pages::log_in(self, asked, &ticket, false)
    }

    fn issue_ticket(&self, asked: Asked, username: Option<String>, now: Timestamp) -> String {
        let ticket = self.random.token::<32>();
        let entry = Ticket { asked, username, expires_at: now.after(TICKET_LIFE) };
        self.state().tickets.insert(ticket.clone(), entry);
        ticket
    }

    fn take_ticket(&self, form: &Form, now: Timestamp) -> Option<Ticket> {
        let ticket = self.state().tickets.remove(form.one("ticket")?)?;
        (ticket.expires_at > now).then_some(ticket)
    }

    fn consent_page(&self, asked: &Asked, username: &str, now: Timestamp) -> Reply {
        let ticket = self.issue_ticket(asked.clone(), Some(username.to_owned()), now);
        pages::consent(self, asked, &ticket, username)
    }

    /// POST of the log-in form.
    pub(super) fn log_in(&self, incoming: &Incoming, now: Timestamp) -> Reply {
        let form = incoming.form().unwrap_or_default();
        let Some(ticket) = self.take_ticket(&form, now) else {
            return self.error_page("oauth2:grant:csrf-security-failure", "", "unknown or used ticket");
        };
        let username = form.one("username").unwrap_or_default();
        let known = self.person(username).filter(|one| form.one("password") == Some(one.password.as_str()));
        if known.is_some() {
            return self.consent_page(&ticket.asked, username, now);
        }
        let again = self.issue_ticket(ticket.asked.clone(), None, now);
        pages::log_in(self, &ticket.asked, &again, true)
    }

    /// POST of the consent form.
    pub(super) fn consent(&self, incoming: &Incoming, now: Timestamp) -> Reply {
        let form = incoming.form().unwrap_or_default();
        let Some(Ticket { asked, username: Some(username), .. }) = self.take_ticket(&form, now) else {
            return self.error_page("oauth2:grant:csrf-security-failure", "", "unknown or used ticket");
        };
        let patient_id = form.one("patient").unwrap_or_default();
        if form.one("decision") != Some("allow") {
            return self.deny(&asked);
        }
        if !self.records_of(&username).iter().any(|one| one.patient_id == patient_id) {
            let urn = "oauth2:grant:invalid-patient-id";
            let error = ("access_denied", urn);
            return self.refuse(
                &asked.redirect_uri,
                Some(&asked.state),
                &asked.client_id,
                error,
                "other record",
            );
        }
        let ticked: Vec<&str> = form.all("type").collect();
        let stays =
            |scope: &&String| scope::parse(scope).is_none_or(|parsed| ticked.contains(&parsed.resource_type));
        let scopes = asked.scopes.iter().filter(stays).cloned().collect();
        self.agree(&asked, Decision { username: &username, patient_id, scopes }, now)
    }

    fn deny(&self, asked: &Asked) -> Reply {
        let error = ("access_denied", "oauth2:grant:denied-by-user");
        self.refuse(&asked.redirect_uri, Some(&asked.state), &asked.client_id, error, "the person denied")
    }

    /// Sends the browser back with a code.
    fn agree(&self, asked: &Asked, decision: Decision<'_>, now: Timestamp) -> Reply {
        let code = self.random.token::<32>();
        let (wrong_state, issuer) = {
            let mut state = self.state();
            let entry = Code {
                asked: Asked { scopes: decision.scopes, ..asked.clone() },
                username: decision.username.to_owned(),
                patient_id: decision.patient_id.to_owned(),
                issued_at: now,
                used: CodeUse::Unused,
            };
            state.codes.insert(code.clone(), entry);
            (state.faults.wrong_state, state.faults.authorize_iss)
        };
        let returned = if wrong_state { self.random.token::<16>() } else { asked.state.clone() };
        let issuer = issuer.map(|which| self.response_issuer(which));
        let mut answer = vec![("code", code.as_str()), ("state", returned.as_str())];
        answer.extend(issuer.as_deref().map(|issuer| ("iss", issuer)));
        Reply::redirect(StatusCode::FOUND, &with_parameters(&asked.redirect_uri, &answer))
            .faulty_if(wrong_state || issuer.is_some())
            .because("code issued")
    }

    /// Sends the browser back with an error.
    fn refuse(
        &self,
        redirect_uri: &str,
        state: Option<&str>,
        client_id: &str,
        (error, urn): (&str, &str),
        reason: &str,
    ) -> Reply {
        let instance = self.random.uuid();
        let uri = self.urls.error(&full_urn(urn), &instance, client_id);
        let mut answer = vec![("error", error)];
        match self.personality.traits().error_style {
            ErrorStyle::Uri => answer.push(("error_uri", &uri)),
            ErrorStyle::Description => answer.push(("error_description", reason)),
            ErrorStyle::NullDescription => {}
        }
        answer.extend(state.map(|state| ("state", state)));
        let mut reply = Reply::redirect(StatusCode::FOUND, &with_parameters(redirect_uri, &answer))
            .because(format!("{error}: {reason}"));
        set_correlation_id(&mut reply, &instance);
        reply
    }

    /// A page for people, when there is nowhere to send the browser.
    pub(super) fn error_page(&self, urn: &str, client_id: &str, reason: &str) -> Reply {
        let instance = self.random.uuid();
        let urn = full_urn(urn);
        let link = self.urls.error(&urn, &instance, client_id);
        let mut reply = pages::refusal(&urn, &instance, &link).because(reason);
        set_correlation_id(&mut reply, &instance);
        reply
    }
}

/// The whole urn of a suffix of the vendor's table; a whole one stays.
pub(super) fn full_urn(suffix: &str) -> String {
    if suffix.starts_with("urn:") {
        suffix.to_owned()
    } else {
        format!("urn:cerner:error:authorization-server:{suffix}")
    }
}

/// The id that stands in `error_uri` too.
pub(super) fn set_correlation_id(reply: &mut Reply, instance: &str) {
    if let Ok(value) = hyper::header::HeaderValue::from_str(instance) {
        reply.response.headers_mut().insert("cerner-correlation-id", value);
    }
}

fn check_redirect_uri<'f>(
    client: &RegisteredClient,
    asked: Option<&'f str>,
) -> Result<&'f str, &'static str> {
    let asked = asked.ok_or("oauth2:grant:invalid-redirect-uri")?;
    if client.redirect_uris.iter().any(|registered| registered == asked) {
        return Ok(asked);
    }
    if Url::parse(asked).is_err() {
        return Err("oauth2:grant:redirect-uri-not-absolute");
    }
    let bare = asked.trim_end_matches('/');
    if client.redirect_uris.iter().any(|registered| registered.trim_end_matches('/') == bare) {
        return Err("oauth2:grant:invalid-redirect-uri-trailing-slash");
    }
    Err("oauth2:grant:redirect-uri-not-registered")
}

/// Appends parameters; a query that is there already stays (RFC 6749 section 3.1.2).
pub(super) fn with_parameters(uri: &str, parameters: &[(&str, &str)]) -> String {
    let mut out = uri.to_owned();
    for (name, value) in parameters {
        out.push(if out.contains('?') { '&' } else { '?' });
        out.push_str(name);
        out.push('=');
        out.push_str(&encode(value));
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_redirect_uri_keeps_its_own_query() {
        assert_eq!(with_parameters("https://a/cb?x=1", &[("code", "a b")]), "https://a/cb?x=1&code=a%20b");
        assert_eq!(
            with_parameters("https://a/cb", &[("code", "c"), ("state", "s")]),
            "https://a/cb?code=c&state=s"
        );
    }

    #[test]
    fn redirect_uris_match_character_by_character() {
        let client = RegisteredClient::new("c", "https://app.example/cb");
        for (asked, urn) in [
            ("https://app.example/cb/", "oauth2:grant:invalid-redirect-uri-trailing-slash"),
            ("https://app.example/cb?x=1", "oauth2:grant:redirect-uri-not-registered"),
            ("https://APP.example/cb", "oauth2:grant:redirect-uri-not-registered"),
            ("/cb", "oauth2:grant:redirect-uri-not-absolute"),
        ] {
            assert_eq!(check_redirect_uri(&client, Some(asked)), Err(urn));
        }
        assert!(check_redirect_uri(&client, Some("https://app.example/cb")).is_ok());
    }
}

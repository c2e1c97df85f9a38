//! The FHIR base: who may ask (bearer token, scope, patient compartment), reading by id, attachments, and the errors in
//! Oracle Health's shapes.

use base64::Engine as _;
use bytes::Bytes;
use hyper::{Method, StatusCode, header};
use serde::Deserialize;
use serde_json::{Value, json};

use super::faults::FhirFaultKind;
use super::personality::{Document, RefusedToken};
use super::population::Resource;
use super::state::Grant;
use super::urls::TENANT;
use super::web::{Incoming, Reply};
use super::{Kind, Sandbox, scope};
use crate::clock::Timestamp;

/// Whose token it is and what it permits.
pub(super) struct Access {
    pub grant: Grant,
    pub scopes: Vec<String>,
}

impl Sandbox {
    /// Everything under `{origin}/r4/`.
    pub(super) fn fhir_base(
        &self,
        tenant: &str,
        rest: &[&str],
        incoming: &Incoming,
        now: Timestamp,
    ) -> (Kind, Reply) {
        let asked = json!({
            "query": incoming.query, "accept": incoming.header(&header::ACCEPT),
            "authorization": incoming.headers.contains_key(header::AUTHORIZATION),
        });
        if tenant != TENANT {
            let reply = Reply::bytes(
                StatusCode::FORBIDDEN,
                "text/plain",
                format!("Tenant {} is not valid or accessible", super::urls::encode(tenant)),
            );
            return (Kind::Discovery, reply.because("unknown tenant").asked(asked));
        }
        let get = incoming.method == Method::GET;
        let (kind, reply) = match rest {
            [".well-known", "smart-configuration"] if get => (Kind::Discovery, self.smart_configuration()),
            [".well-known", "openid-configuration"] if get => {
                (Kind::Discovery, self.openid_document(Document::OpenIdAtBase))
            }
            ["metadata"] if get => (Kind::Discovery, self.capability_statement()),
            [resource_type] if get => (
                Kind::Fhir,
                self.guarded(
                    resource_type,
                    incoming,
                    now,
                    |access| self.search(resource_type, &access, incoming),
                    true,
                ),
            ),
            [resource_type, "_search"]
                if incoming.method == Method::POST && self.personality.traits().searches_by_post =>
            {
                // Epic ignores a query beside the form, so everything is in the form.
                let searched = Incoming {
                    peer: incoming.peer,
                    method: Method::GET,
                    path: incoming.path.clone(),
                    query: String::from_utf8_lossy(&incoming.body).into_owned(),
                    headers: incoming.headers.clone(),
                    body: Bytes::new(),
                };
                let answer = |access: Access| self.search(resource_type, &access, &searched);
                (Kind::Fhir, self.guarded(resource_type, incoming, now, answer, true))
            }
            [resource_type, id] if get => (
                Kind::Fhir,
                self.guarded(
                    resource_type,
                    incoming,
                    now,
                    |access| self.read(resource_type, id, &access, incoming),
                    false,
                ),
            ),
            _ => (Kind::Discovery, not_found()),
        };
        (kind, reply.asked(asked))
    }

    /// Switches first, then token, format, type and scope; only then `answer`.
    fn guarded(
        &self,
        resource_type: &str,
        incoming: &Incoming,
        now: Timestamp,
        answer: impl FnOnce(Access) -> Reply,
        search: bool,
    ) -> Reply {
        let fault = self.state().faults.for_type(resource_type);
        if let Some(fault) = fault.filter(|fault| *fault != FhirFaultKind::HalfJson) {
            let mut reply = self.fhir_fault(fault, incoming).faulty();
            reply.faulty_type = Some(resource_type.to_owned());
            return reply;
        }
        let access = match self.access(incoming, now) {
            Ok(access) => access,
            Err(reply) => return *reply,
        };
        // A Binary decides by its own type which formats it has.
        if resource_type != "Binary" && !accepts_json(incoming) {
            return Reply::status(StatusCode::NOT_ACCEPTABLE, "Accept is not JSON");
        }
        if !scope::knows(resource_type, self.personality.traits()) {
            return not_found().because("unknown resource type");
        }
        if !scope::permits(&access.scopes, resource_type, search) {
            return self.insufficient_scope();
        }
        let reply = answer(access);
        if fault.is_none() {
            return reply;
        }
        let mut reply = half(resource_type, reply.asked).faulty();
        reply.faulty_type = Some(resource_type.to_owned());
        reply
    }

    /// Finds the grant behind the bearer token (RFC 6750).
    fn access(&self, incoming: &Incoming, now: Timestamp) -> Result<Access, Box<Reply>> {
        let realm = &self.urls.host;
        let Some(header) = incoming.header(&header::AUTHORIZATION) else {
            // The gateway in front answers in its own shape, which is not FHIR.
            let body = json!({
                "code": 401,
                "message": "code=\"urn:cerner:error:oauth2:resource-access:token-required\"",
            });
            let reply = Reply::json(StatusCode::UNAUTHORIZED, &body)
                .with(header::WWW_AUTHENTICATE, &format!("Bearer realm=\"{realm}\""));
            return Err(Box::new(reply.because("no token")));
        };
        let token = header.split_once(' ').filter(|(scheme, _)| scheme.eq_ignore_ascii_case("bearer"));
        let state = self.state();
        let entry = token.and_then(|(_, token)| state.access_tokens.get(token));
        let found = entry.filter(|entry| entry.expires_at > now).and_then(|entry| {
            let grant = state.grants.get(&entry.grant)?.clone();
            Some(Access { grant, scopes: entry.scopes.clone() })
        });
        found.ok_or_else(|| {
            Box::new(self.invalid_token(if entry.is_some() { "token expired" } else { "unknown token" }))
        })
    }

    fn invalid_token(&self, reason: &str) -> Reply {
        let challenge = format!(
            "Bearer realm=\"{}\", error=\"invalid_token\", \
             error_description=\"Token has expired or signature is invalid\"",
            self.urls.host
        );
        let status = StatusCode::UNAUTHORIZED;
        let reply = match self.personality.traits().refused_token {
            RefusedToken::Outcome => outcome(status, "login", &json!({"diagnostics": challenge}))
                .with(header::WWW_AUTHENTICATE, &challenge),
            RefusedToken::EmptyText => {
                Reply::json(status, &json!("")).with(header::WWW_AUTHENTICATE, &challenge)
            }
            RefusedToken::PlainText => Reply::bytes(status, "text/plain", "Unauthorized"),
            RefusedToken::Own(body) => Reply::bytes(status, "application/json", body),
        };
        reply.because(reason)
    }

    fn insufficient_scope(&self) -> Reply {
        let challenge = format!("Bearer realm=\"{}\", error=\"insufficient_scope\"", self.urls.host);
        let details = json!({"diagnostics": challenge, "expression": ["http.Authorization"]});
        outcome(StatusCode::FORBIDDEN, "forbidden", &details)
            .with(header::WWW_AUTHENTICATE, &challenge)
            .because("the scope is missing")
    }

    pub(super) fn fhir_fault(&self, fault: FhirFaultKind, incoming: &Incoming) -> Reply {
        let retry_after = || self.state().faults.retry_after_value(self.now());
        match fault {
            FhirFaultKind::Status(401) => self.invalid_token("switched"),
            FhirFaultKind::Status(403) => self.insufficient_scope(),
            FhirFaultKind::Status(429) => {
                let details = json!({"diagnostics": "Too Many Requests"});
                outcome(StatusCode::TOO_MANY_REQUESTS, "throttled", &details).retry_after(retry_after())
            }
            FhirFaultKind::Status(503) => {
                let details = json!({"diagnostics": "Unavailable"});
                outcome(StatusCode::SERVICE_UNAVAILABLE, "transient", &details).retry_after(retry_after())
            }
            FhirFaultKind::Status(_) => {
                let details = json!({"severity": "fatal", "location": ["/f:Bundle/f:entry[1]/f:resource"]});
                outcome(StatusCode::INTERNAL_SERVER_ERROR, "required", &details)
            }
            FhirFaultKind::Html => Reply::bytes(
                StatusCode::GATEWAY_TIMEOUT,
                "text/html",
                "<html><head><title>504 Gateway Timeout ERROR</title></head><body><h1>504</h1></body></html>",
            ),
            FhirFaultKind::Empty | FhirFaultKind::HalfJson => Reply::fhir(StatusCode::OK, Bytes::new()),
            FhirFaultKind::Hang => Reply::hanging("held back"),
            FhirFaultKind::Huge => Reply::endless(
                "application/fhir+json",
                r#"{"resourceType":"Bundle","type":"searchset","entry":[{"resource":{"resourceType":"Basic","id":""#,
            ),
            FhirFaultKind::Redirect => {
                Reply::redirect(StatusCode::FOUND, &format!("{}{}", self.urls.elsewhere, incoming.path))
            }
        }
    }

    fn read(&self, resource_type: &str, id: &str, access: &Access, incoming: &Incoming) -> Reply {
        if !incoming.query.is_empty() {
            return bad_request("a read takes no parameters");
        }
        let Some(resource) = self.population.find_for(&access.grant.patient_id, resource_type, id) else {
            return not_found();
        };
        if resource.patient_id.as_ref().is_some_and(|owner| *owner != access.grant.patient_id) {
            return forbidden_record();
        }
        if resource_type == "Binary" {
            return binary(resource, incoming);
        }
        Reply::fhir(StatusCode::OK, self.written(resource))
            .with(header::ETAG, &format!("W/\"{}\"", version(resource)))
    }

    /// The resource as it goes out: links to attachments are absolute here, whatever they are in the population.
    pub(super) fn written(&self, resource: &Resource) -> String {
        if !resource.json.contains("Binary/") {
            return resource.json.to_string();
        }
        let absolute = format!("\"url\":\"{}/Binary/", self.fhir_base_url());
        resource.json.replace("\"url\":\"Binary/", &absolute).replace("\"url\": \"Binary/", &absolute)
    }
}

/// An attachment: raw in its own type, or as a Binary resource; 406 without a body for anything else.
fn binary(resource: &Resource, incoming: &Incoming) -> Reply {
    #[derive(Deserialize)]
    #[serde(rename_all = "camelCase")]
    struct Binary {
        content_type: String,
        #[serde(default)]
        data: String,
    }
    let Ok(content) = serde_json::from_str::<Binary>(&resource.json) else {
        return not_found().because("the population has a broken Binary");
    };
    let accepted = incoming.header(&header::ACCEPT).unwrap_or("*/*");
    let essence = content.content_type.split(';').next().unwrap_or_default().trim();
    for kind in media_types(accepted) {
        if kind == "application/fhir+json" {
            return Reply::fhir(StatusCode::OK, resource.json.to_string());
        }
        let group = essence.split('/').next().unwrap_or_default();
        if kind == "*/*" || kind == essence || kind.strip_suffix("/*") == Some(group) {
            return match base64::engine::general_purpose::STANDARD.decode(&content.data) {
                Ok(bytes) => Reply::bytes(StatusCode::OK, &content.content_type, bytes),
                Err(_) => not_found().because("the population has a broken Binary"),
            };
        }
    }
    Reply::status(StatusCode::NOT_ACCEPTABLE, "Accept is neither the attachment's type nor FHIR")
}

/// The media types of an `Accept` header, lower case, without parameters, in their order.
fn media_types(accept: &str) -> impl Iterator<Item = String> {
    accept.split(',').map(|one| one.split(';').next().unwrap_or_default().trim().to_ascii_lowercase())
}

fn accepts_json(incoming: &Incoming) -> bool {
    const JSON: [&str; 5] =
        ["*/*", "application/*", "application/json", "application/fhir+json", "application/json+fhir"];
    let accepted = incoming.header(&header::ACCEPT).unwrap_or("*/*");
    media_types(accepted).any(|kind| JSON.contains(&kind.as_str()))
}

fn version(resource: &Resource) -> String {
    #[derive(Deserialize)]
    struct Versioned {
        meta: Meta,
    }
    #[derive(Deserialize)]
    struct Meta {
        #[serde(rename = "versionId")]
        version: String,
    }
    serde_json::from_str::<Versioned>(&resource.json).map_or_else(|_| "0".to_owned(), |it| it.meta.version)
}

/// The first half of a searchset.
fn half(resource_type: &str, asked: Value) -> Reply {
    let start = format!(
        r#"{{"resourceType":"Bundle","type":"searchset","entry":[{{"resource":{{"resourceType":"{resource_type}","#
    );
    Reply::fhir(StatusCode::OK, start).asked(asked).because("cut in half")
}

/// An OperationOutcome with one issue; `details` may set more members, severity too.
pub(super) fn outcome(status: StatusCode, code: &str, details: &Value) -> Reply {
    let mut issue = json!({"severity": "error", "code": code});
    if let (Some(issue), Some(details)) = (issue.as_object_mut(), details.as_object()) {
        issue.extend(details.clone());
    }
    let body = json!({"resourceType": "OperationOutcome", "issue": [issue]});
    Reply::fhir(status, body.to_string()).because(code)
}

/// 400 with the reason in `details.text`, as Oracle Health writes it.
pub(super) fn bad_request(text: &str) -> Reply {
    outcome(StatusCode::BAD_REQUEST, "invalid", &json!({"details": {"text": text}})).because(text)
}

/// The same 404 for an unknown id and an unknown type.
pub(super) fn not_found() -> Reply {
    outcome(StatusCode::NOT_FOUND, "not-found", &json!({"details": {"text": "Not Found"}}))
}

/// Another patient's record.
pub(super) fn forbidden_record() -> Reply {
    outcome(StatusCode::FORBIDDEN, "forbidden", &json!({"diagnostics": "not the patient of this token"}))
        .because("another patient's record")
}

//! The FHIR side: tokens checked, one patient's compartment, read, search, pages, attachments.

use std::fmt::Write as _;

use hyper::{Method, StatusCode, header};
use serde_json::json;

use super::faults::FhirFaultKind;
use super::population::Resource;
use super::state::State;
use super::urls::{TENANT, encode};
use super::web::{Form, Incoming, Reply};
use super::{Kind, Sandbox, scope, search};
use crate::clock::Timestamp;
use crate::crypto::{base64url, from_base64url, hmac_sha256};

/// Who asks, after the token was found good.
struct Reader {
    patient_id: String,
    scopes: Vec<String>,
}

/// Where a page begins, and whether it is the first of its search.
#[derive(Clone, Copy)]
struct Place {
    offset: usize,
    begins: bool,
}

impl Sandbox {
    /// Everything under `/r4/{tenant}`.
    pub(super) fn fhir_base(
        &self,
        tenant: &str,
        rest: &[&str],
        incoming: &Incoming,
        now: Timestamp,
    ) -> (Kind, Reply) {
        if tenant != TENANT {
            return (
                Kind::Fhir,
                outcome(StatusCode::FORBIDDEN, "forbidden", "Tenant is not valid or accessible"),
            );
        }
        let get = incoming.method == Method::GET;
        match rest {
            [".well-known", "smart-configuration"] if get => (Kind::Discovery, self.smart_configuration()),
            ["metadata"] if get => (Kind::Discovery, self.capability_statement()),
            [resource_type, ..] if get => {
                let spoilt = self.spoil(resource_type);
                let mut reply = match spoilt {
                    Some(reply) => reply,
                    None => self.answer(resource_type, &rest[1..], incoming, now),
                };
                if self.half(resource_type) {
                    reply = halve(resource_type);
                }
                let asked =
                    json!({"query": shown(&incoming.query), "accept": incoming.header(&header::ACCEPT)});
                (Kind::Fhir, reply.asked(asked))
            }
            _ => (Kind::Fhir, outcome(StatusCode::METHOD_NOT_ALLOWED, "not-supported", "Only GET")),
        }
    }

    fn spoil(&self, resource_type: &str) -> Option<Reply> {
        let fault = self.state().faults.for_type(resource_type)?;
        let mut reply = match fault {
            FhirFaultKind::Status(401) => self.unauthorized("Token has expired or signature is invalid"),
            FhirFaultKind::Status(403) => self.insufficient_scope(),
            FhirFaultKind::Status(429) => {
                outcome(StatusCode::TOO_MANY_REQUESTS, "throttled", "Too Many Requests")
            }
            FhirFaultKind::Status(503) => {
                outcome(StatusCode::SERVICE_UNAVAILABLE, "transient", "Unavailable")
                    .with(header::RETRY_AFTER, "0")
            }
            FhirFaultKind::Status(_) => {
                outcome(StatusCode::INTERNAL_SERVER_ERROR, "required", "A record lacks a field")
            }
            FhirFaultKind::Html => Reply::bytes(
                StatusCode::GATEWAY_TIMEOUT,
                "text/html",
                "<html><h1>504 Gateway Time-out</h1></html>",
            ),
            FhirFaultKind::Empty => Reply::fhir(StatusCode::OK, ""),
            FhirFaultKind::HalfJson => return None,
            FhirFaultKind::Hang => Reply::hanging("held back"),
            FhirFaultKind::Huge => Reply::endless(
                "application/fhir+json",
                r#"{"resourceType":"Bundle","type":"searchset","x":""#,
            ),
            FhirFaultKind::Redirect => Reply::redirect(StatusCode::FOUND, &self.urls.elsewhere),
        };
        reply.faulty_type = Some(resource_type.to_owned());
        Some(reply.faulty().because("switched"))
    }

    fn half(&self, resource_type: &str) -> bool {
        self.state().faults.for_type(resource_type) == Some(FhirFaultKind::HalfJson)
    }

    fn answer(&self, resource_type: &str, rest: &[&str], incoming: &Incoming, now: Timestamp) -> Reply {
        let reader = match self.reader(incoming, now) {
            Ok(reader) => reader,
            Err(reply) => return reply,
        };
        if !scope::knows(resource_type) {
            return not_found();
        }
        match rest {
            [] => self.search(resource_type, &reader, incoming),
            ["Binary" | "_search"] => not_found(),
            [id] => self.read(resource_type, id, &reader, incoming),
            _ => not_found(),
        }
    }

    /// Whose token came along; 401 in the vendor's form when none or no good one did.
    fn reader(&self, incoming: &Incoming, now: Timestamp) -> Result<Reader, Reply> {
        let given = incoming.header(&header::AUTHORIZATION).and_then(|text| text.strip_prefix("Bearer "));
        let Some(token) = given else {
            let reply = Reply::json(
                StatusCode::UNAUTHORIZED,
                &json!({"code": 401, "message": "code=\"urn:cerner:error:oauth2:resource-access:token-required\""}),
            );
            return Err(reply.because("no token"));
        };
        let state = self.state();
        let found = state.access_tokens.get(token).filter(|entry| entry.expires_at > now);
        let alive = found.and_then(|entry| Some((entry, live_grant(&state, entry.grant)?)));
        match alive {
            Some((entry, grant)) => {
                Ok(Reader { patient_id: grant.patient_id.clone(), scopes: entry.scopes.clone() })
            }
            None => {
                drop(state);
                Err(self.unauthorized("Token has expired or signature is invalid"))
            }
        }
    }

    fn read(&self, resource_type: &str, id: &str, reader: &Reader, incoming: &Incoming) -> Reply {
        if !scope::permits(&reader.scopes, resource_type, false) {
            return self.insufficient_scope();
        }
        let Some(resource) = self.population.find(resource_type, id) else { return not_found() };
        if resource.patient_id.as_ref().is_some_and(|patient| *patient != reader.patient_id) {
            return outcome(StatusCode::FORBIDDEN, "forbidden", "Another patient's record")
                .because("other compartment");
        }
        let accept = incoming.header(&header::ACCEPT).unwrap_or("*/*");
        if resource_type == "Binary" {
            return binary(resource, accept);
        }
        if !accepts_json(accept) {
            return Reply::status(StatusCode::NOT_ACCEPTABLE, "Accept is not JSON");
        }
        Reply::fhir(StatusCode::OK, resource.json.to_string()).with(header::ETAG, "W/\"1\"")
    }

    fn search(&self, resource_type: &str, reader: &Reader, incoming: &Incoming) -> Reply {
        if !scope::permits(&reader.scopes, resource_type, true) {
            return self.insufficient_scope();
        }
        if !accepts_json(incoming.header(&header::ACCEPT).unwrap_or("*/*")) {
            return Reply::status(StatusCode::NOT_ACCEPTABLE, "Accept is not JSON");
        }
        let (query, context) = split_context(&incoming.query);
        let offset = match context.map(|context| self.open_context(query, context)) {
            None => 0,
            Some(Some(offset)) => offset,
            Some(None) => {
                return outcome(StatusCode::BAD_REQUEST, "invalid", "The page context is not valid")
                    .because("page context changed");
            }
        };
        let form = Form::parse(query.as_bytes());
        let search = match search::read(resource_type, &form) {
            Ok(search) => search,
            Err(text) => return outcome(StatusCode::BAD_REQUEST, "invalid", &text).because(text),
        };
        if search.patient.as_ref().is_some_and(|patient| *patient != reader.patient_id) {
            return outcome(StatusCode::FORBIDDEN, "forbidden", "Another patient's record")
                .because("other compartment");
        }
        let all = self.population.of(&reader.patient_id, resource_type);
        let found: Vec<&Resource> = all.iter().filter(|resource| search.finds(resource)).collect();
        let place = Place { offset, begins: context.is_none() };
        self.page(resource_type, query, &found, place, &search, reader)
    }

    fn page(
        &self,
        resource_type: &str,
        query: &str,
        found: &[&Resource],
        Place { offset, begins }: Place,
        search: &search::Search,
        reader: &Reader,
    ) -> Reply {
        let faults = self.state().faults.clone();
        let size = search.page.unwrap_or(usize::MAX);
        let empty_first = faults.empty_page_with_next && begins;
        let first = if faults.repeated_ids { offset.saturating_sub(1) } else { offset };
        let last = if empty_first { offset } else { offset.saturating_add(size).min(found.len()) };
        let own = format!("{}/{resource_type}?{query}", self.urls.fhir_base());
        let mut links = format!(r#"[{{"relation":"self","url":{}}}"#, quoted(&own));
        if last < found.len() || empty_first {
            let next = if faults.next_elsewhere {
                format!("{}/r4/{TENANT}/{resource_type}?{query}", self.urls.elsewhere)
            } else {
                let to = if faults.next_loop { offset } else { last };
                format!("{own}&-pageContext={}&-pageDirection=NEXT", encode(&self.seal_context(query, to)))
            };
            let _ = write!(links, r#",{{"relation":"next","url":{}}}"#, quoted(&next));
        }
        links.push(']');
        let slice = found.get(first.min(last)..last).unwrap_or_default();
        let mut entries: Vec<String> = slice.iter().map(|resource| self.entry(resource, "match")).collect();
        if search.with_provenance && scope::permits(&reader.scopes, "Provenance", false) {
            let all = self.population.of(&reader.patient_id, "Provenance");
            let of_page = all.iter().filter(|one| {
                slice.iter().any(|it| one.json.contains(&format!("{resource_type}/{}\"", it.id)))
            });
            entries.extend(of_page.map(|one| self.entry(one, "include")));
        }
        if faults.suppressed_outcome_entry {
            let issue = json!({"resourceType": "OperationOutcome", "issue": [{"severity": "warning", "code": "suppressed",
                "details": {"text": "Other results could not be compliantly expressed"}}]});
            entries.push(format!(r#"{{"resource":{issue},"search":{{"mode":"outcome"}}}}"#));
        }
        let total =
            if search.page.is_none() { format!(r#""total":{},"#, found.len()) } else { String::new() };
        let entry =
            if entries.is_empty() { String::new() } else { format!(r#","entry":[{}]"#, entries.join(",")) };
        let body = format!(r#"{{"resourceType":"Bundle","type":"searchset",{total}"link":{links}{entry}}}"#);
        let faulty = faults.next_elsewhere
            || faults.next_loop
            || faults.repeated_ids
            || faults.suppressed_outcome_entry
            || empty_first;
        Reply::fhir(StatusCode::OK, body).faulty_if(faulty)
    }

    fn entry(&self, resource: &Resource, mode: &str) -> String {
        let url = format!("{}/{}/{}", self.urls.fhir_base(), resource.resource_type, resource.id);
        format!(r#"{{"fullUrl":{},"resource":{},"search":{{"mode":"{mode}"}}}}"#, quoted(&url), resource.json)
    }

    /// An opaque page context, with the `==` at its end that must stay encoded in the link.
    fn seal_context(&self, query: &str, offset: usize) -> String {
        let plain = format!("{offset}:{query}");
        let tag = hmac_sha256(&self.page_key, plain.as_bytes());
        format!("{}.{}==", base64url(offset.to_string().as_bytes()), base64url(&tag[..12]))
    }

    /// The offset of a context that came back as it was given, for the same query.
    fn open_context(&self, query: &str, context: &str) -> Option<usize> {
        // It must come back byte for byte: `%3D%3D`, not `==`.
        let (offset, _) = context.strip_suffix("%3D%3D")?.split_once('.')?;
        let offset: usize = String::from_utf8(from_base64url(offset)?).ok()?.parse().ok()?;
        let good = encode(&self.seal_context(query, offset)) == context;
        good.then_some(offset)
    }

    fn unauthorized(&self, why: &str) -> Reply {
        let realm =
            format!(r#"Bearer realm="{}", error="invalid_token", error_description="{why}""#, self.urls.host);
        Reply::status(StatusCode::UNAUTHORIZED, "token not good").with(header::WWW_AUTHENTICATE, &realm)
    }

    fn insufficient_scope(&self) -> Reply {
        let realm = format!(r#"Bearer realm="{}", error="insufficient_scope""#, self.urls.host);
        let body = json!({"resourceType": "OperationOutcome", "issue": [{"severity": "error", "code": "forbidden",
            "diagnostics": realm, "expression": ["http.Authorization"]}]});
        Reply::fhir(StatusCode::FORBIDDEN, body.to_string())
            .with(header::WWW_AUTHENTICATE, &realm)
            .because("scope missing")
    }
}

fn live_grant(state: &State, id: u64) -> Option<&super::state::Grant> {
    state.grants.get(&id).filter(|grant| grant.ended.is_none())
}

/// The query without its page context, and the context as it came.
fn split_context(query: &str) -> (&str, Option<&str>) {
    let Some((before, after)) = query.split_once("&-pageContext=") else { return (query, None) };
    (before, Some(after.strip_suffix("&-pageDirection=NEXT").unwrap_or(after)))
}

/// A query for the log: synthetic ids may stand there, but page contexts only make it long.
fn shown(query: &str) -> String {
    split_context(query).0.chars().take(300).collect()
}

fn halve(resource_type: &str) -> Reply {
    let body = r#"{"resourceType":"Bundle","type":"searchset","entry":[{"resource":{"resourceType":"#;
    let mut reply = Reply::fhir(StatusCode::OK, body).faulty().because("switched");
    reply.faulty_type = Some(resource_type.to_owned());
    reply
}

fn quoted(text: &str) -> String {
    serde_json::Value::String(text.to_owned()).to_string()
}

fn accepts_json(accept: &str) -> bool {
    accept.split(',').any(|media| {
        let media = media.split(';').next().unwrap_or_default().trim();
        matches!(
            media,
            "*/*" | "application/*" | "application/json" | "application/fhir+json" | "application/json+fhir"
        )
    })
}

/// Raw bytes for the attachment's own type, the FHIR resource for FHIR JSON, 406 without a body for anything else.
fn binary(resource: &Resource, accept: &str) -> Reply {
    let parsed: serde_json::Value = serde_json::from_str(&resource.json).unwrap_or_default();
    let kind = parsed["contentType"].as_str().unwrap_or("application/octet-stream");
    if accept.contains("application/fhir+json") {
        return Reply::fhir(StatusCode::OK, resource.json.to_string());
    }
    if accept.contains(kind.split(';').next().unwrap_or(kind)) {
        use base64::Engine as _;
        let data = parsed["data"].as_str().unwrap_or_default();
        let bytes = base64::engine::general_purpose::STANDARD.decode(data).unwrap_or_default();
        return Reply::bytes(StatusCode::OK, kind, bytes);
    }
    Reply::status(StatusCode::NOT_ACCEPTABLE, "Accept is not the attachment's type")
}

/// 404, the same for an unknown id and an unknown type.
pub(super) fn not_found() -> Reply {
    outcome(StatusCode::NOT_FOUND, "not-found", "Not Found").because("not found")
}

fn outcome(status: StatusCode, code: &str, text: &str) -> Reply {
    let body = json!({"resourceType": "OperationOutcome",
        "issue": [{"severity": "error", "code": code, "details": {"text": text}}]});
    Reply::fhir(status, body.to_string()).because(text)
}

//! FHIR search: bundles, pages, and `next` links that must come back byte for byte.

use std::fmt::Write as _;

use hyper::StatusCode;
use serde_json::{Value, json};

use super::Sandbox;
use super::faults::FhirFaultKind;
use super::fhir::{Access, bad_request, forbidden_record};
use super::population::Resource;
use super::query::{Query, Rejected, check, last_two};
use super::scope;
use super::web::{Form, Incoming, Reply};
use crate::crypto::{base64url, constant_time_eq, from_base64url, hmac_sha256};

impl Sandbox {
    /// `GET {base}/{Type}?…`
    pub(super) fn search(&self, resource_type: &str, access: &Access, incoming: &Incoming) -> Reply {
        if matches!(resource_type, "Binary" | "Location" | "Medication" | "Organization" | "Practitioner") {
            return bad_request("search is not supported for this type");
        }
        let (plain, offset) = match self.page_context(resource_type, &incoming.query) {
            Ok(found) => found,
            Err(text) => return bad_request(text),
        };
        if offset.is_some() && self.state().faults.page_lapsed() {
            return bad_request("-pageContext is no longer valid").faulty();
        }
        let form = Form::parse(plain.as_bytes());
        let query = match check(resource_type, &form, &access.grant.patient_id, self.personality.traits()) {
            Ok(query) => query,
            Err(Rejected::Text(text)) => return bad_request(&text),
            Err(Rejected::OtherPatient) => return forbidden_record(),
        };
        if query.with_provenance && !scope::permits(&access.scopes, "Provenance", true) {
            return forbidden_record().because("_revinclude without the scope for Provenance");
        }
        self.page(resource_type, access, incoming, plain, offset, &query)
    }

    /// Collects one page from `offset`, which counts resources of the whole list, filtered out ones too.
    fn page(
        &self,
        resource_type: &str,
        access: &Access,
        incoming: &Incoming,
        plain: &str,
        offset: Option<usize>,
        query: &Query<'_>,
    ) -> Reply {
        let faults = self.state().faults.clone();
        let patient = access.grant.patient_id.as_str();
        let all = self.population.of(patient, resource_type);
        let mut spoilt = faults.suppressed_outcome_entry;
        let mut from = offset.unwrap_or(0);
        if faults.repeated_ids && from > 0 {
            let before = all.iter().take(from).rposition(|resource| query.admits(resource));
            from = before.unwrap_or(from);
            spoilt = true;
        }
        let mut matches: Vec<&Resource> = Vec::new();
        let mut next = None;
        if faults.empty_page_with_next && offset.is_none() {
            next = Some(0);
            spoilt = true;
        } else {
            // A repeated entry comes on top, or pages would never end.
            let wanted = query.page_size.saturating_add(usize::from(from < offset.unwrap_or(0)));
            for (index, resource) in all.iter().enumerate().skip(from) {
                if !query.admits(resource) {
                    continue;
                }
                if matches.len() == wanted {
                    next = Some(index);
                    break;
                }
                matches.push(resource);
            }
        }
        let names = |resource: &&Resource| format!("{}/{}", resource.resource_type, resource.id);
        if faults.inexpressible.is_some()
            && matches.iter().any(|one| Some(names(one)) == faults.inexpressible)
        {
            return self.fhir_fault(FhirFaultKind::Status(500), incoming).faulty();
        }
        let total = (next.is_none() && offset.is_none()).then_some(matches.len());
        let mut links =
            vec![json!({"relation": "self", "url": self.page_url(resource_type, &incoming.query)})];
        if let Some(next) = next {
            let mut url = self.page_url(resource_type, &self.next_query(resource_type, plain, next));
            if faults.next_loop {
                url = self.page_url(resource_type, &incoming.query);
            }
            if faults.next_elsewhere {
                url = url.replacen(&self.urls.origin, &self.urls.elsewhere, 1);
            }
            spoilt |= faults.next_loop || faults.next_elsewhere;
            links.push(json!({"relation": "next", "url": url}));
        }
        let mut entries: Vec<String> = matches.iter().map(|resource| self.entry(resource, "match")).collect();
        if query.with_provenance {
            let included = provenance_of(self.population.of(patient, "Provenance"), &matches);
            entries.extend(included.into_iter().map(|resource| self.entry(resource, "include")));
        }
        if faults.suppressed_outcome_entry {
            entries.push(SUPPRESSED.to_owned());
        }
        let bundle = bundle(&self.random.uuid(), total, &json!(links), &entries);
        Reply::fhir(StatusCode::OK, bundle).faulty_if(spoilt).because(format!(
            "{} entries{}",
            entries.len(),
            if next.is_some() { ", more follow" } else { "" }
        ))
    }

    fn entry(&self, resource: &Resource, mode: &str) -> String {
        let url = format!("{}/{}/{}", self.fhir_base_url(), resource.resource_type, resource.id);
        format!(r#"{{"fullUrl":"{url}","resource":{},"search":{{"mode":"{mode}"}}}}"#, self.written(resource))
    }

    fn page_url(&self, resource_type: &str, query: &str) -> String {
        format!("{}/{resource_type}?{query}", self.fhir_base_url())
    }

    /// The query of the next page: the one of the first, its bytes unchanged, then an opaque context.
    fn next_query(&self, resource_type: &str, plain: &str, offset: usize) -> String {
        let offset = u32::try_from(offset).unwrap_or(u32::MAX).to_be_bytes();
        // 28 bytes, so that base64 ends in `==`, which the link carries as `%3D%3D`.
        let mut context = offset.to_vec();
        context.extend_from_slice(&self.page_seal(resource_type, plain, offset)[..24]);
        format!("{plain}&-pageContext={}%3D%3D&-pageDirection=NEXT", base64url(&context))
    }

    fn page_seal(&self, resource_type: &str, plain: &str, offset: [u8; 4]) -> [u8; 32] {
        let mut message = offset.to_vec();
        message.extend_from_slice(resource_type.as_bytes());
        message.push(b'?');
        message.extend_from_slice(plain.as_bytes());
        hmac_sha256(&self.page_key, &message)
    }

    /// Splits the query of a later page. Whoever decodes and re-encodes a link changes it, and is refused.
    fn page_context<'q>(
        &self,
        resource_type: &str,
        query: &'q str,
    ) -> Result<(&'q str, Option<usize>), &'static str> {
        const BROKEN: &str = "-pageContext is not valid";
        if !query.contains("pageContext") {
            return Ok((query, None));
        }
        let rest = query.strip_suffix("%3D%3D&-pageDirection=NEXT").ok_or(BROKEN)?;
        let (plain, context) = rest.rsplit_once("&-pageContext=").ok_or(BROKEN)?;
        let context = from_base64url(context).ok_or(BROKEN)?;
        let (offset, seal) = context.split_first_chunk::<4>().ok_or(BROKEN)?;
        if !constant_time_eq(seal, &self.page_seal(resource_type, plain, *offset)[..24]) {
            return Err(BROKEN);
        }
        Ok((plain, usize::try_from(u32::from_be_bytes(*offset)).ok()))
    }
}

const SUPPRESSED: &str = r#"{"resource":{"resourceType":"OperationOutcome","issue":[{"severity":"warning","code":"suppressed","diagnostics":"Other results exist that cannot be expressed in a conforming way"}]},"search":{"mode":"outcome"}}"#;

fn bundle(id: &str, total: Option<usize>, links: &Value, entries: &[String]) -> String {
    let mut out = format!(r#"{{"resourceType":"Bundle","id":"{id}","type":"searchset","link":{links}"#);
    if let Some(total) = total {
        let _ = write!(out, r#","total":{total}"#);
    }
    if !entries.is_empty() {
        out.push_str(r#","entry":["#);
        for (index, entry) in entries.iter().enumerate() {
            if index > 0 {
                out.push(',');
            }
            out.push_str(entry);
        }
        out.push(']');
    }
    out.push('}');
    out
}

fn provenance_of<'r>(provenance: &'r [Resource], matches: &[&Resource]) -> Vec<&'r Resource> {
    let found: std::collections::HashSet<String> =
        matches.iter().map(|resource| format!("{}/{}", resource.resource_type, resource.id)).collect();
    provenance.iter().filter(|resource| targets(resource).any(|target| found.contains(&target))).collect()
}

/// `Type/id` of everything a Provenance is about.
fn targets(provenance: &Resource) -> impl Iterator<Item = String> {
    let json: Value = serde_json::from_str(&provenance.json).unwrap_or_default();
    let list = json["target"].as_array().cloned().unwrap_or_default();
    list.into_iter().filter_map(|target| target["reference"].as_str().map(last_two))
}

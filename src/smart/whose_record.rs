//! Asking a FHIR server whose record a token opens, when neither the token response nor the id token says so.

use hyper::StatusCode;
use serde_json::Value;

use crate::outbound::{Call, Outbound};
use crate::smart::patient::{EhrPatientId, PatientQuestion};
use crate::smart::server::EhrServer;
use crate::smart::token_response::AccessToken;

/// A Patient with a picture may be large, and a server may answer with pages of something else.
const MOST_BYTES: usize = 4 << 20;

/// Asks; the error is for staff. Only an answer that leaves one patient counts.
pub(super) async fn ask(
    outbound: &Outbound,
    server: &EhrServer,
    token: &AccessToken,
    question: &PatientQuestion,
) -> Result<EhrPatientId, String> {
    let path = match question {
        PatientQuestion::OnlyPatient => "Patient".to_owned(),
        PatientQuestion::RelatedPerson(id) => format!("RelatedPerson/{}", id.as_str()),
        PatientQuestion::Person(id) => format!("Person/{}", id.as_str()),
    };
    let told = |what: &dyn std::fmt::Display| {
        let what_for = path.split('/').next().unwrap_or_default();
        format!("the server was asked for its {what_for} and {what}")
    };
    let url = server.base.join(&path).map_err(|reason| told(&reason))?;
    let call = Call::get(url).accept("application/fhir+json").at_most(MOST_BYTES);
    let call = call.authorization("Bearer", token.expose());
    let reply = outbound.send(call, server.reach).await.map_err(|failure| told(&failure))?;
    if reply.status != StatusCode::OK {
        return Err(told(&format!("answered with status {}", reply.status.as_u16())));
    }
    let answer: Value = serde_json::from_slice(&reply.body).map_err(|_| told(&"did not answer in JSON"))?;
    only_patient(&answer).ok_or_else(|| told(&"did not name exactly one patient"))
}

/// The one patient that a bundle of patients, a Patient, a `RelatedPerson` or a Person is about.
fn only_patient(answer: &Value) -> Option<EhrPatientId> {
    let items = |value: &Value| value.as_array().cloned().unwrap_or_default();
    let named: Vec<String> = match answer["resourceType"].as_str()? {
        "Bundle" => {
            let resources = items(&answer["entry"]).into_iter().map(|entry| entry["resource"].clone());
            let patients = resources.filter(|resource| resource["resourceType"] == "Patient");
            patients.filter_map(|patient| patient["id"].as_str().map(str::to_owned)).collect()
        }
        "Patient" => answer["id"].as_str().map(str::to_owned).into_iter().collect(),
        "RelatedPerson" => answer["patient"]["reference"].as_str().map(str::to_owned).into_iter().collect(),
        "Person" => items(&answer["link"])
            .iter()
            .filter_map(|link| link["target"]["reference"].as_str().map(str::to_owned))
            .filter(|reference| reference.contains("Patient/"))
            .collect(),
        _ => return None,
    };
    match named.as_slice() {
        [one] => EhrPatientId::from_reference(one).ok(),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn exactly_one_patient_is_an_answer() {
        let patient = |id: &str| json!({"resource": {"resourceType": "Patient", "id": id}});
        let outcome = json!({"resource": {"resourceType": "OperationOutcome"}});
        let bundle = |entries: Value| json!({"resourceType": "Bundle", "entry": entries});
        let check = |answer: Value, expected: Option<&str>| {
            assert_eq!(only_patient(&answer).as_ref().map(EhrPatientId::as_str), expected, "{answer}");
        };
        check(bundle(json!([patient("-20140000010000"), outcome])), Some("-20140000010000"));
        check(bundle(json!([patient("1"), patient("2")])), None);
        check(bundle(json!([outcome])), None);
        check(json!({"resourceType": "Bundle"}), None);
        check(json!({"resourceType": "Patient", "id": "7"}), Some("7"));
        check(json!({"resourceType": "RelatedPerson", "patient": {"reference": "Patient/8"}}), Some("8"));
        let links = |ids: &[&str]| {
            let links: Vec<Value> = ids.iter().map(|id| json!({"target": {"reference": id}})).collect();
            json!({"resourceType": "Person", "link": links})
        };
        check(links(&["https://h.example/r4/Patient/9", "RelatedPerson/1"]), Some("9"));
        check(links(&["Patient/9", "Patient/10"]), None);
        check(json!([]), None);
    }
}

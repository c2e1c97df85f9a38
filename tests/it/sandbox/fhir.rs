//! Records: reading, searching, paging, attachments.

use std::time::Duration;

use chartgate::crypto::base64;
use hyper::{StatusCode, header};
use serde_json::json;

use super::support::{Bench, ids, next_link, text};

#[tokio::test]
async fn a_token_opens_one_record_only() {
    let bench = Bench::new();
    let tokens = bench.connect().await;
    let other = bench.user(1).patient;
    for path in [format!("Patient/{other}"), format!("Observation?patient={other}")] {
        let answer = bench.fhir(&tokens, &path).await;
        assert_eq!(answer.status, StatusCode::FORBIDDEN, "{path}");
        assert_eq!(answer.json()["issue"][0]["code"], "forbidden");
    }
}

#[tokio::test]
async fn a_caregiver_reads_another_record_and_stays_who_she_is() {
    let bench = Bench::new();
    let (own, other) = (bench.user(0), bench.user(1));
    let choice = json!({"username": own.username, "patient": other.patient});
    bench.control("auto-approve", choice).await;
    let code = bench.authorize(&[]).await.sent_back("code").expect("a code");
    let tokens = bench.exchange(&code, &[]).await.json();
    assert_eq!(tokens["patient"], other.patient);
    assert!(text(&bench.id_claims(&tokens).await, "fhirUser").ends_with(&own.patient));
    let read = bench.fhir(&tokens, &format!("Patient/{}", other.patient)).await;
    assert_eq!(read.status, StatusCode::OK);
}

#[tokio::test]
async fn fhir_refuses_without_a_good_token_scope_or_format() {
    let bench = Bench::new();
    let tokens = bench.connect().await;
    let url = format!("{}/Patient/{}", bench.hospital.fhir_base_url(), text(&tokens, "patient"));
    let without = bench.get(&url).await;
    assert_eq!(without.status, StatusCode::UNAUTHORIZED);
    assert!(without.header("www-authenticate").starts_with("Bearer realm=\"localhost:3001\""));
    assert!(text(&without.json(), "message").contains("token-required"), "the gateway's own shape");
    let unknown = bench.fhir(&json!({"access_token": "made-up"}), &url).await;
    assert!(unknown.header("www-authenticate").contains("error=\"invalid_token\""));
    let xml = bench.fhir_as(&tokens, &url, "application/fhir+xml").await;
    assert_eq!((xml.status, xml.body.len()), (StatusCode::NOT_ACCEPTABLE, 0));
    let forbidden = bench.fhir(&tokens, &format!("Goal?patient={}", text(&tokens, "patient"))).await;
    assert_eq!(forbidden.status, StatusCode::FORBIDDEN);
    assert!(forbidden.header("www-authenticate").contains("insufficient_scope"));
    for path in ["Patient/none", "Nonsense?patient=1"] {
        assert_eq!(bench.fhir(&tokens, path).await.status, StatusCode::NOT_FOUND, "{path}");
    }
    bench.clock.advance(Duration::from_secs(599));
    assert_eq!(bench.fhir(&tokens, &url).await.status, StatusCode::OK);
    bench.clock.advance(Duration::from_secs(1));
    assert_eq!(bench.fhir(&tokens, &url).await.status, StatusCode::UNAUTHORIZED, "570 s and 30 s in hand");
}

#[tokio::test]
async fn searches_need_their_parameters_and_refuse_unknown_ones() {
    let bench = Bench::new();
    let tokens = bench.connect_to_much().await;
    let patient = text(&tokens, "patient");
    for (path, status) in [
        (format!("CarePlan?patient={patient}"), 400),
        (format!("CarePlan?patient={patient}&category=assess-plan"), 200),
        ("Observation?category=laboratory".to_owned(), 400),
        (format!("Observation?patient={patient}&colour=red"), 400),
        (format!("Observation?patient={patient}&category=laboratory"), 200),
    ] {
        let answer = bench.fhir(&tokens, &path).await;
        assert_eq!(answer.status.as_u16(), status, "{path}: {}", answer.text());
        if status == 400 {
            assert_eq!(answer.json()["issue"][0]["code"], "invalid");
            assert!(answer.json()["issue"][0]["details"]["text"].is_string());
        } else {
            assert_eq!(answer.json()["type"], "searchset");
            assert_eq!(answer.json()["entry"][0]["search"]["mode"], "match");
        }
    }
    let none = bench.fhir(&tokens, &format!("Observation?patient={patient}&category=nothing")).await.json();
    assert_eq!(none["total"], 0);
    assert!(none.get("entry").is_none());
}

#[tokio::test]
async fn pages_follow_each_other_and_links_must_come_back_byte_for_byte() {
    let bench = Bench::new();
    let tokens = bench.connect_to_much().await;
    let first = format!("Observation?patient={}&category=laboratory&_count=4", text(&tokens, "patient"));
    let all = bench.fhir(&tokens, &first.replace("_count=4", "_count=200")).await.json();
    let mut seen = Vec::new();
    let mut url = first;
    let mut pages = 0;
    loop {
        let page = bench.fhir(&tokens, &url).await.json();
        assert!(ids(&page).len() <= 4);
        assert!(page.get("total").is_none(), "no total when paged");
        seen.extend(ids(&page));
        pages += 1;
        match next_link(&page) {
            Some(next) if seen.len() < ids(&all).len() => url = next,
            _ => break,
        }
    }
    assert!(pages > 1, "enough laboratory results to need pages");
    assert_eq!(seen, ids(&all)[..seen.len()]);
    assert!(url.contains("%3D%3D&-pageDirection=NEXT"), "{url}");
    for spoilt in [
        url.replace("%3D", "="),
        url.replace("%3D", "%3d"),
        url.replace("category=laboratory", "category=vital-signs"),
        url.replace("_count=4", "_count=5"),
    ] {
        assert_eq!(bench.fhir(&tokens, &spoilt).await.status, StatusCode::BAD_REQUEST, "{spoilt}");
    }
    assert_eq!(bench.fhir(&tokens, &url).await.status, StatusCode::OK);
}

#[tokio::test]
async fn an_attachment_comes_raw_or_as_a_binary_and_in_no_other_format() {
    let bench = Bench::new();
    let tokens = bench.connect().await;
    let search = format!("DocumentReference?patient={}&_count=100", text(&tokens, "patient"));
    let found = bench.fhir(&tokens, &search).await.json();
    let attachment = &found["entry"][0]["resource"]["content"][0]["attachment"];
    let url = text(attachment, "url");
    assert!(url.starts_with(&format!("{}/Binary/", bench.hospital.fhir_base_url())), "{url}");
    let kind = text(attachment, "contentType");
    let raw = bench.fhir_as(&tokens, url, kind).await;
    assert_eq!((raw.status, raw.header(header::CONTENT_TYPE.as_str())), (StatusCode::OK, kind));
    let wrapped = bench.fhir_as(&tokens, url, "application/fhir+json").await.json();
    assert_eq!(wrapped["resourceType"], "Binary");
    assert_eq!(wrapped["data"], base64(&raw.body));
    let neither = bench.fhir_as(&tokens, url, "image/x-unheard-of").await;
    assert_eq!((neither.status, neither.body.len()), (StatusCode::NOT_ACCEPTABLE, 0));
}

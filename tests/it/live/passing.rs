//! What passes between app and EHR, and what does not.

use std::io::Write as _;

use bytes::Bytes;
use flate2::Compression;
use flate2::write::GzEncoder;
use hyper::Method;
use hyper::header::HeaderValue;
use serde_json::Value;

use super::ehr::{World, json, live, pieces, typed, with_status};

fn gzipped(text: &str) -> Bytes {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::default());
    encoder.write_all(text.as_bytes()).expect("memory");
    encoder.finish().expect("memory").into()
}

#[tokio::test]
async fn the_ehr_sees_its_own_token_and_nothing_of_the_apps() {
    let world = World::start().await;
    let headers = [
        ("cookie", "session=MARKER"),
        ("x-forwarded-for", "203.0.113.9"),
        ("x-custom", "MARKER"),
        ("referer", "https://app.example/MARKER"),
        ("accept", "application/fhir+json;q=0.9"),
        ("prefer", "handling=strict"),
        ("if-none-match", "W/\"3\""),
    ];
    world.read("/Patient/p1?_summary=true", &headers).await;
    let asked = world.ehr.asked();
    assert_eq!(asked.len(), 1);
    let asked = &asked[0];
    assert_eq!((asked.method.as_str(), asked.target.as_str()), ("GET", "/fhir/r4/Patient/p1?_summary=true"));
    assert_eq!(asked.header("authorization"), Some("Bearer at-1"));
    assert_eq!(asked.header("accept"), Some("application/fhir+json;q=0.9"));
    assert_eq!(
        (asked.header("prefer"), asked.header("if-none-match")),
        (Some("handling=strict"), Some("W/\"3\""))
    );
    assert!(asked.header("user-agent").is_some_and(|agent| agent.starts_with("chartgate/")));
    let seen = format!("{:?}", asked.headers);
    assert!(!seen.contains("MARKER") && !seen.contains("mb_sk") && !seen.contains("203.0.113"), "{seen}");
}

#[tokio::test]
async fn the_app_sees_no_header_that_is_not_meant_for_it() {
    let world = World::start().await;
    world.ehr.answers(|_| {
        let mut answer = json(r#"{"resourceType":"Patient","id":"p1"}"#);
        for (name, value) in [
            ("set-cookie", "ehr=MARKER"),
            ("server", "MARKER"),
            ("x-powered-by", "MARKER"),
            ("authorization", "Bearer MARKER"),
            ("access-control-allow-origin", "*"),
            ("etag", "W/\"1\""),
            ("last-modified", "Mon, 01 Jan 2024 00:00:00 GMT"),
        ] {
            answer.headers_mut().insert(name, HeaderValue::from_static(value));
        }
        answer
    });
    let answer = world.read("/Patient/p1", &[]).await;
    assert_eq!((answer.status, answer.header("etag")), (200, Some("W/\"1\"")));
    assert!(answer.header("last-modified").is_some());
    assert_eq!(answer.header("cache-control"), Some("no-store"));
    let seen = format!("{:?}", answer.headers);
    assert!(!seen.contains("MARKER") && !seen.contains("access-control"), "{seen}");
}

#[tokio::test]
async fn not_modified_passes_and_a_head_has_no_body() {
    let world = World::start().await;
    world.ehr.answers(|asked| match (&asked.method, asked.header("if-none-match")) {
        (_, Some("W/\"1\"")) => with_status(304, typed("application/fhir+json", "")),
        (&Method::HEAD, _) => typed("application/fhir+json", ""),
        _ => json("{}"),
    });
    let answer = world.read("/Patient/p1", &[("if-none-match", "W/\"1\"")]).await;
    assert_eq!((answer.status, answer.body.len(), answer.whole), (304, 0, true));
    let head =
        live(&world.app, "HEAD", &format!("{}/Patient/p1", world.proxy()), &[], "").await.whole().await;
    assert_eq!((head.status, head.body.len()), (200, 0));
    assert_eq!(world.ehr.asked().pop().map(|asked| asked.method), Some(Method::HEAD));
}

#[tokio::test]
async fn links_are_turned_whatever_the_packing_and_left_alone_on_wish() {
    let world = World::start().await;
    let (theirs, ours) = (world.ehr.base.clone(), world.proxy());
    let bundle = format!(
        r#"{{"resourceType":"Bundle","link":[{{"relation":"next","url":"{theirs}?page=a%3D%3D"}}],"entry":[{{"fullUrl":"{theirs}/Patient/p1","resource":{{"n":1.10}}}}]}}"#
    );
    let expected = bundle.replace(&theirs, &ours);
    let (plain, packed) = (bundle.clone(), gzipped(&bundle));
    world.ehr.answers(move |asked| {
        if !asked.header("accept-encoding").is_some_and(|encodings| encodings.contains("gzip")) {
            return json(&plain);
        }
        let mut answer = typed("application/fhir+json;charset=utf-8", packed.clone());
        answer.headers_mut().insert("content-encoding", HeaderValue::from_static("gzip"));
        answer
    });
    for encodings in ["identity", "gzip", "br", ""] {
        let answer = world.read("/Patient?_id=p1", &[("accept-encoding", encodings)]).await;
        assert_eq!((answer.text(), answer.header("content-encoding")), (&*expected, None), "{encodings}");
        assert!(answer.whole);
    }
    // As the EHR wrote it, and packed as the app asked.
    let unchanged = ("chartgate-links", "unchanged");
    let answer = world.read("/Patient?_id=p1", &[unchanged]).await;
    assert_eq!(
        (answer.text(), answer.header("content-length")),
        (&*bundle, Some(&*bundle.len().to_string()))
    );
    let answer = world.read("/Patient?_id=p1", &[unchanged, ("accept-encoding", "gzip")]).await;
    assert_eq!((answer.body.clone(), answer.header("content-encoding")), (gzipped(&bundle), Some("gzip")));
    // The next link, as a client follows it, reaches the EHR letter by letter.
    world.ehr.asked();
    let next = format!("{ours}?page=a%3D%3D");
    live(&world.app, "GET", &next, &[], "").await.whole().await;
    assert_eq!(world.ehr.asked()[0].target, "/fhir/r4?page=a%3D%3D");
}

#[tokio::test]
async fn what_is_no_json_passes_byte_for_byte() {
    let world = World::start().await;
    let body: Bytes =
        [b"\0\"url\":\"".as_slice(), world.ehr.base.as_bytes(), b"/x\"\xff\xfe"].concat().into();
    let sent = body.clone();
    world.ehr.answers(move |_| typed("application/pdf", sent.clone()));
    let answer = world.read("/Binary/1", &[("accept", "application/pdf")]).await;
    assert_eq!((answer.body.clone(), answer.header("content-type")), (body.clone(), Some("application/pdf")));
    assert_eq!(answer.header("content-length"), Some(&*body.len().to_string()));
}

#[tokio::test]
async fn a_search_by_form_goes_by_form_or_by_address() {
    const FORM: &str = "application/x-www-form-urlencoded";
    let world = World::start().await;
    let search = async |query: &str, kind: &str, form: &str| {
        let url = format!("{}/Observation/_search{query}", world.proxy());
        let answer = live(&world.app, "POST", &url, &[("content-type", kind)], form).await.whole().await;
        (answer, world.ehr.asked())
    };
    let (answer, asked) =
        search("?_count=5", "application/x-www-form-urlencoded; charset=UTF-8", "code=a%7Cb+c").await;
    assert_eq!((answer.status, asked.len()), (200, 1));
    assert_eq!((asked[0].method.as_str(), &*asked[0].target), ("POST", "/fhir/r4/Observation/_search"));
    assert_eq!((&*asked[0].body, asked[0].header("content-type")), ("code=a%7Cb+c&_count=5", Some(FORM)));
    // A server that turns out not to know it is asked by address.
    world.ehr.answers(|asked| match asked.method {
        Method::POST => with_status(405, typed("text/plain", "no")),
        _ => json(r#"{"resourceType":"Bundle"}"#),
    });
    let (answer, asked) = search("", FORM, "code=a%7Cb+c").await;
    assert_eq!((answer.status, asked.len()), (200, 2));
    assert_eq!((asked[1].method.as_str(), &*asked[1].target), ("GET", "/fhir/r4/Observation?code=a%7Cb%20c"));
    assert_eq!((asked[1].header("content-type"), &*asked[1].body), (None, ""));
    let (answer, _) = search("", FORM, &format!("code={}", "x".repeat(9000))).await;
    assert_eq!(answer.refusal(), (413, "search-too-long".to_owned()));
    let (answer, asked) = search("", "application/json", "{}").await;
    assert_eq!((answer.refusal(), asked.len()), ((415, "not-a-form".to_owned()), 0));
}

#[tokio::test]
async fn only_reading_reaches_the_ehr() {
    let world = World::start().await;
    for (method, path) in [
        ("POST", "/Patient"),
        ("POST", ""),
        ("POST", "/Patient/p1/$everything"),
        ("POST", "/metadata"),
        ("PUT", "/Patient/p1"),
        ("PATCH", "/Patient/p1"),
        ("DELETE", "/Patient/p1"),
        ("TRACE", "/Patient/p1"),
    ] {
        let url = format!("{}{path}", world.proxy());
        let kind = [("content-type", "application/x-www-form-urlencoded")];
        let answer = live(&world.app, method, &url, &kind, "").await.whole().await;
        assert_eq!(answer.refusal(), (405, "read-only".to_owned()), "{method} {path}");
        assert!(answer.header("allow").is_some_and(|allow| allow.contains("GET")));
    }
    assert!(world.ehr.asked().is_empty());
}

#[tokio::test]
async fn a_large_answer_passes_whole_and_link_by_link() {
    let world = World::start().await;
    let (theirs, ours) = (world.ehr.base.clone(), world.proxy());
    let entry = move |base: &str, number: usize| {
        format!(
            r#"{{"fullUrl":"{base}/Observation/{number}","resource":{{"id":"{number}","x":"{}"}}}},"#,
            "y".repeat(number % 300)
        )
    };
    let pieces_of = move |base: String| (0..40_000).map(move |number| Bytes::from(entry(&base, number)));
    let expected: Vec<Bytes> = pieces_of(ours).collect();
    world.ehr.answers(move |_| pieces("application/fhir+json", pieces_of(theirs.clone())));
    let answer = world.read("/Observation?patient=p1", &[]).await;
    assert!(answer.whole && answer.body == expected.concat(), "{} bytes", answer.body.len());
}

#[tokio::test]
async fn a_capability_statement_that_is_none_is_not_passed_off_as_one() {
    let world = World::start().await;
    world.ehr.answers(|_| typed("text/html", "<html>welcome</html>"));
    assert_eq!(world.read("/metadata", &[]).await.refusal(), (502, "bad-capability-statement".to_owned()));
    world.ehr.answers(|_| with_status(503, typed("text/html", "<html>later</html>")));
    let passed = world.read("/metadata", &[]).await;
    assert_eq!((passed.status, passed.text()), (503, "<html>later</html>"));
    let outcome: Value = world.read("/Nothing/1", &[]).await.json();
    assert_eq!(outcome["issue"][0]["code"], "not-found");
}

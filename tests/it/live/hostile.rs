//! Against an EHR, or whoever stands in its place, that wants the token elsewhere, or never ends, or never begins; and
//! against an app that does.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use bytes::Bytes;
use chartgate::body::{Body, BodyError};
use futures_util::{StreamExt as _, stream};
use http_body_util::{BodyExt as _, StreamBody};
use hyper::Response;
use hyper::body::Frame;
use hyper::header::HeaderValue;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::sync::Notify;

use super::ehr::{World, json, live, pieces, typed, with_status};
use crate::support::send;

#[tokio::test]
async fn no_path_leads_out_of_the_base() {
    let world = World::start().await;
    for path in [
        "/..",
        "/../token",
        "/Patient/../../../token",
        "/Patient/%2e%2e/%2e%2e/token",
        "/Patient/%252e%252e/x",
        "/Patient/..%2f..%2ftoken",
        "/Patient/..%5c..%5ctoken",
        "/Patient/..;x/y",
        "//evil.example/Patient",
        "//Patient/1",
        "/@evil.example/",
        "/https://evil.example/Patient/1",
        "/Patient/1%00",
        "/Patient/1%0d%0aX-Injected:%201",
        "/Patient/1%3fx",
        "/Patient/1%23x",
        "/.well-known/openid-configuration",
        "/$export",
    ] {
        let answer = world.read(path, &[]).await;
        assert_eq!(answer.refusal(), (404, "not-fhir".to_owned()), "{path}");
    }
    // A request line with a whole URL or a backslash in it, as no client library would write it.
    let authority = world.app.origin.strip_prefix("http://").expect("http").to_owned();
    for target in [
        format!("/fhir/{}/Patient\\..\\..\\token", world.connection),
        format!("/fhir/{}/Patient/1\\@evil.example", world.connection),
        format!("http://user@evil.example/fhir/{}/../token", world.connection),
        format!("/fhir/{}/Patient/1/../../../../token", world.connection),
    ] {
        let mut stream = tokio::net::TcpStream::connect(&authority).await.expect("a connection");
        let request = format!(
            "GET {target} HTTP/1.1\r\nhost: {authority}\r\nauthorization: Bearer {}\r\nconnection: close\r\n\r\n",
            world.app.key
        );
        stream.write_all(request.as_bytes()).await.expect("sent");
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.expect("an answer");
        assert!(answer.starts_with("HTTP/1.1 40"), "{target}: {answer}");
    }
    assert!(world.ehr.asked().is_empty(), "nothing of it reached the EHR");
}

#[tokio::test]
async fn a_redirect_is_never_followed_and_only_one_within_the_base_is_shown() {
    let world = World::start().await;
    let other = World::start().await;
    let elsewhere = format!("{}/Patient/p1", other.ehr.base);
    let inside = format!("{}/Patient/p2", world.ehr.base);
    let near = inside.replace("/fhir/r4/", "/fhir/r4x/");
    for (location, expected) in
        [(elsewhere, None), (near, None), (inside, Some("/Patient/p2")), (String::new(), None)]
    {
        let sent = location.clone();
        world.ehr.answers(move |_| {
            let mut answer = with_status(302, typed("text/html", "moved"));
            if let Ok(value) = HeaderValue::from_str(&sent) {
                answer.headers_mut().insert("location", value);
            }
            answer
        });
        let answer = world.read("/Patient/p1", &[]).await;
        match expected {
            Some(rest) => {
                assert_eq!(answer.status, 302);
                assert_eq!(answer.header("location"), Some(&*format!("{}{rest}", world.proxy())));
            }
            None => assert_eq!(answer.refusal(), (502, "source-redirected".to_owned()), "{location}"),
        }
    }
    assert_eq!(world.ehr.asked().len(), 4, "asked once each time");
    assert!(other.ehr.asked().is_empty(), "the token went nowhere else");
}

#[tokio::test]
async fn links_that_lead_elsewhere_stay_what_they_are() {
    let world = World::start().await;
    let base = world.ehr.base.clone();
    let text = format!(
        r#"{{"link":[{{"url":"https://evil.example/?{base}/x"}},{{"url":"{base}x/Patient"}},{{"url":"{}"}}]}}"#,
        base.replace("127.0.0.1", "127.0.0.1.evil.example")
    );
    let sent = text.clone();
    world.ehr.answers(move |_| json(&sent));
    assert_eq!(world.read("/Patient/p1", &[]).await.text(), text);
}

#[tokio::test]
async fn an_answer_without_end_is_cut_at_its_limit() {
    let world = World::with(vec![("fhir.response_body", "1 MiB")]).await;
    for kind in ["application/fhir+json", "application/pdf"] {
        let piece = Bytes::from(vec![b'x'; 16 * 1024]);
        world.ehr.answers(move |_| pieces(kind, std::iter::repeat(piece.clone())));
        let answer = world.read("/Patient/p1", &[]).await;
        assert!(!answer.whole, "{kind}: the app sees that it is cut");
        assert!(answer.body.len() <= 1 << 20, "{kind}: {}", answer.body.len());
        assert!(answer.body.len() > 900_000, "{kind}: {}", answer.body.len());
    }
    // Packed, a little is much.
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::default());
    std::io::Write::write_all(&mut encoder, &vec![b'x'; 64 << 20]).expect("memory");
    let bomb: Bytes = encoder.finish().expect("memory").into();
    world.ehr.answers(move |_| {
        let mut answer = typed("application/fhir+json", bomb.clone());
        answer.headers_mut().insert("content-encoding", HeaderValue::from_static("gzip"));
        answer
    });
    let answer = world.read("/Patient/p1", &[]).await;
    assert!(!answer.whole && answer.body.len() <= 1 << 20, "{}", answer.body.len());
}

#[tokio::test]
async fn a_flood_of_headers_is_refused() {
    let world = World::start().await;
    for (count, length) in [(500, 10), (50, 8000)] {
        world.ehr.answers(move |_| {
            let mut answer = json("{}");
            for number in 0..count {
                let name =
                    hyper::header::HeaderName::from_bytes(format!("x-{number}").as_bytes()).expect("a name");
                let value = HeaderValue::from_str(&"v".repeat(length)).expect("a value");
                answer.headers_mut().insert(name, value);
            }
            answer
        });
        assert_eq!(world.read("/Patient/p1", &[]).await.refusal(), (502, "source-unreachable".to_owned()));
    }
    world.ehr.answers(|_| json("{}"));
    assert_eq!(world.read("/Patient/p1", &[]).await.status, 200, "the next one is served");
}

/// A body that gives `first` and then waits for ever; `dropped` is told when nobody wants it any more.
fn stalls(first: &'static [u8], dropped: Arc<Notify>) -> Response<Body> {
    struct Told(Arc<Notify>);
    impl Drop for Told {
        fn drop(&mut self) {
            self.0.notify_one();
        }
    }
    let told = Told(dropped);
    let rest = stream::pending().map(move |()| {
        let _kept = &told;
        Ok(Frame::data(Bytes::new()))
    });
    let frames = stream::iter([Ok::<_, BodyError>(Frame::data(Bytes::from_static(first)))]).chain(rest);
    let mut response = Response::new(StreamBody::new(frames).boxed_unsync());
    response.headers_mut().insert("content-type", HeaderValue::from_static("application/fhir+json"));
    response
}

#[tokio::test]
async fn a_silent_ehr_costs_a_bounded_time() {
    let world = World::with(vec![("fhir.timeout", "1s")]).await;
    // The answer begins and stops.
    let dropped = Arc::new(Notify::new());
    let told = Arc::clone(&dropped);
    world.ehr.answers(move |_| stalls(b"{\"resourceType\":", Arc::clone(&told)));
    let answer = world.read("/Patient/p1", &[]).await;
    assert_eq!((answer.status, answer.text(), answer.whole), (200, "{\"resourceType\":", false));
    dropped.notified().await;
    // It does not begin.
    let user = world.app.hospital.users()[0].clone();
    world.app.connected("ben-3", &user.username).await;
    let connection = world.app.connection("ben-3").await["id"].as_str().expect("an id").to_owned();
    world.app.hospital.faults(serde_json::json!({"fhir": {"*": {"status": "hang"}}})).await;
    let url = format!("{}/fhir/{connection}/Patient/1", world.app.origin);
    let answer = live(&world.app, "GET", &url, &[], "").await.whole().await;
    assert_eq!(answer.refusal(), (504, "source-silent".to_owned()));
}

#[tokio::test]
async fn what_breaks_off_does_not_look_whole() {
    let world = World::start().await;
    world.ehr.answers(|_| {
        let broken = stream::iter([Ok(Frame::data(Bytes::from_static(b"{"))), Err(BodyError::from("gone"))]);
        let mut response = Response::new(StreamBody::new(broken).boxed_unsync());
        response.headers_mut().insert("content-type", HeaderValue::from_static("application/fhir+json"));
        response
    });
    let answer = world.read("/Patient/p1", &[]).await;
    assert!(answer.status == 502 || !answer.whole, "{answer:?}");
}

#[tokio::test]
async fn an_app_that_goes_away_takes_its_request_along() {
    let world = World::start().await;
    let dropped = Arc::new(Notify::new());
    let told = Arc::clone(&dropped);
    world.ehr.answers(move |_| stalls(b"{\"resourceType\":", Arc::clone(&told)));
    let mut opening = live(&world.app, "GET", &format!("{}/Patient/p1", world.proxy()), &[], "").await;
    let first = opening.response.body_mut().frame().await.expect("a frame").expect("data");
    assert_eq!(first.data_ref().map(Bytes::len), Some(16));
    drop(opening);
    dropped.notified().await;
}

#[tokio::test]
async fn an_app_that_stops_reading_stops_the_ehr() {
    const PIECE: usize = 64 * 1024;
    const PIECES: usize = 4096;
    let world = World::start().await;
    let made = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&made);
    world.ehr.answers(move |_| {
        let (made, piece) = (Arc::clone(&counted), Bytes::from(vec![b'x'; PIECE]));
        pieces(
            "application/fhir+json",
            std::iter::repeat_n(piece, PIECES).inspect(move |_| {
                made.fetch_add(1, Ordering::SeqCst);
            }),
        )
    });
    let mut opening = live(&world.app, "GET", &format!("{}/Patient/p1", world.proxy()), &[], "").await;
    // Read as long as each piece takes, then look how far ahead the EHR is: buffers of sockets and a few of ours, however
    // much is still to come.
    let (mut read, mut ahead) = (0, 0);
    while read < 32 * PIECE {
        let frame = opening.response.body_mut().frame().await.expect("a frame").expect("data");
        read += frame.data_ref().map_or(0, Bytes::len);
        ahead = ahead.max((made.load(Ordering::SeqCst) * PIECE).saturating_sub(read));
    }
    for _ in 0..50_000 {
        tokio::task::yield_now().await;
    }
    ahead = ahead.max((made.load(Ordering::SeqCst) * PIECE).saturating_sub(read));
    assert!(ahead < PIECE * PIECES / 4, "{ahead} bytes ahead of an app that does not read");
    let rest = opening.whole().await;
    assert!(rest.whole && read + rest.body.len() == PIECE * PIECES, "nothing is lost");
}

#[tokio::test]
async fn a_source_is_asked_so_many_things_at_once_and_the_rest_is_told_to_come_again() {
    let settings = vec![("fhir.parallel_per_source", "1"), ("fhir.waiting_per_source", "0")];
    let world = World::with(settings).await;
    let dropped = Arc::new(Notify::new());
    let told = Arc::clone(&dropped);
    world.ehr.answers(move |_| stalls(b"{\"resourceType\":", Arc::clone(&told)));
    let first = live(&world.app, "GET", &format!("{}/Patient/p1", world.proxy()), &[], "").await;
    assert_eq!(first.response.status(), 200);
    let second = world.read("/Patient/p1", &[]).await;
    assert_eq!(second.refusal(), (429, "too-many-at-source".to_owned()));
    assert_eq!(second.header("retry-after"), Some("2"));
    drop(first);
    dropped.notified().await;
    world.ehr.answers(|_| json("{}"));
    // The turn ends with the answer's body, which the server lets go of a moment later.
    while world.read("/Patient/p1", &[]).await.status != 200 {}
    // A page of ours is no part of it.
    assert_eq!(send("GET", &format!("{}/health", world.app.origin), &[], "").await.status, 200);
}

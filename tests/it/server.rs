//! The sockets room over real loopback sockets. Every wait is for the server to act.

mod support;

use std::sync::Arc;

use chartgate::server::Limits;
use http_body_util::BodyExt as _;
use hyper::StatusCode;
use rustls::HandshakeKind;
use support::{
    Running, SOON, check_closed_without_a_byte, drip, get, patient, send, until_closed, until_text, within,
};
use tokio::io::AsyncWriteExt as _;
use tokio::net::TcpStream;

/// The client's connection preface of HTTP/2 (RFC 9113 section 3.4) without the SETTINGS that must follow.
const H2_PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
/// An empty SETTINGS frame.
const H2_SETTINGS: &[u8] = &[0, 0, 0, 4, 0, 0, 0, 0, 0];
/// `GET https://localhost/` in HPACK's static table (`:method`, `:scheme`, `:path`), with
/// `END_STREAM` but not `END_HEADERS`.
const H2_HALF_HEADERS: &[u8] = &[0, 0, 3, 1, 1, 0, 0, 0, 1, 0x82, 0x87, 0x84];
/// The same with `END_HEADERS`.
const H2_HEADERS: &[u8] = &[0, 0, 3, 1, 5, 0, 0, 0, 1, 0x82, 0x87, 0x84];
const H2_PING: &[u8] = &[0, 0, 8, 6, 0, 0, 0, 0, 0, 1, 2, 3, 4, 5, 6, 7, 8];

const HELLO: &str = "GET / HTTP/1.1\r\nHost: localhost\r\n\r\n";

fn heads_soon() -> Limits {
    Limits { request_head: SOON, ..patient() }
}

fn idle_soon() -> Limits {
    Limits { idle: SOON, ..patient() }
}

fn stall_soon() -> Limits {
    Limits { write_stall: SOON, ..patient() }
}

// ---- what never becomes a request

#[tokio::test]
async fn a_client_that_never_finishes_its_tls_handshake_is_cut() {
    let server = Running::tls(Limits { tls_handshake: SOON, ..patient() }).await;
    // A handshake record of 512 bytes, of which six come.
    let half_hello: &[u8] = &[0x16, 3, 1, 2, 0, 1];
    for sent in [&b""[..], half_hello] {
        let mut client = server.tcp().await;
        send(&mut client, sent).await;
        check_closed_without_a_byte(&until_closed(&mut client).await, sent);
    }
}

#[tokio::test]
async fn a_client_that_sends_no_whole_head_is_cut() {
    let plain = Running::plain(heads_soon()).await;
    let tls = Running::tls(heads_soon()).await;
    for sent in ["", "GET", "GET / HTTP/1.1\r\nHost: loc", "GET / HTTP/1.1\r\nHost: localhost\r\n"] {
        let mut client = plain.tcp().await;
        send(&mut client, sent).await;
        check_closed_without_a_byte(&until_closed(&mut client).await, sent);

        let mut client = tls.tls_stream(&["http/1.1"]).await;
        send(&mut client, sent).await;
        check_closed_without_a_byte(&until_closed(&mut client).await, sent);
    }
}

#[tokio::test]
async fn a_head_that_drips_is_cut_however_steadily_it_drips() {
    let plain = Running::plain(heads_soon()).await;
    let mut client = plain.tcp().await;
    send(&mut client, "GET / HTTP/1.1\r\nX: ").await;
    check_closed_without_a_byte(&drip(&mut client, b"a").await, "plain");

    let tls = Running::tls(heads_soon()).await;
    let mut client = tls.tls_stream(&["http/1.1"]).await;
    send(&mut client, "GET / HTTP/1.1\r\nX: ").await;
    check_closed_without_a_byte(&drip(&mut client, b"a").await, "TLS");
}

#[tokio::test]
async fn a_second_head_that_drips_is_cut_long_before_the_idle_limit() {
    let server = Running::plain(heads_soon()).await;
    let mut client = server.tcp().await;
    send(&mut client, HELLO).await;
    until_text(&mut client, "hello").await;
    send(&mut client, "GET / HTTP/1.1\r\nX: ").await;
    check_closed_without_a_byte(&drip(&mut client, b"a").await, "second request");
}

#[tokio::test]
async fn an_http2_client_that_sends_no_whole_head_is_cut() {
    let server = Running::tls(heads_soon()).await;
    let settled = [H2_PREFACE, H2_SETTINGS].concat();
    let half_head = [H2_PREFACE, H2_SETTINGS, H2_HALF_HEADERS].concat();
    for sent in [b"", &H2_PREFACE[..10], H2_PREFACE, &settled, &half_head] {
        let mut client = server.tls_stream(&["h2"]).await;
        send(&mut client, sent).await;
        until_closed(&mut client).await;
    }
    server.alive(0).await;
}

// ---- connections at rest

#[tokio::test]
async fn a_resting_connection_is_closed_after_its_time_and_not_before_an_answer() {
    let server = Running::plain(idle_soon()).await;
    let mut client = server.tcp().await;
    for _ in 0..3 {
        send(&mut client, HELLO).await;
        until_text(&mut client, "hello").await;
    }
    check_closed_without_a_byte(&until_closed(&mut client).await, "idle");
}

#[tokio::test]
async fn a_resting_tls_connection_is_closed_too() {
    let server = Running::tls(idle_soon()).await;
    let mut client = server.tls_stream(&["http/1.1"]).await;
    send(&mut client, HELLO).await;
    until_text(&mut client, "hello").await;
    check_closed_without_a_byte(&until_closed(&mut client).await, "idle");
}

#[tokio::test]
async fn a_resting_http2_connection_is_closed_although_it_pings() {
    let server = Running::tls(idle_soon()).await;
    let mut client = server.h2().await;
    let response = within("an answer", client.send_request(get("/"))).await.expect("answered");
    response.into_body().collect().await.expect("whole");
    within("the connection closes", async {
        while client.ready().await.is_ok() {
            tokio::task::yield_now().await;
        }
    })
    .await;
}

#[tokio::test]
async fn an_http2_client_that_does_not_go_when_told_is_cut() {
    let server = Running::tls(Limits { write_stall: SOON, ..idle_soon() }).await;
    let mut client = server.tls_stream(&["h2"]).await;
    send(&mut client, [H2_PREFACE, H2_SETTINGS, H2_HEADERS].concat()).await;
    drip(&mut client, H2_PING).await;
}

#[tokio::test]
async fn a_handler_may_work_longer_than_every_limit_of_the_connection() {
    let server =
        Running::tls(Limits { request_head: SOON, idle: SOON, write_stall: SOON, ..patient() }).await;
    let mut slow = server.tls_stream(&["http/1.1"]).await;
    send(&mut slow, "GET /gate HTTP/1.1\r\nHost: localhost\r\n\r\n").await;
    server.alive(1).await;
    // Another connection is closed for resting, so all three limits have passed for the first one.
    let mut other = server.tls_stream(&["http/1.1"]).await;
    check_closed_without_a_byte(&until_closed(&mut other).await, "other");
    let mut hung = server.tls_stream(&["http/1.1"]).await;
    send(&mut hung, "GET /hang HTTP/1.1\r\nHost: localhost\r\n\r\n").await;
    let answer = until_text(&mut slow, "through").await;
    assert!(answer.starts_with("HTTP/1.1 200 OK"), "{answer}");
}

// ---- bodies of requests

#[tokio::test]
async fn a_body_that_stalls_or_drips_is_given_up() {
    let head = "POST /read HTTP/1.1\r\nHost: localhost\r\nContent-Length: 900\r\n\r\n";

    let server = Running::plain(Limits { request_body_idle: SOON, ..patient() }).await;
    let mut client = server.tcp().await;
    send(&mut client, format!("{head}abc")).await;
    let answer = until_closed(&mut client).await;
    assert!(answer.starts_with("HTTP/1.1 408") && answer.ends_with("TooSlow"), "{answer}");

    let server = Running::plain(Limits { request_body_total: SOON, ..patient() }).await;
    let mut client = server.tcp().await;
    send(&mut client, head).await;
    let answer = drip(&mut client, b"a").await;
    assert!(answer.starts_with("HTTP/1.1 408") && answer.ends_with("TooSlow"), "{answer}");
}

#[tokio::test]
async fn an_http2_body_that_stalls_is_given_up() {
    let server =
        Running::tls(Limits { request_body_idle: SOON, idle: SOON, write_stall: SOON, ..patient() }).await;
    let mut client = server.tls_stream(&["h2"]).await;
    // `POST /read` with a path that is a literal (RFC 7541 section 6.2.2), no END_STREAM.
    let head = [&[0, 0, 9, 1, 4, 0, 0, 0, 1, 0x83, 0x87, 4, 5][..], b"/read"].concat();
    send(&mut client, [H2_PREFACE, H2_SETTINGS, &head].concat()).await;
    let answer = until_closed(&mut client).await;
    assert!(answer.contains("TooSlow"), "{answer:?}");
}

#[tokio::test]
async fn a_body_is_read_up_to_its_limit() {
    let server = Running::plain(patient()).await;
    let mut client = server.tcp().await;
    let post = |headers: &str| format!("POST /read HTTP/1.1\r\nHost: localhost\r\n{headers}\r\n\r\n");

    let mut exact = post("Content-Length: 1000").into_bytes();
    exact.resize(exact.len() + 1000, b'x');
    send(&mut client, exact).await;
    until_text(&mut client, "read 1000").await;

    let chunked = "64\r\n".to_owned() + &"x".repeat(100) + "\r\n64\r\n" + &"x".repeat(100) + "\r\n0\r\n\r\n";
    send(&mut client, post("Transfer-Encoding: chunked") + &chunked).await;
    until_text(&mut client, "read 200").await;

    // Refused by its announcement: the client is never told to go on.
    send(&mut client, post("Content-Length: 1001\r\nExpect: 100-continue")).await;
    let answer = until_closed(&mut client).await;
    assert!(answer.starts_with("HTTP/1.1 413") && answer.ends_with("TooLarge"), "{answer}");

    let mut client = server.tcp().await;
    let endless = "400\r\n".to_owned() + &"x".repeat(1024) + "\r\n";
    send(&mut client, post("Transfer-Encoding: chunked") + &endless).await;
    let answer = until_closed(&mut client).await;
    assert!(answer.starts_with("HTTP/1.1 413") && answer.ends_with("TooLarge"), "{answer}");

    let mut client = server.tcp().await;
    send(&mut client, post("Transfer-Encoding: chunked") + "not a length\r\n").await;
    let answer = until_closed(&mut client).await;
    assert!(answer.starts_with("HTTP/1.1 400") && answer.ends_with("Broken"), "{answer}");
}

#[tokio::test]
async fn a_client_that_is_still_sending_can_read_why_it_was_refused() {
    let server = Running::plain(patient()).await;
    let mut client = server.tcp().await;
    send(&mut client, "POST /read HTTP/1.1\r\nHost: localhost\r\nContent-Length: 30000000\r\n\r\n").await;
    // More than all the kernel's buffers hold, and only then does it read.
    send(&mut client, vec![b'x'; 30_000_000]).await;
    let answer = until_text(&mut client, "TooLarge").await;
    assert!(answer.starts_with("HTTP/1.1 413"), "{answer}");
}

// ---- clients that do not read

#[tokio::test]
async fn a_client_that_never_reads_is_cut() {
    let request = "GET /endless HTTP/1.1\r\nHost: localhost\r\n\r\n";
    let server = Running::plain(stall_soon()).await;
    let mut client = server.tcp().await;
    send(&mut client, request).await;
    server.alive(1).await;
    server.alive(0).await;

    let server = Running::tls(stall_soon()).await;
    let mut client = server.tls_stream(&["http/1.1"]).await;
    send(&mut client, request).await;
    server.alive(1).await;
    server.alive(0).await;
}

#[tokio::test]
async fn a_client_that_asks_again_and_again_and_never_reads_is_cut() {
    let server = Running::plain(stall_soon()).await;
    let mut client = server.tcp().await;
    let requests = "GET /empty HTTP/1.1\r\nHost: localhost\r\n\r\n".repeat(1000);
    within("the server closes", async { while client.write_all(requests.as_bytes()).await.is_ok() {} }).await;
}

#[tokio::test]
async fn an_http2_stream_that_never_opens_its_window_is_cut() {
    let server = Running::tls(stall_soon()).await;
    let mut client = server.h2().await;
    let response = within("an answer", client.send_request(get("/endless"))).await.expect("answered");
    server.alive(0).await;
    drop(response);
    within("the connection closes", async {
        while client.ready().await.is_ok() {
            tokio::task::yield_now().await;
        }
    })
    .await;
}

#[tokio::test]
async fn an_http2_answer_that_is_whole_but_not_taken_is_cut() {
    let server = Running::tls(stall_soon()).await;
    let mut client = server.tls_stream(&["h2"]).await;
    // SETTINGS_INITIAL_WINDOW_SIZE 0, and `GET /short`, whose body hyper takes from the handler at once.
    let closed_window = [0, 0, 6, 4, 0, 0, 0, 0, 0, 0, 4, 0, 0, 0, 0];
    let head = [&[0, 0, 10, 1, 5, 0, 0, 0, 1, 0x82, 0x87, 4, 6][..], b"/short"].concat();
    send(&mut client, [H2_PREFACE, &closed_window, &head].concat()).await;
    let answer = until_closed(&mut client).await;
    assert!(!answer.contains("yyyy"), "the window was shut");
}

#[tokio::test]
async fn a_client_that_reads_gets_all_it_asked_for() {
    let server = Running::tls(stall_soon()).await;
    let mut client = server.h2().await;
    let response = within("an answer", client.send_request(get("/endless"))).await.expect("answered");
    let mut body = response.into_body();
    let mut seen = 0;
    while seen < 4_000_000 {
        let frame = within("a frame", body.frame()).await.expect("more").expect("a frame");
        seen += frame.data_ref().map_or(0, bytes::Bytes::len);
    }
    drop(body);
    server.alive(0).await;
    let response = within("an answer", client.send_request(get("/"))).await.expect("the connection lives on");
    assert_eq!(response.status(), StatusCode::OK);
}

// ---- heads that are too large

#[tokio::test]
async fn a_head_with_too_many_fields_or_bytes_is_refused_and_the_connection_closed() {
    let server = Running::plain(Limits { head_fields: 20, head_bytes: 16 * 1024, ..patient() }).await;
    let fields = "X-Filler: y\r\n";
    let accepted = format!("GET / HTTP/1.1\r\n{}\r\n", fields.repeat(20));
    let many = format!("GET / HTTP/1.1\r\n{}\r\n", fields.repeat(21));
    let large = format!("GET / HTTP/1.1\r\nX-Filler: {}\r\n\r\n", "y".repeat(40_000));

    let mut client = server.tcp().await;
    send(&mut client, accepted).await;
    until_text(&mut client, "hello").await;
    for refused in [many, large] {
        let mut client = server.tcp().await;
        // The server may close before all of it is sent.
        let _ = within("a write", client.write_all(refused.as_bytes())).await;
        let answer = until_closed(&mut client).await;
        assert!(answer.starts_with("HTTP/1.1 431"), "{answer}");
    }
}

#[tokio::test]
async fn an_http2_head_with_too_many_fields_or_bytes_is_refused() {
    let server = Running::tls(Limits { head_fields: 20, head_bytes: 16 * 1024, ..patient() }).await;
    let mut client = server.h2().await;
    let mut many = get("/");
    for number in 0..21 {
        let name = format!("x-filler-{number}").parse::<hyper::header::HeaderName>().expect("a name");
        many.headers_mut().insert(name, hyper::header::HeaderValue::from_static("y"));
    }
    let response = within("an answer", client.send_request(many)).await.expect("answered");
    assert_eq!(response.status(), StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE);

    let mut large = get("/");
    let value = "y".repeat(20_000).parse().expect("a value");
    large.headers_mut().insert("x-filler", value);
    let refused = within("an answer", client.send_request(large)).await;
    assert!(refused.is_err() || refused.is_ok_and(|response| response.status().is_client_error()));
}

// ---- how many

#[tokio::test]
async fn beyond_the_limit_of_connections_the_newest_waits_for_a_place() {
    let server = Running::plain(Limits { connections: 1, ..patient() }).await;
    let mut first = server.tcp().await;
    send(&mut first, HELLO).await;
    until_text(&mut first, "hello").await;

    let mut second = server.tcp().await;
    send(&mut second, HELLO).await;
    // The first is served while the second is not.
    send(&mut first, HELLO).await;
    until_text(&mut first, "hello").await;
    assert!(tokio::time::timeout(SOON, second.readable()).await.is_err(), "the second has no place yet");

    drop(first);
    until_text(&mut second, "hello").await;
}

#[tokio::test]
async fn beyond_the_limit_of_its_address_a_client_is_closed_without_a_byte() {
    let server = Running::plain(Limits { connections_per_address: 2, ..patient() }).await;
    let mut first = server.tcp().await;
    let mut second = server.tcp().await;
    for client in [&mut first, &mut second] {
        send(client, HELLO).await;
        until_text(client, "hello").await;
    }
    let mut third = server.tcp().await;
    check_closed_without_a_byte(&until_closed(&mut third).await, "third");

    send(&mut first, HELLO.replace("\r\n\r\n", "\r\nConnection: close\r\n\r\n")).await;
    until_closed(&mut first).await;
    drop(first);
    // Its place is free once the server has seen the end of it.
    within("a place", async {
        loop {
            let mut again = server.tcp().await;
            if again.write_all(HELLO.as_bytes()).await.is_ok() && !until_some(&mut again).await.is_empty() {
                break;
            }
        }
    })
    .await;
}

async fn until_some(client: &mut TcpStream) -> Vec<u8> {
    use tokio::io::AsyncReadExt as _;
    let mut some = Vec::new();
    let _cut = within("bytes or an end", client.read_buf(&mut some)).await;
    some
}

#[tokio::test]
async fn an_http2_client_has_no_more_streams_than_its_limit() {
    let server = Running::tls(Limits { h2_streams: 3, ..patient() }).await;
    let mut client = server.h2().await;
    let response = within("the settings", client.send_request(get("/"))).await.expect("answered");
    response.into_body().collect().await.expect("whole");
    let mut open = Vec::new();
    for _ in 0..5 {
        open.push(Box::pin(client.send_request(get("/hang"))));
    }
    server.alive(3).await;
    drop(open);
    server.alive(0).await;
}

#[tokio::test]
async fn an_http2_client_that_opens_and_resets_streams_in_haste_is_cut() {
    let server = Running::tls(patient()).await;
    let mut client = server.tls_stream(&["h2"]).await;
    let mut haste = [H2_PREFACE, H2_SETTINGS].concat();
    for stream in (1..2000_u16).step_by(2) {
        let [high, low] = stream.to_be_bytes();
        haste.extend([0, 0, 3, 1, 5, 0, 0, high, low, 0x82, 0x87, 0x84]);
        // RST_STREAM with CANCEL.
        haste.extend([0, 0, 4, 3, 0, 0, 0, high, low, 0, 0, 0, 8]);
    }
    // The server may close before all of it is sent.
    let _ = within("a write", client.write_all(&haste)).await;
    until_closed(&mut client).await;
    server.alive(0).await;
}

// ---- handlers that fail

#[tokio::test]
async fn a_panic_ends_one_http1_connection_and_nothing_else() {
    let server = Running::plain(patient()).await;
    let mut bystander = server.tcp().await;
    send(&mut bystander, HELLO).await;
    until_text(&mut bystander, "hello").await;

    let mut client = server.tcp().await;
    send(&mut client, "GET /panic HTTP/1.1\r\nHost: localhost\r\n\r\n").await;
    check_closed_without_a_byte(&until_closed(&mut client).await, "panic");

    send(&mut bystander, HELLO).await;
    until_text(&mut bystander, "hello").await;
    let mut client = server.tcp().await;
    send(&mut client, HELLO).await;
    until_text(&mut client, "hello").await;
}

#[tokio::test]
async fn a_panic_ends_one_http2_stream_and_nothing_else() {
    let server = Running::tls(patient()).await;
    let mut client = server.h2().await;
    assert!(within("a reset", client.send_request(get("/panic"))).await.is_err());
    let response = within("an answer", client.send_request(get("/"))).await.expect("answered");
    assert_eq!(response.status(), StatusCode::OK);
}

#[tokio::test]
async fn a_handler_is_dropped_when_its_client_goes_away() {
    let server = Running::plain(patient()).await;
    let mut client = server.tcp().await;
    send(&mut client, "GET /hang HTTP/1.1\r\nHost: localhost\r\n\r\n").await;
    server.alive(1).await;
    drop(client);
    server.alive(0).await;

    let server = Running::tls(patient()).await;
    let mut client = server.tls_stream(&["h2"]).await;
    let head = [&[0, 0, 9, 1, 5, 0, 0, 0, 1, 0x82, 0x87, 4, 5][..], b"/hang"].concat();
    send(&mut client, [H2_PREFACE, H2_SETTINGS, &head].concat()).await;
    server.alive(1).await;
    drop(client);
    server.alive(0).await;
}

// ---- the stop

#[tokio::test]
async fn a_stop_lets_a_request_end_and_closes_what_rests() {
    let server = Running::plain(patient()).await;
    let mut resting = server.tcp().await;
    send(&mut resting, HELLO).await;
    until_text(&mut resting, "hello").await;
    let mut silent = server.tcp().await;
    let mut working = server.tcp().await;
    send(&mut working, "GET /gate HTTP/1.1\r\nHost: localhost\r\n\r\n").await;
    server.alive(1).await;

    server.shutdown.trigger();
    check_closed_without_a_byte(&until_closed(&mut resting).await, "resting");
    check_closed_without_a_byte(&until_closed(&mut silent).await, "silent");
    assert!(TcpStream::connect(server.address).await.is_err(), "nobody listens any more");
    assert!(TcpStream::connect(server.second).await.is_err(), "nobody listens any more");
    assert!(!server.has_ended(), "a request is still open");

    server.alive.send_modify(|count| *count += 1);
    let answer = until_closed(&mut working).await;
    assert!(answer.starts_with("HTTP/1.1 200 OK") && answer.ends_with("through"), "{answer}");
    server.ended().await;
}

#[tokio::test]
async fn a_stop_lets_an_http2_request_end_and_closes_handshakes() {
    let server = Running::tls(patient()).await;
    let mut client = server.h2().await;
    let working = client.send_request(get("/gate"));
    server.alive(1).await;
    let mut shaking = server.tcp().await;
    send(&mut shaking, [0x16, 3, 1, 2, 0, 1]).await;
    // A whole handshake later the half one has been accepted.
    let mut resting = server.tls_stream(&["http/1.1"]).await;

    server.shutdown.trigger();
    check_closed_without_a_byte(&until_closed(&mut shaking).await, "shaking");
    check_closed_without_a_byte(&until_closed(&mut resting).await, "resting");
    server.alive.send_modify(|count| *count += 1);
    let response = within("an answer", working).await.expect("answered");
    let body = response.into_body().collect().await.expect("whole").to_bytes();
    assert_eq!(body, "through");
    server.ended().await;
}

#[tokio::test]
async fn a_hung_handler_is_dropped_when_the_time_for_the_stop_is_over() {
    let server = Running::plain_with_drain(patient(), SOON).await;
    let mut client = server.tcp().await;
    send(&mut client, "GET /hang HTTP/1.1\r\nHost: localhost\r\n\r\n").await;
    server.alive(1).await;
    server.shutdown.trigger();
    server.ended().await;
    server.alive(0).await;
    check_closed_without_a_byte(&until_closed(&mut client).await, "hung");

    let server = Running::tls_with_drain(patient(), SOON).await;
    let mut client = server.h2().await;
    let hung = client.send_request(get("/hang"));
    server.alive(1).await;
    server.shutdown.trigger();
    server.ended().await;
    server.alive(0).await;
    assert!(within("the cut", hung).await.is_err());
}

// ---- what is agreed in the handshake

#[tokio::test]
async fn the_handler_learns_who_asks_on_every_listener() {
    let server = Running::plain(patient()).await;
    for address in [server.address, server.second] {
        let mut client = TcpStream::connect(address).await.expect("connected");
        send(&mut client, "GET /peer HTTP/1.1\r\nHost: localhost\r\n\r\n").await;
        until_text(&mut client, "false 127.0.0.1").await;
    }
    let server = Running::tls(patient()).await;
    let mut client = server.tls_stream(&[]).await;
    send(&mut client, "GET /peer HTTP/1.1\r\nHost: localhost\r\n\r\n").await;
    until_text(&mut client, "true 127.0.0.1").await;
}

#[tokio::test]
async fn http2_is_preferred_and_a_second_handshake_is_resumed() {
    let server = Running::tls(patient()).await;
    let config = server.client_config(&["http/1.1", "h2"]);
    let mut kinds = Vec::new();
    for _ in 0..2 {
        let mut client = server.tls_stream_with(Arc::clone(&config)).await;
        assert_eq!(client.get_ref().1.alpn_protocol(), Some(&b"h2"[..]));
        // The ticket comes with the server's first bytes.
        send(&mut client, [H2_PREFACE, H2_SETTINGS, H2_HEADERS].concat()).await;
        until_text(&mut client, "hello").await;
        kinds.push(client.get_ref().1.handshake_kind());
    }
    assert_eq!(kinds, [Some(HandshakeKind::Full), Some(HandshakeKind::Resumed)]);
}

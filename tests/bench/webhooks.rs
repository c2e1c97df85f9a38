//! A long outbox: how fast it drains, in how much memory, and whether a receiver that does not answer slows the others.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use chartgate::clock::Clock;
use chartgate::config::Environment;
use chartgate::crypto::Random;
use chartgate::events::{EventKind, Fact, NewEndpoint, Outbox, WebhookSettings, Webhooks};
use chartgate::id::{PatientKey, WorkspaceId};
use chartgate::outbound::{Outbound, OutboundSettings};
use chartgate::shutdown::Shutdown;
use chartgate::store::{Store, StoreError};
use http_body_util::{BodyExt as _, Full};
use hyper::Response;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use serde_json::json;
use tokio::net::TcpListener;

use crate::support::{Stopwatch, Table, float, folder, new_store, resident};

/// Receivers, of which one may not answer.
const RECEIVERS: u64 = 20;
/// Facts, of which each endpoint gets an event: 100,000 events.
const FACTS: u64 = 5_000;
/// Facts that one write tells of.
const STEP: u64 = 100;

pub async fn measure(table: &mut Table) {
    // First, while nothing else has needed memory.
    let ailing = drain(true).await;
    let well = drain(false).await;
    table.row(
        "100,000 events queued, one of 20 receivers silent",
        format!("{:.0} events/s, {:.2} commits each", ailing.rate, ailing.commits),
        format!("all 20 answer: {:.0} events/s", well.rate),
        format!("{:.2} (≥ 0.8)", ailing.rate / well.rate),
        Some(ailing.rate / well.rate >= 0.8),
    );
    table.row(
        "memory while they drain",
        format!("{:.0} MB more", ailing.megabytes),
        "64 MB, the store's cache, and 16".to_owned(),
        String::new(),
        Some(ailing.megabytes <= 80.0),
    );
}

/// How the events of the receivers that answer were delivered.
struct Drained {
    rate: f64,
    /// For each event.
    commits: f64,
    /// Memory above what the process had before.
    megabytes: f64,
}

async fn drain(one_is_silent: bool) -> Drained {
    let folder = folder();
    let store = new_store(folder.path());
    let (clock, random, shutdown) = (Clock::machine(), Random::system(), Shutdown::default());
    let took = Arc::new(AtomicU64::new(0));
    let port = receivers(Arc::clone(&took), &shutdown).await;
    let outbox = Outbox::new(random.clone());
    let webhooks = Webhooks::new(
        store.clone(),
        clock.clone(),
        random.clone(),
        Outbound::new(&OutboundSettings::default()).expect("a client"),
        outbox.clone(),
        WebhookSettings { overlap: Duration::ZERO, retention: Duration::from_hours(720) },
        shutdown.clone(),
    );
    let workspace: WorkspaceId = random.id(clock.now());
    for number in 0..RECEIVERS {
        let silent = one_is_silent && number == 0;
        let path = if silent { "silent".to_owned() } else { number.to_string() };
        let new = NewEndpoint {
            url: format!("http://127.0.0.1:{port}/{path}"),
            events: vec!["*".to_owned()],
            description: None,
            metadata: serde_json::Map::new(),
            api_version: "2026-04-25".to_owned(),
        };
        webhooks.create(workspace, Environment::Sandbox, new).await.expect("made");
    }
    queue(&store, &outbox, &clock, &random, workspace).await;
    let before = resident("self").0;
    let all = (RECEIVERS - u64::from(one_is_silent)) * FACTS;
    let commits = store.commits();
    let watch = Stopwatch::start();
    webhooks.start();
    let mut most = before;
    while took.load(Ordering::Relaxed) < all {
        tokio::time::sleep(Duration::from_millis(50)).await;
        most = f64::max(most, resident("self").0);
    }
    let rate = float(all) / watch.seconds();
    let commits = float(store.commits() - commits) / float(all);
    shutdown.trigger();
    shutdown.drained(Duration::from_secs(10)).await;
    Drained { rate, commits, megabytes: most - before }
}

async fn queue(store: &Store, outbox: &Outbox, clock: &Clock, random: &Random, workspace: WorkspaceId) {
    for _ in 0..FACTS / STEP {
        let (outbox, at, patient) = (outbox.clone(), clock.now(), random.id::<PatientKey>(clock.now()));
        let queued = store.write(move |change| {
            for number in 0..STEP {
                let fact = Fact { workspace, patient, kind: EventKind::SyncCompleted, at };
                let data = json!({
                    "resource_type": "records_sync", "patient_id": format!("patient-{number}"),
                    "connection_id": "fhirsrc_01KB2V0A7M5P9C3Q6T8X2Z4WBD", "total": 812, "changed": 12, "errors": 0,
                    "duration_ms": 4_211,
                });
                outbox.emit(change, fact, |_| Ok(data))?;
            }
            Ok::<_, StoreError>(())
        });
        queued.await.expect("queued");
    }
}

/// Answers at once, but not at `/silent`; counts its answers.
async fn receivers(took: Arc<AtomicU64>, shutdown: &Shutdown) -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let port = listener.local_addr().expect("an address").port();
    let stop = shutdown.clone();
    shutdown.spawn(async move {
        loop {
            let stream = tokio::select! {
                () = stop.triggered() => return,
                accepted = listener.accept() => accepted.expect("a connection").0,
            };
            let (took, stop_one) = (Arc::clone(&took), stop.clone());
            stop.spawn(async move {
                let service = service_fn(|request: hyper::Request<hyper::body::Incoming>| {
                    let took = Arc::clone(&took);
                    async move {
                        let silent = request.uri().path() == "/silent";
                        let _ = request.into_body().collect().await;
                        if silent {
                            std::future::pending::<()>().await;
                        }
                        took.fetch_add(1, Ordering::Relaxed);
                        Ok::<_, std::convert::Infallible>(Response::new(Full::<Bytes>::default()))
                    }
                });
                let connection = hyper::server::conn::http1::Builder::new();
                tokio::select! {
                    () = stop_one.triggered() => {}
                    _ = connection.serve_connection(TokioIo::new(stream), service) => {}
                }
            });
        }
    });
    port
}

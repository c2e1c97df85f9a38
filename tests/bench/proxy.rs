//! The live proxy against nginx, which passes TLS to TLS with a static header and nothing else: requests in a second, CPU
//! of each, latency added at a fixed rate, memory while a gigabyte passes, and what turning links costs. All in one run on
//! the same cores; the hospital is an nginx too, so that it costs little. Needs Debian's `nginx-light`.
//!
//! `cargo bench -- proxy` measures everything, `cargo bench -- proxy brief` a few cells shortly.

pub mod peers;
mod wire;

use std::time::Duration;

use crate::support::{Table, float, folder, median, say};
use peers::{Peers, cpu_seconds, peak_megabytes};
use wire::{Load, Protocol};

const SIZES: [(&str, usize); 3] = [("2 KB", 2 << 10), ("50 KB", 50 << 10), ("1 MB", 1 << 20)];
const GIGABYTE: u64 = 1 << 30;
/// Requests in a second, for latency.
const FIXED_RATE: u32 = 2000;

/// What one peer did in one cell.
struct Cell {
    per_second: f64,
    /// Microseconds of CPU for one request.
    cpu: f64,
}

pub async fn measure(table: &mut Table, brief: bool) {
    let folder = folder();
    let Some(peers) = Peers::start(folder.path()).await else {
        return say(
            "skipped: the proxy is measured against nginx, which is not installed (Debian: nginx-light)",
        );
    };
    // First, while nothing else has needed memory.
    memory(table, &peers).await;
    let span = Duration::from_millis(if brief { 500 } else { 2500 });
    let connections: &[usize] = if brief { &[64] } else { &[16, 64, 256] };
    let protocols: &[Protocol] = if brief { &[Protocol::Http1] } else { &[Protocol::Http1, Protocol::Http2] };
    for protocol in protocols {
        for (size, bytes) in SIZES {
            for connections in connections {
                let load = Load { protocol: *protocol, connections: *connections, span, extra: &[] };
                let nginx = cell(&peers, &load, true, bytes).await;
                let ours = cell(&peers, &load, false, bytes).await;
                let (rate, cpu) = (ours.per_second / nginx.per_second, ours.cpu / nginx.cpu);
                let (least, most) = match (protocol, bytes) {
                    (Protocol::Http1, 2048) => (1.0, 1.0),
                    (Protocol::Http1, _) => (1.05, 0.75),
                    (Protocol::Http2, 2048) => (1.25, 0.75),
                    (Protocol::Http2, _) => (1.0, 0.75),
                };
                table.row(
                    &format!("live proxy, {}, {size}, {connections} at once", protocol.name()),
                    format!("{:.0}/s, {:.0} µs CPU each", ours.per_second, ours.cpu),
                    format!("nginx {:.0}/s, {:.0} µs", nginx.per_second, nginx.cpu),
                    format!("{rate:.2} (≥ {least}), CPU {cpu:.2} (≤ {most})"),
                    Some(rate >= least && cpu <= most),
                );
            }
        }
    }
    latency(table, &peers, span).await;
    links(table, &peers, span).await;
}

async fn cell(peers: &Peers, load: &Load<'_>, nginx: bool, bytes: usize) -> Cell {
    let (address, path, process) = peers.target(nginx, &format!("Basic/{bytes}"));
    // The first requests open connections.
    wire::run(address, &path, &peers.key, &Load { span: Duration::from_millis(300), ..*load }, bytes).await;
    let before = cpu_seconds(process);
    let (count, seconds) = wire::run(address, &path, &peers.key, load, bytes).await;
    let cpu = (cpu_seconds(process) - before) * 1e6 / float(count.max(1));
    Cell { per_second: float(count) / seconds, cpu }
}

/// What each adds to a direct request's latency, at a rate that leaves the cores idle half of the time.
async fn latency(table: &mut Table, peers: &Peers, span: Duration) {
    let path = "Basic/2048";
    let paced = async |address, path: &str| {
        let mut times = wire::paced(address, path, &peers.key, 16, FIXED_RATE, span).await;
        times.sort_by(f64::total_cmp);
        let late = times[times.len() * 99 / 100];
        (median(times), late)
    };
    let (direct, _) = paced(peers.hospital, &format!("/fhir/{path}")).await;
    let (address, nginx_path, _) = peers.target(true, path);
    let (nginx, nginx_late) = paced(address, &nginx_path).await;
    let (address, our_path, _) = peers.target(false, path);
    let (ours, late) = paced(address, &our_path).await;
    let ratio = (ours - direct) / (nginx - direct);
    table.row(
        &format!("live proxy, added to the median at {FIXED_RATE}/s"),
        format!("{:.0} µs (p99 {late:.0})", ours - direct),
        format!("nginx {:.0} µs (p99 {nginx_late:.0})", nginx - direct),
        format!("{ratio:.2} (≤ 1)"),
        Some(ratio <= 1.0),
    );
}

/// The same answer with its links turned and as it came.
async fn links(table: &mut Table, peers: &Peers, span: Duration) {
    for (size, bytes) in SIZES {
        let load = Load { protocol: Protocol::Http1, connections: 16, span, extra: &[] };
        let turned = cell(peers, &load, false, bytes).await;
        let extra = [("chartgate-links", "unchanged")];
        let unchanged = cell(peers, &Load { extra: &extra, ..load }, false, bytes).await;
        table.row(
            &format!("turning the links of {size}"),
            format!("{:.0} µs CPU", turned.cpu),
            format!("{:.0} µs as it came", unchanged.cpu),
            format!("{:.2}", turned.cpu / unchanged.cpu),
            None,
        );
    }
}

/// A gigabyte passes; what the process needed at most meanwhile.
async fn memory(table: &mut Table, peers: &Peers) {
    let (address, path, process) = peers.target(false, "Basic/gigabyte");
    let before = peak_megabytes(process);
    let passed = wire::drain(address, &path, &peers.key).await;
    let more = peak_megabytes(process) - before;
    table.row(
        "memory while 1 GB of FHIR passes",
        format!("{more:.1} MB more ({passed} bytes passed)"),
        "8 MB".to_owned(),
        format!("{:.2} (≤ 1)", more / 8.0),
        Some(passed >= GIGABYTE && more <= 8.0),
    );
}

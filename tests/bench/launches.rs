//! Patients' launches over real sockets: click, hospital, callback, connection on disk. Appliance, hospital and browsers
//! share the machine, and the hospital makes an RSA signature of its own for every launch (its id token).

use chartgate::crypto::{Algorithm, KeyPair};
use chartgate::grants::PULLS_WANTED;
use chartgate::store::StoreError;
use futures_util::future::join_all;

use crate::support::{Bench, Browser, Stopwatch, Table, cores, float, say};

const ALONE: usize = 60;
const TOGETHER: usize = 480;

pub async fn measure(table: &mut Table) {
    let bench = Bench::start(None, 0).await;
    bench.agrees("patient-7").await;
    let key = bench.app.parts().signing_keys.current(Algorithm::Rs384).expect("a key");
    // Discovery, key sets and connections are there from here on.
    launch(&bench, 1, 20).await;

    let alone = launch(&bench, 1, ALONE).await;
    table.row(
        "launch, commits on its path",
        format!("{:.2}", alone.commits),
        "2".to_owned(),
        format!("{:.2} (≤ 1)", alone.commits / 2.0),
        Some(alone.commits <= 2.0),
    );
    for browsers in [8, 32] {
        let before = sign_rate(&key);
        let round = launch(&bench, browsers, TOGETHER).await;
        let signs = f64::midpoint(before, sign_rate(&key)) * cores();
        say(&format!(
            "{browsers} browsers: {:.2} commits and {:.0} us of CPU per launch, hospital and browsers included",
            round.commits, round.cpu
        ));
        table.row(
            &format!("launches, {browsers} at once"),
            format!("{:.0}/s", round.rate),
            format!("RS384-2048 signs, {} cores {signs:.0}/s", cores()),
            format!("{:.2} (with the hospital's sign: {:.2})", round.rate / signs, 2.0 * round.rate / signs),
            None,
        );
    }
}

struct Round {
    rate: f64,
    commits: f64,
    /// Microseconds of this process per launch.
    cpu: f64,
}

async fn launch(bench: &Bench, browsers: usize, launches: usize) -> Round {
    let store = &bench.app.parts().store;
    let names: Vec<String> = (0..launches).map(|_| bench.app.parts().random.hex::<8>()).collect();
    let links = join_all(names.iter().map(|name| bench.link(name))).await;
    let mut open = Vec::new();
    for links in links.chunks(launches.div_ceil(browsers)) {
        open.push((Browser::open(bench).await, links.to_vec()));
    }
    let (commits, cpu, watch) = (store.commits(), cpu_seconds(), Stopwatch::start());
    // On tasks of their own, as browsers are.
    let mut running = tokio::task::JoinSet::new();
    for (mut browser, links) in open {
        let source = bench.source;
        running.spawn(async move {
            for link in links {
                let landed = browser.launch(&link, source).await;
                assert!(landed.contains("conn_"), "{landed}");
            }
        });
    }
    while let Some(done) = running.join_next().await {
        done.expect("launched");
    }
    let (seconds, count) = (watch.seconds(), float(launches as u64));
    let round = Round {
        rate: count / seconds,
        commits: float(store.commits() - commits) / count,
        cpu: (cpu_seconds() - cpu) / count * 1e6,
    };
    let wanted = store
        .write(|change| {
            let wanted = change.remove_all(PULLS_WANTED, b"")?;
            Ok::<_, StoreError>(wanted)
        })
        .await;
    assert_eq!(wanted.expect("written"), launches, "every launch left a connection that wants its records");
    round
}

fn sign_rate(key: &KeyPair) -> f64 {
    let (watch, mut count) = (Stopwatch::start(), 0);
    while watch.seconds() < 0.4 {
        key.sign(Algorithm::Rs384, b"header.claims").expect("signed");
        count += 1;
    }
    float(count) / watch.seconds()
}

/// User and system time of this process; the kernel counts in hundredths of a second.
fn cpu_seconds() -> f64 {
    let text = std::fs::read_to_string("/proc/self/stat").unwrap_or_default();
    let fields = text.rsplit(") ").next().unwrap_or_default().split(' ');
    let ticks: Vec<u64> = fields.skip(11).take(2).filter_map(|field| field.parse().ok()).collect();
    float(ticks.iter().sum()) / 100.0
}

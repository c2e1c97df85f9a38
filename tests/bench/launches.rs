//! Patients' launches over real sockets: click, hospital, callback, connection on disk. Appliance, hospital and browsers
//! share the cores, and the hospital makes an RSA signature of its own for every launch (its id token).
//! Pulls are held back, as they are in a burst.

use chartgate::crypto::Algorithm;
use chartgate::grants::PULLS_WANTED;
use chartgate::store::StoreError;
use futures_util::future::join_all;

use crate::support::{Bench, Browser, Stopwatch, Table, committed, computed, cores, float, sign};

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
        let before = sign(&key);
        let round = launch(&bench, browsers, TOGETHER).await;
        let after = sign(&key);
        let signs = f64::midpoint(before.rate, after.rate) * cores();
        table.row(
            &format!("launches, {browsers} at once"),
            format!("{:.0}/s", round.rate),
            format!("RS384-2048 signs, {} cores {signs:.0}/s", cores()),
            format!("{:.2} (with the hospital's sign: {:.2})", round.rate / signs, 2.0 * round.rate / signs),
            None,
        );
        let sign = f64::midpoint(before.cpu, after.cpu);
        let rest = round.cpu - sign - round.committing;
        table.row(
            &format!("a launch's CPU, {browsers} at once"),
            format!("{:.0} us: sign {sign:.0}, commits {:.0}, rest {rest:.0}", round.cpu, round.committing),
            format!("sign {sign:.0} us, {:.2} commits {:.0} us", round.commits, round.committing),
            format!("{:.2}", round.cpu / (sign + round.committing)),
            None,
        );
    }
}

struct Round {
    rate: f64,
    commits: f64,
    /// Microseconds that the appliance computed per launch.
    cpu: f64,
    /// How many of them its committer did.
    committing: f64,
}

async fn launch(bench: &Bench, browsers: usize, launches: usize) -> Round {
    let store = &bench.app.parts().store;
    let names: Vec<String> = (0..launches).map(|_| bench.app.parts().random.hex::<8>()).collect();
    let links = join_all(names.iter().map(|name| bench.link(name))).await;
    let (origins, source, each) = (bench.origins(), bench.source, launches.div_ceil(browsers));
    // The browsers have a thread of their own, so that what they compute can be told apart.
    let (tell, told) = tokio::sync::oneshot::channel();
    let (commits, cpu, committing) = (store.commits(), computed(), committed());
    let thread = std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        let seconds = runtime.expect("a runtime").block_on(async {
            let browsers: Vec<_> = join_all(links.chunks(each).map(|_| Browser::open(&origins))).await;
            let watch = Stopwatch::start();
            let journeys =
                browsers.into_iter().zip(links.chunks(each)).map(|(mut browser, links)| async move {
                    for link in links {
                        let landed = browser.launch(link, source).await;
                        assert!(landed.contains("conn_"), "{landed}");
                    }
                });
            join_all(journeys).await;
            watch.seconds()
        });
        let _ = tell.send(seconds);
    });
    let seconds = told.await.expect("all launched");
    // A thread that has ended is no longer in the sum.
    thread.join().expect("all launched");
    let count = float(launches as u64);
    let round = Round {
        rate: count / seconds,
        commits: float(store.commits() - commits) / count,
        cpu: (computed() - cpu) / count * 1e6,
        committing: (committed() - committing) / count * 1e6,
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

//! Keeping grants alive: thousands due at once, against the RSA signatures and the durable commits that each of them needs;
//! and whether a million others in the store make any of it dearer. The token endpoint is a process of its own on the same
//! cores, which only answers.

use std::time::Duration;

use chartgate::crypto::Algorithm;
use chartgate::events::history::RefreshedBy;
use chartgate::id::ConnectionId;

use crate::commits;
use crate::support::{
    Bench, Stopwatch, Stored, Table, committed, computed, cores, fill, float, resident, say, sign,
};
use crate::token_endpoint::TokenEndpoint;

const DUE: usize = 5_000;
const FEW: u64 = 1_000;
const MANY: u64 = 1_000_000;
const LOOK_UPS: usize = 2_000;

pub async fn measure(table: &mut Table) {
    let few = round(table, FEW).await;
    let many = round(table, MANY).await;
    for (what, few, many) in [
        ("a refresh, our CPU", few.refresh_cpu, many.refresh_cpu),
        ("an access token from the store", few.look_up, many.look_up),
        ("finding what is due next, when nothing is", few.idle, many.idle),
    ] {
        table.row(
            &format!("{what}, beside {MANY} grants"),
            format!("{many:.0} us"),
            format!("beside {FEW}: {few:.0} us"),
            format!("{:.2} (≤ 2)", many / few),
            Some(many / few <= 2.0),
        );
    }
}

/// Microseconds each.
struct Round {
    refresh_cpu: f64,
    look_up: f64,
    idle: f64,
}

async fn round(table: &mut Table, others: u64) -> Round {
    let endpoint = TokenEndpoint::start();
    let bench = Bench::trusting(None, 0, Some(endpoint.authority.clone())).await;
    let parts = bench.app.parts();
    let now = parts.clock.now();
    let source = parts.directory.source(bench.source).expect("a source");
    let watch = Stopwatch::start();
    let as_ = Stored {
        source: bench.source,
        ehr_client: source.ehr_client,
        expires_at: now.after(Duration::from_hours(24 * 300)),
        due_at: now.after(Duration::from_hours(24 * 300)),
        token_endpoint: None,
    };
    let stored = fill(&parts.store, others, &parts.random, as_).await;
    say(&format!("{others} grants put into a store in {:.1} s", watch.seconds()));
    let commit = commits::write_rate(&parts.store, 64).await;
    let due = Stored {
        expires_at: now.before(Duration::from_hours(24 * 25)),
        due_at: now.before(Duration::from_hours(1)),
        token_endpoint: Some(endpoint.url.clone().leak()),
        ..as_
    };

    let look_up = look_up(&bench, &stored[..LOOK_UPS.min(stored.len())]).await;
    let idle = idle(&bench).await;

    fill(&parts.store, DUE as u64, &parts.random, due).await;
    let key = parts.signing_keys.current(Algorithm::Rs384).expect("a key");
    let before = sign(&key);
    let (memory, _) = resident("self");
    let commits = parts.store.commits();
    let (cpu, committing, watch) = (computed(), committed(), Stopwatch::start());
    parts.grants.attend().await.expect("the store works");
    let seconds = watch.seconds();
    let (cpu, committing) = (computed() - cpu, committed() - committing);
    let commits = parts.store.commits() - commits;
    let (_, most) = resident("self");
    let after = sign(&key);
    let refreshed = parts.grants.upcoming(1).await.expect("read");
    assert!(refreshed[0].at > parts.clock.now(), "all that was due was done");

    let count = float(DUE as u64);
    let (rate, signs) = (count / seconds, f64::midpoint(before.rate, after.rate) * cores());
    let tighter = signs.min(commit);
    let each = |seconds: f64| seconds / count * 1e6;
    let sign_cpu = f64::midpoint(before.cpu, after.cpu);
    table.row(
        &format!("refreshes, {DUE} due at once beside {others} grants"),
        format!("{rate:.0}/s in {commits} commits"),
        format!("RS384-2048 signs on all cores {signs:.0}/s, durable writes {commit:.0}/s"),
        format!("{:.2} (≥ 0.80)", rate / tighter),
        Some(rate / tighter >= 0.80),
    );
    table.row(
        &format!("a refresh's CPU, beside {others} grants"),
        format!(
            "{:.0} us: sign {sign_cpu:.0}, commits {:.0}, rest {:.0}",
            each(cpu),
            each(committing),
            each(cpu - committing) - sign_cpu
        ),
        format!("sign {sign_cpu:.0} us"),
        format!("{:.2} of it is the signature (≥ 0.80)", sign_cpu / each(cpu)),
        Some(sign_cpu / each(cpu) >= 0.80),
    );
    say(&format!("memory of this process: {memory:.0} MB before the refreshes, {most:.0} MB at most in all"));
    Round { refresh_cpu: each(cpu), look_up, idle }
}

async fn look_up(bench: &Bench, ids: &[ConnectionId]) -> f64 {
    let grants = &bench.app.parts().grants;
    let watch = Stopwatch::start();
    for id in ids {
        grants.access(*id, RefreshedBy::Proxy).await.expect("a token");
    }
    watch.seconds() / float(ids.len() as u64) * 1e6
}

async fn idle(bench: &Bench) -> f64 {
    let grants = &bench.app.parts().grants;
    let watch = Stopwatch::start();
    for _ in 0..LOOK_UPS {
        grants.attend().await.expect("the store works");
    }
    watch.seconds() / float(LOOK_UPS as u64) * 1e6
}

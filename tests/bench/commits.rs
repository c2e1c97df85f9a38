//! Durable commits: what the store makes of the disk, against the disk alone, in turns, because a virtual disk's rate
//! changes from minute to minute.

use std::fs::File;
use std::os::unix::fs::FileExt as _;
use std::path::Path;

use chartgate::crypto::Random;
use chartgate::store::{Store, StoreError, Table as StoreTable};
use futures_util::future::join_all;

use crate::support::{Stopwatch, Table, float, folder, median, new_store};

const ROWS: StoreTable<[u8; 1000]> = StoreTable::new("bench.v1");
const ROUNDS: usize = 5;
const WAITERS: u64 = 64;
/// How long each turn takes, in seconds.
const TURN: f64 = 0.6;
/// The raw loop writes over a file of this many 4 KiB blocks.
const BLOCKS: u64 = 4096;

pub async fn measure(table: &mut Table) {
    let folder = folder();
    let store = new_store(folder.path());
    let (mut raw, mut one, mut many, mut shared) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
    for _ in 0..ROUNDS {
        raw.push(raw_rate(folder.path()));
        one.push(write_rate(&store, 1).await);
        let before = store.commits();
        let watch = Stopwatch::start();
        many.push(write_rate(&store, WAITERS).await);
        shared.push(float(store.commits() - before) / watch.seconds());
    }
    let (raw, one, many) = (median(raw), median(one), median(many));
    table.row(
        "durable commits, one writer",
        format!("{one:.0}/s"),
        format!("raw pwrite+fdatasync {raw:.0}/s"),
        format!("{:.2} (≥ 0.20)", one / raw),
        Some(one / raw >= 0.20),
    );
    table.row(
        "durable writes, 64 waiters",
        format!("{many:.0}/s in {:.0} commits/s", median(shared)),
        format!("one writer {one:.0}/s"),
        format!("{:.1} (≥ 4)", many / one),
        Some(many / one >= 4.0),
    );
}

fn raw_rate(folder: &Path) -> f64 {
    let path = folder.join("raw");
    let block = [7; 4096];
    let file =
        File::options().read(true).write(true).create(true).truncate(false).open(path).expect("a file");
    // The blocks are there before, so that only data is synced and no file size.
    if file.metadata().expect("a size").len() == 0 {
        for place in 0..BLOCKS {
            file.write_all_at(&block, place * 4096).expect("written");
        }
        file.sync_all().expect("synced");
    }
    let watch = Stopwatch::start();
    let mut count = 0;
    while watch.seconds() < TURN {
        file.write_all_at(&block, (count % BLOCKS) * 4096).expect("written");
        file.sync_data().expect("synced");
        count += 1;
    }
    float(count) / watch.seconds()
}

/// Durable writes of a row of 1 KB by so many at once, a second.
pub async fn write_rate(store: &Store, writers: u64) -> f64 {
    let random = Random::system();
    let watch = Stopwatch::start();
    let writing = (0..writers).map(|_| async {
        let mut count = 0;
        while watch.seconds() < TURN {
            let key = random.bytes::<16>();
            let written = store.write(move |change| {
                change.put(ROWS, &key, &[7; 1000]);
                Ok::<_, StoreError>(())
            });
            written.await.expect("written");
            count += 1;
        }
        count
    });
    let count: u64 = join_all(writing).await.into_iter().sum();
    float(count) / watch.seconds()
}

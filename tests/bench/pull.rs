//! Reading a long record through the real puller, against the store alone taking the same sealed rows in as many
//! transactions. The time of a pull includes the hospital's, which makes every page on the same cores; its CPU does not.
//! Then what the records take on disk, and how fast they are exported.

use std::collections::HashMap;
use std::io::Write as _;
use std::time::Duration;

use chartgate::id::{ConnectionId, Id as _};
use chartgate::records::ExportQuery;
use chartgate::store::{Range, Reader as _, Sealed, StoreError, Table as StoreTable, Value};

use crate::support::{Bench, Browser, Stopwatch, Table, computed, float, folder, median, new_store};

const SIZE: usize = 8_000;
const ROUNDS: usize = 3;

/// Rows as the puller stores them, before sealing.
struct Plain(Vec<u8>);

impl Value for Plain {
    fn encode(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(&self.0);
    }

    fn decode(bytes: &[u8]) -> Option<Self> {
        Some(Self(bytes.to_vec()))
    }
}

const RECORDS: StoreTable<Plain> = StoreTable::new("records.v1");
const RECORD_ORDER: StoreTable<Plain> = StoreTable::new("record_order.v1");

pub async fn measure(table: &mut Table) {
    let bench = Bench::start(Some(SIZE), 4).await;
    bench.agrees("patient-11").await;
    let (mut pulled, mut inserted) = (Cost::default(), Cost::default());
    let (mut exported, mut sizes) = (Vec::new(), None);
    let mut commits = 0;
    for round in 0..ROUNDS {
        let store = &bench.app.parts().store;
        let before = store.commits();
        let pull = pull(&bench, &format!("long-{round}")).await;
        commits = usize::try_from(store.commits() - before).expect("not that many");
        let rows = rows(&bench).await;
        let lines = export(&bench, &format!("long-{round}")).await;
        let megabytes = float(lines.bytes) / 1e6;
        exported.push(megabytes / lines.cpu);
        pulled.note(megabytes, pull);
        let (cost, disk) = insert(&rows, commits).await;
        inserted.note(megabytes, cost);
        sizes = Some((rows.len() as u64, disk, lines));
        forget(&bench).await;
    }
    for (what, pulled, inserted, unit) in [
        ("pull of 8,000 resources, with the hospital", pulled.rates, inserted.rates, "MB/s"),
        ("pull of 8,000 resources, our CPU only", pulled.cpu_rates, inserted.cpu_rates, "MB per CPU second"),
    ] {
        let (pulled, inserted) = (median(pulled), median(inserted));
        table.row(
            what,
            format!("{pulled:.0} {unit} in {commits} commits"),
            format!("insert of the same sealed rows {inserted:.0} {unit}"),
            format!("{:.2} (≥ 0.6)", pulled / inserted),
            Some(pulled / inserted >= 0.6),
        );
    }
    if let Some((count, disk, lines)) = sizes {
        let each = |bytes: u64| float(bytes) / float(count.max(1));
        table.row(
            "bytes on disk for a resource",
            format!("{:.0} in rows, {:.0} of the file", each(disk.rows), each(disk.file)),
            format!("text {:.0}, one gzip file {:.0}", each(lines.bytes), each(lines.packed)),
            format!("{:.2} of the text", float(disk.rows) / float(lines.bytes)),
            None,
        );
    }
    let rate = median(exported);
    table.row(
        "export of 8,000 resources as lines",
        format!("{rate:.0} MB per CPU second"),
        "200".to_owned(),
        format!("{:.2} (≥ 1)", rate / 200.0),
        Some(rate >= 200.0),
    );
}

/// An export of all records: its lines' bytes, those of the same packed as one file, and seconds computed.
struct Lines {
    bytes: u64,
    packed: u64,
    cpu: f64,
}

async fn export(bench: &Bench, patient: &str) -> Lines {
    let parts = bench.app.parts();
    let workspace = parts.workspaces.named("sandbox").await.expect("read").expect("a workspace");
    let patient = parts.patients.find(workspace.id, patient).await.expect("read").expect("a patient");
    let cpu = computed();
    let mut pieces = Vec::new();
    let mut export = parts.records.export(patient, ExportQuery::default());
    while let Some(piece) = export.next().await.expect("read") {
        pieces.push(piece);
    }
    let cpu = computed() - cpu;
    let mut packer = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::default());
    for piece in &pieces {
        packer.write_all(piece).expect("memory");
    }
    let file = packer.finish().expect("memory").len() as u64;
    Lines { bytes: pieces.iter().map(|piece| piece.len() as u64).sum(), packed: file, cpu }
}

/// What the rows take: sealed, with their keys, and as a file of their own.
#[derive(Clone, Copy)]
struct Disk {
    rows: u64,
    file: u64,
}

/// Megabytes of records per second, and per second computed.
#[derive(Default)]
struct Cost {
    rates: Vec<f64>,
    cpu_rates: Vec<f64>,
}

impl Cost {
    fn note(&mut self, megabytes: f64, (seconds, cpu): (f64, f64)) {
        self.rates.push(megabytes / seconds);
        self.cpu_rates.push(megabytes / cpu);
    }
}

/// Seconds from the end of the launch to the end of the pull, and seconds computed.
async fn pull(bench: &Bench, patient: &str) -> (f64, f64) {
    let link = bench.link(patient).await;
    let cpu = computed();
    let landed = Browser::open(&bench.origins()).await.launch(&link, bench.source).await;
    let watch = Stopwatch::start();
    let id = &landed[landed.find("conn_").expect("a connection")..];
    let id = id.split(['/', '?']).next().unwrap_or_default();
    let id = ConnectionId::parse(id).expect("an id");
    loop {
        let pull = bench.app.parts().records.pulls().latest(id).await.expect("read");
        if let Some(pull) = pull.filter(|pull| pull.state.is_over()) {
            assert!(pull.stored >= SIZE, "{} of {SIZE} stored: {pull:?}", pull.stored);
            return (watch.seconds(), computed() - cpu);
        }
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
}

struct Row {
    order: (Vec<u8>, Plain),
    record: (Vec<u8>, Plain),
}

/// What was stored, in the order in which it was.
async fn rows(bench: &Bench) -> Vec<Row> {
    let read = bench.app.parts().store.read(|view| {
        let mut records: HashMap<_, _> = view.rows(RECORDS, &Range::of(b""))?.into_iter().collect();
        let order = view.rows(RECORD_ORDER, &Range::of(b""))?;
        let rows = order.into_iter().map(|(key, entry)| {
            let place = entry.0[..32].to_vec();
            let record = records.remove(&place).expect("the record of its place");
            Row { order: (key, entry), record: (place, record) }
        });
        Ok::<_, StoreError>(rows.collect())
    });
    read.await.expect("read")
}

/// Seconds to put these rows into an empty store in `commits` transactions, and seconds computed.
async fn insert(rows: &[Row], commits: usize) -> ((f64, f64), Disk) {
    let folder = folder();
    let store = new_store(folder.path());
    let seal = |row: &Row| -> [(Vec<u8>, Sealed); 2] {
        let (order, record) = (&row.order, &row.record);
        [
            (order.0.clone(), store.vault().seal(RECORD_ORDER, &order.0, &order.1)),
            (record.0.clone(), store.vault().seal(RECORDS, &record.0, &record.1)),
        ]
    };
    let sealed: Vec<_> = rows.iter().map(seal).collect();
    let bytes = sealed.iter().flatten().map(|(key, value)| (key.len() + value.size()) as u64).sum();
    let batches: Vec<_> = sealed.chunks(rows.len().div_ceil(commits)).map(<[_]>::to_vec).collect();
    let (cpu, watch) = (computed(), Stopwatch::start());
    for batch in batches {
        let written = store.write(move |change| {
            for [(order_key, order), (record_key, record)] in batch {
                change.put_sealed(RECORD_ORDER, &order_key, order);
                change.put_sealed(RECORDS, &record_key, record);
            }
            Ok::<_, StoreError>(())
        });
        written.await.expect("written");
    }
    let cost = (watch.seconds(), computed() - cpu);
    let file = std::fs::metadata(store.path()).map_or(0, |about| about.len());
    (cost, Disk { rows: bytes, file })
}

/// So that each round begins with the same store.
async fn forget(bench: &Bench) {
    let removed = bench.app.parts().store.write(|change| {
        change.remove_all(RECORDS, b"")?;
        change.remove_all(RECORD_ORDER, b"")
    });
    assert!(removed.await.expect("written") >= SIZE);
}

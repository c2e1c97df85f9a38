//! The directory with everything loaded: how long searching takes, what the index takes, and what an import costs while
//! patients search. With `CHARTGATE_TEST_DATA` the lists are the published ones; else they are made up.

use std::fs::File;
use std::io::{Cursor, Read, Write as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use chartgate::clock::Clock;
use chartgate::config::Environment;
use chartgate::crypto::Random;
use chartgate::directory::import::{ImportLimits, read_list};
use chartgate::directory::{Directory, DirectoryEntry, EntryKind, ImportRequest};
use serde_json::{Value, json};

use crate::support::{Stopwatch, Table, float, folder, new_store, say};

/// Queries of one kind.
const QUERIES: usize = 1_000;
/// What one search may take, in microseconds.
const SEARCH_BUDGET: f64 = 1_000.0;
const INDEX_BUDGET: f64 = 40.0 * 1024.0 * 1024.0;
const BUILD_BUDGET: f64 = 0.5;

pub async fn measure(table: &mut Table) {
    let kept = folder();
    let store = new_store(kept.path());
    let directory = Directory::load(store, Clock::machine(), Random::system()).expect("a directory");
    let (lists, real) = lists(kept.path());
    say(&format!("directory: {} lists, {}", lists.len(), if real { "published" } else { "made up" }));
    let mut entries = Vec::new();
    for path in &lists {
        let Ok(list) = read_list(File::open(path).expect("a file"), ImportLimits::default()) else {
            continue;
        };
        if list.entries.is_empty() {
            continue;
        }
        entries.extend(list.entries.into_iter().filter(DirectoryEntry::is_offered));
        import(&directory, path).await;
    }
    let mut built = f64::MAX;
    let mut report = None;
    for _ in 0..5 {
        let watch = Stopwatch::start();
        report = Some(directory.reindex(Environment::Live).await.expect("read"));
        built = built.min(watch.seconds());
    }
    let report = report.expect("measured");
    table.row(
        &format!("index over {} entries, {} servers", report.entries, report.sources),
        format!("{:.1} MB", float(report.bytes as u64) / 1_048_576.0),
        "40 MB".to_owned(),
        format!("{:.2}", float(report.bytes as u64) / INDEX_BUDGET),
        Some(float(report.bytes as u64) <= INDEX_BUDGET),
    );
    table.row(
        "built from the store, unsealing included",
        format!("{:.0} ms", built * 1e3),
        "500 ms".to_owned(),
        format!("{:.2}", built / BUILD_BUDGET),
        Some(built <= BUILD_BUDGET),
    );
    searches(table, &directory, &entries);
    epic_size(table, &directory, kept.path(), &lists).await;
}

/// What is typed, and which of the picked entries is meant, where that is counted.
type Asked = (String, Option<usize>);

/// Latency of each kind of query, and how often a misspelt name is found.
fn searches(table: &mut Table, directory: &Directory, entries: &[DirectoryEntry]) {
    let mut dice = Dice(0x5eed_cafe_f00d_1234);
    let mut all = Vec::new();
    let sample = |dice: &mut Dice| &entries[dice.below(entries.len())];
    let mut kinds: Vec<(&str, Vec<Asked>)> = Vec::new();
    let picked: Vec<&DirectoryEntry> = (0..QUERIES).map(|_| sample(&mut dice)).collect();
    kinds.push(("name", picked.iter().map(|entry| (entry.name.clone(), None)).collect()));
    let misspelt = picked
        .iter()
        .enumerate()
        .filter_map(|(at, entry)| Some((misspell(&entry.name, &mut dice)?, Some(at))));
    kinds.push(("name with one mistake", misspelt.collect()));
    let town = picked.iter().map(|entry| (format!("{} {}", first_words(&entry.name, 2), entry.city), None));
    kinds.push(("beginning of the name and town", town.collect()));
    let growing = picked.iter().flat_map(|entry| {
        let name: Vec<char> = entry.name.chars().collect();
        (1..=name.len().min(8))
            .map(move |end| (name[..end].iter().collect::<String>(), None))
            .collect::<Vec<_>>()
    });
    kinds.push(("letter by letter", growing.take(QUERIES * 2).collect()));
    let fixed = [
        "mychart",
        "healow",
        "hospital",
        "medical center",
        "tx",
        "texas",
        "a",
        "m",
        "s",
        "st",
        "health care tx",
        "family medicine",
        "mychart medical center",
        "72901",
        "clinic ca",
        "md",
        "center",
        "c",
        "community health c",
    ];
    kinds.push((
        "portals, states, one letter",
        fixed.iter().map(|text| ((*text).to_owned(), None)).cycle().take(QUERIES).collect(),
    ));
    let (mut tried, mut hit) = (0_u64, 0_u64);
    for (kind, queries) in kinds {
        let mut times = Vec::with_capacity(queries.len());
        for (text, wanted) in &queries {
            let watch = Stopwatch::start();
            let found = directory.find(Environment::Live, text, 10);
            times.push(watch.seconds() * 1e6);
            if let Some(at) = wanted {
                let entry = picked[*at];
                tried += 1;
                // A facility is found when its connection is; one name at many servers is found by its own server.
                let same = |place: &chartgate::directory::Place| {
                    place.base == entry.base
                        && (entry.kind == EntryKind::Facility || alike(&place.name, &entry.name))
                        || alike(&place.name, &entry.name)
                };
                hit += u64::from(found.places.iter().any(same));
            }
        }
        let (p50, p99) = (at(&mut times, 0.50), at(&mut times, 0.99));
        say(&format!("  {kind}: {} queries, p50 {p50:.0} us, p99 {p99:.0} us", times.len()));
        all.append(&mut times);
    }
    let (p50, p99) = (at(&mut all, 0.50), at(&mut all, 0.99));
    table.row(
        &format!("search, {} queries of all kinds", all.len()),
        format!("p50 {p50:.0} us, p99 {p99:.0} us"),
        "p99 1,000 us".to_owned(),
        format!("{:.2}", p99 / SEARCH_BUDGET),
        Some(p99 <= SEARCH_BUDGET),
    );
    let share = float(hit) / float(tried.max(1));
    table.row(
        "a name with one mistake: found in the first 10",
        format!("{hit} of {tried}"),
        "0.98".to_owned(),
        format!("{share:.3}"),
        Some(share >= 0.98),
    );
}

/// An indented copy of Epic's bundle, imported in one go while somebody searches.
async fn epic_size(table: &mut Table, directory: &Directory, kept: &Path, lists: &[PathBuf]) {
    let Some(source) = lists.iter().find(|path| path.to_string_lossy().contains("scale_synthetic")) else {
        return;
    };
    let indented = kept.join("epic.json");
    let packed = File::open(source).expect("a file");
    let mut text = Vec::new();
    flate2::read::GzDecoder::new(packed).read_to_end(&mut text).expect("gzip");
    {
        let value: Value = serde_json::from_slice(&text).expect("JSON");
        let mut out = std::io::BufWriter::new(File::create(&indented).expect("a file"));
        let formatter = serde_json::ser::PrettyFormatter::with_indent(b"        ");
        let mut serializer = serde_json::Serializer::with_formatter(&mut out, formatter);
        serde::Serialize::serialize(&value, &mut serializer).expect("written");
        out.flush().expect("written");
    }
    drop(text);
    let size = std::fs::metadata(&indented).expect("a file").len();
    let before = resident();
    reset_peak();
    let searching = Arc::new(AtomicBool::new(true));
    let longest = Arc::new(AtomicU64::new(0));
    let count = Arc::new(AtomicU64::new(0));
    let searcher = {
        let (directory, searching) = (directory.clone(), Arc::clone(&searching));
        let (longest, count) = (Arc::clone(&longest), Arc::clone(&count));
        std::thread::spawn(move || {
            while searching.load(Ordering::Relaxed) {
                let watch = Stopwatch::start();
                let found = directory.find(Environment::Live, "mercy hospital", 10);
                assert!(!found.places.is_empty(), "search stays up");
                let micros = watch.seconds() * 1e6;
                #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "microseconds")]
                longest.fetch_max(micros as u64, Ordering::Relaxed);
                count.fetch_add(1, Ordering::Relaxed);
                std::thread::yield_now();
            }
        })
    };
    let watch = Stopwatch::start();
    let file = File::open(&indented).expect("a file");
    let request = request("epic-indented");
    let report = directory.import(request, file, ImportLimits::default()).await.expect("imported");
    let seconds = watch.seconds();
    let peak = peak();
    searching.store(false, Ordering::Relaxed);
    searcher.join().expect("the searcher");
    table.row(
        &format!("import of {:.0} MB, {} entries, beside search", float(size) / 1e6, report.entries),
        format!("{seconds:.1} s, {:.0} MB/s", float(size) / 1e6 / seconds),
        String::new(),
        String::new(),
        None,
    );
    table.row(
        "memory at its peak, above what was there",
        format!(
            "{:.0} MB (from {:.0} MB)",
            float(peak.saturating_sub(before)) / 1024.0,
            float(before) / 1024.0
        ),
        format!("{:.0} MB of file", float(size) / 1e6),
        format!("{:.2}", float(peak.saturating_sub(before)) * 1024.0 / float(size)),
        None,
    );
    say(&format!(
        "  meanwhile {} searches, the longest {} us",
        count.load(Ordering::Relaxed),
        longest.load(Ordering::Relaxed)
    ));
    let watch = Stopwatch::start();
    let file = File::open(&indented).expect("a file");
    let again =
        directory.import(self::request("epic-indented"), file, ImportLimits::default()).await.expect("read");
    table.row(
        "the same again",
        format!("{:.1} s, unchanged: {}", watch.seconds(), again.unchanged),
        String::new(),
        String::new(),
        Some(again.unchanged),
    );
}

fn request(list: &str) -> ImportRequest {
    ImportRequest { list: list.to_owned(), environment: Environment::Live, url: None, etag: None, yes: false }
}

async fn import(directory: &Directory, path: &Path) {
    let name = path.file_name().expect("a name").to_string_lossy().into_owned();
    let mut bytes = Vec::new();
    File::open(path).and_then(|mut file| file.read_to_end(&mut bytes)).expect("a file");
    directory.import(request(&name), Cursor::new(bytes), ImportLimits::default()).await.expect("imported");
}

/// The published lists, the small ones first; or a made-up one of the size of all.
#[expect(clippy::disallowed_methods, reason = "the folder belongs to the machine, not to the program")]
fn lists(kept: &Path) -> (Vec<PathBuf>, bool) {
    if let Some(data) = std::env::var_os("CHARTGATE_TEST_DATA") {
        let mut found = Vec::new();
        collect(&Path::new(&data).join("directory"), &mut found);
        found.retain(|path| {
            let name = path.to_string_lossy();
            [".json", ".json.gz", ".csv"].iter().any(|ending| name.ends_with(ending))
        });
        found.sort_by_key(|path| std::fs::metadata(path).map_or(0, |about| about.len()));
        return (found, true);
    }
    let path = kept.join("made-up.json");
    std::fs::write(&path, made_up().to_string()).expect("written");
    (vec![path], false)
}

fn collect(folder: &Path, found: &mut Vec<PathBuf>) {
    for entry in std::fs::read_dir(folder).expect("a folder").flatten() {
        if entry.path().is_dir() { collect(&entry.path(), found) } else { found.push(entry.path()) }
    }
}

fn made_up() -> Value {
    let mut dice = Dice(7);
    let syllables = [
        "al", "ber", "cor", "dan", "el", "far", "gra", "hil", "is", "jen", "kal", "lo", "mer", "nor", "or",
        "pal",
    ];
    let kinds = [
        "Hospital",
        "Clinic",
        "Medical Center",
        "Family Medicine",
        "Health System",
        "Pediatrics",
        "Cardiology",
    ];
    let states = ["TX", "CA", "NY", "OK", "AR", "FL", "PA", "OH"];
    let rows = (0..150_000).map(|number| {
        let mut word = || (0..3).map(|_| syllables[dice.below(syllables.len())]).collect::<String>();
        let (name, town) = (format!("{} {}", word(), word()), word());
        let kind = kinds[number % kinds.len()];
        json!({ "name": format!("{name} {kind}"), "city": town, "state": states[number % states.len()],
            "zip": format!("{:05}", number % 90_000 + 10_000), "url": format!("https://h{}.example/r4/{number}", number % 4_000) })
    });
    Value::Array(rows.collect())
}

fn first_words(text: &str, count: usize) -> String {
    text.split_whitespace().take(count).collect::<Vec<_>>().join(" ")
}

fn alike(left: &str, right: &str) -> bool {
    let words = |text: &str| {
        chartgate::directory::fold(text).split_whitespace().map(str::to_owned).collect::<Vec<_>>()
    };
    words(left) == words(right)
}

/// One mistake in one of the longer words of a name; `None` when it has none.
fn misspell(name: &str, dice: &mut Dice) -> Option<String> {
    let mut words: Vec<String> = name.split_whitespace().map(str::to_owned).collect();
    let long: Vec<usize> = (0..words.len())
        .filter(|at| words[*at].len() >= 5 && words[*at].bytes().all(|byte| byte.is_ascii_alphabetic()))
        .collect();
    let at = *long.get(dice.below(long.len().max(1)))?;
    let mut letters: Vec<char> = words[at].to_lowercase().chars().collect();
    let spot = dice.below(letters.len() - 1);
    let random = char::from(b'a' + u8::try_from(dice.below(26)).expect("a letter"));
    match dice.below(4) {
        0 => letters.swap(spot, spot + 1),
        1 => {
            letters.remove(spot);
        }
        2 => letters.insert(spot, random),
        _ => letters[spot] = random,
    }
    words[at] = letters.into_iter().collect();
    Some(words.join(" "))
}

fn at(times: &mut [f64], share: f64) -> f64 {
    times.sort_by(f64::total_cmp);
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "an index")]
    let index = (float(times.len() as u64) * share) as usize;
    times[index.min(times.len() - 1)]
}

/// Numbers that are the same in every run (xorshift).
struct Dice(u64);

impl Dice {
    fn below(&mut self, limit: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        usize::try_from(self.0 % limit as u64).expect("small")
    }
}

fn status(name: &str) -> u64 {
    let text = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = text.lines().find_map(|line| line.strip_prefix(name)).unwrap_or_default();
    line.split_whitespace().find_map(|word| word.parse().ok()).unwrap_or(0)
}

/// Kibibytes of memory in use.
fn resident() -> u64 {
    status("VmRSS:")
}

fn peak() -> u64 {
    status("VmHWM:")
}

/// Lets the kernel forget the peak so far.
fn reset_peak() {
    let _ = std::fs::write("/proc/self/clear_refs", "5");
}

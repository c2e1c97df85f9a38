//! What the source keeps to, read from the source itself.

use std::fs;
use std::path::{Path, PathBuf};

/// The rooms: each uses those before it only. `src/ARCHITECTURE.md` says what each one owns.
const ROOMS: [&str; 26] = [
    "body",
    "clock",
    "id",
    "secret",
    "shutdown",
    "telemetry",
    "config",
    "crypto",
    "store",
    "outbound",
    "events",
    "workspaces",
    "smart",
    "directory",
    "grants",
    "records",
    "exports",
    "fhir",
    "sandbox",
    "server",
    "http",
    "api",
    "web",
    "app",
    "control",
    "cli",
];

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn files(folder: &Path, ending: &str) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder).expect("a folder") {
        let path = entry.expect("an entry").path();
        if path.is_dir() && !path.ends_with("node_modules") {
            found.extend(files(&path, ending));
        } else if path.extension().is_some_and(|known| known == ending) {
            found.push(path);
        }
    }
    found
}

/// The source files with their room and text.
fn sources() -> Vec<(String, PathBuf, String)> {
    let src = root().join("src");
    let found = files(&src, "rs").into_iter().map(|path| {
        let inside = path.strip_prefix(&src).expect("inside");
        let room = inside.iter().next().expect("a name").to_string_lossy();
        let text = fs::read_to_string(&path).expect("a text");
        (room.trim_end_matches(".rs").to_owned(), path.clone(), text)
    });
    found.filter(|(room, ..)| !matches!(room.as_str(), "lib" | "main")).collect()
}

/// The words that follow `mark` in a text.
fn words_after<'t>(text: &'t str, mark: &'t str) -> impl Iterator<Item = &'t str> {
    text.split(mark).skip(1).map(|rest| {
        let end = rest.find(|letter: char| !letter.is_ascii_alphanumeric() && letter != '_');
        &rest[..end.unwrap_or(rest.len())]
    })
}

#[test]
fn a_room_uses_the_rooms_above_it_only() {
    let place = |room: &str| ROOMS.iter().position(|known| *known == room);
    let mut uses = 0;
    for (room, path, text) in sources() {
        let own = place(&room).unwrap_or_else(|| panic!("{room} has no place in the order"));
        for name in words_after(&text, "crate::") {
            let other =
                place(name).unwrap_or_else(|| panic!("{}: `crate::{name}` is no room", path.display()));
            assert!(other <= own, "{}: {room} uses {name}", path.display());
            uses += usize::from(other < own);
        }
    }
    assert!(uses > 100, "the test reads what it means to read: {uses}");
}

#[test]
fn cryptography_and_the_database_have_one_door_each() {
    for (room, path, text) in sources() {
        for (library, owner) in [
            ("ring::", "crypto"),
            ("redb::", "store"),
            ("rsa::", "crypto"),
            ("reqwest::", "outbound"),
            ("hyper_util::client::", "outbound"),
        ] {
            let used = text.lines().any(|line| {
                let code = line.split("//").next().unwrap_or_default();
                code.split(|letter: char| !letter.is_ascii_alphanumeric() && letter != '_' && letter != ':')
                    .any(|word| word.starts_with(library))
            });
            assert!(!used || room == owner, "{} uses {library}", path.display());
        }
    }
}

#[test]
fn the_architecture_names_every_room() {
    let text = fs::read_to_string(root().join("src/ARCHITECTURE.md")).expect("the architecture");
    let modules = fs::read_to_string(root().join("src/lib.rs")).expect("the library");
    let modules: Vec<&str> = words_after(&modules, "pub mod ").collect();
    assert_eq!(modules.len(), ROOMS.len());
    for room in modules {
        assert!(ROOMS.contains(&room), "{room} has no place in the order");
        assert!(text.contains(&format!("`{room}")), "{room} is not in the architecture");
    }
}

#[test]
fn nothing_unfinished_is_left_in_the_source() {
    let marks = [
        "TO".to_owned() + "DO",
        "FIX".to_owned() + "ME",
        "to".to_owned() + "do!(",
        "unimplemented".to_owned() + "!(",
    ];
    for folder in ["src", "tests"] {
        for path in files(&root().join(folder), "rs") {
            let text = fs::read_to_string(&path).expect("a text");
            for mark in &marks {
                assert!(!text.contains(mark.as_str()), "{}: {mark}", path.display());
            }
        }
    }
}

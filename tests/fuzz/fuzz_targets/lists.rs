//! A directory's list, whatever the bytes: no panic, no more than the limits, every row accounted for, and nothing kept
//! that a page must not hold.
#![no_main]

use chartgate::directory::import::{ImportLimits, read_list};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    let limits = ImportLimits { bytes: 1 << 20, row_bytes: 128 << 10, rows: 500, text: 64 << 10 };
    if let Ok(list) = read_list(bytes, limits) {
        let refused: usize = list.refused.values().sum();
        assert_eq!(list.rows, list.entries.len() + list.doubled + refused);
        for entry in &list.entries {
            assert!(entry.base.starts_with("https://") && !entry.name.is_empty());
            assert!(!entry.name.chars().any(char::is_control) && entry.name.chars().count() <= 200);
            assert!(is_harmless(&entry.logo));
            assert!(entry.portals.iter().all(|portal| portal.url.is_empty() || portal.url.starts_with("https://")));
        }
    }
});

/// An address, or a small picture of dots; never a drawing, which can hold a script.
fn is_harmless(logo: &str) -> bool {
    let pictures = ["png", "jpeg", "gif", "webp"].map(|kind| format!("data:image/{kind};base64,"));
    logo.is_empty() || logo.starts_with("https://") || pictures.iter().any(|start| logo.starts_with(start))
}

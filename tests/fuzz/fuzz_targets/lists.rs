//! A directory's list, whatever the bytes: no panic, no more than the limits, every row accounted for.
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
            assert!(!entry.logo.contains("svg+xml") && !entry.logo.starts_with("javascript"));
        }
    }
});

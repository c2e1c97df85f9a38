//! What goes to standard output and standard error. Answers go to the one, everything else to the other.

use std::io::Write as _;

use serde_json::Value as Json;

/// Letters of a bar.
const BAR: usize = 25;

/// Prints one line, or several, to standard output. A reader that has gone away is no error of ours.
pub fn line(text: &str) {
    let _ = writeln!(std::io::stdout().lock(), "{text}");
}

/// Prints a JSON document.
pub fn json(value: &Json) {
    line(&format!("{value:#}"));
}

/// Prints progress or advice for people to standard error.
pub fn note(text: &str) {
    let _ = writeln!(std::io::stderr().lock(), "{text}");
}

/// A bar for long work, with its share in percent; full when there is nothing to do.
pub fn bar(done: u64, total: u64) -> String {
    let share = |whole: u64| (done.min(total) * whole).checked_div(total).unwrap_or(whole);
    let filled = usize::try_from(share(BAR as u64)).unwrap_or(BAR);
    format!("[{:-<BAR$}] {:>3}%", "#".repeat(filled), share(100))
}

/// Prints an error.
pub fn error(text: &str) {
    if text.starts_with("error:") {
        note(text);
    } else {
        note(&format!("error: {text}"));
    }
}

/// Prints a command's answer for people: a table for a list of objects, `name: value` lines for an object.
pub fn answer(value: &Json) {
    match value {
        Json::Array(rows) => {
            let names = rows.first().and_then(Json::as_object).map(|row| row.keys().map(String::as_str));
            table(rows, &names.into_iter().flatten().collect::<Vec<_>>());
        }
        Json::Object(members) => {
            let widest = members.keys().map(String::len).max().unwrap_or(0);
            for (name, value) in members {
                line(&format!("{name:widest$}  {}", plain(value)));
            }
        }
        Json::Null | Json::Bool(_) | Json::Number(_) | Json::String(_) => line(&plain(value)),
    }
}

/// Prints a table of these members of objects.
pub fn table(rows: &[Json], names: &[&str]) {
    if rows.is_empty() {
        line("(none)");
        return;
    }
    let cells = |row: &Json| names.iter().map(|name| plain(&row[*name])).collect::<Vec<_>>();
    let all: Vec<Vec<String>> = rows.iter().map(cells).collect();
    let widths: Vec<usize> = names
        .iter()
        .enumerate()
        .map(|(column, name)| {
            all.iter().map(|row| row[column].chars().count()).chain([name.len()]).max().unwrap_or(0)
        })
        .collect();
    let print = |cells: Vec<&str>| {
        let padded = cells.iter().zip(&widths).map(|(cell, width)| format!("{cell:width$}"));
        line(padded.collect::<Vec<_>>().join("  ").trim_end());
    };
    print(names.to_vec());
    for row in &all {
        print(row.iter().map(String::as_str).collect());
    }
}

/// A value in words.
pub fn plain(value: &Json) -> String {
    match value {
        Json::Null => "-".to_owned(),
        Json::String(text) => text.clone(),
        Json::Bool(_) | Json::Number(_) | Json::Array(_) | Json::Object(_) => value.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bar_begins_empty_and_is_full_at_the_end_and_beyond() {
        assert_eq!(bar(0, 10), format!("[{}]   0%", "-".repeat(BAR)));
        assert_eq!(bar(10, 10), format!("[{}] 100%", "#".repeat(BAR)));
        assert_eq!((bar(12, 10), bar(0, 0)), (bar(10, 10), bar(10, 10)));
        assert!(bar(5, 10).starts_with(&format!("[{}-", "#".repeat(BAR / 2))));
    }
}

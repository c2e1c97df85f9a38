//! What goes to standard output and standard error. Answers go to the one, everything else to the other.

use std::io::Write as _;

use serde_json::Value as Json;

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

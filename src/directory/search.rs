//! Finding a source by what people type.

use std::sync::Arc;

use crate::directory::Source;

/// Lower case, without accents of the Latin letters, punctuation as blanks.
pub fn fold(text: &str) -> String {
    let mut folded = String::with_capacity(text.len());
    for letter in text.chars().flat_map(char::to_lowercase) {
        match letter {
            'à'..='å' => folded.push('a'),
            'ç' => folded.push('c'),
            'è'..='ë' => folded.push('e'),
            'ì'..='ï' => folded.push('i'),
            'ñ' => folded.push('n'),
            'ò'..='ö' | 'ø' => folded.push('o'),
            'ù'..='ü' => folded.push('u'),
            '\'' | '’' => {}
            letter if letter.is_alphanumeric() => folded.push(letter),
            _ => folded.push(' '),
        }
    }
    folded
}

/// The sources that match every word by a prefix of some word, names that begin with the query first. Without a
/// query the order stays as it is.
pub(super) fn rank(sources: Vec<Arc<Source>>, query: &str) -> Vec<Arc<Source>> {
    let wanted = fold(query);
    let words: Vec<&str> = wanted.split_whitespace().collect();
    if words.is_empty() {
        return sources;
    }
    let phrase = words.join(" ");
    let mut found: Vec<(u8, Arc<Source>)> = sources
        .into_iter()
        .filter_map(|source| {
            let name = fold(&source.name);
            let place = [&source.city, &source.state].map(|part| fold(part.as_deref().unwrap_or_default()));
            let portal = source.portal_url.as_deref().map(fold).unwrap_or_default();
            let all = format!("{name} {} {} {} {portal}", place[0], place[1], fold(&source.vendor));
            let hit = words.iter().all(|word| all.split_whitespace().any(|known| known.starts_with(word)));
            let inside = || !wanted.trim().is_empty() && name.contains(phrase.as_str());
            let rank = if name == phrase {
                0
            } else if name.starts_with(&phrase) {
                1
            } else {
                2
            };
            (hit || inside()).then_some((rank, source))
        })
        .collect();
    found.sort_by(|left, right| (left.0, &left.1.name).cmp(&(right.0, &right.1.name)));
    found.into_iter().map(|(_, source)| source).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn accents_case_and_punctuation_do_not_matter() {
        assert_eq!(
            fold("St. Corazón’s–Clinic").split_whitespace().collect::<Vec<_>>(),
            ["st", "corazons", "clinic"]
        );
    }
}

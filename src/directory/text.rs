//! Names as people write them, and as they are compared: cleaned once when they are imported, folded when they are
//! searched.

use std::borrow::Cow;

use icu_normalizer::DecomposingNormalizerBorrowed;

/// Longer names and places are cut: nobody reads them, and a list must not fill the memory.
const LONGEST: usize = 200;

/// Words that tell one place from another in nobody's mind: articles and legal suffixes.
const NOISE: [&str; 24] = [
    "a", "an", "and", "at", "by", "co", "corp", "for", "in", "inc", "llc", "llp", "lp", "ltd", "md", "of",
    "on", "pa", "pc", "pllc", "plc", "psc", "sc", "the",
];

/// Spellings of one word.
const SAME: [(&str, &str); 14] = [
    ("st", "saint"),
    ("ste", "saint"),
    ("sainte", "saint"),
    ("sts", "saint"),
    ("saints", "saint"),
    ("mt", "mount"),
    ("ft", "fort"),
    ("ctr", "center"),
    ("cntr", "center"),
    ("centre", "center"),
    ("ctrs", "centers"),
    ("paediatric", "pediatric"),
    ("paediatrics", "pediatrics"),
    ("orthopaedics", "orthopedics"),
];

/// Text for people from text of a list: entities decoded once, control and formatting characters gone, blanks
/// collapsed, at most 200 characters. Markup in it stays text; whoever shows it escapes it.
pub fn clean(text: &str) -> String {
    let decoded = decode_entities(text);
    let mut out = String::with_capacity(decoded.len().min(LONGEST));
    let mut letters = 0;
    for letter in decoded.chars() {
        if letter.is_whitespace() {
            if !out.is_empty() && !out.ends_with(' ') {
                out.push(' ');
                letters += 1;
            }
        } else if !letter.is_control() && !is_format(letter) {
            out.push(letter);
            letters += 1;
        }
        if letters >= LONGEST {
            break;
        }
    }
    out.truncate(out.trim_end().len());
    out
}

/// Characters that are there and are not seen: zero width, direction marks, soft hyphens, byte order marks.
fn is_format(letter: char) -> bool {
    matches!(letter,
        '\u{ad}' | '\u{61c}' | '\u{180e}' | '\u{200b}'..='\u{200f}' | '\u{202a}'..='\u{202e}'
        | '\u{2060}'..='\u{206f}' | '\u{feff}' | '\u{fff9}'..='\u{fffb}' | '\u{e0000}'..='\u{e007f}')
}

/// The entities that lists contain. `&amp;lt;` becomes `&lt;`, not `<`.
fn decode_entities(text: &str) -> Cow<'_, str> {
    if !text.contains('&') {
        return Cow::Borrowed(text);
    }
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find('&') {
        out.push_str(&rest[..at]);
        rest = &rest[at..];
        let end = rest.bytes().take(10).position(|byte| byte == b';');
        let letter = end.and_then(|end| entity(&rest[1..end]));
        if let (Some(letter), Some(end)) = (letter, end) {
            out.push(letter);
            rest = &rest[end + 1..];
        } else {
            out.push('&');
            rest = &rest[1..];
        }
    }
    out.push_str(rest);
    Cow::Owned(out)
}

fn entity(name: &str) -> Option<char> {
    match name {
        "amp" => Some('&'),
        "lt" => Some('<'),
        "gt" => Some('>'),
        "quot" => Some('"'),
        "apos" => Some('\''),
        "nbsp" => Some(' '),
        numeric => {
            let number = numeric.strip_prefix('#')?;
            let code = match number.strip_prefix(['x', 'X']) {
                Some(hex) => u32::from_str_radix(hex, 16),
                None => number.parse(),
            };
            char::from_u32(code.ok()?)
        }
    }
}

/// Lower case, without accents, apostrophes gone, other punctuation as blanks.
pub fn fold(text: &str) -> String {
    let mut folded = String::with_capacity(text.len());
    if text.is_ascii() {
        fold_letters(text.chars(), &mut folded);
    } else {
        let plain = DecomposingNormalizerBorrowed::new_nfkd().normalize(text);
        fold_letters(plain.chars().flat_map(char::to_lowercase), &mut folded);
    }
    folded
}

fn fold_letters(letters: impl Iterator<Item = char>, out: &mut String) {
    let mut letters = letters.peekable();
    // Letters of the word that is being written, to join `M.D.` and `U. S.`-like abbreviations.
    let mut length = 0_usize;
    while let Some(letter) = letters.next() {
        match letter {
            'a'..='z' | '0'..='9' => {
                out.push(letter);
                length += 1;
            }
            'A'..='Z' => {
                out.push(letter.to_ascii_lowercase());
                length += 1;
            }
            // Apostrophes, and what is left of an accent after decomposition.
            '\'' | '’' | '‘' | '`' | 'ʼ' | '\u{300}'..='\u{36f}' => {}
            '.' if length == 1 && letters.peek().is_some_and(|next| next.is_alphanumeric()) => length = 0,
            'ß' => out.push_str("ss"),
            'ø' => out.push('o'),
            'æ' => out.push_str("ae"),
            'œ' => out.push_str("oe"),
            'ł' => out.push('l'),
            'đ' | 'ð' => out.push('d'),
            other if other.is_alphanumeric() => {
                out.push(other);
                length += 1;
            }
            _ => {
                if !out.ends_with(' ') {
                    out.push(' ');
                }
                length = 0;
            }
        }
    }
}

/// The words of a folded text, each in its one spelling; noise included.
pub(super) fn words(folded: &str) -> impl Iterator<Item = &str> {
    folded.split(' ').filter(|word| !word.is_empty()).map(canonical)
}

/// The one spelling of a folded word.
pub(super) fn canonical(word: &str) -> &str {
    if !matches!(word.len(), 2..=6 | 10..=12) {
        return word;
    }
    SAME.iter().find(|(other, _)| *other == word).map_or(word, |(_, one)| one)
}

/// Whether a word says nothing about which place is meant.
pub(super) fn is_noise(word: &str) -> bool {
    word.len() <= 4 && NOISE.contains(&word)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn folded(text: &str) -> Vec<String> {
        let folded = fold(text);
        words(&folded).map(str::to_owned).collect()
    }

    #[test]
    fn accents_case_and_punctuation_do_not_matter() {
        assert_eq!(folded("St. Corazón’s–Clinic"), ["saint", "corazons", "clinic"]);
        assert_eq!(folded("SAINT  CORAZON'S / CLINIC"), ["saint", "corazons", "clinic"]);
        assert_eq!(folded("Mt. Łódź & Øre"), ["mount", "lodz", "ore"]);
        assert_eq!(folded("Jane Doe, M.D."), ["jane", "doe", "md"]);
    }

    #[test]
    fn a_name_is_cleaned_and_stays_text() {
        let check = |raw: &str, expected: &str| assert_eq!(clean(raw), expected, "{raw}");
        check("  Tom &amp; Jerry\t Clinic \u{200b}", "Tom & Jerry Clinic");
        check("&amp;lt;b&amp;gt;", "&lt;b&gt;");
        check("&#60;NSP&#x3E; A & B; C", "<NSP> A & B; C");
        check("\u{202e}evil\u{0}", "evil");
        check("&bogus; &", "&bogus; &");
        assert_eq!(clean(&"ä".repeat(1_000)).chars().count(), LONGEST);
    }
}

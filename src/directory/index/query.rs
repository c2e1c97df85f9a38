//! What somebody typed, taken apart.

use crate::directory::text::{canonical, fold, is_noise};
use crate::directory::vendors::portal_at;

/// More words than anybody types; the rest is not looked at.
const MOST_WORDS: usize = 10;
/// Longer words are cut: none are that long.
const LONGEST_WORD: usize = 40;

/// A query, taken apart.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Query {
    pub(super) words: Vec<Word>,
    /// A portal or vendor that was named: how it is written, and the vendor.
    pub(crate) portal: Option<(&'static str, &'static str)>,
    /// What looks like a web address, for a search by host.
    pub(crate) address: Option<String>,
}

/// One word that must match somewhere.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Word {
    /// As it was typed, folded.
    pub typed: String,
    /// In its one spelling.
    pub canonical: String,
    /// The vendor it names, which is another way to match.
    pub vendor: Option<&'static str>,
}

impl Query {
    pub(crate) fn parse(text: &str) -> Self {
        let text: String = text.chars().take(200).collect();
        let address = web_host(&text);
        // Of a web address the names in its host say something, should nobody be found at it.
        let folded = address.as_deref().map_or_else(|| fold(&text), telling_labels);
        let all: Vec<&str> = folded.split(' ').filter(|word| !word.is_empty()).take(MOST_WORDS).collect();
        let mut query = Self { address, ..Self::default() };
        let mut at = 0;
        while at < all.len() {
            if let Some((length, written, vendor)) = portal_at(&all, at) {
                query.portal = Some((written, vendor));
                query.words.extend(all[at..at + length].iter().map(|word| Word::new(word, Some(vendor))));
                at += length;
                continue;
            }
            let word = all[at];
            // The four digits of ZIP+4 say nothing that is in a list.
            let plus_four =
                word.len() == 4 && digits(word) && at > 0 && all[at - 1].len() == 5 && digits(all[at - 1]);
            if !plus_four {
                query.words.push(Word::new(word, None));
            }
            at += 1;
        }
        // Noise only narrows a search that has nothing else; the last word may still become another one.
        let last = query.words.len().saturating_sub(1);
        let telling = query.words.iter().filter(|word| !is_noise(&word.typed)).count();
        if telling > 0 {
            let mut at = 0;
            query.words.retain(|word| {
                at += 1;
                !is_noise(&word.typed) || (at - 1 == last && word.typed.len() == 1)
            });
        }
        query
    }

    /// Nothing but the name of a portal that hundreds of places share.
    pub(crate) fn is_only_a_portal(&self) -> bool {
        self.portal.is_some() && self.words.iter().all(|word| word.vendor.is_some())
    }

    /// The same with the words before and at `at` written as one.
    pub(super) fn join(&self, at: usize) -> Self {
        let mut words = self.words.clone();
        let second = words.remove(at);
        let both = format!("{}{}", words[at - 1].typed, second.typed);
        words[at - 1] = Word::new(&both, None);
        Self { words, ..self.clone() }
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.words.is_empty() && self.address.is_none()
    }
}

impl Word {
    fn new(word: &str, vendor: Option<&'static str>) -> Self {
        let typed: String = word.chars().take(LONGEST_WORD).collect();
        let canonical = canonical(&typed).to_owned();
        Self { typed, canonical, vendor }
    }
}

fn digits(word: &str) -> bool {
    word.bytes().all(|byte| byte.is_ascii_digit())
}

/// The host of a pasted web address, or what may be part of one: `mychart.hospital.org/login`.
pub fn web_host(text: &str) -> Option<String> {
    let text = text.trim();
    let bare = text.strip_prefix("https://").or_else(|| text.strip_prefix("http://")).unwrap_or(text);
    if bare.contains(char::is_whitespace) {
        return None;
    }
    let host = bare.split(['/', '?', '#', ':']).next().unwrap_or_default().to_ascii_lowercase();
    let labels: Vec<&str> = host.split('.').collect();
    let shaped = |label: &&str| {
        !label.is_empty() && label.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-')
    };
    let top =
        labels.last().is_some_and(|label| label.len() >= 2 && label.bytes().all(|b| b.is_ascii_alphabetic()));
    // `st.mary` is a name, `mercy.net` an address.
    let usual = labels.last().is_some_and(|label| {
        matches!(*label, "com" | "org" | "net" | "edu" | "gov" | "us" | "health" | "care" | "cloud" | "io")
    });
    let sure = bare.len() < text.len() || bare.contains('/') || labels.len() > 2 || usual;
    (labels.len() >= 2 && labels.iter().all(shaped) && top && sure).then_some(host)
}

/// `mychart.mercy.net` says `mychart` and `mercy`.
fn telling_labels(host: &str) -> String {
    let mut labels: Vec<&str> = host.split('.').collect();
    labels.pop();
    labels.retain(|label| {
        !matches!(*label, "www" | "www2" | "com" | "co" | "org" | "portal" | "login" | "secure")
    });
    fold(&labels.join(" "))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(text: &str) -> Vec<String> {
        Query::parse(text).words.into_iter().map(|word| word.canonical).collect()
    }

    #[test]
    fn noise_and_plus_four_fall_away_unless_nothing_else_is_there() {
        assert_eq!(words("The University of Kansas"), ["university", "kansas"]);
        assert_eq!(words("St. Mary & Co 72901-1234"), ["saint", "mary", "72901"]);
        assert_eq!(words("the"), ["the"]);
        assert_eq!(words("mercy a"), ["mercy", "a"]);
    }

    #[test]
    fn portals_and_addresses_are_recognised() {
        let query = Query::parse("mychart");
        assert!(query.is_only_a_portal());
        assert_eq!(query.portal, Some(("MyChart", "epic")));
        assert!(!Query::parse("mercy mychart").is_only_a_portal());
        assert_eq!(
            Query::parse("https://MyChart.Mercy.example/x?y").address.as_deref(),
            Some("mychart.mercy.example")
        );
        assert_eq!(Query::parse("mercy.net").address.as_deref(), Some("mercy.net"));
        assert_eq!(words("https://www.mychart.mercy-health.net/MyChart"), ["mychart", "mercy", "health"]);
        assert!(Query::parse("https://www.followmyhealth.com/Login").is_only_a_portal());
        assert_eq!(Query::parse("St.Mary").address, None);
        assert_eq!(Query::parse("dr. smith").address, None);
    }
}

//! Searching the index: which entries have every word, and in which order they are shown.

use std::collections::HashMap;
use std::ops::Range;

use super::build::name_of;
use super::query::{Query, Word};
use super::{
    ALIAS, BRAND, BRAND_KIND, CITY, DOUBLE, FACILITY_KIND, FIRST, Field, Index, NAME, PORTAL, STATE,
    TERM_MASK, UNNAMED, ZIP,
};

/// Entries that are looked at closely; a query that so many fit says too little to rank more.
const MOST_CANDIDATES: usize = 2_000;
/// Entries whose name begins with what was typed, looked at besides.
const MOST_BEGINNINGS: usize = 1_000;
/// Facilities of one brand in one list of results.
const MOST_OF_ONE_BRAND: usize = 3;
/// When so many are found as typed, nobody meant something else.
const ENOUGH: usize = 10;

/// An entry that was found; a smaller score is better.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Hit {
    pub doc: u32,
    pub score: i32,
    /// By its brand's name only.
    by_brand: bool,
}

/// The words of the index that a typed word may stand for.
struct Meaning {
    /// Words and what each costs.
    ranges: Vec<(Range<u32>, i32)>,
    vendor: Option<&'static str>,
    /// Entries behind all of these.
    cost: usize,
}

impl Meaning {
    /// What it costs to read a word of an entry as this one.
    fn price(&self, term: u32) -> Option<i32> {
        self.ranges.iter().find(|(range, _)| range.contains(&term)).map(|(_, price)| *price)
    }
}

fn field_price(field: Field) -> i32 {
    match field {
        FIRST => 0,
        NAME => 2,
        ALIAS => 4,
        PORTAL => 5,
        BRAND => 6,
        _ => 7,
    }
}

impl Index {
    /// The best entries that match every word, as many as wanted. `shown` says which may be found, `later` which sources
    /// come after their equals.
    pub(crate) fn search(
        &self,
        query: &Query,
        want: usize,
        shown: &dyn Fn(u32) -> bool,
        later: &dyn Fn(u32) -> bool,
    ) -> Vec<Hit> {
        if self.docs.is_empty() {
            return Vec::new();
        }
        if let Some(address) = &query.address {
            let hits = self.by_address(address, want, shown);
            if !hits.is_empty() {
                return hits;
            }
        }
        if query.words.is_empty() {
            return Vec::new();
        }
        let exact: Vec<Meaning> = query.words.iter().map(|word| self.meaning(word)).collect();
        let mut hits = self.matching(query, &exact, shown, later);
        if hits.len() < ENOUGH.min(want) {
            let meanings: Vec<Meaning> =
                query.words.iter().zip(exact).map(|(word, meaning)| self.nearly(word, meaning)).collect();
            hits = self.matching(query, &meanings, shown, later);
        }
        if hits.is_empty() {
            hits = self.joined(query, shown, later);
        }
        self.collapse(hits, want)
    }

    /// Two words that a name writes as one: `best self` for `BestSelf`.
    fn joined(&self, query: &Query, shown: &dyn Fn(u32) -> bool, later: &dyn Fn(u32) -> bool) -> Vec<Hit> {
        for at in 1..query.words.len() {
            let joined = query.join(at);
            if self.beginning(&joined.words[at - 1].typed).is_empty() {
                continue;
            }
            let meanings: Vec<Meaning> = joined.words.iter().map(|word| self.meaning(word)).collect();
            let hits = self.matching(&joined, &meanings, shown, later);
            if !hits.is_empty() {
                return hits;
            }
        }
        Vec::new()
    }

    /// The words that begin like the typed one.
    fn meaning(&self, word: &Word) -> Meaning {
        let mut ranges = Vec::new();
        if let Some(term) = self.term(&word.canonical) {
            ranges.push((term..term + 1, 0));
        }
        let beginning = self.beginning(&word.typed);
        if !beginning.is_empty() {
            ranges.push((beginning, 1));
        }
        self.priced(ranges, word.vendor)
    }

    /// These, and words that are nearly the typed one, or postal codes of the same region.
    fn nearly(&self, word: &Word, mut meaning: Meaning) -> Meaning {
        let is_zip = word.typed.len() == 5 && word.typed.bytes().all(|byte| byte.is_ascii_digit());
        if is_zip {
            let region = self.beginning(&word.typed[..3]);
            if !region.is_empty() {
                meaning.ranges.push((region, 14));
            }
        }
        for near in self.typos.near(&self.terms, &word.canonical) {
            let price = i32::from(near.distance) * 12 + if near.whole { 0 } else { 4 };
            meaning.ranges.push((near.term..near.term + 1, price));
        }
        self.priced(meaning.ranges, meaning.vendor)
    }

    fn priced(&self, mut ranges: Vec<(Range<u32>, i32)>, vendor: Option<&'static str>) -> Meaning {
        // The cheapest reading of a word is found first.
        ranges.sort_by_key(|(_, price)| *price);
        let cost = ranges.iter().map(|(range, _)| self.postings_of(range.clone()).len()).sum();
        Meaning { ranges, vendor, cost }
    }

    fn term(&self, word: &str) -> Option<u32> {
        let at = self.first_not_below(word);
        (at < self.terms.count() && self.terms.get(at) == word).then_some(at)
    }

    fn first_not_below(&self, word: &str) -> u32 {
        let (mut low, mut high) = (0, self.terms.count());
        while low < high {
            let middle = u32::midpoint(low, high);
            if self.terms.get(middle) < word { low = middle + 1 } else { high = middle }
        }
        low
    }

    fn beginning(&self, word: &str) -> Range<u32> {
        let low = self.first_not_below(word);
        let (mut from, mut to) = (low, self.terms.count());
        while from < to {
            let middle = u32::midpoint(from, to);
            if self.terms.get(middle).starts_with(word) { from = middle + 1 } else { to = middle }
        }
        low..from
    }

    fn matching(
        &self,
        query: &Query,
        meanings: &[Meaning],
        shown: &dyn Fn(u32) -> bool,
        later: &dyn Fn(u32) -> bool,
    ) -> Vec<Hit> {
        let mut candidates = self.candidates(meanings);
        candidates.extend(self.named_like(query, meanings));
        candidates.sort_unstable();
        candidates.dedup();
        let mut hits: Vec<Hit> = candidates
            .into_iter()
            .filter(|doc| self.docs[*doc as usize].flags & DOUBLE == 0 && shown(*doc))
            .filter_map(|doc| self.hit(doc, meanings))
            .map(|hit| if later(self.source_of(hit.doc)) { Hit { score: hit.score + 6, ..hit } } else { hit })
            .collect();
        hits.sort_unstable_by_key(|hit| (hit.score, hit.doc));
        hits
    }

    /// Entries that may have every word, the best ones when there are too many.
    fn candidates(&self, meanings: &[Meaning]) -> Vec<u32> {
        // A word that a vendor's name fulfils is not looked up: hundreds of places have it without having the word.
        let mut words: Vec<&Meaning> = meanings.iter().filter(|meaning| meaning.vendor.is_none()).collect();
        words.sort_by_key(|meaning| meaning.cost);
        let Some((first, rest)) = words.split_first() else {
            return self.of_vendors(meanings);
        };
        // One letter alone: the names that begin with it are enough.
        if rest.is_empty() && first.cost > 60_000 {
            return Vec::new();
        }
        let mut marks = vec![0_u8; self.docs.len()];
        let mut found = Vec::with_capacity(first.cost.min(self.docs.len()));
        for (range, _) in &first.ranges {
            for doc in self.postings_of(range.clone()) {
                if marks[*doc as usize] == 0 {
                    marks[*doc as usize] = 1;
                    found.push(*doc);
                }
            }
        }
        for (round, meaning) in (1_u8..).zip(rest) {
            if found.len() <= MOST_CANDIDATES {
                break;
            }
            let mut both = Vec::new();
            for (range, _) in &meaning.ranges {
                for doc in self.postings_of(range.clone()) {
                    if marks[*doc as usize] == round {
                        marks[*doc as usize] = round + 1;
                        both.push(*doc);
                    }
                }
            }
            found = both;
        }
        best(found, MOST_CANDIDATES)
    }

    /// The better places of a vendor, for a query that names nothing else.
    fn of_vendors(&self, meanings: &[Meaning]) -> Vec<u32> {
        let wanted: Vec<&str> = meanings.iter().filter_map(|meaning| meaning.vendor).collect();
        let docs = (0..self.count()).filter(|doc| {
            let vendor = self.sources[self.source_of(*doc) as usize].vendor;
            wanted.iter().all(|wanted| vendor.starts_with(wanted))
        });
        docs.take(MOST_CANDIDATES).collect()
    }

    /// Entries whose name begins with what was typed.
    fn named_like(&self, query: &Query, meanings: &[Meaning]) -> Vec<u32> {
        let Some((_, before)) = query.words.split_last() else { return Vec::new() };
        let mut fixed = Vec::new();
        for word in before {
            match self.term(&word.canonical) {
                Some(term) => fixed.push(term),
                None => return Vec::new(),
            }
        }
        let mut found = Vec::new();
        for (range, price) in &meanings[meanings.len() - 1].ranges {
            if *price > 1 {
                continue;
            }
            let key = |doc: &u32| name_of(self, *doc).iter().map(|word| word & TERM_MASK);
            let low = fixed.iter().copied().chain([range.start]);
            let high = fixed.iter().copied().chain([range.end]);
            let from = self.by_name.partition_point(|doc| key(doc).lt(low.clone()));
            let to = self.by_name.partition_point(|doc| key(doc).lt(high.clone()));
            found.extend_from_slice(&self.by_name[from..to.max(from)]);
        }
        best(found, MOST_BEGINNINGS)
    }

    /// How well an entry matches; `None` when a word is nowhere in it.
    fn hit(&self, number: u32, meanings: &[Meaning]) -> Option<Hit> {
        let doc = &self.docs[number as usize];
        let words = self.words_of(number);
        let vendor = self.sources[doc.source as usize].vendor;
        let mut score = 0;
        let (mut in_name, mut in_place, mut in_brand) = (0, 0, 0);
        for meaning in meanings {
            let mut cheapest: Option<(i32, Field)> = None;
            for word in words {
                if let Some(price) = meaning.price(word & TERM_MASK) {
                    let field = (word >> 24) as Field;
                    let price = price + field_price(field);
                    if cheapest.is_none_or(|(known, _)| price < known) {
                        cheapest = Some((price, field));
                    }
                }
            }
            if let Some(wanted) = meaning.vendor
                && vendor.starts_with(wanted)
                && cheapest.is_none_or(|(known, _)| known > 3)
            {
                cheapest = Some((3, PORTAL));
            }
            let (price, field) = cheapest?;
            score += price;
            match field {
                FIRST | NAME => in_name += 1,
                BRAND => in_brand += 1,
                CITY | STATE | ZIP => in_place += 1,
                _ => {}
            }
        }
        let all = meanings.len();
        // The name as it was typed, in order.
        let name = name_of(self, number);
        let in_order = name
            .iter()
            .zip(meanings)
            .take_while(|(word, meaning)| meaning.price(*word & TERM_MASK).is_some());
        let in_order = in_order.count();
        if in_order == all {
            let exact = name.len() == all && {
                let last = name[all - 1] & TERM_MASK;
                meanings[all - 1].price(last).is_some_and(|price| price != 1)
            };
            score -= if exact { 40 } else { 20 };
        } else if in_order == name.len() && in_place + in_order >= all {
            // The whole name and where it is: `mercy hospital tulsa`.
            score -= 40;
        }
        if in_place == all {
            score += 30;
        }
        score += i32::try_from(name.len().saturating_sub(in_name).min(8)).unwrap_or(8);
        score += match doc.kind {
            BRAND_KIND => -3 - i32::from(doc.weight) / 3,
            FACILITY_KIND => 1,
            _ => 0,
        };
        score += if doc.flags & UNNAMED != 0 { 10 } else { 0 };
        Some(Hit { doc: number, score, by_brand: in_brand == all })
    }

    /// Facilities of one brand lead to one connection: a few of them are enough, and none that has only its brand's
    /// name to say when the brand is there itself.
    fn collapse(&self, hits: Vec<Hit>, want: usize) -> Vec<Hit> {
        let mut facilities: HashMap<u32, usize> = HashMap::new();
        let mut kept = Vec::new();
        for hit in hits {
            if kept.len() >= want {
                break;
            }
            let doc = &self.docs[hit.doc as usize];
            if doc.kind == FACILITY_KIND {
                let count = facilities.entry(doc.source).or_default();
                if *count >= MOST_OF_ONE_BRAND || (hit.by_brand && *count > 0) {
                    continue;
                }
                *count += 1;
            } else if doc.kind == BRAND_KIND && hit.by_brand {
                facilities.entry(doc.source).or_default();
            }
            kept.push(hit);
        }
        kept
    }

    /// Places at a host, or with a portal there.
    fn by_address(&self, host: &str, want: usize, shown: &dyn Fn(u32) -> bool) -> Vec<Hit> {
        let same_site = |url: &str| {
            let rest = url.strip_prefix("https://").unwrap_or(url);
            let other = rest.split(['/', ':']).next().unwrap_or_default();
            if other.is_empty() {
                return None;
            }
            if other == host { Some(0) } else { (site(other) == site(host)).then_some(10) }
        };
        let mut scores: HashMap<u32, i32> = HashMap::new();
        for (number, source) in (0_u32..).zip(&self.sources) {
            if let Some(score) = same_site(self.texts.get(source.base)) {
                scores.insert(number, score);
            }
        }
        let mut hits: Vec<Hit> = Vec::new();
        for (number, doc) in (0_u32..).zip(&self.docs) {
            if doc.flags & DOUBLE != 0 || !shown(number) {
                continue;
            }
            let by_portal = same_site(self.texts.get(doc.portal_url));
            let score = match (by_portal, scores.get(&doc.source)) {
                (Some(portal), Some(base)) => portal.min(*base),
                (Some(score), None) => score,
                (None, Some(score)) => *score,
                (None, None) => continue,
            };
            let kind = i32::from(doc.kind == FACILITY_KIND) * 5;
            hits.push(Hit { doc: number, score: score + kind, by_brand: false });
        }
        hits.sort_unstable_by_key(|hit| (hit.score, hit.doc));
        self.collapse(hits, want)
    }
}

/// The registered name of a host, near enough: its last two labels.
fn site(host: &str) -> &str {
    let mut dots = host.rmatch_indices('.');
    dots.next();
    dots.next().map_or(host, |(at, _)| &host[at + 1..])
}

/// The first in the order of entries.
fn best(mut docs: Vec<u32>, most: usize) -> Vec<u32> {
    if docs.len() > most {
        docs.select_nth_unstable(most);
        docs.truncate(most);
    }
    docs
}

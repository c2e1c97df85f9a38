//! Building the index.

use std::cmp::Reverse;
use std::collections::HashMap;

use super::typos::Typos;
use super::{
    ALIAS, BRAND, BRAND_KIND, CITY, DOUBLE, Doc, FACILITY_KIND, FIRST, Field, HIDDEN, Index, IndexedSource,
    Interner, NAME, NOTHING, PORTAL, PRACTICE_KIND, STATE, TERM_MASK, Texts, UNNAMED, ZIP,
};
use crate::directory::entries::{EntryKind, EntryRef};
use crate::directory::places::state_name;
use crate::directory::text::{fold, is_noise, words};
use crate::directory::vendors::{place_of, vendor_of};
use crate::smart::FhirBaseUrl;

/// Words of one entry that are searched.
const MOST_WORDS: usize = 60;
/// Pictures inside the index, in all; those beyond are shown as initials.
const MOST_LOGO_BYTES: usize = 2 << 20;

/// Two words that people also write as one.
const JOINED: [(&str, &str, &str); 4] = [
    ("health", "care", "healthcare"),
    ("ob", "gyn", "obgyn"),
    ("eye", "care", "eyecare"),
    ("home", "care", "homecare"),
];

/// Gathers entries; [`Builder::finish`] makes the index.
#[derive(Debug)]
pub(crate) struct Builder {
    docs: Vec<Doc>,
    texts: Interner,
    terms: Interner,
    words_at: Vec<u32>,
    words: Vec<u32>,
    sources: Vec<IndexedSource>,
    source_numbers: HashMap<u32, u32>,
    /// Of each source: what stays the same over its addresses, and how good this one is.
    places: Vec<(u32, u8)>,
    lists: Vec<String>,
    /// How much the word of each list counts: vendors' own before others, newer before older.
    ranks: Vec<i64>,
    /// Words of brands and towns, which come again and again.
    cached: HashMap<(u32, Field), Vec<u32>>,
    logo_bytes: usize,
}

impl Builder {
    pub(crate) fn new() -> Self {
        let mut texts = Interner::default();
        assert_eq!(texts.number(""), NOTHING, "the empty text is the first");
        Self {
            docs: Vec::new(),
            texts,
            terms: Interner::default(),
            words_at: vec![0],
            words: Vec::new(),
            sources: Vec::new(),
            source_numbers: HashMap::new(),
            places: Vec::new(),
            lists: Vec::new(),
            ranks: Vec::new(),
            cached: HashMap::new(),
            logo_bytes: 0,
        }
    }

    /// What follows is of this list; of two that tell of one place the higher rank is believed.
    pub(crate) fn list(&mut self, name: &str, rank: i64) {
        self.lists.push(name.to_owned());
        self.ranks.push(rank);
    }

    pub(crate) fn add(&mut self, entry: &EntryRef<'_>) {
        let Some(source) = self.source(entry.base) else { return };
        if self.docs.len() >= TERM_MASK as usize {
            return;
        }
        let start = self.words.len();
        let name_words = self.name_words(entry.name);
        for alias in entry.aliases() {
            self.text_words(alias, ALIAS, start);
        }
        let mut portal = ("", "");
        for (name, url) in entry.portals() {
            if portal.0.is_empty() {
                portal = (name, url);
            }
            self.text_words(name, PORTAL, start);
        }
        let texts = [
            self.texts.number(entry.brand),
            self.texts.number(entry.city),
            self.texts.number(entry.state),
            self.texts.number(entry.postal_code),
        ];
        let [brand, city, state, postal_code] = texts;
        self.cached_words(brand, entry.brand, BRAND, start);
        self.cached_words(city, entry.city, CITY, start);
        self.cached_words(state, entry.state, STATE, start);
        if let Some(name) = state_name(entry.state) {
            let number = self.texts.number(name);
            self.cached_words(number, name, STATE, start);
        }
        self.cached_words(postal_code, entry.postal_code, ZIP, start);
        let logo = self.logo(entry.logo);
        let doc = Doc {
            name: self.texts.number(entry.name),
            city,
            state,
            postal_code,
            brand,
            portal: self.texts.number(portal.0),
            portal_url: self.texts.number(portal.1),
            logo,
            source,
            list: u16::try_from(self.lists.len().saturating_sub(1)).unwrap_or(u16::MAX),
            name_words,
            kind: match entry.kind {
                EntryKind::Brand => BRAND_KIND,
                EntryKind::Practice => PRACTICE_KIND,
                EntryKind::Facility => FACILITY_KIND,
            },
            flags: if entry.hidden() || entry.gone_since.is_some() { HIDDEN } else { 0 }
                | if entry.unnamed() { UNNAMED } else { 0 },
            weight: 0,
        };
        self.docs.push(doc);
        self.words_at.push(u32::try_from(self.words.len()).unwrap_or(u32::MAX));
    }

    fn logo(&mut self, logo: &str) -> u32 {
        let inline = logo.starts_with("data:");
        if inline && self.logo_bytes + logo.len() > MOST_LOGO_BYTES {
            return NOTHING;
        }
        self.logo_bytes += if inline { logo.len() } else { 0 };
        self.texts.number(logo)
    }

    fn source(&mut self, base: &str) -> Option<u32> {
        let text = self.texts.number(base);
        if let Some(number) = self.source_numbers.get(&text) {
            return Some(*number);
        }
        let parsed = FhirBaseUrl::parse(base).ok()?;
        let vendor = vendor_of(&parsed);
        let (place, rank) = place_of(vendor, &parsed);
        let place = self.texts.number(&place);
        let number = u32::try_from(self.sources.len()).ok()?;
        self.sources.push(IndexedSource { base: text, vendor, doc: u32::MAX });
        self.places.push((place, rank));
        self.source_numbers.insert(text, number);
        Some(number)
    }

    fn term(&mut self, word: &str) -> Option<u32> {
        let number = self.terms.number(word);
        (number < TERM_MASK).then_some(number)
    }

    /// The words of a name in their order; noise only if there is nothing else.
    fn name_words(&mut self, name: &str) -> u8 {
        let start = self.words.len();
        let folded = fold(name);
        let all: Vec<&str> = words(&folded).take(MOST_WORDS).collect();
        let telling: Vec<&str> = all.iter().copied().filter(|word| !is_noise(word)).collect();
        let counted = if telling.is_empty() { &all } else { &telling };
        for word in counted {
            let field = if self.words.len() == start { FIRST } else { NAME };
            if let Some(term) = self.term(word) {
                self.words.push(term | u32::from(field) << 24);
            }
        }
        let count = self.words.len() - start;
        for (first, second, both) in JOINED {
            if counted.windows(2).any(|pair| pair == [first, second]) {
                self.push(both, ALIAS, start);
            }
            if counted.contains(&both) {
                self.push(second, ALIAS, start);
            }
        }
        u8::try_from(count).unwrap_or(u8::MAX)
    }

    fn push(&mut self, word: &str, field: Field, start: usize) {
        if let Some(term) = self.term(word) {
            self.push_term(term, field, start);
        }
    }

    /// A word counts once in an entry, where it counts most.
    fn push_term(&mut self, term: u32, field: Field, start: usize) {
        let known = &self.words[start..];
        if known.len() < MOST_WORDS && !known.iter().any(|word| word & TERM_MASK == term) {
            self.words.push(term | u32::from(field) << 24);
        }
    }

    fn text_words(&mut self, text: &str, field: Field, start: usize) {
        let folded = fold(text);
        for word in words(&folded).filter(|word| !is_noise(word)) {
            self.push(word, field, start);
        }
    }

    fn cached_words(&mut self, number: u32, text: &str, field: Field, start: usize) {
        if number == NOTHING {
            return;
        }
        if !self.cached.contains_key(&(number, field)) {
            let folded = fold(text);
            // A state's code may be a word that is noise elsewhere.
            let kept = words(&folded).filter(|word| matches!(field, STATE | CITY) || !is_noise(word));
            let terms: Vec<u32> =
                kept.map(|word| self.terms.number(word)).filter(|term| *term < TERM_MASK).collect();
            self.cached.insert((number, field), terms);
        }
        let terms = self.cached[&(number, field)].clone();
        for term in terms {
            self.push_term(term, field, start);
        }
    }

    pub(crate) fn finish(mut self) -> Index {
        self.cached = HashMap::new();
        let order = self.best_first();
        let (terms, renumbered) = sorted(self.terms);
        // Entries and their words in the new order and with the new numbers.
        let mut words = Vec::with_capacity(self.words.len());
        let mut words_at = Vec::with_capacity(self.docs.len() + 1);
        let mut docs = Vec::with_capacity(self.docs.len());
        words_at.push(0);
        for old in &order {
            let index = *old as usize;
            docs.push(self.docs[index]);
            let own = &self.words[self.words_at[index] as usize..self.words_at[index + 1] as usize];
            words.extend(own.iter().map(|word| word & !TERM_MASK | renumbered[(word & TERM_MASK) as usize]));
            words_at.push(u32::try_from(words.len()).unwrap_or(u32::MAX));
        }
        let mut sources = self.sources;
        for (number, doc) in docs.iter().enumerate() {
            let source = &mut sources[doc.source as usize];
            source.doc = source.doc.min(u32::try_from(number).unwrap_or(u32::MAX));
        }
        let (postings_at, postings) = invert(terms.len(), &words_at, &words);
        let typos = Typos::new(&terms);
        let mut texts = self.texts.texts;
        texts.bytes.shrink_to_fit();
        texts.ends.shrink_to_fit();
        let mut index = Index {
            docs,
            texts,
            terms,
            words_at,
            words,
            postings_at,
            postings,
            by_name: Vec::new(),
            typos,
            sources,
            lists: self.lists,
        };
        index.by_name = by_name(&index);
        mark_doubles(&mut index, &self.places, &self.ranks);
        index
    }

    /// The order of entries: shown ones first, brands by their size, then practices, then facilities.
    fn best_first(&mut self) -> Vec<u32> {
        let mut facilities = vec![0_u32; self.sources.len()];
        for doc in &self.docs {
            facilities[doc.source as usize] += u32::from(doc.kind == FACILITY_KIND);
        }
        for doc in &mut self.docs {
            if doc.kind == BRAND_KIND {
                let places = facilities[doc.source as usize];
                doc.weight = u8::try_from((u32::BITS - places.leading_zeros()).min(12)).unwrap_or(0);
            }
        }
        let mut order: Vec<u32> = (0..u32::try_from(self.docs.len()).unwrap_or(u32::MAX)).collect();
        order.sort_by_key(|number| {
            let doc = &self.docs[*number as usize];
            (doc.flags & HIDDEN, doc.kind, Reverse(doc.weight), doc.name_words)
        });
        order
    }
}

/// The words in their order, and the new number of each old one.
fn sorted(terms: Interner) -> (Texts, Vec<u32>) {
    let old = terms.texts;
    drop(terms.numbers);
    let count = u32::try_from(old.len()).unwrap_or(u32::MAX);
    let mut order: Vec<u32> = (0..count).collect();
    order.sort_unstable_by(|left, right| old.get(*left).cmp(old.get(*right)));
    let mut renumbered = vec![0; old.len()];
    let mut new =
        Texts { bytes: String::with_capacity(old.bytes.len()), ends: Vec::with_capacity(old.len()) };
    for (number, before) in (0..).zip(&order) {
        renumbered[*before as usize] = number;
        new.bytes.push_str(old.get(*before));
        new.ends.push(u32::try_from(new.bytes.len()).unwrap_or(u32::MAX));
    }
    (new, renumbered)
}

/// The entries of each word, in their order. A word that a name has twice counts once.
fn invert(terms: usize, words_at: &[u32], words: &[u32]) -> (Vec<u32>, Vec<u32>) {
    let mut counts = vec![0_u32; terms + 1];
    let mut last = vec![u32::MAX; terms];
    let each = |take: &mut dyn FnMut(u32, usize)| {
        for (doc, bounds) in (0_u32..).zip(words_at.windows(2)) {
            for word in &words[bounds[0] as usize..bounds[1] as usize] {
                take(doc, (word & TERM_MASK) as usize);
            }
        }
    };
    each(&mut |doc, term| {
        if last[term] != doc {
            last[term] = doc;
            counts[term + 1] += 1;
        }
    });
    for term in 0..terms {
        counts[term + 1] += counts[term];
    }
    let mut postings = vec![0_u32; counts[terms] as usize];
    let mut next = counts.clone();
    last.fill(u32::MAX);
    each(&mut |doc, term| {
        if last[term] != doc {
            last[term] = doc;
            postings[next[term] as usize] = doc;
            next[term] += 1;
        }
    });
    (counts, postings)
}

/// The words of an entry's name; as words are numbered in their order, comparing these is comparing names.
pub(super) fn name_of(index: &Index, doc: u32) -> &[u32] {
    let words = index.words_of(doc);
    &words[..usize::from(index.docs[doc as usize].name_words).min(words.len())]
}

fn by_name(index: &Index) -> Vec<u32> {
    let key = |doc: &u32| name_of(index, *doc).iter().map(|word| word & TERM_MASK);
    let mut order: Vec<u32> = (0..u32::try_from(index.docs.len()).unwrap_or(u32::MAX)).collect();
    // Most names differ in their first two words: those are compared without following them.
    let head = |doc: &u32| {
        let name = name_of(index, *doc);
        let word = |at: usize| name.get(at).map_or(0, |word| u64::from(word & TERM_MASK) + 1);
        word(0) << 32 | word(1)
    };
    let mut keyed: Vec<(u64, u32)> = order.iter().map(|doc| (head(doc), *doc)).collect();
    keyed.sort_unstable_by(|left, right| {
        left.0.cmp(&right.0).then_with(|| key(&left.1).cmp(key(&right.1))).then(left.1.cmp(&right.1))
    });
    order.clear();
    order.extend(keyed.into_iter().map(|(_, doc)| doc));
    order
}

/// Of entries with one name at one place (under one address by several lists, or under several addresses of a vendor),
/// one is shown: at the best address, in the words of the list to believe. Never by name alone.
fn mark_doubles(index: &mut Index, places: &[(u32, u8)], ranks: &[i64]) {
    let mut doubles = Vec::new();
    let mut start = 0;
    while start < index.by_name.len() {
        let name = name_of(index, index.by_name[start]);
        let same = |doc: &u32| {
            let other = name_of(index, *doc);
            other.len() == name.len() && other.iter().zip(name).all(|(a, b)| a & TERM_MASK == b & TERM_MASK)
        };
        let end = start + index.by_name[start..].iter().take_while(|doc| same(doc)).count();
        let end = end.max(start + 1);
        if end - start > 1 {
            let mut run: Vec<(u32, u8, Reverse<i64>, u32)> = index.by_name[start..end]
                .iter()
                .filter(|doc| index.docs[**doc as usize].flags & HIDDEN == 0)
                .map(|number| {
                    let doc = &index.docs[*number as usize];
                    let (place, rank) = places[doc.source as usize];
                    (place, rank, Reverse(ranks.get(usize::from(doc.list)).copied().unwrap_or(0)), *number)
                })
                .collect();
            run.sort_unstable();
            for pair in run.windows(2) {
                let (kept, other) = (&index.docs[pair[0].3 as usize], &index.docs[pair[1].3 as usize]);
                // Two towns are two places, even behind one server.
                let elsewhere = |left: u32, right: u32| left != NOTHING && right != NOTHING && left != right;
                let apart = elsewhere(kept.city, other.city)
                    || elsewhere(kept.state, other.state)
                    || elsewhere(kept.postal_code, other.postal_code);
                if pair[0].0 == pair[1].0 && !apart {
                    doubles.push(pair[1].3);
                }
            }
        }
        start = end;
    }
    for doc in doubles {
        index.docs[doc as usize].flags |= DOUBLE;
    }
}

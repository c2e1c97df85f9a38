//! The search over all entries, in memory: built in one go, never changed, replaced as a whole.
//!
//! Words are sorted, so that all words with one beginning are one range; each word knows its entries, and each entry its
//! words with the part of the entry they come from. Entries are numbered best first, so that whoever must stop early
//! stops with the better ones.

mod build;
mod query;
mod search;
mod typos;

pub(super) use build::Builder;
pub(super) use query::Query;
pub use query::web_host;
pub(super) use search::Hit;

use std::collections::HashMap;

use typos::Typos;

/// Which part of an entry a word comes from; smaller is better.
pub(super) type Field = u8;
const FIRST: Field = 0;
const NAME: Field = 1;
const ALIAS: Field = 2;
const PORTAL: Field = 3;
const BRAND: Field = 4;
const CITY: Field = 5;
const STATE: Field = 6;
const ZIP: Field = 7;

/// A word of an entry: the field in the upper eight bits, the word's number below.
const TERM_MASK: u32 = 0x00ff_ffff;

/// Not there, for a text.
const NOTHING: u32 = 0;

const HIDDEN: u8 = 1;
const UNNAMED: u8 = 2;
/// The same place under a better address is there too.
const DOUBLE: u8 = 4;
/// What patients do not find.
pub(super) const HIDDEN_FROM_PATIENTS: u8 = HIDDEN;

/// What is shown of an entry, and what ranks it.
#[derive(Debug, Clone, Copy)]
struct Doc {
    name: u32,
    city: u32,
    state: u32,
    postal_code: u32,
    brand: u32,
    portal: u32,
    portal_url: u32,
    logo: u32,
    source: u32,
    list: u16,
    /// Words of its name that count.
    name_words: u8,
    kind: u8,
    flags: u8,
    /// Larger for a brand with more places.
    weight: u8,
}

const BRAND_KIND: u8 = 0;
const PRACTICE_KIND: u8 = 1;
const FACILITY_KIND: u8 = 2;

/// A server that entries lead to.
#[derive(Debug, Clone)]
pub(super) struct IndexedSource {
    base: u32,
    pub vendor: &'static str,
    /// An entry that speaks for it: the best one.
    pub doc: u32,
}

/// Texts, each once, in one allocation.
#[derive(Debug, Default)]
struct Texts {
    bytes: String,
    ends: Vec<u32>,
}

impl Texts {
    fn get(&self, number: u32) -> &str {
        let index = number as usize;
        let start = if index == 0 { 0 } else { self.ends[index - 1] as usize };
        &self.bytes[start..self.ends[index] as usize]
    }

    fn len(&self) -> usize {
        self.ends.len()
    }

    fn count(&self) -> u32 {
        u32::try_from(self.ends.len()).unwrap_or(u32::MAX)
    }

    fn size(&self) -> usize {
        self.bytes.capacity() + self.ends.capacity() * 4
    }
}

/// The index.
#[derive(Debug, Default)]
pub(super) struct Index {
    docs: Vec<Doc>,
    texts: Texts,
    /// Sorted.
    terms: Texts,
    /// Where the words of each entry begin in `words`; one more than entries.
    words_at: Vec<u32>,
    words: Vec<u32>,
    /// Where the entries of each word begin in `postings`; one more than words.
    postings_at: Vec<u32>,
    postings: Vec<u32>,
    /// Entries in the order of their names.
    by_name: Vec<u32>,
    typos: Typos,
    sources: Vec<IndexedSource>,
    /// Names of the lists.
    lists: Vec<String>,
}

/// What is shown of an entry.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Shown<'i> {
    pub name: &'i str,
    pub city: &'i str,
    pub state: &'i str,
    pub postal_code: &'i str,
    pub brand: &'i str,
    pub portal: &'i str,
    pub portal_url: &'i str,
    pub logo: &'i str,
    pub base: &'i str,
    pub vendor: &'static str,
    pub list: &'i str,
    pub facility: bool,
}

impl Index {
    /// How many entries there are, doubles included.
    pub(super) fn len(&self) -> usize {
        self.docs.len()
    }

    fn count(&self) -> u32 {
        u32::try_from(self.docs.len()).unwrap_or(u32::MAX)
    }

    pub(super) fn sources(&self) -> &[IndexedSource] {
        &self.sources
    }

    pub(super) fn base(&self, source: u32) -> &str {
        self.texts.get(self.sources[source as usize].base)
    }

    pub(super) fn source_of(&self, doc: u32) -> u32 {
        self.docs[doc as usize].source
    }

    pub(super) fn flags(&self, doc: u32) -> u8 {
        self.docs[doc as usize].flags
    }

    pub(super) fn shown(&self, doc: u32) -> Shown<'_> {
        let doc = &self.docs[doc as usize];
        let source = &self.sources[doc.source as usize];
        Shown {
            name: self.texts.get(doc.name),
            city: self.texts.get(doc.city),
            state: self.texts.get(doc.state),
            postal_code: self.texts.get(doc.postal_code),
            brand: self.texts.get(doc.brand),
            portal: self.texts.get(doc.portal),
            portal_url: self.texts.get(doc.portal_url),
            logo: self.texts.get(doc.logo),
            base: self.texts.get(source.base),
            vendor: source.vendor,
            list: self.lists.get(usize::from(doc.list)).map_or("", String::as_str),
            facility: doc.kind == FACILITY_KIND,
        }
    }

    /// Bytes it takes, as allocated.
    pub(super) fn size(&self) -> usize {
        let numbers = self.words_at.capacity()
            + self.words.capacity()
            + self.postings_at.capacity()
            + self.postings.capacity()
            + self.by_name.capacity();
        self.docs.capacity() * size_of::<Doc>()
            + self.texts.size()
            + self.terms.size()
            + numbers * 4
            + self.typos.size()
            + self.sources.capacity() * size_of::<IndexedSource>()
    }

    fn words_of(&self, doc: u32) -> &[u32] {
        let index = doc as usize;
        &self.words[self.words_at[index] as usize..self.words_at[index + 1] as usize]
    }

    fn postings_of(&self, terms: std::ops::Range<u32>) -> &[u32] {
        &self.postings
            [self.postings_at[terms.start as usize] as usize..self.postings_at[terms.end as usize] as usize]
    }
}

/// Gives each text a number, and one text one number.
#[derive(Debug, Default)]
struct Interner {
    numbers: HashMap<Box<str>, u32>,
    texts: Texts,
}

impl Interner {
    fn number(&mut self, text: &str) -> u32 {
        if let Some(number) = self.numbers.get(text) {
            return *number;
        }
        let number = u32::try_from(self.texts.len()).unwrap_or(u32::MAX);
        self.texts.bytes.push_str(text);
        self.texts.ends.push(u32::try_from(self.texts.bytes.len()).unwrap_or(u32::MAX));
        self.numbers.insert(text.into(), number);
        number
    }
}

#[cfg(test)]
mod tests;

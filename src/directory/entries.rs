//! A directory entry: a name a patient may type, and the source it leads to. Many entries lead to one source, and one
//! name is that of many places.
//!
//! A list of a hundred thousand entries is kept in blocks, each packed into a few bytes an entry, deflated and sealed
//! as one row: reading all of it back takes less than opening and parsing as many rows.

use std::io::{Read as _, Write as _};

use flate2::Compression;
use flate2::read::DeflateDecoder;
use flate2::write::DeflateEncoder;

use crate::clock::Timestamp;
use crate::store::Value;

/// Entries in one block: large enough to deflate well, small enough to be one modest row.
pub(super) const BLOCK: usize = 4096;
/// A block that unpacks to more is damaged.
const MOST_BLOCK_BYTES: u64 = 64 << 20;
const FORMAT: u8 = 1;

/// What an entry is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum EntryKind {
    /// An organization with its own FHIR server.
    Brand,
    /// A practice as flat lists name it; thousands may share one server.
    Practice,
    /// A place that belongs to a brand and connects through it.
    Facility,
}

/// A patient portal of a place.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Portal {
    /// What patients call it.
    pub name: String,
    /// Its address, https only; empty when not known.
    pub url: String,
}

/// One entry of one list.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DirectoryEntry {
    /// Its key in its list: of the list's own id and the base, else of the base, the folded name and the place.
    pub key: [u8; 16],
    /// What it is.
    pub kind: EntryKind,
    /// Shown to patients.
    pub name: String,
    /// The list has no name for it; this one is made of its address.
    pub unnamed: bool,
    /// A test or sandbox entry, or one at an address inside somebody's network: not for patients.
    pub hidden: bool,
    /// Other names.
    pub aliases: Vec<String>,
    /// Portals.
    pub portals: Vec<Portal>,
    /// Town.
    pub city: String,
    /// State, as a code when it is one of the United States.
    pub state: String,
    /// Postal code.
    pub postal_code: String,
    /// https address or `data:` URL of a raster picture.
    pub logo: String,
    /// The list's own id for it.
    pub external_id: String,
    /// The brand a facility belongs to.
    pub brand: String,
    /// The normalised FHIR base URL it leads to.
    pub base: String,
    /// Since when its list no longer has it.
    pub gone_since: Option<Timestamp>,
}

impl DirectoryEntry {
    /// Whether patients may find it.
    pub fn is_offered(&self) -> bool {
        !self.hidden && self.gone_since.is_none()
    }
}

/// An entry as it lies in a block, borrowed from its unpacked bytes.
#[derive(Debug, Clone, Copy)]
pub(super) struct EntryRef<'b> {
    pub key: &'b [u8; 16],
    pub kind: EntryKind,
    flags: u8,
    pub name: &'b str,
    pub city: &'b str,
    pub state: &'b str,
    pub postal_code: &'b str,
    pub logo: &'b str,
    pub external_id: &'b str,
    pub brand: &'b str,
    pub base: &'b str,
    pub gone_since: Option<Timestamp>,
    /// Aliases, then names and addresses of portals.
    more: &'b [u8],
    aliases: usize,
    portals: usize,
}

const UNNAMED: u8 = 1;
const HIDDEN: u8 = 2;

impl<'b> EntryRef<'b> {
    pub(super) fn hidden(&self) -> bool {
        self.flags & HIDDEN != 0
    }

    pub(super) fn unnamed(&self) -> bool {
        self.flags & UNNAMED != 0
    }

    pub(super) fn aliases(&self) -> impl Iterator<Item = &'b str> + use<'b> {
        let mut reader = Reader(self.more);
        (0..self.aliases).map_while(move |_| reader.text())
    }

    /// Name and address of each portal.
    pub(super) fn portals(&self) -> impl Iterator<Item = (&'b str, &'b str)> + use<'b> {
        let mut reader = Reader(self.more);
        for _ in 0..self.aliases {
            reader.text();
        }
        (0..self.portals).map_while(move |_| Some((reader.text()?, reader.text()?)))
    }

    pub(super) fn to_entry(self) -> DirectoryEntry {
        DirectoryEntry {
            key: *self.key,
            kind: self.kind,
            name: self.name.to_owned(),
            unnamed: self.unnamed(),
            hidden: self.hidden(),
            aliases: self.aliases().map(str::to_owned).collect(),
            portals: self
                .portals()
                .map(|(name, url)| Portal { name: name.to_owned(), url: url.to_owned() })
                .collect(),
            city: self.city.to_owned(),
            state: self.state.to_owned(),
            postal_code: self.postal_code.to_owned(),
            logo: self.logo.to_owned(),
            external_id: self.external_id.to_owned(),
            brand: self.brand.to_owned(),
            base: self.base.to_owned(),
            gone_since: self.gone_since,
        }
    }
}

/// A block of entries, deflated.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Block(Vec<u8>);

impl Value for Block {
    fn encode(&self, out: &mut Vec<u8>) {
        out.push(FORMAT);
        out.extend_from_slice(&self.0);
    }

    fn decode(bytes: &[u8]) -> Option<Self> {
        let (format, rest) = bytes.split_first()?;
        (*format == FORMAT).then(|| Self(rest.to_vec()))
    }
}

impl Block {
    pub(super) fn pack(entries: &[DirectoryEntry]) -> Self {
        let mut encoder = DeflateEncoder::new(Vec::new(), Compression::fast());
        encoder.write_all(&plain(entries)).expect("memory takes everything");
        Self(encoder.finish().expect("memory takes everything"))
    }

    /// The plain bytes; `None` when they are not those of a block.
    pub(super) fn unpack(&self) -> Option<Vec<u8>> {
        let mut plain = Vec::with_capacity(self.0.len() * 4);
        DeflateDecoder::new(self.0.as_slice()).take(MOST_BLOCK_BYTES).read_to_end(&mut plain).ok()?;
        Some(plain)
    }

    /// What tells two blocks apart.
    pub(super) fn bytes(&self) -> &[u8] {
        &self.0
    }
}

/// Entries as the plain bytes of a block.
pub(super) fn plain(entries: &[DirectoryEntry]) -> Vec<u8> {
    let mut plain = Vec::with_capacity(entries.len() * 128);
    let mut before: Option<&DirectoryEntry> = None;
    for entry in entries {
        write_entry(&mut plain, entry, before);
        before = Some(entry);
    }
    plain
}

/// Hands out the entries of a block's plain bytes; `None` when they are damaged.
pub(super) fn each<'b>(plain: &'b [u8], mut take: impl FnMut(EntryRef<'b>)) -> Option<()> {
    let mut reader = Reader(plain);
    let (mut base, mut brand) = ("", "");
    while !reader.0.is_empty() {
        let entry = read_entry(&mut reader, base, brand)?;
        (base, brand) = (entry.base, entry.brand);
        take(entry);
    }
    Some(())
}

fn write_entry(out: &mut Vec<u8>, entry: &DirectoryEntry, before: Option<&DirectoryEntry>) {
    out.extend_from_slice(&entry.key);
    out.push(match entry.kind {
        EntryKind::Brand => 0,
        EntryKind::Practice => 1,
        EntryKind::Facility => 2,
    });
    out.push(if entry.unnamed { UNNAMED } else { 0 } | if entry.hidden { HIDDEN } else { 0 });
    for text in [&entry.name, &entry.city, &entry.state, &entry.postal_code, &entry.logo, &entry.external_id]
    {
        write_text(out, text);
    }
    // Neighbours in a sorted list mostly lead to the same source.
    let same = before.is_some_and(|before| before.base == entry.base && before.brand == entry.brand);
    out.push(u8::from(same));
    if !same {
        write_text(out, &entry.base);
        write_text(out, &entry.brand);
    }
    out.extend_from_slice(&entry.gone_since.map_or(0, Timestamp::millis).to_be_bytes());
    let mut more = Vec::new();
    for alias in &entry.aliases {
        write_text(&mut more, alias);
    }
    for portal in &entry.portals {
        write_text(&mut more, &portal.name);
        write_text(&mut more, &portal.url);
    }
    write_number(out, entry.aliases.len());
    write_number(out, entry.portals.len());
    write_number(out, more.len());
    out.extend_from_slice(&more);
}

fn read_entry<'b>(reader: &mut Reader<'b>, base: &'b str, brand: &'b str) -> Option<EntryRef<'b>> {
    let key = reader.bytes(16)?.try_into().ok()?;
    let kind = match reader.byte()? {
        0 => EntryKind::Brand,
        1 => EntryKind::Practice,
        2 => EntryKind::Facility,
        _ => return None,
    };
    let flags = reader.byte()?;
    let (name, city, state) = (reader.text()?, reader.text()?, reader.text()?);
    let (postal_code, logo, external_id) = (reader.text()?, reader.text()?, reader.text()?);
    let (base, brand) = if reader.byte()? == 1 { (base, brand) } else { (reader.text()?, reader.text()?) };
    let gone = i64::from_be_bytes(reader.bytes(8)?.try_into().ok()?);
    let (aliases, portals, length) = (reader.number()?, reader.number()?, reader.number()?);
    let more = reader.bytes(length)?;
    let gone_since = (gone != 0).then(|| Timestamp::from_millis(gone));
    Some(EntryRef {
        key,
        kind,
        flags,
        name,
        city,
        state,
        postal_code,
        logo,
        external_id,
        brand,
        base,
        gone_since,
        more,
        aliases,
        portals,
    })
}

fn write_text(out: &mut Vec<u8>, text: &str) {
    write_number(out, text.len());
    out.extend_from_slice(text.as_bytes());
}

/// Seven bits a byte, the least first.
fn write_number(out: &mut Vec<u8>, mut number: usize) {
    while number >= 0x80 {
        out.push(number.to_le_bytes()[0] | 0x80);
        number >>= 7;
    }
    out.push(number.to_le_bytes()[0]);
}

struct Reader<'b>(&'b [u8]);

impl<'b> Reader<'b> {
    fn bytes(&mut self, length: usize) -> Option<&'b [u8]> {
        let (taken, rest) = self.0.split_at_checked(length)?;
        self.0 = rest;
        Some(taken)
    }

    fn byte(&mut self) -> Option<u8> {
        self.bytes(1).map(|bytes| bytes[0])
    }

    fn number(&mut self) -> Option<usize> {
        let mut number = 0_usize;
        for shift in (0..35).step_by(7) {
            let byte = self.byte()?;
            number |= usize::from(byte & 0x7f) << shift;
            if byte & 0x80 == 0 {
                return Some(number);
            }
        }
        None
    }

    fn text(&mut self) -> Option<&'b str> {
        let length = self.number()?;
        std::str::from_utf8(self.bytes(length)?).ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(name: &str, base: &str) -> DirectoryEntry {
        DirectoryEntry {
            key: [7; 16],
            kind: EntryKind::Facility,
            name: name.to_owned(),
            unnamed: false,
            hidden: true,
            aliases: vec!["Other".to_owned(), String::new()],
            portals: vec![Portal { name: "My Own".to_owned(), url: "https://p.example/".to_owned() }],
            city: "Tulsa".to_owned(),
            state: "OK".to_owned(),
            postal_code: "74104".to_owned(),
            logo: String::new(),
            external_id: "x".repeat(300),
            brand: "Mercy".to_owned(),
            base: base.to_owned(),
            gone_since: Some(Timestamp::from_seconds(5)),
        }
    }

    #[test]
    fn a_block_gives_back_what_was_packed() {
        let entries = [entry("A", "https://a.example"), entry("B", "https://a.example"), entry("C", "b")];
        let mut bytes = Vec::new();
        Block::pack(&entries).encode(&mut bytes);
        let plain = Block::decode(&bytes).and_then(|block| block.unpack()).expect("a block");
        let mut back = Vec::new();
        each(&plain, |entry| back.push(entry.to_entry())).expect("entries");
        assert_eq!(back, entries);
    }

    #[test]
    fn damaged_blocks_are_noticed_and_never_panic() {
        let plain = Block::pack(&[entry("A", "https://a.example")]).unpack().expect("bytes");
        for end in 1..plain.len() {
            assert!(each(&plain[..end], |_| ()).is_none(), "cut at {end}");
        }
        assert!(Block::decode(&[9, 1, 2]).is_none());
        assert!(Block(vec![0xff; 40]).unpack().is_none());
    }
}

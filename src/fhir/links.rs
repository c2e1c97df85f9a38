//! Links that lead to the EHR, turned to the proxy while they pass by: the base of `url`, `fullUrl` and `reference`
//! values is exchanged, everything else stays byte for byte. Works on pieces of JSON as they arrive and keeps less than
//! one link in memory.
//!
//! The search is for the host's name, which a vectorised search skims at memory speed; only around a find is the text
//! looked at as JSON. That is sound without a parser: in JSON a quote that no backslash precedes begins or ends a
//! string, and one between a colon and `http` can only begin a value.

use bytes::{Bytes, BytesMut};
use memchr::{memmem, memrchr};

use crate::smart::FhirBaseUrl;

/// How far before a value its key may begin, white space included.
const LOOK_BACK: usize = 64;
/// The keys whose values are links (FHIR R4: Bundle.link, Bundle.entry, Attachment, Reference). Not `system`, `profile`
/// or `source`: what stands there is a name, even when it looks like an address.
const KEYS: [&[u8]; 3] = [b"url", b"fullUrl", b"reference"];
/// `Extension.url` is a name too, and always one of these.
const NAME_NOT_LINK: &[u8] = b"StructureDefinition";

/// The two bases between which links are exchanged.
#[derive(Debug, Clone)]
pub struct LinkMap {
    host: memmem::Finder<'static>,
    authority: Box<[u8]>,
    default_ports: bool,
    path: Box<[u8]>,
    ours: Box<[u8]>,
    longest: usize,
}

impl LinkMap {
    /// From links below `theirs` to links below `ours`, an address without a slash at its end.
    pub fn new(theirs: &FhirBaseUrl, ours: &str) -> Self {
        let authority = theirs.origin().split_once("://").map_or("", |(_, rest)| rest).as_bytes();
        let host = theirs.host().as_bytes();
        let path = theirs.path().as_bytes();
        // Quote, scheme, slashes that may all be escaped, port, what is looked at behind it.
        let longest =
            b"\"https:\\/\\/:443".len() + authority.len() + 2 * path.len() + 2 + NAME_NOT_LINK.len() + 1;
        Self {
            host: memmem::Finder::new(authority).into_owned(),
            authority: authority.into(),
            default_ports: host.len() == authority.len(),
            path: path.into(),
            ours: ours.as_bytes().into(),
            longest,
        }
    }

    /// Whether links below this base are the ones that are turned.
    pub fn leads_from(&self, theirs: &FhirBaseUrl) -> bool {
        let authority = theirs.origin().split_once("://").map_or("", |(_, rest)| rest);
        *self.authority == *authority.as_bytes() && *self.path == *theirs.path().as_bytes()
    }

    /// A link outside JSON, such as a `Location`; `None` when it leads elsewhere.
    pub fn translate(&self, link: &str) -> Option<String> {
        let mut text = Vec::with_capacity(link.len() + 2);
        text.push(b'"');
        text.extend_from_slice(link.as_bytes());
        text.push(b'"');
        let Found::Link(length) = self.read(&text) else { return None };
        let rest = link.get(length - 1..)?;
        Some(format!("{}{rest}", String::from_utf8_lossy(&self.ours)))
    }

    /// What stands at the beginning of `text`, which is the quote before a value.
    fn read(&self, text: &[u8]) -> Found {
        let mut at = Reader { text, at: 0 };
        match self.read_base(&mut at).and_then(|()| read_end(&mut at)) {
            Ok(length) => Found::Link(length),
            Err(found) => found,
        }
    }

    fn read_base(&self, at: &mut Reader<'_>) -> Result<(), Found> {
        at.expect(b"\"http")?;
        // A server behind its own gateway may name itself by http.
        at.skip(b"s")?;
        at.expect(b":")?;
        at.slash()?;
        at.slash()?;
        at.expect(&self.authority)?;
        if self.default_ports && at.peek()? == b':' {
            at.expect(b":")?;
            at.expect(if at.peek()? == b'4' { b"443" } else { b"80" })?;
        }
        for byte in &self.path {
            if *byte == b'/' { at.slash()? } else { at.expect(&[*byte])? }
        }
        Ok(())
    }
}

/// The length of the base, when nothing of it goes on.
fn read_end(at: &mut Reader<'_>) -> Result<usize, Found> {
    let length = at.at;
    match at.peek()? {
        b'"' | b'?' | b'#' => return Ok(length),
        b'/' | b'\\' => at.slash()?,
        _ => return Err(Found::Other),
    }
    match at.expect(NAME_NOT_LINK) {
        Ok(()) => Err(Found::Other),
        Err(Found::Other) => Ok(length),
        Err(unfinished) => Err(unfinished),
    }
}

/// What stands somewhere.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Found {
    /// A link; the length of the quote and the base.
    Link(usize),
    /// Something else.
    Other,
    /// What there is might become a link.
    Unfinished,
}

struct Reader<'t> {
    text: &'t [u8],
    at: usize,
}

impl Reader<'_> {
    fn rest(&self) -> &[u8] {
        &self.text[self.at..]
    }

    fn peek(&self) -> Result<u8, Found> {
        self.rest().first().copied().ok_or(Found::Unfinished)
    }

    fn expect(&mut self, wanted: &[u8]) -> Result<(), Found> {
        let rest = self.rest();
        if rest.starts_with(wanted) {
            self.at += wanted.len();
            Ok(())
        } else if wanted.starts_with(rest) {
            Err(Found::Unfinished)
        } else {
            Err(Found::Other)
        }
    }

    fn skip(&mut self, letter: &[u8]) -> Result<(), Found> {
        if self.peek()? == letter[0] { self.expect(letter) } else { Ok(()) }
    }

    /// `/`, or `\/` as some encoders write it.
    fn slash(&mut self) -> Result<(), Found> {
        self.skip(b"\\")?;
        self.expect(b"/")
    }
}

/// One document on its way.
#[derive(Debug)]
pub struct LinkStream {
    map: std::sync::Arc<LinkMap>,
    /// The last bytes seen, for the key of a value that begins a piece.
    behind: Vec<u8>,
    /// What may become a link; its key has been looked at.
    held: Vec<u8>,
}

impl LinkStream {
    /// At the beginning of a document.
    pub fn new(map: std::sync::Arc<LinkMap>) -> Self {
        Self { map, behind: Vec::with_capacity(2 * LOOK_BACK), held: Vec::new() }
    }

    /// The next piece of the document in, as much of the result as is certain out. A piece without links is not copied.
    pub fn push(&mut self, piece: Bytes) -> Bytes {
        let mut out = BytesMut::new();
        let mut piece = piece;
        if !self.held.is_empty() {
            let held = self.held.len();
            let more = self.map.longest.saturating_sub(held).min(piece.len());
            self.held.extend_from_slice(&piece[..more]);
            match self.map.read(&self.held) {
                Found::Unfinished if more == piece.len() => {
                    self.remember(&piece);
                    return Bytes::new();
                }
                Found::Link(length) => {
                    out.extend_from_slice(b"\"");
                    out.extend_from_slice(&self.map.ours);
                    out.extend_from_slice(self.held.get(length..held).unwrap_or_default());
                    let used = piece.split_to(length.saturating_sub(held));
                    self.remember(&used);
                }
                Found::Other | Found::Unfinished => out.extend_from_slice(&self.held[..held]),
            }
            self.held.clear();
        }
        self.turn(&piece, &mut out);
        let end = self.held_from(&piece);
        self.remember(&piece);
        if out.is_empty() {
            piece.truncate(end);
            return piece;
        }
        out.freeze()
    }

    /// The end of the document: what was held back is no link.
    pub fn finish(&mut self) -> Bytes {
        std::mem::take(&mut self.held).into()
    }

    /// Copies the piece into `out` with its links turned, if it has any or if `out` has something already. What may
    /// become a link at its end is held back.
    fn turn(&mut self, piece: &Bytes, out: &mut BytesMut) {
        let mut done = 0;
        let map = std::sync::Arc::clone(&self.map);
        for find in map.host.find_iter(piece) {
            // `"https:\/\/` at most lies between the quote and the host.
            let from = find.saturating_sub(b"\"https:\\/\\/".len()).max(done);
            let Some(quote) = piece.get(from..find).and_then(|text| memrchr(b'"', text)) else { continue };
            let quote = from + quote;
            let Found::Link(length) = map.read(&piece[quote..]) else { continue };
            if !self.is_link_value(piece, quote) {
                continue;
            }
            if out.capacity() == 0 {
                out.reserve(piece.len() + piece.len() / 8 + map.ours.len());
            }
            out.extend_from_slice(&piece[done..=quote]);
            out.extend_from_slice(&map.ours);
            done = quote + length;
        }
        // The last quote is the only one that may begin an unfinished link, because a link has no quote inside.
        let tail = piece.len().saturating_sub(map.longest).max(done);
        let held = memrchr(b'"', &piece[tail..]).map(|quote| tail + quote);
        let held = held.filter(|quote| {
            map.read(&piece[*quote..]) == Found::Unfinished && self.is_link_value(piece, *quote)
        });
        if let Some(quote) = held {
            self.held.extend_from_slice(&piece[quote..]);
        }
        if !out.is_empty() {
            out.extend_from_slice(&piece[done..held.unwrap_or(piece.len())]);
        }
    }

    fn held_from(&self, piece: &Bytes) -> usize {
        piece.len() - self.held.len()
    }

    /// Whether the quote at `quote` begins the value of one of the keys.
    fn is_link_value(&self, piece: &[u8], quote: usize) -> bool {
        let mut before = [0_u8; LOOK_BACK];
        let near = &piece[quote.saturating_sub(LOOK_BACK)..quote];
        let (far, kept) = (LOOK_BACK - near.len(), self.behind.len());
        let far = &self.behind[kept - far.min(kept)..];
        let before = &mut before[LOOK_BACK - near.len() - far.len()..];
        before[..far.len()].copy_from_slice(far);
        before[far.len()..].copy_from_slice(near);
        let before = before.trim_ascii_end().strip_suffix(b":").map(<[u8]>::trim_ascii_end);
        let Some(before) = before.and_then(|before| before.strip_suffix(b"\"")) else { return false };
        KEYS.iter().any(|key| {
            let rest = before.strip_suffix(*key).and_then(|rest| rest.strip_suffix(b"\""));
            rest.is_some_and(|rest| !rest.ends_with(b"\\"))
        })
    }

    fn remember(&mut self, piece: &[u8]) {
        if piece.len() >= LOOK_BACK {
            self.behind.clear();
            self.behind.extend_from_slice(&piece[piece.len() - LOOK_BACK..]);
            return;
        }
        let surplus = (self.behind.len() + piece.len()).saturating_sub(LOOK_BACK);
        self.behind.drain(..surplus);
        self.behind.extend_from_slice(piece);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::crypto::Random;
    use serde_json::{Value, json};
    use std::sync::Arc;

    const OURS: &str = "https://box.example/fhir/conn_1";

    fn map(base: &str) -> Arc<LinkMap> {
        Arc::new(LinkMap::new(&FhirBaseUrl::parse(base).expect("a base"), OURS))
    }

    fn pass(map: &Arc<LinkMap>, pieces: &[&[u8]]) -> String {
        let mut stream = LinkStream::new(Arc::clone(map));
        let mut out = Vec::new();
        for piece in pieces {
            out.extend_from_slice(&stream.push(Bytes::copy_from_slice(piece)));
        }
        out.extend_from_slice(&stream.finish());
        String::from_utf8(out).expect("text")
    }

    /// The same by a JSON parser, for comparison.
    fn turned(value: &mut Value, base: &str, key: Option<&str>) {
        match value {
            Value::String(text) if key.is_some_and(|key| KEYS.contains(&key.as_bytes())) => {
                if let Some(rest) = text.strip_prefix(base) {
                    let ends = rest.is_empty() || rest.starts_with(['/', '?', '#']);
                    if ends && !rest.starts_with("/StructureDefinition") {
                        *text = format!("{OURS}{rest}");
                    }
                }
            }
            Value::Array(list) => list.iter_mut().for_each(|one| turned(one, base, None)),
            Value::Object(members) => {
                members.iter_mut().for_each(|(name, one)| turned(one, base, Some(name)));
            }
            Value::String(_) | Value::Null | Value::Bool(_) | Value::Number(_) => {}
        }
    }

    fn document(base: &str) -> Value {
        json!({
            "resourceType": "Bundle", "type": "searchset",
            "link": [
                {"relation": "self", "url": format!("{base}/Observation?patient=1")},
                {"relation": "next", "url": format!("{base}?_getpages=a%3D%3D&x=\"q\"")},
                {"relation": "base", "url": base},
            ],
            "entry": [
                {"fullUrl": format!("{base}/Observation/L-1"), "resource": {
                    "resourceType": "Observation", "id": "L-1",
                    "meta": {"source": format!("{base}/x"), "profile": [format!("{base}/StructureDefinition/p")]},
                    "extension": [{"url": format!("{base}/StructureDefinition/e"), "valueUri": format!("{base}/y")}],
                    "identifier": [{"system": format!("{base}/names"), "value": "7"}],
                    "subject": {"reference": format!("{base}/Patient/1"), "display": "ünï \\\" \u{1F600}"},
                    "note": [{"text": format!("see \"url\":\"{base}/Patient/1\" and \\\"url\\\": {base}/")}],
                    "value": 1.10,
                }},
                {"fullUrl": format!("{base}enant/Observation/2")},
                {"fullUrl": format!("https://elsewhere.example/?{base}/Observation/2")},
                {"fullUrl": "urn:uuid:1"},
                {"content": {"attachment": {"url": format!("{base}/Binary/XR-1")}}},
            ],
        })
    }

    #[test]
    fn links_are_turned_and_names_and_texts_are_not() {
        let base = "https://ehr.example/r4/t";
        let mut value = document(base);
        let compact = value.to_string();
        let pretty = serde_json::to_string_pretty(&value).expect("json");
        let escaped = compact.replace('/', "\\/");
        turned(&mut value, base, None);
        for text in [&compact, &pretty, &escaped] {
            let out = pass(&map(base), &[text.as_bytes()]);
            assert_eq!(serde_json::from_str::<Value>(&out).expect("json"), value, "{out}");
        }
        assert_eq!(pass(&map(base), &[compact.as_bytes()]), value.to_string(), "nothing else is changed");
    }

    #[test]
    fn the_result_does_not_depend_on_where_the_pieces_are_cut() {
        for base in ["https://ehr.example/r4/t", "http://127.0.0.1:8080", "https://a.example"] {
            let map = map(base);
            for text in [
                document(base).to_string(),
                serde_json::to_string_pretty(&document(base)).expect("json"),
                document(base).to_string().replace('/', "\\/"),
                // No JSON at all must pass unchanged, cut anywhere.
                format!("\"url\":\"{base}"),
                format!("\"url\"   :  \"{base}/Struc"),
                format!("{base} \" {base}\"\"\"\" \"url\":\"\"{base}/x"),
            ] {
                let bytes = text.as_bytes();
                let whole = pass(&map, &[bytes]);
                for cut in 0..=bytes.len() {
                    assert_eq!(pass(&map, &[&bytes[..cut], &bytes[cut..]]), whole, "cut at {cut}");
                }
                let single: Vec<&[u8]> = bytes.chunks(1).collect();
                assert_eq!(pass(&map, &single), whole, "byte by byte");
                let random = Random::seeded(7);
                for _ in 0..200 {
                    let mut pieces = Vec::new();
                    let mut rest = bytes;
                    while !rest.is_empty() {
                        let most = usize::try_from(random.below(90)).expect("small");
                        let (piece, others) = rest.split_at(most.min(rest.len()));
                        pieces.push(piece);
                        rest = others;
                    }
                    assert_eq!(pass(&map, &pieces), whole, "{pieces:?}");
                }
            }
        }
    }

    #[test]
    fn a_base_is_known_by_its_other_spellings_and_not_by_a_longer_name() {
        let map = map("https://ehr.example/r4/t");
        let check = |link: &str, expected: Option<&str>| {
            assert_eq!(map.translate(link).as_deref(), expected, "{link}");
        };
        check("https://ehr.example/r4/t/Patient/1", Some("https://box.example/fhir/conn_1/Patient/1"));
        check("https://ehr.example:443/r4/t?a=b", Some("https://box.example/fhir/conn_1?a=b"));
        check("http://ehr.example/r4/t/Patient/1", Some("https://box.example/fhir/conn_1/Patient/1"));
        check("https://ehr.example/r4/t", Some(OURS));
        check("https://ehr.example/r4/tt/Patient/1", None);
        check("https://ehr.example.evil.example/r4/t/Patient/1", None);
        check("https://ehr.example:8443/r4/t/Patient/1", None);
        check("https://ehr.example/r4", None);
        check("", None);
    }

    #[test]
    fn a_piece_without_links_is_passed_on_without_a_copy() {
        let mut stream = LinkStream::new(map("https://ehr.example/r4/t"));
        let piece = Bytes::from(vec![b'x'; 1000]);
        assert_eq!(stream.push(piece.clone()).as_ptr(), piece.as_ptr());
        assert!(stream.finish().is_empty());
    }
}

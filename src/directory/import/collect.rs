//! From what a list says to an entry: names cleaned, addresses normalised, doubles dropped, refusals counted.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::net::IpAddr;

use url::{Host, Url};

use super::{Form, ImportError, ImportLimits, ReadList, Refusal};
use crate::crypto::sha256;
use crate::directory::entries::{DirectoryEntry, EntryKind, Portal};
use crate::directory::places::{postal_code, split_state_prefix, state_code};
use crate::directory::text::{clean, fold, words};
use crate::directory::vendors::vendor_of;
use crate::outbound::{AddressGuard, Reach};
use crate::smart::FhirBaseUrl;
use crate::smart::url::BadUrl;
use crate::smart::vendors::VendorProfile;

/// The largest picture inside a list that is kept.
const MOST_LOGO: usize = 32 << 10;
/// Addresses are not longer.
const MOST_URL: usize = 2048;
/// Other names and portals of one entry that are kept.
const MOST_NAMES: usize = 16;
/// Words that mark rows for tests.
const TEST_WORDS: [&str; 8] = ["test", "sandbox", "demo", "dummy", "testing1", "zztest", "qa", "uat"];

/// What a list says about a place, as it says it.
#[derive(Debug, Default)]
pub(super) struct Draft<'t> {
    pub kind: EntryKind,
    pub name: &'t str,
    /// Of the endpoint, in case the organization has none.
    pub other_name: &'t str,
    pub address: &'t str,
    pub external_id: &'t str,
    pub aliases: Vec<&'t str>,
    /// Name and address of each.
    pub portals: Vec<(&'t str, &'t str)>,
    pub city: &'t str,
    pub state: &'t str,
    pub postal_code: &'t str,
    pub logo: &'t str,
    pub brand: &'t str,
}

#[expect(clippy::derivable_impls, reason = "which kind is usual belongs to drafts, not to the type")]
impl Default for EntryKind {
    fn default() -> Self {
        Self::Practice
    }
}

/// An address that was looked at before.
#[derive(Debug, Clone)]
pub(super) struct Base {
    pub text: String,
    vendor: &'static str,
    hidden: bool,
}

/// Gathers the entries of one list.
pub(super) struct Collector {
    limits: ImportLimits,
    entries: Vec<DirectoryEntry>,
    keys: HashSet<[u8; 16]>,
    bases: HashMap<String, Result<Base, Refusal>>,
    refused: BTreeMap<Refusal, usize>,
    rows: usize,
    doubled: usize,
    text: usize,
}

impl Collector {
    pub(super) fn new(limits: ImportLimits) -> Self {
        Self {
            limits,
            entries: Vec::new(),
            keys: HashSet::new(),
            bases: HashMap::new(),
            refused: BTreeMap::new(),
            rows: 0,
            doubled: 0,
            text: 0,
        }
    }

    /// Counts a row that was not taken.
    pub(super) fn refuse(&mut self, refusal: Refusal) {
        self.rows += 1;
        *self.refused.entry(refusal).or_default() += 1;
    }

    /// Counts text that is kept somewhere until the end.
    pub(super) fn keep(&mut self, bytes: usize) -> Result<(), ImportError> {
        self.text += bytes;
        if self.text > self.limits.text { Err(ImportError::TooLarge("too much text")) } else { Ok(()) }
    }

    /// The most rows there may be.
    pub(super) fn most_rows(&self) -> usize {
        self.limits.rows
    }

    /// An address in its one spelling, or why it cannot be used.
    pub(super) fn base(&mut self, address: &str) -> Result<Base, Refusal> {
        if let Some(known) = self.bases.get(address) {
            return known.clone();
        }
        let base = read_base(address);
        if address.len() <= MOST_URL {
            self.text += address.len();
            self.bases.insert(address.to_owned(), base.clone());
        }
        base
    }

    /// Takes what a list says about a place.
    pub(super) fn take(&mut self, draft: &Draft<'_>) -> Result<(), ImportError> {
        if self.rows >= self.limits.rows {
            return Err(ImportError::TooLarge("too many rows"));
        }
        let base = match self.base(draft.address) {
            Ok(base) => base,
            Err(refusal) => {
                self.refuse(refusal);
                return Ok(());
            }
        };
        self.rows += 1;
        let entry = make_entry(draft, &base);
        let Some(key) = self.free_key(draft, &entry) else {
            self.doubled += 1;
            return Ok(());
        };
        let entry = DirectoryEntry { key, ..entry };
        self.keep(size_of(&entry))?;
        self.entries.push(entry);
        Ok(())
    }

    /// The key of an entry, `None` when the list has said all of this before. An id that the list gives to two places
    /// identifies neither alone.
    fn free_key(&mut self, draft: &Draft<'_>, entry: &DirectoryEntry) -> Option<[u8; 16]> {
        let folded = fold(&entry.name);
        let name: Vec<&str> = words(&folded).collect();
        // One name in two states is two places, also behind one server (athenahealth).
        let name = format!("{} {} {}", name.join(" "), entry.state, entry.postal_code);
        let by_name = key_of(&["name", &entry.base, &name]);
        if draft.external_id.is_empty() {
            return self.keys.insert(by_name).then_some(by_name);
        }
        let by_id = key_of(&["id", &entry.external_id, &entry.base]);
        if self.keys.insert(by_id) {
            // So that a third row with this id and this name is known to be a double.
            self.keys.insert(key_of(&["both", &entry.external_id, &entry.base, &name]));
            return Some(by_id);
        }
        let by_both = key_of(&["both", &entry.external_id, &entry.base, &name]);
        self.keys.insert(by_both).then_some(by_both)
    }

    pub(super) fn finish(mut self, form: Form, announced: Option<u64>, content: [u8; 32]) -> ReadList {
        // One order for one content: what a vendor shuffles is unchanged, and neighbours pack well.
        self.entries.sort_unstable_by(|left, right| {
            (&left.base, &left.brand, &left.name, &left.key).cmp(&(
                &right.base,
                &right.brand,
                &right.name,
                &right.key,
            ))
        });
        ReadList {
            form,
            rows: self.rows,
            entries: self.entries,
            doubled: self.doubled,
            refused: self.refused,
            announced,
            content,
        }
    }
}

fn size_of(entry: &DirectoryEntry) -> usize {
    let names = entry.aliases.iter().map(String::len).sum::<usize>()
        + entry.portals.iter().map(|portal| portal.name.len() + portal.url.len()).sum::<usize>();
    let texts = [
        &entry.name,
        &entry.city,
        &entry.state,
        &entry.postal_code,
        &entry.logo,
        &entry.external_id,
        &entry.brand,
        &entry.base,
    ];
    names + texts.into_iter().map(String::len).sum::<usize>()
}

/// Sixteen bytes of a digest of texts, each with its length.
fn key_of(parts: &[&str]) -> [u8; 16] {
    let mut message = Vec::new();
    for part in parts {
        message.extend_from_slice(&(part.len() as u64).to_be_bytes());
        message.extend_from_slice(part.as_bytes());
    }
    let mut key = [0; 16];
    key.copy_from_slice(&sha256(&message)[..16]);
    key
}

fn read_base(address: &str) -> Result<Base, Refusal> {
    let base = FhirBaseUrl::parse(address).map_err(|error| match error {
        BadUrl::NotHttps => Refusal::NotHttps,
        BadUrl::QueryOrFragment => Refusal::Query,
        BadUrl::Malformed | BadUrl::Tenant => Refusal::NoUrl,
        BadUrl::Credentials | BadUrl::Path | BadUrl::Outside => Refusal::UnsafeUrl,
    })?;
    if !base.origin().starts_with("https://") {
        return Err(Refusal::NotHttps);
    }
    let path = base.path().to_ascii_lowercase();
    let older = path.split('/').any(|part| matches!(part, "r2" | "r3"));
    if older || ["dstu2", "argonaut", "stu3"].iter().any(|mark| path.contains(mark)) {
        return Err(Refusal::NotR4);
    }
    let text = base.to_string();
    let hidden = is_internal(base.host()) || text.to_ascii_lowercase().contains("sandbox");
    let vendor = vendor_of(&base);
    Ok(Base { text, vendor, hidden })
}

/// Whether a host is an address or a name inside somebody's network. Decided by the text alone: nothing is resolved.
fn is_internal(host: &str) -> bool {
    let bare = host.trim_start_matches('[').trim_end_matches(']');
    if let Ok(address) = bare.parse::<IpAddr>() {
        return !AddressGuard::new(Vec::new()).allows(address, Reach::Public);
    }
    let inside = [".local", ".internal", ".lan", ".corp", ".intranet", ".localhost", ".localdomain", ".home"];
    !host.contains('.') || inside.iter().any(|ending| host.ends_with(ending))
}

fn make_entry(draft: &Draft<'_>, base: &Base) -> DirectoryEntry {
    let mut name = clean(draft.name);
    if name.is_empty() {
        name = clean(draft.other_name);
    }
    let mut state = known_state(draft.state);
    // Some have it twice.
    while base.vendor == "athenahealth"
        && let Some((code, rest)) = split_state_prefix(&name)
    {
        if state.is_empty() {
            code.clone_into(&mut state);
        }
        name = String::from(rest);
    }
    let unnamed = name.is_empty();
    if unnamed {
        name = label_of(&base.text);
    }
    let folded = fold(&name);
    let test = folded.split(' ').any(|word| TEST_WORDS.contains(&word));
    // Clinicians' addresses are no use to a patient.
    let clinicians = VendorProfile::named(base.vendor).is_some_and(|profile| profile.for_clinicians);
    let hidden = test || base.hidden || clinicians;
    let mut aliases: Vec<String> = Vec::new();
    for alias in draft.aliases.iter().map(|alias| clean(alias)) {
        if !alias.is_empty() && alias != name && !aliases.contains(&alias) && aliases.len() < MOST_NAMES {
            aliases.push(alias);
        }
    }
    let mut portals: Vec<Portal> = Vec::new();
    for (portal, url) in &draft.portals {
        let portal = Portal { name: clean(portal), url: web_address(url).unwrap_or_default() };
        let empty = portal == Portal::default();
        if !empty && !portals.contains(&portal) && portals.len() < MOST_NAMES {
            portals.push(portal);
        }
    }
    // The tenant is what Oracle's ids mean; they write it with other characters.
    let external_id = if base.vendor.starts_with("cerner") && !draft.external_id.is_empty() {
        base.text.rsplit('/').next().unwrap_or_default().to_owned()
    } else {
        clean(draft.external_id)
    };
    let brand = if draft.kind == EntryKind::Facility { clean(draft.brand) } else { String::new() };
    DirectoryEntry {
        key: [0; 16],
        kind: draft.kind,
        name,
        unnamed,
        hidden,
        aliases,
        portals,
        city: clean(draft.city),
        state,
        postal_code: postal_code(draft.postal_code).unwrap_or_default(),
        logo: logo(draft.logo).unwrap_or_default(),
        external_id,
        brand,
        base: base.text.clone(),
        gone_since: None,
    }
}

fn known_state(text: &str) -> String {
    state_code(text).map_or_else(|| clean(text), str::to_owned)
}

/// A name for a place that has none: its host, and what follows it.
fn label_of(base: &str) -> String {
    let rest = base.trim_start_matches("https://");
    let (host, path) = rest.split_once('/').unwrap_or((rest, ""));
    let host = host.split(':').next().unwrap_or(host);
    let last = path.rsplit('/').find(|part| !part.is_empty() && !part.eq_ignore_ascii_case("r4"));
    match last {
        Some(last) => clean(&format!("{host} ({last})")),
        None => clean(host),
    }
}

/// An https address without credentials, or nothing: a list must not put `javascript:` on our pages.
fn web_address(text: &str) -> Option<String> {
    let text = text.trim();
    if text.len() > MOST_URL {
        return None;
    }
    let url = Url::parse(text).ok()?;
    let plain = url.username().is_empty() && url.password().is_none();
    let named = matches!(url.host(), Some(Host::Domain(_)));
    (url.scheme() == "https" && plain && named).then(|| url.to_string())
}

/// A picture's https address, or a small raster picture in a `data:` URL. SVG can carry script and is not taken.
fn logo(text: &str) -> Option<String> {
    let text = text.trim();
    let Some(data) = text.strip_prefix("data:image/") else { return web_address(text) };
    let (kind, content) = data.split_once(";base64,")?;
    let raster = matches!(kind, "png" | "jpeg" | "gif" | "webp");
    let plain =
        content.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'+' | b'/' | b'='));
    (raster && plain && text.len() <= MOST_LOGO).then(|| text.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_harmless_pictures_and_addresses_are_kept() {
        assert_eq!(logo("https://h.example/logo.svg").as_deref(), Some("https://h.example/logo.svg"));
        assert_eq!(
            logo("data:image/png;base64,iVBORw0KGgo=").as_deref(),
            Some("data:image/png;base64,iVBORw0KGgo=")
        );
        for bad in [
            "http://h.example/logo.png",
            "javascript:alert(1)",
            "data:image/svg+xml;base64,PHN2Zz4=",
            "data:text/html;base64,PGI+",
            "data:image/png;base64,\"onload=x",
            "https://me:pw@h.example/logo.png",
            "https://10.0.0.1/logo.png",
            "//h.example/logo.png",
        ] {
            assert_eq!(logo(bad), None, "{bad}");
        }
        assert_eq!(logo(&format!("data:image/png;base64,{}", "A".repeat(MOST_LOGO))), None);
    }

    #[test]
    fn hosts_inside_a_network_are_known_by_their_text() {
        for inside in
            ["10.1.2.3", "localhost", "fhirserver", "ehr.hospital.local", "[fd00::1]", "169.254.169.254"]
        {
            assert!(is_internal(inside), "{inside}");
        }
        for outside in ["fhir.hospital.example", "8.8.8.8"] {
            assert!(!is_internal(outside), "{outside}");
        }
    }

    #[test]
    fn a_place_without_a_name_is_called_by_its_address() {
        assert_eq!(label_of("https://h.example:9443/fhir/x/drchrono_12"), "h.example (drchrono_12)");
        assert_eq!(label_of("https://h.example/abc/R4"), "h.example (abc)");
        assert_eq!(label_of("https://h.example"), "h.example");
    }
}

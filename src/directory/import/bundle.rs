//! FHIR bundles of Endpoints and Organizations. Their entries come in any order, so both are kept, small, until the end;
//! then each organization is led to the endpoints it connects through.
//!
//! The links differ by vendor: `Organization.endpoint` (Oracle, Epic's brands, the SMART profile), an Organization
//! contained in its Endpoint with a broken reference to it (Epic, Veradigm, Oracle before 2024), or
//! `Endpoint.managingOrganization` (the drafts of 2022 and 2023). A facility has only a parent, `partOf`.

use std::collections::{HashMap, HashSet};

use serde::Deserialize;
use serde_json::value::RawValue;

use super::collect::{Collector, Draft};
use super::read::Loose;
use super::{ImportError, Refusal};
use crate::crypto::sha256;
use crate::directory::entries::EntryKind;

/// Parents above parents that are looked at; real lists have one or two levels.
const MOST_LEVELS: usize = 8;
/// Endpoints of one organization that are looked at.
const MOST_ENDPOINTS: usize = 64;

/// Sixteen bytes of the digest of a `fullUrl` or of `Type/id`.
type Key = [u8; 16];

/// A reference as it is written, and as `Type/id`: the first that names something counts.
type Reference = [Key; 2];

#[derive(Default)]
pub(super) struct Bundle {
    organizations: Vec<Organization>,
    endpoints: Vec<Endpoint>,
}

#[derive(Default)]
struct Organization {
    keys: [Option<Key>; 2],
    id: Box<str>,
    name: Box<str>,
    aliases: Vec<Box<str>>,
    portals: Vec<FoundPortal>,
    logo: Box<str>,
    city: Box<str>,
    state: Box<str>,
    postal_code: Box<str>,
    endpoints: Vec<Reference>,
    parent: Option<Reference>,
    inactive: bool,
}

struct FoundPortal {
    name: Box<str>,
    url: Box<str>,
    endpoints: Vec<Reference>,
}

struct Endpoint {
    keys: [Option<Key>; 2],
    id: Box<str>,
    name: Box<str>,
    address: Box<str>,
    refusal: Option<Refusal>,
    managing: Option<Reference>,
    /// Contained, which wins over what is outside.
    organization: Option<Box<Organization>>,
}

impl Bundle {
    /// Takes one entry of the bundle.
    pub(super) fn take(&mut self, text: &str, collector: &mut Collector) -> Result<(), ImportError> {
        if self.organizations.len() + self.endpoints.len() >= collector.most_rows() {
            return Err(ImportError::TooLarge("too many entries"));
        }
        let Ok(entry) = serde_json::from_str::<WireEntry>(text) else {
            collector.refuse(Refusal::NotUnderstood);
            return Ok(());
        };
        let (full_url, resource) = (entry.full_url.0, entry.resource.0);
        match resource.kind.0.as_str() {
            "Organization" => {
                let organization = organization(&full_url, &resource, true);
                collector.keep(organization.size())?;
                self.organizations.push(organization);
            }
            "Endpoint" => {
                let endpoint = endpoint(&full_url, &resource);
                collector.keep(endpoint.address.len() + endpoint.name.len() + endpoint.id.len())?;
                if let Some(contained) = &endpoint.organization {
                    collector.keep(contained.size())?;
                }
                self.endpoints.push(endpoint);
            }
            _ => collector.refuse(Refusal::NotUnderstood),
        }
        Ok(())
    }

    /// Leads every organization to its endpoints.
    pub(super) fn finish(self, collector: &mut Collector) -> Result<(), ImportError> {
        let links = Links::new(&self);
        let mut used: HashSet<usize> = HashSet::new();
        for (index, organization) in self.organizations.iter().enumerate() {
            if organization.name.is_empty() && links.own(organization, index).is_empty() {
                collector.refuse(Refusal::NotUnderstood);
                continue;
            }
            if organization.inactive {
                collector.refuse(Refusal::NotActive);
                continue;
            }
            let Some((owner, endpoints)) = links.endpoints_of(&self, index) else {
                collector.refuse(Refusal::NoEndpoint);
                continue;
            };
            let brand = &self.organizations[owner];
            if owner == index {
                used.extend(&endpoints);
            }
            let kind = if owner == index { EntryKind::Brand } else { EntryKind::Facility };
            self.take_organization(organization, kind, brand, &endpoints, collector)?;
        }
        for (index, endpoint) in self.endpoints.iter().enumerate() {
            if let Some(contained) = &endpoint.organization {
                let named = Organization { id: endpoint.id.clone(), ..Organization::default() };
                let draft =
                    Draft { other_name: &endpoint.name, ..draft(contained, EntryKind::Brand, &named) };
                take(endpoint, draft, collector)?;
            } else if !used.contains(&index) {
                let named = Organization { id: endpoint.id.clone(), ..Organization::default() };
                let draft = Draft { other_name: &endpoint.name, ..draft(&named, EntryKind::Brand, &named) };
                take(endpoint, draft, collector)?;
            }
        }
        Ok(())
    }

    /// One entry for each server the organization can be reached at; mostly one.
    fn take_organization(
        &self,
        organization: &Organization,
        kind: EntryKind,
        brand: &Organization,
        endpoints: &[usize],
        collector: &mut Collector,
    ) -> Result<(), ImportError> {
        let mut bases: HashSet<String> = HashSet::new();
        let mut first_refusal = None;
        for index in endpoints {
            let endpoint = &self.endpoints[*index];
            let base = match endpoint.refusal {
                Some(refusal) => Err(refusal),
                None => collector.base(&endpoint.address).map(|base| base.text),
            };
            match base {
                Ok(base) if bases.insert(base.clone()) => {
                    let portals = organization.portals.iter().chain(&brand.portals);
                    let here = portals.filter(|portal| {
                        portal.endpoints.is_empty()
                            || endpoint
                                .keys
                                .iter()
                                .flatten()
                                .any(|key| portal.endpoints.iter().flatten().any(|wanted| wanted == key))
                    });
                    let portals = here.map(|portal| (&*portal.name, &*portal.url)).collect();
                    let named = draft(organization, kind, organization);
                    let draft = Draft { brand: &brand.name, other_name: &endpoint.name, portals, ..named };
                    take(endpoint, draft, collector)?;
                }
                Ok(_) => {}
                Err(refusal) => {
                    first_refusal.get_or_insert(refusal);
                }
            }
        }
        if let (true, Some(refusal)) = (bases.is_empty(), first_refusal) {
            collector.refuse(refusal);
        }
        Ok(())
    }
}

fn draft<'o>(organization: &'o Organization, kind: EntryKind, named: &'o Organization) -> Draft<'o> {
    Draft {
        kind,
        name: &organization.name,
        external_id: &named.id,
        aliases: organization.aliases.iter().map(|alias| &**alias).collect(),
        portals: organization.portals.iter().map(|portal| (&*portal.name, &*portal.url)).collect(),
        city: &organization.city,
        state: &organization.state,
        postal_code: &organization.postal_code,
        logo: &organization.logo,
        ..Draft::default()
    }
}

fn take(endpoint: &Endpoint, draft: Draft<'_>, collector: &mut Collector) -> Result<(), ImportError> {
    match endpoint.refusal {
        Some(refusal) => {
            collector.refuse(refusal);
            Ok(())
        }
        None => collector.take(&Draft { address: &endpoint.address, ..draft }),
    }
}

/// Who refers to whom.
struct Links {
    organizations: HashMap<Key, usize>,
    endpoints: HashMap<Key, usize>,
    /// Endpoints by the organization that manages them.
    managed: HashMap<usize, Vec<usize>>,
}

impl Links {
    fn new(bundle: &Bundle) -> Self {
        let mut links =
            Self { organizations: HashMap::new(), endpoints: HashMap::new(), managed: HashMap::new() };
        // `fullUrl` first, then `Type/id`: the first resource of a name keeps it.
        for which in [0, 1] {
            for (index, organization) in bundle.organizations.iter().enumerate() {
                if let Some(key) = organization.keys[which] {
                    links.organizations.entry(key).or_insert(index);
                }
            }
            for (index, endpoint) in bundle.endpoints.iter().enumerate() {
                if let Some(key) = endpoint.keys[which] {
                    links.endpoints.entry(key).or_insert(index);
                }
            }
        }
        for (index, endpoint) in bundle.endpoints.iter().enumerate() {
            let manager = endpoint.managing.filter(|_| endpoint.organization.is_none());
            if let Some(organization) = manager.and_then(|manager| named(&links.organizations, &manager)) {
                links.managed.entry(organization).or_default().push(index);
            }
        }
        links
    }

    /// The endpoints an organization names, or that name it.
    fn own(&self, organization: &Organization, index: usize) -> Vec<usize> {
        let portals = organization.portals.iter().flat_map(|portal| &portal.endpoints);
        let wanted = organization.endpoints.iter().chain(portals).take(MOST_ENDPOINTS);
        let mut found: Vec<usize> =
            wanted.filter_map(|reference| named(&self.endpoints, reference)).collect();
        found.extend(self.managed.get(&index).into_iter().flatten().take(MOST_ENDPOINTS));
        let mut seen = HashSet::new();
        found.retain(|endpoint| seen.insert(*endpoint));
        found
    }

    /// The nearest organization, itself or above, that has endpoints, and these.
    fn endpoints_of(&self, bundle: &Bundle, index: usize) -> Option<(usize, Vec<usize>)> {
        let mut at = index;
        for _ in 0..MOST_LEVELS {
            let organization = &bundle.organizations[at];
            let own = self.own(organization, at);
            if !own.is_empty() {
                return Some((at, own));
            }
            at = named(&self.organizations, &organization.parent?)?;
        }
        None
    }
}

fn named(known: &HashMap<Key, usize>, reference: &Reference) -> Option<usize> {
    reference.iter().find_map(|key| known.get(key).copied())
}

impl Organization {
    fn size(&self) -> usize {
        let lists = self.aliases.iter().map(|alias| alias.len()).sum::<usize>()
            + self
                .portals
                .iter()
                .map(|portal| portal.name.len() + portal.url.len() + portal.endpoints.len() * 32)
                .sum::<usize>();
        // What the struct itself takes counts too: a list of empty organizations is bounded like any other.
        let fixed = size_of::<Self>() + self.endpoints.len() * 32;
        fixed + lists + self.name.len() + self.id.len() + self.logo.len() + self.city.len() + self.state.len()
    }
}

#[derive(Deserialize)]
struct WireEntry {
    #[serde(default, rename = "fullUrl")]
    full_url: Loose<String>,
    #[serde(default)]
    resource: Loose<Resource>,
}

/// The members of both types that are used.
#[derive(Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct Resource {
    #[serde(rename = "resourceType")]
    kind: Loose<String>,
    id: Loose<String>,
    extension: Loose<Vec<Loose<Extension>>>,
    active: Loose<Option<bool>>,
    status: Loose<String>,
    connection_type: Loose<serde_json::Value>,
    name: Loose<String>,
    alias: Loose<Vec<Loose<String>>>,
    /// A URL on an Endpoint, postal addresses on an Organization.
    address: Option<Box<RawValue>>,
    endpoint: Loose<Vec<Loose<WireReference>>>,
    part_of: Loose<WireReference>,
    managing_organization: Loose<WireReference>,
    contained: Loose<Vec<Loose<Resource>>>,
}

#[derive(Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct PostalAddress {
    city: Loose<String>,
    state: Loose<String>,
    postal_code: Loose<String>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct WireReference {
    reference: Loose<String>,
    /// Oracle wrote the reference here.
    id: Loose<String>,
}

#[derive(Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct Extension {
    url: Loose<String>,
    #[serde(rename = "extension")]
    inner: Loose<Vec<Loose<Extension>>>,
    value_string: Loose<String>,
    value_url: Loose<String>,
    value_uri: Loose<String>,
    value_code: Loose<String>,
    value_reference: Loose<WireReference>,
}

impl Resource {
    fn address<T: serde::de::DeserializeOwned + Default>(&self) -> T {
        self.address.as_deref().and_then(|raw| serde_json::from_str(raw.get()).ok()).unwrap_or_default()
    }
}

impl Extension {
    /// The last part of its address, which the drafts and the final profile share.
    fn name(&self) -> &str {
        self.url.0.rsplit('/').next().unwrap_or_default()
    }

    fn text(&self) -> &str {
        [&self.value_url.0, &self.value_uri.0, &self.value_string.0, &self.value_code.0]
            .into_iter()
            .find(|text| !text.is_empty())
            .map_or("", String::as_str)
    }
}

fn organization(full_url: &str, resource: &Resource, linked: bool) -> Organization {
    let mut found = Organization {
        keys: if linked { keys("Organization", full_url, &resource.id.0) } else { [None, None] },
        id: resource.id.0.as_str().into(),
        name: resource.name.0.as_str().into(),
        aliases: resource.alias.0.iter().take(32).map(|alias| alias.0.as_str().into()).collect(),
        endpoints: references(&resource.endpoint.0),
        parent: reference_key(&resource.part_of.0.reference.0, "Organization"),
        inactive: resource.active.0 == Some(false),
        ..Organization::default()
    };
    let addresses: Vec<Loose<PostalAddress>> = resource.address();
    // One place is shown: the most exact one. A brand in many towns has the state they share, if they do.
    let exactness = |address: &&Loose<PostalAddress>| {
        u8::from(!address.0.postal_code.0.is_empty()) + u8::from(!address.0.city.0.is_empty())
    };
    let shown = addresses.iter().rev().max_by_key(exactness).map(|address| &address.0);
    if let Some(shown) = shown {
        if addresses.len() <= 3 {
            found.city = shown.city.0.as_str().into();
            found.postal_code = shown.postal_code.0.as_str().into();
        }
        if addresses.len() <= 3 || addresses.iter().all(|address| address.0.state.0 == shown.state.0) {
            found.state = shown.state.0.as_str().into();
        }
    }
    let mut draft_portal = FoundPortal { name: "".into(), url: "".into(), endpoints: Vec::new() };
    for extension in resource.extension.0.iter().map(|extension| &extension.0) {
        match extension.name() {
            "organization-portal" if found.portals.len() < 16 => found.portals.push(portal(extension)),
            "organization-brand" => {
                let logo = extension.inner.0.iter().find(|inner| inner.0.url.0 == "brandLogo");
                found.logo = logo.map_or("", |logo| logo.0.text()).into();
            }
            "brand-logo" => found.logo = extension.text().into(),
            "patient-access-name" => draft_portal.name = extension.text().into(),
            "patient-access-url" => draft_portal.url = extension.text().into(),
            _ => {}
        }
    }
    if !draft_portal.name.is_empty() || !draft_portal.url.is_empty() {
        found.portals.push(draft_portal);
    }
    found
}

fn portal(extension: &Extension) -> FoundPortal {
    let mut portal = FoundPortal { name: "".into(), url: "".into(), endpoints: Vec::new() };
    for inner in extension.inner.0.iter().map(|inner| &inner.0) {
        match inner.url.0.as_str() {
            "portalName" => portal.name = inner.text().into(),
            "portalUrl" | "portalURL" => portal.url = inner.text().into(),
            "portalEndpoint" => {
                portal.endpoints.extend(reference_key(&inner.value_reference.0.reference.0, "Endpoint"));
            }
            _ => {}
        }
    }
    portal
}

fn endpoint(full_url: &str, resource: &Resource) -> Endpoint {
    let address: String = resource.address();
    let contained: Vec<&Resource> = resource
        .contained
        .0
        .iter()
        .map(|inner| &inner.0)
        .filter(|inner| inner.kind.0 == "Organization")
        .collect();
    // The reference to it is written in three ways, most of them wrong; with one organization there is no doubt.
    let managing = &resource.managing_organization.0;
    let wanted = [&managing.reference.0, &managing.id.0].map(|text| text.trim_start_matches('#'));
    let inner = match contained.as_slice() {
        [] => None,
        [one] => Some(*one),
        several => several.iter().copied().find(|inner| wanted.contains(&inner.id.0.as_str())),
    };
    Endpoint {
        keys: keys("Endpoint", full_url, &resource.id.0),
        id: resource.id.0.as_str().into(),
        name: resource.name.0.as_str().into(),
        address: address.as_str().into(),
        refusal: refusal(resource),
        managing: reference_key(&managing.reference.0, "Organization"),
        organization: inner.map(|inner| Box::new(organization("", inner, false))),
    }
}

/// Why an endpoint is not one to offer, by what it says of itself.
fn refusal(resource: &Resource) -> Option<Refusal> {
    if !matches!(resource.status.0.as_str(), "" | "active") {
        return Some(Refusal::NotActive);
    }
    let versions =
        resource.extension.0.iter().filter(|extension| extension.0.name() == "endpoint-fhir-version");
    let mut versions = versions.map(|version| version.0.text()).peekable();
    if versions.peek().is_some() && !versions.any(|version| version.starts_with('4')) {
        return Some(Refusal::NotR4);
    }
    // A Coding in R4, a list of CodeableConcepts later.
    let kind = resource.connection_type.0.to_string();
    let known = kind.contains("\"code\"");
    (known && !kind.contains("hl7-fhir-rest")).then_some(Refusal::OtherConnection)
}

fn references(wire: &[Loose<WireReference>]) -> Vec<Reference> {
    wire.iter()
        .take(MOST_ENDPOINTS)
        .filter_map(|reference| reference_key(&reference.0.reference.0, "Endpoint"))
        .collect()
}

/// The names a resource can be referred to by.
fn keys(kind: &str, full_url: &str, id: &str) -> [Option<Key>; 2] {
    let bare = full_url.trim_start_matches("urn:uuid:");
    let full = (!bare.is_empty()).then(|| digest(bare));
    let relative = (!id.is_empty()).then(|| digest(&format!("{kind}/{id}")));
    [full, relative]
}

/// What a reference refers to. An absolute one may be on another host than the resource's `fullUrl`, and a `urn:uuid:`
/// may lack its prefix on the other side (Epic's draft).
fn reference_key(text: &str, kind: &str) -> Option<Reference> {
    let text = text.trim();
    if text.is_empty() {
        return None;
    }
    let bare = text.trim_start_matches("urn:uuid:");
    let id = bare.rsplit('/').next().unwrap_or(bare);
    Some([digest(bare), digest(&format!("{kind}/{id}"))])
}

fn digest(text: &str) -> Key {
    let mut key = [0; 16];
    key.copy_from_slice(&sha256(text.as_bytes())[..16]);
    key
}

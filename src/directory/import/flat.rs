//! Flat rows: Lantern's, the arrays of other public projects, and the oldest lists of vendors.

use std::collections::BTreeMap;

use serde_json::value::RawValue;

use super::ImportError;
use super::collect::Draft;
use crate::directory::entries::EntryKind;

/// A row's texts.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct FlatRow {
    pub name: String,
    pub address: String,
    pub id: String,
    pub city: String,
    pub state: String,
    pub postal_code: String,
    pub logo: String,
    pub portal_url: String,
}

/// Which text of a row a column or member is, by its name without case and punctuation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Column {
    Name,
    Address,
    Id,
    City,
    State,
    PostalCode,
    Logo,
    PortalUrl,
}

impl Column {
    pub(super) fn named(name: &str) -> Option<Self> {
        let plain: String =
            name.chars().filter(|letter| letter.is_alphanumeric()).collect::<String>().to_lowercase();
        Some(match plain.as_str() {
            "organizationname" | "name" | "organization" | "practicename" | "facilityname" => Self::Name,
            "url" | "baseurl" | "fhirbaseurl" | "endpoint" | "endpointurl" | "fhirendpoint" | "fhirurl"
            | "servicebaseurl" | "address" => Self::Address,
            "id" | "externalid" => Self::Id,
            "city" => Self::City,
            "state" => Self::State,
            "organizationzipcode" | "zip" | "zipcode" | "postalcode" => Self::PostalCode,
            "logo" | "logourl" => Self::Logo,
            "portalurl" | "portal" => Self::PortalUrl,
            _ => return None,
        })
    }
}

impl FlatRow {
    pub(super) fn set(&mut self, column: Column, text: &str) {
        let slot = match column {
            Column::Name => &mut self.name,
            Column::Address => &mut self.address,
            Column::Id => &mut self.id,
            Column::City => &mut self.city,
            Column::State => &mut self.state,
            Column::PostalCode => &mut self.postal_code,
            Column::Logo => &mut self.logo,
            Column::PortalUrl => &mut self.portal_url,
        };
        if slot.is_empty() {
            text.clone_into(slot);
        }
    }

    pub(super) fn draft(&self) -> Draft<'_> {
        let portal = [("", self.portal_url.as_str())];
        Draft {
            kind: EntryKind::Practice,
            name: &self.name,
            address: &self.address,
            external_id: &self.id,
            city: &self.city,
            state: &self.state,
            postal_code: &self.postal_code,
            logo: &self.logo,
            portals: portal.into_iter().filter(|(_, url)| !url.is_empty()).collect(),
            ..Draft::default()
        }
    }
}

/// A row of JSON; `None` when it is not one.
pub(super) fn row(text: &str) -> Result<Option<FlatRow>, ImportError> {
    let Ok(members) = serde_json::from_str::<BTreeMap<String, &RawValue>>(text) else { return Ok(None) };
    // The catalogue of such lists has names and addresses too, of web pages.
    if members.contains_key("FormatType") && members.contains_key("FileName") {
        return Err(ImportError::NotAList("it is a list of such lists; import each of them"));
    }
    let mut row = FlatRow::default();
    let mut known = false;
    for (name, value) in &members {
        let Some(column) = Column::named(name) else { continue };
        known = true;
        // Ids and postal codes are numbers in some lists.
        let text = serde_json::from_str::<String>(value.get());
        let number = || value.get().bytes().all(|byte| byte.is_ascii_digit()).then(|| value.get().to_owned());
        if let Some(text) = text.ok().or_else(number) {
            row.set(column, &text);
        }
    }
    Ok(known.then_some(row))
}

//! A source: one FHIR base URL we can connect to.

use serde::{Deserialize, Serialize};

use crate::clock::Timestamp;
use crate::config::Environment;
use crate::crypto::sha256;
use crate::directory::{Activation, EhrClient};
use crate::id::{EhrClientId, Id as _, SourceId};
use crate::outbound::Reach;
use crate::smart::server::Overrides;
use crate::smart::vendors::VendorProfile;
use crate::smart::{EhrServer, FhirBaseUrl};
use crate::store::{Table, json_value};

/// Sources by id.
pub(super) const SOURCES: Table<Source> = Table::new("sources.v1");

/// One FHIR base URL we can connect to.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Source {
    /// Its id; the wire contract calls it `connection_id`.
    pub id: SourceId,
    /// Live or sandbox.
    pub environment: Environment,
    /// What patients call the place.
    pub name: String,
    /// Where its records are; also the `aud` of a launch.
    pub base: FhirBaseUrl,
    /// The vendor profile.
    pub vendor: String,
    /// Our registration there.
    pub ehr_client: EhrClientId,
    /// Town.
    pub city: Option<String>,
    /// State.
    pub state: Option<String>,
    /// Picture to show, https only.
    pub logo_url: Option<String>,
    /// The patient portal's address.
    pub portal_url: Option<String>,
    /// Where this source departs from its vendor's profile.
    #[serde(default)]
    pub overrides: Overrides,
    /// Whether its hospital lets us in.
    #[serde(default)]
    pub activation: Activation,
    /// When it was added.
    pub created_at: Timestamp,
}
json_value!(Source);

/// A source to add.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewSource {
    /// Live or sandbox.
    pub environment: Environment,
    /// What patients call the place.
    pub name: String,
    /// Where its records are.
    pub base: FhirBaseUrl,
    /// Our registration there, by name.
    pub ehr_client: String,
    /// Town.
    pub city: Option<String>,
    /// State.
    pub state: Option<String>,
    /// Picture to show.
    pub logo_url: Option<String>,
    /// The patient portal's address.
    pub portal_url: Option<String>,
    /// Departures from the profile.
    pub overrides: Overrides,
}

impl Source {
    /// This source as the protocol sees it. Only a sandbox source may be on this machine.
    pub fn server(&self) -> EhrServer {
        EhrServer {
            base: self.base.clone(),
            profile: VendorProfile::named(&self.vendor).unwrap_or_else(VendorProfile::generic),
            overrides: self.overrides.clone(),
            reach: self.reach(),
        }
    }

    /// How far calls to it, and to what it names, may go.
    pub fn reach(&self) -> Reach {
        reach_of(self.environment, &self.base)
    }

    pub(super) fn from_new(id: SourceId, created_at: Timestamp, client: &EhrClient, new: NewSource) -> Self {
        Self {
            id,
            environment: new.environment,
            name: new.name,
            base: new.base,
            vendor: client.vendor.clone(),
            ehr_client: client.id,
            city: new.city,
            state: new.state,
            logo_url: new.logo_url,
            portal_url: new.portal_url,
            overrides: new.overrides,
            activation: Activation::default(),
            created_at,
        }
    }
}

/// The id of the source at a base URL. It is made of the two, so that a place of the directory has its id before anybody
/// chooses it, the same on every box and for ever.
pub(super) fn source_id(environment: Environment, base: &str) -> SourceId {
    let environment = match environment {
        Environment::Live => "live",
        Environment::Sandbox => "sandbox",
    };
    let digest = sha256(format!("chartgate source {environment} {base}").as_bytes());
    let mut bytes = [0; 16];
    bytes.copy_from_slice(&digest[..16]);
    SourceId::from_bytes(bytes)
}

/// Loopback is for a sandbox source that is itself on this machine: a vendor's public sandbox must not be able to name an
/// address of ours as its token endpoint.
pub fn reach_of(environment: Environment, base: &FhirBaseUrl) -> Reach {
    let loopback = matches!(base.host(), "localhost" | "127.0.0.1" | "[::1]");
    if environment == Environment::Sandbox && loopback { Reach::Loopback } else { Reach::Public }
}

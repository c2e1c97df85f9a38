//! An EHR client: one registration of ours at a vendor.

use serde::{Deserialize, Serialize};

use crate::clock::Timestamp;
use crate::config::{AuthMethod, Environment, SmartVersion};
use crate::crypto::Algorithm;
use crate::id::EhrClientId;
use crate::secret::Secret;
use crate::smart::Registration;
use crate::store::{Table, json_value};

/// Where an app is opened from inside the EHR.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LaunchTarget {
    /// The app's own address; the browser goes there when the launch is done.
    pub url: String,
    /// The workspace whose API keys may read the launches, by name. Left out, the only one of the environment.
    pub workspace: Option<String>,
}

/// Registrations by id.
pub(super) const EHR_CLIENTS: Table<EhrClient> = Table::new("ehr_clients.v1");

/// One registration of ours at a vendor.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct EhrClient {
    /// Its id.
    pub id: EhrClientId,
    /// Its name on this box.
    pub name: String,
    /// The vendor profile.
    pub vendor: String,
    /// Live or sandbox; some vendors give each its own client id.
    pub environment: Environment,
    /// The vendor's client id. Not a secret: it is in every authorization URL.
    pub client_id: String,
    /// How we prove who we are at the token endpoint.
    pub auth: AuthMethod,
    /// For the two methods that need one.
    pub client_secret: Option<Secret>,
    /// Instead of choosing from discovery.
    pub signing_algorithm: Option<Algorithm>,
    /// Which scope syntax the registration honours; fixed when it was made.
    pub smart_version: SmartVersion,
    /// Instead of choosing from discovery.
    pub scopes: Option<Vec<String>>,
    /// The app that the EHR opens with this registration, if it opens one.
    #[serde(default)]
    pub launch: Option<LaunchTarget>,
    /// When it was added.
    pub created_at: Timestamp,
}
json_value!(EhrClient);

/// A registration to add.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewEhrClient {
    /// Its name on this box.
    pub name: String,
    /// The vendor profile.
    pub vendor: String,
    /// Live or sandbox.
    pub environment: Environment,
    /// The vendor's client id.
    pub client_id: String,
    /// How we prove who we are.
    pub auth: AuthMethod,
    /// For the two methods that need one.
    pub client_secret: Option<Secret>,
    /// Instead of choosing from discovery.
    pub signing_algorithm: Option<Algorithm>,
    /// Which scope syntax the registration honours.
    pub smart_version: SmartVersion,
    /// Instead of choosing from discovery.
    pub scopes: Option<Vec<String>>,
    /// The app that the EHR opens with this registration, if it opens one.
    pub launch: Option<LaunchTarget>,
}

impl EhrClient {
    /// This registration as the protocol sees it.
    pub fn registration(&self) -> Registration {
        Registration {
            client_id: self.client_id.clone(),
            auth: self.auth,
            client_secret: self.client_secret.clone(),
            signing_algorithm: self.signing_algorithm,
            smart_version: self.smart_version,
            scopes: self.scopes.clone(),
        }
    }

    pub(super) fn from_new(id: EhrClientId, created_at: Timestamp, new: NewEhrClient) -> Self {
        Self {
            id,
            name: new.name,
            vendor: new.vendor,
            environment: new.environment,
            client_id: new.client_id,
            auth: new.auth,
            client_secret: new.client_secret,
            signing_algorithm: new.signing_algorithm,
            smart_version: new.smart_version,
            scopes: new.scopes,
            launch: new.launch,
            created_at,
        }
    }
}

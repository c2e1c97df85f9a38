//! The two sides of a launch: the EHR's server, and our registration at it.

use serde::{Deserialize, Serialize};

use crate::config::{AuthMethod, SmartVersion};
use crate::crypto::Algorithm;
use crate::outbound::Reach;
use crate::secret::Secret;
use crate::smart::discovery::SmartConfiguration;
use crate::smart::token_response::MAX_TOKEN_BODY;
use crate::smart::url::{BadUrl, FhirBaseUrl, RevocationEndpoint, TokenEndpoint};
use crate::smart::vendors::{AssertionAudience, VendorProfile};

/// The server of one source.
#[derive(Debug, Clone)]
pub struct EhrServer {
    /// Where its records are; `aud` of a launch.
    pub base: FhirBaseUrl,
    /// What its vendor's documents do not say.
    pub profile: &'static VendorProfile,
    /// Where this one departs from discovery and profile.
    pub overrides: Overrides,
    /// Whether it may be on this machine, which only a sandbox source may.
    pub reach: Reach,
}

/// Where one source departs from discovery and from its vendor's profile.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Overrides {
    /// Instead of the discovered authorization endpoint.
    pub authorize_url: Option<String>,
    /// Instead of the discovered token endpoint.
    pub token_url: Option<String>,
    /// Instead of the token endpoint as `aud` of our assertion.
    pub assertion_audience: Option<String>,
    /// Whether `client_id` goes beside an assertion.
    pub send_client_id: Option<bool>,
    /// Whether `aud` is sent in the authorization request.
    pub send_aud: Option<bool>,
}

/// Our registration at a vendor.
#[derive(Debug, Clone)]
pub struct Registration {
    /// The vendor's id for us.
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
}

/// What later calls to a token endpoint need to know; kept with the launch attempt and then with the grant, so that a
/// code or a refresh token goes only to the server that it came from.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TokenServer {
    /// Where codes and refresh tokens go.
    pub endpoint: TokenEndpoint,
    /// `aud` of our assertion there.
    pub audience: String,
    /// What our assertion is signed with.
    pub algorithm: Algorithm,
    /// Whether `client_id` goes beside the assertion.
    pub send_client_id: bool,
    /// Where a token is given back, if anywhere.
    pub revocation: Option<RevocationEndpoint>,
}

impl TokenServer {
    /// The most bytes of an answer to read.
    pub const MOST_BYTES: usize = MAX_TOKEN_BODY;

    /// From discovery, the vendor's profile and this source's own departures.
    pub fn choose(
        server: &EhrServer,
        found: &SmartConfiguration,
        registration: &Registration,
    ) -> Result<Self, BadUrl> {
        let endpoint = match &server.overrides.token_url {
            Some(url) => TokenEndpoint::parse(url)?,
            None => found.token_endpoint.clone(),
        };
        let named = match (&server.overrides.assertion_audience, server.profile.assertion_audience) {
            (Some(audience), _) => audience.clone(),
            // The profile's registration would have to name it; until it does, the token endpoint is the best guess.
            (None, AssertionAudience::TokenEndpoint | AssertionAudience::Registration) => {
                endpoint.as_str().to_owned()
            }
        };
        Ok(Self {
            audience: named,
            algorithm: registration.signing_algorithm.unwrap_or_else(|| algorithm(server.profile, found)),
            send_client_id: server.overrides.send_client_id.unwrap_or(server.profile.send_client_id),
            revocation: found.revocation_endpoint.clone(),
            endpoint,
        })
    }
}

/// The first algorithm of the profile that the server lists; RS384 when it lists none of them or says nothing.
fn algorithm(profile: &VendorProfile, found: &SmartConfiguration) -> Algorithm {
    let listed = |algorithm: &&Algorithm| found.accepts_assertion_algorithm(**algorithm) == Some(true);
    profile.assertion_algorithms.iter().find(listed).copied().unwrap_or(Algorithm::Rs384)
}

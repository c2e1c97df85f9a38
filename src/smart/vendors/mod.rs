//! What differs between vendors, as data. Discovery wins over a profile wherever it speaks; a profile says what no
//! document says.

mod activation;
mod profiles;

use std::time::Duration;

use crate::config::{AuthMethod, SmartVersion};
use crate::crypto::Algorithm;
use crate::smart::discovery::{METADATA_PATH, OPENID_CONFIGURATION_PATH, SMART_CONFIGURATION_PATH};
use crate::smart::id_token::ExpectedIssuer;
use crate::smart::server::Registration;
use crate::smart::url::{BadUrl, FhirBaseUrl};

pub use activation::{HospitalSteps, hospital_steps};

/// One vendor's knobs.
#[derive(Debug, Clone, PartialEq, Eq)]
#[expect(
    clippy::struct_excessive_bools,
    reason = "each is one independent fact about a vendor, set in a table"
)]
pub struct VendorProfile {
    /// The name in configuration files, such as `cerner`.
    pub name: &'static str,
    /// The name for people.
    pub label: &'static str,
    /// Documents to try, in this order.
    pub discovery: &'static [DiscoveryStep],
    /// How a registration usually authenticates.
    pub auth: AuthMethod,
    /// Algorithms of client assertions, the best first.
    pub assertion_algorithms: &'static [Algorithm],
    /// The assertion's `aud` is another address than the token endpoint, which each source must name (VA Lighthouse: the
    /// token URL of the Okta server behind it).
    pub audience_is_elsewhere: bool,
    /// Send `client_id` in the token request next to an assertion (RFC 7521 section 4.2 makes it optional).
    pub send_client_id: bool,
    /// Send `aud` in the authorization request.
    pub send_aud: bool,
    /// Hosts of this vendor that refuse a request with `aud`.
    aud_refused_at: &'static [&'static str],
    /// The scopes that ask who signs in.
    pub identity_scopes: &'static [&'static str],
    /// Scope syntax of a registration when nothing else is said.
    pub smart_version: SmartVersion,
    /// Ask for `patient/*` instead of naming the types.
    pub wildcard: bool,
    /// The host is for clinicians: patients cannot sign in there.
    pub for_clinicians: bool,
    /// Ask for `launch/patient` in a standalone launch.
    pub launch_patient: bool,
    /// The scope that asks for a refresh token; `None` where the registration decides.
    pub offline_scope: Option<&'static str>,
    /// Types beyond the wanted ones that records refer to.
    pub companions: &'static [&'static str],
    /// The only types the server has.
    pub only_types: Option<&'static [&'static str]>,
    /// Which `iss` an id token may have.
    pub issuer: IssuerRule,
    /// An id token without our nonce is refused, not only one with another nonce.
    pub nonce_required: bool,
    /// Without a patient in the token response and in `fhirUser`, ask `GET Patient`.
    pub ask_for_patient: bool,
    /// Searches by POST to `{type}/_search` are known. Where they are not, the search goes by address.
    pub post_search: bool,
    /// A refresh token not used for this long is lost.
    pub refresh_idle_limit: Option<Duration>,
    /// How refresh tokens behave; what comes decides, this is for the text that staff read.
    pub refresh: RefreshBehaviour,
    /// Sandbox and production have different client ids.
    pub client_id_per_environment: bool,
    /// Hosts, matched with their subdomains.
    hosts: &'static [&'static str],
    /// Part of the path that only this vendor's customers have on their own hosts.
    path_mark: Option<&'static str>,
}

/// A document that may describe the authorization server.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DiscoveryStep {
    /// `{base}/.well-known/smart-configuration`
    SmartConfiguration,
    /// `{base}/metadata`
    CapabilityStatement,
    /// `{base}/.well-known/openid-configuration`
    OpenIdAtBase,
    /// `{origin}/.well-known/openid-configuration`
    OpenIdAtOrigin,
}

impl DiscoveryStep {
    /// The document's address.
    pub fn url(self, base: &FhirBaseUrl) -> Result<url::Url, BadUrl> {
        match self {
            Self::SmartConfiguration => base.join(SMART_CONFIGURATION_PATH),
            Self::CapabilityStatement => base.join(METADATA_PATH),
            Self::OpenIdAtBase => base.join(OPENID_CONFIGURATION_PATH),
            Self::OpenIdAtOrigin => base.resolve(&format!("/{OPENID_CONFIGURATION_PATH}")),
        }
    }
}

/// Which `iss` an id token may have.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum IssuerRule {
    /// The `issuer` of discovery, letter by letter (OpenID Connect Core section 3.1.3.7).
    Metadata,
    /// `{issuer}/oidc/idsps/{idsp}`: Oracle Health's identity providers below the tenant.
    TenantIdsp,
    /// The `issuer` of discovery, or any https issuer on one of these hosts and on the FHIR base's.
    OtherHost(&'static [&'static str]),
}

impl IssuerRule {
    /// The rule with this server's facts in it. A server that announces no issuer (eClinicalWorks) is known by its keys
    /// alone, which discovery named over TLS.
    pub fn expected(self, metadata_issuer: Option<&str>, base: &FhirBaseUrl) -> ExpectedIssuer {
        match (self, metadata_issuer) {
            (Self::Metadata, Some(issuer)) => ExpectedIssuer::Equals(issuer.to_owned()),
            (Self::TenantIdsp, Some(issuer)) => ExpectedIssuer::TenantIdsp(issuer.to_owned()),
            (Self::OtherHost(hosts), issuer) => ExpectedIssuer::AnyOf {
                issuer: issuer.map(str::to_owned),
                hosts: hosts.iter().copied().chain([base.host()]).map(str::to_owned).collect(),
            },
            (Self::Metadata | Self::TenantIdsp, None) => ExpectedIssuer::AnyHttps,
        }
    }
}

/// What a refresh does to the refresh token.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RefreshBehaviour {
    /// Each use gives a new one and ends the old one.
    Rotates,
    /// Not known, or set in the registration: present replaces, absent keeps.
    Either,
}

impl VendorProfile {
    /// The profile of this name.
    pub fn named(name: &str) -> Option<&'static Self> {
        profiles::ALL.iter().find(|profile| profile.name == name)
    }

    /// The profile for a server nobody has described.
    pub fn generic() -> &'static Self {
        &profiles::GENERIC
    }

    /// All profiles, in the order of a choice on a page.
    pub fn all() -> impl Iterator<Item = &'static Self> {
        profiles::ALL.iter()
    }

    /// What to tell whoever adds a registration at this vendor.
    pub fn notes(&self, registration: &Registration) -> Vec<String> {
        let mut notes = Vec::new();
        if registration.auth != self.auth {
            notes.push(format!(
                "registrations at {} usually authenticate with `{}`, this one with `{}`; it must be what the vendor has",
                self.label, self.auth, registration.auth
            ));
        }
        if registration.smart_version != self.smart_version {
            notes.push(format!(
                "registrations at {} are usually for SMART {}, this one for {}; with the wrong one no record can be read",
                self.label, self.smart_version, registration.smart_version
            ));
        }
        if self.client_id_per_environment {
            notes.push(format!(
                "{} gives one client id for sandboxes and another for production: this must be the right one of the two",
                self.label
            ));
        }
        notes
    }

    /// Whether a launch at this base sends `aud`.
    pub fn sends_aud_to(&self, base: &FhirBaseUrl) -> bool {
        self.send_aud && !is_among(base.host(), self.aud_refused_at)
    }

    fn has_host(&self, host: &str) -> bool {
        is_among(host, self.hosts)
    }
}

/// Whether a host is one of these, or below one.
fn is_among(host: &str, hosts: &[&str]) -> bool {
    hosts
        .iter()
        .any(|known| host.strip_suffix(known).is_some_and(|rest| rest.is_empty() || rest.ends_with('.')))
}

/// Whether a host is a vendor's own, and so says nothing about whose records are there.
pub fn is_vendors_host(host: &str) -> bool {
    VendorProfile::all().any(|profile| profile.has_host(host))
}

/// Which profile fits an address: by host, else by a path that one vendor's customers have; `generic` when neither
/// says.
pub fn guess_vendor(base: &FhirBaseUrl) -> &'static str {
    VendorProfile::all()
        .find(|profile| profile.has_host(base.host()))
        .or_else(|| {
            VendorProfile::all()
                .find(|profile| profile.path_mark.is_some_and(|mark| base.path().contains(mark)))
        })
        .unwrap_or(VendorProfile::generic())
        .name
}

/// The patient-access base of an Oracle Health tenant; the host is the same for sandbox and production. A tenant id is
/// opaque (often a UUID, else 32 characters of base64url) and case-sensitive.
pub fn cerner_base_url(tenant: &str) -> Result<FhirBaseUrl, BadUrl> {
    let known = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_');
    if tenant.is_empty() || tenant.len() > 128 || !tenant.bytes().all(known) {
        return Err(BadUrl::Tenant);
    }
    FhirBaseUrl::parse(&format!("https://fhir-myrecord.cerner.com/r4/{tenant}"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashSet;

    #[test]
    fn every_vendor_has_one_profile_and_its_own_name() {
        for name in [
            "cerner",
            "cerner-provider",
            "epic",
            "athenahealth",
            "eclinicalworks",
            "meditech",
            "nextgen",
            "veradigm",
            "va",
            "bluebutton",
            "smart-health-it",
            "generic",
        ] {
            assert_eq!(VendorProfile::named(name).map(|profile| profile.name), Some(name));
        }
        let names: HashSet<&str> = VendorProfile::all().map(|profile| profile.name).collect();
        assert_eq!(names.len(), VendorProfile::all().count());
        assert_eq!(VendorProfile::named("Cerner"), None);
    }

    #[test]
    fn the_cerner_profile_is_that_of_a_confidential_v1_patient_app() {
        let cerner = VendorProfile::named("cerner").expect("a profile");
        assert_eq!(cerner.smart_version, SmartVersion::V1);
        assert!(cerner.send_client_id && cerner.send_aud && !cerner.wildcard);
        assert_eq!(cerner.issuer, IssuerRule::TenantIdsp);
        assert_eq!(cerner.refresh_idle_limit, Some(Duration::from_hours(90 * 24)));
        assert_eq!(cerner.auth, AuthMethod::PrivateKeyJwt);
    }

    #[test]
    fn aud_is_sent_but_where_it_is_refused() {
        let sends = |vendor: &str, base: &str| {
            let profile = VendorProfile::named(vendor).expect("a profile");
            profile.sends_aud_to(&FhirBaseUrl::parse(base).expect("a base"))
        };
        assert!(!sends("meditech", "https://greenfield-prod-apis.meditech.com/v2/uscore/STU6"));
        assert!(sends("meditech", "https://mtrestapis-live01.atchhosp.org/v2/uscore/STU6"));
        assert!(!sends("va", "https://api.va.gov/services/fhir/v0/r4"));
        assert!(sends("cerner", "https://fhir-myrecord.cerner.com/r4/x"));
    }

    #[test]
    fn vendors_are_guessed_by_whole_host_names() {
        let check = |base: &str, vendor: &str| {
            assert_eq!(guess_vendor(&FhirBaseUrl::parse(base).expect("a base")), vendor, "{base}");
        };
        check("https://fhir-myrecord.cerner.com/r4/x", "cerner");
        check("https://fhir-ehr-code.cerner.com/r4/x", "cerner-provider");
        check("https://fhir.epic.com/interconnect-fhir-oauth/api/FHIR/R4", "epic");
        check("https://mychart.hospital.example/proxy/api/FHIR/R4", "epic");
        check("https://api.platform.athenahealth.com/fhir/r4", "athenahealth");
        check("https://fhir4.healow.com/fhir/r4/ABC", "eclinicalworks");
        check("https://greenfield-prod-apis.meditech.com/v2/uscore/STU6", "meditech");
        check("https://fhir.nextgen.com/nge/prod/fhir-api-r4/fhir/R4", "nextgen");
        check("https://fhir.fhirpoint.open.allscripts.com/fhirroute/fhir/CP00001", "veradigm");
        check("https://sandbox-api.va.gov/services/fhir/v0/r4", "va");
        check("https://api.bluebutton.cms.gov/v2/fhir", "bluebutton");
        check("https://launch.smarthealthit.org/v/r4/sim/WzJd/fhir", "smart-health-it");
        check("https://notcerner.com/r4/x", "generic");
        check("https://fhir-myrecord.cerner.com.evil.example/r4", "generic");
    }

    #[test]
    fn a_tenant_makes_a_base_and_nothing_else_does() {
        let base = cerner_base_url("-c6Xwd-UlrvkHnaNj_A8a").map(|base| base.to_string());
        assert_eq!(base.as_deref(), Ok("https://fhir-myrecord.cerner.com/r4/-c6Xwd-UlrvkHnaNj_A8a"));
        for bad in ["", "a/b", "..", "a?b", "a b", "%2e%2e"] {
            assert_eq!(cerner_base_url(bad), Err(BadUrl::Tenant), "{bad}");
        }
    }

    #[test]
    fn discovery_documents_are_below_the_base_or_at_its_origin() {
        let base = FhirBaseUrl::parse("https://h.example/v2/fhir").expect("a base");
        let url = |step: DiscoveryStep| step.url(&base).map(String::from).expect("a URL");
        assert_eq!(
            url(DiscoveryStep::SmartConfiguration),
            "https://h.example/v2/fhir/.well-known/smart-configuration"
        );
        assert_eq!(url(DiscoveryStep::CapabilityStatement), "https://h.example/v2/fhir/metadata");
        assert_eq!(url(DiscoveryStep::OpenIdAtOrigin), "https://h.example/.well-known/openid-configuration");
    }
}

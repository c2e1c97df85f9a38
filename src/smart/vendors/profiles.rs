//! The table of vendors. Each profile says only what differs from [`GENERIC`].

use std::time::Duration;

use super::{DiscoveryStep, IssuerRule, RefreshBehaviour, VendorProfile};
use crate::config::{AuthMethod, SmartVersion};
use crate::crypto::Algorithm;

/// A server that follows SMART App Launch and about which nothing else is known.
pub(super) const GENERIC: VendorProfile = VendorProfile {
    name: "generic",
    label: "Another SMART on FHIR server",
    discovery: &[
        DiscoveryStep::SmartConfiguration,
        DiscoveryStep::CapabilityStatement,
        DiscoveryStep::OpenIdAtBase,
    ],
    auth: AuthMethod::PrivateKeyJwt,
    assertion_algorithms: &[Algorithm::Rs384, Algorithm::Es384],
    audience_is_elsewhere: false,
    send_client_id: true,
    send_aud: true,
    aud_refused_at: &[],
    identity_scopes: &["openid", "fhirUser"],
    smart_version: SmartVersion::V2,
    wildcard: false,
    for_clinicians: false,
    launch_patient: true,
    offline_scope: Some("offline_access"),
    companions: &["Binary", "Provenance"],
    only_types: None,
    issuer: IssuerRule::Metadata,
    nonce_required: false,
    ask_for_patient: true,
    // FHIR R4 demands it, and it keeps what is searched for out of the logs on the way.
    post_search: true,
    refresh_idle_limit: None,
    refresh: RefreshBehaviour::Either,
    client_id_per_environment: false,
    hosts: &[],
    path_mark: None,
};

const CERNER: VendorProfile = VendorProfile {
    name: "cerner",
    label: "Oracle Health (Cerner), patients",
    discovery: &[DiscoveryStep::SmartConfiguration, DiscoveryStep::CapabilityStatement],
    // v2 registrations exist; grants of v1 ones are the ones seen to come back whole.
    smart_version: SmartVersion::V1,
    issuer: IssuerRule::TenantIdsp,
    // `GET Patient` needs a search parameter there.
    ask_for_patient: false,
    // Not in its documentation.
    post_search: false,
    // Unused for three months, a refresh token is gone.
    refresh_idle_limit: Some(Duration::from_hours(90 * 24)),
    hosts: &["fhir-myrecord.cerner.com", "fhir-myrecord-sc.cerner.com", "fhir-open.cerner.com"],
    ..GENERIC
};

pub(super) const ALL: &[VendorProfile] = &[
    CERNER,
    VendorProfile {
        name: "cerner-provider",
        label: "Oracle Health (Cerner), clinicians",
        for_clinicians: true,
        // The provider host announces no context-standalone-patient.
        launch_patient: false,
        hosts: &["fhir-ehr.cerner.com", "fhir-ehr-code.cerner.com", "fhir-ehr-sc.cerner.com"],
        ..CERNER
    },
    VendorProfile {
        name: "epic",
        label: "Epic (MyChart)",
        discovery: &[
            DiscoveryStep::SmartConfiguration,
            DiscoveryStep::OpenIdAtBase,
            DiscoveryStep::CapabilityStatement,
        ],
        // ES384 is accepted by newer versions only.
        assertion_algorithms: &[Algorithm::Rs384],
        // The registration's persistent access decides; the scope is harmless and never echoed.
        offline_scope: Some("offline_access"),
        ask_for_patient: false,
        client_id_per_environment: true,
        hosts: &["fhir.epic.com"],
        path_mark: Some("/api/FHIR/R4"),
        ..GENERIC
    },
    VendorProfile {
        name: "athenahealth",
        label: "athenahealth",
        // No document lists scopes; those of v1 are the ones known to work.
        smart_version: SmartVersion::V1,
        // The issuer is the Okta server behind their API host.
        issuer: IssuerRule::OtherHost(&["athena.okta.com"]),
        hosts: &["platform.athenahealth.com"],
        ..GENERIC
    },
    VendorProfile {
        name: "eclinicalworks",
        label: "eClinicalWorks (healow)",
        assertion_algorithms: &[Algorithm::Rs384],
        // Both syntaxes are listed; those of v1 are the ones known to work.
        smart_version: SmartVersion::V1,
        refresh_idle_limit: Some(Duration::from_hours(90 * 24)),
        refresh: RefreshBehaviour::Rotates,
        hosts: &["healow.com", "eclinicalworks.com"],
        ..GENERIC
    },
    VendorProfile {
        name: "meditech",
        label: "MEDITECH",
        auth: AuthMethod::ClientSecretPost,
        // The vendor's own sandbox; its customers follow the guide.
        aud_refused_at: &["greenfield-prod-apis.meditech.com"],
        smart_version: SmartVersion::V1,
        hosts: &["meditech.com"],
        path_mark: Some("/v2/uscore/"),
        ..GENERIC
    },
    VendorProfile {
        name: "nextgen",
        label: "NextGen Enterprise",
        auth: AuthMethod::ClientSecretBasic,
        smart_version: SmartVersion::V1,
        // Its documents list `patient/*.*` and no type by name.
        wildcard: true,
        hosts: &["fhir.nextgen.com"],
        ..GENERIC
    },
    VendorProfile {
        name: "veradigm",
        label: "Veradigm (Allscripts)",
        auth: AuthMethod::ClientSecretBasic,
        smart_version: SmartVersion::V1,
        wildcard: true,
        issuer: IssuerRule::OtherHost(&["allscripts.com", "veradigm.com"]),
        hosts: &["allscripts.com", "veradigm.com"],
        ..GENERIC
    },
    VendorProfile {
        name: "va",
        label: "VA Lighthouse",
        auth: AuthMethod::ClientSecretBasic,
        audience_is_elsewhere: true,
        send_aud: false,
        identity_scopes: &["openid", "profile"],
        smart_version: SmartVersion::V1,
        issuer: IssuerRule::OtherHost(&["va.gov", "deptva-eval.okta.com"]),
        hosts: &["va.gov"],
        ..GENERIC
    },
    VendorProfile {
        name: "bluebutton",
        label: "CMS Blue Button (Medicare)",
        discovery: &[DiscoveryStep::OpenIdAtOrigin, DiscoveryStep::SmartConfiguration],
        auth: AuthMethod::ClientSecretBasic,
        smart_version: SmartVersion::V1,
        identity_scopes: &["openid", "profile"],
        // Persistent access belongs to the kind of app, not to a scope.
        offline_scope: None,
        companions: &["ExplanationOfBenefit"],
        only_types: Some(&["Patient", "Coverage", "ExplanationOfBenefit"]),
        refresh: RefreshBehaviour::Rotates,
        client_id_per_environment: true,
        hosts: &["bluebutton.cms.gov"],
        ..GENERIC
    },
    VendorProfile {
        name: "smart-health-it",
        label: "SMART Health IT launcher",
        hosts: &["smarthealthit.org"],
        ..GENERIC
    },
    GENERIC,
];

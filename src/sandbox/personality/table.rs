//! The table of personalities. Each says only what differs from [`GENERIC`].

use super::traits::{
    Audience, AuthMethod, Document, ErrorStyle, FhirUser, IdTokenIssuer, Listed, MetadataIssuer, Persona,
    RefusedToken, ScopeEcho, ScopeList, Traits,
};
use crate::crypto::Algorithm;

const SECRETS_AND_KEYS: &[AuthMethod] =
    &[AuthMethod::SecretBasic, AuthMethod::SecretPost, AuthMethod::PrivateKeyJwt];
const BOTH_ALGORITHMS: &[Algorithm] = &[Algorithm::Rs384, Algorithm::Es384];

pub(super) const GENERIC: Traits = Traits {
    persona: Persona::Patient,
    documents: &[Document::SmartConfiguration],
    statement_names_endpoints: true,
    metadata_issuer: MetadataIssuer::Tenant,
    id_token_issuer: IdTokenIssuer::AsInMetadata,
    auth_methods: Listed::Said(SECRETS_AND_KEYS),
    assertion_algorithms: Listed::Said(BOTH_ALGORITHMS),
    challenge_methods: &["S256"],
    grant_types: &["authorization_code", "refresh_token"],
    scope_list: ScopeList::Everything,
    revokes: true,
    introspects: true,
    names_management: true,
    audience: Audience::Required,
    wildcards: true,
    one_syntax_only: false,
    only_types: None,
    unknown_scopes: &[],
    scope_echo: ScopeEcho::AsAsked,
    expires_in: 3600.0,
    names_patient: true,
    fhir_user: FhirUser::Absolute,
    offline_by_registration: false,
    rotates: true,
    more_members: "{}",
    error_style: ErrorStyle::Description,
    dead_refresh_token: (400, "invalid_grant"),
    dead_code: (400, "invalid_grant"),
    refused_token: RefusedToken::Outcome,
    finds_own_patient: true,
    strict_searches: false,
    observations_by_category: false,
    searches_by_post: true,
};

pub(super) const CERNER_PATIENT: Traits = Traits {
    id_token_issuer: IdTokenIssuer::TenantIdsp,
    // No `client_secret_post` at Oracle Health.
    auth_methods: Listed::Said(&[AuthMethod::SecretBasic, AuthMethod::PrivateKeyJwt]),
    // `refresh_token` is not listed, though it works.
    grant_types: &["authorization_code"],
    wildcards: false,
    one_syntax_only: true,
    expires_in: 570.0,
    more_members: r#"{"need_patient_banner": false, "tenant": "5a0db0c5-1e5a-4d05-9c4a-c0ffee00ba5e"}"#,
    error_style: ErrorStyle::Uri,
    finds_own_patient: false,
    strict_searches: true,
    searches_by_post: false,
    ..GENERIC
};

pub(super) const CERNER_PROVIDER: Traits = Traits {
    persona: Persona::Provider,
    // Somebody who is not the patient signs in, and nobody asks whose record is meant.
    unknown_scopes: &["launch/patient"],
    ..CERNER_PATIENT
};

pub(super) const EPIC: Traits = Traits {
    documents: &[Document::SmartConfiguration, Document::OpenIdAtBase],
    assertion_algorithms: Listed::Unsaid(BOTH_ALGORITHMS),
    scope_list: ScopeList::Only(&["epic.scanning.dmsusername", "fhirUser", "launch", "openid", "profile"]),
    revokes: false,
    introspects: false,
    names_management: false,
    wildcards: false,
    scope_echo: ScopeEcho::OneLetterEach,
    offline_by_registration: true,
    more_members: r#"{"__epic.dstu2.patient": "TnOZ.elPXC6zcBNFMcFA7A5KZbYxo2.4T-LylRk4GoW4B"}"#,
    error_style: ErrorStyle::NullDescription,
    refused_token: RefusedToken::EmptyText,
    finds_own_patient: false,
    observations_by_category: true,
    ..GENERIC
};

pub(super) const ATHENAHEALTH: Traits = Traits {
    metadata_issuer: MetadataIssuer::Elsewhere("https://athena.okta.com/oauth2/aus2hff5eqFb7Wqfh297"),
    auth_methods: Listed::Said(&[
        AuthMethod::SecretBasic,
        AuthMethod::SecretPost,
        AuthMethod::PrivateKeyJwt,
        AuthMethod::None,
    ]),
    assertion_algorithms: Listed::Unsaid(BOTH_ALGORITHMS),
    grant_types: &["authorization_code", "client_credentials"],
    scope_list: ScopeList::Missing,
    names_management: false,
    wildcards: false,
    finds_own_patient: false,
    ..GENERIC
};

pub(super) const ECLINICALWORKS: Traits = Traits {
    metadata_issuer: MetadataIssuer::Missing,
    id_token_issuer: IdTokenIssuer::Elsewhere("https://oauthserver.eclinicalworks.com/oauth/oauth2"),
    assertion_algorithms: Listed::Unsaid(&[Algorithm::Rs384]),
    revokes: false,
    introspects: false,
    names_management: false,
    names_patient: false,
    ..GENERIC
};

pub(super) const MEDITECH: Traits = Traits {
    metadata_issuer: MetadataIssuer::OriginWithSlash,
    assertion_algorithms: Listed::Unsaid(BOTH_ALGORITHMS),
    names_management: false,
    audience: Audience::Refused,
    refused_token: RefusedToken::Own(
        r#"{"resource":"v1/resource/error/_version/1/","detail":"Unauthorized"}"#,
    ),
    ..GENERIC
};

pub(super) const NEXTGEN: Traits = Traits {
    auth_methods: Listed::Unsaid(&[AuthMethod::SecretBasic, AuthMethod::SecretPost]),
    assertion_algorithms: Listed::Unsaid(&[]),
    scope_list: ScopeList::Only(&[
        "openid",
        "offline_access",
        "launch",
        "launch/patient",
        "launch/encounter",
        "patient/*.*",
    ]),
    scope_echo: ScopeEcho::Wildcard,
    introspects: false,
    names_management: false,
    ..GENERIC
};

pub(super) const VERADIGM: Traits = Traits {
    metadata_issuer: MetadataIssuer::Elsewhere("https://open.allscripts.com/authorization/CP00101"),
    id_token_issuer: IdTokenIssuer::Elsewhere("https://identity.allscripts.com/CP00101"),
    assertion_algorithms: Listed::Unsaid(BOTH_ALGORITHMS),
    challenge_methods: &["plain", "S256"],
    scope_list: ScopeList::Only(&[
        "openid",
        "fhirUser",
        "launch/patient",
        "offline_access",
        "patient/*.read",
    ]),
    revokes: false,
    introspects: false,
    names_management: false,
    scope_echo: ScopeEcho::Wildcard,
    names_patient: false,
    fhir_user: FhirUser::Missing,
    ..GENERIC
};

pub(super) const VA: Traits = Traits {
    metadata_issuer: MetadataIssuer::Elsewhere("https://sandbox-api.va.gov/oauth2/health/v1"),
    id_token_issuer: IdTokenIssuer::Elsewhere("https://deptva-eval.okta.com/oauth2/default"),
    auth_methods: Listed::Said(&[AuthMethod::SecretBasic, AuthMethod::None]),
    assertion_algorithms: Listed::Unsaid(&[]),
    // A client that is known to work sends none.
    audience: Audience::Optional,
    wildcards: false,
    fhir_user: FhirUser::Missing,
    ..GENERIC
};

pub(super) const BLUEBUTTON: Traits = Traits {
    documents: &[Document::OpenIdAtOrigin],
    statement_names_endpoints: false,
    auth_methods: Listed::Unsaid(&[AuthMethod::SecretBasic, AuthMethod::SecretPost]),
    assertion_algorithms: Listed::Unsaid(&[]),
    scope_list: ScopeList::Only(&[
        "openid",
        "profile",
        "launch/patient",
        "patient/Patient.read",
        "patient/Coverage.read",
        "patient/ExplanationOfBenefit.read",
    ]),
    introspects: false,
    names_management: false,
    audience: Audience::Optional,
    wildcards: false,
    only_types: Some(&["Patient", "Coverage", "ExplanationOfBenefit"]),
    unknown_scopes: &["fhirUser", "offline_access"],
    expires_in: 16768.52,
    names_patient: false,
    fhir_user: FhirUser::Missing,
    offline_by_registration: true,
    more_members: r#"{"access_grant_expiration": "2027-12-05 19:17:53Z"}"#,
    ..GENERIC
};

pub(super) const SMART_HEALTH_IT: Traits = Traits {
    fhir_user: FhirUser::Relative,
    rotates: false,
    dead_refresh_token: (403, "invalid_grant"),
    dead_code: (401, "invalid_client"),
    refused_token: RefusedToken::PlainText,
    ..GENERIC
};

//! How this hospital's server behaves where real servers differ: data, so that another vendor is another row.

use serde::{Deserialize, Serialize};

/// Which vendor's habits the sandbox takes on. The addresses keep their shape in all of them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Personality {
    /// Oracle Health (Cerner) Millennium, patient persona: the strictest, and the default.
    #[default]
    CernerPatient,
    /// Epic: `offline_access` is not echoed, granted scopes come in single letters, one-hour tokens.
    Epic,
    /// The public SMART launcher: relative `fhirUser`, wildcards, tokens that do not rotate.
    SmartHealthIt,
    /// A server that follows SMART App Launch 2.2 and adds nothing.
    Generic,
}

/// Ways for a client to authenticate at the token endpoint.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum AuthMethod {
    PrivateKeyJwt,
    SecretBasic,
    SecretPost,
}

impl AuthMethod {
    /// The name in `token_endpoint_auth_methods_supported`.
    pub(super) const fn name(self) -> &'static str {
        match self {
            Self::PrivateKeyJwt => "private_key_jwt",
            Self::SecretBasic => "client_secret_basic",
            Self::SecretPost => "client_secret_post",
        }
    }
}

/// How the granted scopes are written back.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum ScopeEcho {
    /// As they were asked.
    AsAsked,
    /// v2 letters one by one, without `offline_access` (Epic), whatever syntax was asked.
    OneLetterEach,
}

/// The habits of one personality.
#[derive(Debug)]
#[expect(clippy::struct_excessive_bools, reason = "independent switches, not states")]
pub(super) struct Traits {
    pub auth_methods: &'static [AuthMethod],
    pub scope_echo: ScopeEcho,
    /// `patient/*.rs` is understood.
    pub wildcards: bool,
    /// Scopes in the syntax that was not registered vanish.
    pub one_syntax_only: bool,
    /// Advertised and announced life of an access token, in seconds.
    pub expires_in: u64,
    /// `iss` of id tokens differs from the metadata's `issuer`.
    pub own_id_token_issuer: bool,
    /// `fhirUser` is `Patient/x` instead of a URL.
    pub relative_fhir_user: bool,
    /// Errors carry `error_uri` and no `error_description`; else the reverse.
    pub error_uri_only: bool,
    /// Refresh tokens are replaced at each use unless the fault switch says otherwise.
    pub rotates: bool,
}

const ALL_METHODS: &[AuthMethod] =
    &[AuthMethod::SecretBasic, AuthMethod::SecretPost, AuthMethod::PrivateKeyJwt];

const CERNER_PATIENT: Traits = Traits {
    // No `client_secret_post` on Oracle Health's patient host.
    auth_methods: &[AuthMethod::SecretBasic, AuthMethod::PrivateKeyJwt],
    scope_echo: ScopeEcho::AsAsked,
    wildcards: false,
    one_syntax_only: true,
    expires_in: 570,
    own_id_token_issuer: true,
    relative_fhir_user: false,
    error_uri_only: true,
    rotates: true,
};

const EPIC: Traits = Traits {
    auth_methods: ALL_METHODS,
    scope_echo: ScopeEcho::OneLetterEach,
    wildcards: false,
    one_syntax_only: false,
    expires_in: 3600,
    own_id_token_issuer: false,
    relative_fhir_user: false,
    error_uri_only: false,
    rotates: true,
};

const SMART_HEALTH_IT: Traits = Traits {
    auth_methods: ALL_METHODS,
    scope_echo: ScopeEcho::AsAsked,
    wildcards: true,
    one_syntax_only: false,
    expires_in: 3600,
    own_id_token_issuer: false,
    relative_fhir_user: true,
    error_uri_only: false,
    rotates: false,
};

const GENERIC: Traits = Traits {
    auth_methods: ALL_METHODS,
    scope_echo: ScopeEcho::AsAsked,
    wildcards: true,
    one_syntax_only: false,
    expires_in: 3600,
    own_id_token_issuer: false,
    relative_fhir_user: false,
    error_uri_only: false,
    rotates: true,
};

impl Personality {
    /// Every personality, in the order shown to people.
    pub const ALL: [Self; 4] = [Self::CernerPatient, Self::Epic, Self::SmartHealthIt, Self::Generic];

    /// The name on the command line.
    pub const fn name(self) -> &'static str {
        match self {
            Self::CernerPatient => "cerner-patient",
            Self::Epic => "epic",
            Self::SmartHealthIt => "smart-health-it",
            Self::Generic => "generic",
        }
    }

    /// The inverse of [`Personality::name`].
    pub fn parse(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|known| known.name() == name)
    }

    /// Whether searches by POST to `{type}/_search` are known. Oracle Health documents none.
    pub(super) const fn searches_by_post(self) -> bool {
        !matches!(self, Self::CernerPatient)
    }

    pub(super) const fn traits(self) -> &'static Traits {
        match self {
            Self::CernerPatient => &CERNER_PATIENT,
            Self::Epic => &EPIC,
            Self::SmartHealthIt => &SMART_HEALTH_IT,
            Self::Generic => &GENERIC,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_round_trip_also_through_json() {
        for one in Personality::ALL {
            assert_eq!(Personality::parse(one.name()), Some(one));
            assert_eq!(serde_json::to_value(one).expect("json"), one.name());
        }
        assert_eq!(Personality::parse("other"), None);
    }
}

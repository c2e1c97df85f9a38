//! How this hospital's server behaves where real servers differ: data, so that another vendor is another row.

mod table;
mod traits;

use serde::{Deserialize, Serialize};

pub(super) use self::traits::{
    Audience, AuthMethod, Document, ErrorStyle, FhirUser, IdTokenIssuer, MetadataIssuer, Persona,
    RefusedToken, ScopeEcho, ScopeList, Traits,
};

/// Which vendor's habits the sandbox takes on: one for each vendor profile. The addresses keep their shape in all of
/// them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Personality {
    /// Oracle Health (Cerner) Millennium, patient persona: the strictest, and the default.
    #[default]
    CernerPatient,
    /// Oracle Health (Cerner) Millennium, provider persona.
    CernerProvider,
    /// Epic: `offline_access` is not echoed, granted scopes come in single letters, one-hour tokens.
    Epic,
    /// athenahealth: its issuer is an Okta server, and no scopes are listed.
    Athenahealth,
    /// eClinicalWorks: no issuer, RS384 only, no `patient` in the token response.
    Eclinicalworks,
    /// MEDITECH's Greenfield: refuses `aud`, its issuer ends with a slash.
    Meditech,
    /// NextGen Enterprise: says nothing about client authentication, lists a wildcard instead of types.
    Nextgen,
    /// Veradigm (Allscripts): its issuer is on another host, wildcards, no `patient` in the token response.
    Veradigm,
    /// VA Lighthouse: Okta's habits, no assertions, `aud` is not wanted.
    Va,
    /// CMS Blue Button: three types, an OpenID configuration at its origin, fractions of seconds.
    Bluebutton,
    /// The public SMART launcher: relative `fhirUser`, wildcards, tokens that do not rotate, 401 and 403 for much.
    SmartHealthIt,
    /// A server that follows SMART App Launch 2.2 and adds nothing.
    Generic,
}

impl Personality {
    /// Every personality, in the order shown to people.
    pub const ALL: [Self; 12] = [
        Self::CernerPatient,
        Self::CernerProvider,
        Self::Epic,
        Self::Athenahealth,
        Self::Eclinicalworks,
        Self::Meditech,
        Self::Nextgen,
        Self::Veradigm,
        Self::Va,
        Self::Bluebutton,
        Self::SmartHealthIt,
        Self::Generic,
    ];

    /// The name on the command line.
    pub const fn name(self) -> &'static str {
        match self {
            Self::CernerPatient => "cerner-patient",
            Self::CernerProvider => "cerner-provider",
            Self::Epic => "epic",
            Self::Athenahealth => "athenahealth",
            Self::Eclinicalworks => "eclinicalworks",
            Self::Meditech => "meditech",
            Self::Nextgen => "nextgen",
            Self::Veradigm => "veradigm",
            Self::Va => "va",
            Self::Bluebutton => "bluebutton",
            Self::SmartHealthIt => "smart-health-it",
            Self::Generic => "generic",
        }
    }

    /// The inverse of [`Personality::name`]. `cerner`, the name of the vendor profile, means the patients' server.
    pub fn parse(name: &str) -> Option<Self> {
        let name = if name == "cerner" { "cerner-patient" } else { name };
        Self::ALL.into_iter().find(|known| known.name() == name)
    }

    pub(super) const fn traits(self) -> &'static Traits {
        match self {
            Self::CernerPatient => &table::CERNER_PATIENT,
            Self::CernerProvider => &table::CERNER_PROVIDER,
            Self::Epic => &table::EPIC,
            Self::Athenahealth => &table::ATHENAHEALTH,
            Self::Eclinicalworks => &table::ECLINICALWORKS,
            Self::Meditech => &table::MEDITECH,
            Self::Nextgen => &table::NEXTGEN,
            Self::Veradigm => &table::VERADIGM,
            Self::Va => &table::VA,
            Self::Bluebutton => &table::BLUEBUTTON,
            Self::SmartHealthIt => &table::SMART_HEALTH_IT,
            Self::Generic => &table::GENERIC,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sandbox::urls::TENANT;
    use serde_json::{Map, Value};

    #[test]
    fn the_members_that_a_personality_adds_are_an_object_and_name_our_tenant() {
        for one in Personality::ALL {
            let members: Map<String, Value> =
                serde_json::from_str(one.traits().more_members).expect("an object");
            assert!(members.get("tenant").is_none_or(|tenant| tenant == TENANT), "{}", one.name());
        }
    }

    #[test]
    fn names_round_trip_also_through_json() {
        for one in Personality::ALL {
            assert_eq!(Personality::parse(one.name()), Some(one));
            assert_eq!(serde_json::to_value(one).expect("json"), one.name());
        }
        assert_eq!(Personality::parse("cerner"), Some(Personality::CernerPatient));
        assert_eq!(Personality::parse("other"), None);
    }
}

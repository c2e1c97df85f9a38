//! Which scopes to ask for.

use super::{Level, Permissions, ResourceScope, Scope, ScopeSet};
use crate::config::SmartVersion;
use crate::smart::vendors::VendorProfile;

/// Who starts the launch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LaunchMode {
    /// The patient, from our page.
    Standalone,
    /// The EHR, with an `iss` and a `launch` value.
    Ehr {
        /// The server knows `online_access`.
        online: bool,
    },
}

/// Chooses the scopes of an authorization request: identity, launch context, offline access, then one scope for each of
/// `types` and of the profile's companions, in the syntax of the registration (`version`).
///
/// `supported` is `scopes_supported` of discovery. Where it names resource scopes it is followed type by type, letters
/// included (Oracle Health lists `patient/Observation.s` and refuses `.rs`); a type it does not have is left out. Where
/// it names none (Epic, athenahealth) the plain list is asked for, because such a list says nothing about resources.
/// The scopes that are not about resources are asked for in any case: servers support more than they list.
pub fn choose(
    types: &[&str],
    version: SmartVersion,
    supported: Option<&[String]>,
    launch: LaunchMode,
    profile: &VendorProfile,
) -> ScopeSet {
    let (context, lasting) = match launch {
        // What begins in the EHR ends with the EHR's own session.
        LaunchMode::Ehr { online } => (Some("launch"), online.then_some("online_access")),
        LaunchMode::Standalone => (profile.launch_patient.then_some("launch/patient"), profile.offline_scope),
    };
    let special = profile.identity_scopes.iter().copied().chain(context).chain(lasting);
    let offer = Offer::read(supported.unwrap_or_default());
    let resources: Vec<Scope> = if profile.wildcard && offer.allows_wildcard() {
        vec![Scope::on("*", Permissions::READ_SEARCH, version)]
    } else {
        types
            .iter()
            .chain(profile.companions)
            .filter(|name| profile.only_types.is_none_or(|only| only.contains(name)))
            .filter_map(|name| offer.scope_for(name, version))
            .collect()
    };
    special.filter_map(|text| Scope::parse(text).ok()).chain(resources).collect()
}

/// The scopes that a registration lists, as one kind of launch can send them: `launch` is refused without a launch value,
/// and with one there is nothing left for the server to ask.
pub fn listed(scopes: &[String], launch: LaunchMode) -> ScopeSet {
    let listed = ScopeSet::parse(&scopes.join(" "));
    let rest = |keep: fn(&str) -> bool| listed.iter().filter(move |scope| keep(scope.as_str())).cloned();
    match launch {
        LaunchMode::Standalone => rest(|scope| scope != "launch").collect(),
        LaunchMode::Ehr { .. } => {
            let own = rest(|scope| scope != "launch" && !scope.starts_with("launch/"));
            Scope::parse("launch").into_iter().chain(own).collect()
        }
    }
}

/// The patient-level resource scopes of `scopes_supported` that have no query: a narrowed scope is never asked for.
struct Offer(Vec<ResourceScope>);

impl Offer {
    fn read(supported: &[String]) -> Self {
        let scopes = supported.iter().filter_map(|text| ResourceScope::parse(text));
        Self(scopes.filter(|scope| scope.level == Level::Patient && scope.query.is_none()).collect())
    }

    fn allows_wildcard(&self) -> bool {
        self.0.is_empty() || self.0.iter().any(|scope| scope.is_wildcard() && !readable(scope).is_empty())
    }

    /// The scope to ask for `name`, or `None` when the server says it does not have the type.
    fn scope_for(&self, name: &str, version: SmartVersion) -> Option<Scope> {
        let plain = plain_permissions(name);
        if self.0.is_empty() {
            return Some(Scope::on(name, plain, version));
        }
        let same_syntax = self.0.iter().any(|scope| scope.version == version);
        // A list in the other syntax only still says which types there are, but not with which letters.
        let usable = |scope: &&ResourceScope| !same_syntax || scope.version == version;
        // What is said about the type itself counts more than a wildcard.
        let permissions = [name, "*"].into_iter().find_map(|wanted| {
            let all = self.0.iter().filter(usable).filter(|scope| scope.resource_type == wanted);
            let offered = all.fold(Permissions::NONE, |sum, scope| sum.union(readable(scope)));
            (!offered.is_empty()).then_some(offered)
        })?;
        Some(Scope::on(name, if same_syntax { permissions } else { plain }, version))
    }
}

/// What we would use of a scope: nothing is ever written.
fn readable(scope: &ResourceScope) -> Permissions {
    scope.permissions.intersection(Permissions::READ_SEARCH)
}

/// `Binary` cannot be searched, so asking for it would be refused by a strict server.
fn plain_permissions(name: &str) -> Permissions {
    if name == "Binary" { Permissions::READ } else { Permissions::READ_SEARCH }
}

#[cfg(test)]
mod tests {
    use super::super::RESOURCE_TYPES;
    use super::*;

    fn profile(name: &str) -> &'static VendorProfile {
        VendorProfile::named(name).expect("a profile")
    }

    fn asked(
        types: &[&str],
        version: SmartVersion,
        supported: Option<&str>,
        profile: &VendorProfile,
    ) -> String {
        let list: Option<Vec<String>> = supported.map(|text| text.split(' ').map(str::to_owned).collect());
        choose(types, version, list.as_deref(), LaunchMode::Standalone, profile).to_string()
    }

    const GENERAL: &str = "openid fhirUser launch/patient offline_access";

    #[test]
    fn each_type_is_asked_for_with_the_letters_the_server_lists() {
        let list = "openid patient/Patient.read patient/Patient.rs patient/Observation.read patient/Observation.s \
                    patient/Binary.r patient/Condition.crus user/Goal.rs patient/Goal.rs?a=b";
        let types = ["Patient", "Observation", "Condition", "Goal"];
        assert_eq!(
            asked(&types, SmartVersion::V2, Some(list), profile("generic")),
            format!(
                "{GENERAL} patient/Patient.rs patient/Observation.s patient/Condition.rs patient/Binary.r"
            )
        );
        assert_eq!(
            asked(&types, SmartVersion::V1, Some(list), profile("generic")),
            format!("{GENERAL} patient/Patient.read patient/Observation.read")
        );
    }

    #[test]
    fn a_list_without_resources_says_nothing_about_them() {
        let plain = format!("{GENERAL} patient/Goal.rs patient/Binary.r patient/Provenance.rs");
        for list in [None, Some("openid profile fhirUser launch epic.scanning.dmsusername")] {
            assert_eq!(asked(&["Goal"], SmartVersion::V2, list, profile("epic")), plain);
        }
    }

    #[test]
    fn a_wildcard_is_read_as_every_type_and_asked_for_only_where_the_profile_says() {
        let list = Some("openid patient/*.* patient/Coverage.r");
        assert_eq!(
            asked(&["Goal", "Coverage"], SmartVersion::V1, list, profile("generic")),
            format!(
                "{GENERAL} patient/Goal.read patient/Coverage.read patient/Binary.read patient/Provenance.read"
            )
        );
        assert_eq!(
            asked(&["Goal"], SmartVersion::V1, list, profile("nextgen")),
            format!("{GENERAL} patient/*.read")
        );
        assert_eq!(
            asked(&["Goal"], SmartVersion::V1, Some("patient/Goal.read"), profile("nextgen")),
            format!("{GENERAL} patient/Goal.read")
        );
    }

    #[test]
    fn a_list_in_the_other_syntax_still_names_the_types() {
        let list = Some("patient/Goal.read patient/Patient.read");
        assert_eq!(
            asked(&["Goal", "Device"], SmartVersion::V2, list, profile("generic")),
            format!("{GENERAL} patient/Goal.rs")
        );
    }

    #[test]
    fn an_ehr_launch_asks_for_launch_and_for_no_longer_than_the_ehr_is_open() {
        let asked = |online| {
            let launch = LaunchMode::Ehr { online };
            choose(&["Patient"], SmartVersion::V1, None, launch, profile("nextgen")).to_string()
        };
        assert_eq!(asked(false), "openid fhirUser launch patient/*.read");
        assert_eq!(asked(true), "openid fhirUser launch online_access patient/*.read");
    }

    #[test]
    fn a_registrations_own_list_serves_both_kinds_of_launch() {
        let list =
            ["openid", "launch/patient", "launch", "offline_access", "user/Patient.read"].map(str::to_owned);
        let standalone = listed(&list, LaunchMode::Standalone).to_string();
        assert_eq!(standalone, "openid launch/patient offline_access user/Patient.read");
        let ehr = listed(&list, LaunchMode::Ehr { online: true }).to_string();
        assert_eq!(ehr, "launch openid offline_access user/Patient.read");
        assert_eq!(listed(&list[..2], LaunchMode::Ehr { online: false }).to_string(), "launch openid");
    }

    #[test]
    fn a_server_with_few_types_is_asked_for_those_only() {
        assert_eq!(
            asked(&RESOURCE_TYPES, SmartVersion::V1, None, profile("bluebutton")),
            "openid profile launch/patient patient/Patient.read patient/Coverage.read patient/ExplanationOfBenefit.read"
        );
    }
}

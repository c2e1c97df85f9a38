//! Scopes as this server reads them. On purpose not the client's parser: an adversary that shares code with the one it
//! tests shares its mistakes.

use std::collections::BTreeSet;

use super::personality::{ScopeEcho, ScopeList, Traits};
use super::{RegisteredClient, SmartVersion};

/// The types a patient may search.
pub(super) use super::population::RECORD_TYPES as SEARCHABLE;

/// Types that are read, not searched for, beside the seventeen.
const COMPANIONS: [&str; 6] =
    ["Binary", "Location", "Medication", "Organization", "Practitioner", "Provenance"];

/// Scopes that name no resource type.
const PLAIN: [&str; 7] =
    ["openid", "fhirUser", "profile", "launch", "launch/patient", "offline_access", "online_access"];

/// Types that one vendor has, and has nothing of here.
const CLAIMS: [&str; 1] = ["ExplanationOfBenefit"];

/// Whether this server knows the resource type at all.
pub(super) fn knows(resource_type: &str, traits: &Traits) -> bool {
    match traits.only_types {
        Some(only) => only.contains(&resource_type),
        None => SEARCHABLE.contains(&resource_type) || COMPANIONS.contains(&resource_type),
    }
}

/// Read by id, search, or both.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Permissions {
    pub read: bool,
    pub search: bool,
}

/// A scope for resources, taken apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct ResourceScope<'s> {
    pub level: &'s str,
    pub resource_type: &'s str,
    pub permissions: Permissions,
    pub syntax: SmartVersion,
}

/// Reads `patient/Type.read` and `patient/Type.rs`. `None` for anything else: writing, queries, letters out of order.
pub(super) fn parse(scope: &str) -> Option<ResourceScope<'_>> {
    let (level, rest) = scope.split_once('/')?;
    let (resource_type, letters) = rest.split_once('.')?;
    if !matches!(level, "patient" | "user") {
        return None;
    }
    let both = Permissions { read: true, search: true };
    let (syntax, permissions) = match letters {
        "read" => (SmartVersion::V1, both),
        "rs" => (SmartVersion::V2, both),
        "r" => (SmartVersion::V2, Permissions { read: true, search: false }),
        "s" => (SmartVersion::V2, Permissions { read: false, search: true }),
        _ => return None,
    };
    Some(ResourceScope { level, resource_type, permissions, syntax })
}

/// `scopes_supported`, when this server says so.
pub(super) fn listed(traits: &Traits) -> Option<Vec<String>> {
    match traits.scope_list {
        ScopeList::Missing => None,
        ScopeList::Only(some) => Some(some.iter().map(ToString::to_string).collect()),
        ScopeList::Everything => {
            let all = supported().into_iter();
            Some(all.filter(|scope| !traits.unknown_scopes.contains(&scope.as_str())).collect())
        }
    }
}

/// Every scope a server like this may support.
fn supported() -> Vec<String> {
    let mut all: Vec<String> = PLAIN.iter().map(ToString::to_string).collect();
    for resource_type in SEARCHABLE.iter().chain(&COMPANIONS) {
        // Organization, Location and Practitioner exist at user level only (Oracle Health).
        let level = if is_shared(resource_type) { "user" } else { "patient" };
        all.push(format!("{level}/{resource_type}.read"));
        // Oracle Health advertises `s` without `r` for Observation and `r` without `s` for Binary.
        let letters = match *resource_type {
            "Observation" => "s",
            "Binary" => "r",
            _ => "rs",
        };
        all.push(format!("{level}/{resource_type}.{letters}"));
    }
    all.sort_unstable();
    all
}

/// Everything a client can be registered for, in the short syntax.
pub(super) fn registrable() -> Vec<String> {
    supported()
        .into_iter()
        .filter(|scope| {
            PLAIN.contains(&scope.as_str()) || parse(scope).is_some_and(|one| one.syntax == SmartVersion::V1)
        })
        .chain(CLAIMS.iter().map(|name| format!("patient/{name}.read")))
        .collect()
}

fn is_shared(resource_type: &str) -> bool {
    matches!(resource_type, "Location" | "Medication" | "Organization" | "Practitioner")
}

/// What is left of the asked scopes: supported, registered for this client, in its syntax. The rest vanishes silently.
pub(super) fn trim(asked: &str, client: &RegisteredClient, traits: &Traits) -> Vec<String> {
    let supported = supported();
    let mut granted: Vec<String> = Vec::new();
    for scope in asked.split_ascii_whitespace() {
        let expanded = match parse(scope) {
            Some(wide) if wide.resource_type == "*" => {
                if !traits.wildcards {
                    continue;
                }
                let letters = scope.rsplit('.').next().unwrap_or_default();
                SEARCHABLE
                    .iter()
                    .chain(&["Binary", "Provenance"])
                    .map(|one| format!("{}/{one}.{letters}", wide.level))
                    .collect()
            }
            _ => vec![scope.to_owned()],
        };
        for one in expanded {
            if is_allowed(&one, &supported, client, traits) && !granted.contains(&one) {
                granted.push(one);
            }
        }
    }
    granted
}

fn is_allowed(scope: &str, supported: &[String], client: &RegisteredClient, traits: &Traits) -> bool {
    if traits.unknown_scopes.contains(&scope) {
        return false;
    }
    let Some(asked) = parse(scope) else {
        return PLAIN.contains(&scope)
            && client.scopes.iter().any(|registered| registered == scope)
            && (scope != "offline_access" || client.offline);
    };
    if traits.one_syntax_only
        && (asked.syntax != client.smart_version || !supported.iter().any(|s| s == scope))
    {
        return false;
    }
    knows(asked.resource_type, traits)
        && client.scopes.iter().filter_map(|registered| parse(registered)).any(|registered| {
            registered.level == asked.level
                && (registered.resource_type == asked.resource_type || registered.resource_type == "*")
                && (registered.permissions.read || !asked.permissions.read)
                && (registered.permissions.search || !asked.permissions.search)
        })
}

/// How the granted scopes stand in the token response.
pub(super) fn echo(granted: &[String], traits: &Traits) -> String {
    match traits.scope_echo {
        ScopeEcho::AsAsked => granted.join(" "),
        ScopeEcho::Wildcard => {
            let has_type = |scope: &&String| parse(scope).is_some();
            let v1 = |scope: &String| parse(scope).is_some_and(|one| one.syntax == SmartVersion::V1);
            let letters = if granted.iter().any(v1) { "read" } else { "rs" };
            let has = types(granted);
            if !SEARCHABLE.iter().all(|name| has.contains(name)) {
                return granted.join(" ");
            }
            let rest = granted.iter().filter(|scope| !has_type(scope)).map(String::as_str);
            let all = format!("patient/*.{letters}");
            rest.chain([all.as_str()]).collect::<Vec<_>>().join(" ")
        }
        ScopeEcho::OneLetterEach => {
            let mut pieces = Vec::new();
            for scope in granted.iter().filter(|scope| *scope != "offline_access") {
                match parse(scope) {
                    Some(one) => {
                        let place = format!("{}/{}", one.level, one.resource_type);
                        if one.permissions.read {
                            pieces.push(format!("{place}.r"));
                        }
                        if one.permissions.search {
                            pieces.push(format!("{place}.s"));
                        }
                    }
                    None => pieces.push(scope.clone()),
                }
            }
            pieces.join(" ")
        }
    }
}

/// The resource types among the scopes, in order, each once.
pub(super) fn types(scopes: &[String]) -> BTreeSet<&str> {
    scopes.iter().filter_map(|scope| parse(scope)).map(|scope| scope.resource_type).collect()
}

/// Whether the scopes let a resource type be read (`search` false) or searched.
pub(super) fn permits(scopes: &[String], resource_type: &str, search: bool) -> bool {
    scopes.iter().filter_map(|scope| parse(scope)).any(|scope| {
        scope.resource_type == resource_type
            && if search { scope.permissions.search } else { scope.permissions.read }
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sandbox::Personality;

    fn client(version: SmartVersion, scopes: &str) -> RegisteredClient {
        let mut client = RegisteredClient::new("c", "https://app.example/cb");
        client.smart_version = version;
        client.scopes = scopes.split(' ').map(str::to_owned).collect();
        client
    }

    #[track_caller]
    fn check(personality: Personality, client: &RegisteredClient, asked: &str, expected: &str) {
        assert_eq!(trim(asked, client, personality.traits()).join(" "), expected);
    }

    #[test]
    fn cerner_keeps_the_registered_syntax_and_drops_the_rest_silently() {
        let registered = "openid offline_access patient/Patient.read patient/Observation.read";
        let v1 = client(SmartVersion::V1, registered);
        let v2 = client(SmartVersion::V2, registered);
        let asked = "openid patient/Patient.read patient/Patient.rs patient/Observation.rs patient/Observation.s \
                     patient/Goal.read patient/*.read";
        check(Personality::CernerPatient, &v1, asked, "openid patient/Patient.read");
        check(Personality::CernerPatient, &v2, asked, "openid patient/Patient.rs patient/Observation.s");
    }

    #[test]
    fn offline_access_needs_a_registration_for_it() {
        let mut online = client(SmartVersion::V1, "openid offline_access");
        online.offline = false;
        check(Personality::Generic, &online, "openid offline_access", "openid");
        online.offline = true;
        check(Personality::Generic, &online, "openid offline_access", "openid offline_access");
    }

    #[test]
    fn epic_echoes_single_letters_and_no_offline_access() {
        let granted = ["openid", "offline_access", "patient/Goal.read"].map(str::to_owned);
        assert_eq!(echo(&granted, Personality::Epic.traits()), "openid patient/Goal.r patient/Goal.s");
    }

    #[test]
    fn permissions_follow_the_letters() {
        let scopes = ["patient/Observation.s", "patient/Binary.r"].map(str::to_owned);
        assert!(permits(&scopes, "Observation", true) && !permits(&scopes, "Observation", false));
        assert!(permits(&scopes, "Binary", false) && !permits(&scopes, "Binary", true));
        assert_eq!(parse("patient/Observation.sr"), None);
        assert_eq!(parse("patient/Observation.write"), None);
    }
}

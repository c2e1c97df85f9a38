//! What was granted of what was asked. Servers grant less without a word, more, in another syntax, or in pieces
//! narrowed by category; none of that is an error, and each has its meaning for the patient.

use serde::{Deserialize, Serialize};

use super::{Level, Permissions, ResourceScope, ScopeSet};

/// How much of one permission was granted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Access {
    /// As asked, or more.
    Granted,
    /// Only in part: categories, or one of reading and searching.
    Restricted,
    /// Not at all.
    Missing,
}

/// One type of record.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TypeAccess {
    /// The type; `*` when a wildcard was asked for and came back as one.
    pub resource_type: String,
    /// Reading by id.
    pub read: Access,
    /// Searching. Without it records can be fetched only where something refers to them.
    pub search: Access,
    /// The verdict over what was asked for: `Observation.s` asked and granted is `Granted`.
    pub access: Access,
}

/// The comparison, in the order of the request.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct ScopeReport {
    /// One entry for each type asked for.
    pub types: Vec<TypeAccess>,
    /// Scopes that were granted though nobody asked, in their own spelling. Harmless.
    pub unasked: Vec<String>,
}

impl ScopeReport {
    /// The types with this verdict.
    pub fn with(&self, access: Access) -> impl Iterator<Item = &str> {
        self.types.iter().filter(move |it| it.access == access).map(|it| it.resource_type.as_str())
    }

    /// True when types were asked for and not one came: at Oracle Health the sign that the registration's SMART version
    /// is not the one configured, or that no API was ticked there.
    pub fn nothing_granted(&self) -> bool {
        !self.types.is_empty() && self.types.iter().all(|it| it.access == Access::Missing)
    }

    /// True when everything asked for came.
    pub fn is_complete(&self) -> bool {
        self.types.iter().all(|it| it.access == Access::Granted)
    }
}

/// Compares. `granted` is `scope` of the token response: RFC 6749 section 5.1 lets the server leave it out when nothing
/// changed, so `None` means "as asked", while an empty set means that nothing was granted. `offline_access` is not
/// compared: Epic gives a refresh token without echoing it, so only the token itself decides.
pub fn compare(requested: &ScopeSet, granted: Option<&ScopeSet>) -> ScopeReport {
    let granted = granted.unwrap_or(requested);
    let mut types: Vec<TypeAccess> = Vec::new();
    for name in requested_types(requested, granted) {
        if types.iter().all(|it| it.resource_type != name) {
            types.push(type_access(&name, requested, granted));
        }
    }
    let asked = |scope: &ResourceScope| {
        requested.resources().any(|wish| wish.level == scope.level && wish.covers(&scope.resource_type))
    };
    let unasked = granted
        .iter()
        .filter(|scope| match scope.resource() {
            Some(resource) => !asked(resource),
            None => !requested.contains(scope.as_str()),
        })
        .map(|scope| scope.as_str().to_owned())
        .collect();
    ScopeReport { types, unasked }
}

/// The types asked for. A wildcard stands for itself when it came back, else for the types that did (NextGen and the
/// SMART launcher may expand it).
fn requested_types(requested: &ScopeSet, granted: &ScopeSet) -> Vec<String> {
    let patient = |set: &ScopeSet| -> Vec<String> {
        let scopes = set.resources().filter(|scope| scope.level == Level::Patient);
        scopes.map(|scope| scope.resource_type.clone()).collect()
    };
    let (wanted, given) = (patient(requested), patient(granted));
    let expand =
        wanted.iter().any(|name| name == "*") && !given.is_empty() && !given.contains(&"*".to_owned());
    let mut names: Vec<String> = wanted.into_iter().filter(|name| !expand || name != "*").collect();
    if expand {
        names.extend(given);
    }
    names
}

fn type_access(name: &str, requested: &ScopeSet, granted: &ScopeSet) -> TypeAccess {
    let about = |scope: &&ResourceScope| scope.level == Level::Patient && scope.covers(name);
    let wishes: Vec<&ResourceScope> = requested.resources().filter(about).collect();
    let asked = wishes
        .iter()
        .fold(Permissions::NONE, |sum, wish| sum.union(wish.permissions))
        .intersection(Permissions::READ_SEARCH);
    // A narrowed grant is whole when the same narrowing was asked for.
    let (whole, narrowed): (Vec<&ResourceScope>, Vec<&ResourceScope>) = granted
        .resources()
        .filter(about)
        .partition(|got| got.query.is_none() || wishes.iter().any(|wish| wish.query == got.query));
    let sum = |scopes: &[&ResourceScope]| {
        scopes.iter().fold(Permissions::NONE, |sum, scope| sum.union(scope.permissions))
    };
    let (whole, narrowed) = (sum(&whole), sum(&narrowed));
    let one = |permission: Permissions| {
        if whole.contains(permission) {
            Access::Granted
        } else if narrowed.contains(permission) {
            Access::Restricted
        } else {
            Access::Missing
        }
    };
    let (read, search) = (one(Permissions::READ), one(Permissions::SEARCH));
    let counted: Vec<Access> = [(Permissions::READ, read), (Permissions::SEARCH, search)]
        .into_iter()
        .filter(|(permission, _)| asked.contains(*permission))
        .map(|(_, access)| access)
        .collect();
    let access = if counted.iter().all(|it| *it == Access::Granted) {
        Access::Granted
    } else if counted.iter().all(|it| *it == Access::Missing) {
        Access::Missing
    } else {
        Access::Restricted
    };
    TypeAccess { resource_type: name.to_owned(), read, search, access }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn report(requested: &str, granted: &str) -> ScopeReport {
        compare(&ScopeSet::parse(requested), Some(&ScopeSet::parse(granted)))
    }

    fn access(requested: &str, granted: &str) -> (Access, Access, Access) {
        let report = report(requested, granted);
        assert_eq!(report.types.len(), 1, "{report:?}");
        (report.types[0].read, report.types[0].search, report.types[0].access)
    }

    use Access::{Granted, Missing, Restricted};

    #[test]
    fn reading_and_searching_are_told_apart() {
        let check = |requested: &str, granted: &str, expected: (Access, Access, Access)| {
            assert_eq!(access(requested, granted), expected, "{requested} / {granted}");
        };
        check("patient/Goal.read", "patient/Goal.read", (Granted, Granted, Granted));
        check("patient/Goal.read", "patient/Goal.r patient/Goal.s", (Granted, Granted, Granted));
        check("patient/Goal.read", "patient/Goal.r", (Granted, Missing, Restricted));
        check("patient/Goal.s", "patient/Goal.s", (Missing, Granted, Granted));
        check("patient/Goal.rs", "patient/*.cruds", (Granted, Granted, Granted));
        check("patient/Goal.rs", "patient/Goal.rs?a=b", (Restricted, Restricted, Restricted));
        check("patient/Goal.rs?a=b", "patient/Goal.rs?a=b", (Granted, Granted, Granted));
        check("patient/Goal.rs", "user/Goal.rs", (Missing, Missing, Missing));
        check("patient/Goal.rs", "", (Missing, Missing, Missing));
        check("patient/Goal.read", "patient/Goal.write", (Missing, Missing, Missing));
    }

    #[test]
    fn an_absent_scope_means_as_asked_and_an_empty_one_means_nothing() {
        let requested = ScopeSet::parse("openid patient/Goal.rs patient/Device.rs");
        assert!(compare(&requested, None).is_complete());
        assert!(compare(&requested, Some(&ScopeSet::default())).nothing_granted());
    }

    #[test]
    fn more_than_asked_and_another_order_is_fine() {
        let report = report(
            "openid offline_access patient/Goal.read patient/Device.read",
            "patient/Device.rs patient/Patient.rs launch profile openid patient/Goal.rs",
        );
        assert!(report.is_complete());
        assert_eq!(report.unasked, ["patient/Patient.rs", "launch", "profile"]);
        assert_eq!(report.types[0].resource_type, "Goal");
    }

    #[test]
    fn trimmed_scopes_are_named_one_by_one() {
        let asked = "openid patient/Goal.rs patient/Device.rs patient/Observation.rs";
        let report = report(asked, "openid patient/Goal.rs patient/Observation.rs?category=x|laboratory");
        assert_eq!(report.with(Missing).collect::<Vec<_>>(), ["Device"]);
        assert_eq!(report.with(Restricted).collect::<Vec<_>>(), ["Observation"]);
        assert!(!report.nothing_granted() && !report.is_complete());
    }

    #[test]
    fn the_wrong_smart_version_shows_as_nothing_granted() {
        assert!(report("openid patient/Goal.read", "fhirUser launch/patient openid").nothing_granted());
    }

    #[test]
    fn an_expanded_wildcard_is_reported_by_its_types() {
        let report = report("patient/*.read", "patient/Goal.rs patient/Device.r");
        assert_eq!(report.with(Granted).collect::<Vec<_>>(), ["Goal"]);
        assert_eq!(report.with(Restricted).collect::<Vec<_>>(), ["Device"]);
        assert!(!report.types.iter().any(|it| it.resource_type == "*"));
    }
}

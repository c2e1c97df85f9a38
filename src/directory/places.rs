//! Where a place is: states by code and by name, postal codes.

/// Code, name. The territories publish endpoints too.
const STATES: [(&str, &str); 56] = [
    ("AL", "Alabama"),
    ("AK", "Alaska"),
    ("AZ", "Arizona"),
    ("AR", "Arkansas"),
    ("CA", "California"),
    ("CO", "Colorado"),
    ("CT", "Connecticut"),
    ("DE", "Delaware"),
    ("DC", "District of Columbia"),
    ("FL", "Florida"),
    ("GA", "Georgia"),
    ("HI", "Hawaii"),
    ("ID", "Idaho"),
    ("IL", "Illinois"),
    ("IN", "Indiana"),
    ("IA", "Iowa"),
    ("KS", "Kansas"),
    ("KY", "Kentucky"),
    ("LA", "Louisiana"),
    ("ME", "Maine"),
    ("MD", "Maryland"),
    ("MA", "Massachusetts"),
    ("MI", "Michigan"),
    ("MN", "Minnesota"),
    ("MS", "Mississippi"),
    ("MO", "Missouri"),
    ("MT", "Montana"),
    ("NE", "Nebraska"),
    ("NV", "Nevada"),
    ("NH", "New Hampshire"),
    ("NJ", "New Jersey"),
    ("NM", "New Mexico"),
    ("NY", "New York"),
    ("NC", "North Carolina"),
    ("ND", "North Dakota"),
    ("OH", "Ohio"),
    ("OK", "Oklahoma"),
    ("OR", "Oregon"),
    ("PA", "Pennsylvania"),
    ("RI", "Rhode Island"),
    ("SC", "South Carolina"),
    ("SD", "South Dakota"),
    ("TN", "Tennessee"),
    ("TX", "Texas"),
    ("UT", "Utah"),
    ("VT", "Vermont"),
    ("VA", "Virginia"),
    ("WA", "Washington"),
    ("WV", "West Virginia"),
    ("WI", "Wisconsin"),
    ("WY", "Wyoming"),
    ("PR", "Puerto Rico"),
    ("GU", "Guam"),
    ("VI", "Virgin Islands"),
    ("AS", "American Samoa"),
    ("MP", "Northern Mariana Islands"),
];

/// The code of a state given by code or name in any case; `None` for what is no state of the United States.
pub fn state_code(text: &str) -> Option<&'static str> {
    let text = text.trim();
    STATES
        .iter()
        .find(|(code, name)| code.eq_ignore_ascii_case(text) || name.eq_ignore_ascii_case(text))
        .map(|(code, _)| *code)
}

/// The name that belongs to a code.
pub fn state_name(code: &str) -> Option<&'static str> {
    STATES.iter().find(|(known, _)| *known == code).map(|(_, name)| *name)
}

/// A postal code without the four digits of ZIP+4, and with the zero that spreadsheets drop.
pub(super) fn postal_code(text: &str) -> Option<String> {
    let text = text.trim();
    let head = text.split(['-', ' ']).next().unwrap_or_default();
    let digits = head.len();
    if head.bytes().all(|byte| byte.is_ascii_digit()) {
        return match digits {
            4 => Some(format!("0{head}")),
            5 => Some(head.to_owned()),
            8 | 9 => Some(format!("{head:0>9}")[..5].to_owned()),
            _ => None,
        };
    }
    let foreign = text.len() <= 10 && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b' ');
    foreign.then(|| text.to_uppercase())
}

/// `TX - Name` as athenahealth writes it: the state, and the name without it.
pub(super) fn split_state_prefix(name: &str) -> Option<(&'static str, &str)> {
    let (state, rest) = name.split_once(" - ")?;
    let code = STATES.iter().find(|(code, _)| *code == state)?.0;
    let rest = rest.trim();
    (!rest.is_empty()).then_some((code, rest))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn states_and_postal_codes_have_one_spelling() {
        assert_eq!(state_code(" texas "), Some("TX"));
        assert_eq!(state_code("tx"), Some("TX"));
        assert_eq!(state_code("PG05"), None);
        assert_eq!(state_name("WV"), Some("West Virginia"));
        let check = |text: &str, code: Option<&str>| assert_eq!(postal_code(text).as_deref(), code, "{text}");
        check("72901-1234", Some("72901"));
        check("2139", Some("02139"));
        check("729011234", Some("72901"));
        check("21391234", Some("02139"));
        check("", None);
        check("123", None);
        check("sw1a 1aa", Some("SW1A 1AA"));
        assert_eq!(split_state_prefix("TX - Tyler Clinic"), Some(("TX", "Tyler Clinic")));
        assert_eq!(split_state_prefix("XX - Tyler Clinic"), None);
        assert_eq!(split_state_prefix("TX - "), None);
    }
}

//! Why an EHR refused, for three readers: the patient (what happened and who acts), staff (code, urn and fix) and the
//! log (fields, no text of strangers). Oracle Health writes its diagnosis as a urn inside `error_uri`; the table of
//! them, and of the plain OAuth codes for everybody else, is in `table.rs`, the patients' words are in `texts.rs`.

mod table;
mod texts;

pub use table::{Diagnosis, OAUTH_DIAGNOSES, URN_DIAGNOSES};
pub use texts::PatientText;

use std::fmt::Write as _;

use percent_encoding::percent_decode_str;
use serde::{Deserialize, Serialize};
use url::Url;

use crate::smart::token_response::{ErrorBody, NotOAuth, OAuthError};

const URN_PREFIX: &str = "urn:cerner:error:";
/// What most urns go on with; the gateway in front of FHIR has others.
const URN_AUTHORIZATION_SERVER: &str = "authorization-server:";

/// Why a connection failed, as the wire contract names it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum FailureCode {
    /// The patient said no, or gave up signing in.
    UserDenied,
    /// The EHR came back with an error, or not in a way we can use.
    OauthCallbackFailed,
    /// Too late, used already, or in another browser.
    OauthStateExpired,
    /// The code or the refresh token was not exchanged.
    TokenExchangeFailed,
    /// Access was given, but nobody said to whose record.
    MissingPatientContext,
    /// The EHR does not answer, or says that it cannot just now.
    SourceUnavailable,
    /// The patient's session with us is over.
    SessionExpired,
}

impl FailureCode {
    /// The spelling on the wire.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::UserDenied => "user_denied",
            Self::OauthCallbackFailed => "oauth_callback_failed",
            Self::OauthStateExpired => "oauth_state_expired",
            Self::TokenExchangeFailed => "token_exchange_failed",
            Self::MissingPatientContext => "missing_patient_context",
            Self::SourceUnavailable => "source_unavailable",
            Self::SessionExpired => "session_expired",
        }
    }

    /// What the patient reads when the failure is ours to name and no EHR said anything.
    pub const fn patient_text(self) -> PatientText {
        match self {
            Self::UserDenied => PatientText::SaidNo,
            Self::OauthCallbackFailed | Self::TokenExchangeFailed => PatientText::DidNotWork,
            Self::OauthStateExpired | Self::SessionExpired => PatientText::StartAgain,
            Self::MissingPatientContext => PatientText::NoRecordChosen,
            Self::SourceUnavailable => PatientText::HospitalTrouble,
        }
    }
}

/// Who can do something about it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum WhoActs {
    /// The patient: try again, sign in again.
    Patient,
    /// The clinic that runs this box: its registration or settings.
    Clinic,
    /// The hospital's IT: its EHR.
    HospitalIt,
    /// This program: a request that should not have been made so.
    Us,
    /// Nobody: it passes.
    Nobody,
}

impl WhoActs {
    /// For staff.
    pub const fn words(self) -> &'static str {
        match self {
            Self::Patient => "the patient",
            Self::Clinic => "you (the clinic)",
            Self::HospitalIt => "hospital IT",
            Self::Us => "the makers of Chartgate",
            Self::Nobody => "nobody; it is expected to pass",
        }
    }
}

/// During what the EHR refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Stage {
    /// The browser came back from the authorization endpoint.
    Authorize,
    /// The code was exchanged.
    Token,
    /// The grant was refreshed.
    Refresh,
    /// Records were read.
    Records,
}

/// A refusal, taken apart. Every text in it came from outside, is bounded and has no control characters.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct EhrError {
    /// `error`, such as `invalid_grant`.
    pub oauth_code: Option<String>,
    /// Oracle Health's urn without its constant beginning, such as `oauth2:token:empty-scopes`.
    pub urn_suffix: Option<String>,
    /// What the vendor's support asks for.
    pub correlation_id: Option<String>,
    /// A page of the vendor about this very error. https only; to be opened in another tab.
    pub error_uri: Option<String>,
    /// `error_description`, with everything that looks like a token or a code taken out.
    pub description: Option<String>,
}

impl EhrError {
    /// The OAuth code, when it is one that some specification or vendor has; never a text of the server's own making.
    pub fn known_code(&self) -> Option<&'static str> {
        let code = self.oauth_code.as_deref()?;
        OAUTH_DIAGNOSES.iter().map(|(_, line)| line.name).find(|known| *known == code)
    }

    /// From the callback's query or the token endpoint's body.
    pub fn from_oauth(error: &OAuthError) -> Self {
        let uri = error.error_uri.as_deref().and_then(|text| Url::parse(text).ok());
        let (urn_suffix, correlation_id) = uri.as_ref().map(read_error_uri).unwrap_or_default();
        let link = uri
            .filter(|uri| uri.scheme() == "https" && uri.username().is_empty() && uri.password().is_none());
        Self {
            oauth_code: Some(safe_word(&error.error, 100)),
            urn_suffix,
            correlation_id,
            error_uri: link.map(String::from),
            description: error.description.as_deref().map(without_tokens),
        }
    }

    /// From the address of an error page of Oracle Health's, or from the text of a page that names its urn; `None` for any
    /// other page.
    pub fn from_page(address: &Url, text: &str) -> Option<Self> {
        let (urn_suffix, correlation_id) = read_error_uri(address);
        let urn_suffix = urn_suffix.or_else(|| Self::from_challenge(text).urn_suffix);
        urn_suffix.is_some().then(|| Self { urn_suffix, correlation_id, ..Self::default() })
    }

    /// From the body of any refusing answer.
    pub fn from_body(body: &ErrorBody) -> Self {
        match body {
            ErrorBody::OAuth(error) => Self::from_oauth(error),
            ErrorBody::NotOAuth(NotOAuth::Json(Some(message))) => Self::from_challenge(message),
            ErrorBody::NotOAuth(
                NotOAuth::Json(None) | NotOAuth::Empty | NotOAuth::Html | NotOAuth::Other,
            ) => Self::default(),
        }
    }

    /// From a `WWW-Authenticate` header, or from the text that the gateway in front of Oracle Health's FHIR servers
    /// puts into `message`: `code="urn:…", error="insufficient_scope"`.
    pub fn from_challenge(text: &str) -> Self {
        let urn = text.find(URN_PREFIX).map(|at| {
            let letters = |letter: char| letter.is_ascii_alphanumeric() || ":_-.".contains(letter);
            let urn = &text[at..];
            &urn[..urn.find(|letter| !letters(letter)).unwrap_or(urn.len())]
        });
        Self {
            oauth_code: parameter(text, "error").map(|word| safe_word(word, 100)),
            urn_suffix: urn.and_then(suffix_of),
            description: parameter(text, "error_description").map(without_tokens),
            ..Self::default()
        }
    }

    /// Adds the id of the answer's `Cerner-Correlation-ID` header, unless the error named one itself.
    #[must_use]
    pub fn with_correlation_id(mut self, header: &str) -> Self {
        self.correlation_id = self.correlation_id.or_else(|| correlation_id(header));
        self
    }

    /// Fields for the log line: words of known alphabets only.
    pub fn log_fields(&self) -> [(&'static str, &str); 3] {
        [
            ("oauth_error", self.oauth_code.as_deref().unwrap_or_default()),
            ("urn", self.urn_suffix.as_deref().unwrap_or_default()),
            ("correlation_id", self.correlation_id.as_deref().unwrap_or_default()),
        ]
    }

    /// The line of the table that fits best: the urn's, else that of the OAuth code.
    fn diagnosis(&self, stage: Stage) -> &'static Diagnosis {
        self.urn_suffix
            .as_deref()
            .and_then(table::by_urn)
            .or_else(|| self.oauth_code.as_deref().and_then(|code| table::by_oauth_code(code, stage)))
            .unwrap_or(table::unknown(stage))
    }
}

/// What to tell whom.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Explanation {
    /// Who can do something.
    pub who: WhoActs,
    /// What the patient reads.
    pub patient: PatientText,
    /// What staff read: what the EHR said, what that means, who acts, what to do.
    pub staff: String,
    /// What the wire contract calls it.
    pub code: FailureCode,
}

/// Explains a refusal. Never fails: a urn or code that nobody has seen is shown to staff as it came.
pub fn explain(error: &EhrError, stage: Stage) -> Explanation {
    let line = error.diagnosis(stage);
    let mut staff = match (&error.oauth_code, &error.urn_suffix) {
        (Some(code), Some(urn)) => format!("The EHR answered `{code}` (`{urn}`)."),
        (Some(code), None) => format!("The EHR answered `{code}`."),
        (None, Some(urn)) => format!("The EHR answered `{urn}`."),
        (None, None) => "The EHR refused without an OAuth error.".to_owned(),
    };
    // Writing to a String cannot fail.
    let _ = write!(staff, " {} Who acts: {}. {}", line.meaning, line.who.words(), line.fix);
    if let Some(description) = error.description.as_deref().filter(|text| !text.is_empty()) {
        let _ = write!(staff, " The EHR's own words: \u{201c}{description}\u{201d}.");
    }
    if let Some(id) = &error.correlation_id {
        let _ = write!(staff, " Correlation id {id}.");
    }
    Explanation { who: line.who, patient: line.patient, staff, code: line.code }
}

/// `…/errors/{urn}/instances/{uuid}?…`
fn read_error_uri(uri: &Url) -> (Option<String>, Option<String>) {
    let segments: Vec<&str> = uri.path_segments().into_iter().flatten().collect();
    let behind = |name: &str| {
        let at = segments.iter().position(|segment| *segment == name)?;
        segments.get(at + 1).map(|segment| percent_decode_str(segment).decode_utf8_lossy())
    };
    let urn = behind("errors").as_deref().and_then(suffix_of);
    (urn, behind("instances").as_deref().and_then(correlation_id))
}

fn suffix_of(urn: &str) -> Option<String> {
    let rest = urn.strip_prefix(URN_PREFIX)?;
    let suffix = safe_word(rest.strip_prefix(URN_AUTHORIZATION_SERVER).unwrap_or(rest), 200);
    (!suffix.is_empty()).then_some(suffix)
}

fn correlation_id(text: &str) -> Option<String> {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-';
    ((1..=64).contains(&text.len()) && text.bytes().all(plain)).then(|| text.to_owned())
}

/// `name="value"` of a challenge.
fn parameter<'t>(text: &'t str, name: &str) -> Option<&'t str> {
    let key = format!("{name}=\"");
    let mut from = 0;
    while let Some(at) = text[from..].find(&key).map(|at| at + from) {
        from = at + key.len();
        // `error` must not be found at the end of another name.
        if !text[..at].ends_with(|letter: char| letter.is_ascii_alphanumeric() || letter == '_') {
            return text[from..].split('"').next();
        }
    }
    None
}

/// Keeps the letters that codes and urns are made of, so that the result can stand in a log line.
fn safe_word(text: &str, limit: usize) -> String {
    let known = |letter: &char| letter.is_ascii_alphanumeric() || ":_-.".contains(*letter);
    text.chars().filter(known).take(limit).collect()
}

/// A server may quote the code or token it did not like: long words with a digit in them are taken out.
fn without_tokens(text: &str) -> String {
    let part = |letter: char| letter.is_ascii_alphanumeric() || "-_.~+=%".contains(letter);
    let is_token = |word: &str| {
        word.split(|letter| !part(letter))
            .any(|run| run.len() >= 20 && run.bytes().any(|byte| byte.is_ascii_digit()))
    };
    let words: Vec<&str> =
        text.split_whitespace().map(|word| if is_token(word) { "…" } else { word }).collect();
    words.join(" ").chars().take(500).collect()
}

#[cfg(test)]
mod tests {
    use super::{FailureCode as F, PatientText as P, Stage as S, WhoActs as W, *};

    const INSTANCE: &str = "6359728c-c966-4929-bbf6-2388d353d89e";

    fn cerner(code: &str, suffix: &str) -> EhrError {
        let urn = format!("{URN_PREFIX}{URN_AUTHORIZATION_SERVER}{suffix}").replace(':', "%3A");
        let uri =
            format!("https://authorization.cerner.com/errors/{urn}/instances/{INSTANCE}?client=c&tenant=t");
        EhrError::from_oauth(&OAuthError::new(code, None, Some(&uri)).expect("an error"))
    }

    fn plain(code: &str) -> EhrError {
        EhrError::from_oauth(&OAuthError::new(code, None, None).expect("an error"))
    }

    #[test]
    fn the_urn_and_the_correlation_id_are_read_out_of_error_uri() {
        let error = cerner("invalid_grant", "oauth2:token:code-invalid-or-expired");
        assert_eq!(error.urn_suffix.as_deref(), Some("oauth2:token:code-invalid-or-expired"));
        assert_eq!(error.correlation_id.as_deref(), Some(INSTANCE));
        assert!(error.error_uri.as_deref().is_some_and(|uri| uri.starts_with("https://authorization.")));
        let text = explain(&error, Stage::Token);
        for part in ["invalid_grant", "oauth2:token:code-invalid-or-expired", INSTANCE, "Who acts"] {
            assert!(text.staff.contains(part), "{}", text.staff);
        }
        assert_eq!((text.code, text.who), (FailureCode::TokenExchangeFailed, WhoActs::Patient));
    }

    #[test]
    fn the_same_oauth_code_means_different_things_behind_different_urns() {
        let check = |code: &str, urn: &str, stage: Stage, expected: (FailureCode, WhoActs, PatientText)| {
            let found = explain(&cerner(code, urn), stage);
            assert_eq!((found.code, found.who, found.patient), expected, "{urn}");
        };
        check(
            "access_denied",
            "oauth2:grant:denied-by-user",
            S::Authorize,
            (F::UserDenied, W::Patient, P::SaidNo),
        );
        check(
            "access_denied",
            "oauth2:grant:denied-by-server",
            S::Authorize,
            (F::OauthCallbackFailed, W::HospitalIt, P::HospitalRefused),
        );
        check(
            "unauthorized_client",
            "oauth2:grant:unauthorized-client-for-tenant",
            S::Authorize,
            (F::OauthCallbackFailed, W::HospitalIt, P::NotSwitchedOn),
        );
        check(
            "unauthorized_client",
            "oauth2:grant:client-persona-mismatch",
            S::Authorize,
            (F::OauthCallbackFailed, W::Clinic, P::SetupProblem),
        );
        check(
            "invalid_scope",
            "oauth2:token:empty-scopes",
            S::Token,
            (F::TokenExchangeFailed, W::Clinic, P::SetupProblem),
        );
        check(
            "invalid_scope",
            "oauth2:token:patient-scope-requires-one-patient-id",
            S::Token,
            (F::MissingPatientContext, W::Patient, P::NoRecordChosen),
        );
        check(
            "invalid_grant",
            "oauth2:token:refresh-token:token-invalid",
            S::Refresh,
            (F::TokenExchangeFailed, W::Patient, P::SignInAgain),
        );
        check(
            "invalid_client",
            "client-assertion:jwt-bearer:invalid-signature",
            S::Token,
            (F::TokenExchangeFailed, W::Clinic, P::SetupProblem),
        );
        check(
            "server_error",
            "server-error",
            S::Authorize,
            (F::SourceUnavailable, W::Nobody, P::HospitalTrouble),
        );
    }

    #[test]
    fn every_line_of_both_tables_is_found_by_its_own_name_and_says_something() {
        for line in URN_DIAGNOSES {
            let code = line.oauth_codes.first().copied().unwrap_or("invalid_request");
            let found = explain(&cerner(code, line.name), Stage::Token);
            assert!(found.staff.contains(line.meaning), "{}", line.name);
            assert_eq!((found.code, found.who, found.patient), (line.code, line.who, line.patient));
            assert!(line.meaning.ends_with(['.', '?']) && line.fix.ends_with('.'), "{}", line.name);
        }
        for (_, line) in OAUTH_DIAGNOSES {
            assert!(line.meaning.ends_with(['.', '?']) && line.fix.ends_with('.'), "{}", line.name);
        }
        let names: std::collections::HashSet<&str> = URN_DIAGNOSES.iter().map(|line| line.name).collect();
        assert_eq!(names.len(), URN_DIAGNOSES.len());
    }

    #[test]
    fn old_spellings_and_shifted_urns_are_recognised() {
        for urn in [
            "oauth2:token:invalid_client_credentials",
            "oauth2:token:invalid-client-credentials",
            "oauth2:token:client-assertion:jwt-bearer:invalid-signature",
            "oauth2:grant:client-not-enabled-for-tenant",
        ] {
            assert!(table::by_urn(urn).is_some(), "{urn}");
        }
    }

    #[test]
    fn plain_oauth_codes_are_explained_for_every_vendor() {
        let check = |code: &str, stage: Stage, failure: FailureCode, who: WhoActs| {
            let found = explain(&plain(code), stage);
            assert_eq!((found.code, found.who), (failure, who), "{code}");
            assert!(found.staff.contains(code), "{}", found.staff);
        };
        check("access_denied", S::Authorize, F::UserDenied, W::Patient);
        check("invalid_request", S::Authorize, F::OauthCallbackFailed, W::Us);
        check("invalid_scope", S::Authorize, F::OauthCallbackFailed, W::Clinic);
        check("unauthorized_client", S::Authorize, F::OauthCallbackFailed, W::HospitalIt);
        check("temporarily_unavailable", S::Authorize, F::SourceUnavailable, W::Nobody);
        check("server_error", S::Token, F::SourceUnavailable, W::Nobody);
        check("invalid_grant", S::Token, F::TokenExchangeFailed, W::Patient);
        check("invalid_grant", S::Refresh, F::TokenExchangeFailed, W::Patient);
        check("invalid_client", S::Token, F::TokenExchangeFailed, W::Clinic);
        check("redirect_uri_mismatch", S::Authorize, F::OauthCallbackFailed, W::Clinic);
        assert_eq!(explain(&plain("invalid_grant"), Stage::Refresh).patient, PatientText::SignInAgain);
        assert_eq!(explain(&plain("invalid_grant"), Stage::Token).patient, PatientText::StartAgain);
    }

    #[test]
    fn what_nobody_has_seen_is_shown_as_it_came() {
        let strange = explain(&cerner("brand_new", "oauth2:grant:new-in-2030"), Stage::Authorize);
        assert!(strange.staff.contains("oauth2:grant:new-in-2030") && strange.staff.contains(INSTANCE));
        assert_eq!(strange.code, FailureCode::OauthCallbackFailed);
        // The code is known though the urn is not.
        let half = explain(&cerner("server_error", "oauth2:grant:new-in-2030"), Stage::Authorize);
        assert_eq!(half.code, FailureCode::SourceUnavailable);
        assert_eq!(explain(&EhrError::default(), Stage::Token).code, FailureCode::TokenExchangeFailed);
        for uri in
            ["", "x", "https://h/errors", "https://h/errors/%ff%00/instances/%0a", "javascript:alert(1)"]
        {
            let error = OAuthError::new("x", None, Some(uri)).expect("an error");
            let found = EhrError::from_oauth(&error);
            assert_eq!((found.urn_suffix, found.correlation_id), (None, None), "{uri}");
        }
    }

    #[test]
    fn gateway_messages_and_challenges_are_read() {
        let gateway = EhrError::from_challenge(
            r#"code="urn:cerner:error:oauth2:resource-access:insufficient-scopes", error="insufficient_scope", subcode="x""#,
        );
        assert_eq!(gateway.urn_suffix.as_deref(), Some("oauth2:resource-access:insufficient-scopes"));
        assert_eq!(gateway.oauth_code.as_deref(), Some("insufficient_scope"));
        let header = EhrError::from_challenge(
            r#"Bearer realm="h", error_description="Token has expired", error="invalid_token""#,
        );
        assert_eq!(header.oauth_code.as_deref(), Some("invalid_token"));
        assert_eq!(header.description.as_deref(), Some("Token has expired"));
        assert_eq!(EhrError::from_challenge("Unauthorized"), EhrError::default());
    }

    #[test]
    fn only_https_pages_become_links() {
        let link = |uri: &str| {
            EhrError::from_oauth(&OAuthError::new("x", None, Some(uri)).expect("an error")).error_uri
        };
        assert!(link("https://as.example/why").is_some());
        for bad in
            ["http://as.example/why", "javascript:alert(1)", "https://me@as.example/", "data:text/html,x"]
        {
            assert_eq!(link(bad), None, "{bad}");
        }
    }

    #[test]
    fn no_code_or_token_of_a_description_reaches_a_reader() {
        let words = "The code eyJhbGciOi.J1NiJ9-abc_def12345 is not valid (code=abcdefgh1234567890123456)";
        let error = EhrError::from_oauth(
            &OAuthError::new("invalid_grant\r\nX: y", Some(words), None).expect("an error"),
        )
        .with_correlation_id("0b7e-1");
        let staff = explain(&error, Stage::Token).staff;
        assert!(!staff.contains("eyJ") && !staff.contains("abcdefgh1234"), "{staff}");
        assert!(staff.contains("The code … is not valid") && staff.contains("0b7e-1"), "{staff}");
        assert!(error.log_fields().iter().all(|(_, value)| !value.contains(char::is_whitespace)));
    }

    #[test]
    fn failure_codes_have_the_spelling_of_the_wire_contract() {
        for code in [
            FailureCode::UserDenied,
            FailureCode::OauthCallbackFailed,
            FailureCode::OauthStateExpired,
            FailureCode::TokenExchangeFailed,
            FailureCode::MissingPatientContext,
            FailureCode::SourceUnavailable,
            FailureCode::SessionExpired,
        ] {
            assert_eq!(serde_json::to_value(code).expect("json"), code.as_str());
        }
    }
}

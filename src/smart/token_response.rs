//! What a token endpoint answers (RFC 6749 sections 5.1 and 5.2), and the secrets that travel through a launch.
//!
//! Read leniently: a token that reached us is worth more than a tidy answer, so only a missing or unusable access token
//! refuses a success.

use std::time::Duration;

use serde_json::{Map, Value};

use crate::secret::secret_type;
use crate::smart::patient::{EhrPatientId, FhirId};
use crate::smart::scopes::ScopeSet;

secret_type!(
    /// Opens the records for minutes. Sent to its FHIR base only.
    AccessToken);
secret_type!(
    /// Opens the records for months. Sent to its token endpoint only.
    RefreshToken);
secret_type!(
    /// A signed statement of who signed in.
    IdToken);
secret_type!(
    /// What the callback brings; good once, for about a minute.
    AuthorizationCode);
secret_type!(
    /// Binds the callback to a launch attempt.
    State);
secret_type!(
    /// Stands for the chart that is open in the EHR; comes with an EHR launch, and is good once.
    LaunchHandle);
secret_type!(
    /// Binds an id token to a launch attempt.
    Nonce);

/// The largest answer read; Epic's and Oracle Health's tokens are JWTs of a few kilobytes.
pub const MAX_TOKEN_BODY: usize = 256 * 1024;

/// RFC 6749 lets a server leave `expires_in` out; five minutes is less than any of them gives.
const ASSUMED_LIFE: Duration = Duration::from_mins(5);
const LONGEST_LIFE: Duration = Duration::from_hours(366 * 24);

/// A successful answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TokenResponse {
    /// `access_token`.
    pub access_token: AccessToken,
    /// From now; between one second and 366 days.
    pub expires_in: Duration,
    /// `scope`. `None`: as asked (RFC 6749 section 5.1). Empty: nothing.
    pub scope: Option<ScopeSet>,
    /// `refresh_token`. At a refresh: present replaces the stored one, absent keeps it.
    pub refresh_token: Option<RefreshToken>,
    /// `id_token`.
    pub id_token: Option<IdToken>,
    /// `patient`; may be missing although a patient is in context (Oracle Health).
    pub patient: Option<EhrPatientId>,
    /// `encounter` of an EHR launch.
    pub encounter: Option<FhirId>,
    /// `tenant`.
    pub tenant: Option<String>,
    /// `need_patient_banner`: whether the app has to show whose record it shows. Absent means yes.
    pub need_patient_banner: bool,
    /// `intent`: what the EHR's user means to do.
    pub intent: Option<String>,
    /// `smart_style_url`: how the EHR looks. https only, for the app to read.
    pub smart_style_url: Option<String>,
    /// Which optional members were there but unusable, for staff. Names only, never values.
    pub ignored: Vec<&'static str>,
}

/// Why an answer with a success status is no success.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TokenResponseError {
    /// Larger than [`MAX_TOKEN_BODY`].
    #[error("the token response is too large")]
    TooLarge,
    /// HTML, empty, or another thing than a JSON object.
    #[error("the token response is not a JSON object")]
    NotJson,
    /// A refusal that came with the wrong status.
    #[error("the token endpoint refused with `{}`", .0.error)]
    Refused(OAuthError),
    /// Missing, empty, or not printable ASCII without blanks.
    #[error("the token response has no usable `access_token`")]
    AccessToken,
    /// Another type than Bearer: we could not use it.
    #[error("the token response has a `token_type` other than `Bearer`")]
    TokenType,
}

/// Reads a success body.
pub fn parse_token_response(body: &[u8]) -> Result<TokenResponse, TokenResponseError> {
    if body.len() > MAX_TOKEN_BODY {
        return Err(TokenResponseError::TooLarge);
    }
    let Ok(Value::Object(members)) = serde_json::from_slice(body) else {
        return Err(TokenResponseError::NotJson);
    };
    if members.get("access_token").is_none_or(Value::is_null)
        && let Some(refusal) = OAuthError::from_members(&members)
    {
        return Err(TokenResponseError::Refused(refusal));
    }
    let mut reader = Members { members: &members, ignored: Vec::new() };
    // RFC 6750 section 2.1 allows still fewer characters; these are the ones that fit into a header.
    let access_token = reader
        .text("access_token")
        .filter(|token| token.bytes().all(|byte| byte.is_ascii_graphic()))
        .ok_or(TokenResponseError::AccessToken)?;
    match reader.text("token_type") {
        Some(kind) if !kind.eq_ignore_ascii_case("bearer") => return Err(TokenResponseError::TokenType),
        Some(_) => {}
        None => reader.ignore("token_type"),
    }
    let patient = reader
        .id("patient")
        .and_then(|text| EhrPatientId::from_reference(&text).map_err(|_| reader.ignore("patient")).ok());
    let encounter = reader.id("encounter").and_then(|text| {
        let id = text.rsplit('/').next().unwrap_or_default();
        FhirId::parse(id).map_err(|_| reader.ignore("encounter")).ok()
    });
    let scope = match members.get("scope") {
        Some(Value::String(text)) => Some(ScopeSet::parse(text)),
        None | Some(Value::Null) => None,
        Some(_) => {
            reader.ignore("scope");
            None
        }
    };
    Ok(TokenResponse {
        access_token: AccessToken::new(access_token),
        expires_in: reader.life(),
        scope,
        refresh_token: reader.text("refresh_token").map(RefreshToken::new),
        id_token: reader.text("id_token").map(IdToken::new),
        patient,
        encounter,
        tenant: reader.text("tenant").map(|text| bounded(text, 256)),
        need_patient_banner: reader.flag("need_patient_banner").unwrap_or(true),
        intent: reader.text("intent").map(|text| bounded(text, 256)),
        smart_style_url: reader.https("smart_style_url"),
        ignored: reader.ignored,
    })
}

struct Members<'m> {
    members: &'m Map<String, Value>,
    ignored: Vec<&'static str>,
}

impl<'m> Members<'m> {
    fn ignore(&mut self, name: &'static str) {
        self.ignored.push(name);
    }

    /// A text that is not empty.
    fn text(&mut self, name: &'static str) -> Option<&'m str> {
        match self.members.get(name)? {
            Value::String(text) if !text.is_empty() => Some(text),
            Value::String(_) | Value::Null => None,
            Value::Bool(_) | Value::Number(_) | Value::Array(_) | Value::Object(_) => {
                self.ignore(name);
                None
            }
        }
    }

    /// Yes or no, also as text.
    fn flag(&mut self, name: &'static str) -> Option<bool> {
        match self.members.get(name)? {
            Value::Bool(flag) => Some(*flag),
            Value::String(text) if text == "true" => Some(true),
            Value::String(text) if text == "false" => Some(false),
            Value::Null => None,
            Value::String(_) | Value::Number(_) | Value::Array(_) | Value::Object(_) => {
                self.ignore(name);
                None
            }
        }
    }

    /// An address that may be handed on.
    fn https(&mut self, name: &'static str) -> Option<String> {
        let text = self.text(name)?;
        let good = text.len() <= 2048 && url::Url::parse(text).is_ok_and(|url| url.scheme() == "https");
        if !good {
            self.ignore(name);
        }
        good.then(|| text.to_owned())
    }

    /// An id, which some servers write as a number.
    fn id(&mut self, name: &'static str) -> Option<String> {
        match self.members.get(name) {
            Some(Value::Number(number)) if number.is_i64() || number.is_u64() => Some(number.to_string()),
            _ => self.text(name).map(str::to_owned),
        }
    }

    /// `expires_in`: a number, a fraction (Blue Button), or either as text.
    fn life(&mut self) -> Duration {
        let seconds = match self.members.get("expires_in") {
            None | Some(Value::Null) => return ASSUMED_LIFE,
            Some(Value::String(text)) => text.trim().parse::<f64>().ok(),
            Some(other) => other.as_f64(),
        };
        let Some(seconds) = seconds.filter(|seconds| !seconds.is_nan()) else {
            self.ignore("expires_in");
            return ASSUMED_LIFE;
        };
        // Whole seconds, rounded down: a token is never believed to live longer than it does.
        Duration::from_secs_f64(seconds.floor().clamp(1.0, LONGEST_LIFE.as_secs_f64()))
    }
}

/// An OAuth refusal: body of the token endpoint, or query of the callback.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OAuthError {
    /// `error`, such as `invalid_grant`. At most 100 characters.
    pub error: String,
    /// `error_description`, for staff. At most 1000 characters.
    pub description: Option<String>,
    /// `error_uri`, unchecked. At most 2048 characters.
    pub error_uri: Option<String>,
}

impl OAuthError {
    /// Takes the three texts over, without control characters and cut to their bounds. `None` when `error` is empty.
    pub fn new(error: &str, description: Option<&str>, error_uri: Option<&str>) -> Option<Self> {
        let optional = |text: Option<&str>, limit: usize| {
            text.map(|text| bounded(text, limit)).filter(|text| !text.is_empty())
        };
        Some(Self {
            error: optional(Some(error), 100)?,
            description: optional(description, 1000),
            // A URL that was cut is another URL.
            error_uri: optional(error_uri.filter(|uri| uri.len() <= 2048), 2048),
        })
    }

    fn from_members(members: &Map<String, Value>) -> Option<Self> {
        let text = |name: &str| members.get(name).and_then(Value::as_str);
        Self::new(text("error")?, text("error_description"), text("error_uri"))
    }
}

/// What a refusing answer's body is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ErrorBody {
    /// The OAuth server speaks.
    OAuth(OAuthError),
    /// Something else does: a gateway, a firewall, a web server. Says nothing about the grant.
    NotOAuth(NotOAuth),
}

/// The kinds of bodies that are no OAuth error.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum NotOAuth {
    /// Nothing.
    Empty,
    /// A web page.
    Html,
    /// JSON of another shape; `message` or `detail` of it, cut to 1000 characters, is for staff.
    Json(Option<String>),
    /// Anything else.
    Other,
}

/// Reads an error body; there is none that cannot be read.
pub fn parse_error_body(body: &[u8]) -> ErrorBody {
    let body = &body[..body.len().min(MAX_TOKEN_BODY)];
    let trimmed = body.trim_ascii();
    let kind = match serde_json::from_slice(trimmed) {
        Ok(Value::Object(members)) => {
            if let Some(error) = OAuthError::from_members(&members) {
                return ErrorBody::OAuth(error);
            }
            let text = ["message", "detail"].into_iter().find_map(|name| members.get(name)?.as_str());
            NotOAuth::Json(text.map(|text| bounded(text, 1000)))
        }
        // Epic answers `""` for a bad token.
        Ok(Value::String(text)) if text.is_empty() => NotOAuth::Empty,
        Ok(_) => NotOAuth::Json(None),
        Err(_) if trimmed.is_empty() => NotOAuth::Empty,
        Err(_) if trimmed.starts_with(b"<") => NotOAuth::Html,
        Err(_) => NotOAuth::Other,
    };
    ErrorBody::NotOAuth(kind)
}

fn bounded(text: &str, limit: usize) -> String {
    text.chars().filter(|letter| !letter.is_control()).take(limit).collect::<String>().trim().to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn parse(members: &Value) -> Result<TokenResponse, TokenResponseError> {
        let mut answer = json!({"access_token": "at-1", "token_type": "Bearer"});
        for (name, value) in members.as_object().expect("an object") {
            answer[name] = value.clone();
        }
        parse_token_response(answer.to_string().as_bytes())
    }

    #[test]
    fn a_full_answer_is_read_and_its_secrets_are_not_printed() {
        let found = parse(&json!({
            "expires_in": 570, "scope": "openid patient/Patient.read", "refresh_token": "rt-1", "id_token": "a.b.c",
            "patient": "12724066", "encounter": "97953489", "tenant": "t1", "need_patient_banner": true,
            "__epic.dstu2.patient": "T123", "fhirContext": ["odd"],
        }))
        .expect("a success");
        assert_eq!(found.expires_in, Duration::from_secs(570));
        assert_eq!(found.patient.as_ref().map(EhrPatientId::as_str), Some("12724066"));
        assert_eq!(found.scope.as_ref().map(ScopeSet::len), Some(2));
        assert_eq!(found.ignored, Vec::<&str>::new());
        assert!(found.need_patient_banner);
        let printed = format!("{found:?}");
        for secret in ["at-1", "rt-1", "a.b.c", "12724066", "97953489"] {
            assert!(!printed.contains(secret), "{printed}");
        }
    }

    #[test]
    fn every_spelling_of_a_lifetime_is_understood_and_bounded() {
        let check = |value: Value, seconds: u64| {
            let found = parse(&json!({"expires_in": value})).expect("a success");
            assert_eq!(found.expires_in, Duration::from_secs(seconds), "{value}");
        };
        check(json!(3600), 3600);
        check(json!(16768.52), 16768);
        check(json!("3599"), 3599);
        check(json!(" 59.9 "), 59);
        check(Value::Null, 300);
        check(json!("soon"), 300);
        check(json!("NaN"), 300);
        check(json!([1]), 300);
        check(json!(0), 1);
        check(json!(-5), 1);
        check(json!(1e300), 366 * 24 * 3600);
        check(json!("inf"), 366 * 24 * 3600);
        assert_eq!(parse(&json!({})).expect("a success").expires_in, Duration::from_mins(5));
    }

    #[test]
    fn absent_and_empty_scope_are_two_things() {
        assert_eq!(parse(&json!({})).expect("a success").scope, None);
        assert_eq!(parse(&json!({"scope": ""})).expect("a success").scope, Some(ScopeSet::default()));
    }

    #[test]
    fn odd_optional_members_never_cost_the_tokens() {
        let found = parse(&json!({
            "patient": "Patient/../1", "encounter": {"id": 1}, "scope": ["openid"], "refresh_token": "r t ü", "id_token": null,
            "token_type": "BEARER", "expires_in": true,
        }))
        .expect("a success");
        assert_eq!(found.refresh_token, Some(RefreshToken::new("r t ü")));
        assert_eq!((found.patient, found.encounter, found.scope, found.id_token), (None, None, None, None));
        assert_eq!(found.ignored, ["patient", "encounter", "scope", "expires_in"]);
        let by_reference =
            parse(&json!({"patient": "Patient/e-1", "encounter": "Encounter/2"})).expect("a success");
        assert_eq!(by_reference.patient.as_ref().map(EhrPatientId::as_str), Some("e-1"));
        assert_eq!(by_reference.encounter.as_ref().map(FhirId::as_str), Some("2"));
        let by_number = parse(&json!({"patient": -201_400})).expect("a success");
        assert_eq!(by_number.patient.as_ref().map(EhrPatientId::as_str), Some("-201400"));
    }

    #[test]
    fn what_an_ehr_launch_adds_is_read_and_nothing_odd_is_handed_on() {
        let found = parse(&json!({
            "need_patient_banner": false, "intent": "reconcile-medications", "smart_style_url": "https://s.example/1.json",
        }))
        .expect("a success");
        assert!(!found.need_patient_banner);
        assert_eq!(found.intent.as_deref(), Some("reconcile-medications"));
        assert_eq!(found.smart_style_url.as_deref(), Some("https://s.example/1.json"));
        assert!(!parse(&json!({"need_patient_banner": "false"})).expect("a success").need_patient_banner);
        for odd in
            [json!("javascript:alert(1)"), json!("http://s.example/1.json"), json!("/1.json"), json!(1)]
        {
            let found = parse(&json!({"smart_style_url": odd, "need_patient_banner": 0})).expect("a success");
            assert_eq!((found.smart_style_url, found.need_patient_banner), (None, true), "{odd}");
            assert_eq!(found.ignored, ["need_patient_banner", "smart_style_url"]);
        }
    }

    #[test]
    fn an_answer_without_a_usable_access_token_is_refused() {
        for token in [json!(""), json!(null), json!(5), json!("a b"), json!("a\r\nX: y"), json!("ä")] {
            assert_eq!(
                parse(&json!({"access_token": token})),
                Err(TokenResponseError::AccessToken),
                "{token}"
            );
        }
        assert_eq!(parse(&json!({"token_type": "DPoP"})), Err(TokenResponseError::TokenType));
        for body in [&b""[..], b"<html>", b"[]", b"access_token=a&token_type=bearer"] {
            assert_eq!(parse_token_response(body), Err(TokenResponseError::NotJson));
        }
        let refused = parse_token_response(br#"{"error":"invalid_grant"}"#);
        assert!(matches!(refused, Err(TokenResponseError::Refused(error)) if error.error == "invalid_grant"));
        let huge = vec![b' '; MAX_TOKEN_BODY + 1];
        assert_eq!(parse_token_response(&huge), Err(TokenResponseError::TooLarge));
    }

    #[test]
    fn error_bodies_of_every_kind_are_told_apart() {
        let kind = |body: &str| match parse_error_body(body.as_bytes()) {
            ErrorBody::NotOAuth(kind) => kind,
            ErrorBody::OAuth(error) => panic!("{error:?}"),
        };
        assert_eq!(kind(""), NotOAuth::Empty);
        assert_eq!(kind("\"\""), NotOAuth::Empty);
        assert_eq!(kind("\n<!DOCTYPE html><p>504"), NotOAuth::Html);
        assert_eq!(kind("Access denied"), NotOAuth::Other);
        assert_eq!(kind(r#"{"code":401,"message":"x"}"#), NotOAuth::Json(Some("x".to_owned())));
        assert_eq!(
            kind(r#"{"resource":"v1","detail":"Unauthorized"}"#),
            NotOAuth::Json(Some("Unauthorized".to_owned()))
        );
        let epic = parse_error_body(br#"{"error":"invalid_client","error_description":null}"#);
        assert_eq!(epic, ErrorBody::OAuth(OAuthError::new("invalid_client", None, None).expect("an error")));
    }

    #[test]
    fn error_texts_are_bounded_and_without_control_characters() {
        let long = "ä".repeat(5000);
        let error = OAuthError::new("bad\r\nSet-Cookie: x", Some(&long), Some(&long)).expect("an error");
        assert_eq!(error.error, "badSet-Cookie: x");
        assert_eq!(error.description.map(|text| text.chars().count()), Some(1000));
        assert_eq!(error.error_uri, None);
        assert_eq!(OAuthError::new(" ", None, None), None);
    }
}

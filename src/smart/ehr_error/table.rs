//! The tables. A line without OAuth codes is shown by the EHR on its own page: the browser never comes back to us, so
//! these lines are for staff who are told "I saw an error at the hospital".

use super::{FailureCode, PatientText, Stage, WhoActs};

/// One cause of a refusal.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Diagnosis {
    /// The urn's suffix, or the OAuth code.
    pub name: &'static str,
    /// OAuth codes seen with this urn; none when the EHR shows a page of its own instead of coming back.
    pub oauth_codes: &'static [&'static str],
    /// What it means, for staff.
    pub meaning: &'static str,
    /// Who acts.
    pub who: WhoActs,
    /// What to do, for staff.
    pub fix: &'static str,
    /// What the patient reads.
    pub patient: PatientText,
    /// What the wire contract calls it.
    pub code: FailureCode,
}

impl Diagnosis {
    /// True when the browser never reaches our callback with it.
    pub const fn stays_at_the_ehr(&self) -> bool {
        self.oauth_codes.is_empty()
    }
}

const fn line(
    name: &'static str,
    oauth_codes: &'static [&'static str],
    (who, patient, code): (WhoActs, PatientText, FailureCode),
    meaning: &'static str,
    fix: &'static str,
) -> Diagnosis {
    Diagnosis { name, oauth_codes, meaning, who, fix, patient, code }
}

type Verdict = (WhoActs, PatientText, FailureCode);

const DENIED: Verdict = (WhoActs::Patient, PatientText::SaidNo, FailureCode::UserDenied);
const CANCELLED: Verdict = (WhoActs::Patient, PatientText::SignInCancelled, FailureCode::UserDenied);
const REFUSED: Verdict =
    (WhoActs::HospitalIt, PatientText::HospitalRefused, FailureCode::OauthCallbackFailed);
const NO_RECORD: Verdict =
    (WhoActs::Patient, PatientText::RecordNotAvailable, FailureCode::OauthCallbackFailed);
const NOT_ACTIVE: Verdict =
    (WhoActs::HospitalIt, PatientText::NotSwitchedOn, FailureCode::OauthCallbackFailed);
const NOT_ACTIVE_TOKEN: Verdict =
    (WhoActs::HospitalIt, PatientText::NotSwitchedOn, FailureCode::TokenExchangeFailed);
const SETUP: Verdict = (WhoActs::Clinic, PatientText::SetupProblem, FailureCode::OauthCallbackFailed);
const SETUP_TOKEN: Verdict = (WhoActs::Clinic, PatientText::SetupProblem, FailureCode::TokenExchangeFailed);
const OURS: Verdict = (WhoActs::Us, PatientText::DidNotWork, FailureCode::OauthCallbackFailed);
const OURS_TOKEN: Verdict = (WhoActs::Us, PatientText::DidNotWork, FailureCode::TokenExchangeFailed);
const TROUBLE: Verdict = (WhoActs::Nobody, PatientText::HospitalTrouble, FailureCode::SourceUnavailable);
const LOST: Verdict = (WhoActs::Patient, PatientText::BrowserLostSession, FailureCode::OauthStateExpired);
const RESTART: Verdict = (WhoActs::Patient, PatientText::StartAgain, FailureCode::TokenExchangeFailed);
const SIGN_IN: Verdict = (WhoActs::Patient, PatientText::SignInAgain, FailureCode::TokenExchangeFailed);
const NO_PATIENT: Verdict =
    (WhoActs::Patient, PatientText::NoRecordChosen, FailureCode::MissingPatientContext);
const NOT_SHARED: Verdict = (WhoActs::Patient, PatientText::NotShared, FailureCode::TokenExchangeFailed);

const FIX_REDIRECT: &str =
    "Copy the redirect URI of Settings, EHR clients, letter by letter into the registration.";
const FIX_ACTIVATE: &str = "Send them the activation packet of this source.";
const FIX_BASE: &str = "Compare the source's FHIR base URL with the one the hospital gave.";
const FIX_RETRY: &str = "Try again later; if it stays, give the correlation id to the vendor's support.";
const FIX_RESTART: &str = "Let the patient start again.";
const FIX_REPORT: &str = "Report it with the correlation id.";
const FIX_LAUNCH: &str = "Open the app again from the EHR; for patients use a standalone launch.";
const FIX_CREDENTIALS: &str = "Compare client id, environment and authentication method with the registration, then run the connection check.";
const FIX_TESTING: &str = "Check the sandbox set-up in the vendor's console.";

const ACCESS_DENIED: &[&str] = &["access_denied"];
const INVALID_CLIENT: &[&str] = &["invalid_client"];
const INVALID_GRANT: &[&str] = &["invalid_grant"];
const INVALID_REQUEST: &[&str] = &["invalid_request"];
const INVALID_SCOPE: &[&str] = &["invalid_scope"];
const SERVER_ERROR: &[&str] = &["server_error"];
const UNAUTHORIZED: &[&str] = &["unauthorized_client"];
const PAGE: &[&str] = &[];

/// Oracle Health's urns, without `urn:cerner:error:authorization-server:` (the last three: without
/// `urn:cerner:error:`).
#[rustfmt::skip]
pub const URN_DIAGNOSES: &[Diagnosis] = &[
    line("oauth2:grant:invalid-request", INVALID_REQUEST, OURS, "The authorization request was malformed.", FIX_REPORT),
    line("oauth2:grant:unknown-client", PAGE, SETUP, "The client id is not known: wrong id, wrong environment, or a registration that has not spread yet (15 minutes to 12 hours).", FIX_CREDENTIALS),
    line("oauth2:grant:invalid-redirect-uri", PAGE, SETUP, "The redirect URI is not the registered one.", FIX_REDIRECT),
    line("oauth2:grant:redirect-uri-not-registered", PAGE, SETUP, "The registration has no such redirect URI.", FIX_REDIRECT),
    line("oauth2:grant:redirect-uri-not-absolute", PAGE, SETUP, "The redirect URI is not an absolute URL.", FIX_REDIRECT),
    line("oauth2:grant:invalid-redirect-uri-trailing-slash", PAGE, SETUP, "The redirect URI and the registered one differ in the slash at the end.", FIX_REDIRECT),
    line("oauth2:grant:unknown-tenant", PAGE, SETUP, "There is no such tenant.", FIX_BASE),
    line("oauth2:grant:tenant-not-configured", PAGE, NOT_ACTIVE, "The tenant is not enabled for apps.", FIX_ACTIVATE),
    line("oauth2:grant:unauthorized-client-for-tenant", UNAUTHORIZED, NOT_ACTIVE, "The hospital has not activated this client id in its tenant.", FIX_ACTIVATE),
    line("oauth2:grant:client-not-enabled", UNAUTHORIZED, NOT_ACTIVE, "The client id is not enabled for this tenant.", FIX_ACTIVATE),
    line("oauth2:grant:client-persona-mismatch", UNAUTHORIZED, SETUP, "A patient app was sent to the clinicians' server, or the reverse.", "Patients need a base on fhir-myrecord.cerner.com and a registration of type Patient."),
    line("oauth2:grant:unsupported-response-type", &["unsupported_response_type"], OURS, "The response type was not `code`.", FIX_REPORT),
    line("oauth2:grant:csrf-security-failure", PAGE, LOST, "The browser blocked cookies, or an old sign-in page was used.", "Ask the patient to allow cookies and to start again."),
    line("oauth2:grant:denied-by-user", ACCESS_DENIED, DENIED, "The patient pressed deny.", "Nothing to repair; the patient may try again."),
    line("oauth2:grant:denied-by-server", ACCESS_DENIED, REFUSED, "The hospital's policy refused: no portal record, age, or rules for caregivers.", "Ask the hospital whether this person has an active portal account."),
    line("oauth2:grant:invalid-patient-id", ACCESS_DENIED, NO_RECORD, "The chosen record is not available to the person who signed in.", "The hospital can grant access to the record; the patient may choose another one."),
    line("oauth2:grant:authorized-representative-server-error", SERVER_ERROR, TROUBLE, "The look-up of the records this person may act for failed.", FIX_RETRY),
    line("oauth2:grant:unregistered-authorized-representatives-server", SERVER_ERROR, REFUSED, "The hospital has no server for caregivers' rights registered.", "Ask hospital IT to have it registered."),
    line("oauth2:grant:server-error", SERVER_ERROR, TROUBLE, "The authorization server failed.", FIX_RETRY),
    line("server-error", SERVER_ERROR, TROUBLE, "The authorization server failed.", FIX_RETRY),
    line("oauth2:grant:session-service:authentication:cancelled", ACCESS_DENIED, CANCELLED, "The patient left the sign-in page.", "Nothing to repair; the patient may try again."),
    line("oauth2:grant:session-service:authentication:error", SERVER_ERROR, TROUBLE, "Signing in failed at the hospital's identity provider.", FIX_RETRY),
    line("preauthentication", PAGE, LOST, "The sign-in lost its session.", FIX_RESTART),
    line("smart-v1:grant:launch:audience-required", INVALID_REQUEST, SETUP, "The request had no `aud`.", "Switch sending of `aud` on in the vendor profile."),
    line("smart-v1:grant:launch:unknown-resource-server", INVALID_REQUEST, SETUP, "`aud` is not the FHIR base URL of this tenant.", FIX_BASE),
    line("smart-v1:grant:launch:audience-not-white-listed", INVALID_REQUEST, SETUP, "`aud` is not a FHIR base URL that the registration may use.", FIX_BASE),
    line("smart-v1:grant:launch:unregistered-service", INVALID_REQUEST, SETUP, "`aud` names a service that is not registered for this tenant.", FIX_BASE),
    line("smart-v1:grant:launch:launch-code-required", INVALID_REQUEST, SETUP, "The scope `launch` was asked for without a launch value.", FIX_LAUNCH),
    line("smart-v1:grant:launch:code-required", INVALID_REQUEST, SETUP, "The scope `launch` was asked for without a launch value.", FIX_LAUNCH),
    line("smart-v1:grant:launch:invalid-code", INVALID_REQUEST, SETUP, "The launch value is used, too old or unknown.", FIX_LAUNCH),
    line("smart-v1:grant:launch:mismatchted-identity", ACCESS_DENIED, NO_RECORD, "Another user signed in than the one who opened the app.", FIX_LAUNCH),
    line("smart-v1:grant:launch:unsupported-version", SERVER_ERROR, REFUSED, "The tenant does not support this version of SMART launches.", FIX_RETRY),
    line("smart-v1:grant:launch:unspecified", SERVER_ERROR, TROUBLE, "The launch failed for a reason the EHR does not name.", FIX_RETRY),
    line("oauth2:token:unsupported-grant-type", &["unsupported_grant_type"], OURS_TOKEN, "The token endpoint does not know this grant type.", FIX_REPORT),
    line("oauth2:token:invalid-redirect-uri", INVALID_GRANT, SETUP_TOKEN, "The redirect URI is not the one of the authorization request; was the public URL changed in between?", FIX_RESTART),
    line("oauth2:token:code-invalid-or-expired", INVALID_GRANT, RESTART, "The authorization code was used already or is older than about a minute.", FIX_RESTART),
    line("oauth2:token:code:invalid", INVALID_GRANT, RESTART, "The authorization code is not valid.", FIX_RESTART),
    line("oauth2:token:code:client:mismatch", INVALID_GRANT, SETUP_TOKEN, "The authorization code belongs to another client id.", FIX_CREDENTIALS),
    line("oauth2:token:code:tenant:mismatch", INVALID_GRANT, SETUP_TOKEN, "The authorization code belongs to another tenant.", FIX_BASE),
    line("oauth2:token:code:tenant-invalid", INVALID_GRANT, SETUP_TOKEN, "The authorization code names a tenant that does not exist.", FIX_BASE),
    line("oauth2:token:code:tenant-terminated", INVALID_GRANT, NOT_ACTIVE_TOKEN, "The tenant was closed.", "Ask the hospital for its new FHIR base URL."),
    line("oauth2:token:invalid-tenant", INVALID_GRANT, NOT_ACTIVE_TOKEN, "The tenant in the token URL is wrong or not enabled.", FIX_BASE),
    line("oauth2:token:invalid-authorization-header", INVALID_CLIENT, SETUP_TOKEN, "The `Authorization` header was not accepted.", FIX_CREDENTIALS),
    line("oauth2:token:invalid-client-credentials", INVALID_CLIENT, SETUP_TOKEN, "The client secret or the client id is wrong.", FIX_CREDENTIALS),
    line("client-assertion:jwt-bearer:invalid-signature", INVALID_CLIENT, SETUP_TOKEN, "The signature of our assertion was not accepted: no key set registered, key set not reachable, or key not known there yet.", "Enter our JWKS URL in the system account of this client id and check that it can be reached from the internet."),
    line("oauth2:token:empty-scopes", INVALID_SCOPE, SETUP_TOKEN, "No scope was left: they are written for another SMART version than the registration's, or none of them is registered.", "Compare the SMART version and the ticked APIs of the registration with the EHR client's settings."),
    line("oauth2:token:patient-scope-requires-one-patient-id", INVALID_SCOPE, NO_PATIENT, "Patient scopes were asked for, but no patient was chosen.", "The patient must choose a record; check that `launch/patient` is registered."),
    line("oauth2:token:terminated-client", INVALID_CLIENT, SETUP_TOKEN, "The registration was switched off.", "Look at the app's state in the vendor's console."),
    line("oauth2:token:tenant-not-enabled-for-testing", INVALID_GRANT, SETUP_TOKEN, "The tenant is not enabled for testing.", FIX_TESTING),
    line("oauth2:token:client-not-enabled-for-testing", INVALID_GRANT, SETUP_TOKEN, "The client id is not enabled for testing.", FIX_TESTING),
    line("oauth2:token:invalid-testing-scenario", INVALID_GRANT, SETUP_TOKEN, "The testing scenario does not exist.", FIX_TESTING),
    line("oauth2:token:refresh-token:token-invalid", INVALID_GRANT, SIGN_IN, "The refresh token is revoked, suspended, unknown, or was not used for three months.", "The patient connects again; where the EHR offers a page about this error, it may restore a suspended permission."),
    line("oauth2:token:refresh-token:session-invalid", INVALID_GRANT, SIGN_IN, "The permission ended with the patient's session: it was given as online access.", "Set the registration's type of access to Offline, then let the patient connect again."),
    line("oauth2:token:refresh-token:tenant-terminated", INVALID_GRANT, NOT_ACTIVE_TOKEN, "The tenant was closed.", "Ask the hospital for its new FHIR base URL."),
    line("oauth2:resource-access:insufficient-scopes", &["insufficient_scope"], NOT_SHARED, "The token has no scope for these records.", "Compare the scopes asked for, granted and registered."),
    line("oauth2:resource-access:token-required", &["invalid_token"], OURS_TOKEN, "The request carried no token.", FIX_REPORT),
    line("oauth2:resource-access:tenant-mismatch", &["invalid_token"], SETUP_TOKEN, "The token belongs to another tenant than the FHIR base URL.", FIX_BASE),
];

/// The codes of RFC 6749, RFC 6750 and OpenID Connect, and what other vendors write; `None` stands for every stage.
#[rustfmt::skip]
pub const OAUTH_DIAGNOSES: &[(Option<Stage>, Diagnosis)] = &[
    (Some(Stage::Authorize), line("access_denied", ACCESS_DENIED, DENIED, "The patient, or the EHR for them, said no.", "Nothing to repair; the patient may try again.")),
    (None, line("access_denied", ACCESS_DENIED, REFUSED, "The EHR refused access.", "Ask the hospital why.")),
    (Some(Stage::Authorize), line("invalid_request", INVALID_REQUEST, OURS, "The EHR found the authorization request malformed; often `aud` is not what it expects.", FIX_BASE)),
    (None, line("invalid_request", INVALID_REQUEST, OURS_TOKEN, "The EHR found the token request malformed.", FIX_REPORT)),
    (Some(Stage::Authorize), line("unauthorized_client", UNAUTHORIZED, NOT_ACTIVE, "This client id may not do this at this hospital.", FIX_ACTIVATE)),
    (None, line("unauthorized_client", UNAUTHORIZED, NOT_ACTIVE_TOKEN, "This client id may not do this at this hospital.", FIX_ACTIVATE)),
    (None, line("unsupported_response_type", &["unsupported_response_type"], OURS, "The EHR does not offer the authorization code flow.", FIX_REPORT)),
    (None, line("unsupported_grant_type", &["unsupported_grant_type"], OURS_TOKEN, "The token endpoint does not know this grant type.", FIX_REPORT)),
    (Some(Stage::Authorize), line("invalid_scope", INVALID_SCOPE, SETUP, "A scope that was asked for is not registered, or not known to the EHR.", "Compare the SMART version and the scopes of the registration with the EHR client's settings.")),
    (None, line("invalid_scope", INVALID_SCOPE, SETUP_TOKEN, "A scope that was asked for is not registered, or not known to the EHR.", "Compare the SMART version and the scopes of the registration with the EHR client's settings.")),
    (None, line("server_error", SERVER_ERROR, TROUBLE, "The EHR's authorization server failed.", FIX_RETRY)),
    (None, line("temporarily_unavailable", &["temporarily_unavailable"], TROUBLE, "The EHR's authorization server is overloaded or being serviced.", FIX_RETRY)),
    (Some(Stage::Refresh), line("invalid_grant", INVALID_GRANT, SIGN_IN, "The refresh token is revoked, expired or unknown.", "The patient connects again.")),
    (None, line("invalid_grant", INVALID_GRANT, RESTART, "The authorization code was used already, is too old, or belongs to another redirect URI or client.", FIX_RESTART)),
    (None, line("invalid_client", INVALID_CLIENT, SETUP_TOKEN, "The EHR did not accept our proof of identity: wrong client id for this environment, key set not reachable, or wrong `aud`.", FIX_CREDENTIALS)),
    (None, line("redirect_uri_mismatch", PAGE, SETUP, "The redirect URI is not the registered one. EHRs show this on a page of their own, and nothing comes back.", FIX_REDIRECT)),
    (None, line("login_required", &["login_required"], CANCELLED, "Nobody is signed in at the EHR.", FIX_RESTART)),
    (None, line("interaction_required", &["interaction_required"], CANCELLED, "The EHR has to ask the patient something.", FIX_RESTART)),
    (None, line("consent_required", &["consent_required"], CANCELLED, "The EHR has to ask for the patient's consent.", FIX_RESTART)),
    (None, line("account_selection_required", &["account_selection_required"], CANCELLED, "The patient has to choose an account at the EHR.", FIX_RESTART)),
    (None, line("insufficient_scope", &["insufficient_scope"], NOT_SHARED, "The token has no scope for these records.", "Compare the scopes asked for, granted and registered.")),
    (None, line("invalid_token", &["invalid_token"], SIGN_IN, "The access token is expired or not known any more.", "It is refreshed by itself; if that fails, the patient connects again.")),
];

const UNKNOWN_AUTHORIZE: Diagnosis = line(
    "",
    PAGE,
    (WhoActs::HospitalIt, PatientText::DidNotWork, FailureCode::OauthCallbackFailed),
    "This answer is not in our tables.",
    "Give the code and the correlation id to the vendor's support.",
);
const UNKNOWN_TOKEN: Diagnosis = Diagnosis { code: FailureCode::TokenExchangeFailed, ..UNKNOWN_AUTHORIZE };
const UNKNOWN_RECORDS: Diagnosis = Diagnosis { code: FailureCode::SourceUnavailable, ..UNKNOWN_AUTHORIZE };

/// By the whole urn; else by its end, because the same cause turns up behind several beginnings.
pub(super) fn by_urn(suffix: &str) -> Option<&'static Diagnosis> {
    // Older lists write underscores.
    let suffix = suffix.replace('_', "-");
    let ends_with = |line: &&Diagnosis| {
        suffix.strip_suffix(line.name).is_some_and(|rest| rest.is_empty() || rest.ends_with(':'))
    };
    let exact = URN_DIAGNOSES.iter().find(|line| line.name == suffix);
    exact.or_else(|| URN_DIAGNOSES.iter().filter(ends_with).max_by_key(|line| line.name.len())).or_else(
        || {
            let not_enabled = "oauth2:grant:client-not-enabled";
            URN_DIAGNOSES.iter().find(|line| line.name == not_enabled && suffix.starts_with(not_enabled))
        },
    )
}

pub(super) fn by_oauth_code(code: &str, stage: Stage) -> Option<&'static Diagnosis> {
    let fits = |at: Option<Stage>| at.is_none_or(|at| at == stage);
    OAUTH_DIAGNOSES.iter().find(|(at, line)| line.name == code && fits(*at)).map(|(_, line)| line)
}

pub(super) const fn unknown(stage: Stage) -> &'static Diagnosis {
    match stage {
        Stage::Authorize => &UNKNOWN_AUTHORIZE,
        Stage::Token | Stage::Refresh => &UNKNOWN_TOKEN,
        Stage::Records => &UNKNOWN_RECORDS,
    }
}

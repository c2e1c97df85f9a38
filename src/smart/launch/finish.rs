//! The end of a launch: the code is exchanged, and who signed in is checked.

use super::{CallbackQuery, LaunchAttempt, LaunchFailure, Launcher, Origin};
use crate::clock::Timestamp;
use crate::crypto::Jws;
use crate::smart::ehr_error::{EhrError, FailureCode, Stage, WhoActs};
use crate::smart::id_token::{
    DEFAULT_SKEW, IdClaims, IdTokenError, IdTokenExpectations, select_key, validate,
};
use crate::smart::patient::{EhrPatientId, FhirUser, PatientQuestion, PatientResolution, resolve_patient};
use crate::smart::server::{EhrServer, Registration, TokenServer};
use crate::smart::token_response::{IdToken, TokenResponse};
use crate::smart::url::FhirBaseUrl;
use crate::smart::whose_record::ask;

/// A grant as it came, checked.
#[derive(Debug)]
pub struct Exchanged {
    /// The tokens and what goes with them.
    pub tokens: TokenResponse,
    /// When they came.
    pub received_at: Timestamp,
    /// Whose record it is, when the server said so. An app can be opened in an EHR without a chart.
    pub patient: Option<EhrPatientId>,
    /// What the FHIR server can be asked instead, with [`Launcher::ask_for_patient`].
    pub question: Option<PatientQuestion>,
    /// Who signed in.
    pub user: Option<FhirUser>,
    /// Where the access may be used.
    pub base: FhirBaseUrl,
    /// Where to refresh.
    pub token_server: TokenServer,
    /// Things staff should know although it worked.
    pub warnings: Vec<String>,
}

/// A launch that failed at its end.
#[derive(Debug)]
pub struct Unfinished {
    /// Why.
    pub failure: LaunchFailure,
    /// The grant, when it had come already. Nobody keeps it, so it is to be given back.
    pub unwanted: Option<Box<Unkept>>,
}

/// What came before a launch failed.
#[derive(Debug)]
pub struct Unkept {
    /// The tokens.
    pub tokens: TokenResponse,
    /// When they came.
    pub received_at: Timestamp,
    /// Whence.
    pub token_server: TokenServer,
}

impl From<LaunchFailure> for Unfinished {
    fn from(failure: LaunchFailure) -> Self {
        Self { failure, unwanted: None }
    }
}

impl Launcher {
    /// Finishes a launch: reads the EHR's answer, exchanges the code, checks the identity. The access token is not used:
    /// that is for who has put the grant on disk.
    pub async fn finish(
        &self,
        attempt: &LaunchAttempt,
        query: CallbackQuery,
        server: &EhrServer,
        registration: &Registration,
    ) -> Result<Exchanged, Unfinished> {
        if let Some(error) = &query.error {
            return Err(LaunchFailure::from_ehr(&EhrError::from_oauth(error), Stage::Authorize).into());
        }
        check_iss(attempt, query.iss.as_deref())?;
        let code = query.code.ok_or_else(|| {
            let staff = "The hospital's answer had neither a code nor an error. Who acts: hospital IT.";
            LaunchFailure::ours(FailureCode::OauthCallbackFailed, WhoActs::HospitalIt, staff.to_owned())
        })?;
        // The keys before the tokens: what comes with the tokens should be on disk soon. A server that does not give its keys
        // now, or not this one, is asked once more with the tokens in memory.
        if let Some(uri) = &attempt.jwks_uri {
            let _ = self.discoverer.keys(server, uri, false).await;
        }
        let exchanged = self.tokens.exchange(
            &attempt.token_server,
            registration,
            server.reach,
            &code,
            &attempt.verifier,
            &self.redirect_uri,
        );
        let tokens = exchanged.await.map_err(|failure| LaunchFailure::from_exchange(&failure))?;
        let received_at = self.clock.now();
        let mut warnings = Vec::new();
        let claims = match &tokens.id_token {
            Some(id_token) => {
                let checked =
                    self.check_identity(attempt, server, registration, id_token, &mut warnings).await;
                match checked {
                    Ok(claims) => claims,
                    Err(failure) => {
                        let token_server = attempt.token_server.clone();
                        let unwanted = Some(Box::new(Unkept { tokens, received_at, token_server }));
                        return Err(Unfinished { failure, unwanted });
                    }
                }
            }
            None => None,
        };
        let user = claims.and_then(|claims| claims.fhir_user);
        let resolution =
            resolve_patient(tokens.patient.as_ref(), user.as_ref(), server.profile.ask_for_patient);
        let (patient, question) = match (resolution, attempt.origin) {
            (PatientResolution::Known { id, .. }, _) => (Some(id), None),
            (PatientResolution::AskServer(question), Origin::ConnectPage { .. }) => (None, Some(question)),
            // An app that was opened without a chart is about nobody.
            (PatientResolution::AskServer(_), Origin::Ehr { .. }) | (PatientResolution::Missing, _) => {
                (None, None)
            }
        };
        let token_server = attempt.token_server.clone();
        let base = server.base.clone();
        Ok(Exchanged { tokens, received_at, patient, question, user, base, token_server, warnings })
    }

    /// Asks the FHIR server whose record a grant opens; the error is for staff. The grant must be on disk before: asking
    /// uses its access token.
    pub async fn ask_for_patient(
        &self,
        server: &EhrServer,
        exchanged: &Exchanged,
        question: &PatientQuestion,
    ) -> Result<EhrPatientId, String> {
        ask(self.tokens.outbound(), server, &exchanged.tokens.access_token, question).await
    }

    /// Believes an id token or refuses the launch. A key that nobody has published (seen at Oracle Health) is asked for
    /// once more; when it stays unknown the token's claims do not exist, but the grant, which came over TLS from the
    /// token endpoint itself, is not thrown away for it (OpenID Connect Core section 3.1.3.7, point 6).
    async fn check_identity(
        &self,
        attempt: &LaunchAttempt,
        server: &EhrServer,
        registration: &Registration,
        id_token: &IdToken,
        warnings: &mut Vec<String>,
    ) -> Result<Option<IdClaims>, LaunchFailure> {
        let refuse = |error: &dyn std::fmt::Display| {
            let staff = format!(
                "The hospital's sign-in statement (id token) was refused: {error}. Who acts: hospital IT."
            );
            LaunchFailure::ours(FailureCode::OauthCallbackFailed, WhoActs::HospitalIt, staff)
        };
        let jws = Jws::parse(id_token.expose()).map_err(|error| refuse(&error))?;
        let Some(uri) = &attempt.jwks_uri else {
            warnings.push("the server publishes no keys, so its id token was not used".to_owned());
            return Ok(None);
        };
        for again in [false, true] {
            let keys = match self.discoverer.keys(server, uri, again).await {
                Ok(keys) => keys,
                Err(failure) => {
                    warnings.push(format!(
                        "the server's keys could not be read ({failure}); its id token was not used"
                    ));
                    return Ok(None);
                }
            };
            let key = match select_key(&keys, &jws) {
                Ok(key) => key,
                Err(choice) if choice.is_worth_refetching() => continue,
                Err(choice) => return Err(refuse(&choice)),
            };
            let issuer = server.profile.issuer.expected(attempt.issuer.as_deref(), &server.base);
            let expected = IdTokenExpectations {
                client_id: attempt.token_server.client_id.as_deref().unwrap_or(&registration.client_id),
                issuer: &issuer,
                nonce: Some(&attempt.nonce),
                nonce_required: server.profile.nonce_required,
                fhir_base: &server.base,
                // What the server says of time is measured by its own clock.
                now: self.tokens.time_at(&attempt.token_server),
                skew: DEFAULT_SKEW,
            };
            let claims = validate(&jws, key, &expected);
            return claims.map(Some).map_err(|error: IdTokenError| refuse(&error));
        }
        warnings.push(
            "the id token is signed with a key that the server has not published; it was not used".to_owned(),
        );
        Ok(None)
    }
}

/// RFC 9207: when the server announces `iss`, it must be there and be right; when it comes unannounced, it must be right.
fn check_iss(attempt: &LaunchAttempt, iss: Option<&str>) -> Result<(), LaunchFailure> {
    let good = match (iss, &attempt.issuer) {
        (Some(iss), Some(issuer)) => iss == issuer,
        (Some(_), None) => true,
        (None, _) => !attempt.iss_parameter,
    };
    if good {
        return Ok(());
    }
    let staff = "The answer came from another authorization server than the patient was sent to (`iss`); \
                 its code was not used. Who acts: hospital IT.";
    Err(LaunchFailure::ours(FailureCode::OauthCallbackFailed, WhoActs::HospitalIt, staff.to_owned()))
}

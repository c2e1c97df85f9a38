//! The launch: from the patient's click to a checked token response.
//!
//! A launch attempt waits in the patient's own browser, sealed in a cookie, until the EHR sends the browser back. So an
//! attempt is bound to the browser that started it, survives a restart of ours, and a link that is only looked at leaves
//! nothing behind. What is kept here is which attempts were used: each is good once, for an hour.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::clock::{Clock, Timestamp};
use crate::crypto::{Jws, Random, base64url, from_base64url};
use crate::id::{ConnectionId, EhrClientId, PatientSessionId, SourceId};
use crate::smart::discoverer::{DiscoverFailure, Discoverer};
use crate::smart::ehr_error::{EhrError, FailureCode, PatientText, Stage, WhoActs, explain};
use crate::smart::id_token::{
    DEFAULT_SKEW, IdClaims, IdTokenError, IdTokenExpectations, select_key, validate,
};
use crate::smart::patient::{EhrPatientId, FhirUser, PatientResolution, resolve_patient};
use crate::smart::pkce::CodeVerifier;
use crate::smart::scopes::{LaunchMode, RESOURCE_TYPES, ScopeSet, choose};
use crate::smart::server::{EhrServer, Registration, TokenServer};
use crate::smart::token_response::{AuthorizationCode, IdToken, Nonce, OAuthError, State, TokenResponse};
use crate::smart::tokens::{TokenClient, TokenFailure};
use crate::smart::url::JwksUri;
use crate::store::{Change, Range, Reader, Store, StoreError, Table, Value as _, json_value};

/// The name under which an attempt is sealed into a cookie; not a table, but sealed like a row of one.
const ATTEMPT: Table<LaunchAttempt> = Table::new("launch_attempt.cookie");
/// Attempts that were used, by the digest of their state.
const USED: Table<UsedAttempt> = Table::new("used_attempts.v1");
/// The same by time, so that old ones can be cleared away.
const USED_BY_TIME: Table<()> = Table::new("used_attempts_by_time.v1");
/// Browsers drop a cookie of more than 4 KiB, name and attributes included, without a word.
const MOST_COOKIE: usize = 3_800;
/// Cookies of attempts begin with this, after the prefix that a secure origin adds.
pub const ATTEMPT_COOKIE: &str = "cg_launch_";

/// What is remembered of a launch from the redirect to the callback.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LaunchAttempt {
    /// The journey.
    pub session: PatientSessionId,
    /// Where the patient went. The code is exchanged there and nowhere else.
    pub source: SourceId,
    /// Our registration there.
    pub ehr_client: EhrClientId,
    /// What was asked for.
    pub requested: String,
    /// When the browser left.
    pub started_at: Timestamp,
    state: State,
    nonce: Nonce,
    verifier: CodeVerifier,
    token_server: TokenServer,
    issuer: Option<String>,
    jwks_uri: Option<JwksUri>,
    iss_parameter: bool,
}
json_value!(LaunchAttempt);

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct UsedAttempt {
    at: Timestamp,
    connection: ConnectionId,
    session: PatientSessionId,
}
json_value!(UsedAttempt);

/// A browser about to leave.
#[derive(Debug)]
pub struct Departure {
    /// Where to: the authorization endpoint with the request.
    pub location: String,
    /// The attempt's cookie: name without prefix, and value.
    pub cookie: (String, String),
}

/// What the EHR put into the callback's query.
#[derive(Debug, Clone, Default)]
pub struct CallbackQuery {
    /// `state`
    pub state: Option<State>,
    /// `code`
    pub code: Option<AuthorizationCode>,
    /// `error` and what goes with it.
    pub error: Option<OAuthError>,
    /// `iss` (RFC 9207)
    pub iss: Option<String>,
}

/// An attempt that came back for the first and only time.
#[derive(Debug)]
pub struct Returned {
    /// The attempt.
    pub attempt: LaunchAttempt,
    /// The id under which its outcome will be found.
    pub connection: ConnectionId,
}

/// A browser that came back without a usable attempt. Nothing was sent anywhere.
#[derive(Debug, thiserror::Error)]
pub enum StaleReturn {
    /// No attempt of this browser has this state: another browser, cleared cookies, a forged callback.
    #[error("no launch attempt of this browser has the state of the callback")]
    Unknown,
    /// The attempt is older than attempts live.
    #[error("the launch attempt is too old")]
    TooOld(PatientSessionId),
    /// The attempt was used already: a second click, the back button, a reload.
    #[error("the launch attempt was used already")]
    Repeated {
        /// The journey.
        session: PatientSessionId,
        /// Where the outcome of the first time is found.
        connection: ConnectionId,
    },
    /// The store.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// Why a launch came to nothing, three ways: for the patient, for staff, and (its code) for the app.
#[derive(Debug, Clone)]
pub struct LaunchFailure {
    /// The wire contract's code.
    pub code: FailureCode,
    /// What the patient reads.
    pub patient: PatientText,
    /// Who can do something.
    pub who: WhoActs,
    /// What staff read.
    pub staff: String,
    /// The EHR's number for it.
    pub correlation_id: Option<String>,
    /// The EHR's own page about it.
    pub more_information: Option<String>,
}

/// A grant as it came, checked.
#[derive(Debug)]
pub struct Exchanged {
    /// The tokens and what goes with them.
    pub tokens: TokenResponse,
    /// When they came.
    pub received_at: Timestamp,
    /// Whose record it is.
    pub patient: EhrPatientId,
    /// Where to refresh.
    pub token_server: TokenServer,
    /// Things staff should know although it worked.
    pub warnings: Vec<String>,
}

/// Takes patients through launches.
#[derive(Debug, Clone)]
pub struct Launcher {
    store: Store,
    discoverer: Discoverer,
    tokens: TokenClient,
    clock: Clock,
    random: Random,
    redirect_uri: String,
    attempt_lifetime: Duration,
}

impl Launcher {
    /// `redirect_uri` is ours as registered, to the letter.
    pub fn new(
        store: Store,
        discoverer: Discoverer,
        tokens: TokenClient,
        clock: Clock,
        random: Random,
        redirect_uri: String,
        attempt_lifetime: Duration,
    ) -> Self {
        Self { store, discoverer, tokens, clock, random, redirect_uri, attempt_lifetime }
    }

    /// The discovery this launcher uses.
    pub fn discoverer(&self) -> &Discoverer {
        &self.discoverer
    }

    /// How long an attempt lives.
    pub fn attempt_lifetime(&self) -> Duration {
        self.attempt_lifetime
    }

    /// Prepares a departure: discovery, scopes, state, nonce, PKCE. Stores nothing.
    pub async fn begin(
        &self,
        session: PatientSessionId,
        source: (SourceId, &EhrServer),
        client: (EhrClientId, &Registration),
    ) -> Result<Departure, LaunchFailure> {
        let ((source, server), (ehr_client, registration)) = (source, client);
        let found = self.discoverer.discover(server).await.map_err(|failure| cannot_discover(&failure))?;
        let token_server = TokenServer::choose(server, &found, registration).map_err(|reason| {
            setup_failure(format!("The token endpoint of this source is not usable: {reason}."))
        })?;
        let requested = match &registration.scopes {
            Some(scopes) => ScopeSet::parse(&scopes.join(" ")),
            None => choose(
                &RESOURCE_TYPES,
                registration.smart_version,
                found.scopes_supported.as_deref(),
                LaunchMode::Standalone,
                server.profile,
            ),
        };
        let attempt = LaunchAttempt {
            session,
            source,
            ehr_client,
            requested: requested.to_string(),
            started_at: self.clock.now(),
            state: State::new(self.random.token::<32>()),
            nonce: Nonce::new(self.random.token::<32>()),
            verifier: CodeVerifier::generate(&self.random),
            token_server,
            issuer: found.issuer.clone(),
            jwks_uri: found.jwks_uri.clone(),
            iss_parameter: found.iss_parameter_supported,
        };
        let mut location = found.authorization_endpoint.url().clone();
        {
            let mut query = location.query_pairs_mut();
            query
                .append_pair("response_type", "code")
                .append_pair("client_id", &registration.client_id)
                .append_pair("redirect_uri", &self.redirect_uri)
                .append_pair("scope", &attempt.requested)
                .append_pair("state", attempt.state.expose())
                .append_pair("code_challenge", &attempt.verifier.challenge())
                .append_pair("code_challenge_method", "S256")
                .append_pair("nonce", attempt.nonce.expose());
            if server.overrides.send_aud.unwrap_or(server.profile.send_aud) {
                query.append_pair("aud", &server.base.to_string());
            }
        }
        let place = self.place(&attempt.state);
        let sealed = self.store.vault().seal(ATTEMPT, &place, &attempt);
        let value = base64url(sealed.as_bytes());
        if value.len() > MOST_COOKIE {
            return Err(setup_failure(
                "The launch attempt is too large for a cookie: the source's addresses or its list of scopes are unusually \
                 long. Who acts: you (the clinic): list fewer scopes in the EHR client's `scopes`."
                    .to_owned(),
            ));
        }
        let name = format!("{ATTEMPT_COOKIE}{:x}_{}", attempt.started_at.seconds(), self.random.hex::<4>());
        Ok(Departure { location: location.into(), cookie: (name, value) })
    }

    /// What names the attempt of a callback, before it is known whether there is one.
    pub fn attempt_key(&self, query: &CallbackQuery) -> Option<[u8; 16]> {
        query.state.as_ref().map(|state| self.place(state))
    }

    /// Finds the attempt that a callback belongs to among the browser's cookies, and uses it up, durably, before anything
    /// is sent. `cookies` are names without prefix and values.
    pub async fn take_back(
        &self,
        query: &CallbackQuery,
        cookies: &[(String, String)],
    ) -> Result<Returned, StaleReturn> {
        let state = query.state.as_ref().ok_or(StaleReturn::Unknown)?;
        let place = self.place(state);
        // The state is part of what seals a cookie, so only the cookie of this very attempt opens.
        let opened = cookies.iter().find_map(|(_, value)| {
            self.store.vault().open_detached(ATTEMPT, &place, &from_base64url(value)?).ok()
        });
        let attempt = opened.ok_or(StaleReturn::Unknown)?;
        let now = self.clock.now();
        if now.since(attempt.started_at) > self.attempt_lifetime {
            return Err(StaleReturn::TooOld(attempt.session));
        }
        let used = UsedAttempt { at: now, connection: self.random.id(now), session: attempt.session };
        let oldest_kept = now.before(self.attempt_lifetime * 2);
        let connection = self
            .store
            .write(move |change| {
                if let Some(first) = change.get(USED, &place)? {
                    return Err(StaleReturn::Repeated {
                        session: first.session,
                        connection: first.connection,
                    });
                }
                clear_old(change, oldest_kept)?;
                change.put(USED, &place, &used);
                change.put(USED_BY_TIME, &time_key(used.at, &place), &());
                Ok(used.connection)
            })
            .await?;
        Ok(Returned { attempt, connection })
    }

    /// Notes under which connection an attempt's outcome is kept, when it is not the one foreseen, as part of that write.
    pub fn settle(
        &self,
        change: &mut Change<'_>,
        attempt: &LaunchAttempt,
        foreseen: ConnectionId,
        connection: ConnectionId,
    ) -> Result<(), StoreError> {
        if foreseen != connection {
            let place = self.place(&attempt.state);
            if let Some(used) = change.get(USED, &place)? {
                change.put(USED, &place, &UsedAttempt { connection, ..used });
            }
        }
        Ok(())
    }

    /// Finishes a launch: reads the EHR's answer, exchanges the code, checks the identity.
    pub async fn finish(
        &self,
        attempt: &LaunchAttempt,
        query: CallbackQuery,
        server: &EhrServer,
        registration: &Registration,
    ) -> Result<Exchanged, LaunchFailure> {
        if let Some(error) = &query.error {
            return Err(LaunchFailure::from_ehr(&EhrError::from_oauth(error), Stage::Authorize));
        }
        check_iss(attempt, query.iss.as_deref())?;
        let code = query.code.ok_or_else(|| {
            let staff = "The hospital's answer had neither a code nor an error. Who acts: hospital IT.";
            LaunchFailure::ours(FailureCode::OauthCallbackFailed, WhoActs::HospitalIt, staff.to_owned())
        })?;
        // The keys before the tokens: what comes with the tokens should be on disk a moment later.
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
                self.check_identity(attempt, server, registration, id_token, &mut warnings).await?
            }
            None => None,
        };
        let user: Option<&FhirUser> = claims.as_ref().and_then(|claims| claims.fhir_user.as_ref());
        let patient = match resolve_patient(tokens.patient.as_ref(), user, server.profile.ask_for_patient) {
            PatientResolution::Known { id, .. } => id,
            PatientResolution::AskServer(_) | PatientResolution::Missing => {
                return Err(no_patient(&warnings));
            }
        };
        Ok(Exchanged { tokens, received_at, patient, token_server: attempt.token_server.clone(), warnings })
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
                client_id: &registration.client_id,
                issuer: &issuer,
                nonce: Some(&attempt.nonce),
                nonce_required: server.profile.nonce_required,
                fhir_base: &server.base,
                now: self.clock.now(),
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

    /// Where a cookie of this state is sealed for, and where its use is noted.
    fn place(&self, state: &State) -> [u8; 16] {
        self.store.vault().digest(&[b"launch-state", state.expose().as_bytes()])
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

/// Clears a few entries that are too old to matter, with each new one, so that the table does not grow for ever.
fn clear_old(change: &mut Change<'_>, before: Timestamp) -> Result<(), StoreError> {
    for key in change.keys(USED_BY_TIME, &Range::of(b"").limit(8))? {
        let Some((time, place)) = key.split_at_checked(8) else { continue };
        let time = <[u8; 8]>::decode(time).map_or(0, u64::from_be_bytes);
        if time >= u64::try_from(before.millis()).unwrap_or(0) {
            break;
        }
        change.remove(USED, place);
        change.remove(USED_BY_TIME, &key);
    }
    Ok(())
}

fn time_key(at: Timestamp, place: &[u8; 16]) -> Vec<u8> {
    [&u64::try_from(at.millis()).unwrap_or(0).to_be_bytes()[..], place].concat()
}

impl LaunchFailure {
    /// A failure that the EHR named.
    pub fn from_ehr(error: &EhrError, stage: Stage) -> Self {
        let explanation = explain(error, stage);
        Self {
            code: explanation.code,
            patient: explanation.patient,
            who: explanation.who,
            staff: explanation.staff,
            correlation_id: error.correlation_id.clone(),
            more_information: error.error_uri.clone(),
        }
    }

    /// A failure that we name.
    pub fn ours(code: FailureCode, who: WhoActs, staff: String) -> Self {
        Self { code, patient: code.patient_text(), who, staff, correlation_id: None, more_information: None }
    }

    fn from_exchange(failure: &TokenFailure) -> Self {
        match failure {
            TokenFailure::Refused { error, .. } => Self::from_ehr(error, Stage::Token),
            TokenFailure::NoAnswer(_) | TokenFailure::NotOAuth { .. } => {
                let staff = format!(
                    "The hospital's token endpoint did not do its part: {failure}. The code may have been used up. \
                     Who acts: nobody at first, the patient can try again; hospital IT when it stays so."
                );
                Self::ours(FailureCode::SourceUnavailable, WhoActs::Nobody, staff)
            }
            TokenFailure::Unusable(_) => {
                let staff = format!("{failure}. Who acts: hospital IT.");
                Self::ours(FailureCode::TokenExchangeFailed, WhoActs::HospitalIt, staff)
            }
            TokenFailure::Signing(_) => {
                let staff = format!(
                    "This box could not sign its client assertion: {failure}. Who acts: you (the clinic)."
                );
                Self {
                    patient: PatientText::SetupProblem,
                    ..Self::ours(FailureCode::TokenExchangeFailed, WhoActs::Clinic, staff)
                }
            }
        }
    }
}

fn cannot_discover(failure: &DiscoverFailure) -> LaunchFailure {
    match failure {
        DiscoverFailure::NoAnswer(_) | DiscoverFailure::Status(500..) => {
            let staff = format!(
                "The source's SMART configuration could not be read: {failure}. Who acts: hospital IT when it stays so; \
                 check the base URL and this box's way to the internet."
            );
            LaunchFailure::ours(FailureCode::SourceUnavailable, WhoActs::HospitalIt, staff)
        }
        DiscoverFailure::Status(_) | DiscoverFailure::NotSmart(_) => setup_failure(format!(
            "The source's base URL leads to no usable SMART description: {failure}. Who acts: you (the clinic): \
             check the FHIR base URL."
        )),
    }
}

fn setup_failure(staff: String) -> LaunchFailure {
    LaunchFailure {
        patient: PatientText::SetupProblem,
        ..LaunchFailure::ours(FailureCode::SourceUnavailable, WhoActs::Clinic, staff)
    }
}

fn no_patient(warnings: &[String]) -> LaunchFailure {
    let mut staff = "The hospital gave access but did not say to whose record: no `patient` in the token response and no \
                     usable `fhirUser`. Who acts: you (the clinic): add `fhirUser` (and `openid`) to the app's scopes at \
                     the vendor."
        .to_owned();
    for warning in warnings {
        staff.push_str(" Also: ");
        staff.push_str(warning);
        staff.push('.');
    }
    LaunchFailure::ours(FailureCode::MissingPatientContext, WhoActs::Clinic, staff)
}

//! The launch: from the patient's click, or from the button inside the EHR, to a checked token response.
//!
//! A launch attempt waits in the user's own browser, sealed in a cookie, until the EHR sends the browser back. So an
//! attempt is bound to the browser that started it, survives a restart of ours, and a link that is only looked at leaves
//! nothing behind. What is kept here is which attempts were used: each is good once, for an hour.

mod attempts;
mod failure;
mod finish;
mod probe;

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::clock::{Clock, Timestamp};
use crate::crypto::{Random, base64url};
use crate::id::{EhrClientId, PatientSessionId, SourceId, WorkspaceId};
use crate::smart::discoverer::Discoverer;
use crate::smart::pkce::CodeVerifier;
use crate::smart::scopes::{LaunchMode, RESOURCE_TYPES, ScopeSet, choose, listed};
use crate::smart::server::{EhrServer, Registration, TokenServer};
use crate::smart::token_response::{AuthorizationCode, LaunchHandle, Nonce, OAuthError, State};
use crate::smart::tokens::TokenClient;
use crate::smart::url::JwksUri;
use crate::store::{Store, Table, json_value};

pub use attempts::{Landing, Returned, StaleReturn};
pub use failure::LaunchFailure;
pub use finish::{Exchanged, Unfinished, Unkept};
pub use probe::Probe;

use failure::{cannot_discover, setup_failure};

/// The name under which an attempt is sealed into a cookie; not a table, but sealed like a row of one.
const ATTEMPT: Table<LaunchAttempt> = Table::new("launch_attempt.cookie");
/// Browsers drop a cookie of more than 4 KiB, name and attributes included, without a word.
const MOST_COOKIE: usize = 3_800;
/// Cookies of attempts begin with this, after the prefix that a secure origin adds.
pub const ATTEMPT_COOKIE: &str = "cg_launch_";
/// The same for launches from inside an EHR, whose cookies must work in the EHR's frame.
pub const EHR_ATTEMPT_COOKIE: &str = "cg_ehr_launch_";

/// Where a launch begins, and to whom its outcome belongs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum Origin {
    /// On the connect page, in a patient's session.
    ConnectPage {
        /// The journey.
        session: PatientSessionId,
    },
    /// Inside the EHR. The app of this workspace learns what came of it.
    Ehr {
        /// The owner.
        workspace: WorkspaceId,
    },
}

/// What the EHR adds when it opens an app.
#[derive(Debug, Clone)]
pub struct EhrLaunch {
    /// The FHIR base URL, checked to be the source's, in the EHR's own spelling: that is the one it expects back.
    pub iss: String,
    /// To be given back as it is.
    pub launch: LaunchHandle,
}

/// What is remembered of a launch from the redirect to the callback.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LaunchAttempt {
    /// Where it began.
    #[serde(flatten)]
    pub origin: Origin,
    /// Where the browser went. The code is exchanged there and nowhere else.
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

/// How long launches may take, and what comes of them lasts.
#[derive(Debug, Clone, Copy)]
pub struct Lifetimes {
    /// From the departure to the way back.
    pub attempt: Duration,
    /// Of what an app can ask about a launch from inside an EHR.
    pub context: Duration,
}

/// Takes people through launches.
#[derive(Debug, Clone)]
pub struct Launcher {
    store: Store,
    discoverer: Discoverer,
    tokens: TokenClient,
    clock: Clock,
    random: Random,
    redirect_uri: String,
    lifetimes: Lifetimes,
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
        lifetimes: Lifetimes,
    ) -> Self {
        Self { store, discoverer, tokens, clock, random, redirect_uri, lifetimes }
    }

    /// The discovery this launcher uses.
    pub fn discoverer(&self) -> &Discoverer {
        &self.discoverer
    }

    /// How long an attempt lives.
    pub fn attempt_lifetime(&self) -> Duration {
        self.lifetimes.attempt
    }

    /// How long what came of a launch from inside an EHR is kept.
    pub fn context_lifetime(&self) -> Duration {
        self.lifetimes.context
    }

    /// Prepares a departure: discovery, scopes, state, nonce, PKCE. Stores nothing. `launch` goes with [`Origin::Ehr`].
    pub async fn begin(
        &self,
        origin: Origin,
        launch: Option<EhrLaunch>,
        source: (SourceId, &EhrServer),
        client: (EhrClientId, &Registration),
    ) -> Result<Departure, LaunchFailure> {
        let ((source, server), (ehr_client, registration)) = (source, client);
        let found = self.discoverer.discover(server).await.map_err(|failure| cannot_discover(&failure))?;
        let token_server = TokenServer::choose(server, &found, registration).map_err(|misfit| {
            setup_failure(format!("Nobody was sent to the hospital: {misfit}. Who acts: you (the clinic)."))
        })?;
        let mode = match &launch {
            None => LaunchMode::Standalone,
            Some(_) => LaunchMode::Ehr { online: found.knows_online_access() },
        };
        let requested = scopes_for(server, registration, found.scopes_supported.as_deref(), mode);
        let attempt = LaunchAttempt {
            origin,
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
            if server.overrides.send_aud.unwrap_or_else(|| server.profile.sends_aud_to(&server.base)) {
                let audience = launch.as_ref().map_or_else(|| server.base.to_string(), |one| one.iss.clone());
                query.append_pair("aud", &audience);
            }
            if let Some(launch) = &launch {
                query.append_pair("launch", launch.launch.expose());
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
        let prefix = if launch.is_some() { EHR_ATTEMPT_COOKIE } else { ATTEMPT_COOKIE };
        let name = format!("{prefix}{:x}_{}", attempt.started_at.seconds(), self.random.hex::<4>());
        Ok(Departure { location: location.into(), cookie: (name, value) })
    }

    /// What a patient of a source would be asked to share, and whether the server's own list of scopes was to be had.
    pub async fn wanted_scopes(&self, server: &EhrServer, registration: &Registration) -> (ScopeSet, bool) {
        let found = self.discoverer.discover(server).await.ok();
        let supported = found.as_ref().and_then(|found| found.scopes_supported.as_deref());
        (scopes_for(server, registration, supported, LaunchMode::Standalone), found.is_some())
    }

    /// Where a cookie of this state is sealed for, and where its use is noted.
    fn place(&self, state: &State) -> [u8; 16] {
        self.store.vault().digest(&[b"launch-state", state.expose().as_bytes()])
    }
}

fn scopes_for(
    server: &EhrServer,
    registration: &Registration,
    supported: Option<&[String]>,
    mode: LaunchMode,
) -> ScopeSet {
    match &registration.scopes {
        Some(scopes) => listed(scopes, mode),
        None => choose(&RESOURCE_TYPES, registration.smart_version, supported, mode, server.profile),
    }
}

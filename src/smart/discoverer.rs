//! Reading an EHR's discovery documents and keys, and keeping them as long as their headers allow.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use hyper::StatusCode;

use crate::clock::{Clock, Timestamp};
use crate::crypto::Jwks;
use crate::outbound::{Call, Outbound, OutboundError, Reply};
use crate::smart::discovery::{
    DiscoveryError, MAX_CAPABILITY_STATEMENT, MAX_SMART_CONFIGURATION, SmartConfiguration,
};
use crate::smart::server::EhrServer;
use crate::smart::skew::ClockSkews;
use crate::smart::url::{AuthorizationEndpoint, JwksUri, TokenEndpoint};
use crate::smart::vendors::DiscoveryStep;

/// How long a document without cache headers is kept, and the longest that headers can ask for.
const USUAL_LIFE: Duration = Duration::from_hours(1);
const LONGEST_LIFE: Duration = Duration::from_hours(24);
/// A key set is read again at most this often, whatever ids appear in tokens.
const KEYS_AT_MOST_EVERY: Duration = Duration::from_secs(5);
/// A box talks to hundreds of servers; more than this many documents means that something is wrong.
const MOST_KEPT: usize = 4_096;
const MAX_KEYS_BODY: usize = 256 * 1024;

/// Why nothing is known about a server.
#[derive(Debug, Clone, thiserror::Error)]
pub enum DiscoverFailure {
    /// It did not answer; it may later.
    #[error("the server did not answer: {0}")]
    NoAnswer(#[from] OutboundError),
    /// It answered with an error of its own; it may do better later.
    #[error("the server answered with status {0}")]
    Status(u16),
    /// It answered, but there is no usable SMART description.
    #[error("no usable SMART description was found: {0}")]
    NotSmart(DiscoveryError),
}

/// Reads and keeps documents. Clones share them.
#[derive(Debug, Clone)]
pub struct Discoverer {
    outbound: Outbound,
    clock: Clock,
    documents: Kept<SmartConfiguration>,
    keys: Kept<Jwks>,
    skews: ClockSkews,
}

type Kept<T> = Arc<Mutex<HashMap<String, KeptDocument<T>>>>;

#[derive(Debug)]
struct KeptDocument<T> {
    value: Arc<T>,
    read_at: Timestamp,
    good_until: Timestamp,
}

impl Discoverer {
    /// Calls through `outbound`.
    pub fn new(outbound: Outbound, clock: Clock) -> Self {
        Self {
            outbound,
            clock,
            documents: Kept::default(),
            keys: Kept::default(),
            skews: ClockSkews::default(),
        }
    }

    /// How far the clocks of the hosts asked are from ours.
    pub fn skews(&self) -> &ClockSkews {
        &self.skews
    }

    /// What the server says about itself, from memory while it is fresh.
    pub async fn discover(&self, server: &EhrServer) -> Result<Arc<SmartConfiguration>, DiscoverFailure> {
        let name = format!("{}|{:?}", server.base, server.overrides);
        if let Some(kept) = self.fresh(&self.documents, &name) {
            return Ok(kept);
        }
        self.discover_now(server).await
    }

    /// The same, asked anew: when an operator adds a source, or an endpoint turned out to be gone.
    pub async fn discover_now(&self, server: &EhrServer) -> Result<Arc<SmartConfiguration>, DiscoverFailure> {
        let name = format!("{}|{:?}", server.base, server.overrides);
        let mut last = DiscoverFailure::NotSmart(DiscoveryError::NotJson);
        for step in server.profile.discovery {
            match self.read(server, *step).await {
                Ok((mut found, life)) => {
                    apply_overrides(&mut found, server).map_err(DiscoverFailure::NotSmart)?;
                    return Ok(self.keep(&self.documents, name, found, life));
                }
                // A server in trouble is not a server without SMART: another document would only mislead.
                Err(failure @ DiscoverFailure::NoAnswer(_)) => return Err(failure),
                Err(failure @ DiscoverFailure::Status(status)) if status >= 500 || status == 429 => {
                    return Err(failure);
                }
                Err(failure) => last = failure,
            }
        }
        Err(last)
    }

    async fn read(
        &self,
        server: &EhrServer,
        step: DiscoveryStep,
    ) -> Result<(SmartConfiguration, Duration), DiscoverFailure> {
        let bad = |reason| DiscoverFailure::NotSmart(DiscoveryError::BadUrl { field: "base", reason });
        let url = step.url(&server.base).map_err(bad)?;
        let statement = step == DiscoveryStep::CapabilityStatement;
        let (media, limit) = if statement {
            ("application/fhir+json", MAX_CAPABILITY_STATEMENT)
        } else {
            ("application/json", MAX_SMART_CONFIGURATION)
        };
        let sent = self.clock.now();
        let call = Call::get(url.clone()).accept(media).at_most(limit);
        let reply = match self.outbound.send(call, server.reach).await {
            Err(OutboundError::TooLarge(_, limit)) => {
                return Err(DiscoverFailure::NotSmart(DiscoveryError::TooLarge { limit }));
            }
            other => other?,
        };
        self.skews.measure(&url, sent, &self.clock, &reply);
        if reply.status != StatusCode::OK {
            return Err(DiscoverFailure::Status(reply.status.as_u16()));
        }
        let parsed = if statement {
            SmartConfiguration::parse_capability_statement(&reply.body, &server.base)
        } else {
            SmartConfiguration::parse(&reply.body, &server.base)
        };
        Ok((parsed.map_err(DiscoverFailure::NotSmart)?, life_of(&reply)))
    }

    /// The server's keys. `again` reads them anew when they are older than a moment: a key can be used before it was
    /// published to us.
    pub async fn keys(
        &self,
        server: &EhrServer,
        uri: &JwksUri,
        again: bool,
    ) -> Result<Arc<Jwks>, DiscoverFailure> {
        let name = uri.as_str().to_owned();
        if let Some(kept) = self.fresh(&self.keys, &name)
            && (!again || self.read_recently(&name))
        {
            return Ok(kept);
        }
        let call = Call::get(uri.url().clone()).accept("application/json").at_most(MAX_KEYS_BODY);
        let reply = self.outbound.send(call, server.reach).await?;
        if reply.status != StatusCode::OK {
            return Err(DiscoverFailure::Status(reply.status.as_u16()));
        }
        let keys = Jwks::parse(&reply.body).ok_or(DiscoverFailure::NotSmart(DiscoveryError::NotJson))?;
        Ok(self.keep(&self.keys, name, keys, life_of(&reply)))
    }

    fn read_recently(&self, name: &str) -> bool {
        let kept = self.keys.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        kept.get(name).is_some_and(|document| self.clock.now().since(document.read_at) < KEYS_AT_MOST_EVERY)
    }

    fn fresh<T>(&self, kept: &Kept<T>, name: &str) -> Option<Arc<T>> {
        let kept = kept.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        let document = kept.get(name)?;
        (self.clock.now() < document.good_until).then(|| Arc::clone(&document.value))
    }

    fn keep<T>(&self, kept: &Kept<T>, name: String, value: T, life: Duration) -> Arc<T> {
        let value = Arc::new(value);
        let now = self.clock.now();
        let mut kept = kept.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        if kept.len() >= MOST_KEPT {
            kept.retain(|_, document| now < document.good_until);
        }
        if kept.len() < MOST_KEPT {
            let document =
                KeptDocument { value: Arc::clone(&value), read_at: now, good_until: now.after(life) };
            kept.insert(name, document);
        }
        value
    }
}

fn apply_overrides(found: &mut SmartConfiguration, server: &EhrServer) -> Result<(), DiscoveryError> {
    if let Some(url) = &server.overrides.authorize_url {
        let bad = |reason| DiscoveryError::BadUrl { field: "authorization_endpoint", reason };
        found.authorization_endpoint = AuthorizationEndpoint::parse(url).map_err(bad)?;
    }
    if let Some(url) = &server.overrides.token_url {
        let bad = |reason| DiscoveryError::BadUrl { field: "token_endpoint", reason };
        found.token_endpoint = TokenEndpoint::parse(url).map_err(bad)?;
    }
    Ok(())
}

/// How long an answer may be kept: `Cache-Control`, else an hour; never more than a day.
fn life_of(reply: &Reply) -> Duration {
    let Some(control) = reply.header("cache-control") else { return USUAL_LIFE };
    let mut life = USUAL_LIFE;
    for directive in control.split(',').map(|part| part.trim().to_ascii_lowercase()) {
        if directive == "no-store" || directive == "no-cache" {
            return Duration::ZERO;
        }
        if let Some(seconds) =
            directive.strip_prefix("max-age=").and_then(|text| text.trim_matches('"').parse().ok())
        {
            life = Duration::from_secs(seconds);
        }
    }
    life.min(LONGEST_LIFE)
}

//! One FHIR read with everything that can happen to it: tokens that end, servers that are busy, links that lead away.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use hyper::header::HeaderName;
use tokio::sync::Semaphore;
use url::Url;

use crate::crypto::Random;
use crate::events::history::RefreshedBy;
use crate::grants::{Access, AccessError, Grants};
use crate::id::{ConnectionId, SourceId};
use crate::outbound::{Call, Outbound, OutboundError, Reply};
use crate::records::pulls::PullSettings;

/// Why a page did not come.
#[derive(Debug, Clone, thiserror::Error)]
pub enum FetchFailure {
    /// The connection itself has no access: the whole pull ends.
    #[error("{0}")]
    Access(String),
    /// 403: the scope is missing, whatever was granted. Never a reason to refresh.
    #[error("the server forbids it (403)")]
    Forbidden,
    /// 404 or 410: the server does not have the type, or no longer the page.
    #[error("the server does not have it (404)")]
    NotThere,
    /// 400 or 422: another query may do.
    #[error("the server calls the query bad (400)")]
    BadQuery,
    /// The address is not below the FHIR base the token belongs to.
    #[error("the server's link leads away from its FHIR base URL; it was not followed")]
    Elsewhere,
    /// An answer came, but not what was asked for.
    #[error("{0}")]
    Content(String),
    /// Tried as often as it makes sense.
    #[error("given up after several tries: {0}")]
    GaveUp(String),
}

/// Reads below FHIR bases, a few requests at once to each source.
#[derive(Debug, Clone)]
pub struct Fetcher {
    outbound: Outbound,
    grants: Grants,
    random: Random,
    settings: PullSettings,
    sources: Arc<Mutex<HashMap<SourceId, Arc<Semaphore>>>>,
}

/// What to do with an answer.
enum Next {
    Done(Bytes),
    Fail(FetchFailure),
    Renew,
    Wait(Option<Duration>, String),
}

impl Fetcher {
    pub(super) fn new(outbound: Outbound, grants: Grants, random: Random, settings: PullSettings) -> Self {
        Self { outbound, grants, random, settings, sources: Arc::default() }
    }

    /// Reads an address below the connection's base.
    pub async fn below(&self, connection: ConnectionId, address: &str) -> Result<Bytes, FetchFailure> {
        let access = self.access(connection).await?;
        let url = access.base.join(address).map_err(|_| FetchFailure::Elsewhere)?;
        self.read(connection, access, url).await
    }

    /// Follows a page link as it came, if it stays below the base.
    pub async fn link(&self, connection: ConnectionId, link: &str) -> Result<Bytes, FetchFailure> {
        let access = self.access(connection).await?;
        let url =
            Url::parse(link).or_else(|_| access.base.resolve(link)).map_err(|_| FetchFailure::Elsewhere)?;
        self.read(connection, access, url).await
    }

    async fn access(&self, connection: ConnectionId) -> Result<Access, FetchFailure> {
        self.grants
            .access(connection, RefreshedBy::Pull)
            .await
            .map_err(|cause| FetchFailure::Access(cause.to_string()))
    }

    async fn read(
        &self,
        connection: ConnectionId,
        mut access: Access,
        url: Url,
    ) -> Result<Bytes, FetchFailure> {
        // Invariant: a token goes to its own FHIR base's origin and path only.
        if !access.base.covers(&url) {
            return Err(FetchFailure::Elsewhere);
        }
        let turns = self.turns(access.source);
        let mut renewed = false;
        let mut wait = self.settings.backoff;
        let mut last = String::new();
        for attempt in 0..self.settings.attempts {
            if attempt > 0 {
                access = self.access(connection).await?;
            }
            let mut answer = self.ask(&turns, &access, &url).await;
            if matches!(answer, Next::Renew) && !renewed {
                renewed = true;
                match self.grants.renew(connection, &access.token, RefreshedBy::Pull).await {
                    Ok(other) => access = other,
                    Err(AccessError::Rejected) => {
                        return Err(FetchFailure::GaveUp(
                            "the server rejects a fresh token (401)".to_owned(),
                        ));
                    }
                    Err(cause) => return Err(FetchFailure::Access(cause.to_string())),
                }
                answer = self.ask(&turns, &access, &url).await;
            }
            match answer {
                Next::Done(body) => return Ok(body),
                Next::Fail(failure) => return Err(failure),
                Next::Renew => {
                    return Err(FetchFailure::GaveUp("the server rejects a renewed token (401)".to_owned()));
                }
                Next::Wait(asked, cause) => {
                    last = cause;
                    // Up to a quarter more, so that several patients' pulls do not come back all at once.
                    let spread =
                        wait.mul_f64(f64::from(u8::try_from(self.random.below(256)).unwrap_or(0)) / 1024.0);
                    let pause = asked.unwrap_or(wait + spread).min(self.settings.longest_backoff);
                    tokio::time::sleep(pause).await;
                    wait = (wait * 2).min(self.settings.longest_backoff);
                }
            }
        }
        Err(FetchFailure::GaveUp(last))
    }

    async fn ask(&self, turns: &Semaphore, access: &Access, url: &Url) -> Next {
        let Ok(_turn) = turns.acquire().await else {
            return Next::Fail(FetchFailure::GaveUp("stopping".to_owned()));
        };
        let call = Call::get(url.clone())
            .accept("application/fhir+json")
            .authorization("Bearer", access.token.expose())
            .header(HeaderName::from_static("x-request-id"), &self.random.uuid())
            .at_most(self.settings.page_bytes);
        match self.outbound.send(call, access.reach).await {
            Ok(reply) => judge(&reply),
            Err(OutboundError::TooLarge(_, most)) => {
                Next::Fail(FetchFailure::Content(format!("the answer is larger than {most} bytes")))
            }
            Err(
                cause @ (OutboundError::AddressRefused(_)
                | OutboundError::BadUrl(_)
                | OutboundError::Untrusted(_)),
            ) => Next::Fail(FetchFailure::GaveUp(cause.to_string())),
            Err(
                cause @ (OutboundError::UnknownHost(_)
                | OutboundError::Unreachable(_)
                | OutboundError::TimedOut(_)
                | OutboundError::Broken(_)),
            ) => Next::Wait(None, cause.to_string()),
        }
    }

    fn turns(&self, source: SourceId) -> Arc<Semaphore> {
        let mut sources = self.sources.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        let most = self.settings.parallel_per_source;
        Arc::clone(sources.entry(source).or_insert_with(|| Arc::new(Semaphore::new(most))))
    }
}

fn judge(reply: &Reply) -> Next {
    match reply.status.as_u16() {
        200 if reply.body.is_empty() => Next::Wait(None, "the answer is empty".to_owned()),
        200 => Next::Done(reply.body.clone()),
        401 => Next::Renew,
        403 => Next::Fail(FetchFailure::Forbidden),
        404 | 410 => Next::Fail(FetchFailure::NotThere),
        400 | 422 => Next::Fail(FetchFailure::BadQuery),
        status @ (429 | 500 | 502..=504) => {
            let asked =
                reply.header("retry-after").and_then(|text| text.parse().ok()).map(Duration::from_secs);
            Next::Wait(asked, format!("the server answers with status {status}"))
        }
        status => Next::Fail(FetchFailure::Content(format!("the server answers with status {status}"))),
    }
}

//! One FHIR read with everything that can happen to it: tokens that end, servers that are busy, links that lead away.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use hyper::header::{ACCEPT, HeaderName};
use url::Url;

use crate::clock::Clock;
use crate::crypto::Random;
use crate::events::history::RefreshedBy;
use crate::grants::{Access, AccessError, Grants};
use crate::id::ConnectionId;
use crate::outbound::{Call, Outbound, OutboundError, Reply};
use crate::records::pace::{Pace, Paces};
use crate::records::pulls::PullSettings;

/// The media type of FHIR's JSON.
pub(super) const FHIR_JSON: &str = "application/fhir+json";

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
    /// 406: it has no such form of it.
    #[error("the server does not have it in the form that was asked for (406)")]
    NotAcceptable,
    /// The address is not below the FHIR base the token belongs to.
    #[error("the server's link leads away from its FHIR base URL; it was not followed")]
    Elsewhere,
    /// An answer came, but not what was asked for.
    #[error("{0}")]
    Content(String),
    /// 500, 502 or 504, each time: something among what was asked for may be more than it can give.
    #[error("the server fails at it (status {0})")]
    ServerError(u16),
    /// Tried as often as it makes sense.
    #[error("given up after several tries: {0}")]
    GaveUp(String),
    /// The server asks to be left alone for so long.
    #[error("the server asks to be left alone for a while")]
    Rest(Duration),
}

/// What to read.
#[derive(Debug, Clone)]
pub(super) enum Where {
    /// Below the base, by text.
    Below(String),
    /// Where a page link says, as it came.
    Link(String),
}

/// How to read it.
#[derive(Debug, Clone, Copy)]
pub(super) struct Wish<'a> {
    /// The media type.
    pub accept: &'a str,
    /// The largest answer, in bytes.
    pub most: usize,
    /// How often it is tried.
    pub tries: u32,
}

/// What came.
#[derive(Debug, Clone)]
pub(super) struct Fetched {
    pub body: Bytes,
    /// `Content-Type`, in lower case and without parameters.
    pub content_type: String,
}

/// Reads below FHIR bases, a few requests at once to each server.
#[derive(Debug, Clone)]
pub struct Fetcher {
    outbound: Outbound,
    grants: Grants,
    clock: Clock,
    random: Random,
    settings: PullSettings,
    paces: Arc<Paces>,
}

/// What to do with an answer.
enum Next {
    Done(Fetched),
    Fail(FetchFailure),
    Renew,
    Wait { asked: Option<Duration>, busy: bool, failure: FetchFailure },
}

impl Fetcher {
    pub(super) fn new(
        outbound: Outbound,
        grants: Grants,
        clock: Clock,
        random: Random,
        settings: PullSettings,
    ) -> Self {
        let paces = Arc::new(Paces::new(settings.clone()));
        Self { outbound, grants, clock, random, settings, paces }
    }

    /// A FHIR page, tried as often as is usual.
    pub(super) fn page(&self) -> Wish<'static> {
        Wish { accept: FHIR_JSON, most: self.settings.page_bytes, tries: self.settings.attempts }
    }

    /// The pace of a server.
    pub(super) fn pace(&self, origin: &str) -> Arc<Pace> {
        self.paces.at(origin)
    }

    pub(super) async fn read(
        &self,
        connection: ConnectionId,
        place: &Where,
        wish: Wish<'_>,
    ) -> Result<Fetched, FetchFailure> {
        let mut access = self.access(connection).await?;
        let url = match place {
            Where::Below(address) => access.base.join(address).map_err(|_| FetchFailure::Elsewhere)?,
            Where::Link(link) => Url::parse(link)
                .or_else(|_| access.base.resolve(link))
                .map_err(|_| FetchFailure::Elsewhere)?,
        };
        // Invariant: a token goes to its own FHIR base's origin and path only.
        if !access.base.covers(&url) {
            return Err(FetchFailure::Elsewhere);
        }
        let server = self.paces.at(access.base.origin());
        let mut renewed = false;
        let mut wait = self.settings.backoff;
        let mut last = FetchFailure::GaveUp("it was not asked".to_owned());
        for attempt in 0..wish.tries.max(1) {
            if attempt > 0 {
                // Up to a quarter more, so that several patients' pulls do not come back all at once.
                let spread =
                    wait.mul_f64(f64::from(u8::try_from(self.random.below(256)).unwrap_or(0)) / 1024.0);
                tokio::time::sleep((wait + spread).min(self.settings.longest_backoff)).await;
                wait = (wait * 2).min(self.settings.longest_backoff);
                access = self.access(connection).await?;
            }
            let mut answer = self.ask(&server, &access, &url, wish).await;
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
                answer = self.ask(&server, &access, &url, wish).await;
            }
            match answer {
                Next::Done(fetched) => {
                    server.ease();
                    return Ok(fetched);
                }
                Next::Fail(failure) => return Err(failure),
                Next::Renew => {
                    return Err(FetchFailure::GaveUp("the server rejects a renewed token (401)".to_owned()));
                }
                Next::Wait { asked, busy, failure } => {
                    if busy {
                        server.press(asked.map(|asked| asked.min(self.settings.longest_backoff)));
                    }
                    // Who asks for more than a pause gets it, and the pull's place goes to others meanwhile.
                    if let Some(asked) = asked.filter(|asked| *asked > self.settings.longest_backoff) {
                        return Err(FetchFailure::Rest(asked.min(self.settings.longest_rest)));
                    }
                    wait = asked.map_or(wait, |asked| wait.max(asked));
                    last = failure;
                }
            }
        }
        Err(last)
    }

    async fn access(&self, connection: ConnectionId) -> Result<Access, FetchFailure> {
        self.grants
            .access(connection, RefreshedBy::Pull)
            .await
            .map_err(|cause| FetchFailure::Access(cause.to_string()))
    }

    async fn ask(&self, pace: &Pace, access: &Access, url: &Url, wish: Wish<'_>) -> Next {
        let gave_up = |cause: &OutboundError| FetchFailure::GaveUp(cause.to_string());
        let Some(_turn) = pace.turn().await else {
            return Next::Fail(FetchFailure::GaveUp("stopping".to_owned()));
        };
        let call = Call::get(url.clone())
            .header(ACCEPT, wish.accept)
            .authorization("Bearer", access.token.expose())
            .header(HeaderName::from_static("x-request-id"), &self.random.uuid())
            .at_most(wish.most);
        match self.outbound.send(call, access.reach).await {
            Ok(reply) => self.judge(&reply),
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
            ) => Next::Wait { asked: None, busy: true, failure: gave_up(&cause) },
        }
    }

    fn judge(&self, reply: &Reply) -> Next {
        let status = reply.status.as_u16();
        let again = |busy, failure| Next::Wait { asked: reply.retry_after(self.clock.now()), busy, failure };
        let said = || FetchFailure::GaveUp(format!("the server answers with status {status}"));
        match status {
            200 if reply.body.is_empty() => again(
                false,
                FetchFailure::Content("the answer is empty, also after several tries".to_owned()),
            ),
            200 => {
                let content_type = reply.header("content-type").unwrap_or_default();
                let content_type = content_type.split(';').next().unwrap_or_default().trim();
                Next::Done(Fetched {
                    body: reply.body.clone(),
                    content_type: content_type.to_ascii_lowercase(),
                })
            }
            401 => Next::Renew,
            403 => Next::Fail(FetchFailure::Forbidden),
            404 | 410 => Next::Fail(FetchFailure::NotThere),
            400 | 422 => Next::Fail(FetchFailure::BadQuery),
            406 => Next::Fail(FetchFailure::NotAcceptable),
            429 | 503 => again(true, said()),
            500 | 502 | 504 => again(false, FetchFailure::ServerError(status)),
            _ => Next::Fail(FetchFailure::Content(format!("the server answers with status {status}"))),
        }
    }
}

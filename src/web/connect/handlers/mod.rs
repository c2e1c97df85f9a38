//! The handlers of the patient's pages: what a link shows, where a patient is sent, how a patient comes back.
//!
//! A GET changes nothing, so link previews, mail scanners and second devices use nothing up. In direct mode a GET goes
//! on to the hospital, which stores nothing either: the attempt waits in the browser's cookie.

mod not_listed;
mod results;
mod start;
mod travel;

pub(in crate::web) use travel::{once, with_parameters};

use bytes::Bytes;
use hyper::header::{HeaderMap, HeaderValue, ORIGIN};
use hyper::{Method, StatusCode};

use crate::clock::Clock;
use crate::config::{Environment, PublicUrl};
use crate::crypto::Random;
use crate::directory::{Directory, SourceRequests};
use crate::grants::Grants;
use crate::http::{Answer, ConnectPage, Route};
use crate::id::ConnectionId;
use crate::records::Records;
use crate::smart::launch::{ATTEMPT_COOKIE, EHR_ATTEMPT_COOKIE};
use crate::store::{Store, StoreError};
use crate::web::connect::words::{ENGLISH, LaunchTrouble, Trouble};
use crate::web::errors::{ErrorPage, WayOn, error_page};
use crate::web::look::Branding;
use crate::workspaces::{PatientSession, SessionStatus, SessionToken, Sessions, Workspaces};

/// What the handlers use.
#[derive(Debug, Clone)]
pub struct Connect {
    /// The store, for reads that span rooms.
    pub store: Store,
    /// Now.
    pub clock: Clock,
    /// Reference codes.
    pub random: Random,
    /// Which environment a session belongs to.
    pub workspaces: Workspaces,
    /// Journeys.
    pub sessions: Sessions,
    /// Where to connect.
    pub directory: Directory,
    /// What patients miss there.
    pub requests: SourceRequests,
    /// Departures and arrivals.
    pub grants: Grants,
    /// What is arriving.
    pub records: Records,
    /// Our own address.
    pub public_url: PublicUrl,
    /// Who sent the link, as the patient knows them.
    pub clinic: String,
}

/// A browser's request, as far as pages need it.
#[derive(Debug)]
pub struct PageRequest {
    /// The method.
    pub method: Method,
    /// The query, without its `?`.
    pub query: Option<String>,
    /// Cookies, `Sec-Fetch-Site` and `Origin`.
    pub headers: HeaderMap,
    /// The whole body.
    pub body: Bytes,
}

impl PageRequest {
    pub(in crate::web) fn field(&self, name: &str) -> Option<String> {
        let pairs = url::form_urlencoded::parse(self.query.as_deref().unwrap_or_default().as_bytes());
        pairs.filter(|(known, _)| known == name).map(|(_, value)| value.into_owned()).last()
    }

    fn form_field(&self, name: &str) -> Option<String> {
        let pairs = url::form_urlencoded::parse(&self.body);
        pairs.filter(|(known, _)| known == name).map(|(_, value)| value.into_owned()).last()
    }

    /// The cookies of launch attempts, without the prefix of a secure origin, oldest first.
    fn attempts(&self, prefix: &str) -> Vec<(String, String)> {
        let mut found = Vec::new();
        for header in self.headers.get_all(hyper::header::COOKIE) {
            for cookie in header.to_str().unwrap_or_default().split(';') {
                let Some((name, value)) = cookie.trim().split_once('=') else { continue };
                if let Some(name) = name.strip_prefix(prefix).filter(|name| age(name).is_some()) {
                    found.push((name.to_owned(), value.to_owned()));
                }
            }
        }
        found.sort_by(|(one, _), (other, _)| age(one).cmp(&age(other)));
        found
    }

    /// Whether the page will stand inside another one.
    pub(in crate::web) fn is_in_frame(&self) -> bool {
        let text = self.headers.get("sec-fetch-dest").and_then(|value| value.to_str().ok());
        matches!(text, Some("iframe" | "frame" | "embed" | "object"))
    }
}

/// The part of an attempt's name that sorts by time: it is in hexadecimal of one length. `None` for other cookies.
fn age(name: &str) -> Option<&str> {
    name.strip_prefix(ATTEMPT_COOKIE).or_else(|| name.strip_prefix(EHR_ATTEMPT_COOKIE))
}

/// What stands in the way of a page.
#[derive(Debug)]
pub struct PageTrouble {
    /// Which.
    pub trouble: Trouble,
    /// A link on.
    pub next: Option<WayOn>,
    /// What the log should say, under the reference code on the page.
    pub cause: Option<String>,
    /// Of the session, when that is known.
    pub environment: Option<Environment>,
    /// The page may be shown inside another one, as EHRs show apps.
    pub in_frame: bool,
}

impl From<Trouble> for PageTrouble {
    fn from(trouble: Trouble) -> Self {
        Self { trouble, next: None, cause: None, environment: None, in_frame: false }
    }
}

impl From<LaunchTrouble> for PageTrouble {
    fn from(trouble: LaunchTrouble) -> Self {
        Self { in_frame: true, ..Trouble::from(trouble).into() }
    }
}

impl From<StoreError> for PageTrouble {
    fn from(error: StoreError) -> Self {
        Self { cause: Some(error.to_string()), ..Trouble::OurFault.into() }
    }
}

impl PageTrouble {
    fn status(&self) -> StatusCode {
        match self.trouble {
            Trouble::SessionExpired | Trouble::SessionFinished => StatusCode::GONE,
            Trouble::SessionNotFound | Trouble::NotFound | Trouble::Launch(LaunchTrouble::Unknown) => {
                StatusCode::NOT_FOUND
            }
            Trouble::StaleReturn
            | Trouble::OtherBrowser
            | Trouble::Launch(LaunchTrouble::Incomplete | LaunchTrouble::Stale | LaunchTrouble::Lost) => {
                StatusCode::BAD_REQUEST
            }
            Trouble::Launch(LaunchTrouble::NotReady | LaunchTrouble::Elsewhere) => StatusCode::FORBIDDEN,
            Trouble::HospitalSilent => StatusCode::BAD_GATEWAY,
            Trouble::TooLarge => StatusCode::PAYLOAD_TOO_LARGE,
            Trouble::TooSlow => StatusCode::REQUEST_TIMEOUT,
            Trouble::Busy => StatusCode::TOO_MANY_REQUESTS,
            Trouble::WrongMethod => StatusCode::METHOD_NOT_ALLOWED,
            Trouble::OurFault => StatusCode::INTERNAL_SERVER_ERROR,
        }
    }

    /// The page, with the branding that [`Connect::trouble_page`] gives it. What has a cause gets a reference code,
    /// which the log line with the cause carries too.
    fn into_answer(self, branding: Branding, random: &Random) -> Answer {
        let mut page = ErrorPage::of(self.trouble, &ENGLISH);
        let status = self.status();
        if let Some(cause) = self.cause {
            let reference = random.reference();
            tracing::warn!(%reference, cause, trouble = ?self.trouble, "page refused");
            page.reference = Some(reference.to_string());
        }
        page.branding = Some(branding);
        page.next = self.next;
        let answer = Answer::page(status, error_page(&page).into_string());
        if self.in_frame { answer.framable() } else { answer }
    }
}

/// A session with what its pages need.
struct Journey {
    session: PatientSession,
    environment: Environment,
    path: String,
}

impl Connect {
    /// Answers one of the pages behind a session's link.
    pub async fn handle(
        &self,
        token: SessionToken,
        page: ConnectPage,
        request: &PageRequest,
    ) -> Result<Answer, PageTrouble> {
        let journey = self.journey(token).await?;
        let answered = match page {
            ConnectPage::Start => self.start(&journey, request).await,
            ConnectPage::Leaving(source) => self.leaving(&journey, source).await,
            ConnectPage::Launch => self.launch(&journey, request).await,
            ConnectPage::Result(connection) => self.result(&journey, connection).await,
            ConnectPage::Progress(connection) => self.progress(&journey, connection).await,
            ConnectPage::NotListed => self.not_listed(&journey, request).await,
            ConnectPage::Done => self.done(&journey, request).await,
        };
        answered.map_err(|trouble| PageTrouble { environment: Some(journey.environment), ..trouble })
    }

    /// The page for what stands in the way. Without a session, what can be connected here tells whether it is practice.
    pub fn trouble_page(&self, trouble: PageTrouble) -> Answer {
        let practice =
            || if self.directory.only_practice() { Environment::Sandbox } else { Environment::Live };
        let branding = self.branding(trouble.environment.unwrap_or_else(practice));
        trouble.into_answer(branding, &self.random)
    }

    async fn journey(&self, token: SessionToken) -> Result<Journey, PageTrouble> {
        let session = self.sessions.by_token(token.clone()).await?.ok_or(Trouble::SessionNotFound)?;
        let workspace = self.workspaces.find(session.workspace).await?.ok_or(Trouble::SessionNotFound)?;
        let path = Route::Connect(token, ConnectPage::Start).path();
        Ok(Journey { session, environment: workspace.environment, path })
    }

    /// Only an open session starts anything; a finished one says so.
    fn must_be_open(&self, journey: &Journey) -> Result<(), PageTrouble> {
        match journey.session.status(self.clock.now()) {
            SessionStatus::Open => Ok(()),
            SessionStatus::Complete => Err(Trouble::SessionFinished.into()),
            SessionStatus::Expired => Err(Trouble::SessionExpired.into()),
        }
    }

    /// A form of ours comes from a page of ours.
    fn must_be_same_origin(&self, request: &PageRequest) -> Result<(), PageTrouble> {
        let text = |name: &str| request.headers.get(name).and_then(|value| value.to_str().ok());
        let origin = request.headers.get(ORIGIN).map(HeaderValue::as_bytes);
        let fits = match (text("sec-fetch-site"), origin) {
            // The browser's own word; a page cannot forge it.
            (Some(site), _) => site == "same-origin",
            (None, Some(origin)) => origin == self.public_url.origin().as_bytes(),
            // Neither a browser of these years nor a page that could have sent this for somebody.
            (None, None) => true,
        };
        if fits {
            return Ok(());
        }
        Err(PageTrouble {
            cause: Some("a form was sent from another origin".to_owned()),
            ..Trouble::NotFound.into()
        })
    }

    pub(in crate::web) fn branding(&self, environment: Environment) -> Branding {
        let mut branding = Branding::new(self.clinic.clone(), &ENGLISH);
        if environment == Environment::Sandbox {
            branding.environment_badge = Some(ENGLISH.practice_badge.to_owned());
        }
        branding
    }
}

pub(in crate::web) fn see_other(location: &str) -> Result<Answer, PageTrouble> {
    Answer::see_other(location).ok_or_else(|| PageTrouble {
        cause: Some("an address cannot be put into a header".to_owned()),
        ..Trouble::OurFault.into()
    })
}

fn result_path(journey_path: &str, connection: ConnectionId) -> String {
    format!("{journey_path}/result/{connection}")
}

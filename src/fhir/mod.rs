//! The live proxy: a standard FHIR R4 client with an API key reads one connection's record at the EHR, as it is there now.
//! Reading only; streamed; nothing is kept. Knows no pages and no routes.
//!
//! A request's way: the connection is the key's workspace's own → the address is one of FHIR R4 and the key may read it →
//! an access token from custody → a turn at the source → the EHR, asked once more with another token after a 401 → headers
//! by list, links turned to the proxy, body as it comes.

mod capability;
mod cors;
mod gunzip;
mod headers;
mod links;
mod refusal;
mod relay;
mod target;
mod turns;

use std::collections::HashMap;
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt as _, Limited};
use hyper::body::{Body as _, Incoming};
use hyper::header::{
    ACCEPT, ACCEPT_ENCODING, CONTENT_ENCODING, CONTENT_LENGTH, CONTENT_TYPE, HeaderMap, HeaderValue, LOCATION,
};
use hyper::{Method, Response, StatusCode};

use crate::body::Body;
use crate::clock::Clock;
use crate::events::history::RefreshedBy;
use crate::events::{Accesses, Interaction};
use crate::grants::{Access, Grants};
use crate::id::{ConnectionId, Id as _, WorkspaceId};
use crate::outbound::{Outbound, OutboundError, StreamCall};
use crate::smart::FhirBaseUrl;
use crate::workspaces::{Caller, KeyTypes, ResourceType};

use cors::Cors;
use headers::{Packing, Wish};
use links::{LinkMap, LinkStream};
use relay::{Bounds, Note, Relay};
use target::Target;
use turns::{Turn, Turns};

pub use refusal::{Refusal, outcome};

/// FHIR in JSON.
pub const FHIR_JSON: &str = "application/fhir+json";

/// An address longer than this is refused by common servers.
const LONGEST_QUERY: usize = 8000;
/// A CapabilityStatement is read whole; the largest seen are a few MB.
const LARGEST_STATEMENT: usize = 16 << 20;
/// How long a request may wait for its turn at the source.
const PATIENCE: Duration = Duration::from_secs(20);
/// The longest an answer may take in all while the app waits for it.
const LONGEST_ANSWER: Duration = Duration::from_hours(1);
/// How many connections' owners, and sources' links, are remembered; a number and a few hundred bytes each.
const REMEMBERED: usize = 100_000;

/// Settings of the proxy.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ProxySettings {
    /// Our own address, to which links lead.
    pub origin: String,
    /// How long the EHR may take until its answer begins, and between two pieces of it.
    pub timeout: Duration,
    /// The largest answer that is passed on.
    pub response_body: u64,
    /// Requests at the same time at one source.
    pub parallel_per_source: usize,
    /// Requests that may wait for their turn at one source.
    pub waiting_per_source: usize,
    /// Origins of web pages that may ask from a browser.
    pub cors_origins: Vec<String>,
}

/// The proxy. Clones share everything.
#[derive(Debug, Clone)]
pub struct Proxy(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    clock: Clock,
    outbound: Outbound,
    grants: Grants,
    accesses: Accesses,
    settings: ProxySettings,
    cors: Cors,
    turns: Turns,
    /// A connection never changes hands, so what was read once stays true.
    owners: RwLock<HashMap<ConnectionId, WorkspaceId>>,
    links: RwLock<HashMap<ConnectionId, Arc<LinkMap>>>,
}

/// A request to the proxy, from somebody with a good key.
#[derive(Debug)]
pub struct LiveRequest {
    /// Who.
    pub caller: Caller,
    /// The connection's id, as it stands in the path.
    pub connection: String,
    /// What follows it in the path, as it came: empty, or beginning with a slash.
    pub path: String,
    /// The query, as it came.
    pub query: Option<String>,
    /// The method.
    pub method: Method,
    /// The headers.
    pub headers: HeaderMap,
    /// The body of a POST.
    pub form: Bytes,
    /// Our number of this request.
    pub request_id: String,
}

/// What is sent to the EHR, for one token or another.
struct Question {
    target: Target,
    method: Method,
    query: Option<String>,
    form: Bytes,
    headers: HeaderMap,
}

impl Proxy {
    /// Over the parts it uses.
    pub fn new(
        settings: ProxySettings,
        outbound: Outbound,
        grants: Grants,
        accesses: Accesses,
        clock: Clock,
    ) -> Self {
        let turns = Turns::new(settings.parallel_per_source, settings.waiting_per_source, PATIENCE);
        let cors = Cors::new(settings.cors_origins.clone());
        Self(Arc::new(Inner {
            clock,
            outbound,
            grants,
            accesses,
            settings,
            cors,
            turns,
            owners: RwLock::default(),
            links: RwLock::default(),
        }))
    }

    /// The answer to a browser's question before a request from another origin's page.
    pub fn preflight(&self, asked: &HeaderMap) -> Response<Body> {
        self.0.cors.preflight(asked)
    }

    /// The request's origin, when its page may read answers.
    pub fn listed_origin(&self, asked: &HeaderMap) -> Option<HeaderValue> {
        self.0.cors.listed(asked)
    }

    /// Lets the page of that origin read an answer.
    pub fn open_to(&self, origin: Option<HeaderValue>, answer: &mut HeaderMap) {
        self.0.cors.decorate(origin, answer);
    }

    /// Reads live.
    pub async fn answer(&self, request: LiveRequest) -> Result<Response<Body>, Refusal> {
        let connection = ConnectionId::parse(&request.connection).map_err(|_| Refusal::UnknownConnection)?;
        if self.owner(connection).await? != Some(request.caller.workspace) {
            return Err(Refusal::UnknownConnection);
        }
        let place = self.0.accesses.place().await?;
        let target = Target::parse(&request.path);
        let note = Note {
            clock: self.0.clock.clone(),
            request: request.request_id.clone(),
            key: request.caller.key,
            workspace: request.caller.workspace,
            connection,
            interaction: target.as_ref().map_or(Interaction::Other, Target::interaction),
            kind: target.as_ref().map_or("none", Target::name),
            since: self.0.clock.now(),
            place: Some(place),
        };
        // Whatever is refused from here on is an access that was tried, and is noted like one.
        let mut note = Some(note);
        let answered = self.noted(connection, target, request, &mut note).await;
        if let (Err(refusal), Some(mut note)) = (&answered, note) {
            let status = refusal.status().as_u16();
            note.record(status);
            note.log(status, 0, "refused");
        }
        answered
    }

    /// The note is taken by whoever passes an answer on, and is written when that has ended.
    async fn noted(
        &self,
        connection: ConnectionId,
        target: Option<Target>,
        request: LiveRequest,
        note: &mut Option<Note>,
    ) -> Result<Response<Body>, Refusal> {
        let types = request.caller.fhir_types;
        let (mut question, wish) = Question::read(request, target)?;
        question.permit(types)?;
        if question.target == Target::SmartConfiguration {
            return Err(Refusal::NoSmart);
        }
        let access = self.0.grants.access(connection, RefreshedBy::Proxy).await?;
        let turn = self.0.turns.turn(access.source).await.map_err(|_| Refusal::Busy)?;
        if question.target == Target::Metadata {
            return self.metadata(connection, access, question, types, turn, note).await;
        }
        if question.method == Method::POST && !access.profile.post_search {
            question.by_address()?;
        }
        let (answer, base) = self.ask(connection, access, question).await?;
        self.pass_on(connection, &base, answer, wish, turn, note)
    }

    /// Asks the EHR. A token that it rejects is replaced once, out of the caller's sight.
    async fn ask(
        &self,
        connection: ConnectionId,
        access: Access,
        mut question: Question,
    ) -> Result<(Response<Incoming>, FhirBaseUrl), Refusal> {
        let mut answer = self.send(&access, &question).await?;
        if question.method == Method::POST && knows_no_search_by_form(answer.status()) {
            question.by_address()?;
            answer = self.send(&access, &question).await?;
        }
        if answer.status() != StatusCode::UNAUTHORIZED {
            return Ok((answer, access.base));
        }
        drop(answer);
        let access = self.0.grants.renew(connection, &access.token, RefreshedBy::Proxy).await?;
        let answer = self.send(&access, &question).await?;
        if answer.status() == StatusCode::UNAUTHORIZED {
            return Err(Refusal::Rejected);
        }
        Ok((answer, access.base))
    }

    async fn send(&self, access: &Access, question: &Question) -> Result<Response<Incoming>, Refusal> {
        let uri = question.target.uri(&access.base, question.query.as_deref()).ok_or(Refusal::BadQuery)?;
        let mut headers = question.headers.clone();
        headers::authorize(&mut headers, &access.token);
        let call = StreamCall {
            method: question.method.clone(),
            uri,
            headers,
            body: question.form.clone(),
            within: self.0.settings.timeout,
        };
        self.0.outbound.stream(call, access.reach).await.map_err(Refusal::Outbound)
    }

    /// The EHR's answer as the app gets it, errors of the EHR included.
    fn pass_on(
        &self,
        connection: ConnectionId,
        base: &FhirBaseUrl,
        answer: Response<Incoming>,
        wish: Wish,
        turn: Turn,
        note: &mut Option<Note>,
    ) -> Result<Response<Body>, Refusal> {
        let links = self.links(connection, base);
        let (head, body) = answer.into_parts();
        let mut headers = headers::to_app(&head.headers, &links);
        let moved = head.status.is_redirection() && head.status != StatusCode::NOT_MODIFIED;
        if head.status.is_informational() || moved && !headers.contains_key(LOCATION) {
            return Err(Refusal::Redirected);
        }
        let Some(note) = note.take() else { return Err(Refusal::Redirected) };
        let mut relay = Relay::new(body, self.bounds(), head.status.as_u16(), note, turn);
        let packing = headers::packing(&head.headers);
        let turned = wish.links && packing != Packing::Other && headers::is_json(&head.headers);
        let unpacked = packing == Packing::Gzip && (turned || !wish.gzip);
        // A HEAD has the headers of a body, and none.
        if unpacked {
            headers.remove(CONTENT_ENCODING);
            headers.remove(CONTENT_LENGTH);
            if !relay.is_end_stream() {
                relay = relay.unpacked();
            }
        }
        if turned {
            headers.remove(CONTENT_LENGTH);
            if !relay.is_end_stream() {
                relay = relay.turned(LinkStream::new(links));
            }
        }
        let mut response = Response::new(relay.boxed_unsync());
        *response.status_mut() = head.status;
        *response.headers_mut() = headers;
        Ok(response)
    }

    /// The CapabilityStatement, as it is true here. An error of the EHR passes as it is.
    async fn metadata(
        &self,
        connection: ConnectionId,
        access: Access,
        mut question: Question,
        types: KeyTypes,
        turn: Turn,
        note: &mut Option<Note>,
    ) -> Result<Response<Body>, Refusal> {
        question.method = Method::GET;
        question.headers.insert(ACCEPT, HeaderValue::from_static(FHIR_JSON));
        question.headers.insert(ACCEPT_ENCODING, HeaderValue::from_static("identity"));
        let (answer, base) = self.ask(connection, access, question).await?;
        if answer.status() != StatusCode::OK {
            let wish = Wish { links: true, gzip: false };
            return self.pass_on(connection, &base, answer, wish, turn, note);
        }
        let reading = Limited::new(answer.into_body(), LARGEST_STATEMENT).collect();
        let read = tokio::time::timeout(self.0.settings.timeout, reading).await;
        let host = || base.host().to_owned();
        let statement = read.map_err(|_| Refusal::Outbound(OutboundError::TimedOut(host())))?;
        let statement = statement.map_err(|_| Refusal::Outbound(OutboundError::Broken(host())))?.to_bytes();
        let own = self.own_base(connection);
        let may_read = |name: &str| ResourceType::parse(name).is_some_and(|one| types.include(one));
        let ours = capability::rewrite(&statement, &own, self.0.cors.is_open(), may_read);
        let ours = ours.ok_or(Refusal::BadCapability)?;
        if let Some(mut note) = note.take() {
            note.record(200);
            note.log(200, ours.len() as u64, "whole");
        }
        Ok(refusal::fhir_json(StatusCode::OK, ours))
    }

    fn bounds(&self) -> Bounds {
        let settings = &self.0.settings;
        Bounds { pause: settings.timeout, whole: LONGEST_ANSWER, bytes: settings.response_body }
    }

    async fn owner(&self, connection: ConnectionId) -> Result<Option<WorkspaceId>, Refusal> {
        let known = self.0.owners.read().unwrap_or_else(PoisonError::into_inner).get(&connection).copied();
        if known.is_some() {
            return Ok(known);
        }
        let found = self.0.grants.connection(connection).await?.map(|found| found.workspace);
        if let Some(workspace) = found {
            remember(&self.0.owners, connection, workspace);
        }
        Ok(found)
    }

    fn links(&self, connection: ConnectionId, base: &FhirBaseUrl) -> Arc<LinkMap> {
        let known = self.0.links.read().unwrap_or_else(PoisonError::into_inner).get(&connection).cloned();
        // A source's base may be corrected while the connection lives.
        if let Some(known) = known.filter(|known| known.leads_from(base)) {
            return known;
        }
        let fresh = Arc::new(LinkMap::new(base, &self.own_base(connection)));
        remember(&self.0.links, connection, Arc::clone(&fresh));
        fresh
    }

    fn own_base(&self, connection: ConnectionId) -> String {
        format!("{}/fhir/{connection}", self.0.settings.origin)
    }
}

impl Question {
    /// Reads what is asked. Only what reads is let through.
    fn read(request: LiveRequest, target: Option<Target>) -> Result<(Self, Wish), Refusal> {
        if ![Method::GET, Method::HEAD, Method::POST].contains(&request.method) {
            return Err(Refusal::Method);
        }
        let target = target.ok_or(Refusal::NotFhir)?;
        let attachment = target.name() == "Binary";
        let (headers, wish) = headers::to_ehr(&request.headers, attachment, &request.request_id);
        let question =
            Self { target, method: request.method, query: request.query, form: Bytes::new(), headers };
        if question.method == Method::POST {
            return Ok((question.by_form(&request.headers, &request.form)?, wish));
        }
        Ok((question, wish))
    }

    /// A key for some types gets these and no other: what can bring others along is refused.
    fn permit(&self, types: KeyTypes) -> Result<(), Refusal> {
        if types.is_all() {
            return Ok(());
        }
        match &self.target {
            Target::Metadata | Target::SmartConfiguration => return Ok(()),
            Target::Base => return Err(Refusal::TooWide),
            Target::Resource(resource) if !types.include(resource.resource_type) => {
                return Err(Refusal::TypeNotAllowed);
            }
            Target::Resource(resource) if resource.reaches_further() => return Err(Refusal::TooWide),
            Target::Resource(_) => {}
        }
        let query = self.query.as_deref().unwrap_or_default().as_bytes();
        if widens(query) || widens(&self.form) { Err(Refusal::TooWide) } else { Ok(()) }
    }

    /// A search by form. Parameters in the address belong to the search too (FHIR R4, "search"), but not every server
    /// reads them there.
    fn by_form(mut self, asked: &HeaderMap, form: &[u8]) -> Result<Self, Refusal> {
        const FORM: &str = "application/x-www-form-urlencoded";
        let Target::Resource(resource) = &self.target else { return Err(Refusal::Method) };
        resource.searched().ok_or(Refusal::Method)?;
        let kind = asked.get(CONTENT_TYPE).and_then(|kind| kind.to_str().ok()).unwrap_or_default();
        let kind = kind.split(';').next().unwrap_or_default().trim();
        // Without parameters there is nothing that would need a type.
        let untyped = kind.is_empty() && form.is_empty();
        if !(untyped || kind.eq_ignore_ascii_case(FORM)) {
            return Err(Refusal::NotForm);
        }
        let form = form.trim_ascii();
        let query = self.query.take().unwrap_or_default();
        let both = [form, query.as_bytes()].into_iter().filter(|part| !part.is_empty()).collect::<Vec<_>>();
        self.form = both.join(&b"&"[..]).into();
        self.headers.insert(CONTENT_TYPE, HeaderValue::from_static(FORM));
        Ok(self)
    }

    /// The same search by address, for servers that have no other.
    fn by_address(&mut self) -> Result<(), Refusal> {
        if let Target::Resource(resource) = &self.target {
            self.target = Target::Resource(resource.searched().ok_or(Refusal::Method)?);
        }
        let form = std::mem::take(&mut self.form);
        let query = std::str::from_utf8(&form).map_err(|_| Refusal::BadQuery)?;
        if query.len() > LONGEST_QUERY {
            return Err(Refusal::TooLong);
        }
        // In a form a plus is a space; in an address not every server reads it so.
        self.query = Some(query.replace('+', "%20"));
        self.method = Method::GET;
        self.headers.remove(CONTENT_TYPE);
        Ok(())
    }
}

/// Whether parameters can bring other types than the one that is searched (FHIR R4, "search").
fn widens(parameters: &[u8]) -> bool {
    const NAMES: [&str; 6] = ["_include", "_revinclude", "_contained", "_type", "_query", "_filter"];
    url::form_urlencoded::parse(parameters).any(|(name, value)| {
        let known = NAMES.contains(&name.split([':', '.']).next().unwrap_or_default());
        // Behind a separator that only some servers know.
        known || NAMES[..2].iter().any(|hidden| name.contains(hidden) || value.contains(hidden))
    })
}

/// What servers say that have no search by form.
fn knows_no_search_by_form(status: StatusCode) -> bool {
    matches!(status, StatusCode::NOT_FOUND | StatusCode::METHOD_NOT_ALLOWED | StatusCode::NOT_IMPLEMENTED)
}

/// Remembers something that can be found out again. When there is too much of it, all is forgotten.
fn remember<T>(memory: &RwLock<HashMap<ConnectionId, T>>, connection: ConnectionId, what: T) {
    let mut memory = memory.write().unwrap_or_else(PoisonError::into_inner);
    if memory.len() >= REMEMBERED {
        memory.clear();
    }
    memory.insert(connection, what);
}

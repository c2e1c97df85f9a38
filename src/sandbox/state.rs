//! What the hospital remembers: clients, codes, grants, tokens, seen assertions, cached client keys, and the log.
//! All of it lives in memory, behind one lock that is never held across an await.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::time::Duration;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::RegisteredClient;
use super::faults::Faults;
use crate::clock::Timestamp;
use crate::crypto::Jwks;

/// Entries of the log kept; older ones go.
const LOG_LIMIT: usize = 10_000;

/// How long a used code is remembered, so that its reuse is seen as such.
const DAY: Duration = Duration::from_hours(24);

/// How long a superseded refresh token is remembered, so that its reuse is seen as such.
const REUSE_SEEN: Duration = Duration::from_hours(24 * 90);

/// A number of a grant, shown on the page where grants are withdrawn.
pub(super) type GrantId = u64;

/// An authorization request that was found valid, waiting for a person.
#[derive(Debug, Clone)]
pub(super) struct Asked {
    pub client_id: String,
    pub redirect_uri: String,
    pub state: String,
    pub scopes: Vec<String>,
    pub challenge: String,
    pub nonce: Option<String>,
    /// EHR launch: who is logged in already, and what is open.
    pub launched_by: Option<Chart>,
}

/// One step of log-in or consent. The ticket is in a hidden field and good for one use.
#[derive(Debug, Clone)]
pub(super) struct Ticket {
    pub asked: Asked,
    /// Set once the person has logged in.
    pub username: Option<String>,
    pub expires_at: Timestamp,
}

/// What is open in the hospital's own system when it opens an app.
#[derive(Debug, Clone)]
pub(super) struct Chart {
    /// Who is logged in.
    pub username: String,
    /// Whose record is open.
    pub patient_id: String,
    /// The visit that is open.
    pub encounter: Option<String>,
    /// The Practitioner who is logged in; none in the patients' portal.
    pub clinician: Option<String>,
}

/// A started EHR launch.
#[derive(Debug, Clone)]
pub(super) struct Launch {
    pub client_id: String,
    pub chart: Chart,
    pub expires_at: Timestamp,
}

/// An authorization code.
#[derive(Debug, Clone)]
pub(super) struct Code {
    pub asked: Asked,
    pub username: String,
    pub patient_id: String,
    pub issued_at: Timestamp,
    pub used: CodeUse,
}

/// What has become of a code: it is good for one attempt of its own client, also when the attempt fails.
#[derive(Debug, Clone, Copy)]
pub(super) enum CodeUse {
    Unused,
    Failed,
    Redeemed(GrantId),
}

/// What a person agreed to.
#[derive(Debug, Clone)]
pub(super) struct Grant {
    pub client_id: String,
    pub username: String,
    pub patient_id: String,
    /// The EHR launch it came from.
    pub chart: Option<Chart>,
    pub scopes: Vec<String>,
    pub agreed_at: Timestamp,
    pub refreshed_at: Timestamp,
    /// How often it was refreshed.
    pub refreshes: u64,
    /// How many refresh tokens it has had; the newest one's number.
    pub generation: u64,
    /// How often a superseded refresh token was used, and how many of those uses a grace let pass.
    pub reuses: u64,
    pub graced: u64,
    /// Why it no longer holds.
    pub ended: Option<&'static str>,
}

/// A refresh token.
#[derive(Debug, Clone)]
pub(super) struct RefreshTokenEntry {
    pub grant: GrantId,
    /// Its number among its grant's, from one.
    pub generation: u64,
    /// Set once a newer one was given out.
    pub superseded: Option<Superseded>,
}

/// What is remembered of a refresh token that was replaced.
#[derive(Debug, Clone)]
pub(super) struct Superseded {
    pub at: Timestamp,
    /// It was let pass once since.
    pub graced: bool,
    /// What its use was answered with.
    pub answer: Option<Value>,
}

/// An access token.
#[derive(Debug, Clone)]
pub(super) struct AccessTokenEntry {
    pub grant: GrantId,
    pub scopes: Vec<String>,
    pub expires_at: Timestamp,
}

/// A client's key set as last fetched.
#[derive(Debug, Clone)]
pub(super) struct CachedJwks {
    pub keys: Jwks,
    pub fresh_until: Timestamp,
}

/// See `POST {control}/auto-approve`.
#[derive(Debug, Clone, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct AutoApprove {
    /// Who logs in; `null` ends auto-approval.
    pub username: Option<String>,
    /// Whose record, for people who may open more than one.
    #[serde(default)]
    pub patient: Option<String>,
    /// Resource types (`Observation`) or whole scopes that the person unticks.
    #[serde(default)]
    pub deny_scopes: Vec<String>,
    /// The person presses "Deny".
    #[serde(default)]
    pub deny: bool,
}

/// One line of `GET {control}/log`.
#[derive(Debug, Clone, Serialize)]
pub(super) struct LogEntry {
    pub at: String,
    pub kind: &'static str,
    pub method: String,
    pub path: String,
    pub peer: String,
    pub asked: Value,
    pub status: u16,
    pub result: &'static str,
    pub reason: String,
}

/// Everything that changes.
#[derive(Debug, Default)]
pub(super) struct State {
    pub clients: BTreeMap<String, RegisteredClient>,
    pub tickets: HashMap<String, Ticket>,
    pub launches: HashMap<String, Launch>,
    pub codes: HashMap<String, Code>,
    pub grants: BTreeMap<GrantId, Grant>,
    pub refresh_tokens: HashMap<String, RefreshTokenEntry>,
    pub access_tokens: HashMap<String, AccessTokenEntry>,
    /// When a `jti` of an issuer may be used again: after its assertion has ended.
    pub seen_jti: HashMap<(String, String), Timestamp>,
    pub jwks: HashMap<String, CachedJwks>,
    pub faults: Faults,
    pub auto_approve: Option<AutoApprove>,
    /// A `kid` that id tokens carry, and for how many fetches `/jwk` will not show it yet.
    pub late_kid: Option<(String, u32)>,
    pub log: VecDeque<LogEntry>,
    pub counters: BTreeMap<String, u64>,
    last_grant: GrantId,
    requests: u64,
}

impl State {
    pub(super) fn add_grant(&mut self, grant: Grant) -> GrantId {
        self.last_grant += 1;
        self.grants.insert(self.last_grant, grant);
        self.last_grant
    }

    /// Keeps a new refresh token of a grant.
    pub(super) fn add_refresh_token(&mut self, id: GrantId, token: String) {
        let Some(grant) = self.grants.get_mut(&id) else { return };
        grant.generation += 1;
        let entry = RefreshTokenEntry { grant: id, generation: grant.generation, superseded: None };
        self.refresh_tokens.insert(token, entry);
    }

    /// Ends a grant: its refresh tokens are refused from now on and its access tokens are gone.
    pub(super) fn end_grant(&mut self, id: GrantId, why: &'static str) {
        if let Some(grant) = self.grants.get_mut(&id) {
            grant.ended.get_or_insert(why);
        }
        self.access_tokens.retain(|_, token| token.grant != id);
    }

    pub(super) fn count(&mut self, name: &str) {
        *self.counters.entry(name.to_owned()).or_default() += 1;
    }

    pub(super) fn note(&mut self, entry: LogEntry) {
        if self.log.len() == LOG_LIMIT {
            self.log.pop_front();
        }
        self.log.push_back(entry);
    }

    /// Forgets what can no longer matter; called for every request, works for one in a thousand.
    pub(super) fn tidy(&mut self, now: Timestamp) {
        self.requests += 1;
        if !self.requests.is_multiple_of(1_000) {
            return;
        }
        self.tickets.retain(|_, ticket| ticket.expires_at > now);
        self.launches.retain(|_, launch| launch.expires_at > now);
        self.codes.retain(|_, code| code.issued_at.after(DAY) > now);
        self.access_tokens.retain(|_, token| token.expires_at > now);
        self.refresh_tokens.retain(|_, token| {
            token.superseded.as_ref().is_none_or(|since| since.at.after(REUSE_SEEN) > now)
        });
        self.seen_jti.retain(|_, until| *until > now);
    }
}

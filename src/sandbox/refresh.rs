//! Refreshes: rotation, the reuse of a superseded token, and the refusals that a switch asks for.
//! RFC 6749 section 6, RFC 9700 section 4.14.2.

use std::time::Duration;

use serde_json::Value;

use super::assertion::Refusal;
use super::faults::{GraceAnswer, Rotation};
use super::personality::Traits;
use super::state::{Grant, GrantId, State, Superseded};
use super::token::{Granted, Issue};
use super::web::Form;
use super::{RegisteredClient, Sandbox};
use crate::clock::Timestamp;

/// A refresh token unused for so long is dead (Oracle Health: three months).
const IDLE_LIMIT: Duration = Duration::from_hours(24 * 90);

const BAD_REFRESH_TOKEN: &str = "oauth2:token:refresh-token:token-invalid";

/// Turns a refusal by the book into this server's own.
fn in_own_words(traits: &Traits, refusal: Refusal) -> Refusal {
    if refusal.switched || refusal.error != "invalid_grant" {
        return refusal;
    }
    let (status, error) = traits.dead_refresh_token;
    Refusal::with_status(status, error, &refusal.urn, refusal.reason)
}

fn refuse(reason: impl Into<String>) -> Refusal {
    Refusal::new("invalid_grant", BAD_REFRESH_TOKEN, reason)
}

impl Sandbox {
    /// Decides about a refresh of an authenticated client.
    pub(super) fn refresh(
        &self,
        client: &RegisteredClient,
        form: &Form,
        now: Timestamp,
    ) -> Result<Granted, Refusal> {
        let decided = self.decide_refresh(client, form, now);
        decided.map_err(|refusal| in_own_words(self.personality.traits(), refusal))
    }

    fn decide_refresh(
        &self,
        client: &RegisteredClient,
        form: &Form,
        now: Timestamp,
    ) -> Result<Granted, Refusal> {
        let token = form
            .one("refresh_token")
            .ok_or_else(|| Refusal::new("invalid_request", BAD_REFRESH_TOKEN, "no refresh_token"))?;
        let mut state = self.state();
        let entry =
            state.refresh_tokens.get(token).cloned().ok_or_else(|| refuse("unknown refresh token"))?;
        let grant = state.grants.get(&entry.grant).cloned().ok_or_else(|| refuse("unknown grant"))?;
        if grant.client_id != client.client_id {
            return Err(refuse("the refresh token belongs to another client"));
        }
        if let Some(since) = &entry.superseded {
            check_reuse(&mut state, entry.grant, since, now)?;
        }
        if let Some(why) = grant.ended {
            return Err(refuse(format!("the grant has ended: {why}")));
        }
        refused_by_switch(&state, entry.grant, &grant, now)?;
        let late = entry.superseded.is_some();
        if late && let Some(answer) = use_grace(&mut state, token, entry.grant) {
            return Ok(Granted::Again(entry.grant, answer));
        }
        if grant.refreshed_at.after(IDLE_LIMIT) <= now {
            state.end_grant(entry.grant, "unused for three months");
            return Err(refuse("unused for three months"));
        }
        let scopes = wanted_scopes(&grant, form)?;
        let rotates = match state.faults.refresh_rotation {
            Some(rotation) => rotation == Rotation::Rotate,
            None => self.personality.traits().rotates,
        };
        let new_refresh_token = rotates && !state.faults.no_refresh_token;
        if new_refresh_token {
            supersede(&mut state, entry.grant, (!late).then_some(token), now);
        }
        if let Some(grant) = state.grants.get_mut(&entry.grant) {
            grant.refreshed_at = now;
            grant.refreshes += 1;
        }
        let replaces = (!late).then(|| token.to_owned());
        let grant = entry.grant;
        Ok(Granted::Issue(Issue {
            grant,
            scopes,
            id_token: None,
            new_refresh_token,
            replaces,
            switched: late,
        }))
    }
}

/// The use of a superseded token. Within its grace it may be let pass once. Else the grant ends: someone holds a copy,
/// and nobody knows who is the thief.
fn check_reuse(state: &mut State, id: GrantId, since: &Superseded, now: Timestamp) -> Result<(), Refusal> {
    let grace = state.faults.superseded_grace_seconds.map(Duration::from_secs);
    let passes = !since.graced && grace.is_some_and(|grace| since.at.after(grace) > now);
    if let Some(grant) = state.grants.get_mut(&id) {
        grant.reuses += 1;
    }
    if passes {
        return Ok(());
    }
    state.end_grant(id, "a replaced refresh token was used");
    Err(refuse("a replaced refresh token was used; the grant ends"))
}

/// Lets a superseded token pass: with its first answer, or with `None` for new tokens.
fn use_grace(state: &mut State, token: &str, id: GrantId) -> Option<Value> {
    if let Some(grant) = state.grants.get_mut(&id) {
        grant.graced += 1;
    }
    let same = state.faults.superseded_grace_answer == Some(GraceAnswer::Same);
    let since = state.refresh_tokens.get_mut(token)?.superseded.as_mut()?;
    since.graced = true;
    since.answer.clone().filter(|_| same)
}

/// What a suspension or the limit of refreshes says.
fn refused_by_switch(state: &State, id: GrantId, grant: &Grant, now: Timestamp) -> Result<(), Refusal> {
    if let Some(error) = state.faults.suspension(id, &grant.patient_id) {
        return Err(Refusal::switched(error, BAD_REFRESH_TOKEN, "suspended"));
    }
    let interval = state.faults.refresh_interval_seconds.map(Duration::from_secs);
    let early = interval.is_some_and(|interval| grant.refreshed_at.after(interval) > now);
    if grant.refreshes > 0 && early {
        let reason = "refreshed too soon again";
        let refusal = Refusal::with_status(429, "temporarily_unavailable", "server-error", reason);
        return Err(Refusal { switched: true, ..refusal });
    }
    Ok(())
}

fn wanted_scopes(grant: &Grant, form: &Form) -> Result<Vec<String>, Refusal> {
    let Some(wanted) = form.one("scope") else { return Ok(grant.scopes.clone()) };
    let wanted: Vec<String> = wanted.split_ascii_whitespace().map(str::to_owned).collect();
    match wanted.iter().find(|scope| !grant.scopes.contains(scope)) {
        Some(extra) => {
            let reason = format!("`{extra}` was not granted");
            Err(Refusal::new("invalid_scope", "oauth2:token:empty-scopes", reason))
        }
        None => Ok(wanted),
    }
}

/// Marks the used token as replaced, or, when a grace let an older one pass, whatever its first use had given out.
fn supersede(state: &mut State, grant: GrantId, used: Option<&str>, now: Timestamp) {
    let since = || Superseded { at: now, graced: false, answer: None };
    if let Some(used) = used {
        if let Some(entry) = state.refresh_tokens.get_mut(used) {
            entry.superseded = Some(since());
        }
        return;
    }
    for entry in state.refresh_tokens.values_mut().filter(|entry| entry.grant == grant) {
        entry.superseded.get_or_insert_with(since);
    }
}

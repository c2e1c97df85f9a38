//! Launches from inside an EHR: someone opens the app from a chart, the EHR sends the browser here, and from here it goes
//! through the EHR's authorization to the app.
//!
//! Nobody has to sign in before such a launch begins, so whatever a stranger could cause is paced.

use std::collections::HashMap;
use std::time::Duration;

use crate::clock::Timestamp;
use crate::directory::Source;
use crate::events::Incident;
use crate::grants::ending::Whose;
use crate::grants::grant::{self, Grant};
use crate::grants::launch_contexts::{LaunchContext, LaunchOutcome, Opened};
use crate::grants::{Connection, ConnectionStatus, FailureNote, Grants, lock};
use crate::id::{EhrClientId, LaunchContextId, SourceId, WorkspaceId};
use crate::smart::launch::Exchanged;
use crate::smart::scopes::ScopeSet;
use crate::smart::{Departure, EhrLaunch, LaunchAttempt, LaunchFailure, Origin};
use crate::store::StoreError;

/// Launches of one registration: a busy morning, and no more than the store can bear for ever.
const LAUNCHES: Pace = Pace { at_once: 200, each: Duration::from_millis(50) };
/// Incidents of failed launches; what is beyond is in the log only.
const INCIDENTS: Pace = Pace { at_once: 60, each: Duration::from_secs(1) };
/// A source in trouble is left alone for so long.
const REST: Duration = Duration::from_secs(5);
/// A departure that fails again within this time is the same failure.
const SAME_FAILURE: Duration = Duration::from_mins(1);

/// What became of a wish to leave for the EHR.
#[derive(Debug)]
pub enum EhrDeparture {
    /// The browser may go.
    Ready(Departure),
    /// It may not.
    Failed(Box<FailureNote>),
    /// There were too many.
    Busy,
}

/// What is remembered of launches that have begun, in memory only.
#[derive(Debug, Default)]
pub(super) struct Departures {
    launches: HashMap<EhrClientId, Timestamp>,
    incidents: Option<Timestamp>,
    /// The last failure of a source, and since when it is known.
    failed: HashMap<SourceId, (Timestamp, FailureNote)>,
}

impl Grants {
    /// Prepares a departure to the EHR that opened the app. Stores nothing, unless it fails.
    pub async fn begin_in_ehr(
        &self,
        workspace: WorkspaceId,
        source: &Source,
        launch: EhrLaunch,
    ) -> Result<EhrDeparture, StoreError> {
        let (id, ehr_client) = (source.id, source.ehr_client);
        let now = self.0.clock.now();
        {
            let mut departures = lock(&self.0.departures);
            let paced = departures.launches.entry(ehr_client).or_insert(now);
            if !LAUNCHES.let_through(paced, now) {
                return Ok(EhrDeparture::Busy);
            }
            if let Some((at, note)) = departures.failed.get(&id)
                && now.since(*at) < REST
            {
                return Ok(EhrDeparture::Failed(Box::new(note.clone())));
            }
        }
        let begun = match self.parties(id, ehr_client) {
            Some((server, registration)) => {
                let origin = Origin::Ehr { workspace };
                self.0.launcher.begin(origin, Some(launch), (id, &server), (ehr_client, &registration)).await
            }
            None => Err(LaunchFailure::source_gone()),
        };
        match begun {
            Ok(departure) => {
                lock(&self.0.departures).failed.remove(&id);
                Ok(EhrDeparture::Ready(departure))
            }
            Err(failure) => {
                let known = lock(&self.0.departures).failed.get(&id).map(|(_, note)| note.clone());
                let known =
                    known.filter(|note| note.code == failure.code && now.since(note.at) < SAME_FAILURE);
                let note = match known {
                    Some(note) => note,
                    None => self.note_failure(workspace, id, failure, now, None).await?,
                };
                lock(&self.0.departures).failed.insert(id, (now, note.clone()));
                Ok(EhrDeparture::Failed(Box::new(note)))
            }
        }
    }

    /// Keeps what came of a launch: context, connection and grant in one transaction, or the failure.
    pub(super) async fn keep_context(
        &self,
        workspace: WorkspaceId,
        id: LaunchContextId,
        attempt: &LaunchAttempt,
        outcome: Result<Exchanged, LaunchFailure>,
    ) -> Result<(), StoreError> {
        let now = self.0.clock.now();
        let source = attempt.source;
        let context = |outcome, life| LaunchContext {
            id,
            workspace,
            source,
            ehr_client: attempt.ehr_client,
            outcome,
            created_at: now,
            expires_at: now.after(life),
        };
        let exchanged = match outcome {
            Ok(exchanged) => exchanged,
            Err(failure) => {
                // Only a browser that comes twice asks for it, and that can happen while the attempt is remembered.
                let life = self.0.launcher.attempt_lifetime();
                let make = |note| context(LaunchOutcome::Failed(Box::new(note)), life);
                self.note_failure(workspace, source, failure, now, Some(&make)).await?;
                return Ok(());
            }
        };
        for warning in &exchanged.warnings {
            tracing::warn!(%source, warning, "launch finished with a warning");
        }
        let requested = ScopeSet::parse(&attempt.requested);
        let scopes = exchanged.tokens.scope.clone().unwrap_or_else(|| requested.clone());
        let grant = Grant::of(&exchanged);
        let texts = |set: &ScopeSet| set.iter().map(|scope| scope.as_str().to_owned()).collect::<Vec<_>>();
        let connection = exchanged.patient.clone().map(|patient| Connection {
            id: self.0.random.id(now),
            workspace,
            // Of nobody: the chart belongs to no patient of the app, and nothing of it is kept.
            patient: self.0.random.id(now),
            source,
            ehr_client: attempt.ehr_client,
            session: None,
            launch_context: Some(id),
            status: ConnectionStatus::Active,
            ehr_patient: Some(patient),
            requested_scopes: texts(&requested),
            scopes: texts(&scopes),
            failure: None,
            created_at: now,
            updated_at: now,
        });
        let opened = Opened {
            base: exchanged.base,
            patient: exchanged.patient,
            encounter: exchanged.tokens.encounter,
            user: exchanged.user,
            scope: scopes.to_string(),
            need_patient_banner: exchanged.tokens.need_patient_banner,
            intent: exchanged.tokens.intent,
            tenant: exchanged.tokens.tenant,
            smart_style_url: exchanged.tokens.smart_style_url,
            connection: connection.as_ref().map(|connection| connection.id),
        };
        let life = self.0.launcher.context_lifetime();
        let context = context(LaunchOutcome::Opened(Box::new(opened)), life);
        if connection.is_none() {
            // Without a chart there is nothing that the access could be used for.
            self.give_back(source, attempt.ehr_client, grant.clone(), Whose::Nobody);
        }
        let directory = self.0.directory.clone();
        self.0
            .store
            .write(move |change| {
                context.put(change);
                directory.verify_in(change, source, now, "an app was opened there")?;
                if let Some(connection) = &connection {
                    connection.put(change);
                    // Not in the index of what is due: it is renewed when it is used, and ends with its context.
                    grant::put(change, connection.id, &grant);
                }
                Ok::<_, StoreError>(())
            })
            .await
    }

    /// A failure in its three texts, under one reference: the note for the page, the incident for staff, the log line.
    async fn note_failure(
        &self,
        workspace: WorkspaceId,
        source: SourceId,
        failure: LaunchFailure,
        now: Timestamp,
        context: Option<&(dyn Fn(FailureNote) -> LaunchContext + Sync)>,
    ) -> Result<FailureNote, StoreError> {
        let reference = self.0.random.reference();
        let code = failure.code.as_str();
        let note = FailureNote {
            code: failure.code,
            at: now,
            reference,
            patient: failure.patient,
            who: failure.who,
            more_information: failure.more_information,
        };
        let kept = {
            let mut departures = lock(&self.0.departures);
            INCIDENTS.let_through(departures.incidents.get_or_insert(now), now)
        };
        let correlation_id = failure.correlation_id;
        if kept {
            tracing::warn!(%reference, %source, code, correlation_id, "launch from inside the EHR failed");
        } else {
            let (what, who) = (failure.staff.as_str(), failure.who.words());
            tracing::warn!(%reference, %source, code, correlation_id, what, who, "launch from inside the EHR failed");
        }
        let incident = Incident {
            reference,
            at: now,
            workspace: Some(workspace),
            source: Some(source),
            code: code.to_owned(),
            staff: failure.staff,
            who_acts: failure.who.words().to_owned(),
            correlation_id,
        };
        let context = context.map(|make| make(note.clone()));
        if kept || context.is_some() {
            self.0
                .store
                .write(move |change| {
                    if kept {
                        incident.put(change);
                    }
                    if let Some(context) = &context {
                        context.put(change);
                    }
                    Ok::<_, StoreError>(())
                })
                .await?;
        }
        Ok(note)
    }
}

/// Lets some through at once, and then one after the other.
struct Pace {
    at_once: u32,
    each: Duration,
}

impl Pace {
    /// Whether one more may pass at `now`. Everything that passed so far is forgotten at `until`.
    fn let_through(&self, until: &mut Timestamp, now: Timestamp) -> bool {
        // When the clock was set back, `until` may be far away.
        *until = (*until).clamp(now, now.after(self.each * self.at_once));
        let passes = until.since(now) + self.each <= self.each * self.at_once;
        if passes {
            *until = until.after(self.each);
        }
        passes
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_crowd_passes_at_once_and_a_flood_does_not() {
        let pace = Pace { at_once: 3, each: Duration::from_secs(10) };
        let start = Timestamp::from_seconds(1_000);
        let mut until = start;
        let mut passes = |after: u64| pace.let_through(&mut until, start.after(Duration::from_secs(after)));
        assert_eq!([passes(0), passes(0), passes(0), passes(0)], [true, true, true, false]);
        assert_eq!([passes(9), passes(10), passes(10)], [false, true, false]);
        assert_eq!([passes(100), passes(100), passes(100), passes(100)], [true, true, true, false]);
        // A clock that was set back does not shut the door for longer than the crowd takes.
        let mut ahead = start.after(Duration::from_hours(1));
        assert!(!pace.let_through(&mut ahead, start));
        assert!(pace.let_through(&mut ahead, start.after(Duration::from_secs(10))));
    }
}

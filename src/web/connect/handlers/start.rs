//! What a link shows: search and choose, and what happens next before leaving.

use std::sync::Arc;

use bytes::Bytes;
use hyper::{Method, StatusCode};

use super::results::{declined, done_label, gaps};
use super::travel::direct_return;
use super::{Connect, Journey, PageRequest, PageTrouble, see_other};
use crate::directory::{Found, Offer, Place, Source, own_site, usual_portal};
use crate::grants::{Connection, ConnectionStatus};
use crate::http::Answer;
use crate::id::SourceId;
use crate::smart::{FailureCode, FhirBaseUrl};
use crate::store::StoreError;
use crate::web::connect::pages::{
    ConnectedRow, Finder, LeavingPage, Retry, SourceCard, StartPage, leaving_page, results_fragment,
    start_page,
};
use crate::web::connect::words::{ENGLISH, NotYet, Trouble};
use crate::workspaces::{SessionMode, SessionStatus, Sessions};

/// At most this many cards on a page; who types a letter more sees fewer.
const MOST_CARDS: usize = 15;

impl Connect {
    pub(super) async fn start(
        &self,
        journey: &Journey,
        request: &PageRequest,
    ) -> Result<Answer, PageTrouble> {
        if journey.session.status(self.clock.now()) == SessionStatus::Complete {
            return see_other(&format!("{}/done", journey.path));
        }
        if let SessionMode::Direct(_) = journey.session.mode
            && journey.session.status(self.clock.now()) == SessionStatus::Expired
        {
            // There is no page of ours in direct mode: the app says what comes next, or makes a new session.
            return see_other(&direct_return(&journey.session, Err(FailureCode::SessionExpired)));
        }
        self.must_be_open(journey)?;
        if let SessionMode::Direct(source) = journey.session.mode {
            // A HEAD only looks.
            if request.method == Method::HEAD {
                return Ok(Answer::page(StatusCode::OK, Bytes::new()));
            }
            return self.depart(journey, source, request).await;
        }
        let query = request.field("q").unwrap_or_default();
        let connected = self.connected(journey).await?;
        let finder = self.finder(journey, &query, &connected);
        let branding = self.branding(journey.environment);
        if request.field("fragment").is_some() {
            let fragment = results_fragment(&journey.path, &finder, &branding);
            return Ok(Answer::page(StatusCode::OK, fragment.into_string()));
        }
        let page = StartPage {
            token_path: journey.path.clone(),
            can_finish: !connected.is_empty(),
            done_label: done_label(&journey.session),
            branding,
            finder,
            connected,
        };
        Ok(Answer::page(StatusCode::OK, start_page(&page).into_string()))
    }

    fn finder(&self, journey: &Journey, query: &str, connected: &[ConnectedRow]) -> Finder {
        let query: String = query.chars().take(200).collect();
        let asked = !query.trim().is_empty();
        let recommended = match &journey.session.mode {
            SessionMode::Picker(ids) => ids.iter().filter_map(|id| self.directory.source(*id)).collect(),
            SessionMode::Direct(_) => Vec::new(),
        };
        let mut found = Found::default();
        let mut suggested: Vec<SourceCard> = Vec::new();
        if asked {
            found = self.directory.find(journey.environment, &query, MOST_CARDS);
        } else {
            // Without a question: what the app recommends, else the sources that were added here.
            let own = || self.directory.for_patients(journey.environment);
            let shown: Vec<Arc<Source>> = if recommended.is_empty() { own() } else { recommended };
            let shown = shown.iter().take(MOST_CARDS);
            suggested.extend(shown.map(|source| card(source, self.directory.offer_of(source))));
        }
        let mut results: Vec<SourceCard> = found.places.iter().map(place_card).collect();
        for card in results.iter_mut().chain(&mut suggested) {
            card.connected = connected.iter().any(|row| row.source_id == card.source_id);
        }
        Finder {
            query,
            results: asked.then_some(results),
            more: found.more,
            portal: found.portal,
            recommended: suggested,
        }
    }

    /// What this session has connected so far, each source once.
    pub(super) async fn connected(&self, journey: &Journey) -> Result<Vec<ConnectedRow>, PageTrouble> {
        let id = journey.session.id;
        let connections = self
            .store
            .read(move |view| {
                let mut found = Vec::new();
                for (connection, _) in Sessions::attempts(view, id)? {
                    found.extend(Connection::find(view, connection)?);
                }
                Ok::<_, StoreError>(found)
            })
            .await?;
        let active =
            connections.into_iter().filter(|connection| connection.status == ConnectionStatus::Active);
        let rows = active.filter_map(|connection| {
            let source = self.directory.source(connection.source)?;
            let gaps = !gaps(&connection, None).is_empty();
            let sentence = if gaps { ENGLISH.row_gaps } else { ENGLISH.row_connected };
            Some(ConnectedRow {
                source_id: source.id.to_string(),
                name: source.name.clone(),
                logo: None,
                state_sentence: sentence.to_owned(),
                needs_attention: gaps,
            })
        });
        Ok(rows.collect())
    }

    pub(super) async fn leaving(&self, journey: &Journey, source: SourceId) -> Result<Answer, PageTrouble> {
        self.must_be_open(journey)?;
        let source = self.allowed(journey, source)?;
        let page = LeavingPage {
            token_path: journey.path.clone(),
            source_id: source.id.to_string(),
            name: source.name.clone(),
            logo: None,
            sign_in_host: self.grants.sign_in_host(&source).await,
            branding: self.branding(journey.environment),
            retry: self.retry(journey, source.id).await?,
        };
        Ok(Answer::page(StatusCode::OK, leaving_page(&page).into_string()))
    }

    /// Why the patient is here again, if so.
    async fn retry(&self, journey: &Journey, source: SourceId) -> Result<Option<Retry>, PageTrouble> {
        let id = journey.session.id;
        let last = self
            .store
            .read(move |view| {
                let mut last = None;
                for (connection, at) in Sessions::attempts(view, id)? {
                    let found = Connection::find(view, connection)?.filter(|found| found.source == source);
                    if let Some(found) = found
                        && last.as_ref().is_none_or(|(latest, _)| *latest <= at)
                    {
                        last = Some((at, found));
                    }
                }
                Ok::<_, StoreError>(last.map(|(_, connection)| connection))
            })
            .await?;
        Ok(last.and_then(|connection| match connection.status {
            ConnectionStatus::Active => {
                let missing = gaps(&connection, None);
                (!missing.is_empty()).then_some(Retry::Gaps(missing))
            }
            ConnectionStatus::Failed if declined(&connection) => Some(Retry::SaidNo),
            ConnectionStatus::Failed => Some(Retry::Failed),
            ConnectionStatus::Expired | ConnectionStatus::RefreshFailed => Some(Retry::AccessEnded),
            ConnectionStatus::Disconnected => None,
        }))
    }

    /// A source of the session's environment, and in direct mode only the chosen one.
    pub(super) fn allowed(&self, journey: &Journey, source: SourceId) -> Result<Arc<Source>, PageTrouble> {
        let fits = match journey.session.mode {
            SessionMode::Direct(only) => only == source,
            SessionMode::Picker(_) => true,
        };
        let found = self.directory.source_in(journey.environment, source).filter(|_| fits);
        // The app may send a patient to a hospital that is being tried out; a patient is not let choose one.
        let direct = matches!(journey.session.mode, SessionMode::Direct(_));
        let open = found.filter(|source| direct || self.directory.offer_of(source) == Offer::Open);
        open.ok_or_else(|| Trouble::NotFound.into())
    }
}

fn card(source: &Source, offer: Offer) -> SourceCard {
    SourceCard {
        source_id: source.id.to_string(),
        name: source.name.clone(),
        place: town([source.city.as_deref(), source.state.as_deref()]),
        portal: None,
        records_from: None,
        logo: None,
        connected: false,
        test: false,
        not_yet: not_yet(offer),
    }
}

fn place_card(place: &Place) -> SourceCard {
    // Two places of one name must be told apart; where the list knows no town, by whose web site they have.
    let unknown = place.city.is_none() && place.state.is_none() && place.list.is_some();
    let base = if unknown { FhirBaseUrl::parse(&place.base).ok() } else { None };
    let site = base.as_ref().and_then(own_site).map(str::to_owned);
    let usual = place.list.as_ref().and_then(|_| usual_portal(&place.vendor));
    SourceCard {
        source_id: place.source.to_string(),
        name: place.name.clone(),
        place: town([place.city.as_deref(), place.state.as_deref()]),
        portal: place.portal.clone().or_else(|| usual.map(str::to_owned)),
        records_from: place.brand.clone().or(site),
        logo: None,
        connected: false,
        test: false,
        not_yet: not_yet(place.offer),
    }
}

fn town(parts: [Option<&str>; 2]) -> Option<String> {
    let parts: Vec<&str> = parts.into_iter().flatten().collect();
    (!parts.is_empty()).then(|| parts.join(", "))
}

fn not_yet(offer: Offer) -> Option<NotYet> {
    match offer {
        Offer::Open => None,
        Offer::NotActivated => Some(NotYet::NotSwitchedOn),
        Offer::Asked => Some(NotYet::Asked),
        Offer::Refused | Offer::NoRegistration => Some(NotYet::NotOffered),
    }
}

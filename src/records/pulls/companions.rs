//! What the records of a patient name and what is read once each: attachments of documents, and the medications, people,
//! organizations and places that are referred to.

use serde::Serialize;

use crate::crypto::base64;
use crate::grants::{Connection, ConnectionStatus};
use crate::records::bundle::{Incoming, read_resource};
use crate::records::fetch::{FHIR_JSON, FetchFailure, Fetched, Where, Wish};
use crate::records::links::references;
use crate::records::plans::escaped;
use crate::records::pulls::page::BINARY;
use crate::records::pulls::progress::{self, Reference, TypeProgress};
use crate::records::pulls::report::{TypeReport, TypeState};
use crate::records::pulls::run::{Stop, Turn, all_of};
use crate::records::stored::{self, Kept, name_digest};
use crate::store::{Change, StoreError};

/// Things looked up in the store in one go.
const BATCH: usize = 256;
/// The media type of what is not said to be anything.
const UNKNOWN: &str = "application/octet-stream";

/// How one thing went.
enum Outcome {
    Came(Box<Incoming>),
    /// The server does not have it.
    NotThere,
    Forbidden,
    Failed(String),
}

impl Turn<'_> {
    /// Reads everything that was named, and what that names in turn.
    pub(super) async fn read_wanted(&self) -> Result<(), Stop> {
        let id = self.run.connection.id;
        let store = &self.run.pulls.0.store;
        loop {
            let (mut beyond, mut any) = (None, false);
            loop {
                let found = store.read(move |view| progress::wanted(view, id, beyond, BATCH)).await?;
                let (batch, last) = found;
                any |= !batch.is_empty();
                let more = batch.len() == BATCH;
                let reads: Vec<_> =
                    batch.into_iter().map(|(digest, one)| self.read_one(digest, one)).collect();
                all_of(reads, self.run.pulls.0.settings.parallel_per_source).await?;
                beyond = last;
                if !more {
                    break;
                }
            }
            if !any {
                return Ok(());
            }
        }
    }

    async fn read_one(&self, digest: [u8; 16], reference: Reference) -> Result<(), Stop> {
        self.may_go_on()?;
        let refused = self.is_refused(&reference.resource_type);
        let outcome = match &reference.attachment {
            _ if refused => Outcome::Forbidden,
            None => self.read_reference(&reference).await?,
            Some((address, content_type)) => {
                self.read_attachment(&reference.id, address, content_type.as_deref()).await?
            }
        };
        if matches!(outcome, Outcome::Forbidden) && reference.attachment.is_none() {
            self.refuse(&reference.resource_type);
        }
        self.note(digest, reference, outcome).await
    }

    async fn read_reference(&self, reference: &Reference) -> Result<Outcome, Stop> {
        let Reference { resource_type, id, .. } = reference;
        let place = Where::Below(format!("{resource_type}/{}", escaped(id)));
        let fetched = match self.fetch(&place, self.run.pulls.0.fetcher.page()).await? {
            Ok(fetched) => fetched,
            Err(failure) => return Ok(Outcome::of(&failure)),
        };
        Ok(match read_resource(&fetched.body, resource_type) {
            Ok(resource) if resource.id == *id && resource.owner.is_none() => {
                Outcome::Came(Box::new(resource))
            }
            Ok(_) => Outcome::Failed("the server answered with another resource".to_owned()),
            Err(cause) => Outcome::Failed(cause.to_string()),
        })
    }

    /// The bytes as they are, in the form that the document names; where the server has them as FHIR only, so.
    async fn read_attachment(
        &self,
        id: &str,
        address: &str,
        content_type: Option<&str>,
    ) -> Result<Outcome, Stop> {
        let place = if address.contains("://") {
            Where::Link(address.to_owned())
        } else {
            Where::Below(address.to_owned())
        };
        let settings = &self.run.pulls.0.settings;
        let content_type = content_type.map(str::trim).filter(|text| !text.is_empty());
        let accept = content_type.unwrap_or(FHIR_JSON);
        let wish = |accept| Wish { accept, most: settings.attachment_bytes, tries: settings.attempts };
        let mut fetched = self.fetch(&place, wish(accept)).await?;
        if matches!(fetched, Err(FetchFailure::NotAcceptable)) && accept != FHIR_JSON {
            fetched = self.fetch(&place, wish(FHIR_JSON)).await?;
        }
        Ok(match fetched {
            Ok(fetched) => as_binary(id, content_type, &fetched),
            Err(failure) => Outcome::of(&failure),
        })
    }

    /// Keeps what came and notes how it went, in one write.
    async fn note(&self, digest: [u8; 16], reference: Reference, outcome: Outcome) -> Result<(), Stop> {
        let (connection, now, marked) =
            (self.run.connection.clone(), self.run.pulls.0.clock.now(), self.marked);
        let vault = self.run.pulls.0.store.vault();
        let mut named = Vec::new();
        if let Outcome::Came(resource) = &outcome
            && resource.resource_type != BINARY
        {
            let found = references(resource.json.get(), &self.access.base, &self.referenced);
            for (kind, id) in found.into_iter().take(self.room()) {
                let digest = name_digest(vault, kind, &id);
                let resource_type = kind.to_owned();
                named.push((digest, Reference { resource_type, id, attachment: None, done: false }));
            }
        }
        let written = self.run.pulls.0.store.write(move |change| {
            let id = connection.id;
            let active = Connection::find(change, id)?.map(|known| known.status == ConnectionStatus::Active);
            if active != Some(true) || progress::begun(change, id)?.is_none() {
                return Ok(None);
            }
            let kind = reference.resource_type.clone();
            let known = progress::type_progress(change, id, &kind)?;
            let mut known =
                known.unwrap_or_else(|| TypeProgress::new(TypeReport::new(&kind, TypeState::Waiting)));
            let mut kept = 0;
            match outcome {
                Outcome::Came(resource) => {
                    let resources = vec![(digest, *resource)];
                    let done = stored::keep(change, connection.patient, id, now, resources, marked)?;
                    kept = usize::from(done != [Kept::Same]);
                    known.report.count += 1;
                    progress::count_stored(change, id, kept)?;
                }
                Outcome::NotThere => {
                    known.report.missing += 1;
                    known.report.because("the server no longer has some that records name (404)");
                }
                Outcome::Forbidden => {
                    known.report.missing += 1;
                    known.report.unreadable += 1;
                    known.report.because("the server forbids some (403)");
                }
                Outcome::Failed(why) => {
                    known.report.missing += 1;
                    known.report.unreadable += 1;
                    known.report.because(why);
                }
            }
            let noted = want_all(change, &connection, named)?;
            progress::done_with(change, id, digest, &reference);
            progress::put_type(change, id, &known);
            Ok::<_, StoreError>(Some((known, kept, noted)))
        });
        match written.await? {
            None => Err(Stop::Gone),
            Some((known, kept, noted)) => {
                self.wanted.fetch_add(noted, std::sync::atomic::Ordering::Relaxed);
                self.show(&known, kept);
                Ok(())
            }
        }
    }

    fn is_refused(&self, resource_type: &str) -> bool {
        self.refused.lock().unwrap_or_else(std::sync::PoisonError::into_inner).contains(resource_type)
    }

    fn refuse(&self, resource_type: &str) {
        self.refused
            .lock()
            .unwrap_or_else(std::sync::PoisonError::into_inner)
            .insert(resource_type.to_owned());
    }
}

fn want_all(
    change: &mut Change<'_>,
    connection: &Connection,
    named: Vec<([u8; 16], Reference)>,
) -> Result<usize, StoreError> {
    let mut noted = 0;
    for (digest, reference) in named {
        noted += usize::from(progress::want(change, connection.id, digest, &reference)?);
    }
    Ok(noted)
}

impl Outcome {
    fn of(failure: &FetchFailure) -> Self {
        match failure {
            FetchFailure::NotThere => Self::NotThere,
            FetchFailure::Forbidden => Self::Forbidden,
            FetchFailure::BadQuery
            | FetchFailure::NotAcceptable
            | FetchFailure::Access(_)
            | FetchFailure::Elsewhere
            | FetchFailure::Content(_)
            | FetchFailure::ServerError(_)
            | FetchFailure::Rest(_)
            | FetchFailure::GaveUp(_) => Self::Failed(failure.to_string()),
        }
    }
}

/// An attachment as the resource that it is kept as: the server's own, or one made of the bytes.
fn as_binary(id: &str, content_type: Option<&str>, fetched: &Fetched) -> Outcome {
    #[derive(Serialize)]
    #[serde(rename_all = "camelCase")]
    struct Binary<'b> {
        resource_type: &'static str,
        id: &'b str,
        content_type: &'b str,
        data: String,
    }
    if fetched.content_type == FHIR_JSON || fetched.content_type == "application/json" {
        match read_resource(&fetched.body, BINARY) {
            Ok(resource) if resource.id == id => return Outcome::Came(Box::new(resource)),
            Ok(_) => return Outcome::Failed("the server answered with another attachment".to_owned()),
            // A file may be JSON itself.
            Err(_) if content_type.is_some_and(|text| essence(text) == fetched.content_type) => {}
            Err(cause) => return Outcome::Failed(cause.to_string()),
        }
    }
    // A page that says something else than the file, such as a log-in page, is not the file.
    let expected = content_type.map(essence);
    let said = fetched.content_type.as_str();
    let same =
        expected.as_deref().is_none_or(|expected| expected == said || said.is_empty() || said == UNKNOWN);
    if !same && said == "text/html" {
        return Outcome::Failed("the server answered with a page instead of an attachment".to_owned());
    }
    let content_type = content_type.unwrap_or(if said.is_empty() { UNKNOWN } else { said });
    let binary = Binary { resource_type: BINARY, id, content_type, data: base64(&fetched.body) };
    let read = serde_json::value::to_raw_value(&binary).ok().and_then(|raw| Incoming::read(&raw));
    read.map_or_else(
        || Outcome::Failed("the attachment cannot be kept".to_owned()),
        |resource| Outcome::Came(Box::new(resource)),
    )
}

/// A media type without its parameters.
fn essence(text: &str) -> String {
    text.split(';').next().unwrap_or_default().trim().to_ascii_lowercase()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(content_type: Option<&str>, answered: &str, body: &str, expected: Result<&str, &str>) {
        let fetched =
            Fetched { body: bytes::Bytes::copy_from_slice(body.as_bytes()), content_type: answered.into() };
        match (as_binary("XR-1", content_type, &fetched), expected) {
            (Outcome::Came(resource), Ok(text)) => assert_eq!(resource.json.get(), text),
            (Outcome::Failed(why), Err(part)) => assert!(why.contains(part), "{why}"),
            (_, expected) => panic!("{answered} {body}: not {expected:?}"),
        }
    }

    #[test]
    fn an_attachment_is_kept_as_the_servers_resource_or_as_its_bytes() {
        let pdf =
            r#"{"resourceType":"Binary","id":"XR-1","contentType":"application/pdf","data":"JVBERg=="}"#;
        check(Some("application/pdf"), "application/pdf", "%PDF", Ok(pdf));
        check(Some("application/pdf"), "", "%PDF", Ok(pdf));
        let own = r#"{"resourceType":"Binary","id":"XR-1","meta":{"versionId":"3"},"data":"JVBERg=="}"#;
        check(Some("application/pdf"), FHIR_JSON, own, Ok(own));
        check(None, FHIR_JSON, r#"{"resourceType":"Binary","id":"XR-2"}"#, Err("another"));
        check(Some("application/pdf"), "text/html", "<html>log in</html>", Err("page"));
        let html =
            r#"{"resourceType":"Binary","id":"XR-1","contentType":"text/html; charset=utf-8","data":"PHA+"}"#;
        check(Some("text/html; charset=utf-8"), "text/html", "<p>", Ok(html));
        let json = r#"{"resourceType":"Binary","id":"XR-1","contentType":"application/json","data":"W10="}"#;
        check(Some("application/json"), "application/json", "[]", Ok(json));
        check(Some("application/pdf"), "application/json", "{", Err("JSON"));
    }
}

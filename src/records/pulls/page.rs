//! What came with one page: sorted out, and kept together with the progress that it makes, in one write.

use std::collections::HashSet;
use std::sync::atomic::Ordering;

use crate::grants::{Connection, ConnectionStatus};
use crate::records::bundle::Incoming;
use crate::records::links::{Place, attachments, place, references};
use crate::records::plans::attachment_hosts;
use crate::records::pulls::progress::{self, PageNote, Reference, TypeProgress};
use crate::records::pulls::report::{TypeReport, TypeState};
use crate::records::pulls::run::{Stop, Turn};
use crate::records::stored::{self, Kept, name_digest};
use crate::store::{Change, StoreError};

/// The type under which attachments are kept.
pub(super) const BINARY: &str = "Binary";

/// What came, on its way to the store.
pub(super) struct Came {
    resources: Vec<([u8; 16], Incoming)>,
    pub note: PageNote,
    /// The days of the matches.
    pub days: Vec<String>,
    /// What the resources name, with the place of the one that does.
    named: Vec<(usize, [u8; 16], Reference)>,
    known: HashSet<[u8; 16]>,
    files: Files,
    companions: Vec<(String, [u8; 16])>,
}

/// References and attachments of one page.
const MOST_NAMED: usize = 20_000;

/// Attachments that are not going to be read.
#[derive(Debug, Clone, Copy, Default)]
struct Files {
    on_demand: usize,
    elsewhere: usize,
    not_shared: usize,
}

/// Why a page was not kept.
enum Refused {
    /// The connection has ended.
    Ended,
    /// It was erased, or its pull is over.
    Gone,
}

impl Came {
    /// Looks into what came with a page. What was `seen` with another is not looked into again.
    pub(super) fn sort(
        turn: &Turn<'_>,
        resources: Vec<Incoming>,
        link: [u8; 16],
        seen: &HashSet<[u8; 16]>,
    ) -> Self {
        let vault = turn.run.pulls.0.store.vault();
        let mut came = Self {
            resources: Vec::with_capacity(resources.len()),
            note: PageNote { link, ..PageNote::default() },
            days: Vec::new(),
            named: Vec::new(),
            known: HashSet::new(),
            files: Files::default(),
            companions: Vec::new(),
        };
        for (at, mut resource) in resources.into_iter().enumerate() {
            let digest = name_digest(vault, &resource.resource_type, &resource.id);
            if resource.companion {
                came.note.companions.push(digest);
                came.companions.push((resource.resource_type.clone(), digest));
            } else {
                came.note.matches.push(digest);
                came.days.extend(resource.date.take());
            }
            if !seen.contains(&digest) {
                came.look_for_references(turn, at, &resource);
                came.look_for_attachments(turn, at, &resource);
            }
            came.resources.push((digest, resource));
        }
        came
    }

    fn look_for_references(&mut self, turn: &Turn<'_>, at: usize, resource: &Incoming) {
        let vault = turn.run.pulls.0.store.vault();
        for (kind, id) in references(resource.json.get(), &turn.access.base, &turn.referenced) {
            let digest = name_digest(vault, kind, &id);
            // What one page can name beyond this is no record's doing.
            if self.named.len() >= MOST_NAMED || !self.known.insert(digest) {
                continue;
            }
            let reference = Reference { resource_type: kind.to_owned(), id, attachment: None, done: false };
            self.named.push((at, digest, reference));
        }
    }

    fn look_for_attachments(&mut self, turn: &Turn<'_>, at: usize, resource: &Incoming) {
        let vault = turn.run.pulls.0.store.vault();
        let hosts = attachment_hosts(turn.access.profile);
        for file in attachments(&resource.resource_type, resource.json.get()) {
            match place(&file.url, &turn.access.base, hosts) {
                Place::OnDemand => self.files.on_demand += 1,
                Place::Elsewhere => self.files.elsewhere += 1,
                Place::Binary { .. } if !turn.attachments_shared => self.files.not_shared += 1,
                Place::Binary { .. } if self.named.len() >= MOST_NAMED => {}
                Place::Binary { id, address } => {
                    let digest = name_digest(vault, BINARY, &id);
                    let attachment = Some((address, file.content_type));
                    let resource_type = BINARY.to_owned();
                    self.named.push((at, digest, Reference { resource_type, id, attachment, done: false }));
                }
            }
        }
    }

    /// Keeps it all, with the progress that it is; how many records are new or changed.
    pub(super) async fn keep(self, turn: &Turn<'_>, progress: &TypeProgress) -> Result<usize, Stop> {
        let (connection, now) = (turn.run.connection.clone(), turn.run.pulls.0.clock.now());
        let (full, marked, room) = (turn.begun.full, turn.marked, turn.room());
        let progress = progress.clone();
        let companions = self.companions.clone();
        let written = turn.run.pulls.0.store.write(move |change| {
            let id = connection.id;
            // What was erased or disconnected while a page was on its way is not filled again.
            let active = Connection::find(change, id)?.map(|known| known.status == ConnectionStatus::Active);
            if active != Some(true) {
                return Ok(Err(active.map_or(Refused::Gone, |_| Refused::Ended)));
            }
            if progress::begun(change, id)?.is_none() {
                return Ok(Err(Refused::Gone));
            }
            let kept = stored::keep(change, connection.patient, id, now, self.resources, marked)?;
            let mut noted = 0;
            let mut left = 0;
            for (at, digest, reference) in self.named {
                // Nothing is looked up for what is not going to be read.
                if noted >= room {
                    left += 1;
                } else if !is_worth_reading(change, &connection, digest, &reference, kept[at], full)? {
                } else if progress::want(change, id, digest, &reference)? {
                    noted += 1;
                }
            }
            note_files(change, &connection, self.files, left)?;
            let count = kept.iter().filter(|kept| **kept != Kept::Same).count();
            progress::count_stored(change, id, count)?;
            let name = &progress.report.resource_type;
            progress::put_page(change, id, name, progress.pages, &self.note);
            progress::put_type(change, id, &progress);
            Ok::<_, StoreError>(Ok((count, noted)))
        });
        match written.await? {
            Ok((count, noted)) => {
                turn.wanted.fetch_add(noted, Ordering::Relaxed);
                let mut known = turn.companions();
                for (name, digest) in companions {
                    known.entry(name).or_default().insert(digest);
                }
                Ok(count)
            }
            Err(Refused::Ended) => Err(Stop::Access("the connection has ended".to_owned())),
            Err(Refused::Gone) => Err(Stop::Gone),
        }
    }
}

/// An attachment is read again only when its document has changed; what is referred to, whenever everything is.
fn is_worth_reading(
    change: &Change<'_>,
    connection: &Connection,
    digest: [u8; 16],
    reference: &Reference,
    named_by: Kept,
    full: bool,
) -> Result<bool, StoreError> {
    let again = if reference.attachment.is_some() { named_by != Kept::Same } else { full };
    Ok(again || !stored::is_kept(change, connection.id, digest)?)
}

/// Counts attachments that are not read, and says why.
fn note_files(
    change: &mut Change<'_>,
    connection: &Connection,
    files: Files,
    left: usize,
) -> Result<(), StoreError> {
    let Files { on_demand, elsewhere, not_shared } = files;
    if on_demand + elsewhere + not_shared + left == 0 {
        return Ok(());
    }
    let known = progress::type_progress(change, connection.id, BINARY)?;
    let state = if not_shared > 0 { TypeState::NotShared } else { TypeState::Waiting };
    let mut known = known.unwrap_or_else(|| TypeProgress::new(TypeReport::new(BINARY, state)));
    known.report.missing += on_demand + elsewhere + not_shared + left;
    if left > 0 {
        known.report.because("there are more attachments than are read in one pull");
    } else if not_shared > 0 {
        known.report.because("documents name attachments, but these were not shared");
    } else if elsewhere > 0 {
        known.report.because("some attachments are on another server; nothing was sent there");
    } else {
        known.report.because("some documents are made anew each time they are asked for; they are not kept");
    }
    progress::put_type(change, connection.id, &known);
    Ok(())
}

//! A list that comes piece by piece, from a network, a socket or the body of a request: read on a thread that may wait, as
//! fast as it comes and no faster than it is read, and watched from elsewhere.

use std::fmt::Display;
use std::io::{self, Read};
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use futures_util::{Stream, StreamExt as _};
use serde::Serialize;
use tokio::sync::mpsc;

use crate::directory::import::ImportLimits;
use crate::directory::{Directory, ImportRefused, ImportReport, ImportRequest};

/// Pieces between the sender and the reader of the list.
const PIECES: usize = 4;
/// The longest wait for the next piece.
const SILENCE: Duration = Duration::from_mins(1);

/// Where an import is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum ImportStage {
    /// The list comes in.
    Reading,
    /// It is compared with what is there, and written.
    Storing,
    /// The search is being built anew.
    Indexing,
    /// It is over.
    Done,
}

impl ImportStage {
    const ALL: [Self; 4] = [Self::Reading, Self::Storing, Self::Indexing, Self::Done];
}

/// How far an import is, for whoever watches it from elsewhere. Clones watch the same one.
#[derive(Debug, Clone, Default)]
pub struct ImportProgress(Arc<Counted>);

#[derive(Debug, Default)]
struct Counted {
    bytes: AtomicU64,
    stage: AtomicU8,
}

impl ImportProgress {
    /// Bytes that have come in, as they came: packed, if they are.
    pub fn bytes(&self) -> u64 {
        self.0.bytes.load(Ordering::Relaxed)
    }

    /// Where it is.
    pub fn stage(&self) -> ImportStage {
        let stage = usize::from(self.0.stage.load(Ordering::Acquire));
        ImportStage::ALL.get(stage).copied().unwrap_or(ImportStage::Done)
    }

    pub(super) fn enter(&self, stage: ImportStage) {
        self.0.stage.store(stage as u8, Ordering::Release);
    }
}

/// A list that somebody sends.
#[derive(Debug)]
pub struct Upload<P> {
    /// Its bytes; a piece that fails ends it.
    pub pieces: P,
    /// How many bytes were announced, where that is known: fewer are not the whole list.
    pub announced: Option<u64>,
    /// Where its progress is told.
    pub progress: ImportProgress,
}

impl Directory {
    /// Imports a list that is being sent. It is read while it comes, and whoever sends is held back by the reading; a
    /// sender that goes away, falls silent for a minute or sends more than the limits take changes nothing.
    pub async fn import_upload<P, E>(
        &self,
        request: ImportRequest,
        upload: Upload<P>,
        limits: ImportLimits,
    ) -> Result<ImportReport, ImportRefused>
    where
        P: Stream<Item = Result<Bytes, E>> + Unpin,
        E: Display,
    {
        let Upload { mut pieces, announced, progress } = upload;
        let counted = progress.clone();
        let (sender, receiver) = mpsc::channel(PIECES);
        let import = self.import_watched(request, PieceReader::new(receiver), limits, &progress);
        // The reader sees the end when this, and with it the sender, is gone.
        let forward = async move {
            // Packed bytes count too: a packing of nothing has no end.
            let most = announced.unwrap_or(limits.bytes).min(limits.bytes);
            let mut came = 0;
            loop {
                let piece = match tokio::time::timeout(SILENCE, pieces.next()).await {
                    Ok(Some(Ok(piece))) => Ok(piece),
                    Ok(Some(Err(error))) => Err(io::Error::other(error.to_string())),
                    Ok(None) if announced.is_none_or(|announced| came == announced) => return,
                    // The sender went away: what came so far is not the list.
                    Ok(None) | Err(_) => Err(io::ErrorKind::UnexpectedEof.into()),
                };
                let piece = piece.and_then(|piece| {
                    came += piece.len() as u64;
                    counted.0.bytes.store(came, Ordering::Relaxed);
                    if came > most { Err(io::Error::other("more bytes than are taken")) } else { Ok(piece) }
                });
                let failed = piece.is_err();
                // A list that was refused early is not read on.
                if sender.send(piece).await.is_err() || failed {
                    return;
                }
            }
        };
        let (imported, ()) = tokio::join!(import, forward);
        imported
    }
}

/// Reads the pieces one after the other.
#[derive(Debug)]
struct PieceReader {
    pieces: mpsc::Receiver<io::Result<Bytes>>,
    piece: Bytes,
}

impl PieceReader {
    /// Reads until the sender is gone.
    fn new(pieces: mpsc::Receiver<io::Result<Bytes>>) -> Self {
        Self { pieces, piece: Bytes::new() }
    }
}

impl Read for PieceReader {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        while self.piece.is_empty() {
            match self.pieces.blocking_recv() {
                Some(piece) => self.piece = piece?,
                None => return Ok(0),
            }
        }
        let count = into.len().min(self.piece.len());
        into[..count].copy_from_slice(&self.piece.split_to(count));
        Ok(count)
    }
}

//! The certificate that `serve` shows: read at the start, and again when its files have changed. A new pair that cannot be
//! used changes nothing.

use std::path::Path;
use std::time::Duration;

use crate::cli::Failure;
use crate::config::TlsFiles;
use crate::crypto::sha256;
use crate::server::{self, TlsHandle};
use crate::shutdown::Shutdown;

/// How often the files are looked at without being asked to: renewals come months apart, and days before they matter.
const LOOK_EVERY: Duration = Duration::from_mins(1);

/// A pair of files, and what is served of them.
pub struct Certificate {
    files: TlsFiles,
    handle: TlsHandle,
    /// Digest of the two files as they were last read.
    seen: [u8; 32],
}

/// What looking again has found.
#[derive(Debug, PartialEq, Eq)]
pub enum Looked {
    /// Nothing new.
    Same,
    /// New connections get the new one.
    Changed,
    /// What is there cannot be used, for this reason; the one before is served.
    Unusable(String),
}

impl Certificate {
    /// Reads the files for the first time.
    pub fn load(files: &TlsFiles) -> Result<Self, Failure> {
        let (certificate, key) = read(files).map_err(Failure::Configuration)?;
        let tls = server::tls_config(&certificate, &key);
        let tls = tls.map_err(|cause| Failure::Configuration(unusable(&files.certificate, &cause)))?;
        Ok(Self { files: files.clone(), handle: TlsHandle::new(tls), seen: digest(&certificate, &key) })
    }

    /// What the listener serves.
    pub fn handle(&self) -> TlsHandle {
        self.handle.clone()
    }

    /// Reads the files again. A pair that could not be used is not complained of twice.
    pub fn look(&mut self) -> Looked {
        let (certificate, key) = match read(&self.files) {
            Ok(both) => both,
            Err(why) => {
                let known = std::mem::take(&mut self.seen) == [0; 32];
                return if known { Looked::Same } else { Looked::Unusable(why) };
            }
        };
        let seen = digest(&certificate, &key);
        if std::mem::replace(&mut self.seen, seen) == seen {
            return Looked::Same;
        }
        match server::tls_config(&certificate, &key) {
            Ok(tls) => {
                self.handle.replace(tls);
                Looked::Changed
            }
            Err(cause) => Looked::Unusable(unusable(&self.files.certificate, &cause)),
        }
    }

    /// Looks again, and says what it has found.
    pub fn renew(&mut self) {
        match self.look() {
            Looked::Same => {}
            Looked::Changed => tracing::info!("the certificate was renewed; new connections get the new one"),
            Looked::Unusable(why) => {
                tracing::error!(
                    why,
                    "the new certificate is not used; the one before is served until it is mended"
                );
            }
        }
    }

    /// Looks each minute, and whenever `asked` brings a wish; `done` is told after each wish.
    pub fn watch(
        mut self,
        shutdown: &Shutdown,
        mut asked: tokio::sync::mpsc::Receiver<tokio::sync::oneshot::Sender<()>>,
    ) {
        let stopping = shutdown.clone();
        shutdown.spawn(async move {
            loop {
                let wish = tokio::select! {
                    () = stopping.triggered() => return,
                    Some(wish) = asked.recv() => Some(wish),
                    () = tokio::time::sleep(LOOK_EVERY) => None,
                };
                let (back, looked) = tokio::sync::oneshot::channel();
                // Files may be on a slow disk.
                tokio::task::spawn_blocking(move || {
                    self.renew();
                    let _ = back.send(self);
                });
                let Ok(again) = looked.await else { return };
                self = again;
                if let Some(done) = wish {
                    let _ = done.send(());
                }
            }
        });
    }
}

fn read(files: &TlsFiles) -> Result<(Vec<u8>, Vec<u8>), String> {
    let read = |path: &Path| {
        std::fs::read(path).map_err(|cause| format!("`{}` cannot be read: {cause}", path.display()))
    };
    Ok((read(&files.certificate)?, read(&files.key)?))
}

fn digest(certificate: &[u8], key: &[u8]) -> [u8; 32] {
    sha256(&[sha256(certificate), sha256(key)].concat())
}

fn unusable(certificate: &Path, cause: &server::TlsError) -> String {
    format!("`{}` and its key cannot be used: {cause}", certificate.display())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::Clock;
    use crate::server::self_signed;
    use std::sync::Arc;

    #[test]
    fn a_renewed_pair_is_served_and_a_bad_one_is_said_once_and_changes_nothing() {
        let folder = tempfile::tempdir().expect("a folder");
        let files =
            TlsFiles { certificate: folder.path().join("tls.pem"), key: folder.path().join("tls.key") };
        let pair = || self_signed(&["localhost"], &Clock::machine()).expect("a certificate");
        let write = |certificate: &str, key: &str| {
            std::fs::write(&files.certificate, certificate).expect("written");
            std::fs::write(&files.key, key).expect("written");
        };
        let (first, second) = (pair(), pair());
        write(&first.certificate_pem, first.key_pem.expose());
        let mut certificate = Certificate::load(&files).expect("usable");
        let served = certificate.handle();
        let before = served.current();
        assert_eq!(certificate.look(), Looked::Same);

        // Half of a renewal, then all of it.
        write(&second.certificate_pem, first.key_pem.expose());
        assert!(matches!(certificate.look(), Looked::Unusable(why) if why.contains("does not belong")));
        assert_eq!(certificate.look(), Looked::Same, "it is said once");
        assert!(Arc::ptr_eq(&before, &served.current()));
        write(&second.certificate_pem, second.key_pem.expose());
        assert_eq!(certificate.look(), Looked::Changed);
        let renewed = served.current();
        assert!(!Arc::ptr_eq(&before, &renewed));

        std::fs::remove_file(&files.key).expect("removed");
        assert!(matches!(certificate.look(), Looked::Unusable(why) if why.contains("cannot be read")));
        assert_eq!(certificate.look(), Looked::Same, "it is said once");
        assert!(Arc::ptr_eq(&renewed, &served.current()));
    }
}

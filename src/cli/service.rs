//! Under a service manager: tells systemd that the appliance is ready, stops, or reloads, and that it lives. Without one
//! (`NOTIFY_SOCKET` is not set) nothing is told to anybody.

use std::time::Duration;

use sd_notify::NotifyState;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::{mpsc, oneshot};

use crate::app::Parts;
use crate::cli::certificate::Certificate;
use crate::store::StoreError;

/// Tells systemd; that it does not hear is no reason to stop.
fn tell(states: &[NotifyState<'_>]) {
    if let Err(cause) = sd_notify::notify(states) {
        tracing::warn!(%cause, "the service manager could not be told how the appliance is");
    }
}

/// Requests are answered from now on.
pub fn ready(address: std::net::SocketAddr) {
    tell(&[NotifyState::Ready, NotifyState::Status(&format!("serving at {address}"))]);
}

/// No new requests are taken; those under way are finished.
pub fn stopping() {
    tell(&[NotifyState::Stopping, NotifyState::Status("stopping: finishing what is under way")]);
}

/// Tells the watchdog, when there is one, that the appliance lives: that its threads run and its store can be read.
pub fn keep_alive(parts: &Parts) {
    let Some(limit) = sd_notify::watchdog_enabled() else { return };
    let (store, stopping) = (parts.store.clone(), parts.shutdown.clone());
    parts.shutdown.spawn(async move {
        let mut said_unwritable = false;
        loop {
            if store.read(|_| Ok::<_, StoreError>(())).await.is_ok() {
                tell(&[NotifyState::Watchdog]);
            }
            if !store.is_writable() && !said_unwritable {
                said_unwritable = true;
                tell(&[NotifyState::Status("the store cannot be written: check the disk, then restart")]);
            }
            tokio::select! {
                () = stopping.triggered() => return,
                () = tokio::time::sleep(pause(limit)) => {}
            }
        }
    });
}

/// Twice as often as systemd waits, as its manual advises.
fn pause(limit: Duration) -> Duration {
    limit / 2
}

/// SIGHUP reads again what can change while the appliance runs: the certificate.
pub fn reload_on_hangup(parts: &Parts, certificate: Option<Certificate>) {
    let (ask, asked) = mpsc::channel::<oneshot::Sender<()>>(1);
    let has_certificate = certificate.is_some();
    if let Some(certificate) = certificate {
        certificate.watch(&parts.shutdown, asked);
    }
    let Ok(mut hangup) = signal(SignalKind::hangup()) else {
        tracing::warn!("SIGHUP cannot be received; certificates are looked at each minute all the same");
        return;
    };
    let stopping = parts.shutdown.clone();
    parts.shutdown.spawn(async move {
        loop {
            tokio::select! {
                () = stopping.triggered() => return,
                hung_up = hangup.recv() => if hung_up.is_none() { return },
            }
            let since = NotifyState::monotonic_usec_now().ok();
            tell(&std::iter::once(NotifyState::Reloading).chain(since).collect::<Vec<_>>());
            if has_certificate {
                let (done, when_done) = oneshot::channel();
                if ask.send(done).await.is_ok() {
                    let _ = when_done.await;
                }
            }
            tracing::info!("asked to reload: the certificate was looked at; other settings need a restart");
            tell(&[NotifyState::Ready]);
        }
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_watchdog_hears_from_us_twice_in_its_time() {
        assert_eq!(pause(Duration::from_secs(30)), Duration::from_secs(15));
    }
}

//! The sections about the program itself: listeners, limits, storage, logs, outgoing calls.

use std::fmt;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use super::network::Network;
use super::quantity::ByteSize;
use super::reader::Section;
use super::rules;
use super::types::TlsMode;
use crate::telemetry::{self, LogFormat};

const SECOND: Duration = Duration::from_secs(1);
const MINUTE: Duration = Duration::from_mins(1);
const HOUR: Duration = Duration::from_hours(1);

/// The addresses the program answers at.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ListenSettings {
    /// For everybody.
    pub public: Listener,
}

/// One address the program answers at.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Listener {
    /// IP address and port; port 0 lets the system choose.
    pub address: SocketAddr,
    /// Certificate and key; `None` for plain HTTP.
    pub tls: Option<TlsFiles>,
    /// Proxies whose word on the caller's address is believed.
    pub trusted_proxies: Vec<Network>,
}

/// A certificate chain and its key, both in PEM.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TlsFiles {
    /// The certificate first, then the intermediates.
    pub certificate: PathBuf,
    /// The private key.
    pub key: PathBuf,
}

/// What a caller may take up.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Limits {
    /// From the TCP connection to the end of the TLS handshake.
    pub tls_handshake: Duration,
    /// For the request line and the headers.
    pub request_head: Duration,
    /// Between two pieces of a request body.
    pub request_body_idle: Duration,
    /// For a whole request body.
    pub request_body_total: Duration,
    /// Between two requests on one connection.
    pub idle: Duration,
    /// How long a caller may take nothing of an answer.
    pub write_stall: Duration,
    /// The largest request body.
    pub body: ByteSize,
    /// Open connections in all.
    pub connections: u32,
    /// Open connections of one address; not more than `connections`.
    pub connections_per_address: u32,
    /// How long requests may finish after the signal to stop.
    pub shutdown: Duration,
}

/// What callers of the API may do, and how often.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ApiSettings {
    /// Requests a second of one key, in the long run.
    pub rate: u32,
    /// Requests of one key at once; not fewer than `rate`.
    pub burst: u32,
    /// Wrong keys a minute from one address before it is told to wait.
    pub wrong_keys: u32,
}

/// Where the master key is. Its `Debug` shows no path, lest somebody wrote the key itself there.
#[derive(Clone, PartialEq, Eq, Default)]
pub struct MasterKeySettings {
    /// The file that holds it.
    pub file: Option<PathBuf>,
}

impl fmt::Debug for MasterKeySettings {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.debug_struct("MasterKeySettings").field("file_given", &self.file.is_some()).finish()
    }
}

/// The database.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoreSettings {
    /// Memory for pages of the database.
    pub cache: ByteSize,
}

/// Our signing keys.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SigningSettings {
    /// How long EHRs may keep our JWKS: a key is published for as long before it signs and after it signed last.
    pub overlap: Duration,
}

/// The log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LogSettings {
    /// Directives such as `info,chartgate=debug`; known to be valid.
    pub filter: String,
    /// How a line is written.
    pub format: LogFormat,
}

/// Calls to EHRs and webhooks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OutboundSettings {
    /// For a whole call.
    pub timeout: Duration,
    /// For TCP and TLS of a new connection; not more than `timeout`.
    pub connect_timeout: Duration,
    /// The largest answer that is read.
    pub response_body: ByteSize,
    /// Certificate authorities to trust besides the public ones, in PEM.
    pub ca_file: Option<PathBuf>,
    /// Private networks EHRs may live in; all other private addresses are refused.
    pub allow_private: Vec<Network>,
}

/// Telling apps of events.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WebhookSettings {
    /// Private networks receivers may live in; all other private addresses are refused.
    pub allow_private: Vec<Network>,
    /// How long the secret before a rotation still counts, for who verifies Standard Webhooks.
    pub secret_overlap: Duration,
    /// How long events can be listed and sent again.
    pub retention: Duration,
}

/// The patient's way through the log-in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LaunchSettings {
    /// From the redirect to the EHR until its answer.
    pub attempt_lifetime: Duration,
    /// How long a link to the connect page works.
    pub session_lifetime: Duration,
    /// How long the context of a launch from inside an EHR is kept.
    pub context_lifetime: Duration,
}

/// Keeping what patients agreed to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GrantSettings {
    /// A grant that was not used for so long is refreshed.
    pub keep_alive: Duration,
}

/// Copies of the database.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BackupSettings {
    /// Where they go; a folder of `data_dir` when nothing is said.
    pub folder: Option<PathBuf>,
    /// How long after the one before the next is made; only on a wish when nothing is said.
    pub every: Option<Duration>,
    /// How many are kept.
    pub keep: u32,
}

/// Reading records.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PullSettings {
    /// Records are read again so long after the last time; zero: never by themselves.
    pub every: Duration,
    /// Requests at the same time to one source, over all its patients.
    pub parallel_per_source: u32,
}

/// Records that are kept.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RecordSettings {
    /// How long they are kept after their connection has ended; without it until they are erased.
    pub keep_after_end: Option<Duration>,
}

/// Reading live.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FhirSettings {
    /// Until an EHR's answer begins, and between two pieces of it.
    pub timeout: Duration,
    /// The largest answer that is passed on.
    pub response_body: ByteSize,
    /// Requests at the same time to one source.
    pub parallel_per_source: u32,
    /// Requests that may wait for their turn at one source.
    pub waiting_per_source: u32,
    /// Web pages that may ask from a browser.
    pub cors_origins: Vec<String>,
}

impl Listener {
    pub(super) fn read(section: &mut Section<'_>) -> Option<Self> {
        let address = section.required(&rules::socket_address("address", "\"0.0.0.0:8443\""));
        let proxies = section.required(&rules::networks("trusted_proxies", "[\"10.0.0.7\"]"));
        let tls = section.table("tls", read_tls);
        let (address, trusted_proxies) = (address?, proxies?);
        let tls = match tls? {
            Tls::Files(files) => Some(files),
            Tls::Off => None,
        };
        if tls.is_none() && !address.ip().is_loopback() && trusted_proxies.is_empty() {
            section.blame(
                "address",
                "must be on this machine (127.0.0.1 or [::1]) as long as the listener speaks plain HTTP",
                "an address other machines can reach",
                "either give tls.certificate and tls.key, or, when a proxy in front does the TLS, name that proxy: \
                 trusted_proxies = [\"10.0.0.7\"]",
            );
            return None;
        }
        Some(Self { address, tls, trusted_proxies })
    }
}

/// What the `tls` table says; plain HTTP is a decision, not an absence.
enum Tls {
    Off,
    Files(TlsFiles),
}

fn read_tls(section: &mut Section<'_>) -> Option<Tls> {
    let mode = section.optional(&rules::keyword::<TlsMode>("mode"));
    let certificate = rules::path("certificate", "\"/etc/chartgate/tls.pem\"");
    let key = rules::path("key", "\"/etc/chartgate/tls.key\"");
    // One of the two without the other is a mistake, so either stands for the mode.
    let wanted =
        mode.map_or_else(|| section.has("certificate") || section.has("key"), |mode| mode == TlsMode::Files);
    if wanted {
        let (certificate, key) = (section.required(&certificate), section.required(&key));
        Some(Tls::Files(TlsFiles { certificate: certificate?, key: key? }))
    } else {
        section.optional(&certificate);
        section.optional(&key);
        if section.is_given("mode") && mode.is_none() { None } else { Some(Tls::Off) }
    }
}

impl Limits {
    pub(super) fn read(section: &mut Section<'_>) -> Option<Self> {
        let tls_handshake = section.required(&rules::duration("tls_handshake", SECOND..=MINUTE, "\"10s\""));
        let request_head = section.required(&rules::duration("request_head", SECOND..=MINUTE, "\"10s\""));
        let body_idle =
            section.required(&rules::duration("request_body_idle", SECOND..=MINUTE * 10, "\"30s\""));
        let body_total = section.required(&rules::duration("request_body_total", SECOND..=HOUR, "\"2m\""));
        let idle = section.required(&rules::duration("idle", SECOND..=HOUR, "\"75s\""));
        let write_stall = section.required(&rules::duration("write_stall", SECOND..=MINUTE * 10, "\"30s\""));
        let sizes = ByteSize::kib(1)..=ByteSize::mib(1024);
        let body = section.required(&rules::size("body", sizes, "\"1 MiB\""));
        let connections = section.required(&rules::count("connections", 1..=1_000_000, "10000"));
        let per_address = section.required(&rules::count("connections_per_address", 1..=1_000_000, "500"));
        let shutdown =
            section.required(&rules::duration("shutdown", Duration::ZERO..=MINUTE * 10, "\"20s\""));
        let (request_body_idle, request_body_total) =
            ordered(section, ("request_body_idle", body_idle?), ("request_body_total", body_total?));
        let (connections_per_address, connections) =
            ordered(section, ("connections_per_address", per_address?), ("connections", connections?));
        Some(Self {
            tls_handshake: tls_handshake?,
            request_head: request_head?,
            request_body_idle,
            request_body_total,
            idle: idle?,
            write_stall: write_stall?,
            body: body?,
            connections,
            connections_per_address,
            shutdown: shutdown?,
        })
    }
}

impl ApiSettings {
    pub(super) fn read(section: &mut Section<'_>) -> Option<Self> {
        let rate = section.required(&rules::count("rate", 1..=100_000, "100"));
        let burst = section.required(&rules::count("burst", 1..=1_000_000, "300"));
        let wrong_keys = section.required(&rules::count("wrong_keys", 1..=100_000, "600"));
        let (rate, burst) = ordered(section, ("rate", rate?), ("burst", burst?));
        Some(Self { rate, burst, wrong_keys: wrong_keys? })
    }
}

/// Two settings of which the first must not be larger. A default gives way to what somebody wrote.
fn ordered<T: PartialOrd + Copy>(section: &Section<'_>, lesser: (&str, T), greater: (&str, T)) -> (T, T) {
    if lesser.1 <= greater.1 {
        return (lesser.1, greater.1);
    }
    match (section.is_given(lesser.0), section.is_given(greater.0)) {
        (false, _) => (greater.1, greater.1),
        (true, false) => (lesser.1, lesser.1),
        (true, true) => {
            let bound = section.key(greater.0);
            section.blame(
                lesser.0,
                format!("must not be more than `{bound}`"),
                "a larger one",
                format!("raise `{}` or lower `{}`", greater.0, lesser.0),
            );
            (lesser.1, greater.1)
        }
    }
}

impl MasterKeySettings {
    pub(super) fn read(section: &mut Section<'_>) -> Self {
        Self { file: section.optional(&rules::path("file", "\"/etc/chartgate/master.key\"")) }
    }
}

impl StoreSettings {
    pub(super) fn read(section: &mut Section<'_>) -> Option<Self> {
        let sizes = ByteSize::mib(1)..=ByteSize::mib(64 * 1024);
        let cache = section.required(&rules::size("cache", sizes, "\"64 MiB\""));
        Some(Self { cache: cache? })
    }
}

impl SigningSettings {
    pub(super) fn read(section: &mut Section<'_>) -> Option<Self> {
        // Caches keep our JWKS for a quarter of an hour, because we say so ourselves.
        let overlaps = MINUTE * 15..=HOUR * 24 * 30;
        let overlap = section.required(&rules::duration("overlap", overlaps, "\"24h\""));
        Some(Self { overlap: overlap? })
    }
}

impl LogSettings {
    pub(super) fn read(section: &mut Section<'_>) -> Option<Self> {
        let filter = section.required(&rules::text_that("filter", "a log filter", "\"info\"", |text| {
            let known = telemetry::subscriber(text, LogFormat::Text, std::io::sink);
            known.map(drop).map_err(|_| "text that is not a log filter")
        }));
        let format = section.required(&rules::keyword("format"));
        Some(Self { filter: filter?, format: format? })
    }
}

impl OutboundSettings {
    pub(super) fn read(section: &mut Section<'_>) -> Option<Self> {
        let timeout = section.required(&rules::duration("timeout", SECOND..=MINUTE * 10, "\"10s\""));
        let connect = section.required(&rules::duration("connect_timeout", SECOND..=MINUTE, "\"10s\""));
        let sizes = ByteSize::kib(64)..=ByteSize::mib(4 * 1024);
        let response_body = section.required(&rules::size("response_body", sizes, "\"50 MiB\""));
        let ca_file = section.optional(&rules::path("ca_file", "\"/etc/chartgate/hospital-ca.pem\""));
        let allow_private = section.required(&rules::networks("allow_private", "[\"10.1.2.0/24\"]"));
        let (connect_timeout, timeout) =
            ordered(section, ("connect_timeout", connect?), ("timeout", timeout?));
        Some(Self {
            timeout,
            connect_timeout,
            response_body: response_body?,
            ca_file,
            allow_private: allow_private?,
        })
    }
}

impl WebhookSettings {
    pub(super) fn read(section: &mut Section<'_>) -> Option<Self> {
        let allow_private = section.required(&rules::networks("allow_private", "[\"10.1.3.0/24\"]"));
        let overlaps = Duration::ZERO..=HOUR * 24 * 7;
        let overlap = section.required(&rules::duration("secret_overlap", overlaps, "\"24h\""));
        // An event is tried for more than three days, and must not go before.
        let retentions = HOUR * 24 * 7..=HOUR * 24 * 365;
        let retention = section.required(&rules::duration("retention", retentions, "\"30d\""));
        Some(Self { allow_private: allow_private?, secret_overlap: overlap?, retention: retention? })
    }
}

impl LaunchSettings {
    pub(super) fn read(section: &mut Section<'_>) -> Option<Self> {
        let lifetimes = MINUTE..=HOUR * 24;
        let attempt = section.required(&rules::duration("attempt_lifetime", lifetimes.clone(), "\"60m\""));
        let session = section.required(&rules::duration("session_lifetime", lifetimes.clone(), "\"30m\""));
        let context = section.required(&rules::duration("context_lifetime", lifetimes, "\"8h\""));
        Some(Self { attempt_lifetime: attempt?, session_lifetime: session?, context_lifetime: context? })
    }
}

impl GrantSettings {
    pub(super) fn read(section: &mut Section<'_>) -> Option<Self> {
        let times = HOUR..=HOUR * 24 * 85;
        let keep_alive = section.required(&rules::duration("keep_alive", times, "\"25d\""));
        Some(Self { keep_alive: keep_alive? })
    }
}

impl BackupSettings {
    pub(super) fn read(section: &mut Section<'_>) -> Option<Self> {
        let folder = section.optional(&rules::path("folder", "\"/mnt/backups/chartgate\""));
        let every = section.optional(&rules::duration("every", HOUR..=HOUR * 24 * 31, "\"1d\""));
        let keep = section.required(&rules::count("keep", 1..=1_000, "7"));
        Some(Self { folder, every, keep: keep? })
    }
}

impl PullSettings {
    pub(super) fn read(section: &mut Section<'_>) -> Option<Self> {
        let every = section.required(&rules::duration("every", Duration::ZERO..=HOUR * 24 * 365, "\"24h\""));
        let parallel = section.required(&rules::count("parallel_per_source", 1..=16, "4"));
        // Patients' hospitals are not asked around the clock.
        if every.is_some_and(|every| !every.is_zero() && every < HOUR) {
            section.blame(
                "every",
                "must be at least 1h, or 0s for never",
                "a shorter one",
                "write every = \"24h\"",
            );
            return None;
        }
        Some(Self { every: every?, parallel_per_source: parallel? })
    }
}

impl RecordSettings {
    pub(super) fn read(section: &mut Section<'_>) -> Self {
        let span = HOUR..=HOUR * 24 * 3660;
        Self { keep_after_end: section.optional(&rules::duration("keep_after_end", span, "\"30d\"")) }
    }
}

impl FhirSettings {
    pub(super) fn read(section: &mut Section<'_>) -> Option<Self> {
        let timeout = section.required(&rules::duration("timeout", SECOND..=MINUTE * 10, "\"60s\""));
        let sizes = ByteSize::mib(1)..=ByteSize::mib(1 << 20);
        let response_body = section.required(&rules::size("response_body", sizes, "\"2 GiB\""));
        let parallel = section.required(&rules::count("parallel_per_source", 1..=4096, "16"));
        let waiting = section.required(&rules::count("waiting_per_source", 0..=100_000, "256"));
        let origins = section.required(&rules::origins("cors_origins", "[\"https://app.example\"]"));
        Some(Self {
            timeout: timeout?,
            response_body: response_body?,
            parallel_per_source: parallel?,
            waiting_per_source: waiting?,
            cors_origins: origins?,
        })
    }
}

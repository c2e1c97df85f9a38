//! The configuration: four layers become one tree, the tree becomes checked types, once, before anything starts.
//! Everything wrong is reported at once, and no error shows a value. Knows nothing of storage.

mod address;
mod error;
mod exports;
mod layers;
mod network;
mod quantity;
mod reader;
mod registrations;
mod rules;
mod sections;
mod types;

use std::path::PathBuf;

pub use self::address::{BadAddress, PublicUrl, check_endpoint, check_fhir_base};
pub use self::error::{ConfigError, ConfigErrors, Place};
pub use self::exports::ExportSettings;
pub use self::layers::Layers;
pub use self::network::{BadNetwork, Network};
pub use self::quantity::{BadQuantity, ByteSize, format_duration, parse_duration};
use self::reader::{Report, Section};
pub use self::registrations::{DirectoryListSettings, EhrClientSettings, SourceSettings, WorkspaceSettings};
pub use self::sections::{
    ApiSettings, BackupSettings, FhirSettings, GrantSettings, LaunchSettings, Limits, ListenSettings,
    Listener, LogSettings, MasterKeySettings, OutboundSettings, PullSettings, RecordSettings,
    SigningSettings, StoreSettings, TlsFiles, WebhookSettings,
};
pub use self::types::{AuthMethod, Environment, Keyword, SigningAlgorithm, SmartVersion, TlsMode, Vendor};

/// The file we ship: the lowest layer, and what `init` writes for the administrator to edit.
pub const DEFAULTS: &str = include_str!("../../config.toml");

/// Every setting, checked. Printing it shows no secret.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Config {
    /// The address patients and EHRs know us by.
    pub public_url: PublicUrl,
    /// Who the patient's pages speak for.
    pub clinic_name: String,
    /// Where the store and the local socket live.
    pub data_dir: PathBuf,
    /// The addresses we answer at.
    pub listen: ListenSettings,
    /// What a caller may take up.
    pub limits: Limits,
    /// What callers of the API may do, and how often.
    pub api: ApiSettings,
    /// Where the master key is; ask [`Config::master_key_path`], which also knows systemd's place.
    pub master_key: MasterKeySettings,
    /// Our signing keys.
    pub signing: SigningSettings,
    /// The database.
    pub store: StoreSettings,
    /// The log.
    pub log: LogSettings,
    /// Calls to EHRs and webhooks.
    pub outbound: OutboundSettings,
    /// Telling apps of events.
    pub webhook: WebhookSettings,
    /// The patient's way through the log-in.
    pub launch: LaunchSettings,
    /// Keeping what patients agreed to.
    pub grants: GrantSettings,
    /// Copies of the database.
    pub backup: BackupSettings,
    /// Reading records.
    pub pull: PullSettings,
    /// Records that are kept.
    pub records: RecordSettings,
    /// The live FHIR proxy.
    pub fhir: FhirSettings,
    /// `live`, `sandbox`, then those listed.
    pub workspaces: Vec<WorkspaceSettings>,
    /// Registrations at EHR vendors; names are unique.
    pub ehr_clients: Vec<EhrClientSettings>,
    /// The servers to connect to; each names an EHR client that exists.
    pub sources: Vec<SourceSettings>,
    /// Lists of the directory that are fetched on a schedule.
    pub directory_lists: Vec<DirectoryListSettings>,
    /// Where records are brought to.
    pub exports: Vec<ExportSettings>,
    /// What works but should be changed; sentences for the log, without values.
    pub warnings: Vec<String>,
    /// systemd's folder of credentials for this service.
    credentials: Option<PathBuf>,
}

impl Config {
    /// Merges the layers and checks every setting. Reads the configuration file and the files of client secrets; the
    /// master key, certificates and the data folder are left to those who use them.
    pub fn load(layers: &Layers) -> Result<Self, ConfigErrors> {
        let merged = layers::merge(layers)?;
        let (report, root) = Report::new(merged, layers.file.as_deref());
        let credentials = layers
            .environment
            .iter()
            .find(|(name, value)| name == "CREDENTIALS_DIRECTORY" && !value.is_empty())
            .map(|(_, value)| PathBuf::from(value));
        let config = report.root(root, |root| Self::read(root, credentials));
        let warnings = report.finish()?;
        // Whoever returned `None` noted an error, so the line above has returned.
        config.map(|config| Self { warnings, ..config }).ok_or_else(|| ConfigErrors::from(unexplained()))
    }

    fn read(root: &mut Section<'_>, credentials: Option<PathBuf>) -> Option<Self> {
        let public_url = root.required(&rules::public_url("public_url"));
        let clinic_name = root.required(&rules::text("clinic_name", "\"North Clinic\""));
        let data_dir = root.required(&rules::path("data_dir", "\"/var/lib/chartgate\""));
        let listen = root
            .table("listen", |listen| listen.table("public", Listener::read))
            .map(|public| ListenSettings { public });
        let limits = root.table("limits", Limits::read);
        let api = root.table("api", ApiSettings::read);
        let master_key = root.table("master_key", |section| Some(MasterKeySettings::read(section)));
        let signing = root.table("signing", SigningSettings::read);
        let store = root.table("store", StoreSettings::read);
        let log = root.table("log", LogSettings::read);
        let outbound = root.table("outbound", OutboundSettings::read);
        let webhook = root.table("webhook", WebhookSettings::read);
        let launch = root.table("launch", LaunchSettings::read);
        let grants = root.table("grants", GrantSettings::read);
        let backup = root.table("backup", BackupSettings::read);
        let pull = root.table("pull", PullSettings::read);
        let records = root.table("records", |section| Some(RecordSettings::read(section)));
        let fhir = root.table("fhir", FhirSettings::read);
        let workspaces = registrations::read_workspaces(root);
        let directory_lists = registrations::read_directory_lists(root);
        let exports = exports::read(root, &workspaces);
        let (ehr_clients, sources) = registrations::read_clients_and_sources(root, &workspaces);
        if let (Some(public_url), Some(listen)) = (&public_url, &listen) {
            compare(root, public_url, &listen.public);
        }
        Some(Self {
            public_url: public_url?,
            clinic_name: clinic_name?,
            data_dir: data_dir?,
            listen: listen?,
            limits: limits?,
            api: api?,
            master_key: master_key?,
            signing: signing?,
            store: store?,
            log: log?,
            outbound: outbound?,
            webhook: webhook?,
            launch: launch?,
            grants: grants?,
            backup: backup?,
            pull: pull?,
            records: records?,
            fhir: fhir?,
            workspaces,
            ehr_clients,
            sources,
            directory_lists,
            exports,
            warnings: Vec::new(),
            credentials,
        })
    }

    /// The file of the master key: the configured one, else systemd's credential `master.key`. Whether it exists is not
    /// looked at.
    pub fn master_key_path(&self) -> Option<PathBuf> {
        let credential = || self.credentials.as_ref().map(|folder| folder.join("master.key"));
        self.master_key.file.clone().or_else(credential)
    }
}

/// The public address and the listener must fit each other.
fn compare(root: &Section<'_>, public_url: &PublicUrl, listen: &Listener) {
    if listen.tls.is_some() && !public_url.is_secure() {
        root.blame(
            "public_url",
            "must begin with https:// when the listener speaks TLS",
            "an http address",
            "write https:// in public_url, or remove listen.public.tls",
        );
    }
    if listen.tls.is_none() && public_url.is_secure() && listen.trusted_proxies.is_empty() {
        root.warn(
            "`public_url` is https and `listen.public` is plain HTTP, so a proxy must stand between; name it in \
             `listen.public.trusted_proxies`, else every caller seems to have the proxy's address"
                .to_owned(),
        );
    }
}

/// Cannot be reached as long as every reader notes why it returns nothing.
fn unexplained() -> ConfigError {
    ConfigError {
        must: "the configuration must be complete".into(),
        place: Place::Nowhere,
        key: "no key".into(),
        found: "a gap".into(),
        hint: "report this as a bug, with your configuration file but without its secrets".into(),
    }
}

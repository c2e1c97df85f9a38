//! The arguments of every command.

use std::path::PathBuf;

use clap::builder::{PossibleValue, PossibleValuesParser};
use clap::{Args, Parser, Subcommand, ValueEnum};

use crate::cli::backup::{Backup, Restore};
use crate::cli::directory::{ActivationName, DirectoryTask};
use crate::cli::export::ExportTask;
use crate::cli::keys::KeysTask;
use crate::config::{AuthMethod, Environment, SmartVersion};
use crate::crypto::Algorithm;
use crate::sandbox::Personality;
use crate::smart::server::Overrides;

/// On-premises SMART on FHIR gateway: patients connect their hospitals, apps read the records over one API.
#[derive(Debug, Parser)]
#[command(name = "chartgate", version, about, max_term_width = 100)]
pub struct Arguments {
    /// The configuration file [default: /etc/chartgate/config.toml, when it is there]
    #[arg(long, global = true, value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// Print one JSON document; logs and notes go to standard error
    #[arg(long, global = true)]
    pub json: bool,
    /// Set one key of the configuration for this run, such as `log.filter=debug`
    #[arg(long = "set", global = true, value_name = "KEY=VALUE")]
    pub set: Vec<String>,
    /// What to do
    #[command(subcommand)]
    pub command: Task,
}

/// What to do.
#[derive(Debug, Subcommand)]
pub enum Task {
    /// Try everything: the appliance and a sandbox hospital with synthetic patients, on this machine only
    Demo(Demo),
    /// Make a configuration, a master key, the store and the first signing keys
    Init(Init),
    /// Run the appliance
    Serve,
    /// Run only the sandbox hospital, for your own tests
    Sandbox(SandboxArguments),
    /// Check the configuration and say everything that is wrong
    CheckConfig,
    /// Keys of the API
    #[command(subcommand)]
    ApiKey(ApiKeyTask),
    /// Hospitals' FHIR servers to connect to
    #[command(subcommand)]
    Source(SourceTask),
    /// Your registrations at EHR vendors
    #[command(subcommand)]
    EhrClient(EhrClientTask),
    /// Keys: those that sign towards EHRs, and those that seal the database
    #[command(subcommand)]
    Keys(KeysTask),
    /// The database
    #[command(subcommand)]
    Store(StoreTask),
    /// What lapses next: certificate, API keys, patients' grants
    Calendar {
        /// Look so many days ahead
        #[arg(long, value_name = "DAYS", default_value_t = 90)]
        days: u32,
    },
    /// What became of a patient's grant at a hospital, and why
    Ledger {
        /// The connection's id, `conn_…`
        connection: String,
    },
    /// What was read of a patient's records at a hospital, and what could not be; or read now, or hold reading
    Pulls(PullsArguments),
    /// Who read whose records, the latest first
    Accesses {
        /// A connection's id, `conn_…`; with --workspace a patient's id in your app
        whose: String,
        /// The workspace of the patient
        #[arg(long, value_name = "NAME")]
        workspace: Option<String>,
        /// At most so many
        #[arg(long, value_name = "N", default_value_t = 100)]
        last: usize,
    },
    /// Records brought to other systems, as the configuration's [[export]] says
    #[command(subcommand)]
    Export(ExportTask),
    /// Published lists of hospitals and practices, for patients to search
    #[command(subcommand)]
    Directory(DirectoryTask),
    /// Make a backup of everything, while the appliance runs, and read it again to be sure
    Backup(Backup),
    /// Make the database from a backup; the appliance must not run
    Restore(Restore),
    /// Print the manual page
    Man {
        /// Write a page for each command into this folder instead
        #[arg(long, value_name = "FOLDER")]
        out: Option<PathBuf>,
    },
    /// Print what completes these commands in your shell
    Completions {
        /// Your shell
        shell: clap_complete::Shell,
    },
    /// What happened under the reference code that a patient read out
    Incident {
        /// The code, such as K7QF-2M9D
        reference: String,
    },
}

/// `store`
#[derive(Debug, Subcommand)]
pub enum StoreTask {
    /// Give the space of what was removed back to the disk; the appliance must be stopped
    Compact,
}

/// `demo`
#[derive(Debug, Args)]
pub struct Demo {
    /// Keep the data here, and find it again next time [default: a temporary folder, removed at the end]
    #[arg(long, value_name = "DIR")]
    pub data_dir: Option<PathBuf>,
    /// Port of the appliance; the sandbox hospital takes the next one. 0 takes free ones [default: 3000, or free ones]
    #[arg(long, value_name = "N")]
    pub port: Option<u16>,
    /// Load the hospital's patients from FHIR bundles or NDJSON files instead of making some up
    #[arg(long, value_name = "DIR")]
    pub patients: Option<PathBuf>,
    /// Add a patient with this many resources
    #[arg(long, value_name = "N")]
    pub size: Option<usize>,
    /// Serve the appliance over TLS with a certificate made for this run
    #[arg(long)]
    pub tls: bool,
}

/// `init`
#[derive(Debug, Args)]
pub struct Init {
    /// The address patients and hospitals will reach you at
    #[arg(long, value_name = "URL")]
    pub public_url: Option<String>,
    /// Where the store will be [default: the configuration's]
    #[arg(long, value_name = "DIR")]
    pub data_dir: Option<PathBuf>,
    /// Where to put the master key [default: master.key beside the configuration file]
    #[arg(long, value_name = "FILE")]
    pub master_key: Option<PathBuf>,
}

/// `sandbox`
#[derive(Debug, Args)]
pub struct SandboxArguments {
    /// Port on this machine; 0 takes a free one
    #[arg(long, value_name = "N")]
    pub port: u16,
    /// Load the patients from FHIR bundles or NDJSON files instead of making some up
    #[arg(long, value_name = "DIR")]
    pub patients: Option<PathBuf>,
    /// Add a patient with this many resources
    #[arg(long, value_name = "N")]
    pub size: Option<usize>,
    /// Which vendor's server to behave like
    #[arg(long, value_name = "VENDOR", default_value = "cerner-patient", value_parser = personalities())]
    pub personality: String,
}

/// Lists them in the help and in the error, and takes `cerner`, the name of the vendor profile, too.
fn personalities() -> PossibleValuesParser {
    let all = Personality::ALL.map(|one| {
        let value = PossibleValue::new(one.name());
        if one == Personality::CernerPatient { value.alias("cerner") } else { value }
    });
    PossibleValuesParser::from(all)
}

/// `pulls`
#[derive(Debug, Args)]
#[command(args_conflicts_with_subcommands = true, arg_required_else_help = true)]
pub struct PullsArguments {
    /// The connection's id, `conn_…`
    pub connection: Option<String>,
    /// Instead of a report
    #[command(subcommand)]
    pub task: Option<PullsTask>,
}

/// What can be done about pulls.
#[derive(Debug, Subcommand)]
pub enum PullsTask {
    /// Read a connection's records now, all of them
    Now {
        /// The connection's id, `conn_…`
        connection: String,
    },
    /// Hold reading; what is under way stops at its next page and keeps its place
    Pause {
        /// From this source only: `fhirsrc_…`, or the FHIR base URL [default: all]
        #[arg(long)]
        source: Option<String>,
    },
    /// Let reading go on
    Resume {
        /// From this source: `fhirsrc_…`, or the FHIR base URL [default: what was held for all]
        #[arg(long)]
        source: Option<String>,
    },
}

/// `api-key`
#[derive(Debug, Subcommand)]
pub enum ApiKeyTask {
    /// Make a key; it is printed once and never again
    Create {
        /// The workspace whose data it opens: `live`, `sandbox`, or one of your own
        #[arg(long)]
        workspace: String,
        /// What you call it
        #[arg(long)]
        name: String,
        /// Let it do only this, such as `patients:read`; may be given more than once [default: everything]
        #[arg(long = "scope", value_name = "SCOPE")]
        scopes: Vec<String>,
        /// Let it read only this resource type live, such as `Observation`; may be given more than once [default: all]
        #[arg(long = "fhir-type", value_name = "TYPE")]
        fhir_types: Vec<String>,
        /// End it after so many days
        #[arg(long, value_name = "DAYS", alias = "expires-in")]
        expires_in_days: Option<u32>,
    },
    /// List the keys of a workspace
    List {
        /// The workspace
        #[arg(long)]
        workspace: String,
    },
    /// Revoke a key at once
    Revoke {
        /// The workspace
        #[arg(long)]
        workspace: String,
        /// The key's id, `key_…`
        id: String,
    },
}

/// `source`
#[derive(Debug, Subcommand)]
pub enum SourceTask {
    /// Add a source by its FHIR base URL or Oracle Health tenant; its discovery is read first
    Add {
        /// The FHIR base URL
        #[arg(long, conflicts_with = "tenant", required_unless_present = "tenant")]
        url: Option<String>,
        /// The Oracle Health (Cerner) tenant id
        #[arg(long, allow_hyphen_values = true)]
        tenant: Option<String>,
        /// What patients call the place
        #[arg(long)]
        name: String,
        /// Your registration there, by its name
        #[arg(long)]
        ehr_client: String,
        /// Town
        #[arg(long)]
        city: Option<String>,
        /// State
        #[arg(long)]
        state: Option<String>,
        /// Where it departs from what it announces and from what is usual at its vendor
        #[command(flatten)]
        departures: Box<Departures>,
        /// Add it although it does not answer now
        #[arg(long)]
        unchecked: bool,
    },
    /// List the sources
    List,
    /// Note how far a hospital is with switching your app on, or show it
    Activation {
        /// `fhirsrc_…`, or the FHIR base URL
        source: String,
        /// not-asked, asked, active, verified or refused; left out, it stays
        state: Option<ActivationName>,
        /// What to remember with it, such as whom you wrote to
        #[arg(long)]
        note: Option<String>,
    },
    /// Ask a hospital's authorization server, without a patient, whether it lets your app in; if so, it is verified
    Probe {
        /// `fhirsrc_…`, or the FHIR base URL
        source: String,
    },
    /// Make the page for a hospital's IT team: what to switch on, and the values to compare
    Packet {
        /// `fhirsrc_…`, or the FHIR base URL
        source: String,
        /// As a web page that stands alone, to be printed or attached
        #[arg(long, conflicts_with = "text")]
        html: bool,
        /// As plain text, to be pasted into an e-mail [default]
        #[arg(long)]
        text: bool,
        /// Whom the hospital may write to or call
        #[arg(long, value_name = "TEXT")]
        contact: Option<String>,
        /// Write it there instead of to standard output
        #[arg(long, value_name = "FILE")]
        out: Option<PathBuf>,
    },
    /// Read a source's discovery anew and show it
    Check {
        /// `fhirsrc_…`, or the FHIR base URL
        source: String,
    },
}

/// What a source does otherwise than it announces, or than is usual at its vendor.
#[derive(Debug, Args)]
pub struct Departures {
    /// The authorization endpoint, instead of the announced one
    #[arg(long, value_name = "URL")]
    pub authorize_url: Option<String>,
    /// The token endpoint, instead of the announced one
    #[arg(long, value_name = "URL")]
    pub token_url: Option<String>,
    /// The audience of signed assertions, instead of the token endpoint
    #[arg(long, value_name = "TEXT")]
    pub assertion_audience: Option<String>,
    /// Whether `client_id` goes beside an assertion [default: as is usual at the vendor]
    #[arg(long, value_name = "BOOL")]
    pub send_client_id: Option<bool>,
    /// Whether `aud` goes into the authorization request [default: as is usual at the vendor]
    #[arg(long, value_name = "BOOL")]
    pub send_aud: Option<bool>,
    /// Authenticate as registered although the source does not list that method
    #[arg(long)]
    pub unlisted_auth: bool,
}

impl From<Departures> for Overrides {
    fn from(departures: Departures) -> Self {
        Self {
            authorize_url: departures.authorize_url,
            token_url: departures.token_url,
            assertion_audience: departures.assertion_audience,
            send_client_id: departures.send_client_id,
            send_aud: departures.send_aud,
            unlisted_auth: departures.unlisted_auth.then_some(true),
        }
    }
}

/// `ehr-client`
#[derive(Debug, Subcommand)]
pub enum EhrClientTask {
    /// Add a registration
    Add {
        /// Your name for it
        #[arg(long)]
        name: String,
        /// The vendor: cerner, epic, …, or generic
        #[arg(long)]
        vendor: String,
        /// live or sandbox
        #[arg(long)]
        environment: EnvironmentName,
        /// The client id the vendor shows
        #[arg(long)]
        client_id: String,
        /// How to prove who you are at the token endpoint
        #[arg(long, default_value = "private_key_jwt")]
        auth: AuthName,
        /// A file that holds nothing but the client secret
        #[arg(long, value_name = "FILE")]
        client_secret_file: Option<PathBuf>,
        /// RS384 or ES384, instead of what the EHR announces
        #[arg(long)]
        signing_algorithm: Option<AlgorithmName>,
        /// The SMART version of the registration [default: the one that is usual at the vendor]
        #[arg(long)]
        smart_version: Option<VersionName>,
        /// Scopes to ask for, instead of what the EHR announces; separated by blanks
        #[arg(long)]
        scopes: Option<String>,
        /// Where your app is, when the EHR is to open it
        #[arg(long, value_name = "URL")]
        launch_url: Option<String>,
        /// The workspace whose API keys your app has [default: the only one of the environment]
        #[arg(long, value_name = "NAME")]
        launch_workspace: Option<String>,
    },
    /// List the registrations
    List,
}

/// An environment on the command line.
#[derive(Debug, Clone, Copy, ValueEnum)]
pub enum EnvironmentName {
    /// Real patients.
    Live,
    /// Synthetic patients.
    Sandbox,
}

impl From<EnvironmentName> for Environment {
    fn from(name: EnvironmentName) -> Self {
        match name {
            EnvironmentName::Live => Self::Live,
            EnvironmentName::Sandbox => Self::Sandbox,
        }
    }
}

/// An authentication method on the command line.
#[derive(Debug, Clone, Copy, ValueEnum)]
#[value(rename_all = "snake_case")]
pub enum AuthName {
    /// A signed assertion.
    PrivateKeyJwt,
    /// A secret in a header.
    ClientSecretBasic,
    /// A secret in the body.
    ClientSecretPost,
    /// None: a public client.
    None,
}

impl From<AuthName> for AuthMethod {
    fn from(name: AuthName) -> Self {
        match name {
            AuthName::PrivateKeyJwt => Self::PrivateKeyJwt,
            AuthName::ClientSecretBasic => Self::ClientSecretBasic,
            AuthName::ClientSecretPost => Self::ClientSecretPost,
            AuthName::None => Self::None,
        }
    }
}

/// A signature algorithm on the command line.
#[derive(Debug, Clone, Copy, ValueEnum)]
pub enum AlgorithmName {
    /// RSA.
    #[value(name = "RS384")]
    Rs384,
    /// Elliptic curve.
    #[value(name = "ES384")]
    Es384,
}

impl From<AlgorithmName> for Algorithm {
    fn from(name: AlgorithmName) -> Self {
        match name {
            AlgorithmName::Rs384 => Self::Rs384,
            AlgorithmName::Es384 => Self::Es384,
        }
    }
}

/// A SMART version on the command line.
#[derive(Debug, Clone, Copy, ValueEnum)]
pub enum VersionName {
    /// `patient/Observation.read`
    V1,
    /// `patient/Observation.rs`
    V2,
}

impl From<VersionName> for SmartVersion {
    fn from(name: VersionName) -> Self {
        match name {
            VersionName::V1 => Self::V1,
            VersionName::V2 => Self::V2,
        }
    }
}

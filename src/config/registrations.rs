//! The lists: workspaces, registrations at EHR vendors, and the servers to connect to.

use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::time::Duration;

use super::address::{check_endpoint, check_fhir_base};
use super::error::Place;
use super::layers::unreadable;
use super::reader::Section;
use super::rules;
use super::types::{AuthMethod, Environment, SigningAlgorithm, SmartVersion, Vendor};
use crate::secret::Secret;

/// A workspace that must exist. `live` and `sandbox` always do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WorkspaceSettings {
    /// Unique among the workspaces.
    pub name: String,
    /// Real or synthetic patients.
    pub environment: Environment,
}

/// Our registration at a vendor.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EhrClientSettings {
    /// Unique; part of the EHR launch address.
    pub name: String,
    /// Chooses the vendor profile.
    pub vendor: Vendor,
    /// Which world this registration is for; vendors give different ids to the two.
    pub environment: Environment,
    /// As the vendor gave it.
    pub client_id: String,
    /// How token requests are signed in.
    pub auth: AuthMethod,
    /// There exactly when `auth` needs one.
    pub client_secret: Option<Secret>,
    /// Overrides the choice by discovery; only with `private_key_jwt`.
    pub signing_algorithm: Option<SigningAlgorithm>,
    /// The scope syntax the registration was made for; `None` leaves it to the vendor profile.
    pub smart_version: Option<SmartVersion>,
    /// Overrides the scopes of the vendor profile; never empty.
    pub scopes: Option<Vec<String>>,
    /// Where the browser is sent after a launch from inside the EHR.
    pub launch_url: Option<String>,
    /// The workspace that such launches belong to; left out only when there is one of the environment.
    pub launch_workspace: Option<String>,
}

/// One FHIR base URL to connect to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SourceSettings {
    /// For people; unique in its environment.
    pub name: String,
    /// As written, or built from the tenant; checked to be `https` (`http` on this machine in `sandbox`).
    pub fhir_base_url: String,
    /// The vendor's name for this hospital, when the source was given by it.
    pub tenant: Option<String>,
    /// The `name` of an [`EhrClientSettings`] of the same environment.
    pub ehr_client: String,
    /// That of its EHR client.
    pub environment: Environment,
    /// Replaces the discovered authorization endpoint.
    pub authorize_url: Option<String>,
    /// Replaces the discovered token endpoint.
    pub token_url: Option<String>,
    /// Replaces the token endpoint as the audience of client assertions.
    pub assertion_audience: Option<String>,
    /// Whether `client_id` goes into the token request; `None` leaves it to the vendor profile.
    pub send_client_id: Option<bool>,
    /// Whether `aud` goes into the authorize request; `None` leaves it to the vendor profile.
    pub send_aud: Option<bool>,
    /// Use the registration's `auth` although the server does not list it.
    pub unlisted_auth: Option<bool>,
    /// A picture for the connect page.
    pub logo_url: Option<String>,
    /// The hospital's own patient portal.
    pub portal_url: Option<String>,
    /// Helps patients to tell hospitals of one name apart.
    pub city: Option<String>,
    /// Helps patients to tell hospitals of one name apart.
    pub state: Option<String>,
}

const ENDPOINT: &str = "an https address (http only on this machine, in sandbox)";

/// The workspaces, the two that always exist first.
/// A list of the directory that is fetched again and again.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DirectoryListSettings {
    /// Unique in its environment.
    pub name: String,
    /// Whose sources it names.
    pub environment: Environment,
    /// Where it is: https, or this machine in `sandbox`.
    pub url: String,
    /// How often it is asked for.
    pub every: Duration,
}

pub(super) fn read_directory_lists(root: &mut Section<'_>) -> Vec<DirectoryListSettings> {
    let mut written: Vec<(String, Environment)> = Vec::new();
    root.entries("directory_list", |section| {
        let name = section.required(&rules::name("name", "\"epic\""));
        let hours = Duration::from_hours(1)..=Duration::from_hours(24 * 90);
        let every = section.optional(&rules::duration("every", hours, "\"7d\""));
        let unreadable = every.is_none() && section.is_given("every");
        let environment = section.optional(&rules::keyword("environment"));
        let unknown = environment.is_none() && section.is_given("environment");
        let example = "\"https://vendor.example/list.json\"";
        let world = environment.unwrap_or(Environment::Live);
        let url = section.required(&rules::text_that("url", "an https address", example, move |text| {
            check_endpoint(text, world).map_err(|_| "text that is not an https address")
        }));
        let list = DirectoryListSettings {
            name: name?,
            environment: world,
            url: url?,
            every: every.unwrap_or(Duration::from_hours(24 * 7)),
        };
        let same = (list.name.clone(), list.environment);
        if unreadable || unknown {
            return None;
        }
        if written.contains(&same) {
            section.blame("name", "must be unique", "a name that is listed before", "choose another name");
            return None;
        }
        written.push(same);
        Some(list)
    })
}

pub(super) fn read_workspaces(root: &mut Section<'_>) -> Vec<WorkspaceSettings> {
    let standard = |name: &str, environment| WorkspaceSettings { name: name.to_owned(), environment };
    let mut all = vec![standard("live", Environment::Live), standard("sandbox", Environment::Sandbox)];
    let mut written: Vec<String> = Vec::new();
    root.entries("workspace", |section| {
        let name = section.required(&rules::name("name", "\"north-clinic\""));
        let environment = section.required(&rules::keyword("environment"));
        let workspace = WorkspaceSettings { name: name?, environment: environment? };
        if written.contains(&workspace.name) {
            section.blame("name", "must be unique", "a name that is listed before", "choose another name");
            return None;
        }
        written.push(workspace.name.clone());
        match all.iter().find(|known| known.name == workspace.name) {
            Some(known) if known.environment != workspace.environment => section.blame(
                "environment",
                "cannot be changed for the workspaces `live` and `sandbox`",
                "the other environment",
                "choose another name for this workspace",
            ),
            Some(_) => {}
            None => all.push(workspace),
        }
        Some(())
    });
    all
}

/// What other entries need to know of an EHR client, also of one with errors, so that one error does not cause more.
struct Mentioned {
    name: String,
    vendor: Option<Vendor>,
    environment: Option<Environment>,
}

/// The registrations and the sources that use them.
pub(super) fn read_clients_and_sources(
    root: &mut Section<'_>,
    workspaces: &[WorkspaceSettings],
) -> (Vec<EhrClientSettings>, Vec<SourceSettings>) {
    let mut mentioned = Vec::new();
    let clients = root.entries("ehr_client", |section| read_client(section, workspaces, &mut mentioned));
    let mut names = Vec::new();
    let mut addresses = Vec::new();
    let sources = root.entries("source", |section| {
        let source = read_source(section, &mentioned)?;
        if names.contains(&(source.environment, source.name.clone())) {
            section.blame("name", "must be unique", "a name that is listed before", "choose another name");
        }
        if addresses.contains(&(source.ehr_client.clone(), source.fhir_base_url.clone())) {
            let key = if source.tenant.is_some() { "tenant" } else { "fhir_base_url" };
            section.blame(
                key,
                "must be unique for its EHR client",
                "one that is listed before",
                "keep one of the two",
            );
        }
        names.push((source.environment, source.name.clone()));
        addresses.push((source.ehr_client.clone(), source.fhir_base_url.clone()));
        Some(source)
    });
    (clients, sources)
}

fn read_client(
    section: &mut Section<'_>,
    workspaces: &[WorkspaceSettings],
    mentioned: &mut Vec<Mentioned>,
) -> Option<EhrClientSettings> {
    let name = section.required(&rules::name("name", "\"cerner\""));
    let vendor = section.required(&rules::keyword::<Vendor>("vendor"));
    let environment = section.required(&rules::keyword::<Environment>("environment"));
    if let Some(name) = &name {
        if mentioned.iter().any(|known| known.name == *name) {
            section.blame("name", "must be unique", "a name that is listed before", "choose another name");
        }
        mentioned.push(Mentioned { name: name.clone(), vendor, environment });
    }
    let client_id = section.required(&rules::text_that(
        "client_id",
        "the client id the vendor gave",
        "\"11111111-2222-3333-4444-555555555555\"",
        |text| {
            // RFC 6749 appendix A.1; blanks are legal there, but at an end they come from copying.
            let visible = text.bytes().all(|byte| (0x20..0x7f).contains(&byte));
            if visible && text.trim() == text {
                Ok(())
            } else {
                Err("text with other characters, or blanks at an end")
            }
        },
    ));
    // A method that was given and is wrong must not be taken for the default: the secret would seem out of place.
    let auth_given = section.has("auth");
    let auth = section.optional(&rules::keyword::<AuthMethod>("auth"));
    let auth = if auth_given { auth } else { Some(AuthMethod::PrivateKeyJwt) };
    let client_secret = read_secret(section, auth);
    let signing_algorithm = section.optional(&rules::keyword("signing_algorithm"));
    if signing_algorithm.is_some() && auth.is_some_and(|auth| auth != AuthMethod::PrivateKeyJwt) {
        section.blame(
            "signing_algorithm",
            "belongs to `auth = \"private_key_jwt\"` only",
            "another `auth`",
            "remove signing_algorithm",
        );
    }
    let smart_version = section.optional(&rules::keyword::<SmartVersion>("smart_version"));
    let scopes =
        section.optional(&rules::scopes("scopes", "[\"openid\", \"fhirUser\", \"patient/Patient.read\"]"));
    let opens_an_app = section.has("launch_url");
    let launch_url =
        optional_endpoint(section, "launch_url", "\"https://app.clinic.example/start\"", environment);
    let launch_workspace = read_launch_workspace(section, opens_an_app, workspaces, environment);
    if let (Some(Vendor::Cerner | Vendor::CernerProvider), Some(AuthMethod::ClientSecretPost)) =
        (vendor, auth)
    {
        section.warn(format!(
            "`{}`: Oracle Health announces private_key_jwt and client_secret_basic only; client_secret_post is likely \
             to be refused",
            section.key("auth")
        ));
    }
    Some(EhrClientSettings {
        name: name?,
        vendor: vendor?,
        environment: environment?,
        client_id: client_id?,
        auth: auth?,
        client_secret,
        signing_algorithm,
        smart_version,
        scopes,
        launch_url,
        launch_workspace,
    })
}

/// The owner of launches from inside the EHR. Several workspaces cannot share one: an app of one would be opened with
/// what only the other may read.
fn read_launch_workspace(
    section: &mut Section<'_>,
    opens_an_app: bool,
    workspaces: &[WorkspaceSettings],
    environment: Option<Environment>,
) -> Option<String> {
    const KEY: &str = "launch_workspace";
    let given = section.has(KEY);
    let name = section.optional(&rules::name(KEY, "\"sandbox\""));
    if given && !opens_an_app {
        section.blame(KEY, "belongs to `launch_url`", "no launch_url", "remove it, or add launch_url");
        return None;
    }
    let environment = environment?;
    let fitting = workspaces.iter().filter(|known| known.environment == environment);
    let names: Vec<&str> = fitting.map(|known| known.name.as_str()).collect();
    let listed = || names.iter().map(|name| format!("`{name}`")).collect::<Vec<_>>().join(", ");
    match &name {
        Some(name) if !names.contains(&name.as_str()) => section.blame(
            KEY,
            format!("must be the name of a workspace of {environment}"),
            "another name",
            format!("known are {}", listed()),
        ),
        None if opens_an_app && !given && names.len() > 1 => section.blame(
            KEY,
            format!("must be given: there are several workspaces of {environment}"),
            "nothing",
            format!("write the one whose API keys the app at `launch_url` has: {}", listed()),
        ),
        _ => {}
    }
    name
}

/// The secret from one of its two keys; of two in different layers the higher one counts.
fn read_secret(section: &mut Section<'_>, auth: Option<AuthMethod>) -> Option<Secret> {
    const DIRECT: &str = "client_secret";
    const FILE: &str = "client_secret_file";
    let (has_direct, has_file) = (section.has(DIRECT), section.has(FILE));
    let direct = section.optional(&rules::secret(DIRECT));
    let file = section.optional(&rules::path(FILE, "\"/etc/chartgate/cerner.secret\""));
    let auth = auth?;
    if !auth.needs_secret() {
        for key in
            [DIRECT, FILE].into_iter().zip([has_direct, has_file]).filter_map(|(key, has)| has.then_some(key))
        {
            section.blame(
                key,
                format!("does not belong to `auth = \"{auth}\"`"),
                "a client secret",
                "remove it, or write auth = \"client_secret_basic\"",
            );
        }
        return None;
    }
    if !has_direct && !has_file {
        section.blame(
            FILE,
            format!("must be given: `auth = \"{auth}\"` needs a client secret"),
            "nothing",
            format!(
                "write {FILE} = \"/etc/chartgate/cerner.secret\", the path of a file with the secret in it"
            ),
        );
        return None;
    }
    if has_direct && has_file && section.rank(DIRECT) == section.rank(FILE) {
        section.blame(FILE, format!("and `{DIRECT}` exclude each other"), "both", "keep one of the two");
        return None;
    }
    if has_file && (!has_direct || section.rank(FILE) > section.rank(DIRECT)) {
        read_secret_file(section, FILE, &file?)
    } else {
        if let Place::File(name) = section.place(DIRECT) {
            warn_when_open(section, DIRECT, Path::new(&name));
        }
        direct
    }
}

fn read_secret_file(section: &Section<'_>, key: &'static str, path: &Path) -> Option<Secret> {
    let hint = "give the path of a file that holds only the secret and that this user may read";
    let text = match std::fs::read_to_string(path).map(Secret::new) {
        Ok(text) => text,
        Err(error) => {
            section.blame(key, "must name a readable file", unreadable(&error), hint);
            return None;
        }
    };
    // Editors and `echo` end a file with one line break that is not part of the secret.
    let line = text.expose();
    let line = line.strip_suffix('\n').unwrap_or(line);
    let line = line.strip_suffix('\r').unwrap_or(line);
    if line.is_empty() {
        section.blame(key, "must name a file with the secret in it", "an empty file", hint);
        return None;
    }
    warn_when_open(section, key, path);
    Some(Secret::new(line))
}

/// Reading by a group is common practice (root owns the file, the service's group reads it); by everybody it is not.
fn warn_when_open(section: &Section<'_>, key: &str, path: &Path) {
    if std::fs::metadata(path).is_ok_and(|file| file.permissions().mode() & 0o027 != 0) {
        section
            .warn(format!("the file of `{}` is open to other users: chmod 640 it, or 600", section.key(key)));
    }
}

fn read_source(section: &mut Section<'_>, clients: &[Mentioned]) -> Option<SourceSettings> {
    let name = section.required(&rules::text("name", "\"Mercy Hospital\""));
    let client_name = section.required(&rules::text("ehr_client", "\"cerner\""));
    let environment_given = section.has("environment");
    let environment = section.optional(&rules::keyword::<Environment>("environment"));
    let client = client_name.as_ref().and_then(|name| clients.iter().find(|known| known.name == *name));
    if client_name.is_some() && client.is_none() {
        let names: Vec<_> = clients.iter().map(|client| format!("`{}`", client.name)).collect();
        let hint = match names.as_slice() {
            [] => "add an [[ehr_client]] first".to_owned(),
            names => format!("known are {}", names.join(", ")),
        };
        section.blame("ehr_client", "must be the name of an [[ehr_client]]", "another name", hint);
    }
    if let (Some(own), Some(theirs)) = (environment, client.and_then(|client| client.environment))
        && own != theirs
    {
        section.blame(
            "environment",
            "must be that of its EHR client",
            "the other environment",
            format!("write environment = \"{theirs}\", or use an EHR client of {own}"),
        );
    }
    let environment =
        if environment_given { environment } else { client.and_then(|client| client.environment) };
    let place = read_fhir_base(section, client.and_then(|client| client.vendor), environment);
    let authorize_url =
        optional_endpoint(section, "authorize_url", "\"https://ehr.example/authorize\"", environment);
    let token_url = optional_endpoint(section, "token_url", "\"https://ehr.example/token\"", environment);
    let assertion_audience =
        section.optional(&rules::text("assertion_audience", "\"https://ehr.example/token\""));
    let send_client_id = section.optional(&rules::flag("send_client_id"));
    let send_aud = section.optional(&rules::flag("send_aud"));
    let unlisted_auth = section.optional(&rules::flag("unlisted_auth"));
    let logo_url =
        optional_endpoint(section, "logo_url", "\"https://hospital.example/logo.png\"", environment);
    let portal_url =
        optional_endpoint(section, "portal_url", "\"https://hospital.example/portal\"", environment);
    let city = section.optional(&rules::text("city", "\"Springfield\""));
    let state = section.optional(&rules::text("state", "\"IL\""));
    let (fhir_base_url, tenant) = place?;
    Some(SourceSettings {
        name: name?,
        fhir_base_url,
        tenant,
        ehr_client: client_name?,
        environment: environment?,
        authorize_url,
        token_url,
        assertion_audience,
        send_client_id,
        send_aud,
        unlisted_auth,
        logo_url,
        portal_url,
        city,
        state,
    })
}

/// The FHIR base URL and the tenant it was built from. The vendor is `None` when its own entry is wrong.
fn read_fhir_base(
    section: &mut Section<'_>,
    vendor: Option<Vendor>,
    environment: Option<Environment>,
) -> Option<(String, Option<String>)> {
    const ADDRESS: &str = "fhir_base_url";
    const TENANT: &str = "tenant";
    let example = "\"https://fhir-myrecord.cerner.com/r4/ec2458f2-1e24-41c8-b71b-0e701af7583d\"";
    let (has_address, has_tenant) = (section.has(ADDRESS), section.has(TENANT));
    let checked = environment.unwrap_or(Environment::Sandbox);
    let must = "the https address of a FHIR server (http only on this machine, in sandbox), without query";
    let address_rule = rules::web_address(ADDRESS, must, example, move |text| check_fhir_base(text, checked));
    let tenant_rule = rules::text_that(
        TENANT,
        "a tenant id of A-Z, a-z, 0-9, - and _",
        "\"ec2458f2-1e24-41c8-b71b-0e701af7583d\"",
        |text| {
            // Oracle Health's tenants are UUIDs or base64url texts; upper and lower case differ.
            let plain = text.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_');
            if plain { Ok(()) } else { Err("text with other characters") }
        },
    );
    if !has_tenant {
        return section.required(&address_rule).map(|address| (address, None));
    }
    let address = section.optional(&address_rule);
    let tenant = section.optional(&tenant_rule);
    if has_address {
        section.blame(TENANT, format!("and `{ADDRESS}` exclude each other"), "both", "keep one of the two");
        return None;
    }
    drop(address);
    let (tenant, environment) = (tenant?, environment?);
    let host = match (vendor?, environment) {
        (Vendor::Cerner, _) => "fhir-myrecord.cerner.com",
        (Vendor::CernerProvider, Environment::Live) => "fhir-ehr.cerner.com",
        (Vendor::CernerProvider, Environment::Sandbox) => "fhir-ehr-code.cerner.com",
        (
            Vendor::Epic
            | Vendor::Athenahealth
            | Vendor::Eclinicalworks
            | Vendor::Meditech
            | Vendor::Nextgen
            | Vendor::Veradigm
            | Vendor::Va
            | Vendor::Bluebutton
            | Vendor::SmartHealthIt
            | Vendor::Generic,
            _,
        ) => {
            section.blame(
                TENANT,
                "works with the vendors `cerner` and `cerner-provider` only",
                "another vendor",
                format!("write {ADDRESS} = \"https://…\" with the address the vendor lists"),
            );
            return None;
        }
    };
    Some((format!("https://{host}/r4/{tenant}"), Some(tenant)))
}

fn optional_endpoint(
    section: &mut Section<'_>,
    key: &'static str,
    example: &'static str,
    environment: Option<Environment>,
) -> Option<String> {
    // With a wrong environment the milder check: that error stands already.
    let environment = environment.unwrap_or(Environment::Sandbox);
    section
        .optional(&rules::web_address(key, ENDPOINT, example, move |text| check_endpoint(text, environment)))
}

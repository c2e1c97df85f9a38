//! The configuration as the administrator meets it: a file, variables, arguments, and what is said about mistakes.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::PathBuf;
use std::time::Duration;

use chartgate::config::{
    AuthMethod, ByteSize, Config, ConfigErrors, DEFAULTS, Environment, Layers, SmartVersion, Vendor,
};
use tempfile::TempDir;

/// Something that must never be shown.
const MARKER: &str = "MARKERs3cr3t";

const TENANT: &str = "ec2458f2-1e24-41c8-b71b-0e701af7583d";

const CLIENT: &str = r#"
[[ehr_client]]
name = "cerner"
vendor = "cerner"
environment = "sandbox"
client_id = "11111111-2222-3333-4444-555555555555"
"#;

/// A folder with a configuration file in it, and what stands around it.
struct Setup {
    folder: TempDir,
    layers: Layers,
}

impl Setup {
    /// A file that begins with a public address.
    fn new(text: &str) -> Self {
        Self::exactly(&format!("public_url = \"https://connect.clinic.example\"\n{text}"))
    }

    fn exactly(text: &str) -> Self {
        let folder = TempDir::new().expect("a folder");
        let mut setup = Self { folder, layers: Layers::default() };
        setup.layers.file = Some(setup.write("config.toml", text));
        setup
    }

    fn write(&self, name: &str, text: &str) -> PathBuf {
        let path = self.folder.path().join(name);
        fs::write(&path, text).expect("a file");
        // The machine's umask must not decide about warnings.
        fs::set_permissions(&path, fs::Permissions::from_mode(0o644)).expect("permissions");
        path
    }

    fn variable(mut self, name: &str, value: &str) -> Self {
        self.layers.environment.push((name.into(), value.into()));
        self
    }

    fn argument(mut self, key: &str, value: &str) -> Self {
        self.layers.arguments.push((key.into(), value.into()));
        self
    }

    fn load(&self) -> Result<Config, ConfigErrors> {
        Config::load(&self.layers)
    }

    fn config(&self) -> Config {
        self.load().unwrap_or_else(|errors| panic!("{errors}"))
    }

    /// What the administrator reads, with the folder's name taken out.
    fn errors(&self) -> String {
        let errors = self.load().expect_err("errors").to_string();
        errors.replace(&format!("{}/", self.folder.path().display()), "")
    }
}

/// The shipped file with every example switched on.
fn uncommented() -> String {
    let lines = DEFAULTS.lines().map(|line| match line.strip_prefix('#') {
        // It contradicts the example of `auth`.
        Some(setting) if setting.starts_with("client_secret_file") => line,
        Some(setting) if setting.starts_with(|c: char| c.is_ascii_lowercase() || c == '[') => setting,
        _ => line,
    });
    lines.collect::<Vec<_>>().join("\n")
}

#[test]
fn the_shipped_file_needs_only_a_public_address() {
    let config = Setup::new("").config();
    assert_eq!(config.public_url.redirect_uri(), "https://connect.clinic.example/api/auth/smart/callback");
    assert_eq!(config.data_dir, PathBuf::from("/var/lib/chartgate"));
    assert_eq!(config.listen.public.address.to_string(), "127.0.0.1:8080");
    assert_eq!(config.listen.public.tls, None);
    assert_eq!(config.limits.idle, Duration::from_secs(75));
    assert_eq!(config.limits.body, ByteSize::mib(1));
    assert_eq!(config.store.cache, ByteSize::mib(64));
    assert_eq!(config.launch.attempt_lifetime, Duration::from_hours(1));
    assert_eq!(config.pull.parallel_per_source, 4);
    assert_eq!(config.pull.every, Duration::from_hours(24));
    assert_eq!((config.fhir.parallel_per_source, config.fhir.cors_origins.len()), (16, 0));
    assert_eq!(config.master_key_path(), None);
    let names: Vec<_> = config.workspaces.iter().map(|workspace| workspace.name.as_str()).collect();
    assert_eq!(names, ["live", "sandbox"]);
    assert!(config.ehr_clients.is_empty() && config.sources.is_empty());
}

#[test]
fn every_example_in_the_shipped_file_works_when_it_is_switched_on() {
    let config = Setup::exactly(&uncommented()).config();
    assert_eq!(config.warnings, Vec::<String>::new());
    assert!(config.listen.public.tls.is_some());
    assert_eq!(config.workspaces.len(), 3);
    let client = config.ehr_clients.first().expect("a client");
    assert_eq!(
        (client.vendor, client.auth, client.smart_version),
        (Vendor::Cerner, AuthMethod::PrivateKeyJwt, Some(SmartVersion::V1))
    );
    let source = config.sources.first().expect("a source");
    assert_eq!(source.fhir_base_url, format!("https://fhir-myrecord.cerner.com/r4/{TENANT}"));
}

#[test]
fn a_missing_file_is_an_error_only_when_it_was_asked_for() {
    let mut setup = Setup::new("").variable("CHARTGATE_PUBLIC_URL", "https://connect.clinic.example");
    setup.layers.file = Some(setup.folder.path().join("none.toml"));
    assert_eq!(setup.config().public_url.origin(), "https://connect.clinic.example");
    setup.layers.file_required = true;
    assert!(setup.errors().contains("none.toml, whole file, found no such file"), "{}", setup.errors());
}

#[test]
fn without_a_file_the_hint_names_a_variable() {
    let errors = Config::load(&Layers::default()).expect_err("no public address").to_string();
    assert!(errors.contains("no configuration file, key `public_url`, found nothing"), "{errors}");
    assert!(errors.contains("hint: set CHARTGATE_PUBLIC_URL=https://connect.clinic.example"), "{errors}");
}

#[test]
fn an_error_says_what_where_and_what_to_write() {
    let expected = "error: `outbound.timeout` must be a duration from 1s to 10m\n  --> config.toml, key \
                    `outbound.timeout`, found a whole number\n  hint: write timeout = \"10s\"";
    assert_eq!(Setup::new("[outbound]\ntimeout = 10").errors(), expected);

    let expected = "error: `public_url` must be given: the https address patients and EHRs reach this program at, \
                    without a path\n  --> config.toml, key `public_url`, found nothing\n  hint: write public_url = \
                    \"https://connect.clinic.example\"";
    assert_eq!(Setup::exactly("").errors(), expected);

    let expected = "error: `limits.connections` must be a whole number from 1 to 1000000\n  --> environment variable \
                    CHARTGATE_LIMITS__CONNECTIONS, found text that is not a whole number\n  hint: set \
                    CHARTGATE_LIMITS__CONNECTIONS=10000";
    assert_eq!(Setup::new("").variable("CHARTGATE_LIMITS__CONNECTIONS", "many").errors(), expected);

    let expected = "error: `log.format` must be one of \"text\", \"json\"\n  --> command line, key `log.format`, found \
                    another text\n  hint: give `log.format` as text";
    assert_eq!(Setup::new("").argument("log.format", "xml").errors(), expected);
}

#[test]
fn a_broken_file_is_reported_with_line_and_column() {
    let expected = "error: the configuration file must be valid TOML\n  --> config.toml, line 2, column 12, found text \
                    without quotes\n  hint: put text in quotes: key = \"value\"";
    assert_eq!(Setup::new("data_dir = MARKER").errors(), expected);
}

#[test]
fn everything_wrong_is_reported_at_once() {
    let setup = Setup::exactly(
        "data_dir = 5\ncolour = \"red\"\n[limits]\nidle = \"75\"\nconnections = 0\n[pull]\nparallel_per_source = 17\n\
         [[ehr_client]]\nname = \"Cerner\"\nvendor = \"cerna\"\n[[source]]\nname = \"Mercy\"\n",
    )
    .variable("CHARTGATE_LOG__FORMAT", "xml")
    .variable("CHARTGATE_STORE", "x");
    let errors = setup.load().expect_err("errors");
    let mut keys: Vec<_> = errors.iter().map(|error| error.key.as_str()).collect();
    keys.sort_unstable();
    let mut expected = [
        "key `colour`",
        "key `data_dir`",
        "key `ehr_client[1].client_id`",
        "key `ehr_client[1].environment`",
        "key `ehr_client[1].name`",
        "key `ehr_client[1].vendor`",
        "key `limits.connections`",
        "key `limits.idle`",
        "key `log.format`",
        "key `public_url`",
        "key `pull.parallel_per_source`",
        "key `source[1].ehr_client`",
        "key `source[1].fhir_base_url`",
        "key `store`",
    ];
    expected.sort_unstable();
    assert_eq!(keys, expected);
}

#[test]
fn an_unknown_key_is_answered_with_the_nearest_known_one() {
    let hint = |setup: Setup| {
        let errors = setup.load().expect_err("errors");
        assert_eq!(errors.iter().count(), 1, "{errors}");
        errors.iter().next().expect("one").hint.clone()
    };
    assert_eq!(hint(Setup::new("[outbound]\ntimout = \"10s\"")), "did you mean `outbound.timeout`?");
    assert_eq!(hint(Setup::new("[outbond]\ntimeout = \"10s\"")), "did you mean `outbound`?");
    assert_eq!(
        hint(Setup::new("[listen.public]\ntls.cert = \"a\"\n")),
        "known keys here: certificate, key, mode"
    );
    assert_eq!(
        hint(Setup::new("[store]\ndata_dir = \"/data\"")),
        "`data_dir` belongs at the top of the file, above the first [section]"
    );
    assert_eq!(
        hint(Setup::new("").variable("CHARTGATE_MASTER_KEY_FILE", "/run/key")),
        "did you mean CHARTGATE_MASTER_KEY__FILE?"
    );
    assert_eq!(hint(Setup::new("").argument("limits.bodi", "1 MiB")), "did you mean `limits.body`?");
    assert_eq!(
        hint(Setup::new(&format!("{CLIENT}clientid = \"a\""))),
        "did you mean `ehr_client[1].client_id`?"
    );
    assert_eq!(
        hint(Setup::new(CLIENT).variable("CHARTGATE_EHR_CLIENT__CERNER__SCOPE", "openid")),
        "did you mean CHARTGATE_EHR_CLIENT__CERNER__SCOPES?"
    );
    let unknown_list = Setup::new("").variable("CHARTGATE_EHR_CLIENTS__CERNER__CLIENT_ID", "a");
    assert_eq!(hint(unknown_list), "did you mean CHARTGATE_EHR_CLIENT?");
}

#[test]
fn higher_layers_win() {
    let file = "[log]\nfilter = \"warn\"\n[limits]\nbody = \"2 MiB\"\nidle = \"60s\"";
    let setup = Setup::new(file)
        .variable("CHARTGATE_LOG__FILTER", "debug")
        .variable("CHARTGATE_LIMITS__BODY", "3 MiB\n")
        .variable("CHARTGATE_LIMITS__IDLE", "")
        .variable("CHARTGATE_OUTBOUND__ALLOW_PRIVATE", "10.1.2.0/24, 10.1.3.0/24")
        .argument("log.filter", "trace");
    let config = setup.config();
    assert_eq!(config.log.filter, "trace");
    assert_eq!(config.limits.body, ByteSize::mib(3));
    assert_eq!(config.limits.idle, Duration::from_mins(1), "an empty variable counts as not set");
    assert_eq!(config.outbound.allow_private.len(), 2);
}

#[test]
fn variables_reach_entries_of_lists_by_name_and_make_new_ones() {
    let setup =
        Setup::new(&format!("{CLIENT}[[source]]\nname = \"Mercy Hospital\"\nehr_client = \"cerner\"\n"))
            .variable("CHARTGATE_EHR_CLIENT__CERNER__CLIENT_ID", "from-the-environment")
            .variable("CHARTGATE_SOURCE__MERCY_HOSPITAL__TENANT", TENANT)
            .variable("CHARTGATE_SOURCE__MERCY_HOSPITAL__SEND_AUD", "false")
            .variable("CHARTGATE_EHR_CLIENT__SMART_TEST__VENDOR", "smart-health-it")
            .variable("CHARTGATE_EHR_CLIENT__SMART_TEST__ENVIRONMENT", "sandbox")
            .variable("CHARTGATE_EHR_CLIENT__SMART_TEST__CLIENT_ID", "any");
    let config = setup.config();
    let ids: Vec<_> =
        config.ehr_clients.iter().map(|client| (client.name.as_str(), client.client_id.as_str())).collect();
    assert_eq!(ids, [("cerner", "from-the-environment"), ("smart-test", "any")]);
    let source = config.sources.first().expect("a source");
    assert_eq!((source.tenant.as_deref(), source.send_aud), (Some(TENANT), Some(false)));

    let setup = Setup::new("").variable("CHARTGATE_EHR_CLIENT__CERNER__VENDOR", "cerner");
    assert!(
        setup
            .errors()
            .contains("environment variable CHARTGATE_EHR_CLIENT__CERNER__CLIENT_ID, found nothing")
    );
    assert!(
        Setup::new("")
            .variable("CHARTGATE_EHR_CLIENT", "x")
            .errors()
            .contains("CHARTGATE_EHR_CLIENT__MY_NAME__KEY")
    );
}

#[test]
fn plain_http_stays_on_this_machine_unless_a_proxy_is_declared() {
    let open = "[listen.public]\naddress = \"0.0.0.0:8080\"\n";
    let errors = Setup::new(open).errors();
    assert!(
        errors.contains("key `listen.public.address`, found an address other machines can reach"),
        "{errors}"
    );
    assert!(
        errors.contains("tls.certificate") && errors.contains("trusted_proxies"),
        "both ways out: {errors}"
    );

    let config = Setup::new(&format!("{open}trusted_proxies = [\"10.0.0.0/8\"]")).config();
    assert_eq!(config.listen.public.tls, None);
    let config = Setup::new(&format!("{open}tls.certificate = \"a.pem\"\ntls.key = \"/etc/a.key\"")).config();
    let tls = config.listen.public.tls.expect("tls");
    assert!(
        tls.certificate.is_absolute() && tls.certificate.ends_with("a.pem"),
        "relative to the file's folder"
    );
    assert_eq!(tls.key, PathBuf::from("/etc/a.key"));
    assert!(
        Setup::new(&format!("{open}tls.certificate = \"a.pem\""))
            .errors()
            .contains("`listen.public.tls.key` must be given")
    );
    assert!(Setup::new("[listen.public]\ntls.mode = \"files\"").errors().contains("tls.certificate"));
    let everybody = format!("{open}trusted_proxies = [\"0.0.0.0/0\"]");
    assert!(Setup::new(&everybody).errors().contains("found a network of all addresses"));
}

#[test]
fn settings_that_contradict_each_other_are_refused() {
    fn check(text: &str, expected: &str) {
        let errors = Setup::new(text).errors();
        assert!(errors.contains(expected), "{text}: {errors}");
    }
    let source = format!("{CLIENT}[[source]]\nname = \"Mercy\"\nehr_client = \"cerner\"\n");
    check(&format!("{CLIENT}client_secret = \"a\""), "`ehr_client[1].client_secret` does not belong to");
    check(&format!("{CLIENT}auth = \"client_secret_basic\""), "needs a client secret");
    check(
        &format!("{CLIENT}auth = \"none\"\nsigning_algorithm = \"ES384\""),
        "belongs to `auth = \"private_key_jwt\"` only",
    );
    check(&format!("{CLIENT}{CLIENT}"), "`ehr_client[2].name` must be unique");
    check(&source, "`source[1].fhir_base_url` must be given");
    check(&format!("{source}tenant = \"a\"\nfhir_base_url = \"https://a.example\""), "exclude each other");
    check(&format!("{source}tenant = \"a/b\""), "found text with other characters");
    check(
        &format!("{source}tenant = \"a\"\nenvironment = \"live\""),
        "`source[1].environment` must be that of its EHR client",
    );
    check(
        &format!("{source}fhir_base_url = \"http://fhir.example\""),
        "found an http address that is not on this machine",
    );
    let launch = format!("{CLIENT}launch_url = \"https://app.example/?tab=1\"\n");
    let second = "[[workspace]]\nname = \"second\"\nenvironment = \"sandbox\"\n";
    check(&format!("{launch}{second}"), "there are several workspaces of sandbox");
    check(&format!("{launch}{second}"), "`sandbox`, `second`");
    check(&format!("{launch}launch_workspace = \"live\""), "must be the name of a workspace of sandbox");
    check(&format!("{CLIENT}launch_workspace = \"sandbox\""), "belongs to `launch_url`");
    check(
        &format!("{CLIENT}launch_url = \"http://app.example/\""),
        "found an http address that is not on this machine",
    );
    for good in [launch.clone(), format!("{launch}launch_workspace = \"second\"\n{second}")] {
        let config = Setup::new(&good).config();
        let client = config.ehr_clients.first().expect("a client");
        assert_eq!(client.launch_url.as_deref(), Some("https://app.example/?tab=1"));
    }
    check(
        "[[source]]\nname = \"a\"\nehr_client = \"b\"\nfhir_base_url = \"https://a.example\"",
        "add an [[ehr_client]] first",
    );
    check(
        "[limits]\nconnections = 5\nconnections_per_address = 6",
        "must not be more than `limits.connections`",
    );
    check("[[workspace]]\nname = \"live\"\nenvironment = \"sandbox\"", "cannot be changed");
    check("[ehr_client]\nname = \"a\"", "must be a list of tables");
    check("[[limits]]\nidle = \"1s\"", "`limits` must be a section");
    check("limits = 1979-05-27", "found a date");
    check("source = [1979-05-27]", "found a list with a date");
}

#[test]
fn a_default_gives_way_to_what_was_written() {
    let config = Setup::new("[limits]\nconnections = 50\n[outbound]\ntimeout = \"5s\"").config();
    assert_eq!(config.limits.connections_per_address, 50);
    assert_eq!(config.outbound.connect_timeout, Duration::from_secs(5));
}

#[test]
fn a_source_takes_the_environment_and_the_host_of_its_client() {
    let text = |vendor: &str, environment: &str| {
        format!(
            "[[ehr_client]]\nname = \"c\"\nvendor = \"{vendor}\"\nenvironment = \"{environment}\"\nclient_id = \"a\"\n\
             [[source]]\nname = \"Mercy\"\nehr_client = \"c\"\ntenant = \"-c6_X\"\n"
        )
    };
    for (vendor, environment, host) in [
        ("cerner", Environment::Live, "fhir-myrecord.cerner.com"),
        ("cerner-provider", Environment::Live, "fhir-ehr.cerner.com"),
        ("cerner-provider", Environment::Sandbox, "fhir-ehr-code.cerner.com"),
    ] {
        let config = Setup::new(&text(vendor, environment.as_str())).config();
        let source = config.sources.first().expect("a source");
        assert_eq!(source.fhir_base_url, format!("https://{host}/r4/-c6_X"));
        assert_eq!(source.environment, environment);
    }
    assert!(Setup::new(&text("epic", "live")).errors().contains("works with the vendors"));
}

#[test]
fn a_client_secret_comes_from_a_file_without_its_last_line_break() {
    let with_file = format!("{CLIENT}auth = \"client_secret_basic\"\nclient_secret_file = \"the.secret\"\n");
    let secret = |config: &Config| {
        let client = config.ehr_clients.first().expect("a client");
        client.client_secret.as_ref().expect("a secret").expose().to_owned()
    };
    let setup = Setup::new(&with_file);
    assert!(setup.errors().contains("`ehr_client[1].client_secret_file` must name a readable file"));
    assert!(setup.errors().contains("found no such file"));
    setup.write("the.secret", "\n");
    assert!(setup.errors().contains("found an empty file"));
    let path = setup.write("the.secret", &format!("{MARKER} \n"));
    let config = setup.config();
    assert_eq!(secret(&config), format!("{MARKER} "));
    assert!(!format!("{config:?}").contains(MARKER));

    let open = |mode| {
        fs::set_permissions(&path, fs::Permissions::from_mode(mode)).expect("permissions");
        setup.config().warnings.iter().any(|warning| warning.contains("client_secret_file"))
    };
    assert_eq!([0o600, 0o640, 0o644, 0o660].map(open), [false, false, true, true]);

    let other = setup.write("other.secret", "from-the-environment");
    let higher = Setup { folder: setup.folder, layers: setup.layers }
        .variable("CHARTGATE_EHR_CLIENT__CERNER__CLIENT_SECRET", "direct");
    assert_eq!(secret(&higher.config()), "direct", "the environment wins over the file's twin");
    let both =
        higher.variable("CHARTGATE_EHR_CLIENT__CERNER__CLIENT_SECRET_FILE", &other.display().to_string());
    assert!(both.errors().contains("exclude each other"));
}

#[test]
fn the_master_key_is_a_file_or_a_credential_of_systemd() {
    let setup = Setup::new("").variable("CREDENTIALS_DIRECTORY", "/run/credentials/chartgate.service");
    let credential = PathBuf::from("/run/credentials/chartgate.service/master.key");
    assert_eq!(setup.config().master_key_path(), Some(credential));
    let setup = setup.variable("CHARTGATE_MASTER_KEY__FILE", "/etc/chartgate/master.key");
    assert_eq!(setup.config().master_key_path(), Some(PathBuf::from("/etc/chartgate/master.key")));
}

#[test]
fn variables_that_kubernetes_adds_do_not_stop_the_start() {
    let setup = Setup::new("")
        .variable("CHARTGATE_SERVICE_HOST", "10.0.0.1")
        .variable("CHARTGATE_PORT", "tcp://10.0.0.1:8443")
        .variable("CHARTGATE_PORT_8443_TCP_ADDR", "10.0.0.1")
        .variable("CHARTGATE_CONFIG", "/etc/chartgate/config.toml");
    setup.config();
}

/// Every setting of the shipped file as (line number, line), examples included.
fn settings(text: &str) -> Vec<(usize, String)> {
    let is_setting = |line: &str| line.starts_with(|c: char| c.is_ascii_lowercase()) && line.contains(" = ");
    text.lines()
        .enumerate()
        .filter(|(_, line)| is_setting(line))
        .map(|(at, line)| (at, line.to_owned()))
        .collect()
}

#[test]
fn no_error_shows_what_was_written_wherever_it_landed() {
    // The two secrets are out of place here, so there is an error to look at also where a value is acceptable.
    let secrets = "client_secret = \"x\"\nclient_secret_file = ";
    let whole = uncommented().replace("#client_secret_file = ", secrets);
    let wrong = [
        format!("\"{MARKER} \\u0001\""),
        format!("\"https://{MARKER}:{MARKER}@a.example/{MARKER}?a#{MARKER}\""),
        format!("[\"{MARKER} {MARKER}\"]"),
        format!("{{ {MARKER} = \"{MARKER}\" }}"),
        format!("[{{ a = \"{MARKER}\" }}]"),
        MARKER.to_owned(),
        "3141592653589793".to_owned(),
        "-31415926.53589".to_owned(),
        "1979-05-27".to_owned(),
    ];
    let shown = |value: &str| value.contains(MARKER) || value.contains("31415926") || value.contains("1979");
    let settings = settings(&whole);
    assert!(settings.len() > 50, "the shipped file has all settings");
    for (at, line) in settings {
        let (key, _) = line.split_once(" = ").expect("a setting");
        for value in &wrong {
            let text: Vec<_> = whole
                .lines()
                .enumerate()
                .map(|(here, line)| if here == at { format!("{key} = {value}") } else { line.to_owned() })
                .collect();
            let setup = Setup::exactly(&text.join("\n"));
            let errors = setup.load().expect_err(&line);
            assert!(!shown(&errors.to_string()) && !shown(&format!("{errors:?}")), "{key}: {errors}");
        }
    }
}

#[test]
fn no_error_shows_a_value_of_the_environment_or_the_command_line() {
    let keys = [
        "public_url",
        "data_dir",
        "listen",
        "listen.public",
        "listen.public.address",
        "listen.public.tls",
        "listen.public.tls.mode",
        "listen.public.trusted_proxies",
        "limits",
        "limits.idle",
        "limits.body",
        "limits.connections",
        "master_key",
        "store.cache",
        "log.format",
        "outbound.allow_private",
        "pull.parallel_per_source",
        "fhir.timeout",
        "fhir.cors_origins",
        "ehr_client",
        "ehr_client.cerner",
        "ehr_client.cerner.vendor",
        "ehr_client.cerner.auth",
        "ehr_client.cerner.client_secret",
        "ehr_client.cerner.client_secret_file",
        "ehr_client.cerner.name.deep",
        "source.mercy.send_aud",
        "source.mercy.fhir_base_url",
        "unknown",
        "data_dir.deep",
    ];
    let value = format!("{MARKER}\u{1} /{MARKER}");
    for key in keys {
        let name = format!("CHARTGATE_{}", key.to_uppercase().replace('.', "__"));
        for setup in [Setup::new(CLIENT).variable(&name, &value), Setup::new(CLIENT).argument(key, &value)] {
            match setup.load() {
                Err(errors) => assert!(!errors.to_string().contains(MARKER), "{key}: {errors}"),
                // A path may be anything.
                Ok(_) => assert_eq!(key, "data_dir"),
            }
        }
    }
}

#[test]
fn a_printed_configuration_shows_no_secret() {
    let text = format!(
        "{CLIENT}auth = \"client_secret_basic\"\nclient_secret = \"{MARKER}\"\n[master_key]\nfile = \"{MARKER}\"\n"
    );
    let config = Setup::new(&text).config();
    assert!(!format!("{config:?} {config:#?}").contains(MARKER));
    let warnings = config.warnings.join("\n");
    assert!(warnings.contains("`ehr_client[1].client_secret` is open to other users"), "{warnings}");
    assert!(!warnings.contains(MARKER));
}

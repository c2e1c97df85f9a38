//! A patient of every vendor: the profile against a hospital with that vendor's habits, from the launch to the end.

use std::time::Duration;

use chartgate::config::AuthMethod;
use chartgate::events::history::RefreshedBy;
use chartgate::id::{ConnectionId, Id as _};
use chartgate::sandbox::Personality;
use chartgate::smart::RESOURCE_TYPES;
use chartgate::smart::server::Overrides;
use chartgate::smart::vendors::{RefreshBehaviour, VendorProfile};
use serde_json::{Value, json};

use crate::support::{Browser, Hospital, Setup, TestApp, send};

/// What is expected of one vendor.
struct Row {
    personality: Personality,
    vendor: &'static str,
    auth: AuthMethod,
    overrides: fn(&Hospital) -> Overrides,
    /// Seconds from the token's arrival until it is renewed by itself.
    renewed_after: u64,
    rotates: bool,
    revokes: bool,
    /// Part of the scopes that are asked for.
    asks: &'static str,
    /// Not among them.
    asks_not: &'static str,
    /// How many of the seventeen types can be read.
    types: usize,
}

const USUAL: Row = Row {
    personality: Personality::Generic,
    vendor: "generic",
    auth: AuthMethod::PrivateKeyJwt,
    overrides: |_| Overrides::default(),
    renewed_after: 2880,
    rotates: true,
    revokes: true,
    asks: "openid fhirUser launch/patient offline_access patient/",
    asks_not: "user/",
    types: 17,
};

fn rows() -> Vec<Row> {
    use AuthMethod::{ClientSecretBasic, ClientSecretPost, None as Public, PrivateKeyJwt};
    use Personality as P;
    let no_aud: fn(&Hospital) -> Overrides = |_| Overrides { send_aud: Some(false), ..Overrides::default() };
    vec![
        Row {
            personality: P::CernerPatient,
            vendor: "cerner",
            renewed_after: 456,
            asks: "patient/Observation.read",
            asks_not: "patient/*",
            ..USUAL
        },
        Row {
            personality: P::CernerPatient,
            vendor: "cerner",
            auth: ClientSecretBasic,
            renewed_after: 456,
            ..USUAL
        },
        Row {
            personality: P::CernerProvider,
            vendor: "cerner-provider",
            renewed_after: 456,
            asks: "openid fhirUser offline_access",
            asks_not: "launch/patient",
            ..USUAL
        },
        Row { personality: P::Epic, vendor: "epic", revokes: false, asks: "patient/Observation.rs", ..USUAL },
        Row {
            personality: P::Athenahealth,
            vendor: "athenahealth",
            asks: "patient/Observation.read",
            ..USUAL
        },
        Row { personality: P::Athenahealth, vendor: "athenahealth", auth: Public, ..USUAL },
        Row {
            personality: P::Eclinicalworks,
            vendor: "eclinicalworks",
            revokes: false,
            asks: "patient/Observation.read",
            ..USUAL
        },
        Row {
            personality: P::Meditech,
            vendor: "meditech",
            auth: ClientSecretPost,
            overrides: no_aud,
            asks: "patient/Observation.read",
            ..USUAL
        },
        Row {
            personality: P::Nextgen,
            vendor: "nextgen",
            auth: ClientSecretBasic,
            asks: "offline_access patient/*.read",
            asks_not: "Observation",
            ..USUAL
        },
        Row {
            personality: P::Veradigm,
            vendor: "veradigm",
            auth: ClientSecretBasic,
            revokes: false,
            asks: "patient/*.read",
            asks_not: "Observation",
            ..USUAL
        },
        Row {
            personality: P::Va,
            vendor: "va",
            auth: ClientSecretBasic,
            asks: "openid profile launch/patient offline_access patient/",
            asks_not: "fhirUser",
            ..USUAL
        },
        Row { personality: P::Va, vendor: "va", auth: Public, asks: "openid profile", ..USUAL },
        Row {
            personality: P::Bluebutton,
            vendor: "bluebutton",
            auth: ClientSecretBasic,
            renewed_after: 13_415,
            asks: "openid profile launch/patient patient/Patient.read patient/Coverage.read",
            asks_not: "offline_access",
            types: 2,
            ..USUAL
        },
        Row {
            personality: P::SmartHealthIt,
            vendor: "smart-health-it",
            rotates: false,
            asks: "patient/Observation.s",
            ..USUAL
        },
        Row { auth: PrivateKeyJwt, ..USUAL },
    ]
}

async fn start(row: &Row) -> TestApp {
    let profile = VendorProfile::named(row.vendor).expect("a profile");
    TestApp::with(Setup {
        personality: row.personality,
        vendor: row.vendor,
        auth: row.auth,
        smart_version: profile.smart_version,
        overrides: row.overrides,
        client: |client| chartgate::sandbox::RegisteredClient {
            smart_version: chartgate::sandbox::SmartVersion::V1,
            ..client
        },
        ..Setup::default()
    })
    .await
}

async fn grant(app: &TestApp) -> Value {
    app.hospital.control("GET", "grants", &Value::Null).await[0].clone()
}

#[tokio::test]
async fn a_patient_of_every_vendor_connects_is_refreshed_and_disconnects() {
    for row in rows() {
        let name = format!("{} with {}", row.personality.name(), row.auth);
        let app = start(&row).await;
        let user = app.hospital.users()[0].clone();
        let id = ConnectionId::parse(&app.connected("amy-7", &user.username).await).expect("an id");
        let connection = app.connection("amy-7").await;
        assert_eq!(connection["status"], "active", "{name}: {connection}");

        // Asked as the profile says, and understood.
        let asked = app.hospital.log("authorize").await[0]["asked"]["scope"].clone();
        let asked = asked.as_str().expect("scopes");
        assert!(asked.contains(row.asks) && !asked.contains(row.asks_not), "{name}: {asked}");
        assert_eq!(app.hospital.log("token").await[0]["asked"]["auth_method"], row.auth.as_str(), "{name}");
        let held = grant(&app).await;
        assert_eq!((&held["patient"], &held["generation"]), (&json!(user.patient), &json!(1)), "{name}");
        let grants = app.app().parts().grants.clone();
        let first =
            grants.access(id, RefreshedBy::Proxy).await.unwrap_or_else(|error| panic!("{name}: {error}"));
        assert_eq!(first.ehr_patient.as_str(), user.patient, "{name}");

        // Read as the vendor wants to be asked.
        let records = app.records("amy-7", "").await;
        assert!(
            records
                .iter()
                .any(|record| record["resource_type"] == "Patient"
                    || record.to_string().contains("\"Patient\"")),
            "{name}"
        );
        let refused: Vec<Value> = app
            .hospital
            .log("fhir")
            .await
            .into_iter()
            .filter(|line| line["status"].as_u64() >= Some(400))
            .collect();
        assert!(refused.is_empty(), "{name}: {refused:?}");
        let read: std::collections::BTreeSet<String> = app
            .hospital
            .log("fhir")
            .await
            .iter()
            .filter_map(|line| line["path"].as_str()?.split('/').nth(3).map(str::to_owned))
            // Attachments are read besides.
            .filter(|name| RESOURCE_TYPES.contains(&name.as_str()))
            .collect();
        assert_eq!(read.len(), row.types, "{name}: {read:?}");

        // Renewed by itself in time, and not before.
        app.clock.advance(Duration::from_secs(row.renewed_after - 1));
        grants.access(id, RefreshedBy::Proxy).await.expect("a token");
        assert_eq!(app.hospital.count("token.refresh_token.").await, 0, "{name}");
        app.clock.advance(Duration::from_secs(1));
        let second =
            grants.access(id, RefreshedBy::Proxy).await.unwrap_or_else(|error| panic!("{name}: {error}"));
        assert_eq!(app.hospital.count("token.refresh_token.ok").await, 1, "{name}");
        let held = grant(&app).await;
        assert_eq!(held["generation"], if row.rotates { 2 } else { 1 }, "{name}");
        let profile = VendorProfile::named(row.vendor).expect("a profile");
        assert!(profile.refresh != RefreshBehaviour::Rotates || row.rotates, "{name}");

        // A 401 of the FHIR server, whatever its shape, is answered with one new token.
        let patient = format!("{}/Patient/{}", app.hospital.base, user.patient);
        let bearer = |token: &str| [("authorization".to_owned(), format!("Bearer {token}"))];
        let ask = async |token: &str| {
            let headers = bearer(token);
            let headers: Vec<(&str, &str)> =
                headers.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
            send("GET", &patient, &[headers[0], ("accept", "application/fhir+json")], "").await.status
        };
        assert_eq!(ask("not a good one").await, 401, "{name}");
        app.clock.advance(Duration::from_mins(2));
        let third = grants
            .renew(id, &second.token, RefreshedBy::Proxy)
            .await
            .unwrap_or_else(|error| panic!("{name}: {error}"));
        assert_eq!(ask(third.token.expose()).await, 200, "{name}");
        let held = grant(&app).await;
        assert_eq!((&held["refreshes"], &held["reuses"]), (&json!(2), &json!(0)), "{name}");

        // Given back where there is a place for it.
        app.api("DELETE", &format!("/patients/amy-7/connections/{id}"), Value::Null).await.ok();
        assert_eq!(app.connection("amy-7").await["status"], "disconnected", "{name}");
        if row.revokes {
            let told = async {
                while app.hospital.count("revoke.").await == 0 {
                    tokio::task::yield_now().await;
                }
            };
            tokio::time::timeout(Duration::from_secs(20), told).await.expect("the hospital is told");
            assert_eq!(grant(&app).await["ended"], "revoked by the client", "{name}");
        } else {
            assert_eq!(app.hospital.count("revoke.").await, 0, "{name}");
        }
    }
}

#[tokio::test]
async fn every_vendor_has_a_personality_and_every_personality_a_vendor() {
    let tested: Vec<(&str, &str)> = rows().iter().map(|row| (row.personality.name(), row.vendor)).collect();
    for one in Personality::ALL {
        assert!(tested.iter().any(|(known, _)| *known == one.name()), "{}", one.name());
    }
    for profile in VendorProfile::all() {
        assert!(tested.iter().any(|(_, known)| *known == profile.name), "{}", profile.name);
        let personality = Personality::parse(profile.name).expect("of the same name");
        assert!(tested.contains(&(personality.name(), profile.name)), "{}", profile.name);
    }
}

#[tokio::test]
async fn a_refused_refresh_token_ends_the_connection_at_every_vendor() {
    for row in rows() {
        let name = row.personality.name();
        let app = start(&row).await;
        let user = app.hospital.users()[0].username.clone();
        let id = ConnectionId::parse(&app.connected("amy-7", &user).await).expect("an id");
        app.hospital.control("POST", "revoke", &json!({})).await;
        app.clock.advance(Duration::from_secs(row.renewed_after));
        let grants = app.app().parts().grants.clone();
        let first = grants.access(id, RefreshedBy::Proxy).await;
        // 403 may be a gateway's; it is believed when it stays so for days. Until its end the token at hand is good.
        if row.personality == Personality::SmartHealthIt {
            first.expect(name);
            assert_eq!(app.connection("amy-7").await["status"], "active", "{name}");
            for _ in 0..8 {
                app.clock.advance(Duration::from_hours(24));
                grants.access(id, RefreshedBy::Proxy).await.expect_err(name);
            }
        } else {
            first.expect_err(name);
        }
        assert_eq!(app.connection("amy-7").await["status"], "refresh_failed", "{name}");
        // And the patient can come back.
        let (link, _) = app.session("amy-7").await;
        let page = app.journey(&mut Browser::default(), &link).await;
        assert_eq!(page.status, 200, "{name}");
        assert_eq!(app.connection("amy-7").await["status"], "active", "{name}");
    }
}

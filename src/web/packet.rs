//! The activation packet: one page for the IT team of a hospital that has to switch the app on. To be printed, or sent as a
//! file or as text, so it stands alone: no script, no picture, nothing from elsewhere.

use std::fmt::Write as _;

use maud::{DOCTYPE, Markup, PreEscaped, html};

use crate::config::{AuthMethod, Environment, PublicUrl, SmartVersion};
use crate::directory::{EhrClient, Source};
use crate::smart::scopes::ScopeSet;
use crate::smart::vendors::{HospitalSteps, VendorProfile, hospital_steps};

/// Columns of the text: what mail programs do not wrap again.
const WIDTH: usize = 76;

const STYLE: &str = "
@page { margin: 14mm 16mm; }
* { box-sizing: border-box; }
body { margin: 0 auto; max-width: 46rem; padding: 2rem 1.25rem; background: #fff; color: #14262b;
  font: 400 0.9375rem/1.45 system-ui, -apple-system, 'Segoe UI', Roboto, sans-serif; overflow-wrap: anywhere; }
h1 { font-size: 1.5rem; line-height: 1.2; margin: 0 0 0.5rem; }
h2 { font-size: 1.0625rem; margin: 1.5rem 0 0.5rem; break-after: avoid; }
p { margin: 0 0 0.5rem; }
table { border-collapse: collapse; width: 100%; margin-bottom: 0.75rem; }
th, td { text-align: left; vertical-align: top; padding: 0.375rem 0.75rem 0.375rem 0; border-top: 1px solid #d6dfdf; }
th { width: 11rem; font-weight: 600; color: #4b5f65; }
td, li code { font-family: ui-monospace, 'SF Mono', Menlo, Consolas, monospace; font-size: 0.875rem; }
td.words { font-family: inherit; font-size: inherit; }
ol, ul { margin: 0; padding-left: 1.25rem; }
li { margin-bottom: 0.375rem; break-inside: avoid; }
ul.scopes { columns: 2; list-style: none; padding: 0; }
ul.scopes li { margin: 0; }
.foot { margin-top: 1.5rem; color: #4b5f65; font-size: 0.8125rem; }
@media (max-width: 30rem) { th, td { display: block; width: auto; } td { border: 0; padding-top: 0; } ul.scopes { columns: 1; } }
@media print {
  body { padding: 0; max-width: none; font-size: 9pt; line-height: 1.3; }
  h1 { font-size: 15pt; } h2 { font-size: 11pt; margin-top: 0.75rem; }
  th, td { padding-block: 0.1875rem; } td, li code { font-size: 8.5pt; }
  li { margin-bottom: 0.125rem; } ul.scopes { columns: 3; }
}
";

/// What the IT team of one hospital needs to know.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Packet {
    hospital: String,
    clinic: String,
    /// Label and value, in the order of the page.
    about_hospital: Vec<(&'static str, String)>,
    about_app: Vec<(&'static str, String)>,
    scopes: Vec<String>,
    /// Whether the scopes are those of this very server.
    exact_scopes: bool,
    steps: &'static HospitalSteps,
    contact: Option<String>,
    made_on: String,
}

/// What a packet is made of.
#[derive(Debug, Clone, Copy)]
pub struct PacketFacts<'f> {
    /// The hospital's server.
    pub source: &'f Source,
    /// Our registration at its vendor.
    pub client: &'f EhrClient,
    /// What patients would be asked to share, and whether the server's own list of scopes was to be had.
    pub scopes: &'f (ScopeSet, bool),
    /// Our address.
    pub public_url: &'f PublicUrl,
    /// Who asks.
    pub clinic: &'f str,
    /// Whom the hospital may write to or call.
    pub contact: Option<&'f str>,
    /// The date, `2026-11-27`.
    pub today: &'f str,
}

impl Packet {
    /// Puts the packet of a source together. It holds nothing secret: a client secret is never in it.
    pub fn new(facts: PacketFacts<'_>) -> Self {
        let PacketFacts { source, client, scopes, public_url, clinic, contact, today } = facts;
        let label = VendorProfile::named(&source.vendor).map_or("", |profile| profile.label);
        let mut about_hospital = vec![("FHIR base URL", source.base.to_string())];
        if matches!(source.vendor.as_str(), "cerner" | "cerner-provider") {
            let tenant = source.base.path().rsplit('/').next().unwrap_or_default();
            about_hospital.push(("Tenant id", tenant.to_owned()));
        }
        if !label.is_empty() && source.vendor != "generic" {
            about_hospital.push(("EHR", label.to_owned()));
        }
        let environment = match source.environment {
            Environment::Live => "production",
            Environment::Sandbox => "test (no real patients)",
        };
        let signs = client.auth == AuthMethod::PrivateKeyJwt;
        let mut about_app = vec![
            ("Client id", client.client_id.clone()),
            ("Environment", environment.to_owned()),
            ("Redirect URI", public_url.redirect_uri()),
        ];
        if signs {
            about_app.push(("JWKS URI", public_url.jwks_uri()));
        }
        about_app.push(("Authentication", authentication(client.auth).to_owned()));
        let version = match client.smart_version {
            SmartVersion::V1 => "SMART v1 (patient/Observation.read)",
            SmartVersion::V2 => "SMART v2 (patient/Observation.rs)",
        };
        about_app.push(("Scopes written as", version.to_owned()));
        about_app.push(("Launch", "standalone, by the patient, with PKCE (S256)".to_owned()));
        Self {
            hospital: line(&source.name),
            clinic: line(clinic),
            about_hospital: cleaned(about_hospital),
            about_app: cleaned(about_app),
            scopes: scopes.0.iter().map(|scope| line(scope.as_str())).collect(),
            exact_scopes: scopes.1,
            steps: hospital_steps(&source.vendor),
            contact: contact.map(line).filter(|contact| !contact.is_empty()),
            made_on: line(today),
        }
    }

    fn title(&self) -> String {
        format!("Switching on patient access at {}", self.hospital)
    }

    fn lead(&self) -> String {
        format!(
            "{} connects patients to their own health records. A patient of yours finds your hospital, signs in on your own \
             page, and agrees there to what is shared; the password stays with you. Records are read only, and only while \
             the patient agrees. For this, your EHR has to know the app below.",
            self.clinic
        )
    }

    fn about_scopes(&self) -> &'static str {
        if self.exact_scopes {
            "What patients are asked to share, as your server lists it:"
        } else {
            "What patients are asked to share (your server could not be asked for its own list just now):"
        }
    }

    fn keys(&self) -> Option<&'static str> {
        let signs = self.about_app.iter().any(|(label, _)| *label == "JWKS URI");
        signs.then_some(
            "The keys at the JWKS URI change from time to time. Please read them from there, and do not copy them.",
        )
    }

    fn answer_to(&self) -> String {
        match &self.contact {
            Some(contact) => format!("Questions, and word that it is done, please to {contact}."),
            None => format!("Questions, and word that it is done, please to {}.", self.clinic),
        }
    }

    /// The packet as one page.
    pub fn html(&self) -> String {
        let table = |rows: &[(&'static str, String)]| {
            html! { table { @for (label, value) in rows { tr { th scope="row" { (label) } td { (value) } } } } }
        };
        let page: Markup = html! {
            (DOCTYPE)
            html lang="en" {
                head {
                    meta charset="utf-8";
                    meta name="viewport" content="width=device-width, initial-scale=1";
                    // Whatever stands in a name, the page loads and runs nothing.
                    meta http-equiv="Content-Security-Policy" content="default-src 'none'; style-src 'unsafe-inline'";
                    title { (self.title()) }
                    style { (PreEscaped(STYLE)) }
                }
                body {
                    main {
                        h1 { (self.title()) }
                        p { (self.lead()) }
                        h2 { "Your server" }
                        (table(&self.about_hospital))
                        h2 { "The app" }
                        (table(&self.about_app))
                        @if let Some(keys) = self.keys() { p { (keys) } }
                        h2 { "What to do" }
                        ol { @for step in self.steps.steps { li { (step) } } }
                        @if !self.steps.notes.is_empty() {
                            h2 { "Good to know" }
                            ul { @for note in self.steps.notes { li { (note) } } }
                        }
                        h2 { "Scopes" }
                        p { (self.about_scopes()) }
                        ul.scopes { @for scope in &self.scopes { li { code { (scope) } } } }
                        p.foot { (self.answer_to()) " " (self.clinic) ", " (self.made_on) "." }
                    }
                }
            }
        };
        page.into_string()
    }

    /// The packet as plain text.
    pub fn text(&self) -> String {
        let mut out = String::new();
        let title = self.title();
        heading(&mut out, &title, '=');
        paragraph(&mut out, "", &self.lead());
        for (name, rows) in [("Your server", &self.about_hospital), ("The app", &self.about_app)] {
            heading(&mut out, name, '-');
            for (label, value) in rows {
                // Never wrapped: it is copied from here.
                let _ = writeln!(out, "{label:<18} {value}");
            }
            out.push('\n');
        }
        if let Some(keys) = self.keys() {
            paragraph(&mut out, "", keys);
        }
        heading(&mut out, "What to do", '-');
        for (number, step) in (1..).zip(self.steps.steps) {
            paragraph(&mut out, &format!("{number}. "), step);
        }
        for note in self.steps.notes {
            paragraph(&mut out, "Note: ", note);
        }
        heading(&mut out, "Scopes", '-');
        paragraph(&mut out, "", self.about_scopes());
        for scope in &self.scopes {
            let _ = writeln!(out, "  {scope}");
        }
        out.push('\n');
        paragraph(&mut out, "", &self.answer_to());
        let _ = writeln!(out, "{}, {}", self.clinic, self.made_on);
        out
    }
}

fn authentication(method: AuthMethod) -> &'static str {
    match method {
        AuthMethod::PrivateKeyJwt => "private_key_jwt (signed assertions; confidential app)",
        AuthMethod::ClientSecretBasic => "client_secret_basic (confidential app)",
        AuthMethod::ClientSecretPost => "client_secret_post (confidential app)",
        AuthMethod::None => "none (public app, with PKCE)",
    }
}

fn cleaned(rows: Vec<(&'static str, String)>) -> Vec<(&'static str, String)> {
    rows.into_iter().map(|(label, value)| (label, line(&value))).collect()
}

/// One line: what stands in a name must not add lines to a letter, or move a terminal's cursor.
fn line(text: &str) -> String {
    let plain: String = text.chars().map(|letter| if letter.is_control() { ' ' } else { letter }).collect();
    plain.trim().to_owned()
}

fn heading(out: &mut String, text: &str, under: char) {
    let _ = writeln!(out, "{text}");
    let length = text.chars().count().min(WIDTH);
    let _ = writeln!(out, "{}\n", under.to_string().repeat(length));
}

/// Wrapped, later lines below the text of the first, and a blank line behind it.
fn paragraph(out: &mut String, mark: &str, text: &str) {
    let indent = " ".repeat(mark.chars().count());
    let mut column = mark.chars().count();
    out.push_str(mark);
    let mut first = true;
    for word in text.split(' ').filter(|word| !word.is_empty()) {
        let length = word.chars().count();
        if !first && column + 1 + length > WIDTH {
            let _ = write!(out, "\n{indent}");
            column = indent.len();
        } else if !first {
            out.push(' ');
            column += 1;
        }
        out.push_str(word);
        column += length;
        first = false;
    }
    out.push_str("\n\n");
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::Timestamp;
    use crate::directory::Activation;
    use crate::id::{EhrClientId, Id as _, SourceId};
    use crate::secret::Secret;
    use crate::smart::FhirBaseUrl;
    use crate::smart::server::Overrides;

    fn packet(vendor: &str, name: &str, auth: AuthMethod) -> Packet {
        let at = Timestamp::from_seconds(1);
        let source = Source {
            id: SourceId::from_parts(at, [1; 10]),
            environment: Environment::Live,
            name: name.to_owned(),
            base: FhirBaseUrl::parse("https://fhir-myrecord.cerner.com/r4/Tenant_1").expect("a base"),
            vendor: vendor.to_owned(),
            ehr_client: EhrClientId::from_parts(at, [2; 10]),
            city: None,
            state: None,
            logo_url: None,
            portal_url: None,
            overrides: Overrides::default(),
            activation: Activation::default(),
            created_at: at,
        };
        let client = EhrClient {
            id: source.ehr_client,
            name: "ours".to_owned(),
            vendor: vendor.to_owned(),
            environment: Environment::Live,
            client_id: "1111-5555".to_owned(),
            auth,
            client_secret: Some(Secret::new("hush-hush")),
            signing_algorithm: None,
            smart_version: SmartVersion::V1,
            scopes: None,
            launch: None,
            created_at: at,
        };
        Packet::new(PacketFacts {
            source: &source,
            client: &client,
            scopes: &(ScopeSet::parse("launch/patient patient/Observation.read"), true),
            public_url: &PublicUrl::parse("https://box.example").expect("a URL"),
            clinic: "North <b>Clinic</b>",
            contact: Some("it@clinic.example\r\nBcc: x"),
            today: "2026-11-27",
        })
    }

    #[test]
    fn both_forms_say_what_hospital_it_needs_and_nothing_secret() {
        let packet = packet("cerner", "Mercy Hospital", AuthMethod::PrivateKeyJwt);
        for form in [packet.html(), packet.text()] {
            for needed in [
                "Switching on patient access at Mercy Hospital",
                "https://fhir-myrecord.cerner.com/r4/Tenant_1",
                "Tenant_1",
                "1111-5555",
                "https://box.example/api/auth/smart/callback",
                "https://box.example/api/auth/.well-known/jwks",
                "patient/Observation.read",
                "production",
                "2026-11-27",
                "it@clinic.example",
            ] {
                assert!(form.contains(needed), "{needed} is missing in {form}");
            }
            assert!(!form.contains("hush-hush"));
        }
        assert!(!packet.text().lines().any(|line| line.starts_with("Bcc")), "one line stays one");
    }

    #[test]
    fn whatever_a_name_holds_stays_text() {
        let evil = "<script>alert(1)</script>\u{1b}[31m \"x\"";
        let packet = packet("epic", evil, AuthMethod::PrivateKeyJwt);
        let html = packet.html();
        assert!(!html.contains("<script") && !html.contains("<b>"), "{html}");
        assert!(html.contains("&lt;script&gt;alert(1)"));
        assert!(!packet.text().contains('\u{1b}'));
    }

    #[test]
    fn every_vendor_has_its_steps_and_a_secret_needs_no_keys() {
        for profile in VendorProfile::all() {
            let packet = packet(profile.name, "Mercy", AuthMethod::ClientSecretBasic);
            assert!(!packet.steps.steps.is_empty());
            let text = packet.text();
            assert!(!text.contains("jwks") && text.contains("client_secret_basic"), "{text}");
            let wrapped = text.lines().filter(|line| !line.contains("http"));
            assert!(wrapped.clone().all(|line| line.chars().count() <= WIDTH), "{text}");
        }
    }
}

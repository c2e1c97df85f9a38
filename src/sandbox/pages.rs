//! What people see: log-in, consent, errors, the portal's front page. Plain HTML, one stylesheet, no JavaScript.

use hyper::{StatusCode, header};
use maud::{DOCTYPE, Markup, html};

use super::population::clinicians;
use super::state::Asked;
use super::urls::{TENANT, encode};
use super::web::{Form, Incoming, Reply};
use super::{Sandbox, scope};

/// No `form-action`: browsers apply it to redirects after a form too, and consent ends in a redirect to any client.
const POLICY: &str = "default-src 'none'; style-src 'self'; base-uri 'none'; frame-ancestors 'none'";

const STYLE: &str = "\
:root{color-scheme:light dark;--ink:#1c2529;--muted:#52616a;--paper:#f6f7f5;--raised:#fff;--line:#c9d0d3;--accent:#0b5d66;\
--on-accent:#fff;--amber:#7a4b00;--tint:#fff3d6;--stop:#9c1f1f}\
@media(prefers-color-scheme:dark){:root{--ink:#e8edee;--muted:#a9b6bc;--paper:#12181b;--raised:#1b2327;--line:#3a474d;\
--accent:#7fd3dc;--on-accent:#06282c;--amber:#ffd58a;--tint:#3a2c0c;--stop:#ff9d9d}}\
*{box-sizing:border-box}body{margin:0;background:var(--paper);color:var(--ink);font:17px/1.5 system-ui,-apple-system,'Segoe UI',Roboto,sans-serif}\
.banner{margin:0;background:var(--tint);color:var(--amber);padding:8px 16px;text-align:center;font-size:15px;font-weight:600}\
main{max-width:34rem;margin:0 auto;padding:24px 16px 48px}h1{font-size:28px;line-height:1.2;margin:8px 0 16px}h2{font-size:21px;line-height:1.2;margin:32px 0 8px}\
p{margin:0 0 12px}.small{font-size:15px;color:var(--muted)}.stop{color:var(--stop);font-weight:600}\
form{margin:0}fieldset{border:1px solid var(--line);border-radius:10px;background:var(--raised);padding:12px 16px;margin:0 0 16px}legend{font-weight:600;padding:0 4px}\
label{display:block;font-weight:600;margin:12px 0 4px}label.tick{display:flex;gap:12px;align-items:center;min-height:44px;font-weight:400;margin:0}\
input[type=text],input[type=password],select{width:100%;min-height:44px;font:inherit;padding:8px 12px;border:1px solid var(--line);border-radius:6px;background:var(--raised);color:var(--ink)}\
input[type=checkbox],input[type=radio]{width:22px;height:22px;accent-color:var(--accent);flex:none}\
button{min-height:44px;font:inherit;font-weight:600;padding:8px 20px;border-radius:6px;border:1px solid var(--accent);cursor:pointer}\
button.main{background:var(--accent);color:var(--on-accent)}button.quiet{background:transparent;color:var(--accent)}\
.row{display:flex;flex-wrap:wrap;gap:12px;margin-top:16px}.users{list-style:none;padding:0;margin:0;display:grid;gap:8px}\
.users button{width:100%;text-align:left;background:var(--raised);color:var(--ink);border-color:var(--line);font-weight:400}\
code{font:15px ui-monospace,monospace;overflow-wrap:anywhere}dl{margin:0}dt{font-weight:600}dd{margin:0 0 8px;overflow-wrap:anywhere}\
a{color:var(--accent)}:focus-visible{outline:3px solid var(--accent);outline-offset:2px}";

/// The stylesheet.
pub(super) fn stylesheet() -> Reply {
    Reply::bytes(StatusCode::OK, "text/css; charset=utf-8", STYLE).with(header::CACHE_CONTROL, "max-age=300")
}

fn page(status: StatusCode, title: &str, content: &Markup) -> Reply {
    let markup = html! {
        (DOCTYPE)
        html lang="en" {
            head {
                meta charset="utf-8";
                meta name="viewport" content="width=device-width, initial-scale=1";
                title { (title) " – Sandbox hospital" }
                link rel="stylesheet" href="/sandbox.css";
            }
            body {
                p.banner role="note" { "Sandbox hospital – synthetic data" }
                main { h1 { (title) } (content) }
            }
        }
    };
    Reply::bytes(status, "text/html; charset=utf-8", markup.into_string())
        .with(header::CONTENT_SECURITY_POLICY, POLICY)
        .with(header::X_CONTENT_TYPE_OPTIONS, "nosniff")
        .with(header::REFERRER_POLICY, "no-referrer")
        .with(header::CACHE_CONTROL, "no-store")
}

/// Anything that is not here.
pub(super) fn not_found() -> Reply {
    page(StatusCode::NOT_FOUND, "Nothing here", &html! { p { a href="/" { "To the front page" } } })
}

/// An authorization request that cannot go back to its client.
pub(super) fn refusal(urn: &str, instance: &str, link: &str) -> Reply {
    let content = html! {
        p { "We cannot continue. The app that sent you here is not set up correctly for this hospital." }
        p { "Go back to the app and tell its makers:" }
        dl { dt { "Error" } dd { code { (urn) } } dt { "Instance" } dd { code { (instance) } } }
        p { a href=(link) { "More about this error" } }
    };
    page(StatusCode::BAD_REQUEST, "This request was refused", &content)
}

/// The page behind `error_uri`.
pub(super) fn explanation(urn: &str, instance: &str) -> Reply {
    let urn = percent_encoding::percent_decode_str(urn).decode_utf8_lossy();
    let instance = percent_encoding::percent_decode_str(instance).decode_utf8_lossy();
    let content = html! {
        p { (meaning(&urn)) }
        dl { dt { "Error" } dd { code { (urn) } } dt { "Instance" } dd { code { (instance) } } }
    };
    page(StatusCode::OK, "What this error means", &content)
}

fn meaning(urn: &str) -> &'static str {
    let suffix = urn.strip_prefix("urn:cerner:error:authorization-server:").unwrap_or(urn);
    match suffix {
        "oauth2:grant:unknown-client" => "No app with this client id is registered here.",
        "oauth2:grant:redirect-uri-not-registered"
        | "oauth2:grant:invalid-redirect-uri"
        | "oauth2:grant:redirect-uri-not-absolute"
        | "oauth2:grant:invalid-redirect-uri-trailing-slash" => {
            "The redirect URI is not, character by character, one that was registered."
        }
        "oauth2:grant:denied-by-user" => "You pressed Deny.",
        "oauth2:token:empty-scopes" => {
            "No scope was left. Check the SMART version and the registered scopes of the app."
        }
        "oauth2:token:code-invalid-or-expired" => {
            "The code is unknown, used, too old, or the verifier is wrong."
        }
        "oauth2:token:refresh-token:token-invalid" => {
            "The refresh token is unknown, replaced, withdrawn, or was not used for three months."
        }
        "client-assertion:jwt-bearer:invalid-signature" => {
            "The client assertion was refused: key, algorithm, audience, life or reuse. The log of the control \
             address says which."
        }
        "smart-v1:grant:launch:audience-required" | "smart-v1:grant:launch:unknown-resource-server" => {
            "`aud` must be this hospital's FHIR base URL, exactly."
        }
        _ => "The log of the control address says why.",
    }
}

/// The log-in page, with everyone who can log in as a button.
pub(super) fn log_in(sandbox: &Sandbox, asked: &Asked, ticket: &str, failed: bool) -> Reply {
    let action = format!("/tenants/{TENANT}/log-in");
    let content = html! {
        p { "Sign in to let " strong { (asked.client_id) } " read your record." }
        @if failed { p.stop role="alert" { "User name or password is wrong. Try again." } }
        form method="post" action=(action) {
            input type="hidden" name="ticket" value=(ticket);
            label for="username" { "User name" }
            input type="text" id="username" name="username" autocomplete="username" autocapitalize="none" required;
            label for="password" { "Password" }
            input type="password" id="password" name="password" autocomplete="current-password" required;
            div.row { button.main type="submit" { "Sign in" } }
        }
        h2 { "Or be one of our invented patients" }
        ul.users {
            @for person in &sandbox.population.people {
                li {
                    form method="post" action=(action) {
                        input type="hidden" name="ticket" value=(ticket);
                        input type="hidden" name="username" value=(person.username);
                        input type="hidden" name="password" value=(person.password);
                        button type="submit" {
                            (person.display) br;
                            span.small { (person.username) " / " (person.password) }
                        }
                    }
                }
            }
        }
    };
    page(StatusCode::OK, "Sign in", &content).because("log-in page")
}

/// The consent page: which record, which kinds of data.
pub(super) fn consent(sandbox: &Sandbox, asked: &Asked, ticket: &str, username: &str) -> Reply {
    let host = url::Url::parse(&asked.redirect_uri).ok().and_then(|url| url.host_str().map(str::to_owned));
    let offline = asked.scopes.iter().any(|scope| scope == "offline_access");
    let content = html! {
        p {
            strong { (asked.client_id) } " (" (host.unwrap_or_default()) ") wants to read health records. "
            @if offline { "It may do so until you withdraw this." }
        }
        form method="post" action=(format!("/tenants/{TENANT}/consent")) {
            input type="hidden" name="ticket" value=(ticket);
            fieldset {
                legend { "Whose record" }
                @for (index, person) in sandbox.records_of(username).into_iter().enumerate() {
                    label.tick {
                        input type="radio" name="patient" value=(person.patient_id) checked[index == 0];
                        span { (person.display) @if index > 0 { " (you care for this person)" } }
                    }
                }
            }
            fieldset {
                legend { "What may be read" }
                @for resource_type in scope::types(&asked.scopes) {
                    label.tick {
                        input type="checkbox" name="type" value=(resource_type) checked;
                        span {
                            (in_words(resource_type))
                            // Last and small: for who tests an app, not for who is asked.
                            @if in_words(resource_type) != resource_type { " " span.small { (resource_type) } }
                        }
                    }
                }
            }
            div.row {
                button.main type="submit" name="decision" value="allow" { "Allow" }
                button.quiet type="submit" name="decision" value="deny" { "Deny" }
            }
        }
    };
    page(StatusCode::OK, "Share your record", &content).because("consent page")
}

/// A small app, so that an EHR launch has somewhere to end. It shows what a real one would ask about.
pub(super) fn app(incoming: &Incoming) -> Reply {
    let form = Form::parse(incoming.query.as_bytes());
    let content = html! {
        @if let Some(handle) = form.one("mb_launch") {
            p { "This app was opened from a chart. It was given this handle, and nothing else:" }
            dl { dt { code { "mb_launch" } } dd { code { (handle) } } }
            p {
                "Who opened it, and on whose chart, its server asks for with its API key: "
                code { "GET /launch-contexts/" (handle) }
            }
        } @else {
            p { "Nobody opened this app from a chart." }
        }
        p { a href="/" { "To the hospital" } }
    };
    // As real apps, it may stand in a frame of the EHR.
    let policy = POLICY.replace("frame-ancestors 'none'", "frame-ancestors *");
    page(StatusCode::OK, "A small app", &content).with(header::CONTENT_SECURITY_POLICY, &policy)
}

fn in_words(resource_type: &str) -> &str {
    match resource_type {
        "AllergyIntolerance" => "Allergies",
        "Binary" => "Attached files",
        "CarePlan" => "Care plans",
        "CareTeam" => "Care team",
        "Condition" => "Conditions and diagnoses",
        "Coverage" => "Insurance",
        "Device" => "Implants and devices",
        "DiagnosticReport" => "Reports",
        "DocumentReference" => "Notes and documents",
        "Encounter" => "Visits",
        "Goal" => "Goals",
        "Immunization" => "Vaccinations",
        "MedicationRequest" => "Medicines",
        "Observation" => "Lab results and vital signs",
        "Patient" => "Name, birth date and address",
        "Procedure" => "Procedures",
        "Provenance" => "Where the data came from",
        "RelatedPerson" => "Related people",
        "ServiceRequest" => "Orders",
        "Location" => "Places",
        "Organization" => "Organizations",
        "Practitioner" => "Doctors and nurses",
        other => other,
    }
}

impl Sandbox {
    /// The front page of the portal.
    pub(super) fn index_page(&self) -> Reply {
        let launches: Vec<String> = {
            let state = self.state();
            let clients = state.clients.values().filter(|client| client.launch_url.is_some());
            clients.map(|client| client.client_id.clone()).collect()
        };
        let content = html! {
            p { "A hospital that exists in this program only. Everyone in it is invented." }
            dl {
                dt { "FHIR base URL" } dd { code { (self.fhir_base_url()) } }
                dt { "Behaves like" } dd { (self.personality.name()) }
                dt { "Control address" } dd { code { (self.control_url()) } }
            }
            p { a href=(self.urls.manage(self.personality.traits().persona)) { "What people agreed to" } }
            h2 { "People" }
            dl {
                @for person in &self.population.people {
                    dt { (person.display) }
                    dd { (person.username) " / " (person.password) " – " code { (person.patient_id) } }
                }
            }
            @if !launches.is_empty() {
                h2 { "Open an app in a chart" }
                @for client in &launches { (self.chart_form(client)) }
                h2 { "Open an app in the portal" }
                @for client in &launches {
                    form method="post" action="/portal/launch" {
                        input type="hidden" name="client_id" value=(client);
                        label for=(format!("user-{}", encode(client))) { "As (user name)" }
                        input type="text" id=(format!("user-{}", encode(client))) name="username"
                            value=(self.population.people.first().map_or("", |one| one.username.as_str()));
                        div.row { button.quiet type="submit" { "Open " (client) } }
                    }
                }
            }
        };
        page(StatusCode::OK, "Sandbox hospital", &content)
    }

    /// Who opens the app on whose chart. The clinician is logged in here already, as in a hospital.
    fn chart_form(&self, client: &str) -> Markup {
        let name = |part: &str| format!("{part}-{}", encode(client));
        html! {
            form method="post" action="/portal/launch" {
                input type="hidden" name="client_id" value=(client);
                label for=(name("clinician")) { "As" }
                select id=(name("clinician")) name="clinician" {
                    @for one in clinicians() { option value=(one.username) { (one.display) } }
                }
                label for=(name("patient")) { "In the chart of" }
                select id=(name("patient")) name="patient" {
                    @for person in &self.population.people {
                        option value=(person.patient_id) { (person.display) }
                    }
                }
                div.row { button.main type="submit" { "Open the app" } }
                p.small { "Registered as " code { (client) } }
            }
        }
    }

    /// What people agreed to, with a button each to withdraw it.
    pub(super) fn grants_page(&self) -> Reply {
        let state = self.state();
        let held: Vec<_> = state.grants.iter().filter(|(_, grant)| grant.ended.is_none()).collect();
        let content = html! {
            @if held.is_empty() { p { "Nobody has let an app in." } }
            @for (id, grant) in held {
                fieldset {
                    legend { (grant.client_id) }
                    p { "Reads the record of patient " code { (grant.patient_id) } ", agreed by "
                        (grant.username) " on " (grant.agreed_at) "." }
                    form method="post" {
                        input type="hidden" name="grant" value=(id);
                        button.quiet type="submit" { "Withdraw" }
                    }
                }
            }
        };
        drop(state);
        page(StatusCode::OK, "Apps you let in", &content)
    }

    /// POST of a "Withdraw" button.
    pub(super) fn withdraw(&self, incoming: &Incoming) -> Reply {
        let form = incoming.form().unwrap_or_default();
        if let Some(id) = form.one("grant").and_then(|text| text.parse().ok()) {
            self.state().end_grant(id, "withdrawn by the patient");
        }
        Reply::redirect(StatusCode::SEE_OTHER, &self.urls.manage(self.personality.traits().persona))
    }
}

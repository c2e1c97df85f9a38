//! The hospital's pages: log-in, consent, refusals. Plain HTML, one stylesheet, no script.

use hyper::{StatusCode, header};
use maud::{DOCTYPE, Markup, html};
use percent_encoding::percent_decode_str;

use super::state::Asked;
use super::urls::TENANT;
use super::web::{Incoming, Reply};
use super::{Sandbox, scope};

const STYLE: &str = include_str!("sandbox.css");

fn page(status: StatusCode, title: &str, content: &Markup) -> Reply {
    let markup = html! {
        (DOCTYPE)
        html lang="en" {
            head {
                meta charset="utf-8";
                meta name="viewport" content="width=device-width, initial-scale=1";
                title { (title) " · Sandbox hospital" }
                link rel="stylesheet" href="/sandbox.css";
            }
            body {
                header { strong { "Sandbox hospital" } span { "synthetic data, nobody real" } }
                main { (content) }
            }
        }
    };
    // The answer to a form redirects to the client's origin, which `form-action` would otherwise forbid.
    Reply::bytes(status, "text/html; charset=utf-8", markup.into_string())
        .with(
            header::CONTENT_SECURITY_POLICY,
            "default-src 'none'; style-src 'self'; frame-ancestors 'none'; base-uri 'none'",
        )
        .with(header::X_FRAME_OPTIONS, "DENY")
        .with(header::REFERRER_POLICY, "no-referrer")
        .with(header::CACHE_CONTROL, "no-store")
}

pub(super) fn stylesheet() -> Reply {
    Reply::bytes(StatusCode::OK, "text/css; charset=utf-8", STYLE).with(header::CACHE_CONTROL, "max-age=3600")
}

pub(super) fn not_found() -> Reply {
    let content =
        html! { h1 { "There is nothing here" } p { a href="/" { "To the sandbox hospital's front page" } } };
    page(StatusCode::NOT_FOUND, "Nothing here", &content).because("not found")
}

/// The human page behind an `error_uri`.
pub(super) fn explanation(urn: &str, instance: &str) -> Reply {
    let decoded = |text: &str| percent_decode_str(text).decode_utf8_lossy().into_owned();
    let content = html! {
        h1 { "What this error means" }
        p { "The hospital's sign-in refused a request. Its reason:" }
        p { code { (decoded(urn)) } }
        p { "Number for the hospital's support: " code { (decoded(instance)) } }
    };
    page(StatusCode::OK, "Error", &content)
}

/// A refusal that redirects nowhere, because it is not known where to.
pub(super) fn refusal(urn: &str, instance: &str, link: &str) -> Reply {
    let content = html! {
        h1 { "This request cannot go on" }
        p { "The app that sent you here asked in a way that this hospital does not accept. You did nothing wrong." }
        p { code { (urn) } }
        p { "Number for the hospital's support: " code { (instance) } }
        p { a href=(link) { "More information" } }
    };
    page(StatusCode::BAD_REQUEST, "Refused", &content)
}

/// The log-in page. It lists who can log in, since nobody here is real.
pub(super) fn log_in(sandbox: &Sandbox, asked: &Asked, ticket: &str, wrong: bool) -> Reply {
    let action = format!("/tenants/{TENANT}/log-in");
    let content = html! {
        h1 { "Sign in to see your record" }
        p { "The app " code { (asked.client_id) } " asks for it." }
        @if wrong { p.stop role="alert" { "User name or password is wrong. Nothing was shared." } }
        form method="post" action=(action) {
            input type="hidden" name="ticket" value=(ticket);
            label for="username" { "User name" }
            input #username name="username" autocomplete="username" autofocus required;
            label for="password" { "Password" }
            input #password name="password" type="password" autocomplete="current-password" required;
            button type="submit" { "Sign in" }
        }
        h2 { "Synthetic patients" }
        p { "Choose one to sign in at once." }
        ul.people {
            @for person in &sandbox.population.people {
                li {
                    form method="post" action=(action) {
                        input type="hidden" name="ticket" value=(ticket);
                        input type="hidden" name="username" value=(person.username);
                        input type="hidden" name="password" value=(person.password);
                        button.quiet type="submit" { (person.display) }
                        span { (person.username) " / " (person.password) }
                    }
                }
            }
        }
    };
    page(StatusCode::OK, "Sign in", &content).because("log-in page")
}

/// The consent page: whose record, and what of it.
pub(super) fn consent(sandbox: &Sandbox, asked: &Asked, ticket: &str, username: &str) -> Reply {
    let action = format!("/tenants/{TENANT}/consent");
    let records = sandbox.records_of(username);
    let offline = asked.scopes.iter().any(|scope| scope == "offline_access");
    let content = html! {
        h1 { "Share your record?" }
        p { "The app " code { (asked.client_id) } " asks to read it" @if offline { ", also when you are away" } "." }
        form method="post" action=(action) {
            input type="hidden" name="ticket" value=(ticket);
            fieldset {
                legend { "Whose record" }
                @for (index, record) in records.iter().enumerate() {
                    label.choice {
                        input type="radio" name="patient" value=(record.patient_id) checked[index == 0];
                        (record.display)
                    }
                }
            }
            fieldset {
                legend { "What to share" }
                @for name in scope::types(&asked.scopes) {
                    label.choice {
                        input type="checkbox" name="type" value=(name) checked;
                        // What other hospitals' consent pages call it, and so what patients are told to look for.
                        (name) @if name == "Patient" { " (Demographics)" }
                    }
                }
            }
            div.decision {
                button type="submit" name="decision" value="allow" { "Allow" }
                button.quiet type="submit" name="decision" value="deny" { "Deny" }
            }
        }
    };
    page(StatusCode::OK, "Share your record", &content).because("consent page")
}

impl Sandbox {
    /// The front page for people.
    pub(super) fn index_page(&self) -> Reply {
        let launchable: Vec<String> = {
            let state = self.state();
            let clients = state.clients.values().filter(|client| client.launch_url.is_some());
            clients.map(|client| client.client_id.clone()).collect()
        };
        let content = html! {
            h1 { "A hospital that is not one" }
            p { "It behaves like a strict SMART on FHIR server and holds synthetic patients only." }
            dl {
                dt { "FHIR base URL" } dd { code { (self.fhir_base_url()) } }
                dt { "Control address for tests" } dd { code { (self.control_url()) } }
            }
            h2 { "Synthetic patients" }
            table {
                thead { tr { th { "Name" } th { "User name" } th { "Password" } th { "Patient id" } } }
                tbody {
                    @for person in &self.population.people {
                        tr { td { (person.display) } td { (person.username) } td { (person.password) } td { (person.patient_id) } }
                    }
                }
            }
            @if !launchable.is_empty() {
                h2 { "Open an app from inside the hospital" }
                form method="post" action="/portal/launch" {
                    label for="client_id" { "App" }
                    select #client_id name="client_id" { @for id in &launchable { option { (id) } } }
                    label for="person" { "Patient" }
                    select #person name="username" { @for person in &self.population.people { option { (person.username) } } }
                    button type="submit" { "Open" }
                }
            }
        };
        page(StatusCode::OK, "Front page", &content)
    }

    /// Where people see and withdraw what they agreed to.
    pub(super) fn grants_page(&self) -> Reply {
        let grants: Vec<(u64, super::state::Grant)> = {
            let state = self.state();
            state.grants.iter().map(|(id, grant)| (*id, grant.clone())).collect()
        };
        let content = html! {
            h1 { "Apps with access" }
            @if grants.is_empty() { p { "Nobody has agreed to anything yet." } }
            ul.people {
                @for (id, grant) in &grants {
                    li {
                        form method="post" {
                            input type="hidden" name="grant" value=(id);
                            span {
                                (grant.username) " → " code { (grant.client_id) } ", since " (grant.agreed_at)
                                @if let Some(why) = grant.ended { ", ended: " (why) }
                            }
                            @if grant.ended.is_none() { button.quiet type="submit" { "Withdraw" } }
                        }
                    }
                }
            }
        };
        page(StatusCode::OK, "Apps with access", &content)
    }

    /// POST of the page above.
    pub(super) fn withdraw(&self, incoming: &Incoming) -> Reply {
        let form = incoming.form().unwrap_or_default();
        if let Some(id) = form.one("grant").and_then(|text| text.parse().ok()) {
            self.state().end_grant(id, "withdrawn by the person");
        }
        Reply::redirect(StatusCode::SEE_OTHER, &self.urls.manage())
    }
}

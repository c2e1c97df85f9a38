//! The page at `/`: what this machine is, and where to go from here. Anybody may see it, so it says nothing about
//! patients or hospitals; two addresses on it are what a hospital's console asks for.

use maud::{Markup, html};

use super::assets::{self, icons};
use super::connect::words::ENGLISH;
use super::look::{self, Branding, Shell, Width};

/// What the page shows.
#[derive(Debug, Clone)]
pub struct HomePage {
    /// The address people reach this machine at.
    pub public_url: String,
    /// The running version, when strangers may know it.
    pub version: Option<String>,
    /// The path or address of the staff's panel, when this listener offers it.
    pub admin: Option<String>,
    /// The description of the API for people, when this listener offers it.
    pub docs: Option<String>,
    /// The health probe.
    pub health: String,
    /// Where hospitals fetch our public keys.
    pub jwks_uri: String,
    /// Where hospitals send the patient's browser back to.
    pub redirect_uri: String,
    /// A sentence each, such as "This machine runs with practice data only."
    pub hints: Vec<String>,
}

/// The page.
pub fn home_page(page: &HomePage) -> Markup {
    let mut branding = Branding::new("Chartgate", &ENGLISH);
    branding.logo = Some(assets::icon_href());
    let content = html! {
        div.head {
            h1 { "Health records, with the patient’s consent" }
            p.lead {
                "This machine, " code { (page.public_url) } ", connects patients’ health records from their hospitals \
                 to the clinic that runs it. Each patient decides, and can stop it at any time."
            }
        }
        @for hint in &page.hints {
            p.notice.notice-note { (icons::note()) span { (hint) } }
        }
        section.stack {
            h2 { "Where to go" }
            dl.list.addresses {
                div {
                    dt { "Patients" }
                    dd { "Open the personal link your clinic sent you. There is no public list of links." }
                }
                @if let Some(admin) = page.admin.as_deref().and_then(look::link_target) {
                    div {
                        dt { "Staff" }
                        dd { a href=(admin) { "Sign in to the admin panel" } }
                    }
                }
                div {
                    dt { "Developers" }
                    @if let Some(docs) = page.docs.as_deref().and_then(look::link_target) {
                        dd { a href=(docs) { "Read about the API" } }
                    }
                    @if let Some(health) = look::link_target(&page.health) {
                        dd { a href=(health) { "Check the health of this machine" } }
                    }
                }
            }
        }
        section.stack {
            h2 { "For the hospital’s IT team" }
            p.small.muted { "Two addresses to enter, letter for letter, where this app is registered." }
            dl.list.addresses {
                (address("redirect-uri", "Redirect URI", &page.redirect_uri,
                    "Where a patient’s browser returns after signing in."))
                (address("jwks-uri", "JWKS URI", &page.jwks_uri,
                    "This machine’s public keys, with which its signature is checked."))
            }
        }
        @if let Some(version) = &page.version { p.small.muted { "Chartgate " (version) } }
    };
    look::page(
        &Shell { title: "Start", branding: Some(&branding), words: &ENGLISH, width: Width::Wide },
        &content,
    )
}

fn address(id: &'static str, name: &str, value: &str, about: &str) -> Markup {
    html! {
        div {
            dt { (name) }
            dd { (about) }
            dd.value { code id=(id) { (value) } (look::copy_button(id, &ENGLISH)) }
        }
    }
}

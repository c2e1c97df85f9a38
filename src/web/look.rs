//! The shell of every page: head, clinic's bar, one main column, foot. And the few things all pages draw alike:
//! tiles, addresses, the reference code.

use maud::{DOCTYPE, Markup, html};
use percent_encoding::{AsciiSet, CONTROLS, utf8_percent_encode};
use url::Url;

use crate::workspaces::is_return_address;

use super::assets::{self, icons};
use super::colour::Colour;
use super::connect::words::{Words, fill};

/// Whose page it is.
#[derive(Debug, Clone)]
pub struct Branding {
    /// The clinic's or the app's name as the patient knows it.
    pub clinic: String,
    /// A path on this machine to the logo; without one the clinic gets a tile with its initials.
    pub logo: Option<String>,
    /// The clinic's own colour, made readable by [`super::colour::accent_stylesheet`].
    pub accent: Option<Colour>,
    /// The clinic's privacy page, `http` or `https`.
    pub privacy_url: Option<String>,
    /// The clinic's terms, `http` or `https`.
    pub terms_url: Option<String>,
    /// A word that stands at the top of every page when the records are not real, such as "Test".
    pub environment_badge: Option<String>,
    /// The language.
    pub words: &'static Words,
}

impl Branding {
    /// A clinic with a name and nothing else.
    pub fn new(clinic: impl Into<String>, words: &'static Words) -> Self {
        Self {
            clinic: clinic.into(),
            logo: None,
            accent: None,
            privacy_url: None,
            terms_url: None,
            environment_badge: None,
            words,
        }
    }
}

/// How broad the column is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Width {
    /// 32 rem: what patients read.
    Narrow,
    /// 44 rem: pages with addresses on them.
    Wide,
}

/// What stands around a page's content.
#[derive(Debug)]
pub struct Shell<'a> {
    /// The state, or the page's name; the clinic's name is added.
    pub title: &'a str,
    /// Whose page it is, when that is known.
    pub branding: Option<&'a Branding>,
    /// The language.
    pub words: &'static Words,
    /// How broad the column is.
    pub width: Width,
}

/// A whole page.
pub fn page(shell: &Shell<'_>, content: &Markup) -> Markup {
    let title = match shell.branding {
        Some(branding) => {
            fill(shell.words.title, &[("page", shell.title), ("clinic", branding.clinic.as_str())])
        }
        None => shell.title.to_owned(),
    };
    html! {
        (DOCTYPE)
        html lang=(shell.words.lang) {
            head {
                meta charset="utf-8";
                title { (title) }
                meta name="viewport" content="width=device-width, initial-scale=1";
                meta name="robots" content="noindex";
                // The address holds the key to the session: other sites never see it, while our own forms keep
                // their `Origin`, which `no-referrer` would turn into `null`.
                meta name="referrer" content="same-origin";
                meta name="format-detection" content="telephone=no";
                link rel="stylesheet" href=(assets::css_href());
                @if let Some(accent) = shell.branding.and_then(|branding| branding.accent) {
                    link rel="stylesheet" href={ "/assets/accent/" (accent.digits()) ".css" };
                }
                link rel="icon" href=(assets::icon_href()) type="image/svg+xml";
                script src=(assets::connect_js_href()) defer {}
            }
            body class=[(shell.width == Width::Wide).then_some("wide")] {
                a.skip href="#main" { (shell.words.skip) }
                @if let Some(branding) = shell.branding { (top(branding)) }
                main.main #main tabindex="-1" { (content) }
                @if let Some(branding) = shell.branding { (foot(branding)) }
            }
        }
    }
}

fn top(branding: &Branding) -> Markup {
    html! {
        header.top {
            div.top-in {
                (tile(&branding.clinic, branding.logo.as_deref(), ""))
                span.top-name { (branding.clinic) }
                @if let Some(badge) = &branding.environment_badge { span.badge { (badge) } }
            }
        }
    }
}

fn foot(branding: &Branding) -> Markup {
    let links = [
        (branding.words.privacy, branding.privacy_url.as_deref().and_then(web_address)),
        (branding.words.terms, branding.terms_url.as_deref().and_then(web_address)),
    ];
    html! {
        @if links.iter().any(|(_, href)| href.is_some()) {
            footer.foot {
                div.foot-in {
                    @for (label, href) in &links {
                        @if let Some(href) = href {
                            a href=(href) target="_blank" rel="noopener noreferrer" {
                                (label) span.visually-hidden { " " (branding.words.new_tab) }
                            }
                        }
                    }
                }
            }
        }
    }
}

/// The logo on a white tile, or the initials on a colour of their own. Decorates a name that stands beside it.
/// `size` is empty or `tile-large`.
pub(in crate::web) fn tile(name: &str, logo: Option<&str>, size: &'static str) -> Markup {
    html! {
        @if let Some(logo) = logo.and_then(own_path) {
            span class={ "tile tile-logo " (size) } { img src=(logo) alt="" width="44" height="44"; }
        } @else {
            span class={ "tile tile-" (tile_number(name)) " " (size) } aria-hidden="true" { (initials(name)) }
        }
    }
}

/// The reference code, to be read out or copied.
pub(in crate::web) fn reference(code: &str, words: &Words) -> Markup {
    html! {
        p.panel-label { (words.reference) }
        div.code-line {
            code.code #reference { (code) }
            (copy_button("reference", words))
        }
        p.small.muted { (words.reference_why) }
    }
}

/// Shown by the script only, because it does nothing without it.
pub(in crate::web) fn copy_button(id: &'static str, words: &Words) -> Markup {
    html! {
        button.copy type="button" hidden data-copy=(id) data-copied=(words.copied) aria-describedby=(id) {
            span.icon-small { (icons::copy()) }
            span data-label aria-live="polite" { (words.copy) }
        }
    }
}

/// The state a page reports, drawn at its top. The heading under it says the same in words.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::web) enum Sign {
    Ok,
    Attention,
    Stop,
    Note,
}

/// The state as a drawing in a circle.
pub(in crate::web) fn sign(state: Sign) -> Markup {
    let (class, icon) = match state {
        Sign::Ok => ("sign sign-ok", icons::check()),
        Sign::Attention => ("sign sign-attention", icons::attention()),
        Sign::Stop => ("sign sign-stop", icons::stop()),
        Sign::Note => ("sign sign-note", icons::note()),
    };
    html! { div class=(class) { (icon) } }
}

/// An `http` or `https` address with a host, as a link may carry it. Anything else, `javascript:` above all, is none.
pub(in crate::web) fn web_address(text: &str) -> Option<String> {
    let url = Url::parse(text).ok()?;
    (matches!(url.scheme(), "http" | "https") && url.has_host()).then(|| String::from(url))
}

/// Where a patient goes back to: a web address, or the link of an app with a scheme of its own.
pub(in crate::web) fn return_address(text: &str) -> Option<String> {
    is_return_address(text).then(|| text.to_owned())
}

/// A path on this machine, or none: `//host` and `/\host` lead elsewhere.
pub(in crate::web) fn own_path(text: &str) -> Option<&str> {
    let rest = text.strip_prefix('/')?;
    let leads_away = rest.starts_with(['/', '\\']) || text.bytes().any(|byte| byte.is_ascii_control());
    (!leads_away).then_some(text)
}

/// Either of the two.
pub(in crate::web) fn link_target(text: &str) -> Option<String> {
    own_path(text).map(str::to_owned).or_else(|| web_address(text))
}

/// What must not stand in a path segment.
const SEGMENT: &AsciiSet = &CONTROLS
    .add(b' ')
    .add(b'"')
    .add(b'#')
    .add(b'%')
    .add(b'/')
    .add(b'<')
    .add(b'>')
    .add(b'?')
    .add(b'\\')
    .add(b'`');

/// A path below another, its segments encoded. A base that is not a path of ours gives a path that leads nowhere.
pub(in crate::web) fn below(base: &str, segments: &[&str]) -> String {
    let mut out = own_path(base).unwrap_or("/c").trim_end_matches('/').to_owned();
    for segment in segments {
        out.push('/');
        out.extend(utf8_percent_encode(segment, SEGMENT));
    }
    out
}

/// Which of the twelve tile colours a name has: always the same one.
fn tile_number(name: &str) -> u32 {
    // FNV-1a in 32 bits.
    let hash = name
        .trim()
        .to_lowercase()
        .bytes()
        .fold(0x811c_9dc5_u32, |hash, byte| (hash ^ u32::from(byte)).wrapping_mul(0x0100_0193));
    // The low bits of this hash are its weakest.
    ((hash ^ (hash >> 15)).wrapping_mul(0x2c1b_3c6d) >> 16) % 12
}

/// Up to two letters: of the first two words that say something.
fn initials(name: &str) -> String {
    let letter = |word: &str| word.chars().find(|letter| letter.is_alphanumeric());
    let telling =
        |word: &&str| !matches!(word.to_lowercase().as_str(), "the" | "of" | "and" | "at" | "for" | "in");
    let mut found: String = name.split([' ', '-', '/']).filter(telling).filter_map(letter).take(2).collect();
    if found.is_empty() {
        found.extend(letter(name));
    }
    found.to_uppercase()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_web_addresses_become_links() {
        for bad in [
            "javascript:alert(1)",
            " javascript:alert(1)",
            "JaVaScRiPt:x",
            "data:text/html,x",
            "file:///etc",
            "x",
        ] {
            assert_eq!(link_target(bad), None, "{bad}");
        }
        assert_eq!(
            web_address("https://app.example/a?b=\"c\"").as_deref(),
            Some("https://app.example/a?b=%22c%22")
        );
    }

    #[test]
    fn a_path_of_ours_stays_with_us() {
        for bad in
            ["//evil.example", "/\\evil.example", "evil", "", "/\t/evil.example", "https://evil.example"]
        {
            assert_eq!(own_path(bad), None, "{bad}");
        }
        assert_eq!(own_path("/c/abc"), Some("/c/abc"));
        assert_eq!(below("/c/abc/", &["to", "a/../b?"]), "/c/abc/to/a%2F..%2Fb%3F");
        assert_eq!(below("javascript:x", &["to"]), "/c/to");
    }

    #[test]
    fn initials_come_from_the_words_that_say_something() {
        for (name, letters) in [
            ("Mercy Hospital", "MH"),
            ("The University of Kansas Health System", "UK"),
            ("St. Luke’s", "SL"),
            ("mercy", "M"),
            ("The", "T"),
            ("Ärztehaus", "Ä"),
            ("  ", ""),
        ] {
            assert_eq!(initials(name), letters, "{name}");
        }
    }

    #[test]
    fn a_name_keeps_its_colour() {
        assert_eq!(tile_number("Mercy Hospital"), tile_number(" mercy hospital"));
        let names =
            ["Mercy", "Lakeside", "Riverside", "Adventist", "Banner", "Ochsner", "Providence", "Sutter"];
        let colours: std::collections::BTreeSet<u32> = names.iter().map(|name| tile_number(name)).collect();
        assert!(colours.len() >= 4, "eight names share {} colours", colours.len());
    }
}

//! The stylesheet, the patient pages' script and the drawings, compiled in. Nothing is ever loaded from elsewhere.

pub mod icons;

const CSS: &str = include_str!("chartgate.css");
const CONNECT_JS: &str = include_str!("connect.js");
const ICON: &str = include_str!("icon.svg");
const CSS_ETAG: [u8; 18] = etag_of(CSS);
const CONNECT_JS_ETAG: [u8; 18] = etag_of(CONNECT_JS);
const ICON_ETAG: [u8; 18] = etag_of(ICON);

/// A file served under `/assets/`.
#[derive(Debug, Clone, Copy)]
pub struct Asset {
    /// The value of `content-type`.
    pub content_type: &'static str,
    /// The file.
    pub body: &'static str,
    /// The value of `etag`, quotes included. It is made from the bytes, so it changes when they do.
    pub etag: &'static str,
}

impl Asset {
    /// The hash in the address: a page and the files it was written for always fit, and both may be cached for ever.
    pub fn version(&self) -> &'static str {
        self.etag.trim_matches('"')
    }
}

/// The file behind `/assets/{name}`.
pub fn asset(name: &str) -> Option<Asset> {
    match name {
        "chartgate.css" => {
            Some(Asset { content_type: "text/css; charset=utf-8", body: CSS, etag: text(&CSS_ETAG) })
        }
        "connect.js" => Some(Asset {
            content_type: "text/javascript; charset=utf-8",
            body: CONNECT_JS,
            etag: text(&CONNECT_JS_ETAG),
        }),
        "icon.svg" => Some(Asset { content_type: "image/svg+xml", body: ICON, etag: text(&ICON_ETAG) }),
        _ => None,
    }
}

/// The stylesheet's address for a page's head.
pub(in crate::web) fn css_href() -> String {
    href("chartgate.css", &CSS_ETAG)
}

/// The script's address for a page's head.
pub(in crate::web) fn connect_js_href() -> String {
    href("connect.js", &CONNECT_JS_ETAG)
}

/// The address of the drawing on the browser's tab.
pub(in crate::web) fn icon_href() -> String {
    href("icon.svg", &ICON_ETAG)
}

fn href(name: &str, etag: &'static [u8; 18]) -> String {
    format!("/assets/{name}?v={}", text(etag).trim_matches('"'))
}

/// The stylesheet's text, from which the colour tokens are read.
pub(in crate::web) const fn css() -> &'static str {
    CSS
}

fn text(etag: &'static [u8; 18]) -> &'static str {
    // `etag_of` writes hexadecimal digits and quotes only.
    std::str::from_utf8(etag).unwrap_or("\"0\"")
}

/// FNV-1a in 64 bits, quoted: a cache key made while compiling, not a protection against anybody.
const fn etag_of(file: &str) -> [u8; 18] {
    let bytes = file.as_bytes();
    let mut hash = 0xcbf2_9ce4_8422_2325_u64;
    let mut index = 0;
    while index < bytes.len() {
        hash = (hash ^ bytes[index] as u64).wrapping_mul(0x0100_0000_01b3);
        index += 1;
    }
    let mut out = [b'"'; 18];
    let mut place = 0;
    while place < 16 {
        out[place + 1] = b"0123456789abcdef"[((hash >> (60 - 4 * place)) & 15) as usize];
        place += 1;
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_asset_is_found_by_its_name_only() {
        for name in ["chartgate.css", "connect.js", "icon.svg"] {
            let asset = asset(name).expect("compiled in");
            assert!(!asset.body.is_empty());
            assert!(asset.etag.starts_with('"') && asset.etag.ends_with('"'), "{}", asset.etag);
            assert!(asset.version().bytes().all(|byte| byte.is_ascii_hexdigit()));
            assert_eq!(asset.version().len(), 16);
        }
        assert!(asset("../Cargo.toml").is_none());
        assert!(asset("").is_none());
    }

    #[test]
    fn the_address_changes_with_the_file() {
        assert_ne!(etag_of("a"), etag_of("b"));
        assert_ne!(css_href(), connect_js_href());
    }

    #[test]
    fn no_asset_reaches_outside() {
        for file in [CSS, CONNECT_JS] {
            for outside in ["http:", "https:", "//cdn", "@import", "url(", "eval(", "innerHTML"] {
                assert!(!file.contains(outside), "`{outside}` in an asset");
            }
        }
        assert!(CONNECT_JS.lines().count() < 150);
    }
}

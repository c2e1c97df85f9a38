//! Colours of the pages: the tokens of the stylesheet, their contrast, and a clinic's own colour made readable.
//! WCAG 2.2: relative luminance and contrast ratio; text needs 4.5 (1.4.3), edges of controls 3 (1.4.11).

use std::fmt;

use super::assets;

/// What normal text needs against its ground.
const TEXT: f64 = 4.5;

/// One sRGB colour.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Colour([u8; 3]);

/// The two sets of tokens.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Scheme {
    Light,
    Dark,
}

impl Colour {
    /// Reads `#0b636b` or `0b636b`.
    pub fn parse(text: &str) -> Option<Self> {
        let digits = text.strip_prefix('#').unwrap_or(text);
        if digits.len() != 6 || !digits.bytes().all(|byte| byte.is_ascii_hexdigit()) {
            return None;
        }
        let channel = |at: usize| u8::from_str_radix(&digits[at..at + 2], 16).ok();
        Some(Self([channel(0)?, channel(2)?, channel(4)?]))
    }

    /// The six digits without `#`, as they stand in an address.
    pub fn digits(self) -> String {
        let [red, green, blue] = self.0;
        format!("{red:02x}{green:02x}{blue:02x}")
    }

    fn luminance(self) -> f64 {
        let [red, green, blue] = self.0.map(|channel| {
            let value = f64::from(channel) / 255.0;
            if value <= 0.04045 { value / 12.92 } else { ((value + 0.055) / 1.055).powf(2.4) }
        });
        0.2126 * red + 0.7152 * green + 0.0722 * blue
    }

    fn contrast(self, other: Self) -> f64 {
        let (one, two) = (self.luminance(), other.luminance());
        (one.max(two) + 0.05) / (one.min(two) + 0.05)
    }

    /// `share` parts in a hundred of the other colour.
    fn mixed(self, other: Self, share: u16) -> Self {
        let mut out = self.0;
        for (mine, theirs) in out.iter_mut().zip(other.0) {
            let sum = u16::from(*mine) * (100 - share) + u16::from(theirs) * share;
            *mine = u8::try_from(sum / 100).unwrap_or(u8::MAX);
        }
        Self(out)
    }
}

impl fmt::Display for Colour {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "#{}", self.digits())
    }
}

/// The stylesheet behind `/assets/accent/{digits}.css`: the clinic's colour in place of ours, darkened in the light
/// scheme and lightened in the dark one until everything written with it can be read. It is a file of its own
/// because the pages allow no inline style.
pub fn accent_stylesheet(colour: Colour) -> String {
    let block = |scheme| {
        let [accent, ink, tint] = accent(colour, scheme);
        format!(":root{{--accent:{accent};--accent-ink:{ink};--accent-tint:{tint}}}")
    };
    format!("{}\n@media (prefers-color-scheme:dark){{{}}}\n", block(Scheme::Light), block(Scheme::Dark))
}

/// The accent, the ink on it, and its tint.
fn accent(wanted: Colour, scheme: Scheme) -> [Colour; 3] {
    let (paper, raised) = (token("paper", scheme), token("raised", scheme));
    let (ink, towards) = match scheme {
        Scheme::Light => (raised, Colour([0; 3])),
        Scheme::Dark => (paper, Colour([255; 3])),
    };
    let mut best = [towards, ink, raised];
    for share in 0..=100 {
        let accent = wanted.mixed(towards, share);
        let tint = raised.mixed(accent, 12);
        best = [accent, ink, tint];
        if [paper, raised, tint, ink].iter().all(|ground| accent.contrast(*ground) >= TEXT) {
            break;
        }
    }
    best
}

/// A token as the stylesheet has it; what the dark scheme does not name stays as in the light one.
fn token(name: &str, scheme: Scheme) -> Colour {
    let css = assets::css();
    let dark_from = css.find("@media (prefers-color-scheme: dark)").unwrap_or(css.len());
    let dark_to = css[dark_from..].find("\n}").map_or(css.len(), |end| dark_from + end);
    let find = |part: &str| {
        let name = format!("--{name}: ");
        part.find(&name).and_then(|at| Colour::parse(part.get(at + name.len()..at + name.len() + 7)?))
    };
    let dark = match scheme {
        Scheme::Light => None,
        Scheme::Dark => find(&css[dark_from..dark_to]),
    };
    // A misspelt name gives black on black, which the contrast test refuses.
    dark.or_else(|| find(&css[..dark_from])).unwrap_or(Colour([0; 3]))
}

#[cfg(test)]
mod tests {
    use super::*;

    const SCHEMES: [Scheme; 2] = [Scheme::Light, Scheme::Dark];

    fn check(text: &str, ground: &str, needed: f64) {
        for scheme in SCHEMES {
            let ratio = token(text, scheme).contrast(token(ground, scheme));
            assert!(ratio >= needed, "{text} on {ground} in {scheme:?}: {ratio:.2}, needs {needed}");
        }
    }

    #[test]
    fn contrast_is_the_one_of_the_standard() {
        let (black, white) = (Colour([0; 3]), Colour([255; 3]));
        assert!((black.contrast(white) - 21.0).abs() < 0.01);
        assert!((Colour([0x77; 3]).contrast(white) - 4.48).abs() < 0.01);
    }

    #[test]
    fn every_text_can_be_read_on_its_ground_in_both_schemes() {
        for ground in ["paper", "raised"] {
            for text in ["ink", "muted", "accent", "ok", "attention", "stop"] {
                check(text, ground, TEXT);
            }
            check("edge", ground, 3.0);
        }
        for kind in ["accent", "ok", "attention", "stop"] {
            check(kind, &format!("{kind}-tint"), TEXT);
            check("ink", &format!("{kind}-tint"), TEXT);
        }
        check("accent-ink", "accent", TEXT);
        for tile in 0..12 {
            check("tile-ink", &format!("tile-{tile}"), TEXT);
        }
    }

    #[test]
    fn the_dark_scheme_has_its_own_tokens() {
        assert_ne!(token("paper", Scheme::Light), token("paper", Scheme::Dark));
        assert_eq!(token("tile-3", Scheme::Light), token("tile-3", Scheme::Dark));
    }

    #[test]
    fn any_colour_of_a_clinic_becomes_readable() {
        for wanted in ["#ffff00", "#ffffff", "#000000", "#ff0000", "#00a4e4", "#7f7f7f", "#0b636b", "#123456"]
        {
            let wanted = Colour::parse(wanted).expect("six digits");
            for scheme in SCHEMES {
                let [accent, ink, tint] = accent(wanted, scheme);
                for ground in [token("paper", scheme), token("raised", scheme), tint, ink] {
                    let ratio = accent.contrast(ground);
                    assert!(ratio >= TEXT, "{wanted} in {scheme:?} became {accent}: {ratio:.2} on {ground}");
                }
            }
        }
    }

    #[test]
    fn a_readable_colour_is_left_alone() {
        let teal = Colour::parse("0b636b").expect("six digits");
        assert_eq!(accent(teal, Scheme::Light)[0], teal);
        assert!(accent_stylesheet(teal).contains("--accent:#0b636b;"));
    }

    #[test]
    fn only_six_digits_are_a_colour() {
        for text in ["", "#fff", "red", "#12345g", "}body{}", "#1234567", "#ß12345"] {
            assert_eq!(Colour::parse(text), None, "{text}");
        }
    }
}

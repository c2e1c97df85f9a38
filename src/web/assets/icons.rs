//! The drawings, all on a 24 × 24 grid in the colour of the text around them. They decorate words and are hidden
//! from screen readers; no meaning rests on a drawing alone.

use maud::{Markup, PreEscaped};

macro_rules! icons {
    ($($(#[$about:meta])* $name:ident => $drawing:literal;)*) => {$(
        $(#[$about])*
        pub fn $name() -> Markup {
            PreEscaped(concat!(
                r#"<svg class="icon" viewBox="0 0 24 24" width="24" height="24" fill="none" stroke="currentColor" stroke-width="1.75" stroke-linecap="round" stroke-linejoin="round" aria-hidden="true" focusable="false">"#,
                $drawing,
                "</svg>"
            ).to_owned())
        }
    )*};
}

icons! {
    /// It worked.
    check => r#"<path d="M5 12.5l4.5 4.5L19 7.5"/>"#;
    /// Look at this.
    attention => r#"<path d="M12 4.5L3.5 19.5h17z"/><path d="M12 10.5v4"/><path d="M12 17v.01"/>"#;
    /// It did not work.
    stop => r#"<circle cx="12" cy="12" r="8.5"/><path d="M12 7.5v5.5"/><path d="M12 16.2v.01"/>"#;
    /// A neutral remark.
    note => r#"<circle cx="12" cy="12" r="8.5"/><path d="M12 11v5"/><path d="M12 7.8v.01"/>"#;
    /// Search.
    search => r#"<circle cx="10.5" cy="10.5" r="6"/><path d="M15 15l5 5"/>"#;
    /// Leads on.
    forward => r#"<path d="M9 5.5l6.5 6.5L9 18.5"/>"#;
    /// Opens elsewhere.
    outside => r#"<path d="M13.5 5H19v5.5"/><path d="M19 5l-8.5 8.5"/><path d="M10 6H6.5A1.5 1.5 0 005 7.5v10A1.5 1.5 0 006.5 19h10a1.5 1.5 0 001.5-1.5V14"/>"#;
    /// A ticked box.
    ticked => r#"<rect x="4.5" y="4.5" width="15" height="15" rx="3"/><path d="M8.5 12.2l2.5 2.5 4.5-5"/>"#;
    /// Time.
    clock => r#"<circle cx="12" cy="12" r="8.5"/><path d="M12 7.5V12l3 2"/>"#;
    /// A hand that says stop.
    hand => r#"<path d="M8 12.5V6.8a1.4 1.4 0 012.8 0v4.4m0 0V5.2a1.4 1.4 0 012.8 0v6m0-.2V6.6a1.4 1.4 0 012.8 0v7.9c0 3-2 5.3-5 5.3-2.4 0-3.7-1-4.9-3L4.7 13.3a1.4 1.4 0 012.4-1.4L8 13.4"/>"#;
    /// Copy.
    copy => r#"<rect x="9" y="9" width="10.5" height="10.5" rx="2"/><path d="M15 9V6.5a2 2 0 00-2-2H6.5a2 2 0 00-2 2V13a2 2 0 002 2H9"/>"#;
    /// Load again.
    refresh => r#"<path d="M19 12a7 7 0 11-2.2-5.1"/><path d="M19.5 4v4h-4"/>"#;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_drawing_keeps_to_the_content_security_policy() {
        for icon in [check(), attention(), stop(), note(), search(), hand(), copy(), refresh()] {
            let text = icon.0;
            assert!(text.contains("aria-hidden"), "{text}");
            assert!(!text.contains("style=") && !text.contains("href") && !text.contains("on="), "{text}");
        }
    }
}

//! Words of guests made harmless for terminals.

use std::borrow::Cow;

/// The text with every control character but the tab shown as an escape: a guest cannot move the
/// cursor, change colours or titles, or answer questions of the terminal that shows its lines.
pub fn printable(text: &str) -> Cow<'_, str> {
    shown(text, |letter| letter.escape_default().to_string())
}

/// The same for JSON on one line, which means the same afterwards: JSON itself escapes only a part of them.
pub fn printable_json(json: &str) -> Cow<'_, str> {
    shown(json, |letter| format!("\\u{:04x}", u32::from(letter)))
}

fn shown(text: &str, escape: impl Fn(char) -> String) -> Cow<'_, str> {
    if !text.chars().any(is_harmful) {
        return Cow::Borrowed(text);
    }
    let mut shown = String::with_capacity(text.len() + 16);
    for letter in text.chars() {
        if is_harmful(letter) {
            shown.push_str(&escape(letter));
        } else {
            shown.push(letter);
        }
    }
    Cow::Owned(shown)
}

/// Control characters of both sets, and what turns the direction of a line around.
fn is_harmful(letter: char) -> bool {
    let turns = matches!(
        letter,
        '\u{61c}' | '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}'
    );
    turns || (letter.is_control() && letter != '\t')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn escape_sequences_are_shown_and_not_obeyed() {
        assert_eq!(
            printable("a\u{1b}[31mred\u{7}\u{9b}2J"),
            "a\\u{1b}[31mred\\u{7}\\u{9b}2J"
        );
        assert_eq!(printable("evil\u{202e}txt.exe"), "evil\\u{202e}txt.exe");
        for turns in [
            "\u{61c}", "\u{200e}", "\u{200f}", "\u{202a}", "\u{2066}", "\u{2069}",
        ] {
            assert!(printable(turns).is_ascii(), "{turns:?}");
        }
        assert!(matches!(printable("grün\t✓ 日本"), Cow::Borrowed(_)));
    }

    #[test]
    fn json_means_the_same_and_is_harmless_too() {
        let text = "a\u{1b}[31m\u{9b}2J\u{202e}txt\u{7f}";
        let json = serde_json::json!(text).to_string();
        let shown = printable_json(&json);
        assert!(!shown.chars().any(is_harmful), "{shown}");
        let read: String = serde_json::from_str(&shown).expect("it is JSON still");
        assert_eq!(read, text);
    }
}

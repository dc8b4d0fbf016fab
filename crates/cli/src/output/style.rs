//! Colour, in one place: what is painted, and how. Whether anybody sees it is decided where it is written:
//! `anstream` takes it away where `--color`, `NO_COLOR`, `CLICOLOR_FORCE` or the lack of a terminal say so.
//!
//! Only what is to be seen at a glance has a colour: the states, and the words that begin a good or a
//! bad message. What it says is said without it, too.

use std::{borrow::Cow, ffi::OsString, io};

use anstream::{AutoStream, ColorChoice};
use anstyle::{AnsiColor, Style};

use crate::commands::Color;

const GOOD: Style = AnsiColor::Green.on_default();
const DOUBTFUL: Style = AnsiColor::Yellow.on_default();
const BAD: Style = AnsiColor::Red.on_default();
const WORST: Style = AnsiColor::Red.on_default().bold();
const QUIET: Style = Style::new().dimmed();
const HEADER: Style = Style::new().bold();

/// What a message begins with, and how that is shown.
const BEGINNINGS: &[(&str, Style)] = &[
    ("✓", GOOD),
    ("✗", BAD),
    ("! ", DOUBTFUL),
    ("warning:", DOUBTFUL),
    ("ALARM:", WORST),
    ("FORKED:", WORST),
    ("tip:", GOOD),
];

/// The column that tells how something is.
const STATE: &str = "STATE";

/// Decides for all that is written from here on. The flag is looked for by hand, so that it counts for
/// help, and for a command line that is wrong.
pub fn choose(args: &[OsString]) {
    let choice = match asked(args) {
        Some(Color::Always) => ColorChoice::Always,
        Some(Color::Never) => ColorChoice::Never,
        Some(Color::Auto) | None => ColorChoice::Auto,
    };
    choice.write_global();
}

fn asked(args: &[OsString]) -> Option<Color> {
    let args: Vec<&str> = args.iter().filter_map(|arg| arg.to_str()).collect();
    // What follows is a program's own.
    let ours = args.split(|arg| *arg == "--").next().unwrap_or_default();
    let glued = ours.iter().filter_map(|arg| arg.strip_prefix("--color="));
    let pairs = ours.windows(2).filter_map(|pair| match pair {
        ["--color", value] => Some(*value),
        _ => None,
    });
    let value = glued.chain(pairs).last()?;
    <Color as clap::ValueEnum>::from_str(value, false).ok()
}

/// Whether what is written to standard error is in colour.
pub fn errors_in_colour() -> bool {
    AutoStream::choice(&io::stderr()) != ColorChoice::Never
}

/// A line or a message, with its first word painted where that tells how things are.
pub fn line(text: &str) -> Cow<'_, str> {
    let indent = text.len() - text.trim_start_matches(' ').len();
    let (indent, text_only) = text.split_at(indent);
    let found = BEGINNINGS
        .iter()
        .find(|(beginning, _)| text_only.starts_with(beginning));
    if let Some((beginning, style)) = found {
        let rest = text_only.get(beginning.len()..).unwrap_or_default();
        return format!("{indent}{}{rest}", paint(beginning, *style)).into();
    }
    let is_error = text_only.starts_with("error[");
    match text_only.split_once(": ").filter(|_| is_error) {
        Some((code, rest)) => format!("{indent}{}: {rest}", paint(code, WORST)).into(),
        None => text.into(),
    }
}

/// The name of a column.
pub fn header(text: &str) -> String {
    match text.is_empty() {
        true => String::new(),
        false => paint(text, HEADER),
    }
}

/// What stands in the column of this name.
pub fn cell<'a>(column: &str, text: &'a str) -> Cow<'a, str> {
    match column == STATE {
        true => state(text),
        false => text.into(),
    }
}

/// The state of a node, a component or a cell, as `lost`, or with a problem beside it, as `ready,disk-full`.
pub fn state(text: &str) -> Cow<'_, str> {
    let style = match text {
        "ready" | "running" | "done" => GOOD,
        "lost" | "failed" | "revoked" | "refused" => BAD,
        "stopped" => QUIET,
        "" | "-" => return text.into(),
        // On its way, or not all there.
        _ => DOUBTFUL,
    };
    paint(text, style).into()
}

fn paint(text: &str, style: Style) -> String {
    format!("{style}{text}{style:#}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_tells_how_things_are_is_painted() {
        for (text, painted) in [
            ("✓ done", "\u{1b}[32m✓\u{1b}[0m done"),
            ("  ✓ done", "  \u{1b}[32m✓\u{1b}[0m done"),
            ("warning: old", "\u{1b}[33mwarning:\u{1b}[0m old"),
            (
                "error[usage]: no: never",
                "\u{1b}[1m\u{1b}[31merror[usage]\u{1b}[0m: no: never",
            ),
            ("an error[usage]: no", "an error[usage]: no"),
            ("web  running", "web  running"),
        ] {
            assert_eq!(line(text), painted);
        }
        assert_eq!(cell("STATE", "ready"), "\u{1b}[32mready\u{1b}[0m");
        assert_eq!(
            cell("STATE", "ready,disk-full"),
            "\u{1b}[33mready,disk-full\u{1b}[0m"
        );
        assert_eq!(cell("NAME", "ready"), "ready");
        assert_eq!(cell("STATE", "-"), "-");
    }

    #[test]
    fn the_flag_is_found_in_any_command_line_and_not_behind_it() {
        let found = |line: &str| {
            let args: Vec<OsString> = line.split(' ').map(OsString::from).collect();
            asked(&args)
        };
        assert_eq!(found("realm status"), None);
        assert_eq!(found("realm --color never x"), Some(Color::Never));
        assert_eq!(found("realm x --color=always"), Some(Color::Always));
        assert_eq!(found("realm x --color purple"), None);
        assert_eq!(found("realm run x.wasm -- --color never"), None);
    }
}

//! Where answers go: data to standard output, words to standard error.

use std::{
    borrow::Cow,
    io::{self, BufRead as _, IsTerminal as _, Read as _, Write as _},
};

use realm_runtime::{printable, printable_json};
use rustix::{stdio, termios::tcgetwinsize};

mod page;
pub mod style;
mod table;

pub use self::page::Page;
use crate::error::{CliError, Context as _, ExitCode, Result};

/// An answer to yes or no is shorter.
const MAX_ANSWER_BYTES: u64 = 1024;

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum Format {
    #[default]
    Text,
    /// One object; streams are one object a line.
    Json,
}

/// How this run of the command speaks.
#[derive(Debug, Clone, Copy)]
pub struct Output {
    pub format: Format,
    pub quiet: bool,
}

impl Output {
    pub fn json(&self) -> bool {
        self.format == Format::Json
    }

    /// Whether a person watches: progress is drawn, prompts are asked.
    pub fn interactive(&self) -> bool {
        !self.quiet && !self.json() && io::stderr().is_terminal()
    }

    /// Data, on standard output: one line, so that no name in it passes for another one of ours.
    pub fn line(&self, text: &str) -> Result<()> {
        self.painted(&style::line(&printable(text)))
    }

    /// Several lines whose ends are ours, as those of a page or of a key.
    pub fn text(&self, text: &str) -> Result<()> {
        self.painted(&plain(text))
    }

    /// A line whose words are plain already, and which has its colours.
    fn painted(&self, text: &str) -> Result<()> {
        let mut out = anstream::stdout().lock();
        match writeln!(out, "{text}") {
            // Whoever read has seen enough, as in `realm history | head`.
            Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Err(CliError::reader_left()),
            written => written.context("cannot write to standard output"),
        }
    }

    /// Whether a live view is drawn over itself; elsewhere each picture follows the last one. Colours
    /// have nothing to do with it.
    pub fn redraws(&self) -> bool {
        let obeys = std::env::var_os("TERM").is_none_or(|term| term != "dumb");
        !self.json() && obeys && io::stdout().is_terminal()
    }

    /// Makes room for the next picture of a live view.
    fn clear(&self) -> Result<()> {
        // Home, then erase what is below: without the flicker of erasing first. Not through anstream,
        // which takes away more than colours where there are to be none.
        let mut out = io::stdout().lock();
        let written = out.write_all(b"\x1b[H\x1b[J").and_then(|()| out.flush());
        written.context("cannot write to the terminal")
    }

    /// One JSON object, indented, on standard output.
    pub fn object<T: serde::Serialize>(&self, value: &T) -> Result<()> {
        let json = serde_json::to_string_pretty(value).context("cannot write JSON")?;
        self.text(&harmless(&json))
    }

    /// One JSON object on one line, for streams.
    pub fn json_line<T: serde::Serialize>(&self, value: &T) -> Result<()> {
        let json = serde_json::to_string(value).context("cannot write JSON")?;
        self.line(&harmless(&json))
    }

    pub fn table(&self, header: &[&str], rows: Vec<Vec<String>>) -> Result<()> {
        let mut page = Page::default();
        page.table(header, rows);
        page.write(self)
    }

    /// Help, which has its styles.
    pub fn help(&self, text: &clap::builder::StyledStr) -> Result<()> {
        self.painted(text.ansi().to_string().trim_end())
    }

    /// A message on standard error. What follows its first line is indented, so that nobody's words
    /// pass for a line of ours.
    pub fn say(&self, text: impl AsRef<str>) {
        if !self.quiet {
            tell(&format!(
                "{}\n",
                plain(text.as_ref()).replace('\n', "\n    ")
            ));
        }
    }
}

/// Writes to standard error. Where that is full or closed there is nobody left to tell: what the
/// command does, and its exit code, stay as they are.
pub fn tell(text: &str) {
    let _ = anstream::stderr()
        .lock()
        .write_all(style::line(text).as_bytes());
}

/// Whether answers go to a terminal.
pub fn on_terminal() -> bool {
    columns().is_some()
}

/// How wide the terminal is that answers are written to; none for a pipe, which gets whole cells.
fn columns() -> Option<usize> {
    let size = tcgetwinsize(stdio::stdout()).ok()?;
    // A terminal that does not know says 0.
    (size.ws_col > 0).then_some(size.ws_col.into())
}

/// And how high.
fn rows() -> Option<usize> {
    let size = tcgetwinsize(stdio::stdout()).ok()?;
    (size.ws_row > 0).then_some(size.ws_row.into())
}

/// JSON that means the same, and cannot drive a terminal: JSON itself escapes only a part of the control
/// characters. What ends a line of it is outside its texts.
pub fn harmless(json: &str) -> String {
    let lines: Vec<_> = json.split('\n').map(printable_json).collect();
    lines.join("\n")
}

/// Text that cannot drive a terminal, nor turn its lines around: names in a program, and messages about it,
/// are its author's words. What ends a line stays.
pub fn plain(text: &str) -> Cow<'_, str> {
    let lines: Vec<_> = text.split('\n').map(printable).collect();
    match lines.iter().all(|line| matches!(line, Cow::Borrowed(_))) {
        true => text.into(),
        false => lines.join("\n").into(),
    }
}

/// Asks at a terminal whether to `act`; elsewhere `--yes` is needed. Whoever types nothing, or ends
/// the input, said no. Dropping it midway leaves the terminal as it was.
pub async fn confirm(yes: bool, act: &str) -> Result<()> {
    let refused = || {
        CliError::new(ExitCode::Usage, format!("not confirmed: {act}"))
            .help("confirm it with --yes")
    };
    if yes {
        return Ok(());
    }
    if !io::stdin().is_terminal() {
        return Err(refused());
    }
    tell(&format!("Really {act}? [y/N] "));
    let described = "cannot ask at the terminal";
    // On a thread of its own, so that Ctrl-C is heard meanwhile; that ends the process, and it.
    let read = tokio::task::spawn_blocking(|| {
        let mut answer = String::new();
        let read = io::stdin()
            .lock()
            .take(MAX_ANSWER_BYTES)
            .read_line(&mut answer);
        read.map(|_| answer)
    });
    let answer = read.await.context(described)?.context(described)?;
    if answer.is_empty() {
        tell("\n");
    }
    let answer = answer.trim().to_lowercase();
    if answer == "y" || answer == "yes" {
        Ok(())
    } else {
        Err(refused())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_of_others_neither_drive_a_terminal_nor_turn_a_line_around() {
        assert_eq!(
            plain("a\u{1b}[2J\n\u{202e}b\u{200f}"),
            "a\\u{1b}[2J\n\\u{202e}b\\u{200f}"
        );
        let unchanged = "grün\t✓\n日本\n";
        assert_eq!(plain(unchanged), unchanged);
    }

    #[test]
    fn json_loses_no_letter_and_drives_no_terminal() {
        let value =
            serde_json::json!({ "text": "a\u{1b}[2J\u{9b}31m\u{7f}\u{202e}b\n", "list": [1] });
        for json in [
            value.to_string(),
            serde_json::to_string_pretty(&value).unwrap(),
        ] {
            let shown = harmless(&json);
            assert_eq!(plain(&shown), shown, "nothing is left to replace");
            assert_eq!(shown.lines().count(), json.lines().count());
            let read: serde_json::Value = serde_json::from_str(&shown).unwrap();
            assert_eq!(read, value);
        }
    }
}

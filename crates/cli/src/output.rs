//! Where answers go: data to standard output, words to standard error.

use std::{
    borrow::Cow,
    io::{self, IsTerminal as _, Write as _},
};

use comfy_table::{ContentArrangement, Table, presets};

use crate::error::{CliError, Context as _, ExitCode, Result};

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

    /// Data, on standard output.
    pub fn line(&self, text: &str) -> Result<()> {
        let mut out = anstream::stdout().lock();
        match writeln!(out, "{}", plain(text)) {
            // Whoever read has seen enough, as in `realm history | head`.
            Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Err(CliError::reader_left()),
            written => written.context("cannot write to standard output"),
        }
    }

    /// Makes room for the next picture of a live view; a pipe keeps every one.
    pub fn clear(&self) -> Result<()> {
        if self.json() || !io::stdout().is_terminal() {
            return Ok(());
        }
        // Home, then erase what is below: without the flicker of erasing first.
        write!(anstream::stdout().lock(), "\x1b[H\x1b[J").context("cannot write to the terminal")
    }

    /// One JSON object, indented, on standard output.
    pub fn object<T: serde::Serialize>(&self, value: &T) -> Result<()> {
        self.line(&serde_json::to_string_pretty(value).context("cannot write JSON")?)
    }

    /// One JSON object on one line, for streams.
    pub fn json_line<T: serde::Serialize>(&self, value: &T) -> Result<()> {
        self.line(&serde_json::to_string(value).context("cannot write JSON")?)
    }

    pub fn table(&self, header: &[&str], rows: Vec<Vec<String>>) -> Result<()> {
        let mut table = Table::new();
        table.load_preset(presets::NOTHING);
        // A pipe gets whole cells; a terminal gets what fits.
        if io::stdout().is_terminal() {
            table.set_content_arrangement(ContentArrangement::Dynamic);
        }
        table.set_header(header);
        let cell = |text: String| plain(&text).replace('\n', " ");
        table.add_rows(rows.into_iter().map(|row| row.into_iter().map(cell)));
        for line in table.lines() {
            self.line(line.trim_end())?;
        }
        Ok(())
    }

    /// A message on standard error.
    pub fn say(&self, text: impl AsRef<str>) {
        if !self.quiet {
            anstream::eprintln!("{}", plain(text.as_ref()));
        }
    }
}

/// Text that cannot drive a terminal: names in a program, and messages about it, are its author's words.
pub fn plain(text: &str) -> Cow<'_, str> {
    let obeyed = |letter: char| letter.is_control() && letter != '\n' && letter != '\t';
    if text.contains(obeyed) {
        text.replace(obeyed, "\u{fffd}").into()
    } else {
        text.into()
    }
}

/// Asks at a terminal whether to `act`; elsewhere `--yes` is needed.
pub fn confirm(yes: bool, act: &str) -> Result<()> {
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
    let sure = dialoguer::Confirm::new()
        .with_prompt(format!("Really {act}?"))
        .default(false)
        .interact()
        .unwrap_or(false);
    if sure { Ok(()) } else { Err(refused()) }
}

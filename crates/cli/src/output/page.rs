//! What a command shows, before it is written: a view that goes on shows it again only where it differs.

use realm_runtime::printable;

use super::{Output, columns, plain, style, table};
use crate::error::Result;

/// Lines in colour, and words beside them.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Page {
    lines: Vec<String>,
    said: Vec<String>,
}

impl Page {
    /// Data, as `Output::line` writes it.
    pub fn line(&mut self, text: &str) {
        self.lines.push(style::line(&printable(text)).into_owned());
    }

    /// Several lines whose ends are ours, as `Output::text` writes them.
    pub fn text(&mut self, text: &str) {
        self.lines.push(plain(text).into_owned());
    }

    /// A name, its state, and what else is said of it.
    pub fn headline(&mut self, name: &str, state: &str, rest: &str) {
        let [name, state, rest] = [name, state, rest].map(printable);
        let state = style::state(&state);
        self.lines.push(format!("{name}  {state}  {rest}"));
    }

    /// One row a line, where a terminal is as wide as that.
    pub fn table(&mut self, header: &[&str], rows: Vec<Vec<String>>) {
        let one_line = |cell: String| plain(&cell).replace('\n', " ");
        let rows = rows.into_iter();
        let rows: Vec<Vec<String>> = rows
            .map(|row| row.into_iter().map(one_line).collect())
            .collect();
        self.lines.extend(table::lines(header, &rows, columns()));
    }

    /// A message, as `Output::say` writes it.
    pub fn say(&mut self, text: &str) {
        self.said.push(text.to_owned());
    }

    pub fn write(&self, output: &Output) -> Result<()> {
        for line in &self.lines {
            output.painted(line)?;
        }
        for text in &self.said {
            output.say(text);
        }
        Ok(())
    }
}

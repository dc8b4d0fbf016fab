//! What a command shows, before it is written: a view that goes on shows it again only where it differs.

use anstream::adapter::strip_str;
use realm_runtime::printable;
use unicode_width::UnicodeWidthStr as _;

use super::{Output, columns, plain, rows, style, table};
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

    /// The same on a terminal, over what was drawn before.
    pub fn draw(mut self, output: &Output) -> Result<()> {
        if let (Some(rows), Some(columns)) = (rows(), columns()) {
            let said: usize = self.said.iter().map(|text| height(text, columns)).sum();
            // The cursor stands below the last line.
            cut(&mut self.lines, rows.saturating_sub(said + 1), columns);
        }
        output.clear()?;
        self.write(output)
    }
}

/// Leaves out the last lines where `rows` have no room for all, and counts them: else the first ones would be pushed
/// out of the terminal, and each picture stay above the next.
fn cut(lines: &mut Vec<String>, rows: usize, columns: usize) {
    let height = |line: &String| height(line, columns);
    if lines.iter().map(height).sum::<usize>() <= rows {
        return;
    }
    let mut used = 1;
    let fits = |line: &&String| {
        used += height(line);
        used <= rows
    };
    let kept = lines.iter().take_while(fits).count();
    let more = format!(
        "… {} more lines than this terminal has room for",
        lines.len() - kept
    );
    lines.truncate(kept);
    lines.push(more);
}

/// Rows that a line takes; its colours take no room.
fn height(line: &str, columns: usize) -> usize {
    let width = strip_str(line).to_string().width();
    width.div_ceil(columns).max(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_low_terminal_keeps_the_first_lines_and_counts_the_others() {
        let all = ["a node", "\u{1b}[32mready\u{1b}[0m", "twelve cells", "web"];
        let shown = |rows, columns| {
            let mut lines = all.map(str::to_owned).to_vec();
            cut(&mut lines, rows, columns);
            lines
        };
        assert_eq!(shown(4, 12), all);
        // Colours take no room; what is longer than a row takes two.
        assert_eq!(shown(5, 6), all);
        assert_eq!(shown(4, 6).len(), 3);
        assert_eq!(
            shown(3, 12)[2],
            "… 2 more lines than this terminal has room for"
        );
        assert_eq!(shown(3, 12)[..2], all[..2]);
        assert_eq!(
            shown(0, 12),
            ["… 4 more lines than this terminal has room for"]
        );
    }
}

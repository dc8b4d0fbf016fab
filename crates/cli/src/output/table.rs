//! Tables: columns where they fit, and one block a row where they do not. A word is never broken; what tells
//! nothing goes first.

use unicode_width::UnicodeWidthStr as _;

use super::style;

/// A column of text is not made narrower than this, which would make a row very high.
const NARROWEST: usize = 16;
/// What is around each cell.
const PADDING: usize = 2;

/// The lines of a table, in colour. Without a `width` every row is one line.
pub fn lines(header: &[&str], rows: &[Vec<String>], width: Option<usize>) -> Vec<String> {
    let natural = natural(header, rows);
    let Some(width) = width else {
        return in_columns(header, rows, &natural);
    };
    if whole(&natural) <= width {
        return in_columns(header, rows, &natural);
    }
    let (header, rows) = telling(header, rows);
    let natural = self::natural(&header, &rows);
    match fit(&natural, &least(&header, &rows, &natural), width) {
        Some(widths) => in_columns(&header, &rows, &widths),
        None => in_blocks(&header, &rows, width),
    }
}

/// The table without the columns in which no row says anything.
fn telling<'h>(header: &[&'h str], rows: &[Vec<String>]) -> (Vec<&'h str>, Vec<Vec<String>>) {
    let tells = |index: usize| {
        let mut cells = rows.iter().filter_map(|row| row.get(index));
        cells.any(|cell| !matches!(cell.as_str(), "" | "-"))
    };
    let kept: Vec<bool> = (0..header.len()).map(tells).collect();
    let header = header.iter().zip(&kept).filter(|(_, kept)| **kept);
    let rows = rows.iter().map(|row| {
        let row = row.iter().zip(&kept).filter(|(_, kept)| **kept);
        row.map(|(cell, _)| cell.clone()).collect()
    });
    (header.map(|(name, _)| *name).collect(), rows.collect())
}

/// What each column takes where nothing is wrapped.
fn natural(header: &[&str], rows: &[Vec<String>]) -> Vec<usize> {
    let column = |(index, name): (usize, &&str)| {
        let cells = rows.iter().filter_map(|row| row.get(index));
        let widest = cells.map(|cell| cell.width()).max().unwrap_or_default();
        widest.max(name.width())
    };
    header.iter().enumerate().map(column).collect()
}

/// What each column takes at least, with all its words whole.
fn least(header: &[&str], rows: &[Vec<String>], natural: &[usize]) -> Vec<usize> {
    let column = |((index, name), natural): ((usize, &&str), &usize)| {
        let cells = rows.iter().filter_map(|row| row.get(index));
        let words = cells.flat_map(|cell| pieces(cell));
        let longest = words.map(|word| word.trim_end().width()).max();
        let longest = longest.unwrap_or_default().max(name.width());
        longest.max(NARROWEST.min(*natural))
    };
    header.iter().enumerate().zip(natural).map(column).collect()
}

/// Widths that fit: the widest column that can give some gives it. None where none can any more.
fn fit(natural: &[usize], least: &[usize], width: usize) -> Option<Vec<usize>> {
    let mut widths = natural.to_vec();
    while whole(&widths) > width {
        let can_give = widths
            .iter_mut()
            .zip(least)
            .filter(|(width, least)| **width > **least);
        let (widest, _) = can_give.max_by_key(|(width, _)| **width)?;
        *widest -= 1;
    }
    Some(widths)
}

fn whole(widths: &[usize]) -> usize {
    let padded = widths.iter().map(|column| column + PADDING);
    // The last cell is not padded behind.
    padded.sum::<usize>().saturating_sub(1)
}

fn in_columns(header: &[&str], rows: &[Vec<String>], widths: &[usize]) -> Vec<String> {
    let names = header.iter().zip(widths);
    let names = names.map(|(name, width)| cell(name, &style::header(name), *width));
    let mut lines = vec![joined(names)];
    for row in rows {
        let wrapped: Vec<Vec<String>> = row
            .iter()
            .zip(widths)
            .map(|(text, width)| wrap(text, *width))
            .collect();
        let height = wrapped.iter().map(Vec::len).max().unwrap_or_default();
        for at in 0..height {
            let cells = wrapped.iter().zip(header).zip(widths);
            lines.push(joined(cells.map(|((cells, name), width)| {
                let text = cells.get(at).map_or("", String::as_str);
                cell(text, &style::cell(name, text), *width)
            })));
        }
    }
    lines
}

/// `painted` is `text` in colour, which takes no room.
fn cell(text: &str, painted: &str, width: usize) -> String {
    let room = " ".repeat(width.saturating_sub(text.width()));
    format!(" {painted}{room} ")
}

fn joined(cells: impl Iterator<Item = String>) -> String {
    let line: String = cells.collect();
    line.trim_end().to_owned()
}

/// Each row under its first cell, one line for each of the others.
fn in_blocks(header: &[&str], rows: &[Vec<String>], width: usize) -> Vec<String> {
    let names = header.iter().map(|name| name.width());
    let label = names.max().unwrap_or_default();
    let mut lines = Vec::new();
    for row in rows {
        let told = header.iter().zip(row);
        let told = told.filter(|(_, text)| !text.is_empty());
        for (at, (name, text)) in told.enumerate() {
            let begin = if at == 0 { " " } else { "   " };
            let room = width.saturating_sub(begin.len() + label + 1);
            for (row, piece) in wrap(text, room).into_iter().enumerate() {
                let name = if row == 0 { *name } else { "" };
                let indent = " ".repeat(label.saturating_sub(name.width()));
                let text = style::cell(name, &piece).into_owned();
                let line = format!("{begin}{}{indent} {text}", style::header(name));
                lines.push(line.trim_end().to_owned());
            }
        }
    }
    lines
}

/// Text in lines of this width, broken at spaces and behind commas; a longer word has a line of its own.
fn wrap(text: &str, width: usize) -> Vec<String> {
    let mut lines = Vec::new();
    let mut line = String::new();
    for piece in pieces(text) {
        let fits = line.width() + piece.trim_end().width() <= width;
        if !fits && !line.is_empty() {
            lines.push(line.trim_end().to_owned());
            line.clear();
        }
        line.push_str(piece);
    }
    lines.push(line.trim_end().to_owned());
    lines
}

/// What stays together; what is behind a word stays with it.
fn pieces(text: &str) -> impl Iterator<Item = &str> {
    text.split_inclusive([' ', ','])
}

#[cfg(test)]
mod tests {
    use super::*;

    const HEADER: [&str; 4] = ["NAME", "STATE", "NODES", "REASON"];

    fn shown(width: Option<usize>) -> String {
        let rows = [
            ["web", "running", "one,two,three", ""],
            [
                "worker",
                "failed",
                "one",
                "the program ended: it asked for more memory than it may have",
            ],
        ];
        let rows = rows.map(|row| row.map(str::to_owned).to_vec());
        let lines = lines(&HEADER, &rows, width).join("\n");
        anstream::adapter::strip_str(&lines).to_string()
    }

    #[test]
    fn a_table_is_as_wide_as_it_needs_and_breaks_no_word() {
        let whole = [
            " NAME    STATE    NODES          REASON",
            " web     running  one,two,three",
            " worker  failed   one            the program ended: it asked for more memory than it may have",
        ]
        .join("\n");
        assert_eq!(shown(None), whole);
        assert_eq!(shown(Some(200)), whole);
        let narrow = [
            " NAME    STATE    NODES          REASON",
            " web     running  one,two,three",
            " worker  failed   one            the program ended: it",
            "                                 asked for more memory",
            "                                 than it may have",
        ]
        .join("\n");
        assert_eq!(shown(Some(55)), narrow);
    }

    #[test]
    fn rows_that_do_not_fit_are_blocks() {
        let blocks = [
            " NAME   web",
            "   STATE  running",
            "   NODES  one,two,three",
            " NAME   worker",
            "   STATE  failed",
            "   NODES  one",
            "   REASON the program ended: it",
            "          asked for more memory",
            "          than it may have",
        ]
        .join("\n");
        assert_eq!(shown(Some(32)), blocks);
        let words: Vec<String> = shown(None).split_whitespace().map(str::to_owned).collect();
        for width in 1..100 {
            let shown = shown(Some(width));
            let broken: Vec<&str> = shown
                .split_whitespace()
                .flat_map(|word| word.split_inclusive(','))
                .filter(|piece| !words.iter().any(|word| word.contains(piece)))
                .collect();
            assert_eq!(broken, Vec::<&str>::new(), "{width}: {shown}");
        }
    }

    #[test]
    fn a_column_that_tells_nothing_goes_where_there_is_no_room() {
        let row = ["one", "", "-", "2026-11-23T02:07:33Z"];
        let rows = [row.map(str::to_owned).to_vec()];
        let header = ["NODE", "TAGS", "RTT", "SEEN"];
        let first = |width| {
            let lines = lines(&header, &rows, Some(width));
            let first = lines.first().map(String::as_str).unwrap_or_default();
            anstream::adapter::strip_str(first).to_string()
        };
        assert_eq!(first(80), " NODE  TAGS  RTT  SEEN");
        assert_eq!(first(30), " NODE  SEEN");
    }

    #[test]
    fn colour_takes_no_room() {
        let rows = [vec!["web".to_owned(), "running".to_owned(), "x".to_owned()]];
        let painted = lines(&["NAME", "STATE", "NODES"], &rows, None);
        assert!(
            painted
                .iter()
                .any(|line| line.contains("\u{1b}[32mrunning"))
        );
        let plain = painted
            .iter()
            .map(|line| anstream::adapter::strip_str(line));
        let plain: Vec<String> = plain.map(|line| line.to_string()).collect();
        assert_eq!(plain, [" NAME  STATE    NODES", " web   running  x"]);
    }
}

//! Every command line that the documents print is one that this program takes; none is run.

#![allow(clippy::unwrap_used)]

use std::{
    fs,
    path::{Path, PathBuf},
};

use clap::{Parser as _, error::ErrorKind};

use crate::commands::Cli;

/// Pages, and directories of pages, from the project's root.
const PAGES: [&str; 7] = [
    "README.md",
    "CHANGELOG.md",
    "CONTRIBUTING.md",
    "SECURITY.md",
    "contrib",
    "docs",
    "examples",
];
/// What stands for a value in them where any text will not do.
const PLACEHOLDERS: [(&str, &str); 6] = [
    ("REVISION", "7"),
    ("N", "2"),
    ("NAME", "web"),
    ("image-N", "image-2"),
    ("$PWD:/data:rw", "/srv/data:/data:rw"),
    (
        "KEY",
        "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIDtqJ7zOtqQtYqOo0CpvDXNlMhV3HeJDpjrASKGLWdop",
    ),
];
/// What a page names because it is not there.
const ABSENT: [&str; 1] = ["realm apply"];
/// Fewer were never there: else the pages are written in a way that is not looked for.
const LINES_MIN: usize = 90;
const WORDS_MIN: usize = 150;

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

fn pages() -> Vec<PathBuf> {
    let mut left: Vec<_> = PAGES.iter().map(|page| root().join(page)).collect();
    let mut pages = Vec::new();
    while let Some(path) = left.pop() {
        if path.is_dir() {
            let entries = fs::read_dir(&path).unwrap();
            left.extend(entries.map(|entry| entry.unwrap().path()));
        } else if path.extension().is_some_and(|extension| extension == "md") {
            pages.push(path);
        }
    }
    pages
}

/// Whole lines, which somebody copies: indented, with those that a backslash continues. Where a block has prompts, its
/// other lines are what was printed.
fn lines(page: &str) -> Vec<String> {
    let joined = page.replace("\\\n", " ");
    let (mut has_prompts, mut commands) = (false, Vec::new());
    for line in joined.lines() {
        let is_indented = line.starts_with("  ");
        let (line, prompted) = match line.trim().strip_prefix("$ ") {
            Some(line) => (line, true),
            None => (line.trim(), false),
        };
        has_prompts = is_indented && (has_prompts || prompted);
        if is_indented && prompted == has_prompts && line.starts_with("realm ") {
            commands.push(line.to_owned());
        }
    }
    commands
}

/// What is set in backquotes within a sentence: often a part of a line.
fn spans(page: &str) -> Vec<String> {
    let parts = page
        .lines()
        .flat_map(|line| line.split('`').skip(1).step_by(2));
    let commands = parts.filter(|part| part.starts_with("realm ") && !ABSENT.contains(part));
    commands.map(str::to_owned).collect()
}

/// The words of a line as a shell takes them, up to what is the shell's own or a remark: what stands beside a
/// command is set off by two blanks, or by a comma.
fn words(line: &str) -> Vec<String> {
    let mut words = vec![String::new()];
    let (mut quote, mut blanks) = (None, 0);
    for letter in line.chars() {
        match (quote, letter) {
            (Some(open), _) if letter == open => quote = None,
            (None, '"' | '\'') => quote = Some(letter),
            (None, ' ') => {
                blanks += 1;
                if blanks == 2 || words.last().is_some_and(|word| word.ends_with(',')) {
                    break;
                }
                words.push(String::new());
                continue;
            }
            (None, ';') => break,
            (None, '#' | '>' | '|' | '&') if blanks > 0 => break,
            _ => words.last_mut().unwrap().push(letter),
        }
        blanks = 0;
    }
    words.retain(|word| !word.is_empty());
    let words = words.iter().map(|word| word.trim_end_matches(','));
    words.map(meant).collect()
}

fn meant(word: &str) -> String {
    let value = |word: &str| {
        let known = PLACEHOLDERS.iter().find(|(name, _)| *name == word);
        known.map_or(word, |(_, value)| value).to_owned()
    };
    match word.split_once('=') {
        Some((name, rest)) => format!("{name}={}", value(rest)),
        None => value(word),
    }
}

/// Why the program does not take it.
fn refused(words: &[String]) -> Option<clap::Error> {
    let error = Cli::try_parse_from(words).err()?;
    let is_shown = matches!(
        error.kind(),
        ErrorKind::DisplayHelp | ErrorKind::DisplayVersion
    );
    (!is_shown).then_some(error)
}

#[test]
fn every_command_line_in_the_documents_is_taken() {
    let (mut count, mut bad) = (0, Vec::new());
    for path in pages() {
        let page = fs::read_to_string(&path).unwrap();
        for line in lines(&page) {
            count += 1;
            if let Some(error) = refused(&words(&line)) {
                bad.push(format!("{}: {line}\n{error}", path.display()));
            }
        }
    }
    assert!(bad.is_empty(), "{}", bad.join("\n"));
    assert!(count >= LINES_MIN, "only {count} lines were found");
}

#[test]
fn every_command_that_a_sentence_names_is_there() {
    let (mut count, mut bad) = (0, Vec::new());
    for path in pages() {
        let page = fs::read_to_string(&path).unwrap();
        for span in spans(&page) {
            count += 1;
            let error = refused(&words(&span));
            // A sentence may leave out what a command needs.
            let is_part = |error: &clap::Error| match error.kind() {
                ErrorKind::MissingRequiredArgument
                | ErrorKind::MissingSubcommand
                | ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand => true,
                // A flag that is named without its value.
                ErrorKind::InvalidValue => error.to_string().contains("a value is required"),
                _ => false,
            };
            if let Some(error) = error.filter(|error| !is_part(error)) {
                bad.push(format!("{}: {span}\n{error}", path.display()));
            }
        }
    }
    assert!(bad.is_empty(), "{}", bad.join("\n"));
    assert!(count >= WORDS_MIN, "only {count} were found");
}

#[test]
fn a_line_is_read_as_a_shell_reads_it() {
    let read = |line: &str| words(line).join("|");
    assert_eq!(
        read("realm status --watch   # a remark"),
        "realm|status|--watch"
    );
    assert_eq!(
        read("realm invite --name one > one.token"),
        "realm|invite|--name|one"
    );
    assert_eq!(
        read("realm scale web=N -m \"was not enough\""),
        "realm|scale|web=2|-m|was not enough"
    );
    assert_eq!(read("realm man | man -l -"), "realm|man");
    assert_eq!(
        read("realm run hello.wasm --tag a,b, ten times"),
        "realm|run|hello.wasm|--tag|a,b"
    );
    assert!(refused(&words("realm push a b.wasm --never-there")).is_some());
    assert!(refused(&words("realm nodes frobnicate")).is_some());
}

//! Habits that no other tool checks.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};
use serde::Deserialize;

use crate::{read, verdict};

/// A longer file usually holds a second idea.
const MAX_LINES: usize = 500;

/// Below these everything that is text is checked, beside the files of the project's directory.
const DIRS: &[&str] = &[
    ".cargo", ".ci", ".config", "crates", "docs", "examples", "guests", "scripts", "wit", "xtask",
];

/// Folders whose files are results, or inputs of the fuzzer.
const DATA: &[&str] = &["target", "corpus", "regressions"];

/// Written by other programs.
const GENERATED: &[&str] = &["Cargo.lock", "_capnp.rs"];

/// Where machines keep what belongs to one person. A file that names such a place works nowhere else.
const HOMES: &[&str] = &["/root/", "/home/", "/Users/"];

/// Work that was put off. Parted, so that this file has none.
const LATER: &[&str] = &[
    concat!("TO", "DO"),
    concat!("FIX", "ME"),
    concat!("X", "XX"),
];

/// Macros that stand for missing code, or for looking at it.
const UNDONE: &[&str] = &["todo", "unimplemented", "dbg"];

/// What is let pass: for each kind the files, each with a reason.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct Exceptions {
    long: BTreeMap<String, String>,
    sleep: BTreeMap<String, String>,
    home: BTreeMap<String, String>,
}

pub fn check(root: &Path) -> Result<()> {
    let exceptions: Exceptions = toml::from_str(&read(&root.join("xtask/tidy.toml"))?)
        .context("xtask/tidy.toml is not a table of exceptions")?;
    let mut findings = Findings::new(exceptions);
    for path in texts(root)? {
        let name = path.strip_prefix(root)?.to_string_lossy().into_owned();
        // What is not text has other checks.
        if let Ok(text) = String::from_utf8(std::fs::read(&path)?) {
            findings.look(&name, &text);
        }
    }
    verdict("untidy", &findings.problems())
}

fn texts(root: &Path) -> Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    let mut waiting: Vec<PathBuf> = DIRS.iter().map(|dir| root.join(dir)).collect();
    waiting.retain(|dir| dir.exists());
    for entry in std::fs::read_dir(root)? {
        let path = entry?.path();
        if path.is_file() {
            found.push(path);
        }
    }
    while let Some(dir) = waiting.pop() {
        for entry in std::fs::read_dir(&dir)? {
            let path = entry?.path();
            // What a link leads to is found where it lies.
            if path.is_symlink() {
                continue;
            }
            if !path.is_dir() {
                found.push(path);
            } else if path
                .file_name()
                .is_none_or(|name| !DATA.iter().any(|data| name == *data))
            {
                waiting.push(path);
            }
        }
    }
    found.retain(|path| {
        let name = path.to_string_lossy();
        !GENERATED.iter().any(|ending| name.ends_with(ending))
    });
    found.sort();
    Ok(found)
}

struct Findings {
    exceptions: Exceptions,
    problems: Vec<String>,
    /// Exceptions that were needed.
    used: BTreeSet<(&'static str, String)>,
}

impl Findings {
    fn new(exceptions: Exceptions) -> Self {
        Self {
            exceptions,
            problems: Vec::new(),
            used: BTreeSet::new(),
        }
    }

    fn look(&mut self, name: &str, text: &str) {
        if name.ends_with(".rs") {
            self.look_at_source(name, text);
        }
        for (at, line) in text.lines().enumerate() {
            let at = at + 1;
            if LATER.iter().any(|word| holds_word(line, word)) {
                self.report(name, &format!("puts work off in line {at}"));
            }
            if HOMES.iter().any(|home| holds_word(line, home)) && !self.excepted("home", name) {
                self.report(name, &format!("names a home directory in line {at}"));
            }
        }
    }

    fn look_at_source(&mut self, name: &str, text: &str) {
        if !text.starts_with("//!") {
            self.report(name, "opens without a `//!` line");
        }
        if name.ends_with("/mod.rs") {
            self.report(name, "is a mod.rs; put it beside its folder");
        }
        let lines = text.lines().count();
        if lines > MAX_LINES && !self.excepted("long", name) {
            self.report(name, &format!("has {lines} lines, more than {MAX_LINES}"));
        }
        for macro_name in UNDONE {
            let call = format!("{macro_name}!(");
            if code(text).any(|(_, line)| holds_word(line, &call)) {
                self.report(name, &format!("has a {macro_name}"));
            }
        }
        let channel = format!("unbounded_{}(", "channel");
        if text.contains(&channel) {
            self.report(name, "has a channel without a bound");
        }
        for at in sleeps(name, text) {
            if !self.excepted("sleep", name) {
                let what = format!("sleeps in a test in line {at}; wait for the event itself");
                self.report(name, &what);
            }
        }
    }

    fn report(&mut self, name: &str, what: &str) {
        self.problems.push(format!("{name}: {what}"));
    }

    fn excepted(&mut self, kind: &'static str, name: &str) -> bool {
        let excepted = self.exceptions.of(kind).contains_key(name);
        if excepted {
            self.used.insert((kind, name.to_owned()));
        }
        excepted
    }

    fn problems(mut self) -> Vec<String> {
        for kind in Exceptions::KINDS {
            for (name, reason) in self.exceptions.of(kind) {
                if reason.trim().is_empty() {
                    let problem = format!("xtask/tidy.toml: {kind} of {name} has no reason");
                    self.problems.push(problem);
                }
                if !self.used.contains(&(*kind, name.clone())) {
                    let problem = format!("xtask/tidy.toml: {name} needs no {kind} any more");
                    self.problems.push(problem);
                }
            }
        }
        self.problems
    }
}

impl Exceptions {
    const KINDS: &[&'static str] = &["long", "sleep", "home"];

    fn of(&self, kind: &str) -> &BTreeMap<String, String> {
        match kind {
            "long" => &self.long,
            "sleep" => &self.sleep,
            _ => &self.home,
        }
    }
}

/// Lines in which the test code of a file sleeps. Guests are programs: they may.
fn sleeps(name: &str, text: &str) -> Vec<usize> {
    if !(name.starts_with("crates/") || name.starts_with("xtask/")) {
        return Vec::new();
    }
    let only_tests = name.contains("/tests/") || name.starts_with("crates/testkit/");
    let tests_from = match only_tests {
        true => 0,
        false => text
            .lines()
            .position(|line| line.trim() == "#[cfg(test)]")
            .unwrap_or(usize::MAX),
    };
    code(text)
        .filter(|(at, line)| {
            *at > tests_from
                && (holds_word(line, "sleep(")
                    || holds_word(line, "sleep_until(")
                    || holds_word(line, "sleep_ms("))
        })
        .map(|(at, _)| at)
        .collect()
}

/// Lines that are no comments, each with its number.
fn code(text: &str) -> impl Iterator<Item = (usize, &str)> {
    let numbered = text.lines().enumerate().map(|(at, line)| (at + 1, line));
    numbered.filter(|(_, line)| !line.trim_start().starts_with("//"))
}

/// Whether the line has the word, and not only as a part of a longer one.
fn holds_word(line: &str, word: &str) -> bool {
    let part = |c: char| c.is_alphanumeric() || c == '_';
    line.match_indices(word).any(|(at, _)| {
        let before = line[..at].chars().next_back();
        let after = line[at + word.len()..].chars().next();
        // An end that is no letter, as in `sleep(`, is an end by itself.
        let whole = |c: Option<char>| c.is_some_and(part) && word.ends_with(part);
        !before.is_some_and(part) && !whole(after)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn look(name: &str, text: &str) -> Vec<String> {
        let mut findings = Findings::new(Exceptions::default());
        findings.look(name, text);
        findings.problems()
    }

    #[test]
    fn the_project_is_tidy() -> Result<()> {
        check(&crate::root()?)
    }

    #[test]
    fn a_source_opens_with_its_purpose_and_stays_short() {
        let long = "x\n".repeat(MAX_LINES + 1);
        assert_eq!(look("a/mod.rs", &long).len(), 3);
        assert!(look("a.rs", "//! Fine.\n").is_empty());
        assert!(look("a.md", &long).is_empty());
    }

    #[test]
    fn work_that_was_put_off_is_found() {
        for word in LATER {
            let found = look("a.toml", &format!("\n# {word}: later\n"));
            assert_eq!(found, ["a.toml: puts work off in line 2"]);
            assert!(look("a.sh", &format!("mktemp x.{word}{word}")).is_empty());
        }
        for word in UNDONE {
            assert_eq!(look("a.rs", &format!("//! A.\n{word}!();\n")).len(), 1);
            assert!(look("a.rs", &format!("//! A.\nmy_{word}!();\n")).is_empty());
        }
    }

    #[test]
    fn a_sleep_is_found_in_tests_only() {
        let test = "//! A.\n#[cfg(test)]\nmod tests {\n    fn a() { thread::sleep(x); }\n}\n";
        let found = "sleeps in a test in line 4; wait for the event itself";
        assert_eq!(
            look("crates/a/src/b.rs", test),
            [format!("crates/a/src/b.rs: {found}")]
        );
        let source = "//! A.\nfn a() { sleep(x); }\n";
        assert!(look("crates/a/src/b.rs", source).is_empty());
        assert!(look("guests/a/src/tests/b.rs", source).is_empty());
        assert_eq!(look("crates/a/tests/it/b.rs", source).len(), 1);
        assert_eq!(look("crates/testkit/src/lib.rs", source).len(), 1);
        let harmless = "//! A.\n// sleep( is forbidden\nfn go_to_sleep() { oversleep(1); }\n";
        assert!(look("crates/a/tests/it/b.rs", harmless).is_empty());
    }

    #[test]
    fn a_home_directory_is_found() {
        for home in HOMES {
            let found = look("docs/a.md", &format!("see {home}ann/b\n"));
            assert_eq!(found, ["docs/a.md: names a home directory in line 1"]);
            assert!(look("docs/a.md", &format!("see docs{home}b\n")).is_empty());
        }
    }

    #[test]
    fn an_exception_has_a_reason_and_is_needed() {
        let exceptions = |reason: &str| Exceptions {
            long: BTreeMap::from([("a.rs".to_owned(), reason.to_owned())]),
            ..Exceptions::default()
        };
        let long = format!("//! A.\n{}", "x\n".repeat(MAX_LINES));
        let mut needed = Findings::new(exceptions("one table"));
        needed.look("a.rs", &long);
        assert!(needed.problems().is_empty());
        let mut bare = Findings::new(exceptions(" "));
        bare.look("a.rs", &long);
        assert_eq!(
            bare.problems(),
            ["xtask/tidy.toml: long of a.rs has no reason"]
        );
        let stale = Findings::new(exceptions("one table"));
        assert_eq!(
            stale.problems(),
            ["xtask/tidy.toml: a.rs needs no long any more"]
        );
    }
}

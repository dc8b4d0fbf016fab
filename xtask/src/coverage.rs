//! Checks that `docs/coverage.md` has every row that was delivered, and that every test named there exists.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use anyhow::Result;

use crate::{files, read, verdict};

/// What the first delivery promised: a row that vanished is not delivered any more, which nobody decides by
/// deleting a line.
const DELIVERED: &[&str] = &[
    "E1", "E2", "E5", "E6", "E7", "K4", "K9", "K12", "K20", "K45", "K46", "P1", "P2", "P4", "P5",
    "P6", "P8", "P10", "P15", "P16", "P17", "P18", "P19", "P20", "P21", "P22", "P23", "P24", "P26",
    "P29", "P37", "P38", "P39", "P40", "P42", "P43", "P44", "P45", "P46", "R1", "R2", "R3", "R5",
    "R6", "R8", "R9", "R10", "R11", "R12", "R27", "R29", "R30", "R31", "R35", "R36", "R37", "R38",
    "R39", "R40", "R41", "R42", "R46", "R48", "R55", "R56", "R57", "R58", "R63",
];

pub fn check(root: &Path) -> Result<()> {
    let mut tests = BTreeSet::new();
    for dir in ["crates", "xtask"] {
        for path in files(&root.join(dir), &["rs"])? {
            tests.extend(tests_in(&read(&path)?));
        }
    }
    verdict(
        "docs/coverage.md",
        &problems(&read(&root.join("docs/coverage.md"))?, &tests, DELIVERED),
    )
}

/// Rows are `| id | what | tests |`, each test in backquotes.
fn problems(page: &str, tests: &BTreeSet<String>, delivered: &[&str]) -> Vec<String> {
    let mut problems = Vec::new();
    let mut seen = BTreeSet::new();
    let mut last = BTreeMap::new();
    for line in page.lines().filter(|line| line.starts_with('|')).skip(2) {
        let cells: Vec<&str> = line.trim_matches('|').split('|').map(str::trim).collect();
        let [id, _, named] = cells[..] else {
            problems.push(format!("not three cells: {line}"));
            continue;
        };
        if !seen.insert(id.to_owned()) {
            problems.push(format!("{id} has two rows"));
        }
        match place(id) {
            Some((letter, number)) => {
                if let Some(before) = last.insert(letter, number).filter(|last| *last > number) {
                    problems.push(format!("{id} comes after {letter}{before}"));
                }
            }
            None => problems.push(format!("{id} is not a letter and a number")),
        }
        let mut count = 0;
        for test in named.split('`').skip(1).step_by(2) {
            count += 1;
            if !tests.contains(test) {
                problems.push(format!("{id}: there is no test {test}"));
            }
        }
        if count == 0 {
            problems.push(format!("{id} names no test"));
        }
    }
    let gone = delivered.iter().filter(|id| !seen.contains(**id));
    problems.extend(gone.map(|id| format!("{id} was delivered, and has no row")));
    problems
}

/// Rows of one letter are sorted by their numbers, so that a missing one is seen.
fn place(id: &str) -> Option<(char, u32)> {
    let letter = id.chars().next().filter(char::is_ascii_uppercase)?;
    Some((letter, id[1..].parse().ok()?))
}

/// Functions whose attribute ends in `test]`, such as `#[tokio::test]`.
fn tests_in(source: &str) -> Vec<String> {
    let mut found = Vec::new();
    let mut marked = false;
    for line in source.lines().map(str::trim) {
        if line.starts_with("#[") {
            marked |= line.contains("test]") || line.contains("test(");
        } else if marked {
            let name = line
                .split_once("fn ")
                .and_then(|(_, rest)| rest.split_once('('));
            if let Some((name, _)) = name {
                found.push(name.to_owned());
                marked = false;
            }
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_named_test_exists() -> Result<()> {
        check(&crate::root()?)
    }

    #[test]
    fn a_missing_test_is_found() {
        let tests = BTreeSet::from_iter(tests_in("#[test]\nfn here() {}\nfn helper() {}\n"));
        let page = page(&["A1 | x | `here`", "B1 | y | `gone`", "C1 | z | none"]);
        assert_eq!(
            problems(&page, &tests, &[]),
            ["B1: there is no test gone", "C1 names no test"]
        );
        let helper = self::page(&["D1 | z | `helper`"]);
        assert_eq!(
            problems(&helper, &tests, &[]),
            ["D1: there is no test helper"]
        );
    }

    #[test]
    fn rows_are_sorted_within_their_letter_and_each_is_there_once() {
        let tests = BTreeSet::from(["here".to_owned()]);
        let rows = |ids: &[&str]| {
            let rows: Vec<String> = ids.iter().map(|id| format!("{id} | x | `here`")).collect();
            problems(&page(&rows), &tests, &[])
        };
        assert!(rows(&["P2", "A9", "P10", "A10"]).is_empty());
        assert_eq!(rows(&["A10", "B1", "A9"]), ["A9 comes after A10"]);
        assert_eq!(rows(&["A1", "A1"]), ["A1 has two rows"]);
        assert_eq!(rows(&["first"]), ["first is not a letter and a number"]);
    }

    #[test]
    fn a_row_that_was_delivered_stays() {
        let tests = BTreeSet::from(["here".to_owned()]);
        let page = page(&["A1 | x | `here`"]);
        assert!(problems(&page, &tests, &["A1"]).is_empty());
        assert_eq!(
            problems(&page, &tests, &["A1", "A2"]),
            ["A2 was delivered, and has no row"]
        );
    }

    fn page(rows: &[impl AsRef<str>]) -> String {
        let rows = rows.iter().map(|row| format!("| {} |\n", row.as_ref()));
        format!(
            "| id | what | tests |\n| - | - | - |\n{}",
            rows.collect::<String>()
        )
    }
}

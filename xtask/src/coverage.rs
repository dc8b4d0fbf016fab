//! Checks that every test named in `docs/coverage.md` exists.

use std::collections::BTreeSet;
use std::path::Path;

use anyhow::Result;

use crate::{files, read, verdict};

pub fn check(root: &Path) -> Result<()> {
    let mut tests = BTreeSet::new();
    for dir in ["crates", "xtask"] {
        for path in files(&root.join(dir), &["rs"])? {
            tests.extend(tests_in(&read(&path)?));
        }
    }
    verdict(
        "docs/coverage.md",
        &problems(&read(&root.join("docs/coverage.md"))?, &tests),
    )
}

/// Rows are `| id | what | tests |`, each test in backquotes.
fn problems(page: &str, tests: &BTreeSet<String>) -> Vec<String> {
    let mut problems = Vec::new();
    let mut seen = BTreeSet::new();
    for line in page.lines().filter(|line| line.starts_with('|')).skip(2) {
        let cells: Vec<&str> = line.trim_matches('|').split('|').map(str::trim).collect();
        let [id, _, named] = cells[..] else {
            problems.push(format!("not three cells: {line}"));
            continue;
        };
        if !seen.insert(id.to_owned()) {
            problems.push(format!("{id} has two rows"));
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
    problems
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
        let page = "| id | what | tests |\n| - | - | - |\n| A | x | `here` |\n| B | y | `gone` |\n\
                    | C | z | none |\n| D | z | `helper` |\n";
        assert_eq!(problems(page, &tests).len(), 3);
    }
}

//! Habits that no other tool checks.

use std::path::Path;

use anyhow::Result;

use crate::{files, read, verdict};

/// A longer file usually holds a second idea.
const MAX_LINES: usize = 700;

pub fn check(root: &Path) -> Result<()> {
    let mut problems = Vec::new();
    for dir in ["crates", "xtask", "guests", "examples"] {
        let dir = root.join(dir);
        if !dir.exists() {
            continue;
        }
        for path in files(&dir, &["rs"])? {
            let text = read(&path)?;
            let name = path.strip_prefix(root)?.to_string_lossy().into_owned();
            problems.extend(
                of_source(&name, &text)
                    .into_iter()
                    .map(|what| format!("{name}: {what}")),
            );
        }
    }
    verdict("untidy", &problems)
}

fn of_source(name: &str, text: &str) -> Vec<String> {
    let mut problems = Vec::new();
    if text.contains("@generated") && name.ends_with("_capnp.rs") {
        return problems;
    }
    if !text.starts_with("//!") {
        problems.push("opens without a `//!` line".to_owned());
    }
    if name.ends_with("/mod.rs") {
        problems.push("is a mod.rs; put it beside its folder".to_owned());
    }
    let lines = text.lines().count();
    if lines > MAX_LINES {
        problems.push(format!("has {lines} lines, more than {MAX_LINES}"));
    }
    for macro_name in ["todo", "unimplemented", "dbg"] {
        if text.contains(&format!("{macro_name}!(")) {
            problems.push(format!("has a {macro_name}"));
        }
    }
    let channel = format!("unbounded_{}(", "channel");
    if text.contains(&channel) {
        problems.push("has a channel without a bound".to_owned());
    }
    problems
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_project_is_tidy() -> Result<()> {
        check(&crate::root()?)
    }

    #[test]
    fn untidiness_is_found() {
        let long = "x\n".repeat(MAX_LINES + 1);
        assert_eq!(of_source("a/mod.rs", &long).len(), 3);
        assert_eq!(of_source("a.rs", "//! Fine.\n").len(), 0);
    }
}

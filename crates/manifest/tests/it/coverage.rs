//! A new signed message without a test of all its fields fails here.

use std::{collections::BTreeMap, fs, path::Path};

use crate::messages::COVERED;

const PAGE: &str = include_str!("../../../../docs/protocols/intents.md");

/// Crates whose messages `messages::every_message` goes through.
const OURS: [&str; 2] = ["identity", "manifest"];

#[test]
fn every_message_is_covered_and_has_a_domain_of_its_own() {
    let crates = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap();
    let mut domains = BTreeMap::new();
    for entry in fs::read_dir(crates).unwrap() {
        let root = entry.unwrap().path();
        let name = root.file_name().unwrap().to_string_lossy().into_owned();
        let mut found = Vec::new();
        collect(&root.join("src"), &mut found);
        for domain in found {
            if OURS.contains(&name.as_str()) {
                assert!(
                    COVERED.contains(&domain.as_str()),
                    "{name}: {domain:?} is not covered"
                );
            }
            if let Some(other) = domains.insert(domain.clone(), name.clone()) {
                panic!("{name} and {other} both sign as {domain:?}");
            }
        }
    }
    for domain in domains.keys() {
        let listed = PAGE.contains(&format!("| `{domain}` |"));
        assert!(
            listed,
            "docs/protocols/intents.md does not list the domain {domain:?}"
        );
    }
    for domain in COVERED {
        assert!(
            domains.contains_key(domain),
            "{domain:?} is covered, and nothing signs it"
        );
    }
}

/// Domains of `message!(Type, "domain", …)` and of `const DOMAIN: &'static str = "domain"`.
fn collect(dir: &Path, found: &mut Vec<String>) {
    let Ok(entries) = fs::read_dir(dir) else {
        return;
    };
    for path in entries.map(|entry| entry.unwrap().path()) {
        if path.is_dir() {
            collect(&path, found);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            let text = fs::read_to_string(&path).unwrap();
            let code = text
                .lines()
                .filter(|line| !line.trim_start().starts_with("//"));
            let code = code.collect::<Vec<_>>().join("\n");
            for marker in ["message!(", "const DOMAIN: &'static str ="] {
                found.extend(code.split(marker).skip(1).filter_map(quoted));
            }
        }
    }
}

/// The first string before the statement ends.
fn quoted(text: &str) -> Option<String> {
    let statement = text.split(';').next()?;
    statement.split('"').nth(1).map(str::to_owned)
}

//! Compares the edges between crates with `docs/layers.toml`.

use std::collections::BTreeMap;
use std::path::Path;

use anyhow::{Context as _, Result};
use serde::Deserialize;

use crate::{files, read, verdict};

#[derive(Debug, Deserialize)]
struct Layers {
    imports: BTreeMap<String, Vec<String>>,
    pure: Pure,
    only: BTreeMap<String, Vec<String>>,
}

#[derive(Debug, Deserialize)]
struct Pure {
    crates: Vec<String>,
    never: Vec<String>,
}

pub fn check(root: &Path) -> Result<()> {
    let layers: Layers = toml::from_str(&read(&root.join("docs/layers.toml"))?)
        .context("docs/layers.toml is not a table of layers")?;
    let mut problems = Vec::new();
    for path in files(&root.join("crates"), &["toml"])? {
        if path.file_name().is_none_or(|name| name != "Cargo.toml") {
            continue;
        }
        let folder = path
            .parent()
            .and_then(Path::file_name)
            .context("a crate has a folder")?;
        let manifest = read(&path)?;
        problems.extend(layers.problems(&folder.to_string_lossy(), &manifest)?);
    }
    verdict(
        "crates name what docs/layers.toml does not allow",
        &problems,
    )
}

impl Layers {
    /// Development dependencies are free: tests may reach for more.
    fn problems(&self, folder: &str, manifest: &str) -> Result<Vec<String>> {
        let manifest: toml::Table = toml::from_str(manifest)?;
        let Some(allowed) = self.imports.get(folder) else {
            return Ok(vec![format!("{folder} is not in the table")]);
        };
        let mut problems = Vec::new();
        for name in dependencies(&manifest) {
            // The package of the command line has the name of its program.
            let crate_name = match name.as_str() {
                "realm" => Some("cli"),
                name => name.strip_prefix("realm-"),
            };
            if let Some(crate_name) = crate_name
                && !allowed.iter().any(|it| it == crate_name)
            {
                problems.push(format!("{folder} imports {crate_name}"));
            }
            if self
                .only
                .get(&name)
                .is_some_and(|owners| !owners.iter().any(|it| it == folder))
            {
                problems.push(format!(
                    "{folder} names {name}, which has a crate of its own"
                ));
            }
            let pure = self.pure.crates.iter().any(|it| it == folder);
            if pure && self.pure.never.contains(&name) {
                problems.push(format!("{folder} is pure and names {name}"));
            }
        }
        Ok(problems)
    }
}

fn dependencies(manifest: &toml::Table) -> Vec<String> {
    let mut tables = vec![manifest];
    if let Some(targets) = manifest.get("target").and_then(toml::Value::as_table) {
        tables.extend(targets.values().filter_map(toml::Value::as_table));
    }
    let mut names = Vec::new();
    for table in tables {
        for kind in ["dependencies", "build-dependencies"] {
            if let Some(found) = table.get(kind).and_then(toml::Value::as_table) {
                names.extend(found.keys().cloned());
            }
        }
    }
    names
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn crates_name_only_what_the_table_allows() -> Result<()> {
        check(&crate::root()?)
    }

    #[test]
    fn a_forbidden_edge_is_found() -> Result<()> {
        let layers: Layers = toml::from_str(&read(&crate::root()?.join("docs/layers.toml"))?)?;
        let found = layers.problems(
            "planner",
            "[dependencies]\nrealm-p2p.workspace = true\ntokio = \"1\"\nwasmtime = \"48\"\n",
        )?;
        assert_eq!(found.len(), 4, "{found:?}");
        Ok(())
    }
}

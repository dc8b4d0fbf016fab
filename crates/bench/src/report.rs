//! What a benchmark found, as it is kept beside the page.

use std::{
    fs,
    path::{Path, PathBuf},
};

use anyhow::{Context as _, Result};
use serde::{Deserialize, Serialize};

use crate::{figure::Figure, machine::Machine};

/// What a benchmark answers with.
#[derive(Debug, Default)]
pub struct Measured {
    pub figures: Vec<Figure>,
    /// What a reader has to know to make sense of the figures.
    pub notes: Vec<String>,
    /// Programs of others that took part, whose versions are kept.
    pub peers: Vec<(String, PathBuf)>,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Report {
    pub benchmark: String,
    pub title: String,
    pub machine: Machine,
    /// Of the peers, with their names.
    pub versions: Vec<String>,
    pub figures: Vec<Figure>,
    pub notes: Vec<String>,
}

impl Report {
    pub fn path(dir: &Path, benchmark: &str) -> PathBuf {
        dir.join(format!("{benchmark}.json"))
    }

    pub fn save(&self, dir: &Path) -> Result<()> {
        fs::create_dir_all(dir)?;
        let path = Self::path(dir, &self.benchmark);
        let text = serde_json::to_string_pretty(self)? + "\n";
        fs::write(&path, text).with_context(|| path.display().to_string())
    }

    /// None where this was never measured.
    pub fn load(dir: &Path, benchmark: &str) -> Result<Option<Self>> {
        let path = Self::path(dir, benchmark);
        let text = match fs::read(&path) {
            Ok(text) => text,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(error).context(path.display().to_string()),
        };
        serde_json::from_slice(&text)
            .with_context(|| format!("{} is of another version: remove it", path.display()))
    }
}

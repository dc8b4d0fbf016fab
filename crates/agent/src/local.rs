//! A program of this node alone: started with the agent, known to no log, stopped with the agent.

use std::{fs::File, path::PathBuf};

use realm_identity::Artifact;
use realm_manifest::{ComponentName, ComponentSpec, Limits};
use realm_store::{BlobError, Blobs};

/// Largest program taken from a file.
const MAX_BYTES: u64 = 256 * 1024 * 1024;
/// So much of the file's name is kept: with the prefix it stays within what names may hold.
const MAX_STEM: usize = 48;

/// What the agent is told to run beside what the realm asks for. It gets no grants.
#[derive(Debug, Clone)]
pub struct Local {
    pub file: PathBuf,
    pub limits: Limits,
}

#[derive(Debug, thiserror::Error)]
pub enum LocalError {
    #[error("cannot read {path}")]
    Read {
        path: PathBuf,
        source: std::io::Error,
    },
    #[error("cannot keep {path}")]
    Keep { path: PathBuf, source: BlobError },
    #[error("cannot run {path} like this: {why}")]
    Spec { path: PathBuf, why: String },
}

/// The program as the supervisor takes it.
#[derive(Debug)]
pub(crate) struct Ready {
    pub name: ComponentName,
    pub spec: ComponentSpec,
}

impl Local {
    /// Keeps the file's bytes under their digest, as if they had been pulled.
    pub(crate) fn take_in(self, blobs: &Blobs) -> Result<Ready, LocalError> {
        let path = self.file;
        let file = File::open(&path).map_err(|source| LocalError::Read {
            path: path.clone(),
            source,
        })?;
        let artifact: Artifact =
            blobs
                .import(file, MAX_BYTES)
                .map_err(|source| LocalError::Keep {
                    path: path.clone(),
                    source,
                })?;
        let mut spec = ComponentSpec::new(artifact);
        spec.limits = self.limits;
        spec.source = Some(path.display().to_string());
        spec.validate().map_err(|problems| LocalError::Spec {
            path: path.clone(),
            why: problems.to_string(),
        })?;
        let stem = path.file_stem().unwrap_or_default().to_string_lossy();
        Ok(Ready {
            name: name(&stem),
            spec,
        })
    }
}

/// `local-` and the file's name, in the letters that names have.
fn name(stem: &str) -> ComponentName {
    let letters: String = stem
        .to_lowercase()
        .chars()
        .map(|letter| match letter {
            'a'..='z' | '0'..='9' => letter,
            _ => '-',
        })
        .take(MAX_STEM)
        .collect();
    let name = format!("local-{}", letters.trim_matches('-'));
    name.trim_end_matches('-')
        .parse()
        .expect("only letters that names have are left")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn any_file_name_becomes_a_component_name() {
        for (stem, expected) in [
            ("hello", "local-hello"),
            ("Exit_Code.p1", "local-exit-code-p1"),
            ("--", "local"),
            ("", "local"),
            ("ÄÖ", "local"),
        ] {
            assert_eq!(name(stem).as_str(), expected);
        }
        assert!(name(&"x".repeat(300)).as_str().len() <= 63);
    }
}

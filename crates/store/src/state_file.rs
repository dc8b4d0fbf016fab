//! Small files that are whole or refused: a checksum tells damage from absence.

use std::{
    fs::{self, File, OpenOptions},
    io::{self, Read as _, Write as _},
    os::unix::fs::OpenOptionsExt as _,
    path::{Path, PathBuf},
};

use realm_manifest::identity::Hash;

use crate::dir::{NOFOLLOW, sync_dir, temporary};

/// Nothing kept this way is larger.
const MAX_BYTES: u64 = 256 * 1024;

/// One file: its content, then the SHA-256 of the content.
#[derive(Debug, Clone)]
pub struct StateFile {
    path: PathBuf,
}

#[derive(Debug, thiserror::Error)]
pub enum StateFileError {
    #[error("cannot read {path}")]
    Read { path: PathBuf, source: io::Error },
    #[error("cannot write {path}")]
    Write { path: PathBuf, source: io::Error },
    #[error("{path} is damaged: {advice}")]
    Damaged { path: PathBuf, advice: &'static str },
}

/// What helps where a file of this name is damaged.
fn advice(name: &str) -> &'static str {
    match name {
        "node.key" => {
            "put it back from a backup of this node; without one, move the whole directory aside, enroll this machine as a new node, and revoke the old one"
        }
        "owner.pin" => {
            "put it back from a backup of this node, or let the node join anew: realm leave, then realm enroll"
        }
        "claim" => {
            "it is needed until the node is approved: move it aside, and enroll the node again with the same invite if it is not approved yet"
        }
        _ => "put it back from a backup of this node, or move it aside",
    }
}

impl StateFile {
    pub fn new(path: PathBuf) -> Self {
        Self { path }
    }

    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The content; None where there is no file. A file that was changed is refused.
    pub fn read(&self) -> Result<Option<Vec<u8>>, StateFileError> {
        let read_error = |source| StateFileError::Read {
            path: self.path.clone(),
            source,
        };
        let opened = OpenOptions::new()
            .read(true)
            .custom_flags(NOFOLLOW)
            .open(&self.path);
        let file = match opened {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(read_error(error)),
        };
        let mut bytes = Vec::new();
        file.take(MAX_BYTES + 1)
            .read_to_end(&mut bytes)
            .map_err(read_error)?;
        let damaged = || self.damaged();
        if bytes.len() as u64 > MAX_BYTES {
            return Err(damaged());
        }
        let split = bytes.len().checked_sub(32).ok_or_else(damaged)?;
        let checksum = bytes.split_off(split);
        if Hash::of(&bytes).as_bytes()[..] == checksum[..] {
            Ok(Some(bytes))
        } else {
            Err(damaged())
        }
    }

    /// The error of a file that is not what it should be: for content that cannot be read either.
    pub fn damaged(&self) -> StateFileError {
        let name = self.path.file_name().and_then(|name| name.to_str());
        StateFileError::Damaged {
            path: self.path.clone(),
            advice: advice(name.unwrap_or_default()),
        }
    }

    /// The content of a file that the node can do without, as `parse` reads it: damage counts as
    /// absence, and the log says what is lost with it.
    pub fn read_or_lose<T>(
        &self,
        loss: &str,
        parse: impl FnOnce(Vec<u8>) -> Option<T>,
    ) -> Result<Option<T>, StateFileError> {
        let parsed = match self.read() {
            Ok(None) => return Ok(None),
            Ok(Some(bytes)) => parse(bytes),
            Err(StateFileError::Damaged { .. }) => None,
            Err(error) => return Err(error),
        };
        if parsed.is_none() {
            tracing::warn!(path = %self.path.display(), "a damaged file counts as none: {loss}");
        }
        Ok(parsed)
    }

    /// Replaces the content in one durable step.
    pub fn write(&self, content: &[u8]) -> Result<(), StateFileError> {
        let write = || {
            let temporary = temporary(&self.path);
            // What a crash left may have another mode.
            match fs::remove_file(&temporary) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
                _ => {}
            }
            let mut file: File = OpenOptions::new()
                .write(true)
                .create_new(true)
                .mode(0o600)
                .custom_flags(NOFOLLOW)
                .open(&temporary)?;
            file.write_all(content)?;
            file.write_all(Hash::of(content).as_bytes())?;
            file.sync_all()?;
            fs::rename(&temporary, &self.path)?;
            sync_dir(self.path.parent().unwrap_or(Path::new(".")))
        };
        write().map_err(|source| StateFileError::Write {
            path: self.path.clone(),
            source,
        })
    }
}

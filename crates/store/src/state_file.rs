//! Small files that are whole or refused: a checksum tells damage from absence.

use std::{
    fs::{self, OpenOptions},
    io::{self, Read as _, Write as _},
    path::{Path, PathBuf},
};

use realm_manifest::identity::Hash;

use crate::{
    dir::{sync_dir, temporary},
    own,
};

/// Nothing kept this way is larger, unless its owner says so.
const MAX_BYTES: u64 = 256 * 1024;
/// A SHA-256 at the end.
const CHECKSUM_BYTES: usize = 32;
/// What the name of a damaged file that was put aside ends with.
pub const ASIDE: &str = ".damaged";

/// One file: its content, then the SHA-256 of the content.
#[derive(Debug, Clone)]
pub struct StateFile {
    path: PathBuf,
    /// Bytes of content and checksum.
    max: u64,
}

/// What a file held that the node can do without.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Kept<T> {
    /// There is no file.
    Nothing,
    Whole(T),
    /// It was damaged, and is kept here for who wants to look.
    Lost(PathBuf),
}

impl<T> Kept<T> {
    /// What is known; damage counts as absence.
    pub fn known(self) -> Option<T> {
        match self {
            Self::Whole(content) => Some(content),
            Self::Nothing | Self::Lost(_) => None,
        }
    }
}

#[derive(Debug, thiserror::Error)]
pub enum StateFileError {
    #[error("cannot read {path}")]
    Read { path: PathBuf, source: io::Error },
    #[error("cannot write {path}")]
    Write { path: PathBuf, source: io::Error },
    #[error("{path} holds at most {max} bytes, and cannot hold {size}")]
    TooLarge { path: PathBuf, max: u64, size: u64 },
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
        Self {
            path,
            max: MAX_BYTES,
        }
    }

    /// Holds up to so many bytes.
    #[must_use]
    pub fn holding(self, max: usize) -> Self {
        let max = u64::try_from(max).unwrap_or(u64::MAX);
        Self { max, ..self }
    }

    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The content; None where there is no file. A file that was changed is refused.
    pub fn read(&self) -> Result<Option<Vec<u8>>, StateFileError> {
        let read_error = |source| StateFileError::Read {
            path: self.path.clone(),
            source: own::not_a_file(source),
        };
        let opened = own::open(OpenOptions::new().read(true), &self.path);
        let file = match opened {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(read_error(error)),
        };
        let mut bytes = Vec::new();
        file.take(self.max.saturating_add(1))
            .read_to_end(&mut bytes)
            .map_err(read_error)?;
        let damaged = || self.damaged();
        if bytes.len() as u64 > self.max {
            return Err(damaged());
        }
        let split = bytes
            .len()
            .checked_sub(CHECKSUM_BYTES)
            .ok_or_else(damaged)?;
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

    /// The content of a file that the node can do without, as `parse` reads it. A damaged one is put
    /// aside, so that the next write does not end it, and the log says what is lost with it.
    pub fn read_or_lose<T>(
        &self,
        loss: &str,
        parse: impl FnOnce(Vec<u8>) -> Option<T>,
    ) -> Result<Kept<T>, StateFileError> {
        let parsed = match self.read() {
            Ok(None) => return Ok(Kept::Nothing),
            Ok(Some(bytes)) => parse(bytes),
            Err(StateFileError::Damaged { .. }) => None,
            Err(error) => return Err(error),
        };
        match parsed {
            Some(content) => Ok(Kept::Whole(content)),
            None => {
                let aside = self.put_aside()?;
                tracing::warn!(
                    path = %self.path.display(),
                    aside = %aside.display(),
                    "a damaged file is put aside and counts as none: {loss}"
                );
                Ok(Kept::Lost(aside))
            }
        }
    }

    /// Only the last one is kept.
    fn put_aside(&self) -> Result<PathBuf, StateFileError> {
        let mut name = self.path.clone().into_os_string();
        name.push(ASIDE);
        let aside = PathBuf::from(name);
        let moved = fs::rename(&self.path, &aside)
            .and_then(|()| sync_dir(self.path.parent().unwrap_or(Path::new("."))));
        match moved {
            Ok(()) => Ok(aside),
            Err(source) => Err(StateFileError::Write {
                path: aside,
                source,
            }),
        }
    }

    /// Replaces the content in one durable step.
    pub fn write(&self, content: &[u8]) -> Result<(), StateFileError> {
        let size = content.len() as u64 + CHECKSUM_BYTES as u64;
        if size > self.max {
            // What cannot be read again is not written.
            return Err(StateFileError::TooLarge {
                path: self.path.clone(),
                max: self.max,
                size,
            });
        }
        let write = || {
            let temporary = temporary(&self.path);
            let mut file = own::make(&temporary, 0o600)?;
            file.write_all(content)?;
            file.write_all(Hash::of(content).as_bytes())?;
            file.sync_all()?;
            fs::rename(&temporary, &self.path)?;
            sync_dir(self.path.parent().unwrap_or(Path::new(".")))
        };
        write().map_err(|source| StateFileError::Write {
            path: self.path.clone(),
            source: own::not_a_file(source),
        })
    }
}

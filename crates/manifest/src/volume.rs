//! Directories a cell may open.

use std::{fmt, str::FromStr};

use minicbor::{Decode, Encode};
use serde::{Deserialize, Serialize};

/// `SRC:GUEST[:ro|rw]`: a named volume, or a host directory under a prefix that the node's config lists.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode, Serialize, Deserialize)]
#[cbor(map)]
#[serde(deny_unknown_fields)]
pub struct Volume {
    #[n(0)]
    pub source: VolumeSource,
    /// Absolute path inside the cell.
    #[n(1)]
    pub guest: String,
    #[n(2)]
    pub mode: VolumeMode,
}

#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum VolumeSource {
    #[n(0)]
    Named(#[n(0)] String),
    #[n(1)]
    Host(#[n(0)] String),
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Encode, Decode, Serialize, Deserialize)]
#[cbor(index_only)]
#[serde(rename_all = "lowercase")]
pub enum VolumeMode {
    #[default]
    #[n(0)]
    Ro,
    #[n(1)]
    Rw,
}

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum VolumeError {
    #[error("{0:?} is not a volume: write SRC:GUEST, SRC:GUEST:ro or SRC:GUEST:rw")]
    Format(String),
    #[error(
        "{0:?} is not a name for a volume: use 1 to 63 of a-z, 0-9 and '-', or an absolute path"
    )]
    Source(String),
    #[error("{0:?} must be an absolute path without \"..\"")]
    GuestPath(String),
}

impl FromStr for Volume {
    type Err = VolumeError;

    fn from_str(text: &str) -> Result<Self, VolumeError> {
        let format = || VolumeError::Format(text.to_owned());
        let (source, rest) = text.split_once(':').ok_or_else(format)?;
        let (guest, mode) = match rest.split_once(':') {
            None => (rest, VolumeMode::default()),
            Some((guest, "ro")) => (guest, VolumeMode::Ro),
            Some((guest, "rw")) => (guest, VolumeMode::Rw),
            Some(_) => return Err(format()),
        };
        let guest = path(guest).ok_or_else(|| VolumeError::GuestPath(guest.to_owned()))?;
        Ok(Self {
            source: source.parse()?,
            guest,
            mode,
        })
    }
}

impl fmt::Display for Volume {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mode = match self.mode {
            VolumeMode::Ro => "ro",
            VolumeMode::Rw => "rw",
        };
        write!(f, "{}:{}:{mode}", self.source, self.guest)
    }
}

impl FromStr for VolumeSource {
    type Err = VolumeError;

    fn from_str(text: &str) -> Result<Self, VolumeError> {
        if crate::ComponentName::new(text).is_ok() {
            return Ok(Self::Named(text.to_owned()));
        }
        match path(text) {
            Some(path) => Ok(Self::Host(path)),
            None => Err(VolumeError::Source(text.to_owned())),
        }
    }
}

impl fmt::Display for VolumeSource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Named(name) => f.write_str(name),
            Self::Host(path) => f.write_str(path),
        }
    }
}

/// An absolute path with its empty and `.` parts taken out; None when it climbs, or is no path.
fn path(text: &str) -> Option<String> {
    let parts = text
        .strip_prefix('/')?
        .split('/')
        .filter(|part| !matches!(*part, "" | "."));
    let mut path = String::new();
    for part in parts {
        if part == ".." || part.contains(['\0', ':']) {
            return None;
        }
        path.push('/');
        path.push_str(part);
    }
    Some(if path.is_empty() {
        "/".to_owned()
    } else {
        path
    })
}

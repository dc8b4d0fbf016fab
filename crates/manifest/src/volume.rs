//! Directories a cell may open.

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
    #[error("{0:?} is not a name for a volume: use 1 to 63 of a-z, 0-9 and '-', or an absolute path")]
    Source(String),
    #[error("{0:?} must be an absolute path without \"..\"")]
    GuestPath(String),
}

//! What can go wrong with an artifact.

use std::{
    io,
    path::{Path, PathBuf},
};

use realm_manifest::{identity::Hash, units::size_text};

use crate::dir::is_full;

#[derive(Debug, thiserror::Error)]
pub enum BlobError {
    #[error("cannot use the artifact store at {path}")]
    Io { path: PathBuf, source: io::Error },
    #[error("the disk is full at {path}: free space on it, or lower artifact_mb, then try again")]
    DiskFull { path: PathBuf, source: io::Error },
    #[error("{} has {found} bytes, {expected} were signed", sha256.short())]
    Size {
        sha256: Hash,
        found: u64,
        expected: u64,
    },
    #[error("the bytes have digest {found}, {expected} was asked for")]
    Digest { found: Hash, expected: Hash },
    #[error("a range of {} does not verify: {reason}", sha256.short())]
    Range { sha256: Hash, reason: String },
    #[error("{} is not here", .0.short())]
    NotFound(Hash),
    #[error("{} is not complete yet", .0.short())]
    Incomplete(Hash),
    #[error(
        "{} is being pulled with another size or BLAKE3 root: one of the two descriptions is wrong; try again when that pull has ended",
        .0.short()
    )]
    OtherPull(Hash),
    #[error("{} is being uploaded by somebody else: wait for that, or for it to end", .0.short())]
    OtherUpload(Hash),
    #[error("bytes of {} came at {offset}, {expected} was next, or more came than were announced", sha256.short())]
    Order {
        sha256: Hash,
        offset: u64,
        expected: u64,
    },
    #[error("the pull of {} has ended: begin it anew", .0.short())]
    PullEnded(Hash),
    #[error(
        "{} do not fit: artifacts may take {} and {} are in use; remove components or raise artifact_mb",
        size_text(*size), size_text(*budget), size_text(*used)
    )]
    Budget { size: u64, used: u64, budget: u64 },
    /// In bytes. `reserve` of what is `free` is never taken by artifacts.
    #[error(
        "{} do not fit in the {} that are free on its disk, of which {} stay free for the log",
        size_text(*size), size_text(*free), size_text(*reserve)
    )]
    NoRoom { size: u64, free: u64, reserve: u64 },
    #[error("more than {max} bytes: the file is too large")]
    TooLarge { max: u64 },
    #[error("the description of {} is damaged", .0.short())]
    Meta(Hash),
}

impl BlobError {
    /// Something failed at `path`; a full disk is told apart.
    pub(super) fn at(path: &Path) -> impl Fn(io::Error) -> Self + use<> {
        let path = path.to_owned();
        move |source| {
            let path = path.clone();
            if is_full(&source) {
                Self::DiskFull { path, source }
            } else {
                Self::Io { path, source }
            }
        }
    }
}

//! The files that an artifact consists of, and how they are read, made and removed.

use std::{
    fs::{self, File, OpenOptions},
    io::{self, Read as _, Write as _},
    os::unix::fs::{MetadataExt as _, OpenOptionsExt as _},
    path::{Path, PathBuf},
};

use realm_manifest::identity::{Artifact, Hash, canonical};
use sha2::{Digest as _, Sha256};

use super::BlobError;
use crate::own;

const META_MAX: u64 = 1024;
pub(super) const COPY_BYTES: usize = 64 * 1024;
/// What an artifact under way consists of.
const KINDS: [&str; 3] = ["data", "bao", "meta"];

/// Tells whether a file is still the one that was checked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Stamp {
    inode: u64,
    size: u64,
    modified: (i64, i64),
    changed: (i64, i64),
}

impl Stamp {
    pub fn of(metadata: &fs::Metadata) -> Self {
        Self {
            inode: metadata.ino(),
            size: metadata.size(),
            modified: (metadata.mtime(), metadata.mtime_nsec()),
            changed: (metadata.ctime(), metadata.ctime_nsec()),
        }
    }
}

/// `path` with one more extension.
pub(super) fn with(path: &Path, kind: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(".");
    name.push(kind);
    name.into()
}

pub(super) fn private_file(path: &Path) -> io::Result<File> {
    let mut options = OpenOptions::new();
    let options = options.read(true).write(true).create(true).truncate(false);
    own::open(options.mode(0o600), path)
}

/// The descriptor; None where there is no file.
pub(super) fn read_meta(path: &Path, sha256: &Hash) -> Result<Option<Artifact>, BlobError> {
    let file = match own::open(OpenOptions::new().read(true), path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(BlobError::at(path)(error)),
    };
    let mut bytes = Vec::new();
    file.take(META_MAX)
        .read_to_end(&mut bytes)
        .map_err(BlobError::at(path))?;
    match canonical::decode::<Artifact>(&bytes, META_MAX as usize) {
        Ok(artifact) if artifact.sha256 == *sha256 => Ok(Some(artifact)),
        _ => Err(BlobError::Meta(*sha256)),
    }
}

pub(super) fn write_meta(path: &Path, artifact: &Artifact) -> io::Result<()> {
    let mut file = private_file(path)?;
    file.set_len(0)?;
    file.write_all(&canonical::encode(artifact))?;
    file.sync_all()
}

/// Removes a file; one that is not there is no error.
pub(super) fn remove(path: &Path) -> io::Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

/// Bytes of the disk that a file takes: less than its length where it is sparse.
pub(super) fn allocated(metadata: &fs::Metadata) -> u64 {
    /// What `st_blocks` counts in.
    const UNIT_BYTES: u64 = 512;
    metadata.blocks().saturating_mul(UNIT_BYTES)
}

/// Removes an artifact under way.
pub(super) fn remove_partial(base: &Path) -> io::Result<()> {
    KINDS.iter().try_for_each(|kind| remove(&with(base, kind)))
}

/// SHA-256 and size.
pub(super) fn digest_of(path: &Path) -> io::Result<(Hash, u64)> {
    let mut file = own::open(OpenOptions::new().read(true), path)?;
    let (mut sha256, mut size) = (Sha256::new(), 0u64);
    let mut buffer = vec![0; COPY_BYTES];
    loop {
        let read = file.read(&mut buffer)?;
        if read == 0 {
            return Ok((Hash::from_bytes(sha256.finalize().into()), size));
        }
        size += read as u64;
        sha256.update(&buffer[..read]);
    }
}

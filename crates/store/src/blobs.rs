//! Artifacts by digest: pulled in verified pieces, checked as a whole, then kept.
//!
//! `blobs/<aa>/<sha256>` holds the bytes, `.bao` beside it the tree that proves every range,
//! `.meta` the descriptor. `partial/` holds the same three while bytes are missing. A file
//! moves to `blobs/` only after size, BLAKE3 and SHA-256 agree with its descriptor.

use std::{
    collections::HashMap,
    fs::{self, File, OpenOptions},
    io,
    ops::Range,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, MutexGuard, PoisonError, atomic::AtomicU64},
    time::{Instant, SystemTime},
};

use bao_tree::io::sync::encode_ranges_validated;
use realm_manifest::identity::{Artifact, Hash};

use crate::{
    dir::{create_synced, sync_dir},
    own,
    room::{DiskRoom, disk_room},
};
use files::{Stamp, digest_of, read_meta, remove, remove_partial, with, write_meta};
use room::{Desk, Pins};
use tree::{board, chunks};

mod ahead;
mod disk;
mod error;
mod files;
mod import;
mod mend;
mod partial;
mod room;
#[cfg(test)]
mod tests;
mod tree;
mod upload;
mod window;

pub use error::BlobError;
pub use partial::Partial;
pub use upload::Upload;

/// Most bytes encoded for one request.
pub(crate) const RANGE_MAX: u32 = 1024 * 1024;

/// The artifacts of one node. One per directory: what is under way is known in memory.
#[derive(Debug)]
pub struct Blobs {
    dir: PathBuf,
    /// Bytes that artifacts may take in all.
    budget: u64,
    /// Files whose digest was checked since the start, as they were then.
    checked: Mutex<HashMap<Hash, Stamp>>,
    /// Artifacts that are being mended, or could not be, each since when.
    mending: Mutex<HashMap<Hash, Instant>>,
    /// Shared with the pulls under way, which clean up after themselves.
    desk: Arc<Mutex<Desk>>,
    pins: Pins,
    /// What the file system has; None where it does not tell.
    measure: fn(&Path) -> Option<DiskRoom>,
    /// Tells imports apart.
    imports: AtomicU64,
}

impl Blobs {
    /// Opens or makes the store below `dir`; artifacts may take `budget` bytes. What earlier
    /// processes left unfinished for long goes.
    pub fn open(dir: &Path, budget: u64) -> Result<Self, BlobError> {
        Self::open_on(dir, budget, disk_room)
    }

    fn open_on(
        dir: &Path,
        budget: u64,
        measure: fn(&Path) -> Option<DiskRoom>,
    ) -> Result<Self, BlobError> {
        create_synced(dir).map_err(BlobError::at(dir))?;
        for dir in [dir.join("blobs"), dir.join("partial")] {
            own::private_dir(&dir).map_err(BlobError::at(&dir))?;
        }
        let desk = Desk::default();
        let blobs = Self {
            pins: desk.pins.clone(),
            dir: dir.into(),
            budget,
            checked: Mutex::default(),
            mending: Mutex::default(),
            desk: Arc::new(Mutex::new(desk)),
            measure,
            imports: AtomicU64::new(0),
        };
        blobs.tidy().map_err(BlobError::at(dir))?;
        Ok(blobs)
    }

    /// Whether the whole artifact is here.
    pub fn has(&self, artifact: &Artifact) -> bool {
        self.descriptor(&artifact.sha256).ok().flatten() == Some(*artifact)
    }

    /// The descriptor of a whole artifact; None where it is not here.
    pub fn descriptor(&self, sha256: &Hash) -> Result<Option<Artifact>, BlobError> {
        let path = self.path(sha256);
        if !path.exists() {
            return Ok(None);
        }
        read_meta(&with(&path, "meta"), sha256)
    }

    /// The file of a whole artifact, its digest checked since the start of this process and
    /// again whenever the file changed.
    pub fn open_path(&self, artifact: &Artifact) -> Result<PathBuf, BlobError> {
        // The stored descriptor decides, so that a wrong one asked for harms no good file.
        if self.descriptor(&artifact.sha256)? != Some(*artifact) {
            return Err(BlobError::NotFound(artifact.sha256));
        }
        let path = self.path(&artifact.sha256);
        let io_error = BlobError::at(&path);
        let metadata = match fs::symlink_metadata(&path) {
            Ok(metadata) => metadata,
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                return Err(BlobError::NotFound(artifact.sha256));
            }
            Err(error) => return Err(io_error(error)),
        };
        let stamp = Stamp::of(&metadata);
        if self.checked().get(&artifact.sha256) != Some(&stamp) {
            let (found, size) = digest_of(&path).map_err(&io_error)?;
            if found != artifact.sha256 || size != artifact.size {
                self.discard(&artifact.sha256).map_err(&io_error)?;
                return Err(BlobError::Digest {
                    found,
                    expected: artifact.sha256,
                });
            }
            self.checked().insert(artifact.sha256, stamp);
        }
        // Last use, for the garbage collector.
        let mut options = OpenOptions::new();
        if let Ok(meta) = own::open(options.append(true), &with(&path, "meta")) {
            meta.set_modified(SystemTime::now()).map_err(&io_error)?;
        }
        Ok(path)
    }

    /// A range, encoded so that the receiver can verify it; at most 1 MiB. None where it is not here.
    pub fn encode_range(
        &self,
        sha256: &Hash,
        offset: u64,
        len: u32,
    ) -> Result<Option<Vec<u8>>, BlobError> {
        let Some(artifact) = self.descriptor(sha256)? else {
            return Ok(None);
        };
        let range_error = |reason: String| BlobError::Range {
            sha256: *sha256,
            reason,
        };
        let end = offset
            .checked_add(u64::from(len))
            .filter(|end| *end <= artifact.size);
        let Some(end) = end.filter(|_| len <= RANGE_MAX) else {
            return Err(range_error(
                "it is not inside the artifact, or too long".into(),
            ));
        };
        let encoded = match self.encode(&artifact, offset..end) {
            Err(error) if self.begins_to_mend(&artifact, &error) => {
                tracing::debug!(%error, "a range could not be proven");
                self.mend(&artifact)?;
                self.encode(&artifact, offset..end)?
            }
            encoded => encoded?,
        };
        Ok(Some(encoded))
    }

    fn encode(&self, artifact: &Artifact, range: Range<u64>) -> Result<Vec<u8>, BlobError> {
        let path = self.path(&artifact.sha256);
        let io_error = BlobError::at(&path);
        let data = File::open(&path).map_err(&io_error)?;
        let tree = File::open(with(&path, "bao")).map_err(&io_error)?;
        let board = board(artifact, tree);
        let len = range.end.saturating_sub(range.start) as usize;
        let mut encoded = Vec::with_capacity(len + len / 64);
        encode_ranges_validated(&data, &board, &chunks(range), &mut encoded).map_err(|error| {
            BlobError::Range {
                sha256: artifact.sha256,
                reason: error.to_string(),
            }
        })?;
        Ok(encoded)
    }

    /// Moves what is whole at `from` to its place, after checking its size and SHA-256.
    fn promote(
        &self,
        from: &Path,
        artifact: &Artifact,
        data: &File,
        found: Hash,
    ) -> Result<PathBuf, BlobError> {
        let io_error = BlobError::at(from);
        let size = data.metadata().map_err(&io_error)?.len();
        if found != artifact.sha256 || size != artifact.size {
            remove_partial(from).map_err(&io_error)?;
            return Err(if size == artifact.size {
                BlobError::Digest {
                    found,
                    expected: artifact.sha256,
                }
            } else {
                BlobError::Size {
                    sha256: artifact.sha256,
                    found: size,
                    expected: artifact.size,
                }
            });
        }
        let to = self.path(&artifact.sha256);
        let parent = to.parent().unwrap_or(&self.dir);
        own::private_dir(parent).map_err(&io_error)?;
        write_meta(&with(&to, "meta"), artifact).map_err(&io_error)?;
        fs::rename(with(from, "bao"), with(&to, "bao")).map_err(&io_error)?;
        // Names of one directory may reach the disk in any order.
        sync_dir(parent).map_err(&io_error)?;
        // Last: the bytes under their name are what says that all of it is here.
        fs::rename(with(from, "data"), &to).map_err(&io_error)?;
        sync_dir(parent).map_err(&io_error)?;
        remove(&with(from, "meta")).map_err(&io_error)?;
        let stamp = Stamp::of(&data.metadata().map_err(&io_error)?);
        self.checked().insert(artifact.sha256, stamp);
        Ok(to)
    }

    fn path(&self, sha256: &Hash) -> PathBuf {
        let name = sha256.to_string();
        self.dir.join("blobs").join(&name[..2]).join(&name)
    }

    fn desk(&self) -> MutexGuard<'_, Desk> {
        room::locked(&self.desk)
    }

    fn checked(&self) -> MutexGuard<'_, HashMap<Hash, Stamp>> {
        // The map is whole between any two statements, also after a panic elsewhere.
        self.checked.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

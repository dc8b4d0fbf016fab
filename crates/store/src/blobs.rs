//! Artifacts by digest: pulled in verified pieces, checked as a whole, then kept.
//!
//! `blobs/<aa>/<sha256>` holds the bytes, `.bao` beside it the tree that proves every range,
//! `.meta` the descriptor. `partial/` holds the same three while bytes are missing. A file
//! moves to `blobs/` only after size, BLAKE3 and SHA-256 agree with its descriptor.

use std::{
    collections::{HashMap, HashSet},
    fs::{self, File, OpenOptions},
    io::{self, Read, Write as _},
    ops::Range,
    os::unix::fs::{MetadataExt as _, OpenOptionsExt as _},
    path::{Path, PathBuf},
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::SystemTime,
};

use bao_tree::{
    BaoTree, BlockSize, ByteRanges, ChunkRanges,
    io::{
        outboard::PreOrderOutboard,
        round_up_to_chunks, round_up_to_chunks_groups,
        sync::{decode_ranges, encode_ranges_validated, outboard, valid_ranges},
    },
};
use realm_manifest::identity::{Artifact, Hash, canonical};
use sha2::{Digest as _, Sha256};

use crate::dir::{NOFOLLOW, create_private, sync_dir};

/// 16 KiB groups: the proof costs 0.4 % of the bytes.
const BLOCK: BlockSize = BlockSize::from_chunk_log(4);
const GROUP_BYTES: u64 = 16 * 1024;
/// Most bytes encoded for one request.
pub(crate) const RANGE_MAX: u32 = 1024 * 1024;
const META_MAX: u64 = 1024;
const COPY_BYTES: usize = 256 * 1024;

/// The artifacts of one node.
#[derive(Debug)]
pub struct Blobs {
    dir: PathBuf,
    /// Bytes that artifacts may take in all.
    budget: u64,
    /// Files whose digest was checked since the start, as they were then.
    checked: Mutex<HashMap<Hash, Stamp>>,
    /// Tells imports of this process apart.
    imports: AtomicU64,
}

/// An artifact that is being pulled. Ranges may come in any order, from several sources.
#[derive(Debug)]
pub struct Partial {
    artifact: Artifact,
    data: File,
    tree: File,
    dir: PathBuf,
    /// Verified and written, by group.
    have: Vec<bool>,
}

#[derive(Debug, thiserror::Error)]
pub enum BlobError {
    #[error("cannot use the artifact store at {path}")]
    Io { path: PathBuf, source: io::Error },
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
        "{size} bytes do not fit: artifacts may take {budget} bytes and {used} are in use; remove components or raise artifact_mb"
    )]
    Budget { size: u64, used: u64, budget: u64 },
    #[error("more than {max} bytes: the file is too large")]
    TooLarge { max: u64 },
    #[error("the description of {} is damaged", .0.short())]
    Meta(Hash),
}

impl Blobs {
    /// Opens or makes the store below `dir`; artifacts may take `budget` bytes.
    pub fn open(dir: &Path, budget: u64) -> Result<Self, BlobError> {
        for dir in [dir.join("blobs"), dir.join("partial")] {
            create_private(&dir).map_err(|source| BlobError::Io {
                path: dir.clone(),
                source,
            })?;
        }
        Ok(Self {
            dir: dir.into(),
            budget,
            checked: Mutex::default(),
            imports: AtomicU64::new(0),
        })
    }

    /// Takes the bytes of `reader`, at most `max` of them.
    pub fn import(&self, mut reader: impl Read, max: u64) -> Result<Artifact, BlobError> {
        let path = self.dir.join("partial").join(format!(
            "import-{}-{}",
            std::process::id(),
            self.imports.fetch_add(1, Ordering::Relaxed)
        ));
        let io_error = |source| BlobError::Io {
            path: path.clone(),
            source,
        };
        let file = private_file(&path).map_err(io_error)?;
        // A crash may have left a file of this name.
        file.set_len(0).map_err(io_error)?;
        let copied = self.copy_in(&mut reader, &file, max);
        let result = copied.and_then(|artifact| self.adopt(&path, &file, artifact));
        if result.is_err() {
            // The first error is the one to report; the next import reuses the name.
            let _ = fs::remove_file(&path);
        }
        result
    }

    fn copy_in(
        &self,
        reader: &mut impl Read,
        mut file: &File,
        max: u64,
    ) -> Result<Artifact, BlobError> {
        let io_error = |source| BlobError::Io {
            path: self.dir.clone(),
            source,
        };
        let (mut sha256, mut blake3, mut size) = (Sha256::new(), blake3::Hasher::new(), 0u64);
        let mut buffer = vec![0; COPY_BYTES];
        loop {
            let read = reader.read(&mut buffer).map_err(io_error)?;
            if read == 0 {
                break;
            }
            size += read as u64;
            if size > max {
                return Err(BlobError::TooLarge { max });
            }
            sha256.update(&buffer[..read]);
            blake3.update(&buffer[..read]);
            file.write_all(&buffer[..read]).map_err(io_error)?;
        }
        file.sync_all().map_err(io_error)?;
        Ok(Artifact {
            sha256: Hash::from_bytes(sha256.finalize().into()),
            size,
            blake3: Hash::from_bytes(*blake3.finalize().as_bytes()),
        })
    }

    fn adopt(&self, path: &Path, file: &File, artifact: Artifact) -> Result<Artifact, BlobError> {
        let io_error = |source| BlobError::Io {
            path: path.into(),
            source,
        };
        if self.has(&artifact) {
            fs::remove_file(path).map_err(io_error)?;
            return Ok(artifact);
        }
        self.check_budget(artifact.size)?;
        let base = self.partial_path(&artifact.sha256);
        let mut tree = private_file(&with(&base, "bao")).map_err(io_error)?;
        let geometry = BaoTree::new(artifact.size, BLOCK);
        let board = PreOrderOutboard {
            root: root(&artifact),
            tree: geometry,
            data: &mut tree,
        };
        let data = File::open(path).map_err(io_error)?;
        outboard(io::BufReader::new(data), geometry, board).map_err(io_error)?;
        tree.sync_all().map_err(io_error)?;
        fs::rename(path, with(&base, "data")).map_err(io_error)?;
        self.promote(&artifact, file)?;
        Ok(artifact)
    }

    /// Starts or resumes pulling `artifact`. What is on disk already is checked again.
    pub fn begin(&self, artifact: Artifact) -> Result<Partial, BlobError> {
        let base = self.partial_path(&artifact.sha256);
        let io_error = |source| BlobError::Io {
            path: base.clone(),
            source,
        };
        let known = read_meta(&with(&base, "meta"), &artifact.sha256)
            .ok()
            .flatten();
        if known != Some(artifact) {
            self.check_budget(artifact.size)?;
            for kind in ["data", "bao", "meta"] {
                remove(&with(&base, kind)).map_err(io_error)?;
            }
        }
        let data = private_file(&with(&base, "data")).map_err(io_error)?;
        let tree = private_file(&with(&base, "bao")).map_err(io_error)?;
        let geometry = BaoTree::new(artifact.size, BLOCK);
        // Sparse files of their final size: a full disk shows when bytes are written.
        data.set_len(artifact.size).map_err(io_error)?;
        tree.set_len(geometry.outboard_size()).map_err(io_error)?;
        write_meta(&with(&base, "meta"), &artifact).map_err(io_error)?;
        let mut partial = Partial {
            artifact,
            data,
            tree,
            dir: self.dir.clone(),
            have: vec![false; groups(artifact.size)],
        };
        if known == Some(artifact) {
            partial.recheck().map_err(io_error)?;
        }
        Ok(partial)
    }

    /// Moves a whole artifact to where it can be used, after checking it as a whole.
    pub fn complete(&self, partial: Partial) -> Result<PathBuf, BlobError> {
        if !partial.missing().is_empty() {
            return Err(BlobError::Incomplete(partial.artifact.sha256));
        }
        let io_error = |source| BlobError::Io {
            path: self.dir.clone(),
            source,
        };
        partial.data.sync_all().map_err(io_error)?;
        partial.tree.sync_all().map_err(io_error)?;
        self.promote(&partial.artifact, &partial.data)
    }

    fn promote(&self, artifact: &Artifact, data: &File) -> Result<PathBuf, BlobError> {
        let from = self.partial_path(&artifact.sha256);
        let found = digest_of(&with(&from, "data"));
        let io_error = |source| BlobError::Io {
            path: from.clone(),
            source,
        };
        let (found, size) = found.map_err(io_error)?;
        if found != artifact.sha256 || size != artifact.size {
            for kind in ["data", "bao", "meta"] {
                remove(&with(&from, kind)).map_err(io_error)?;
            }
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
        create_private(parent).map_err(io_error)?;
        write_meta(&with(&to, "meta"), artifact).map_err(io_error)?;
        fs::rename(with(&from, "bao"), with(&to, "bao")).map_err(io_error)?;
        // Last: the bytes under their name are what says that all of it is here.
        fs::rename(with(&from, "data"), &to).map_err(io_error)?;
        sync_dir(parent).map_err(io_error)?;
        remove(&with(&from, "meta")).map_err(io_error)?;
        let stamp = Stamp::of(&data.metadata().map_err(io_error)?);
        self.checked().insert(artifact.sha256, stamp);
        Ok(to)
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
        let io_error = |source| BlobError::Io {
            path: path.clone(),
            source,
        };
        let metadata = match fs::symlink_metadata(&path) {
            Ok(metadata) => metadata,
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                return Err(BlobError::NotFound(artifact.sha256));
            }
            Err(error) => return Err(io_error(error)),
        };
        let stamp = Stamp::of(&metadata);
        if self.checked().get(&artifact.sha256) != Some(&stamp) {
            let (found, size) = digest_of(&path).map_err(io_error)?;
            if found != artifact.sha256 || size != artifact.size {
                self.discard(&artifact.sha256).map_err(io_error)?;
                return Err(BlobError::Digest {
                    found,
                    expected: artifact.sha256,
                });
            }
            self.checked().insert(artifact.sha256, stamp);
        }
        // Last use, for the garbage collector.
        if let Ok(meta) = OpenOptions::new().append(true).open(with(&path, "meta")) {
            meta.set_modified(SystemTime::now()).map_err(io_error)?;
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
        let path = self.path(sha256);
        let io_error = |source| BlobError::Io {
            path: path.clone(),
            source,
        };
        let data = File::open(&path).map_err(io_error)?;
        let tree = File::open(with(&path, "bao")).map_err(io_error)?;
        let board = PreOrderOutboard {
            root: root(&artifact),
            tree: BaoTree::new(artifact.size, BLOCK),
            data: tree,
        };
        let mut encoded = Vec::with_capacity(len as usize + len as usize / 64);
        encode_ranges_validated(&data, &board, &chunks(offset..end), &mut encoded)
            .map_err(|error| range_error(error.to_string()))?;
        Ok(Some(encoded))
    }

    /// Removes what is not in `keep`, the least recently used first, until the rest fits the
    /// budget with `room` bytes to spare. Answers with what was removed.
    pub fn gc(&self, keep: &HashSet<Hash>, room: u64) -> Result<Vec<Hash>, BlobError> {
        let io_error = |source| BlobError::Io {
            path: self.dir.clone(),
            source,
        };
        let mut used = 0u64;
        let mut loose = Vec::new();
        for (sha256, size, last_use) in self.list().map_err(io_error)? {
            used = used.saturating_add(size);
            if !keep.contains(&sha256) {
                loose.push((last_use, sha256, size));
            }
        }
        loose.sort();
        let mut removed = Vec::new();
        for (_, sha256, size) in loose {
            if used.saturating_add(room) <= self.budget {
                break;
            }
            self.discard(&sha256).map_err(io_error)?;
            used = used.saturating_sub(size);
            removed.push(sha256);
        }
        Ok(removed)
    }

    /// Bytes that whole artifacts take.
    pub fn used(&self) -> Result<u64, BlobError> {
        let listed = self.list().map_err(|source| BlobError::Io {
            path: self.dir.clone(),
            source,
        })?;
        Ok(listed.iter().map(|(_, size, _)| size).sum())
    }

    fn check_budget(&self, size: u64) -> Result<(), BlobError> {
        let used = self.used()?;
        if used.saturating_add(size) > self.budget {
            return Err(BlobError::Budget {
                size,
                used,
                budget: self.budget,
            });
        }
        Ok(())
    }

    fn list(&self) -> io::Result<Vec<(Hash, u64, SystemTime)>> {
        let mut found = Vec::new();
        for shard in fs::read_dir(self.dir.join("blobs"))? {
            for file in fs::read_dir(shard?.path())? {
                let file = file?;
                let Ok(sha256) = file.file_name().to_string_lossy().parse::<Hash>() else {
                    continue;
                };
                let last_use =
                    fs::metadata(with(&file.path(), "meta")).and_then(|meta| meta.modified());
                found.push((
                    sha256,
                    file.metadata()?.len(),
                    last_use.unwrap_or(SystemTime::UNIX_EPOCH),
                ));
            }
        }
        Ok(found)
    }

    fn discard(&self, sha256: &Hash) -> io::Result<()> {
        let path = self.path(sha256);
        self.checked().remove(sha256);
        remove(&path)?;
        remove(&with(&path, "bao"))?;
        remove(&with(&path, "meta"))
    }

    fn path(&self, sha256: &Hash) -> PathBuf {
        let name = sha256.to_string();
        self.dir.join("blobs").join(&name[..2]).join(&name)
    }

    fn partial_path(&self, sha256: &Hash) -> PathBuf {
        self.dir.join("partial").join(sha256.to_string())
    }

    fn checked(&self) -> std::sync::MutexGuard<'_, HashMap<Hash, Stamp>> {
        // The map is whole between any two statements, also after a panic elsewhere.
        self.checked.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Partial {
    pub fn artifact(&self) -> Artifact {
        self.artifact
    }

    /// Byte ranges that are still to come, each at most `RANGE_MAX` long, in order.
    pub fn missing(&self) -> Vec<Range<u64>> {
        let mut ranges: Vec<Range<u64>> = Vec::new();
        for (group, _) in self.have.iter().enumerate().filter(|(_, have)| !**have) {
            let start = group as u64 * GROUP_BYTES;
            let end = (start + GROUP_BYTES).min(self.artifact.size);
            match ranges.last_mut() {
                Some(last) if last.end == start && end - last.start <= u64::from(RANGE_MAX) => {
                    last.end = end;
                }
                _ => ranges.push(start..end),
            }
        }
        ranges
    }

    /// Bytes that are here and verified.
    pub fn received(&self) -> u64 {
        let missing: u64 = self
            .missing()
            .iter()
            .map(|range| range.end - range.start)
            .sum();
        self.artifact.size - missing
    }

    /// Verifies and writes a range that [`Blobs::encode_range`] encoded. A range that does not
    /// verify changes nothing that counts.
    pub fn write(&mut self, range: Range<u64>, encoded: &[u8]) -> Result<(), BlobError> {
        let range_error = |reason: String| BlobError::Range {
            sha256: self.artifact.sha256,
            reason,
        };
        if range.start >= range.end || range.end > self.artifact.size {
            return Err(range_error("it is not inside the artifact".into()));
        }
        let board = PreOrderOutboard {
            root: root(&self.artifact),
            tree: BaoTree::new(self.artifact.size, BLOCK),
            data: &mut self.tree,
        };
        let mut rest = encoded;
        decode_ranges(&mut rest, &chunks(range.clone()), &mut self.data, board)
            .map_err(|error| range_error(error.to_string()))?;
        if !rest.is_empty() {
            return Err(range_error("bytes are left over".into()));
        }
        let first = range.start / GROUP_BYTES;
        let last = range.end.div_ceil(GROUP_BYTES);
        for group in first..last {
            // The proof always covers whole groups.
            self.have[group as usize] = true;
        }
        Ok(())
    }

    fn recheck(&mut self) -> io::Result<()> {
        let board = PreOrderOutboard {
            root: root(&self.artifact),
            tree: BaoTree::new(self.artifact.size, BLOCK),
            data: &self.tree,
        };
        let all = ChunkRanges::all();
        for valid in valid_ranges(board, &self.data, &all) {
            let valid = valid?;
            let bytes = valid.start.to_bytes()..valid.end.to_bytes().min(self.artifact.size);
            let first = bytes.start.div_ceil(GROUP_BYTES);
            let last = if bytes.end == self.artifact.size {
                bytes.end.div_ceil(GROUP_BYTES)
            } else {
                bytes.end / GROUP_BYTES
            };
            for group in first..last {
                if let Some(have) = self.have.get_mut(group as usize) {
                    *have = true;
                }
            }
        }
        Ok(())
    }

    /// Gives up, and leaves nothing behind.
    pub fn abandon(self) -> Result<(), BlobError> {
        let base = self
            .dir
            .join("partial")
            .join(self.artifact.sha256.to_string());
        for kind in ["data", "bao", "meta"] {
            remove(&with(&base, kind)).map_err(|source| BlobError::Io {
                path: base.clone(),
                source,
            })?;
        }
        Ok(())
    }
}

/// Tells whether a file is still the one that was checked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Stamp {
    inode: u64,
    size: u64,
    modified: (i64, i64),
    changed: (i64, i64),
}

impl Stamp {
    fn of(metadata: &fs::Metadata) -> Self {
        Self {
            inode: metadata.ino(),
            size: metadata.size(),
            modified: (metadata.mtime(), metadata.mtime_nsec()),
            changed: (metadata.ctime(), metadata.ctime_nsec()),
        }
    }
}

fn groups(size: u64) -> usize {
    // An empty artifact still has one group, whose proof is its root.
    size.div_ceil(GROUP_BYTES) as usize
}

fn chunks(range: Range<u64>) -> ChunkRanges {
    round_up_to_chunks_groups(round_up_to_chunks(&ByteRanges::from(range)), BLOCK)
}

fn root(artifact: &Artifact) -> blake3::Hash {
    blake3::Hash::from_bytes(*artifact.blake3.as_bytes())
}

fn with(path: &Path, kind: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(".");
    name.push(kind);
    name.into()
}

fn private_file(path: &Path) -> io::Result<File> {
    OpenOptions::new()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .mode(0o600)
        .custom_flags(NOFOLLOW)
        .open(path)
}

fn read_meta(path: &Path, sha256: &Hash) -> Result<Option<Artifact>, BlobError> {
    let io_error = |source| BlobError::Io {
        path: path.into(),
        source,
    };
    let file = match File::open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(io_error(error)),
    };
    let mut bytes = Vec::new();
    file.take(META_MAX)
        .read_to_end(&mut bytes)
        .map_err(io_error)?;
    match canonical::decode::<Artifact>(&bytes, META_MAX as usize) {
        Ok(artifact) if artifact.sha256 == *sha256 => Ok(Some(artifact)),
        _ => Err(BlobError::Meta(*sha256)),
    }
}

fn write_meta(path: &Path, artifact: &Artifact) -> io::Result<()> {
    let mut file = private_file(path)?;
    file.set_len(0)?;
    file.write_all(&canonical::encode(artifact))?;
    file.sync_all()
}

fn remove(path: &Path) -> io::Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

fn digest_of(path: &Path) -> io::Result<(Hash, u64)> {
    let mut file = OpenOptions::new()
        .read(true)
        .custom_flags(NOFOLLOW)
        .open(path)?;
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

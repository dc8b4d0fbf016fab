//! The budget: what artifacts take, and what goes when there is no room.
//!
//! Whole artifacts, pulls and uploads under way (at their final size) and imports count. The trees beside
//! them do not: they are 0.4 %. Room is taken before a byte is written.

use std::{
    collections::{BTreeMap, HashMap, HashSet},
    fs, io,
    path::{Path, PathBuf},
    sync::Weak,
    time::{Duration, SystemTime},
};

use realm_manifest::identity::Hash;

use super::{
    BlobError, Blobs,
    files::{remove, remove_partial, with},
    partial::Pull,
};

/// A pull that nobody went on with for this long is given up.
pub(super) const STALE: Duration = Duration::from_secs(24 * 60 * 60);
/// Files of imports begin like this; none outlives its process.
pub(super) const IMPORT: &str = "import-";

/// Files of uploads begin like this; they wait for whoever sends the rest.
pub(super) const UPLOAD: &str = "upload-";

/// What is going on in this process.
#[derive(Debug, Default)]
pub(super) struct Desk {
    /// What no collection takes. None until somebody said: then nothing is taken.
    pinned: Option<HashSet<Hash>>,
    /// Bytes that each import has taken so far.
    pub imports: HashMap<u64, u64>,
    pub pulls: HashMap<Hash, Weak<Pull>>,
    /// Bytes that each upload has still to bring.
    pub uploads: HashMap<Hash, u64>,
}

/// An artifact on disk, whole or under way.
struct Kept {
    sha256: Hash,
    /// Where its files are, without the ends of their names.
    base: PathBuf,
    size: u64,
    last_use: SystemTime,
}

impl Blobs {
    /// From now on only artifacts outside `keep` are removed when room is needed.
    pub fn pin(&self, keep: HashSet<Hash>) {
        self.desk().pinned = Some(keep);
    }

    /// Bytes in use: whole artifacts, pulls and imports.
    pub fn used(&self) -> Result<u64, BlobError> {
        let desk = self.desk();
        self.in_use(&desk).map_err(BlobError::at(&self.dir))
    }

    pub(super) fn is_free(&self, desk: &Desk, size: u64) -> Result<bool, BlobError> {
        let used = self.in_use(desk).map_err(BlobError::at(&self.dir))?;
        Ok(used.saturating_add(size) <= self.budget)
    }

    /// Makes sure that `size` more bytes may be taken. The caller holds the desk until it took them.
    pub(super) fn make_room(&self, desk: &mut Desk, size: u64) -> Result<(), BlobError> {
        let collected = self.collect(desk, size).map_err(BlobError::at(&self.dir))?;
        for sha256 in &collected.removed {
            tracing::info!(digest = %sha256, "an artifact that nothing needs was removed");
        }
        if collected.used.saturating_add(size) <= self.budget {
            return Ok(());
        }
        Err(BlobError::Budget {
            size,
            used: collected.used,
            budget: self.budget,
        })
    }

    fn collect(&self, desk: &mut Desk, room: u64) -> io::Result<Collected> {
        let fits = |used: u64| used.saturating_add(room) <= self.budget;
        let mut removed = Vec::new();
        let mut used = self.in_use(desk)?;
        if !fits(used) {
            self.drop_stale(desk)?;
            used = self.in_use(desk)?;
        }
        let Some(pinned) = desk.pinned.as_ref().filter(|_| !fits(used)) else {
            return Ok(Collected { removed, used });
        };
        let mut loose = self.whole()?;
        loose.retain(|kept| !pinned.contains(&kept.sha256));
        loose.sort_by_key(|kept| (kept.last_use, kept.sha256));
        for kept in loose {
            if fits(used) {
                break;
            }
            self.discard(&kept.sha256)?;
            used = used.saturating_sub(kept.size);
            removed.push(kept.sha256);
        }
        Ok(Collected { removed, used })
    }

    /// Removes what ended with an earlier process: imports, and pulls nobody went on with.
    pub(super) fn tidy(&self) -> io::Result<()> {
        for file in fs::read_dir(self.dir.join("partial"))? {
            let file = file?;
            if file.file_name().to_string_lossy().starts_with(IMPORT) {
                remove(&file.path())?;
            }
        }
        self.drop_stale(&mut self.desk())
    }

    fn drop_stale(&self, desk: &mut Desk) -> io::Result<()> {
        desk.pulls.retain(|_, pull| pull.strong_count() > 0);
        let now = SystemTime::now();
        for kept in self.partial()? {
            // A time in the future is a clock that was set back: not stale yet.
            let age = now.duration_since(kept.last_use).unwrap_or_default();
            let wanted =
                desk.pulls.contains_key(&kept.sha256) || desk.uploads.contains_key(&kept.sha256);
            if age > STALE && !wanted {
                tracing::info!(digest = %kept.sha256, "a pull or upload that nobody went on with was given up");
                remove_partial(&kept.base)?;
            }
        }
        Ok(())
    }

    fn in_use(&self, desk: &Desk) -> io::Result<u64> {
        let kept = self.whole()?.into_iter().chain(self.partial()?);
        let to_come = desk.imports.values().chain(desk.uploads.values());
        Ok(kept
            .map(|kept| kept.size)
            .chain(to_come.copied())
            .fold(0, u64::saturating_add))
    }

    fn whole(&self) -> io::Result<Vec<Kept>> {
        let mut found = Vec::new();
        for shard in fs::read_dir(self.dir.join("blobs"))? {
            for file in fs::read_dir(shard?.path())? {
                let file = file?;
                let Ok(sha256) = file.file_name().to_string_lossy().parse::<Hash>() else {
                    continue;
                };
                let last_use = modified(&with(&file.path(), "meta"))?;
                found.push(Kept {
                    sha256,
                    base: file.path(),
                    size: file.metadata()?.len(),
                    last_use: last_use.unwrap_or(SystemTime::UNIX_EPOCH),
                });
            }
        }
        Ok(found)
    }

    /// Pulls under way, those that a crash left without some of their files as well.
    fn partial(&self) -> io::Result<Vec<Kept>> {
        let mut found: BTreeMap<PathBuf, Kept> = BTreeMap::new();
        for file in fs::read_dir(self.dir.join("partial"))? {
            let file = file?;
            let name = file.file_name();
            let name = name.to_string_lossy();
            let Some((base, kind)) = name.split_once('.') else {
                continue;
            };
            let Ok(sha256) = base.strip_prefix(UPLOAD).unwrap_or(base).parse::<Hash>() else {
                continue;
            };
            let base = self.dir.join("partial").join(base);
            let metadata = match file.metadata() {
                Ok(metadata) => metadata,
                // Completed just now.
                Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
                Err(error) => return Err(error),
            };
            let kept = found.entry(base.clone()).or_insert(Kept {
                sha256,
                base,
                size: 0,
                last_use: SystemTime::UNIX_EPOCH,
            });
            kept.last_use = kept.last_use.max(metadata.modified()?);
            if kind == "data" {
                kept.size = metadata.len();
            }
        }
        Ok(found.into_values().collect())
    }

    pub(super) fn discard(&self, sha256: &Hash) -> io::Result<()> {
        let path = self.path(sha256);
        self.checked().remove(sha256);
        remove(&path)?;
        remove(&with(&path, "bao"))?;
        remove(&with(&path, "meta"))
    }
}

struct Collected {
    removed: Vec<Hash>,
    /// Bytes in use afterwards.
    used: u64,
}

fn modified(path: &Path) -> io::Result<Option<SystemTime>> {
    match fs::metadata(path) {
        Ok(metadata) => metadata.modified().map(Some),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

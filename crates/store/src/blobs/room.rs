//! What artifacts may take, of their budget and of the disk, and what goes when there is no room.
//!
//! Whole artifacts, pulls and uploads under way (at their final size) and imports count. The trees beside
//! them do not: they are 0.4 %. Room is taken before a byte is written.

use std::{
    collections::{BTreeMap, HashMap, HashSet},
    fs, io,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, MutexGuard, PoisonError, Weak},
    time::{Duration, SystemTime},
};

use realm_manifest::identity::Hash;

use super::{
    BlobError, Blobs,
    disk::{DiskGap, Gap, reserve},
    files::{allocated, remove, remove_partial, with},
    partial::Pull,
};

/// A pull that nobody went on with for this long is given up.
pub(super) const STALE: Duration = Duration::from_secs(24 * 60 * 60);
/// Files of imports begin like this; none outlives its process.
pub(super) const IMPORT: &str = "import-";

/// Files of uploads begin like this; they wait for whoever sends the rest.
pub(super) const UPLOAD: &str = "upload-";

/// What no collection takes. Apart from the desk, which is held while files are read and removed.
#[derive(Debug, Clone, Default)]
pub(super) struct Pins(
    /// None until somebody said what is needed: then nothing is taken.
    Arc<Mutex<Option<HashSet<Hash>>>>,
);

impl Pins {
    fn set(&self, keep: HashSet<Hash>) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Some(keep);
    }

    fn is_loose(&self, sha256: &Hash) -> bool {
        let pinned = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let pinned = pinned.as_ref();
        pinned.is_some_and(|pinned| !pinned.contains(sha256))
    }
}

/// What is going on in this process.
#[derive(Debug, Default)]
pub(super) struct Desk {
    pub pins: Pins,
    /// Bytes that each import has taken so far.
    pub imports: HashMap<u64, u64>,
    pub pulls: HashMap<Hash, Weak<Pull>>,
    /// Bytes that each upload has still to bring.
    pub uploads: HashMap<Hash, u64>,
}

/// What is done at the desk is one insertion or removal: it is whole also after a panic elsewhere.
pub(super) fn locked(desk: &Mutex<Desk>) -> MutexGuard<'_, Desk> {
    desk.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Desk {
    /// Whether it may go: somebody said what is needed, and this is not.
    pub fn is_loose(&self, sha256: &Hash) -> bool {
        self.pins.is_loose(sha256)
    }

    fn is_under_way(&self, kept: &Kept) -> bool {
        if kept.is_upload() {
            return self.uploads.contains_key(&kept.sha256);
        }
        let pull = self.pulls.get(&kept.sha256);
        pull.is_some_and(|pull| pull.strong_count() > 0)
    }
}

/// An artifact on disk, whole or under way.
pub(super) struct Kept {
    sha256: Hash,
    /// Where its files are, without the ends of their names.
    base: PathBuf,
    pub size: u64,
    /// Bytes of the disk that it takes; its tree is left out.
    pub allocated: u64,
    last_use: SystemTime,
    /// Below `partial/`: its bytes are not all here, or not checked.
    under_way: bool,
}

impl Kept {
    fn is_upload(&self) -> bool {
        let name = self.base.file_name().unwrap_or_default();
        name.to_string_lossy().starts_with(UPLOAD)
    }
}

/// What somebody asks room for, in bytes.
#[derive(Debug)]
pub(super) struct Wanted<'a> {
    /// Where its files are, if there are some already: they are not removed for it.
    pub base: Option<&'a Path>,
    /// Of the whole, for words.
    pub size: u64,
    /// Added to what the budget counts.
    pub budget: u64,
    /// Of the disk, taken by it already.
    pub held: u64,
    /// Of the disk, to come.
    pub disk: u64,
}

impl Wanted<'_> {
    /// `size` bytes, none of which is here.
    pub const fn new(size: u64) -> Self {
        Self {
            base: None,
            size,
            budget: size,
            held: 0,
            disk: size,
        }
    }
}

impl Blobs {
    /// From now on only artifacts outside `keep` are removed when room is needed. Does not block.
    pub fn pin(&self, keep: HashSet<Hash>) {
        self.pins.set(keep);
    }

    /// Removes pulls that nothing needs any more, however full the disk is. Those under way go when
    /// they end. Blocks.
    pub fn drop_loose_pulls(&self) {
        if let Err(error) = self.let_loose_pulls_go() {
            tracing::warn!(%error, "a pull that nothing needs could not be removed");
        }
    }

    /// Bytes in use: whole artifacts, pulls and imports.
    pub fn used(&self) -> Result<u64, BlobError> {
        let desk = self.desk();
        self.in_use(&desk).map_err(BlobError::at(&self.dir))
    }

    pub(super) fn is_free(&self, desk: &Desk, wanted: &Wanted<'_>) -> Result<bool, BlobError> {
        let gap = self.gap(desk, wanted).map_err(BlobError::at(&self.dir))?;
        Ok(gap.is_closed())
    }

    /// Makes sure that what is `wanted` may be taken. The caller holds the desk until it took it.
    pub(super) fn make_room(&self, desk: &mut Desk, wanted: &Wanted<'_>) -> Result<(), BlobError> {
        self.collect(desk, wanted)
            .and_then(|()| self.gap(desk, wanted))
            .map_err(BlobError::at(&self.dir))?
            .refusal(wanted, self.budget)
            .map_or(Ok(()), Err)
    }

    fn collect(&self, desk: &mut Desk, wanted: &Wanted<'_>) -> io::Result<()> {
        if self.gap(desk, wanted)?.is_closed() {
            return Ok(());
        }
        self.drop_stale(desk)?;
        let mut gap = self.gap(desk, wanted)?;
        let mut loose = self.whole()?;
        loose.extend(self.partial()?);
        loose.retain(|kept| {
            let busy = kept.under_way && desk.is_under_way(kept);
            desk.is_loose(&kept.sha256) && !busy && wanted.base != Some(&kept.base)
        });
        loose.sort_by_key(|kept| (kept.last_use, kept.sha256));
        let mut going = Vec::new();
        for kept in loose {
            if gap.is_closed() {
                break;
            }
            gap.close(&kept);
            going.push(kept);
        }
        if !gap.is_closed() {
            // It does not fit either way: nothing goes for it.
            return Ok(());
        }
        for kept in going {
            self.let_go(&kept)?;
        }
        Ok(())
    }

    fn let_go(&self, kept: &Kept) -> io::Result<()> {
        tracing::info!(digest = %kept.sha256, "an artifact that nothing needs was removed");
        if kept.under_way {
            remove_partial(&kept.base)
        } else {
            self.discard(&kept.sha256)
        }
    }

    fn let_loose_pulls_go(&self) -> io::Result<()> {
        let desk = self.desk();
        for kept in self.partial()? {
            let loose = desk.is_loose(&kept.sha256) && !desk.is_under_way(&kept);
            if loose && !kept.is_upload() {
                self.let_go(&kept)?;
            }
        }
        Ok(())
    }

    /// What is missing for `wanted`.
    fn gap(&self, desk: &Desk, wanted: &Wanted<'_>) -> io::Result<Gap> {
        let used = self.in_use(desk)?;
        let budget = match wanted.budget {
            0 => 0,
            more => used.saturating_add(more).saturating_sub(self.budget),
        };
        let mut promised = 0u64;
        for kept in self.partial()? {
            if wanted.base != Some(&kept.base) && desk.is_under_way(&kept) {
                let to_come = desk.uploads.get(&kept.sha256).filter(|_| kept.is_upload());
                let whole = kept.size.saturating_add(to_come.copied().unwrap_or(0));
                promised = promised.saturating_add(whole.saturating_sub(kept.allocated));
            }
        }
        let disk = (self.measure)(&self.dir).map(|room| DiskGap::of(room, promised, wanted));
        Ok(Gap { used, budget, disk })
    }

    /// Whether less is free than what artifacts leave to the log.
    pub(super) fn is_too_full(&self) -> bool {
        (self.measure)(&self.dir).is_some_and(|room| room.free < reserve(room.total))
    }

    /// Removes what ended with an earlier process: imports, what is left of an artifact, and pulls
    /// nobody went on with.
    pub(super) fn tidy(&self) -> io::Result<()> {
        for file in fs::read_dir(self.dir.join("partial"))? {
            let file = file?;
            if file.file_name().to_string_lossy().starts_with(IMPORT) {
                remove(&file.path())?;
            }
        }
        self.drop_orphans()?;
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

    /// Where artifacts lie. What else is there, such as what a mounted disk brings, is nobody's here.
    pub(super) fn shards(&self) -> io::Result<Vec<PathBuf>> {
        let mut shards = Vec::new();
        for entry in fs::read_dir(self.dir.join("blobs"))? {
            let entry = entry?;
            let name = entry.file_name();
            let is_shard =
                name.len() == 2 && name.as_encoded_bytes().iter().all(u8::is_ascii_hexdigit);
            if is_shard && entry.file_type()?.is_dir() {
                shards.push(entry.path());
            }
        }
        Ok(shards)
    }

    fn whole(&self) -> io::Result<Vec<Kept>> {
        let mut found = Vec::new();
        for shard in self.shards()? {
            for file in fs::read_dir(shard)? {
                let file = file?;
                let Ok(sha256) = file.file_name().to_string_lossy().parse::<Hash>() else {
                    continue;
                };
                let last_use = modified(&with(&file.path(), "meta"))?;
                let metadata = file.metadata()?;
                found.push(Kept {
                    sha256,
                    base: file.path(),
                    size: metadata.len(),
                    allocated: allocated(&metadata),
                    last_use: last_use.unwrap_or(SystemTime::UNIX_EPOCH),
                    under_way: false,
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
                allocated: 0,
                last_use: SystemTime::UNIX_EPOCH,
                under_way: true,
            });
            kept.last_use = kept.last_use.max(metadata.modified()?);
            if kind == "data" {
                kept.size = metadata.len();
                kept.allocated = allocated(&metadata);
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

fn modified(path: &Path) -> io::Result<Option<SystemTime>> {
    match fs::metadata(path) {
        Ok(metadata) => metadata.modified().map(Some),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

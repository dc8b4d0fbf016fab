//! An artifact that is being pulled: what is here, and what is still to come.

use std::{
    fs::{self, File},
    io,
    ops::Range,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, MutexGuard, PoisonError, Weak},
};

use bao_tree::{
    ChunkRanges,
    io::{
        DecodeError,
        sync::{decode_ranges, valid_ranges},
    },
};
use realm_manifest::identity::{Artifact, Hash};

use super::{
    BlobError, Blobs, RANGE_MAX,
    ahead::Ahead,
    files::{allocated, private_file, read_meta, remove_partial, with, write_meta},
    room::{Desk, Wanted, locked},
    tree::{GROUP_BYTES, board, chunks, geometry, groups},
    window::Window,
};

/// A share of a pull. Ranges may come in any order, from several sources; whoever begins the
/// same pull meanwhile sees what is here already.
#[derive(Debug, Clone)]
pub struct Partial {
    pull: Arc<Pull>,
}

#[derive(Debug)]
pub(super) struct Pull {
    artifact: Artifact,
    base: PathBuf,
    state: Mutex<State>,
    /// Locked before the state is, if both are.
    ahead: Mutex<Ahead>,
    desk: Arc<Mutex<Desk>>,
}

#[derive(Debug)]
enum State {
    Open(Files),
    /// Moved to where it can be used.
    Whole(PathBuf),
    /// The bytes were not what their digest says, or the disk did not take them: they are gone.
    Refused,
}

#[derive(Debug)]
struct Files {
    data: File,
    tree: File,
    /// Verified and written, by group.
    have: Vec<bool>,
}

impl Blobs {
    /// Starts or resumes pulling `artifact`, or joins the pull that is under way. What is on disk
    /// already is checked again.
    pub fn begin(&self, artifact: Artifact) -> Result<Partial, BlobError> {
        if artifact.size == 0 {
            check_empty(&artifact)?;
        }
        // Dropped after the desk is free again: the end of a pull asks for the desk.
        let under_way;
        let mut desk = self.desk();
        under_way = desk.pulls.get(&artifact.sha256).and_then(Weak::upgrade);
        if let Some(pull) = &under_way
            && matches!(*pull.state(), State::Open(_))
        {
            if pull.artifact != artifact {
                return Err(BlobError::OtherPull(artifact.sha256));
            }
            return Ok(Partial { pull: pull.clone() });
        }
        let base = self.partial_path(&artifact.sha256);
        let io_error = BlobError::at(&base);
        let known = match read_meta(&with(&base, "meta"), &artifact.sha256) {
            Ok(known) => known,
            // A crash while it was written: begun anew.
            Err(BlobError::Meta(_)) => None,
            Err(error) => return Err(error),
        };
        let resumed = known == Some(artifact);
        if !resumed {
            remove_partial(&base).map_err(&io_error)?;
        }
        if let Err(error) = self.room_for_pull(&mut desk, &artifact, &base, resumed) {
            if self.is_too_full() {
                // It cannot go on, and the log needs the room.
                remove_partial(&base).map_err(&io_error)?;
            }
            return Err(error);
        }
        let files = Files::open(&base, &artifact, resumed).map_err(&io_error);
        let files = match files {
            Err(error @ BlobError::DiskFull { .. }) => {
                remove_partial(&base).map_err(&io_error)?;
                return Err(error);
            }
            files => files?,
        };
        let ahead = Ahead::new(files.data.try_clone().map_err(&io_error)?);
        let pull = Arc::new(Pull {
            artifact,
            base,
            ahead: Mutex::new(ahead),
            state: Mutex::new(State::Open(files)),
            desk: self.desk.clone(),
        });
        desk.pulls.insert(artifact.sha256, Arc::downgrade(&pull));
        Ok(Partial { pull })
    }

    fn room_for_pull(
        &self,
        desk: &mut Desk,
        artifact: &Artifact,
        base: &Path,
        resumed: bool,
    ) -> Result<(), BlobError> {
        let held = match fs::metadata(with(base, "data")) {
            Ok(metadata) => allocated(&metadata),
            Err(error) if error.kind() == io::ErrorKind::NotFound => 0,
            Err(error) => return Err(BlobError::at(base)(error)),
        };
        let missing = artifact.size.saturating_sub(held);
        let wanted = Wanted {
            base: Some(base),
            size: artifact.size,
            // It counts with its whole size since it began.
            budget: if resumed { 0 } else { artifact.size },
            held,
            disk: missing,
        };
        self.make_room(desk, &wanted)
    }

    /// Moves a whole artifact to where it can be used, after checking it as a whole.
    pub fn complete(&self, partial: Partial) -> Result<PathBuf, BlobError> {
        let pull = partial.pull;
        let artifact = pull.artifact;
        let mut ahead = pull.ahead();
        let mut state = pull.state();
        let files = match &*state {
            State::Open(files) => files,
            State::Whole(path) => return Ok(path.clone()),
            State::Refused => return Err(BlobError::PullEnded(artifact.sha256)),
        };
        if files.have.contains(&false) {
            return Err(BlobError::Incomplete(artifact.sha256));
        }
        let io_error = BlobError::at(&pull.base);
        let synced = ahead.finish(artifact.size).and_then(|found| {
            files.tree.sync_all()?;
            Ok(found)
        });
        let kept = synced
            .map_err(&io_error)
            .and_then(|found| self.promote(&pull.base, &artifact, &files.data, found));
        match kept {
            Ok(path) => {
                *state = State::Whole(path.clone());
                Ok(path)
            }
            Err(error) => {
                match &error {
                    BlobError::Digest { .. } | BlobError::Size { .. } => *state = State::Refused,
                    BlobError::DiskFull { .. } => pull.give_up(&mut state)?,
                    _ => {}
                }
                Err(error)
            }
        }
    }
}

impl Pull {
    fn state(&self) -> MutexGuard<'_, State> {
        // Groups are counted after they are written: the state is whole also after a panic.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn ahead(&self) -> MutexGuard<'_, Ahead> {
        // What is digested is counted after each step.
        self.ahead.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Gives its bytes back to a disk that is full: the log needs them more.
    fn give_up(&self, state: &mut State) -> Result<(), BlobError> {
        // Closed as well: an open file keeps its bytes.
        *state = State::Refused;
        remove_partial(&self.base).map_err(BlobError::at(&self.base))
    }
}

impl Drop for Pull {
    /// What nothing wants any more is not left behind.
    fn drop(&mut self) {
        let mut desk = locked(&self.desk);
        let ours = desk.pulls.get(&self.artifact.sha256);
        // Somebody may have begun it anew just now.
        if ours.is_none_or(|pull| pull.strong_count() > 0) {
            return;
        }
        desk.pulls.remove(&self.artifact.sha256);
        if desk.is_loose(&self.artifact.sha256)
            && let Err(error) = remove_partial(&self.base)
        {
            tracing::warn!(%error, "a pull that nothing needs left files behind");
        }
    }
}

impl Partial {
    /// Byte ranges that are still to come, each at most 1 MiB long, in order.
    pub fn missing(&self) -> Vec<Range<u64>> {
        let state = self.pull.state();
        let State::Open(files) = &*state else {
            return Vec::new();
        };
        let mut ranges: Vec<Range<u64>> = Vec::new();
        for (group, _) in files.have.iter().enumerate().filter(|(_, have)| !**have) {
            let start = group as u64 * GROUP_BYTES;
            let end = (start + GROUP_BYTES).min(self.pull.artifact.size);
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
        self.pull.artifact.size - missing
    }

    /// Digests what has come without a gap, and has the disk write it, so that little is left to do in the
    /// end. Others may write meanwhile. What fails is told by [`Blobs::complete`].
    pub fn go_ahead(&self) {
        let mut ahead = self.pull.ahead();
        let end = match &*self.pull.state() {
            State::Open(files) => {
                let gap = files.have.iter().position(|have| !have);
                gap.map_or(self.pull.artifact.size, |gap| gap as u64 * GROUP_BYTES)
            }
            State::Whole(_) | State::Refused => return,
        };
        ahead.go_on(end);
    }

    /// Verifies and writes a range that [`Blobs::encode_range`] encoded. A range that does not
    /// verify changes nothing that counts; a disk that is full gets back what the pull took of it.
    pub fn write(&self, range: Range<u64>, encoded: &[u8]) -> Result<(), BlobError> {
        let artifact = self.pull.artifact;
        let range_error = |reason: String| BlobError::Range {
            sha256: artifact.sha256,
            reason,
        };
        if range.start >= range.end || range.end > artifact.size {
            return Err(range_error("it is not inside the artifact".into()));
        }
        let mut state = self.pull.state();
        let files = match &mut *state {
            State::Open(files) => files,
            // Somebody else's share brought the rest.
            State::Whole(_) => return Ok(()),
            State::Refused => return Err(BlobError::PullEnded(artifact.sha256)),
        };
        let (first, last) = (range.start / GROUP_BYTES, range.end.div_ceil(GROUP_BYTES));
        let whole = first * GROUP_BYTES..(last * GROUP_BYTES).min(artifact.size);
        let mut rest = encoded;
        let tree = board(&artifact, &mut files.tree);
        // Nothing of it reaches the file before all of it is verified.
        let mut window = Window::new(whole);
        let written = decode_ranges(&mut rest, &chunks(range), &mut window, tree)
            .and_then(|()| Ok(window.write_to(&files.data)?));
        if let Err(error) = written {
            let error = match error {
                // The end of what was sent is the sender's doing, the rest is this disk's.
                DecodeError::Io(error) if error.kind() != io::ErrorKind::UnexpectedEof => {
                    BlobError::at(&self.pull.base)(error)
                }
                error => range_error(error.to_string()),
            };
            if let BlobError::DiskFull { .. } = error {
                self.pull.give_up(&mut state)?;
            }
            return Err(error);
        }
        if !rest.is_empty() {
            return Err(range_error("bytes are left over".into()));
        }
        for group in first..last {
            // The proof always covers whole groups.
            files.have[group as usize] = true;
        }
        Ok(())
    }
}

impl Files {
    /// Makes or opens the files of a pull; what is there of a resumed one is checked.
    fn open(base: &Path, artifact: &Artifact, resumed: bool) -> io::Result<Self> {
        let data = private_file(&with(base, "data"))?;
        let tree = private_file(&with(base, "bao"))?;
        // Sparse files of their final size, which is what the budget counts from now on.
        data.set_len(artifact.size)?;
        tree.set_len(geometry(artifact).outboard_size())?;
        // Its time says when the pull was last begun.
        write_meta(&with(base, "meta"), artifact)?;
        let mut files = Self {
            data,
            tree,
            have: vec![false; groups(artifact.size)],
        };
        if resumed {
            files.recheck(artifact)?;
        }
        Ok(files)
    }

    fn recheck(&mut self, artifact: &Artifact) -> io::Result<()> {
        let all = ChunkRanges::all();
        for valid in valid_ranges(board(artifact, &self.tree), &self.data, &all) {
            let valid = valid?;
            let bytes = valid.start.to_bytes()..valid.end.to_bytes().min(artifact.size);
            let first = bytes.start.div_ceil(GROUP_BYTES);
            let last = if bytes.end == artifact.size {
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
}

/// Nothing of it is ever received, so no range proves its root.
fn check_empty(artifact: &Artifact) -> Result<(), BlobError> {
    let empty = Artifact::of(b"");
    for (found, expected) in [
        (empty.sha256, artifact.sha256),
        (empty.blake3, artifact.blake3),
    ] {
        if found != expected {
            return Err(BlobError::Digest { found, expected });
        }
    }
    Ok(())
}

impl Blobs {
    pub(super) fn partial_path(&self, sha256: &Hash) -> PathBuf {
        self.dir.join("partial").join(sha256.to_string())
    }
}

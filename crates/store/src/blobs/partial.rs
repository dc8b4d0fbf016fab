//! An artifact that is being pulled: what is here, and what is still to come.

use std::{
    fs::File,
    io,
    ops::Range,
    path::PathBuf,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
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
    files::{private_file, read_meta, remove_partial, with, write_meta},
    tree::{GROUP_BYTES, board, chunks, geometry, groups},
};

/// A share of a pull. Ranges may come in any order, from several sources; whoever begins the
/// same pull meanwhile sees what is here already.
#[derive(Debug)]
pub struct Partial {
    pull: Arc<Pull>,
}

#[derive(Debug)]
pub(super) struct Pull {
    artifact: Artifact,
    base: PathBuf,
    state: Mutex<State>,
}

#[derive(Debug)]
enum State {
    Open(Files),
    /// Moved to where it can be used.
    Whole(PathBuf),
    /// The bytes were not what their digest says.
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
        let mut desk = self.desk();
        let under_way = desk.pulls.get(&artifact.sha256);
        if let Some(pull) = under_way.and_then(std::sync::Weak::upgrade)
            && matches!(*pull.state(), State::Open(_))
        {
            if pull.artifact != artifact {
                return Err(BlobError::OtherPull(artifact.sha256));
            }
            return Ok(Partial { pull });
        }
        let base = self.partial_path(&artifact.sha256);
        let io_error = BlobError::at(&base);
        let known = match read_meta(&with(&base, "meta"), &artifact.sha256) {
            Ok(known) => known,
            // A crash while it was written: begun anew.
            Err(BlobError::Meta(_)) => None,
            Err(error) => return Err(error),
        };
        if known != Some(artifact) {
            remove_partial(&base).map_err(&io_error)?;
            self.make_room(&mut desk, artifact.size)?;
        }
        let data = private_file(&with(&base, "data")).map_err(&io_error)?;
        let tree = private_file(&with(&base, "bao")).map_err(&io_error)?;
        // Sparse files of their final size, which is what the budget counts from now on.
        data.set_len(artifact.size).map_err(&io_error)?;
        let tree_size = geometry(&artifact).outboard_size();
        tree.set_len(tree_size).map_err(&io_error)?;
        // Its time says when the pull was last begun.
        write_meta(&with(&base, "meta"), &artifact).map_err(&io_error)?;
        let mut files = Files {
            data,
            tree,
            have: vec![false; groups(artifact.size)],
        };
        if known == Some(artifact) {
            files.recheck(&artifact).map_err(&io_error)?;
        }
        let pull = Arc::new(Pull {
            artifact,
            base,
            state: Mutex::new(State::Open(files)),
        });
        desk.pulls.insert(artifact.sha256, Arc::downgrade(&pull));
        Ok(Partial { pull })
    }

    /// Moves a whole artifact to where it can be used, after checking it as a whole.
    pub fn complete(&self, partial: Partial) -> Result<PathBuf, BlobError> {
        let pull = partial.pull;
        let artifact = pull.artifact;
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
        files.data.sync_all().map_err(&io_error)?;
        files.tree.sync_all().map_err(&io_error)?;
        match self.promote(&pull.base, &artifact, &files.data) {
            Ok(path) => {
                *state = State::Whole(path.clone());
                Ok(path)
            }
            Err(error) => {
                if let BlobError::Digest { .. } | BlobError::Size { .. } = error {
                    *state = State::Refused;
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

    /// Verifies and writes a range that [`Blobs::encode_range`] encoded. A range that does not
    /// verify changes nothing that counts.
    pub fn write(&mut self, range: Range<u64>, encoded: &[u8]) -> Result<(), BlobError> {
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
        let mut rest = encoded;
        let tree = board(&artifact, &mut files.tree);
        decode_ranges(&mut rest, &chunks(range.clone()), &mut files.data, tree).map_err(
            |error| match error {
                // The end of what was sent is the sender's doing, the rest is this disk's.
                DecodeError::Io(error) if error.kind() != io::ErrorKind::UnexpectedEof => {
                    BlobError::at(&self.pull.base)(error)
                }
                error => range_error(error.to_string()),
            },
        )?;
        if !rest.is_empty() {
            return Err(range_error("bytes are left over".into()));
        }
        let first = range.start / GROUP_BYTES;
        let last = range.end.div_ceil(GROUP_BYTES);
        for group in first..last {
            // The proof always covers whole groups.
            files.have[group as usize] = true;
        }
        Ok(())
    }
}

impl Files {
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

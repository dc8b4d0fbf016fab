//! What a disk changed of an artifact: its tree is made anew, its bytes are given up.

use std::{
    collections::{HashMap, hash_map::Entry},
    fs::{self, File},
    io::BufReader,
    sync::{MutexGuard, PoisonError, atomic::Ordering},
    time::{Duration, Instant},
};

use bao_tree::io::sync::outboard;
use realm_manifest::identity::{Artifact, Hash};

use super::{
    BlobError, Blobs,
    files::{private_file, remove, remove_partial, with},
    room::IMPORT,
    tree::{board, geometry},
};
use crate::dir::sync_dir;

/// What could not be mended is tried again after this: each try reads the whole artifact twice.
const AGAIN: Duration = Duration::from_secs(60);

impl Blobs {
    /// Whether `error` is of a kind that [`Blobs::mend`] may help against, and nobody else is at it.
    pub(super) fn begins_to_mend(&self, artifact: &Artifact, error: &BlobError) -> bool {
        let tree = with(&self.path(&artifact.sha256), "bao");
        if !matches!(error, BlobError::Range { .. }) && tree.exists() {
            return false;
        }
        let mut mending = self.mending();
        mending.retain(|_, since| since.elapsed() < AGAIN);
        match mending.entry(artifact.sha256) {
            Entry::Occupied(_) => false,
            Entry::Vacant(free) => {
                free.insert(Instant::now());
                true
            }
        }
    }

    fn mending(&self) -> MutexGuard<'_, HashMap<Hash, Instant>> {
        // The map is whole between any two statements, also after a panic elsewhere.
        self.mending.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// After a range that could not be proven: checks the bytes, and makes their tree again where it
    /// is the tree that is damaged or gone. Bytes that changed are removed, and fetched when they are
    /// needed.
    pub(super) fn mend(&self, artifact: &Artifact) -> Result<(), BlobError> {
        self.checked().remove(&artifact.sha256);
        let path = self.open_path(artifact).inspect_err(|error| {
            let digest = artifact.sha256;
            tracing::warn!(%digest, %error, "an artifact was damaged on disk and is given up; check the disk");
        })?;
        let number = self.imports.fetch_add(1, Ordering::Relaxed);
        let base = self.dir.join("partial").join(format!("{IMPORT}{number}"));
        let made = self.make_tree(artifact, &base);
        if made.is_err() {
            // The first error is the one to report; the next start removes what stays.
            let _ = remove_partial(&base);
        }
        let root = made.map_err(BlobError::at(&base))?;
        if root != artifact.blake3 {
            // It is the description that changed.
            self.discard(&artifact.sha256)
                .map_err(BlobError::at(&path))?;
            return Err(BlobError::Digest {
                found: root,
                expected: artifact.blake3,
            });
        }
        self.mending().remove(&artifact.sha256);
        tracing::warn!(digest = %artifact.sha256, "the tree of an artifact was damaged on disk and is made again; check the disk");
        Ok(())
    }

    fn make_tree(&self, artifact: &Artifact, base: &std::path::Path) -> std::io::Result<Hash> {
        let path = self.path(&artifact.sha256);
        let mut tree = private_file(&with(base, "bao"))?;
        let root = outboard(
            BufReader::new(File::open(&path)?),
            geometry(artifact),
            board(artifact, &mut tree),
        )?;
        tree.sync_all()?;
        fs::rename(with(base, "bao"), with(&path, "bao"))?;
        sync_dir(path.parent().unwrap_or(&self.dir))?;
        Ok(Hash::from_bytes(*root.as_bytes()))
    }

    /// Removes trees and descriptions without bytes: a crash came before the bytes, or after they
    /// were removed.
    pub(super) fn drop_orphans(&self) -> std::io::Result<()> {
        for shard in self.shards()? {
            for file in fs::read_dir(shard)? {
                let path = file?.path();
                let kind = path.extension().and_then(|kind| kind.to_str());
                if matches!(kind, Some("bao" | "meta")) && !path.with_extension("").exists() {
                    remove(&path)?;
                }
            }
        }
        Ok(())
    }
}

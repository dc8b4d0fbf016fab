//! Bytes from this machine: copied in, digested, and given their tree.

use std::{
    fs::File,
    io::{BufReader, Read, Write as _},
    path::Path,
    sync::atomic::Ordering,
};

use bao_tree::io::sync::outboard;
use realm_manifest::identity::{Artifact, Hash};
use sha2::{Digest as _, Sha256};

use super::{
    BlobError, Blobs,
    files::{COPY_BYTES, digest_of, private_file, remove_partial, with},
    room::{IMPORT, Wanted},
    tree::{board, geometry},
};

/// Room is taken in steps of this many bytes: how many come is not known before.
const STEP_BYTES: u64 = 4 * 1024 * 1024;

impl Blobs {
    /// Takes the bytes of `reader`, at most `max` of them.
    pub fn import(&self, mut reader: impl Read, max: u64) -> Result<Artifact, BlobError> {
        let number = self.imports.fetch_add(1, Ordering::Relaxed);
        let base = self.dir.join("partial").join(format!("{IMPORT}{number}"));
        let result = self
            .copy_in(&mut reader, &base, number, max)
            .and_then(|(file, artifact)| self.adopt(&base, &file, artifact));
        self.desk().imports.remove(&number);
        // Nothing is left where it succeeded. The first error is the one to report, and the
        // next start removes what stays.
        if let Err(error) = remove_partial(&base) {
            tracing::warn!(%error, "an import left files behind");
        }
        result
    }

    fn copy_in(
        &self,
        reader: &mut impl Read,
        base: &Path,
        number: u64,
        max: u64,
    ) -> Result<(File, Artifact), BlobError> {
        let path = with(base, "data");
        let mut file = private_file(&path).map_err(BlobError::at(&path))?;
        let (mut sha256, mut blake3, mut size) = (Sha256::new(), blake3::Hasher::new(), 0u64);
        let mut buffer = vec![0; COPY_BYTES];
        let mut taken = 0;
        loop {
            let read = reader.read(&mut buffer).map_err(BlobError::at(&path))?;
            if read == 0 {
                break;
            }
            size += read as u64;
            if size > max {
                return Err(BlobError::TooLarge { max });
            }
            if size > taken {
                let step = STEP_BYTES.min(max - taken);
                taken += self.take(number, step, size - taken)?;
            }
            sha256.update(&buffer[..read]);
            blake3.update(&buffer[..read]);
            file.write_all(&buffer[..read])
                .map_err(BlobError::at(&path))?;
        }
        file.sync_all().map_err(BlobError::at(&path))?;
        let artifact = Artifact {
            sha256: Hash::from_bytes(sha256.finalize().into()),
            size,
            blake3: Hash::from_bytes(*blake3.finalize().as_bytes()),
        };
        Ok((file, artifact))
    }

    /// Takes room for `step` bytes where that is free, and otherwise makes room for `needed`:
    /// nothing is removed for bytes that may not come.
    fn take(&self, number: u64, step: u64, needed: u64) -> Result<u64, BlobError> {
        let mut desk = self.desk();
        let taken = if self.is_free(&desk, &Wanted::new(step))? {
            step
        } else {
            self.make_room(&mut desk, &Wanted::new(needed))?;
            needed
        };
        *desk.imports.entry(number).or_default() += taken;
        Ok(taken)
    }

    fn adopt(&self, base: &Path, file: &File, artifact: Artifact) -> Result<Artifact, BlobError> {
        if self.has(&artifact) {
            return Ok(artifact);
        }
        let io_error = BlobError::at(base);
        let mut tree = private_file(&with(base, "bao")).map_err(&io_error)?;
        let data = File::open(with(base, "data")).map_err(&io_error)?;
        outboard(
            BufReader::new(data),
            geometry(&artifact),
            board(&artifact, &mut tree),
        )
        .map_err(&io_error)?;
        tree.sync_all().map_err(&io_error)?;
        let (found, _) = digest_of(&with(base, "data")).map_err(&io_error)?;
        self.promote(base, &artifact, file, found)?;
        Ok(artifact)
    }
}

//! Bytes that somebody sends in order: kept from one try to the next, checked once all are here.

use std::{
    fs::File,
    io::{self, BufReader, Read as _},
    os::unix::fs::FileExt as _,
    path::PathBuf,
    sync::Arc,
};

use bao_tree::io::sync::outboard;
use realm_manifest::identity::{Artifact, Hash};

use super::{
    BlobError, Blobs,
    files::{COPY_BYTES, allocated, digest_of, private_file, remove_partial, with},
    room::{UPLOAD, Wanted},
    tree::{board, geometry},
};

/// An upload under way; dropping it keeps what was received for the next one.
#[derive(Debug)]
pub struct Upload {
    blobs: Arc<Blobs>,
    artifact: Artifact,
    base: PathBuf,
    file: File,
    received: u64,
}

impl Blobs {
    /// Begins or resumes an upload, one at a time for each artifact. None where it is here already.
    pub fn upload(self: &Arc<Self>, artifact: Artifact) -> Result<Option<Upload>, BlobError> {
        if self.has(&artifact) {
            return Ok(None);
        }
        let name = format!("{UPLOAD}{}", artifact.sha256);
        let base = self.dir.join("partial").join(name);
        let path = with(&base, "data");
        let mut desk = self.desk();
        if desk.uploads.contains_key(&artifact.sha256) {
            return Err(BlobError::OtherUpload(artifact.sha256));
        }
        let file = private_file(&path).map_err(BlobError::at(&path))?;
        let metadata = file.metadata().map_err(BlobError::at(&path))?;
        let (mut received, mut held) = (metadata.len(), allocated(&metadata));
        if received > artifact.size {
            file.set_len(0).map_err(BlobError::at(&path))?;
            (received, held) = (0, 0);
        }
        let wanted = Wanted {
            base: Some(&base),
            size: artifact.size,
            budget: artifact.size - received,
            held: held.max(received),
            disk: artifact.size.saturating_sub(held.max(received)),
        };
        if let Err(error) = self.make_room(&mut desk, &wanted) {
            if received == 0 || self.is_too_full() {
                remove_partial(&base).map_err(BlobError::at(&path))?;
            }
            return Err(error);
        }
        if let Err(error) = reserve(&file, artifact.size) {
            remove_partial(&base).map_err(BlobError::at(&path))?;
            return Err(BlobError::at(&path)(error));
        }
        desk.uploads
            .insert(artifact.sha256, artifact.size - received);
        drop(desk);
        Ok(Some(Upload {
            blobs: self.clone(),
            artifact,
            base,
            file,
            received,
        }))
    }
}

impl Upload {
    /// Bytes that are here, from the start on.
    pub const fn received(&self) -> u64 {
        self.received
    }

    /// Takes the bytes at `offset`, which is where the last ones ended. Answers how many are here.
    pub fn write(&mut self, offset: u64, bytes: &[u8]) -> Result<u64, BlobError> {
        let end = offset.saturating_add(bytes.len() as u64);
        if offset != self.received || end > self.artifact.size {
            return Err(BlobError::Order {
                sha256: self.artifact.sha256,
                offset,
                expected: self.received,
            });
        }
        let written = self.file.write_all_at(bytes, offset);
        if let Err(error) = written {
            // Nobody can go on with it now, and what is here may be in others' way.
            self.file.set_len(0).map_err(self.failed())?;
            remove_partial(&self.base).map_err(self.failed())?;
            return Err(self.failed()(error));
        }
        self.received = end;
        let mut desk = self.blobs.desk();
        desk.uploads
            .insert(self.artifact.sha256, self.artifact.size - end);
        Ok(end)
    }

    /// Verifies the whole and moves it to where it can be used. What does not verify is
    /// removed, and what fills the disk.
    pub fn finish(self) -> Result<(), BlobError> {
        let checked = self.check().and_then(|()| self.keep());
        if matches!(
            checked,
            Err(BlobError::Digest { .. } | BlobError::Size { .. } | BlobError::DiskFull { .. })
        ) {
            remove_partial(&self.base).map_err(self.failed())?;
        }
        checked
    }

    /// Makes its tree, and moves both.
    fn keep(&self) -> Result<(), BlobError> {
        let artifact = self.artifact;
        self.file.sync_all().map_err(self.failed())?;
        let mut tree = private_file(&with(&self.base, "bao")).map_err(self.failed())?;
        let data = File::open(with(&self.base, "data")).map_err(self.failed())?;
        outboard(
            BufReader::new(data),
            geometry(&artifact),
            board(&artifact, &mut tree),
        )
        .map_err(self.failed())?;
        tree.sync_all().map_err(self.failed())?;
        let (found, _) = digest_of(&with(&self.base, "data")).map_err(self.failed())?;
        self.blobs
            .promote(&self.base, &artifact, &self.file, found)?;
        Ok(())
    }

    /// Size and BLAKE3; the SHA-256 is checked when it is promoted.
    fn check(&self) -> Result<(), BlobError> {
        if self.received != self.artifact.size {
            return Err(BlobError::Incomplete(self.artifact.sha256));
        }
        let found = blake3_of(&with(&self.base, "data")).map_err(self.failed())?;
        if found == self.artifact.blake3 {
            return Ok(());
        }
        Err(BlobError::Digest {
            found,
            expected: self.artifact.blake3,
        })
    }

    fn failed(&self) -> impl Fn(io::Error) -> BlobError + use<> {
        BlobError::at(&self.base)
    }
}

impl Drop for Upload {
    fn drop(&mut self) {
        self.blobs.desk().uploads.remove(&self.artifact.sha256);
    }
}

/// Takes the disk space of the whole file without changing its length, where the file system can.
fn reserve(file: &File, size: u64) -> io::Result<()> {
    use rustix::{fs::FallocateFlags, io::Errno};

    if size == 0 {
        return Ok(());
    }
    match rustix::fs::fallocate(file, FallocateFlags::KEEP_SIZE, 0, size) {
        Err(Errno::OPNOTSUPP | Errno::NOSYS) | Ok(()) => Ok(()),
        Err(error) => Err(error.into()),
    }
}

fn blake3_of(path: &std::path::Path) -> io::Result<Hash> {
    let mut file = File::open(path)?;
    let (mut blake3, mut buffer) = (blake3::Hasher::new(), vec![0; COPY_BYTES]);
    loop {
        let read = file.read(&mut buffer)?;
        if read == 0 {
            return Ok(Hash::from_bytes(*blake3.finalize().as_bytes()));
        }
        blake3.update(&buffer[..read]);
    }
}

//! The bytes of an artifact: read only while a child takes them, so that what waits holds no memory.

use std::{io, path::PathBuf, sync::Arc};

use sha2::{Digest, Sha256};
use tokio::{
    fs::File,
    io::{AsyncReadExt, AsyncWrite, AsyncWriteExt},
};

use crate::CompileError;

/// Read at once.
const CHUNK_BYTES: usize = 256 * 1024;

#[derive(Debug)]
pub(crate) struct Artifact {
    digest: [u8; 32],
    size: u64,
    source: Source,
}

/// An artifact that nobody has looked for yet.
#[derive(Debug)]
pub(crate) struct Named {
    digest: [u8; 32],
    source: Source,
}

#[derive(Debug)]
enum Source {
    /// Their digest was computed here.
    Bytes(Arc<[u8]>),
    /// Whether they have the digest is found out each time they are read.
    File(PathBuf),
}

impl Named {
    /// `digest` is that of the bytes.
    pub(crate) const fn in_memory(wasm: Arc<[u8]>, digest: [u8; 32]) -> Self {
        let source = Source::Bytes(wasm);
        Self { digest, source }
    }

    /// The file should have this digest.
    pub(crate) const fn in_file(path: PathBuf, digest: [u8; 32]) -> Self {
        let source = Source::File(path);
        Self { digest, source }
    }

    pub(crate) const fn digest(&self) -> &[u8; 32] {
        &self.digest
    }

    /// Asks the disk for the size of a file: not for a thread that does IO.
    pub(crate) fn find(self) -> Result<Artifact, CompileError> {
        let Self { digest, source } = self;
        let size = match &source {
            Source::Bytes(wasm) => wasm.len() as u64,
            Source::File(path) => path.metadata().map_err(CompileError::Read)?.len(),
        };
        Ok(Artifact {
            digest,
            size,
            source,
        })
    }
}

impl Artifact {
    pub(crate) const fn digest(&self) -> &[u8; 32] {
        &self.digest
    }

    pub(crate) const fn size(&self) -> u64 {
        self.size
    }

    /// Hands all bytes over. An error if they are not those of the digest: what was made of them is not to be used.
    pub(crate) async fn feed(
        &self,
        mut child: impl AsyncWrite + Unpin,
    ) -> Result<(), CompileError> {
        match &self.source {
            Source::Bytes(wasm) => {
                // A child that refuses early closes its end: its answer says why.
                let _ = child.write_all(wasm).await;
                Ok(())
            }
            Source::File(path) => {
                let file = File::open(path).await.map_err(CompileError::Read)?;
                let digest = pour(file, child).await.map_err(CompileError::Read)?;
                (digest == self.digest)
                    .then_some(())
                    .ok_or(CompileError::Changed)
            }
        }
    }
}

/// Copies to the end of the file, also past that of a child that refused early, and returns the digest.
async fn pour(mut file: File, mut child: impl AsyncWrite + Unpin) -> io::Result<[u8; 32]> {
    let mut digest = Sha256::new();
    let mut chunk = vec![0; CHUNK_BYTES];
    let mut listens = true;
    loop {
        match file.read(&mut chunk).await? {
            0 => return Ok(digest.finalize().into()),
            count => {
                digest.update(&chunk[..count]);
                listens = listens && child.write_all(&chunk[..count]).await.is_ok();
            }
        }
    }
}

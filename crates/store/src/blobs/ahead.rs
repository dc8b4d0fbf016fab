//! The beginning of a pull, digested and written out while its end is still to come.

use std::{fs::File, io, os::unix::fs::FileExt as _};

use realm_manifest::identity::Hash;
use sha2::{Digest as _, Sha256};

use super::files::COPY_BYTES;

/// What is worth a pass of its own: less would sync more often than it helps.
const STEP_BYTES: u64 = 16 * 1024 * 1024;

#[derive(Debug)]
pub(super) struct Ahead {
    file: File,
    sha256: Sha256,
    upto: u64,
    /// A failed sync is told once by the system, and here until the end of the pull.
    failed: Option<io::Error>,
}

impl Ahead {
    pub fn new(file: File) -> Self {
        Self {
            file,
            sha256: Sha256::new(),
            upto: 0,
            failed: None,
        }
    }

    /// Takes what has come up to `end`, if it is enough to be worth it.
    pub fn go_on(&mut self, end: u64) {
        if end < self.upto + STEP_BYTES || self.failed.is_some() {
            return;
        }
        let went = self.digest(end).and_then(|()| self.file.sync_data());
        self.failed = went.err();
    }

    /// The SHA-256 of all `size` bytes, which are on disk then.
    pub fn finish(&mut self, size: u64) -> io::Result<Hash> {
        if let Some(error) = self.failed.take() {
            return Err(error);
        }
        self.digest(size)?;
        self.file.sync_all()?;
        Ok(Hash::from_bytes(self.sha256.clone().finalize().into()))
    }

    fn digest(&mut self, end: u64) -> io::Result<()> {
        let mut buffer = vec![0; COPY_BYTES];
        while self.upto < end {
            let step = (end - self.upto).min(COPY_BYTES as u64) as usize;
            self.file.read_exact_at(&mut buffer[..step], self.upto)?;
            self.sha256.update(&buffer[..step]);
            self.upto += step as u64;
        }
        Ok(())
    }
}

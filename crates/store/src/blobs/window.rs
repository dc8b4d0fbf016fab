//! A range of a file in memory, until all of it is verified.

use std::{fs::File, io, ops::Range, os::unix::fs::FileExt as _};

use bao_tree::io::sync::WriteAt;

/// A larger write has the kernel take larger pages, which on a virtual machine are those its host took back.
const PIECE: usize = 64 * 1024;

/// Filled from its start on, as a proof goes.
pub(super) struct Window {
    start: u64,
    len: usize,
    bytes: Vec<u8>,
}

impl Window {
    pub fn new(range: Range<u64>) -> Self {
        let len = usize::try_from(range.end - range.start).unwrap_or(usize::MAX);
        Self {
            start: range.start,
            len,
            bytes: Vec::with_capacity(len),
        }
    }

    pub fn write_to(&self, file: &File) -> io::Result<()> {
        let mut at = self.start;
        for piece in self.bytes.chunks(PIECE) {
            file.write_all_at(piece, at)?;
            at += piece.len() as u64;
        }
        Ok(())
    }
}

impl WriteAt for Window {
    fn write_at(&mut self, at: u64, bytes: &[u8]) -> io::Result<usize> {
        let next = self.start + self.bytes.len() as u64;
        if at != next || bytes.len() > self.len - self.bytes.len() {
            return Err(io::Error::new(
                io::ErrorKind::InvalidInput,
                "outside of the range, or out of order",
            ));
        }
        self.bytes.extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

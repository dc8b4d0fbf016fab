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

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use std::io::Read as _;

    use super::*;

    #[test]
    fn what_comes_out_of_order_or_beyond_the_range_is_refused_and_changes_nothing() {
        let mut window = Window::new(100..110);
        let mut write = |at: u64, bytes: &[u8]| window.write_at(at, bytes).ok();
        for (at, bytes) in [(0, "x"), (99, "x"), (101, "x"), (110, "x"), (u64::MAX, "x")] {
            assert_eq!(write(at, bytes.as_bytes()), None, "first at {at}");
        }
        assert_eq!(write(100, b"01234"), Some(5));
        // Again, over what is there, with a gap, and longer than the rest.
        for (at, bytes) in [(100, "01234"), (104, "4"), (106, "6"), (105, "567890")] {
            assert_eq!(write(at, bytes.as_bytes()), None, "{bytes} at {at}");
        }
        assert_eq!(write(105, b"56789"), Some(5));
        assert_eq!(write(110, b"x"), None, "it is full");
        assert_eq!(write(110, b""), Some(0));

        let mut file = tempfile::tempfile().unwrap();
        window.write_to(&file).unwrap();
        let mut written = Vec::new();
        file.read_to_end(&mut written).unwrap();
        assert_eq!(written, [&[0; 100][..], b"0123456789"].concat());
    }
}

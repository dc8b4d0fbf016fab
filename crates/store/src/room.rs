//! Whether a directory takes writes now.

use std::{
    fs::{self, File},
    io::{self, Write as _},
    path::Path,
};

use crate::own;

const NAME: &str = "trial";
const BLOCK: [u8; 4096] = [0; 4096];

/// Writes `bytes` bytes to a file in `dir` and has the disk keep them; nothing of it stays. A quota or
/// a volume that grows may refuse what the file system says is free, so only this tells.
pub fn try_room(dir: &Path, bytes: usize) -> io::Result<()> {
    write(unnamed(dir)?, bytes)
}

/// A file in `dir` without a name: it is gone when it is closed, also when this process is killed.
fn unnamed(dir: &Path) -> io::Result<File> {
    let path = dir.join(NAME);
    let file = own::make(&path, 0o600)?;
    fs::remove_file(&path)?;
    Ok(file)
}

fn write(mut file: File, bytes: usize) -> io::Result<()> {
    let mut left = bytes;
    while left > 0 {
        let now = left.min(BLOCK.len());
        file.write_all(&BLOCK[..now])?;
        left -= now;
    }
    file.sync_all()
}

/// Bytes that are free where `dir` lies; None where the system does not tell.
pub fn free_bytes(dir: &Path) -> Option<u64> {
    disk_room(dir).map(|room| room.free)
}

/// What a file system has, in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct DiskRoom {
    pub total: u64,
    /// What this process may still take.
    pub free: u64,
}

/// The file system where `dir` lies; None where the system does not tell.
pub(crate) fn disk_room(dir: &Path) -> Option<DiskRoom> {
    let room = rustix::fs::statvfs(dir).ok()?;
    Some(DiskRoom {
        total: room.f_blocks.saturating_mul(room.f_frsize),
        free: room.f_bavail.saturating_mul(room.f_frsize),
    })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    #[test]
    fn a_trial_leaves_nothing_and_tells_where_nothing_can_be_written() {
        let dir = tempfile::tempdir().unwrap();
        try_room(dir.path(), 10_000).unwrap();
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 0);
        assert!(free_bytes(dir.path()).is_some());
        let file = unnamed(dir.path()).unwrap();
        assert_eq!(
            fs::read_dir(dir.path()).unwrap().count(),
            0,
            "from the start"
        );
        write(file, 10_000).unwrap();
        let gone = dir.path().join("gone");
        assert!(try_room(&gone, 1).is_err());
        assert_eq!(free_bytes(&gone), None);
    }
}

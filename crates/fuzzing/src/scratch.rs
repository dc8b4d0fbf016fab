//! Directories for the files of one input: in memory where there is such a place, since most of the time
//! would be spent on waiting for a disk.

use std::path::Path;

use tempfile::TempDir;

pub fn dir() -> TempDir {
    let memory = Path::new("/dev/shm");
    let made = if memory.is_dir() {
        tempfile::tempdir_in(memory)
    } else {
        tempfile::tempdir()
    };
    made.expect("a temporary directory")
}

//! A disk of a known size: what is free on it is what the files below the directory leave.

#![allow(clippy::unwrap_used)]

use std::{collections::HashSet, fs, os::unix::fs::FileExt as _, path::Path, sync::Arc};

use realm_manifest::identity::Artifact;

use super::{BlobError, Blobs, disk::reserve, files::allocated};
use crate::room::DiskRoom;

const MIB: u64 = 1024 * 1024;
const DISK: u64 = 8 * MIB;
const BUDGET: u64 = 64 * MIB;

fn small_disk(dir: &Path) -> Option<DiskRoom> {
    fn taken(dir: &Path) -> u64 {
        let files = fs::read_dir(dir).unwrap().map(Result::unwrap);
        let sizes = files.map(|file| match file.file_type().unwrap().is_dir() {
            true => taken(&file.path()),
            false => allocated(&file.metadata().unwrap()),
        });
        sizes.sum()
    }
    Some(DiskRoom {
        total: DISK,
        free: DISK.saturating_sub(taken(dir)),
    })
}

fn store() -> (tempfile::TempDir, Arc<Blobs>) {
    let temp = tempfile::tempdir().unwrap();
    let blobs = Blobs::open_on(temp.path(), BUDGET, small_disk).unwrap();
    (temp, Arc::new(blobs))
}

fn content(mebibytes: u64, seed: u8) -> Vec<u8> {
    (0..mebibytes * MIB)
        .map(|at| (at as u32).wrapping_mul(2_654_435_761).to_be_bytes()[0] ^ seed)
        .collect()
}

fn artifact(mebibytes: u64, seed: u8) -> Artifact {
    Artifact::of(&content(mebibytes, seed))
}

fn refused<T: std::fmt::Debug>(result: Result<T, BlobError>) -> String {
    let error = result.unwrap_err();
    assert!(matches!(error, BlobError::NoRoom { .. }), "{error:?}");
    error.to_string()
}

fn left(blobs: &Blobs) -> usize {
    fs::read_dir(blobs.dir.join("partial")).unwrap().count()
}

#[test]
fn what_stays_free_depends_on_the_file_system() {
    assert_eq!(reserve(8 * MIB), 2 * MIB);
    assert_eq!(reserve(128 * MIB), 8 * MIB);
    assert_eq!(reserve(1024 * 1024 * MIB), 16 * MIB);
}

#[test]
fn what_the_disk_has_no_room_for_is_not_begun_and_leaves_nothing() {
    let (_temp, blobs) = store();
    let words = refused(blobs.begin(artifact(20, 1)));
    assert_eq!(
        words,
        "20 MiB do not fit in the 8 MiB that are free on its disk, of which 2 MiB stay free for the log"
    );
    refused(blobs.upload(artifact(20, 1)));
    refused(blobs.begin(artifact(7, 1)));
    refused(blobs.import(content(7, 1).as_slice(), BUDGET));
    assert_eq!(left(&blobs), 0);
    // What is promised to one is not promised to another.
    let first = blobs.begin(artifact(4, 1)).unwrap();
    refused(blobs.begin(artifact(4, 2)));
    refused(blobs.upload(artifact(4, 2)));
    drop(first);
    let second = blobs.upload(artifact(4, 2)).unwrap().unwrap();
    refused(blobs.begin(artifact(4, 1)));
    drop(second);
}

#[test]
fn what_nothing_needs_goes_for_the_disk_too_but_not_in_vain() {
    let (_temp, blobs) = store();
    let [pinned, loose] = [1, 2].map(|seed| {
        let content = content(2, seed);
        blobs.import(content.as_slice(), BUDGET).unwrap()
    });
    let mut upload = blobs.upload(artifact(1, 3)).unwrap().unwrap();
    upload.write(0, &content(1, 3)).unwrap();
    drop(upload);
    refused(blobs.begin(artifact(3, 4)));
    blobs.pin(HashSet::from([pinned.sha256, artifact(3, 4).sha256]));
    refused(blobs.begin(artifact(6, 4)));
    assert!(blobs.has(&loose), "it would not have helped");
    assert_eq!(left(&blobs), 1);
    let pull = blobs.begin(artifact(3, 4)).unwrap();
    assert!(blobs.has(&pinned) && !blobs.has(&loose));
    drop(pull);
}

#[test]
fn a_pull_that_filled_the_disk_earlier_is_given_back() {
    let (temp, blobs) = store();
    let large = artifact(20, 1);
    // As an earlier version left it.
    let base = blobs.partial_path(&large.sha256);
    super::write_meta(&super::with(&base, "meta"), &large).unwrap();
    let data = super::files::private_file(&super::with(&base, "data")).unwrap();
    data.set_len(large.size).unwrap();
    data.write_all_at(&content(8, 1), 0).unwrap();
    data.sync_all().unwrap();
    drop(data);
    assert_eq!(small_disk(temp.path()).unwrap().free, 0);
    let words = refused(blobs.begin(large));
    assert!(words.contains("in the 8 MiB that are free"), "{words}");
    assert_eq!(left(&blobs), 0);
    assert!(blobs.begin(artifact(5, 2)).is_ok());
}

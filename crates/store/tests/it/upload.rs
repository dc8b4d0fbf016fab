//! Uploads: resumed, bounded, checked as a whole.

use std::sync::Arc;

use realm_manifest::identity::{Artifact, Hash};
use realm_store::{BlobError, Blobs};

use super::blobs::bytes;

const MIB: u64 = 1024 * 1024;

fn store(budget: u64) -> (tempfile::TempDir, Arc<Blobs>) {
    let temp = tempfile::tempdir().unwrap();
    let blobs = Arc::new(Blobs::open(temp.path(), budget).unwrap());
    (temp, blobs)
}

#[test]
fn an_upload_goes_on_where_it_was_also_after_a_restart() {
    let (temp, blobs) = store(64 * MIB);
    let content = bytes(300_000, 1);
    let artifact = Artifact::of(&content);
    let mut upload = blobs.upload(artifact).unwrap().unwrap();
    assert_eq!(upload.write(0, &content[..100_000]).unwrap(), 100_000);
    assert!(matches!(
        blobs.upload(artifact),
        Err(BlobError::OtherUpload(_))
    ));
    assert!(matches!(
        upload.write(0, &content[..1]),
        Err(BlobError::Order { .. })
    ));
    let too_many = vec![0; 300_000];
    assert!(matches!(
        upload.write(100_000, &too_many),
        Err(BlobError::Order { .. })
    ));
    assert!(matches!(upload.finish(), Err(BlobError::Incomplete(_))));

    drop(blobs);
    let blobs = Arc::new(Blobs::open(temp.path(), 64 * MIB).unwrap());
    let mut upload = blobs.upload(artifact).unwrap().unwrap();
    assert_eq!(upload.received(), 100_000);
    upload.write(100_000, &content[100_000..]).unwrap();
    upload.finish().unwrap();
    assert!(blobs.has(&artifact));
    let path = blobs.open_path(&artifact).unwrap();
    assert_eq!(std::fs::read(path).unwrap(), content);
    assert!(blobs.upload(artifact).unwrap().is_none());
    assert_eq!(
        std::fs::read_dir(temp.path().join("partial"))
            .unwrap()
            .count(),
        0
    );
    // What was uploaded is served in verified ranges.
    assert!(
        blobs
            .encode_range(&artifact.sha256, 0, 100)
            .unwrap()
            .is_some()
    );
}

#[test]
fn wrong_bytes_are_refused_and_leave_nothing() {
    let (temp, blobs) = store(64 * MIB);
    let content = bytes(100_000, 1);
    let mut announced = Artifact::of(&content);
    let mut upload = blobs.upload(announced).unwrap().unwrap();
    upload.write(0, &bytes(100_000, 2)).unwrap();
    assert!(matches!(upload.finish(), Err(BlobError::Digest { .. })));
    // The BLAKE3 root fits and the SHA-256 does not.
    announced.sha256 = Hash::of(b"something else");
    let mut upload = blobs.upload(announced).unwrap().unwrap();
    upload.write(0, &content).unwrap();
    assert!(matches!(upload.finish(), Err(BlobError::Digest { .. })));
    assert!(!blobs.has(&announced));
    let left = std::fs::read_dir(temp.path().join("partial")).unwrap();
    assert_eq!(left.count(), 0);
}

#[test]
fn uploads_take_room_before_their_bytes_come() {
    let (_temp, blobs) = store(3 * MIB);
    let (one, two) = (bytes(2 * MIB as usize, 1), bytes(2 * MIB as usize, 2));
    let first = blobs.upload(Artifact::of(&one)).unwrap().unwrap();
    assert!(matches!(
        blobs.upload(Artifact::of(&two)),
        Err(BlobError::Budget { .. })
    ));
    assert_eq!(blobs.used().unwrap(), 2 * MIB);
    drop(first);
    assert!(blobs.upload(Artifact::of(&two)).unwrap().is_some());
}

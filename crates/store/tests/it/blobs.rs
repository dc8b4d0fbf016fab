//! Artifacts: nothing is used, or served, under a digest it does not have.

use proptest::prelude::*;
use realm_manifest::identity::{Artifact, Hash};
use realm_store::{BlobError, Blobs};

const BUDGET: u64 = 64 * 1024 * 1024;

pub fn bytes(len: usize, seed: u8) -> Vec<u8> {
    (0..len)
        .map(|at| (at as u8).wrapping_mul(31).wrapping_add((at / 251) as u8) ^ seed)
        .collect()
}

fn store() -> (tempfile::TempDir, Blobs) {
    let temp = tempfile::tempdir().unwrap();
    let blobs = Blobs::open(temp.path(), BUDGET).unwrap();
    (temp, blobs)
}

/// Pulls everything that is missing from `source`, ranges in the order `order` makes of them.
fn pull(from: &Blobs, to: &Blobs, artifact: Artifact, reverse: bool) {
    let partial = to.begin(artifact).unwrap();
    let mut missing = partial.missing();
    if reverse {
        missing.reverse();
    }
    for range in missing {
        let len = u32::try_from(range.end - range.start).unwrap();
        let encoded = from
            .encode_range(&artifact.sha256, range.start, len)
            .unwrap()
            .unwrap();
        partial.write(range, &encoded).unwrap();
    }
    to.complete(partial).unwrap();
}

#[test]
fn an_artifact_goes_from_node_to_node() {
    for len in [0, 1, 16 * 1024, 16 * 1024 + 1, 3_000_000] {
        let ((_a, from), (_b, to)) = (store(), store());
        let content = bytes(len, 1);
        let artifact = from.import(content.as_slice(), BUDGET).unwrap();
        assert_eq!(artifact, Artifact::of(&content));
        pull(&from, &to, artifact, len % 2 == 1);
        assert!(to.has(&artifact));
        assert_eq!(
            std::fs::read(to.open_path(&artifact).unwrap()).unwrap(),
            content
        );
        let ((_c, third), _) = (store(), ());
        pull(&to, &third, artifact, false);
        assert!(third.has(&artifact));
    }
}

#[test]
fn what_is_digested_ahead_is_what_was_written() {
    const LEN: usize = 30_000_000;
    let ((_a, from), (_b, to)) = (store(), store());
    let artifact = from.import(bytes(LEN, 7).as_slice(), BUDGET).unwrap();
    // The proof of each range holds, the digest of the whole is a lie: told by SHA-256 alone.
    let lie = Artifact {
        sha256: Hash::of(b"x"),
        ..artifact
    };
    for wanted in [artifact, lie] {
        let partial = to.begin(wanted).unwrap();
        let missing = partial.missing();
        let (late, early) = missing.split_at(3);
        // The beginning comes after the rest, so that first nothing can be digested and then all of it.
        for range in early.iter().chain(late) {
            let len = u32::try_from(range.end - range.start).unwrap();
            let encoded = from.encode_range(&artifact.sha256, range.start, len);
            partial
                .write(range.clone(), &encoded.unwrap().unwrap())
                .unwrap();
            partial.go_ahead();
        }
        match to.complete(partial) {
            Ok(_) => assert_eq!(wanted, artifact),
            Err(BlobError::Digest { found, expected }) => {
                assert_eq!((found, expected), (artifact.sha256, lie.sha256));
            }
            Err(error) => panic!("{error}"),
        }
    }
    assert!(to.has(&artifact) && !to.has(&lie));
}

#[test]
fn a_pull_is_resumed_with_what_was_verified() {
    let ((_a, from), (_b, to)) = (store(), store());
    let artifact = from.import(bytes(5_000_000, 2).as_slice(), BUDGET).unwrap();
    let partial = to.begin(artifact).unwrap();
    let missing = partial.missing();
    for range in missing.iter().skip(1) {
        let len = u32::try_from(range.end - range.start).unwrap();
        let encoded = from
            .encode_range(&artifact.sha256, range.start, len)
            .unwrap()
            .unwrap();
        partial.write(range.clone(), &encoded).unwrap();
    }
    drop(partial);
    let partial = to.begin(artifact).unwrap();
    assert_eq!(partial.missing(), missing[..1]);
    assert_eq!(
        partial.received(),
        5_000_000 - (missing[0].end - missing[0].start)
    );
    assert!(matches!(
        to.complete(partial),
        Err(BlobError::Incomplete(_))
    ));
    assert!(!to.has(&artifact));
    pull(&from, &to, artifact, false);
    assert!(to.has(&artifact));
}

#[test]
fn a_source_that_lies_is_noticed_at_once() {
    let (_a, from) = store();
    let artifact = from.import(bytes(200_000, 3).as_slice(), BUDGET).unwrap();
    let encoded = from
        .encode_range(&artifact.sha256, 0, 100_000)
        .unwrap()
        .unwrap();
    for at in (0..encoded.len()).step_by(997) {
        let mut bad = encoded.clone();
        bad[at] ^= 1;
        let (_b, to) = store();
        let partial = to.begin(artifact).unwrap();
        assert!(
            matches!(
                partial.write(0..100_000, &bad),
                Err(BlobError::Range { .. })
            ),
            "byte {at}"
        );
        assert!(partial.write(0..100_000, &encoded[..at]).is_err());
        assert_eq!(partial.received(), 0);
    }
    let (_b, to) = store();
    let partial = to.begin(artifact).unwrap();
    assert!(
        partial
            .write(0..100_000, &[encoded.as_slice(), b"more"].concat())
            .is_err()
    );
    assert!(partial.write(0..300_000, &encoded).is_err());
    assert!(from.encode_range(&artifact.sha256, 0, 2_000_000).is_err());
    assert!(from.encode_range(&artifact.sha256, u64::MAX, 1).is_err());
    assert!(
        from.encode_range(&Hash::of(b"other"), 0, 1)
            .unwrap()
            .is_none()
    );
}

#[test]
fn a_descriptor_whose_digests_disagree_never_becomes_an_artifact() {
    let ((_a, from), (_b, to)) = (store(), store());
    let real = from.import(bytes(50_000, 4).as_slice(), BUDGET).unwrap();
    // The tree is right, the digest that people see is another file's.
    let lie = Artifact {
        sha256: Hash::of(b"what was signed"),
        ..real
    };
    let partial = to.begin(lie).unwrap();
    let encoded = from.encode_range(&real.sha256, 0, 50_000).unwrap().unwrap();
    partial.write(0..50_000, &encoded).unwrap();
    assert!(matches!(
        to.complete(partial),
        Err(BlobError::Digest { .. })
    ));
    assert!(!to.has(&lie));
    assert!(matches!(to.open_path(&lie), Err(BlobError::NotFound(_))));
}

#[test]
fn bytes_that_rot_on_disk_are_neither_used_nor_served() {
    let (temp, blobs) = store();
    let artifact = blobs.import(bytes(100_000, 5).as_slice(), BUDGET).unwrap();
    let path = blobs.open_path(&artifact).unwrap();
    let whole = std::fs::read(&path).unwrap();
    let mut content = whole.clone();
    content[77_000] ^= 1;
    std::fs::write(&path, &content).unwrap();
    assert!(matches!(
        blobs.open_path(&artifact),
        Err(BlobError::Digest { .. })
    ));
    assert!(
        !blobs.has(&artifact),
        "what rotted is gone, so that it is pulled again"
    );
    // Also where a peer is the first to notice.
    assert_eq!(blobs.import(&whole[..], BUDGET).unwrap(), artifact);
    blobs.open_path(&artifact).unwrap();
    std::fs::write(&path, &content).unwrap();
    let served = blobs.encode_range(&artifact.sha256, 65_536, 32_768);
    assert!(matches!(served, Err(BlobError::Digest { .. })));
    assert!(!blobs.has(&artifact));
    drop(temp);
}

/// Of each byte of the tree and of the description one bit, and each file cut short or gone.
#[test]
fn a_tree_that_rots_is_made_again_and_a_description_is_fetched_again() {
    let (temp, blobs) = store();
    let whole = bytes(100_000, 5);
    let artifact = blobs.import(&whole[..], BUDGET).unwrap();
    let path = blobs.open_path(&artifact).unwrap();
    for kind in ["bao", "meta"] {
        let file = path.with_extension(kind);
        let good = std::fs::read(&file).unwrap();
        let flipped = (0..good.len()).map(|at| {
            let mut bad = good.clone();
            bad[at] ^= 1 << (at % 8);
            Some(bad)
        });
        let cut = [
            Some(good[..good.len() / 2].to_vec()),
            Some(Vec::new()),
            None,
        ];
        for bad in flipped.chain(cut) {
            match &bad {
                Some(bad) => std::fs::write(&file, bad).unwrap(),
                None => std::fs::remove_file(&file).unwrap(),
            }
            let served = blobs.encode_range(&artifact.sha256, 0, 100_000);
            if kind == "bao" {
                assert!(served.unwrap().is_some(), "{bad:?}");
                assert_eq!(std::fs::read(&file).unwrap(), good);
                continue;
            }
            assert!(!matches!(served, Ok(Some(_))), "{bad:?}");
            assert!(!blobs.has(&artifact), "{bad:?}");
            assert_eq!(blobs.import(&whole[..], BUDGET).unwrap(), artifact);
            assert_eq!(std::fs::read(&file).unwrap(), good);
        }
        assert_eq!(blobs.open_path(&artifact).unwrap(), path);
    }
    let left = std::fs::read_dir(temp.path().join("partial")).unwrap();
    assert_eq!(left.count(), 0);
}

#[test]
fn what_a_crash_left_of_an_artifact_goes_at_the_next_start() {
    let (temp, blobs) = store();
    let artifact = blobs.import(&b"an artifact"[..], BUDGET).unwrap();
    let path = blobs.open_path(&artifact).unwrap();
    // Killed before its bytes had their name, or after they were removed.
    let shard = path.parent().unwrap();
    let orphan = shard.join(Hash::of(b"another").to_string());
    std::fs::write(orphan.with_extension("bao"), "tree").unwrap();
    std::fs::write(orphan.with_extension("meta"), "meta").unwrap();
    drop(blobs);
    let blobs = Blobs::open(temp.path(), BUDGET).unwrap();
    assert_eq!(std::fs::read_dir(shard).unwrap().count(), 3);
    assert!(blobs.has(&artifact));
    blobs.open_path(&artifact).unwrap();
}

#[test]
fn two_pulls_of_one_artifact_share_what_they_have() {
    let ((_a, from), (_b, to)) = (store(), store());
    let artifact = from.import(bytes(3_000_000, 6).as_slice(), BUDGET).unwrap();
    let mut one = to.begin(artifact).unwrap();
    let mut two = to.begin(artifact).unwrap();
    let ranges = one.missing();
    let encoded = |range: &std::ops::Range<u64>| {
        let len = u32::try_from(range.end - range.start).unwrap();
        from.encode_range(&artifact.sha256, range.start, len)
            .unwrap()
            .unwrap()
    };
    for (number, range) in ranges.iter().enumerate() {
        let writer = if number % 2 == 0 { &mut one } else { &mut two };
        writer.write(range.clone(), &encoded(range)).unwrap();
        assert_eq!(one.missing(), two.missing());
    }
    let third = to.begin(artifact).unwrap();
    let path = to.complete(one).unwrap();
    assert!(third.missing().is_empty());
    // The others are told the same, and change nothing any more.
    two.write(ranges[0].clone(), &encoded(&ranges[0])).unwrap();
    assert_eq!(to.complete(two).unwrap(), path);
    assert_eq!(to.complete(third).unwrap(), path);
    assert_eq!(Artifact::of(&std::fs::read(path).unwrap()), artifact);

    let under_way = to.begin(Artifact::of(b"x")).unwrap();
    let other = Artifact {
        size: 2,
        ..Artifact::of(b"x")
    };
    assert!(matches!(to.begin(other), Err(BlobError::OtherPull(_))));
    drop(under_way);
    to.begin(other).unwrap();
}

#[test]
fn an_import_during_a_pull_of_the_same_harms_neither() {
    let ((_a, from), (_b, to)) = (store(), store());
    let content = bytes(100_000, 6);
    let artifact = from.import(content.as_slice(), BUDGET).unwrap();
    let pull = to.begin(artifact).unwrap();
    let encoded = from
        .encode_range(&artifact.sha256, 0, 100_000)
        .unwrap()
        .unwrap();
    to.import(content.as_slice(), BUDGET).unwrap();
    pull.write(0..100_000, &encoded).unwrap();
    let path = to.complete(pull).unwrap();
    assert_eq!(std::fs::read(path).unwrap(), content);
    assert!(to.open_path(&artifact).is_ok());
    assert_eq!(to.used().unwrap(), 100_000);
}

#[test]
fn an_empty_artifact_with_another_root_is_refused() {
    let (_temp, to) = store();
    let empty = Artifact::of(b"");
    let root = Artifact {
        blake3: Hash::of(b"x"),
        ..empty
    };
    let digest = Artifact {
        sha256: Hash::of(b"x"),
        ..empty
    };
    for lie in [root, digest] {
        assert!(matches!(to.begin(lie), Err(BlobError::Digest { .. })));
        assert!(!to.has(&lie));
    }
    let partial = to.begin(empty).unwrap();
    to.complete(partial).unwrap();
    assert!(to.has(&empty));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    #[test]
    fn any_range_verifies(len in 1usize..200_000, a in 0u64..200_000, b in 1u64..100_000) {
        let (_temp, blobs) = store();
        let artifact = blobs.import(bytes(len, 9).as_slice(), BUDGET).unwrap();
        let start = a % len as u64;
        let end = (start + b).min(len as u64);
        let encoded = blobs.encode_range(&artifact.sha256, start, (end - start) as u32).unwrap().unwrap();
        let ((_t, to), _) = (store(), ());
        let partial = to.begin(artifact).unwrap();
        partial.write(start..end, &encoded).unwrap();
        prop_assert!(partial.received() >= end - start);
    }
}

//! A real file system that has no more room: a limit on the size of files, in a child process,
//! because a limit cannot be had for one test alone.

use std::{path::Path, process::Command};

use realm_manifest::identity::Artifact;
use realm_store::{BlobError, Blobs, Ledger, LedgerError, Op};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use super::{batch, blobs::bytes, chain, genesis};

const DIR: &str = "REALM_TEST_FULL_DIR";

/// Files may have this many bytes from now on; None lifts the limit.
fn limit(bytes: Option<u64>) {
    let maximum = getrlimit(Resource::Fsize).maximum;
    let current = bytes.or(maximum);
    setrlimit(Resource::Fsize, Rlimit { current, maximum }).unwrap();
}

/// Runs `test` of this module in a child that outlives SIGXFSZ.
fn in_child(test: &str) {
    let temp = tempfile::tempdir().unwrap();
    let output = Command::new("sh")
        .args(["-c", "trap '' XFSZ; exec \"$0\" --exact \"$1\" --nocapture"])
        .arg(std::env::current_exe().unwrap())
        .arg(format!("full::{test}"))
        .env(DIR, temp.path())
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(
        output.status.success() && text.contains("went on after all"),
        "{text}{}",
        String::from_utf8_lossy(&output.stderr)
    );
}

#[test]
fn a_ledger_on_a_full_disk_reads_and_then_writes_again() {
    in_child("child_with_a_ledger");
}

#[test]
fn a_pull_on_a_full_disk_says_so_and_is_begun_anew_later() {
    in_child("child_with_artifacts");
}

/// Not a test of its own, without the directory that its parent gives.
#[test]
fn child_with_a_ledger() {
    let Some(dir) = std::env::var_os(DIR) else {
        return;
    };
    let path = Path::new(&dir).join("ledger.redb");
    let mut ledger = Ledger::open(&path).unwrap();
    ledger
        .commit(&[Op::Genesis {
            wire: genesis().to_wire(),
        }])
        .unwrap();
    let entries = chain(2);
    ledger.commit(&batch(&entries[0])).unwrap();
    let before = ledger.load().unwrap();
    // More than the file has room for as it is.
    let report = |seen_ms| Op::Report {
        node: [9; 32],
        seen_ms,
        wire: vec![7; 16 * 1024 * 1024],
    };
    limit(Some(path.metadata().unwrap().len()));
    for _ in 0..3 {
        let error = ledger.commit(&[report(1)]).unwrap_err();
        assert!(matches!(error, LedgerError::Full(_)), "{error:?}");
        assert_eq!(ledger.load().unwrap(), before);
    }
    // What fits is still written.
    ledger.commit(&batch(&entries[1])).unwrap();
    limit(None);
    ledger.commit(&[report(2)]).unwrap();
    drop(ledger);
    let after = Ledger::open(&path).unwrap().load().unwrap();
    assert_eq!((after.entries.len(), after.reports.len()), (2, 1));
    println!("went on after all");
}

/// Not a test of its own, without the directory that its parent gives.
#[test]
fn child_with_artifacts() {
    let Some(dir) = std::env::var_os(DIR) else {
        return;
    };
    let dir = Path::new(&dir);
    let budget = 64 * 1024 * 1024;
    let from = Blobs::open(&dir.join("from"), budget).unwrap();
    let to = Blobs::open(&dir.join("to"), budget).unwrap();
    let content = bytes(3_000_000, 1);
    let artifact = from.import(content.as_slice(), budget).unwrap();
    let full = |error: BlobError| {
        assert!(matches!(error, BlobError::DiskFull { .. }), "{error:?}");
        let text = error.to_string();
        for words in ["the disk is full at", "to/partial", "free space"] {
            assert!(text.contains(words), "{text}");
        }
    };
    limit(Some(1_500_000));
    full(
        to.import(bytes(2_000_000, 2).as_slice(), budget)
            .unwrap_err(),
    );
    full(to.begin(artifact).unwrap_err());
    limit(None);
    let partial = to.begin(artifact).unwrap();
    limit(Some(1_500_000));
    let ranges = partial.missing();
    let encoded = |range: &std::ops::Range<u64>| {
        let len = u32::try_from(range.end - range.start).unwrap();
        from.encode_range(&artifact.sha256, range.start, len)
            .unwrap()
            .unwrap()
    };
    partial
        .write(ranges[0].clone(), &encoded(&ranges[0]))
        .unwrap();
    let last = ranges.last().unwrap();
    // The sender is not to blame. What was received is given back: the log may need the room.
    let other = to.begin(artifact).unwrap();
    full(partial.write(last.clone(), &encoded(last)).unwrap_err());
    let left = || std::fs::read_dir(dir.join("to/partial")).unwrap().count();
    assert_eq!((left(), to.used().unwrap()), (0, 0));
    let ended = to.complete(other).unwrap_err();
    assert!(matches!(ended, BlobError::PullEnded(_)), "{ended:?}");
    limit(None);
    let partial = to.begin(artifact).unwrap();
    assert_eq!(partial.received(), 0);
    for range in &ranges {
        partial.write(range.clone(), &encoded(range)).unwrap();
    }
    let path = to.complete(partial).unwrap();
    assert_eq!(Artifact::of(&std::fs::read(path).unwrap()), artifact);
    println!("went on after all");
}

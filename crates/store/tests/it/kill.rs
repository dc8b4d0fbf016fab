//! Real processes below strace: killed at every system call that writes the ledger, and
//! watched for what they sync.

use std::{
    io::{BufRead as _, BufReader, Write as _},
    path::Path,
    process::{Command, Stdio},
};

use realm_manifest::identity::Artifact;
use realm_store::{Blobs, Ledger, LedgerError, Op};

use super::{
    batch, chain, genesis,
    strace::{Fault, Point, has_strace, strace},
};

const DIR: &str = "REALM_TEST_LEDGER_DIR";
const ENTRIES: u64 = 5;

/// Not a test of its own: the process that [`killed_at_every_write`] kills.
#[test]
fn child_that_appends() {
    let Some(dir) = std::env::var_os(DIR) else {
        return;
    };
    let mut ledger = Ledger::open(&Path::new(&dir).join("ledger.redb")).unwrap();
    let mut out = std::io::stdout().lock();
    ledger
        .commit(&[Op::Genesis {
            wire: genesis().to_wire(),
        }])
        .unwrap();
    for entry in chain(ENTRIES) {
        ledger.commit(&batch(&entry)).unwrap();
        writeln!(out, "acknowledged {}", entry.seq).unwrap();
        out.flush().unwrap();
    }
}

/// Runs the child below strace, which kills it at the `nth` call of `call`. Answers with the
/// highest acknowledged revision, and whether the child came to its end.
fn run_and_kill(dir: &Path, call: &str, nth: u32) -> (u64, bool) {
    let point = Point {
        call,
        nth,
        path: None,
        fault: Fault::Kill,
    };
    let mut child = strace(std::env::current_exe().unwrap(), &point)
        .args(["--exact", "kill::child_that_appends", "--nocapture"])
        .env(DIR, dir)
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let lines = BufReader::new(child.stdout.take().unwrap()).lines();
    let acknowledged = lines
        .map_while(Result::ok)
        .filter_map(|line| line.split("acknowledged ").nth(1)?.trim().parse().ok())
        .max()
        .unwrap_or(0);
    (acknowledged, child.wait().unwrap().success())
}

/// Not a test of its own: the process that [`a_new_shard_lasts`] watches.
#[test]
fn child_that_imports() {
    let Some(dir) = std::env::var_os(DIR) else {
        return;
    };
    let blobs = Blobs::open(Path::new(&dir), 1_000_000).unwrap();
    blobs.import(&b"an artifact"[..], 1_000_000).unwrap();
}

/// A shard whose name is not synced may be gone after a power cut, and what is in it too.
#[test]
fn a_new_shard_lasts() {
    if !has_strace() {
        crate::skipped::skipped("strace is not installed");
        return;
    }
    let temp = tempfile::tempdir().unwrap();
    let synced = || {
        let trace = temp.path().join("trace");
        let status = Command::new("strace")
            .args(["-f", "-qq", "-y", "-e", "trace=fsync", "-o"])
            .arg(&trace)
            .arg(std::env::current_exe().unwrap())
            .args(["--exact", "kill::child_that_imports"])
            .env(DIR, temp.path().join("data"))
            .stdout(Stdio::null())
            .status();
        assert!(status.unwrap().success());
        let text = std::fs::read_to_string(trace).unwrap();
        let shard = Artifact::of(b"an artifact").sha256.to_string()[..2].to_owned();
        ["/blobs>".to_owned(), format!("/blobs/{shard}>")]
            .map(|name| text.lines().filter(|line| line.contains(&name)).count())
    };
    // The shard once for its tree and description, and once for the bytes, which say that all is here.
    assert_eq!(synced(), [1, 2]);
    // It is here already: nothing new to sync.
    assert_eq!(synced(), [0, 0]);
}

#[test]
fn killed_at_every_write() {
    if !has_strace() {
        crate::skipped::skipped(
            "strace is not installed; `faults` covers the same points in memory",
        );
        return;
    }
    let mut kills = 0;
    for call in [
        "pwrite64",
        "fdatasync",
        "fsync",
        "ftruncate",
        "fallocate",
        "rename",
    ] {
        for nth in 1..200 {
            let temp = tempfile::tempdir().unwrap();
            let (acknowledged, ended) = run_and_kill(temp.path(), call, nth);
            let path = temp.path().join("ledger.redb");
            let mark = temp.path().join("ledger.mark");
            if path.exists() {
                assert!(
                    mark.exists(),
                    "killed at {call} {nth}: a ledger without a mark"
                );
                let ledger = Ledger::open(&path)
                    .unwrap_or_else(|error| panic!("killed at {call} {nth}: {error:?}"));
                let contents = ledger.load().unwrap();
                let found = contents.entries.len() as u64;
                assert!(
                    found >= acknowledged,
                    "killed at {call} {nth}: {found} of {acknowledged}"
                );
                assert!(contents.entries.iter().all(|item| item.payload.is_some()));
                drop(ledger);
                if acknowledged > 0 {
                    // The mark knows, whatever moment it was.
                    std::fs::remove_file(&path).unwrap();
                    let error = Ledger::open(&path).unwrap_err();
                    let known = match error {
                        LedgerError::Gone { acknowledged, .. } => acknowledged,
                        other => panic!("killed at {call} {nth}: {other}"),
                    };
                    assert_eq!(known, found, "killed at {call} {nth}");
                }
            } else {
                assert_eq!(acknowledged, 0);
            }
            if ended {
                break;
            }
            kills += 1;
        }
    }
    assert!(kills > 10, "{kills} kills are too few to mean much");
}

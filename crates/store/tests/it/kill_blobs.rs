//! Artifacts and state files of a real process that is killed at every system call that writes them.

use std::{
    collections::{BTreeMap, BTreeSet, HashSet},
    io::{BufRead as _, BufReader, Write as _},
    path::{Path, PathBuf},
    process::Stdio,
    sync::Arc,
};

use realm_manifest::identity::Artifact;
use realm_store::{Blobs, DataDir, StateFile};

use super::{
    blobs::bytes,
    strace::{Fault, Point, has_strace, strace},
    synced::{traced, unsafe_names},
};

const DIR: &str = "REALM_TEST_BLOBS_DIR";
/// Of each artifact.
const SIZE: usize = 40 * 1024;
/// Room for three of them: the fourth takes the place of what is not wanted any more.
const BUDGET: u64 = 3 * SIZE as u64 + 1024;
const WRITES: u64 = 2;

/// What the child brings, in this order.
const UPLOADED: u8 = 1;
const PULLED: u8 = 2;
const IMPORTED: u8 = 3;
const LAST: u8 = 4;

fn content(seed: u8) -> Vec<u8> {
    bytes(SIZE, seed)
}

fn artifact(seed: u8) -> Artifact {
    Artifact::of(&content(seed))
}

fn acknowledge(what: &str, number: u64) {
    let mut out = std::io::stdout().lock();
    writeln!(out, "acknowledged {what} {number}").unwrap();
    out.flush().unwrap();
}

fn upload(blobs: &Arc<Blobs>, seed: u8) {
    let content = content(seed);
    if let Some(mut upload) = blobs.upload(artifact(seed)).unwrap() {
        while upload.received() < content.len() as u64 {
            let from = upload.received() as usize;
            let to = (from + SIZE / 2).min(content.len());
            upload.write(from as u64, &content[from..to]).unwrap();
        }
        upload.finish().unwrap();
    }
}

fn pull(blobs: &Blobs, source: &Blobs, seed: u8) {
    let artifact = artifact(seed);
    if blobs.has(&artifact) {
        return;
    }
    let partial = blobs.begin(artifact).unwrap();
    for range in partial.missing() {
        let mut at = range.start;
        // In two pieces, so that it may be cut short between them.
        for end in [range.start + 16 * 1024, range.end] {
            let end = end.min(range.end);
            if at < end {
                let len = u32::try_from(end - at).unwrap();
                let encoded = source.encode_range(&artifact.sha256, at, len).unwrap();
                partial.write(at..end, &encoded.unwrap()).unwrap();
            }
            at = end;
        }
    }
    blobs.complete(partial).unwrap();
}

/// Not a test of its own: the process that [`killed_while_it_keeps_artifacts`] kills. What an earlier one did
/// is done already.
#[test]
fn child_that_keeps_artifacts() {
    let Some(dir) = std::env::var_os(DIR).map(PathBuf::from) else {
        return;
    };
    let source = Blobs::open(&dir.join("source"), u64::MAX).unwrap();
    let data = DataDir::open(&dir.join("data")).unwrap();
    let file = data.state_file("floor");
    let known = file.read().unwrap().map_or(0, number);
    for number in known + 1..=known + WRITES {
        file.write(&number.to_be_bytes()).unwrap();
        acknowledge("number", number);
    }
    let blobs = Arc::new(Blobs::open(data.path(), BUDGET).unwrap());
    blobs.pin(wanted(&[UPLOADED, PULLED, IMPORTED, LAST]));
    if !blobs.has(&artifact(IMPORTED)) {
        upload(&blobs, UPLOADED);
        acknowledge("artifact", UPLOADED.into());
        pull(&blobs, &source, PULLED);
        acknowledge("artifact", PULLED.into());
        let imported = blobs.import(&content(IMPORTED)[..], SIZE as u64).unwrap();
        assert_eq!(imported, artifact(IMPORTED));
        acknowledge("artifact", IMPORTED.into());
    }
    // From now on the first ones may go.
    acknowledge("unpinned", 0);
    blobs.pin(wanted(&[IMPORTED, LAST]));
    upload(&blobs, LAST);
    acknowledge("artifact", LAST.into());
}

fn wanted(seeds: &[u8]) -> HashSet<realm_manifest::identity::Hash> {
    seeds.iter().map(|seed| artifact(*seed).sha256).collect()
}

fn number(bytes: Vec<u8>) -> u64 {
    u64::from_be_bytes(bytes.try_into().unwrap())
}

/// What the child said that it has, and whether it came to its end.
fn run(dir: &Path, point: Option<Point<'_>>) -> (BTreeMap<String, BTreeSet<u64>>, bool) {
    let program = std::env::current_exe().unwrap();
    let mut command = match point {
        Some(point) => strace(program, &point),
        None => std::process::Command::new(program),
    };
    let mut child = command
        .args([
            "--exact",
            "kill_blobs::child_that_keeps_artifacts",
            "--nocapture",
        ])
        .env(DIR, dir)
        .stdout(Stdio::piped())
        .stderr(if point.is_some() {
            Stdio::null()
        } else {
            Stdio::inherit()
        })
        .spawn()
        .unwrap();
    let mut said: BTreeMap<String, BTreeSet<u64>> = BTreeMap::new();
    for line in BufReader::new(child.stdout.take().unwrap()).lines() {
        let line = line.unwrap();
        if let Some((_, rest)) = line.split_once("acknowledged ")
            && let Some((what, number)) = rest.split_once(' ')
        {
            let number = number.trim().parse().unwrap();
            said.entry(what.to_owned()).or_default().insert(number);
        }
    }
    (said, child.wait().unwrap().success())
}

/// Every file below a directory, by name.
pub fn files(dir: &Path) -> Vec<PathBuf> {
    let Ok(entries) = std::fs::read_dir(dir) else {
        return Vec::new();
    };
    let mut found = Vec::new();
    for entry in entries {
        let path = entry.unwrap().path();
        if path.is_dir() {
            found.extend(files(&path));
        } else {
            found.push(path);
        }
    }
    found.sort();
    found
}

/// Whatever is there is whole, and can be proven to others; nothing else is left of it.
fn check_artifacts(data: &Path, said: &BTreeMap<String, BTreeSet<u64>>, context: &str) {
    let blobs = Blobs::open(data, BUDGET).unwrap_or_else(|error| panic!("{context}: {error}"));
    let none = BTreeSet::new();
    let acknowledged = said.get("artifact").unwrap_or(&none);
    let unpinned = said.contains_key("unpinned");
    for seed in [UPLOADED, PULLED, IMPORTED, LAST] {
        let artifact = artifact(seed);
        let has = blobs.has(&artifact);
        let may_go = unpinned && [UPLOADED, PULLED].contains(&seed);
        if acknowledged.contains(&seed.into()) && !may_go {
            assert!(
                has,
                "{context}: artifact {seed} was acknowledged and is gone"
            );
        }
        if has {
            let path = blobs.open_path(&artifact);
            let path = path.unwrap_or_else(|error| panic!("{context}: {error}"));
            assert_eq!(std::fs::read(path).unwrap(), content(seed), "{context}");
            let proven = blobs.encode_range(&artifact.sha256, 0, SIZE as u32);
            proven.unwrap_or_else(|error| panic!("{context}: {error}"));
        }
    }
    for path in files(&data.join("blobs")) {
        let bytes = path.with_extension("");
        assert!(
            path.extension().is_none() || bytes.exists(),
            "{context}: {} is left",
            path.display()
        );
    }
    for path in files(&data.join("partial")) {
        let name = path.file_name().unwrap().to_string_lossy().into_owned();
        assert!(!name.starts_with("import-"), "{context}: {name} is left");
    }
}

/// Does `fault` at every one of `calls`, and answers how many there were.
fn at_every(calls: &[&'static str], fault: Fault) -> u32 {
    let scene = tempfile::tempdir().unwrap();
    let source = Blobs::open(&scene.path().join("source"), u64::MAX).unwrap();
    source.import(&content(PULLED)[..], u64::MAX).unwrap();
    let mut points = BTreeMap::new();
    for call in calls {
        for nth in 1..400 {
            let temp = tempfile::tempdir().unwrap();
            let there = temp.path().join("source");
            std::os::unix::fs::symlink(scene.path().join("source"), there).unwrap();
            let point = Point {
                call,
                nth,
                path: None,
                fault,
            };
            let (said, ended) = run(temp.path(), Some(point));
            if ended {
                break;
            }
            *points.entry(call).or_insert(0) += 1;
            check(temp.path(), &said, &format!("{fault:?} at {call} {nth}"));
        }
    }
    eprintln!("{fault:?} at {points:?}");
    points.values().sum()
}

/// What is there after the cut, and that it goes on by itself and leaves nothing of the cut behind.
fn check(dir: &Path, said: &BTreeMap<String, BTreeSet<u64>>, context: &str) {
    let data = dir.join("data");
    if !data.exists() {
        return;
    }
    check_artifacts(&data, said, context);
    let floor = StateFile::new(data.join("floor"));
    let known = floor.read();
    let known = known.unwrap_or_else(|error| panic!("{context}: {error}"));
    let known = known.map_or(0, number);
    let last = said.get("number").and_then(|numbers| numbers.last());
    let last = last.copied().unwrap_or(0);
    assert!(
        known == last || known == last + 1,
        "{context}: {known}, {last} was acknowledged"
    );
    let (said, ended) = run(dir, None);
    assert!(ended, "{context}: it does not go on");
    check_artifacts(&data, &said, context);
    let left = files(&data.join("partial"));
    assert!(left.is_empty(), "{context}: {left:?}");
    assert!(!data.join("floor.new").exists(), "{context}");
}

#[test]
fn killed_while_it_keeps_artifacts() {
    if !has_strace() {
        crate::skipped::skipped("strace is not installed");
        return;
    }
    // Every call that changes what is on disk, as the child makes them.
    let calls = [
        "write",
        "pwrite64",
        "fsync",
        "ftruncate",
        "fallocate",
        "rename",
        "unlink",
        "mkdir",
    ];
    let kills = at_every(&calls, Fault::Kill);
    assert!(kills > 60, "{kills} are too few to mean much");
}

#[test]
fn a_disk_that_fails_once_while_it_keeps_artifacts() {
    if !has_strace() {
        crate::skipped::skipped("strace is not installed");
        return;
    }
    let failed = at_every(&["fsync", "rename"], Fault::Error("EIO"));
    let full = ["pwrite64", "ftruncate", "fallocate", "mkdir"];
    let full = at_every(&full, Fault::Error("ENOSPC"));
    assert!(failed > 20 && full > 20, "{failed} and {full} are too few");
}

/// A kill leaves what was written in the page cache; a power cut does not.
#[test]
fn what_is_kept_is_synced_before_it_is_acknowledged() {
    if !has_strace() {
        crate::skipped::skipped("strace is not installed");
        return;
    }
    let temp = tempfile::tempdir().unwrap();
    let source = Blobs::open(&temp.path().join("source"), u64::MAX).unwrap();
    source.import(&content(PULLED)[..], u64::MAX).unwrap();
    let trace = temp.path().join("trace");
    let status = traced(std::env::current_exe().unwrap(), &trace)
        .args(["--exact", "kill_blobs::child_that_keeps_artifacts"])
        .env(DIR, temp.path())
        .stdout(Stdio::null())
        .status();
    assert!(status.unwrap().success());
    let trace = std::fs::read_to_string(trace).unwrap();
    // Who holds the lock is a courtesy.
    let found = unsafe_names(&trace, &temp.path().join("data"), &["lock"]);
    assert!(found.is_empty(), "{found:#?}");
    // The check sees something at all.
    let without: String = trace
        .lines()
        .filter(|line| !line.contains("fsync("))
        .map(|line| format!("{line}\n"))
        .collect();
    let found = unsafe_names(&without, &temp.path().join("data"), &["lock"]);
    assert!(found.len() > 10, "{found:#?}");
}

//! Compiled code on disk: within its bytes, and only what this node wrote.

use std::{
    collections::BTreeSet,
    fs,
    os::unix::fs::{MetadataExt, PermissionsExt, symlink},
    path::{Path, PathBuf},
    time::{Duration, SystemTime},
};

use realm_runtime::{
    CellConfig, CompileError, CompilerConfig, Flavour, LogRing, PrepareError, Prepared, Runtime,
    RuntimeConfig, Stdio,
};

use crate::scene::{child, until, wasm};

const PLENTY: u64 = 1 << 30;

fn runtime(dir: &Path, bytes: u64, compiler: PathBuf) -> Runtime {
    let mut config = RuntimeConfig::new(
        dir.into(),
        [7; 32],
        CompilerConfig::new(compiler, Vec::new()),
    );
    config.cache_bytes = bytes;
    config.max_cells = 4;
    config.guest_threads = 1;
    Runtime::new(config).unwrap()
}

/// One of several programs that differ.
fn program(number: u32) -> String {
    format!(
        r#"(module (func (export "_start") (loop br 0)) (func (export "n") (result i32) (i32.const {number})))"#
    )
}

async fn prepare(runtime: &Runtime, number: u32) -> Prepared {
    runtime
        .prepare(wasm(&program(number)), Flavour::Epoch)
        .await
        .unwrap()
}

/// Which of the programs need no compiler.
async fn kept(dir: &Path) -> Vec<u32> {
    let mut kept = Vec::new();
    for number in 0..5 {
        // Another process: it knows nothing but what lies there.
        let runtime = runtime(dir, PLENTY, "/nonexistent/child".into());
        match runtime
            .prepare(wasm(&program(number)), Flavour::Epoch)
            .await
        {
            Ok(_) => kept.push(number),
            Err(PrepareError::Compile(CompileError::Spawn(_))) => {}
            Err(error) => panic!("{error:?}"),
        }
    }
    kept
}

fn files(dir: &Path) -> BTreeSet<PathBuf> {
    fs::read_dir(dir)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .collect()
}

fn bytes(dir: &Path) -> u64 {
    let size = |path: PathBuf| fs::metadata(path).unwrap().len();
    files(dir).into_iter().map(size).sum()
}

fn only(dir: &Path, ending: &str) -> PathBuf {
    files(dir)
        .into_iter()
        .find(|path| path.to_string_lossy().ends_with(ending))
        .unwrap()
}

/// The bytes of one entry.
async fn size_of_one() -> u64 {
    let dir = tempfile::tempdir().unwrap();
    prepare(&runtime(dir.path(), PLENTY, child()), 0).await;
    bytes(dir.path())
}

#[tokio::test]
async fn what_was_not_used_for_longest_goes_first() {
    let dir = tempfile::tempdir().unwrap();
    let room = 3 * size_of_one().await + 1000;
    let runtime = runtime(dir.path(), room, child());
    for number in [0, 1, 2] {
        prepare(&runtime, number).await;
    }
    assert_eq!(kept(dir.path()).await, [0, 1, 2]);
    // Used again, the first is the newest.
    prepare(&runtime, 1).await;
    prepare(&runtime, 2).await;
    prepare(&runtime, 0).await;
    prepare(&runtime, 3).await;
    assert!(bytes(dir.path()) <= room, "{}", bytes(dir.path()));
    assert_eq!(kept(dir.path()).await, [0, 2, 3]);
}

#[tokio::test]
async fn a_smaller_budget_holds_from_the_next_start() {
    let dir = tempfile::tempdir().unwrap();
    let one = size_of_one().await;
    let before = runtime(dir.path(), PLENTY, child());
    for number in 0..5 {
        prepare(&before, number).await;
    }
    drop(runtime(dir.path(), 2 * one + 1000, child()));
    assert_eq!(kept(dir.path()).await, [3, 4]);
}

#[tokio::test]
async fn what_is_in_use_stays() {
    let dir = tempfile::tempdir().unwrap();
    let runtime = runtime(dir.path(), 1, child());
    let first = prepare(&runtime, 0).await;
    let second = prepare(&runtime, 1).await;
    let config = CellConfig::new("spin", Stdio::Log(LogRing::new()));
    let cell = runtime.start(&second, config).unwrap();
    drop(second);
    prepare(&runtime, 2).await;
    assert_eq!(kept(dir.path()).await[..2], [0, 1]);
    // One is held by its holder, one by its cell; when they let go, the next sweep takes them.
    drop(first);
    cell.stop(Duration::from_secs(10)).await;
    until(|| runtime.cells() == 0).await;
    let last = prepare(&runtime, 3).await;
    assert_eq!(kept(dir.path()).await, [3]);
    drop(last);
}

#[tokio::test]
async fn what_a_crash_leaves_is_no_harm() {
    let dir = tempfile::tempdir().unwrap();
    prepare(&runtime(dir.path(), PLENTY, child()), 0).await;
    let (code, mac) = (only(dir.path(), ".code"), only(dir.path(), ".mac"));
    let whole = fs::read(&mac).unwrap();
    // Between the two renames, and half a write on a file system that tears.
    for left in [None, Some(&whole[..7]), Some(&[][..])] {
        match left {
            Some(bytes) => fs::write(&mac, bytes).unwrap(),
            None => fs::remove_file(&mac).unwrap(),
        }
        assert_eq!(kept(dir.path()).await, [] as [u32; 0]);
        prepare(&runtime(dir.path(), PLENTY, child()), 0).await;
        assert_eq!(fs::read(&mac).unwrap(), whole);
    }
    let temporary = |name: &str, age: Duration| {
        let path = dir.path().join(format!(
            "{}.{name}.new",
            code.file_name().unwrap().to_string_lossy()
        ));
        let file = fs::File::create(&path).unwrap();
        file.set_modified(SystemTime::now() - age).unwrap();
        path
    };
    let old = temporary("1-0", Duration::from_secs(2 * 60 * 60));
    let young = temporary("2-0", Duration::ZERO);
    drop(runtime(dir.path(), PLENTY, child()));
    assert!(!old.exists() && young.exists());
}

#[tokio::test]
async fn files_that_others_may_write_are_ignored() {
    let dir = tempfile::tempdir().unwrap();
    prepare(&runtime(dir.path(), PLENTY, child()), 0).await;
    let (code, mac) = (only(dir.path(), ".code"), only(dir.path(), ".mac"));
    let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
    for path in [&code, &mac] {
        for loose in [0o620, 0o602] {
            fs::set_permissions(path, fs::Permissions::from_mode(loose)).unwrap();
            assert_eq!(kept(dir.path()).await, [] as [u32; 0], "{loose:o}");
            prepare(&runtime(dir.path(), PLENTY, child()), 0).await;
            assert_eq!((mode(&code), mode(&mac)), (0o600, 0o600));
        }
    }
    // Nor is a link followed, wherever it leads.
    let elsewhere = dir.path().join("elsewhere");
    fs::rename(&code, &elsewhere).unwrap();
    symlink(&elsewhere, &code).unwrap();
    assert_eq!(kept(dir.path()).await, [] as [u32; 0]);
    // The directory is taken for this user alone.
    fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o777)).unwrap();
    prepare(&runtime(dir.path(), PLENTY, child()), 0).await;
    assert_eq!(mode(dir.path()), 0o700);
}

#[tokio::test]
async fn files_of_others_are_left_alone() {
    let dir = tempfile::tempdir().unwrap();
    let digest = "a".repeat(64);
    let names = [
        "notes.txt".to_owned(),
        format!("{digest}-epoch-0123456789abcdef.other"),
        format!("{digest}-other-0123456789abcdef.code"),
        format!("{}-epoch-0123456789abcdef.code", "a".repeat(63)),
    ];
    for name in &names {
        fs::write(dir.path().join(name), vec![1; 4096]).unwrap();
    }
    // An entry by its name, but never ours: it counts, and goes as any other.
    let planted = dir
        .path()
        .join(format!("{digest}-epoch-0123456789abcdef.code"));
    fs::write(&planted, vec![1; 4096]).unwrap();
    let runtime = runtime(dir.path(), 1, child());
    assert!(!planted.exists());
    let held = prepare(&runtime, 0).await;
    assert!(names.iter().all(|name| dir.path().join(name).exists()));
    assert_eq!(kept(dir.path()).await, [0]);
    drop(held);
}

#[tokio::test]
async fn what_is_told_of_an_artifact_is_checked_as_its_code_is() {
    let dir = tempfile::tempdir().unwrap();
    prepare(&runtime(dir.path(), PLENTY, child()), 0).await;
    let facts = only(dir.path(), ".facts");
    let good = fs::read(&facts).unwrap();
    let code = || fs::metadata(only(dir.path(), ".code")).unwrap().ino();
    let compiled = code();
    let lies = String::from_utf8(good.clone())
        .unwrap()
        .replace("_start", "_stamp");
    assert_ne!(lies.as_bytes(), good);
    for spoiled in [lies.as_bytes(), &good[..good.len() / 2], b""] {
        fs::write(&facts, spoiled).unwrap();
        assert_eq!(kept(dir.path()).await, [] as [u32; 0]);
        prepare(&runtime(dir.path(), PLENTY, child()), 0).await;
        assert_eq!(fs::read(&facts).unwrap(), good);
        assert_eq!(code(), compiled, "it was not compiled again");
    }
}

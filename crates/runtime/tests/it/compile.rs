//! The compile child and the cache of what it made.

use std::{
    os::unix::process::ExitStatusExt,
    process::{Command, ExitStatus, Stdio},
    sync::Arc,
    time::Duration,
};

use realm_runtime::{CompileError, CompilerConfig, Flavour, PrepareError, Runtime, RuntimeConfig};

use crate::scene::{child, runtime, wasm};

const SIGXCPU: i32 = 24;
const SIGSYS: i32 = 31;
const SIGABRT: i32 = 6;
const HELLO: &str = r#"(module (func (export "_start")))"#;

fn probe(what: &str, cpu: &str, memory: &str) -> ExitStatus {
    let mut command = Command::new(child());
    command.args(["epoch", "module", cpu, memory, &format!("--probe={what}")]);
    command
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status()
        .unwrap()
}

#[test]
fn the_child_can_open_nothing() {
    assert_eq!(probe("none", "5", "1073741824").code(), Some(0));
    for what in ["file", "write", "socket", "process", "thread"] {
        assert_eq!(
            probe(what, "5", "1073741824").signal(),
            Some(SIGSYS),
            "{what}"
        );
    }
}

#[test]
fn the_child_dies_at_its_limits() {
    // The allocator aborts, or asks for something forbidden on its way there.
    let signal = probe("memory", "30", "268435456").signal();
    assert!(
        signal == Some(SIGABRT) || signal == Some(SIGSYS),
        "{signal:?}"
    );
    assert_eq!(probe("cpu", "1", "1073741824").signal(), Some(SIGXCPU));
}

#[tokio::test]
async fn too_little_memory_is_not_the_artifacts_fault() {
    let dir = tempfile::tempdir().unwrap();
    let mut compiler = CompilerConfig::new(child(), Vec::new());
    compiler.memory_bytes = 12 * 1024 * 1024;
    compiler.cpu = Duration::from_secs(20);
    let runtime = Runtime::new(RuntimeConfig::new(dir.path().into(), [7; 32], compiler)).unwrap();
    let big = format!(
        "(module {} (func (export \"_start\")))",
        "(func (result i32) (i32.const 1))".repeat(100_000)
    );
    let error = runtime
        .prepare(wasm(&big), Flavour::Epoch)
        .await
        .unwrap_err();
    assert!(error.is_transient(), "{error:?}");
}

#[tokio::test]
async fn a_missing_child_is_an_error_that_may_pass() {
    let dir = tempfile::tempdir().unwrap();
    let compiler = CompilerConfig::new("/nonexistent/child".into(), Vec::new());
    let runtime = Runtime::new(RuntimeConfig::new(dir.path().into(), [7; 32], compiler)).unwrap();
    let error = runtime
        .prepare(wasm(HELLO), Flavour::Epoch)
        .await
        .unwrap_err();
    assert!(
        matches!(error, PrepareError::Compile(CompileError::Spawn(_))),
        "{error:?}"
    );
}

#[tokio::test]
async fn spoiled_code_is_compiled_again() {
    let dir = tempfile::tempdir().unwrap();
    let bytes = wasm(HELLO);
    drop(
        runtime(&dir)
            .prepare(bytes.clone(), Flavour::Epoch)
            .await
            .unwrap(),
    );
    let file = std::fs::read_dir(dir.path())
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .find(|path| path.extension().is_some_and(|ending| ending == "code"))
        .unwrap();
    let good = std::fs::read(&file).unwrap();
    for at in [0, good.len() / 2, good.len() - 1] {
        let mut spoiled = good.clone();
        spoiled[at] ^= 1;
        std::fs::write(&file, &spoiled).unwrap();
        runtime(&dir)
            .prepare(bytes.clone(), Flavour::Epoch)
            .await
            .unwrap();
        assert_eq!(std::fs::read(&file).unwrap(), good, "flipped at {at}");
    }
    // With the cache intact no child is needed.
    let broken = CompilerConfig::new("/nonexistent/child".into(), Vec::new());
    let cached = Runtime::new(RuntimeConfig::new(
        dir.path().into(),
        [7; 32],
        broken.clone(),
    ))
    .unwrap();
    cached.prepare(bytes.clone(), Flavour::Epoch).await.unwrap();
    // Another key made it: it is not ours.
    let foreign = Runtime::new(RuntimeConfig::new(dir.path().into(), [8; 32], broken)).unwrap();
    assert!(foreign.prepare(bytes, Flavour::Epoch).await.is_err());
}

#[tokio::test]
async fn garbage_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let garbage: Arc<[u8]> = b"\0asm\x01\0\0\0garbage".as_slice().into();
    let error = runtime(&dir)
        .prepare(garbage, Flavour::Epoch)
        .await
        .unwrap_err();
    assert!(matches!(error, PrepareError::Inspect(_)), "{error:?}");
}

//! Who waits for a compile, and who does not. The child waits for a file, so that each test says how long compiling lasts.

use std::{
    path::PathBuf,
    sync::{Arc, Mutex},
};

use realm_runtime::{
    CompileError, CompilerConfig, Flavour, PrepareError, Prepared, Runtime, RuntimeConfig, Stage,
};
use sha2::{Digest, Sha256};
use tokio::task::JoinHandle;

use crate::scene::{PATIENCE, child, until, wasm};

/// Notes that it was started, waits for the gate, and becomes the real one.
const SLOW_CHILD: &str = r#"
    echo "$3" >> "$0/runs"
    while ! [ -e "$0/gate" ]; do /bin/sleep 0.01; done
    child=$1; shift
    exec "$child" "$@"
"#;

struct Slow {
    runtime: Runtime,
    dir: tempfile::TempDir,
}

/// A preparation under way, and what was told of it.
struct Under {
    task: JoinHandle<Result<Prepared, PrepareError>>,
    told: Arc<Mutex<Vec<Stage>>>,
}

impl Slow {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().as_os_str().to_owned();
        let args = vec!["-c".into(), SLOW_CHILD.into(), path, child().into()];
        let script = CompilerConfig::new("/bin/sh".into(), args);
        let mut config = RuntimeConfig::new(dir.path().join("cache"), [7; 32], script);
        config.max_cells = 4;
        config.guest_threads = 1;
        Self {
            runtime: Runtime::new(config).unwrap(),
            dir,
        }
    }

    fn open(&self) {
        std::fs::write(self.dir.path().join("gate"), "").unwrap();
    }

    fn shut(&self) {
        std::fs::remove_file(self.dir.path().join("gate")).unwrap();
    }

    /// What each child was asked for.
    fn runs(&self) -> Vec<String> {
        let runs = std::fs::read_to_string(self.dir.path().join("runs")).unwrap_or_default();
        runs.lines().map(str::to_owned).collect()
    }

    fn file(&self, bytes: &[u8]) -> PathBuf {
        let path = self.dir.path().join(hex::encode(Sha256::digest(bytes)));
        std::fs::write(&path, bytes).unwrap();
        path
    }

    fn prepare(&self, bytes: &[u8]) -> Under {
        let path = self.file(bytes);
        let digest = Sha256::digest(bytes).into();
        let (runtime, told) = (self.runtime.clone(), Arc::new(Mutex::default()));
        let list: Arc<Mutex<Vec<Stage>>> = told.clone();
        let task = tokio::spawn(async move {
            let note = |stage| list.lock().unwrap().push(stage);
            runtime
                .prepare_file(path, digest, Flavour::Epoch, note)
                .await
        });
        Under { task, told }
    }
}

impl Under {
    async fn compiles(&self) {
        until(|| matches!(self.last(), Some(Stage::Compiling { .. }))).await;
    }

    async fn waits_for(&self, ahead: usize) {
        until(|| self.last() == Some(Stage::Waiting { ahead })).await;
    }

    fn last(&self) -> Option<Stage> {
        self.told.lock().unwrap().last().copied()
    }

    async fn done(self) -> Result<Prepared, PrepareError> {
        let done = tokio::time::timeout(PATIENCE, self.task).await;
        done.expect("in time").unwrap()
    }
}

fn small(number: u32) -> Arc<[u8]> {
    wasm(&format!(
        r#"(module (func (export "_start")) (func (export "n") (result i32) (i32.const {number})))"#
    ))
}

/// More bytes than a small one has, and nothing that takes long.
fn large(number: u32) -> Arc<[u8]> {
    let data = "x".repeat(1024 * 1024);
    wasm(&format!(
        r#"(module (memory 17) (data (i32.const 0) "{number}{data}") (func (export "_start")))"#
    ))
}

#[tokio::test]
async fn cells_of_one_program_share_one_compile() {
    let slow = Slow::new();
    let all: Vec<Under> = (0..5).map(|_| slow.prepare(&small(1))).collect();
    for under in &all {
        under.compiles().await;
    }
    slow.open();
    for under in all {
        under.done().await.unwrap();
    }
    assert_eq!(slow.runs(), ["facts", "module"]);
}

#[tokio::test]
async fn who_compiled_for_others_may_go() {
    let slow = Slow::new();
    let first = slow.prepare(&small(1));
    first.compiles().await;
    let second = slow.prepare(&small(1));
    second.compiles().await;
    first.task.abort();
    slow.open();
    second.done().await.unwrap();
}

#[tokio::test]
async fn what_is_in_the_cache_waits_for_no_compile() {
    let slow = Slow::new();
    slow.open();
    drop(slow.prepare(&small(0)).done().await.unwrap());
    slow.shut();
    let first = slow.prepare(&small(1));
    let second = slow.prepare(&small(2));
    first.compiles().await;
    second.compiles().await;
    let third = slow.prepare(&small(3));
    third.waits_for(2).await;
    let cached = slow.prepare(&small(0));
    cached.done().await.unwrap();
    slow.open();
    for under in [first, second, third] {
        under.done().await.unwrap();
    }
}

#[tokio::test]
async fn what_is_small_does_not_wait_for_what_is_large() {
    let slow = Slow::new();
    let first = slow.prepare(&large(1));
    first.compiles().await;
    let second = slow.prepare(&large(2));
    second.waits_for(1).await;
    let little = slow.prepare(&small(3));
    little.compiles().await;
    assert_eq!(second.last(), Some(Stage::Waiting { ahead: 1 }));
    slow.open();
    for under in [first, second, little] {
        under.done().await.unwrap();
    }
}

#[tokio::test]
async fn a_file_with_other_bytes_is_used_for_nothing() {
    let slow = Slow::new();
    slow.open();
    let (right, wrong) = (small(1), small(2));
    let path = slow.file(&right);
    std::fs::write(&path, &wrong).unwrap();
    let digest = Sha256::digest(&right).into();
    let prepare = || {
        slow.runtime
            .prepare_file(path.clone(), digest, Flavour::Epoch, |_| {})
    };
    let error = prepare().await.unwrap_err();
    assert!(
        matches!(error, PrepareError::Compile(CompileError::Changed)),
        "{error:?}"
    );
    assert!(error.is_transient());
    std::fs::write(&path, &right).unwrap();
    let prepared = prepare().await.unwrap();
    assert_eq!(prepared.inspection().sha256, hex::encode(digest));
}

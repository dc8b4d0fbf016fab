//! What a cell says of itself when it does not come to run.

use std::{io, sync::Arc, time::Duration};

use realm_identity::{Artifact, SecretKey};
use realm_p2p::{Config, Network, Services};
use realm_runtime::{CompileError, CompilerConfig, Limit, LimitHit, Runtime, RuntimeConfig};
use realm_store::{Blobs, StateFile};
use tokio::sync::watch;

use super::*;
use crate::{
    ended::Ended, events::Events, fetch::Fetcher, supervisor::Supervisor, volumes::Volumes,
};

const BLOB_BYTES: u64 = 1024 * 1024;
const CHANGES: Duration = Duration::from_secs(30);

struct Scene {
    tools: Tools,
    changed: watch::Receiver<u64>,
    artifact: Artifact,
    _sources: watch::Sender<Vec<realm_identity::PublicKey>>,
    _dir: tempfile::TempDir,
}

/// A node that has an artifact and no compiler.
async fn scene() -> Scene {
    realm_p2p::install_crypto_provider();
    let dir = tempfile::tempdir().expect("a directory");
    let mut config = Config::new(SecretKey::from_seed(&[1; 32]));
    config.listen = vec!["/ip4/127.0.0.1/tcp/0".to_owned()];
    let (network, _) = Network::start(config, Services::default())
        .await
        .expect("starts");
    let blobs = Blobs::open(&dir.path().join("blobs"), BLOB_BYTES).expect("opens");
    let artifact = blobs
        .import(&b"\0asm\x01\0\0\0"[..], BLOB_BYTES)
        .expect("imports");
    let (sources, receiver) = watch::channel(Vec::new());
    let compiler = CompilerConfig::new("/nonexistent/child".into(), Vec::new());
    let runtime = RuntimeConfig::new(dir.path().join("compiled"), [7; 32], compiler);
    let (sender, changed) = watch::channel(0);
    let tools = Tools {
        runtime: Runtime::new(runtime).expect("starts"),
        fetcher: Fetcher::new(Arc::new(blobs), network, receiver, Events::default()),
        events: Events::default(),
        ended: Ended::open(StateFile::new(dir.path().join("ended"))).expect("opens"),
        volumes: dir.path().join("volumes"),
        volume_prefixes: Vec::new(),
        changed: Arc::new(sender),
        tasks: tokio::runtime::Handle::current(),
    };
    Scene {
        tools,
        changed,
        artifact,
        _sources: sources,
        _dir: dir,
    }
}

impl Scene {
    fn task(&self) -> CellTask {
        let key: (ComponentName, u32) = ("web".parse().expect("a name"), 0);
        let spec = ComponentSpec::new(self.artifact);
        CellTask {
            tools: self.tools.clone(),
            logs: Logs::default(),
            shared: Arc::new(Mutex::new(crate::supervisor::new_report(
                &key,
                realm_planner::cell_digest(&spec),
                0,
            ))),
            key,
            declined: Arc::default(),
            cancel: CancellationToken::new(),
            live: Live::new(spec.limits.clone(), None),
            spec,
            predecessor: None,
            full: 0,
            end: None,
            lasting: false,
            doubtful: false,
        }
    }
}

fn state(task: &CellTask) -> CellState {
    lock(&task.shared).state
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn only_what_is_not_tried_again_has_failed() {
    let task = scene().await.task();
    let spawn = || io::Error::from(io::ErrorKind::NotFound);
    for (error, expected) in [
        (CompileError::Spawn(spawn()).into(), CellState::Backoff),
        (
            CompileError::TimedOut(Duration::ZERO).into(),
            CellState::Backoff,
        ),
        (CompileError::Changed.into(), CellState::Backoff),
        (
            PrepareError::Missing {
                missing: vec!["a:b/c".into()],
            },
            CellState::Failed,
        ),
        (
            PrepareError::Limit(LimitHit::new(Limit::Tables, 16)),
            CellState::Failed,
        ),
    ] {
        let outcome = task.not_prepared(&error);
        assert_eq!(state(&task), expected, "{error}");
        let again = matches!(outcome, Outcome::Again { .. });
        assert_eq!(again, expected == CellState::Backoff, "{error}");
        let reason = lock(&task.shared).reason.clone();
        assert!(reason.is_some(), "{error}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_cell_whose_compiler_is_missing_tries_again() {
    let scene = scene().await;
    let (task, mut changed) = (scene.task(), scene.changed.clone());
    let (shared, cancel) = (task.shared.clone(), task.cancel.clone());
    let task = tokio::spawn(Box::new(task).run());
    let events = scene.tools.events.clone();
    let tries = || {
        let told = events.after(0);
        told.iter().filter(|event| event.kind == "retried").count()
    };
    let restarts = async {
        while tries() < 2 {
            assert_ne!(lock(&shared).state, CellState::Failed);
            changed.changed().await.expect("the task has the sender");
        }
    };
    tokio::time::timeout(CHANGES, restarts)
        .await
        .expect("in time");
    cancel.cancel();
    task.await.expect("no panic");
    let report = lock(&shared).clone();
    assert_eq!(report.state, CellState::Stopped);
    assert_eq!(report.restarts, 0, "what never started is not restarted");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn that_it_was_compiled_is_no_news_once_it_starts() {
    let task = scene().await.task();
    let why = || lock(&task.shared).reason.clone();
    let waits = compiling_reason(realm_runtime::Stage::Waiting { ahead: 2 });
    assert!(waits.message.contains("2 before it"), "{waits:?}");
    task.set(CellState::Compiling, Some(waits));
    task.starting();
    assert_eq!(why(), None);
    let crashed = reason("trap", "unreachable".into(), None);
    task.set(CellState::Backoff, Some(crashed.clone()));
    task.starting();
    assert_eq!(why(), Some(crashed), "it says why it was restarted");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_end_that_the_disk_did_not_take_is_written_when_it_takes_writes() {
    let scene = scene().await;
    // Nothing can be written where there is no directory.
    let dir = scene._dir.path().join("gone");
    let file = StateFile::new(dir.join("ended"));
    let mut tools = scene.tools.clone();
    tools.ended = Ended::open(file.clone()).expect("nothing is there");
    let task = scene.task();
    let mut end = lock(&task.shared).clone();
    end.state = CellState::Done;
    tools.ended.put(end.clone()).expect_err("no directory");
    assert!(tools.ended.is_unwritten());

    std::fs::create_dir(&dir).expect("creates");
    let ended = tools.ended.clone();
    let held = Volumes::open(tools.volumes.clone()).expect("opens");
    let mut supervisor = Supervisor::new(tools, Logs::default(), held, None);
    supervisor.keep_ends();
    let kept = || Ended::open(file.clone()).expect("opens");
    let of = |ended: &Ended| ended.of(&task.key, &end.spec, end.generation);
    let deadline = Instant::now() + CHANGES;
    while of(&kept()).is_none() {
        assert!(Instant::now() < deadline, "it is not written");
        tokio::task::yield_now().await;
    }
    assert_eq!(of(&kept()), Some(end.clone()));
    assert!(!ended.is_unwritten());

    // And once more when the agent goes, also so soon after it.
    std::fs::remove_dir_all(&dir).expect("removes");
    ended.put(end.clone()).expect_err("no directory");
    std::fs::create_dir(&dir).expect("creates");
    supervisor.keep_ends();
    assert!(of(&kept()).is_none(), "not again at once");
    supervisor.shutdown().await;
    assert_eq!(of(&kept()), Some(end.clone()));
}

#[tokio::test]
async fn the_task_of_a_cell_is_small() {
    let task = Box::new(scene().await.task());
    let own = size_of_val(&*task);
    let runs = size_of_val(&task.run());
    // A node has a thousand of them.
    assert!(own + runs <= 2_500, "{own} bytes, and {runs} as it runs");
}

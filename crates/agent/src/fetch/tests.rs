//! Pulls from real nodes on loopback, some of which are slow or lie.

use std::{
    io,
    sync::{
        Arc, Condvar, Mutex,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use realm_identity::{Artifact, Hash, PublicKey, SecretKey};
use realm_p2p::{BlobSource, Config, FetchError, Network, NetworkHandle, Services};
use realm_store::Blobs;
use tokio::sync::watch;

use super::{Fetcher, Progress, PullError};
use crate::events::Events;

/// Far more than anything here takes.
const PATIENCE: Duration = Duration::from_secs(20);
const MIB: u64 = 1024 * 1024;
/// Twelve ranges and a bit.
const SIZE: u64 = 12 * MIB + 5;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Manner {
    Honest,
    /// Does not take the asker for one of its realm.
    Refusing,
    /// Answers once, and then not before the test lets it.
    Slow,
    /// Answers at once, with a bit turned.
    Lying,
    /// One answer after the other, each as late as a line of so many bytes a second brings it.
    Narrow(u64),
}

/// Over this line a range of 1 MiB, or a few smaller ones at once, take longer than anybody waits for a first byte.
const NARROW: Manner = Manner::Narrow(192 * 1024);
/// And over this one a few pulls at once are nothing but slow.
const STEADY: Manner = Manner::Narrow(MIB);

/// A node that has the artifact, and counts what it sent.
struct Source {
    blobs: Arc<Blobs>,
    manner: Manner,
    gate: Gate,
    asked: AtomicU64,
    /// Ranges that left, and their bytes.
    answers: AtomicU64,
    bytes: AtomicU64,
    /// Held by the answer that is on its way.
    line: Mutex<()>,
}

/// Closed until the test opens it.
#[derive(Default, Clone)]
struct Gate(Arc<(Mutex<bool>, Condvar)>);

impl Gate {
    fn pass(&self) {
        let (open, changed) = &*self.0;
        let open = open.lock().expect("no panic holds it");
        drop(
            changed
                .wait_while(open, |open| !*open)
                .expect("no panic holds it"),
        );
    }

    /// After this long at the latest.
    fn pass_within(&self, time: Duration) {
        let (open, changed) = &*self.0;
        let open = open.lock().expect("no panic holds it");
        let passed = changed.wait_timeout_while(open, time, |open| !*open);
        drop(passed.expect("no panic holds it"));
    }

    fn open(&self) {
        let (open, changed) = &*self.0;
        *open.lock().expect("no panic holds it") = true;
        changed.notify_all();
    }
}

impl BlobSource for Source {
    fn allow(&self, _: PublicKey) -> bool {
        self.manner != Manner::Refusing
    }

    fn read_range(&self, sha256: Hash, offset: u64, len: u32) -> io::Result<Option<Vec<u8>>> {
        let before = self.asked.fetch_add(1, Ordering::SeqCst);
        if self.manner == Manner::Slow && before > 0 {
            self.gate.pass();
        }
        let encoded = self.blobs.encode_range(&sha256, offset, len);
        let mut encoded = encoded.map_err(io::Error::other)?;
        if let (Manner::Lying, Some(bytes)) = (self.manner, &mut encoded) {
            let middle = bytes.len() / 2;
            bytes[middle] ^= 1;
        }
        if let Manner::Narrow(line) = self.manner {
            let _one = self.line.lock().expect("no panic holds it");
            let takes = Duration::from_millis(u64::from(len) * 1_000 / line);
            self.gate.pass_within(takes);
        }
        self.answers.fetch_add(1, Ordering::SeqCst);
        self.bytes.fetch_add(u64::from(len), Ordering::SeqCst);
        Ok(encoded)
    }
}

/// What a pull is made between.
struct Scene {
    _dirs: Vec<tempfile::TempDir>,
    sources: Vec<(Arc<Source>, NetworkHandle)>,
    blobs: Arc<Blobs>,
    fetcher: Fetcher,
    artifact: Artifact,
    gate: Gate,
    _watch: watch::Sender<Vec<PublicKey>>,
}

impl Drop for Scene {
    fn drop(&mut self) {
        // Reads that wait would keep the networks from ending.
        self.gate.open();
    }
}

fn config(seed: u8) -> Config {
    realm_p2p::install_crypto_provider();
    let mut config = Config::new(SecretKey::from_seed(&[seed; 32]));
    config.listen = vec!["/ip4/127.0.0.1/tcp/0".to_owned()];
    config
}

async fn scene(manners: &[Manner]) -> Scene {
    scene_of(SIZE, manners).await
}

/// The artifact is of so many bytes.
async fn scene_of(size: u64, manners: &[Manner]) -> Scene {
    let content: Vec<u8> = (0..size).map(|at| ((at * at) >> 7) as u8).collect();
    let gate = Gate::default();
    let dir = || tempfile::tempdir().expect("a directory");
    let own_dir = dir();
    let (network, _) = Network::start(config(1), Services::default())
        .await
        .expect("starts");
    let mut dirs = Vec::new();
    let mut sources = Vec::new();
    let mut artifact = None;
    for (seed, manner) in (2..).zip(manners) {
        let dir = dir();
        let blobs = Arc::new(Blobs::open(dir.path(), 64 * MIB).expect("opens"));
        artifact = Some(blobs.import(content.as_slice(), 64 * MIB).expect("imports"));
        let source = Arc::new(Source {
            blobs,
            manner: *manner,
            gate: gate.clone(),
            asked: AtomicU64::new(0),
            answers: AtomicU64::new(0),
            bytes: AtomicU64::new(0),
            line: Mutex::new(()),
        });
        let services = Services {
            blobs: Some(source.clone()),
            rpc: None,
        };
        let (handle, _) = Network::start(config(seed), services)
            .await
            .expect("starts");
        let addresses = handle.listen_addresses().await.expect("runs");
        network.dial(&addresses[0]).await.expect("connects");
        dirs.push(dir);
        sources.push((source, handle));
    }
    let keys = sources.iter().map(|(_, handle)| handle.key()).collect();
    let (watch, receiver) = watch::channel(keys);
    let blobs = Arc::new(Blobs::open(own_dir.path(), 64 * MIB).expect("opens"));
    dirs.push(own_dir);
    Scene {
        _dirs: dirs,
        sources,
        fetcher: Fetcher::new(blobs.clone(), network, receiver, Events::default()),
        blobs,
        artifact: artifact.expect("a source"),
        gate,
        _watch: watch,
    }
}

impl Scene {
    async fn pull(&self) -> Result<std::path::PathBuf, PullError> {
        let pull = self.fetcher.ensure(self.artifact, |_| ());
        tokio::time::timeout(PATIENCE, pull).await.expect("in time")
    }

    /// Something else that the first source has, of so many bytes.
    fn another(&self, size: u64, nth: u64) -> Artifact {
        let content: Vec<u8> = (0..size).map(|at| ((at * (at + nth)) >> 7) as u8).collect();
        let imported = self.sources[0].0.blobs.import(content.as_slice(), size);
        imported.expect("imports")
    }

    fn answers(&self, of: usize) -> u64 {
        self.sources[of].0.answers.load(Ordering::SeqCst)
    }

    fn bytes(&self, of: usize) -> u64 {
        self.sources[of].0.bytes.load(Ordering::SeqCst)
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_slow_source_and_a_liar_do_not_hold_up_a_pull() {
    let scene = scene(&[Manner::Slow, Manner::Lying, Manner::Honest]).await;
    let path = scene.pull().await.expect("pulled");
    let bytes = std::fs::read(path).expect("is there");
    assert_eq!(Hash::of(&bytes), scene.artifact.sha256);
    // By ranges sent: the slow one gave one at most, the liar none that counted.
    assert!(scene.answers(0) <= 1, "{}", scene.answers(0));
    let lies = scene.answers(1);
    assert!(
        (1..=super::PER_SOURCE as u64).contains(&lies),
        "dropped after {lies}"
    );
    let told: Vec<_> = scene.fetcher.events.after(0);
    let told: Vec<_> = told
        .iter()
        .filter(|event| event.kind == "refused")
        .collect();
    let [told] = &told[..] else {
        panic!("told of once: {told:?}");
    };
    let liar = scene.sources[1].1.key().to_string();
    assert!(told.message.starts_with(&liar), "{told:?}");
    let honest = scene.bytes(2);
    assert!((SIZE - MIB..=SIZE).contains(&honest), "{honest}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_source_behind_a_narrow_line_gives_all_and_little_twice() {
    let size = 2 * MIB;
    let scene = scene_of(size, &[NARROW]).await;
    let told = Mutex::new(Vec::new());
    let here = |progress| match progress {
        Progress::Here(bytes) => told.lock().expect("no panic holds it").push(bytes),
        Progress::Waiting => panic!("there is no other pull"),
    };
    let pull = scene.fetcher.ensure(scene.artifact, here);
    let path = tokio::time::timeout(3 * PATIENCE, pull).await;
    let path = path.expect("in time").expect("pulled");
    assert_eq!(std::fs::metadata(path).expect("is there").len(), size);
    let sent = scene.bytes(0);
    assert!(sent < size + size / 2, "{sent} bytes for {size}");
    let told = told.into_inner().expect("no panic holds it");
    assert!(told.len() > 2 && told.is_sorted(), "{told:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_has_a_program_and_does_not_give_it_is_named() {
    let scene = scene(&[Manner::Refusing]).await;
    let failed = scene.pull().await.expect_err("nobody gives it");
    let PullError::Stuck { from, source, .. } = failed else {
        panic!("{failed:?}");
    };
    assert_eq!(from, scene.sources[0].1.key());
    assert!(matches!(source, FetchError::Refused), "{source:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn honest_sources_share_the_work() {
    let scene = scene(&[Manner::Honest, Manner::Honest, Manner::Honest]).await;
    scene.pull().await.expect("pulled");
    for of in 0..3 {
        assert!(scene.answers(of) >= 2, "source {of}: {}", scene.answers(of));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn many_programs_come_over_a_narrow_line() {
    const COUNT: u64 = 3 * super::PULLS as u64;
    let each = MIB / 8;
    let scene = scene_of(each, &[NARROW]).await;
    let pulls = (0..COUNT).map(|nth| scene.fetcher.ensure(scene.another(each, nth), |_| ()));
    let all = futures::future::try_join_all(pulls);
    let pulled = tokio::time::timeout(3 * PATIENCE, all).await;
    assert_eq!(
        pulled.expect("in time").expect("pulled").len() as u64,
        COUNT
    );
    let sent = scene.bytes(0);
    assert!(sent < 2 * COUNT * each, "{sent} bytes for {}", COUNT * each);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn large_programs_hold_up_no_small_one() {
    let small = MIB / 64;
    let scene = scene_of(small, &[STEADY]).await;
    let waited = AtomicU64::new(0);
    let told = |progress| {
        if progress == Progress::Waiting {
            waited.fetch_add(1, Ordering::SeqCst);
        }
    };
    let large = (0..super::PULLS as u64)
        .map(|nth| scene.fetcher.ensure(scene.another(8 * MIB, nth), |_| ()));
    let large = futures::future::select_all(large.map(Box::pin));
    tokio::select! {
        biased;
        (done, ..) = large => panic!("a large one came first: {done:?}"),
        path = scene.fetcher.ensure(scene.artifact, told) => drop(path.expect("pulled")),
    }
    assert!(waited.into_inner() > 0, "who waits says so");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_not_whole_is_not_served() {
    let scene = scene(&[Manner::Honest]).await;
    let partial = scene.blobs.begin(scene.artifact).expect("begins");
    let range = partial.missing()[0].clone();
    let len = (range.end - range.start) as u32;
    let encoded = scene.sources[0]
        .0
        .blobs
        .encode_range(&scene.artifact.sha256, range.start, len);
    let encoded = encoded.expect("reads").expect("is there");
    partial.write(range.clone(), &encoded).expect("verifies");
    let half = scene
        .blobs
        .encode_range(&scene.artifact.sha256, range.start, len);
    assert!(
        half.expect("reads").is_none(),
        "only whole artifacts are served"
    );
}

//! Feeds every target what is committed for it.

use std::{
    fs,
    path::{Path, PathBuf},
    sync::{
        Once,
        atomic::{AtomicBool, Ordering},
    },
};

/// Where the inputs of a target lie: `corpus` or `regressions`.
fn inputs(kind: &str, target: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join(kind)
        .join(target)
}

/// Whether something panicked, also in a task or a thread that nobody asks how it ended.
static BROKE: AtomicBool = AtomicBool::new(false);

fn notice_panics() {
    static HOOK: Once = Once::new();
    HOOK.call_once(|| {
        let before = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |info| {
            BROKE.store(true, Ordering::SeqCst);
            before(info);
        }));
    });
}

/// Says at which input a target broke.
struct At(PathBuf);

impl Drop for At {
    fn drop(&mut self) {
        if BROKE.load(Ordering::SeqCst) {
            eprintln!("broke with {}", self.0.display());
        }
    }
}

fn files(dir: &Path) -> Vec<PathBuf> {
    let Ok(entries) = fs::read_dir(dir) else {
        return Vec::new();
    };
    let mut files: Vec<PathBuf> = entries.map(|entry| entry.unwrap().path()).collect();
    files.sort();
    files
}

fn replay(name: &str) {
    notice_panics();
    let target = realm_fuzzing::target(name).unwrap();
    let corpus = files(&inputs("corpus", name));
    assert!(!corpus.is_empty(), "{name} has no corpus");
    let mut all = [corpus, files(&inputs("regressions", name))].concat();
    if name == "inspection" {
        let guests = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../guests/prebuilt");
        all.extend(files(&guests));
    }
    for path in all {
        let input = fs::read(&path).unwrap();
        let at = At(path);
        (target.feed)(&input);
        assert!(!BROKE.load(Ordering::SeqCst), "a task panicked");
        drop(at);
    }
}

macro_rules! targets {
    ($($name:ident),*) => {
        $(#[test]
        fn $name() {
            replay(stringify!($name));
        })*

        #[test]
        fn every_target_is_replayed() {
            let replayed = [$(stringify!($name)),*];
            assert!(realm_fuzzing::TARGETS.iter().map(|target| target.name).eq(replayed));
        }
    };
}

targets!(
    config, frames, gossip, inspection, intents, logs, sessions, state, texts, tokens
);

//! The ledger's own thread: commits are durable, so they block.

mod trouble;

use std::{io, path::PathBuf, thread};

use realm_manifest::report::Reason;
use realm_protocol::Token;
use realm_store::{Ledger, Op};
use tokio::sync::{mpsc, watch};

use trouble::Watch;

/// The file in the data directory.
pub(crate) const LEDGER: &str = "ledger.redb";
/// Batches waiting for the disk. The core waits when it is full, and peers with it.
const QUEUE: usize = 256;

/// A batch that is on disk, or is not.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Written {
    pub token: Option<Token>,
    pub durable: bool,
}

/// What the thread is asked to do.
#[derive(Debug)]
enum Job {
    Commit(Option<Token>, Vec<Op>),
    /// Look whether the disk takes writes: where that is in doubt, by writing this.
    Look(Vec<Op>),
}

/// Owns the thread. Closing waits for what was queued.
#[derive(Debug)]
pub struct LedgerTask {
    jobs: Option<mpsc::Sender<Job>>,
    trouble: watch::Receiver<Option<Reason>>,
    thread: Option<thread::JoinHandle<()>>,
}

impl LedgerTask {
    /// `dir` is where the ledger lies.
    pub fn start(ledger: Ledger, dir: PathBuf) -> io::Result<(Self, mpsc::Receiver<Written>)> {
        let (jobs, queue) = mpsc::channel(QUEUE);
        let (written, results) = mpsc::channel(QUEUE);
        let (tell, trouble) = watch::channel(None);
        let watch = Watch::new(dir, tell);
        let thread = thread::Builder::new()
            .name("realm-ledger".into())
            .spawn(move || run(ledger, watch, queue, &written))?;
        Ok((
            Self {
                jobs: Some(jobs),
                trouble,
                thread: Some(thread),
            },
            results,
        ))
    }

    /// Queues a batch; [`Written`] tells when it is on disk.
    pub async fn commit(&self, token: Option<Token>, ops: Vec<Op>) {
        if let Some(jobs) = &self.jobs
            && jobs.send(Job::Commit(token, ops)).await.is_err()
        {
            tracing::error!("the ledger's thread is gone: nothing is written any more");
        }
    }

    /// Has the thread look whether the disk takes writes; `ops` are written where that is in doubt.
    pub fn look(&self, ops: Vec<Op>) {
        if let Some(jobs) = &self.jobs {
            // A queue that is full looks by itself.
            let _ = jobs.try_send(Job::Look(ops));
        }
    }

    /// Why nothing is written at the moment; None where all is well.
    pub fn trouble(&self) -> Option<Reason> {
        self.trouble.borrow().clone()
    }

    /// Waits until everything queued is on disk.
    pub fn close(&mut self) {
        self.jobs = None;
        if let Some(thread) = self.thread.take()
            && thread.join().is_err()
        {
            tracing::error!("the ledger's thread panicked");
        }
    }
}

fn run(
    mut ledger: Ledger,
    mut watch: Watch,
    mut queue: mpsc::Receiver<Job>,
    written: &mpsc::Sender<Written>,
) {
    while let Some(job) = queue.blocking_recv() {
        match job {
            Job::Commit(token, ops) => {
                let durable = watch.is_there()
                    && ledger
                        .commit(&ops)
                        .inspect_err(|error| watch.failed(error))
                        .is_ok();
                // The core may be gone already: what was queued is still written.
                let _ = written.blocking_send(Written { token, durable });
            }
            Job::Look(ops) => watch.look(|| ledger.commit(&ops)),
        }
    }
}

/// What the protocol asks to write, in the store's words.
pub fn to_store(op: realm_protocol::Op) -> Op {
    use realm_protocol::Op as Asked;
    match op {
        Asked::Genesis { wire } => Op::Genesis { wire },
        Asked::Checkpoint { checkpoint } => Op::Checkpoint(realm_store::Checkpoint {
            entry: checkpoint.entry,
            state: checkpoint.state,
            payload: checkpoint.payload,
        }),
        Asked::Entry { hash, wire, .. } => Op::Entry { hash, wire },
        Asked::Payload { sha256, bytes } => Op::Payload { sha256, bytes },
        Asked::Claim { hash, wire } => Op::Claim { hash, wire },
        Asked::CaughtUp => Op::CaughtUp,
    }
}

/// What the ledger held, in the protocol's words.
pub fn restored(contents: &realm_store::LedgerContents) -> realm_protocol::Restored {
    let item = |item: &realm_store::Item| realm_protocol::Item {
        entry: item.entry.clone(),
        payload: item.payload.clone(),
    };
    let checkpoint = contents.checkpoint.as_ref().zip(contents.genesis.as_ref());
    realm_protocol::Restored {
        genesis: contents.genesis.clone(),
        checkpoint: checkpoint.map(|(checkpoint, genesis)| realm_protocol::Checkpoint {
            genesis: genesis.clone(),
            entry: checkpoint.entry.clone(),
            state: checkpoint.state.clone(),
            payload: checkpoint.payload.clone(),
        }),
        entries: contents.entries.iter().map(item).collect(),
        claims: contents.claims.clone(),
        caught_up: contents.caught_up,
    }
}

//! The ledger's own thread: commits are durable, so they block.

use std::{io, thread};

use realm_protocol::Token;
use realm_store::{Ledger, Op};
use tokio::sync::mpsc;

/// Batches waiting for the disk. The core waits when it is full, and peers with it.
const QUEUE: usize = 256;

/// A batch that is on disk, or is not.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Written {
    pub token: Option<Token>,
    pub durable: bool,
}

/// Owns the thread. Closing waits for what was queued.
#[derive(Debug)]
pub struct LedgerTask {
    batches: Option<mpsc::Sender<(Option<Token>, Vec<Op>)>>,
    thread: Option<thread::JoinHandle<()>>,
}

impl LedgerTask {
    pub fn start(ledger: Ledger) -> io::Result<(Self, mpsc::Receiver<Written>)> {
        let (batches, queue) = mpsc::channel(QUEUE);
        let (written, results) = mpsc::channel(QUEUE);
        let thread = thread::Builder::new()
            .name("realm-ledger".into())
            .spawn(move || run(ledger, queue, &written))?;
        Ok((
            Self {
                batches: Some(batches),
                thread: Some(thread),
            },
            results,
        ))
    }

    /// Queues a batch; [`Written`] tells when it is on disk.
    pub async fn commit(&self, token: Option<Token>, ops: Vec<Op>) {
        if let Some(batches) = &self.batches
            && batches.send((token, ops)).await.is_err()
        {
            tracing::error!("the ledger's thread is gone: nothing is written any more");
        }
    }

    /// Waits until everything queued is on disk.
    pub fn close(&mut self) {
        self.batches = None;
        if let Some(thread) = self.thread.take()
            && thread.join().is_err()
        {
            tracing::error!("the ledger's thread panicked");
        }
    }
}

fn run(
    mut ledger: Ledger,
    mut queue: mpsc::Receiver<(Option<Token>, Vec<Op>)>,
    written: &mpsc::Sender<Written>,
) {
    while let Some((token, ops)) = queue.blocking_recv() {
        let result = ledger.commit(&ops);
        if let Err(error) = &result {
            tracing::error!(
                error = crate::fold::chain(error),
                "the ledger was not written"
            );
        }
        // The core may be gone already: what was queued is still written.
        let _ = written.blocking_send(Written {
            token,
            durable: result.is_ok(),
        });
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
    }
}

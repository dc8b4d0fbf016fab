//! Pulls artifacts by digest from any approved peer that has them, several at a time.

mod pace;
mod shares;
#[cfg(test)]
mod tests;

use std::{
    collections::{HashMap, HashSet},
    ops::Range,
    path::PathBuf,
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use futures::{StreamExt as _, stream::FuturesUnordered};
use realm_identity::{Artifact, Hash, PublicKey};
use realm_manifest::units::size_text;
use realm_p2p::{FetchError, NetworkHandle};
use realm_store::{BlobError, Blobs, Partial};
use tokio::{
    sync::{Mutex as AsyncMutex, Semaphore, watch},
    task::JoinSet,
};

use crate::{clock, events::Events, fold::chain};
use pace::Pace;
use shares::{Asked, Shares};

/// Ranges under way for one artifact, over all sources.
const PARALLEL: usize = 8;
/// And of the largest from one source, so that a slow one does not hold them all.
const PER_SOURCE: usize = 4;
/// One range of at most 1 MiB from one source.
const RANGE_TIME: Duration = Duration::from_secs(30);
/// Rounds in which no source gave a single range, before the pull is given up for now.
const EMPTY_ROUNDS: u32 = 20;
/// Between two such rounds: sources come and go.
const ROUND_WAIT: Duration = Duration::from_millis(500);
/// Pulls that receive at the same time; others wait their turn. Each asks for some bytes at once, and a slow line
/// carries few; two ranges of each are as many as a source gives one peer.
pub(crate) const PULLS: usize = 4;
/// How long a turn lasts where it takes that long: then what was asked for is waited for, and another pull has its own.
const TURN: Duration = Duration::from_secs(if cfg!(test) { 1 } else { 10 });
/// A pull that takes longer says how far it is, so often.
const TELL_EVERY: Duration = Duration::from_secs(1);

#[derive(Debug, thiserror::Error)]
pub enum PullError {
    #[error("no connected node has {}", .0.short())]
    NoSource(Hash),
    #[error("nothing more of {} came, last from {}", .sha256.short(), .from.short())]
    Stuck {
        sha256: Hash,
        from: PublicKey,
        source: FetchError,
    },
    #[error("the artifact could not be kept")]
    Store(#[from] BlobError),
    #[error("the pull was interrupted")]
    Interrupted,
}

/// What a pull that takes a while says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Progress {
    /// As many as may receive at a time do.
    Waiting,
    /// So many bytes are here.
    Here(u64),
}

/// Shared by every cell that waits for bytes.
#[derive(Debug, Clone)]
pub struct Fetcher {
    blobs: Arc<Blobs>,
    network: NetworkHandle,
    /// Approved peers that are connected.
    sources: watch::Receiver<Vec<PublicKey>>,
    events: Events,
    /// One pull per artifact; who comes second waits for it.
    pulls: Arc<Mutex<HashMap<Hash, Arc<AsyncMutex<()>>>>>,
    /// One for each pull that receives.
    turns: Arc<Semaphore>,
}

impl Fetcher {
    pub fn new(
        blobs: Arc<Blobs>,
        network: NetworkHandle,
        sources: watch::Receiver<Vec<PublicKey>>,
        events: Events,
    ) -> Self {
        Self {
            blobs,
            network,
            sources,
            events,
            pulls: Arc::default(),
            turns: Arc::new(Semaphore::new(PULLS)),
        }
    }

    /// The verified file of `artifact`, pulled if it is not here. May be dropped midway: what
    /// was verified stays, and the next pull goes on from there. One that takes a while says to `told` how far it is.
    pub async fn ensure(
        &self,
        artifact: Artifact,
        told: impl Fn(Progress),
    ) -> Result<PathBuf, PullError> {
        let pull = {
            let mut pulls = self.pulls.lock().unwrap_or_else(PoisonError::into_inner);
            pulls.retain(|_, pull| Arc::strong_count(pull) > 1);
            pulls.entry(artifact.sha256).or_default().clone()
        };
        let _one = pull.lock().await;
        if let Some(path) = self.local(artifact).await? {
            return Ok(path);
        }
        self.pull(artifact, told).await
    }

    async fn local(&self, artifact: Artifact) -> Result<Option<PathBuf>, PullError> {
        let blobs = self.blobs.clone();
        blocking(move || {
            if !blobs.has(&artifact) {
                return Ok(None);
            }
            match blobs.open_path(&artifact) {
                Ok(path) => Ok(Some(path)),
                Err(BlobError::NotFound(_)) => Ok(None),
                Err(error @ BlobError::Digest { .. }) => {
                    tracing::warn!(
                        error = chain(&error),
                        "an artifact was damaged on disk: it is removed and pulled again; check the disk"
                    );
                    Ok(None)
                }
                Err(error) => Err(error.into()),
            }
        })
        .await
    }

    async fn pull(
        &self,
        artifact: Artifact,
        told: impl Fn(Progress),
    ) -> Result<PathBuf, PullError> {
        let mut began = Instant::now();
        let blobs = self.blobs.clone();
        let partial = blocking(move || Ok(blobs.begin(artifact)?)).await?;
        let mut pull = Pull {
            artifact,
            partial,
            liars: HashSet::new(),
            paces: HashMap::new(),
            failed: None,
            told,
            told_at: Instant::now(),
        };
        let mut empty = 0;
        let mut sources = self.sources.clone();
        while !pull.partial.missing().is_empty() {
            let before = pull.partial.received();
            // Given back between rounds: one that finds no source keeps nobody waiting.
            let turn = match self.turns.try_acquire() {
                Ok(turn) => turn,
                Err(_) => {
                    (pull.told)(Progress::Waiting);
                    let since = Instant::now();
                    let turn = self.turns.acquire().await;
                    began += since.elapsed();
                    (pull.told)(Progress::Here(pull.partial.received()));
                    turn.map_err(|_| PullError::Interrupted)?
                }
            };
            self.round(&mut pull).await?;
            drop(turn);
            if pull.partial.received() > before {
                empty = 0;
                continue;
            }
            empty += 1;
            if empty == EMPTY_ROUNDS {
                return Err(pull.fruitless());
            }
            // Another source, or a moment: whichever comes first.
            sources.mark_unchanged();
            let _ = tokio::time::timeout(ROUND_WAIT, sources.changed()).await;
        }
        let (blobs, partial) = (self.blobs.clone(), pull.partial);
        let path = blocking(move || Ok(blobs.complete(partial)?)).await?;
        let size = size_text(artifact.size);
        let took = began.elapsed().as_secs_f64();
        let (digest, message) = (artifact.sha256.short(), format!("{size} in {took:.3} s"));
        self.events.record(clock::wall(), "pulled", digest, message);
        Ok(path)
    }

    /// Asks every source, for a turn, for a share of what is missing, the least busy one first; a source that
    /// fails is left out, and one that lied in all rounds that follow. What a slow one still owes at
    /// the end is asked of another too.
    async fn round(&self, pull: &mut Pull<impl Fn(Progress)>) -> Result<(), PullError> {
        let mut sources = self.sources.borrow().clone();
        sources.retain(|source| !pull.liars.contains(source));
        let mut shares = Shares::new(sources, &mut pull.paces, pull.partial.missing());
        let mut under_way = FuturesUnordered::new();
        let mut ahead = JoinSet::new();
        pull.failed = None;
        let end = Instant::now() + TURN;
        loop {
            while Instant::now() < end
                && let Some(asked) = shares.next()
            {
                under_way.push(self.range(pull.artifact.sha256, asked));
            }
            if shares.is_done() {
                return Ok(());
            }
            let Some((asked, took, fetched)) = under_way.next().await else {
                return Ok(());
            };
            let bytes = match fetched {
                Ok(bytes) => bytes,
                Err(error) => {
                    tracing::debug!(source = %asked.source, %error, "a range was not fetched");
                    shares.failed(&asked, &error);
                    if !matches!(error, FetchError::NotFound) {
                        pull.failed = Some((asked.source, error));
                    }
                    continue;
                }
            };
            shares.came(&asked, took);
            let (share, range) = (pull.partial.clone(), asked.range.clone());
            let written = blocking(move || Ok(share.write(range, &bytes))).await?;
            match written {
                Ok(()) => {
                    shares.done(&asked.range);
                    if pull.told_at.elapsed() >= TELL_EVERY {
                        (pull.told)(Progress::Here(pull.partial.received()));
                        pull.told_at = Instant::now();
                    }
                    // One at a time, beside what is received.
                    while ahead.try_join_next().is_some() {}
                    if ahead.is_empty() {
                        let share = pull.partial.clone();
                        ahead.spawn_blocking(move || share.go_ahead());
                    }
                }
                Err(BlobError::Range { .. }) => {
                    if pull.liars.insert(asked.source) {
                        self.tell_liar(asked.source, pull.artifact.sha256);
                    }
                    shares.give_up(&asked);
                }
                Err(error) => return Err(error.into()),
            }
        }
    }

    /// Whoever answers with anything but what was asked for knows better.
    fn tell_liar(&self, source: PublicKey, sha256: Hash) {
        let message = format!(
            "{source}: sent bytes of {} that do not verify",
            sha256.short()
        );
        self.events
            .record(clock::wall(), "refused", source.short(), message);
    }

    async fn range(
        &self,
        sha256: Hash,
        asked: Asked,
    ) -> (Asked, Duration, Result<bytes::Bytes, FetchError>) {
        let Range { start, end } = asked.range;
        let len = u32::try_from(end - start).unwrap_or(u32::MAX);
        let began = Instant::now();
        let fetched = self
            .network
            .fetch_range(asked.source, sha256, start, len, RANGE_TIME)
            .await;
        (asked, began.elapsed(), fetched)
    }
}

/// One pull, over all its rounds.
struct Pull<T> {
    artifact: Artifact,
    partial: Partial,
    /// Sources whose bytes did not verify.
    liars: HashSet<PublicKey>,
    paces: HashMap<PublicKey, Pace>,
    /// Why a source that has it did not give it, in the last round.
    failed: Option<(PublicKey, FetchError)>,
    told: T,
    told_at: Instant,
}

impl<T> Pull<T> {
    /// Why it is given up for now.
    fn fruitless(self) -> PullError {
        let sha256 = self.artifact.sha256;
        match self.failed {
            Some((from, source)) => PullError::Stuck {
                sha256,
                from,
                source,
            },
            None => PullError::NoSource(sha256),
        }
    }
}

async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, PullError> + Send + 'static,
) -> Result<T, PullError> {
    tokio::task::spawn_blocking(work)
        .await
        .map_err(|_| PullError::Interrupted)?
}

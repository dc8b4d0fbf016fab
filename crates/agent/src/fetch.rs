//! Pulls artifacts by digest from any approved peer that has them, several at a time.

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
    sync::{Mutex as AsyncMutex, watch},
    task::JoinSet,
};

use crate::{clock, events::Events, fold::chain};
use shares::Shares;

/// Ranges under way for one artifact, over all sources.
const PARALLEL: usize = 8;
/// And from one source, so that a slow one does not hold them all.
const PER_SOURCE: usize = 4;
/// One range of at most 1 MiB from one source.
const RANGE_TIME: Duration = Duration::from_secs(30);
/// Rounds in which no source gave a single range, before the pull is given up for now.
const EMPTY_ROUNDS: u32 = 20;
/// Between two such rounds: sources come and go.
const ROUND_WAIT: Duration = Duration::from_millis(500);

#[derive(Debug, thiserror::Error)]
pub enum PullError {
    #[error("no connected node has {}", .0.short())]
    NoSource(Hash),
    #[error("the artifact could not be kept")]
    Store(#[from] BlobError),
    #[error("the pull was interrupted")]
    Interrupted,
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
        }
    }

    /// The verified file of `artifact`, pulled if it is not here. May be dropped midway: what
    /// was verified stays, and the next pull goes on from there.
    pub async fn ensure(&self, artifact: Artifact) -> Result<PathBuf, PullError> {
        let pull = {
            let mut pulls = self.pulls.lock().unwrap_or_else(PoisonError::into_inner);
            pulls.retain(|_, pull| Arc::strong_count(pull) > 1);
            pulls.entry(artifact.sha256).or_default().clone()
        };
        let _one = pull.lock().await;
        if let Some(path) = self.local(artifact).await? {
            return Ok(path);
        }
        let began = Instant::now();
        let path = self.pull(artifact).await?;
        let size = size_text(artifact.size);
        let took = began.elapsed().as_secs_f64();
        let (digest, message) = (artifact.sha256.short(), format!("{size} in {took:.3} s"));
        self.events.record(clock::wall(), "pulled", digest, message);
        Ok(path)
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

    async fn pull(&self, artifact: Artifact) -> Result<PathBuf, PullError> {
        let blobs = self.blobs.clone();
        let partial = blocking(move || Ok(blobs.begin(artifact)?)).await?;
        let mut empty = 0;
        let mut liars = HashSet::new();
        let mut sources = self.sources.clone();
        while !partial.missing().is_empty() {
            let before = partial.received();
            self.round(artifact, &partial, &mut liars).await?;
            if partial.received() > before {
                empty = 0;
                continue;
            }
            empty += 1;
            if empty == EMPTY_ROUNDS {
                return Err(PullError::NoSource(artifact.sha256));
            }
            // Another source, or a moment: whichever comes first.
            sources.mark_unchanged();
            let _ = tokio::time::timeout(ROUND_WAIT, sources.changed()).await;
        }
        let blobs = self.blobs.clone();
        blocking(move || Ok(blobs.complete(partial)?)).await
    }

    /// Asks every source for a share of what is missing, the least busy one first; a source that
    /// fails is left out, and one that lied in all rounds that follow. What a slow one still owes at
    /// the end is asked of another too.
    async fn round(
        &self,
        artifact: Artifact,
        partial: &Partial,
        liars: &mut HashSet<PublicKey>,
    ) -> Result<(), PullError> {
        let mut sources = self.sources.borrow().clone();
        sources.retain(|source| !liars.contains(source));
        let mut shares = Shares::new(sources, partial.missing());
        let mut under_way = FuturesUnordered::new();
        let mut ahead = JoinSet::new();
        loop {
            while let Some((source, range)) = shares.next() {
                under_way.push(self.range(source, artifact.sha256, range));
            }
            if shares.is_done() {
                return Ok(());
            }
            let Some((source, range, fetched)) = under_way.next().await else {
                return Ok(());
            };
            let bytes = match fetched {
                Ok(bytes) => bytes,
                Err(error) => {
                    tracing::debug!(%source, %error, "a range was not fetched");
                    shares.failed(source, range);
                    continue;
                }
            };
            let (share, asked) = (partial.clone(), range.clone());
            let written = blocking(move || Ok(share.write(asked, &bytes))).await?;
            match written {
                Ok(()) => {
                    shares.done(&range);
                    // One at a time, beside what is received.
                    while ahead.try_join_next().is_some() {}
                    if ahead.is_empty() {
                        let share = partial.clone();
                        ahead.spawn_blocking(move || share.go_ahead());
                    }
                }
                Err(BlobError::Range { .. }) => {
                    if liars.insert(source) {
                        self.tell_liar(source, artifact.sha256);
                    }
                    shares.failed(source, range);
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
        source: PublicKey,
        sha256: Hash,
        range: Range<u64>,
    ) -> (PublicKey, Range<u64>, Result<bytes::Bytes, FetchError>) {
        let len = u32::try_from(range.end - range.start).unwrap_or(u32::MAX);
        let fetched = self
            .network
            .fetch_range(source, sha256, range.start, len, RANGE_TIME)
            .await;
        (source, range, fetched)
    }
}

async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, PullError> + Send + 'static,
) -> Result<T, PullError> {
    tokio::task::spawn_blocking(work)
        .await
        .map_err(|_| PullError::Interrupted)?
}

//! The agent behind the RPC membrane: asks the core, reads logs, takes uploads.

mod receiving;

use std::{
    path::{Path, PathBuf},
    rc::Rc,
    sync::Arc,
    time::Duration,
};

use futures::future::LocalBoxFuture;
use realm_identity::{Artifact, Hash, PublicKey, RealmId};
use realm_p2p::{BlobSource, NetworkHandle, RpcServe, Stream};
use realm_rpc::{
    Control, ErrorCode, Event, EventSink, Fork, Head, HeadId, Host, Intent, Limits, LogLine,
    LogQuery, LogSink, LogStream, PendingNode, PublicInfo, RpcError, Submitted, Survey, SurveySink,
    Upload, status::Status,
};
use realm_store::{BlobError, Blobs};
use tokio::sync::{mpsc, oneshot, watch};

use crate::{
    clock,
    core::{Command, View},
    desk::Desk,
    events::Events,
    fold::chain,
    logs::{self, Logs, Select},
    metrics::{Disk, Snapshot, Traffic},
};

/// Lines sent at once.
const LINES: usize = 256;
/// Events sent at once.
const EVENTS: usize = 64;
/// How often a watched survey is made again.
const WATCH: Duration = Duration::from_millis(500);
/// One is sent so often in any case: who hears nothing for longer knows that this node is gone.
const ALIVE: Duration = Duration::from_secs(2);

type Answer<'a, T> = LocalBoxFuture<'a, Result<T, RpcError>>;

/// What the server needs; it can cross threads, what it makes cannot.
#[derive(Debug, Clone)]
pub struct Shared {
    pub key: PublicKey,
    pub commands: mpsc::Sender<Command>,
    pub view: watch::Receiver<View>,
    pub logs: Logs,
    pub events: Events,
    pub desk: Desk,
    pub blobs: Arc<Blobs>,
    pub network: Arc<std::sync::OnceLock<NetworkHandle>>,
    /// The data directory.
    pub data: PathBuf,
}

impl Shared {
    fn network(&self) -> Result<&NetworkHandle, RpcError> {
        self.network.get().ok_or_else(stopping)
    }

    async fn ask<T>(
        &self,
        make: impl FnOnce(oneshot::Sender<Result<T, RpcError>>) -> Command,
    ) -> Result<T, RpcError> {
        let (reply, answer) = oneshot::channel();
        let sent = self.commands.send(make(reply)).await;
        sent.map_err(|_| stopping())?;
        answer.await.map_err(|_| stopping())?
    }

    /// The realm as this node knows it.
    pub async fn status(&self) -> Result<Status, RpcError> {
        let peers = self.network()?.peers().await.map_err(|_| stopping())?;
        let grounds = self.ask(|reply| Command::Grounds { peers, reply });
        self.desk.status(grounds).await.map_err(|_| stopping())?
    }

    /// What this node knows of its realm, and who has signed it.
    pub async fn survey(&self) -> Result<Survey, RpcError> {
        let peers = self.network()?.peers().await.map_err(|_| stopping())?;
        self.ask(|reply| Command::Survey { peers, reply }).await
    }

    /// This node as it is now.
    pub async fn metrics(&self) -> Result<Snapshot, RpcError> {
        let network = self.network()?;
        let peers = network.peers().await.map_err(|_| stopping())?;
        let stats = network.stats().await.map_err(|_| stopping())?;
        let counted = self.ask(Command::Metrics);
        let snapshot = self.desk.snapshot(counted).await;
        let mut snapshot = snapshot.map_err(|_| stopping())??;
        for peer in peers {
            *snapshot.links.entry(peer.link.name()).or_default() += 1;
        }
        snapshot.events = self.events.counts();
        snapshot.network = Traffic {
            frames_in: stats.frames_in,
            frames_out: stats.frames_out,
            frames_dropped: stats.frames_dropped,
            gossip_in: stats.gossip_in,
            gossip_rejected: stats.gossip_rejected,
            gossip_dropped: stats.gossip_dropped,
            malformed: stats.malformed,
            refused: stats.refused,
            calls_refused: stats.rpc_refused,
            ranges_refused: stats.blobs_refused,
        };
        let (blobs, data) = (self.blobs.clone(), self.data.clone());
        snapshot.disk = blocking(move || disk(&blobs, &data)).await?;
        Ok(snapshot)
    }
}

fn disk(blobs: &Blobs, data: &Path) -> Result<Disk, RpcError> {
    Ok(Disk {
        artifact_bytes: blobs.used().map_err(store)?,
        free_bytes: realm_store::free_bytes(data),
    })
}

/// Serves RPC streams on the network's thread.
#[derive(Debug)]
pub struct Server(pub Shared);

/// One connection's host and, once its key is proven, its control.
#[derive(Debug, Clone)]
struct Operator {
    shared: Shared,
    /// The key of the connection, which is not the one that is proven.
    peer: PublicKey,
}

impl RpcServe for Server {
    fn serve(&self, peer: PublicKey, stream: Stream) -> LocalBoxFuture<'static, ()> {
        let host: Rc<dyn Host> = Rc::new(Operator {
            shared: self.0.clone(),
            peer,
        });
        let commands = self.0.commands.clone();
        Box::pin(async move {
            let Err(error) = realm_rpc::serve(stream, host, Limits::default()).await else {
                return;
            };
            tracing::debug!(%peer, error = chain(&error), "an rpc connection ended");
            if error.is_overload() {
                let what = chain(&error);
                // Nobody waits behind it: of a flood some are enough.
                let _ = commands.try_send(Command::Overload { peer, what });
            }
        })
    }
}

impl Host for Operator {
    fn info(&self) -> PublicInfo {
        let view = self.shared.view.borrow();
        PublicInfo {
            node: self.shared.key,
            version: crate::VERSION.to_owned(),
            realm: view.realm,
            name: Some(view.name.clone()),
        }
    }

    fn realm(&self) -> Option<RealmId> {
        self.shared.view.borrow().realm
    }

    fn epoch(&self) -> u64 {
        self.shared.view.borrow().epoch
    }

    fn epoch_ended(&self, epoch: u64) -> LocalBoxFuture<'_, ()> {
        let mut view = self.shared.view.clone();
        Box::pin(async move {
            // An agent that stops ends every authority too.
            let _ = view.wait_for(|view| view.epoch != epoch).await;
        })
    }

    fn authorise(
        &self,
        key: PublicKey,
    ) -> LocalBoxFuture<'_, Result<Option<Rc<dyn Control>>, RpcError>> {
        let view = self.shared.view.borrow().clone();
        // Before there is a realm only the pinned owner, or whoever comes first in an open
        // window, may bring one.
        let allowed = match view.realm {
            Some(_) => view.owners.first().is_some_and(|(owner, _)| *owner == key),
            None => view.pinned == Some(key) || (view.pinned.is_none() && view.window),
        };
        let refused = rotated(&view, key);
        Box::pin(async move {
            if let Some(refused) = refused {
                return Err(refused);
            }
            if !allowed {
                return Ok(None);
            }
            if view.realm.is_some() {
                self.relay(view.epoch).await?;
            }
            Ok(Some(Rc::new(self.clone()) as Rc<dyn Control>))
        })
    }
}

/// What somebody with a key that owned the realm before has to know.
fn rotated(view: &View, key: PublicKey) -> Option<RpcError> {
    let ((owner, _), past) = view.owners.split_first()?;
    let (_, ended) = past.iter().find(|(past, _)| *past == key)?;
    let revision = (*ended)?;
    let message =
        format!("your key owned this realm until it was handed to {owner} at revision {revision}");
    Some(RpcError::new(ErrorCode::NotAuthorised, message).help(
        "use that key: --key FILE, or bring it here with realm key export and realm key import; \
         if it was not you who handed it over, whoever did had your key",
    ))
}

impl Operator {
    /// Whoever may read the realm's nodes may reach them: those that nobody else does, through this one.
    async fn relay(&self, epoch: u64) -> Result<(), RpcError> {
        // An agent that is still starting relays for nobody.
        let Some(network) = self.shared.network.get() else {
            return Ok(());
        };
        let relayed = network.relay_for(self.peer).await;
        relayed.map_err(|_| stopping())?;
        // The core ends an epoch first and dismisses the guests then: one who came between goes too.
        if self.epoch() != epoch {
            network.dismiss_guests().await.map_err(|_| stopping())?;
        }
        Ok(())
    }

    fn ask<T: 'static>(
        &self,
        make: impl FnOnce(oneshot::Sender<Result<T, RpcError>>) -> Command + 'static,
    ) -> Answer<'_, T> {
        Box::pin(self.shared.ask(make))
    }

    async fn send_logs(&self, query: LogQuery, sink: LogSink) -> Result<(), RpcError> {
        let name = self.shared.view.borrow().name.clone();
        let mut written = self.shared.logs.watch();
        let select = Select {
            component: query.component,
            previous: query.previous,
            until: (!query.follow).then(|| self.shared.logs.next()),
        };
        let tail = query.tail.map(|tail| {
            let tail = usize::try_from(tail).unwrap_or(usize::MAX);
            self.shared.logs.tail(&select, tail)
        });
        let since = query.since.map(clock::to_system);
        let since = since.map(|since| self.shared.logs.since(&select, since));
        let mut from = tail.unwrap_or(0).max(since.unwrap_or(0));
        loop {
            written.borrow_and_update();
            let (lines, next) = self.shared.logs.read(&select, from, LINES);
            let more = lines.len() == LINES;
            from = next;
            let lines: Vec<LogLine> = lines
                .into_iter()
                .map(|line| log_line(&name, line))
                .collect();
            if !lines.is_empty() && sink.send(&lines).await.is_err() {
                return Ok(());
            }
            if more {
                continue;
            }
            if !query.follow || written.changed().await.is_err() {
                return Ok(());
            }
        }
    }

    async fn send_events(
        &self,
        mut after: u64,
        follow: bool,
        sink: EventSink,
    ) -> Result<(), RpcError> {
        let mut changed = self.shared.events.watch();
        loop {
            changed.borrow_and_update();
            let new = self.shared.events.after(after);
            let new: Vec<Event> = new.into_iter().map(event).collect();
            after = new.last().map_or(after, |event| event.seq);
            for some in new.chunks(EVENTS) {
                if sink.send(some).await.is_err() {
                    return Ok(());
                }
            }
            if !follow || changed.changed().await.is_err() {
                return Ok(());
            }
        }
    }
}

impl Control for Operator {
    fn head(&self) -> Answer<'_, Head> {
        self.ask(Command::Head)
    }

    fn heads(&self) -> Answer<'_, Vec<HeadId>> {
        self.ask(Command::Heads)
    }

    fn submit(&self, entry: Vec<u8>, payload: Vec<u8>) -> Answer<'_, Submitted> {
        self.ask(move |reply| Command::Submit {
            entry,
            payload,
            reply,
        })
    }

    fn survey(&self) -> Answer<'_, Survey> {
        Box::pin(self.shared.survey())
    }

    fn watch(&self, mut sink: SurveySink) -> Answer<'_, ()> {
        Box::pin(async move {
            let mut last: Option<(Survey, tokio::time::Instant)> = None;
            loop {
                let survey = self.shared.survey().await?;
                let fresh = |(last, at): &(Survey, tokio::time::Instant)| {
                    *last == survey && at.elapsed() < ALIVE
                };
                if !last.as_ref().is_some_and(fresh) {
                    if sink.send(&survey).await.is_err() {
                        return Ok(());
                    }
                    last = Some((survey, tokio::time::Instant::now()));
                }
                tokio::time::sleep(WATCH).await;
            }
        })
    }

    fn logs(&self, query: LogQuery, sink: LogSink) -> Answer<'_, ()> {
        Box::pin(self.send_logs(query, sink))
    }

    fn events(&self, after: u64, follow: bool, sink: EventSink) -> Answer<'_, ()> {
        Box::pin(self.send_events(after, follow, sink))
    }

    fn history(&self, from: u64, to: u64, max_bytes: usize) -> Answer<'_, Vec<Intent>> {
        self.ask(move |reply| Command::History {
            from,
            to,
            max_bytes,
            reply,
        })
    }

    fn forks(&self) -> Answer<'_, Vec<Fork>> {
        self.ask(Command::Forks)
    }

    fn upload(&self, artifact: Artifact) -> Answer<'_, Box<dyn Upload>> {
        Box::pin(receiving::begin(self.shared.blobs.clone(), artifact))
    }

    fn claim(&self, claim: Vec<u8>) -> Answer<'_, Vec<u8>> {
        self.ask(move |reply| Command::Claim { claim, reply })
    }

    fn pending(&self) -> Answer<'_, Vec<PendingNode>> {
        self.ask(Command::Pending)
    }

    fn peer_add(&self, address: String) -> Answer<'_, ()> {
        self.ask(move |reply| Command::PeerAdd { address, reply })
    }

    fn adopt(&self, genesis: Vec<u8>) -> Answer<'_, ()> {
        self.ask(move |reply| Command::Adopt { genesis, reply })
    }

    fn standing(&self) -> Answer<'_, Vec<Vec<u8>>> {
        self.ask(Command::Standing)
    }
}

/// Serves artifacts to approved nodes.
#[derive(Debug)]
pub struct Artifacts {
    pub blobs: Arc<Blobs>,
    pub view: watch::Receiver<View>,
}

impl BlobSource for Artifacts {
    fn allow(&self, peer: PublicKey) -> bool {
        self.view.borrow().approved.contains(&peer)
    }

    fn read_range(&self, sha256: Hash, offset: u64, len: u32) -> std::io::Result<Option<Vec<u8>>> {
        self.blobs
            .encode_range(&sha256, offset, len)
            .map_err(std::io::Error::other)
    }
}

fn log_line(node: &str, line: logs::Line) -> LogLine {
    let logs::Line {
        component,
        index,
        line,
    } = line;
    LogLine {
        at: clock::to_timestamp(line.at),
        component: component.to_string(),
        node: node.to_owned(),
        index,
        stream: match line.stream {
            realm_runtime::LogStream::Stdout => LogStream::Out,
            realm_runtime::LogStream::Stderr => LogStream::Err,
            realm_runtime::LogStream::Agent => LogStream::Agent,
        },
        text: line.text.into(),
    }
}

fn event(event: crate::events::Event) -> Event {
    Event {
        seq: event.seq,
        at: event.at,
        kind: event.kind.to_owned(),
        subject: event.subject,
        message: event.message,
    }
}

async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, RpcError> + Send + 'static,
) -> Result<T, RpcError> {
    tokio::task::spawn_blocking(work)
        .await
        .map_err(|_| stopping())?
}

fn stopping() -> RpcError {
    RpcError::new(ErrorCode::Disconnected, "the agent is stopping")
}

fn store(error: BlobError) -> RpcError {
    let limit = |help| RpcError::new(ErrorCode::Limit, chain(&error)).help(help);
    let code = match &error {
        BlobError::NoRoom { .. } | BlobError::DiskFull { .. } => {
            return limit(
                "free space where the node's data directory lies, or send it to another node: --via ADDR",
            );
        }
        BlobError::Budget { .. } => {
            return limit(
                "remove components: realm rm NAME; raise artifact_mb in the agent's config; or send it to another node: --via ADDR",
            );
        }
        BlobError::TooLarge { .. } => ErrorCode::Limit,
        BlobError::Digest { .. } | BlobError::Size { .. } => ErrorCode::Invalid,
        // It passes: whoever asks may wait for it.
        BlobError::OtherUpload(_) | BlobError::OtherPull(_) => ErrorCode::Conflict,
        _ => ErrorCode::Failed,
    };
    RpcError::new(code, chain(&error))
}

//! The task that owns the swarm and everything that hangs on it.

mod begun;
mod command;
mod dial;
mod reason;
mod silence;
mod swarm;

pub(crate) use reason::of_one as dial_reason;

use std::{
    collections::{HashMap, HashSet, VecDeque},
    rc::Rc,
    sync::Arc,
    time::Duration,
};

use bytes::Bytes;
use futures::StreamExt as _;
use libp2p::{
    Multiaddr, PeerId, StreamProtocol, Swarm, core::transport::ListenerId, kad, swarm::ConnectionId,
};
use realm_identity::PublicKey;
use tokio::{
    sync::{Notify, Semaphore, mpsc},
    task::{AbortHandle, JoinSet},
    time::{Instant, MissedTickBehavior, interval, timeout},
};

use crate::{
    BlobSource, Link, NetLimits, NetworkEvent, RpcServe, Stats, address,
    behaviour::Behaviour,
    blob,
    book::Book,
    frames,
    gossip::Topics,
    handle::Command,
    handshakes::Source,
    key,
    slots::Slots,
    streams::{OpenError, Opened},
    task::{
        begun::Begun,
        dial::{Bootstrap, Dial, Waiting},
    },
};

/// Events that wait for the consumer; beyond that the network stops reading, which slows its peers down.
const OUTBOX_MAX: usize = 1024;
/// From here on, what may be lost is: gossip, round trips, discoveries.
const OUTBOX_BUSY: usize = OUTBOX_MAX / 2;
/// Reports of the crate's own tasks; they wait when the network is busy.
const REPORTS: usize = 64;
/// Peers that frames wait for at once.
const WRITERS_MAX: usize = 1024;
const QUEUE_FULL: &str = "its queue is full";
const TICK: Duration = Duration::from_millis(500);
/// For saying goodbye to peers when stopping.
const GOODBYE: Duration = Duration::from_millis(500);
/// For listeners to say where they listen.
const LISTEN_TIME: Duration = Duration::from_secs(3);

/// What the crate's tasks tell the network.
#[derive(Debug)]
pub(crate) enum Report {
    Frame {
        from: PublicKey,
        bytes: Bytes,
    },
    FramesDropped {
        to: PublicKey,
        count: u64,
        reason: String,
    },
    Open {
        to: PublicKey,
        protocol: StreamProtocol,
        reply: Opened,
    },
}

/// How one of the crate's tasks ended.
pub(crate) enum Done {
    Frames {
        from: PublicKey,
        result: Result<(), frames::ReadError>,
    },
    Rpc {
        peer: PublicKey,
        sound: bool,
    },
    Other,
}

struct Peer {
    id: PeerId,
    connections: Vec<Connection>,
    rtt: Option<Duration>,
    version: Option<String>,
    tags: Vec<String>,
    /// Where it says that it listens: believed once it is approved.
    told: Vec<Multiaddr>,
    reader: Option<AbortHandle>,
}

struct Connection {
    id: ConnectionId,
    address: Multiaddr,
    /// By this node, so that the peer listens at that address.
    dialled: bool,
    link: Link,
    /// Which start of the peer it goes to, as far as that was told.
    run: Option<u64>,
    /// When it last answered a ping. None for a peer that does not speak ping.
    answered: Option<Instant>,
}

/// The way to one peer's [`frames::Writer`].
struct Outgoing {
    queue: mpsc::Sender<frames::Queued>,
    /// Bytes that there is room for.
    room: Arc<Semaphore>,
    connected: Rc<Notify>,
    task: AbortHandle,
    /// A frame was dropped since the last tick, because the queue was full.
    full: bool,
    /// The ones after it, not told yet.
    dropped: u64,
}

/// Everything a task is made of that is not its own state.
pub(crate) struct Parts {
    pub swarm: Swarm<Behaviour>,
    pub limits: NetLimits,
    pub topics: Option<Topics>,
    pub bootstrap: Vec<Multiaddr>,
    pub listeners: HashSet<ListenerId>,
    pub commands: mpsc::Receiver<Command>,
    pub events: mpsc::Sender<NetworkEvent>,
    pub blobs: Option<Arc<dyn BlobSource>>,
    pub rpc: Option<Rc<dyn RpcServe>>,
}

pub(crate) struct Task {
    swarm: Swarm<Behaviour>,
    limits: NetLimits,
    topics: Option<Topics>,
    commands: mpsc::Receiver<Command>,
    events: mpsc::Sender<NetworkEvent>,
    outbox: VecDeque<NetworkEvent>,
    report: mpsc::Sender<Report>,
    reports: mpsc::Receiver<Report>,
    peers: HashMap<PublicKey, Peer>,
    writers: HashMap<PublicKey, Outgoing>,
    book: Book,
    dials: HashMap<ConnectionId, Dial>,
    waiting: HashMap<PublicKey, Vec<Waiting>>,
    /// Peers that are dialled when their turn comes, and not before.
    later: HashMap<PublicKey, Instant>,
    begun: Begun,
    /// Peers whose addresses are asked for, and what to say if nobody knows.
    lookups: HashMap<kad::QueryId, (PublicKey, OpenError)>,
    /// When peers were asked for lately.
    looked_up: HashMap<PublicKey, Instant>,
    bootstrap: Vec<Bootstrap>,
    listeners: HashSet<ListenerId>,
    blobs: Option<Arc<dyn BlobSource>>,
    blob_slots: Slots,
    rpc: Option<Rc<dyn RpcServe>>,
    rpc_slots: Slots,
    stranger_slots: Slots,
    frame_budget: Arc<Semaphore>,
    /// Each peer's part of it. Kept for one that left while its frames still wait.
    frame_budgets: HashMap<PublicKey, Arc<Semaphore>>,
    tasks: JoinSet<Done>,
    ticked: Instant,
    /// Since the last tick the network has waited for its consumer, and heard nobody.
    held_up: bool,
    stats: Stats,
}

/// Whether the network goes on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Flow {
    Go,
    Stop,
}

impl Task {
    pub fn new(parts: Parts) -> Self {
        let (report, reports) = mpsc::channel(REPORTS);
        let limits = parts.limits;
        Self {
            swarm: parts.swarm,
            topics: parts.topics,
            commands: parts.commands,
            events: parts.events,
            outbox: VecDeque::new(),
            report,
            reports,
            peers: HashMap::new(),
            writers: HashMap::new(),
            book: Book::default(),
            dials: HashMap::new(),
            waiting: HashMap::new(),
            later: HashMap::new(),
            begun: Begun::new(Instant::now()),
            lookups: HashMap::new(),
            looked_up: HashMap::new(),
            bootstrap: parts.bootstrap.into_iter().map(Bootstrap::new).collect(),
            listeners: parts.listeners,
            blobs: parts.blobs,
            blob_slots: Slots::new(limits.blobs_per_peer, limits.blobs),
            rpc: parts.rpc,
            rpc_slots: Slots::new(limits.rpc_per_peer, limits.rpc),
            stranger_slots: Slots::new(limits.rpc_per_stranger, usize::MAX),
            frame_budget: Arc::new(Semaphore::new(limits.frame_bytes)),
            frame_budgets: HashMap::new(),
            tasks: JoinSet::new(),
            ticked: Instant::now(),
            held_up: false,
            stats: Stats::default(),
            limits,
        }
    }

    /// Waits until every listener has said where it listens.
    pub async fn listening(&mut self) {
        let said = timeout(LISTEN_TIME, async {
            while !self.listeners.is_empty() {
                let event = self.swarm.select_next_some().await;
                self.on_swarm(event);
            }
        });
        if said.await.is_err() {
            tracing::warn!("some listeners have no address yet");
        }
    }

    /// Runs until told to stop, or until nobody is left to tell.
    pub async fn run(mut self) {
        let mut tick = interval(TICK);
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let events = self.events.clone();
        loop {
            let room = self.outbox.len() < OUTBOX_MAX;
            self.held_up |= !room;
            let flow = tokio::select! {
                permit = events.reserve(), if !self.outbox.is_empty() => self.deliver(permit),
                command = self.commands.recv() => match command {
                    Some(command) => self.on_command(command),
                    None => Flow::Stop,
                },
                Some(report) = self.reports.recv(), if room => self.on_report(report),
                Some(done) = self.tasks.join_next() => self.on_done(done),
                event = self.swarm.select_next_some(), if room => self.on_swarm(event),
                now = tick.tick() => self.on_tick(now),
            };
            if flow == Flow::Stop {
                break;
            }
        }
        Box::pin(self.stop()).await;
    }

    fn deliver(
        &mut self,
        permit: Result<mpsc::Permit<'_, NetworkEvent>, mpsc::error::SendError<()>>,
    ) -> Flow {
        match permit {
            Ok(permit) => {
                if let Some(event) = self.outbox.pop_front() {
                    permit.send(event);
                }
            }
            // Nobody listens any more; commands may still come.
            Err(_) => self.outbox.clear(),
        }
        Flow::Go
    }

    fn tell(&mut self, event: NetworkEvent) {
        self.outbox.push_back(event);
    }

    /// For what loses its worth by waiting. False when it was dropped.
    fn tell_if_calm(&mut self, event: NetworkEvent) -> bool {
        let calm = self.outbox.len() < OUTBOX_BUSY;
        if calm {
            self.outbox.push_back(event);
        }
        calm
    }

    fn on_report(&mut self, report: Report) -> Flow {
        match report {
            // A frame that outlived its connection would come after the peer's disconnection.
            Report::Frame { from, bytes } if self.peers.contains_key(&from) => {
                self.stats.frames_in += 1;
                self.tell(NetworkEvent::Frame { from, bytes });
            }
            Report::Frame { .. } => {}
            Report::FramesDropped { to, count, reason } => self.frames_dropped(to, count, reason),
            Report::Open {
                to,
                protocol,
                reply,
            } => {
                self.with_connection(to, Waiting::Stream { protocol, reply });
            }
        }
        Flow::Go
    }

    fn on_done(&mut self, done: Result<Done, tokio::task::JoinError>) -> Flow {
        match done {
            Ok(Done::Frames {
                from,
                result: Err(error),
            }) => self.reader_failed(from, error),
            Ok(Done::Rpc { peer, sound: false }) => {
                self.stats.rpc_panics += 1;
                tracing::error!(%peer, "serving RPC panicked; the connection is closed");
            }
            Ok(_) => {}
            Err(error) if error.is_cancelled() => {}
            Err(error) => tracing::error!(%error, "a task of the network panicked"),
        }
        Flow::Go
    }

    /// A stream may break; whoever breaks the framing is cut off.
    fn reader_failed(&mut self, from: PublicKey, error: frames::ReadError) {
        if let frames::ReadError::Io(error) = error {
            tracing::debug!(%from, %error, "a frame stream ended");
            return;
        }
        self.stats.malformed += 1;
        tracing::debug!(%from, %error, "cutting off a peer that breaks the framing");
        self.tell(NetworkEvent::Malformed {
            from,
            reason: error.to_string(),
        });
        self.disconnect(from);
    }

    fn on_tick(&mut self, now: Instant) -> Flow {
        self.end_silent(now);
        self.dial_bootstrap(now);
        self.dial_late(now);
        self.reserve_places();
        let mut told = Vec::new();
        for (to, writer) in &mut self.writers {
            writer.full = false;
            if writer.dropped > 0 {
                told.push((*to, std::mem::take(&mut writer.dropped)));
            }
        }
        for (to, count) in told {
            self.frames_dropped(to, count, QUEUE_FULL.to_owned());
        }
        self.writers.retain(|_, writer| !writer.queue.is_closed());
        let (part, peers) = (self.limits.frame_bytes_per_peer, &self.peers);
        self.frame_budgets
            .retain(|key, left| peers.contains_key(key) || left.available_permits() < part);
        Flow::Go
    }

    /// Approved peers come in although strangers fill the node: their addresses have places apart.
    fn reserve_places(&self) {
        let limits = &self.swarm.behaviour().limits;
        let is_approved = |key| key::peer_of(key).is_some_and(|peer| limits.is_approved(&peer));
        let told = self.book.iter().filter(|(key, _)| is_approved(key));
        let told = told.filter_map(|(_, address)| address::ip_of(address));
        let known = told.map(|ip| Source::of(Some(ip))).chain(limits.seen());
        limits.handshakes.set_known(known.collect());
    }

    fn frames_dropped(&mut self, to: PublicKey, count: u64, reason: String) {
        self.stats.frames_dropped += count;
        // The consumer that sends and never listens is told by the numbers alone.
        if self.outbox.len() < OUTBOX_MAX {
            self.tell(NetworkEvent::FramesDropped { to, count, reason });
        }
    }

    fn disconnect(&mut self, key: PublicKey) {
        let Some(peer) = self.peers.get(&key) else {
            return self.stop_writer(key);
        };
        let (id, open) = (peer.id, peer.connections.iter().map(|open| open.id));
        for connection in open.collect::<Vec<_>>() {
            self.end_connection(key, id, connection);
        }
    }

    /// No new work, tell the peers, cancel what runs, wait for it.
    async fn stop(mut self) {
        self.commands.close();
        self.reports.close();
        self.tasks.shutdown().await;
        let peers: Vec<_> = self.swarm.connected_peers().copied().collect();
        for peer in peers {
            let _ = self.swarm.disconnect_peer_id(peer);
        }
        let goodbye = timeout(GOODBYE, async {
            while self.swarm.connected_peers().next().is_some() {
                self.swarm.select_next_some().await;
            }
        });
        if goodbye.await.is_err() {
            tracing::debug!("some connections did not close in time");
        }
    }
}

impl Peer {
    /// The link in use: a direct one if there is any.
    fn link(&self) -> Link {
        let best = self
            .connections
            .iter()
            .min_by_key(|open| open.link == Link::Relay);
        best.map_or(Link::Relay, |open| open.link)
    }

    /// Learns which start of the peer `connection` goes to; whether others go to another one.
    fn is_restarted(&mut self, connection: ConnectionId, run: Option<u64>) -> bool {
        for open in &mut self.connections {
            if open.id == connection {
                open.run = run;
            }
        }
        let mut runs = self.connections.iter().filter_map(|open| open.run);
        runs.any(|other| run.is_some_and(|run| run != other))
    }
}

/// Serves or refuses a blob request; refusals are answered too, briefly.
fn blob_answer(
    source: Option<&Arc<dyn BlobSource>>,
    peer: PublicKey,
    free: bool,
) -> Result<Arc<dyn BlobSource>, blob::Status> {
    match source {
        Some(source) if !source.allow(peer) => Err(blob::Status::Refused),
        Some(_) if !free => Err(blob::Status::Busy),
        Some(source) => Ok(source.clone()),
        None => Err(blob::Status::NotFound),
    }
}

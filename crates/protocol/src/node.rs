//! The protocol of one node: events in, effects out.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use rand_foca::{RngExt as _, SeedableRng, rngs::SmallRng};
use realm_identity::{Genesis, Hash, PublicKey, RealmId, SecretKey, Signed, VerifyError};

use crate::{
    Effect, Event, Fold, Frame, Halt, Log, Member, Mutation, Now, Offence, Op, Point, Refusal,
    Restored, Verdict, limits::*, swim::Swim,
};

mod asking;
mod claims;
mod expelled;
mod joins;
mod newcomer;
mod peers;
mod status;
mod sync;
mod writes;

use claims::Claims;
use expelled::Record;
use joins::Joins;
use newcomer::Newcomer;
use peers::{Peer, Spent};
use status::Reports;
use writes::Writes;

/// How often a node compares its log with one other.
const SYNC_EVERY_MS: u64 = 2_000;
/// A question to join, or a claim, is repeated until it is settled.
const ASK_AGAIN_MS: u64 = 5_000;
/// How long a failed write waits before it is tried again.
const RETRY_MS: u64 = 1_000;
/// How long a hint to dial holds.
const DIAL_EVERY_MS: u64 = 2_000;

#[derive(Debug, Clone)]
pub struct Config {
    /// The node's signing key, which is also its name.
    pub key: SecretKey,
    /// The realm, when an invite named it before its genesis is known.
    pub realm: Option<RealmId>,
    /// Owners pinned on this node. Without one, no realm is accepted from the network.
    pub pins: Vec<PublicKey>,
    /// Rises with every start of the node, whatever its clock says.
    pub boot_id: u64,
    /// For choosing peers, nothing secret.
    pub seed: u64,
    /// Only the simulator sets it.
    #[doc(hidden)]
    pub mutation: Option<Mutation>,
}

#[derive(Debug, thiserror::Error)]
pub enum RestoreError {
    #[error("the stored genesis is not valid")]
    Genesis(#[source] VerifyError),
    #[error("the stored log is of realm {found}, this node was told to join {expected}")]
    OtherRealm { found: RealmId, expected: RealmId },
    #[error("the stored checkpoint is not valid")]
    Checkpoint(#[source] Refusal),
}

/// See the crate's documentation.
#[derive(Debug)]
pub struct Node<F> {
    config: Config,
    me: PublicKey,
    fold: F,
    log: Option<Log<F>>,
    approved: BTreeSet<PublicKey>,
    /// Nodes that were taken out.
    expelled: BTreeMap<PublicKey, Record>,
    /// The realm whose owner is known to have revoked this node before it was ever in.
    told_revoked: Option<RealmId>,
    /// None once this node has caught up with the realm.
    newcomer: Option<Newcomer>,
    peers: BTreeMap<PublicKey, Peer>,
    /// Connected peers that have entries, and when they may be asked for them.
    ask_later: BTreeMap<PublicKey, u64>,
    /// How much gossip of each approved node was handed on.
    authors: BTreeMap<PublicKey, Spent>,
    /// Where the approved nodes said their durable logs stand.
    heads: BTreeMap<PublicKey, (status::Age, Point)>,
    swim: Swim,
    claims: Claims,
    joins: Joins,
    reports: Reports,
    writes: Writes,
    /// What has been told to the caller, as far as effects were made for it.
    told: (Point, Option<Halt>),
    /// The head that is on disk.
    durable: Point,
    dialled: BTreeMap<PublicKey, u64>,
    /// Sent to every peer until this node is approved.
    asking: Vec<Frame>,
    next_ask: u64,
    next_sync: u64,
    next_announce: u64,
    announced: u64,
    next_retry: Option<u64>,
    rng: SmallRng,
    effects: VecDeque<Effect>,
}

impl<F: Fold + Clone> Node<F> {
    /// A node as it starts, with what it had on disk. Entries that no longer verify are left
    /// out; they are fetched again.
    pub fn new(
        config: Config,
        fold: F,
        restored: Restored,
        now: Now,
    ) -> Result<Self, RestoreError> {
        let me = config.key.public();
        let log = restore(&config, &fold, restored.clone())?;
        let seed = config.seed;
        let durable = log
            .as_ref()
            .map_or(NOWHERE, |log| point_of(log.head().seq, log.head().hash));
        let halt = log.as_ref().and_then(|log| log.halt().cloned());
        let is_new = log.is_none() || !restored.caught_up;
        let mut node = Self {
            me,
            fold,
            log,
            approved: BTreeSet::new(),
            expelled: BTreeMap::new(),
            told_revoked: None,
            newcomer: is_new.then(|| Newcomer::at(now.mono)),
            peers: BTreeMap::new(),
            ask_later: BTreeMap::new(),
            authors: BTreeMap::new(),
            heads: BTreeMap::new(),
            swim: Swim::new(me, now.wall.as_millis(), seed),
            claims: Claims::default(),
            joins: Joins::default(),
            reports: Reports::default(),
            writes: Writes::default(),
            told: (durable, halt),
            durable,
            dialled: BTreeMap::new(),
            asking: Vec::new(),
            next_ask: 0,
            next_sync: now.mono,
            next_announce: now.mono,
            announced: 0,
            next_retry: None,
            rng: SmallRng::seed_from_u64(seed),
            effects: VecDeque::new(),
            config,
        };
        node.restore_claims(restored.claims);
        Ok(node)
    }

    pub fn log(&self) -> Option<&Log<F>> {
        self.log.as_ref()
    }

    /// The newest agreed entry that is on disk.
    pub fn durable_head(&self) -> Point {
        self.durable
    }

    /// Nodes known to have revision `seq` on disk, this one included.
    pub fn durable_on(&self, seq: u64) -> usize {
        let others = self
            .heads
            .iter()
            .filter(|(node, (_, at))| **node != self.me && at.seq >= seq);
        usize::from(self.durable.seq >= seq) + others.count()
    }

    /// Where the approved nodes last said their durable heads are.
    pub fn heads(&self) -> impl Iterator<Item = (PublicKey, Point)> {
        self.heads.iter().map(|(node, (_, at))| (*node, *at))
    }

    pub fn members(&self) -> &BTreeMap<PublicKey, Member> {
        self.swim.members()
    }

    pub fn connected(&self) -> impl Iterator<Item = PublicKey> {
        self.peers.keys().copied()
    }

    /// The newest report of `node` (`Signed<NodeReport>` as on the wire).
    pub fn report(&self, node: PublicKey) -> Option<&[u8]> {
        self.reports.wire(node)
    }

    /// When to give the next [`Event::Tick`], on the monotonic clock.
    pub fn next_timeout(&self) -> u64 {
        let own = self
            .next_sync
            .min(self.next_announce)
            .min(self.next_retry.unwrap_or(u64::MAX))
            .min(self.newcomer.as_ref().map_or(u64::MAX, Newcomer::due))
            .min(match self.asking.is_empty() {
                true => u64::MAX,
                false => self.next_ask,
            });
        let own = self.reports.asking.next().map_or(own, |due| due.min(own));
        let late = self.ask_later.values().min().copied();
        let own = late.map_or(own, |due| due.min(own));
        self.swim.next_timeout().map_or(own, |due| due.min(own))
    }

    pub fn poll_effect(&mut self) -> Option<Effect> {
        self.effects.pop_front()
    }

    pub fn handle(&mut self, event: Event, now: Now) {
        match event {
            Event::PeerConnected { peer } => self.connected_to(peer, now),
            Event::PeerDisconnected { peer } => self.disconnected_from(peer, now),
            Event::Frame { from, bytes } => self.frame(from, &bytes, now),
            Event::Gossip { from, topic, bytes } => {
                self.gossip(from, topic, &bytes, now);
            }
            Event::Submit {
                token,
                entry,
                payload,
            } => self.submit(token, &entry, payload),
            Event::Found { genesis } => self.found(&genesis, now),
            Event::Persisted { token } => self.persisted(token, now),
            Event::PersistFailed { token } => self.persist_failed(token, now),
            Event::Approved { nodes } => self.approve(nodes, now),
            Event::Expelled { nodes } => self.expel(nodes),
            Event::Pinned { owner } => self.config.pins.push(owner),
            Event::OwnReport { report, digest } => self.own_report(report, digest, now),
            Event::AddClaim { claim } => self.add_claim(None, &claim),
            Event::Join { request } => self.ask(Frame::Join(request)),
            Event::Claim { claim } => self.ask(Frame::Claim(claim)),
            Event::JoinSettled { node } => self.joins.remove(&node),
            Event::Tick => self.tick(now),
        }
        self.finish(now);
    }

    /// Takes in a gossip message and says whether to forward it.
    pub fn handle_gossip(
        &mut self,
        from: PublicKey,
        topic: crate::Topic,
        bytes: &[u8],
        now: Now,
    ) -> Verdict {
        let verdict = self.gossip(from, topic, bytes, now);
        self.finish(now);
        verdict
    }

    fn tick(&mut self, now: Now) {
        self.swim.tick(now.mono);
        self.hang_up_on_lost(now);
        if !self.asking.is_empty() && self.next_ask <= now.mono {
            self.next_ask = now.mono + ASK_AGAIN_MS;
            self.ask_everybody();
        }
        if self.next_sync <= now.mono {
            self.next_sync = now.mono + SYNC_EVERY_MS;
            self.joins.forget(now.mono);
            self.sync_with_any(now);
        }
        if self.next_announce <= now.mono {
            self.announce(now);
        }
        self.ask_others_for_reports(now);
        self.ask_for_late_entries(now);
        if self.next_retry.is_some_and(|due| due <= now.mono) {
            self.next_retry = None;
            self.retry_writes();
        }
    }

    /// What follows from any event: what the log now says, what SWIM wants, what must be written.
    fn finish(&mut self, now: Now) {
        self.tell();
        self.catch_up(now);
        self.flush_writes(now);
        self.drain_swim(now);
    }

    fn frame(&mut self, from: PublicKey, bytes: &[u8], now: Now) {
        let approved = self.approved.contains(&from);
        let Some(peer) = self.peers.get_mut(&from) else {
            return;
        };
        (peer.heard_at, peer.ignores) = (now.mono, false);
        if !peer.allow(approved, now.mono) {
            return self.warn(from, Offence::RateLimited);
        }
        if self.effects.len() > MAX_EFFECTS {
            return;
        }
        let Ok(frame) = Frame::decode(bytes) else {
            return self.warn(from, Offence::MalformedFrame);
        };
        match frame {
            Frame::Locator {
                realm,
                tips,
                samples,
            } => self.locator(from, realm, &tips, &samples, now),
            Frame::Entries { realm, items, more } => self.entries(from, realm, items, more, now),
            Frame::ForkProof(items) => self.fork_proof(from, items, now),
            Frame::Checkpoint(checkpoint) => self.checkpoint(from, checkpoint, now),
            Frame::Genesis(wire) => self.genesis(from, &wire, now),
            Frame::Claim(claim) => self.claim_presented(from, claim),
            Frame::Join(request) => self.join(from, request, now),
            Frame::Revoked(entry) => self.revoked(from, &entry),
            // Owners and witnesses signed these: who brings them does not matter.
            Frame::Claims(claims) => claims
                .iter()
                .for_each(|claim| self.add_claim(Some(from), &claim.0)),
            // The rest is for approved nodes. A peer cannot know what this node thinks of it,
            // so that asking is no offence.
            _ if !approved => {}
            Frame::GetEntry(hash) => self.get_entry(from, hash),
            Frame::ClaimsHave(hashes) => self.claims_have(from, &hashes, now),
            Frame::Swim(packet) => self.swim_packet(from, &packet, now),
            Frame::GetReport { node, boot_id, seq } => self.get_report(from, node, boot_id, seq),
            Frame::Report(wire) => self.take_report(from, wire, now),
        }
    }

    fn warn(&mut self, peer: PublicKey, what: Offence) {
        self.effects.push_back(Effect::Warn { peer, what });
    }

    fn send(&mut self, to: PublicKey, frame: &Frame) {
        if self.peers.contains_key(&to) {
            self.effects.push_back(Effect::Send {
                to,
                frame: frame.encode(),
            });
        }
    }

    fn send_approved(&mut self, frame: &Frame) {
        let bytes = frame.encode();
        let sends = self.approved_peers().map(|to| Effect::Send {
            to: *to,
            frame: bytes.clone(),
        });
        let sends: Vec<_> = sends.collect();
        self.effects.extend(sends);
    }

    fn approved_peers(&self) -> impl Iterator<Item = &PublicKey> {
        let peers = self.peers.keys();
        peers.filter(|peer| self.approved.contains(peer))
    }

    fn any_approved_peer(&mut self) -> Option<PublicKey> {
        if self.peers.is_empty() {
            return None;
        }
        // Most are, so that in a large realm a guess costs less than a look at all.
        let at = self.rng.random_range(0..self.peers.len());
        let guess = self.peers.keys().nth(at).copied();
        if let Some(guess) = guess.filter(|peer| self.approved.contains(peer)) {
            return Some(guess);
        }
        let peers: Vec<_> = self.approved_peers().copied().collect();
        let at = (!peers.is_empty()).then(|| self.rng.random_range(0..peers.len()))?;
        peers.get(at).copied()
    }

    fn dial(&mut self, peer: PublicKey, now: Now) {
        let recent = self
            .dialled
            .get(&peer)
            .is_some_and(|at| now.mono < at + DIAL_EVERY_MS);
        if recent
            || peer == self.me
            || self.peers.contains_key(&peer)
            || !self.approved.contains(&peer)
        {
            return;
        }
        self.dialled.insert(peer, now.mono);
        self.effects.push_back(Effect::Dial { peer });
    }
}

/// The durable head of a node without a realm.
const NOWHERE: Point = Point {
    seq: 0,
    hash: Hash::from_bytes([0; 32]),
};

fn point_of(seq: u64, hash: Hash) -> Point {
    Point { seq, hash }
}

fn restore<F: Fold + Clone>(
    config: &Config,
    fold: &F,
    restored: Restored,
) -> Result<Option<Log<F>>, RestoreError> {
    let Some(genesis) = restored.genesis else {
        return Ok(None);
    };
    let genesis = Signed::<Genesis>::from_wire(&genesis).map_err(RestoreError::Genesis)?;
    let found = genesis.realm_id();
    if let Some(expected) = config.realm.filter(|expected| *expected != found) {
        return Err(RestoreError::OtherRealm { found, expected });
    }
    let mut log = match restored.checkpoint {
        Some(checkpoint) => {
            let owners = [config.pins.clone(), vec![genesis.owner()]].concat();
            Log::from_checkpoint(&checkpoint, &owners, fold.clone())
                .map_err(RestoreError::Checkpoint)?
        }
        None => Log::new(genesis, fold.clone()),
    };
    log.mutation = config.mutation;
    if config.mutation == Some(Mutation::ForgetRevision) {
        return Ok(Some(log));
    }
    // Parents first; the envelope is only looked into here, `insert` verifies it.
    let mut entries: Vec<_> = restored
        .entries
        .into_iter()
        .map(|item| (seq_of(&item.entry), item))
        .collect();
    entries.sort_by_key(|(seq, _)| *seq);
    for (_, item) in entries {
        if let Err(refusal) = log.insert(&item.entry, item.payload) {
            tracing::warn!(%refusal, "stored entry left out");
        }
    }
    Ok(Some(log))
}

/// The revision inside an unverified entry; the last of all where it cannot be read.
fn seq_of(wire: &[u8]) -> u64 {
    let read = || {
        let mut envelope = minicbor::Decoder::new(wire);
        envelope.array()?;
        let mut entry = minicbor::Decoder::new(envelope.bytes()?);
        entry.array()?;
        for _ in 0..3 {
            entry.skip()?;
        }
        entry.u64()
    };
    read().unwrap_or(u64::MAX)
}

/// Operations that keep an entry.
fn ops_of(point: Point, item: &crate::Item, payload_digest: Option<Hash>) -> Vec<Op> {
    let mut ops = Vec::with_capacity(2);
    if let Some(bytes) = &item.payload {
        let sha256 = payload_digest.unwrap_or_else(|| Hash::of(bytes));
        ops.push(Op::Payload {
            sha256,
            bytes: bytes.clone(),
        });
    }
    ops.push(Op::Entry {
        hash: point.hash,
        seq: point.seq,
        wire: item.entry.clone(),
    });
    ops
}

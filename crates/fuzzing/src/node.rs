//! A node of the realm without its IO: the harness that frames and gossip are fed through.

use std::collections::BTreeMap;

use realm_agent::{
    PlannerFold,
    approvals::{ByChain, approved, expulsions},
};
use realm_identity::{Entry, Genesis, Hash, PublicKey, Signed, WitnessedClaim};
use realm_planner::State;
use realm_protocol::{
    Config, Effect, Event, Frame, Item, Node, Now, Op as Write, Restored, Topic, limits,
};

use crate::scene::{self, NODES, NOW, Scene, key, scene};

/// What a step does, in the low half of its first byte; the high half names the peer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum Op {
    /// A frame as it is.
    Frame,
    /// A frame whose envelopes are signed again.
    Mended,
    /// The same, and its entries follow the node's head.
    Chained,
    /// The next write fails.
    DiskFails,
    /// Time passes: two bytes, in milliseconds.
    Time,
    Connect,
    Disconnect,
    /// The node starts again from its disk.
    Restart,
    /// Gossip about heads as it is, and signed again.
    Heads,
    HeadsMended,
    /// Gossip about reports as it is, and signed again.
    Status,
    StatusMended,
    /// A packet of SWIM.
    Swim,
}

impl Op {
    const ALL: [Self; 13] = [
        Self::Frame,
        Self::Mended,
        Self::Chained,
        Self::DiskFails,
        Self::Time,
        Self::Connect,
        Self::Disconnect,
        Self::Restart,
        Self::Heads,
        Self::HeadsMended,
        Self::Status,
        Self::StatusMended,
        Self::Swim,
    ];

    pub fn of(byte: u8) -> Self {
        Self::ALL[usize::from(byte & 0x0f) % Self::ALL.len()]
    }

    /// The byte of a step that does this in the name of a peer, by its place in [`NODES`].
    pub const fn byte(self, peer: u8) -> u8 {
        peer << 4 | self as u8
    }
}

/// How the node begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Standing {
    /// It has the realm's log.
    Member,
    /// It pinned the owner and knows nothing else.
    Newcomer,
}

/// Effects of one event: each is bounded by what the event can hold, and by members and peers.
const MAX_EFFECTS: usize = 4 * limits::MAX_EFFECTS;

/// The node and what is around it.
pub struct Harness {
    pub node: Node<PlannerFold>,
    pub state: Option<(State, Hash)>,
    now: Now,
    disk: Vec<Write>,
    disk_fails: bool,
    boots: u64,
}

impl Harness {
    pub fn new(standing: Standing) -> Self {
        let disk = match standing {
            Standing::Member => written(scene()),
            Standing::Newcomer => Vec::new(),
        };
        let now = Now { wall: NOW, mono: 0 };
        let mut harness = Self {
            node: start(&disk, 1, now),
            state: None,
            now,
            disk,
            disk_fails: false,
            boots: 1,
        };
        harness.begin();
        harness
    }

    /// Tells the node what its caller would, and connects its peers.
    fn begin(&mut self) {
        let head = self.node.log().map(|log| log.head().clone());
        if let Some(head) = head {
            self.head_is(&head.state, head.hash);
        }
        for number in &NODES[1..] {
            let peer = key(*number).public();
            self.handle(Event::PeerConnected { peer });
        }
    }

    pub fn step(&mut self, op: Op, peer: u8, bytes: &[u8]) {
        let from = key(NODES[1 + usize::from(peer) % (NODES.len() - 1)]).public();
        let frame = |bytes| Event::Frame { from, bytes };
        match op {
            Op::Frame => self.handle(frame(bytes.to_vec())),
            Op::Mended => self.handle(frame(self.mended(bytes, false))),
            Op::Chained => self.handle(frame(self.mended(bytes, true))),
            Op::Swim => self.handle(frame(Frame::Swim(bytes.to_vec()).encode())),
            Op::DiskFails => self.disk_fails = true,
            Op::Time => self.pass(bytes),
            Op::Connect => self.handle(Event::PeerConnected { peer: from }),
            Op::Disconnect => self.handle(Event::PeerDisconnected { peer: from }),
            Op::Restart => self.restart(),
            Op::Heads => self.gossip(from, Topic::Heads, bytes),
            Op::Status => self.gossip(from, Topic::Status, bytes),
            Op::HeadsMended => {
                let again = scene::signed_again::<realm_protocol::HeadAnnounce>(bytes);
                self.gossip(from, Topic::Heads, again.as_deref().unwrap_or(bytes));
            }
            Op::StatusMended => {
                let again = scene::signed_again::<realm_manifest::report::StatusDigest>(bytes);
                self.gossip(from, Topic::Status, again.as_deref().unwrap_or(bytes));
            }
        }
        assert!(
            self.node.members().len() <= limits::MAX_MEMBERS,
            "too many members"
        );
    }

    fn gossip(&mut self, from: PublicKey, topic: Topic, bytes: &[u8]) {
        let verdict = self.node.handle_gossip(from, topic, bytes, self.now);
        if verdict == realm_protocol::Verdict::Accept {
            assert!(crate::gossip::is_signed(topic, bytes), "forged gossip");
        }
        self.effects();
    }

    fn pass(&mut self, bytes: &[u8]) {
        let millis = bytes
            .first_chunk()
            .map_or(1_000, |two| u16::from_be_bytes(*two));
        self.now.mono += u64::from(millis);
        self.now.wall = self.now.wall.plus_millis(millis.into());
        if self.node.next_timeout() <= self.now.mono {
            self.handle(Event::Tick);
        }
    }

    fn restart(&mut self) {
        let durable = self.node.durable_head();
        self.boots += 1;
        self.node = start(&self.disk, self.boots, self.now);
        assert_eq!(
            self.node.durable_head(),
            durable,
            "an acknowledged entry is not on disk"
        );
        self.begin();
    }

    fn handle(&mut self, event: Event) {
        self.node.handle(event, self.now);
        self.effects();
    }

    fn effects(&mut self) {
        for _ in 0..MAX_EFFECTS {
            let Some(effect) = self.node.poll_effect() else {
                return;
            };
            self.effect(effect);
        }
        panic!("one event has no end of effects");
    }

    fn effect(&mut self, effect: Effect) {
        match effect {
            Effect::Send { frame, .. } => {
                assert!(Frame::decode(&frame).is_ok(), "sends what nobody can read");
            }
            Effect::Publish { topic, bytes } => {
                assert!(bytes.len() <= limits::MAX_GOSSIP_BYTES, "too much gossip");
                assert!(crate::gossip::is_signed(topic, &bytes), "unsigned gossip");
            }
            Effect::Persist { token, ops } => {
                if std::mem::take(&mut self.disk_fails) {
                    return self.node.handle(Event::PersistFailed { token }, self.now);
                }
                let owners = self.node.log().map(|log| log.owners()).unwrap_or_default();
                ops.iter().for_each(|write| check_write(write, &owners));
                self.disk.extend(ops);
                self.node.handle(Event::Persisted { token }, self.now);
            }
            Effect::HeadAdvanced { state, hash, .. } => self.head_is(&state, hash),
            Effect::RealmJoined { .. } => {
                let head = self.node.log().map(|log| log.head().clone());
                let head = head.expect("who is in a realm has its log");
                self.head_is(&head.state, head.hash);
            }
            Effect::ClaimAdded { claim } => {
                WitnessedClaim::from_wire(&claim).expect("an added claim is verified");
                self.tell_approved();
            }
            _ => {}
        }
    }

    fn head_is(&mut self, state: &[u8], hash: Hash) {
        let decoded = State::decode(state).expect("a folded state is canonical");
        assert_eq!(decoded.encode(), state, "a state has two encodings");
        self.state = Some((decoded, hash));
        self.tell_approved();
    }

    fn tell_approved(&mut self) {
        let Some((state, _)) = &self.state else {
            return;
        };
        let chain = ByChain::of(state);
        let claims: Vec<WitnessedClaim> = self.node.claims().cloned().collect();
        let nodes = approved(state.realm, &state.owners(), &chain, &claims);
        let nodes = nodes.into_keys().collect();
        let expelled = expulsions(state);
        self.node
            .handle(Event::Expelled { nodes: expelled }, self.now);
        self.node.handle(Event::Approved { nodes }, self.now);
    }

    /// The frame with signatures that fit what it says now.
    fn mended(&self, bytes: &[u8], chain: bool) -> Vec<u8> {
        let Ok(mut frame) = Frame::decode(bytes) else {
            return bytes.to_vec();
        };
        let again = |wire: &mut Vec<u8>, signed: Option<Vec<u8>>| {
            if let Some(signed) = signed {
                *wire = signed;
            }
        };
        match &mut frame {
            Frame::Entries { items, .. } | Frame::ForkProof(items) => self.mend(items, chain),
            Frame::Checkpoint(checkpoint) => {
                let genesis = scene::signed_again::<Genesis>(&checkpoint.genesis);
                again(&mut checkpoint.genesis, genesis);
                let entry = match State::decode(&checkpoint.state) {
                    Ok(state) if chain => {
                        let head = Hash::of(&checkpoint.state);
                        scene::chained(&checkpoint.entry, &checkpoint.payload, &state, head)
                    }
                    _ => scene::signed_again::<Entry>(&checkpoint.entry),
                };
                again(&mut checkpoint.entry, entry);
            }
            Frame::Genesis(wire) => {
                let signed = scene::signed_again::<Genesis>(wire);
                again(wire, signed);
            }
            Frame::Claims(claims) => claims.iter_mut().for_each(|claim| {
                let signed = scene::witnessed_again(&claim.0);
                again(&mut claim.0, signed);
            }),
            Frame::Claim(wire) => {
                let signed = scene::signed_again::<realm_identity::Claim>(wire);
                again(wire, signed);
            }
            Frame::Join(wire) => {
                let signed = scene::signed_again::<realm_protocol::JoinRequest>(wire);
                again(wire, signed);
            }
            Frame::Report(wire) => {
                let signed = scene::signed_again::<realm_manifest::report::NodeReport>(wire);
                again(wire, signed);
            }
            Frame::Revoked(wire) => {
                let signed = scene::signed_again::<Entry>(wire);
                again(wire, signed);
            }
            _ => {}
        }
        frame.encode()
    }

    fn mend(&self, items: &mut [Item], chain: bool) {
        let mut at = self.state.clone().filter(|_| chain);
        for item in items {
            let payload = item.payload.as_deref().unwrap_or_default();
            let wire = match &at {
                Some((state, head)) => scene::chained(&item.entry, payload, state, *head),
                None => scene::signed_again::<Entry>(&item.entry),
            };
            let Some(wire) = wire else { continue };
            at = at.and_then(|(state, _)| {
                let entry = Signed::<Entry>::from_wire(&wire).ok()?;
                let next = realm_planner::fold::apply(&state, &entry, payload).ok()?;
                Some((next, entry.hash()))
            });
            item.entry = wire;
        }
    }
}

/// The head that is on disk is there after a restart, whatever came before.
impl Drop for Harness {
    fn drop(&mut self) {
        if !std::thread::panicking() {
            self.restart();
        }
    }
}

/// What goes to disk was signed by who may.
fn check_write(write: &Write, owners: &[PublicKey]) {
    match write {
        Write::Entry { wire, hash, .. } => {
            let entry = Signed::<Entry>::from_wire(wire).expect("an unsigned entry was kept");
            assert_eq!(entry.hash(), *hash, "kept under another hash");
            assert!(owners.contains(&entry.author), "another's entry was kept");
        }
        Write::Payload { sha256, bytes } => {
            assert_eq!(Hash::of(bytes), *sha256, "a payload under another digest");
        }
        Write::Claim { wire, .. } => {
            WitnessedClaim::from_wire(wire).expect("an unsigned claim was kept");
        }
        Write::Genesis { wire } => {
            Signed::<Genesis>::from_wire(wire).expect("an unsigned genesis");
        }
        Write::Checkpoint { .. } | Write::CaughtUp => {}
    }
}

/// The realm's log as a member has it on disk.
fn written(scene: &Scene) -> Vec<Write> {
    let mut disk = vec![Write::Genesis {
        wire: scene.genesis.to_wire(),
    }];
    for item in &scene.log {
        let entry = Signed::<Entry>::from_wire(&item.entry).expect("the scene's own entry");
        let bytes = item.payload.clone().unwrap_or_default();
        disk.push(Write::Payload {
            sha256: Hash::of(&bytes),
            bytes,
        });
        disk.push(Write::Entry {
            hash: entry.hash(),
            seq: entry.seq,
            wire: item.entry.clone(),
        });
    }
    disk.push(Write::CaughtUp);
    disk
}

fn start(disk: &[Write], boot_id: u64, now: Now) -> Node<PlannerFold> {
    let config = Config {
        key: key(NODES[0]),
        realm: Some(scene().genesis.realm_id()),
        pins: vec![scene::owner().public()],
        boot_id,
        seed: boot_id,
        mutation: None,
    };
    Node::new(config, PlannerFold, restored(disk), now).expect("what was written can be read")
}

fn restored(disk: &[Write]) -> Restored {
    let mut restored = Restored::default();
    let mut payloads: BTreeMap<Hash, &[u8]> = BTreeMap::new();
    for write in disk {
        match write {
            Write::Genesis { wire } => restored.genesis = Some(wire.clone()),
            Write::Checkpoint { checkpoint } => restored.checkpoint = Some(checkpoint.clone()),
            Write::Payload { sha256, bytes } => {
                payloads.insert(*sha256, bytes);
            }
            Write::Entry { wire, .. } => {
                let entry = Signed::<Entry>::from_wire(wire).expect("it was checked");
                let sha256 = entry.body.as_ref().map(|body| body.payload.sha256);
                let payload = sha256.and_then(|sha256| payloads.get(&sha256).copied());
                restored.entries.push(Item {
                    entry: wire.clone(),
                    payload: payload.map(<[u8]>::to_vec),
                });
            }
            Write::Claim { wire, .. } => restored.claims.push(wire.clone()),
            Write::CaughtUp => restored.caught_up = true,
        }
    }
    restored
}

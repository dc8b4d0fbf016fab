//! A node as the agent runs it, with the planner's fold, and what it makes of what it is sent.

use std::collections::BTreeSet;

use realm_identity::{
    GraftChallenge, InviteToken, PublicKey, SealingCertificate, SecretKey, Timestamp,
    VerifiedClaim, canonical,
};
use realm_planner::State;
use realm_protocol::{
    Checkpoint, Config, Effect, Event, Frame, Halt, Item, Log, Node, Now, Op, Point, Restored,
    Topic, Verdict,
};

use crate::{approvals, net::WALL, planner_fold::PlannerFold, world::key};

/// Frames come so slowly that no limit is met: of an approved peer 256 a second, of others 2.
const APPROVED_PACE_MS: u64 = 4;
const STRANGER_PACE_MS: u64 = 500;

/// This node, the peer that sends, another approved node, one that was revoked, one that asks to join.
pub const ME: u64 = 0;
pub const SENDER: u64 = 1;
pub const BYSTANDER: u64 = 2;
pub const REVOKED: u64 = 3;
pub const STRANGER: u64 = 4;
/// The owner, the one it hands the realm to, and the owner of another realm.
pub const OWNER: u64 = 100;
pub const HEIR: u64 = 101;
pub const FOREIGNER: u64 = 102;

pub fn secret(who: u64) -> SecretKey {
    key(0, who)
}

pub fn public(who: u64) -> PublicKey {
    secret(who).public()
}

/// How a message comes in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Way {
    Entries,
    ForkProof,
    Submit,
    Checkpoint,
    Genesis,
    Revoked,
    Claims,
    Join,
    Report,
    Heads,
    Status,
    /// The proof of a key in an RPC connection.
    Graft,
    /// A claim that is shown to be witnessed.
    Claim,
    /// The certificate of a sealing key.
    Sealing,
    /// The token of an invite, at the node that joins.
    Token,
}

/// What became of a message.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Outcome {
    /// Refused, counted under this name and held against the sender.
    Named(String),
    /// Passed over: nothing that an honest peer could not have sent.
    Silent,
    Taken(String),
}

/// Everything of a node that a message could change and a caller could see.
#[derive(Debug, Clone, PartialEq)]
pub struct Snapshot {
    head: Option<realm_protocol::Head>,
    halt: Option<Halt>,
    entries: usize,
    tips: Vec<Point>,
    owners: Vec<PublicKey>,
    durable: Point,
    claims: Vec<realm_identity::Hash>,
    joins: Vec<PublicKey>,
    reports: Vec<Option<Vec<u8>>>,
    boots: Vec<Option<u64>>,
    heads: Vec<(PublicKey, Point)>,
    told_revoked: bool,
    caught_up: bool,
    disk: usize,
}

pub struct Host {
    pub node: Node<PlannerFold>,
    pub mono: u64,
    pub disk: Vec<Op>,
    approved: BTreeSet<PublicKey>,
}

impl Host {
    /// A node that pinned `owner`, with what it had on disk.
    pub fn new(owner: PublicKey, disk: Vec<Op>) -> Self {
        let config = Config {
            key: secret(ME),
            realm: None,
            pins: vec![owner],
            boot_id: 1,
            seed: 0,
            mutation: None,
        };
        let node = Node::new(config, PlannerFold, restored(&disk), now(0)).unwrap();
        let approved = BTreeSet::new();
        let mut host = Self {
            node,
            mono: 0,
            disk,
            approved,
        };
        host.approve();
        for peer in [SENDER, BYSTANDER, REVOKED, STRANGER].map(public) {
            host.handle(Event::PeerConnected { peer });
        }
        host
    }

    /// It takes itself for a newcomer no longer: that would be written in the middle.
    pub fn caught_up(mut self) -> Self {
        self.mono += 10_000;
        self.handle(Event::Tick);
        self
    }

    pub fn log(&self) -> &Log<PlannerFold> {
        self.node.log().unwrap()
    }

    pub fn state(&self) -> State {
        State::decode(&self.log().head().state).unwrap()
    }

    /// Handles an event, writes what is to be written, and tells the node whom its log approves.
    pub fn handle(&mut self, event: Event) -> Vec<Effect> {
        self.node.handle(event, now(self.mono));
        self.settle()
    }

    fn settle(&mut self) -> Vec<Effect> {
        let mut seen = Vec::new();
        while let Some(effect) = self.node.poll_effect() {
            if let Effect::Persist { token, ops } = &effect {
                self.disk.extend(ops.clone());
                let persisted = Event::Persisted { token: *token };
                self.node.handle(persisted, now(self.mono));
            }
            let moved = matches!(
                effect,
                Effect::HeadAdvanced { .. } | Effect::ClaimAdded { .. }
            );
            seen.push(effect);
            if moved {
                self.approve();
            }
        }
        seen
    }

    /// As the agent does: by chain and by claim.
    fn approve(&mut self) {
        let Some(log) = self.node.log() else { return };
        let state = self.state();
        let chain = approvals::ByChain::of(&state);
        let claims: Vec<_> = self.node.claims().cloned().collect();
        let nodes = approvals::approved(log.realm(), &log.owners(), &chain, &claims);
        let nodes: BTreeSet<_> = nodes.into_keys().collect();
        let expelled = approvals::expulsions(&state);
        let at = now(self.mono);
        self.approved = nodes.clone();
        self.node.handle(Event::Expelled { nodes: expelled }, at);
        self.node.handle(Event::Approved { nodes }, at);
    }

    pub fn snapshot(&self) -> Snapshot {
        let log = self.node.log();
        let named = [SENDER, BYSTANDER, REVOKED, STRANGER].map(public);
        let report = |node: &PublicKey| self.node.report(*node).map(<[u8]>::to_vec);
        Snapshot {
            head: log.map(|log| log.head().clone()),
            halt: log.and_then(|log| log.halt().cloned()),
            entries: log.map_or(0, Log::len),
            tips: log.map_or_else(Vec::new, Log::tips),
            owners: log.map_or_else(Vec::new, Log::owners),
            durable: self.node.durable_head(),
            claims: self
                .node
                .claims()
                .map(|claim| claim.witness.hash())
                .collect(),
            joins: self.node.joins().map(|join| join.node).collect(),
            reports: named.iter().map(report).collect(),
            boots: named.iter().map(|node| self.node.boot_id(*node)).collect(),
            heads: self.node.heads().collect(),
            told_revoked: self.node.was_told_revoked(),
            caught_up: self.node.is_caught_up(),
            disk: self.disk.len(),
        }
    }

    /// Gives the message to the node in the way that it would come.
    pub fn offer(&mut self, way: Way, from: u64, wire: &[u8], payload: &[u8]) -> Outcome {
        let from = public(from);
        self.mono += match self.approved.contains(&from) {
            true => APPROVED_PACE_MS,
            false => STRANGER_PACE_MS,
        };
        let topic = match way {
            Way::Heads => Topic::Heads,
            Way::Status => Topic::Status,
            Way::Graft | Way::Claim | Way::Sealing | Way::Token => return self.read(way, wire),
            _ => {
                let event = self.event(way, from, wire, payload);
                return outcome(&self.handle(event), None);
            }
        };
        let at = now(self.mono);
        let verdict = self.node.handle_gossip(from, topic, wire, at);
        outcome(&self.settle(), Some(verdict))
    }

    fn event(&self, way: Way, from: PublicKey, wire: &[u8], payload: &[u8]) -> Event {
        let (entry, payload) = (wire.to_vec(), payload.to_vec());
        let item = |entry| Item {
            entry,
            payload: Some(payload.clone()),
        };
        let realm = || self.log().realm();
        let bytes = match way {
            Way::Submit => {
                return Event::Submit {
                    token: 1,
                    entry,
                    payload,
                };
            }
            Way::Entries => {
                let (items, more) = (vec![item(entry)], false);
                let realm = realm();
                Frame::Entries { realm, items, more }.encode()
            }
            Way::ForkProof => Frame::ForkProof(vec![item(entry)]).encode(),
            Way::Genesis => Frame::Genesis(entry).encode(),
            Way::Revoked => Frame::Revoked(entry).encode(),
            Way::Join => Frame::Join(entry).encode(),
            Way::Report => Frame::Report(entry).encode(),
            Way::Claims => crate::forged::claims_frame(wire),
            // As bytes, so that a checkpoint that cannot be read is sent too.
            Way::Checkpoint => [&[0x82, 2, 0x81], wire].concat(),
            _ => unreachable!("{way:?} is no frame"),
        };
        Event::Frame { from, bytes }
    }

    /// What the agent reads by itself, each with the function that it calls.
    fn read(&self, way: Way, wire: &[u8]) -> Outcome {
        let (realm, owners) = (self.log().realm(), self.log().owners());
        let read = match way {
            Way::Graft => prove(&challenge(realm), wire, &owners),
            Way::Claim => realm_identity::Signed::from_wire(wire)
                .map_err(|error| error.to_string())
                .and_then(|claim| {
                    let claim = VerifiedClaim::new(claim, realm, &owners);
                    let checked = claim.and_then(|claim| claim.check_time(now(self.mono).wall));
                    checked.map_err(|error| error.to_string())
                }),
            Way::Sealing => SealingCertificate::verify(wire, public(SENDER))
                .map(drop)
                .map_err(|error| error.to_string()),
            Way::Token => std::str::from_utf8(wire)
                .map_err(|error| error.to_string())
                .and_then(|text| {
                    let token = text.parse::<InviteToken>();
                    let token = token.map_err(|error| error.to_string())?;
                    let checked = token.invite().check_time(now(self.mono).wall);
                    let ours = token.invite().check_owner(realm, &owners);
                    checked.and(ours).map_err(|error| error.to_string())
                }),
            _ => unreachable!("{way:?} is for the node"),
        };
        match read {
            Ok(()) => Outcome::Taken(format!("{way:?}")),
            Err(_) => Outcome::Named(format!("{way:?} refused")),
        }
    }
}

/// The challenge that this node gave to whoever dialled it.
pub fn challenge(realm: realm_identity::RealmId) -> GraftChallenge {
    GraftChallenge::new(Some(realm), public(ME), PublicKey::NONE, [3; 32], 9)
}

/// As the membrane does: the proof names the key, the rest is as it was sent.
fn prove(sent: &GraftChallenge, wire: &[u8], owners: &[PublicKey]) -> Result<(), String> {
    let said = realm_identity::Signed::<GraftChallenge>::from_wire(wire);
    let client = said.map_err(|error| error.to_string())?.client;
    let sent = GraftChallenge {
        client,
        ..sent.clone()
    };
    sent.verify(wire).map_err(|error| error.to_string())?;
    match owners.last() == Some(&client) {
        true => Ok(()),
        false => Err("not the owner".to_owned()),
    }
}

pub fn now(mono: u64) -> Now {
    let wall = Timestamp::from_millis(WALL);
    Now { wall, mono }
}

/// What the disk holds, as the ledger gives it back.
pub fn restored(disk: &[Op]) -> Restored {
    let mut restored = Restored::default();
    let mut payloads = std::collections::HashMap::new();
    for op in disk {
        match op {
            Op::Genesis { wire } => restored.genesis = Some(wire.clone()),
            Op::Checkpoint { checkpoint } => restored.checkpoint = Some(checkpoint.clone()),
            Op::Payload { sha256, bytes } => drop(payloads.insert(*sha256, bytes.clone())),
            Op::Entry { wire, .. } => {
                let read = realm_identity::Signed::<realm_identity::Entry>::from_wire(wire);
                let body = read.ok().and_then(|entry| entry.body.clone());
                let payload = body.and_then(|body| payloads.get(&body.payload.sha256).cloned());
                let entry = wire.clone();
                restored.entries.push(Item { entry, payload });
            }
            Op::Claim { wire, .. } => restored.claims.push(wire.clone()),
            Op::CaughtUp => restored.caught_up = true,
        }
    }
    restored
}

fn outcome(effects: &[Effect], verdict: Option<Verdict>) -> Outcome {
    let mut outcome = Outcome::Silent;
    for effect in effects {
        match effect {
            Effect::Warn { what, .. } => outcome = Outcome::Named(what.to_string()),
            Effect::SubmitResult { result, .. } => match result {
                Err(refusal) => outcome = Outcome::Named(refusal.name().to_owned()),
                Ok(_) => return Outcome::Taken("submit".to_owned()),
            },
            // A question about what lies between, or the owner's word to one that is revoked.
            Effect::Send { frame, .. } => match Frame::decode(frame).unwrap() {
                Frame::Locator { .. } | Frame::Revoked(_) => {}
                other => return Outcome::Taken(format!("sent {other:?}")),
            },
            other => return Outcome::Taken(format!("{other:?}")),
        }
    }
    match verdict {
        Some(Verdict::Accept) => Outcome::Taken("forwarded".to_owned()),
        Some(Verdict::Reject) => {
            assert!(matches!(outcome, Outcome::Named(_)), "a rejection counts");
            outcome
        }
        _ => outcome,
    }
}

/// A checkpoint's bytes, as they stand in its frame.
pub fn checkpoint_bytes(checkpoint: &Checkpoint) -> Vec<u8> {
    canonical::encode(checkpoint)
}

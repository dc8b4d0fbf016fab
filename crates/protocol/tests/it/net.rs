//! A few nodes and a perfect network that delivers at once.

use std::collections::BTreeSet;

use realm_identity::{Genesis, Hash, Kind, PublicKey, SecretKey, Signed, Target, Timestamp};
use realm_protocol::{
    Accepted, Config, Effect, Event, Frame, JoinRequest, MemberState, Node, Now, Op, Refusal,
    Restored, Token,
};

use crate::{
    client::{next, push},
    fold::Chain,
    world::key,
};

pub const WALL: u64 = 1_700_000_000_000;

pub fn owner() -> SecretKey {
    key(0, 100)
}

pub fn genesis() -> Signed<Genesis> {
    let Ok(genesis) = Signed::sign(
        Genesis::new(owner().public(), "home".to_owned(), [1; 32]),
        &owner(),
    );
    genesis
}

pub fn name(index: usize) -> PublicKey {
    key(0, index as u64).public()
}

/// Nodes that are all connected; those that are dead neither hear nor speak.
pub struct Net {
    pub nodes: Vec<Node<Chain>>,
    pub dead: BTreeSet<usize>,
    /// They run, and what they say and what is said to them is lost, though connections stay.
    pub deaf: BTreeSet<usize>,
    /// What the first says to the second is lost, though the connection stays.
    pub cut: BTreeSet<(usize, usize)>,
    pub gossips: bool,
    pub mono: u64,
    pub kept: Vec<(usize, Effect)>,
    pub disk_works: bool,
    /// Writes wait until [`Net::write`].
    pub slow_disk: bool,
    waiting: Vec<(usize, Token, Vec<Op>)>,
    /// What each node has on disk, beside the genesis it was started with.
    pub disk: Vec<(usize, Op)>,
}

impl Net {
    pub fn new(count: usize) -> Self {
        let mut net = Self::apart(count);
        for index in 0..count {
            net.connect(index);
        }
        net
    }

    /// All are approved, and none is connected.
    pub fn apart(count: usize) -> Self {
        let nodes = (0..count).map(|index| node(index, 0)).collect();
        let (dead, kept, waiting) = (BTreeSet::new(), Vec::new(), Vec::new());
        let mut net = Self {
            nodes,
            dead,
            deaf: BTreeSet::new(),
            cut: BTreeSet::new(),
            gossips: true,
            mono: 0,
            kept,
            disk_works: true,
            slow_disk: false,
            waiting,
            disk: Vec::new(),
        };
        let names: BTreeSet<_> = (0..count).map(name).collect();
        for index in 0..count {
            net.give(
                index,
                Event::Approved {
                    nodes: names.clone(),
                },
            );
        }
        net
    }

    pub fn connect(&mut self, index: usize) {
        for other in (0..self.nodes.len()).filter(|other| *other != index) {
            self.connect_two(index, other);
        }
    }

    pub fn connect_two(&mut self, one: usize, other: usize) {
        self.give(one, Event::PeerConnected { peer: name(other) });
        self.give(other, Event::PeerConnected { peer: name(one) });
    }

    pub fn now(&self) -> Now {
        Now {
            wall: Timestamp::from_millis(WALL + self.mono),
            mono: self.mono,
        }
    }

    pub fn give(&mut self, index: usize, event: Event) {
        let now = self.now();
        if !self.dead.contains(&index) {
            self.nodes[index].handle(event, now);
            self.drain(index);
        }
    }

    pub fn drain(&mut self, index: usize) {
        while let Some(effect) = self.nodes[index].poll_effect() {
            match effect {
                Effect::Send { to, ref frame } => {
                    let to = (0..self.nodes.len()).find(|other| name(*other) == to);
                    let event = Event::Frame {
                        from: name(index),
                        bytes: frame.clone(),
                    };
                    let lost = |to| {
                        let deaf = self.deaf.contains(&index) || self.deaf.contains(&to);
                        deaf || self.cut.contains(&(index, to))
                    };
                    match to {
                        Some(to) if lost(to) => {}
                        Some(to) => self.give(to, event),
                        None => self.kept.push((index, effect)),
                    }
                }
                Effect::Publish { topic, bytes } => {
                    let (deaf, cut, gossips) = (self.deaf.clone(), self.cut.clone(), self.gossips);
                    let hears = |to: &usize| {
                        let deaf = deaf.contains(&index) || deaf.contains(to);
                        gossips && !deaf && !cut.contains(&(index, *to))
                    };
                    for to in (0..self.nodes.len()).filter(|to| *to != index && hears(to)) {
                        self.give(
                            to,
                            Event::Gossip {
                                from: name(index),
                                topic,
                                bytes: bytes.clone(),
                            },
                        );
                    }
                }
                Effect::Persist { token, ops } => {
                    self.waiting.push((index, token, ops));
                    if !self.slow_disk {
                        self.write();
                    }
                }
                other => self.kept.push((index, other)),
            }
        }
    }

    pub fn write(&mut self) {
        for (index, token, ops) in std::mem::take(&mut self.waiting) {
            if self.disk_works {
                self.disk.extend(ops.into_iter().map(|op| (index, op)));
            }
            let event = match self.disk_works {
                true => Event::Persisted { token },
                false => Event::PersistFailed { token },
            };
            self.give(index, event);
        }
    }

    pub fn run(&mut self, millis: u64) {
        let end = self.mono + millis;
        loop {
            let alive = (0..self.nodes.len()).filter(|index| !self.dead.contains(index));
            let next = alive
                .map(|index| (self.nodes[index].next_timeout(), index))
                .min();
            let Some((due, index)) = next.filter(|(due, _)| *due <= end) else {
                break;
            };
            self.mono = due.max(self.mono);
            self.give(index, Event::Tick);
        }
        self.mono = end;
    }

    pub fn state(&self, at: usize, of: usize) -> Option<MemberState> {
        self.nodes[at]
            .members()
            .get(&name(of))
            .map(|member| member.state)
    }

    pub fn submit(&mut self, payload: &[u8]) -> Hash {
        let signature = push(self.nodes[0].log().unwrap(), &owner(), payload);
        self.give(
            0,
            Event::Submit {
                token: 1,
                entry: signature.wire,
                payload: payload.to_vec(),
            },
        );
        signature.hash
    }

    /// The owner writes an entry at the first node.
    pub fn say(&mut self, kind: Kind, target: Target) {
        let signature = next(
            self.nodes[0].log().unwrap(),
            &owner(),
            kind,
            target,
            b"facts",
        );
        self.give(
            0,
            Event::Submit {
                token: 1,
                entry: signature.wire,
                payload: signature.payload,
            },
        );
    }

    pub fn results(&mut self) -> Vec<Result<Accepted, Refusal>> {
        let kept = std::mem::take(&mut self.kept).into_iter();
        kept.filter_map(|(_, effect)| match effect {
            Effect::SubmitResult { result, .. } => Some(result),
            _ => None,
        })
        .collect()
    }

    pub fn saw(&self, test: impl Fn(&Effect) -> bool) -> usize {
        self.kept.iter().filter(|(_, effect)| test(effect)).count()
    }
}

pub fn node(index: usize, mono: u64) -> Node<Chain> {
    let config = Config {
        key: key(0, index as u64),
        realm: None,
        pins: vec![owner().public()],
        boot_id: mono,
        seed: index as u64 + mono,
        mutation: None,
    };
    let restored = Restored {
        genesis: Some(genesis().to_wire()),
        ..Restored::default()
    };
    Node::new(
        config,
        Chain,
        restored,
        Now {
            wall: Timestamp::from_millis(WALL + mono),
            mono,
        },
    )
    .unwrap()
}

/// The nodes of `net` but `out` are approved, in the eyes of each of `at`.
pub fn approve_without(net: &mut Net, at: impl Iterator<Item = usize>, out: Option<usize>) {
    let nodes = (0..net.nodes.len()).filter(|node| Some(*node) != out);
    let nodes: std::collections::BTreeSet<_> = nodes.map(name).collect();
    for at in at {
        let nodes = nodes.clone();
        net.give(at, Event::Approved { nodes });
    }
}

pub fn request(index: usize, of: usize) -> Vec<u8> {
    let request = JoinRequest {
        v: 1,
        node: name(of),
        realm: None,
        name: format!("node-{index}"),
        tags: vec![],
        addresses: vec![],
        version: "0.1.0".to_owned(),
        at: Timestamp::from_millis(WALL),
    };
    let Ok(request) = Signed::sign(request, &key(0, of as u64));
    Frame::Join(request.to_wire()).encode()
}

/// What a peer sends.
pub fn frame(from: usize, bytes: Vec<u8>) -> Event {
    let from = name(from);
    Event::Frame { from, bytes }
}

pub fn asking(net: &Net, at: usize) -> Vec<PublicKey> {
    net.nodes[at].joins().map(|join| join.node).collect()
}

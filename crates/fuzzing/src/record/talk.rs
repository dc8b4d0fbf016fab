//! Nodes of the realm that talk: what one of them hears is an input.

use std::collections::VecDeque;

use realm_agent::{
    PlannerFold,
    approvals::{ByChain, approved, expulsions},
};
use realm_identity::{Artifact, PublicKey, SecretKey, Signed, Target};
use realm_manifest::{
    ComponentSpec,
    payload::{Payload, Push, Scale},
    report::{NodeReport, StatusDigest},
};
use realm_planner::{State, next_entry};
use realm_protocol::{
    Config, Effect, Event, Frame, JoinRequest, Node, Now, Restored, Topic, gossip,
};

use crate::{
    node::Op,
    scene::{self, NODES, NOW, key, scene},
    script,
};

/// Milliseconds of one talk, and between two looks at the clock.
const LONG: u64 = 6_000;
const STEP: u64 = 50;

enum Letter {
    Frame(Vec<u8>),
    Gossip(Topic, Vec<u8>),
}

/// What is heard at one place: an input for frames, one for gossip, and each frame by itself.
#[derive(Default)]
pub struct Heard {
    pub frames: Vec<u8>,
    pub gossip: Vec<u8>,
    pub each: Vec<Vec<u8>>,
}

struct Talk {
    nodes: Vec<Node<PlannerFold>>,
    letters: VecDeque<(usize, usize, Letter)>,
    now: Now,
    /// Whose letters are kept.
    ear: usize,
    heard: Heard,
    passed: u64,
    state: State,
}

/// Three members and one that joins talk for a while; `ear` hears.
pub fn talk(ear: usize, report: &NodeReport) -> Heard {
    let now = Now { wall: NOW, mono: 0 };
    let mut talk = Talk {
        nodes: (0..4).map(|place| start(place, now)).collect(),
        letters: VecDeque::new(),
        now,
        ear,
        heard: Heard::default(),
        passed: 0,
        state: scene().state.clone(),
    };
    // The first byte says how the node begins.
    talk.heard.frames.push(u8::from(ear == 3));
    talk.begin(report);
    while talk.now.mono < LONG {
        talk.now.mono += STEP;
        talk.now.wall = talk.now.wall.plus_millis(STEP);
        talk.passed += STEP;
        if talk.now.mono == 2_000 {
            talk.submit();
        }
        for place in 0..talk.nodes.len() {
            if talk.nodes[place].next_timeout() <= talk.now.mono {
                talk.give(place, Event::Tick);
            }
        }
        talk.deliver();
    }
    talk.heard
}

fn start(place: usize, now: Now) -> Node<PlannerFold> {
    let is_member = place < 3;
    let restored = Restored {
        genesis: is_member.then(|| scene().genesis.to_wire()),
        entries: if is_member {
            scene().log.clone()
        } else {
            Vec::new()
        },
        caught_up: is_member,
        ..Restored::default()
    };
    let config = Config {
        key: key(NODES[place]),
        realm: Some(scene().genesis.realm_id()),
        pins: vec![scene::owner().public()],
        boot_id: 1,
        seed: place as u64,
        mutation: None,
    };
    Node::new(config, PlannerFold, restored, now).unwrap()
}

fn name(place: usize) -> PublicKey {
    key(NODES[place]).public()
}

fn sign<T: realm_identity::Message>(value: T, secret: &SecretKey) -> Vec<u8> {
    let Ok(signed) = Signed::sign(value, secret);
    signed.to_wire()
}

/// The number of a peer in a step, as the harness counts them.
fn number(from: usize, ear: usize) -> u8 {
    // Only the first place is no peer there; a newcomer hears the others under other names.
    let from = if ear == 0 { from - 1 } else { from };
    from as u8
}

impl Talk {
    fn begin(&mut self, report: &NodeReport) {
        for place in 0..3 {
            self.approve(place);
        }
        for place in 0..self.nodes.len() {
            for other in (0..self.nodes.len()).filter(|other| *other != place) {
                let peer = name(other);
                self.give(place, Event::PeerConnected { peer });
            }
        }
        for (place, number) in NODES.into_iter().enumerate().take(3) {
            let report = NodeReport {
                node: name(place),
                realm: scene().genesis.realm_id(),
                ..report.clone()
            };
            let secret = key(number);
            let Ok(signed) = Signed::sign(report, &secret);
            let digest = sign(digest(&signed, signed.hash()), &secret);
            let report = signed.to_wire();
            self.give(place, Event::OwnReport { report, digest });
        }
        let join = JoinRequest {
            v: gossip::VERSION,
            node: name(3),
            realm: Some(scene().genesis.realm_id()),
            name: "four".into(),
            tags: vec!["edge".into()],
            addresses: vec!["/ip4/192.0.2.4/tcp/2020".into()],
            version: "realm/0.1.0".into(),
            at: NOW,
        };
        let request = sign(join, &key(NODES[3]));
        self.give(3, Event::Join { request });
        let claim = scene().claim.to_wire();
        self.give(1, Event::AddClaim { claim });
        self.deliver();
    }

    fn submit(&mut self) {
        let payloads = [
            (
                Target::Component("clock".into()),
                Payload::Push(Push {
                    spec: ComponentSpec::new(Artifact::of(b"clock")),
                    run: Some(true),
                    note: Some("ticks".into()),
                }),
            ),
            (
                Target::Component("hello".into()),
                Payload::Scale(Scale {
                    replicas: Some(2),
                    note: None,
                }),
            ),
        ];
        for (target, payload) in payloads {
            let head = self.nodes[1].log().unwrap().head().hash;
            let author = self.state.owner;
            let entry = next_entry(&self.state, head, author, target, &payload, NOW);
            let event = Event::Submit {
                token: 1,
                entry: sign(entry, &scene::owner()),
                payload: payload.encode(),
            };
            self.give(1, event);
        }
    }

    fn approve(&mut self, place: usize) {
        let Some(log) = self.nodes[place].log() else {
            return;
        };
        let state = State::decode(&log.head().state).unwrap();
        let claims = [scene().claim.clone()];
        let nodes = approved(state.realm, &state.owners(), &ByChain::of(&state), &claims);
        let nodes = nodes.into_keys().collect();
        let expelled = expulsions(&state);
        self.nodes[place].handle(Event::Expelled { nodes: expelled }, self.now);
        self.nodes[place].handle(Event::Approved { nodes }, self.now);
        self.state = state;
    }

    fn give(&mut self, place: usize, event: Event) {
        self.nodes[place].handle(event, self.now);
        self.effects(place);
    }

    fn effects(&mut self, place: usize) {
        while let Some(effect) = self.nodes[place].poll_effect() {
            match effect {
                Effect::Send { to, frame } => {
                    let to = (0..4).find(|other| name(*other) == to).unwrap();
                    self.letters.push_back((place, to, Letter::Frame(frame)));
                }
                Effect::Publish { topic, bytes } => {
                    for to in (0..4).filter(|to| *to != place) {
                        let letter = Letter::Gossip(topic, bytes.clone());
                        self.letters.push_back((place, to, letter));
                    }
                }
                Effect::Persist { token, .. } => {
                    self.nodes[place].handle(Event::Persisted { token }, self.now);
                }
                Effect::HeadAdvanced { .. } | Effect::ClaimAdded { .. } => self.approve(place),
                _ => {}
            }
        }
    }

    fn deliver(&mut self) {
        while let Some((from, to, letter)) = self.letters.pop_front() {
            if to == self.ear {
                self.keep(from, &letter);
            }
            match letter {
                Letter::Frame(bytes) => self.give(
                    to,
                    Event::Frame {
                        from: name(from),
                        bytes,
                    },
                ),
                Letter::Gossip(topic, bytes) => {
                    let from = name(from);
                    self.give(to, Event::Gossip { from, topic, bytes });
                }
            }
        }
    }

    fn keep(&mut self, from: usize, letter: &Letter) {
        let passed = u16::try_from(std::mem::take(&mut self.passed)).unwrap();
        let peer = number(from, self.ear);
        let heard = &mut self.heard;
        if passed > 0 {
            let time = passed.to_be_bytes();
            script::push(&mut heard.frames, Op::Time.byte(peer), &time);
            script::push(&mut heard.gossip, Op::Time.byte(peer), &time);
        }
        match letter {
            Letter::Frame(bytes) => {
                script::push(&mut heard.frames, Op::Frame.byte(peer), bytes);
                heard.each.push(bytes.clone());
                if let Ok(Frame::Swim(packet)) = Frame::decode(bytes) {
                    script::push(&mut heard.gossip, Op::Swim.byte(peer), &packet);
                }
            }
            Letter::Gossip(topic, bytes) => {
                let op = match topic {
                    Topic::Heads => Op::Heads,
                    Topic::Status => Op::Status,
                };
                script::push(&mut heard.gossip, op.byte(peer), bytes);
            }
        }
    }
}

fn digest(report: &NodeReport, hash: realm_identity::Hash) -> StatusDigest {
    StatusDigest {
        node: report.node,
        realm: report.realm,
        boot_id: report.boot_id,
        seq: report.seq,
        at: report.at,
        revision: report.revision,
        head: report.head,
        state: report.state,
        report: hash,
        cells_running: 1,
        cells_wanted: 1,
        problems: Vec::new(),
    }
}

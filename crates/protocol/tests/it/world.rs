//! A realm in one thread: virtual time, a network and disks that fail as a seed says.

use std::collections::{BTreeMap, BTreeSet};

use rand_foca::{RngExt as _, SeedableRng, rngs::SmallRng};
use realm_identity::{Genesis, PublicKey, RealmId, SecretKey, Signed, Timestamp};
use realm_protocol::{Effect, Event, Frame, Mutation, Node, Now, Op, Token, Topic};

use crate::{client::Client, fold::Chain, invariants::Invariants};

mod clients;
mod happening;

pub use happening::Happening;

pub const HONEST: usize = 5;
/// Faults end here; liveness is judged at the end.
pub const HEAL_AT: u64 = 40_000;
const MERGE_AT: u64 = 50_000;
/// By then everybody has found everybody again. A node is taken out, and let in again later.
const REVOKE_AT: u64 = 43_000;
const READMIT_AT: u64 = 46_000;
/// After the merge a node stops, or hears nobody, for a while.
const SILENCE_AT: u64 = 54_000;
const SPEAK_AT: u64 = 57_000;
const END: u64 = 64_000;
/// Wall clock at virtual time 0.
const WALL: u64 = 1_700_000_000_000;

#[derive(Debug, Clone, Copy)]
pub struct Scene {
    pub seed: u64,
    pub mutation: Option<Mutation>,
}

pub struct World {
    pub rng: SmallRng,
    pub now: u64,
    queue: BTreeMap<(u64, u64), Happening>,
    queued: u64,
    pub hosts: Vec<Host>,
    pub cut: BTreeSet<(usize, usize)>,
    pub loss: u32,
    pub owners: Vec<SecretKey>,
    pub genesis: Signed<Genesis>,
    clients: Vec<Client>,
    /// Whether two clients sign without knowing of each other.
    pub forks: bool,
    pub mutation: Option<Mutation>,
    pub forger: SecretKey,
    pub invariants: Invariants,
    merging: bool,
    pub events: u64,
}

pub struct Host {
    pub key: SecretKey,
    pub node: Option<Node<Chain>>,
    pub disk: Vec<Op>,
    pub writing: Vec<(Token, Vec<Op>)>,
    pub boot: u64,
    pub links: BTreeSet<usize>,
    pub wall_offset: u64,
    /// Stopped until then; what is sent to it waits.
    pub stopped_until: u64,
    /// Whether it takes the forging peer for one of the realm.
    pub is_fooled: bool,
}

pub fn key(seed: u64, index: u64) -> SecretKey {
    let mut bytes = [7; 32];
    bytes[..8].copy_from_slice(&seed.to_le_bytes());
    bytes[8..16].copy_from_slice(&index.to_le_bytes());
    SecretKey::from_seed(&bytes)
}

impl World {
    pub fn new(scene: Scene) -> Self {
        let seed = scene.seed;
        let rng = SmallRng::seed_from_u64(seed);
        let owners = vec![key(seed, 100), key(seed, 101)];
        let Ok(genesis) = Signed::sign(
            Genesis::new(owners[0].public(), "sim".to_owned(), [seed as u8; 32]),
            &owners[0],
        );
        let hosts = (0..HONEST as u64).map(|index| Host {
            key: key(seed, index),
            node: None,
            disk: Vec::new(),
            writing: Vec::new(),
            boot: 0,
            links: BTreeSet::new(),
            wall_offset: 0,
            stopped_until: 0,
            is_fooled: false,
        });
        let forks = seed % 4 == 3 || scene.mutation == Some(Mutation::IgnoreFork);
        let hosts: Vec<Host> = hosts.collect();
        let names = hosts.iter().map(|host| host.key.public()).collect();
        let mut world = Self {
            rng,
            now: 0,
            queue: BTreeMap::new(),
            queued: 0,
            hosts,
            cut: BTreeSet::new(),
            loss: 0,
            invariants: Invariants::new(owners[0].public(), names),
            owners,
            genesis,
            clients: (0..2)
                .map(|_| Client {
                    outbox: None,
                    mark: 0,
                })
                .collect(),
            forks,
            mutation: scene.mutation,
            forger: key(seed, 66),
            merging: false,
            events: 0,
        };
        world.begin();
        world
    }

    fn begin(&mut self) {
        self.hosts[0].disk.push(Op::Genesis {
            wire: self.genesis.to_wire(),
        });
        for host in 0..HONEST {
            self.start(host);
        }
        self.at(300, Happening::Submit { client: 0 });
        if self.forks {
            self.at(700, Happening::Submit { client: 1 });
        }
        self.at(1_000, Happening::Fault);
        self.at(1_500, Happening::Forge);
        self.at(HEAL_AT, Happening::Heal);
        let out = self.rng.random_range(0..HONEST);
        let without = Some(out);
        self.at(REVOKE_AT, Happening::Approve { without });
        self.at(READMIT_AT, Happening::Approve { without: None });
        self.at(MERGE_AT, Happening::Merge);
        self.at(SILENCE_AT, Happening::Silence);
        self.at(SPEAK_AT, Happening::Speak);
    }

    /// Runs to the end and says what went wrong.
    pub fn run(mut self) -> Result<u64, String> {
        loop {
            let timer = self.hosts.iter().enumerate().filter_map(|(index, host)| {
                host.node.as_ref().map(|node| {
                    (
                        node.next_timeout().max(self.now).max(host.stopped_until),
                        index,
                    )
                })
            });
            let timer = timer.min();
            let next = self.queue.keys().next().copied();
            match (timer, next) {
                (Some((due, _)), _) | (None, Some((due, _)))
                    if due > END && next.is_none_or(|(at, _)| at > END) =>
                {
                    break;
                }
                (Some((due, host)), next) if next.is_none_or(|(at, _)| due < at) => {
                    self.now = due;
                    self.handle(host, Event::Tick);
                }
                (_, Some(at)) => {
                    self.now = at.0;
                    if let Some(happening) = self.queue.remove(&at) {
                        self.events += 1;
                        self.happen(happening);
                    }
                }
                (_, None) => break,
            }
            if let Some(broken) = self.invariants.broken.take() {
                return Err(format!("at {} ms: {broken}", self.now));
            }
        }
        self.invariants.check_end(&self.hosts, self.forks)?;
        if std::env::var_os("REALM_SIM_SEED").is_some() {
            eprintln!(
                "{} events, {}",
                self.events,
                self.invariants.summary(&self.hosts)
            );
        }
        Ok(self.events)
    }

    fn at(&mut self, time: u64, happening: Happening) {
        self.queued += 1;
        self.queue.insert((time, self.queued), happening);
    }

    pub fn after(&mut self, delay: std::ops::Range<u64>, happening: Happening) {
        let time = self.now + self.rng.random_range(delay);
        self.at(time, happening);
    }

    pub fn chance(&mut self, percent: u32) -> bool {
        self.rng.random_range(0..100) < percent
    }

    pub fn time(&self, host: usize) -> Now {
        let wall = Timestamp::from_millis(WALL + self.now + self.hosts[host].wall_offset);
        Now {
            wall,
            mono: self.now,
        }
    }

    fn name(&self, host: usize) -> PublicKey {
        self.hosts
            .get(host)
            .map_or(self.forger.public(), |host| host.key.public())
    }

    fn index(&self, key: PublicKey) -> Option<usize> {
        self.hosts.iter().position(|host| host.key.public() == key)
    }

    pub fn realm(&self) -> RealmId {
        self.genesis.realm_id()
    }

    fn written(&mut self, host: usize, boot: u64, token: Token, works: bool) {
        if self.hosts[host].boot != boot || self.hosts[host].node.is_none() {
            return;
        }
        let at = self.hosts[host]
            .writing
            .iter()
            .position(|(other, _)| *other == token);
        let Some((_, ops)) = at.map(|at| self.hosts[host].writing.remove(at)) else {
            return;
        };
        if works {
            self.hosts[host].disk.extend(ops);
            self.handle(host, Event::Persisted { token });
        } else {
            self.handle(host, Event::PersistFailed { token });
        }
    }

    pub fn handle(&mut self, index: usize, event: Event) {
        let now = self.time(index);
        if let Some(node) = &mut self.hosts[index].node {
            node.handle(event, now);
            self.effects(index);
        }
    }

    fn effects(&mut self, index: usize) {
        while let Some(effect) = self.hosts[index].node.as_mut().and_then(Node::poll_effect) {
            match effect {
                Effect::Send { to, frame } => self.deliver(index, to, frame),
                Effect::Publish { topic, bytes } => {
                    for to in (0..HONEST).filter(|to| *to != index) {
                        self.deliver_gossip(index, to, topic, bytes.clone());
                    }
                }
                Effect::Persist { token, ops } => {
                    let works = self.now >= HEAL_AT || !self.chance(3);
                    let boot = self.hosts[index].boot;
                    self.hosts[index].writing.push((token, ops));
                    self.after(
                        1..30,
                        Happening::Written {
                            host: index,
                            boot,
                            token,
                            works,
                        },
                    );
                }
                Effect::SubmitResult { token, result } => self.submitted(index, token, result),
                Effect::Warn { peer, what } if peer != self.forger.public() => {
                    self.invariants
                        .fail(format!("an honest node was blamed: {what}"));
                }
                effect => {
                    let node = self.hosts[index].node.as_ref().unwrap();
                    self.invariants.effect(index, &effect, node, self.forks);
                }
            }
        }
    }

    fn deliver(&mut self, from: usize, to: PublicKey, bytes: Vec<u8>) {
        let Some(to) = self.index(to) else { return };
        let copies = self.copies(from, to);
        for _ in 0..copies {
            self.after(
                1..60,
                Happening::Frame {
                    from,
                    to,
                    bytes: bytes.clone(),
                },
            );
        }
    }

    pub fn deliver_gossip(&mut self, from: usize, to: usize, topic: Topic, bytes: Vec<u8>) {
        for _ in 0..self.copies(from, to) {
            self.after(
                1..60,
                Happening::Gossip {
                    from,
                    to,
                    topic,
                    bytes: bytes.clone(),
                },
            );
        }
    }

    /// A frame from the forging peer.
    pub fn forged(&mut self, to: usize, frame: &Frame) {
        self.after(
            1..60,
            Happening::Frame {
                from: HONEST,
                to,
                bytes: frame.encode(),
            },
        );
    }

    fn copies(&mut self, from: usize, to: usize) -> usize {
        if self.cut.contains(&(from, to)) || self.chance(self.loss) {
            return 0;
        }
        1 + usize::from(self.loss > 0 && self.chance(5))
    }
}

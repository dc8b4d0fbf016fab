//! A realm of real nodes, and what is measured of it.

use std::{
    collections::{BTreeSet, HashMap, HashSet},
    fs,
    rc::Rc,
};

use rand_foca::{SeedableRng, rngs::SmallRng};
use realm_identity::{
    Artifact, Body, Entry, Genesis, Hash, Kind, PublicKey, SecretKey, Signed, Target, Timestamp,
};
use realm_manifest::report::{NodeState, StatusDigest};
use realm_protocol::{Config, Effect, Event, MemberState, Node, Now, Restored, Verdict};

use crate::{
    fold::Chain,
    network::{Arrival, Network},
    words::{CELLS, WALL, report},
};

/// Everybody knows everybody by then.
const WARM_MS: u64 = 20_000;
/// Measured without any work.
const CALM_MS: u64 = 20_000;
/// Each is told of by every node to every other one: in a large realm fewer do.
const INTENTS: usize = 10;
const INTENTS_OF_NODES: usize = 1_000;
/// Nodes report of it at once, and in a small realm once more.
const INTENT_EVERY_MS: u64 = REPEAT_MS + 1_000;
/// As agents do: after this.
const REPEAT_MS: u64 = 5_000;
const REPEATS_HEADS: usize = 20;
/// Each half has lost the other one long before half of it is over.
const PARTITION_MS: u64 = 10_000;
/// Patience with one intent, or with a heal.
const PATIENCE_MS: u64 = 60_000;
/// A write to the disk.
const DISK_MS: u64 = 3;
/// As an approved key has: see `NetLimits` of the network's crate.
const CONNECTIONS_MAX: usize = 1_024;
/// Connections of each node at the start; others are dialled when they are wanted.
const CONNECTED: usize = 64;

pub struct Realm {
    now: u64,
    rng: SmallRng,
    network: Network,
    nodes: Vec<Node<Chain>>,
    keys: Vec<SecretKey>,
    index: HashMap<PublicKey, usize>,
    links: Vec<HashSet<usize>>,
    /// When each node is due, and all of them in order.
    due: Vec<u64>,
    timers: BTreeSet<(u64, usize)>,
    /// When each node reports next, and all of them in order.
    report_due: Vec<u64>,
    reports: BTreeSet<(u64, usize)>,
    report_seq: Vec<u64>,
    owner: SecretKey,
    lost: u64,
    warned: u64,
    refused_links: u64,
}

/// A large realm takes many minutes.
fn say(size: usize, what: &str) {
    eprintln!("{size} nodes: {what}");
}

fn key(index: u64) -> SecretKey {
    let mut bytes = [9; 32];
    bytes[..8].copy_from_slice(&index.to_le_bytes());
    SecretKey::from_seed(&bytes)
}

impl Realm {
    pub fn new(size: usize) -> Self {
        let mut rng = SmallRng::seed_from_u64(size as u64);
        let owner = key(u64::MAX);
        let Ok(genesis) = Signed::sign(
            Genesis::new(owner.public(), "growth".to_owned(), [1; 32]),
            &owner,
        );
        let keys: Vec<_> = (0..size as u64).map(key).collect();
        let names: Vec<_> = keys.iter().map(SecretKey::public).collect();
        let nodes = keys.iter().enumerate().map(|(index, key)| {
            let config = Config {
                key: key.clone(),
                realm: None,
                pins: vec![owner.public()],
                boot_id: 1,
                seed: index as u64,
                mutation: None,
            };
            let restored = Restored {
                genesis: Some(genesis.to_wire()),
                caught_up: true,
                ..Restored::default()
            };
            Node::new(config, Chain, restored, at(0)).unwrap_or_else(|error| panic!("{error}"))
        });
        let nodes = nodes.collect();
        let mut realm = Self {
            now: 0,
            network: Network::new(size, &mut rng),
            rng,
            nodes,
            index: names
                .iter()
                .enumerate()
                .map(|(index, name)| (*name, index))
                .collect(),
            keys,
            links: vec![HashSet::new(); size],
            due: vec![u64::MAX; size],
            timers: BTreeSet::new(),
            report_due: vec![u64::MAX; size],
            reports: BTreeSet::new(),
            report_seq: vec![0; size],
            owner,
            lost: 0,
            warned: 0,
            refused_links: 0,
        };
        let approved: BTreeSet<_> = names.into_iter().collect();
        for index in 0..size {
            realm.give(
                index,
                Event::Approved {
                    nodes: approved.clone(),
                },
            );
            // Starts are spread over the first seconds, and so are reports.
            let start = realm.rng_below(5_000);
            realm.report_at(start, index);
            for _ in 0..CONNECTED.min(size - 1) {
                let peer = realm.rng_below(size as u64) as usize;
                realm.link(index, peer);
            }
        }
        realm
    }

    /// Runs it all and says what was seen, as one line of JSON.
    pub fn measure(mut self) -> String {
        let size = self.nodes.len();
        say(size, "they find each other");
        self.run(WARM_MS);
        say(size, "nothing happens");
        let known = self.nodes.iter().map(up).min().unwrap_or(0);
        let (bytes, arrived, cpu, lost) = (self.bytes(), self.arrived(), cpu_ns(), self.lost);
        self.run(CALM_MS);
        let seconds = CALM_MS as f64 / 1_000.0 * size as f64;
        let calm_bytes = (self.bytes() - bytes) as f64 / seconds;
        let calm_messages = (self.arrived() - arrived) as f64 / seconds;
        let calm_cpu_us = (cpu_ns() - cpu) as f64 / 1_000.0 / seconds;
        let calm_lost = self.lost - lost;
        let (bytes, mut latencies) = (self.bytes(), Vec::new());
        let began = self.now;
        let intents = INTENTS.min(INTENTS_OF_NODES / size);
        for nth in 1..=intents {
            say(size, &format!("intent {nth} of {intents}"));
            latencies.extend(self.intent());
            self.run(INTENT_EVERY_MS);
        }
        let busy = (self.now - began) as f64 / 1_000.0 * size as f64;
        let intent_bytes =
            ((self.bytes() - bytes) as f64 - calm_bytes * busy) / intents as f64 / size as f64;
        latencies.sort_unstable();
        let of = |part: f64| latencies[((latencies.len() - 1) as f64 * part) as usize];
        say(size, "cut in halves");
        let heal = self.heal();
        format!(
            "{{\"nodes\":{size},\"known\":{known},\"bytes_in_per_node_s\":{calm_bytes:.0},\
             \"messages_in_per_node_s\":{calm_messages:.1},\"cpu_us_per_node_s\":{calm_cpu_us:.0},\
             \"intent_ms_p50\":{},\"intent_ms_p99\":{},\"intent_ms_max\":{},\
             \"intent_bytes_per_node\":{intent_bytes:.0},\"heal_ms\":{heal},\
             \"lost_while_calm\":{calm_lost},\"offences\":{},\"links_refused\":{}}}",
            of(0.5),
            of(0.99),
            of(1.0),
            self.warned,
            self.refused_links
        )
    }

    /// The owner signs one entry at the first node; how long each node takes to have it on disk.
    fn intent(&mut self) -> Vec<u64> {
        let seq = self.submit(0);
        let began = self.now;
        let mut left: BTreeSet<usize> = (0..self.nodes.len()).collect();
        let mut latencies = Vec::new();
        while !left.is_empty() && self.now < began + PATIENCE_MS {
            self.run(1);
            let done: Vec<_> = left
                .iter()
                .copied()
                .filter(|node| self.nodes[*node].durable_head().seq >= seq)
                .collect();
            for node in done {
                left.remove(&node);
                latencies.push(self.now - began);
            }
        }
        assert!(left.is_empty(), "{} nodes never had the entry", left.len());
        latencies
    }

    /// Halves that do not hear each other, an intent on one side; how long after the heal all have it
    /// and take everybody for up.
    fn heal(&mut self) -> u64 {
        let size = self.nodes.len();
        for node in 0..size {
            self.network.side[node] = (node % 2) as u8;
        }
        for left in 0..size {
            for right in self.links[left].clone() {
                if left < right && left % 2 != right % 2 {
                    self.unlink(left, right);
                }
            }
        }
        self.run(PARTITION_MS / 2);
        let seq = self.submit(0);
        self.run(PARTITION_MS / 2);
        self.network.side.fill(0);
        let began = self.now;
        loop {
            self.run(50);
            let agreed = self.nodes.iter().all(|node| node.durable_head().seq >= seq);
            if agreed && self.nodes.iter().all(|node| up(node) == size - 1) {
                return self.now - began;
            }
            if self.now > began + PATIENCE_MS {
                let behind = self
                    .nodes
                    .iter()
                    .filter(|node| node.durable_head().seq < seq)
                    .count();
                let least = self.nodes.iter().map(up).min();
                panic!("not healed: {behind} nodes are behind, one knows {least:?} others");
            }
        }
    }

    fn submit(&mut self, node: usize) -> u64 {
        let Some(log) = self.nodes[node].log() else {
            panic!("the node has no log");
        };
        let (head, payload) = (log.head(), b"three replicas of it".to_vec());
        let body = Body {
            state: Hash::of(&head.state),
            kind: Kind::Push.number(),
            target: Target::Component("hello".to_owned()),
            not_after: None,
            issued_at: Timestamp::from_millis(WALL + self.now),
            payload: Artifact::of(&payload),
        };
        let seq = head.seq + 1;
        let entry = Entry::new(log.realm(), self.owner.public(), seq, head.hash, body);
        let Ok(signed) = Signed::sign(entry, &self.owner);
        let entry = signed.to_wire();
        self.give(
            node,
            Event::Submit {
                token: seq,
                entry,
                payload,
            },
        );
        seq
    }

    fn run(&mut self, millis: u64) {
        let end = self.now + millis;
        loop {
            let timer = self.timers.first().map_or(u64::MAX, |(due, _)| *due);
            let report = self.reports.first().map_or(u64::MAX, |(due, _)| *due);
            let arrival = self.network.due().unwrap_or(u64::MAX);
            let next = timer.min(report).min(arrival);
            if next > end {
                break;
            }
            self.now = self.now.max(next);
            if arrival == next {
                if let Some((_, to, arrival)) = self.network.take() {
                    self.arrive(to, arrival);
                }
            } else if timer == next {
                if let Some((_, node)) = self.timers.pop_first() {
                    self.due[node] = u64::MAX;
                    self.give(node, Event::Tick);
                }
            } else if let Some((_, node)) = self.reports.pop_first() {
                let calm = realm_protocol::report_every_ms(self.nodes.len());
                self.report(node, calm);
            }
        }
        self.now = end;
        if self.now.is_multiple_of(10_000) {
            self.network.forget();
        }
    }

    fn arrive(&mut self, to: usize, arrival: Arrival) {
        match arrival {
            Arrival::Frame { from, bytes } => {
                if self.links[to].contains(&from) {
                    let from = self.keys[from].public();
                    self.give(to, Event::Frame { from, bytes });
                }
            }
            Arrival::Gossip { from, topic, bytes } => {
                if !self.network.is_new(to, &bytes) {
                    return;
                }
                let name = self.keys[from].public();
                let verdict = self.nodes[to].handle_gossip(name, topic, &bytes, at(self.now));
                if verdict == Verdict::Accept {
                    self.network
                        .spread(self.now, to, Some(from), topic, &bytes, &mut self.rng);
                }
                self.drain(to);
            }
            Arrival::Written { token } => self.give(to, Event::Persisted { token }),
            Arrival::Connected { peer } => self.link(to, peer),
        }
    }

    fn give(&mut self, node: usize, event: Event) {
        self.nodes[node].handle(event, at(self.now));
        self.drain(node);
    }

    fn drain(&mut self, node: usize) {
        while let Some(effect) = self.nodes[node].poll_effect() {
            match effect {
                Effect::Send { to, frame } => {
                    let to = self.index[&to];
                    if self.links[node].contains(&to) {
                        self.network.frame(self.now, node, to, frame, &mut self.rng);
                    } else {
                        self.dial(node, to);
                    }
                }
                Effect::Publish { topic, bytes } => {
                    let bytes: Rc<[u8]> = bytes.into();
                    self.network
                        .spread(self.now, node, None, topic, &bytes, &mut self.rng);
                }
                Effect::Persist { token, .. } => {
                    self.network
                        .after(self.now, DISK_MS, node, Arrival::Written { token });
                }
                Effect::Dial { peer } => self.dial(node, self.index[&peer]),
                Effect::HeadAdvanced { .. } => {
                    let next = match self.nodes.len() <= REPEATS_HEADS {
                        true => REPEAT_MS,
                        false => realm_protocol::report_every_ms(self.nodes.len()),
                    };
                    self.report(node, next);
                }
                Effect::MemberChanged { state, .. } => {
                    self.lost += u64::from(state == MemberState::Lost);
                }
                Effect::Warn { .. } => self.warned += 1,
                _ => {}
            }
        }
        let due = self.nodes[node].next_timeout().max(self.now + 1);
        if due != self.due[node] {
            self.timers.remove(&(self.due[node], node));
            self.timers.insert((due, node));
            self.due[node] = due;
        }
    }

    fn dial(&mut self, from: usize, to: usize) {
        if from != to && self.network.side[from] == self.network.side[to] {
            // A connection takes a few ways to and fro.
            self.network
                .after(self.now, 20, from, Arrival::Connected { peer: to });
        }
    }

    fn link(&mut self, left: usize, right: usize) {
        if left == right
            || self.links[left].contains(&right)
            || self.network.side[left] != self.network.side[right]
        {
            return;
        }
        if self.links[left].len() >= CONNECTIONS_MAX || self.links[right].len() >= CONNECTIONS_MAX {
            self.refused_links += 1;
            return;
        }
        self.links[left].insert(right);
        self.links[right].insert(left);
        for (node, peer) in [(left, right), (right, left)] {
            let peer = self.keys[peer].public();
            self.give(node, Event::PeerConnected { peer });
        }
    }

    fn unlink(&mut self, left: usize, right: usize) {
        self.links[left].remove(&right);
        self.links[right].remove(&left);
        for (node, peer) in [(left, right), (right, left)] {
            let peer = self.keys[peer].public();
            self.give(node, Event::PeerDisconnected { peer });
        }
    }

    fn report_at(&mut self, due: u64, index: usize) {
        self.reports.remove(&(self.report_due[index], index));
        self.reports.insert((due, index));
        self.report_due[index] = due;
    }

    /// A node's report, as the agent makes one of a node with a few cells, and the next one at the latest after `next` ms.
    fn report(&mut self, index: usize, next: u64) {
        self.report_at(self.now + next, index);
        let key = self.keys[index].clone();
        self.report_seq[index] += 1;
        let seq = self.report_seq[index];
        let Some(log) = self.nodes[index].log() else {
            return;
        };
        let (realm, head) = (log.realm(), log.head());
        let (revision, head) = (head.seq, head.hash);
        let report = report(&key, realm, revision, head, seq, self.now);
        let Ok(report) = Signed::sign(report, &key);
        let digest = StatusDigest {
            node: key.public(),
            realm,
            boot_id: 1,
            seq,
            at: Timestamp::from_millis(WALL + self.now),
            revision,
            head,
            state: NodeState::Ready,
            report: report.hash(),
            cells_running: CELLS,
            cells_wanted: CELLS,
            problems: Vec::new(),
        };
        let Ok(digest) = Signed::sign(digest, &key);
        let event = Event::OwnReport {
            report: report.to_wire(),
            digest: digest.to_wire(),
        };
        self.give(index, event);
    }

    fn bytes(&self) -> u64 {
        self.network.bytes_in.iter().sum()
    }

    fn arrived(&self) -> u64 {
        self.network.arrived.iter().sum()
    }

    fn rng_below(&mut self, end: u64) -> u64 {
        use rand_foca::RngExt as _;
        self.rng.random_range(0..end)
    }
}

fn up(node: &Node<Chain>) -> usize {
    node.members()
        .values()
        .filter(|member| member.state == MemberState::Up)
        .count()
}

fn at(mono: u64) -> Now {
    Now {
        wall: Timestamp::from_millis(WALL + mono),
        mono,
    }
}

/// Time this thread has been on a processor; the simulator's own share is in it.
fn cpu_ns() -> u64 {
    let text = fs::read_to_string("/proc/thread-self/schedstat").unwrap_or_default();
    text.split_whitespace()
        .next()
        .and_then(|ns| ns.parse().ok())
        .unwrap_or(0)
}

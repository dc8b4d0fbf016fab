//! What goes wrong: crashes, restarts, cuts and loss.

use std::collections::{BTreeMap, BTreeSet};

use rand_foca::RngExt as _;
use realm_identity::{Hash, Signed};
use realm_protocol::{Config, Event, Item, Node, Op, Restored};

use crate::{
    fold::Chain,
    world::{HEAL_AT, HONEST, Happening, World},
};

impl World {
    pub fn start(&mut self, index: usize) {
        if self.hosts[index].node.is_some() {
            return;
        }
        let restored = restored(&self.hosts[index].disk);
        // Clocks step, also backwards.
        self.hosts[index].wall_offset = self.rng.random_range(0..60_000);
        self.hosts[index].boot += 1;
        let config = Config {
            key: self.hosts[index].key.clone(),
            realm: None,
            pins: vec![self.owners[0].public()],
            boot_id: self.hosts[index].boot,
            seed: self.rng.random(),
            mutation: self.mutation,
        };
        let now = self.time(index);
        let node = Node::new(config, Chain, restored, now);
        self.hosts[index].node = Some(node.unwrap());
        self.invariants
            .started(index, self.hosts[index].node.as_ref().unwrap());
        self.hosts[index].is_fooled = self.rng.random_range(0..2) == 0;
        self.approve(index, None);
        let forger = self.forger.public();
        self.handle(index, Event::PeerConnected { peer: forger });
        for other in (0..HONEST).filter(|other| *other != index) {
            self.relink(index, other);
        }
    }

    /// A host learns who is approved: all but `without`.
    pub fn approve(&mut self, index: usize, without: Option<usize>) {
        let hosts = self.hosts.iter().enumerate();
        let mut nodes: BTreeSet<_> = hosts
            .filter(|(host, _)| Some(*host) != without)
            .map(|(_, host)| host.key.public())
            .collect();
        if self.hosts[index].is_fooled {
            nodes.insert(self.forger.public());
        }
        self.handle(index, Event::Approved { nodes });
    }

    /// Opens or closes the connection of two hosts, as cuts and crashes now say.
    pub fn relink(&mut self, a: usize, b: usize) {
        let up = self.hosts[a].node.is_some() && self.hosts[b].node.is_some();
        let severed = self.cut.contains(&(a, b)) && self.cut.contains(&(b, a));
        for (from, to) in [(a, b), (b, a)] {
            let peer = self.hosts[to].key.public();
            let linked = self.hosts[from].links.contains(&to);
            if linked && (!up || severed) {
                self.hosts[from].links.remove(&to);
                self.handle(from, Event::PeerDisconnected { peer });
            } else if !linked && up && !severed {
                self.hosts[from].links.insert(to);
                self.handle(from, Event::PeerConnected { peer });
            }
        }
    }

    fn crash(&mut self, index: usize) {
        if self.hosts[index].node.take().is_none() {
            return;
        }
        // What was being written may be on disk or not, in order, without an answer.
        let writing = std::mem::take(&mut self.hosts[index].writing);
        for (_, ops) in writing {
            if self.chance(60) {
                break;
            }
            self.hosts[index].disk.extend(ops);
        }
        self.hosts[index].links.clear();
        self.invariants.crashed(index, &self.hosts[index].disk);
        for other in (0..HONEST).filter(|other| *other != index) {
            self.after(0..2_000, Happening::Relink { a: other, b: index });
        }
        self.after(500..6_000, Happening::Restart { host: index });
    }

    pub fn fault(&mut self) {
        if self.now >= HEAL_AT {
            return;
        }
        match self.rng.random_range(0..6) {
            0 | 1 => {
                let host = self.rng.random_range(0..HONEST);
                self.crash(host);
            }
            2 => self.partition(),
            3 => {
                let (a, b) = (
                    self.rng.random_range(0..HONEST),
                    self.rng.random_range(0..HONEST),
                );
                self.cut.insert((a, b));
            }
            4 => self.loss = self.rng.random_range(0..31),
            _ => {
                self.cut.clear();
                self.relink_all();
            }
        }
        self.after(300..3_000, Happening::Fault);
    }

    fn partition(&mut self) {
        let side: Vec<bool> = (0..HONEST).map(|_| self.rng.random()).collect();
        for (a, b) in pairs() {
            if side[a] != side[b] {
                self.cut.extend([(a, b), (b, a)]);
            }
        }
        self.relink_all();
    }

    fn relink_all(&mut self) {
        pairs().for_each(|(a, b)| self.relink(a, b));
    }

    pub fn heal(&mut self) {
        self.cut.clear();
        self.loss = 0;
        (0..HONEST).for_each(|host| self.start(host));
        self.relink_all();
    }
}

fn pairs() -> impl Iterator<Item = (usize, usize)> {
    (0..HONEST).flat_map(|a| (a + 1..HONEST).map(move |b| (a, b)))
}

pub fn restored(disk: &[Op]) -> Restored {
    let mut restored = Restored::default();
    let mut payloads: BTreeMap<Hash, Vec<u8>> = BTreeMap::new();
    for op in disk {
        match op {
            Op::Genesis { wire } => restored.genesis = Some(wire.clone()),
            Op::Checkpoint { checkpoint } => restored.checkpoint = Some(checkpoint.clone()),
            Op::Payload { sha256, bytes } => {
                payloads.insert(*sha256, bytes.clone());
            }
            Op::Entry { wire, .. } => {
                let entry = Signed::<realm_identity::Entry>::from_wire(wire).unwrap();
                let payload = entry
                    .body
                    .as_ref()
                    .and_then(|body| payloads.get(&body.payload.sha256));
                restored.entries.push(Item {
                    entry: wire.clone(),
                    payload: payload.cloned(),
                });
            }
            Op::Claim { wire, .. } => restored.claims.push(wire.clone()),
            Op::CaughtUp => restored.caught_up = true,
        }
    }
    restored
}

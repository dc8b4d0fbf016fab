//! The network: each frame takes a few milliseconds, and gossip is passed on by every node that
//! accepts it to the few it is meshed with, as gossipsub does. What gossipsub says beside the
//! messages themselves, such as lists of what it has, is not counted.

use std::{
    cmp::Reverse,
    collections::{BinaryHeap, HashSet},
    rc::Rc,
};

use rand_foca::{RngExt as _, rngs::SmallRng};
use realm_identity::Hash;
use realm_protocol::{Token, Topic};

/// One way, in milliseconds: machines of one house or a few near ones.
const LATENCY_MS: std::ops::Range<u64> = 1..10;
/// Peers each node passes gossip on to: gossipsub's own number.
const MESH: usize = 6;
/// Framing of a frame or gossip message on its stream, in bytes.
const FRAMING: u64 = 8;

#[derive(Debug, Clone)]
pub enum Arrival {
    Frame {
        from: usize,
        bytes: Vec<u8>,
    },
    Gossip {
        from: usize,
        topic: Topic,
        bytes: Rc<[u8]>,
    },
    Written {
        token: Token,
    },
    Connected {
        peer: usize,
    },
}

#[derive(Debug)]
pub struct Network {
    queue: BinaryHeap<Reverse<(u64, u64)>>,
    arrivals: std::collections::HashMap<u64, (usize, Arrival)>,
    sent: u64,
    /// Who passes gossip on to whom.
    mesh: Vec<Vec<usize>>,
    /// Gossip that each node has seen, by the first bytes of its digest.
    seen: Vec<HashSet<u64>>,
    /// Bytes that came to each node, and frames and gossip messages.
    pub bytes_in: Vec<u64>,
    pub arrived: Vec<u64>,
    /// A partition: nodes of different sides do not hear each other.
    pub side: Vec<u8>,
}

impl Network {
    pub fn new(size: usize, rng: &mut SmallRng) -> Self {
        Self {
            queue: BinaryHeap::new(),
            arrivals: std::collections::HashMap::new(),
            sent: 0,
            mesh: mesh(size, rng),
            seen: vec![HashSet::new(); size],
            bytes_in: vec![0; size],
            arrived: vec![0; size],
            side: vec![0; size],
        }
    }

    /// What arrives next, and when.
    pub fn due(&self) -> Option<u64> {
        self.queue.peek().map(|Reverse((at, _))| *at)
    }

    pub fn take(&mut self) -> Option<(u64, usize, Arrival)> {
        let Reverse((at, order)) = self.queue.pop()?;
        let (to, arrival) = self.arrivals.remove(&order)?;
        let bytes = match &arrival {
            Arrival::Frame { bytes, .. } => bytes.len(),
            Arrival::Gossip { bytes, .. } => bytes.len(),
            _ => return Some((at, to, arrival)),
        };
        self.bytes_in[to] += bytes as u64 + FRAMING;
        self.arrived[to] += 1;
        Some((at, to, arrival))
    }

    pub fn after(&mut self, now: u64, millis: u64, to: usize, arrival: Arrival) {
        self.sent += 1;
        self.queue.push(Reverse((now + millis, self.sent)));
        self.arrivals.insert(self.sent, (to, arrival));
    }

    pub fn frame(&mut self, now: u64, from: usize, to: usize, bytes: Vec<u8>, rng: &mut SmallRng) {
        if self.side[from] == self.side[to] {
            let late = rng.random_range(LATENCY_MS);
            self.after(now, late, to, Arrival::Frame { from, bytes });
        }
    }

    /// `at` passes a message on to its mesh, but not back.
    pub fn spread(
        &mut self,
        now: u64,
        at: usize,
        back: Option<usize>,
        topic: Topic,
        bytes: &Rc<[u8]>,
        rng: &mut SmallRng,
    ) {
        self.seen[at].insert(id(bytes));
        for peer in self.mesh[at].clone() {
            if Some(peer) != back && self.side[peer] == self.side[at] {
                let late = rng.random_range(LATENCY_MS);
                let (from, bytes) = (at, bytes.clone());
                self.after(now, late, peer, Arrival::Gossip { from, topic, bytes });
            }
        }
    }

    /// Whether `at` has not seen this message before.
    pub fn is_new(&mut self, at: usize, bytes: &[u8]) -> bool {
        self.seen[at].insert(id(bytes))
    }

    /// Forgets what was seen, as gossipsub does after a while.
    pub fn forget(&mut self) {
        self.seen.iter_mut().for_each(HashSet::clear);
    }
}

fn id(bytes: &[u8]) -> u64 {
    let hash = Hash::of(bytes);
    let mut first = [0; 8];
    first.copy_from_slice(&hash.as_bytes()[..8]);
    u64::from_le_bytes(first)
}

/// Each node with about [`MESH`] others, both ways; a ring keeps everybody in.
fn mesh(size: usize, rng: &mut SmallRng) -> Vec<Vec<usize>> {
    let mut mesh: Vec<std::collections::BTreeSet<usize>> = vec![Default::default(); size];
    let mut join = |left: usize, right: usize| {
        if left != right {
            mesh[left].insert(right);
            mesh[right].insert(left);
        }
    };
    for node in 0..size {
        join(node, (node + 1) % size);
        for _ in 0..MESH.saturating_sub(2).min(size) / 2 {
            join(node, rng.random_range(0..size));
        }
    }
    mesh.into_iter()
        .map(|peers| peers.into_iter().collect())
        .collect()
}

//! What must hold in every run, and what must hold at its end.

use std::collections::{BTreeMap, BTreeSet};

use realm_identity::{Hash, Kind, PublicKey, Target};
use realm_protocol::{Effect, Halt, MemberState, Node, Op, Point};

use crate::{fold::Chain, world::Host};

#[derive(Debug)]
pub struct Invariants {
    pub broken: Option<String>,
    /// Everything the owners signed.
    pub signed: BTreeSet<Hash>,
    genesis_owner: PublicKey,
    acked: BTreeSet<Point>,
    acked_by: Vec<Vec<Point>>,
    /// Per host: the highest revision it has told of since the last fork.
    floor: Vec<u64>,
    agreed: BTreeMap<u64, (Hash, Vec<u8>)>,
    /// Set when the network is whole: from then on nobody but this host may be lost to anybody.
    pub taken_out: Option<usize>,
    /// Stopped or deaf from some time on: then nobody else may be lost to anybody else.
    pub silenced: Option<usize>,
    hosts: Vec<PublicKey>,
}

impl Invariants {
    pub fn new(genesis_owner: PublicKey, names: Vec<PublicKey>) -> Self {
        let hosts = names.len();
        Self {
            broken: None,
            signed: BTreeSet::new(),
            genesis_owner,
            acked: BTreeSet::new(),
            acked_by: vec![Vec::new(); hosts],
            floor: vec![0; hosts],
            agreed: BTreeMap::new(),
            taken_out: None,
            silenced: None,
            hosts: names,
        }
    }

    pub fn summary(&self, hosts: &[Host]) -> String {
        let log = hosts[0].node.as_ref().and_then(Node::log);
        let (head, kept) = log.map_or((0, 0), |log| (log.head().seq, log.len()));
        let (signed, acked) = (self.signed.len(), self.acked.len());
        format!("{signed} signed, {acked} acknowledged, {kept} kept, head at {head}")
    }

    pub fn fail(&mut self, what: String) {
        self.broken.get_or_insert(what);
    }

    pub fn acked(&mut self, host: usize, point: Point, durable_on: usize) {
        self.acked.insert(point);
        self.acked_by[host].push(point);
        if durable_on == 0 {
            self.fail("an ack that is durable nowhere".to_owned());
        }
    }

    pub fn crashed(&mut self, host: usize, disk: &[Op]) {
        let on_disk = |hash| {
            disk.iter()
                .any(|op| matches!(op, Op::Entry { hash: kept, .. } if *kept == hash))
        };
        if let Some(lost) = self.acked_by[host]
            .iter()
            .find(|point| !on_disk(point.hash))
        {
            let seq = lost.seq;
            self.fail(format!(
                "host {host} lost the acknowledged revision {seq} in a crash"
            ));
        }
    }

    pub fn started(&mut self, host: usize, node: &Node<Chain>) {
        let Some(log) = node.log() else { return };
        let (seq, floor) = (log.head().seq, self.floor[host]);
        if seq < floor && !matches!(log.halt(), Some(Halt::Forked { .. })) {
            self.fail(format!(
                "host {host} fell from revision {floor} to {seq} in a restart"
            ));
        }
        self.floor[host] = seq;
    }

    pub fn effect(&mut self, host: usize, effect: &Effect, node: &Node<Chain>, forks: bool) {
        match effect {
            Effect::Forked { seq, proofs } => {
                self.floor[host] = self.floor[host].min(seq - 1);
                if !forks {
                    self.fail(format!("host {host} saw a fork that nobody made"));
                }
                if proofs.len() < 2 {
                    self.fail("a fork without two proofs".to_owned());
                }
            }
            Effect::HeadAdvanced { seq, hash, state } => {
                self.head(
                    host,
                    Point {
                        seq: *seq,
                        hash: *hash,
                    },
                    state,
                    forks,
                );
                self.check_chain(host, node);
            }
            Effect::MemberChanged {
                node,
                state: MemberState::Lost,
            } => self.lost(host, *node),
            _ => {}
        }
    }

    /// The word of a node that was not answered while it was out loses nobody.
    fn lost(&mut self, by: usize, node: PublicKey) {
        let of = self.hosts.iter().position(|host| *host == node);
        if self.silenced.is_some() && (self.silenced == of || self.silenced == Some(by)) {
            return;
        }
        if let (Some(out), Some(of)) = (self.taken_out, of)
            && of != out
        {
            self.fail(format!("host {of} is healthy and was lost to host {by}"));
        }
    }

    fn head(&mut self, host: usize, point: Point, state: &[u8], forks: bool) {
        let (seq, floor) = (point.seq, self.floor[host]);
        if seq < floor {
            self.fail(format!("host {host} fell from revision {floor} to {seq}"));
        }
        self.floor[host] = seq;
        let known = self
            .agreed
            .entry(seq)
            .or_insert_with(|| (point.hash, state.to_vec()))
            .clone();
        if known.0 == point.hash && known.1 != state {
            self.fail(format!("revision {seq} has two states"));
        }
        if known.0 != point.hash && !forks {
            self.fail(format!("revision {seq} is two entries"));
        }
    }

    /// Looks at the log as a stranger would: authors, parents, revisions, forks.
    fn check_chain(&mut self, host: usize, node: &Node<Chain>) {
        let Some(log) = node.log() else { return };
        let start = log.start();
        let (mut owner, mut seq, mut hash) = (self.genesis_owner, start.seq, start.hash);
        if let Some((first, _)) = log.agreed(1).next().filter(|_| start.seq > 0) {
            owner = first.author;
        }
        let merges: Vec<u64> = log
            .agreed(1)
            .filter(|(entry, _)| entry.kind() == Some(Kind::Merge))
            .map(|(entry, _)| entry.seq)
            .collect();
        for (entry, _) in log.agreed(1) {
            if !self.signed.contains(&entry.hash()) || entry.author != owner {
                return self.fail(format!(
                    "host {host} folded an entry that the owner did not sign"
                ));
            }
            let merge = entry.kind() == Some(Kind::Merge);
            if entry.prev != hash || (entry.seq != seq + 1 && !merge) {
                return self.fail(format!("host {host} folded an entry without its parent"));
            }
            (seq, hash) = (entry.seq, entry.hash());
            if let (Some(Kind::OwnerRotate), Some(body)) = (entry.kind(), &entry.body)
                && let Target::Owner(next) = body.target
            {
                owner = next;
            }
            let merged = merges.last().is_some_and(|last| *last >= seq);
            if log.proofs(seq).len() > 1 && !merged {
                return self.fail(format!("host {host} folded past the fork at {seq}"));
            }
        }
    }

    /// If anybody knows of a fork, everybody does, and of the same branches.
    pub fn check_forks_seen(&self, hosts: &[Host]) -> Result<(), String> {
        let seen: BTreeSet<_> = hosts
            .iter()
            .filter_map(|host| host.node.as_ref()?.log())
            .map(|log| (log.halt().is_some(), log.tips(), log.head().hash))
            .collect();
        if seen.len() == 1 {
            Ok(())
        } else {
            Err(format!("10 s after healing logs differ: {seen:?}"))
        }
    }

    pub fn check_end(&self, hosts: &[Host], forks: bool) -> Result<(), String> {
        self.check_forks_seen(hosts)?;
        for (index, host) in hosts.iter().enumerate() {
            let node = host.node.as_ref().ok_or("a host is down at the end")?;
            let log = node.log().ok_or(format!("host {index} has no realm"))?;
            if let Some(lost) = self
                .acked
                .iter()
                .find(|point| point.seq > log.start().seq && !log.contains(point.hash))
            {
                return Err(format!(
                    "host {index} lacks the acknowledged revision {}",
                    lost.seq
                ));
            }
            if log.halt().is_some() {
                return Err(format!("host {index} is still halted: {:?}", log.halt()));
            }
            if node.durable_head().hash != log.head().hash {
                return Err(format!("host {index} has a head that is not on disk"));
            }
            let others = hosts
                .iter()
                .filter(|other| other.key.public() != host.key.public());
            for other in others {
                let member = node.members().get(&other.key.public());
                if member.is_none_or(|member| member.state == MemberState::Lost) {
                    return Err(format!("host {index} misses a member: {member:?}"));
                }
            }
        }
        if self.acked.is_empty() && !forks {
            return Err("nothing was ever accepted".to_owned());
        }
        Ok(())
    }
}

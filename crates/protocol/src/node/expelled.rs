//! Nodes that the log took out: what they are told.

use std::collections::BTreeMap;

use realm_identity::{Entry, Hash, Kind, PublicKey, Signed, Target};

use super::Node;
use crate::{Effect, Expulsion, Fold, Frame, Log, Offence};

/// A node that was taken out, and what the agreed log says of it: read once, for strangers may ask
/// for it with every frame.
#[derive(Debug)]
pub(super) struct Record {
    expulsion: Expulsion,
    was_approved: bool,
    /// The revision that took it out, first of several. None where the log does not hold it.
    out_at: Option<u64>,
    /// The entry that did so for good.
    revocation: Option<Hash>,
}

impl Record {
    fn new(expulsion: Expulsion) -> Self {
        Self {
            expulsion,
            was_approved: false,
            out_at: None,
            revocation: None,
        }
    }

    fn read(&mut self, entry: &Signed<Entry>) {
        match entry.kind() {
            Some(Kind::NodeApprove | Kind::NodeSet) => {
                (self.was_approved, self.out_at) = (true, None);
            }
            Some(Kind::NodeRemove) => {
                self.out_at.get_or_insert(entry.seq);
            }
            Some(Kind::NodeRevoke) => {
                self.out_at.get_or_insert(entry.seq);
                self.revocation = Some(entry.hash());
            }
            _ => {}
        }
    }
}

impl<F: Fold + Clone> Node<F> {
    pub(super) fn expel(&mut self, nodes: BTreeMap<PublicKey, Expulsion>) {
        let start = self.log.as_ref().map_or(0, |log| log.start().seq);
        let mut before = std::mem::take(&mut self.expelled);
        before.retain(|node, record| {
            // A fork may have hidden the entry when it was looked for.
            let is_read = record.out_at.is_some() || record.expulsion.revision <= start;
            is_read && nodes.get(node) == Some(&record.expulsion)
        });
        let news = nodes.iter().filter(|(node, _)| !before.contains_key(node));
        let mut news: BTreeMap<_, _> = news
            .map(|(node, expulsion)| (*node, Record::new(*expulsion)))
            .collect();
        if let Some(log) = self.log.as_ref().filter(|_| !news.is_empty()) {
            for (entry, _) in log.agreed(1) {
                if let Some(Target::Node(node)) = target(entry)
                    && let Some(record) = news.get_mut(node)
                {
                    record.read(entry);
                }
            }
        }
        before.append(&mut news);
        self.expelled = before;
        let asking: Vec<_> = self.joins().map(|join| join.node).collect();
        for node in asking {
            if self.is_revoked(node) {
                self.joins.remove(&node);
                self.tell_revoked(node);
            }
        }
        // Of a witness that is out those count which it saw while it was in.
        self.retry_claims();
    }

    /// Up to which revision a node that was taken out gets the log: it had been entitled to that.
    /// None for who was never in: payloads hold what only nodes of the realm may see.
    pub(super) fn expelled_may_see(&self, peer: PublicKey) -> Option<u64> {
        let record = self.expelled.get(&peer)?;
        (record.was_approved || self.counted_by_claim(peer))
            .then(|| record.out_at.unwrap_or(record.expulsion.revision))
    }

    pub(super) fn is_revoked(&self, node: PublicKey) -> bool {
        let record = self.expelled.get(&node);
        record.is_some_and(|record| record.expulsion.for_good)
    }

    /// The signed entry that revoked `node` for good. None where the log started later.
    fn revocation(&self, node: PublicKey) -> Option<Vec<u8>> {
        let hash = self.expelled.get(&node)?.revocation?;
        let (entry, _) = self.log.as_ref()?.entry(hash)?;
        Some(entry.to_wire())
    }

    /// Answers a node that asks to join after the owner revoked it: with the owner's word alone.
    pub(super) fn tell_revoked(&mut self, node: PublicKey) {
        if let Some(entry) = self.revocation(node) {
            self.send(node, &Frame::Revoked(entry));
        }
    }

    /// Whether the owner is known to have revoked this node, which was never in. A node that knows an
    /// owner alone hears of any of the owner's realms: once it is in one, of that one only.
    pub fn was_told_revoked(&self) -> bool {
        let ours = self.log.as_ref().map(Log::realm).or(self.config.realm);
        self.told_revoked
            .is_some_and(|told| ours.is_none_or(|ours| ours == told))
    }

    /// Somebody shows that the owner revoked this node. Whoever is approved reads the log instead.
    pub(super) fn revoked(&mut self, from: PublicKey, wire: &[u8]) {
        if self.approved.contains(&self.me) {
            return;
        }
        let Ok(entry) = Signed::<Entry>::from_wire(wire) else {
            return self.warn(from, Offence::MalformedFrame);
        };
        let of_me = entry.kind() == Some(Kind::NodeRevoke)
            && target(&entry) == Some(&Target::Node(self.me));
        let realm = self.log.as_ref().map(Log::realm).or(self.config.realm);
        let ours = realm.is_none_or(|realm| realm == entry.realm);
        let owner = self.log.as_ref().map(Log::owner);
        let is_owner = owner == Some(entry.author) || self.config.pins.contains(&entry.author);
        if of_me && ours && is_owner && self.told_revoked != Some(entry.realm) {
            self.told_revoked = Some(entry.realm);
            self.effects.push_back(Effect::Revoked {
                realm: entry.realm,
                seq: entry.seq,
            });
        }
    }

    /// Whether a node that the log took out was one of the realm before. A log that starts at a
    /// checkpoint does not say who was in before that: then the others know, who say so.
    pub(super) fn was_in(&self, node: PublicKey) -> bool {
        let is_whole = self.log.as_ref().is_some_and(|log| log.start().seq == 0);
        let is_out = self.expelled.contains_key(&node);
        is_out && (!is_whole || self.expelled_may_see(node).is_some())
    }

    /// Whether a claim that nobody contests made it a node of the realm.
    fn counted_by_claim(&self, node: PublicKey) -> bool {
        let mut own = self.claims().filter(|claim| claim.claim.node == node);
        own.any(|claim| !self.claims().any(|other| other.contradicts(claim)))
    }
}

fn target(entry: &Entry) -> Option<&Target> {
    entry.body.as_ref().map(|body| &body.target)
}

//! Nodes that the log took out: what they are told.

use std::collections::BTreeMap;

use realm_identity::{Entry, Kind, PublicKey, Signed, Target};

use super::Node;
use crate::{Effect, Fold, Frame, Log, Offence};

/// What the agreed log says of one key.
#[derive(Debug, Default)]
struct Record {
    was_approved: bool,
    /// The revision that took it out, first of several.
    out_at: Option<u64>,
    /// The entry that did so for good.
    revocation: Option<Vec<u8>>,
}

impl<F: Fold + Clone> Node<F> {
    pub(super) fn expel(&mut self, nodes: BTreeMap<PublicKey, u64>) {
        self.expelled = nodes;
        let asking: Vec<_> = self.joins().map(|join| join.node).collect();
        for node in asking {
            if self.is_revoked(node) {
                self.joins.remove(&node);
                self.tell_revoked(node);
            }
        }
    }

    /// Up to which revision a node that was taken out gets the log: it had been entitled to that.
    /// None for who was never in: payloads hold what only nodes of the realm may see.
    pub(super) fn expelled_may_see(&self, peer: PublicKey) -> Option<u64> {
        let revision = *self.expelled.get(&peer)?;
        let record = record(self.log.as_ref()?, peer);
        (record.was_approved || self.counted_by_claim(peer))
            .then(|| record.out_at.unwrap_or(revision))
    }

    pub(super) fn is_revoked(&self, node: PublicKey) -> bool {
        self.revocation(node).is_some()
    }

    /// The signed entry that revoked `node` for good.
    fn revocation(&self, node: PublicKey) -> Option<Vec<u8>> {
        self.expelled.get(&node)?;
        record(self.log.as_ref()?, node).revocation
    }

    /// Answers a node that asks to join after the owner revoked it: with the owner's word alone.
    pub(super) fn tell_revoked(&mut self, node: PublicKey) {
        if let Some(entry) = self.revocation(node) {
            self.send(node, &Frame::Revoked(entry));
        }
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

    /// Whether a node that the log took out was one of the realm before.
    pub(super) fn was_in(&self, node: PublicKey) -> bool {
        self.expelled_may_see(node).is_some()
    }

    /// Whether a claim that nobody contests made it a node of the realm.
    fn counted_by_claim(&self, node: PublicKey) -> bool {
        let mut own = self.claims().filter(|claim| claim.claim.node == node);
        own.any(|claim| !self.claims().any(|other| other.contradicts(claim)))
    }
}

fn record<F: Fold>(log: &Log<F>, node: PublicKey) -> Record {
    let mut record = Record::default();
    for (entry, _) in log.agreed(1) {
        if target(entry) != Some(&Target::Node(node)) {
            continue;
        }
        match entry.kind() {
            Some(Kind::NodeApprove | Kind::NodeSet) => {
                (record.was_approved, record.out_at) = (true, None);
            }
            Some(Kind::NodeRemove) => {
                record.out_at.get_or_insert(entry.seq);
            }
            Some(Kind::NodeRevoke) => {
                record.out_at.get_or_insert(entry.seq);
                record.revocation = Some(entry.to_wire());
            }
            _ => {}
        }
    }
    record
}

fn target(entry: &Entry) -> Option<&Target> {
    entry.body.as_ref().map(|body| &body.target)
}

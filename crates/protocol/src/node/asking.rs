//! Who is asked for a report: the node itself, who told of it, then others. A connection that died
//! looks alive for a while, so that nobody is waited for long.

use std::collections::{BTreeMap, BTreeSet};

use realm_identity::PublicKey;

use super::{
    Node,
    status::{Age, Reports, Slot},
};
use crate::{Fold, Frame, MemberState, Now, pace};

/// After this long without an answer another one is asked.
const ANSWER_MS: u64 = 1_000;
/// Peers asked for one report: with another digest it begins anew.
const ASKED_MAX: usize = 4;

#[derive(Debug)]
pub(super) struct Asking {
    wanted: Age,
    /// The peer that the digest came from: it has the report, or knows where to get it.
    told_by: PublicKey,
    asked: Vec<PublicKey>,
    next: u64,
}

/// The reports that are asked for, and when somebody else is asked for each: a large realm asks for many at once.
#[derive(Debug, Default)]
pub(super) struct Questions {
    of: BTreeMap<PublicKey, Asking>,
    due: BTreeSet<(u64, PublicKey)>,
}

impl Questions {
    /// When somebody else is to be asked for a report.
    pub fn next(&self) -> Option<u64> {
        self.due.first().map(|(due, _)| *due)
    }

    fn is_asked(&self, node: &PublicKey) -> bool {
        self.of.contains_key(node)
    }

    fn insert(&mut self, node: PublicKey, asking: Asking) {
        self.remove(&node);
        self.due.insert((asking.next, node));
        self.of.insert(node, asking);
    }

    pub fn remove(&mut self, node: &PublicKey) -> Option<Asking> {
        let asking = self.of.remove(node)?;
        self.due.remove(&(asking.next, *node));
        Some(asking)
    }

    pub fn retain(&mut self, nodes: &BTreeSet<PublicKey>) {
        self.of.retain(|node, _| nodes.contains(node));
        self.due.retain(|(_, node)| nodes.contains(node));
    }

    fn due(&self, mono: u64) -> Vec<PublicKey> {
        let due = self.due.iter().take_while(|(due, _)| *due <= mono);
        due.map(|(_, node)| *node).collect()
    }
}

impl<F: Fold + Clone> Node<F> {
    /// Asks for the report of the newest digest of `node`, which came from `told_by`.
    pub(super) fn ask_for_report(&mut self, node: PublicKey, told_by: PublicKey, now: Now) {
        let slot = self.reports.slots.get(&node);
        let Some(wanted) = slot.and_then(|slot| slot.digest) else {
            return;
        };
        self.begin_asking(node, wanted, told_by, now);
    }

    /// Asks others for the report of a member that nothing is known of yet, not even where it is. Who
    /// brought both together may be gone before gossip does.
    pub(super) fn ask_about(&mut self, node: PublicKey, now: Now) {
        let Reports { slots, asking } = &self.reports;
        let is_known = slots.get(&node).is_some_and(Slot::is_known);
        if is_known || asking.is_asked(&node) || self.peers.contains_key(&node) {
            return;
        }
        self.begin_asking(node, Age { boot_id: 0, seq: 0 }, node, now);
    }

    fn begin_asking(&mut self, node: PublicKey, wanted: Age, told_by: PublicKey, now: Now) {
        let asking = Asking {
            wanted,
            told_by,
            asked: Vec::new(),
            next: now.mono,
        };
        self.reports.asking.insert(node, asking);
        self.ask_next(node, now);
    }

    /// Whoever did not answer in time is passed over.
    pub(super) fn ask_others_for_reports(&mut self, now: Now) {
        let due = self.reports.asking.due(now.mono);
        due.into_iter().for_each(|node| self.ask_next(node, now));
    }

    fn ask_next(&mut self, node: PublicKey, now: Now) {
        let Some(mut asking) = self.reports.asking.remove(&node) else {
            return;
        };
        self.note_silence(&asking);
        if asking.asked.len() >= ASKED_MAX {
            return;
        }
        let Some(peer) = self.next_to_ask(node, &asking) else {
            if asking.asked.is_empty() {
                self.dial(node, now);
            }
            return;
        };
        let Age { boot_id, seq } = asking.wanted;
        self.send(peer, &Frame::GetReport { node, boot_id, seq });
        asking.asked.push(peer);
        asking.next = now.mono + ANSWER_MS;
        self.reports.asking.insert(node, asking);
    }

    fn next_to_ask(&mut self, node: PublicKey, asking: &Asking) -> Option<PublicKey> {
        let first = match self.is_doubted(node) {
            true => [asking.told_by, node],
            false => [node, asking.told_by],
        };
        let may_ask = |here: &Self, peer: &PublicKey| {
            here.peers.contains_key(peer) && !asking.asked.contains(peer)
        };
        let first = first.into_iter().find(|peer| may_ask(self, peer));
        // Of the others any that is not asked yet: a few tries find one.
        let mut others = (0..ASKED_MAX).filter_map(|_| {
            let any = self.any_approved_peer();
            any.filter(|peer| may_ask(self, peer))
        });
        first.or_else(|| others.next())
    }

    /// Whether membership doubts it, or it left a question unanswered. In a large realm two nodes
    /// exchange frames now and then only, so that the time of the last one alone says nothing.
    fn is_doubted(&self, node: PublicKey) -> bool {
        let member = self.swim.members().get(&node);
        let ignores = self.peers.get(&node).is_none_or(|peer| peer.ignores);
        ignores || member.is_none_or(|member| member.state != MemberState::Up)
    }

    /// Notes that the peer asked last said nothing at all since.
    fn note_silence(&mut self, asking: &Asking) {
        let asked_at = asking.next.saturating_sub(ANSWER_MS);
        let last = asking.asked.last();
        if let Some(peer) = last.and_then(|peer| self.peers.get_mut(peer)) {
            peer.ignores = peer.heard_at <= asked_at;
        }
    }

    /// Independent of gossip: a peer whose report is old is asked for a newer one.
    pub(super) fn ask_for_its_report(&mut self, peer: PublicKey, now: Now) {
        // Gossip may deliver nothing: then a report or two have been missed.
        let old_ms = 2 * pace::report_every_ms(self.approved.len());
        if let Some(Age { boot_id, seq }) = self.reports.overdue(peer, old_ms, now.mono) {
            let node = peer;
            self.send(peer, &Frame::GetReport { node, boot_id, seq });
        }
    }
}

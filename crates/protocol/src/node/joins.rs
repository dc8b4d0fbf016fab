//! Requests to join that wait for the owner: of nodes that are connected here, and of those that
//! approved peers told of, so that the owner finds each of them at any node.

use std::collections::{BTreeMap, BTreeSet};

use realm_identity::{PublicKey, Signed};

use super::Node;
use crate::{Effect, Fold, Frame, JoinRequest, Now, Offence, limits::*};

/// How often a request that is repeated here is told to the approved peers.
const TELL_EVERY_MS: u64 = 10_000;
/// A request that peers told of is forgotten after this without a word: its node has left, or
/// whoever told of it has.
const FORGET_MS: u64 = 30_000;

#[derive(Debug, Default)]
pub(super) struct Joins {
    waiting: BTreeMap<PublicKey, Waiting>,
}

#[derive(Debug)]
struct Waiting {
    request: JoinRequest,
    /// As it was signed: what is heard again is not verified again.
    wire: Vec<u8>,
    /// Whether the node itself is connected here.
    here: bool,
    heard_at: u64,
    told_at: Option<u64>,
}

impl Joins {
    pub fn remove(&mut self, node: &PublicKey) {
        self.waiting.remove(node);
    }

    /// Forgets those that are approved now.
    pub fn settle(&mut self, approved: &BTreeSet<PublicKey>) {
        self.waiting.retain(|node, _| !approved.contains(node));
    }

    /// Forgets those that nobody told of for a while.
    pub fn forget(&mut self, mono: u64) {
        self.waiting
            .retain(|_, one| one.here || mono < one.heard_at + FORGET_MS);
    }

    /// Those that are connected here have places of their own: what peers tell takes none of them.
    fn is_full(&self, here: bool) -> bool {
        let kind = self.waiting.values().filter(|one| one.here == here);
        let max = match here {
            true => MAX_PENDING_JOINS,
            false => MAX_TOLD_JOINS,
        };
        kind.count() >= max
    }
}

impl<F: Fold + Clone> Node<F> {
    /// Nodes that asked to join and were not dealt with yet.
    pub fn joins(&self) -> impl Iterator<Item = &JoinRequest> {
        self.joins.waiting.values().map(|one| &one.request)
    }

    /// Whoever asks has signed it. Approved peers may bring what others signed; that a stranger does
    /// is no offence, for it may not know yet that it is one here.
    pub(super) fn join(&mut self, from: PublicKey, wire: Vec<u8>, now: Now) {
        let told = self.approved.contains(&from);
        if !told && self.is_revoked(from) {
            return self.tell_revoked(from);
        }
        let mut known = self.joins.waiting.iter_mut();
        if let Some((node, one)) = known.find(|(_, one)| one.wire == wire) {
            let (node, here) = (*node, one.here);
            if node == from || told {
                one.heard_at = now.mono;
            }
            if node != from {
                return;
            }
            if here {
                return self.tell_join(node, now);
            }
        }
        let Ok(request) = Signed::<JoinRequest>::from_wire(&wire) else {
            return self.warn(from, Offence::BadJoin);
        };
        let node = request.node;
        let here = node == from;
        let settled = node == self.me || self.approved.contains(&node);
        if settled || self.is_revoked(node) || !(here || told) || self.is_foreign(&request) {
            return;
        }
        let before = self.joins.waiting.get(&node);
        // What the node itself says here is newer than what others say that it said.
        let older = before.is_some_and(|before| before.here && !here);
        let takes_place = before.is_none_or(|before| before.here != here);
        if older || (takes_place && self.joins.is_full(here)) {
            return;
        }
        let request = request.into_inner();
        let news = before.is_none_or(|before| before.request != request);
        let waiting = Waiting {
            request: request.clone(),
            wire,
            here,
            heard_at: now.mono,
            told_at: None,
        };
        self.joins.waiting.insert(node, waiting);
        if news {
            self.effects.push_back(Effect::JoinRequested { request });
        }
        if here {
            self.tell_join(node, now);
        }
    }

    /// Whether the node was told to join another realm than this one.
    fn is_foreign(&self, request: &JoinRequest) -> bool {
        let ours = self.log.as_ref().map(|log| log.realm());
        ours.is_some() && request.realm.is_some() && ours != request.realm
    }

    /// Tells the approved peers of a node that asks here. They tell nobody: so nothing goes round,
    /// and what has left is forgotten everywhere.
    fn tell_join(&mut self, node: PublicKey, now: Now) {
        let Some(waiting) = self.joins.waiting.get_mut(&node) else {
            return;
        };
        let due = waiting
            .told_at
            .is_none_or(|at| now.mono >= at + TELL_EVERY_MS);
        if due && self.approved.contains(&self.me) {
            waiting.told_at = Some(now.mono);
            let frame = Frame::Join(waiting.wire.clone());
            self.send_approved(&frame);
        }
    }
}

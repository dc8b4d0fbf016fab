//! Who vouches for a node that shows its claim to everybody: one node, and the next one where that was
//! not heard of. Each witness is a claim of its own, which every node of the realm keeps for good.

use std::collections::BTreeMap;

use realm_identity::{Claim, Hash, PublicKey, Signed};
use realm_protocol::Now;

use super::Core;

/// Between two nodes that may vouch, in milliseconds: a claim is written and told in less.
const STEP_MS: u64 = 100;
/// Whoever shows its claim to one node alone does not wait for longer.
const LONGEST_MS: u64 = 2_000;
/// Claims that wait for their turn; others are shown again.
const MAX_WAITING: usize = 256;

/// Claims that wait for this node's turn.
#[derive(Debug, Default)]
pub(crate) struct Vouching(BTreeMap<PublicKey, (u64, Signed<Claim>)>);

impl Vouching {
    /// A claim that is shown again keeps the time it has.
    fn later(&mut self, claim: Signed<Claim>, due: u64) {
        if self.0.len() < MAX_WAITING {
            self.0.entry(claim.node).or_insert((due, claim));
        }
    }

    pub fn next(&self) -> Option<u64> {
        self.0.values().map(|(due, _)| *due).min()
    }

    fn take_due(&mut self, mono: u64) -> Vec<Signed<Claim>> {
        let due = self.0.extract_if(.., |_, (due, _)| *due <= mono);
        due.map(|(_, (_, claim))| claim).collect()
    }
}

/// How many of `others` come before `me` for `claimant`. Each claimant has an order of its own, in
/// which all see the same.
fn turn(claimant: &PublicKey, me: &PublicKey, others: impl Iterator<Item = PublicKey>) -> u64 {
    let place = |node: &PublicKey| Hash::of(&[*claimant.as_bytes(), *node.as_bytes()].concat());
    let own = place(me);
    others.filter(|other| place(other) < own).count() as u64
}

impl Core {
    /// Vouches at once where it is this node's turn, else when that has come.
    pub(super) fn vouch(&mut self, claim: Signed<Claim>, now: Now) {
        let others = self.node.connected();
        let others = others.filter(|peer| self.approved.contains_key(peer));
        match turn(&claim.node, &self.key.public(), others) {
            0 => self.witness(claim, now),
            turn => {
                let wait = turn.saturating_mul(STEP_MS).min(LONGEST_MS);
                self.vouching.later(claim, now.mono.saturating_add(wait));
            }
        }
    }

    /// Of those whose turn has come, others may have let some in.
    pub(super) fn vouch_late(&mut self, now: Now) {
        let due = self.vouching.take_due(now.mono);
        // It may have been taken out meanwhile.
        if self.approved.contains_key(&self.key.public()) {
            due.into_iter().for_each(|claim| self.witness(claim, now));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::approvals::tests::{NOW, claim, key};

    #[test]
    fn of_many_nodes_one_vouches_at_once_and_each_for_some() {
        let nodes: Vec<PublicKey> = (1..=8).map(|seed| key(seed).public()).collect();
        let mut first = BTreeMap::new();
        for claimant in 100..200 {
            let claimant = key(claimant).public();
            let turns = nodes.iter().map(|me| {
                let others = nodes.iter().filter(|other| *other != me).copied();
                (turn(&claimant, me, others), *me)
            });
            let mut turns: Vec<_> = turns.collect();
            turns.sort();
            let order: Vec<u64> = turns.iter().map(|(turn, _)| *turn).collect();
            assert_eq!(order, (0..8).collect::<Vec<_>>());
            *first.entry(turns[0].1).or_insert(0) += 1;
        }
        assert_eq!(first.len(), 8, "{first:?}");
    }

    #[test]
    fn a_claim_waits_for_its_turn_once() {
        let (claim, mut vouching) = (claim(50, 10, 10, NOW).claim, Vouching::default());
        vouching.later(claim.clone(), 300);
        vouching.later(claim.clone(), 900);
        assert_eq!(vouching.next(), Some(300));
        assert!(vouching.take_due(299).is_empty());
        assert_eq!(vouching.take_due(300), [claim]);
        assert_eq!(vouching.next(), None);
    }
}

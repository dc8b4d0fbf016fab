//! Nodes whose key two agents have: each of their connections proves the key, and tells another start.
//!
//! An agent that starts again tells a later start from then on, and no earlier one ever again. So only who goes back
//! and forth counts. Nobody but the bearers of a key can make it: connections prove it.

use std::collections::{BTreeMap, BTreeSet};

use realm_identity::PublicKey;

/// A directory that is set back goes to an earlier start once, and once more where it was set back again.
const RETURNS: u32 = 3;
/// As long as two agents take turns, they do so every few seconds: who redials waits half a minute at most.
const LASTS_MS: u64 = 2 * 60 * 1000;

/// By the monotonic clock, in milliseconds.
#[derive(Debug, Default)]
pub(crate) struct Twins {
    /// Of approved nodes alone, so that it is bounded as they are.
    of: BTreeMap<PublicKey, Starts>,
}

#[derive(Debug)]
struct Starts {
    current: u64,
    latest: u64,
    /// How often a connection told of an earlier start than one before it, without a pause.
    returns: u32,
    /// When the last time was.
    last: u64,
}

impl Twins {
    /// A connection of an approved node tells which start of it answers there.
    pub fn saw(&mut self, node: PublicKey, start: u64, mono: u64) {
        let starts = self.of.entry(node).or_insert(Starts {
            current: start,
            latest: start,
            returns: 0,
            last: mono,
        });
        let is_return = start != starts.current && start < starts.latest;
        starts.current = start;
        starts.latest = starts.latest.max(start);
        if is_return {
            let goes_on = mono < starts.last.saturating_add(LASTS_MS);
            starts.returns = if goes_on { starts.returns } else { 0 }.saturating_add(1);
            starts.last = mono;
        }
    }

    /// What was known of others is forgotten.
    pub fn retain(&mut self, approved: &BTreeSet<PublicKey>) {
        self.of.retain(|node, _| approved.contains(node));
    }

    /// Whether two agents take turns with the key of `node`.
    pub fn has(&self, node: &PublicKey, mono: u64) -> bool {
        self.of.get(node).is_some_and(|starts| {
            starts.returns >= RETURNS && mono < starts.last.saturating_add(LASTS_MS)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::approvals::tests::key;

    /// What these starts, a second apart, say of a node.
    fn after(starts: &[u64]) -> bool {
        let (mut twins, node) = (Twins::default(), key(1).public());
        let mut mono = 0;
        for start in starts {
            twins.saw(node, *start, mono);
            mono += 1_000;
        }
        twins.has(&node, mono)
    }

    #[test]
    fn two_agents_take_turns() {
        assert!(after(&[100, 200, 100, 200, 100, 200, 100]));
        // One of them starts again and again.
        assert!(after(&[100, 200, 100, 300, 100, 400, 100]));
    }

    #[test]
    fn one_that_starts_again_is_no_twin() {
        assert!(!after(&[1, 2, 3, 4, 5, 6, 7, 8]));
        // Each of several connections tells.
        assert!(!after(&[1, 1, 1, 2, 2, 2, 2]));
        // Its directory was set back, and it stepped over what others remember.
        assert!(!after(&[200, 100, 100, 100, 201, 100, 202]));
    }

    #[test]
    fn it_is_over_when_one_of_them_is_stopped() {
        let (mut twins, node) = (Twins::default(), key(1).public());
        for turn in 0..10 {
            twins.saw(node, 100 + turn % 2, turn * 1_000);
        }
        let last = 8_000;
        assert!(twins.has(&node, last + LASTS_MS - 1));
        assert!(!twins.has(&node, last + LASTS_MS));
        // What comes after a pause begins anew.
        twins.saw(node, 100, last + LASTS_MS);
        assert!(!twins.has(&node, last + LASTS_MS));
        twins.retain(&BTreeSet::new());
        assert!(twins.of.is_empty());
    }
}

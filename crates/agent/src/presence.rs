//! Which nodes placement counts on: one that does not answer for a moment keeps its work.

use std::collections::{BTreeMap, BTreeSet};

use realm_identity::PublicKey;

/// A loss that is taken back so soon moves nothing. With it the work of a node whose process
/// is killed starts elsewhere after about 1.3 s, that of one that dies without a word after 1.8 s in the middle.
const LOST_GRACE_MS: u64 = 400;
/// A node that was away is given work that runs elsewhere after it was back for this long.
const STABLE_MS: u64 = 10_000;

/// By the monotonic clock, in milliseconds.
#[derive(Debug, Default)]
pub(crate) struct Presence {
    /// The approved nodes: others are given nothing, so that they have nothing to lose.
    members: BTreeSet<PublicKey>,
    of: BTreeMap<PublicKey, Been>,
    /// When the next loss begins to count.
    next: Option<u64>,
}

/// How placement sees a node.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Sight {
    /// What it runs stays there.
    pub present: bool,
    /// It is given work that runs elsewhere. This differs from node to node: after a partition each
    /// side takes the other for away. So it only holds back what would move, and never decides
    /// where new work goes.
    pub settled: bool,
}

impl Sight {
    pub const ITSELF: Self = Self {
        present: true,
        settled: true,
    };
}

#[derive(Debug, Default)]
struct Been {
    lost: Option<u64>,
    /// When it came back from a loss that counted.
    back: Option<u64>,
}

impl Presence {
    /// One that was taken out is lost after it is no member, which says nothing about its return.
    pub fn lost(&mut self, node: PublicKey, mono: u64) {
        if !self.members.contains(&node) {
            return;
        }
        self.of.entry(node).or_default().lost.get_or_insert(mono);
        self.next.get_or_insert(mono + LOST_GRACE_MS);
    }

    /// Says whether that is news: a suspicion that was refuted is none.
    pub fn up(&mut self, node: PublicKey, mono: u64) -> bool {
        let is_new = !self.of.contains_key(&node);
        let been = self.of.entry(node).or_default();
        let lost = been.lost.take();
        if lost.is_some_and(|at| mono >= at + LOST_GRACE_MS) {
            been.back = Some(mono);
        }
        is_new || lost.is_some()
    }

    /// What was known of others is forgotten.
    pub fn set_members(&mut self, members: BTreeSet<PublicKey>) {
        self.of.retain(|node, _| members.contains(node));
        self.members = members;
    }

    /// How placement sees a node that answers, or does not. Those that came back before `start`
    /// were never away: nobody knew anybody.
    pub fn sight(&self, node: &PublicKey, answers: bool, start: u64, mono: u64) -> Sight {
        let been = self.of.get(node);
        let lost = been.and_then(|been| been.lost);
        let present = answers || lost.is_some_and(|at| mono < at + LOST_GRACE_MS);
        let back = been.and_then(|been| been.back);
        let settled = back.is_none_or(|at| at < start || mono >= at + STABLE_MS);
        Sight {
            present,
            settled: present && settled,
        }
    }

    /// When to plan anew although nothing happens.
    pub fn next(&self) -> Option<u64> {
        self.next
    }

    /// Whether a loss began to count since the last time.
    pub fn take_due(&mut self, mono: u64) -> bool {
        if self.next.is_none_or(|due| due > mono) {
            return false;
        }
        let lost = self.of.values().filter_map(|been| been.lost);
        let due = lost.map(|at| at + LOST_GRACE_MS);
        self.next = due.filter(|due| *due > mono).min();
        true
    }
}

#[cfg(test)]
mod tests {
    use realm_identity::SecretKey;

    use super::*;

    fn node(seed: u8) -> PublicKey {
        SecretKey::from_seed(&[seed; 32]).public()
    }

    fn of_two() -> Presence {
        let mut presence = Presence::default();
        presence.set_members([node(1), node(2)].into());
        presence
    }

    /// Whether a node that answers, or does not, is there and is given work, long after the start.
    fn sight(presence: &Presence, answers: bool, mono: u64) -> (bool, bool) {
        let sight = presence.sight(&node(1), answers, 3_000, mono);
        (sight.present, sight.settled)
    }

    #[test]
    fn a_short_loss_moves_nothing() {
        let mut presence = of_two();
        assert!(presence.up(node(1), 100));
        assert!(!presence.up(node(1), 200), "a suspicion that was refuted");
        presence.lost(node(1), 5_000);
        let last = 5_000 + LOST_GRACE_MS - 1;
        assert_eq!(sight(&presence, false, last), (true, true));
        assert!(presence.up(node(1), last), "it was told that it is lost");
        assert_eq!(sight(&presence, true, last), (true, true));
    }

    #[test]
    fn a_loss_counts_when_its_grace_is_over() {
        let mut presence = of_two();
        presence.up(node(1), 100);
        presence.lost(node(1), 5_000);
        let due = 5_000 + LOST_GRACE_MS;
        assert_eq!(presence.next(), Some(due));
        assert!(!presence.take_due(due - 1));
        assert_eq!(sight(&presence, false, due), (false, false));
        assert!(presence.take_due(due) && !presence.take_due(due + 1));
    }

    #[test]
    fn who_was_lost_is_given_work_when_it_stays() {
        let mut presence = of_two();
        presence.lost(node(1), 5_000);
        presence.up(node(1), 9_000);
        let due = 9_000 + STABLE_MS;
        assert_eq!(sight(&presence, true, due - 1), (true, false));
        assert_eq!(sight(&presence, true, due), (true, true));
        let start = presence.sight(&node(1), true, 9_001, 9_001);
        assert!(start.settled, "at the start nobody knew anybody");
        let never_lost = presence.sight(&node(2), true, 3_000, 9_000);
        assert!(never_lost.settled, "it has nothing to lose");
    }

    #[test]
    fn each_loss_has_a_grace_of_its_own() {
        let mut presence = of_two();
        presence.lost(node(1), 1_000);
        presence.lost(node(2), 1_100);
        assert!(presence.take_due(1_000 + LOST_GRACE_MS));
        assert_eq!(presence.next(), Some(1_100 + LOST_GRACE_MS));
        presence.up(node(2), 1_200);
        assert!(
            presence.take_due(1_100 + LOST_GRACE_MS),
            "planned once more"
        );
        assert_eq!(presence.next(), None);
    }

    #[test]
    fn who_is_let_in_again_is_given_work_at_once() {
        let mut presence = of_two();
        presence.up(node(1), 100);
        presence.set_members([node(2)].into());
        presence.lost(node(1), 5_000);
        assert_eq!(presence.next(), None, "nothing is planned for it");
        presence.set_members([node(1), node(2)].into());
        assert!(presence.up(node(1), 60_000));
        assert_eq!(sight(&presence, true, 60_000), (true, true));
    }
}

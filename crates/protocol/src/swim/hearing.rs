//! Whom this node hears: one that hears nobody, or was stopped, has nothing to say about others.

use std::collections::BTreeMap;

use realm_identity::PublicKey;

use super::{PROBE_PERIOD_MS, SUSPECT_MS};

/// Two probe periods without a word of anybody. Of several others somebody always probes.
const DEAF_MS: u64 = 2 * PROBE_PERIOD_MS;
/// Those of one other node say nothing about this one's ears.
const OTHERS_MIN: usize = 2;
/// Who hears again says nothing bad about others until what it said to itself meanwhile is old: as
/// long as foca goes on repeating it.
const MUTE_MS: u64 = 1_000;

#[derive(Debug, Default)]
pub(super) struct Hearing {
    /// When a packet of each came last; bounded by the approved nodes.
    of: BTreeMap<PublicKey, u64>,
    last: Option<u64>,
    mute_until: u64,
}

impl Hearing {
    pub fn heard(&mut self, from: PublicKey, mono: u64) {
        let silent = self.last.map_or(0, |last| mono.saturating_sub(last));
        if silent > DEAF_MS {
            self.mute_until = mono + MUTE_MS;
        }
        self.last = Some(mono);
        self.of.insert(from, mono);
    }

    /// This node was stopped for `late` ms. A short stop misjudges nobody: every timer is forgiven it.
    pub fn paused(&mut self, late: u64, mono: u64) {
        if late > SUSPECT_MS {
            self.mute_until = mono + MUTE_MS;
        }
    }

    pub fn has_heard_since(&self, node: PublicKey, since: u64) -> bool {
        self.of.get(&node).is_some_and(|at| *at > since)
    }

    /// Whether this node was stopped or deaf just now.
    pub fn was_out(&self, mono: u64) -> bool {
        mono < self.mute_until
    }

    /// Whether the silence of one of `others` is worth telling.
    pub fn may_judge(&self, others: usize, mono: u64) -> bool {
        let silent = self.last.map_or(0, |last| mono.saturating_sub(last));
        let is_deaf = others >= OTHERS_MIN && silent > DEAF_MS;
        !is_deaf && !self.was_out(mono)
    }

    pub fn retain(&mut self, keep: impl Fn(&PublicKey) -> bool) {
        self.of.retain(|node, _| keep(node));
    }
}

#[cfg(test)]
mod tests {
    use realm_identity::SecretKey;

    use super::*;
    use crate::{
        MemberState,
        swim::ring::{NODES, Ring, STEP, name},
    };

    #[test]
    fn who_hears_nobody_is_no_judge_and_for_a_while_after() {
        let node = SecretKey::from_seed(&[1; 32]).public();
        let mut hearing = Hearing::default();
        assert!(hearing.may_judge(4, 10_000), "at the start");
        hearing.heard(node, 10_000);
        assert!(hearing.may_judge(4, 10_000 + DEAF_MS));
        assert!(!hearing.may_judge(4, 10_001 + DEAF_MS));
        assert!(hearing.may_judge(1, 20_000), "the only other one is gone");
        hearing.heard(node, 20_000);
        assert!(!hearing.may_judge(4, 20_000));
        for at in [20_400, 20_900] {
            hearing.heard(node, at);
        }
        hearing.heard(node, 20_000 + MUTE_MS);
        assert!(hearing.may_judge(4, 20_000 + MUTE_MS));
    }

    #[test]
    fn a_short_stop_is_forgiven_and_a_long_one_silences() {
        let mut hearing = Hearing::default();
        hearing.paused(SUSPECT_MS, 5_000);
        assert!(!hearing.was_out(5_000));
        hearing.paused(SUSPECT_MS + 1, 5_000);
        assert!(hearing.was_out(5_000) && !hearing.was_out(5_000 + MUTE_MS));
    }

    #[test]
    fn a_deaf_node_tells_no_verdicts() {
        let mut ring = Ring::settled();
        assert_eq!(ring.states(0), [MemberState::Up; NODES - 1]);
        ring.deaf = true;
        ring.run(DEAF_MS + STEP);
        ring.verdicts = 0;
        ring.run(4_000);
        assert_eq!(ring.states(0), [MemberState::Lost; NODES - 1]);
        ring.deaf = false;
        ring.run(MUTE_MS);
        assert_eq!(ring.verdicts, 0);
        ring.run(4_000);
        assert_eq!(ring.states(0), [MemberState::Up; NODES - 1]);
    }

    #[test]
    fn who_was_alone_tells_others_of_lives_that_they_do_not_remember() {
        let mut ring = Ring::settled();
        ring.deaf = true;
        ring.run(5_000);
        assert_eq!(ring.states(0), [MemberState::Lost; NODES - 1]);
        // All others start again meanwhile, with their clocks set back.
        for index in 1..NODES {
            ring.restart(index, 0);
        }
        ring.run(2_000);
        ring.deaf = false;
        let mono = ring.mono;
        ring.nodes[1].announce(name(0), mono);
        ring.run(5_000);
        assert_eq!(ring.states(0), [MemberState::Up; NODES - 1]);
        assert_eq!(ring.states(1), [MemberState::Up; NODES - 1]);
    }

    #[test]
    fn who_was_stopped_blames_nobody_for_its_connections() {
        let mut ring = Ring::settled();
        let (peer, mono) = (name(1), ring.mono);
        ring.nodes[0].disconnected(peer, mono + 10_000);
        assert_eq!(ring.states(0), [MemberState::Up; NODES - 1]);
        ring.nodes[2].disconnected(peer, mono);
        assert!(ring.states(2).contains(&MemberState::Suspect));
    }
}

//! The lives of a node: one key begins again and again, and the latest of its lives counts.

use foca::Identity;
use realm_identity::Timestamp;

use super::{
    Swim,
    wire::{read_packet, write_packet},
};

/// A life that begins later than this after now is made up. It is that much because clocks may be wrong by decades;
/// that it ends at all leaves room for a life after each that counts, for whom others remember wrongly.
const AHEAD_MAX_MS: u64 = 100 * 365 * 24 * 60 * 60 * 1000;

/// A node's name in SWIM: of two with one key the later one counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Id {
    /// Bytes, not a checked key: packets are many, and only approved keys count anyway.
    pub key: [u8; 32],
    /// Wall clock at start, raised above any that others remember.
    pub epoch: u64,
    pub bump: u32,
}

impl Identity for Id {
    type Addr = [u8; 32];

    fn renew(&self) -> Option<Self> {
        Some(Self {
            bump: self.bump.wrapping_add(1),
            ..*self
        })
    }

    fn addr(&self) -> [u8; 32] {
        self.key
    }

    fn win_addr_conflict(&self, other: &Self) -> bool {
        (self.epoch, self.bump) > (other.epoch, other.bump)
    }
}

impl Id {
    /// Whether this life can have begun by `now`, on whatever clock.
    pub fn has_begun(&self, now: Timestamp) -> bool {
        self.epoch <= now.as_millis().saturating_add(AHEAD_MAX_MS)
    }
}

impl Swim {
    /// Others remember a later life of this key than ours: the clock was set back, or somebody lies. Step over it;
    /// whether it was so.
    pub(super) fn outlive(&mut self, ids: impl Iterator<Item = Id>, mono: u64) -> bool {
        let me = *self.foca.identity();
        let later = ids.filter(|id| id.key == me.key && id.win_addr_conflict(&me));
        let Some(epoch) = later.map(|id| id.epoch).max() else {
            return false;
        };
        let next = Id {
            epoch: epoch.saturating_add(1),
            bump: 0,
            ..me
        };
        let result = self.foca.change_identity(next, &mut self.runtime);
        self.settle(result, mono);
        true
    }

    /// Tells who is taken for down which life of it that was, if a later one: its clock was set back, and with
    /// nobody active left here it would never hear of that otherwise.
    pub(super) fn with_later_life(&self, to: Id, packet: &[u8]) -> Vec<u8> {
        let known = self.foca.iter_membership_state();
        let later =
            known.filter(|known| known.id().key == to.key && known.id().win_addr_conflict(&to));
        match read_packet(packet) {
            Some((header, _)) => write_packet(&header, later.cloned().collect()),
            // foca made it with our codec.
            None => packet.to_vec(),
        }
    }
}

#[cfg(test)]
mod tests {
    use foca::State;

    use super::*;
    use crate::{
        MemberState,
        swim::ring::{NODES, Ring, name},
    };

    const VICTIM: usize = 2;
    const LIAR: usize = 3;

    /// The third node as the fourth one makes it up: the latest that anybody could be at that epoch.
    fn made_up(epoch: u64) -> Id {
        Id {
            key: *name(VICTIM).as_bytes(),
            epoch,
            bump: u32::MAX,
        }
    }

    #[test]
    fn nobody_is_kept_out_by_a_life_that_another_makes_up() {
        for state in [State::Alive, State::Suspect, State::Down] {
            let mut ring = Ring::settled();
            let latest = ring.mono + AHEAD_MAX_MS;
            let own = ring.nodes[VICTIM].foca.identity().epoch;
            for epoch in [own, u64::MAX, latest + 1, latest, latest - 1] {
                ring.lie(LIAR, made_up(epoch), state);
                ring.run(3_000);
                for at in 0..NODES {
                    let states = ring.states(at);
                    assert_eq!(
                        states,
                        [MemberState::Up; NODES - 1],
                        "{state:?} {epoch} at {at}"
                    );
                }
            }
            // Its end is still seen, and so is its return with an honest clock.
            ring.mute = Some(VICTIM);
            ring.run(5_000);
            assert_eq!(ring.state(0, VICTIM), MemberState::Lost);
            ring.mute = None;
            ring.restart(VICTIM, ring.mono);
            ring.run(5_000);
            for at in 0..NODES {
                assert_eq!(ring.states(at), [MemberState::Up; NODES - 1]);
            }
        }
    }

    #[test]
    fn a_life_that_cannot_have_begun_counts_for_nothing() {
        let mut ring = Ring::settled();
        let own = *ring.nodes[VICTIM].foca.identity();
        ring.lie(LIAR, made_up(ring.mono + AHEAD_MAX_MS + 1), State::Alive);
        assert_eq!(*ring.nodes[VICTIM].foca.identity(), own);
        ring.lie(LIAR, made_up(ring.mono + AHEAD_MAX_MS), State::Alive);
        let next = *ring.nodes[VICTIM].foca.identity();
        assert!(next.epoch > ring.mono + AHEAD_MAX_MS, "{next:?}");
    }
}

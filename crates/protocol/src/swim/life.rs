//! The lives of a node: one key begins again and again, and the latest of its lives counts.

use foca::{Identity, Timer};
use realm_identity::Timestamp;

use super::{
    Swim, Timed,
    wire::{read_packet, write_packet},
};

/// A life that begins later than this after now is made up, if another one tells of it. It is that much because clocks
/// may be wrong by decades; that it ends at all leaves room for a next life of whom others remember wrongly.
const TOLD_AHEAD_MS: u64 = 100 * YEAR_MS;
/// The same of this node's own lives: more, for others may have believed what their clocks allow.
const OWN_AHEAD_MS: u64 = 200 * YEAR_MS;
/// And of whoever speaks, whose key is proven: it may have stepped over what its clock allows.
const SPOKEN_AHEAD_MS: u64 = 300 * YEAR_MS;
const YEAR_MS: u64 = 365 * 24 * 60 * 60 * 1000;

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
        let (epoch, bump) = match self.bump.checked_add(1) {
            Some(bump) => (self.epoch, bump),
            None => (self.epoch.saturating_add(1), 0),
        };
        Some(Self {
            epoch,
            bump,
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
    const fn begins_within(&self, ahead: u64, now: Timestamp) -> bool {
        self.epoch <= now.as_millis().saturating_add(ahead)
    }

    /// Whether who speaks may be in this life, on whatever clock.
    pub const fn may_speak(&self, now: Timestamp) -> bool {
        self.begins_within(SPOKEN_AHEAD_MS, now)
    }
}

impl Swim {
    /// Whether what is told of this life counts. Of one that is known everything does; an earlier one of this node
    /// is over.
    pub(super) fn may_be_told(&self, id: &Id, now: Timestamp) -> bool {
        let me = self.foca.identity();
        if id.key == me.key {
            let is_later = id.win_addr_conflict(me) && id.begins_within(OWN_AHEAD_MS, now);
            return id == me || is_later;
        }
        id.begins_within(TOLD_AHEAD_MS, now) || self.known().any(|known| known == *id)
    }

    /// A member is down: foca waits for a day before it forgets that. Of lives that are made up it would wait for each.
    pub(super) fn forget_earlier_death(&mut self, id: Id) {
        let of_it = |timer: &Timed| matches!(timer, Timed::Foca(Timer::RemoveDown(old)) if old.key == id.key);
        self.timers.retain(|_, timer| !of_it(timer));
    }

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
        self.count_anew();
        self.settle(result, mono, |_| false);
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
    /// Between two lies, and how many there are.
    const PAUSE_MS: u64 = 150;
    const LIES: usize = 12;

    /// The third node as the fourth one makes it up: the latest that anybody could be at that epoch.
    fn made_up(epoch: u64) -> Id {
        Id {
            key: *name(VICTIM).as_bytes(),
            epoch,
            bump: u32::MAX,
        }
    }

    fn all_up(ring: &Ring, what: &str) {
        for at in 0..NODES {
            assert_eq!(
                ring.states(at),
                [MemberState::Up; NODES - 1],
                "{what}, at {at}"
            );
        }
    }

    #[test]
    fn nobody_is_kept_out_by_lives_that_another_makes_up() {
        // How far ahead the victim's clock is, beside those of the others.
        for (ahead, state) in [
            (0, State::Alive),
            (0, State::Down),
            (60_000, State::Alive),
            (60_000, State::Down),
            (-60_000, State::Down),
        ] {
            for limit in [0, TOLD_AHEAD_MS, OWN_AHEAD_MS] {
                let mut ring = Ring::settled();
                ring.ahead[VICTIM] = ahead;
                let what = format!("{state:?} of {limit} ms ahead, the clock {ahead} ms");
                for _ in 0..LIES {
                    let wall = ring.now(VICTIM).wall.as_millis();
                    let epochs = [
                        u64::MAX,
                        wall + limit + 1,
                        wall + limit,
                        wall + limit - 60_000,
                    ];
                    let own = ring.nodes[VICTIM].foca.identity().epoch;
                    for epoch in [own].into_iter().chain(epochs) {
                        ring.lie(LIAR, made_up(epoch), state);
                    }
                    ring.run(PAUSE_MS);
                }
                assert_eq!(ring.losses, 0, "{what}");
                ring.run(2_000);
                all_up(&ring, &what);
                // Its end is still seen, and so is its return.
                ring.mute = Some(VICTIM);
                ring.run(5_000);
                assert_eq!(ring.state(0, VICTIM), MemberState::Lost, "{what}");
                ring.mute = None;
                ring.restart(VICTIM, ring.now(VICTIM).wall.as_millis());
                ring.run(5_000);
                all_up(&ring, &what);
            }
        }
    }

    #[test]
    fn a_life_that_cannot_have_begun_counts_for_nothing() {
        let mut ring = Ring::settled();
        let own = *ring.nodes[VICTIM].foca.identity();
        let latest = ring.now(VICTIM).wall.as_millis() + OWN_AHEAD_MS;
        ring.lie(LIAR, made_up(latest + 1), State::Alive);
        assert_eq!(*ring.nodes[VICTIM].foca.identity(), own);
        ring.lie(LIAR, made_up(latest), State::Alive);
        assert_eq!(ring.nodes[VICTIM].foca.identity().epoch, latest + 1);
    }

    #[test]
    fn a_clock_that_is_set_back_keeps_nobody_out_who_was_driven_ahead() {
        let mut ring = Ring::settled();
        let latest = ring.now(VICTIM).wall.as_millis() + OWN_AHEAD_MS;
        ring.lie(LIAR, made_up(latest), State::Down);
        ring.run(1_000);
        ring.ahead[VICTIM] = -(YEAR_MS as i64);
        // It learns of what is said of the life that it is in.
        let own = *ring.nodes[VICTIM].foca.identity();
        assert!(own.epoch > latest);
        ring.lie(LIAR, own, State::Suspect);
        ring.run(3_000);
        assert_eq!(ring.losses, 0);
        all_up(&ring, "a year back");
    }

    #[test]
    fn of_who_was_driven_ahead_others_still_tell_each_other() {
        let mut ring = Ring::settled();
        let latest = ring.now(VICTIM).wall.as_millis() + OWN_AHEAD_MS;
        ring.lie(LIAR, made_up(latest), State::Alive);
        ring.run(2_000);
        let own = *ring.nodes[VICTIM].foca.identity();
        assert!(own.epoch > latest);
        ring.say(1, 0, vec![foca::Member::new(own, 0, State::Down)]);
        assert_eq!(ring.state(0, VICTIM), MemberState::Suspect);
    }

    #[test]
    fn earlier_lives_of_oneself_leave_nothing_to_wait_for() {
        let mut ring = Ring::settled();
        let wall = ring.now(0).wall.as_millis();
        let tell = |ring: &mut Ring, epoch| {
            let key = *name(0).as_bytes();
            let down = foca::Member::new(
                Id {
                    key,
                    epoch,
                    bump: 0,
                },
                0,
                State::Down,
            );
            ring.say(LIAR, 0, vec![down]);
        };
        // It steps over this one, and all others are over then.
        tell(&mut ring, wall);
        let before = ring.nodes[0].timers.len();
        (wall - 1_000..wall).for_each(|epoch| tell(&mut ring, epoch));
        let timers = ring.nodes[0].timers.len();
        assert!(timers <= before + 8, "{timers} of {before}");
        ring.run(2_000);
        all_up(&ring, "after them");
    }

    #[test]
    fn lives_of_one_who_is_gone_leave_nothing_to_wait_for() {
        for state in [State::Down, State::Suspect] {
            let mut ring = Ring::settled();
            ring.mute = Some(VICTIM);
            ring.run(5_000);
            assert_eq!(ring.state(0, VICTIM), MemberState::Lost);
            let before = ring.nodes[0].timers.len();
            let wall = ring.now(0).wall.as_millis();
            for epoch in wall..wall + 2_000 {
                ring.say(LIAR, 0, vec![foca::Member::new(made_up(epoch), 0, state)]);
            }
            let timers = ring.nodes[0].timers.len();
            assert!(timers <= before + 8, "{timers} of {before}, {state:?}");
        }
    }

    #[test]
    fn after_the_last_life_of_an_epoch_comes_the_next_epoch() {
        let last = made_up(7);
        let next = last.renew().expect("there is one");
        assert_eq!((next.epoch, next.bump), (8, 0));
        assert!(next.win_addr_conflict(&last));
    }
}

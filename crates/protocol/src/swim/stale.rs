//! Timers of a time that is over: foca tells them from those of now by a byte, which comes round again.

use foca::{OwnedNotification, Timer};

use super::{Id, Swim, Timed};

/// Whether foca began to count its timers anew: with nobody left to probe, or in a life of its own that is new.
pub(super) const fn is_new_time(told: &OwnedNotification<Id>) -> bool {
    matches!(
        told,
        OwnedNotification::Idle | OwnedNotification::Defunct | OwnedNotification::Rejoin(_)
    )
}

impl Swim {
    /// Timers that were set so far are over, but for how long a dead member is remembered, and those of the new time
    /// are set. foca knows them by its count, yet somebody who has this node begin 256 lives in a moment would have
    /// them count again: it would probe twice as often from then on, and each life would leave more to wait for.
    pub(super) fn count_anew(&mut self) {
        let is_over = |timer: &Timed| matches!(timer, Timed::Foca(timer) if !matches!(timer, Timer::RemoveDown(_)));
        self.timers.retain(|_, timer| !is_over(timer));
        // foca 2.0.0 probes nobody in a new life before it is told of a member: who hears nobody would never
        // find out that all are gone. Told of none, it looks whom it knows.
        let told = self
            .foca
            .apply_many(std::iter::empty(), false, &mut self.runtime);
        if let Err(error) = told {
            tracing::debug!(%error, "membership does not go on");
        }
    }
}

#[cfg(test)]
mod tests {
    use foca::{Header, Identity as _, Member, Message, State, Timer};

    use crate::{
        MemberState,
        swim::{
            PROBE_PERIOD_MS, Swim, Timed,
            ring::{NODES, Ring, name},
            wire::write_packet,
        },
    };

    /// foca's count of them is a byte: after so many it is where it was.
    const ROUND: usize = 256;
    /// After it every node trusts its own probes as much as at first.
    const TRUSTED_MS: u64 = 60_000;

    fn probes(swim: &Swim) -> usize {
        let probe = |timer: &&Timed| matches!(timer, Timed::Foca(Timer::ProbeRandomMember(_)));
        swim.timers.values().filter(probe).count()
    }

    /// Everybody is there, and each looks at one other at a time; who dies is seen to, and who returns.
    fn is_sound(ring: &mut Ring, what: &str) {
        let losses = ring.losses;
        let probed = ring.probes;
        ring.run(10 * PROBE_PERIOD_MS);
        assert_eq!(ring.losses, losses, "{what}: a healthy one was lost");
        for (at, probed) in probed.iter().enumerate() {
            let states = ring.states(at);
            assert_eq!(states, [MemberState::Up; NODES - 1], "{what}, at {at}");
            assert_eq!(probes(&ring.nodes[at]), 1, "{what}, at {at}");
            let begun = ring.probes[at] - probed;
            assert!((9..=11).contains(&begun), "{what}: {begun} probes by {at}");
        }
        ring.mute = Some(2);
        ring.run(2_400);
        assert_eq!(ring.state(0, 2), MemberState::Lost, "{what}");
        ring.mute = None;
        ring.run(5_000);
        assert_eq!(ring.state(0, 2), MemberState::Up, "{what}");
    }

    /// It says so of all others.
    fn until(ring: &mut Ring, state: MemberState) {
        let begun = ring.mono;
        while ring.states(0) != [state; NODES - 1] {
            ring.run(100);
            assert!(ring.mono < begun + 20_000, "{:?}", ring.states(0));
        }
    }

    /// The third node says to the first one that it is down: it begins a new life, and forgets its timers.
    fn call_dead(ring: &mut Ring) {
        let own = *ring.nodes[0].foca.identity();
        ring.say(2, 0, vec![Member::new(own, 0, State::Down)]);
    }

    #[test]
    fn a_node_that_lost_everybody_many_times_probes_as_before() {
        let mut ring = Ring::settled();
        for round in 1..=2 * ROUND + 8 {
            // Each time it has no one left, and then somebody again.
            ring.deaf = true;
            until(&mut ring, MemberState::Lost);
            ring.deaf = false;
            until(&mut ring, MemberState::Up);
            if round % ROUND < 3 || round % ROUND > ROUND - 3 {
                ring.run(TRUSTED_MS);
                is_sound(&mut ring, &format!("round {round}"));
            }
        }
    }

    #[test]
    fn many_lives_within_a_moment_leave_one_probe_at_a_time() {
        for lives in [1, ROUND - 1, ROUND, ROUND + 1, 2 * ROUND, 3 * ROUND] {
            let mut ring = Ring::settled();
            let before = ring.nodes[0].timers.len();
            (0..lives).for_each(|_| call_dead(&mut ring));
            let timers = ring.nodes[0].timers.len();
            assert!(timers <= before + 8, "{timers} of {before} timers");
            ring.run(3_000);
            is_sound(&mut ring, &format!("{lives} lives"));
        }
    }

    #[test]
    fn who_begins_a_new_life_and_hears_nobody_since_finds_them_gone() {
        let mut ring = Ring::settled();
        // It is told to its face, which foca takes for no news of any member.
        let header = Header {
            src: *ring.nodes[2].foca.identity(),
            src_incarnation: 0,
            dst: *ring.nodes[0].foca.identity(),
            message: Message::TurnUndead,
        };
        let (packet, now) = (write_packet(&header, vec![]), ring.now(0));
        let taken = ring.nodes[0].packet(name(2), &packet, now);
        taken.expect("an honest packet");
        assert_eq!(ring.nodes[0].foca.identity().bump, header.dst.bump + 1);
        ring.deaf = true;
        ring.run(4_000);
        assert_eq!(ring.states(0), [MemberState::Lost; NODES - 1]);
        // And so it does in one that it took to outlive a later one.
        let mut ring = Ring::settled();
        let later = header.dst.renew().expect("there is one");
        ring.deaf = true;
        ring.say(2, 0, vec![Member::new(later, 0, State::Alive)]);
        assert!(ring.nodes[0].foca.identity().win_addr_conflict(&later));
        ring.run(4_000);
        assert_eq!(ring.states(0), [MemberState::Lost; NODES - 1]);
    }

    #[test]
    fn a_suspicion_of_an_earlier_life_kills_nobody() {
        let mut ring = Ring::settled();
        ring.mute = Some(1);
        while ring.state(0, 1) != MemberState::Suspect {
            ring.run(10);
        }
        ring.mute = None;
        (0..ROUND).for_each(|_| call_dead(&mut ring));
        ring.run(TRUSTED_MS);
        assert_eq!(ring.losses, 0);
        is_sound(&mut ring, "after a suspicion");
    }
}

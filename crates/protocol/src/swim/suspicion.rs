//! Before anybody is lost: every doubt is put to the suspect itself, and a node whose doubts turn
//! out wrong doubts itself (Lifeguard's buddy system and local health).

use foca::{Header, Member, Message, State, Timer};
use realm_identity::PublicKey;

use super::{Id, Out, PAUSE_MS, Swim, Timed, wire::write_packet};
use crate::MemberState;

/// Between two questions to a suspect: it gets six.
const CHECK_MS: u64 = 150;
/// Nodes that ask a suspect, beside the one that accused it: in a large realm not everybody does.
const CHECKERS: usize = 8;
/// A suspect was asked twice by then: from now on a death that is told is believed.
const TOLD_MS: u64 = 300;
/// Probes take at most this many times longer.
const DOUBTS_MAX: u32 = 3;
/// Probes in a row without an accusation that take one doubt away: five seconds of them.
const QUIET_PROBES: u32 = 13;

/// Timers that are late by so much, as a rule, make everything about others take once more as long.
const LATE_MS: u64 = 40;
/// Up to so many times more.
const LATE_MAX: u64 = 4;
/// Timers of which the average is taken.
const LATE_OF: u64 = 8;

/// How far this node can trust its own probes. One that is slow, or far from the others, gets no
/// answers in time; its accusations are refuted, and it gives its probes longer. One whose timers come
/// late has too little of its machine, and what others say waits there as long.
#[derive(Debug, Default)]
pub(super) struct Health {
    doubts: u32,
    quiet: u32,
    /// How late timers come, in units of 1/`LATE_OF` ms: an average that follows slowly, so that one
    /// short stop says nothing.
    late: u64,
}

impl Health {
    /// An accusation was wrong, or this node was paused.
    pub fn doubt(&mut self) {
        self.doubts = DOUBTS_MAX.min(self.doubts + 1);
        self.quiet = 0;
    }

    /// A timer came so much later than it was due.
    pub fn late(&mut self, millis: u64) {
        self.late = self.late - self.late / LATE_OF + millis.min(PAUSE_MS);
    }

    /// How many times longer than on a machine with nothing to do anything takes.
    fn slow(&self) -> u64 {
        1 + (self.late / LATE_OF / LATE_MS).min(LATE_MAX)
    }

    /// What is `millis` for a healthy node.
    pub fn slowed(&self, millis: u64) -> u64 {
        millis * self.slow()
    }

    /// What is `millis` of a healthy node's probe.
    pub fn of_probe(&self, millis: u64) -> u64 {
        millis * self.slow().max(u64::from(1 + self.doubts))
    }

    fn probed(&mut self, accused: bool) {
        self.quiet = if accused { 0 } else { self.quiet + 1 };
        if self.quiet >= QUIET_PROBES {
            self.quiet = 0;
            self.doubts = self.doubts.saturating_sub(1);
        }
    }

    /// The time until `timer`, given that it is `millis` for a healthy node.
    pub fn stretch(&self, timer: &Timer<Id>, millis: u64) -> u64 {
        match timer {
            Timer::ProbeRandomMember(_) | Timer::SendIndirectProbe { .. } => self.of_probe(millis),
            Timer::ChangeSuspectToDown { .. } => self.slowed(millis),
            _ => millis,
        }
    }
}

impl Swim {
    /// Nobody is lost by the word of another alone: who comes out of a partition, or hears nobody,
    /// takes those for lost who never lost each other. They are suspects first, and have their
    /// time to answer.
    pub(super) fn doubted(&self, member: Member<Id>, mono: u64) -> Member<Id> {
        let is_there = |key| {
            self.state_of(key)
                .is_some_and(|state| state != MemberState::Lost)
        };
        let believed = member.state() != State::Down
            || !is_there(&member.id().key)
            || self.had_its_time(member.id(), mono);
        if believed {
            return member;
        }
        Member::new(*member.id(), member.incarnation(), State::Suspect)
    }

    /// What this node takes the one of this key for.
    fn state_of(&self, key: &[u8; 32]) -> Option<MemberState> {
        let node = self.approved.get(key)?;
        self.members.get(node).map(|member| member.state)
    }

    /// Whether a suspect was asked, and nothing came from it since.
    fn had_its_time(&self, id: &Id, mono: u64) -> bool {
        let Some(node) = self.approved.get(&id.key) else {
            return false;
        };
        self.members.get(node).is_some_and(|member| {
            member.state == MemberState::Suspect
                && mono >= member.since + self.health.slowed(TOLD_MS)
                && !self.hearing.has_heard_since(*node, member.since)
        })
    }

    pub(super) fn foca_timer(&mut self, timer: Timer<Id>, mono: u64) {
        let probe = matches!(timer, Timer::ProbeRandomMember(_));
        let given_up = match &timer {
            Timer::ChangeSuspectToDown { member_id, .. } => Some(member_id.key),
            _ => None,
        };
        let before = if probe { self.suspects() } else { Vec::new() };
        let result = self.foca.handle_timer(timer, &mut self.runtime);
        // Others change nobody's state; and whom the probe before this one was of, foca does not say.
        self.settle(result, mono, |key| probe || given_up == Some(*key));
        if probe {
            let accused: Vec<_> = self
                .suspects()
                .into_iter()
                .filter(|node| !before.contains(node))
                .collect();
            self.health.probed(!accused.is_empty());
            self.accused.extend(accused);
        }
    }

    fn suspects(&self) -> Vec<PublicKey> {
        self.members
            .iter()
            .filter(|(_, member)| member.state == MemberState::Suspect)
            .map(|(node, _)| *node)
            .collect()
    }

    pub(super) fn is_suspect(&self, id: Id, incarnation: u16) -> bool {
        // Most were settled meanwhile, and foca has to be searched.
        self.state_of(&id.key) == Some(MemberState::Suspect)
            && self.foca.iter_members().any(|member| {
                *member.id() == id
                    && member.incarnation() == incarnation
                    && member.state() == State::Suspect
            })
    }

    /// The suspicion of a node that has refuted the one before, which was not seen here: nothing waits for this one yet.
    pub(super) fn suspected_anew(&self, key: [u8; 32]) -> Option<(Id, u16)> {
        let waits = |timer: &Timed| matches!(timer, Timed::GiveUp(id, _) if id.key == key);
        if self.state_of(&key) != Some(MemberState::Suspect) || self.timers.values().any(waits) {
            return None;
        }
        let mut members = self.foca.iter_members();
        let member =
            members.find(|member| member.id().key == key && member.state() == State::Suspect)?;
        Some((*member.id(), member.incarnation()))
    }

    /// foca 2.0.0 tells a suspect that it was taken for down when its time is over, even if it has
    /// answered meanwhile; it would then begin a new life and be gone for that long.
    pub(super) fn is_active(&self, id: Id) -> bool {
        self.foca.iter_members().any(|member| *member.id() == id)
    }

    /// Tells a suspect of the suspicion and asks for an answer, again and again until it is settled.
    /// The answer refutes it.
    pub(super) fn check(&mut self, id: Id, incarnation: u16, mono: u64) {
        if !self.is_suspect(id, incarnation) || !self.is_checker(id) {
            return;
        }
        let Some(&to) = self.approved.get(&id.key) else {
            return;
        };
        let header = Header {
            src: *self.foca.identity(),
            // foca keeps ours to itself; an old one changes nothing at the receiver.
            src_incarnation: 0,
            dst: id,
            message: Message::Ping(0),
        };
        let suspicion = Member::new(id, incarnation, State::Suspect);
        let packet = write_packet(&header, vec![suspicion]);
        self.out.push_back(Out::Send { to, packet });
        self.schedule(
            mono + self.health.slowed(CHECK_MS),
            Timed::Check(id, incarnation),
        );
    }

    /// Whoever accuses, and those whose keys are closest to the suspect's.
    fn is_checker(&self, suspect: Id) -> bool {
        let distance = |key: &[u8; 32]| {
            let mut distance = *key;
            let bytes = distance.iter_mut().zip(suspect.key);
            bytes.for_each(|(byte, other)| *byte ^= other);
            distance
        };
        let own = distance(&self.foca.identity().key);
        let closer = self
            .members
            .keys()
            .filter(|node| *node.as_bytes() != suspect.key && distance(node.as_bytes()) < own);
        closer.count() < CHECKERS
            || self
                .accused
                .iter()
                .any(|node| *node.as_bytes() == suspect.key)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::swim::{
        PROBE_FAILED_MS, PROBE_PERIOD_MS, SETTLE_MS,
        ring::{Ring, STEP, name},
    };

    /// The second node says to the first one that the third is down.
    fn tell_of_a_death(ring: &mut Ring) -> MemberState {
        let down = Member::new(*ring.nodes[2].foca.identity(), 0, State::Down);
        ring.say(1, 0, vec![down]);
        ring.state(0, 2)
    }

    #[test]
    fn a_death_that_is_told_is_a_suspicion_first() {
        let mut ring = Ring::settled();
        assert_eq!(tell_of_a_death(&mut ring), MemberState::Suspect);
        ring.run(2_000);
        assert_eq!(ring.state(0, 2), MemberState::Up);
        assert_eq!(ring.losses, 0);
    }

    #[test]
    fn it_is_believed_of_who_was_asked_and_says_nothing() {
        let mut ring = Ring::settled();
        ring.mute = Some(2);
        assert_eq!(tell_of_a_death(&mut ring), MemberState::Suspect);
        ring.run(TOLD_MS - STEP);
        assert_eq!(tell_of_a_death(&mut ring), MemberState::Suspect);
        ring.run(STEP);
        assert_eq!(tell_of_a_death(&mut ring), MemberState::Lost);
    }

    #[test]
    fn a_suspicion_that_is_raised_anew_is_settled_too() {
        let mut ring = Ring::settled();
        let suspect = *ring.nodes[2].foca.identity();
        let accused = |incarnation| vec![Member::new(suspect, incarnation, State::Suspect)];
        let waits = |ring: &Ring| {
            let timers = ring.nodes[0].timers.values();
            let of = timers.filter_map(|timer| match timer {
                Timed::GiveUp(id, incarnation) if *id == suspect => Some(*incarnation),
                _ => None,
            });
            of.collect::<Vec<_>>()
        };
        // It refuted the first one, which this node did not hear of.
        ring.say(1, 0, accused(0));
        ring.say(1, 0, accused(1));
        assert_eq!(waits(&ring), [0]);
        let due = ring.mono + SETTLE_MS;
        ring.nodes[0].give_up(suspect, 0, due);
        assert_eq!(waits(&ring), [0], "one at a time");
        ring.nodes[0].timers.clear();
        ring.nodes[0].give_up(suspect, 0, due);
        assert_eq!(waits(&ring), [1]);
        ring.nodes[0].give_up(suspect, 1, due + SETTLE_MS);
        assert_eq!(ring.nodes[0].members()[&name(2)].state, MemberState::Lost);
    }

    #[test]
    fn it_is_not_believed_of_who_spoke_since() {
        let mut ring = Ring::settled();
        ring.mute = Some(2);
        tell_of_a_death(&mut ring);
        ring.run(STEP);
        // It has not heard of the suspicion, and so it takes none back.
        ring.say(2, 0, vec![]);
        ring.run(TOLD_MS);
        assert_eq!(tell_of_a_death(&mut ring), MemberState::Suspect);
    }

    #[test]
    fn doubts_stretch_probes_alone_and_go_away() {
        let probe = Timer::ProbeRandomMember(0);
        let mut health = Health::default();
        assert_eq!(health.stretch(&probe, 250), 250);
        for _ in 0..10 {
            health.doubt();
        }
        assert_eq!(health.stretch(&probe, 250), 1_000, "bounded");
        assert_eq!(health.stretch(&Timer::PeriodicGossip(0), 250), 250);
        for _ in 0..QUIET_PROBES - 1 {
            health.probed(false);
        }
        assert_eq!(health.stretch(&probe, 250), 1_000);
        health.probed(true);
        for _ in 0..QUIET_PROBES {
            health.probed(false);
        }
        assert_eq!(health.stretch(&probe, 250), 750);
    }

    #[test]
    fn who_has_too_little_of_its_machine_gives_others_longer() {
        let probe = Timer::ProbeRandomMember(0);
        let down = Timer::ChangeSuspectToDown {
            member_id: *Ring::settled().nodes[0].foca.identity(),
            incarnation: 0,
            token: 0,
        };
        let mut health = Health::default();
        // One stop, and what a timer is late by anyway.
        health.late(PAUSE_MS);
        (0..100).for_each(|_| health.late(5));
        assert_eq!((health.stretch(&down, 850), health.slowed(100)), (850, 100));
        (0..100).for_each(|_| health.late(LATE_MS));
        assert_eq!(health.stretch(&down, 850), 1_700);
        assert_eq!(health.stretch(&probe, 250), 500);
        (0..3).for_each(|_| health.doubt());
        assert_eq!(health.stretch(&probe, 250), 1_000, "the longer of both");
        (0..100).for_each(|_| health.late(60_000));
        assert_eq!(health.slowed(100), 100 * (1 + LATE_MAX), "bounded");
        (0..100).for_each(|_| health.late(0));
        assert_eq!(health.slowed(100), 100);
    }

    fn waits_for_help(swim: &Swim) -> usize {
        let waits = |timer: &&Timed| matches!(timer, Timed::Foca(Timer::SendIndirectProbe { .. }));
        swim.timers.values().filter(waits).count()
    }

    #[test]
    fn a_probe_that_was_answered_wakes_nobody_again() {
        let mut ring = Ring::settled();
        for _ in 0..200 {
            ring.run(STEP);
            assert_eq!(waits_for_help(&ring.nodes[0]), 0, "at {}", ring.mono);
        }
        ring.deaf = true;
        let waits = (0..PROBE_PERIOD_MS / STEP).any(|_| {
            ring.run(STEP);
            waits_for_help(&ring.nodes[0]) == 1
        });
        assert!(waits, "nobody answers");
    }

    #[test]
    fn a_probe_that_nobody_answers_is_over_sooner() {
        let mut ring = Ring::settled();
        ring.deaf = true;
        while waits_for_help(&ring.nodes[0]) == 0 {
            ring.run(STEP);
        }
        let begun = ring.mono;
        // The next one says that this one is over: it accuses.
        while !ring.states(0).contains(&MemberState::Suspect) {
            ring.run(STEP);
        }
        let took = ring.mono - begun;
        let (soon, late) = (PROBE_FAILED_MS - STEP, PROBE_FAILED_MS + 2 * STEP);
        assert!((soon..=late).contains(&took), "{took} ms");
    }

    #[test]
    fn gossip_waits_for_a_probe_but_not_for_a_slow_one() {
        let mut ring = Ring::settled();
        (0..DOUBTS_MAX).for_each(|_| ring.nodes[0].health.doubt());
        let gossip = |timer: &Timed| matches!(timer, Timed::Foca(Timer::PeriodicGossip(_)));
        for _ in 0..400 {
            ring.run(STEP);
            let mut timers = ring.nodes[0].timers.iter();
            let ((due, _), _) = timers.find(|(_, timer)| gossip(timer)).expect("it gossips");
            assert!(
                *due <= ring.mono + PROBE_PERIOD_MS,
                "{due} at {}",
                ring.mono
            );
        }
    }

    #[test]
    fn a_node_on_a_busy_machine_loses_nobody_who_answers_late() {
        for (late, lost) in [(0, true), (2 * LATE_MS, false)] {
            let mut ring = Ring::settled();
            ring.late = late;
            ring.run(5_000);
            ring.mute = Some(2);
            ring.run(2_000);
            assert_eq!(ring.state(0, 2) == MemberState::Lost, lost, "{late} ms");
        }
    }
}

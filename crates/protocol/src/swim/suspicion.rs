//! Before anybody is lost: every doubt is put to the suspect itself, and a node whose doubts turn
//! out wrong doubts itself (Lifeguard's buddy system and local health).

use foca::{Header, Member, Message, State, Timer};
use realm_identity::PublicKey;

use super::{Id, Out, Swim, Timed, wire::write_packet};
use crate::MemberState;

/// Between two questions to a suspect: it gets six.
const CHECK_MS: u64 = 150;
/// Nodes that ask a suspect, beside the one that accused it: in a large realm not everybody does.
const CHECKERS: usize = 8;
/// Probes take at most this many times longer.
const DOUBTS_MAX: u32 = 3;
/// Probes in a row without an accusation that take one doubt away: five seconds of them.
const QUIET_PROBES: u32 = 20;

/// How far this node can trust its own probes. One that is slow, or far from the others, gets no
/// answers in time; its accusations are refuted, and it gives its probes longer.
#[derive(Debug, Default)]
pub(super) struct Health {
    doubts: u32,
    quiet: u32,
}

impl Health {
    /// An accusation was wrong, or this node was paused.
    pub fn doubt(&mut self) {
        self.doubts = DOUBTS_MAX.min(self.doubts + 1);
        self.quiet = 0;
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
            Timer::ProbeRandomMember(_) | Timer::SendIndirectProbe { .. } => {
                millis * u64::from(1 + self.doubts)
            }
            _ => millis,
        }
    }
}

impl Swim {
    pub(super) fn foca_timer(&mut self, timer: Timer<Id>, mono: u64) {
        let probe = matches!(timer, Timer::ProbeRandomMember(_));
        let before = self.suspects();
        let result = self.foca.handle_timer(timer, &mut self.runtime);
        self.settle(result, mono);
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
        self.foca.iter_members().any(|member| {
            *member.id() == id
                && member.incarnation() == incarnation
                && member.state() == State::Suspect
        })
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
        self.schedule(mono + CHECK_MS, Timed::Check(id, incarnation));
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
}

//! Peers that do what they must not: counted, told of, and strangers among them kept out for a while.
//!
//! An approved peer is never banned. Nodes of one version that do not understand another would cut
//! the realm in two, which is worse than what they say: it is bounded by the protocol's rate, and
//! gossip of who sends rubbish is no longer listened to.

use std::{collections::BTreeMap, time::Duration};

use realm_identity::PublicKey;
use realm_protocol::Offence;

/// How long a stranger is kept out.
pub const BAN: Duration = Duration::from_millis(BAN_MS);
const BAN_MS: u64 = 600_000;
/// What an offence weighs that no honest node commits, whatever it believes of this one.
const GRAVE: u64 = 8_000;
/// What one weighs that an honest node may commit: it may not know yet that it is a stranger here,
/// or belong to another branch or realm.
pub const SLIGHT: u64 = 1_000;
/// Strangers are kept out at this weight: eight grave offences within four seconds.
const BAN_AT: u64 = 60_000;
/// Weight forgiven in a millisecond: a slight offence a second is forgiven for ever.
const FORGIVEN_PER_MS: u64 = 1;
/// A peer is told of once in this time; what it did meanwhile is counted.
const TELL_EVERY_MS: u64 = 60_000;
/// Strangers told of in that time, all together: whoever has many keys would push all else out of the
/// list of events, and fill the log.
const STRANGERS_TOLD: u64 = 16;
/// Peers remembered; the one that weighs least makes room.
const MAX_OFFENDERS: usize = 1024;

#[derive(Debug, Default)]
pub struct Offenders {
    peers: BTreeMap<PublicKey, Offender>,
    /// Strangers told of since `told_since`, and those that were left out.
    told: u64,
    untold: u64,
    told_since: u64,
    /// All since the start, by their name.
    counts: BTreeMap<&'static str, u64>,
}

#[derive(Debug, Default)]
struct Offender {
    weight: u64,
    /// When the weight was that, on the monotonic clock.
    at: u64,
    told_at: Option<u64>,
    /// Offences since it was told of.
    count: u64,
    /// Until when it is kept out. What it had sent before that may still be read.
    banned_until: u64,
}

/// What follows from an offence.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Sentence {
    /// It is counted.
    Counted,
    /// The owner should know of these.
    Told { count: u64 },
    /// The peer is to be kept out for [`BAN`]; whether the owner should know of it.
    Banned { count: u64, told: bool },
}

/// How much an offence weighs.
pub fn weight(offence: &Offence) -> u64 {
    match offence {
        Offence::RateLimited | Offence::NotApproved | Offence::Entry(_) => SLIGHT,
        Offence::MalformedFrame
        | Offence::MalformedGossip
        | Offence::BadCheckpoint
        | Offence::Impersonation
        | Offence::BadClaim
        | Offence::BadReport
        | Offence::BadJoin
        | Offence::BadSwim => GRAVE,
    }
}

/// What breaking the framing of a stream weighs, and its name among the offences.
pub const FRAMING: u64 = GRAVE;
pub const FRAMING_NAME: &str = "framing";

/// What too much at once on one connection for commands weighs, and its name.
pub const OVERLOAD: u64 = SLIGHT;
pub const OVERLOAD_NAME: &str = "overload";

impl Offenders {
    /// Counts an offence by its name.
    pub fn count(&mut self, name: &'static str) {
        *self.counts.entry(name).or_default() += 1;
    }

    /// How often each was seen since the start.
    pub const fn counts(&self) -> &BTreeMap<&'static str, u64> {
        &self.counts
    }

    /// How many strangers were not told of, for there were too many; asked once, at the end of their time.
    pub fn untold(&mut self, mono: u64) -> Option<u64> {
        let over = mono >= self.told_since.saturating_add(TELL_EVERY_MS);
        let untold = self.untold;
        (over && untold > 0).then(|| {
            self.begin_telling(mono);
            untold
        })
    }

    fn begin_telling(&mut self, mono: u64) {
        (self.told, self.untold, self.told_since) = (0, 0, mono);
    }

    /// Whether one more stranger may be told of.
    fn may_tell(&mut self, approved: bool, mono: u64) -> bool {
        if approved {
            return true;
        }
        if self.untold == 0 && mono >= self.told_since.saturating_add(TELL_EVERY_MS) {
            self.begin_telling(mono);
        }
        let may = self.told < STRANGERS_TOLD;
        *(if may {
            &mut self.told
        } else {
            &mut self.untold
        }) += 1;
        may
    }

    /// Counts an offence of this weight at `mono`.
    pub fn note(&mut self, peer: PublicKey, approved: bool, weight: u64, mono: u64) -> Sentence {
        if !self.peers.contains_key(&peer) {
            self.make_room(mono);
        }
        let offender = self.peers.entry(peer).or_default();
        if mono < offender.banned_until && !approved {
            return Sentence::Counted;
        }
        offender.weight = offender.weight_at(mono).saturating_add(weight);
        offender.at = mono;
        offender.count += 1;
        let count = offender.count;
        if offender.weight >= BAN_AT && !approved {
            *offender = Offender {
                banned_until: mono.saturating_add(BAN_MS),
                ..Offender::default()
            };
            let told = self.may_tell(approved, mono);
            return Sentence::Banned { count, told };
        }
        let due = offender
            .told_at
            .is_none_or(|at| mono >= at.saturating_add(TELL_EVERY_MS));
        if !due {
            return Sentence::Counted;
        }
        offender.told_at = Some(mono);
        if !self.may_tell(approved, mono) {
            return Sentence::Counted;
        }
        if let Some(offender) = self.peers.get_mut(&peer) {
            offender.count = 0;
        }
        Sentence::Told { count }
    }

    fn make_room(&mut self, mono: u64) {
        if self.peers.len() < MAX_OFFENDERS {
            return;
        }
        let least = self
            .peers
            .iter()
            .min_by_key(|(_, offender)| offender.weight_at(mono))
            .map(|(peer, _)| *peer);
        least.and_then(|peer| self.peers.remove(&peer));
    }
}

impl Offender {
    fn weight_at(&self, mono: u64) -> u64 {
        let forgiven = mono.saturating_sub(self.at).saturating_mul(FORGIVEN_PER_MS);
        self.weight.saturating_sub(forgiven)
    }
}

#[cfg(test)]
mod tests {
    use realm_identity::SecretKey;

    use super::*;

    fn peer(index: u16) -> PublicKey {
        let mut seed = [1; 32];
        seed[..2].copy_from_slice(&index.to_be_bytes());
        SecretKey::from_seed(&seed).public()
    }

    #[test]
    fn a_stranger_that_sends_rubbish_is_kept_out_and_an_approved_peer_is_not() {
        let mut offenders = Offenders::default();
        let mut note_at = |approved, mono| {
            let grave = weight(&Offence::MalformedFrame);
            offenders.note(peer(u16::from(approved)), approved, grave, mono)
        };
        let mut note = |approved| note_at(approved, 5);
        assert_eq!(note(false), Sentence::Told { count: 1 });
        for _ in 0..6 {
            assert_eq!(note(false), Sentence::Counted);
        }
        assert_eq!(
            note(false),
            Sentence::Banned {
                count: 7,
                told: true
            }
        );
        assert_eq!(note(false), Sentence::Counted, "it was under way");
        assert_eq!(note(true), Sentence::Told { count: 1 });
        for _ in 0..1_000 {
            assert_eq!(note(true), Sentence::Counted);
        }
        // Who comes back begins anew.
        assert_eq!(note_at(false, 5 + BAN_MS), Sentence::Told { count: 1 });
    }

    #[test]
    fn one_slight_offence_a_second_is_forgiven_and_a_flood_is_not() {
        let mut offenders = Offenders::default();
        let slight = weight(&Offence::RateLimited);
        for second in 0..3_600 {
            let sentence = offenders.note(peer(1), false, slight, second * 1_000);
            let told = second % 60 == 0;
            match sentence {
                Sentence::Told { .. } => assert!(told, "at {second}"),
                Sentence::Counted => assert!(!told, "at {second}"),
                Sentence::Banned { .. } => panic!("at {second}"),
            }
        }
        let flood = (0..100).find(|_| {
            let sentence = offenders.note(peer(2), false, slight, 9);
            matches!(sentence, Sentence::Banned { .. })
        });
        assert_eq!(flood, Some(59));
    }

    #[test]
    fn a_swarm_of_strangers_fills_no_list_and_is_told_of_as_one() {
        let mut offenders = Offenders::default();
        let grave = weight(&Offence::MalformedFrame);
        let mut told = 0;
        for index in 0..500 {
            for _ in 0..8 {
                let sentence = offenders.note(peer(index), false, grave, 5);
                told += u64::from(matches!(
                    sentence,
                    Sentence::Told { .. } | Sentence::Banned { told: true, .. }
                ));
            }
        }
        assert_eq!(told, STRANGERS_TOLD);
        // One of ours is told of all the same.
        let ours = offenders.note(peer(501), true, grave, 5);
        assert_eq!(ours, Sentence::Told { count: 1 });
        assert_eq!(offenders.untold(6), None, "not yet");
        // Each of them was to be told of when it began, and when it was shut out.
        assert_eq!(offenders.untold(5 + TELL_EVERY_MS), Some(1000 - told));
        assert_eq!(offenders.untold(5 + TELL_EVERY_MS), None, "once");
        let next = offenders.note(peer(502), false, grave, 6 + TELL_EVERY_MS);
        assert_eq!(next, Sentence::Told { count: 1 });
    }

    #[test]
    fn who_is_remembered_is_bounded_and_the_worst_stays() {
        let mut offenders = Offenders::default();
        let grave = weight(&Offence::BadJoin);
        for _ in 0..3 {
            offenders.note(peer(0), false, grave, 0);
        }
        for index in 1..3_000 {
            offenders.note(peer(index), false, grave, 0);
        }
        assert_eq!(offenders.peers.len(), MAX_OFFENDERS);
        assert!(offenders.peers.contains_key(&peer(0)));
    }
}

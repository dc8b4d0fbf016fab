//! Who is there: SWIM by `foca`, with authenticated senders, approved members, and timers that
//! forgive this node's own pauses.

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    fmt,
    num::{NonZeroU8, NonZeroUsize},
    time::Duration,
};

use foca::{AccumulatingRuntime, Foca, Message, NoCustomBroadcast, PeriodicParams, State, Timer};
use rand_foca::{SeedableRng, rngs::SmallRng};
use realm_identity::PublicKey;

mod hearing;
mod life;
#[cfg(test)]
mod ring;
mod stale;
mod suspicion;
mod wire;

use hearing::Hearing;
use life::Id;
use stale::is_new_time;
use suspicion::Health;
use wire::{Wire, is_turn_undead, read_packet, without_verdicts, write_packet};

use crate::{MemberState, Now, limits::*};

/// A node that does nothing else does this: each probe wakes it and another one, twice. Of five nodes one probes
/// the dead one within 1.1 s in 99 of 100 cases; with the suspicion all take it for lost after about 1.5 s.
const PROBE_PERIOD_MS: u64 = 400;
/// A probe without an answer is over sooner.
const PROBE_FAILED_MS: u64 = 250;
/// After that, others are asked to probe too.
const PROBE_RTT_MS: u64 = 100;
/// For a suspect to be heard of: more than twice the way to the farthest node and back.
const SUSPECT_MS: u64 = 850;
/// Whoever learns of a suspicion and hears no more of it settles it alone. Later than the accuser
/// does: in a large realm the answer to it travels a while.
const SETTLE_MS: u64 = 2 * SUSPECT_MS;
/// Those that were lost are asked this often whether they are back: partitions heal by it.
const ANNOUNCE_TO_LOST_MS: u64 = 1000;
/// Where no probe is ahead.
const GOSSIP_MS: u64 = 250;
/// A timer later than this means that this node was stopped, not that others are silent.
const PAUSE_MS: u64 = 300;

/// A node as others see it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Member {
    pub state: MemberState,
    /// When it entered this state, on the monotonic clock.
    pub since: u64,
}

/// What SWIM wants done.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Out {
    Send { to: PublicKey, packet: Vec<u8> },
    Changed { node: PublicKey, state: MemberState },
}

/// A packet that nobody honest sends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum BadPacket {
    Malformed,
    Impersonation,
}

pub(crate) struct Swim {
    foca: Foca<Id, Wire, SmallRng, NoCustomBroadcast>,
    runtime: AccumulatingRuntime<Id>,
    timers: BTreeMap<(u64, u64), Timed>,
    scheduled: u64,
    approved: BTreeMap<[u8; 32], PublicKey>,
    members: BTreeMap<PublicKey, Member>,
    /// Suspects because of a probe of this node, and of no other's word.
    accused: BTreeSet<PublicKey>,
    health: Health,
    hearing: Hearing,
    out: VecDeque<Out>,
    seed: u64,
}

enum Timed {
    Foca(Timer<Id>),
    /// This member is suspected: ask it once more.
    Check(Id, u16),
    /// This member is lost if it is a suspect still.
    GiveUp(Id, u16),
}

impl fmt::Debug for Swim {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Swim")
            .field("members", &self.members)
            .finish_non_exhaustive()
    }
}

impl Swim {
    pub fn new(key: PublicKey, epoch: u64, seed: u64) -> Self {
        let id = Id {
            key: *key.as_bytes(),
            epoch,
            bump: 0,
        };
        Self::with(id, seed)
    }

    fn with(id: Id, seed: u64) -> Self {
        Self {
            foca: Foca::new(id, config(), SmallRng::seed_from_u64(seed), Wire),
            runtime: AccumulatingRuntime::new(),
            timers: BTreeMap::new(),
            scheduled: 0,
            approved: BTreeMap::new(),
            members: BTreeMap::new(),
            accused: BTreeSet::new(),
            health: Health::default(),
            hearing: Hearing::default(),
            out: VecDeque::new(),
            seed,
        }
    }

    /// Forgets everybody, and is somebody new to them: what was found out without being answered
    /// is not worth telling.
    pub fn begin(&mut self, epoch: u64) {
        let me = *self.foca.identity();
        let id = Id {
            epoch: epoch.max(me.epoch.saturating_add(1)),
            bump: 0,
            ..me
        };
        let seed = self.seed.wrapping_add(1);
        let scheduled = self.scheduled;
        *self = Self {
            scheduled,
            ..Self::with(id, seed)
        };
    }

    pub fn poll(&mut self) -> Option<Out> {
        self.out.pop_front()
    }

    pub fn members(&self) -> &BTreeMap<PublicKey, Member> {
        &self.members
    }

    pub fn next_timeout(&self) -> Option<u64> {
        self.timers.keys().next().map(|(due, _)| *due)
    }

    pub fn set_approved(&mut self, approved: &BTreeSet<PublicKey>, mono: u64) {
        let approved = approved.iter().map(|key| (*key.as_bytes(), *key)).collect();
        let gone: Vec<_> = self
            .known()
            .filter(|id| !BTreeMap::contains_key(&approved, &id.key))
            .collect();
        // Their departure is still reported, by their names in the old set.
        let before = std::mem::take(&mut self.approved);
        self.approved = before.into_iter().chain(approved.clone()).collect();
        for id in gone {
            self.apply(foca::Member::down(id), mono);
        }
        self.hearing
            .retain(|node| approved.contains_key(node.as_bytes()));
        // Nor do they take the place of others, or count among those that this node should hear.
        self.members
            .retain(|node, _| approved.contains_key(node.as_bytes()));
        self.accused
            .retain(|node| approved.contains_key(node.as_bytes()));
        self.approved = approved;
    }

    /// A peer is within reach: tell it about us.
    pub fn announce(&mut self, peer: PublicKey, mono: u64) {
        let key = *peer.as_bytes();
        if key == self.foca.identity().key || !self.approved.contains_key(&key) {
            return;
        }
        let result = self.foca.announce(
            Id {
                key,
                epoch: 0,
                bump: 0,
            },
            &mut self.runtime,
        );
        self.settle(result, mono, |_| false);
    }

    /// A connection broke: a hint that starts suspicion at once. Who was silent itself lost its
    /// connections by that.
    pub fn disconnected(&mut self, peer: PublicKey, mono: u64) {
        self.forgive(mono);
        if self.hearing.was_out(mono) {
            return;
        }
        let Some(member) = self
            .foca
            .iter_members()
            .find(|member| member.id().key == *peer.as_bytes())
        else {
            return;
        };
        let (id, incarnation) = (*member.id(), member.incarnation());
        self.apply(foca::Member::new(id, incarnation, State::Suspect), mono);
        let due = mono + self.health.slowed(SUSPECT_MS);
        self.schedule(due, Timed::GiveUp(id, incarnation));
    }

    pub fn packet(&mut self, from: PublicKey, packet: &[u8], now: Now) -> Result<(), BadPacket> {
        let (header, mut members) = read_packet(packet).ok_or(BadPacket::Malformed)?;
        if header.src.key != *from.as_bytes() {
            return Err(BadPacket::Impersonation);
        }
        members.retain(|member| self.may_be_told(member.id(), now.wall));
        if !header.src.may_speak(now.wall) {
            tracing::debug!(%from, "membership packet of a life that cannot have begun");
            return Ok(());
        }
        let mono = now.mono;
        self.forgive(mono);
        self.hearing.heard(from, mono);
        let told = members.iter().map(|member| *member.id());
        let meant = Some(header.dst).filter(|dst| self.may_be_told(dst, now.wall));
        if self.outlive(told.chain(meant), mono) {
            // What it sent was for the earlier life.
            self.announce(from, mono);
        }
        let members: Vec<_> = members
            .into_iter()
            .filter(|member| self.approved.contains_key(&member.id().key))
            .map(|member| self.doubted(member, mono))
            .collect();
        let spoken_of = members.iter().map(|member| member.id().key);
        let mut spoken_of: Vec<_> = spoken_of.chain([header.src.key]).collect();
        spoken_of.sort_unstable();
        // Most members of a large realm are told apart from these by their first byte.
        let mut starts = [false; 256];
        spoken_of
            .iter()
            .for_each(|key| starts[usize::from(key[0])] = true);
        let result = self
            .foca
            .handle_data(&write_packet(&header, members), &mut self.runtime);
        self.settle(result, mono, |key| {
            starts[usize::from(key[0])] && spoken_of.binary_search(key).is_ok()
        });
        if matches!(header.message, Message::Ack(_)) {
            self.answered(header.src.key, mono);
        }
        Ok(())
    }

    /// Nothing came in time: others are asked, and then it is over, which the beginning of the next probe says.
    fn unanswered(&mut self, mono: u64) {
        let Some(entry) = self.next_probe(mono) else {
            return;
        };
        let left = self.health.of_probe(PROBE_FAILED_MS - PROBE_RTT_MS);
        if entry.0 > mono + left
            && let Some(timer) = self.timers.remove(&entry)
        {
            self.schedule(mono + left, timer);
        }
    }

    /// A probe was answered: the timer that would have others probe too only wakes the node. foca wants to hear
    /// it all the same, and asks others at once should this have been the answer to an earlier probe.
    fn answered(&mut self, key: [u8; 32], mono: u64) {
        let waits = |timer: &mut Timed| matches!(timer, Timed::Foca(Timer::SendIndirectProbe { probed_id, .. }) if probed_id.key == key);
        let over: Vec<_> = self
            .timers
            .extract_if(.., |_, timer| waits(timer))
            .collect();
        for (_, timer) in over {
            if let Timed::Foca(timer) = timer {
                self.foca_timer(timer, mono);
            }
        }
    }

    /// Runs the timers that are due.
    pub fn tick(&mut self, mono: u64) {
        let late = self.next_timeout().and_then(|due| mono.checked_sub(due));
        if let Some(late) = late.filter(|late| *late <= PAUSE_MS) {
            self.health.late(late);
        }
        self.forgive(mono);
        while let Some(entry) = self
            .timers
            .first_entry()
            .filter(|entry| entry.key().0 <= mono)
        {
            match entry.remove() {
                Timed::Foca(timer) => {
                    if let Timer::SendIndirectProbe { .. } = timer {
                        self.unanswered(mono);
                    }
                    self.foca_timer(timer, mono);
                }
                Timed::Check(id, incarnation) => self.check(id, incarnation, mono),
                Timed::GiveUp(id, incarnation) => self.give_up(id, incarnation, mono),
            }
        }
    }

    fn give_up(&mut self, id: Id, incarnation: u16, mono: u64) {
        if self.is_suspect(id, incarnation) {
            self.apply(foca::Member::new(id, incarnation, State::Down), mono);
        } else if let Some((id, incarnation)) = self.suspected_anew(id.key) {
            self.settle_later(id, incarnation, mono);
        }
    }

    fn settle_later(&mut self, id: Id, incarnation: u16, mono: u64) {
        let due = mono + self.health.slowed(SETTLE_MS);
        self.schedule(due, Timed::GiveUp(id, incarnation));
        self.check(id, incarnation, mono);
    }

    /// After a pause of our own every other node gets that much more time.
    fn forgive(&mut self, mono: u64) {
        let late = self
            .next_timeout()
            .map_or(0, |due| mono.saturating_sub(due));
        if late > PAUSE_MS {
            self.health.doubt();
            self.health.late(late);
            self.hearing.paused(late, mono);
            let timers = std::mem::take(&mut self.timers);
            self.timers = timers
                .into_iter()
                .map(|((due, n), timer)| ((due + late, n), timer))
                .collect();
        }
    }

    fn apply(&mut self, member: foca::Member<Id>, mono: u64) {
        let of = member.id().key;
        let result = self
            .foca
            .apply_many(std::iter::once(member), true, &mut self.runtime);
        self.settle(result, mono, |key| *key == of);
    }

    fn known(&self) -> impl Iterator<Item = Id> {
        self.foca.iter_membership_state().map(|member| *member.id())
    }

    fn schedule(&mut self, due: u64, timer: Timed) {
        self.scheduled += 1;
        self.timers.insert((due, self.scheduled), timer);
    }

    /// What foca did is done, where nothing changed but of these keys: to look at all of a large realm each time
    /// would cost more than all else.
    fn settle(
        &mut self,
        result: Result<(), foca::Error>,
        mono: u64,
        concerns: impl Fn(&[u8; 32]) -> bool,
    ) {
        if let Err(error) = result {
            tracing::debug!(%error, "membership packet not used");
        }
        self.drain(mono);
        if self.compare(mono, concerns) {
            // News at once, not at the next round: what spreads fast is refuted fast too.
            if let Err(error) = self.foca.gossip(&mut self.runtime) {
                tracing::debug!(%error, "membership news not sent");
            }
            self.drain(mono);
        }
    }

    fn drain(&mut self, mono: u64) {
        while let Some((to, packet)) = self.runtime.to_send() {
            let is_verdict = is_turn_undead(&packet);
            let said_wrongly = is_verdict && self.is_active(to);
            if let Some(node) = self.approved.get(&to.key).filter(|_| !said_wrongly) {
                let packet = match self.hearing.may_judge(self.members.len(), mono) {
                    _ if is_verdict => self.with_later_life(to, &packet),
                    true => packet.to_vec(),
                    false => without_verdicts(&packet),
                };
                self.out.push_back(Out::Send { to: *node, packet });
            }
        }
        let mut is_new = false;
        while let Some(told) = self.runtime.to_notify() {
            is_new |= is_new_time(&told);
        }
        if is_new {
            self.count_anew();
        }
        while let Some((after, timer)) = self.runtime.to_schedule() {
            let after = self.health.stretch(&timer, after.as_millis() as u64);
            // A node is awake at its probes anyway, and gossip of every round waits that long.
            let with = match timer {
                Timer::PeriodicGossip(_) => self.next_probe(mono),
                _ => None,
            };
            let due = with.map_or(mono + after, |(due, _)| due.min(mono + PROBE_PERIOD_MS));
            if let Timer::RemoveDown(id) = timer {
                self.forget_earlier_death(id);
            }
            self.schedule(due, Timed::Foca(timer));
        }
    }

    /// The timer of the next probe.
    fn next_probe(&self, mono: u64) -> Option<(u64, u64)> {
        let probe = |timer: &Timed| matches!(timer, Timed::Foca(Timer::ProbeRandomMember(_)));
        let mut later = self.timers.range((mono + 1, 0)..);
        later
            .find(|(_, timer)| probe(timer))
            .map(|(entry, _)| *entry)
    }

    /// Reports what changed since the last time. Says whether that is news about a node in trouble.
    fn compare(&mut self, mono: u64, concerns: impl Fn(&[u8; 32]) -> bool) -> bool {
        let mut suspects = Vec::new();
        let mut trouble = false;
        let members = self.foca.iter_membership_state();
        for member in members.filter(|member| concerns(&member.id().key)) {
            let state = match member.state() {
                State::Alive => MemberState::Up,
                State::Suspect => MemberState::Suspect,
                State::Down => MemberState::Lost,
            };
            let Some(&node) = self.approved.get(&member.id().key) else {
                continue;
            };
            let before = self.members.get(&node).map(|known| known.state);
            let new = before.is_none()
                && (state == MemberState::Lost || self.members.len() >= MAX_MEMBERS);
            if before == Some(state) || new {
                continue;
            }
            self.members.insert(node, Member { state, since: mono });
            self.out.push_back(Out::Changed { node, state });
            trouble |= state != MemberState::Up;
            match state {
                MemberState::Suspect => suspects.push((*member.id(), member.incarnation())),
                MemberState::Up if self.accused.remove(&node) => self.health.doubt(),
                MemberState::Up => {}
                MemberState::Lost => {
                    self.accused.remove(&node);
                }
            }
        }
        for (id, incarnation) in suspects {
            self.settle_later(id, incarnation, mono);
        }
        trouble
    }
}

fn config() -> foca::Config {
    let every = |ms, members| {
        NonZeroUsize::new(members).map(|num_members| PeriodicParams {
            frequency: Duration::from_millis(ms),
            num_members,
        })
    };
    let mut config = foca::Config::simple();
    config.probe_period = Duration::from_millis(PROBE_PERIOD_MS);
    config.probe_rtt = Duration::from_millis(PROBE_RTT_MS);
    config.suspect_to_down_after = Duration::from_millis(SUSPECT_MS);
    config.max_transmissions = NonZeroU8::new(12).unwrap_or(NonZeroU8::MIN);
    config.max_packet_size = NonZeroUsize::new(MAX_SWIM_BYTES).unwrap_or(NonZeroUsize::MIN);
    config.notify_down_members = true;
    config.periodic_announce = every(10_000, 1);
    config.periodic_announce_to_down_members = every(ANNOUNCE_TO_LOST_MS, 2);
    config.periodic_gossip = every(GOSSIP_MS, 3);
    config
}

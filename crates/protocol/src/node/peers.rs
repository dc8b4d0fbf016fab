//! Connections: who is there, what they may send, and what they are told first.

use std::collections::BTreeSet;

use realm_identity::PublicKey;

use super::Node;
use crate::{
    Effect, Fold, Frame, MemberState, Now, Offence,
    limits::*,
    swim::{BadPacket, Out},
};

/// A connection to a member that was lost so long ago, and on which nothing came for so long, is dead:
/// meanwhile the member was asked at least twice whether it is back.
const SILENT_MS: u64 = 5_000;

/// What is kept for one connected peer.
#[derive(Debug, Default)]
pub(super) struct Peer {
    frames: Spent,
    gossip: Spent,
    /// When it was last asked for what is missing here.
    pub asked_at: Option<u64>,
    /// When it was last asked for claims that it named.
    pub claims_asked_at: Option<u64>,
    /// When its last frame came, or the connection began.
    pub heard_at: u64,
    /// It was asked for a report and has said nothing since.
    pub ignores: bool,
    /// Closing the connection was asked for.
    hung_up: bool,
}

/// A leaky bucket: bursts, then so many per second.
#[derive(Debug, Default)]
pub(super) struct Spent {
    /// Thousandths of messages beyond what the rate gave back by then.
    thousandths: u64,
    at: u64,
}

impl Spent {
    pub fn allow(&mut self, burst: u32, per_second: u32, mono: u64) -> bool {
        let passed = mono.saturating_sub(self.at);
        let given_back = passed.saturating_mul(u64::from(per_second));
        self.thousandths = self.thousandths.saturating_sub(given_back);
        self.at = mono;
        let allowed = self.thousandths < u64::from(burst) * 1000;
        if allowed {
            self.thousandths += 1000;
        }
        allowed
    }

    fn give_back(&mut self) {
        self.thousandths = self.thousandths.saturating_sub(1000);
    }
}

impl Peer {
    fn connected_at(mono: u64) -> Self {
        Self {
            heard_at: mono,
            ..Self::default()
        }
    }

    pub fn allow(&mut self, approved: bool, mono: u64) -> bool {
        let (burst, per_second) = match approved {
            true => (APPROVED_BURST, APPROVED_PER_SECOND),
            false => (STRANGER_BURST, STRANGER_PER_SECOND),
        };
        self.frames.allow(burst, per_second, mono)
    }

    pub fn may_gossip(&mut self, mono: u64) -> bool {
        self.gossip.allow(GOSSIP_BURST, GOSSIP_PER_SECOND, mono)
    }

    /// Its last gossip message does not count.
    pub fn brought_news(&mut self) {
        self.gossip.give_back();
    }
}

impl<F: Fold + Clone> Node<F> {
    pub(super) fn connected_to(&mut self, peer: PublicKey, now: Now) {
        if peer == self.me || (self.peers.len() >= MAX_PEERS && !self.approved.contains(&peer)) {
            return;
        }
        let connected = || Peer::connected_at(now.mono);
        self.peers.entry(peer).or_insert_with(connected);
        for frame in self.asking.clone() {
            self.send(peer, &frame);
        }
        if self.approved.contains(&peer) {
            self.greet(peer, now);
        } else if self.begins() {
            // It may have begun alone as well.
            self.send_claims(peer);
        }
    }

    /// Whether the owner has not written anything yet, as far as this node knows.
    pub(super) fn begins(&self) -> bool {
        self.log.as_ref().is_some_and(|log| log.head().seq == 0)
    }

    pub(super) fn disconnected_from(&mut self, peer: PublicKey, now: Now) {
        // Whoever asks to join and leaves asks again when it is back: its place is free.
        self.joins.remove(&peer);
        self.no_longer_told(peer);
        self.ask_later.remove(&peer);
        if self.peers.remove(&peer).is_some() {
            self.swim.disconnected(peer, now.mono);
            self.dial(peer, now);
        }
    }

    /// What an approved peer is told at once: the realm, where the log stands, that we are here.
    fn greet(&mut self, peer: PublicKey, now: Now) {
        if let Some(log) = &self.log {
            // Whoever pinned a later owner cannot trust the genesis by itself.
            let rotated = log.owner() != log.genesis().owner() && !self.heads.contains_key(&peer);
            if let Some(checkpoint) = rotated.then(|| log.checkpoint()).flatten() {
                self.send(peer, &Frame::Checkpoint(checkpoint));
            }
        }
        if let Some(log) = &self.log {
            let frames = [Frame::Genesis(log.genesis().to_wire()), log.locator()];
            frames.iter().for_each(|frame| self.send(peer, frame));
        }
        self.send_chain(peer);
        self.send_claims_have(peer);
        if self.approved.contains(&self.me) {
            self.swim.announce(peer, now.mono);
        }
    }

    pub(super) fn approve(&mut self, nodes: BTreeSet<PublicKey>, now: Now) {
        let (is, was) = (nodes.contains(&self.me), self.approved.contains(&self.me));
        if is != was {
            // Nobody answers a node that is not approved: its verdicts would be wrong.
            self.swim.begin(now.wall.as_millis());
        }
        let members = if is { nodes.clone() } else { BTreeSet::new() };
        self.swim.set_approved(&members, now.mono);
        let before = std::mem::replace(&mut self.approved, nodes);
        self.heads.retain(|node, _| self.approved.contains(node));
        self.authors.retain(|node, _| self.approved.contains(node));
        self.dialled.retain(|node, _| self.approved.contains(node));
        self.reports.retain(&self.approved);
        self.joins.settle(&self.approved);
        if self.approved.contains(&self.me) {
            self.asking.clear();
        }
        self.retry_claims();
        let news = |peer: &&PublicKey| {
            self.approved.contains(peer) && (!before.contains(peer) || !before.contains(&self.me))
        };
        let news: Vec<_> = self.peers.keys().filter(news).copied().collect();
        news.into_iter().for_each(|peer| self.greet(peer, now));
    }

    /// Says `frame` to every peer, now and when they connect, until this node is approved.
    pub(super) fn ask(&mut self, frame: Frame) {
        let kind = std::mem::discriminant(&frame);
        self.asking
            .retain(|other| std::mem::discriminant(other) != kind);
        let peers: Vec<_> = self.peers.keys().copied().collect();
        peers.into_iter().for_each(|peer| self.send(peer, &frame));
        self.asking.push(frame);
    }

    /// Repeats what this node asks for: an answer, or the question, may have been lost.
    pub(super) fn ask_everybody(&mut self) {
        let peers: Vec<_> = self.peers.keys().copied().collect();
        for frame in self.asking.clone() {
            for peer in &peers {
                self.send(*peer, &frame);
            }
        }
    }

    pub(super) fn swim_packet(&mut self, from: PublicKey, packet: &[u8], now: Now) {
        if !self.approved.contains(&self.me) {
            return;
        }
        match self.swim.packet(from, packet, now) {
            Ok(()) => {}
            Err(BadPacket::Malformed) => self.warn(from, Offence::BadSwim),
            Err(BadPacket::Impersonation) => self.warn(from, Offence::Impersonation),
        }
    }

    pub(super) fn drain_swim(&mut self, now: Now) {
        while let Some(out) = self.swim.poll() {
            match out {
                Out::Send { to, packet } if self.peers.contains_key(&to) => {
                    self.send(to, &Frame::Swim(packet));
                }
                Out::Send { to, .. } => self.dial(to, now),
                Out::Changed { node, state } => {
                    if state == MemberState::Up {
                        self.dial(node, now);
                        self.ask_about(node, now);
                    }
                    self.effects
                        .push_back(Effect::MemberChanged { node, state });
                }
            }
        }
    }

    /// Gives up connections to members that are lost to everybody and silent here. The transport's own
    /// question whether a connection is alive, asked of every peer, is asked rarely for that.
    pub(super) fn hang_up_on_lost(&mut self, now: Now) {
        let members = self.swim.members();
        let lost_since = |peer: &PublicKey| {
            let member = members.get(peer);
            let lost = member.filter(|member| member.state == MemberState::Lost);
            lost.map(|member| member.since)
        };
        for (key, peer) in &mut self.peers {
            // In a large realm most say nothing to each other for longer than this.
            let silent = |lost: u64| now.mono >= lost.max(peer.heard_at).saturating_add(SILENT_MS);
            if !peer.hung_up && lost_since(key).is_some_and(silent) {
                peer.hung_up = true;
                self.effects.push_back(Effect::HangUp { peer: *key });
            }
        }
    }

    /// Announces this node to connected peers that do not count as present.
    pub(super) fn announce_to_absent(&mut self, now: Now) {
        if !self.approved.contains(&self.me) {
            return;
        }
        let present = |peer: &PublicKey| {
            self.swim
                .members()
                .get(peer)
                .is_some_and(|member| member.state != MemberState::Lost)
        };
        let absent: Vec<_> = self
            .peers
            .keys()
            .filter(|peer| !present(peer))
            .copied()
            .collect();
        absent
            .into_iter()
            .for_each(|peer| self.swim.announce(peer, now.mono));
    }
}

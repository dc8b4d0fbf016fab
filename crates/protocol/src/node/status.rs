//! Gossip: where logs stand, and how nodes are. Only digests; reports are pulled.

use std::collections::{BTreeMap, BTreeSet};

use realm_identity::{PublicKey, Signed};
use realm_manifest::report::{NodeReport, StatusDigest};

use super::{Node, asking::Questions};
use crate::{
    Effect, Fold, Frame, Halt, HeadAnnounce, Now, Offence, Point, Topic, Verdict, gossip,
    limits::*, pace,
};

#[derive(Debug, Default)]
pub(super) struct Reports {
    pub slots: BTreeMap<PublicKey, Slot>,
    /// Who is asked for the report of a digest, by the node that it is of.
    pub asking: Questions,
}

/// The newest word of a node about itself.
#[derive(Debug, Default)]
pub(super) struct Slot {
    pub digest: Option<Age>,
    report: Option<(Age, Vec<u8>)>,
    /// When the report came, on the monotonic clock.
    came: u64,
}

impl Slot {
    pub fn is_known(&self) -> bool {
        self.report.is_some()
    }
}

/// How new a node's word is: a later boot is newer, whatever the node's clock says.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Age {
    pub boot_id: u64,
    pub seq: u64,
}

impl Age {
    fn is_newer_than(&self, other: Option<&Self>) -> bool {
        other.is_none_or(|other| self > other)
    }
}

impl Reports {
    pub fn wire(&self, node: PublicKey) -> Option<&[u8]> {
        Some(&self.slots.get(&node)?.report.as_ref()?.1)
    }

    pub fn retain(&mut self, approved: &BTreeSet<PublicKey>) {
        self.slots.retain(|node, _| approved.contains(node));
        self.asking.retain(approved);
    }

    /// The boot that the newest word of `node` is of, be it the digest or the report.
    fn boot_id(&self, node: PublicKey) -> Option<u64> {
        let slot = self.slots.get(&node)?;
        let report = slot.report.as_ref().map(|(age, _)| age);
        let newest = slot
            .digest
            .as_ref()
            .filter(|digest| digest.is_newer_than(report))
            .or(report);
        newest.map(|age| age.boot_id)
    }

    fn age(&self, node: PublicKey) -> Option<&Age> {
        self.slots.get(&node)?.report.as_ref().map(|(age, _)| age)
    }

    /// What to ask `node` for where its last report is older than `old_ms`: the next one.
    pub fn overdue(&self, node: PublicKey, old_ms: u64, mono: u64) -> Option<Age> {
        let slot = self.slots.get(&node);
        match slot.and_then(|slot| Some((slot.report.as_ref()?.0, slot.came))) {
            Some((_, came)) if mono < came + old_ms => None,
            Some((age, _)) => Some(Age {
                seq: age.seq.saturating_add(1),
                ..age
            }),
            None => Some(Age { boot_id: 0, seq: 0 }),
        }
    }

    /// Whether `report` is newer than what is kept; then it is kept.
    fn put(&mut self, report: &Signed<NodeReport>, wire: Vec<u8>, mono: u64) -> bool {
        let age = Age {
            boot_id: report.boot_id,
            seq: report.seq,
        };
        let newer = age.is_newer_than(self.age(report.node));
        if newer {
            let slot = self.slots.entry(report.node).or_default();
            slot.report = Some((age, wire));
            slot.came = mono;
            if slot.digest.as_ref().is_none_or(|digest| *digest <= age) {
                self.asking.remove(&report.node);
            }
        }
        newer
    }
}

impl<F: Fold + Clone> Node<F> {
    /// The boot that `node` speaks of in its newest gossip or report; None where nothing is known.
    pub fn boot_id(&self, node: PublicKey) -> Option<u64> {
        self.reports.boot_id(node)
    }

    /// Tells everybody where the log on disk stands.
    pub(super) fn announce(&mut self, now: Now) {
        self.next_announce = now.mono + pace::announce_every_ms(self.approved.len());
        let Some(log) = self
            .log
            .as_ref()
            .filter(|_| self.approved.contains(&self.me))
        else {
            return;
        };
        self.announced += 1;
        let mut tips = match log.halt() {
            Some(Halt::Forked { .. }) => log.tips(),
            _ => Vec::new(),
        };
        tips.truncate(MAX_TIPS);
        let announce = HeadAnnounce {
            v: gossip::VERSION,
            node: self.me,
            realm: log.realm(),
            seq: self.durable.seq,
            head: self.durable.hash,
            tips,
            boot_id: self.config.boot_id,
            count: self.announced,
        };
        let Ok(announce) = Signed::sign(announce, &self.config.key);
        self.effects.push_back(Effect::Publish {
            topic: Topic::Heads,
            bytes: announce.to_wire(),
        });
    }

    pub(super) fn gossip(
        &mut self,
        from: PublicKey,
        topic: Topic,
        bytes: &[u8],
        now: Now,
    ) -> Verdict {
        let max = match topic {
            Topic::Heads => MAX_GOSSIP_BYTES,
            Topic::Status => MAX_STATUS_BYTES,
        };
        if self.log.is_none() || self.effects.len() > MAX_EFFECTS {
            return Verdict::Ignore;
        }
        let Some(peer) = self.peers.get_mut(&from) else {
            return Verdict::Ignore;
        };
        if !peer.may_gossip(now.mono) {
            // What it brings first is not heard from others any more: whoever goes on loses its score,
            // and is not listened to before that.
            self.warn(from, Offence::RateLimited);
            return Verdict::Reject;
        }
        let verdict = match topic {
            _ if bytes.len() > max => Verdict::Reject,
            Topic::Heads => self.head_announced(from, bytes, now),
            Topic::Status => self.status(from, bytes, now),
        };
        match verdict {
            Verdict::Reject => self.warn(from, Offence::MalformedGossip),
            // News is bounded by its authors; whoever hands it on does its part.
            Verdict::Accept => {
                if let Some(peer) = self.peers.get_mut(&from) {
                    peer.brought_news();
                }
            }
            Verdict::Ignore => {}
        }
        verdict
    }

    fn head_announced(&mut self, from: PublicKey, bytes: &[u8], now: Now) -> Verdict {
        let Ok(announce) = Signed::<HeadAnnounce>::from_wire(bytes) else {
            return Verdict::Reject;
        };
        if announce.tips.len() > MAX_TIPS {
            return Verdict::Reject;
        }
        let node = announce.node;
        let Some(log) = self
            .log
            .as_ref()
            .filter(|log| log.realm() == announce.realm)
        else {
            return Verdict::Ignore;
        };
        let age = Age {
            boot_id: announce.boot_id,
            seq: announce.count,
        };
        let newest = self.heads.get(&node).map(|(age, _)| age);
        let stale = !age.is_newer_than(newest);
        if node == self.me || stale || !self.approved.contains(&node) {
            return Verdict::Ignore;
        }
        let head = Point {
            seq: announce.seq,
            hash: announce.head,
        };
        let news = log.lacks(&announce.tips) || log.lacks(&[head]);
        self.heads.insert(node, (age, head));
        if news {
            let source = [node, from]
                .into_iter()
                .find(|peer| self.peers.contains_key(peer));
            match source {
                Some(peer) => self.ask_for_entries(peer, now),
                None => self.dial(node, now),
            }
        }
        self.hand_on(node, now)
    }

    /// What is new of an approved `node` goes on to others, unless there is too much of it.
    fn hand_on(&mut self, node: PublicKey, now: Now) -> Verdict {
        let spent = self.authors.entry(node).or_default();
        match spent.allow(AUTHOR_BURST, AUTHOR_PER_SECOND, now.mono) {
            true => Verdict::Accept,
            false => Verdict::Ignore,
        }
    }

    fn status(&mut self, from: PublicKey, bytes: &[u8], now: Now) -> Verdict {
        let Ok(digest) = Signed::<StatusDigest>::from_wire(bytes) else {
            return Verdict::Reject;
        };
        let node = digest.node;
        let same_realm = self
            .log
            .as_ref()
            .is_some_and(|log| log.realm() == digest.realm);
        if !same_realm || node == self.me || !self.approved.contains(&node) {
            return Verdict::Ignore;
        }
        let age = Age {
            boot_id: digest.boot_id,
            seq: digest.seq,
        };
        let slot = self.reports.slots.entry(node).or_default();
        if !age.is_newer_than(slot.digest.as_ref()) {
            return Verdict::Ignore;
        }
        slot.digest = Some(age);
        if age.is_newer_than(slot.report.as_ref().map(|(age, _)| age)) {
            self.ask_for_report(node, from, now);
        }
        self.hand_on(node, now)
    }

    pub(super) fn own_report(&mut self, wire: Vec<u8>, digest: Vec<u8>, now: Now) {
        let Ok(report) = Signed::<NodeReport>::from_wire(&wire) else {
            return;
        };
        if report.node == self.me && self.reports.put(&report, wire, now.mono) {
            self.effects.push_back(Effect::Publish {
                topic: Topic::Status,
                bytes: digest,
            });
        }
    }

    /// Answers with the report asked for, or a newer one; else with nothing.
    pub(super) fn get_report(&mut self, from: PublicKey, node: PublicKey, boot_id: u64, seq: u64) {
        let Some(Slot {
            report: Some((age, wire)),
            ..
        }) = self.reports.slots.get(&node)
        else {
            return;
        };
        if *age >= (Age { boot_id, seq }) {
            let frame = Frame::Report(wire.clone());
            self.send(from, &frame);
        }
    }

    pub(super) fn take_report(&mut self, from: PublicKey, wire: Vec<u8>, now: Now) {
        let Ok(report) = Signed::<NodeReport>::from_wire(&wire) else {
            return self.warn(from, Offence::BadReport);
        };
        let node = report.node;
        let same_realm = self
            .log
            .as_ref()
            .is_some_and(|log| log.realm() == report.realm);
        if !same_realm || node == self.me || !self.approved.contains(&node) {
            return;
        }
        if self.reports.put(&report, wire.clone(), now.mono) {
            self.effects
                .push_back(Effect::ReportUpdated { node, report: wire });
        }
    }
}

//! The log between nodes: submits, locators, entries, checkpoints and proofs of forks.

use realm_identity::{Entry, Genesis, Hash, PublicKey, RealmId, Signed};

use super::{Node, newcomer::Newcomer, ops_of};
use crate::{
    Accepted, Checkpoint, Effect, Fold, Frame, Inserted, Item, Log, Now, Offence, Op, Point,
    Refusal, Token, limits::*,
};

/// A peer is not asked again sooner, unless what it was asked for came.
const ASK_EVERY_MS: u64 = 200;

impl<F: Fold + Clone> Node<F> {
    pub(super) fn submit(&mut self, token: Token, wire: &[u8], payload: Vec<u8>) {
        match self.try_submit(wire, payload) {
            Ok(point) => {
                let accepted = Accepted {
                    seq: point.seq,
                    hash: point.hash,
                    durable_on: 1,
                };
                // The head moves first, so that whoever sees the answer finds it moved.
                self.tell();
                self.writes.hold(Effect::SubmitResult {
                    token,
                    result: Ok(accepted),
                });
            }
            Err(refusal) => {
                self.effects.push_back(Effect::SubmitResult {
                    token,
                    result: Err(refusal),
                });
            }
        }
    }

    fn try_submit(&mut self, wire: &[u8], payload: Vec<u8>) -> Result<Point, Refusal> {
        if self.writes.submits() >= MAX_SUBMITS {
            return Err(Refusal::Busy);
        }
        let log = self.log.as_mut().ok_or(Refusal::NoRealm)?;
        log.check_submit(wire)?;
        let item = Item {
            entry: wire.to_vec(),
            payload: Some(payload),
        };
        match log.insert(wire, item.payload.clone())? {
            Inserted::Known(point) => Ok(point),
            Inserted::New(point) => {
                self.keep(point, &item);
                Ok(point)
            }
        }
    }

    fn keep(&mut self, point: Point, item: &Item) {
        let entry = self.log.as_ref().and_then(|log| log.entry(point.hash));
        let digest = entry
            .and_then(|(entry, _)| entry.body.as_ref())
            .map(|body| body.payload.sha256);
        self.writes.write(ops_of(point, item, digest));
    }

    /// Whether log frames of this peer are listened to: those of anybody while this node waits
    /// to be approved, for what they carry is signed by the owner; then those of approved nodes.
    fn listens_to(&self, peer: PublicKey) -> bool {
        self.approved.contains(&peer) || !self.approved.contains(&self.me) || self.begins()
    }

    pub(super) fn locator(
        &mut self,
        from: PublicKey,
        realm: RealmId,
        tips: &[Point],
        samples: &[Point],
        now: Now,
    ) {
        let Some(log) = self.log.as_ref().filter(|log| log.realm() == realm) else {
            return;
        };
        let lacks = log.lacks(tips);
        self.told_of(from, tips);
        let Some(log) = &self.log else { return };
        let until = match self.approved.contains(&from) {
            true => Some(u64::MAX),
            // Who was taken out gets the log as far as the entry that says so.
            false => self.expelled_may_see(from),
        };
        if let Some(until) = until
            && let Some(frame) = log.answer(tips, samples, until)
        {
            self.send(from, &frame);
        }
        if lacks && self.listens_to(from) {
            self.ask_for_entries(from, now);
        }
    }

    /// Tells `peer` where this log stands, so that it sends what is missing: now, or as soon as it
    /// may be asked again.
    pub(super) fn ask_for_entries(&mut self, peer: PublicKey, now: Now) {
        let Some(next) = self.may_be_asked(peer) else {
            return;
        };
        if now.mono < next {
            self.ask_later.insert(peer, next);
            return;
        }
        if let Some(state) = self.peers.get_mut(&peer) {
            state.asked_at = Some(now.mono);
        }
        self.ask_later.remove(&peer);
        self.show_log(peer);
    }

    /// From when on; None for one that is not here.
    fn may_be_asked(&self, peer: PublicKey) -> Option<u64> {
        let asked_at = self.peers.get(&peer)?.asked_at;
        Some(asked_at.map_or(0, |at| at + ASK_EVERY_MS))
    }

    fn show_log(&mut self, peer: PublicKey) {
        if let Some(log) = &self.log {
            let frame = log.locator();
            self.send(peer, &frame);
        }
    }

    /// Asks those whose turn it is by now.
    pub(super) fn ask_for_late_entries(&mut self, now: Now) {
        let due = self.ask_later.iter().filter(|(_, at)| **at <= now.mono);
        let due: Vec<_> = due.map(|(peer, _)| *peer).collect();
        for peer in due {
            self.ask_later.remove(&peer);
            self.ask_for_entries(peer, now);
        }
    }

    pub(super) fn sync_with_any(&mut self, now: Now) {
        self.announce_to_absent(now);
        if let Some(peer) = self.any_approved_peer() {
            // Most often it has nothing new, and may be asked at once when it tells of something the next moment.
            if self.may_be_asked(peer).is_some_and(|next| next <= now.mono) {
                self.show_log(peer);
            }
            self.send_claims_have(peer);
            self.ask_for_its_report(peer, now);
        }
    }

    pub(super) fn entries(
        &mut self,
        from: PublicKey,
        realm: RealmId,
        items: Vec<Item>,
        more: bool,
        now: Now,
    ) {
        let Some(own) = self.log.as_ref().map(Log::realm) else {
            return;
        };
        if own != realm {
            let refusal = Refusal::ForeignRealm {
                found: realm,
                expected: own,
            };
            return self.warn(from, Offence::Entry(refusal));
        }
        // Only the owner can make something new: whoever brings it may be asked again at once.
        if self.take(from, items, now) {
            if let Some(peer) = self.peers.get_mut(&from) {
                peer.asked_at = None;
            }
            if more || self.ask_later.contains_key(&from) {
                self.ask_for_entries(from, now);
            }
        }
    }

    pub(super) fn fork_proof(&mut self, from: PublicKey, items: Vec<Item>, now: Now) {
        self.take(from, items, now);
    }

    /// Keeps what verifies, up to the first that does not. Says whether anything was new.
    fn take(&mut self, from: PublicKey, items: Vec<Item>, now: Now) -> bool {
        if self.writes.is_full() {
            // The disk is slow: what is not taken now is asked for again.
            return false;
        }
        if !self.listens_to(from) {
            self.warn(from, Offence::NotApproved);
            return false;
        }
        let mut progress = false;
        for item in items {
            let Some(log) = &mut self.log else {
                return progress;
            };
            match log.insert(&item.entry, item.payload.clone()) {
                Ok(Inserted::Known(_)) => {}
                Ok(Inserted::New(point)) => {
                    progress = true;
                    self.keep(point, &item);
                }
                // Frames may overtake each other: ask for what lies between.
                Err(Refusal::UnknownParent { .. }) => {
                    self.ask_for_entries(from, now);
                    return progress;
                }
                Err(Refusal::Stale { .. } | Refusal::PayloadMissing) => {}
                Err(refusal) => {
                    self.warn(from, Offence::Entry(refusal));
                    return progress;
                }
            }
        }
        progress
    }

    pub(super) fn genesis(&mut self, from: PublicKey, wire: &[u8], now: Now) {
        if self.log.is_some() {
            return;
        }
        let Ok(genesis) = Signed::<Genesis>::from_wire(wire) else {
            return self.warn(from, Offence::MalformedFrame);
        };
        if self.may_join(&genesis, genesis.owner()) {
            self.adopt(&genesis, genesis.owner(), now);
            self.ask_for_entries(from, now);
        }
    }

    /// The realm that this node was given by whoever operates it.
    pub(super) fn found(&mut self, wire: &[u8], now: Now) {
        if let Ok(genesis) = Signed::<Genesis>::from_wire(wire) {
            self.adopt(&genesis, genesis.owner(), now);
        }
    }

    /// Whether a realm that a peer told of is the one this node was told to join. Its id, if
    /// that is known, says so whoever owns the realm by now.
    fn may_join(&self, genesis: &Genesis, owner: PublicKey) -> bool {
        match self.config.realm {
            Some(realm) => realm == genesis.realm_id(),
            None => self.config.pins.contains(&owner),
        }
    }

    /// Makes this node's realm that of `genesis`, by the word of `owner`.
    fn adopt(&mut self, genesis: &Signed<Genesis>, owner: PublicKey, now: Now) {
        if self.log.is_some() || genesis.check().is_err() {
            return;
        }
        let (realm, wire) = (genesis.realm_id(), genesis.to_wire());
        let mut log = Log::new(genesis.clone(), self.fold.clone());
        log.mutation = self.config.mutation;
        self.log = Some(log);
        self.newcomer = Some(Newcomer::at(now.mono));
        self.writes.write([Op::Genesis { wire: wire.clone() }]);
        self.writes.hold(Effect::RealmJoined {
            realm,
            owner,
            genesis: wire,
        });
    }

    pub(super) fn checkpoint(&mut self, from: PublicKey, checkpoint: Checkpoint, now: Now) {
        // A log that has entries goes on from them; revisions never jump.
        let started = self.log.as_ref().is_some_and(|log| !log.is_empty());
        if started || !self.listens_to(from) {
            return;
        }
        let Ok(genesis) = Signed::<Genesis>::from_wire(&checkpoint.genesis) else {
            return self.warn(from, Offence::BadCheckpoint);
        };
        let Ok(author) = Signed::<Entry>::from_wire(&checkpoint.entry).map(|entry| entry.author)
        else {
            return self.warn(from, Offence::BadCheckpoint);
        };
        let ours = match &self.log {
            Some(log) => log.realm() == genesis.realm_id(),
            None => self.may_join(&genesis, author),
        };
        // The sender cannot know whom this node trusts: another owner's is no offence.
        if !ours || !self.config.pins.contains(&author) {
            return;
        }
        let pins = &self.config.pins;
        let Ok(log) = Log::from_checkpoint(&checkpoint, pins, self.fold.clone()) else {
            return self.warn(from, Offence::BadCheckpoint);
        };
        let mut newcomer = self.newcomer.iter();
        if self.log.is_none() {
            // It vouches for the realm, whose first entry this node could not trust by itself.
            self.adopt(&genesis, author, now);
        } else if newcomer.any(|newcomer| newcomer.wants_the_whole_log(now.mono)) {
            return;
        } else {
            self.log = Some(log);
            self.writes.write([Op::Checkpoint { checkpoint }]);
        }
        self.ask_for_entries(from, now);
    }

    pub(super) fn get_entry(&mut self, from: PublicKey, hash: Hash) {
        let Some(log) = &self.log else { return };
        if let Some(item) = log.item(hash) {
            let frame = Frame::Entries {
                realm: log.realm(),
                items: vec![item],
                more: false,
            };
            self.send(from, &frame);
        }
    }

    pub(super) fn spread_fork(&mut self, mut proofs: Vec<Item>) {
        proofs.truncate(MAX_SIBLINGS);
        // Two of the largest entries fit a frame; the rest is found by sync.
        let mut room = MAX_ENTRIES_BYTES;
        proofs.retain(|item| {
            let size = item.entry.len() + item.payload.as_ref().map_or(0, Vec::len);
            let fits = size <= room;
            room = room.saturating_sub(size);
            fits
        });
        self.send_approved(&Frame::ForkProof(proofs));
    }
}

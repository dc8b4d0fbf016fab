//! The grow-only set of witnessed claims.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use rand_foca::RngExt as _;
use realm_identity::{ClaimError, Hash, PublicKey, WitnessedClaim};

use super::Node;
use crate::{Effect, Fold, Frame, Now, Offence, Op, frame::Bytes, limits::*};

/// How often a peer that names claims unknown here is asked for them: as often as it is compared
/// with anyway.
const ASK_BACK_EVERY_MS: u64 = super::SYNC_EVERY_MS;
/// Peers that are told of a claim that an approved peer brought: who learnt of it first told everybody.
/// If all did that, who comes into a realm of fifty would cost thousands of frames.
const TOLD_ON: usize = 3;

#[derive(Debug, Default)]
pub(super) struct Claims {
    set: BTreeMap<Hash, WitnessedClaim>,
    /// Claims whose witness is not approved here yet, its own claim may be on the way, and who
    /// brought them.
    waiting: Vec<(Option<PublicKey>, Vec<u8>)>,
}

/// The claims of each node.
struct ByNode<'a>(BTreeMap<PublicKey, Vec<(Hash, &'a WitnessedClaim)>>);

impl Claims {
    /// Without those of an invite that two nodes used, which count for neither.
    fn by_node(&self) -> ByNode<'_> {
        let mut users = BTreeMap::new();
        for WitnessedClaim { claim, .. } in self.set.values() {
            let user = users.entry(claim.key).or_insert(Some(claim.node));
            *user = user.filter(|user| *user == claim.node);
        }
        let mut index = ByNode(BTreeMap::new());
        for (hash, claim) in &self.set {
            if users[&claim.claim.key].is_some() {
                let of_node = index.0.entry(claim.claim.node).or_default();
                of_node.push((*hash, claim));
            }
        }
        index
    }
}

impl ByNode<'_> {
    /// The shortest way to `node` from a node that vouched for itself, or that `is_in` although no claim
    /// says so: the owner's log does. One claim for each step, each after its witness's. A claim may have
    /// many witnesses, and all of them with all of theirs would be most claims of the realm.
    fn chain_to(&self, node: PublicKey, is_in: impl Fn(&PublicKey) -> bool) -> Vec<Hash> {
        let mut open = VecDeque::from([node]);
        // For each witness that was met, who it let in by which claim.
        let mut let_in: BTreeMap<PublicKey, (PublicKey, Hash)> = BTreeMap::new();
        let mut chain = Vec::new();
        while let Some(at) = open.pop_front() {
            let claims = self.0.get(&at).map_or(&[][..], Vec::as_slice);
            let own = claims.iter().find(|(_, claim)| claim.witness.node == at);
            if own.is_some() || (claims.is_empty() && is_in(&at)) {
                chain.extend(own.map(|(hash, _)| *hash));
                let mut step = at;
                while step != node {
                    let (next, hash) = let_in[&step];
                    chain.push(hash);
                    step = next;
                }
                break;
            }
            for (hash, claim) in claims {
                let witness = claim.witness.node;
                if witness != node && !let_in.contains_key(&witness) {
                    let_in.insert(witness, (at, *hash));
                    open.push_back(witness);
                }
            }
        }
        chain
    }
}

impl<F: Fold + Clone> Node<F> {
    pub fn claims(&self) -> impl Iterator<Item = &WitnessedClaim> {
        self.claims.set.values()
    }

    /// The claims that show that this node is in, each after its witness's.
    pub fn standing(&self) -> Vec<&WitnessedClaim> {
        let chain = self
            .claims
            .by_node()
            .chain_to(self.me, self.let_in_by_log());
        let claims = chain.iter().filter_map(|hash| self.claims.set.get(hash));
        claims.collect()
    }

    pub(super) fn restore_claims(&mut self, wires: Vec<Vec<u8>>) {
        let read = wires
            .iter()
            .filter_map(|wire| WitnessedClaim::from_wire(wire).ok());
        self.claims.set = read
            .map(|claim| (Hash::of(&claim.to_wire()), claim))
            .collect();
    }

    pub(super) fn claim_presented(&mut self, from: PublicKey, claim: Vec<u8>) {
        if self.is_revoked(from) {
            self.tell_revoked(from);
        } else if self.approved.contains(&self.me) && !self.approved.contains(&from) {
            self.effects
                .push_back(Effect::ClaimPresented { from, claim });
        }
    }

    pub(super) fn send_claims_have(&mut self, peer: PublicKey) {
        if !self.claims.set.is_empty() {
            let frame = Frame::ClaimsHave(self.claims.set.keys().copied().collect());
            self.send(peer, &frame);
        }
    }

    /// What a node needs that was just approved and may not trust anybody yet: who let it in, and this
    /// node. What else it lacks it names itself, once it trusts this one.
    pub(super) fn send_chain(&mut self, peer: PublicKey) {
        let chain = self.chains(peer);
        self.send_these_claims(peer, &chain);
    }

    /// Everything, for who has nobody to ask yet. The chain comes first, for of many claims it is not
    /// sent all.
    pub(super) fn send_claims(&mut self, peer: PublicKey) {
        let mut claims = self.chains(peer);
        let rest = self.claims.set.keys().filter(|hash| !claims.contains(hash));
        let rest: Vec<_> = rest.copied().collect();
        claims.extend(rest);
        self.send_these_claims(peer, &claims);
    }

    /// What let `peer` and this node in.
    fn chains(&self, peer: PublicKey) -> Vec<Hash> {
        let index = self.claims.by_node();
        let is_in = self.let_in_by_log();
        let mut chain = index.chain_to(peer, &is_in);
        for hash in index.chain_to(self.me, &is_in) {
            if !chain.contains(&hash) {
                chain.push(hash);
            }
        }
        chain
    }

    /// Whether a node that no claim let in may witness, or might when it was in.
    fn let_in_by_log(&self) -> impl Fn(&PublicKey) -> bool {
        |node| self.approved.contains(node) || self.was_in(*node)
    }

    fn send_these_claims(&mut self, peer: PublicKey, claims: &[Hash]) {
        let claims = claims.iter().filter_map(|hash| self.claims.set.get(hash));
        let claims: Vec<_> = claims.map(|claim| Bytes(claim.to_wire())).collect();
        for claims in claims.chunks(MAX_CLAIMS_PER_FRAME).take(MAX_CLAIM_FRAMES) {
            self.send(peer, &Frame::Claims(claims.to_vec()));
        }
    }

    /// Looks again at claims whose witness was not approved.
    pub(super) fn retry_claims(&mut self) {
        for (from, wire) in std::mem::take(&mut self.claims.waiting) {
            self.add_claim(from, &wire);
        }
    }

    pub(super) fn claims_have(&mut self, from: PublicKey, have: &[Hash], now: Now) {
        let known: BTreeSet<&Hash> = have.iter().collect();
        let set = self.claims.set.iter();
        let mut lacking: Vec<&WitnessedClaim> = set
            .filter(|(hash, _)| !known.contains(hash))
            .map(|(_, claim)| claim)
            .collect();
        // Any of them: always the same ones, which the peer may refuse, would hold up the others.
        let mut chosen = Vec::new();
        while !lacking.is_empty() && chosen.len() < MAX_CLAIMS_PER_FRAME {
            let at = self.rng.random_range(0..lacking.len());
            chosen.push(Bytes(lacking.swap_remove(at).to_wire()));
        }
        if !chosen.is_empty() {
            self.send(from, &Frame::Claims(chosen));
        }
        if have.iter().any(|hash| !self.claims.set.contains_key(hash)) {
            self.ask_back(from, now);
        }
    }

    /// Asks for claims that `peer` named. Each of two nodes may keep what the other refuses, as of an
    /// invite that many used: so not at once again, or they would ask each other without end.
    fn ask_back(&mut self, peer: PublicKey, now: Now) {
        let Some(state) = self.peers.get_mut(&peer) else {
            return;
        };
        let asked = state.claims_asked_at;
        if asked.is_none_or(|at| now.mono >= at + ASK_BACK_EVERY_MS) {
            state.claims_asked_at = Some(now.mono);
            let own = self.claims.set.keys().copied().collect();
            self.send(peer, &Frame::ClaimsHave(own));
        }
    }

    pub(super) fn add_claim(&mut self, from: Option<PublicKey>, wire: &[u8]) {
        let hash = Hash::of(wire);
        // Of what realm they are is no offence where no realm is known.
        let full = self.claims.set.len() >= MAX_CLAIMS;
        if self.log.is_none() || full || self.claims.set.contains_key(&hash) {
            return;
        }
        match self.verify_claim(from, wire) {
            Ok(claim) => self.keep_claim(from, hash, claim, wire),
            // The approval of the witness may not have reached this node yet.
            Err(ClaimError::NotWitness(_)) => self.keep_waiting(from, wire),
            Err(error) => {
                tracing::debug!(%error, "claim refused");
                if let Some(from) = from {
                    self.warn(from, Offence::BadClaim);
                }
            }
        }
    }

    /// A claim whose witness is not approved waits, once, whoever brought it. Any token will do to
    /// make such claims, so that a node of the realm takes them of approved nodes alone; it asks a
    /// peer for all it has when that is approved. Before somebody is, the realm is still beginning.
    fn keep_waiting(&mut self, from: Option<PublicKey>, wire: &[u8]) {
        let may_wait = |from: &Option<PublicKey>| {
            let is_in = self.approved.contains(&self.me) && !self.begins();
            !is_in || from.is_none_or(|from| self.approved.contains(&from))
        };
        if !may_wait(&from) {
            return;
        }
        let mut waiting = self.claims.waiting.iter();
        match waiting.position(|(_, other)| other == wire) {
            // The word of an approved node counts for more.
            Some(at) if from.is_none_or(|from| self.approved.contains(&from)) => {
                self.claims.waiting[at].0 = from;
            }
            Some(_) => {}
            None if self.claims.waiting.len() < MAX_WAITING_CLAIMS => {
                self.claims.waiting.push((from, wire.to_vec()));
            }
            None => {}
        }
    }

    fn verify_claim(
        &self,
        from: Option<PublicKey>,
        wire: &[u8],
    ) -> Result<WitnessedClaim, ClaimError> {
        let claim = WitnessedClaim::from_wire(wire)?;
        let log = self.log.as_ref().ok_or(ClaimError::OtherRealm)?;
        // The first nodes of a realm vouch for themselves: until the owner wrote the first entry, or
        // while this node knows nobody else, so that nodes that began alone become one realm.
        let begins = self.approved.len() <= 1 || log.head().seq == 0;
        let first = begins && claim.witness.node == claim.claim.node;
        // Who was let in by a node that was taken out later is in, and the others know that. What the
        // one that is out says now, by itself or through strangers, is not heard.
        let told = from.is_some_and(|from| self.approved.contains(&from));
        let may_witness =
            |node| first || self.approved.contains(&node) || (told && self.was_in(node));
        claim.verify(log.realm(), &log.owners(), may_witness)?;
        Ok(claim)
    }

    fn keep_claim(
        &mut self,
        from: Option<PublicKey>,
        hash: Hash,
        claim: WitnessedClaim,
        wire: &[u8],
    ) {
        let others = self.claims.set.values().filter(|other| {
            other.claim.key == claim.claim.key && other.claim.node != claim.claim.node
        });
        // The claim of one node may have several witnesses.
        let claimants: BTreeSet<PublicKey> = others.map(|other| other.claim.node).collect();
        if claimants.len() >= MAX_CLAIMANTS {
            // It counts for nobody already; more of it only takes room from others.
            return;
        }
        let other = self
            .claims
            .set
            .values()
            .find(|other| other.contradicts(&claim));
        let conflict = other.map(|other| Effect::ClaimConflict {
            invite_key: claim.claim.key,
            nodes: [other.claim.node, claim.claim.node],
        });
        self.claims.set.insert(hash, claim);
        self.writes.write([Op::Claim {
            hash,
            wire: wire.to_vec(),
        }]);
        self.writes.hold(Effect::ClaimAdded {
            claim: wire.to_vec(),
        });
        conflict
            .into_iter()
            .for_each(|conflict| self.writes.hold(conflict));
        self.tell_on(from, &Frame::Claims(vec![Bytes(wire.to_vec())]));
    }

    fn tell_on(&mut self, from: Option<PublicKey>, frame: &Frame) {
        let Some(from) = from.filter(|from| self.approved.contains(from)) else {
            return self.send_approved(frame);
        };
        let approved = self.approved_peers();
        let mut others: Vec<_> = approved.filter(|peer| **peer != from).copied().collect();
        for _ in 0..TOLD_ON.min(others.len()) {
            let at = self.rng.random_range(0..others.len());
            self.send(others.swap_remove(at), frame);
        }
    }
}

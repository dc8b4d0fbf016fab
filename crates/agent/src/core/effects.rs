//! Carrying out what the protocol asks for.

use std::collections::BTreeSet;

use realm_identity::{Claim, PublicKey, RealmId, Signed, VerifiedClaim, WitnessedClaim};
use realm_manifest::report::NodeReport;
use realm_planner::State;
use realm_protocol::{Effect, Event, MemberState, Now, Offence};
use realm_rpc::{ErrorCode, RpcError, Submitted};

use super::{Core, Seen};
use crate::{approvals::may_vouch_for, fold::chain, ledger::to_store, offenders};

/// Nodes remembered whose claim was refused.
const MAX_REFUSED: usize = 256;

impl Core {
    /// Drains every effect; carrying one out may make more.
    pub(super) async fn carry_out(&mut self) {
        loop {
            while let Some(effect) = self.node.poll_effect() {
                self.effect(effect).await;
            }
            // Who joins a large realm learns of hundreds of claims: who is in is computed once for all of them.
            if !std::mem::take(&mut self.claims_came) {
                break;
            }
            self.approve(self.clock.now()).await;
        }
    }

    async fn effect(&mut self, effect: Effect) {
        let now = self.clock.now();
        match effect {
            Effect::Send { to, frame } => {
                if self.network.send_frame(to, frame.into()).await.is_err() {
                    tracing::debug!("the network has stopped");
                }
            }
            Effect::Publish { topic, bytes } => {
                // Nobody listens yet: sync brings it to those who come.
                if let Err(error) = self.network.publish(network_topic(topic), bytes).await {
                    tracing::trace!(error = chain(&error), "not published");
                }
            }
            Effect::Persist { token, ops } => {
                let ops = ops.into_iter().map(to_store).collect();
                self.ledger.commit(Some(token), ops).await;
            }
            Effect::SubmitResult { token, result } => self.submit_result(token, result),
            Effect::RealmJoined {
                realm,
                owner,
                genesis,
            } => self.joined((realm, owner), &genesis, now).await,
            Effect::HeadAdvanced { seq, state, .. } => self.head_advanced(seq, &state, now).await,
            Effect::Forked { seq, .. } => {
                self.forked = true;
                let message = format!(
                    "two entries for revision {seq}: see them and end it with realm history merge"
                );
                self.events
                    .record(now.wall, "forked", format!("revision {seq}"), message);
            }
            Effect::ForkEnded { seq } => {
                self.forked = false;
                let message = "a merge ended the fork".to_owned();
                self.events
                    .record(now.wall, "merged", format!("revision {seq}"), message);
            }
            Effect::Incompatible { seq, reason } => {
                self.behind(seq, reason, now);
                self.publish_view().await;
            }
            Effect::MemberChanged { node, state } => self.member_changed(node, state, now).await,
            Effect::ReportUpdated { node, report } => {
                self.report_updated(node, &report, now).await;
            }
            Effect::JoinRequested { request } => {
                let node = request.node;
                let message = format!("{node} asks to join: realm nodes approve {node}");
                let asking: BTreeSet<PublicKey> = self.node.joins().map(|join| join.node).collect();
                self.pending_since.retain(|node, _| asking.contains(node));
                self.pending_since.entry(request.node).or_insert(now.wall);
                let name = self.node_name(&request.node);
                self.events.record(now.wall, "asked", name, message);
            }
            Effect::ClaimPresented { from, claim } => {
                self.claim_presented(from, &claim, now).await;
            }
            Effect::ClaimAdded { claim } => self.claim_added(&claim, now).await,
            Effect::CaughtUp => {
                self.publish_view().await;
                self.replan = true;
            }
            Effect::Revoked { realm, seq } => {
                tracing::debug!(%realm, seq, "revoked without having been in");
                self.publish_view().await;
            }
            // Whoever counted by this invite does so no more, and an alarm says why.
            Effect::ClaimConflict { .. } => self.approve(now).await,
            Effect::Dial { peer } => self.connect(peer),
            Effect::HangUp { peer } => {
                // A network that has stopped holds no connection.
                let _ = self.network.disconnect(peer).await;
            }
            Effect::Warn { peer, what } => {
                let offence = (what.name(), offenders::weight(&what));
                self.offence(peer, offence, &what.to_string(), now).await;
            }
        }
    }

    /// The log goes on from `seq` in a way that this version does not understand.
    pub(super) fn behind(&mut self, seq: u64, reason: String, now: Now) {
        let subject = format!("revision {seq}");
        self.events
            .record(now.wall, "incompatible", subject, reason.clone());
        self.incompatible = Some(reason);
    }

    fn submit_result(
        &mut self,
        token: realm_protocol::Token,
        result: Result<realm_protocol::Accepted, realm_protocol::Refusal>,
    ) {
        let Some(reply) = self.submits.remove(&token) else {
            return;
        };
        let answer = match result {
            Ok(accepted) => Ok(Submitted {
                seq: accepted.seq,
                durable_on: u32::try_from(accepted.durable_on).unwrap_or(u32::MAX),
            }),
            Err(refusal) => Err(refused(&refusal)),
        };
        // The operator may be gone; what was appended stays.
        let _ = reply.send(answer);
    }

    async fn joined(&mut self, (realm, owner): (RealmId, PublicKey), genesis: &[u8], now: Now) {
        if let Ok(genesis) = Signed::<realm_identity::Genesis>::from_wire(genesis) {
            // An invite names the realm; its founder may have handed it on since.
            let is_named = self.trust.pin().realm() == Some(realm);
            if !is_named && let Err(error) = self.trust.offer(owner, realm, now.wall) {
                tracing::error!(error = chain(&error), "the realm is not the pinned one");
                return;
            }
            let message = format!("realm {realm}");
            self.events
                .record(now.wall, "joined", genesis.name.clone(), message);
            self.state = Some(State::genesis(&genesis));
        }
        if self.network.set_realm(realm).await.is_err() {
            tracing::warn!("the network has stopped");
        }
        self.approve(now).await;
        self.present_claim(now);
        for adopter in std::mem::take(&mut self.adopters) {
            // Whoever asked may be gone.
            let _ = adopter.send(Ok(()));
        }
    }

    async fn head_advanced(&mut self, seq: u64, state: &[u8], now: Now) {
        let next = match State::decode(state) {
            Ok(next) => next,
            Err(error) => {
                tracing::error!(
                    seq,
                    error = chain(&error),
                    "the folded state is not readable"
                );
                return;
            }
        };
        let before = self.state.replace(next);
        let before_seq = before.as_ref().map_or(0, |before| before.revision);
        self.pin_artifacts();
        if let (Some(before), Some(after)) = (before, &self.state)
            && before.owner != after.owner
        {
            let message = format!("{} owns the realm", after.owner);
            self.events
                .record(now.wall, "rotated", format!("revision {seq}"), message);
        }
        self.follow_owner(now);
        self.tell_changes(before_seq, seq, now);
        self.raise_floor(now);
        self.approve(now).await;
    }

    /// Pins whom the pinned owner handed the realm to. Who was told of a later owner than the log has come to waits
    /// for it.
    pub(super) fn follow_owner(&mut self, now: Now) {
        let (Some(state), Some(pinned)) = (&self.state, self.trust.pin().owner()) else {
            return;
        };
        let owner = state.owner;
        if pinned == owner || !state.owners().contains(&pinned) {
            return;
        }
        if let Err(error) = self.trust.follow_rotation(pinned, owner) {
            tracing::error!(error = chain(&error), "the new owner could not be pinned");
        }
        self.node.handle(Event::Pinned { owner }, now);
    }

    async fn member_changed(&mut self, node: PublicKey, state: MemberState, now: Now) {
        let name = self.node_name(&node);
        match state {
            MemberState::Lost => {
                self.presence.lost(node, now.mono);
                self.events
                    .record(now.wall, "lost", name, "does not answer".to_owned());
                // Its connections stay: they outlive a short silence, and the network closes dead ones.
                if let Some(seen) = self.reports.get(&node) {
                    let op = seen.op(&node);
                    self.ledger.commit(None, vec![op]).await;
                }
            }
            MemberState::Up => {
                if self.presence.up(node, now.mono) {
                    self.events
                        .record(now.wall, "joined", name, "is here".to_owned());
                }
            }
            MemberState::Suspect => {}
        }
        self.replan = true;
    }

    async fn report_updated(&mut self, node: PublicKey, wire: &[u8], now: Now) {
        if node == self.key.public() {
            return;
        }
        let Ok(report) = Signed::<NodeReport>::from_wire(wire) else {
            return;
        };
        let addresses = report.addresses.clone();
        let seen = Seen::new(report, now.wall);
        let op = seen.op(&node);
        let before = self.reports.insert(node, seen);
        // Where a node is reached must survive a crash; the rest is soon reported again.
        if before.is_none_or(|before| before.report.addresses != addresses) {
            self.learn_addresses(node, &addresses).await;
            self.connect(node);
            self.ledger.commit(None, vec![op]).await;
        }
        self.replan = true;
    }

    /// What strangers show is checked before anything is kept or told of it.
    async fn claim_presented(&mut self, from: PublicKey, wire: &[u8], now: Now) {
        let (Some(state), true) = (&self.state, self.approved.contains_key(&self.key.public()))
        else {
            return;
        };
        let claim = Signed::<Claim>::from_wire(wire);
        let claim = claim.map_err(|error| (offenders::weight(&Offence::BadClaim), chain(&error)));
        let (realm, owners) = (state.realm, state.owners());
        let sound = claim.and_then(|claim| {
            if claim.node != from {
                let error = "it is of another node".to_owned();
                return Err((offenders::weight(&Offence::Impersonation), error));
            }
            match VerifiedClaim::new(claim.clone(), realm, &owners) {
                Ok(_) => Ok(claim),
                // An honest node may have been invited into another realm.
                Err(error) => Err((offenders::SLIGHT, chain(&error))),
            }
        });
        match sound {
            Ok(claim) => self.vouch(claim, now),
            Err((weight, error)) => {
                let name = Offence::BadClaim.name();
                let what = format!("invite: {error}");
                self.offence(from, (name, weight), &what, now).await;
            }
        }
    }

    /// Vouches for a claim that was made just now, and spreads it.
    pub(super) fn witness(&mut self, claim: Signed<Claim>, now: Now) {
        let Some(state) = &self.state else { return };
        if self.approved.contains_key(&claim.node) {
            return;
        }
        // It asks until it is in, and what was witnessed may be on its way to the disk.
        let me = self.key.public();
        let is_done = |known: &WitnessedClaim| {
            (known.claim.node, known.claim.key) == (claim.node, claim.key)
                && known.witness.node == me
        };
        if self.node.claims().any(is_done) {
            return;
        }
        // Whoever asks asks again soon.
        if !may_vouch_for(&claim.node, &self.key.public(), self.node.is_caught_up()) {
            return;
        }
        if self.is_decided(&claim.node) {
            let message = format!("{} was taken out: no invite brings it back", claim.node);
            return self.claim_refused(claim.node, message, now);
        }
        let same_invite = |other: &&WitnessedClaim| other.claim.key == claim.key;
        let others = self.claims.iter().filter(same_invite);
        // Several may have witnessed the claim of one node.
        let others: BTreeSet<PublicKey> = others.map(|other| other.claim.node).collect();
        if others.iter().filter(|other| **other != claim.node).count() > 1 {
            // Two are known to have used it: both wait for the owner, and so does everybody after.
            let message = format!("{} claims an invite that two have used", claim.node);
            return self.claim_refused(claim.node, message, now);
        }
        let node = claim.node;
        let witnessed = VerifiedClaim::new(claim, state.realm, &state.owners())
            .and_then(|claim| claim.witness(&self.key, self.trust.now()));
        match witnessed {
            Ok(witnessed) => self.node.handle(
                Event::AddClaim {
                    claim: witnessed.to_wire(),
                },
                now,
            ),
            Err(error) => self.claim_refused(node, format!("invite: {}", chain(&error)), now),
        }
    }

    /// A claim is presented again every few seconds: that it is refused is told once.
    fn claim_refused(&mut self, node: PublicKey, message: String, now: Now) {
        if self.refused_claims.len() >= MAX_REFUSED {
            self.refused_claims.clear();
        }
        if self.refused_claims.insert(node) {
            self.events
                .record(now.wall, "refused", node.short(), message);
        }
    }

    /// Time has passed as far as the newest of what this node accepted says.
    pub(super) fn raise_floor(&mut self, now: Now) {
        let log = self.node.log();
        let head = log.and_then(|log| log.entry(log.head().hash));
        let issued = head.and_then(|(entry, _)| Some(entry.body.as_ref()?.issued_at));
        let witnessed = self.claims.iter().map(|claim| claim.witness.at);
        if let Some(newest) = issued.into_iter().chain(witnessed).max() {
            self.trust.floor.saw(newest, now.wall);
        }
    }

    async fn claim_added(&mut self, wire: &[u8], now: Now) {
        let Ok(claim) = WitnessedClaim::from_wire(wire) else {
            return;
        };
        let node = claim.claim.node;
        self.trust.floor.saw(claim.witness.at, now.wall);
        self.claims.push(claim);
        tracing::debug!(claims = self.claims.len(), "a claim was added");
        self.claims_came = true;
        if !self.claimants.iter().any(|(key, _)| *key == node) {
            return;
        }
        // Whoever waits for the answer is in when it comes.
        self.approve(now).await;
        let (waiting, rest) = std::mem::take(&mut self.claimants)
            .into_iter()
            .partition(|(key, _)| *key == node);
        self.claimants = rest;
        for (_, reply) in waiting {
            // Whoever asked may be gone.
            let _ = reply.send(Ok(wire.to_vec()));
        }
    }
}

pub(super) fn topic(topic: realm_p2p::Topic) -> realm_protocol::Topic {
    match topic {
        realm_p2p::Topic::Heads => realm_protocol::Topic::Heads,
        realm_p2p::Topic::Status => realm_protocol::Topic::Status,
    }
}

fn network_topic(topic: realm_protocol::Topic) -> realm_p2p::Topic {
    match topic {
        realm_protocol::Topic::Heads => realm_p2p::Topic::Heads,
        realm_protocol::Topic::Status => realm_p2p::Topic::Status,
    }
}

pub(super) fn verdict(verdict: realm_protocol::Verdict) -> realm_p2p::Verdict {
    match verdict {
        realm_protocol::Verdict::Accept => realm_p2p::Verdict::Accept,
        realm_protocol::Verdict::Ignore => realm_p2p::Verdict::Ignore,
        realm_protocol::Verdict::Reject => realm_p2p::Verdict::Reject,
    }
}

/// A refusal in the words of the control protocol.
fn refused(refusal: &realm_protocol::Refusal) -> RpcError {
    use realm_protocol::Refusal;
    let code = match refusal {
        Refusal::HeadMoved { .. } => ErrorCode::Conflict,
        Refusal::Forked => ErrorCode::Forked,
        Refusal::BadAuthor { .. } | Refusal::Authority(_) => ErrorCode::NotAuthorised,
        Refusal::Busy | Refusal::TooManySiblings { .. } | Refusal::StateTooLarge { .. } => {
            ErrorCode::Limit
        }
        Refusal::Storage => ErrorCode::Failed,
        Refusal::Incompatible { .. } => ErrorCode::Unsupported,
        _ => ErrorCode::Invalid,
    };
    RpcError::new(code, refusal.to_string())
}

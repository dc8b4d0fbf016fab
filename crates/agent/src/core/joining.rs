//! How this node comes into the realm, and who else is in it.

use std::collections::BTreeMap;

use realm_identity::{Claim, Invite, PublicKey, Signed};
use realm_protocol::{Event, Now};

use super::Core;
use crate::{
    approvals::{Approval, ByChain, expulsions},
    fold::chain,
    whereabouts,
};

/// Nodes of the local network are found within this; then a first node begins the realm.
const ALONE_MS: u64 = 2_000;
/// The same while somebody is there who may begin it instead, or belong to another realm.
const SOMEBODY_MS: u64 = 10_000;
/// An invite that did not let its node in within this needs the owner after all.
const BY_INVITE_MS: u64 = 10_000;

impl Core {
    /// The claim of the invite that this node took up, with that invite.
    fn invite(&self) -> Option<(Signed<Claim>, Signed<Invite>)> {
        let claim = match self.trust.claim() {
            Ok(claim) => claim?,
            Err(error) => {
                tracing::error!(error = chain(&error), "the invite is lost");
                return None;
            }
        };
        let invite = Signed::from_wire(&claim.invite).ok()?;
        Some((claim, invite))
    }

    /// What a start makes of an invite: the realm's genesis is inside it, and the claim follows
    /// once that is on disk.
    pub(super) fn take_up_invite(&mut self, now: Now) {
        if self.state.is_some() {
            return self.present_claim(now);
        }
        if let Some((_, invite)) = self.invite() {
            let genesis = invite.genesis.clone();
            self.node.handle(Event::Found { genesis }, now);
        }
    }

    /// Shows the claim of the invite that was taken up to everyone, until it is witnessed.
    pub(super) fn present_claim(&mut self, now: Now) {
        if self.approved.contains_key(&self.key.public()) {
            return;
        }
        if let Some((claim, _)) = self.invite() {
            let claim = claim.to_wire();
            self.node.handle(Event::Claim { claim }, now);
            self.begin_realm(now);
        }
    }

    /// The first node of a realm has nobody who could vouch for it, and does so itself: where its
    /// invite knows no address but this node's own, and nobody of the local network answered for a while. Of
    /// several that begin at once the one with the lowest key goes first.
    pub(super) fn begin_realm(&mut self, now: Now) {
        if self.begun || self.state.is_none() || !self.approved.is_empty() {
            return;
        }
        let waited = now.mono.saturating_sub(self.started_mono);
        let me = self.key.public();
        // Operators are connected as well; only nodes announce themselves.
        let others = self.neighbours.iter().any(|peer| *peer < me);
        let patience = match (self.mdns, others) {
            (false, _) => 0,
            (true, false) => ALONE_MS,
            (true, true) => SOMEBODY_MS,
        };
        if waited < patience {
            return;
        }
        let Some((claim, invite)) = self.invite() else {
            self.begun = true;
            return;
        };
        // Where this node listens is known a moment after its start.
        if waited < ALONE_MS && !invite.addresses.is_empty() {
            return;
        }
        // An invite that is refused now will not be better in a second.
        self.begun = true;
        let is_own = |at: &String| whereabouts::is_one_of(at, &self.addresses);
        if invite.addresses.iter().all(is_own) {
            self.witness(claim, now);
        }
    }

    /// Whether an invite is about to let this node in, so that nobody needs to be asked.
    pub(super) fn joins_by_invite(&self, now: Now) -> bool {
        let me = self.key.public();
        let waited = now.mono.saturating_sub(self.started_mono);
        waited < BY_INVITE_MS
            && !self.is_decided(&me)
            && !self.is_revoked(&me)
            // One that was witnessed and does not count never will.
            && !self.claims.iter().any(|claim| claim.claim.node == me)
            && self.invite().is_some()
    }

    pub(super) fn ask_to_join(&mut self, now: Now) {
        if self.approved.contains_key(&self.key.public()) {
            return;
        }
        // The owner would be asked for what is decided already; housekeeping comes back to it.
        self.asked_to_join = !self.joins_by_invite(now);
        if !self.asked_to_join {
            return;
        }
        let request = realm_protocol::JoinRequest {
            v: 1,
            node: self.key.public(),
            realm: self.realm(),
            name: self.reporter.name(),
            tags: self.reporter.tags(),
            addresses: self.addresses.clone(),
            version: crate::VERSION.to_owned(),
            at: now.wall,
        };
        let request = Signed::sign(request, &self.key).unwrap_or_else(|never| match never {});
        self.node.handle(
            Event::Join {
                request: request.to_wire(),
            },
            now,
        );
    }

    /// Asks for what an invite did not bring in time.
    pub(super) async fn ask_late(&mut self, now: Now) {
        if self.asked_to_join {
            return;
        }
        self.ask_to_join(now);
        if self.asked_to_join {
            self.publish_view().await;
        }
    }

    /// Why this node gets no work; None when it does.
    pub(super) fn unready(&self) -> Option<String> {
        let me = self.key.public();
        if self.incompatible.is_some() {
            Some("a newer version of realm wrote to the log: upgrade this node".to_owned())
        } else if self.is_revoked(&me) {
            let next = "realm leave, then realm enroll with a new invite, makes it a new node";
            Some(format!("the owner revoked this node: {next}"))
        } else if self.realm().is_none() {
            Some("in no realm yet: enroll with an invite".to_owned())
        } else if !self.approved.contains_key(&me) {
            Some(match self.joins_by_invite(self.clock.now()) {
                true => "joining by an invite: a node of the realm has yet to answer".to_owned(),
                false => "not approved by the owner yet".to_owned(),
            })
        } else if !self.node.is_caught_up() {
            Some("reading the log of the realm".to_owned())
        } else {
            self.problem()
        }
    }

    /// Who counts as approved by the log and the claims as they are.
    pub(super) fn approved_now(&mut self) -> BTreeMap<PublicKey, Approval> {
        let Some(state) = &self.state else {
            return BTreeMap::new();
        };
        let (chain, owners) = (ByChain::of(state), state.owners());
        self.checked
            .approved(state.realm, &owners, &chain, &self.claims)
    }

    /// Computes who is approved, and tells everyone who must know.
    pub(super) async fn approve(&mut self, now: Now) {
        let Some(state) = &self.state else {
            self.publish_view().await;
            return;
        };
        let expelled = expulsions(state);
        let approved = self.approved_now();
        let before = std::mem::replace(&mut self.approved, approved);
        let me = self.key.public();
        if !before.contains_key(&me) && self.approved.contains_key(&me) {
            self.member_since = now.mono;
        }
        for (key, approval) in &self.approved {
            if !before.contains_key(key) {
                let name = approval
                    .name
                    .as_ref()
                    .map_or_else(|| key.short(), ToString::to_string);
                self.events
                    .record(now.wall, "approved", name, format!("{key} is approved"));
                self.node.handle(Event::JoinSettled { node: *key }, now);
            }
        }
        self.presence
            .set_members(self.approved.keys().copied().collect());
        let nodes = self.approved.keys().copied().collect();
        self.twins.retain(&nodes);
        self.node.handle(Event::Approved { nodes }, now);
        self.node.handle(Event::Expelled { nodes: expelled }, now);
        let keys = self.approved.keys().copied().collect();
        if self.network.set_approved(keys).await.is_err() {
            tracing::warn!("the network has stopped");
        }
        self.tell_alarms(now);
        self.replan = true;
        self.publish_view().await;
        self.publish_sources().await;
        if before.contains_key(&me) && !self.approved.contains_key(&me) {
            // It may be let in again; a revoked one is not heard.
            self.ask_to_join(now);
        }
    }
}

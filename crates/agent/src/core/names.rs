//! What nodes are called, and what the owner must decide about them.

use std::collections::BTreeSet;

use realm_identity::PublicKey;
use realm_manifest::{NodeName, Tag};
use realm_planner::Standing;
use realm_protocol::Now;
use realm_rpc::{PendingNode, status::Alarm};

use super::Core;
use crate::{alarms, clock, naming};

impl Core {
    /// The name the owner gave, else the one the node reports or asks for, else the start of its key.
    pub(crate) fn node_name(&self, key: &PublicKey) -> String {
        let approval = self.approved.get(key);
        let given = approval.and_then(|approval| approval.name.clone());
        let name = given
            .or_else(|| naming::recorded(self.state.as_ref()?, &self.claims, key))
            .or_else(|| naming::invited(&self.claims, key))
            .or_else(|| (*key == self.key.public()).then(|| self.reporter.node_name()))
            .or_else(|| Some(self.reports.get(key)?.report.name.clone()))
            .or_else(|| self.asked_name(key));
        name.map_or_else(|| key.short(), |name| name.to_string())
    }

    fn asked_name(&self, key: &PublicKey) -> Option<NodeName> {
        let mut joins = self.node.joins();
        joins.find(|join| join.node == *key)?.name.parse().ok()
    }

    /// Whether the owner has let the node in, or kept it out.
    pub(super) fn is_decided(&self, key: &PublicKey) -> bool {
        let state = self.state.as_ref();
        let record = state.and_then(|state| state.nodes.get(key));
        self.approved.contains_key(key) || record.is_some()
    }

    /// Nodes that used an invite which another one used as well, and wait for the owner.
    pub(crate) fn contested(&self) -> BTreeSet<PublicKey> {
        alarms::contested(&self.claims, |node| self.is_decided(node))
    }

    /// What the owner must look at.
    pub(crate) fn alarms(&self) -> Vec<Alarm> {
        let names = self.approved.keys();
        let names = names.map(|key| (*key, self.node_name(key)));
        let mut alarms = alarms::invites(&self.claims, |node| self.is_decided(node));
        alarms.extend(alarms::names(names));
        let me = self.key.public();
        let present = self.approved.keys().filter(|key| self.is_present(key));
        let clocks = present.filter_map(|key| {
            let seen = self.reports.get(key)?;
            let of = (*key, self.node_name(key));
            (*key != me).then_some((of, seen.report.at, seen.at))
        });
        alarms.extend(alarms::clocks(&self.node_name(&me), clocks));
        let mono = self.clock.now().mono;
        let twins = self.approved.keys();
        let twins = twins.filter(|key| self.twins.has(key, mono));
        alarms.extend(alarms::twins(twins.map(|key| (*key, self.node_name(key)))));
        alarms
    }

    /// Records alarms that are new.
    pub(super) fn tell_alarms(&mut self, now: Now) {
        let alarms = self.alarms();
        for alarm in &alarms {
            let same = |told: &Alarm| (&told.code, &told.nodes) == (&alarm.code, &alarm.nodes);
            if !self.alarms_told.iter().any(same) {
                let message = format!("{}; {}", alarm.message, alarm.help);
                self.events
                    .record(now.wall, "alarm", alarm.code.clone(), message);
            }
        }
        self.alarms_told = alarms;
    }

    /// Who asks to join: also this node itself, which may be the realm's first, and nodes that came
    /// with an invite that does not count.
    pub(super) fn pending(&self) -> Vec<PendingNode> {
        let me = self.key.public();
        let waits = !self.approved.contains_key(&me)
            && !self.is_revoked(&me)
            && !self.joins_by_invite(self.clock.now());
        let own = waits.then(|| PendingNode {
            key: me,
            name: self.node_name(&me),
            tags: self.reporter.tags(),
            address: self.addresses.first().cloned().unwrap_or_default(),
            first_seen: clock::wall(),
        });
        let mut pending: Vec<PendingNode> = own.into_iter().collect();
        let asking = self.node.joins().filter(|join| {
            join.node != me
                && !self.approved.contains_key(&join.node)
                && !self.is_revoked(&join.node)
        });
        pending.extend(asking.map(|join| PendingNode {
            key: join.node,
            name: self.node_name(&join.node),
            // Words of a stranger: what is no tag is left out.
            tags: checked(&join.tags),
            address: join.addresses.first().cloned().unwrap_or_default(),
            first_seen: *self.pending_since.get(&join.node).unwrap_or(&join.at),
        }));
        for key in self.contested() {
            match pending.iter_mut().find(|node| node.key == key) {
                Some(node) => node.tags.extend(self.invited_tags(&key)),
                None => pending.push(PendingNode {
                    key,
                    name: self.node_name(&key),
                    tags: self.invited_tags(&key),
                    address: String::new(),
                    first_seen: self.claimed_at(&key),
                }),
            }
        }
        pending
    }

    pub(super) fn is_revoked(&self, node: &PublicKey) -> bool {
        let record = self.state.as_ref().and_then(|state| state.nodes.get(node));
        let me = *node == self.key.public();
        record.is_some_and(|record| record.standing == Standing::Revoked)
            || (me && self.node.was_told_revoked() && !self.approved.contains_key(node))
    }

    fn invited_tags(&self, key: &PublicKey) -> Vec<String> {
        let invite = naming::used_invite(&self.claims, key);
        invite.map_or_else(Vec::new, |invite| checked(&invite.tags))
    }

    /// When a witness saw the node's claim.
    fn claimed_at(&self, key: &PublicKey) -> realm_identity::Timestamp {
        let claims = self.claims.iter().filter(|claim| claim.claim.node == *key);
        let times = claims.map(|claim| claim.witness.at);
        times.max().unwrap_or_default()
    }
}

fn checked(tags: &[String]) -> Vec<String> {
    let tags = tags.iter().filter(|tag| tag.parse::<Tag>().is_ok());
    tags.cloned().collect()
}

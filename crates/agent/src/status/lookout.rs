//! What the owner must look at, of what a survey shows.

use std::collections::BTreeSet;

use realm_identity::PublicKey;
use realm_manifest::report;
use realm_rpc::status::Alarm;

use super::Scene;
use crate::alarms;

impl Scene<'_> {
    /// What the owner must look at, by the claims that were shown.
    pub(super) fn alarms(&self) -> Vec<Alarm> {
        let decided =
            |key: &PublicKey| self.approved.contains_key(key) || self.state.nodes.contains_key(key);
        let names = self.approved.keys().map(|key| (*key, self.name(key)));
        let mut alarms = alarms::invites(&self.claims, decided);
        alarms.extend(alarms::names(names));
        let problems = self.approved.keys();
        let problems = problems.map(|key| (*key, self.name(key), self.problems(key)));
        alarms.extend(alarms::problems(problems));
        let here = self.approved.keys().filter(|key| self.is_here(key));
        let clocks = here.filter_map(|key| {
            let (report, seen) = (self.report(key)?, self.view(key).last_seen?);
            (*key != self.asked).then(|| ((*key, self.name(key)), report.at, seen))
        });
        alarms.extend(alarms::clocks(&self.name(&self.asked), clocks));
        alarms.extend(alarms::unheard(self.silent()));
        let twins = self.approved.keys().filter(|key| self.view(key).twin);
        alarms.extend(alarms::twins(twins.map(|key| (*key, self.name(key)))));
        alarms
    }

    /// How long ago the newest report came of each node that is here for a while, by the clock of the node
    /// that was asked. One that just came back has had no time to say anything.
    fn silent(&self) -> impl Iterator<Item = ((PublicKey, String), u64)> {
        let now = self.view(&self.asked).last_seen;
        let here = self.approved.keys().filter(|key| self.is_here(key));
        here.filter_map(move |key| {
            let view = self.view(key);
            let age = now?.millis_since(view.last_seen?);
            (view.settled && *key != self.asked).then(|| ((*key, self.name(key)), age))
        })
    }

    /// By whose word a node is in, where the log does not name it: they keep it in also after they
    /// were taken out themselves.
    pub(super) fn witnesses(&self, key: &PublicKey) -> Vec<PublicKey> {
        if !self.approved.contains_key(key) || self.state.nodes.contains_key(key) {
            return Vec::new();
        }
        let claims = self.claims.iter().filter(|claim| claim.claim.node == *key);
        let witnesses: BTreeSet<PublicKey> = claims.map(|claim| claim.witness.node).collect();
        witnesses.into_iter().collect()
    }

    /// What a node that is here says keeps it from doing its part.
    pub(super) fn problems(&self, key: &PublicKey) -> &[report::Reason] {
        let here = self.is_here(key) && self.approved.contains_key(key);
        let report = self.report(key).filter(|_| here);
        report.map_or(&[], |report| &report.problems)
    }
}

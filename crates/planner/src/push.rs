//! What the command line signs: the next entry, and a push that keeps what it does not name.

use realm_manifest::{
    ComponentSpec, Limits, Outbound, RestartPolicy, Tag, Volume,
    identity::{Artifact, Body, Entry, Hash, PublicKey, Target, Timestamp},
    payload::Payload,
};

use crate::State;

/// The flags of one push. None keeps the earlier setting, or takes the default of a new component.
#[derive(Debug, Clone, Default)]
pub struct PushPatch {
    /// `Some(None)` is of unknown source.
    pub source: Option<Option<String>>,
    /// `Some(None)` is one on every eligible node.
    pub replicas: Option<Option<u32>>,
    pub nodes: Option<Vec<PublicKey>>,
    pub tags: Option<Vec<Tag>>,
    pub memory_max_mb: Option<u32>,
    pub fuel: Option<u64>,
    pub fuel_per_sec: Option<u64>,
    pub epoch_ms: Option<u32>,
    /// `Some(None)` is none: a service.
    pub deadline_ms: Option<Option<u64>>,
    pub args: Option<Vec<String>>,
    pub env: Option<Vec<(String, String)>>,
    pub vars: Option<Vec<(String, String)>>,
    pub volumes: Option<Vec<Volume>>,
    pub allowed_outbound: Option<Vec<Outbound>>,
    pub restart: Option<RestartPolicy>,
}

impl PushPatch {
    /// The spec to sign: `artifact`, what the patch names, and the rest of `earlier`.
    pub fn apply(self, artifact: Artifact, earlier: Option<&ComponentSpec>) -> ComponentSpec {
        let mut spec = earlier
            .cloned()
            .unwrap_or_else(|| ComponentSpec::new(artifact));
        spec.artifact = artifact;
        set(&mut spec.source, self.source);
        set(&mut spec.replicas, self.replicas);
        set(&mut spec.placement.nodes, self.nodes);
        set(&mut spec.placement.tags, self.tags);
        set(&mut spec.restart, self.restart);
        let Limits {
            memory_max_mb,
            fuel,
            fuel_per_sec,
            epoch_ms,
            deadline_ms,
            ..
        } = &mut spec.limits;
        set(memory_max_mb, self.memory_max_mb);
        set(fuel, self.fuel);
        set(fuel_per_sec, self.fuel_per_sec);
        set(epoch_ms, self.epoch_ms);
        set(deadline_ms, self.deadline_ms);
        set(&mut spec.grants.args, self.args);
        set(&mut spec.grants.env, self.env);
        set(&mut spec.grants.vars, self.vars);
        set(&mut spec.grants.volumes, self.volumes);
        set(&mut spec.grants.allowed_outbound, self.allowed_outbound);
        spec.normalize();
        spec
    }
}

/// The entry that follows `head`, where `state` is folded up to it.
pub fn next_entry(
    state: &State,
    head: Hash,
    author: PublicKey,
    target: Target,
    payload: &Payload,
    issued_at: Timestamp,
) -> Entry {
    let body = Body {
        state: state.digest(),
        kind: payload.kind().number(),
        target,
        not_after: None,
        issued_at,
        payload: Artifact::of(&payload.encode()),
    };
    Entry::new(state.realm, author, state.revision + 1, head, body)
}

fn set<T>(slot: &mut T, value: Option<T>) {
    if let Some(value) = value {
        *slot = value;
    }
}

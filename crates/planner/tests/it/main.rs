//! Scenes of the fold and the plan.
#![allow(clippy::unwrap_used)]

mod bounds;
mod ended;
mod fold;
mod partition;
mod placement;
mod plan;
mod push;
mod restarts;
mod simulation;
mod status;
mod unchanged;

use std::sync::Arc;

use realm_manifest::{
    ComponentSpec,
    identity::{Artifact, Genesis, Hash, PublicKey, SecretKey, Target, Timestamp},
    payload::{NodeFacts, Payload, Push},
    report::{Capacity, CellReport, CellState, Held, NodeReport, NodeState},
};
use realm_planner::{NodeView, Nodes, State, cell_digest, fold as folding, next_entry};

pub fn key(seed: u8) -> SecretKey {
    SecretKey::from_seed(&[seed; 32])
}

pub fn owner() -> PublicKey {
    key(1).public()
}

pub fn genesis() -> State {
    State::genesis(&Genesis::new(owner(), "home".into(), [0; 32]))
}

pub fn target(name: &str) -> Target {
    Target::Component(name.into())
}

pub fn push(replicas: Option<u32>) -> Payload {
    let mut spec = ComponentSpec::new(Artifact::of(b"wasm"));
    spec.replicas = replicas;
    Payload::Push(Push {
        spec,
        run: None,
        note: None,
    })
}

/// Folds one intent of the owner; the hash of the parent does not matter to the fold.
pub fn fold(
    state: &State,
    target: Target,
    payload: &Payload,
) -> Result<State, realm_planner::FoldError> {
    let entry = next_entry(
        state,
        Hash::of(b"parent"),
        state.owner,
        target,
        payload,
        Timestamp(1),
    );
    folding::apply(state, &entry, &payload.encode())
}

pub fn node(seed: u8) -> (PublicKey, NodeView) {
    let view = NodeView {
        tags: vec!["edge".parse().unwrap()],
        present: true,
        settled: true,
        boot_id: None,
        report: None,
    };
    (key(seed).public(), view)
}

pub fn nodes(count: u8) -> Nodes {
    (10..10 + count).map(node).collect()
}

/// What a node that has reported says, to be changed.
pub fn said(view: &mut NodeView) -> &mut NodeReport {
    Arc::make_mut(view.report.as_mut().unwrap())
}

/// A report that says what a node has.
pub fn report(node: PublicKey, state: &State, cells: Vec<CellReport>) -> NodeReport {
    NodeReport {
        node,
        realm: state.realm,
        boot_id: 1,
        seq: 1,
        at: Timestamp(1),
        revision: state.revision,
        head: Hash::of(b"head"),
        state: NodeState::Ready,
        name: "node".parse().unwrap(),
        tags: Vec::new(),
        version: String::new(),
        addresses: Vec::new(),
        cpu_hundredths: None,
        memory_bytes: None,
        capacity: Capacity {
            memory_mb: 4096,
            cells: 100,
        },
        cells,
        declined: Vec::new(),
        holds: Vec::new(),
        sealing: None,
        problems: Vec::new(),
    }
}

pub fn running(state: &State, name: &str, index: u32) -> CellReport {
    let component = &state.components[&name.parse().unwrap()];
    CellReport {
        component: name.parse().unwrap(),
        index,
        spec: cell_digest(&component.spec),
        generation: component.generation,
        state: CellState::Running,
        reason: None,
        restarts: 0,
        memory_bytes: 0,
        fuel_used: None,
        preemptions: 0,
        started_at: None,
        exit_code: None,
        retry: None,
    }
}

/// A state with one component, `web`.
pub fn web(replicas: Option<u32>) -> State {
    fold(&genesis(), target("web"), &push(replicas)).unwrap()
}

pub fn held(name: &str, cells: u32) -> Held {
    Held {
        component: name.parse().unwrap(),
        cells,
    }
}

/// Gives every component a named volume that it writes.
pub fn with_data(mut state: State) -> State {
    for component in state.components.values_mut() {
        component.spec.grants.volumes = vec!["data:/data:rw".parse().unwrap()];
    }
    state
}

/// Has the owner drain a node, or take it up again.
pub fn drain(state: &State, node: PublicKey, drain: bool) -> State {
    let facts = NodeFacts {
        name: format!(
            "node-{}",
            node.short()
                .to_lowercase()
                .replace(|c: char| !c.is_ascii_alphanumeric(), "-")
        )
        .parse()
        .unwrap(),
        tags: Vec::new(),
        drain,
        note: None,
    };
    fold(state, Target::Node(node), &Payload::NodeSet(facts)).unwrap()
}

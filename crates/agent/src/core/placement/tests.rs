//! A realm with one component of two replicas and one without a number.
#![allow(clippy::unwrap_used)]

use realm_identity::{Genesis, Hash, SecretKey, Target, Timestamp};
use realm_manifest::{
    ComponentSpec,
    identity::Artifact,
    payload::{Payload, Push},
    report::{Capacity, NodeReport, NodeState},
};
use realm_planner::{NodeView, State, fold, next_entry};

use super::*;

const ALL: Learnt = Learnt {
    log: true,
    others: true,
};

fn key(seed: u8) -> PublicKey {
    SecretKey::from_seed(&[seed; 32]).public()
}

fn pushed(state: &State, name: &str, replicas: Option<u32>) -> State {
    let mut spec = ComponentSpec::new(Artifact::of(b"wasm"));
    spec.replicas = replicas;
    let payload = Payload::Push(Push {
        spec,
        run: None,
        note: None,
    });
    let (target, parent) = (Target::Component(name.into()), Hash::of(b"parent"));
    let entry = next_entry(state, parent, state.owner, target, &payload, Timestamp(1));
    fold::apply(state, &entry, &payload.encode()).unwrap()
}

fn state() -> State {
    let genesis = Genesis::new(key(1), "home".into(), [0; 32]);
    let state = pushed(&State::genesis(&genesis), "shared", Some(2));
    pushed(&state, "everywhere", None)
}

fn view(node: PublicKey, state: &State, is_heard: bool) -> NodeView {
    let report = NodeReport {
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
        cells: Vec::new(),
        declined: Vec::new(),
        holds: Vec::new(),
        sealing: None,
        problems: vec![],
    };
    NodeView {
        tags: Vec::new(),
        present: true,
        settled: true,
        boot_id: None,
        report: is_heard.then_some(report.into()),
    }
}

/// What one of two nodes starts.
fn started(is_other_heard: bool, learnt: Learnt) -> Vec<String> {
    let state = state();
    let (me, other) = (key(10), key(11));
    let nodes = Nodes::from([
        (me, view(me, &state, true)),
        (other, view(other, &state, is_other_heard)),
    ]);
    let input = PlanInput {
        state: &state,
        me,
        nodes: &nodes,
        own: &[],
    };
    let started = steps(&input, learnt).into_iter().map(|step| match step {
        Step::Start { component, .. } => component.to_string(),
        step => panic!("not asked for: {step:?}"),
    });
    started.collect()
}

#[test]
fn a_newcomer_starts_nothing_before_it_has_read_the_log() {
    let unread = Learnt { log: false, ..ALL };
    assert!(started(true, unread).is_empty());
    assert_eq!(started(true, ALL), ["everywhere", "shared"]);
}

#[test]
fn what_others_may_run_waits_until_they_spoke_or_had_the_time() {
    let early = Learnt {
        others: false,
        ..ALL
    };
    assert_eq!(started(false, early), ["everywhere"]);
    assert_eq!(started(true, early), ["everywhere", "shared"]);
    assert_eq!(started(false, ALL), ["everywhere", "shared"]);
}

//! What the fold refuses: specs that nodes do not run, and more than a realm has room for.

use realm_manifest::{
    MAX_REPLICAS, NodeName,
    identity::{SecretKey, Target},
    payload::{NodeFacts, Note, Payload, Scale},
};
use realm_planner::{Component, FoldError, NodeRecord, Standing, State, fold as folding};

use super::{fold, genesis, key, push, target, web};

#[test]
fn a_spec_that_breaks_a_bound_is_neither_pushed_nor_scaled_to() {
    let refused = |state: &State, payload: &Payload| {
        let error = fold(state, target("web"), payload).unwrap_err();
        let FoldError::Spec(words) = &error else {
            panic!("{error}");
        };
        assert_eq!(words, "replicas: is 1001, must be 0 to 1000");
    };
    refused(&genesis(), &push(Some(MAX_REPLICAS + 1)));
    let scale = |replicas| {
        Payload::Scale(Scale {
            replicas: Some(replicas),
            note: None,
        })
    };
    refused(&web(Some(1)), &scale(MAX_REPLICAS + 1));
    fold(&web(Some(1)), target("web"), &scale(MAX_REPLICAS)).unwrap();
}

/// A realm with so many components, `web` among them.
fn with_components(count: usize) -> State {
    let mut state = web(None);
    let (_, component) = state.components.first_key_value().unwrap();
    let one: Component = component.clone();
    let others = (1..count).map(|index| (format!("other-{index}").parse().unwrap(), one.clone()));
    state.components.extend(others);
    state
}

#[test]
fn a_realm_takes_its_last_component_and_none_after_it() {
    let before = with_components(folding::MAX_COMPONENTS - 1);
    let full = fold(&before, target("last"), &push(None)).unwrap();
    assert_eq!(full.components.len(), folding::MAX_COMPONENTS);
    assert!(matches!(
        fold(&full, target("one-more"), &push(None)),
        Err(FoldError::TooMany {
            what: "components",
            max: 1000
        })
    ));
    // Those that it has can still be changed, and one that goes leaves its place.
    fold(&full, target("web"), &push(Some(3))).unwrap();
    let remove = Payload::Remove(Note::default());
    let fewer = fold(&full, target("web"), &remove).unwrap();
    fold(&fewer, target("one-more"), &push(None)).unwrap();
}

/// A realm whose log names so many nodes, one of which is approved.
fn with_nodes(count: usize) -> State {
    let mut state = genesis();
    for index in 0..count as u64 {
        let mut seed = [0xff; 32];
        seed[..8].copy_from_slice(&index.to_be_bytes());
        let record = NodeRecord {
            name: NodeName::new("gone").unwrap(),
            tags: Vec::new(),
            standing: match index {
                0 => Standing::Approved,
                _ => Standing::Removed,
            },
            draining: false,
            revision: 0,
        };
        let node = SecretKey::from_seed(&seed).public();
        state.nodes.insert(node, record);
    }
    state
}

#[test]
fn the_log_names_its_last_node_and_none_after_it() {
    let before = with_nodes(folding::MAX_NODES - 1);
    let approve = |name: &str| {
        Payload::NodeApprove(NodeFacts {
            name: name.parse().unwrap(),
            tags: Vec::new(),
            drain: false,
            note: None,
        })
    };
    let remove = Payload::NodeRemove(Note::default());
    let revoke = Payload::NodeRevoke(Note::default());
    let node = |seed| Target::Node(key(seed).public());
    for payload in [&approve("last"), &remove, &revoke] {
        let full = fold(&before, node(10), payload).unwrap();
        assert_eq!(full.nodes.len(), folding::MAX_NODES);
        for another in [&approve("one-more"), &remove, &revoke] {
            assert!(matches!(
                fold(&full, node(11), another),
                Err(FoldError::TooMany {
                    what: "nodes",
                    max: 4096
                })
            ));
        }
        // Of those that it names more can be said.
        fold(&full, node(10), &revoke).unwrap();
    }
}

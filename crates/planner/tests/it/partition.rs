//! Nodes that lost each other for a while, and take each other for unsettled.

use std::collections::BTreeMap;

use proptest::prelude::*;
use realm_manifest::identity::PublicKey;
use realm_planner::{Nodes, State, placement::assign};

use super::{
    fold, genesis, nodes,
    placement::{any_components, any_nodes, counts},
    push, report, running,
    simulation::Realm,
    target, web,
};

/// The nodes as those of one half see them, just after it has the others back.
fn seen_from(half: usize, nodes: &Nodes) -> Nodes {
    let middle = nodes.len() / 2;
    let mut seen = nodes.clone();
    for (at, node) in seen.values_mut().enumerate() {
        node.settled = usize::from(at >= middle) == half;
    }
    seen
}

/// Every node acts on what its own half thinks of the other, a few times.
fn act_apart(realm: &mut Realm, mut watch: impl FnMut(&Realm)) {
    let here = realm.here();
    for _ in 0..4 {
        for (at, node) in here.iter().enumerate() {
            realm.nodes = seen_from(usize::from(at >= here.len() / 2), &realm.nodes);
            realm.round(&[*node], &[*node]);
            watch(realm);
        }
    }
    for node in realm.nodes.values_mut() {
        node.settled = true;
    }
}

/// Says that these nodes run one cell of `web` each.
fn with_cells(state: &State, nodes: &Nodes, holders: &[PublicKey]) -> Nodes {
    let mut nodes = nodes.clone();
    for (key, node) in &mut nodes {
        let cell = || running(state, "web", 0);
        let cells = holders.contains(key).then(cell).into_iter().collect();
        node.report = Some(report(*key, state, cells).into());
    }
    nodes
}

#[test]
fn work_that_is_new_after_a_partition_is_started_once() {
    for name in 'a'..='p' {
        for replicas in 1..=5 {
            let name = name.to_string();
            let state = fold(&genesis(), target(&name), &push(Some(replicas))).unwrap();
            let mut realm = Realm::new(state, nodes(4));
            realm.here().iter().for_each(|node| realm.publish(*node));
            let most = replicas as usize;
            act_apart(&mut realm, |realm| assert!(realm.all() <= most));
            assert_eq!((realm.running(), realm.all()), (most, most));
            // Nor does it start again when it is done and the nodes trust each other.
            realm.finish(&name);
            realm.settle(|realm| assert_eq!(realm.all(), most));
            assert_eq!(realm.running(), 0);
        }
    }
}

#[test]
fn what_one_half_started_is_not_started_by_the_other_when_it_learns_of_it() {
    let state = web(Some(1));
    for holder in nodes(4).into_keys() {
        let mut realm = Realm::new(state.clone(), nodes(4));
        realm.litter(holder, "web", 0);
        realm.here().iter().for_each(|node| realm.publish(*node));
        act_apart(&mut realm, |realm| assert_eq!(realm.all(), 1));
        assert_eq!(realm.cells[&holder].len(), 1);
        // Then it moves to where it belongs.
        realm.settle(|realm| assert!(realm.running() >= 1));
        assert_eq!((realm.running(), realm.all()), (1, 1));
        assert_eq!(realm.counts(), counts(&state, &nodes(4)));
    }
}

#[test]
fn each_half_keeps_what_it_runs_until_the_other_has_stayed() {
    let state = web(Some(1));
    let keys: Vec<PublicKey> = nodes(4).into_keys().collect();
    for (near, far) in [(0, 2), (0, 3), (1, 2), (1, 3)] {
        let all = with_cells(&state, &nodes(4), &[keys[near], keys[far]]);
        for (half, keeps) in [(0, near), (1, far)] {
            let kept = counts(&state, &seen_from(half, &all));
            assert_eq!(kept, BTreeMap::from([(keys[keeps], 1)]));
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(256))]

    #[test]
    fn who_is_settled_decides_nothing_about_work_that_runs_nowhere(
        state in any_components(),
        all in any_nodes(&web(None)),
        settled in prop::collection::vec(any::<bool>(), 8),
    ) {
        let mut other = all.clone();
        for (node, settled) in other.values_mut().zip(settled) {
            node.settled = settled;
        }
        prop_assert_eq!(assign(&state, &all), assign(&state, &other));
    }

    #[test]
    fn no_more_cells_than_asked_stay_where_they_are_while_one_node_is_unsettled(
        replicas in 1u32..8,
        holds in prop::collection::vec(any::<bool>(), 7),
        settled in prop::collection::vec(any::<bool>(), 7),
    ) {
        let state = web(Some(replicas));
        let keys: Vec<PublicKey> = nodes(7).into_keys().collect();
        let holders = keys.iter().zip(holds).filter(|(_, holds)| *holds);
        let holders: Vec<PublicKey> = holders.map(|(key, _)| *key).take(replicas as usize).collect();
        let mut all = with_cells(&state, &nodes(7), &holders);
        all.values_mut().next().unwrap().settled = false;
        let placed = counts(&state, &all);
        prop_assert_eq!(placed.values().sum::<u32>(), replicas);
        prop_assert!(holders.iter().all(|holder| placed.contains_key(holder)));
        for (node, settled) in all.values_mut().skip(1).zip(settled) {
            node.settled = settled;
        }
        prop_assert_eq!(counts(&state, &all), placed, "whoever else is unsettled");
    }
}

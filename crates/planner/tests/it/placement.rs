//! Who runs what, and how nodes get there.

use std::collections::BTreeSet;

use proptest::prelude::*;
use realm_manifest::{
    identity::PublicKey,
    payload::{Note, Payload, Restart},
    report::{Declined, Reason},
};
use realm_planner::{
    Nodes, OwnCell, PlanInput, State, Step, StopReason, cell_digest, placement::assign, plan,
};

use super::{Cells, fold, genesis, key, nodes, push, report, running, target};

fn state(replicas: Option<u32>) -> State {
    fold(&genesis(), target("web"), &push(replicas)).unwrap()
}

fn holders(state: &State, nodes: &Nodes) -> Vec<PublicKey> {
    let assignment = assign(state, nodes);
    let indices = &assignment[&"web".parse().unwrap()];
    indices.values().flatten().copied().collect()
}

/// Every node plans and acts, and reports, until nobody has anything to do.
fn settle(state: &State, nodes: &mut Nodes, cells: &mut Cells) {
    for _ in 0..20 {
        let mut calm = true;
        for me in nodes.keys().copied().collect::<Vec<_>>() {
            let own = cells.entry(me).or_default();
            let steps = plan(&PlanInput {
                state,
                me,
                nodes,
                own,
            });
            calm &= steps.is_empty();
            act(own, steps);
        }
        for (key, node) in nodes.iter_mut() {
            let running = cells[key]
                .iter()
                .filter(|cell| state.components.contains_key(&cell.component))
                .map(|cell| running(state, cell.component.as_str(), cell.index))
                .collect();
            node.report = Some(report(*key, state, running));
        }
        if calm {
            return;
        }
    }
    panic!("the nodes never came to rest");
}

fn act(own: &mut Vec<OwnCell>, steps: Vec<Step>) {
    for step in steps {
        match step {
            Step::Start {
                component,
                index,
                spec,
                generation,
            }
            | Step::Replace {
                component,
                index,
                spec,
                generation,
            } => {
                own.retain(|cell| (&cell.component, cell.index) != (&component, index));
                own.push(OwnCell {
                    component,
                    index,
                    spec: cell_digest(&spec),
                    generation,
                });
            }
            Step::Stop {
                component, index, ..
            } => {
                own.retain(|cell| (&cell.component, cell.index) != (&component, index));
            }
        }
    }
}

fn count(cells: &Cells) -> usize {
    cells.values().map(Vec::len).sum()
}

#[test]
fn without_a_count_every_matching_node_runs_one() {
    assert_eq!(holders(&state(None), &nodes(5)).len(), 5);
    let mut some = nodes(5);
    some.get_mut(&key(10).public()).unwrap().tags.clear();
    let mut state = state(None);
    state
        .components
        .values_mut()
        .for_each(|web| web.spec.placement.tags = vec!["edge".parse().unwrap()]);
    assert_eq!(holders(&state, &some).len(), 4);
}

#[test]
fn replicas_spread_evenly_and_wrap_round() {
    for (replicas, most) in [(3, 1), (5, 1), (7, 2), (11, 3)] {
        let placed = holders(&state(Some(replicas)), &nodes(5));
        assert_eq!(placed.len(), replicas as usize);
        for node in nodes(5).keys() {
            assert!(placed.iter().filter(|other| *other == node).count() <= most);
        }
    }
}

#[test]
fn a_lost_nodes_replicas_move_and_come_back() {
    let state = state(Some(3));
    let (mut nodes, mut cells) = (nodes(5), Cells::new());
    settle(&state, &mut nodes, &mut cells);
    let before = holders(&state, &nodes);
    let lost = before[0];
    nodes.get_mut(&lost).unwrap().present = false;
    let mut there: Nodes = nodes.clone();
    there.remove(&lost);
    let mut others = cells.clone();
    others.remove(&lost);
    settle(&state, &mut there, &mut others);
    assert_eq!(count(&others), 3);
    assert!(!holders(&state, &nodes).contains(&lost));
    nodes.get_mut(&lost).unwrap().present = true;
    others.insert(lost, cells[&lost].clone());
    settle(&state, &mut nodes, &mut others);
    assert_eq!(holders(&state, &nodes), before);
    assert_eq!(count(&others), 3);
}

#[test]
fn a_moved_cell_runs_until_the_other_node_has_it() {
    let state = state(Some(1));
    let all = nodes(2);
    let holder = holders(&state, &all)[0];
    let other = *all.keys().find(|key| **key != holder).unwrap();
    let cell = OwnCell {
        component: "web".parse().unwrap(),
        index: 0,
        spec: cell_digest(&state.components.values().next().unwrap().spec),
        generation: 0,
    };
    let own = [cell];
    let input = |nodes| {
        plan(&PlanInput {
            state: &state,
            me: other,
            nodes,
            own: &own,
        })
    };
    assert!(input(&all).is_empty());
    let mut moved = all.clone();
    moved.get_mut(&holder).unwrap().report =
        Some(report(holder, &state, vec![running(&state, "web", 0)]));
    assert!(matches!(
        input(&moved)[..],
        [Step::Stop {
            why: StopReason::Moved,
            ..
        }]
    ));
}

#[test]
fn removal_stops_and_a_new_generation_replaces() {
    let state = state(None);
    let (mut nodes, mut cells) = (nodes(2), Cells::new());
    settle(&state, &mut nodes, &mut cells);
    let me = key(10).public();
    let restarted = fold(
        &state,
        target("web"),
        &Payload::Restart(Restart {
            generation: 1,
            note: None,
        }),
    )
    .unwrap();
    let steps = plan(&PlanInput {
        state: &restarted,
        me,
        nodes: &nodes,
        own: &cells[&me],
    });
    assert!(matches!(steps[..], [Step::Replace { generation: 1, .. }]));
    let removed = fold(&state, target("web"), &Payload::Remove(Note::default())).unwrap();
    let steps = plan(&PlanInput {
        state: &removed,
        me,
        nodes: &nodes,
        own: &cells[&me],
    });
    assert!(matches!(
        steps[..],
        [Step::Stop {
            why: StopReason::Removed,
            ..
        }]
    ));
    let steps = plan(&PlanInput {
        state: &state,
        me,
        nodes: &Nodes::new(),
        own: &cells[&me],
    });
    assert!(matches!(
        steps[..],
        [Step::Stop {
            why: StopReason::NotApproved,
            ..
        }]
    ));
}

#[test]
fn a_node_that_declines_or_is_full_is_passed_over() {
    let state = state(Some(1));
    let mut all = nodes(3);
    let first = holders(&state, &all)[0];
    let mut declining = report(first, &state, Vec::new());
    declining.declined.push(Declined {
        component: "web".parse().unwrap(),
        spec: cell_digest(&state.components.values().next().unwrap().spec),
        reason: Reason {
            code: "x".into(),
            message: "no".into(),
            help: None,
        },
    });
    all.get_mut(&first).unwrap().report = Some(declining);
    assert_ne!(holders(&state, &all)[0], first);
    let mut full = report(first, &state, Vec::new());
    full.capacity.memory_mb = 10;
    all.get_mut(&first).unwrap().report = Some(full);
    assert_ne!(holders(&state, &all)[0], first);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn any_start_comes_to_exactly_what_is_asked(
        count_nodes in 1u8..8,
        replicas in 1u32..12,
        littered in proptest::collection::vec((0u8..8, 0u32..14), 0..20),
    ) {
        let state = state(Some(replicas));
        let (mut nodes, mut cells) = (nodes(count_nodes), Cells::new());
        let spec = cell_digest(&state.components.values().next().unwrap().spec);
        let mut seen = BTreeSet::new();
        for (node, index) in littered {
            let node = key(10 + node % count_nodes).public();
            if seen.insert((node, index)) {
                cells.entry(node).or_default().push(OwnCell {
                    component: "web".parse().unwrap(), index, spec, generation: 0,
                });
            }
        }
        settle(&state, &mut nodes, &mut cells);
        prop_assert_eq!(count(&cells), replicas as usize);
        let indices: BTreeSet<u32> = cells.values().flatten().map(|cell| cell.index).collect();
        prop_assert_eq!(indices.len(), replicas as usize);
    }

    #[test]
    fn losing_a_node_moves_little(seed in 0u8..100, count_nodes in 4u8..10) {
        let replicas = u32::from(count_nodes) / 2;
        let state = state(Some(replicas));
        let all = nodes(count_nodes);
        let lost = key(10 + seed % count_nodes).public();
        let mut fewer = all.clone();
        fewer.remove(&lost);
        let (before, after) = (assign(&state, &all), assign(&state, &fewer));
        let name = "web".parse().unwrap();
        let moved = before[&name].iter().filter(|(index, holder)| after[&name].get(index) != Some(*holder)).count();
        let held = before[&name].values().filter(|holder| holder.contains(&lost)).count();
        prop_assert_eq!(moved > 0, held > 0);
    }
}

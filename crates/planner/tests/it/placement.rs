//! Who runs what.

use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;
use realm_manifest::{
    ComponentName,
    identity::PublicKey,
    payload::{Note, Payload, Restart},
    report::{Declined, NodeState, Reason},
};
use realm_planner::{
    Assignment, Nodes, State, cell_digest,
    placement::{self, assign},
    status::{Drift, components},
};

use super::{
    drain, fold, genesis, held, key, nodes, push, report, running, said, target, web, with_data,
};

pub fn counts(state: &State, nodes: &Nodes) -> BTreeMap<PublicKey, u32> {
    assign(state, nodes)[&"web".parse().unwrap()].clone()
}

fn total(state: &State, nodes: &Nodes) -> u32 {
    counts(state, nodes).values().sum()
}

fn refusal(state: &State) -> Declined {
    Declined {
        component: "web".parse().unwrap(),
        spec: cell_digest(&state.components.values().next().unwrap().spec),
        reason: Reason {
            code: "x".into(),
            message: "no".into(),
            help: None,
        },
    }
}

#[test]
fn without_a_count_every_matching_node_runs_one() {
    assert_eq!(total(&web(None), &nodes(5)), 5);
    let mut some = nodes(5);
    some.get_mut(&key(10).public()).unwrap().tags.clear();
    let mut state = web(None);
    state
        .components
        .values_mut()
        .for_each(|web| web.spec.placement.tags = vec!["edge".parse().unwrap()]);
    assert_eq!(total(&state, &some), 4);
    assert!(counts(&state, &some).values().all(|count| *count == 1));
}

#[test]
fn replicas_spread_evenly_and_wrap_round() {
    for (replicas, least, most) in [(3, 0, 1), (5, 1, 1), (7, 1, 2), (11, 2, 3)] {
        let placed = counts(&web(Some(replicas)), &nodes(5));
        assert_eq!(placed.values().sum::<u32>(), replicas);
        for node in nodes(5).keys() {
            let count = placed.get(node).copied().unwrap_or(0);
            assert!((least..=most).contains(&count), "{count} of {replicas}");
        }
    }
}

#[test]
fn components_do_not_all_choose_the_same_node() {
    let mut state = genesis();
    for name in 'a'..='p' {
        state = fold(&state, target(&name.to_string()), &push(Some(1))).unwrap();
    }
    let assignment = assign(&state, &nodes(4));
    let chosen: BTreeSet<_> = assignment
        .values()
        .flat_map(|counts| counts.keys())
        .collect();
    assert!(chosen.len() > 1);
}

#[test]
fn a_node_that_declines_or_is_full_is_passed_over() {
    let state = web(Some(1));
    let mut all = nodes(3);
    let first = *counts(&state, &all).keys().next().unwrap();
    let mut declining = report(first, &state, Vec::new());
    declining.declined.push(refusal(&state));
    all.get_mut(&first).unwrap().report = Some(declining.into());
    assert_eq!(total(&state, &all), 1);
    assert!(!counts(&state, &all).contains_key(&first));
    let mut full = report(first, &state, Vec::new());
    full.capacity.memory_mb = 10;
    all.get_mut(&first).unwrap().report = Some(full.into());
    assert_eq!(total(&state, &all), 1);
    assert!(!counts(&state, &all).contains_key(&first));
}

#[test]
fn a_node_of_an_older_version_keeps_what_it_understands_and_gets_nothing_new() {
    for replicas in [None, Some(2)] {
        let before = web(replicas);
        let mut all = nodes(2);
        let (old, new) = (key(10).public(), key(11).public());
        let mut behind = report(old, &before, vec![running(&before, "web", 0)]);
        behind.state = NodeState::Incompatible;
        all.get_mut(&old).unwrap().report = Some(behind.into());
        assert_eq!(counts(&before, &all).get(&old), Some(&1), "{replicas:?}");
        let again = Payload::Restart(Restart {
            generation: 1,
            note: None,
            nodes: Vec::new(),
        });
        let after = fold(&before, target("web"), &again).unwrap();
        let given = counts(&after, &all);
        assert!(!given.contains_key(&old) && given.contains_key(&new));
        let drift = &components(&after, &all)[0].drift;
        let why = |drift: &Drift| {
            drift
                .reason
                .as_ref()
                .is_some_and(|why| why.code == "incompatible")
        };
        assert_eq!(drift.iter().any(why), replicas.is_none(), "{drift:?}");
    }
}

#[test]
fn a_cell_with_data_stays_whoever_comes_or_goes() {
    let state = with_data(web(Some(2)));
    for holder in nodes(6).keys().copied() {
        let mut all = nodes(6);
        let cells = vec![running(&state, "web", 0)];
        all.get_mut(&holder).unwrap().report = Some(report(holder, &state, cells).into());
        assert!(counts(&state, &all)[&holder] >= 1);
        assert_eq!(total(&state, &all), 2);
        let mut away = all.clone();
        away.get_mut(&holder).unwrap().present = false;
        assert_eq!(
            counts(&state, &away)[&holder],
            1,
            "missed, and not replaced"
        );
        assert_eq!(total(&state, &away), 2);
        // Only its data is left, and another component has taken the room.
        let mut bare = report(holder, &state, Vec::new());
        bare.holds.push(held("web", 1));
        bare.capacity.memory_mb = 10;
        all.get_mut(&holder).unwrap().report = Some(bare.into());
        assert_eq!(total(&state, &all), 1);
        let asked = &state.components[&"web".parse().unwrap()];
        let name = "web".parse().unwrap();
        assert_eq!(
            placement::held(&state, &name, asked, &all),
            BTreeMap::from([(holder, 1)])
        );
    }
}

#[test]
fn what_is_not_held_goes_where_there_is_least() {
    let state = with_data(web(Some(4)));
    for holder in nodes(3).keys().copied() {
        let mut all = nodes(3);
        let cells = vec![running(&state, "web", 0), running(&state, "web", 1)];
        all.get_mut(&holder).unwrap().report = Some(report(holder, &state, cells).into());
        let mut counts: Vec<u32> = counts(&state, &all).into_values().collect();
        counts.sort_unstable();
        assert_eq!(counts, [1, 1, 2]);
    }
}

#[test]
fn of_too_many_with_data_those_that_run_come_first() {
    let state = with_data(web(Some(1)));
    let mut all = nodes(2);
    let (runs, idle) = (key(10).public(), key(11).public());
    for (runs, idle) in [(runs, idle), (idle, runs)] {
        let mut bare = report(idle, &state, Vec::new());
        bare.holds.push(held("web", 1));
        all.get_mut(&idle).unwrap().report = Some(bare.into());
        let cells = vec![running(&state, "web", 0)];
        all.get_mut(&runs).unwrap().report = Some(report(runs, &state, cells).into());
        assert_eq!(counts(&state, &all), BTreeMap::from([(runs, 1)]));
    }
}

#[test]
fn a_newcomer_takes_no_room_from_what_was_there() {
    let mut state = fold(&genesis(), target("zz"), &push(Some(3))).unwrap();
    let mut all = nodes(1);
    for (key, node) in &mut all {
        let mut says = report(*key, &state, vec![running(&state, "zz", 0)]);
        says.capacity.memory_mb = 5 * 64;
        node.report = Some(says.into());
    }
    let before = assign(&state, &all);
    let placed = |state: &State, name: &str| -> u32 {
        assign(state, &all)[&name.parse().unwrap()].values().sum()
    };
    state = fold(&state, target("aa"), &push(Some(100))).unwrap();
    assert_eq!((placed(&state, "zz"), placed(&state, "aa")), (3, 2));
    assert_eq!(
        before[&"zz".parse().unwrap()],
        assign(&state, &all)[&"zz".parse().unwrap()]
    );
    let status = &components(&state, &all)[0];
    assert_eq!(status.name.as_str(), "aa");
    let told = status.drift.iter().filter(|drift| drift.node.is_none());
    let codes: Vec<&str> = told
        .map(|drift| &*drift.reason.as_ref().unwrap().code)
        .collect();
    assert_eq!(codes, ["no-room"; 98]);

    // A later push makes nothing a newcomer, and a removal does.
    state = fold(&state, target("zz"), &push(Some(4))).unwrap();
    assert_eq!((placed(&state, "zz"), placed(&state, "aa")), (4, 1));
    state = fold(&state, target("zz"), &Payload::Remove(Note::default())).unwrap();
    state = fold(&state, target("zz"), &push(Some(4))).unwrap();
    assert_eq!((placed(&state, "zz"), placed(&state, "aa")), (0, 5));
}

/// Nodes of any room and standing towards `web`.
pub fn any_nodes(state: &State) -> impl Strategy<Value = Nodes> + use<> {
    let state = state.clone();
    prop::collection::vec((0u64..12, 0u32..12, 0u8..10), 1..8).prop_map(move |rooms| {
        let mut all = nodes(u8::try_from(rooms.len()).unwrap());
        for ((key, node), (memory, cells, kind)) in all.iter_mut().zip(rooms) {
            let mut says = report(*key, &state, Vec::new());
            says.capacity.memory_mb = memory * 64;
            says.capacity.cells = cells;
            match kind {
                0 => node.present = false,
                1 => says.declined.push(refusal(&state)),
                2 => continue,
                _ => {}
            }
            node.report = Some(says.into());
        }
        all
    })
}

/// Components with the names from `a` on, the oldest with the last name; each with its count and
/// its memory in slices of 64 MiB.
pub fn any_components() -> impl Strategy<Value = State> {
    let one = (prop::option::weighted(0.8, 0u32..8), 1u32..5);
    prop::collection::vec(one, 1..6).prop_map(|asked| {
        let mut state = genesis();
        let names: Vec<char> = ('a'..).take(asked.len()).collect();
        for ((replicas, slices), name) in asked.into_iter().zip(names.into_iter().rev()) {
            let name = name.to_string();
            state = fold(&state, target(&name), &push(replicas)).unwrap();
            let component = state.components.get_mut(&name.parse().unwrap()).unwrap();
            component.spec.limits.memory_max_mb = slices * 64;
        }
        state
    })
}

fn room(nodes: &Nodes, key: &PublicKey) -> (u64, u32) {
    nodes[key]
        .report
        .as_ref()
        .map_or((u64::MAX, u32::MAX), |report| {
            (report.capacity.memory_mb, report.capacity.cells)
        })
}

/// Memory and cells that the assignment reserves on a node.
fn reserved(state: &State, assignment: &Assignment, key: &PublicKey) -> (u64, u32) {
    assignment
        .iter()
        .fold((0, 0), |(memory, cells), (name, counts)| {
            let count = counts.get(key).copied().unwrap_or(0);
            let each = u64::from(state.components[name].spec.limits.memory_max_mb);
            (memory + each * u64::from(count), cells + count)
        })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(256))]

    #[test]
    fn losing_a_node_takes_no_cell_from_another(
        replicas in prop::option::weighted(0.9, 0u32..30),
        all in any_nodes(&web(None)),
        which in any::<prop::sample::Index>(),
    ) {
        let state = web(replicas);
        let before = counts(&state, &all);
        let lost = *which.get(&all.keys().copied().collect::<Vec<_>>());
        let mut fewer = all.clone();
        fewer.remove(&lost);
        let mut away = all.clone();
        away.get_mut(&lost).unwrap().present = false;
        let after = counts(&state, &fewer);
        prop_assert_eq!(&after, &counts(&state, &away), "gone and away are the same");
        prop_assert_eq!(&after, &counts(&drain(&state, lost, true), &all), "and draining is, too");
        for (node, count) in before.iter().filter(|(node, _)| **node != lost) {
            prop_assert!(after.get(node).is_some_and(|now| now >= count));
        }
        // Only what the lost node had is handed out anew.
        let moved: u32 = after.iter().map(|(node, now)| now - before.get(node).unwrap_or(&0)).sum();
        prop_assert!(moved <= before.get(&lost).copied().unwrap_or(0));
        fewer.insert(lost, all[&lost].clone());
        prop_assert_eq!(counts(&state, &fewer), before);
    }

    #[test]
    fn spread_differs_by_one_at_most_where_there_is_room(
        replicas in 0u32..40,
        all in any_nodes(&web(None)),
    ) {
        let state = web(Some(replicas));
        let placed = counts(&state, &all);
        let count = |node: &PublicKey| placed.get(node).copied().unwrap_or(0);
        let takes = |node: &PublicKey| {
            let (memory, cells) = room(&all, node);
            let declines = all[node].report.as_ref().is_some_and(|report| !report.declined.is_empty());
            let fits = u64::from(cells).min(memory / 64).min(u64::from(u32::MAX));
            if all[node].present && !declines { u32::try_from(fits).unwrap() } else { 0 }
        };
        let capacity: u64 = all.keys().map(|node| u64::from(takes(node))).sum();
        prop_assert_eq!(u64::from(placed.values().sum::<u32>()), u64::from(replicas).min(capacity));
        let most = placed.values().copied().max().unwrap_or(0);
        for node in all.keys() {
            prop_assert!(count(node) <= takes(node));
            prop_assert!(count(node) == takes(node) || count(node) + 1 >= most);
        }
    }

    /// With several components, a cell of another node moves only to make room for an older
    /// component; and never where every node has room for all that could come.
    #[test]
    fn with_little_room_only_an_older_component_pushes_a_younger_one_aside(
        state in any_components(),
        all in any_nodes(&web(None)),
        which in any::<prop::sample::Index>(),
    ) {
        let lost = *which.get(&all.keys().copied().collect::<Vec<_>>());
        let differ = |all: &Nodes| -> Option<(ComponentName, bool)> {
            let mut fewer = all.clone();
            fewer.remove(&lost);
            let (before, after) = (assign(&state, all), assign(&state, &fewer));
            // The oldest has the last name.
            before.iter().rev().find_map(|(name, before)| {
                let mut before = before.clone();
                before.remove(&lost);
                let after = &after[name];
                let gains = before.iter().all(|(node, count)| after.get(node).is_some_and(|now| now >= count));
                (before != *after).then(|| (name.clone(), gains))
            })
        };
        if let Some((first, gains)) = differ(&all) {
            prop_assert!(gains, "{first} is the first that changes, and loses a cell");
        }
        let mut roomy = all.clone();
        for view in roomy.values_mut().filter(|view| view.report.is_some()) {
            let room = &mut said(view).capacity;
            (room.memory_mb, room.cells) = (1 << 20, 1 << 10);
        }
        let mut fewer = roomy.clone();
        fewer.remove(&lost);
        let (before, after) = (assign(&state, &roomy), assign(&state, &fewer));
        for (name, counts) in before {
            for (node, count) in counts.iter().filter(|(node, _)| **node != lost) {
                prop_assert!(after[&name].get(node).is_some_and(|now| now >= count));
            }
        }
    }

    #[test]
    fn no_ceiling_is_passed_and_equal_input_gives_the_same(
        state in any_components(),
        all in any_nodes(&web(None)),
        data in any::<bool>(),
        littered in prop::collection::vec((0usize..8, 0u32..4), 0..10),
    ) {
        let state = if data { with_data(state) } else { state };
        let mut all = all;
        let keys: Vec<PublicKey> = all.keys().copied().collect();
        for (node, index) in littered {
            let view = all.get_mut(&keys[node % keys.len()]).unwrap();
            if view.report.is_some() {
                said(view).cells.push(running(&state, "a", index));
            }
        }
        let assignment = assign(&state, &all);
        for node in all.keys().filter(|key| all[*key].present) {
            let (memory, cells) = reserved(&state, &assignment, node);
            let (most_memory, most_cells) = room(&all, node);
            prop_assert!(memory <= most_memory && cells <= most_cells);
        }
        prop_assert_eq!(assign(&state, &all.clone()), assignment);
    }
}

//! Cells that have ended hold their place, and their memory goes to others.

use proptest::prelude::*;
use realm_manifest::{
    RestartPolicy,
    identity::{PublicKey, Timestamp},
    payload::{Payload, Restart},
    report::{CellReport, CellState, Declined, Reason},
};
use realm_planner::{Assignment, Nodes, State, Step, cell_digest, placement::assign};

use super::{
    fold, genesis, key, nodes, placement::any_components, push, report, running, said,
    simulation::Realm, target,
};

/// What a node reports by default.
const CEILING_MB: u32 = 4096;
const CELL_MB: u32 = 64;

fn placed(state: &State, nodes: &Nodes, name: &str) -> u32 {
    assign(state, nodes)[&name.parse().unwrap()].values().sum()
}

/// One node that may have many cells.
fn one_node(state: State) -> Realm {
    let mut realm = Realm::new(state, nodes(1));
    let me = key(10).public();
    realm.publish(me);
    said(realm.nodes.get_mut(&me).unwrap()).capacity.cells = 200;
    realm
}

#[test]
fn done_jobs_leave_their_memory_to_others() {
    let state = fold(&genesis(), target("job"), &push(Some(128))).unwrap();
    let mut realm = one_node(state);
    let me = key(10).public();
    for ran in [64, 128] {
        realm.settle(|_| {});
        assert_eq!(realm.cells[&me].len(), ran, "no more at once than fit");
        realm.finish("job");
    }
    assert!(realm.plan(me).is_empty(), "all are done and stay so");
    realm.state = fold(&realm.state, target("aa"), &push(Some(100))).unwrap();
    realm.settle(|_| {});
    let fit = CEILING_MB / CELL_MB;
    assert_eq!(placed(&realm.state, &realm.nodes, "aa"), fit);
    assert_eq!(placed(&realm.state, &realm.nodes, "job"), 128);
    assert_eq!((realm.running(), realm.all()), (64, 192));
    for _ in 0..5 {
        assert!(realm.plan(me).is_empty());
        realm.publish(me);
    }
    // What runs anew takes its memory back: it was there first.
    let restart = Payload::Restart(Restart {
        generation: 1,
        note: None,
        nodes: Vec::new(),
    });
    realm.state = fold(&realm.state, target("job"), &restart).unwrap();
    assert_eq!(placed(&realm.state, &realm.nodes, "job"), fit);
    assert_eq!(placed(&realm.state, &realm.nodes, "aa"), 0);
}

/// Whether the one cell of `old`, which fills the node, leaves its memory to `new`.
fn leaves_room(restart: RestartPolicy, cell: impl Fn(&mut CellReport), declined: bool) -> bool {
    let mut state = fold(&genesis(), target("old"), &push(Some(1))).unwrap();
    let old = state.components.get_mut(&"old".parse().unwrap()).unwrap();
    old.spec.restart = restart;
    old.spec.limits.memory_max_mb = CEILING_MB;
    old.generation = 3;
    old.spec.grants.volumes = match declined {
        true => vec!["data:/data:rw".parse().unwrap()],
        false => Vec::new(),
    };
    let digest = cell_digest(&old.spec);
    state = fold(&state, target("new"), &push(Some(1))).unwrap();
    let mut all = nodes(1);
    let (key, node) = all.iter_mut().next().unwrap();
    let mut told = running(&state, "old", 0);
    cell(&mut told);
    let mut says = report(*key, &state, vec![told]);
    if declined {
        // Its data keeps it in place all the same.
        says.holds = vec![super::held("old", 1)];
        says.declined.push(Declined {
            component: "old".parse().unwrap(),
            spec: digest,
            reason: Reason {
                code: "volume".into(),
                message: "no such directory".into(),
                help: None,
            },
        });
    }
    node.report = Some(says.into());
    assert_eq!(placed(&state, &all, "old"), 1, "it keeps its place");
    placed(&state, &all, "new") == 1
}

#[test]
fn only_what_has_ended_for_good_leaves_its_memory() {
    let on_failure = RestartPolicy::OnFailure;
    let never = RestartPolicy::Never;
    for (state, ended) in [
        (CellState::Done, true),
        (CellState::Library, true),
        (CellState::Failed, true),
        (CellState::Running, false),
        (CellState::Backoff, false),
        (CellState::Pulling, false),
        (CellState::Compiling, false),
        (CellState::Starting, false),
        (CellState::Stopped, false),
    ] {
        let is = leaves_room(on_failure, |cell| cell.state = state, false);
        assert_eq!(is, ended, "{state:?}");
    }
    let failed = |cell: &mut CellReport| cell.state = CellState::Failed;
    let ran = |cell: &mut CellReport| {
        failed(cell);
        cell.started_at = Some(Timestamp(1));
    };
    let beside_the_one_before = |cell: &mut CellReport| {
        failed(cell);
        cell.memory_bytes = 1;
    };
    assert!(leaves_room(never, failed, false));
    assert!(leaves_room(never, ran, false));
    assert!(leaves_room(on_failure, ran, false));
    assert!(leaves_room(on_failure, failed, true), "it was declined");
    assert!(
        !leaves_room(on_failure, beside_the_one_before, false),
        "the one that it was to replace still runs"
    );
    let before = |cell: &mut CellReport| {
        cell.state = CellState::Done;
        cell.generation = 2;
    };
    assert!(
        !leaves_room(on_failure, before, false),
        "it is about to run anew"
    );
}

#[test]
fn a_new_cell_starts_beside_the_old_one_in_what_ended_cells_left() {
    let mut state = fold(&genesis(), target("job"), &push(Some(60))).unwrap();
    state = fold(&state, target("web"), &push(Some(4))).unwrap();
    let mut realm = one_node(state);
    let me = key(10).public();
    realm.settle(|_| {});
    let restart = Payload::Restart(Restart {
        generation: 1,
        note: None,
        nodes: Vec::new(),
    });
    realm.state = fold(&realm.state, target("web"), &restart).unwrap();
    let first = |realm: &Realm| -> Vec<bool> {
        let steps = realm.plan(me).into_iter();
        steps
            .map(|step| match step {
                Step::Replace { stop_first, .. } => stop_first,
                step => panic!("{step:?}"),
            })
            .collect()
    };
    assert_eq!(first(&realm), [true; 4]);
    realm.finish("job");
    assert_eq!(first(&realm), [false; 4]);
}

/// Every node reports what it should have: the cells that it had as they were, new ones as running.
fn report_all(state: &State, nodes: &mut Nodes, assignment: &Assignment) {
    for (key, node) in nodes {
        if node.report.is_none() {
            continue;
        }
        let says = said(node);
        let before = std::mem::take(&mut says.cells);
        for (name, counts) in assignment {
            for index in 0..counts.get(key).copied().unwrap_or(0) {
                let mut known = before.iter();
                let known = known.find(|cell| cell.component == *name && cell.index == index);
                let new = || running(state, name.as_str(), index);
                says.cells.push(known.cloned().unwrap_or_else(new));
            }
        }
    }
}

/// Memory of the cells that have not ended.
fn live_mb(state: &State, nodes: &Nodes, assignment: &Assignment, key: &PublicKey) -> u64 {
    let says = nodes[key].report.as_ref().unwrap();
    let of = |(name, counts): (&realm_manifest::ComponentName, &realm_planner::Counts)| {
        let ended = |index: &u32| {
            says.cells.iter().any(|cell| {
                cell.component == *name && cell.index == *index && cell.state == CellState::Done
            })
        };
        let count = counts.get(key).copied().unwrap_or(0);
        let live = (0..count).filter(|index| !ended(index)).count() as u64;
        live * u64::from(state.components[name].spec.limits.memory_max_mb)
    };
    assignment.iter().map(of).sum()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(256))]

    /// Cells end one after the other: every place that was given stays given, what waits comes in,
    /// and nothing passes a ceiling.
    #[test]
    fn a_cell_that_ends_moves_nothing(
        state in any_components(),
        rooms in prop::collection::vec((0u64..12, 0u32..12), 1..5),
        ends in prop::collection::vec(any::<prop::sample::Index>(), 0..30),
    ) {
        let mut all = nodes(u8::try_from(rooms.len()).unwrap());
        for ((key, node), (memory, cells)) in all.iter_mut().zip(rooms) {
            let mut says = report(*key, &state, Vec::new());
            (says.capacity.memory_mb, says.capacity.cells) = (memory * 64, cells);
            node.report = Some(says.into());
        }
        let mut before = assign(&state, &all);
        for end in ends {
            report_all(&state, &mut all, &before);
            prop_assert_eq!(&assign(&state, &all), &before, "nothing ended, nothing changes");
            let reports = all.values_mut().filter(|node| node.report.is_some()).map(said);
            let mut live: Vec<&mut CellReport> = reports
                .flat_map(|report| &mut report.cells)
                .filter(|cell| cell.state == CellState::Running)
                .collect();
            if live.is_empty() {
                break;
            }
            let which = end.index(live.len());
            live[which].state = CellState::Done;
            let after = assign(&state, &all);
            for (name, counts) in &before {
                for (node, count) in counts {
                    prop_assert!(after[name].get(node).is_some_and(|now| now >= count), "{name}");
                }
                let asked = &state.components[name];
                let placed: u32 = after[name].values().sum();
                prop_assert!(placed <= asked.spec.replicas.unwrap_or(all.len() as u32));
            }
            for (key, node) in &all {
                let most = node.report.as_ref().unwrap().capacity;
                prop_assert!(live_mb(&state, &all, &after, key) <= most.memory_mb);
                let cells: u32 = after.values().filter_map(|counts| counts.get(key)).sum();
                prop_assert!(cells <= most.cells);
            }
            before = after;
        }
    }
}

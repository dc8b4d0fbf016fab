//! What each node does, alone and with others.

use proptest::prelude::*;
use realm_manifest::{
    identity::{Hash, PublicKey},
    payload::{Note, Payload, Restart, Scale},
    report::{Declined, Reason},
};
use realm_planner::{Nodes, OwnCell, PlanInput, Step, StopReason, cell_digest, plan};

use super::{
    drain, fold, key, nodes, push, report, running, said, simulation::Realm, target, web, with_data,
};

fn settled(replicas: Option<u32>, count: u8) -> Realm {
    let mut realm = Realm::new(web(replicas), nodes(count));
    realm.settle(|_| {});
    realm
}

#[test]
fn a_lost_nodes_replicas_move_and_come_back() {
    let mut realm = settled(Some(3), 5);
    let before = realm.counts();
    let lost = *before.keys().next().unwrap();
    realm.lose(lost);
    realm.settle(|_| {});
    assert_eq!((realm.running(), realm.all()), (3, 3));
    assert!(!realm.counts().contains_key(&lost));
    realm.bring_back(lost);
    realm.settle(|realm| assert!(realm.running() >= 3));
    assert_eq!(realm.counts(), before);
    assert_eq!((realm.running(), realm.all()), (3, 3));
}

#[test]
fn a_moved_cell_runs_until_the_other_node_has_it() {
    let mut realm = Realm::new(web(Some(1)), nodes(2));
    let holder = *realm.counts().keys().next().unwrap();
    let other = *realm.nodes.keys().find(|key| **key != holder).unwrap();
    realm.litter(other, "web", 0);
    assert!(realm.plan(other).is_empty(), "nothing is known yet");
    realm.publish(other);
    assert!(realm.plan(other).is_empty(), "nobody else runs it");
    realm.litter(holder, "web", 0);
    realm.publish(holder);
    let moved = StopReason::Moved;
    assert!(matches!(realm.plan(other)[..], [Step::Stop { why, .. }] if why == moved));
    // The holder has started anew since: what that report says runs no more.
    realm.nodes.get_mut(&holder).unwrap().boot_id = Some(2);
    assert!(realm.plan(other).is_empty());
}

#[test]
fn a_failing_replica_keeps_no_surplus_alive_beyond_what_is_asked() {
    let mut realm = settled(Some(2), 4);
    let counts = realm.counts();
    let broken = *counts.keys().next().unwrap();
    let spare: Vec<PublicKey> = realm
        .here()
        .into_iter()
        .filter(|key| !counts.contains_key(key))
        .collect();
    realm.break_node(broken);
    spare.iter().for_each(|node| realm.litter(*node, "web", 0));
    realm.settle(|realm| assert!(realm.running() >= 2));
    assert_eq!(
        realm.running(),
        2,
        "one in its place, one for the failing one"
    );
    assert_eq!(realm.all(), 3, "and the failing one");
    realm.mend_node(broken);
    realm.settle(|realm| assert!(realm.running() >= 2));
    assert_eq!((realm.running(), realm.all()), (2, 2));
}

#[test]
fn an_older_version_runs_until_the_new_one_is_everywhere() {
    let mut realm = settled(Some(2), 4);
    let counts = realm.counts();
    let spare = realm
        .here()
        .into_iter()
        .find(|key| !counts.contains_key(key))
        .unwrap();
    realm.litter(spare, "web", 0);
    let restart = Payload::Restart(Restart {
        generation: 1,
        note: None,
        nodes: Vec::new(),
    });
    realm.state = fold(&realm.state, target("web"), &restart).unwrap();
    realm.publish(spare);
    assert!(
        realm.plan(spare).is_empty(),
        "two of the new generation are not there yet"
    );
    realm.settle(|_| {});
    assert_eq!((realm.running(), realm.all()), (2, 2));
}

/// Three nodes where one wanted cell fails, and two spare ones run: one of those can go.
fn two_spare(first: impl Fn(&mut Realm, PublicKey)) {
    for turn in 0..2 {
        let mut realm = settled(Some(2), 4);
        let counts = realm.counts();
        realm.break_node(*counts.keys().next().unwrap());
        let all = realm.here().into_iter();
        let spare: Vec<PublicKey> = all.filter(|key| !counts.contains_key(key)).collect();
        spare.iter().for_each(|node| realm.litter(*node, "web", 0));
        first(&mut realm, spare[turn]);
        spare.iter().for_each(|node| realm.publish(*node));
        assert!(matches!(realm.plan(spare[turn])[..], [Step::Stop { .. }]));
        assert!(realm.plan(spare[1 - turn]).is_empty());
    }
}

#[test]
fn what_drains_stops_before_what_stays() {
    two_spare(|realm, node| realm.state = drain(&realm.state, node, true));
}

#[test]
fn what_is_out_of_date_stops_before_what_is_as_asked() {
    two_spare(|realm, node| {
        let cells = realm.cells.get_mut(&node).unwrap();
        cells[0].own.spec = Hash::of(b"an older spec");
    });
}

#[test]
fn scaling_down_stops_as_many_as_there_are_too_many() {
    let mut realm = settled(Some(7), 3);
    let scale = |replicas| {
        Payload::Scale(Scale {
            replicas: Some(replicas),
            note: None,
        })
    };
    realm.state = fold(&realm.state, target("web"), &scale(2)).unwrap();
    realm.settle(|realm| assert!(realm.running() >= 2));
    assert_eq!((realm.running(), realm.all()), (2, 2));
    realm.state = fold(&realm.state, target("web"), &scale(0)).unwrap();
    realm.settle(|_| {});
    assert_eq!(realm.all(), 0);
}

#[test]
fn removal_stops_and_a_new_generation_replaces() {
    let mut realm = settled(None, 2);
    let me = key(10).public();
    let state = realm.state.clone();
    let restart = Payload::Restart(Restart {
        generation: 1,
        note: None,
        nodes: Vec::new(),
    });
    realm.state = fold(&state, target("web"), &restart).unwrap();
    assert!(matches!(
        realm.plan(me)[..],
        [Step::Replace { generation: 1, .. }]
    ));
    realm.state = fold(&state, target("web"), &Payload::Remove(Note::default())).unwrap();
    let why = |steps: Vec<Step>| match steps[..] {
        [Step::Stop { why, .. }] => why,
        _ => panic!("{steps:?}"),
    };
    assert_eq!(why(realm.plan(me)), StopReason::Removed);
    realm.state = state;
    realm.nodes = Nodes::new();
    assert_eq!(why(realm.plan(me)), StopReason::NotApproved);
}

#[test]
fn a_cell_that_was_declined_stays_as_the_reason_until_something_changes() {
    let mut realm = settled(None, 2);
    let me = key(10).public();
    let declined = Declined {
        component: "web".parse().unwrap(),
        spec: cell_digest(&realm.state.components.values().next().unwrap().spec),
        reason: Reason {
            code: "volume".into(),
            message: "no such directory".into(),
            help: None,
        },
    };
    let view = realm.nodes.get_mut(&me).unwrap();
    said(view).declined.push(declined);
    assert!(!realm.counts().contains_key(&me));
    assert!(
        realm.plan(me).is_empty(),
        "stopping it would only start it again"
    );
    let restart = Payload::Restart(Restart {
        generation: 1,
        note: None,
        nodes: Vec::new(),
    });
    realm.state = fold(&realm.state, target("web"), &restart).unwrap();
    assert!(matches!(realm.plan(me)[..], [Step::Stop { .. }]));
}

#[test]
fn a_cell_with_data_is_not_started_elsewhere() {
    let mut realm = Realm::new(with_data(web(Some(1))), nodes(3));
    realm.settle(|_| {});
    let holder = *realm.counts().keys().next().unwrap();
    realm.lose(holder);
    realm.settle(|_| {});
    assert_eq!(realm.all(), 0);
    realm.bring_back(holder);
    let report = realm.nodes[&holder].report.as_ref().unwrap();
    assert!(
        report.cells.is_empty(),
        "it has only the data, and no cell yet"
    );
    realm.settle(|_| {});
    assert_eq!((realm.running(), realm.all()), (1, 1));
    assert_eq!(realm.cells[&holder].len(), 1);
}

#[test]
fn a_draining_node_gives_its_cells_away_and_gets_them_back() {
    let mut realm = settled(Some(4), 3);
    let before = realm.counts();
    let draining = *before.iter().max_by_key(|(_, count)| **count).unwrap().0;
    realm.state = drain(&realm.state, draining, true);
    realm.settle(|realm| assert!(realm.running() >= 4));
    assert!(realm.cells[&draining].is_empty());
    assert_eq!((realm.running(), realm.all()), (4, 4));
    for (node, count) in realm.counts() {
        assert!(count >= before[&node]);
    }
    realm.state = drain(&realm.state, draining, false);
    realm.settle(|realm| assert!(realm.running() >= 4));
    assert_eq!(realm.counts(), before);
    assert_eq!((realm.running(), realm.all()), (4, 4));
}

#[test]
fn with_nowhere_to_go_cells_stay_on_a_draining_node() {
    let mut realm = settled(Some(2), 2);
    for node in realm.here() {
        realm.state = drain(&realm.state, node, true);
    }
    assert!(realm.counts().is_empty());
    realm.settle(|realm| assert_eq!(realm.running(), 2));
    assert_eq!(realm.all(), 2);
}

#[test]
fn a_draining_node_stops_what_nobody_takes_over() {
    let (one, two) = (key(10).public(), key(11).public());
    let mut realm = settled(None, 2);
    realm.state = drain(&realm.state, one, true);
    let why = StopReason::Draining;
    assert!(matches!(realm.plan(one)[..], [Step::Stop { why: found, .. }] if found == why));
    realm.settle(|_| {});
    assert_eq!(realm.counts().keys().collect::<Vec<_>>(), [&two]);
    assert_eq!(realm.all(), 1);

    let mut realm = Realm::new(with_data(web(Some(1))), nodes(2));
    realm.settle(|_| {});
    let holder = *realm.counts().keys().next().unwrap();
    realm.state = drain(&realm.state, holder, true);
    assert!(matches!(realm.plan(holder)[..], [Step::Stop { why: found, .. }] if found == why));
    realm.settle(|_| {});
    assert_eq!(realm.all(), 0, "not started anew where its data is not");
    realm.state = drain(&realm.state, holder, false);
    realm.settle(|_| {});
    assert_eq!(realm.cells[&holder].len(), 1);
}

/// Whether each replaced cell has to stop first, on a node with room for this many cells of 64 MiB.
fn stop_first(realm: &mut Realm, slots: u64) -> Vec<bool> {
    let me = key(10).public();
    said(realm.nodes.get_mut(&me).unwrap()).capacity.memory_mb = slots * 64;
    let steps = realm.plan(me).into_iter();
    steps
        .map(|step| match step {
            Step::Replace { stop_first, .. } => stop_first,
            _ => panic!("{step:?}"),
        })
        .collect()
}

#[test]
fn the_old_cell_stops_first_where_there_is_no_room_for_both() {
    let mut realm = settled(Some(3), 1);
    let restart = Payload::Restart(Restart {
        generation: 1,
        note: None,
        nodes: Vec::new(),
    });
    realm.state = fold(&realm.state, target("web"), &restart).unwrap();
    assert_eq!(stop_first(&mut realm, 6), [false; 3]);
    assert_eq!(stop_first(&mut realm, 5), [false, false, true]);
    assert_eq!(stop_first(&mut realm, 4), [false, true, true]);
    assert_eq!(stop_first(&mut realm, 3), [true; 3]);
    // The ceiling counts cells, too.
    let me = key(10).public();
    said(realm.nodes.get_mut(&me).unwrap()).capacity.cells = 4;
    assert_eq!(stop_first(&mut realm, 6), [false, true, true]);
}

#[test]
fn a_larger_cell_leaves_less_room_for_the_next() {
    let mut realm = settled(Some(2), 1);
    let web = "web".parse().unwrap();
    let limits = &mut realm.state.components.get_mut(&web).unwrap().spec.limits;
    limits.memory_max_mb = 128;
    // Two old ones of 64 MiB and two new ones of 128 MiB.
    assert_eq!(stop_first(&mut realm, 6), [false; 2]);
    assert_eq!(stop_first(&mut realm, 5), [false, true]);
    assert_eq!(stop_first(&mut realm, 4), [false, true]);
    for cell in realm.cells.values_mut().flatten() {
        cell.own.memory_max_mb = 96;
    }
    assert_eq!(stop_first(&mut realm, 4), [true, true]);
}

#[test]
fn what_one_cell_grows_by_is_not_there_for_the_next() {
    let mut realm = Realm::new(web(Some(1)), nodes(1));
    realm.state = fold(&realm.state, target("zoo"), &push(Some(1))).unwrap();
    realm.settle(|_| {});
    for (name, memory) in [("web", 192), ("zoo", 64)] {
        let component = realm.state.components.get_mut(&name.parse().unwrap());
        let component = component.unwrap();
        component.spec.limits.memory_max_mb = memory;
        component.generation = 1;
    }
    // Both new ones beside one old one of 64 MiB.
    assert_eq!(stop_first(&mut realm, 5), [false, true]);
    assert_eq!(stop_first(&mut realm, 4), [true, true]);
}

#[test]
fn equal_input_gives_equal_steps() {
    let state = web(Some(3));
    let mut all = nodes(3);
    let me = key(10).public();
    all.get_mut(&me).unwrap().report =
        Some(report(me, &state, vec![running(&state, "web", 4)]).into());
    let own = [OwnCell {
        component: "web".parse().unwrap(),
        index: 4,
        spec: cell_digest(&state.components.values().next().unwrap().spec),
        generation: 0,
        memory_max_mb: 64,
    }];
    let steps = || {
        plan(&PlanInput {
            state: &state,
            me,
            nodes: &all,
            own: &own,
        })
    };
    assert!(!steps().is_empty());
    assert_eq!(steps(), steps());
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(128))]

    /// Also while some nodes act on old reports: never fewer run than ran or were asked for, and
    /// at the end exactly as many as were asked for.
    #[test]
    fn any_start_comes_to_exactly_what_is_asked(
        count_nodes in 1u8..8,
        replicas in 0u32..12,
        littered in proptest::collection::vec((0u8..8, 0u32..6), 0..20),
        broken in proptest::collection::btree_set(0u8..8, 0..3),
        draining in proptest::collection::btree_set(0u8..8, 0..3),
        rooms in proptest::collection::vec(0u64..8, 8),
        turns in proptest::collection::vec((any::<u8>(), any::<u8>()), 0..12),
    ) {
        let asked = replicas as usize;
        let mut realm = Realm::new(web(Some(replicas)), nodes(count_nodes));
        let keys = realm.here();
        for (node, cells) in keys.iter().zip(&rooms) {
            realm.publish(*node);
            let view = realm.nodes.get_mut(node).unwrap();
            // With few nodes there is more on each, so that mostly all fit.
            let room = 64 * (cells + 1) * u64::from(8 / count_nodes + 1);
            said(view).capacity.memory_mb = room;
        }
        for (node, index) in littered {
            realm.litter(keys[usize::from(node % count_nodes)], "web", index);
        }
        keys.iter().for_each(|node| realm.publish(*node));
        let of = |mask: u8| -> Vec<PublicKey> {
            let chosen = keys.iter().enumerate().filter(|(at, _)| mask & (1 << at) != 0);
            chosen.map(|(_, key)| *key).collect()
        };
        for node in broken.iter().filter_map(|at| keys.get(usize::from(*at))) {
            realm.break_node(*node);
        }
        for node in draining.iter().filter_map(|at| keys.get(usize::from(*at))) {
            realm.state = drain(&realm.state, *node, true);
        }
        let mut low = realm.running().min(asked);
        for (acting, telling) in turns {
            realm.round(&of(acting), &of(telling));
            prop_assert!(realm.running() >= low, "{} run, {low} ran", realm.running());
            low = realm.running().min(asked);
        }
        realm.settle(|realm| {
            assert!(realm.running() >= low, "{} run, {low} ran", realm.running());
            low = realm.running().min(asked);
        });
        let counts = realm.counts();
        let placed: u32 = counts.values().sum();
        let failing: u32 = counts.iter().filter(|(key, _)| realm.broken.contains(key)).map(|(_, n)| n).sum();
        prop_assert!(realm.running() <= asked);
        prop_assert!(realm.running() >= (placed - failing) as usize);
        if placed == replicas && failing == 0 {
            prop_assert_eq!((realm.running(), realm.all()), (asked, asked));
        }
        // Nothing is there but what is wanted, and what fills in for what is missing.
        let beyond = realm.all() - placed as usize;
        prop_assert!(realm.running() == (placed - failing) as usize + beyond);
    }

    #[test]
    fn cells_with_data_never_run_where_it_is_not(
        count_nodes in 1u8..6,
        later in 0u8..3,
        replicas in 1u32..6,
        turns in proptest::collection::vec((any::<prop::sample::Index>(), 0u8..3), 0..8),
    ) {
        let asked = replicas as usize;
        let mut realm = Realm::new(with_data(web(Some(replicas))), nodes(count_nodes));
        realm.settle(|_| {});
        let data = realm.counts();
        for (key, view) in nodes(count_nodes + later) {
            realm.nodes.entry(key).or_insert(view);
            realm.cells.entry(key).or_default();
        }
        for (which, turn) in turns {
            let node = *which.get(&realm.nodes.keys().copied().collect::<Vec<_>>());
            match turn {
                0 => realm.lose(node),
                1 => realm.bring_back(node),
                _ => realm.state = drain(&realm.state, node, !realm.state.is_draining(&node)),
            }
            realm.settle(|realm| {
                let with_cells = realm.cells.iter().filter(|(_, cells)| !cells.is_empty());
                with_cells.for_each(|(node, _)| assert!(data.contains_key(node)));
                assert!(realm.all() <= asked);
            });
        }
        for node in realm.nodes.keys().copied().collect::<Vec<_>>() {
            realm.state = drain(&realm.state, node, false);
            realm.bring_back(node);
        }
        realm.settle(|_| {});
        prop_assert_eq!((realm.running(), realm.all()), (asked, asked));
    }

    #[test]
    fn losing_any_node_and_having_it_back_never_falls_short(
        count_nodes in 2u8..8,
        replicas in 1u32..10,
        which in any::<prop::sample::Index>(),
    ) {
        let asked = replicas as usize;
        let mut realm = settled(Some(replicas), count_nodes);
        let before = realm.counts();
        let lost = *which.get(&realm.here());
        realm.lose(lost);
        let mut low = realm.running();
        realm.settle(|realm| {
            assert!(realm.running() >= low);
            low = realm.running();
        });
        prop_assert_eq!((realm.running(), realm.all()), (asked, asked));
        realm.bring_back(lost);
        realm.settle(|realm| assert!(realm.running() >= asked));
        prop_assert_eq!(realm.counts(), before);
        prop_assert_eq!((realm.running(), realm.all()), (asked, asked));
    }
}

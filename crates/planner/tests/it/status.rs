//! What people are told of a component.

use realm_manifest::{
    payload::{Payload, Scale},
    report::{CellState, Declined, Reason, Retry},
};
use realm_planner::{
    Nodes, cell_digest, placement,
    status::{ComponentState, MAX_CRASHES, components, leftovers},
};

use super::{
    drain, fold, genesis, held, key, nodes, push, report, running, said, target, web, with_data,
};

#[test]
fn a_node_that_refuses_its_share_shows_with_its_reason() {
    let state = fold(&genesis(), target("web"), &push(None)).unwrap();
    let mut all = nodes(2);
    let (good, bad) = (key(10).public(), key(11).public());
    all.get_mut(&good).unwrap().report =
        Some(report(good, &state, vec![running(&state, "web", 0)]).into());
    let mut declining = report(bad, &state, Vec::new());
    declining.declined.push(Declined {
        component: "web".parse().unwrap(),
        spec: cell_digest(&state.components.values().next().unwrap().spec),
        reason: Reason {
            code: "volume".into(),
            message: "no such directory".into(),
            help: None,
        },
    });
    all.get_mut(&bad).unwrap().report = Some(declining.into());
    let status = &components(&state, &all)[0];
    assert_eq!(status.state, ComponentState::Degraded);
    assert_eq!((status.desired, status.running), (2, 1));
    assert_eq!(status.reason.as_ref().unwrap().code, "volume");
}

#[test]
fn everything_as_asked_is_running_without_drift() {
    let state = fold(&genesis(), target("web"), &push(None)).unwrap();
    let mut all = nodes(2);
    for (key, node) in &mut all {
        node.report = Some(report(*key, &state, vec![running(&state, "web", 0)]).into());
    }
    let status = &components(&state, &all)[0];
    assert_eq!(status.state, ComponentState::Running);
    assert!(status.drift.is_empty());
    all.get_mut(&key(10).public()).unwrap().present = false;
    let status = &components(&state, &all)[0];
    assert_eq!(
        (status.desired, status.running),
        (1, 1),
        "who is away is not counted"
    );
}

#[test]
fn how_an_earlier_version_ended_says_nothing_of_the_one_that_is_asked_for() {
    let state = fold(&genesis(), target("web"), &push(None)).unwrap();
    let mut all = nodes(2);
    let (failed, runs) = (key(10).public(), key(11).public());
    let mut cell = running(&state, "web", 0);
    cell.spec = realm_manifest::identity::Hash::of(b"the spec before");
    all.get_mut(&runs).unwrap().report = Some(report(runs, &state, vec![cell.clone()]).into());
    cell.state = CellState::Failed;
    cell.reason = Some(Reason {
        code: "exit".into(),
        message: "ended with exit code 9".into(),
        help: None,
    });
    all.get_mut(&failed).unwrap().report = Some(report(failed, &state, vec![cell]).into());
    let status = &components(&state, &all)[0];
    assert_eq!(status.state, ComponentState::Pending);
    let of = |key| {
        let mut drift = status.drift.iter();
        drift.find(|drift| drift.node == Some(key)).unwrap()
    };
    assert_eq!((of(failed).have, &of(failed).reason), (None, &None));
    assert_eq!(of(runs).have, Some(CellState::Running));
    assert_eq!(of(runs).reason.as_ref().unwrap().code, "replacing");
    assert_eq!(status.reason.as_ref().unwrap().code, "replacing");
}

#[test]
fn only_what_keeps_crashing_has_failed_of_what_is_tried_again() {
    let state = web(Some(1));
    let judged = |crashes, cell_state| {
        let mut all = nodes(1);
        let mut cell = running(&state, "web", 0);
        cell.state = cell_state;
        cell.retry = Some(Retry { crashes, at: None });
        let node = key(10).public();
        all.get_mut(&node).unwrap().report = Some(report(node, &state, vec![cell]).into());
        components(&state, &all)[0].state
    };
    for cell in [CellState::Backoff, CellState::Starting] {
        assert_eq!(judged(MAX_CRASHES - 1, cell), ComponentState::Starting);
        assert_eq!(judged(MAX_CRASHES, cell), ComponentState::Failed);
    }
    assert_eq!(judged(0, CellState::Failed), ComponentState::Failed);
}

#[test]
fn none_at_all_is_stopped_and_nowhere_to_go_is_waiting() {
    let state = fold(&genesis(), target("web"), &push(Some(2))).unwrap();
    let none = Payload::Scale(Scale {
        replicas: Some(0),
        note: None,
    });
    let state_none = fold(&state, target("web"), &none).unwrap();
    let status = &components(&state_none, &nodes(2))[0];
    assert_eq!(
        (status.state, status.reason.clone()),
        (ComponentState::Stopped, None)
    );
    let status = &components(&state, &Nodes::new())[0];
    assert_eq!(status.state, ComponentState::Waiting);
    assert!(status.reason.as_ref().unwrap().help.is_some());
}

#[test]
fn each_node_counts_its_own_cells() {
    let state = web(Some(4));
    let mut all = nodes(2);
    for (key, node) in &mut all {
        let cells = vec![running(&state, "web", 0), running(&state, "web", 1)];
        node.report = Some(report(*key, &state, cells).into());
    }
    let status = &components(&state, &all)[0];
    assert_eq!(status.state, ComponentState::Running);
    assert_eq!((status.desired, status.running), (4, 4));
    assert!(status.drift.is_empty());
}

#[test]
fn cells_beyond_what_is_desired_are_counted_until_they_stop() {
    let state = web(Some(2));
    let mut all = nodes(4);
    for (key, node) in &mut all {
        node.report = Some(report(*key, &state, vec![running(&state, "web", 0)]).into());
    }
    let status = &components(&state, &all)[0];
    assert_eq!(status.state, ComponentState::Running);
    assert_eq!((status.desired, status.running), (2, 4));
    let surplus = status.drift.iter().filter(|drift| !drift.want);
    assert_eq!((surplus.count(), status.drift.len()), (2, 2));
}

#[test]
fn a_cell_on_its_way_counts_and_shows_as_drift() {
    let state = web(Some(1));
    let mut all = nodes(2);
    let name = "web".parse().unwrap();
    let holder = *placement::assign(&state, &all)[&name]
        .keys()
        .next()
        .unwrap();
    let other = *all.keys().find(|key| **key != holder).unwrap();
    all.get_mut(&other).unwrap().report =
        Some(report(other, &state, vec![running(&state, "web", 3)]).into());
    let status = &components(&state, &all)[0];
    assert_eq!(status.state, ComponentState::Running);
    assert_eq!((status.desired, status.running), (1, 1));
    let drift: Vec<_> = status
        .drift
        .iter()
        .map(|drift| (drift.node, drift.index, drift.want, drift.have))
        .collect();
    assert_eq!(
        drift,
        [
            (Some(holder), Some(0), true, None),
            (Some(other), Some(3), false, Some(CellState::Running))
        ]
    );
}

#[test]
fn a_replica_without_a_node_says_why() {
    let state = web(Some(2));
    let mut all = nodes(1);
    let (key, node) = all.iter_mut().next().unwrap();
    let mut small = report(*key, &state, vec![running(&state, "web", 0)]);
    small.capacity.cells = 1;
    node.report = Some(small.into());
    let status = &components(&state, &all)[0];
    assert_eq!(status.state, ComponentState::Degraded);
    assert_eq!((status.desired, status.running), (2, 1));
    let [missing] = &status.drift[..] else {
        panic!("{:?}", status.drift);
    };
    assert_eq!((missing.node, missing.index), (None, None));
    let reason = missing.reason.as_ref().unwrap();
    assert_eq!(reason.code, "no-room");
    assert_eq!(
        reason.help.as_deref(),
        Some(
            "raise memory_mb in agent.toml (now 4096 MiB), or lower --memory-max-mb; \
             max_cells is 1"
        )
    );
}

#[test]
fn a_replica_whose_data_is_out_of_reach_says_where_it_is() {
    let state = with_data(web(Some(1)));
    let mut all = nodes(3);
    let holder = key(11).public();
    let cells = vec![running(&state, "web", 0)];
    all.get_mut(&holder).unwrap().report = Some(report(holder, &state, cells).into());
    all.get_mut(&holder).unwrap().present = false;
    let of = |all: &Nodes| {
        let status = components(&state, all).remove(0);
        let [missing] = &status.drift[..] else {
            panic!("{:?}", status.drift);
        };
        assert_eq!((missing.node, missing.index), (Some(holder), Some(0)));
        assert_eq!((status.desired, status.desired_nodes), (1, vec![holder]));
        (status.running, missing.reason.clone().unwrap().code)
    };
    assert_eq!(of(&all), (0, "node-lost".into()));
    let view = all.get_mut(&holder).unwrap();
    view.present = true;
    said(view).capacity.memory_mb = 10;
    // It goes on until it is stopped, and could not start again.
    let status = &components(&state, &all)[0];
    assert_eq!(status.running, 1);
    let [missing] = &status.drift[..] else {
        panic!("{:?}", status.drift);
    };
    assert_eq!(missing.reason.as_ref().unwrap().code, "no-room");
}

#[test]
fn what_a_draining_node_leaves_undone_says_so() {
    let mut state = with_data(web(Some(1)));
    let mut all = nodes(2);
    let holder = key(11).public();
    let mut says = report(holder, &state, Vec::new());
    says.holds.push(held("web", 1));
    all.get_mut(&holder).unwrap().report = Some(says.into());
    state = drain(&state, holder, true);
    let status = &components(&state, &all)[0];
    let [missing] = &status.drift[..] else {
        panic!("{:?}", status.drift);
    };
    assert_eq!((missing.node, missing.want), (Some(holder), true));
    assert_eq!(missing.reason.as_ref().unwrap().code, "draining");

    let mut state = web(None);
    for node in all.keys() {
        state = drain(&state, *node, true);
    }
    let status = &components(&state, &all)[0];
    assert_eq!((status.state, status.desired), (ComponentState::Waiting, 0));
    assert_eq!(status.reason.as_ref().unwrap().code, "draining");
    assert!(
        status.drift.is_empty(),
        "a node that drains is not asked to run it"
    );

    let state = drain(&web(None), holder, true);
    for (key, node) in &mut all {
        node.present = *key == holder;
    }
    let status = &components(&state, &all)[0];
    let reason = status.reason.as_ref().unwrap();
    assert_eq!(reason.code, "draining");
    assert!(reason.message.contains("drains or is away"), "{reason:?}");
}

#[test]
fn cells_of_what_is_not_asked_for_any_more_are_left_over() {
    let state = fold(&genesis(), target("web"), &push(None)).unwrap();
    let mut all = nodes(2);
    let (runs, away) = (key(10).public(), key(11).public());
    for key in [runs, away] {
        let said = report(key, &state, vec![running(&state, "web", 0)]);
        all.get_mut(&key).unwrap().report = Some(said.into());
    }
    all.get_mut(&away).unwrap().present = false;
    assert!(leftovers(&state, &all).is_empty(), "it is asked for");

    let remove = Payload::Remove(realm_manifest::payload::Note::default());
    let removed = fold(&state, target("web"), &remove).unwrap();
    assert!(components(&removed, &all).is_empty());
    let left = leftovers(&removed, &all);
    assert_eq!(left.len(), 1, "what is away is not known: {left:?}");
    let (name, drift) = &left[0];
    assert_eq!((name.as_str(), drift.node), ("web", Some(runs)));
    assert_eq!((drift.index, drift.want), (Some(0), false));
    assert_eq!(drift.have, Some(CellState::Running));
}

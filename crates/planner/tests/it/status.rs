//! What people are told of a component.

use realm_manifest::{
    payload::{Payload, Scale},
    report::{Declined, Reason},
};
use realm_planner::{
    cell_digest,
    status::{ComponentState, components},
};

use super::{fold, genesis, key, nodes, push, report, running, target};

#[test]
fn a_node_that_refuses_its_share_shows_with_its_reason() {
    let state = fold(&genesis(), target("web"), &push(None)).unwrap();
    let mut all = nodes(2);
    let (good, bad) = (key(10).public(), key(11).public());
    all.get_mut(&good).unwrap().report =
        Some(report(good, &state, vec![running(&state, "web", 0)]));
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
    all.get_mut(&bad).unwrap().report = Some(declining);
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
        node.report = Some(report(*key, &state, vec![running(&state, "web", 0)]));
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
    let status = &components(&state, &realm_planner::Nodes::new())[0];
    assert_eq!(status.state, ComponentState::Waiting);
    assert!(status.reason.as_ref().unwrap().help.is_some());
}

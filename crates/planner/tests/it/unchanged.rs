//! What is said again changes nothing: the revision of a thing is that of its last change.

use realm_manifest::{
    identity::Target,
    payload::{NodeFacts, Note, Payload, Push, Run, Scale},
};
use realm_planner::State;

use super::{fold, genesis, key, push, target, web};

/// A push of `web` with two cells, which says whether they should run.
fn push_to_run(run: Option<bool>) -> Payload {
    let Payload::Push(push) = push(Some(2)) else {
        unreachable!("it is one");
    };
    Payload::Push(Push { run, ..push })
}

fn scale(replicas: u32) -> Payload {
    Payload::Scale(Scale {
        replicas: Some(replicas),
        note: None,
    })
}

fn run(run: bool) -> Payload {
    Payload::Run(Run { run, note: None })
}

/// The state after two entries for `web`, the second of them at revision 3.
fn after(first: &Payload, second: &Payload) -> State {
    let state = fold(&web(Some(2)), target("web"), first).unwrap();
    fold(&state, target("web"), second).unwrap()
}

#[test]
fn a_component_is_as_old_as_its_last_change() {
    let web = "web".parse().unwrap();
    let revision = |first: &Payload, second: &Payload| {
        let state = after(first, second);
        assert_eq!(state.revision, 3);
        state.components[&web].revision
    };
    let same = push_to_run(None);
    assert_eq!(revision(&same, &same), 1);
    assert_eq!(revision(&push_to_run(Some(true)), &scale(2)), 1);
    assert_eq!(revision(&run(true), &run(true)), 1);
    assert_eq!(revision(&scale(5), &scale(5)), 2);
    assert_eq!(revision(&run(false), &run(false)), 2);
    assert_eq!(revision(&push_to_run(Some(false)), &same), 2, "as it was");
    assert_eq!(revision(&same, &push_to_run(Some(false))), 3);
    assert_eq!(revision(&same, &push(Some(5))), 3);
    assert_eq!(revision(&scale(5), &same), 3);
    assert_eq!(revision(&run(false), &run(true)), 3);
}

#[test]
fn a_push_says_whether_its_cells_run_or_leaves_that_as_it_was() {
    let web = "web".parse().unwrap();
    let runs = |first: &Payload, second: &Payload| after(first, second).components[&web].run;
    assert!(!runs(&push_to_run(None), &push_to_run(Some(false))));
    assert!(!runs(&run(false), &push_to_run(None)));
    assert!(runs(&run(false), &push_to_run(Some(true))));
    let stopped = fold(&genesis(), target("web"), &push_to_run(Some(false))).unwrap();
    assert!(!stopped.components[&web].run, "from the first on");
}

#[test]
fn a_node_is_as_old_as_its_last_change() {
    let node = key(10).public();
    let facts = |drain| NodeFacts {
        name: "pi".parse().unwrap(),
        tags: vec!["edge".parse().unwrap()],
        drain,
        note: Some(format!("{drain}")),
    };
    let set = |drain| Payload::NodeSet(facts(drain));
    let approve = Payload::NodeApprove(facts(false));
    let (remove, revoke) = (
        Payload::NodeRemove(Note::default()),
        Payload::NodeRevoke(Note::default()),
    );
    let revision = |second: &Payload, third: &Payload| {
        let said = [&approve, second, third].into_iter();
        let state = said.fold(genesis(), |state, payload| {
            fold(&state, Target::Node(node), payload).unwrap()
        });
        assert_eq!(state.revision, 3);
        state.nodes[&node].revision
    };
    assert_eq!(revision(&set(false), &approve), 1);
    assert_eq!(revision(&set(true), &set(true)), 2);
    assert_eq!(revision(&set(true), &set(false)), 3);
    assert_eq!(revision(&remove, &remove), 2);
    assert_eq!(revision(&revoke, &revoke), 2);
    assert_eq!(revision(&remove, &revoke), 3);
    assert_eq!(revision(&remove, &approve), 3);
}

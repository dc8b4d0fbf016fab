//! Restarts of some nodes alone.

use realm_manifest::{
    identity::{PublicKey, Target},
    payload::{Note, Payload, Restart},
};
use realm_planner::{FoldError, State, Step};

use super::{fold, genesis, key, nodes, push, simulation::Realm, target, web};

#[test]
fn a_restart_may_name_nodes_and_the_next_one_of_all_is_above_it() {
    let web = "web".parse().unwrap();
    let (one, two) = (key(10).public(), key(11).public());
    let mut both = [one, two];
    both.sort();
    let restart = |generation, nodes: &[PublicKey]| {
        Payload::Restart(Restart {
            generation,
            note: None,
            nodes: nodes.to_vec(),
        })
    };
    let pushed = fold(&genesis(), target("web"), &push(None)).unwrap();
    let named = fold(&pushed, target("web"), &restart(1, &[one])).unwrap();
    let of = |state: &State| {
        let component = &state.components[&web];
        let on = |node| component.generation_on(node);
        (on(&one), on(&two), component.newest_generation())
    };
    assert_eq!(of(&pushed), (0, 0, 0));
    assert_eq!(of(&named), (1, 0, 1));
    assert_eq!(State::decode(&named.encode()).unwrap(), named);
    let refused = |payload: &Payload| fold(&named, target("web"), payload).unwrap_err();
    for nodes in [&[][..], &[one], &[two]] {
        let error = refused(&restart(1, nodes));
        assert!(matches!(error, FoldError::Generation { found: 1, at: 1 }));
    }
    for nodes in [[both[1], both[0]], [one, one]] {
        let error = refused(&restart(2, &nodes));
        assert!(matches!(error, FoldError::UnsortedNodes));
    }
    let twice = fold(&named, target("web"), &restart(5, &both)).unwrap();
    assert_eq!(of(&twice), (5, 5, 5));
    let all = fold(&named, target("web"), &restart(2, &[])).unwrap();
    assert_eq!(of(&all), (2, 2, 2));
    assert!(all.components[&web].restarted_on.is_empty());

    // A node that is out is no place to start anything, and nothing of it is kept.
    for (payload, is_refusal) in [
        (
            Payload::NodeRemove(Note::default()),
            (|error| matches!(error, FoldError::Removed(_))) as fn(_) -> bool,
        ),
        (Payload::NodeRevoke(Note::default()), |error| {
            matches!(error, FoldError::Revoked(_))
        }),
    ] {
        let out = fold(&named, Target::Node(one), &payload).unwrap();
        assert!(out.components[&web].restarted_on.is_empty());
        let again = fold(&out, target("web"), &restart(7, &[one]));
        assert!(is_refusal(again.unwrap_err()));
    }
}

#[test]
fn a_restart_of_one_node_replaces_what_is_there_alone() {
    let mut realm = Realm::new(web(None), nodes(3));
    realm.settle(|_| {});
    let nodes: Vec<PublicKey> = realm.here();
    let restart = Payload::Restart(Restart {
        generation: 1,
        note: None,
        nodes: vec![nodes[1]],
    });
    realm.state = fold(&realm.state, target("web"), &restart).unwrap();
    assert_eq!((realm.running(), realm.all()), (2, 3), "one is outdated");
    let replaces = |steps: &[Step]| matches!(steps, [Step::Replace { generation: 1, .. }]);
    let plans: Vec<_> = nodes.iter().map(|node| realm.plan(*node)).collect();
    assert!(replaces(&plans[1]), "{plans:?}");
    assert!(plans[0].is_empty() && plans[2].is_empty(), "{plans:?}");
    realm.settle(|_| {});
    assert_eq!((realm.running(), realm.all()), (3, 3));
    assert!(nodes.iter().all(|node| realm.plan(*node).is_empty()));
}

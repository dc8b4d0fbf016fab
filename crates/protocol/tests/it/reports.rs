//! Reports of nodes: pulled when gossip tells of them, from others where the node does not answer,
//! and now and then where gossip tells nothing.

use realm_identity::{Hash, Signed, Timestamp};
use realm_manifest::report::{
    Capacity, CellReport, CellState, MAX_CELLS, NodeReport, NodeState, StatusDigest,
};
use realm_protocol::{Effect, Event, MemberState, Topic, Verdict};

use crate::{
    net::{Net, WALL, genesis, name},
    world::key,
};

/// A report of the first node, and its digest.
fn said(seq: u64, cells: Vec<CellReport>) -> (Vec<u8>, Vec<u8>) {
    let report = NodeReport {
        node: name(0),
        realm: genesis().realm_id(),
        boot_id: 7,
        seq,
        at: Timestamp::from_millis(WALL + seq),
        revision: 0,
        head: Hash::of(b"x"),
        state: NodeState::Ready,
        name: "one".parse().unwrap(),
        tags: vec![],
        version: "0.1.0".to_owned(),
        addresses: vec![],
        cpu_hundredths: None,
        memory_bytes: None,
        capacity: Capacity::default(),
        cells,
        declined: vec![],
        holds: vec![],
        sealing: None,
        problems: vec![],
    };
    let digest = StatusDigest {
        node: report.node,
        realm: report.realm,
        boot_id: report.boot_id,
        seq,
        at: report.at,
        revision: 0,
        head: report.head,
        state: report.state,
        report: Hash::of(b"x"),
        cells_running: 0,
        cells_wanted: 0,
        problems: vec![],
    };
    let (Ok(report), Ok(digest)) = (
        Signed::sign(report, &key(0, 0)),
        Signed::sign(digest, &key(0, 0)),
    );
    (report.to_wire(), digest.to_wire())
}

fn say(net: &mut Net, seq: u64) -> (Vec<u8>, Vec<u8>) {
    let (report, digest) = said(seq, vec![]);
    let event = Event::OwnReport {
        report: report.clone(),
        digest: digest.clone(),
    };
    net.give(0, event);
    (report, digest)
}

fn has(net: &Net, at: usize, report: &[u8]) -> bool {
    net.nodes[at].report(name(0)) == Some(report)
}

#[test]
fn who_does_not_answer_is_passed_over_for_who_told_of_it() {
    let mut net = Net::new(4);
    net.run(3_000);
    // The connection of the first two died, and neither knows.
    net.cut.extend([(0, 1), (1, 0)]);
    let (report, digest) = say(&mut net, 1);
    assert!(has(&net, 2, &report) && !has(&net, 1, &report));
    let now = net.now();
    let verdict = net.nodes[1].handle_gossip(name(2), Topic::Status, &digest, now);
    assert_eq!(verdict, Verdict::Accept);
    net.drain(1);
    assert!(!has(&net, 1, &report), "the node itself is asked first");
    net.run(1_100);
    assert!(has(&net, 1, &report));
    // It was silent meanwhile: of the next one it is not even asked first.
    net.run(1_000);
    let (report, digest) = say(&mut net, 2);
    let now = net.now();
    net.nodes[1].handle_gossip(name(2), Topic::Status, &digest, now);
    net.drain(1);
    assert!(has(&net, 1, &report));
}

#[test]
fn a_node_that_is_up_is_asked_first_however_long_ago_it_spoke() {
    let mut net = Net::new(3);
    net.run(3_000);
    // Who told of the report does not have it, and answers nothing.
    net.cut.extend([(1, 2), (2, 1)]);
    let (report, digest) = said(1, vec![]);
    net.cut.insert((0, 1));
    let event = Event::OwnReport {
        report: report.clone(),
        digest: digest.clone(),
    };
    net.give(0, event);
    net.cut.remove(&(0, 1));
    // In a large realm a pair says nothing to each other for so long.
    net.mono += 5_000;
    assert_eq!(net.state(1, 0), Some(MemberState::Up));
    let now = net.now();
    net.nodes[1].handle_gossip(name(2), Topic::Status, &digest, now);
    net.drain(1);
    assert!(has(&net, 1, &report));
}

#[test]
fn where_a_new_member_is_reached_is_asked_of_who_brings_it() {
    let mut net = Net::apart(3);
    net.gossips = false;
    let (report, _) = say(&mut net, 1);
    net.connect_two(0, 1);
    net.run(10_000);
    assert!(has(&net, 1, &report));
    // The first may be gone a moment later, and the last has no other way to find it.
    net.connect_two(1, 2);
    net.run(1_000);
    assert!(has(&net, 2, &report));
}

#[test]
fn others_are_asked_where_neither_answers() {
    let mut net = Net::new(5);
    net.run(3_000);
    net.cut.extend([(0, 1), (1, 0), (2, 1)]);
    let (report, digest) = say(&mut net, 1);
    let now = net.now();
    net.nodes[1].handle_gossip(name(2), Topic::Status, &digest, now);
    net.drain(1);
    net.run(3_200);
    assert!(has(&net, 1, &report));
}

#[test]
fn reports_come_round_without_gossip() {
    let mut net = Net::new(5);
    net.run(3_000);
    net.gossips = false;
    let (first, _) = say(&mut net, 1);
    net.run(60_000);
    assert!((1..5).all(|at| has(&net, at, &first)));
    let (second, _) = say(&mut net, 2);
    // Each exchange is with one of four, every 2 s.
    net.run(60_000);
    assert!((1..5).all(|at| has(&net, at, &second)));
}

#[test]
fn reports_are_pulled_once_and_from_anybody() {
    let mut net = Net::new(3);
    let cell = |index| CellReport {
        component: "a-component-with-a-long-name".parse().unwrap(),
        index,
        spec: Hash::of(b"spec"),
        generation: 1,
        state: CellState::Running,
        reason: None,
        restarts: 0,
        memory_bytes: 9 << 20,
        fuel_used: None,
        preemptions: 70_000,
        started_at: Some(Timestamp::from_millis(WALL)),
        exit_code: None,
        retry: None,
    };
    for seq in [1, 2, 2, 1] {
        // The second one names as many cells as a report may.
        let cells = match seq {
            2 => (0..MAX_CELLS).map(cell).collect(),
            _ => vec![],
        };
        let (report, digest) = said(seq, cells);
        net.give(0, Event::OwnReport { report, digest });
    }
    let updates: Vec<_> = net
        .kept
        .iter()
        .filter_map(|(at, effect)| match effect {
            Effect::ReportUpdated { report, .. } => {
                Some((*at, Signed::<NodeReport>::from_wire(report).unwrap().seq))
            }
            _ => None,
        })
        .collect();
    assert_eq!(updates, [(1, 1), (2, 1), (1, 2), (2, 2)]);
    assert_eq!(net.nodes[1].report(name(0)), net.nodes[0].report(name(0)));
    assert_eq!(net.nodes[1].boot_id(name(0)), Some(7));
    // The node started anew: its digest is here before its report is.
    let digest = StatusDigest {
        node: name(0),
        realm: genesis().realm_id(),
        boot_id: 8,
        seq: 1,
        at: Timestamp::from_millis(WALL + 3),
        revision: 0,
        head: Hash::of(b"x"),
        state: NodeState::Ready,
        report: Hash::of(b"y"),
        cells_running: 0,
        cells_wanted: 0,
        problems: vec![],
    };
    let Ok(digest) = Signed::sign(digest, &key(0, 0));
    let (now, wire) = (net.now(), digest.to_wire());
    let verdict = net.nodes[1].handle_gossip(name(0), Topic::Status, &wire, now);
    assert_eq!(verdict, Verdict::Accept);
    assert_eq!(net.nodes[1].boot_id(name(0)), Some(8));
}

//! Single promises of a node.

use std::collections::BTreeMap;

use realm_identity::{Claim, Hash, Invite, PublicKey, Signed, Timestamp, VerifiedClaim};
use realm_manifest::report::{
    Capacity, CellReport, CellState, MAX_CELLS, NodeReport, NodeState, StatusDigest,
};
use realm_protocol::{
    Accepted, Config, Effect, Event, Frame, HeadAnnounce, JoinRequest, MemberState, Node, Now,
    Offence, Refusal, Restored, Topic, Verdict, limits,
};

use crate::{
    client::push,
    fold::Chain,
    net::{Net, WALL, genesis, name, node, owner},
    world::key,
};

#[test]
fn an_answer_waits_for_the_disk() {
    let mut net = Net::new(2);
    net.slow_disk = true;
    let hash = net.submit(b"x");
    assert_eq!(net.results(), []);
    assert_eq!(net.nodes[0].durable_head().seq, 0);
    net.write();
    assert_eq!(
        net.results(),
        [Ok(Accepted {
            seq: 1,
            hash,
            durable_on: 1
        })]
    );
    net.write();
    assert_eq!(net.nodes[0].durable_on(1), 2);
}

#[test]
fn a_full_disk_refuses_and_loses_nothing() {
    let mut net = Net::new(1);
    net.disk_works = false;
    let hash = net.submit(b"x");
    assert_eq!(net.results(), [Err(Refusal::Storage)]);
    net.run(3_000);
    assert_eq!(net.nodes[0].durable_head().seq, 0);
    net.disk_works = true;
    net.run(1_500);
    assert_eq!(net.nodes[0].durable_head().hash, hash);
    let log = net.nodes[0].log().unwrap();
    let (wire, payload) = (log.item(hash).unwrap().entry, b"x".to_vec());
    net.give(
        0,
        Event::Submit {
            token: 2,
            entry: wire,
            payload,
        },
    );
    assert_eq!(
        net.results(),
        [Ok(Accepted {
            seq: 1,
            hash,
            durable_on: 1
        })]
    );
}

#[test]
fn a_killed_node_is_lost_soon_and_comes_back() {
    let mut net = Net::new(5);
    net.run(5_000);
    assert!((1..5).all(|other| net.state(0, other) == Some(MemberState::Up)));
    net.dead.insert(4);
    net.run(4_000);
    assert!((0..4).all(|at| net.state(at, 4) == Some(MemberState::Lost)));
    net.dead.remove(&4);
    net.nodes[4] = node(4, net.mono);
    net.give(
        4,
        Event::Approved {
            nodes: (0..5).map(name).collect(),
        },
    );
    net.connect(4);
    net.run(2_000);
    assert!((0..4).all(|at| net.state(at, 4) == Some(MemberState::Up)));
}

#[test]
fn a_lost_connection_speeds_that_up() {
    let mut net = Net::new(5);
    net.run(5_000);
    net.dead.insert(4);
    for at in 0..4 {
        net.give(at, Event::PeerDisconnected { peer: name(4) });
    }
    net.run(1_100);
    assert!((0..4).all(|at| net.state(at, 4) == Some(MemberState::Lost)));
}

#[test]
fn a_lost_connection_alone_loses_nobody() {
    let mut net = Net::new(5);
    net.run(5_000);
    net.give(0, Event::PeerDisconnected { peer: name(4) });
    net.give(0, Event::PeerConnected { peer: name(4) });
    net.run(3_000);
    assert_eq!(net.state(0, 4), Some(MemberState::Up));
    assert_eq!(
        net.saw(|effect| matches!(
            effect,
            Effect::MemberChanged {
                state: MemberState::Lost,
                ..
            }
        )),
        0
    );
}

#[test]
fn a_node_that_was_paused_accuses_nobody() {
    let mut net = Net::new(3);
    net.run(5_000);
    net.dead.insert(0);
    net.run(400);
    net.dead.remove(&0);
    net.mono += 20_000;
    net.run(2_000);
    assert_eq!(
        net.saw(|effect| matches!(
            effect,
            Effect::MemberChanged {
                state: MemberState::Lost,
                ..
            }
        )),
        0
    );
}

#[test]
fn a_clock_set_back_locks_nobody_out() {
    let mut net = Net::new(3);
    net.run(5_000);
    net.nodes[2] = node(2, 0);
    let mono = net.mono;
    let past = Now {
        wall: Timestamp::from_millis(WALL - 1_000_000),
        mono,
    };
    let config = Config {
        key: key(0, 2),
        realm: None,
        pins: vec![owner().public()],
        boot_id: 1,
        seed: 1,
        mutation: None,
    };
    let restored = Restored {
        genesis: Some(genesis().to_wire()),
        ..Restored::default()
    };
    net.nodes[2] = Node::new(config, Chain, restored, past).unwrap();
    net.give(
        2,
        Event::Approved {
            nodes: (0..3).map(name).collect(),
        },
    );
    net.connect(2);
    net.run(10_000);
    assert!((0..2).all(|at| net.state(at, 2) == Some(MemberState::Up)));
    assert!((0..2).all(|other| net.state(2, other) == Some(MemberState::Up)));
}

#[test]
fn a_revoked_node_is_no_member() {
    let mut net = Net::new(3);
    net.run(3_000);
    for at in 0..2 {
        net.give(
            at,
            Event::Approved {
                nodes: (0..2).map(name).collect(),
            },
        );
    }
    net.run(5_000);
    assert!((0..2).all(|at| net.state(at, 2) == Some(MemberState::Lost)));
}

/// Who was lost to whom since the effects were last cleared.
fn losses(net: &Net) -> Vec<(usize, PublicKey)> {
    let lost = net.kept.iter().filter_map(|(at, effect)| match effect {
        Effect::MemberChanged {
            node,
            state: MemberState::Lost,
        } => Some((*at, *node)),
        _ => None,
    });
    lost.collect()
}

/// The nodes of `net` but `out` are approved, in the eyes of each of `at`.
pub fn approve_without(net: &mut Net, at: impl Iterator<Item = usize>, out: Option<usize>) {
    let nodes = (0..net.nodes.len()).filter(|node| Some(*node) != out);
    let nodes: std::collections::BTreeSet<_> = nodes.map(name).collect();
    for at in at {
        let nodes = nodes.clone();
        net.give(at, Event::Approved { nodes });
    }
}

#[test]
fn who_is_let_in_again_spreads_no_verdicts_of_the_time_between() {
    let mut net = Net::new(5);
    net.run(5_000);
    approve_without(&mut net, 0..5, Some(4));
    net.run(5_000);
    // Nobody answered it, and it says nothing about them.
    assert!(losses(&net).iter().all(|(_, node)| *node == name(4)));
    assert!(net.nodes[4].members().is_empty());
    net.kept.clear();
    // It may learn of it first, or last.
    for order in [[4, 0, 1, 2, 3], [0, 1, 2, 3, 4]] {
        for at in order {
            approve_without(&mut net, at..at + 1, None);
            net.run(50);
        }
        net.run(5_000);
        assert_eq!(losses(&net), []);
        assert!((0..5).all(|at| {
            (0..5)
                .filter(|of| *of != at)
                .all(|of| net.state(at, of) == Some(MemberState::Up))
        }));
        approve_without(&mut net, 0..5, Some(4));
        net.run(5_000);
        net.kept.clear();
    }
}

#[test]
fn a_partition_that_heals_loses_nobody_again() {
    let mut net = Net::new(5);
    net.run(5_000);
    net.deaf.insert(4);
    net.run(5_000);
    assert_eq!(losses(&net).len(), 8, "each side lost the other");
    net.kept.clear();
    net.deaf.clear();
    net.run(5_000);
    assert_eq!(losses(&net), [], "the others never lost each other");
    assert!((0..4).all(|at| net.state(at, 4) == Some(MemberState::Up)));
    assert!((0..4).all(|of| net.state(4, of) == Some(MemberState::Up)));
}

pub fn request(index: usize, of: usize) -> Vec<u8> {
    let request = JoinRequest {
        v: 1,
        node: name(of),
        realm: None,
        name: format!("node-{index}"),
        tags: vec![],
        addresses: vec![],
        version: "0.1.0".to_owned(),
        at: Timestamp::from_millis(WALL),
    };
    let Ok(request) = Signed::sign(request, &key(0, of as u64));
    Frame::Join(request.to_wire()).encode()
}

#[test]
fn strangers_get_a_bounded_join_request_and_nothing_else() {
    let mut net = Net::new(1);
    net.submit(b"secret");
    net.kept.clear();
    for index in 10..100 {
        let peer = name(index);
        net.give(0, Event::PeerConnected { peer });
        net.give(
            0,
            Event::Frame {
                from: peer,
                bytes: request(index, index),
            },
        );
        let log = net.nodes[0].log().unwrap();
        let asks = [
            Frame::Locator {
                realm: log.realm(),
                tips: vec![],
                samples: vec![],
            },
            Frame::GetEntry(log.head().hash),
            Frame::GetReport {
                node: name(0),
                boot_id: 0,
                seq: 0,
            },
            Frame::ClaimsHave(vec![Hash::of(b"x")]),
            Frame::Swim(vec![0; 100]),
        ];
        asks.iter().for_each(|ask| {
            net.give(
                0,
                Event::Frame {
                    from: peer,
                    bytes: ask.encode(),
                },
            )
        });
    }
    assert_eq!(
        net.saw(|effect| matches!(effect, Effect::JoinRequested { .. })),
        limits::MAX_PENDING_JOINS
    );
    assert_eq!(
        net.saw(|effect| !matches!(effect, Effect::JoinRequested { .. })),
        0
    );
    net.give(0, Event::JoinSettled { node: name(10) });
    assert_eq!(net.nodes[0].joins().count(), limits::MAX_PENDING_JOINS - 1);
}

/// What a peer sends.
pub fn frame(from: usize, bytes: Vec<u8>) -> Event {
    let from = name(from);
    Event::Frame { from, bytes }
}

pub fn asking(net: &Net, at: usize) -> Vec<PublicKey> {
    net.nodes[at].joins().map(|join| join.node).collect()
}

#[test]
fn every_node_knows_who_asks_to_join_at_one_of_them() {
    let mut net = Net::new(3);
    net.give(1, Event::PeerConnected { peer: name(10) });
    net.give(1, frame(10, request(10, 10)));
    assert!((0..3).all(|at| asking(&net, at) == [name(10)]));
    // It goes on asking: nobody forgets it, and nobody tells of it as something new.
    for _ in 0..10 {
        net.run(5_000);
        net.give(1, frame(10, request(10, 10)));
    }
    assert!((0..3).all(|at| asking(&net, at) == [name(10)]));
    assert_eq!(
        net.saw(|effect| matches!(effect, Effect::JoinRequested { .. })),
        3
    );
    // Its node has left: where it was connected it is forgotten at once, elsewhere soon.
    net.give(1, Event::PeerDisconnected { peer: name(10) });
    assert!(asking(&net, 1).is_empty());
    net.run(33_000);
    assert!((0..3).all(|at| asking(&net, at).is_empty()));
}

#[test]
fn join_requests_that_peers_tell_of_are_bounded_and_signed() {
    let mut net = Net::new(2);
    for index in 10..100 {
        net.give(0, frame(1, request(index, index)));
    }
    assert_eq!(asking(&net, 0).len(), limits::MAX_TOLD_JOINS);
    // They take no place of those that ask here themselves, and go no further.
    assert!(asking(&net, 1).is_empty());
    net.give(0, Event::PeerConnected { peer: name(99) });
    net.give(0, frame(99, request(99, 99)));
    assert!(asking(&net, 0).contains(&name(99)));
    // A stranger speaks for itself alone, and nobody changes what another one signed.
    net.give(0, Event::PeerConnected { peer: name(100) });
    net.give(0, frame(100, request(101, 101)));
    let mut forged = request(102, 102);
    let last = forged.len() - 1;
    forged[last] ^= 1;
    net.give(0, frame(1, forged));
    let unheard = [name(101), name(102)];
    assert!(
        !asking(&net, 0).iter().any(|node| unheard.contains(node)),
        "only what was signed and brought by who may"
    );
    // One that joins another realm is no business of this one.
    let request = JoinRequest {
        v: 1,
        node: name(103),
        realm: Some(realm_identity::RealmId::from_bytes([9; 32])),
        name: "elsewhere".into(),
        tags: vec![],
        addresses: vec![],
        version: "0.1.0".into(),
        at: Timestamp::from_millis(WALL),
    };
    let Ok(request) = Signed::sign(request, &key(0, 103));
    net.give(0, Event::PeerConnected { peer: name(103) });
    net.give(0, frame(103, Frame::Join(request.to_wire()).encode()));
    assert!(!asking(&net, 0).contains(&name(103)));
}

#[test]
fn offences_are_named() {
    let mut net = Net::new(1);
    let peer = name(10);
    net.give(0, Event::PeerConnected { peer });
    net.give(
        0,
        Event::Frame {
            from: peer,
            bytes: Frame::Join(vec![1]).encode(),
        },
    );
    net.give(
        0,
        Event::Frame {
            from: peer,
            bytes: vec![0xff],
        },
    );
    for _ in 0..20 {
        net.give(
            0,
            Event::Frame {
                from: peer,
                bytes: request(10, 10),
            },
        );
    }
    let offences: Vec<_> = net
        .kept
        .iter()
        .filter_map(|(_, effect)| match effect {
            Effect::Warn { what, .. } => Some(what.clone()),
            _ => None,
        })
        .collect();
    assert_eq!(
        offences[..3],
        [
            Offence::BadJoin,
            Offence::MalformedFrame,
            Offence::RateLimited
        ]
    );
}

#[test]
fn gossip_is_judged_before_it_is_forwarded() {
    let mut net = Net::new(2);
    net.run(1_000);
    let announce = |node: usize, realm, boot_id, count| {
        let (seq, head) = (0, Hash::of(b"x"));
        let announce = HeadAnnounce {
            v: 1,
            node: name(node),
            realm,
            seq,
            head,
            tips: vec![],
            boot_id,
            count,
        };
        let Ok(signed) = Signed::sign(announce, &key(0, node as u64));
        signed.to_wire()
    };
    let realm = genesis().realm_id();
    let now = net.now();
    let mut judge = |bytes: &[u8]| net.nodes[0].handle_gossip(name(1), Topic::Heads, bytes, now);
    assert_eq!(judge(&announce(1, realm, 7, 5)), Verdict::Accept);
    assert_eq!(judge(&announce(1, realm, 7, 5)), Verdict::Ignore);
    assert_eq!(judge(&announce(1, realm, 7, 4)), Verdict::Ignore);
    assert_eq!(judge(&announce(1, realm, 6, 9)), Verdict::Ignore);
    assert_eq!(judge(&announce(1, realm, 8, 1)), Verdict::Accept);
    assert_eq!(
        judge(&announce(1, Hash::of(b"elsewhere"), 8, 2)),
        Verdict::Ignore
    );
    assert_eq!(judge(&announce(7, realm, 8, 2)), Verdict::Ignore);
    assert_eq!(
        judge(&[announce(1, realm, 8, 3), vec![0]].concat()),
        Verdict::Reject
    );
    assert_eq!(
        judge(&vec![0; limits::MAX_GOSSIP_BYTES + 1]),
        Verdict::Reject
    );
    // A digest of good form and of its node's hand, but for its length.
    let problem = |length| vec!["x".repeat(length)];
    let digest = |seq, length| {
        let digest = StatusDigest {
            node: name(1),
            realm,
            boot_id: 7,
            seq,
            at: Timestamp::from_millis(WALL),
            revision: 0,
            head: Hash::of(b"x"),
            state: NodeState::Ready,
            report: Hash::of(b"x"),
            cells_running: 0,
            cells_wanted: 0,
            problems: problem(length),
        };
        let Ok(signed) = Signed::sign(digest, &key(0, 1));
        signed.to_wire()
    };
    let room = limits::MAX_STATUS_BYTES - digest(1, 300).len();
    for (seq, length, verdict) in [
        (1, 300 + room, Verdict::Accept),
        (2, 301 + room, Verdict::Reject),
    ] {
        let wire = digest(seq, length);
        let judged = net.nodes[0].handle_gossip(name(1), Topic::Status, &wire, now);
        assert_eq!(judged, verdict, "{} bytes", wire.len());
    }
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
    let report = |seq| NodeReport {
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
        // The second one names as many cells as a report may.
        cells: match seq {
            2 => (0..MAX_CELLS).map(cell).collect(),
            _ => vec![],
        },
        declined: vec![],
        holds: vec![],
        sealing: None,
        problems: vec![],
    };
    for seq in [1, 2, 2, 1] {
        let report = report(seq);
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
        net.give(
            0,
            Event::OwnReport {
                report: report.to_wire(),
                digest: digest.to_wire(),
            },
        );
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

#[test]
fn claims_spread_and_two_uses_of_an_invite_raise_an_alarm() {
    let mut net = Net::new(3);
    let invite_key = key(0, 50);
    let invite = Invite {
        v: realm_identity::VERSION,
        realm: genesis().realm_id(),
        genesis: genesis().to_wire(),
        owner: owner().public(),
        key: invite_key.public(),
        name: None,
        tags: vec![],
        issued_at: Timestamp::from_millis(WALL),
        not_after: Timestamp::from_millis(WALL + 60_000),
        addresses: vec![],
    };
    let Ok(invite) = Signed::sign(invite, &owner());
    let now = Timestamp::from_millis(WALL);
    let claim = |node: u64| {
        let Ok(claim) = Claim::sign(&invite, &invite_key, &key(0, node), now);
        let verified =
            VerifiedClaim::new(claim, genesis().realm_id(), &[owner().public()]).unwrap();
        verified.witness(&key(0, 0), now).unwrap().to_wire()
    };
    net.give(0, Event::AddClaim { claim: claim(60) });
    let mut counts = BTreeMap::new();
    for (at, _) in net
        .kept
        .iter()
        .filter(|(_, effect)| matches!(effect, Effect::ClaimAdded { .. }))
    {
        *counts.entry(*at).or_insert(0) += 1;
    }
    assert_eq!(counts, BTreeMap::from([(0, 1), (1, 1), (2, 1)]));
    net.give(1, Event::AddClaim { claim: claim(61) });
    assert_eq!(
        net.saw(|effect| matches!(effect, Effect::ClaimConflict { .. })),
        3
    );
    assert!(net.nodes.iter().all(|node| node.claims().count() == 2));
}

#[test]
fn a_newcomer_that_pinned_a_later_owner_starts_at_its_checkpoint() {
    let mut net = Net::new(2);
    let later = key(0, 101);
    let rotate = crate::client::rotate(net.nodes[0].log().unwrap(), &owner(), later.public());
    net.give(
        0,
        Event::Submit {
            token: 1,
            entry: rotate.wire,
            payload: rotate.payload,
        },
    );
    let signature = push(net.nodes[0].log().unwrap(), &later, b"x");
    net.give(
        0,
        Event::Submit {
            token: 2,
            entry: signature.wire,
            payload: signature.payload,
        },
    );
    let newcomer = |pin: PublicKey| Config {
        key: key(0, 2),
        realm: None,
        pins: vec![pin],
        boot_id: 1,
        seed: 2,
        mutation: None,
    };
    net.nodes.push(
        Node::new(
            newcomer(later.public()),
            Chain,
            Restored::default(),
            net.now(),
        )
        .unwrap(),
    );
    for at in 0..2 {
        net.give(
            at,
            Event::Approved {
                nodes: (0..3).map(name).collect(),
            },
        );
    }
    net.connect(2);
    net.run(3_000);
    let (old, new) = (
        net.nodes[0].log().unwrap().head(),
        net.nodes[2].log().unwrap().head(),
    );
    assert_eq!((old.seq, new), (2, old));
    // A pin that owns nothing here joins nothing.
    net.nodes[2] = Node::new(newcomer(name(9)), Chain, Restored::default(), net.now()).unwrap();
    net.connect(2);
    net.run(3_000);
    assert!(net.nodes[2].log().is_none());
}

//! Single promises of a node.

use std::collections::BTreeMap;

use realm_identity::{Claim, Hash, Invite, PublicKey, Signed, Timestamp, VerifiedClaim};
use realm_manifest::report::{NodeState, StatusDigest};
use realm_protocol::{
    Accepted, Config, Effect, Event, Frame, HeadAnnounce, Node, Offence, Refusal, Restored, Topic,
    Verdict, limits,
};

use crate::{
    client::push,
    fold::Chain,
    net::{Net, WALL, genesis, name, owner, request},
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
fn what_is_signed_in_quick_succession_arrives_at_once() {
    let mut net = Net::new(2);
    for _ in 0..5 {
        let hash = net.submit(b"x");
        assert_eq!(net.nodes[1].durable_head().hash, hash);
    }
    assert_eq!(net.mono, 0, "no time has passed");
}

#[test]
fn a_look_that_found_nothing_new_puts_nothing_off() {
    let mut net = Net::new(2);
    // Every few seconds one asks the other whether it has all.
    for _ in 0..200 {
        net.run(50);
        let (at, hash) = (net.mono, net.submit(b"x"));
        assert_eq!(net.nodes[1].durable_head().hash, hash, "at {at}");
    }
}

#[test]
fn a_peer_that_may_not_be_asked_yet_is_asked_as_soon_as_it_may() {
    let mut net = Net::new(2);
    net.run(3_000);
    // The question is lost, so that the next one has to wait.
    net.cut.insert((1, 0));
    net.submit(b"x");
    net.cut.clear();
    let hash = net.submit(b"y");
    assert_ne!(net.nodes[1].durable_head().hash, hash);
    net.run(200);
    assert_eq!(net.nodes[1].durable_head().hash, hash);
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
fn an_author_without_end_is_heard_and_not_handed_on() {
    let mut net = Net::new(2);
    net.run(30_000);
    let heads = |net: &mut Net, count: std::ops::Range<u64>| {
        let now = net.now();
        let judge = |count| {
            let announce = HeadAnnounce {
                v: 1,
                node: name(1),
                realm: genesis().realm_id(),
                seq: count,
                head: Hash::of(b"x"),
                tips: vec![],
                boot_id: u64::MAX,
                count,
            };
            let Ok(signed) = Signed::sign(announce, &key(0, 1));
            net.nodes[0].handle_gossip(name(1), Topic::Heads, &signed.to_wire(), now)
        };
        let verdicts: Vec<_> = count.map(judge).collect();
        let accepted = verdicts.iter().filter(|one| **one == Verdict::Accept);
        let rejected = verdicts.iter().filter(|one| **one == Verdict::Reject);
        assert_eq!(rejected.count(), 0);
        accepted.count() as u32
    };
    // One was its own, a moment ago.
    assert_eq!(heads(&mut net, 1..200), limits::AUTHOR_BURST - 1);
    let heard = |net: &Net| net.nodes[0].heads().find(|(node, _)| *node == name(1));
    assert_eq!(heard(&net).unwrap().1.seq, 199, "the newest all the same");
    net.mono += 1_000;
    assert_eq!(heads(&mut net, 200..300), limits::AUTHOR_PER_SECOND);
}

#[test]
fn a_peer_that_gossips_without_end_is_not_listened_to() {
    let mut net = Net::new(2);
    net.run(10_000);
    let judged = |net: &Net| {
        let malformed = |effect: &Effect| {
            matches!(
                effect,
                Effect::Warn {
                    what: Offence::MalformedGossip,
                    ..
                }
            )
        };
        net.saw(malformed) as u32
    };
    let heard = |net: &mut Net| {
        let (now, before) = (net.now(), judged(net));
        for _ in 0..2 * limits::GOSSIP_BURST {
            let verdict = net.nodes[0].handle_gossip(name(1), Topic::Status, b"x", now);
            assert_eq!(verdict, Verdict::Reject, "it loses its score by each");
        }
        net.drain(0);
        judged(net) - before
    };
    // What was honest, a moment ago, does not count.
    assert_eq!(heard(&mut net), limits::GOSSIP_BURST);
    net.mono += 1_000;
    assert_eq!(heard(&mut net), limits::GOSSIP_PER_SECOND);
    let limited = |effect: &Effect| matches!(effect, Effect::Warn { what: Offence::RateLimited, peer } if *peer == name(1));
    assert!(net.saw(limited) > 0, "and it is held against it");
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

//! Who asks to join, and who learns of it.

use realm_identity::{Hash, Signed, Timestamp};
use realm_protocol::{Effect, Event, Expulsion, Frame, JoinRequest, limits};

use crate::{
    net::{Net, WALL, asking, frame, name, request},
    world::key,
};

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

/// A node of the realm to which an approved one, 1, and a stranger, 10, are connected.
fn with_a_stranger() -> Net {
    let mut net = Net::new(1);
    let nodes = [name(0), name(1)].into();
    net.give(0, Event::Approved { nodes });
    for peer in [1, 10].map(name) {
        net.give(0, Event::PeerConnected { peer });
    }
    net.kept.clear();
    net
}

fn told(net: &Net) -> usize {
    let join = |frame: &[u8]| matches!(Frame::decode(frame), Ok(Frame::Join(_)));
    net.saw(|effect| matches!(effect, Effect::Send { to, frame } if *to == name(1) && join(frame)))
}

/// The names that nodes ask with.
fn names(net: &Net) -> Vec<String> {
    net.nodes[0].joins().map(|join| join.name.clone()).collect()
}

#[test]
fn a_request_that_is_repeated_is_told_every_ten_seconds() {
    let mut net = with_a_stranger();
    for (at, times) in [
        (3, 1),
        (4_000, 1),
        (10_002, 1),
        (10_003, 2),
        (20_002, 2),
        (20_003, 3),
    ] {
        net.mono = at;
        net.give(0, frame(10, request(10, 10)));
        assert_eq!(told(&net), times, "at {at}");
    }
    // Who is not in the realm itself has nobody to tell.
    let mut net = with_a_stranger();
    let nodes = [name(1)].into();
    net.give(0, Event::Approved { nodes });
    net.give(0, frame(10, request(10, 10)));
    assert_eq!((told(&net), asking(&net, 0)), (0, vec![name(10)]));
}

#[test]
fn what_peers_tell_is_forgotten_half_a_minute_after_the_last_word() {
    let mut net = with_a_stranger();
    net.give(0, frame(10, request(10, 10)));
    for at in [5, 25_000] {
        net.run(at - net.mono);
        net.give(0, frame(1, request(11, 11)));
        assert_eq!(asking(&net, 0).len(), 2);
    }
    // A stranger's word of another node keeps nothing.
    net.run(20_000);
    net.give(0, frame(10, request(11, 11)));
    net.run(9_999);
    assert_eq!(asking(&net, 0).len(), 2);
    net.run(3_000);
    assert_eq!(
        asking(&net, 0),
        [name(10)],
        "the one that is connected stays"
    );
}

#[test]
fn what_was_told_of_is_kept_for_half_a_minute_and_who_asks_here_for_as_long_as_it_stays() {
    let asks = |here: bool, at: u64| {
        let mut net = with_a_stranger();
        net.mono = 25_000;
        net.give(0, frame(1, request(10, 10)));
        if here {
            net.give(0, frame(10, request(10, 10)));
        }
        net.mono = at;
        net.give(0, Event::Tick);
        asking(&net, 0) == [name(10)]
    };
    assert!(asks(false, 54_999));
    assert!(!asks(false, 55_000));
    assert!(asks(true, 55_000));
    assert!(asks(true, 100_000));
}

#[test]
fn what_a_node_says_itself_counts_before_what_is_told_of_it() {
    let mut net = with_a_stranger();
    net.give(0, frame(1, request(11, 10)));
    assert_eq!(names(&net), ["node-11"]);
    let asked = |net: &Net| net.saw(|effect| matches!(effect, Effect::JoinRequested { .. }));
    // It says so itself: that is no news, and it is told of now.
    net.give(0, frame(10, request(11, 10)));
    assert_eq!((asked(&net), told(&net)), (1, 1));
    // What it says anew is.
    net.give(0, frame(10, request(12, 10)));
    assert_eq!(names(&net), ["node-12"]);
    assert_eq!((asked(&net), told(&net)), (2, 2));
    // A peer that has heard the old one tells of it still.
    net.give(0, frame(1, request(11, 10)));
    net.give(0, frame(1, request(13, 10)));
    assert_eq!(names(&net), ["node-12"]);
    assert_eq!((asked(&net), told(&net)), (2, 2));
    // It has left: what is told of it is all there is.
    net.give(0, Event::PeerDisconnected { peer: name(10) });
    net.give(0, frame(1, request(13, 10)));
    assert_eq!(names(&net), ["node-13"]);
    net.give(0, frame(1, request(14, 10)));
    assert_eq!((names(&net), asked(&net)), (vec!["node-14".to_owned()], 4));
}

#[test]
fn nodes_of_the_realm_do_not_ask_to_join_it() {
    let mut net = with_a_stranger();
    net.give(0, frame(1, request(1, 1)));
    net.give(0, frame(1, request(0, 0)));
    assert!(asking(&net, 0).is_empty());
    net.give(0, frame(10, request(10, 10)));
    net.give(0, frame(1, request(11, 11)));
    assert_eq!(asking(&net, 0).len(), 2);
    let nodes = [0, 1, 11].map(name).into();
    net.give(0, Event::Approved { nodes });
    assert_eq!(asking(&net, 0), [name(10)], "one of them is in now");
}

#[test]
fn a_stranger_asks_for_itself_alone_and_nobody_for_who_is_revoked() {
    let mut net = with_a_stranger();
    net.give(0, frame(10, request(11, 11)));
    assert!(asking(&net, 0).is_empty());
    let out = Expulsion {
        revision: 1,
        for_good: true,
    };
    let nodes = [(name(12), out)].into();
    net.give(0, Event::Expelled { nodes });
    net.give(0, frame(1, request(12, 12)));
    assert!(asking(&net, 0).is_empty());
    net.give(0, frame(1, request(13, 13)));
    assert_eq!(asking(&net, 0), [name(13)]);
}

#[test]
fn those_that_ask_here_have_places_of_their_own() {
    let mut net = with_a_stranger();
    for node in 100..100 + limits::MAX_PENDING_JOINS {
        net.give(0, Event::PeerConnected { peer: name(node) });
        net.give(0, frame(node, request(node, node)));
    }
    net.give(0, frame(10, request(10, 10)));
    assert_eq!(asking(&net, 0).len(), limits::MAX_PENDING_JOINS);
    assert!(!asking(&net, 0).contains(&name(10)), "they are taken");
    // One that has a place says something else there, and what is told has another one.
    net.give(0, frame(100, request(1, 100)));
    assert!(names(&net).contains(&"node-1".to_owned()));
    net.give(0, frame(1, request(10, 10)));
    assert!(asking(&net, 0).contains(&name(10)));
    net.give(0, frame(10, request(10, 10)));
    assert_eq!(asking(&net, 0).len(), limits::MAX_PENDING_JOINS + 1);
}

//! Who asks to join, and who learns of it.

use realm_identity::{Hash, Signed, Timestamp};
use realm_protocol::{Effect, Event, Frame, JoinRequest, limits};

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

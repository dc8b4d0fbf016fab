//! Who is lost, who is only doubted, and who comes back.

use realm_identity::{PublicKey, Timestamp};
use realm_protocol::{Config, Effect, Event, MemberState, Node, Now, Restored};

use crate::{
    fold::Chain,
    net::{Net, WALL, approve_without, genesis, name, node, owner},
    world::key,
};

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
    assert_eq!(losses(&net), []);
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
    assert_eq!(losses(&net), []);
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
    assert_eq!(losses(&net), [(0, name(2)), (1, name(2))]);
    let forgotten = |net: &Net| (0..2).all(|at| net.state(at, 2).is_none());
    assert!(forgotten(&net), "at once");
    net.run(5_000);
    assert!(forgotten(&net), "whatever it says");
    // It may come back.
    approve_without(&mut net, 0..3, None);
    net.run(5_000);
    assert!((0..2).all(|at| net.state(at, 2) == Some(MemberState::Up)));
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

#[test]
fn a_connection_outlives_a_loss_that_is_taken_back() {
    let mut net = Net::new(4);
    net.run(5_000);
    net.deaf.insert(3);
    net.run(4_000);
    assert_eq!(net.state(0, 3), Some(MemberState::Lost));
    net.deaf.clear();
    net.run(10_000);
    assert_eq!(net.state(0, 3), Some(MemberState::Up));
    let hung_up = net.saw(|effect| matches!(effect, Effect::HangUp { .. }));
    assert_eq!(hung_up, 0);
}

#[test]
fn a_dead_connection_to_a_lost_member_is_given_up_once() {
    let mut net = Net::new(4);
    net.run(5_000);
    net.dead.insert(3);
    net.run(10_000);
    let hung_up = |net: &Net| -> Vec<(usize, PublicKey)> {
        let hung_up = net.kept.iter().filter_map(|(at, effect)| match effect {
            Effect::HangUp { peer } => Some((*at, *peer)),
            _ => None,
        });
        let mut hung_up: Vec<_> = hung_up.collect();
        hung_up.sort();
        hung_up
    };
    assert_eq!(hung_up(&net), [0, 1, 2].map(|at| (at, name(3))));
    // A connection that is new may still turn out to be alive.
    for at in 0..3 {
        net.give(at, Event::PeerDisconnected { peer: name(3) });
        net.give(at, Event::PeerConnected { peer: name(3) });
    }
    net.kept.clear();
    net.run(2_000);
    assert_eq!(hung_up(&net), []);
    net.dead.remove(&3);
    net.run(10_000);
    assert_eq!(hung_up(&net), []);
    assert_eq!(net.state(0, 3), Some(MemberState::Up));
}

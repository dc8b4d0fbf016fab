//! A node that just came into a realm, and what it has not read yet.

use realm_identity::Hash;
use realm_protocol::{Config, Effect, Event, Frame, Node, Op, Restored};

use crate::{
    faults::restored,
    fold::Chain,
    net::{Net, approve_without, frame, genesis, name, node, owner},
    world::key,
};

/// Whether the last node has caught up, as far as it said so.
fn caught_up(net: &Net) -> bool {
    let last = net.nodes.len() - 1;
    let said = net.saw(|effect| *effect == Effect::CaughtUp) > 0;
    assert_eq!(net.nodes[last].is_caught_up(), said, "told when it is so");
    said
}

/// A node that knows the realm's genesis alone and is approved, beside one with two revisions; what
/// they say to each other is lost.
fn newcomer() -> Net {
    let mut net = Net::new(1);
    net.submit(b"one");
    net.submit(b"two");
    net.kept.clear();
    net.nodes.push(node(1, 0));
    net.deaf.insert(1);
    net.connect(1);
    approve_without(&mut net, 0..2, None);
    net
}

#[test]
fn a_newcomer_has_caught_up_when_it_has_what_an_approved_peer_told_of() {
    let mut net = newcomer();
    net.run(3_000);
    assert!(!caught_up(&net), "it heard nothing");
    let tip = net.nodes[0].log().unwrap().tips();
    let locator = |realm, tips: &[realm_protocol::Point]| {
        let samples = vec![];
        let tips = tips.to_vec();
        Frame::Locator {
            realm,
            tips,
            samples,
        }
        .encode()
    };
    let realm = genesis().realm_id();
    // A stranger's word holds nobody back, and settles nothing.
    net.give(1, Event::PeerConnected { peer: name(9) });
    net.give(1, frame(9, locator(realm, &[])));
    net.give(1, frame(0, locator(realm, &tip)));
    assert!(!caught_up(&net), "it knows of more than it has");
    net.slow_disk = true;
    net.deaf.clear();
    net.run(3_000);
    assert_eq!(net.nodes[1].log().unwrap().head().seq, 2);
    assert!(!caught_up(&net), "not on disk yet");
    net.write();
    assert!(caught_up(&net));
    // What comes later is as for everybody: it stays so, also after a start.
    let again = net.nodes[1].log().unwrap().head().seq;
    net.slow_disk = false;
    net.submit(b"three");
    assert!(again < 3 && caught_up(&net));
}

#[test]
fn who_was_told_of_a_later_owner_reads_on_until_the_log_names_it() {
    let mut net = Net::new(1);
    net.submit(b"one");
    net.kept.clear();
    let later = key(0, 101);
    let config = Config {
        key: key(0, 1),
        realm: Some(genesis().realm_id()),
        pins: vec![later.public()],
        boot_id: 1,
        seed: 1,
        mutation: None,
    };
    let newcomer = Node::new(config, Chain, Restored::default(), net.now());
    net.nodes.push(newcomer.unwrap());
    net.connect(1);
    approve_without(&mut net, 0..2, None);
    net.run(60_000);
    assert_eq!(net.nodes[1].log().unwrap().head().seq, 1);
    assert!(!caught_up(&net), "this is the founder's log");
    let rotate = crate::client::rotate(net.nodes[0].log().unwrap(), &owner(), later.public());
    let submit = Event::Submit {
        token: 2,
        entry: rotate.wire,
        payload: rotate.payload,
    };
    net.give(0, submit);
    net.run(3_000);
    assert_eq!(net.nodes[1].log().unwrap().owner(), later.public());
    assert!(caught_up(&net));
}

/// The last node as it starts after it was killed.
fn killed(net: &mut Net) {
    let genesis = genesis().to_wire();
    let mut disk = vec![Op::Genesis { wire: genesis }];
    disk.extend(
        net.disk
            .iter()
            .filter(|(at, _)| *at == 1)
            .map(|(_, op)| op.clone()),
    );
    let config = Config {
        key: key(0, 1),
        realm: None,
        pins: vec![owner().public()],
        boot_id: 2,
        seed: 1,
        mutation: None,
    };
    net.nodes[1] = Node::new(config, Chain, restored(&disk), net.now()).unwrap();
    net.kept.clear();
}

#[test]
fn a_newcomer_that_was_killed_while_it_read_is_one_still() {
    let mut net = newcomer();
    let log = net.nodes[0].log().unwrap();
    let first = log.agreed(1).next().unwrap().0.hash();
    let part = Frame::Entries {
        realm: log.realm(),
        items: vec![log.item(first).unwrap()],
        more: true,
    };
    net.give(1, frame(0, part.encode()));
    killed(&mut net);
    assert_eq!(net.nodes[1].log().unwrap().head().seq, 1);
    assert!(!caught_up(&net), "it has only half of it");
    net.deaf.clear();
    approve_without(&mut net, 1..2, None);
    net.connect(1);
    net.run(3_000);
    assert!(caught_up(&net));
    // That it has caught up is on disk, after all that it read.
    killed(&mut net);
    assert!(net.nodes[1].is_caught_up());
    assert_eq!(net.nodes[1].log().unwrap().head().seq, 2);
    let marked = net
        .disk
        .iter()
        .rposition(|(at, op)| (*at, op) == (1, &Op::CaughtUp));
    let read = |(at, op): &(usize, Op)| *at == 1 && matches!(op, Op::Entry { .. });
    assert!(marked > net.disk.iter().rposition(read));
}

#[test]
fn who_tells_of_entries_and_brings_none_holds_a_newcomer_back_for_a_time() {
    let mut net = newcomer();
    let tips = vec![realm_protocol::Point {
        seq: 9,
        hash: Hash::of(b"nobody has it"),
    }];
    let realm = genesis().realm_id();
    let samples = vec![];
    let locator = Frame::Locator {
        realm,
        tips,
        samples,
    };
    net.give(1, frame(0, locator.encode()));
    net.run(9_900);
    assert!(!caught_up(&net));
    net.run(200);
    assert!(caught_up(&net));
}

#[test]
fn who_is_alone_and_who_has_a_log_has_caught_up() {
    let net = Net::new(1);
    assert_eq!(net.saw(|effect| *effect == Effect::CaughtUp), 1);
    let mut net = Net::new(2);
    let before = net.nodes[1].log().unwrap();
    assert_eq!(before.head().seq, 0, "nodes that begin together");
    assert!(net.nodes.iter().all(Node::is_caught_up));
    net.submit(b"x");
    net.run(3_000);
    let log = net.nodes[1].log().unwrap();
    let head = log.item(log.head().hash).unwrap();
    let restored = Restored {
        genesis: Some(genesis().to_wire()),
        entries: vec![head],
        caught_up: true,
        ..Restored::default()
    };
    let config = Config {
        key: key(0, 1),
        realm: None,
        pins: vec![owner().public()],
        boot_id: 2,
        seed: 1,
        mutation: None,
    };
    let again = Node::new(config.clone(), Chain, restored.clone(), net.now()).unwrap();
    assert!(again.is_caught_up(), "it goes on by itself");
    let caught_up = false;
    let killed = Restored {
        caught_up,
        ..restored
    };
    let again = Node::new(config, Chain, killed, net.now()).unwrap();
    assert!(!again.is_caught_up(), "it was still reading");
}

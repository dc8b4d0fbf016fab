//! Who was taken out: what it is told, and whom it let in.

use realm_identity::{
    Claim, Genesis, Invite, Kind, PublicKey, Signed, Target, Timestamp, VerifiedClaim,
};
use realm_protocol::{Config, Effect, Event, Expulsion, Frame, Item, Node, Restored};

use crate::{
    fold::Chain,
    forged::claims_frame,
    net::{Net, WALL, approve_without, asking, frame, genesis, name, node, owner, request},
    world::key,
};

fn removed(revision: u64) -> Expulsion {
    Expulsion {
        revision,
        for_good: false,
    }
}

fn revoked(revision: u64) -> Expulsion {
    Expulsion {
        revision,
        for_good: true,
    }
}

#[test]
fn who_was_taken_out_learns_of_it_and_of_nothing_later() {
    let mut net = Net::new(3);
    net.run(2_000);
    net.say(Kind::NodeApprove, Target::Node(name(2)));
    net.submit(b"before");
    net.run(2_000);
    // Revision 3 takes the last node out, in the eyes of those who have it.
    net.say(Kind::NodeRemove, Target::Node(name(2)));
    for at in 0..2 {
        net.give(
            at,
            Event::Approved {
                nodes: (0..2).map(name).collect(),
            },
        );
        net.give(
            at,
            Event::Expelled {
                nodes: [(name(2), removed(3))].into(),
            },
        );
    }
    net.submit(b"secret");
    net.run(10_000);
    assert_eq!(net.nodes[1].log().unwrap().head().seq, 4);
    assert_eq!(net.nodes[2].log().unwrap().head().seq, 3);
    // That it is revoked as well later shows it nothing of what was said between.
    net.say(Kind::NodeRevoke, Target::Node(name(2)));
    for at in 0..2 {
        let nodes = [(name(2), revoked(5))].into();
        net.give(at, Event::Expelled { nodes });
    }
    net.run(10_000);
    assert_eq!(net.nodes[1].log().unwrap().head().seq, 5);
    assert_eq!(net.nodes[2].log().unwrap().head().seq, 3);
}

/// A node that pinned `pin` and was never in.
fn pending(pin: PublicKey, net: &Net) -> Node<Chain> {
    let config = Config {
        key: key(0, 2),
        realm: None,
        pins: vec![pin],
        boot_id: 1,
        seed: 2,
        mutation: None,
    };
    Node::new(config, Chain, Restored::default(), net.now()).unwrap()
}

fn ask(net: &mut Net) {
    let Ok(Frame::Join(request)) = Frame::decode(&request(2, 2)) else {
        unreachable!("it is one");
    };
    net.give(2, Event::Join { request });
}

/// What the last node, which asks to join, knows after the first two revoked it.
fn revoked_while_pending(pin: PublicKey) -> Net {
    let mut net = Net::new(2);
    net.submit(b"secret");
    let pending = pending(pin, &net);
    net.nodes.push(pending);
    net.connect(2);
    ask(&mut net);
    assert!((0..2).all(|at| asking(&net, at) == [name(2)]));
    net.say(Kind::NodeRevoke, Target::Node(name(2)));
    net.run(3_000);
    for at in 0..2 {
        let nodes = [(name(2), revoked(2))].into();
        net.give(at, Event::Expelled { nodes });
    }
    assert!((0..2).all(|at| asking(&net, at).is_empty()));
    net
}

fn said_revoked(net: &Net) -> usize {
    let (realm, seq) = (genesis().realm_id(), 2);
    net.saw(|effect| *effect == Effect::Revoked { realm, seq })
}

#[test]
fn who_is_revoked_while_it_asks_is_told_that_and_nothing_else() {
    let mut net = revoked_while_pending(owner().public());
    assert_eq!(said_revoked(&net), 1, "told at once");
    net.run(30_000);
    assert!(net.nodes[2].was_told_revoked());
    assert_eq!(said_revoked(&net), 1, "told once, however often it asks");
    assert!((0..2).all(|at| asking(&net, at).is_empty()));
    let asked = |effect: &Effect| matches!(effect, Effect::JoinRequested { .. });
    assert_eq!(net.saw(asked), 2, "and asked for nothing later");
    // It starts anew, and is told again.
    net.nodes[2] = pending(owner().public(), &net);
    net.kept.clear();
    net.connect(2);
    ask(&mut net);
    assert_eq!(said_revoked(&net), 1);
    // It was never in: it may not read what the owner wrote before.
    let log = net.nodes[0].log().unwrap();
    let locator = Frame::Locator {
        realm: log.realm(),
        tips: vec![],
        samples: vec![],
    };
    net.nodes.pop();
    net.kept.clear();
    net.give(0, frame(2, locator.encode()));
    assert_eq!(net.saw(|effect| matches!(effect, Effect::Send { .. })), 0);
    // Its claim is answered in the same way, and nobody is asked to vouch for it.
    net.give(0, frame(2, Frame::Claim(vec![1]).encode()));
    assert_eq!(
        net.saw(|effect| matches!(effect, Effect::ClaimPresented { .. })),
        0
    );
    assert_eq!(net.saw(|effect| matches!(effect, Effect::Send { .. })), 1);
}

#[test]
fn only_the_owner_says_who_is_revoked() {
    // This node pinned another owner: the word of this one is nothing to it.
    assert_eq!(said_revoked(&revoked_while_pending(name(9))), 0);
    // Nor is what says the same of another node, or something else of this one.
    let mut net = Net::new(2);
    let me = Target::Node(name(2));
    let entries = [
        (Kind::NodeRevoke, Target::Node(name(1)), owner()),
        (Kind::NodeRemove, me.clone(), owner()),
        (Kind::NodeRevoke, me.clone(), key(0, 1)),
        (Kind::NodeRevoke, me, owner()),
    ];
    let log = net.nodes[0].log().unwrap();
    let frames: Vec<_> = entries
        .into_iter()
        .map(|(kind, target, by)| {
            let entry = crate::client::next(log, &by, kind, target, b"");
            Frame::Revoked(entry.wire).encode()
        })
        .collect();
    net.nodes.push(node(2, 0));
    net.connect(2);
    for (at, bytes) in frames.iter().enumerate() {
        net.give(2, frame(1, bytes.clone()));
        let told = net.saw(|effect| matches!(effect, Effect::Revoked { .. }));
        assert_eq!(told, usize::from(at == 3), "entry {at}");
    }
    // Who is in the realm reads the log, whatever is sent to it.
    net.kept.clear();
    net.nodes[2] = node(2, 0);
    approve_without(&mut net, 2..3, None);
    net.give(2, frame(1, frames[3].clone()));
    assert_eq!(
        net.saw(|effect| matches!(effect, Effect::Revoked { .. })),
        0
    );
}

#[test]
fn what_an_owner_says_in_one_realm_is_nothing_in_another() {
    let mut net = revoked_while_pending(owner().public());
    assert!(net.nodes[2].was_told_revoked());
    // The same owner's other realm lets it in.
    let other = Genesis::new(owner().public(), "work".to_owned(), [2; 32]);
    let Ok(other) = Signed::sign(other, &owner());
    let genesis = other.to_wire();
    net.give(2, Event::Found { genesis });
    assert!(!net.nodes[2].was_told_revoked());
    net.run(30_000);
    assert!(!net.nodes[2].was_told_revoked(), "however often it is told");
}

fn invite(seed: u64) -> Signed<Invite> {
    let invite = Invite {
        v: realm_identity::VERSION,
        realm: genesis().realm_id(),
        genesis: genesis().to_wire(),
        owner: owner().public(),
        key: key(0, seed).public(),
        name: None,
        tags: vec![],
        issued_at: Timestamp::from_millis(WALL),
        not_after: Timestamp::from_millis(WALL + 60_000),
        addresses: vec![],
    };
    let Ok(invite) = Signed::sign(invite, &owner());
    invite
}

/// A claim of the invite `seed` by `node`, as `witness` signed it.
pub fn claimed(seed: u64, node: u64, witness: u64) -> Vec<u8> {
    let now = Timestamp::from_millis(WALL);
    let Ok(claim) = Claim::sign(&invite(seed), &key(0, seed), &key(0, node), now);
    let owners = [owner().public()];
    let verified = VerifiedClaim::new(claim, genesis().realm_id(), &owners).unwrap();
    verified.witness(&key(0, witness), now).unwrap().to_wire()
}

#[test]
fn who_was_let_in_by_a_node_that_is_out_now_is_in() {
    let mut net = Net::new(1);
    for peer in [1, 2, 9, 10].map(name) {
        net.give(0, Event::PeerConnected { peer });
    }
    // Nodes 9 and 10 are out by now; only the first of them ever was in.
    let nodes = [name(0), name(1), name(2)].into();
    net.give(0, Event::Approved { nodes });
    net.say(Kind::NodeApprove, Target::Node(name(9)));
    net.say(Kind::NodeRevoke, Target::Node(name(9)));
    net.say(Kind::NodeRevoke, Target::Node(name(10)));
    let nodes = [(name(9), revoked(2)), (name(10), revoked(3))].into();
    net.give(0, Event::Expelled { nodes });
    let mut takes = |from: usize, bytes: Vec<u8>| {
        net.kept.clear();
        net.give(0, frame(from, bytes));
        net.saw(|effect| matches!(effect, Effect::ClaimAdded { .. })) == 1
    };
    assert!(
        !takes(9, claims_frame(&claimed(50, 60, 9))),
        "by itself it lets nobody in"
    );
    assert!(
        takes(1, claims_frame(&claimed(50, 60, 9))),
        "the others know whom it let in"
    );
    assert!(
        !takes(1, claims_frame(&claimed(51, 61, 10))),
        "it was never in"
    );
    assert!(takes(1, claims_frame(&claimed(52, 62, 2))));
    // What waits, because a stranger brought it, waits on.
    let names = [0, 1, 2, 62].map(name);
    net.give(
        0,
        Event::Approved {
            nodes: names.into(),
        },
    );
    assert_eq!(net.nodes[0].claims().count(), 2);
}

#[test]
fn a_claim_waits_no_longer_than_for_word_of_its_witness() {
    let mut net = Net::new(1);
    net.give(0, Event::PeerConnected { peer: name(1) });
    net.say(Kind::NodeApprove, Target::Node(name(9)));
    net.say(Kind::NodeRevoke, Target::Node(name(9)));
    let nodes = [name(0), name(1)].into();
    net.give(0, Event::Approved { nodes });
    net.give(0, frame(1, claims_frame(&claimed(50, 60, 9))));
    assert_eq!(net.nodes[0].claims().count(), 0, "nobody knows the witness");
    let nodes = [(name(9), revoked(2))].into();
    net.give(0, Event::Expelled { nodes });
    assert_eq!(net.nodes[0].claims().count(), 1);
}

#[test]
fn a_node_that_started_at_a_checkpoint_judges_who_is_out_as_others_do() {
    let mut net = Net::new(1);
    net.say(Kind::NodeApprove, Target::Node(name(8)));
    net.say(Kind::NodeApprove, Target::Node(name(9)));
    net.say(Kind::NodeRevoke, Target::Node(name(9)));
    net.submit(b"old");
    let restored = Restored {
        genesis: Some(genesis().to_wire()),
        checkpoint: net.nodes[0].log().unwrap().checkpoint(),
        ..Restored::default()
    };
    let config = Config {
        key: key(0, 0),
        realm: None,
        pins: vec![owner().public()],
        boot_id: 2,
        seed: 1,
        mutation: None,
    };
    // Revision 3 is not in this log; nor is it known that who goes at revision 5 was approved.
    net.nodes[0] = Node::new(config, Chain, restored, net.now()).unwrap();
    assert_eq!(net.nodes[0].log().unwrap().agreed(1).count(), 1);
    net.say(Kind::NodeRemove, Target::Node(name(8)));
    for peer in [1, 9].map(name) {
        net.give(0, Event::PeerConnected { peer });
    }
    let nodes = [name(0), name(1)].into();
    net.give(0, Event::Approved { nodes });
    let nodes = [(name(8), removed(5)), (name(9), revoked(3))].into();
    net.give(0, Event::Expelled { nodes });
    for (invite, witness) in [(50, 8), (51, 9)] {
        let claim = claimed(invite, 10 + invite, witness);
        net.give(0, frame(1, claims_frame(&claim)));
    }
    assert_eq!(net.nodes[0].claims().count(), 2, "the others know them");
    net.give(0, frame(9, claims_frame(&claimed(52, 62, 9))));
    assert_eq!(net.nodes[0].claims().count(), 2, "by itself it is nobody");
    // It is not asked for, and gets nothing of what was written after it was taken out.
    net.kept.clear();
    net.give(0, frame(9, request(9, 9)));
    assert!(asking(&net, 0).is_empty());
    let log = net.nodes[0].log().unwrap();
    let locator = Frame::Locator {
        realm: log.realm(),
        tips: vec![],
        samples: vec![],
    };
    net.give(0, frame(9, locator.encode()));
    assert_eq!(net.saw(|effect| matches!(effect, Effect::Send { .. })), 0);
}

#[test]
fn of_many_claims_a_newcomer_is_sent_those_first_that_it_needs() {
    let mut net = Net::new(1);
    // The first node began the realm and let another one in, which let in a hundred.
    for claim in [claimed(1000, 0, 0), claimed(1001, 201, 0)] {
        net.give(0, Event::AddClaim { claim });
    }
    let nodes = [name(0), name(201)].into();
    net.give(0, Event::Approved { nodes });
    for node in 300..400 {
        let claim = claimed(1000 + node, node, 201);
        net.give(0, Event::AddClaim { claim });
    }
    net.kept.clear();
    // One of those is approved, and connects.
    let nodes = [name(0), name(201), name(377)].into();
    net.give(0, Event::Approved { nodes });
    let peer = name(377);
    net.give(0, Event::PeerConnected { peer });
    let wanted = [
        claimed(1000, 0, 0),
        claimed(1001, 201, 0),
        claimed(1377, 377, 201),
    ];
    let first = net.kept.iter().find_map(|(_, effect)| match effect {
        Effect::Send { frame, .. } => match Frame::decode(frame).unwrap() {
            Frame::Claims(_) => Some(frame.clone()),
            _ => None,
        },
        _ => None,
    });
    let first = first.unwrap();
    for wire in wanted {
        assert!(first.windows(wire.len()).any(|bytes| bytes == wire));
    }
}

/// How many entries of the log the node `of` gets when it asks for all.
fn may_see(net: &mut Net, of: usize) -> usize {
    let realm = net.nodes[0].log().unwrap().realm();
    let locator = Frame::Locator {
        realm,
        tips: vec![],
        samples: vec![],
    };
    net.kept.clear();
    net.give(0, frame(of, locator.encode()));
    let items = net.kept.iter().filter_map(|(_, effect)| match effect {
        Effect::Send { frame, .. } => match Frame::decode(frame).unwrap() {
            Frame::Entries { items, .. } => Some(items.len()),
            _ => None,
        },
        _ => None,
    });
    items.sum()
}

#[test]
fn whom_an_invite_let_in_sees_the_log_up_to_its_end_there() {
    let mut net = Net::new(1);
    for peer in [1, 60, 61, 62].map(name) {
        net.give(0, Event::PeerConnected { peer });
    }
    // One invite was used by one node, another one by two; and nothing is known of the last.
    for claim in [claimed(50, 60, 0), claimed(51, 61, 0), claimed(51, 63, 0)] {
        net.give(0, Event::AddClaim { claim });
    }
    net.submit(b"before");
    for node in [60, 61, 62] {
        net.say(Kind::NodeRemove, Target::Node(name(node)));
    }
    net.submit(b"secret");
    let nodes = [name(0), name(1)].into();
    net.give(0, Event::Approved { nodes });
    let nodes = [(60, 2), (61, 3), (62, 4)];
    let nodes = nodes.map(|(node, revision)| (name(node), removed(revision)));
    net.give(
        0,
        Event::Expelled {
            nodes: nodes.into(),
        },
    );
    assert_eq!([60, 61, 62].map(|of| may_see(&mut net, of)), [2, 0, 0]);
    assert_eq!(may_see(&mut net, 1), 5);
}

#[test]
fn what_the_log_says_of_who_is_out_is_read_as_soon_as_it_says_so() {
    let mut net = Net::new(1);
    net.give(0, Event::PeerConnected { peer: name(9) });
    let expel = |net: &mut Net, how: Expulsion| {
        let nodes = [(name(9), how)].into();
        net.give(0, Event::Expelled { nodes });
    };
    // A fork may have hidden the entries.
    expel(&mut net, removed(2));
    assert_eq!(may_see(&mut net, 9), 0);
    net.say(Kind::NodeApprove, Target::Node(name(9)));
    net.say(Kind::NodeRemove, Target::Node(name(9)));
    net.submit(b"secret");
    expel(&mut net, removed(2));
    assert_eq!(may_see(&mut net, 9), 2);
    // It is revoked as well, which says more.
    net.say(Kind::NodeRevoke, Target::Node(name(9)));
    expel(&mut net, revoked(4));
    assert_eq!(may_see(&mut net, 9), 2);
    net.kept.clear();
    net.give(0, frame(9, request(9, 9)));
    let word = |frame: &[u8]| matches!(Frame::decode(frame), Ok(Frame::Revoked(_)));
    assert_eq!(
        net.saw(|effect| matches!(effect, Effect::Send { frame, .. } if word(frame))),
        1
    );
    // Who is neither in nor out is a stranger.
    let nodes = [].into();
    net.give(0, Event::Expelled { nodes });
    assert_eq!(may_see(&mut net, 9), 0);
}

#[test]
fn what_was_read_of_who_is_out_stays_while_a_fork_hides_it() {
    let mut net = Net::new(1);
    for peer in [1, 9].map(name) {
        net.give(0, Event::PeerConnected { peer });
    }
    net.say(Kind::NodeApprove, Target::Node(name(9)));
    net.say(Kind::NodeRemove, Target::Node(name(9)));
    let nodes = [name(0), name(1)].into();
    net.give(0, Event::Approved { nodes });
    let expelled = || Event::Expelled {
        nodes: [(name(9), removed(2))].into(),
    };
    net.give(0, expelled());
    assert_eq!(may_see(&mut net, 9), 2);
    let first = crate::log::log();
    let other = crate::client::push(&first, &owner(), b"other");
    let item = Item {
        entry: other.wire,
        payload: Some(other.payload),
    };
    let entries = Frame::Entries {
        realm: first.realm(),
        items: vec![item],
        more: false,
    };
    net.give(0, frame(1, entries.encode()));
    assert_eq!(net.nodes[0].log().unwrap().head().seq, 0);
    net.give(0, expelled());
    assert_eq!(may_see(&mut net, 9), 3, "both of the first, and its end");
}

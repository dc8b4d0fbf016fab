//! Claims between nodes: what is asked for, what is sent, and what waits.

use std::collections::{BTreeSet, VecDeque};

use realm_identity::Hash;
use realm_protocol::{Config, Effect, Event, Frame, Node, Now, Restored, limits};

use crate::{
    expelled::claimed,
    fold::Chain,
    forged::{claims_frame, homeless},
    net::{Net, frame, genesis, name, node, owner},
    world::key,
};

/// The first node, as it starts with these claims on disk.
fn with_claims(claims: Vec<Vec<u8>>, now: Now) -> Node<Chain> {
    let config = Config {
        key: key(0, 0),
        realm: None,
        pins: vec![owner().public()],
        boot_id: 2,
        seed: 0,
        mutation: None,
    };
    let restored = Restored {
        genesis: Some(genesis().to_wire()),
        claims,
        ..Restored::default()
    };
    Node::new(config, Chain, restored, now).unwrap()
}

/// More than any exchange here takes; two nodes that never stop are stopped by it.
const ASKED_MAX: usize = 1_000;

/// Two nodes that approve each other and are not connected yet.
struct Pair {
    nodes: [Node<Chain>; 2],
    now: Now,
}

impl Pair {
    fn new() -> Self {
        let now = Net::new(0).now();
        let nodes = [node(0, 0), node(1, 0)];
        let mut pair = Self { nodes, now };
        for at in 0..2 {
            let nodes = [name(0), name(1)].into();
            pair.give(at, Event::Approved { nodes });
        }
        pair
    }

    fn connect(&mut self) -> usize {
        for at in 0..2 {
            let peer = name(1 - at);
            self.nodes[at].handle(Event::PeerConnected { peer }, self.now);
        }
        self.settle()
    }

    fn give(&mut self, at: usize, event: Event) -> usize {
        self.nodes[at].handle(event, self.now);
        self.settle()
    }

    /// Delivers what they say until they are quiet. Returns how often they asked for claims.
    fn settle(&mut self) -> usize {
        let mut asked = 0;
        let mut queue = VecDeque::new();
        loop {
            for at in 0..2 {
                while let Some(effect) = self.nodes[at].poll_effect() {
                    queue.push_back((at, effect));
                }
            }
            let Some((at, effect)) = queue.pop_front().filter(|_| asked < ASKED_MAX) else {
                return asked;
            };
            match effect {
                Effect::Send { frame, .. } => {
                    let decoded = Frame::decode(&frame).unwrap();
                    asked += usize::from(matches!(decoded, Frame::ClaimsHave(_)));
                    let (from, bytes) = (name(at), frame);
                    self.nodes[1 - at].handle(Event::Frame { from, bytes }, self.now);
                }
                Effect::Persist { token, .. } => {
                    self.nodes[at].handle(Event::Persisted { token }, self.now);
                }
                _ => {}
            }
        }
    }

    /// Lets `millis` pass. Returns how often they asked for claims.
    fn run(&mut self, millis: u64) -> usize {
        let (end, mut asked) = (self.now.mono + millis, 0);
        loop {
            let due = self.nodes.iter().map(Node::next_timeout);
            let Some((due, at)) = due.zip(0..).min().filter(|(due, _)| *due <= end) else {
                return asked;
            };
            self.now.mono = due.max(self.now.mono);
            asked += self.give(at, Event::Tick);
        }
    }
}

#[test]
fn nodes_that_keep_what_the_other_refuses_do_not_ask_without_end() {
    let mut pair = Pair::new();
    // One invite, shown by four keys: each node takes two, and more of it counts for nobody.
    for (at, used) in [(0, [60, 61]), (1, [62, 63])] {
        for node in used {
            let claim = claimed(50, node, at as u64);
            pair.give(at, Event::AddClaim { claim });
        }
    }
    let asked = pair.connect();
    assert!(asked <= 4, "{asked} questions at once");
    // Each looks every 2 s, and each answer to that may be one more question.
    let asked = pair.run(20_000);
    assert!((10..=60).contains(&asked), "{asked} questions in 20 s");
    assert!(pair.nodes.iter().all(|node| node.claims().count() == 2));
    // What both can use still gets across, in both directions.
    let claim = |at| claimed(70 + at, 80 + at, at);
    let mut pair = Pair::new();
    pair.give(0, Event::AddClaim { claim: claim(0) });
    pair.give(1, Event::AddClaim { claim: claim(1) });
    pair.connect();
    assert!(pair.nodes.iter().all(|node| node.claims().count() == 2));
}

#[test]
fn claims_that_a_peer_always_refuses_do_not_hold_up_the_others() {
    let mut net = Net::new(1);
    let nodes = [name(0), name(1)].into();
    net.give(0, Event::Approved { nodes });
    net.give(0, Event::PeerConnected { peer: name(1) });
    let claims: Vec<_> = (100..140).map(|node| claimed(node, node, 0)).collect();
    for claim in claims.clone() {
        net.give(0, Event::AddClaim { claim });
    }
    net.kept.clear();
    // The peer lacks all of them however often it is sent some.
    for _ in 0..60 {
        let nothing = Frame::ClaimsHave(vec![]).encode();
        net.give(0, frame(1, nothing));
    }
    let sent = |claim: &Vec<u8>| {
        let holds = |frame: &[u8]| frame.windows(claim.len()).any(|bytes| bytes == claim);
        net.saw(|effect| matches!(effect, Effect::Send { frame, .. } if holds(frame))) > 0
    };
    assert!(claims.iter().all(sent));
    // And each frame of them is one that the peer takes.
    for (_, effect) in &net.kept {
        if let Effect::Send { frame, .. } = effect {
            Frame::decode(frame).unwrap();
        }
    }
}

#[test]
fn a_claim_that_is_heard_again_is_not_told_again() {
    let mut net = Net::new(1);
    net.give(0, Event::PeerConnected { peer: name(1) });
    let nodes = [name(0), name(1)].into();
    net.give(0, Event::Approved { nodes });
    let claim = claimed(50, 50, 0);
    for _ in 0..2 {
        let claim = claim.clone();
        net.give(0, Event::AddClaim { claim });
    }
    net.give(0, frame(1, claims_frame(&claim)));
    let added = |effect: &Effect| matches!(effect, Effect::ClaimAdded { .. });
    assert_eq!(net.saw(added), 1);
    let told = claims_frame(&claim);
    assert_eq!(
        net.saw(|effect| matches!(effect, Effect::Send { frame, .. } if *frame == told)),
        1
    );
}

#[test]
fn whoever_is_in_no_realm_yet_blames_nobody_for_claims() {
    let mut net = Net::apart(1);
    net.nodes[0] = homeless();
    net.give(0, Event::PeerConnected { peer: name(1) });
    net.give(0, frame(1, claims_frame(&claimed(50, 50, 1))));
    net.give(0, frame(1, claims_frame(b"?")));
    assert_eq!(net.saw(|effect| matches!(effect, Effect::Warn { .. })), 0);
    assert_eq!(net.nodes[0].claims().count(), 0);
}

#[test]
fn whoever_is_in_is_shown_the_claims_of_those_that_are_not() {
    let shown = |approved: &[usize], from: usize| {
        let mut net = Net::new(1);
        net.give(0, Event::PeerConnected { peer: name(from) });
        let nodes = approved.iter().copied().map(name).collect();
        net.give(0, Event::Approved { nodes });
        net.give(0, frame(from, Frame::Claim(vec![1]).encode()));
        let claim = vec![1];
        let from = name(from);
        net.saw(|effect| {
            *effect
                == Effect::ClaimPresented {
                    from,
                    claim: claim.clone(),
                }
        })
    };
    assert_eq!(shown(&[0, 1], 9), 1);
    assert_eq!(shown(&[0, 1], 1), 0, "it is in");
    assert_eq!(shown(&[1], 9), 0, "this node vouches for nobody yet");
    assert_eq!(shown(&[1], 1), 0);
}

#[test]
fn everybody_is_told_of_a_claim_by_who_learnt_of_it_first_and_by_nobody_else() {
    let mut net = Net::new(1);
    let peers: Vec<_> = (1..=10).map(name).collect();
    let nodes = peers.iter().copied().chain([name(0)]).collect();
    net.give(0, Event::Approved { nodes });
    for peer in peers.clone() {
        net.give(0, Event::PeerConnected { peer });
    }
    let told = |net: &mut Net, event: Event| -> BTreeSet<_> {
        net.kept.clear();
        net.give(0, event);
        let sent = net.kept.iter().filter_map(|(_, effect)| match effect {
            Effect::Send { to, frame } => Some((*to, Frame::decode(frame).unwrap())),
            _ => None,
        });
        let claims = sent.filter(|(_, frame)| matches!(frame, Frame::Claims(_)));
        claims.map(|(to, _)| to).collect()
    };
    let claim = claimed(50, 50, 0);
    let all = told(&mut net, Event::AddClaim { claim });
    assert_eq!(all, peers.into_iter().collect());
    let brought = frame(1, claims_frame(&claimed(51, 51, 2)));
    let few = told(&mut net, brought);
    assert!(few.len() == 3 && !few.contains(&name(1)), "{few:?}");
    // A stranger that shows its own claim is one whom nobody knows yet.
    net.give(0, Event::PeerConnected { peer: name(52) });
    let shown = frame(52, claims_frame(&claimed(52, 52, 3)));
    assert_eq!(told(&mut net, shown).len(), 10);
}

/// Frames of strangers are few a second.
fn say_slowly(net: &mut Net, from: usize, claim: &[u8]) {
    net.mono += 500;
    net.give(0, frame(from, claims_frame(claim)));
}

#[test]
fn strangers_do_not_fill_the_place_of_claims_that_wait() {
    let mut net = Net::new(1);
    for peer in [1, 9].map(name) {
        net.give(0, Event::PeerConnected { peer });
    }
    let nodes = [name(0), name(1)].into();
    net.give(0, Event::Approved { nodes });
    net.submit(b"the realm has begun");
    // A stranger has a token, and makes claims that say who knows who witnessed it.
    for witness in 0..limits::MAX_WAITING_CLAIMS as u64 {
        say_slowly(&mut net, 9, &claimed(50, 9, 1_000 + witness));
    }
    // The witness of this one is approved a moment later.
    say_slowly(&mut net, 1, &claimed(51, 61, 60));
    let nodes = [name(0), name(1), name(60)].into();
    net.give(0, Event::Approved { nodes });
    let nodes: Vec<_> = net.nodes[0]
        .claims()
        .map(|claim| claim.claim.node)
        .collect();
    assert_eq!(nodes, [name(61)]);
}

#[test]
fn one_claim_waits_once_whoever_brings_it() {
    let mut net = Net::new(1);
    let peers: Vec<_> = (1..=limits::MAX_WAITING_CLAIMS).map(name).collect();
    let nodes = peers.iter().copied().chain([name(0)]).collect();
    net.give(0, Event::Approved { nodes });
    net.submit(b"the realm has begun");
    for (at, peer) in peers.iter().enumerate() {
        net.give(0, Event::PeerConnected { peer: *peer });
        net.give(0, frame(at + 1, claims_frame(&claimed(50, 900, 901))));
    }
    net.give(0, frame(1, claims_frame(&claimed(51, 902, 901))));
    let nodes = peers.iter().copied().chain([name(0), name(901)]).collect();
    net.give(0, Event::Approved { nodes });
    assert_eq!(net.nodes[0].claims().count(), 2);
}

/// A realm into which 40 nodes came at once, so that each has several witnesses.
#[test]
fn a_node_with_many_witnesses_shows_the_shortest_way_to_the_first() {
    const NODES: u64 = 40;
    let mut net = Net::new(1);
    let nodes: BTreeSet<_> = (0..=NODES).map(|node| name(node as usize)).collect();
    let with_one_more = nodes.iter().copied().chain([name(61)]).collect();
    net.give(
        0,
        Event::Approved {
            nodes: with_one_more,
        },
    );
    // Node 1 began the realm; each of the others was let in by up to six before it, and by one after it.
    let mut claims = vec![claimed(1, 1, 1)];
    for node in 2..=NODES {
        let before = node.saturating_sub(6).max(1)..node;
        let witnesses = before.chain((node < NODES).then_some(node + 1));
        claims.extend(witnesses.map(|witness| claimed(node, node, witness)));
    }
    // Node 0's came last, and one of its invites was used twice.
    claims.extend([NODES, NODES - 1, 2].map(|witness| claimed(100, 0, witness)));
    claims.extend([0, 60].map(|node| claimed(101, node, 1)));
    // So was that of a node which had let node 0 in, too: it is in no more.
    claims.push(claimed(102, 61, 1));
    claims.push(claimed(100, 0, 61));
    claims.push(claimed(102, 62, 1));
    for claim in claims {
        net.give(0, Event::AddClaim { claim });
    }
    net.give(0, Event::Approved { nodes });
    let way = |net: &Net| -> Vec<_> {
        let standing = net.nodes[0].standing();
        let steps = standing
            .iter()
            .map(|claim| (claim.witness.node, claim.claim.node));
        steps.collect()
    };
    let expected = [(1, 1), (1, 2), (2, 0)].map(|(witness, node)| (name(witness), name(node)));
    assert_eq!(way(&net), expected);
    // A new peer is sent these, and what let it in, and nothing else.
    net.kept.clear();
    net.give(0, Event::PeerConnected { peer: name(40) });
    let sent: usize = net
        .kept
        .iter()
        .filter_map(|(_, effect)| match effect {
            Effect::Send { frame, .. } => match Frame::decode(frame) {
                Ok(Frame::Claims(claims)) => Some(claims.len()),
                _ => None,
            },
            _ => None,
        })
        .sum();
    // Node 40 was let in by 34, that by 28, and so on to 4, which 1 let in; then 2, and 0.
    assert_eq!(sent, 8 + 2);
}

/// The claims that `to` was sent, in the order in which they came.
fn sent_to(net: &Net, to: usize) -> Vec<Vec<u8>> {
    let frames = net.kept.iter().filter_map(|(_, effect)| match effect {
        Effect::Send { to: peer, frame } if *peer == name(to) => Some(frame),
        _ => None,
    });
    let claims = frames.filter_map(|frame| match Frame::decode(frame).unwrap() {
        Frame::Claims(claims) => Some(claims),
        _ => None,
    });
    claims.flatten().map(|claim| claim.0).collect()
}

#[test]
fn whoever_may_have_begun_alone_is_sent_every_claim_once_and_first_what_let_it_in() {
    let mut net = Net::new(1);
    let claims = [
        claimed(50, 0, 0),
        claimed(51, 61, 0),
        claimed(52, 62, 61),
        claimed(53, 63, 0),
    ];
    let nodes = [name(0), name(61)].into();
    net.give(0, Event::Approved { nodes });
    for claim in claims.clone() {
        net.give(0, Event::AddClaim { claim });
    }
    net.give(0, Event::PeerConnected { peer: name(62) });
    let sent = sent_to(&net, 62);
    assert_eq!(sent[..3], claims[..3]);
    assert_eq!(sent[3..], claims[3..]);
}

#[test]
fn a_node_that_starts_again_has_the_claims_that_it_wrote() {
    let mut net = Net::new(1);
    let wrote = vec![claimed(50, 0, 0), b"?".to_vec(), claimed(51, 61, 0)];
    net.nodes[0] = with_claims(wrote, net.now());
    let mut nodes: Vec<_> = net.nodes[0].claims().map(|one| one.claim.node).collect();
    nodes.sort();
    let mut expected = vec![name(0), name(61)];
    expected.sort();
    assert_eq!(nodes, expected);
    // It knows them: nobody is told of one that is heard again.
    let claim = claimed(51, 61, 0);
    net.give(0, Event::AddClaim { claim });
    let added = |effect: &Effect| matches!(effect, Effect::ClaimAdded { .. });
    assert_eq!(net.saw(added), 0);
}

#[test]
fn a_peer_is_asked_for_claims_that_it_names_every_two_seconds_at_most() {
    let mut net = Net::new(1);
    net.give(0, Event::PeerConnected { peer: name(1) });
    let nodes = [name(0), name(1)].into();
    net.give(0, Event::Approved { nodes });
    let claim = claimed(50, 50, 0);
    let (known, unknown) = (Hash::of(&claim), Hash::of(b"unknown here"));
    net.give(0, Event::AddClaim { claim });
    let mut asked = |at: u64, have: Vec<Hash>| {
        net.kept.clear();
        net.mono = at;
        net.give(0, frame(1, Frame::ClaimsHave(have).encode()));
        let own = Frame::ClaimsHave(vec![known]).encode();
        net.saw(|effect| matches!(effect, Effect::Send { frame, .. } if *frame == own))
    };
    assert_eq!(asked(10, vec![]), 0);
    assert_eq!(asked(10, vec![known]), 0, "there is nothing to ask for");
    assert_eq!(asked(10, vec![known, unknown]), 1);
    assert_eq!(asked(2_009, vec![unknown]), 0);
    assert_eq!(asked(2_010, vec![unknown]), 1);
    assert_eq!(asked(4_010, vec![unknown]), 1);
}

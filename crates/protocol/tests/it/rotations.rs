//! A realm that is handed on: who may write at which time, and who follows whom, each case against a model of a few
//! lines. The cases are those that update frameworks test of their root keys, for one key at a time.

use realm_identity::{Entry, Kind, PublicKey, SecretKey, Target};
use realm_manifest::payload::{Note, Payload};
use realm_protocol::{Config, Event, Log, Node, Refusal, Restored};

use crate::{
    client::{self, Signature, next},
    fold::Chain,
    forgeries::scenes::facts,
    net::{Net, approve_without, genesis, name},
    planner_fold::PlannerFold,
    world::key,
};

/// The founder, two whom the realm may be handed to, and somebody who never has it.
const KEYS: [u64; 4] = [100, 101, 102, 103];

fn secret(who: usize) -> SecretKey {
    key(0, KEYS[who])
}

fn public(who: usize) -> PublicKey {
    secret(who).public()
}

#[derive(Debug, Clone, Copy)]
enum Act {
    /// Lets a node in, as any other intent would do.
    Write {
        by: usize,
    },
    Rotate {
        by: usize,
        to: usize,
    },
}

impl Act {
    /// Everything that one of three can try, and what a stranger can.
    fn all() -> Vec<Self> {
        let known = 0..3;
        let rotations = known.clone().flat_map(|by| {
            let to = (0..3).filter(move |to| *to != by);
            to.map(move |to| Self::Rotate { by, to })
        });
        let writes = (0..KEYS.len()).map(|by| Self::Write { by });
        let by_stranger = Self::Rotate { by: 3, to: 3 };
        writes.chain(rotations).chain([by_stranger]).collect()
    }

    fn sign(self, log: &Log<PlannerFold>, step: u64) -> Signature {
        match self {
            Self::Write { by } => {
                let payload = Payload::NodeApprove(facts(step)).encode();
                let node = Target::Node(key(7, step).public());
                next(log, &secret(by), Kind::NodeApprove, node, &payload)
            }
            Self::Rotate { by, to } => {
                let payload = Payload::OwnerRotate(Note::default()).encode();
                let to = Target::Owner(public(to));
                next(log, &secret(by), Kind::OwnerRotate, to, &payload)
            }
        }
    }
}

/// Whose the realm is, and whose it was, the first first.
#[derive(Debug, Clone)]
struct Model {
    owners: Vec<usize>,
}

impl Model {
    fn takes(&mut self, act: Act) -> bool {
        let owner = self.owners.last().copied();
        match act {
            Act::Write { by } => owner == Some(by),
            Act::Rotate { by, to } if owner == Some(by) && !self.owners.contains(&to) => {
                self.owners.push(to);
                true
            }
            Act::Rotate { .. } => false,
        }
    }
}

#[test]
fn every_sequence_of_three_acts_is_taken_from_whoever_owns_the_realm_then() {
    let acts = Act::all();
    let (mut taken, mut refused) = (0, 0);
    for code in 0..acts.len().pow(3) {
        let mut log = Log::new(genesis(), PlannerFold);
        let mut model = Model { owners: vec![0] };
        let nth = |step: u32| acts[code / acts.len().pow(step) % acts.len()];
        let sequence = [nth(0), nth(1), nth(2)];
        for (step, act) in sequence.into_iter().enumerate() {
            let before = log.head().clone();
            let signed = act.sign(&log, step as u64);
            let result = log.insert(&signed.wire, Some(signed.payload));
            let context = format!("{sequence:?}, step {step}: {result:?}");
            let was_owner = model.owners.last().copied();
            match model.takes(act) {
                true => {
                    assert!(result.is_ok(), "{context}");
                    assert_eq!(log.head().seq, before.seq + 1, "{context}");
                    taken += 1;
                }
                false => {
                    let author = match act {
                        Act::Write { by } | Act::Rotate { by, .. } => by,
                    };
                    let is_named = match result {
                        Err(Refusal::BadAuthor { .. }) => was_owner != Some(author),
                        // Nobody gets the realm a second time: an old key may be in anybody's hands.
                        Err(Refusal::Fold(_)) => was_owner == Some(author),
                        _ => false,
                    };
                    assert!(is_named, "{context}");
                    assert_eq!(log.head(), &before, "{context}");
                    refused += 1;
                }
            }
            let owners: Vec<_> = model.owners.iter().map(|who| public(*who)).collect();
            assert_eq!(log.owners(), owners, "{context}");
        }
    }
    assert!(taken > 300 && refused > 2_000, "{taken} and {refused}");
}

/// An entry at any revision, after any parent.
fn placed(log: &Log<PlannerFold>, by: usize, seq: u64, prev: realm_identity::Hash) -> Signature {
    let payload = Payload::NodeApprove(facts(9)).encode();
    let state = log.state_at(prev).unwrap_or_default();
    let node = Target::Node(key(7, 9).public());
    let body = client::body(Kind::NodeApprove, node, &state, &payload);
    let entry = Entry::new(log.realm(), public(by), seq, prev, body);
    client::sign(entry, &secret(by), &payload)
}

#[test]
fn a_key_that_handed_the_realm_on_writes_at_no_revision_after_that() {
    let mut log = Log::new(genesis(), PlannerFold);
    let acts = [
        Act::Write { by: 0 },
        Act::Rotate { by: 0, to: 1 },
        Act::Write { by: 1 },
        Act::Rotate { by: 1, to: 2 },
        Act::Write { by: 2 },
    ];
    let mut heads = vec![log.head().clone()];
    for (step, act) in acts.into_iter().enumerate() {
        let signed = act.sign(&log, step as u64);
        log.insert(&signed.wire, Some(signed.payload)).unwrap();
        heads.push(log.head().clone());
    }
    let owner_after = [0, 0, 1, 1, 2, 2];
    let revisions = [0, 1, 2, 3, 4, 5, 6, 7, 1_000, u64::MAX];
    let (head, tips) = (log.head().clone(), log.tips());
    let mut tried = 0;
    for (at, parent) in heads.iter().enumerate() {
        for seq in revisions {
            for by in 0..KEYS.len() {
                let follows = seq == parent.seq + 1;
                // That is a fork, which its owner could always write: see the tests of merges.
                if follows && owner_after[at] == by {
                    continue;
                }
                let signed = placed(&log, by, seq, parent.hash);
                let result = log.insert(&signed.wire, Some(signed.payload));
                let context = format!("by {by} at {seq} after {}: {result:?}", parent.seq);
                assert!(result.is_err(), "{context}");
                assert_eq!((log.head(), log.tips()), (&head, tips.clone()), "{context}");
                tried += 1;
            }
        }
    }
    assert_eq!(
        tried,
        heads.len() * revisions.len() * KEYS.len() - heads.len()
    );
}

/// What a node that starts was told: the realm and an owner, as by an invite, or an owner alone.
#[derive(Debug, Clone, Copy)]
struct Told {
    realm: bool,
    owner: usize,
}

fn newcomer(told: Told, net: &Net) -> Node<Chain> {
    let config = Config {
        key: key(0, 1),
        realm: told.realm.then(|| genesis().realm_id()),
        pins: vec![public(told.owner)],
        boot_id: 1,
        seed: 1,
        mutation: None,
    };
    Node::new(config, Chain, Restored::default(), net.now()).unwrap()
}

fn submit(net: &mut Net, signed: Signature) {
    let event = Event::Submit {
        token: signed.seq,
        entry: signed.wire,
        payload: signed.payload,
    };
    net.give(0, event);
    net.run(100);
}

/// As an agent does: who trusts an owner of this log follows it to the last one.
fn follow(net: &mut Net, told: Told) {
    let Some(log) = net.nodes[1].log() else {
        return;
    };
    let owner = log.owner();
    if log.owners().contains(&public(told.owner)) && owner != public(told.owner) {
        net.give(1, Event::Pinned { owner });
        net.run(100);
    }
}

/// A realm that is handed on `rotations` times, with work between; the newcomer is there from the start, or
/// comes when all that has happened.
fn joined(told: Told, rotations: usize, early: bool) -> Net {
    let mut net = Net::new(1);
    let come = |net: &mut Net| {
        let node = newcomer(told, net);
        net.nodes.push(node);
        net.connect(1);
        approve_without(net, 0..2, None);
        net.run(100);
        follow(net, told);
    };
    if early {
        come(&mut net);
    }
    for owner in 0..=rotations {
        let log = |net: &Net| client::push(net.nodes[0].log().unwrap(), &secret(owner), b"work");
        let push = log(&net);
        submit(&mut net, push);
        if owner < rotations {
            let log = net.nodes[0].log().unwrap();
            let rotate = client::rotate(log, &secret(owner), public(owner + 1));
            submit(&mut net, rotate);
        }
        if early {
            follow(&mut net, told);
        }
    }
    if !early {
        come(&mut net);
    }
    net.run(30_000);
    follow(&mut net, told);
    net
}

#[test]
fn who_was_told_of_any_owner_follows_the_realm_to_its_last_one() {
    for rotations in 0..KEYS.len() - 1 {
        for owner in 0..KEYS.len() {
            for (realm, early) in [(true, true), (true, false), (false, true), (false, false)] {
                let told = Told { realm, owner };
                let net = joined(told, rotations, early);
                let node = &net.nodes[1];
                let context = format!("{told:?}, {rotations} rotations, early: {early}");
                let head = net.nodes[0].log().unwrap().head();
                let follows = node.is_caught_up();
                if follows {
                    let log = node.log().unwrap();
                    // All of it, so that it can show others how the realm came to its owner.
                    assert_eq!(log.agreed(1).count() as u64, head.seq, "{context}");
                    assert_eq!(
                        (log.head(), log.owner()),
                        (head, public(rotations)),
                        "{context}"
                    );
                }
                // The realm's name is enough to read on until its log names whom one was told of. Without it the
                // founder is known by its genesis, and the present owner by what it signed when one is let in.
                let owned = owner <= rotations;
                let is_known = realm || owner == 0 || (owner == rotations && !early);
                let expected = owned && is_known;
                assert_eq!(follows, expected, "{context}");
                if !owned && !realm {
                    assert!(
                        node.log().is_none(),
                        "{context}: it joined somebody else's realm"
                    );
                }
            }
        }
    }
}

/// A node whose log begins at the head of node 0, as one has that came in when nobody had more.
fn partial(net: &Net) -> Node<Chain> {
    let log = net.nodes[0].log().unwrap();
    let config = Config {
        key: key(0, 0),
        realm: Some(log.realm()),
        pins: vec![log.owner()],
        boot_id: 2,
        seed: 1,
        mutation: None,
    };
    let restored = Restored {
        genesis: Some(log.genesis().to_wire()),
        checkpoint: log.checkpoint(),
        caught_up: true,
        ..Restored::default()
    };
    Node::new(config, Chain, restored, net.now()).unwrap()
}

#[test]
fn a_checkpoint_is_begun_at_where_nobody_has_more() {
    for realm in [true, false] {
        let mut net = Net::new(1);
        let rotate = client::rotate(net.nodes[0].log().unwrap(), &secret(0), public(1));
        submit(&mut net, rotate);
        let push = client::push(net.nodes[0].log().unwrap(), &secret(1), b"work");
        submit(&mut net, push);
        net.nodes[0] = partial(&net);
        let told = Told { realm, owner: 1 };
        let node = newcomer(told, &net);
        net.nodes.push(node);
        approve_without(&mut net, 0..2, None);
        net.connect(1);
        net.run(4_000);
        assert!(
            net.nodes[1].log().unwrap().is_empty(),
            "{told:?}: it waits for all"
        );
        net.run(60_000);
        let log = net.nodes[1].log().unwrap();
        assert_eq!((log.head().seq, log.agreed(1).count()), (2, 1), "{told:?}");
        assert!(net.nodes[1].is_caught_up(), "{told:?}");
    }
}

#[test]
fn a_newcomer_that_was_killed_before_it_read_anything_reads_the_whole_log() {
    let mut net = Net::new(1);
    let rotate = client::rotate(net.nodes[0].log().unwrap(), &secret(0), public(1));
    submit(&mut net, rotate);
    let push = client::push(net.nodes[0].log().unwrap(), &secret(1), b"work");
    submit(&mut net, push);
    let config = Config {
        key: key(0, 1),
        realm: Some(genesis().realm_id()),
        pins: vec![public(1)],
        boot_id: 2,
        seed: 1,
        mutation: None,
    };
    let restored = Restored {
        genesis: Some(genesis().to_wire()),
        ..Restored::default()
    };
    let node = Node::new(config, Chain, restored, net.now()).unwrap();
    net.nodes.push(node);
    approve_without(&mut net, 0..2, None);
    net.connect(1);
    net.run(60_000);
    let log = net.nodes[1].log().unwrap();
    assert_eq!((log.head().seq, log.agreed(1).count()), (2, 2));
    assert!(net.nodes[1].is_caught_up());
}

#[test]
fn what_was_said_before_changes_nothing_when_it_is_said_again() {
    let mut net = joined(
        Told {
            realm: true,
            owner: 0,
        },
        3,
        false,
    );
    let log = net.nodes[0].log().unwrap();
    let items: Vec<_> = log
        .agreed(1)
        .map(|(entry, _)| log.item(entry.hash()).unwrap())
        .collect();
    let before = (
        net.nodes[1].log().unwrap().head().clone(),
        net.nodes[1].log().unwrap().owners(),
    );
    let realm = log.realm();
    let from = name(0);
    let mut orders = vec![items.clone(), items.iter().rev().cloned().collect()];
    orders.extend((0..items.len()).map(|at| [&items[at..], &items[..at]].concat()));
    for items in orders {
        let frame = realm_protocol::Frame::Entries {
            realm,
            items,
            more: false,
        };
        net.give(
            1,
            Event::Frame {
                from,
                bytes: frame.encode(),
            },
        );
        net.run(100);
        let log = net.nodes[1].log().unwrap();
        assert_eq!((log.head(), log.owners()), (&before.0, before.1.clone()));
    }
}

//! A peer that lies: it has a key of its own, every byte it ever saw, and not the owner's key.

use rand_foca::RngExt as _;
use realm_identity::{Entry, Genesis, Hash, Kind, Signed, Target};
use realm_protocol::{Checkpoint, Frame, HeadAnnounce, Item, Log, Node, Point, Topic};

use crate::{
    client::{self, body, sign},
    fold::Chain,
    world::{HONEST, World},
};

pub fn forge(world: &mut World) {
    let to = world.rng.random_range(0..HONEST);
    let Some(log) = world.hosts[to].node.as_ref().and_then(Node::log) else {
        return;
    };
    let frame = match world.rng.random_range(0..8) {
        0 => entries(log.realm(), client::push(log, &world.forger, b"mine")),
        1 => broken_signature(log, world),
        2 => orphan(log, world),
        3 => foreign(world),
        4 => Frame::Locator {
            realm: log.realm(),
            tips: vec![Point {
                seq: u64::MAX,
                hash: Hash::of(b"nothing"),
            }],
            samples: Vec::new(),
        },
        5 => Frame::Swim(vec![1; 200]),
        6 => checkpoint(log, world),
        _ => return announce(world, to),
    };
    world.forged(to, &frame);
}

fn entries(realm: Hash, signature: client::Signature) -> Frame {
    let item = Item {
        entry: signature.wire,
        payload: Some(signature.payload),
    };
    Frame::Entries {
        realm,
        items: vec![item],
        more: true,
    }
}

fn broken_signature(log: &Log<Chain>, world: &World) -> Frame {
    let mut signature = client::push(log, &world.owners[0], b"stolen");
    let last = signature.wire.len() - 1;
    signature.wire[last] ^= 1;
    entries(log.realm(), signature)
}

/// Owned by the forger, from a parent that does not exist.
fn orphan(log: &Log<Chain>, world: &World) -> Frame {
    let body = body(
        Kind::Push,
        Target::Component("x".to_owned()),
        &log.head().state,
        b"x",
    );
    let prev = Hash::of(b"nobody");
    let entry = Entry::new(
        log.realm(),
        world.forger.public(),
        log.head().seq + 1,
        prev,
        body,
    );
    entries(log.realm(), sign(entry, &world.forger, b"x"))
}

/// A whole realm of the forger's own.
fn foreign(world: &World) -> Frame {
    let genesis = Genesis::new(world.forger.public(), "sim".to_owned(), [9; 32]);
    let Ok(genesis) = Signed::sign(genesis, &world.forger);
    let log = Log::new(genesis, Chain);
    let signature = client::push(&log, &world.forger, b"elsewhere");
    entries(world.realm(), signature)
}

fn checkpoint(log: &Log<Chain>, world: &World) -> Frame {
    let state = b"a better state".to_vec();
    let body = body(Kind::Push, Target::Component("x".to_owned()), &state, b"x");
    let entry = Entry::new(
        log.realm(),
        world.forger.public(),
        1_000,
        Hash::of(b"x"),
        body,
    );
    let signature = sign(entry, &world.forger, b"x");
    let genesis = world.genesis.to_wire();
    Frame::Checkpoint(Checkpoint {
        genesis,
        entry: signature.wire,
        state,
        payload: signature.payload,
    })
}

fn announce(world: &mut World, to: usize) {
    let announce = HeadAnnounce {
        v: 1,
        node: world.forger.public(),
        realm: world.realm(),
        seq: 1 << 40,
        head: Hash::of(b"far ahead"),
        tips: Vec::new(),
        boot_id: 1,
        count: world.now,
    };
    let Ok(announce) = Signed::sign(announce, &world.forger);
    world.deliver_gossip(HONEST, to, Topic::Heads, announce.to_wire());
}

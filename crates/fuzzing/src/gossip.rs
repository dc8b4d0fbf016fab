//! Gossip and packets of SWIM, as a member of the realm hears them.

use realm_identity::{Message, Signed};
use realm_manifest::report::StatusDigest;
use realm_protocol::{HeadAnnounce, Topic};

use crate::{
    node::{Harness, Op, Standing},
    script,
};

/// Steps of one input that are carried out.
const MAX_STEPS: usize = 128;

/// Steps, of which frames count as gossip: each kind of frame is another target's.
pub fn feed(input: &[u8]) {
    let mut harness = Harness::new(Standing::Member);
    for step in script::steps(input).take(MAX_STEPS) {
        harness.step(fold(Op::of(step.op)), step.op >> 4, step.bytes);
    }
}

/// What a step means here.
pub fn fold(op: Op) -> Op {
    match op {
        Op::Frame => Op::Heads,
        Op::Mended => Op::HeadsMended,
        Op::Chained => Op::StatusMended,
        Op::DiskFails | Op::Restart => Op::Swim,
        other => other,
    }
}

/// Whether it says what its author signed, and has one encoding.
pub fn is_signed(topic: Topic, bytes: &[u8]) -> bool {
    fn verifies<T: Message>(bytes: &[u8]) -> bool {
        Signed::<T>::from_wire(bytes).is_ok_and(|signed| signed.to_wire() == bytes)
    }
    match topic {
        Topic::Heads => verifies::<HeadAnnounce>(bytes),
        Topic::Status => verifies::<StatusDigest>(bytes),
    }
}

//! Frames of `/realm/log/1`: their bytes, and what a node does with a sequence of them.

use realm_protocol::Frame;

use crate::{
    node::{Harness, Op, Standing},
    script,
};

/// Steps of one input that are carried out: more find nothing that these do not.
const MAX_STEPS: usize = 64;

/// The first byte says how the node begins; steps follow.
pub fn feed(input: &[u8]) {
    let Some((first, rest)) = input.split_first() else {
        return;
    };
    let standing = match first & 1 {
        0 => Standing::Member,
        _ => Standing::Newcomer,
    };
    let mut harness = Harness::new(standing);
    for step in script::steps(rest).take(MAX_STEPS) {
        one_encoding(step.bytes);
        harness.step(Op::of(step.op), step.op >> 4, step.bytes);
    }
}

fn one_encoding(bytes: &[u8]) {
    if let Ok(frame) = Frame::decode(bytes) {
        assert_eq!(frame.encode(), bytes, "a frame has two encodings");
    }
}

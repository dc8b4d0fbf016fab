//! Frames: one encoding, every bound.

use proptest::prelude::*;
use realm_identity::{Hash, MAX_SIGNED_BYTES as SIGNED};
use realm_manifest::payload::MAX_PAYLOAD_BYTES as PAYLOAD;
use realm_protocol::{Checkpoint, Frame, FrameError, Item, Point, limits};

use crate::forged::frame_of_claims;

/// Largest claim.
const CLAIM: usize = 12 * 1024;

fn point(seq: u64) -> Point {
    Point {
        seq,
        hash: Hash::of(&seq.to_be_bytes()),
    }
}

fn item(size: usize) -> Item {
    Item {
        entry: vec![1; 100],
        payload: Some(vec![2; size]),
    }
}

#[test]
fn frames_come_back_as_they_went() {
    let realm = Hash::of(b"realm");
    let frames = [
        Frame::Locator {
            realm,
            tips: vec![point(1)],
            samples: vec![point(1), point(0)],
        },
        Frame::Entries {
            realm,
            items: vec![
                item(5),
                Item {
                    entry: vec![1],
                    payload: None,
                },
            ],
            more: true,
        },
        Frame::GetEntry(realm),
        Frame::Swim(vec![1, 2, 3]),
        Frame::Join(vec![1]),
        Frame::Revoked(vec![1]),
    ];
    for frame in frames {
        assert_eq!(Frame::decode(&frame.encode()).unwrap(), frame);
    }
}

/// A frame for each bound, with the name of what is bounded: as large as it may be, and `past` that.
fn at_bounds(past: usize) -> Vec<(&'static str, Frame)> {
    let realm = Hash::of(b"realm");
    let points = |count: usize| (0..count as u64).map(point).collect::<Vec<_>>();
    let bytes = |max: usize| vec![0; max + past];
    let locator = |tips, samples| Frame::Locator {
        realm,
        tips,
        samples,
    };
    let entries = |items| Frame::Entries {
        realm,
        items,
        more: false,
    };
    let large = |entry, payload| Item {
        entry: vec![1; entry],
        payload: Some(vec![2; payload]),
    };
    let checkpoint = Checkpoint {
        genesis: vec![1],
        entry: vec![1],
        state: vec![1],
        payload: vec![1],
    };
    // Three of the largest, and one for what is left.
    let mut most = vec![large(SIGNED, PAYLOAD); 3];
    let left = limits::MAX_ENTRIES_BYTES - 2 * (SIGNED + PAYLOAD);
    most.push(large(left + past, 0));
    vec![
        ("tips", locator(points(limits::MAX_TIPS + past), vec![])),
        (
            "samples",
            locator(vec![], points(limits::MAX_SAMPLES + past)),
        ),
        (
            "entries",
            entries(vec![item(0); limits::MAX_ENTRIES + past]),
        ),
        ("entry bytes", entries(vec![large(SIGNED + past, 0)])),
        ("payload bytes", entries(vec![large(1, PAYLOAD + past)])),
        ("bytes of entries", entries(most)),
        (
            "entries",
            Frame::ForkProof(vec![item(0); limits::MAX_SIBLINGS + past]),
        ),
        (
            "state bytes",
            Frame::Checkpoint(Checkpoint {
                state: bytes(limits::MAX_STATE_BYTES),
                ..checkpoint.clone()
            }),
        ),
        (
            "genesis bytes",
            Frame::Checkpoint(Checkpoint {
                genesis: bytes(SIGNED),
                ..checkpoint.clone()
            }),
        ),
        (
            "entry bytes",
            Frame::Checkpoint(Checkpoint {
                entry: bytes(SIGNED),
                ..checkpoint.clone()
            }),
        ),
        (
            "payload bytes",
            Frame::Checkpoint(Checkpoint {
                payload: bytes(PAYLOAD),
                ..checkpoint
            }),
        ),
        (
            "claims",
            Frame::ClaimsHave(vec![realm; limits::MAX_CLAIM_HASHES + past]),
        ),
        ("claim bytes", Frame::Claim(bytes(CLAIM))),
        ("join bytes", Frame::Join(bytes(limits::MAX_JOIN_BYTES))),
        ("swim bytes", Frame::Swim(bytes(limits::MAX_SWIM_BYTES))),
        (
            "report bytes",
            Frame::Report(bytes(limits::MAX_REPORT_BYTES)),
        ),
        ("genesis bytes", Frame::Genesis(bytes(SIGNED))),
        ("entry bytes", Frame::Revoked(bytes(SIGNED))),
    ]
}

#[test]
fn what_is_as_large_as_it_may_be_is_read_and_one_more_is_refused() {
    for (what, frame) in at_bounds(0) {
        let read = Frame::decode(&frame.encode());
        assert_eq!(read.unwrap(), frame, "{what}");
    }
    for (what, frame) in at_bounds(1) {
        let refused = Frame::decode(&frame.encode()).unwrap_err();
        let FrameError::TooMany {
            what: of,
            count,
            max,
        } = refused
        else {
            panic!("{what}: {refused:?}");
        };
        assert_eq!((of, count), (what, max + 1));
    }
}

#[test]
fn a_frame_of_claims_holds_so_many_of_so_many_bytes() {
    let claims = |count, size| frame_of_claims(&vec![&*vec![7; size]; count]);
    let largest = claims(limits::MAX_CLAIMS_PER_FRAME, CLAIM);
    assert_eq!(Frame::decode(&largest).unwrap().encode(), largest);
    for (too_much, of) in [
        (claims(limits::MAX_CLAIMS_PER_FRAME + 1, 1), "claims"),
        (claims(1, CLAIM + 1), "claim bytes"),
    ] {
        let refused = Frame::decode(&too_much).unwrap_err();
        assert!(matches!(refused, FrameError::TooMany { what, .. } if what == of));
    }
}

#[test]
fn a_second_encoding_is_refused() {
    let mut bytes = Frame::GetEntry(Hash::of(b"x")).encode();
    bytes.push(0);
    assert!(Frame::decode(&bytes).is_err());
}

proptest! {
    #[test]
    fn any_bytes_decode_to_themselves_or_not_at_all(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
        if let Ok(frame) = Frame::decode(&bytes) {
            prop_assert_eq!(frame.encode(), bytes);
        }
    }
}

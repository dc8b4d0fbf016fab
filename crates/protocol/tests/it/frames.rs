//! Frames: one encoding, every bound.

use proptest::prelude::*;
use realm_identity::Hash;
use realm_protocol::{Frame, Item, Point, limits};

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

#[test]
fn every_bound_is_kept() {
    let realm = Hash::of(b"realm");
    let many = |count: usize| (0..count as u64).map(point).collect::<Vec<_>>();
    let too_much = [
        Frame::Locator {
            realm,
            tips: many(limits::MAX_TIPS + 1),
            samples: vec![],
        },
        Frame::Locator {
            realm,
            tips: vec![],
            samples: many(limits::MAX_SAMPLES + 1),
        },
        Frame::Entries {
            realm,
            items: vec![item(0); limits::MAX_ENTRIES + 1],
            more: false,
        },
        Frame::Entries {
            realm,
            items: vec![item(49 * 1024)],
            more: false,
        },
        Frame::Entries {
            realm,
            items: vec![item(48 * 1024); 9],
            more: false,
        },
        Frame::ForkProof(vec![item(0); limits::MAX_SIBLINGS + 1]),
        Frame::Swim(vec![0; limits::MAX_SWIM_BYTES + 1]),
        Frame::Join(vec![0; limits::MAX_JOIN_BYTES + 1]),
        Frame::Report(vec![0; limits::MAX_REPORT_BYTES + 1]),
        Frame::Claim(vec![0; 13 * 1024]),
        Frame::Revoked(vec![0; realm_identity::MAX_SIGNED_BYTES + 1]),
        Frame::ClaimsHave(vec![realm; limits::MAX_CLAIM_HASHES + 1]),
    ];
    for frame in too_much {
        assert!(Frame::decode(&frame.encode()).is_err());
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

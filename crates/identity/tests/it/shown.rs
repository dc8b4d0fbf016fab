//! What people and logs see of keys, digests, secrets and kinds.

use realm_identity::{Hash, Kind, format::EncryptionNonce};

use crate::scene::owner;

/// The text form of the scene's owner, as any other implementation writes it.
const OWNER: &str = "ed25519:AKnL4NNf3DGWZJS6cPknBuEGnVsV4A4m5tgebLHaRSZ9";

#[test]
fn a_digest_is_named_by_its_first_twelve_digits() {
    let hash: Hash = "00112233445566778899aabbccddeeff00112233445566778899aabbccddeeff"
        .parse()
        .unwrap();
    assert_eq!(hash.short(), "001122334455");
    assert_eq!(format!("{hash:?}"), "001122334455…");
}

#[test]
fn a_key_is_named_by_eight_characters_after_its_prefix() {
    assert_eq!(owner().public().to_string(), OWNER);
    assert_eq!(owner().public().short(), "AKnL4NNf");
    assert_eq!(format!("{:?}", owner().public()), OWNER);
}

#[test]
fn a_private_key_is_shown_as_its_public_half() {
    assert_eq!(format!("{:?}", owner()), format!("SecretKey({OWNER})"));
}

#[test]
fn the_randomness_of_an_encrypted_key_is_not_shown() {
    let nonce = EncryptionNonce {
        salt: [7; 16],
        check: 9,
    };
    assert_eq!(format!("{nonce:?}"), "EncryptionNonce");
}

#[test]
fn every_kind_has_the_name_that_the_protocol_gives_it() {
    // The table of docs/protocols/intents.md.
    let names = [
        (1, "push"),
        (2, "remove"),
        (3, "restart"),
        (4, "scale"),
        (5, "run"),
        (6, "node-approve"),
        (7, "node-revoke"),
        (8, "node-set"),
        (9, "owner-rotate"),
        (10, "merge"),
        (11, "node-remove"),
    ];
    assert_eq!(Kind::ALL.map(|kind| (kind.number(), kind.name())), names);
}

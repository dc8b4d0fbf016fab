//! What the one verify path refuses.

use minicbor::Encoder;
use proptest::prelude::*;
use realm_identity::{
    Artifact, Body, Entry, Genesis, GenesisError, GraftChallenge, Hash, Kind, Message as _,
    PublicKey, SecretKey, Signature, Signed, Target, Timestamp, VerifyError, Witness, authority,
};

use crate::scene::{NOW, genesis, key, node, owner, realm, sign};

/// The order of the curve's prime subgroup, little-endian.
const L: [u8; 32] = [
    0xed, 0xd3, 0xf5, 0x5c, 0x1a, 0x63, 0x12, 0x58, 0xd6, 0x9c, 0xf7, 0xa2, 0xde, 0xf9, 0xde, 0x14,
    0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0x10,
];

/// Every encoding of a point of small order, those that are not canonical among them.
const SMALL_ORDER: [&str; 14] = [
    "0100000000000000000000000000000000000000000000000000000000000000",
    "0100000000000000000000000000000000000000000000000000000000000080",
    "ecffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
    "ecffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff",
    "0000000000000000000000000000000000000000000000000000000000000000",
    "0000000000000000000000000000000000000000000000000000000000000080",
    "26e8958fc2b227b045c3f489f2ef98f0d5dfac05d3c63339b13802886d53fc05",
    "26e8958fc2b227b045c3f489f2ef98f0d5dfac05d3c63339b13802886d53fc85",
    "c7176a703d4dd84fba3c0b760d10670f2a2053fa2c39ccc64ec7fd7792ac037a",
    "c7176a703d4dd84fba3c0b760d10670f2a2053fa2c39ccc64ec7fd7792ac03fa",
    "edffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
    "edffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff",
    "eeffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
    "eeffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff",
];

fn witness() -> Witness {
    Witness {
        v: 1,
        realm: realm(),
        claim: Hash::of(b"claim"),
        at: NOW,
        node: node().public(),
    }
}

fn entry(kind: u16, target: Target) -> Entry {
    let body = Body {
        state: Hash::of(b"state"),
        kind,
        target,
        not_after: None,
        issued_at: NOW,
        payload: Artifact::of(b"payload"),
    };
    Entry::new(realm(), owner().public(), 1, realm(), body)
}

fn envelope(bytes: &[u8], signature: &[u8]) -> Vec<u8> {
    let mut encoder = Encoder::new(Vec::new());
    encoder
        .array(2)
        .unwrap()
        .bytes(bytes)
        .unwrap()
        .bytes(signature)
        .unwrap();
    encoder.into_writer()
}

/// Signs bytes that no encoder of ours would make.
fn sign_raw<T: realm_identity::Message>(bytes: &[u8], key: &SecretKey) -> Vec<u8> {
    let input = [b"realm/v1/", T::DOMAIN.as_bytes(), b"\0", bytes].concat();
    let signature = realm_identity::Signer::sign(key, &input).unwrap();
    envelope(bytes, &signature.to_bytes())
}

fn refusal<T: realm_identity::Message>(wire: &[u8]) -> VerifyError {
    Signed::<T>::from_wire(wire).err().expect("must be refused")
}

#[test]
fn a_signed_message_survives_the_wire() {
    let signed = sign(witness(), &node());
    let read = Signed::<Witness>::from_wire(&signed.to_wire()).unwrap();
    assert_eq!(read, signed);
    assert_eq!(*read, witness());
    assert_eq!(read.hash(), Hash::of(read.signed_bytes()));
}

#[test]
fn every_cut_is_refused() {
    let wire = sign(witness(), &node()).to_wire();
    for length in 0..wire.len() {
        refusal::<Witness>(&wire[..length]);
    }
}

#[test]
fn trailing_bytes_are_refused() {
    let signed = sign(witness(), &node());
    let outside = [signed.to_wire(), vec![0]].concat();
    assert!(matches!(
        refusal::<Witness>(&outside),
        VerifyError::NotCanonical
    ));
    let inside = [signed.signed_bytes(), &[0]].concat();
    let wire = sign_raw::<Witness>(&inside, &node());
    assert!(matches!(
        refusal::<Witness>(&wire),
        VerifyError::Content { .. }
    ));
}

#[test]
fn other_encodings_of_the_same_value_are_refused() {
    let signed = sign(witness(), &node());
    let canonical = signed.signed_bytes();
    // An array of indefinite length, and the version in two bytes instead of one.
    let indefinite = [&[0x9f], &canonical[1..], &[0xff]].concat();
    assert_eq!(canonical[1], 1);
    let longer = [&canonical[..1], &[0x18, 0x01], &canonical[2..]].concat();
    for bytes in [indefinite, longer] {
        let wire = sign_raw::<Witness>(&bytes, &node());
        assert!(matches!(
            refusal::<Witness>(&wire),
            VerifyError::Content { .. }
        ));
    }
    // The same of the envelope: a length in two bytes.
    let wire = signed.to_wire();
    assert_eq!(wire[..2], [0x82, 0x58]);
    let longer = [&[0x82, 0x59, 0x00], &wire[2..]].concat();
    assert!(matches!(
        refusal::<Witness>(&longer),
        VerifyError::NotCanonical
    ));
}

#[test]
fn the_same_bytes_mean_nothing_in_another_domain() {
    let bytes = witness().to_bytes();
    let wire = sign_raw::<Genesis>(&bytes, &node());
    assert!(matches!(
        refusal::<Witness>(&wire),
        VerifyError::BadSignature { .. }
    ));
    let bare = realm_identity::Signer::sign(&node(), &bytes).unwrap();
    let wire = envelope(&bytes, &bare.to_bytes());
    assert!(matches!(
        refusal::<Witness>(&wire),
        VerifyError::BadSignature { .. }
    ));
}

#[test]
fn another_keys_signature_is_refused() {
    let wire = sign_raw::<Witness>(&witness().to_bytes(), &key(7));
    assert!(matches!(
        refusal::<Witness>(&wire),
        VerifyError::BadSignature { .. }
    ));
}

#[test]
fn too_large_is_refused_before_it_is_read() {
    let wire = vec![0x82; realm_identity::MAX_SIGNED_BYTES + 1];
    assert!(matches!(
        refusal::<Witness>(&wire),
        VerifyError::TooLarge { .. }
    ));
}

#[test]
fn a_signature_has_one_form() {
    let signed = sign(witness(), &node());
    let wire = signed.to_wire();
    let (start, mut signature) = (wire.len() - 64, wire[wire.len() - 64..].to_vec());
    let mut carry = 0;
    for (byte, add) in signature[32..].iter_mut().zip(L) {
        let sum = u16::from(*byte) + u16::from(add) + carry;
        *byte = sum as u8;
        carry = sum >> 8;
    }
    assert_eq!(carry, 0, "s + L fits 32 bytes");
    let forged = [&wire[..start], &signature].concat();
    assert!(matches!(
        refusal::<Witness>(&forged),
        VerifyError::BadSignature { .. }
    ));
}

#[test]
fn keys_of_small_order_are_no_keys() {
    for text in SMALL_ORDER {
        let mut bytes = [0; 32];
        hex::decode_to_slice(text, &mut bytes).unwrap();
        assert!(PublicKey::from_bytes(bytes).is_err(), "{text}");
        // For a key of small order, R of small order and S = 0 fit one message in four.
        let forged = Signature::from_bytes(&[bytes, [0; 32]].concat().try_into().unwrap());
        for message in 0..64u8 {
            assert!(
                !PublicKey::NONE.verify(&[message], &forged),
                "{text} {message}"
            );
        }
        let text = format!("ed25519:{}", bs58::encode(bytes).into_string());
        assert!(text.parse::<PublicKey>().is_err());
    }
}

#[test]
fn a_genesis_without_an_owner_is_nobodys() {
    let empty = Genesis {
        owners: Vec::new(),
        ..Genesis::clone(&genesis())
    };
    let wire = sign_raw::<Genesis>(&empty.to_bytes(), &owner());
    assert!(matches!(
        refusal::<Genesis>(&wire),
        VerifyError::BadSignature { .. }
    ));
}

#[test]
fn a_genesis_that_this_code_cannot_keep_is_named() {
    let of = || Genesis::clone(&genesis());
    assert_eq!(of().check(), Ok(()));
    assert_eq!(
        Genesis { v: 2, ..of() }.check(),
        Err(GenesisError::Version(2))
    );
    let two = vec![owner().public(), key(8).public()];
    for (owners, threshold) in [(two, 1), (of().owners, 2), (of().owners, 0)] {
        let error = Genesis {
            owners,
            threshold,
            ..of()
        }
        .check()
        .unwrap_err();
        assert!(matches!(error, GenesisError::Owners { .. }), "{error}");
    }
    for name in ["", "Home", "a/b", &"a".repeat(64)] {
        let error = Genesis {
            name: name.to_owned(),
            ..of()
        }
        .check()
        .unwrap_err();
        assert!(matches!(error, GenesisError::Name(_)), "{error}");
    }
}

#[test]
fn the_realm_is_the_genesis() {
    assert_eq!(genesis().realm_id(), genesis().hash());
    let other = Genesis {
        nonce: [8; 32],
        ..Genesis::clone(&genesis())
    };
    assert_ne!(other.realm_id(), realm());
}

#[test]
fn a_kind_that_is_not_known_is_kept() {
    let signed = sign(entry(999, Target::Realm), &owner());
    let read = Signed::<Entry>::from_wire(&signed.to_wire()).unwrap();
    assert_eq!(read, signed);
    assert_eq!(read.kind(), None);
    assert_eq!(read.body.as_ref().unwrap().kind, 999);
}

#[test]
fn a_version_that_is_not_known_is_kept_byte_for_byte() {
    let mut encoder = Encoder::new(Vec::new());
    encoder
        .array(11)
        .unwrap()
        .encode(2u16)
        .unwrap()
        .encode(realm())
        .unwrap();
    encoder
        .encode(owner().public())
        .unwrap()
        .encode(7u64)
        .unwrap()
        .encode(realm())
        .unwrap();
    for what in ["later", "versions", "say", "other"] {
        encoder.str(what).unwrap();
    }
    encoder
        .null()
        .unwrap()
        .array(2)
        .unwrap()
        .u8(1)
        .unwrap()
        .bytes(b"nested")
        .unwrap();
    let bytes = encoder.into_writer();
    let wire = sign_raw::<Entry>(&bytes, &owner());
    let read = Signed::<Entry>::from_wire(&wire).unwrap();
    assert_eq!((read.v, read.seq, read.body.is_none()), (2, 7, true));
    assert_eq!(read.to_wire(), wire);
    assert_eq!(read.kind(), None);
    for at in 0..wire.len() {
        let mut forged = wire.clone();
        forged[at] ^= 1;
        refusal::<Entry>(&forged);
    }
}

#[test]
fn only_the_owner_writes_and_only_about_what_fits() {
    let component = || Target::Component("web".to_owned());
    for kind in Kind::ALL {
        let target = match kind {
            Kind::Push | Kind::Remove | Kind::Restart | Kind::Scale | Kind::Run => component(),
            Kind::NodeApprove | Kind::NodeRevoke | Kind::NodeSet | Kind::NodeRemove => {
                Target::Node(node().public())
            }
            Kind::OwnerRotate => Target::Owner(key(8).public()),
            Kind::Merge => Target::Realm,
        };
        let wrong = if target == Target::Realm {
            component()
        } else {
            Target::Realm
        };
        let entry = entry(kind.number(), target.clone());
        assert_eq!(
            authority::check(&entry, kind, &target, owner().public()),
            Ok(())
        );
        assert!(matches!(
            authority::check(&entry, kind, &target, key(8).public()),
            Err(authority::Refusal::NotOwner { .. })
        ));
        assert!(matches!(
            authority::check(&entry, kind, &wrong, owner().public()),
            Err(authority::Refusal::WrongTarget { .. })
        ));
        assert_eq!(Kind::from_number(kind.number()), Some(kind));
        assert_eq!(entry.kind(), Some(kind));
    }
}

#[test]
fn a_graft_is_good_for_one_node_nonce_and_epoch() {
    let asked = GraftChallenge::new(Some(realm()), node().public(), owner().public(), [5; 32], 3);
    let wire = sign(asked.clone(), &owner()).to_wire();
    assert_eq!(*asked.verify(&wire).unwrap(), asked);
    let others = [
        (
            "version",
            GraftChallenge {
                v: 2,
                ..asked.clone()
            },
        ),
        (
            "domain",
            GraftChallenge {
                domain: "realm-other".to_owned(),
                ..asked.clone()
            },
        ),
        (
            "realm",
            GraftChallenge {
                realm: None,
                ..asked.clone()
            },
        ),
        (
            "node",
            GraftChallenge {
                node: key(8).public(),
                ..asked.clone()
            },
        ),
        (
            "key",
            GraftChallenge {
                client: key(8).public(),
                ..asked.clone()
            },
        ),
        (
            "nonce",
            GraftChallenge {
                nonce: [6; 32],
                ..asked.clone()
            },
        ),
        (
            "epoch",
            GraftChallenge {
                epoch: 4,
                ..asked.clone()
            },
        ),
    ];
    for (field, other) in others {
        let error = other.verify(&wire).unwrap_err();
        assert!(error.to_string().contains(field), "{field}: {error}");
    }
}

#[test]
fn digests_and_keys_survive_their_text() {
    let hash = realm();
    assert_eq!(hash.to_string().parse::<Hash>().unwrap(), hash);
    assert_eq!(format!("sha256:{hash}").parse::<Hash>().unwrap(), hash);
    for wrong in [
        "",
        "sha256:",
        "zz",
        &hash.to_string()[1..],
        "sha256:sha256:00",
    ] {
        assert!(wrong.parse::<Hash>().is_err(), "{wrong}");
    }
    let key = owner().public();
    assert_eq!(key.to_string().parse::<PublicKey>().unwrap(), key);
    for wrong in [
        "",
        "ed25519:",
        "ed25519:0OIl",
        &key.to_string()[8..],
        &format!("{key}1"),
    ] {
        assert!(wrong.parse::<PublicKey>().is_err(), "{wrong}");
    }
}

proptest! {
    #[test]
    fn anything_signed_reads_back(
        seed: [u8; 32], name in ".{0,80}", nonce: [u8; 32], at: u64, claim: [u8; 32],
    ) {
        let key = SecretKey::from_seed(&seed);
        let genesis = sign(Genesis::new(key.public(), name, nonce), &key);
        prop_assert_eq!(&Signed::<Genesis>::from_wire(&genesis.to_wire()).unwrap(), &genesis);
        let witness = sign(
            Witness {
                v: 1,
                realm: genesis.hash(),
                claim: Hash::from_bytes(claim),
                at: Timestamp::from_millis(at),
                node: key.public(),
            },
            &key,
        );
        prop_assert_eq!(&Signed::<Witness>::from_wire(&witness.to_wire()).unwrap(), &witness);
    }

    #[test]
    fn any_bytes_are_read_or_refused(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
        prop_assert!(Signed::<Entry>::from_wire(&bytes).is_err());
        if let Ok(entry) = Entry::from_bytes(&bytes) {
            prop_assert_eq!(entry.to_bytes(), bytes);
        }
    }

    #[test]
    fn any_entry_reads_back(kind: u16, seq: u64, at: u64, expiry: Option<u64>, name in ".{0,80}", payload: Vec<u8>) {
        let body = Body {
            state: Hash::of(&payload),
            kind,
            target: Target::Component(name),
            not_after: expiry.map(Timestamp::from_millis),
            issued_at: Timestamp::from_millis(at),
            payload: Artifact::of(&payload),
        };
        let entry = Entry::new(realm(), owner().public(), seq, realm(), body);
        prop_assert_eq!(&Entry::from_bytes(&entry.to_bytes()).unwrap(), &entry);
    }
}

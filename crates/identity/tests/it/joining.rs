//! Invites, claims and witnesses.

use proptest::prelude::*;
use realm_identity::{
    Claim, ClaimError, Consent, Genesis, Hash, Invite, InviteError, InviteToken, ParseTokenError,
    Signed, Timestamp, VerifiedClaim, WitnessedClaim, canonical, claim::MAX_CLAIM_BYTES,
    invite::MAX_TOKEN_BYTES,
};

use crate::scene::{
    MINUTE, NOW, claim, genesis, invite, invite_key, key, node, owner, plain_invite, realm, sign,
    token, witness,
};

fn verified(at: Timestamp) -> VerifiedClaim {
    VerifiedClaim::new(claim(at), realm(), &[owner().public()]).unwrap()
}

fn witnessed(at: Timestamp) -> WitnessedClaim {
    verified(at).witness(&witness(), at).unwrap()
}

fn verify(claim: &WitnessedClaim) -> Result<VerifiedClaim, ClaimError> {
    claim.verify(realm(), &[owner().public()], |key| {
        key == witness().public()
    })
}

#[test]
fn a_token_survives_its_text() {
    let text = token().to_string();
    let read: InviteToken = text.parse().unwrap();
    assert_eq!(read.to_string(), text);
    assert_eq!(read.invite(), token().invite());
    assert_eq!(read.secret().public(), invite_key().public());
    assert_eq!(
        format!("\n  {text} \n")
            .parse::<InviteToken>()
            .unwrap()
            .to_string(),
        text
    );
}

#[test]
fn a_token_does_not_show_its_key() {
    let shown = format!("{:?}", token());
    assert!(shown.starts_with("InviteToken"), "{shown}");
    let public = invite_key().public().to_string();
    assert!(shown.contains(&public), "{shown}");
    // The private key as numbers, in hexadecimal and in the token's own text.
    for secret in ["secret", "2, 2, 2, 2", "02020202", "AgICAgIC"] {
        assert!(!shown.contains(secret), "{secret}: {shown}");
    }
}

#[test]
fn every_change_of_a_token_is_refused() {
    let text = token().to_string();
    for at in 0..text.len() {
        let mut changed = text.clone().into_bytes();
        changed[at] = if changed[at] == b'A' { b'B' } else { b'A' };
        let changed = String::from_utf8(changed).unwrap();
        assert!(changed.parse::<InviteToken>().is_err(), "{at}: {changed}");
        assert!(text[..at].parse::<InviteToken>().is_err(), "{at}");
    }
}

#[test]
fn wrong_tokens_say_what_is_wrong() {
    let of = |text: &str| text.parse::<InviteToken>().unwrap_err();
    assert!(matches!(of("hello"), ParseTokenError::Prefix));
    assert!(matches!(of("realm-invite:***"), ParseTokenError::Base64(_)));
    assert!(matches!(
        of("realm-invite:AAAA"),
        ParseTokenError::Malformed(_)
    ));
    let long = format!("realm-invite:{}", "A".repeat(MAX_TOKEN_BYTES));
    assert!(matches!(of(&long), ParseTokenError::TooLong { .. }));
    let other = InviteToken::new(invite(), key(9)).unwrap_err();
    assert!(matches!(other, ParseTokenError::OtherKey));
}

#[test]
fn an_invite_larger_than_a_token_is_not_made() {
    let addresses = vec!["a".repeat(256); 32];
    let large = sign(
        Invite {
            addresses,
            ..plain_invite()
        },
        &owner(),
    );
    let error = InviteToken::new(large, invite_key()).unwrap_err();
    assert!(matches!(error, ParseTokenError::TooLong { .. }));
}

#[test]
fn invites_that_contradict_themselves_are_refused() {
    let check = |invite: Invite| sign(invite, &owner()).check().unwrap_err();
    assert!(matches!(
        check(Invite {
            v: 2,
            ..plain_invite()
        }),
        InviteError::Version(2)
    ));
    let window = Invite {
        not_after: Timestamp::from_millis(1),
        ..plain_invite()
    };
    assert!(matches!(check(window), InviteError::Window));
    let moment = Invite {
        not_after: NOW,
        ..plain_invite()
    };
    assert!(sign(moment, &owner()).check().is_ok());
    let other = sign(
        Genesis::new(owner().public(), "other".into(), [1; 32]),
        &owner(),
    );
    let swapped = Invite {
        genesis: other.to_wire(),
        ..plain_invite()
    };
    assert!(matches!(check(swapped), InviteError::OtherGenesis { .. }));
    let broken = Invite {
        genesis: vec![0x82],
        ..plain_invite()
    };
    assert!(matches!(check(broken), InviteError::Genesis(_)));
    let many = Invite {
        tags: vec!["t".into(); 33],
        ..plain_invite()
    };
    assert!(matches!(check(many), InviteError::TooMany("tags")));
    for text in [String::new(), "x".repeat(257)] {
        let invite = Invite {
            name: Some(text),
            ..plain_invite()
        };
        assert!(matches!(check(invite), InviteError::Text));
    }
}

#[test]
fn only_an_owners_invite_counts() {
    assert!(invite().check_owner(realm(), &[owner().public()]).is_ok());
    let error = invite()
        .check_owner(realm(), &[key(8).public()])
        .unwrap_err();
    assert!(matches!(error, InviteError::NotOwner(_)));
    let error = invite()
        .check_owner(Hash::of(b"x"), &[owner().public()])
        .unwrap_err();
    assert!(matches!(error, InviteError::OtherRealm { .. }));
    // After a rotation, for as long as the caller honours what the earlier owner signed.
    assert!(
        invite()
            .check_owner(realm(), &[key(8).public(), owner().public()])
            .is_ok()
    );
}

#[test]
fn an_invite_holds_from_issue_to_expiry_give_or_take_five_minutes() {
    let at =
        |minutes: i64| Timestamp::from_millis(NOW.as_millis().strict_add_signed(minutes * 60_000));
    for (minutes, fine) in [
        (-6, false),
        (-5, true),
        (0, true),
        (60, true),
        (65, true),
        (66, false),
    ] {
        assert_eq!(invite().check_time(at(minutes)).is_ok(), fine, "{minutes}");
    }
    assert!(matches!(
        invite().check_time(at(-6)),
        Err(InviteError::Early)
    ));
    assert!(matches!(
        invite().check_time(at(66)),
        Err(InviteError::Expired)
    ));
}

#[test]
fn a_witnessed_claim_enrols_its_node() {
    let read = WitnessedClaim::from_wire(&witnessed(NOW).to_wire()).unwrap();
    assert_eq!(read, witnessed(NOW));
    let claim = verify(&read).unwrap();
    assert_eq!(claim.claim.node, node().public());
    assert_eq!(claim.invite.name.as_deref(), Some("pi"));
}

#[test]
fn nobody_enrols_a_node_that_did_not_agree() {
    // Whoever stole the token signs a claim for another node, with each consent they can get.
    let stranger = Consent {
        v: 1,
        realm: realm(),
        invite: invite().hash(),
        node: key(9).public(),
        at: NOW,
    };
    let elsewhere = Consent {
        realm: Hash::of(b"x"),
        node: node().public(),
        ..stranger.clone()
    };
    let earlier = Consent {
        node: node().public(),
        at: NOW.plus_millis(1),
        ..stranger.clone()
    };
    let other_invite = Consent {
        invite: Hash::of(b"x"),
        node: node().public(),
        ..stranger.clone()
    };
    let consents = [
        sign(stranger, &key(9)),
        sign(elsewhere, &node()),
        sign(earlier, &node()),
        sign(other_invite, &node()),
    ];
    for consent in consents {
        let forged = Claim {
            consent: consent.to_wire(),
            ..Claim::clone(&claim(NOW))
        };
        let forged = sign(forged, &invite_key());
        let error = VerifiedClaim::new(forged, realm(), &[owner().public()]).unwrap_err();
        assert!(matches!(error, ClaimError::OtherConsent), "{error}");
    }
}

#[test]
fn a_claim_is_made_with_the_invites_key_in_its_realm() {
    let owners = [owner().public()];
    let forged = Claim {
        key: key(9).public(),
        ..Claim::clone(&claim(NOW))
    };
    let error = VerifiedClaim::new(sign(forged, &key(9)), realm(), &owners).unwrap_err();
    assert!(matches!(error, ClaimError::OtherKey { .. }));
    let forged = Claim {
        realm: Hash::of(b"x"),
        ..Claim::clone(&claim(NOW))
    };
    let error = VerifiedClaim::new(sign(forged, &invite_key()), realm(), &owners).unwrap_err();
    assert!(matches!(error, ClaimError::OtherRealm));
    let forged = Claim {
        v: 2,
        ..Claim::clone(&claim(NOW))
    };
    let error = VerifiedClaim::new(sign(forged, &invite_key()), realm(), &owners).unwrap_err();
    assert!(matches!(error, ClaimError::Version(2)));
    let error = VerifiedClaim::new(claim(NOW), realm(), &[key(9).public()]).unwrap_err();
    assert!(matches!(
        error,
        ClaimError::Invite(InviteError::NotOwner(_))
    ));
}

#[test]
fn no_byte_inside_a_claim_can_change_even_if_the_claim_is_signed_again() {
    let owners = [owner().public()];
    let whole = Claim::clone(&claim(NOW));
    for at in 0..whole.invite.len() {
        let mut forged = whole.clone();
        forged.invite[at] ^= 1;
        let signed = sign(forged, &invite_key());
        assert!(
            VerifiedClaim::new(signed, realm(), &owners).is_err(),
            "invite byte {at}"
        );
    }
    for at in 0..whole.consent.len() {
        let mut forged = whole.clone();
        forged.consent[at] ^= 1;
        let signed = sign(forged, &invite_key());
        assert!(
            VerifiedClaim::new(signed, realm(), &owners).is_err(),
            "consent byte {at}"
        );
    }
}

#[test]
fn the_witness_decides_whether_it_was_in_time() {
    let late = NOW.plus_millis(66 * MINUTE);
    assert!(matches!(
        verified(late).witness(&witness(), late),
        Err(ClaimError::Invite(InviteError::Expired))
    ));
    // A claim may have waited, as long as its invite holds; one from the future may not.
    let waited = NOW.plus_millis(30 * MINUTE);
    assert!(verified(NOW).witness(&witness(), waited).is_ok());
    let ahead = NOW.plus_millis(300_001);
    assert!(matches!(
        verified(ahead).witness(&witness(), NOW),
        Err(ClaimError::Clock { skew_ms: 300_001 })
    ));
    // A forged witness with a time of its own choosing meets the same check at every reader.
    let honest = witnessed(NOW);
    let late = realm_identity::Witness {
        at: late,
        ..realm_identity::Witness::clone(&honest.witness)
    };
    let forged = WitnessedClaim {
        witness: sign(late, &witness()),
        ..honest
    };
    assert!(verify(&forged).is_err());
}

#[test]
fn a_claim_dated_exactly_at_the_tolerance_counts() {
    let ahead = verified(NOW.plus_millis(300_000)).witness(&witness(), NOW);
    assert!(verify(&ahead.unwrap()).is_ok());
}

#[test]
fn a_witness_speaks_for_one_claim_in_one_realm() {
    let honest = witnessed(NOW);
    let word = || realm_identity::Witness::clone(&honest.witness);
    let forge = |word: realm_identity::Witness| {
        let forged = WitnessedClaim {
            witness: sign(word, &witness()),
            claim: honest.claim.clone(),
        };
        verify(&forged).unwrap_err()
    };
    let other = realm_identity::Witness {
        claim: Hash::of(b"x"),
        ..word()
    };
    assert!(matches!(forge(other), ClaimError::OtherClaim));
    let other = realm_identity::Witness {
        realm: Hash::of(b"x"),
        ..word()
    };
    assert!(matches!(forge(other), ClaimError::OtherRealm));
    let other = realm_identity::Witness { v: 2, ..word() };
    assert!(matches!(forge(other), ClaimError::Version(2)));
    let stranger = honest
        .verify(realm(), &[owner().public()], |_| false)
        .unwrap_err();
    assert!(matches!(stranger, ClaimError::NotWitness(_)));
}

#[test]
fn two_nodes_on_one_invite_contradict_each_other() {
    let again = verified(NOW.plus_millis(1))
        .witness(&witness(), NOW)
        .unwrap();
    assert!(
        !witnessed(NOW).contradicts(&again),
        "the same node twice is no contradiction"
    );
    let other = Claim::sign(&invite(), &invite_key(), &key(9), NOW).unwrap();
    let other = VerifiedClaim::new(other, realm(), &[owner().public()]).unwrap();
    let other = other.witness(&witness(), NOW).unwrap();
    assert!(witnessed(NOW).contradicts(&other) && other.contradicts(&witnessed(NOW)));
}

proptest! {
    #[test]
    fn any_text_is_a_token_or_is_refused(text in "(realm-invite:)?[ -~]{0,200}") {
        prop_assert!(text.parse::<InviteToken>().is_err());
    }

    #[test]
    fn any_bytes_are_a_claim_or_are_refused(bytes: Vec<u8>) {
        prop_assert!(WitnessedClaim::from_wire(&bytes).is_err());
    }

    #[test]
    fn any_invite_survives_its_token(
        seeds: ([u8; 32], [u8; 32]), name in prop::option::of("[a-z]{1,63}"),
        tags in prop::collection::vec("[a-z=]{1,40}", 0..8), ttl in 0u64..1 << 40,
        addresses in prop::collection::vec("/[a-z0-9/]{1,60}", 0..8),
    ) {
        let owner = realm_identity::SecretKey::from_seed(&seeds.0);
        let secret = realm_identity::SecretKey::from_seed(&seeds.1);
        let genesis = sign(Genesis::new(owner.public(), "home".into(), seeds.1), &owner);
        let (realm, key) = (genesis.hash(), secret.public());
        let invite = Invite {
            v: 1, realm, genesis: genesis.to_wire(), owner: owner.public(), key, name, tags,
            not_after: NOW.plus_millis(ttl), issued_at: NOW, addresses,
        };
        let token = InviteToken::new(Signed::sign(invite, &owner).unwrap(), secret).unwrap();
        let read: InviteToken = token.to_string().parse().unwrap();
        prop_assert_eq!(read.invite(), token.invite());
    }
}

#[test]
fn the_scene_is_sound() {
    assert_eq!(invite().genesis().unwrap(), genesis());
}

#[test]
fn the_claim_of_the_largest_invite_is_read_and_no_more() {
    let large = Invite {
        tags: (10..42)
            .map(|tag| format!("{tag}{}", "x".repeat(168)))
            .collect(),
        ..plain_invite()
    };
    let invite = sign(large, &owner());
    assert!(InviteToken::new(invite.clone(), invite_key()).is_ok());
    let claim = Claim::sign(&invite, &invite_key(), &node(), NOW).unwrap();
    let verified = VerifiedClaim::new(claim, realm(), &[owner().public()]).unwrap();
    let wire = verified.witness(&witness(), NOW).unwrap().to_wire();
    assert!(wire.len() > MAX_CLAIM_BYTES / 2, "{} bytes", wire.len());
    assert!(verify(&WitnessedClaim::from_wire(&wire).unwrap()).is_ok());
    // The bound is part of the protocol: nodes that differ in it would disagree about who is in.
    let more = vec![0; 12 * 1024 + 1];
    let refused = WitnessedClaim::from_wire(&more);
    let Err(ClaimError::Malformed(canonical::Error::TooLarge { max, .. })) = refused else {
        panic!("{refused:?}");
    };
    assert_eq!(max, 12_288);
}

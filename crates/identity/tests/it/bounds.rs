//! What is as large as it may be is read, and one more byte is refused.

use realm_identity::{
    Artifact, Body, Entry, Genesis, Hash, Invite, InviteToken, Kind, Message as _, ParseTokenError,
    Signed, Target, VerifyError, canonical,
    format::{Format, FormatError, is_encrypted, read_public, read_secret, sshsig, write_secret},
};

use crate::scene::{NOW, invite_key, owner, plain_invite, realm, sign};

/// A message whose `length` is `wanted`, made with a name of as many letters as that takes.
fn filled<T>(wanted: usize, of: impl Fn(String) -> T, length: impl Fn(&T) -> usize) -> T {
    // From 256 on, and up to 65,535, the length of a text takes as many bytes itself.
    let short = length(&of("a".repeat(256)));
    let made = of("a".repeat(256 + wanted - short));
    assert_eq!(length(&made), wanted);
    made
}

fn named_entry(name: String) -> Entry {
    let body = Body {
        state: Hash::of(b"state"),
        kind: Kind::Remove.number(),
        target: Target::Component(name),
        not_after: None,
        issued_at: NOW,
        payload: Artifact::of(b"payload"),
    };
    Entry::new(realm(), owner().public(), 1, realm(), body)
}

#[test]
fn a_value_as_large_as_the_caller_allows_is_decoded() {
    let artifact = Artifact::of(b"payload");
    let bytes = canonical::encode(&artifact);
    let read: Artifact = canonical::decode(&bytes, bytes.len()).unwrap();
    assert_eq!(read, artifact);
    let refused = canonical::decode::<Artifact>(&bytes, bytes.len() - 1);
    let Err(canonical::Error::TooLarge { size, max }) = refused else {
        panic!("{refused:?}");
    };
    assert_eq!((size, max), (bytes.len(), bytes.len() - 1));
}

#[test]
fn an_envelope_of_64_kib_is_read_and_no_more() {
    let of = |name| sign(Genesis::new(owner().public(), name, [9; 32]), &owner());
    let wire = |size| filled(size, of, |signed| signed.to_wire().len()).to_wire();
    assert!(Signed::<Genesis>::from_wire(&wire(65_536)).is_ok());
    let refused = Signed::<Genesis>::from_wire(&wire(65_537));
    let Err(VerifyError::TooLarge { size, max }) = refused else {
        panic!("{refused:?}");
    };
    assert_eq!((size, max), (65_537, 65_536));
}

#[test]
fn an_entry_alone_is_as_large_as_an_envelope_may_be() {
    let bytes = |size| filled(size, named_entry, |entry| entry.to_bytes().len()).to_bytes();
    assert!(Entry::from_bytes(&bytes(65_536)).is_ok());
    let refused = Entry::from_bytes(&bytes(65_537));
    let Err(canonical::Error::TooLarge { size, max }) = refused else {
        panic!("{refused:?}");
    };
    assert_eq!((size, max), (65_537, 65_536));
}

#[test]
fn a_token_of_8192_characters_is_made_and_read_and_no_more() {
    // The tags leave to the name what it takes to meet the bound.
    let of = |name: String| {
        let invite = Invite {
            name: Some(name),
            tags: vec!["t".repeat(170); 32],
            ..plain_invite()
        };
        sign(invite, &owner())
    };
    let made = |length| InviteToken::new(of("n".repeat(length)), invite_key());
    let longest = (1..=256)
        .rev()
        .find_map(|length| made(length).ok())
        .unwrap();
    let text = longest.to_string();
    assert_eq!(text.len(), 8192);
    let read: InviteToken = text.parse().unwrap();
    assert_eq!(read.invite(), longest.invite());
    let length = longest.invite().name.as_ref().unwrap().len();
    let refused = [made(length + 1), format!("{text}A").parse()];
    for refused in refused {
        let size = matches!(refused, Err(ParseTokenError::TooLong { size: 8193 }));
        assert!(size, "{refused:?}");
    }
}

#[test]
fn a_text_of_16_kib_is_read_as_a_key_and_no_more() {
    // White space around a key does not matter, but counts.
    let padded = |text: &str, size| format!("{text:<size$}");
    let public = owner().public().to_string();
    let secret = write_secret(&owner(), Format::Base58, "").unwrap();
    assert!(read_public(&padded(&public, 16_384)).is_ok());
    assert!(read_secret(&padded(&secret, 16_384), None).is_ok());
    let refused = [
        read_public(&padded(&public, 16_385)).map(drop),
        read_secret(&padded(&secret, 16_385), None).map(drop),
        is_encrypted(&padded(&secret, 16_385)).map(drop),
    ];
    for refused in refused {
        let size = matches!(refused, Err(FormatError::TooLong { size: 16_385 }));
        assert!(size, "{refused:?}");
    }
}

#[test]
fn a_signature_file_of_8_kib_is_read_and_no_more() {
    let signature = sshsig::sign(&owner(), sshsig::MANIFEST_NAMESPACE, b"content").unwrap();
    let check = |size| {
        // What stands before the block is not looked at, but counts.
        let text = format!("{}\n{signature}", "#".repeat(size - 1 - signature.len()));
        assert_eq!(text.len(), size);
        sshsig::verify(
            &owner().public(),
            sshsig::MANIFEST_NAMESPACE,
            b"content",
            &text,
        )
    };
    check(8192).unwrap();
    assert!(matches!(
        check(8193),
        Err(sshsig::SshSigError::TooLong { size: 8193 })
    ));
}

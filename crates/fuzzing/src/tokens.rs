//! Invite tokens, keys in every format, certificates and signatures of ssh.

use realm_identity::{
    InviteToken, PublicKey, SealingCertificate, Timestamp,
    format::{self, Format, sshsig},
};

use crate::scene::{self, key};

/// As a text; and as an invite that the owner signed, in a token.
pub fn feed(input: &[u8]) {
    if let Some(made) = scene::token(input) {
        let text = made.to_string();
        assert!(text.parse::<InviteToken>().is_ok(), "nobody can use it");
        token(&text);
    }
    let Ok(text) = std::str::from_utf8(input) else {
        return;
    };
    token(text);
    public(text);
    secret(text);
    certificate(text);
    let _ = sshsig::verify(&scene::owner().public(), "realm", b"message", text);
}

fn token(text: &str) {
    let Ok(token) = text.parse::<InviteToken>() else {
        return;
    };
    assert_eq!(token.to_string(), text.trim(), "a token has two texts");
    let invite = token.invite();
    assert!(
        invite.check().is_ok(),
        "a token with an invite that is not usable"
    );
    assert_eq!(token.secret().public(), invite.key, "another key");
    let owners: [PublicKey; 1] = [invite.owner];
    assert!(invite.check_owner(invite.realm, &owners).is_ok());
    for at in [
        Timestamp(0),
        invite.issued_at,
        invite.not_after,
        Timestamp(u64::MAX),
    ] {
        let _ = invite.check_time(at);
    }
    assert!(
        invite.check_time(invite.issued_at).is_ok(),
        "not valid when it was made"
    );
}

fn public(text: &str) {
    let Ok(key) = format::read_public(text) else {
        return;
    };
    for format in [Format::Base58, Format::OpenSsh, Format::Pem] {
        let written = format::write_public(&key, format, "home");
        let back = written
            .ok()
            .and_then(|text| format::read_public(&text).ok());
        assert_eq!(back, Some(key), "{format:?} does not come back");
    }
    assert!(
        format::read_secret(text, None).is_err(),
        "public and private"
    );
}

fn secret(text: &str) {
    // Without a passphrase: its derivation takes seconds by design, and what it opens is read alike.
    let is_encrypted = format::is_encrypted(text).unwrap_or(false);
    let Ok(key) = format::read_secret(text, None) else {
        return;
    };
    assert!(format::read_public(text).is_err(), "public and private");
    assert!(!is_encrypted, "opened without its passphrase");
    for format in [Format::Base58, Format::OpenSsh, Format::Pem] {
        let written = format::write_secret(&key, format, "home");
        let back = written
            .ok()
            .and_then(|text| format::read_secret(&text, None).ok());
        assert_eq!(
            back.map(|back| back.public()),
            Some(key.public()),
            "{format:?}"
        );
    }
}

fn certificate(text: &str) {
    let node = key(scene::NODES[0]).public();
    if let Ok(word) = SealingCertificate::verify_text(text, node) {
        assert_eq!(word.node, node, "another node's certificate");
        let again = realm_identity::sealing::to_text(&word.to_wire());
        assert!(SealingCertificate::verify_text(&again, node).is_ok());
    }
}

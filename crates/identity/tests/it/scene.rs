//! Keys, a realm and an invite to test with; the same bytes every time.

use realm_identity::{Claim, Genesis, Hash, Invite, InviteToken, SecretKey, Signed, Timestamp};

pub const MINUTE: u64 = 60_000;

/// 2026-01-01T00:00:00Z.
pub const NOW: Timestamp = Timestamp::from_millis(1_767_225_600_000);

pub fn key(seed: u8) -> SecretKey {
    SecretKey::from_seed(&[seed; 32])
}

pub fn sign<T: realm_identity::Message>(value: T, key: &SecretKey) -> Signed<T> {
    Signed::sign(value, key).unwrap()
}

pub fn genesis() -> Signed<Genesis> {
    sign(
        Genesis::new(owner().public(), "home".to_owned(), [9; 32]),
        &owner(),
    )
}

pub fn realm() -> Hash {
    genesis().hash()
}

pub fn owner() -> SecretKey {
    key(1)
}

pub fn invite_key() -> SecretKey {
    key(2)
}

pub fn node() -> SecretKey {
    key(3)
}

pub fn witness() -> SecretKey {
    key(4)
}

pub fn plain_invite() -> Invite {
    Invite {
        v: 1,
        realm: realm(),
        genesis: genesis().to_wire(),
        owner: owner().public(),
        key: invite_key().public(),
        name: Some("pi".to_owned()),
        tags: vec!["edge".to_owned()],
        not_after: NOW.plus_millis(60 * MINUTE),
        issued_at: NOW,
        addresses: vec!["/ip4/192.0.2.1/udp/2020/quic-v1".to_owned()],
    }
}

pub fn invite() -> Signed<Invite> {
    sign(plain_invite(), &owner())
}

pub fn token() -> InviteToken {
    InviteToken::new(invite(), invite_key()).unwrap()
}

pub fn claim(at: Timestamp) -> Signed<Claim> {
    Claim::sign(&invite(), &invite_key(), &node(), at).unwrap()
}

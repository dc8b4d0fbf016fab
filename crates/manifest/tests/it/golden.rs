//! Signed bytes that must never change by accident. A change here breaks every realm there is.

use realm_identity::{Hash, Kind, canonical};
use realm_manifest::payload::{Payload, Push};

use crate::scene::{entry, full_spec, genesis, invite, key, payload, plain_spec, witnessed};

const PAGE: &str = include_str!("../../../../docs/protocols/intents.md");

fn page_has(what: &str, bytes: &[u8]) {
    let digits: String = PAGE.chars().filter(|c| !c.is_whitespace()).collect();
    let hex = hex::encode(bytes);
    assert!(
        digits.contains(&hex),
        "docs/protocols/intents.md lacks {what}: {hex}"
    );
}

fn check(what: &str, bytes: &[u8], expected: &str) {
    assert_eq!(hex::encode(bytes), expected, "{what}");
}

#[test]
fn genesis_bytes() {
    check("genesis", genesis().signed_bytes(), GENESIS);
    check("realm", genesis().hash().as_bytes(), REALM);
    page_has("the genesis", genesis().signed_bytes());
    page_has("the realm", genesis().hash().as_bytes());
}

#[test]
fn entry_bytes() {
    check("entry", entry(Kind::Scale).signed_bytes(), ENTRY);
    check(
        "entry on the wire",
        &entry(Kind::Scale).to_wire(),
        ENTRY_WIRE,
    );
    page_has("the entry", entry(Kind::Scale).signed_bytes());
    page_has("the wire", &entry(Kind::Scale).to_wire());
}

#[test]
fn payload_bytes() {
    check("scale", &payload(Kind::Scale).encode(), SCALE);
    page_has("the payload", &payload(Kind::Scale).encode());
    let plain = Payload::Push(Push {
        spec: plain_spec(),
        run: None,
        note: None,
    });
    check("push", &plain.encode(), PUSH);
    page_has("a push", &plain.encode());
    check(
        "push in full",
        Hash::of(&payload(Kind::Push).encode()).as_bytes(),
        FULL_PUSH_DIGEST,
    );
    assert_eq!(
        plain_spec().digest(),
        Hash::of(&canonical::encode(&plain_spec()))
    );
    assert_ne!(plain_spec().digest(), full_spec().digest());
}

#[test]
fn invite_bytes() {
    check(
        "invite",
        Hash::of(&invite().to_wire()).as_bytes(),
        INVITE_DIGEST,
    );
    let token = realm_identity::InviteToken::new(invite(), key(2))
        .unwrap()
        .to_string();
    assert!(
        PAGE.contains(&token),
        "docs/protocols/intents.md lacks the token: {token}"
    );
    let claim = witnessed();
    check("claim", Hash::of(&claim.to_wire()).as_bytes(), CLAIM_DIGEST);
}

const GENESIS: &str = "\
    85018158208a88e3dd7409f195fd52db2d3cba5d72ca6709bf1d94121bf3748801b40f6f5c0164686f6d6558\
    200909090909090909090909090909090909090909090909090909090909090909";
const REALM: &str = "52d25d16f4715952af5b6c35470fa636bf2151e0c62d3e654b30388d2b73c342";
const ENTRY: &str = "\
    8b01582052d25d16f4715952af5b6c35470fa636bf2151e0c62d3e654b30388d2b73c34258208a88e3dd7409\
    f195fd52db2d3cba5d72ca6709bf1d94121bf3748801b40f6f5c075820e47125968b3b71049fbc4802d1e40a\
    71ea1359decfabacf70b34588037d4ff0c58204ba69735ca53765ed6a709edb56c6ea236b7193a3b29a6b390\
    c346f0f4340e4e04820181637765621b0000019b76db92601b0000019b76daa800835820adf0a86cd7d395e7\
    0a89f2c2d08ea4817bf5a749c73ce1037dc13479dd24f71a0c5820c434a71a4f9e11133a4738847306420b64\
    3e06ba63d721c9a951181cc3006b23";
const ENTRY_WIRE: &str = "\
    8258eb8b01582052d25d16f4715952af5b6c35470fa636bf2151e0c62d3e654b30388d2b73c34258208a88e3\
    dd7409f195fd52db2d3cba5d72ca6709bf1d94121bf3748801b40f6f5c075820e47125968b3b71049fbc4802\
    d1e40a71ea1359decfabacf70b34588037d4ff0c58204ba69735ca53765ed6a709edb56c6ea236b7193a3b29\
    a6b390c346f0f4340e4e04820181637765621b0000019b76db92601b0000019b76daa800835820adf0a86cd7\
    d395e70a89f2c2d08ea4817bf5a749c73ce1037dc13479dd24f71a0c5820c434a71a4f9e11133a4738847306\
    420b643e06ba63d721c9a951181cc3006b235840a763e3a00e530f703f310b91f4106deaabd7e9dc92b05f1f\
    054092274b29289f83bd50441a2fa36e39ffa4d548c236e725f2796d1eceeed13907ff40731a070d";
const SCALE: &str = "a20005016762656361757365";
const PUSH: &str = "\
    a100a700835820fa69abd0e355ea21aeaf9cd3b36e1bf6a4944ee9df0be50d1c764b43eaa1dce60b58205852\
    50c48936295173e13d011181054194293a90ec66d98bded471640e03b54004a20080018005a6001840010002\
    00031864051840061a0010000006a50080018002800380048007010d800e80";
const FULL_PUSH_DIGEST: &str = "8b32f7cf6af46fd6b8fba7575200828e0a054ad999a9d0d6d1195a3c86f1ba47";
const INVITE_DIGEST: &str = "5fb5f821d0f05f056cd7e2dc9e98a7d2fc2c2fd4d6171f3ac32325be8fc2aec4";
const CLAIM_DIGEST: &str = "3b293d488b0c126bee8ddbc119fa57e5feb658d8bcdc86a0a6a9a1d140ec05b9";

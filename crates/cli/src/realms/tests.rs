//! Realms and what is remembered of each.

#![allow(clippy::unwrap_used)]

use realm_identity::{Hash, SecretKey};

use super::*;

fn realm(name: &str, nonce: u8) -> Signed<Genesis> {
    let owner = SecretKey::from_seed(&[7; 32]);
    Signed::sign(
        Genesis::new(owner.public(), name.into(), [nonce; 32]),
        &owner,
    )
    .unwrap()
}

#[test]
fn finds_realms_by_name_id_and_use() {
    let dir = tempfile::tempdir().unwrap();
    let realms = Realms::new(dir.path());
    assert_eq!(realms.find(None).unwrap_err().code, ExitCode::NotFound);
    let home = realms.add(realm("home", 1)).unwrap();
    let shop = realms.add(realm("shop", 2)).unwrap();
    assert_eq!(realms.find(None).unwrap().id, shop.id);
    assert_eq!(realms.find(Some("home")).unwrap().id, home.id);
    assert_eq!(
        realms.find(Some(&shop.id.to_string()[..10])).unwrap().id,
        shop.id
    );
    realms.select(&home).unwrap();
    assert_eq!(realms.find(None).unwrap().id, home.id);
    assert_eq!(realms.list().unwrap().len(), 2);
}

#[test]
fn the_mark_falls_only_when_told() {
    let dir = tempfile::tempdir().unwrap();
    let realm = Realms::new(dir.path()).add(realm("home", 1)).unwrap();
    realm.raise_mark(5, realm.id).unwrap();
    realm.raise_mark(3, realm.id).unwrap();
    assert_eq!(realm.mark().unwrap(), 5);
    realm.lower_mark(2).unwrap();
    assert_eq!(realm.mark().unwrap(), 2);
}

#[test]
fn another_entry_of_the_revision_that_was_seen_is_a_contradiction() {
    let dir = tempfile::tempdir().unwrap();
    let realm = Realms::new(dir.path()).add(realm("home", 1)).unwrap();
    let (one, other) = (Hash::of(b"one"), Hash::of(b"other"));
    let contradicts = |revision, head| realm.contradicts(revision, head).unwrap();
    realm.raise_mark(5, one).unwrap();
    assert!(!contradicts(5, one) && contradicts(5, other));
    assert!(!contradicts(4, other) && !contradicts(6, other));
    // Seeing it does not make it the one.
    realm.raise_mark(5, other).unwrap();
    assert_eq!(realm.seen_head().unwrap(), Some(one));
    realm.raise_mark(6, other).unwrap();
    assert!(contradicts(6, one));
    // What is given up contradicts nothing.
    realm.lower_mark(6).unwrap();
    assert!(!contradicts(6, one));
    realm.raise_mark(6, one).unwrap();
    assert!(contradicts(6, other));
}

#[test]
fn a_mark_of_an_earlier_version_has_no_entry_until_one_is_seen() {
    let dir = tempfile::tempdir().unwrap();
    let realm = Realms::new(dir.path()).add(realm("home", 1)).unwrap();
    let (one, other) = (Hash::of(b"one"), Hash::of(b"other"));
    realm.raise_mark(6, one).unwrap();
    // That version raises the number and knows of no entry.
    for number in ["7", &checked::seal("7")] {
        std::fs::write(realm.dir.join("mark"), number).unwrap();
        assert_eq!(realm.mark().unwrap(), 7);
        assert_eq!(realm.seen_head().unwrap(), None);
        assert!(!realm.contradicts(7, other).unwrap());
    }
    realm.raise_mark(7, other).unwrap();
    assert!(realm.contradicts(7, one).unwrap());
    std::fs::remove_file(realm.dir.join("head")).unwrap();
    assert!(!realm.contradicts(7, one).unwrap());
}

#[test]
fn a_raise_that_is_cut_short_keeps_the_higher_number() {
    let dir = tempfile::tempdir().unwrap();
    let realm = Realms::new(dir.path()).add(realm("home", 1)).unwrap();
    let (one, other) = (Hash::of(b"one"), Hash::of(b"other"));
    realm.raise_mark(6, one).unwrap();
    // The second of the two files cannot be written.
    let head = realm.dir.join("head");
    std::fs::remove_file(&head).unwrap();
    std::fs::create_dir(&head).unwrap();
    realm.raise_mark(7, other).unwrap_err();
    assert_eq!(realm.mark().unwrap(), 7);
    let error = realm.seen_head().unwrap_err();
    assert!(error.help.unwrap().contains("rm "));
    std::fs::remove_dir(&head).unwrap();
    assert_eq!(realm.seen_head().unwrap(), None);
    realm.raise_mark(7, other).unwrap();
    assert_eq!(realm.seen_head().unwrap(), Some(other));
}

#[test]
fn damage_names_the_file_and_stays_with_its_realm() {
    let dir = tempfile::tempdir().unwrap();
    let realms = Realms::new(dir.path());
    let home = realms.add(realm("home", 1)).unwrap();
    let shop = realms.add(realm("shop", 2)).unwrap();
    std::fs::write(home.dir.join("genesis"), "junk").unwrap();
    assert_eq!(realms.list().unwrap().len(), 1);
    assert_eq!(realms.find(Some("shop")).unwrap().id, shop.id);
    let error = realms.find(Some(&home.id.to_string()[..8])).unwrap_err();
    let path = home.dir.join("genesis").display().to_string();
    assert!(
        error.message.contains(&path) && error.help.is_some(),
        "{error}"
    );

    std::fs::write(shop.dir.join("mark"), "").unwrap();
    let error = shop.raise_mark(1, shop.id).unwrap_err();
    let path = shop.dir.join("mark").display().to_string();
    assert!(
        error.message.contains(&path) && error.help.is_some(),
        "{error}"
    );
}

#[test]
fn a_name_goes_before_the_start_of_an_id() {
    let dir = tempfile::tempdir().unwrap();
    let realms = Realms::new(dir.path());
    let home = realms.add(realm("home", 1)).unwrap();
    let like_home = home.id.to_string()[..6].to_owned();
    let other = realms.add(realm(&like_home, 2)).unwrap();
    assert_eq!(realms.find(Some(&like_home)).unwrap().id, other.id);
    assert_eq!(
        realms.find(Some(&home.id.to_string()[..7])).unwrap().id,
        home.id
    );
}

#[test]
fn invites_are_known_while_they_can_be_used() {
    let dir = tempfile::tempdir().unwrap();
    let realm = Realms::new(dir.path()).add(realm("home", 1)).unwrap();
    let now = Timestamp(1_000);
    realm.remember_invite("one", Timestamp(2_000), now).unwrap();
    realm.remember_invite("two", Timestamp(3_000), now).unwrap();
    let until = |name: &str, now: u64| realm.invited(name, Timestamp(now)).unwrap();
    assert_eq!(until("one", 1_999), Some(Timestamp(2_000)));
    assert_eq!(until("one", 2_000), None);
    assert_eq!(until("two", 2_000), Some(Timestamp(3_000)));
    assert_eq!(until("three", 1_000), None);
}

#[test]
fn saved_peers_keep_the_latest_first_and_stay_few() {
    let dir = tempfile::tempdir().unwrap();
    let realm = Realms::new(dir.path()).add(realm("home", 1)).unwrap();
    let at = |port: u16| format!("/ip4/127.0.0.1/tcp/{port}");
    realm.save_peers(&[at(1), at(2)]);
    realm.save_peers(&[at(3), at(1)]);
    assert_eq!(realm.peers().unwrap(), [at(3), at(1), at(2)]);
    // Junk between them does not hide them.
    let text = format!("junk\n{}\n\u{0}", at(4));
    std::fs::write(realm.dir.join("peers"), text).unwrap();
    assert_eq!(realm.peers().unwrap(), [at(4)]);
}

#[test]
fn a_realm_that_was_never_kept_is_no_damaged_one() {
    let dir = tempfile::tempdir().unwrap();
    let realms = Realms::new(dir.path());
    let home = realms.add(realm("home", 1)).unwrap();
    let cut_short = realms.unsaved(realm("shop", 2));
    std::fs::create_dir(&cut_short.dir).unwrap();
    for file in [".genesis.new", "mark"] {
        std::fs::write(cut_short.dir.join(file), "").unwrap();
        let known = realms.ids().unwrap();
        // One with a mark has been in use.
        let expected = if file == "mark" { 2 } else { 1 };
        assert_eq!(known.len(), expected, "{file}");
        assert!(known.contains(&home.id));
        realms.add(realm("home", 1)).unwrap();
        // What was never in use goes when another one is made.
        assert_eq!(cut_short.dir.exists(), file == "mark");
        std::fs::create_dir_all(&cut_short.dir).unwrap();
    }
}

#[test]
fn a_bit_that_turned_over_in_the_mark_or_the_owner_is_damage() {
    let dir = tempfile::tempdir().unwrap();
    let realm = Realms::new(dir.path()).add(realm("home", 1)).unwrap();
    realm.raise_mark(90, realm.id).unwrap();
    let handed_to = [8, 9].map(|seed| SecretKey::from_seed(&[seed; 32]).public());
    for owner in handed_to {
        realm.remember_owner(owner).unwrap();
        assert_eq!(realm.owner().unwrap(), owner);
    }
    assert!(handed_to.iter().all(|owner| realm.was_owned_by(*owner)));
    let damaged = |name: &str| {
        let read = match name {
            "mark" => realm.mark().map(drop),
            "head" => realm.seen_head().map(drop),
            _ => realm.owner().map(drop),
        };
        let error = read.unwrap_err();
        assert!(error.message.contains(name), "{error}");
        assert!(error.help.unwrap().contains("rm "));
    };
    for name in ["mark", "head", "owner"] {
        let path = realm.dir.join(name);
        let whole = std::fs::read(&path).unwrap();
        for at in 0..whole.len() * 8 {
            let mut flipped = whole.clone();
            flipped[at / 8] ^= 1 << (at % 8);
            std::fs::write(&path, flipped).unwrap();
            damaged(name);
        }
        std::fs::write(&path, whole).unwrap();
    }
    assert_eq!(realm.mark().unwrap(), 90);
}

#[test]
fn a_bit_that_turned_over_in_the_genesis_is_damage() {
    let dir = tempfile::tempdir().unwrap();
    let realms = Realms::new(dir.path());
    let home = realms.add(realm("home", 1)).unwrap();
    let path = home.dir.join("genesis");
    let whole = std::fs::read(&path).unwrap();
    for at in 0..whole.len() * 8 {
        let mut flipped = whole.clone();
        flipped[at / 8] ^= 1 << (at % 8);
        std::fs::write(&path, flipped).unwrap();
        let error = realms.find(None).unwrap_err();
        assert!(error.message.contains("genesis"), "bit {at}: {error}");
        assert!(error.help.unwrap().contains("realm adopt"), "bit {at}");
    }
}

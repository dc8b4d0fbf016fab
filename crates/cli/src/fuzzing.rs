//! What the fuzzer reaches of this crate: how it reads files.

use std::path::Path;

use realm_identity::{Genesis, RealmId, Signed, Timestamp};
use realm_planner::State;
use realm_rpc::{Branch, Fork, Intent};

use crate::{chain::Forked, error::Result, realms::Realms, settings::Settings};

/// Reads a file of settings; gives back every key and value that it set.
pub fn settings(path: &Path) -> Option<Vec<(&'static str, String)>> {
    let settings = Settings::of_file(path).ok()?;
    let pairs = settings.iter();
    Some(
        pairs
            .map(|(key, setting)| (key, setting.value.clone()))
            .collect(),
    )
}

/// Reads and writes again everything that a state directory holds, as commands do.
///
/// # Panics
/// Where what was written is not what is read.
pub fn state(dir: &Path) {
    let realms = Realms::new(dir);
    let Ok(listed) = realms.list() else { return };
    let names: Vec<String> = listed.iter().map(|it| it.genesis.name.clone()).collect();
    for name in names.iter().map(String::as_str) {
        // Two may have one name: that is an error of its own.
        let _ = realms.find(Some(name));
    }
    for realm in listed {
        assert_eq!(
            realm.genesis.realm_id(),
            realm.id,
            "listed under another id"
        );
        let found = realms.find(Some(&realm.id.to_string()));
        let same = |found: &RealmId| *found == realm.id || names.contains(&realm.id.to_string());
        assert!(found.is_ok_and(|found| same(&found.id)), "not found by id");
        realm_files(&realm);
    }
    let _ = realms.find(None);
}

fn realm_files(realm: &crate::realms::Realm) {
    if let Ok(mark) = realm.mark() {
        let seen = realm.seen_head().ok();
        let is_other = seen.map(|seen| seen.is_some_and(|seen| seen != realm.id));
        let contradicts = realm.contradicts(mark, realm.id).ok();
        assert_eq!(contradicts, is_other, "another entry than the one seen");
        // Nothing is above the last number.
        if let Some(raised) = mark.checked_add(1) {
            written(realm.raise_mark(raised, realm.id));
            written(realm.raise_mark(mark, realm.id));
            assert_eq!(realm.mark().ok(), Some(raised), "the mark fell");
            let seen = realm.seen_head().ok().flatten();
            assert_eq!(seen, Some(realm.id), "another entry");
        }
    }
    let owner = realm.owner().unwrap_or_else(|_| realm.genesis.owner());
    written(realm.remember_owner(owner));
    assert_eq!(realm.owner().ok(), Some(owner), "another owner");

    let address = "/ip4/192.0.2.7/tcp/2020".to_owned();
    realm.save_peers(std::slice::from_ref(&address));
    if let Ok(peers) = realm.peers() {
        assert_eq!(peers.first(), Some(&address), "a saved peer is not first");
    }
    if realm.components().is_ok() {
        realm.remember_component("hello");
        let known = realm.components().unwrap_or_default();
        assert!(known.iter().any(|name| name == "hello"), "not remembered");
    }
    let _ = realm.names();
    let (now, until) = (Timestamp(1), Timestamp(2));
    if realm.remember_invite("home", until, now).is_ok() {
        let found = realm.invited("home", now).ok().flatten();
        assert!(found.is_some(), "an invite was forgotten");
    }
    let outbox = realm.outbox();
    if let Ok(Some(sealed)) = outbox.unacknowledged() {
        written(outbox.put(&sealed));
        let again = outbox.unacknowledged().ok().flatten();
        assert_eq!(again.as_ref(), Some(&sealed), "another intent");
    }
    let _ = outbox.kept();
}

fn written<T>(result: Result<T>) {
    assert!(result.is_ok(), "what was read cannot be written");
}

/// Verifies and folds entries as a node's history, oldest first; says how many of them were good.
pub fn history(genesis: &Signed<Genesis>, entries: &[Intent]) -> usize {
    let realm = Realms::new(Path::new("/nonexistent")).unsaved(genesis.clone());
    let whole = Fork {
        seq: 1,
        branches: vec![Branch {
            entries: entries.to_vec(),
        }],
    };
    let Ok(forked) = Forked::read(&whole, &realm, realm.id, genesis.owner()) else {
        return 0;
    };
    let base = State::genesis(genesis);
    for branch in &forked.branches {
        for link in &branch.links {
            let _ = (link.gist(), link.subject(), link.verb(), link.note());
        }
        if let Ok(state) = forked.fold(&base, branch) {
            assert_eq!(State::decode(&state.encode()).ok(), Some(state), "no state");
        }
    }
    forked
        .branches
        .iter()
        .map(|branch| branch.links.len())
        .sum()
}

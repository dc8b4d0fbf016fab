//! Commands that are killed at a system call that changes what is on disk: the next command goes on,
//! nothing is signed twice, and there is always a key.

use std::{collections::BTreeMap, fs, path::Path, process::Command};

use realm_testkit::{
    Cluster, Printed, below,
    strace::{Fault, Point, has_strace},
    synced::unsafe_names,
    traced,
};

use crate::{cluster, guest};

/// Calls by which a command changes what is on disk.
pub const CALLS: [&str; 7] = [
    "fsync",
    "rename",
    "renameat2",
    "ftruncate",
    "unlink",
    "mkdir",
    "link",
];
/// No command makes more of one kind.
const MAX_CALLS: u32 = 200;
/// Asks for every point where this test takes every so many.
const ALL: &str = "REALM_TEST_ALL_POINTS";

pub fn all_points() -> bool {
    std::env::var_os(ALL).is_some()
}

pub fn missing() -> bool {
    if !has_strace() {
        realm_testkit::skipped("strace is not installed");
        return true;
    }
    false
}

pub fn printed(command: &mut Command) -> Printed {
    let output = command.output().unwrap();
    Printed {
        code: output.status.code().unwrap_or(-1),
        stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
        stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
    }
}

/// Each call in turn, as long as `killed` says that there was one: the first, and then the one that
/// `next` names, or every one where all are asked for.
pub fn at_every_call(
    calls: &[&'static str],
    next: fn(u32) -> u32,
    mut killed: impl FnMut(&Point<'_>, &str) -> bool,
) -> u32 {
    let next = if all_points() { |nth| nth + 1 } else { next };
    let mut points = BTreeMap::new();
    for call in calls {
        let mut nth = 1;
        while nth < MAX_CALLS {
            let point = Point {
                call,
                nth,
                path: None,
                fault: Fault::Kill,
            };
            if !killed(&point, &format!("killed at {call} {nth}")) {
                break;
            }
            *points.entry(call).or_insert(0) += 1;
            nth = next(nth);
        }
    }
    eprintln!("killed at {points:?}");
    points.values().sum()
}

/// Whether the process was killed; it ends well, or so.
pub fn was_killed(printed: &Printed, context: &str) -> bool {
    let killed = printed.code != 0;
    assert!(
        !killed || printed.code == -1,
        "{context}: {}: {}{}",
        printed.code,
        printed.stdout,
        printed.stderr
    );
    killed
}

/// Names of files that a write left before they had their own.
fn left(dir: &Path) -> Vec<String> {
    let Ok(entries) = fs::read_dir(dir) else {
        return Vec::new();
    };
    let mut found = Vec::new();
    for entry in entries {
        let path = entry.unwrap().path();
        if path.is_dir() {
            found.extend(left(&path));
        } else if path.extension().is_some_and(|end| end == "new") {
            found.push(path.display().to_string());
        }
    }
    found
}

#[test]
fn an_init_that_was_killed_is_done_again() {
    if missing() {
        return;
    }
    let realm = cluster();
    let points = at_every_call(
        &CALLS,
        |nth| nth + 1,
        |point, context| {
            let home = tempfile::tempdir().unwrap();
            let mut plain = realm.command();
            plain
                .env("REALM_CONFIG_DIR", home.path().join("new/config"))
                .env("REALM_STATE_DIR", home.path().join("new/state"));
            let key = home.path().join("new/config/owner.key");
            let run = |args: &[&str]| {
                let mut command = Command::new(plain.get_program());
                for (name, value) in plain.get_envs() {
                    match value {
                        Some(value) => command.env(name, value),
                        None => command.env_remove(name),
                    };
                }
                printed(command.args(args))
            };
            let first = printed(below(&plain, point).args(["init", "-o", "json"]));
            let killed = was_killed(&first, context);
            let public = key.exists().then(|| run(&["key", "show"]).stdout);
            let again = run(&["init"]);
            let words = format!("{context}: {}{}", again.stdout, again.stderr);
            let kept = again.stderr.contains("already");
            assert!(again.code == 0 || kept, "{words}");
            if !killed {
                assert!(kept, "{words}");
                return false;
            }
            // The key that was there is the one that is used.
            let shown = run(&["key", "show"]);
            assert_eq!(shown.code, 0, "{words}{}", shown.stderr);
            assert!(
                public.is_none_or(|public| public == shown.stdout),
                "{words}"
            );
            let listed = run(&["ls", "-o", "json"]);
            let listed: Vec<serde_json::Value> =
                serde_json::from_str::<serde_json::Value>(&listed.stdout)
                    .map(|realms| realms.as_array().cloned().unwrap_or_else(|| vec![realms]))
                    .unwrap();
            assert_eq!(listed.len(), 1, "{words}");
            let invited = run(&["invite", "--quiet", "--name", "one"]);
            assert_eq!(invited.code, 0, "{words}{}", invited.stderr);
            assert!(
                !invited.stderr.contains("left out"),
                "{words}{}",
                invited.stderr
            );
            assert_eq!(left(&home.path().join("new/config")), [""; 0], "{words}");
            true
        },
    );
    assert!(points > 10, "{points} are too few to mean much");
}

/// How many revisions the realm has, none of which was signed twice.
pub fn revision(realm: &Cluster, context: &str) -> u64 {
    let status = realm.status("one");
    let status = status.unwrap_or_else(|| panic!("{context}: no status"));
    assert_eq!(status["forked"], false, "{context}");
    status["revision"].as_u64().unwrap()
}

#[test]
fn a_command_that_was_killed_signs_nothing_twice() {
    if missing() {
        return;
    }
    let mut realm = cluster();
    for name in ["one", "two"] {
        realm.add_node(name, &[]);
    }
    realm.wait_ready("one");
    let via = realm.address("one");
    realm.ok(&["push", "hello", &guest("hello.wasm"), "--via", &via]);
    let mut verbs = ["stop", "start"].into_iter().cycle();
    let points = at_every_call(
        &CALLS,
        |nth| nth + 2,
        |point, context| {
            let before = revision(&realm, context);
            let verb = verbs.next().unwrap();
            let args = [verb, "hello", "--via", &via];
            let first = printed(below(&realm.command(), point).args(args));
            let killed = was_killed(&first, context);
            let said = first.stderr.contains("durable on");
            // Whatever became of it, the next one is taken: what was signed is handed in before.
            let verb = verbs.next().unwrap();
            let next = realm.run(&[verb, "hello", "--via", &via]);
            assert_eq!(next.code, 0, "{context}: {}", next.stderr);
            let made = revision(&realm, context) - before;
            // One that was not signed leaves nothing to change for its opposite.
            let expected = if said { 2..=2 } else { 0..=2 };
            assert!(expected.contains(&made) && made != 1, "{context}: {made}");
            killed
        },
    );
    assert!(points > 6, "{points} are too few to mean much");
    realm.ok(&["history", "verify", "--via", &via]);
    // What was kept for a second node is forgotten once it has it.
    realm.wait_status("one", "both are as far", |status| {
        let nodes = status["nodes"].as_array().unwrap();
        nodes.iter().all(|node| node["state"] == "ready")
    });
}

#[test]
fn a_rotation_that_was_killed_is_finished_by_running_it_again() {
    if missing() {
        return;
    }
    let mut realm = cluster();
    realm.add_node("one", &[]);
    realm.wait_ready("one");
    let via = realm.address("one");
    realm.ok(&["push", "hello", &guest("hello.wasm"), "--via", &via]);
    let key = realm.path().join("config/owner.key");
    let mut verbs = ["stop", "start"].into_iter().cycle();
    let points = at_every_call(
        &CALLS,
        |nth| nth + 2,
        |point, context| {
            let rotate = ["key", "rotate", "--yes", "--via", &via];
            let first = printed(below(&realm.command(), point).args(rotate));
            let killed = was_killed(&first, context);
            // There is a key at any moment, and what lies beside it is its own public half.
            assert!(key.exists(), "{context}: the key is gone");
            let shown = realm.ok(&["key", "show"]);
            if let Ok(beside) = fs::read_to_string(key.with_extension("pub")) {
                fs::remove_file(key.with_extension("pub")).unwrap();
                assert_eq!(realm.ok(&["key", "show"]), shown, "{context}");
                fs::write(key.with_extension("pub"), beside).unwrap();
            }
            if killed {
                let next = realm.run(&[verbs.next().unwrap(), "hello", "--via", &via]);
                let told = next.stderr.contains("finish it: realm key rotate");
                assert!(next.code == 0 || told, "{context}: {}", next.stderr);
                let again = realm.run(&rotate);
                assert_eq!(again.code, 0, "{context}: {}", again.stderr);
                assert!(!realm.path().join("config/owner-next.key").exists());
                assert!(key.with_extension("pub").exists(), "{context}");
            }
            let next = realm.run(&[verbs.next().unwrap(), "hello", "--via", &via]);
            assert_eq!(next.code, 0, "{context}: {}", next.stderr);
            revision(&realm, context);
            killed
        },
    );
    assert!(points > 10, "{points} are too few to mean much");
    realm.ok(&["history", "verify", "--via", &via]);
}

/// A kill leaves what was written in the page cache; a power cut does not.
#[test]
fn what_a_command_keeps_is_synced_before_it_ends() {
    if missing() {
        return;
    }
    let mut realm = cluster();
    realm.add_node("one", &[]);
    realm.wait_ready("one");
    let via = realm.address("one");
    let token = realm.ok(&["invite", "--quiet", "--name", "two"]);
    let home = realm.path().join("fresh");
    let data = home.join("data").display().to_string();
    let (config, state) = (home.join("new/config"), home.join("new/state"));
    let fresh = [("REALM_CONFIG_DIR", &config), ("REALM_STATE_DIR", &state)];
    for (args, fresh) in [
        (&["init"][..], &fresh[..]),
        (&["enroll", token.trim(), "--data", &data], &[]),
        (&["push", "hello", &guest("hello.wasm"), "--via", &via], &[]),
        (&["stop", "hello", "--via", &via], &[]),
        (&["key", "rotate", "--yes", "--via", &via], &[]),
    ] {
        let trace = realm.path().join("trace");
        let mut command = traced(&realm.command(), &trace);
        let done = printed(command.args(args).envs(fresh.iter().copied()));
        assert_eq!(done.code, 0, "{args:?}: {}", done.stderr);
        let trace = fs::read_to_string(trace).unwrap();
        // Who holds a lock is a courtesy.
        let found = unsafe_names(&trace, realm.path(), &["lock", "mark.lock"]);
        assert!(found.is_empty(), "{args:?}: {found:#?}");
    }
}

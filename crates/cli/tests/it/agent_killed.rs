//! Agents that are killed at a system call that changes what is on disk: they start by themselves, and
//! nothing that was acknowledged is lost.

use std::{collections::BTreeMap, fs, path::Path};

use realm_testkit::{
    Cluster, below,
    strace::{Fault, Point},
    synced::{unsafe_names, whole},
    wait_for,
};

use crate::{
    cluster, guest,
    killed::{CALLS, all_points, at_every_call, missing, printed, revision, was_killed},
};

/// Of the program that is pushed, in bytes.
const PADDING: u32 = 150 * 1024;
/// Intents of one script at most, where all points are asked for, and otherwise.
const INTENTS: [u32; 2] = [50, 12];

/// A program that says hello and ends, with a large section behind it that differs each time.
fn program(realm: &Cluster, seed: u32) -> String {
    let mut module = fs::read(guest("hello.wasm")).unwrap();
    module.push(0);
    let size = PADDING + 1;
    module.extend((0..5).map(|at| {
        let more = if at < 4 { 0x80 } else { 0 };
        ((size >> (7 * at)) & 0x7f) as u8 | more
    }));
    module.push(0);
    module.extend((0..PADDING).map(|at| ((at ^ seed).wrapping_mul(2_654_435_761) >> 24) as u8));
    let path = realm.path().join("program.wasm");
    fs::write(&path, module).unwrap();
    path.display().to_string()
}

/// What a data directory says of who the node is.
fn identity(data: &Path) -> BTreeMap<&'static str, Vec<u8>> {
    let files = ["node.key", "owner.pin", "claim"].into_iter();
    files
        .filter_map(|name| Some((name, fs::read(data.join(name)).ok()?)))
        .collect()
}

#[test]
fn an_enrolment_that_was_killed_is_done_again_as_the_same_node() {
    if missing() {
        return;
    }
    let realm = cluster();
    let token = realm.ok(&["invite", "--quiet", "--name", "one"]);
    let points = at_every_call(
        &CALLS,
        |nth| nth + 1,
        |point, context| {
            let home = tempfile::tempdir().unwrap();
            let data = home.path().join("new/data");
            let path = data.display().to_string();
            let args = ["enroll", token.trim(), "--data", &path];
            let first = printed(below(&realm.command(), point).args(args));
            let killed = was_killed(&first, context);
            let before = identity(&data);
            let again = realm.run(&args);
            let words = format!("{context}: {}{}", again.stdout, again.stderr);
            assert_eq!(again.code, 0, "{words}");
            let after = identity(&data);
            assert_eq!(after.len(), 3, "{words}");
            // The claim may be made again: it is by the same key.
            for name in ["node.key", "owner.pin"] {
                let kept = before.get(name).is_none_or(|bytes| *bytes == after[name]);
                assert!(kept, "{words}: another {name}");
            }
            let left: Vec<_> = fs::read_dir(&data)
                .unwrap()
                .map(|entry| entry.unwrap().file_name())
                .filter(|name| name.to_string_lossy().ends_with(".new"))
                .collect();
            assert!(left.is_empty(), "{words}: {left:?}");
            killed
        },
    );
    assert!(points > 5, "{points} are too few to mean much");
}

/// Pushes a program and has it stopped and started until `victim` is killed; the highest
/// acknowledged revision, and whether the push was.
fn script(realm: &mut Cluster, victim: &str, program: &str) -> (u64, bool) {
    let via = realm.address("one");
    let mut acknowledged = 0;
    let push = ["push", "hello", program, "--via", &via];
    let pushed = realm.run(&push).code == 0;
    let mut verbs = ["stop", "start"].into_iter().cycle();
    let [all, some] = INTENTS;
    for _ in 0..if all_points() { all } else { some } {
        if realm.has_ended(victim) {
            break;
        }
        let done = realm.run(&[verbs.next().unwrap(), "hello", "--via", &via, "-o", "json"]);
        let revision = serde_json::from_str::<serde_json::Value>(&done.stdout);
        if let (0, Ok(answer)) = (done.code, revision) {
            acknowledged = answer["revision"].as_u64().unwrap();
        }
    }
    (acknowledged, pushed)
}

/// Kills the agent of `victim` at calls of one script after the other. All of it: the first start
/// after the kill must be one without a word of a person.
fn killed_at_work(victim: &str, calls: &[&'static str]) {
    if missing() {
        return;
    }
    let mut realm = cluster();
    for name in ["one", "two"] {
        realm.add_node(name, &[]);
    }
    realm.wait_ready("one");
    let via = realm.address("one");
    let mut seed = 0;
    let points = at_every_call(
        calls,
        |nth| 8 * nth + 1,
        |point, context| {
            seed += 1;
            let program = program(&realm, seed);
            assert_eq!(realm.stop(victim), 0, "{context}");
            realm.start_at(victim, point);
            let (acknowledged, pushed) = script(&mut realm, victim, &program);
            // It may also be killed while it stops.
            let killed = realm.has_ended(victim) || realm.stop(victim) != 0;
            realm.start(victim);
            realm.wait_ready("one");
            assert!(revision(&realm, context) >= acknowledged, "{context}");
            // What was pushed is whole, or pushed again; it runs on both.
            if !pushed {
                realm.ok(&["push", "hello", &program, "--via", &via]);
            }
            realm.ok(&["start", "hello", "--via", &via]);
            realm.ok(&["restart", "hello", "--wait", "--via", &via]);
            realm.wait_status(victim, &format!("{context}: both ran it"), |status| {
                status["components"][0]["state"] == "done"
            });
            killed
        },
    );
    assert!(points > 0, "nothing was killed");
    realm.ok(&["history", "verify", "--via", &via]);
    for path in ["blobs", "partial", "."].map(|dir| realm.data(victim).join(dir)) {
        let left = fs::read_dir(&path).unwrap();
        let left = left.map(|entry| entry.unwrap().file_name());
        let left: Vec<_> = left
            .filter(|name| {
                let name = name.to_string_lossy();
                name.ends_with(".new") || name.starts_with("import-")
            })
            .collect();
        assert!(left.is_empty(), "{}: {left:?}", path.display());
    }
}

#[test]
fn an_agent_that_was_killed_at_a_write_loses_nothing_that_it_acknowledged() {
    killed_at_work("one", &["fdatasync", "fsync", "rename", "pwrite64"]);
}

#[test]
fn an_agent_that_was_killed_at_a_pull_goes_on_with_it() {
    killed_at_work("two", &["fsync", "rename", "pwrite64"]);
}

/// What would last if the power went when the agent says that it has stopped.
#[test]
fn what_an_agent_keeps_is_synced_before_it_ends() {
    if missing() {
        return;
    }
    let mut realm = cluster();
    let traces = ["one", "two"].map(|name| (name, realm.path().join(format!("{name}.trace"))));
    for (name, trace) in &traces {
        realm.add_node(name, &[]);
        assert_eq!(realm.stop(name), 0);
        realm.start_traced(name, trace);
    }
    realm.wait_ready("one");
    let via = realm.address("one");
    let push = |name: &str, file: &str, more: &[&str]| {
        let file = if file.contains('/') {
            file
        } else {
            &guest(file)
        };
        realm.ok(&[&["push", name, file, "--via", &via, "--wait"], more].concat());
    };
    push("hello", &program(&realm, 1), &[]);
    push(
        "counter",
        "counter-volume.wasm",
        &["--volume", "data:/data:rw"],
    );
    realm.ok(&["restart", "hello", "--wait", "--via", &via]);
    realm.ok(&["key", "rotate", "--yes", "--via", &via]);
    realm.ok(&["rm", "hello", "--via", &via]);
    for (name, trace) in &traces {
        assert_eq!(realm.stop(name), 0, "{name}");
        let trace = wait_for("strace has written its last", || whole(trace));
        // Who runs is a courtesy; compiled code that was not kept is compiled again.
        let exempt = [
            "lock",
            "agent.json",
            "agent.json.new",
            "compiled",
            "volumes",
        ];
        let found = unsafe_names(&trace, &realm.data(name), &exempt);
        assert!(found.is_empty(), "{name}: {found:#?}");
        for name in ["ledger.redb", "/blobs/"] {
            assert!(trace.contains(name), "the trace has nothing of {name}");
        }
    }
}

/// One call of a file fails: the agent says which, or does without; the next start is as ever.
#[test]
fn a_disk_that_fails_once_at_the_start_is_named() {
    if missing() {
        return;
    }
    let mut realm = cluster();
    realm.add_node("one", &[]);
    realm.wait_ready("one");
    let before = identity(&realm.data("one"));
    for (file, call, error) in [
        ("boot.new", "fsync", "EIO"),
        ("boot.new", "write", "ENOSPC"),
        ("boot.new", "rename", "EIO"),
        ("lock", "ftruncate", "EIO"),
        ("ledger.mark", "pwrite64", "ENOSPC"),
        ("ledger.mark", "fdatasync", "EIO"),
    ] {
        let context = format!("{error} at {call} of {file}");
        assert_eq!(realm.stop("one"), 0, "{context}");
        if file == "ledger.mark" {
            // Without one it is made again from the ledger.
            fs::remove_file(realm.data("one").join(file)).unwrap();
        }
        let path = realm.data("one").join(match file {
            "ledger.mark" => "ledger.mark.new",
            file => file,
        });
        let point = Point {
            call,
            nth: 1,
            path: Some(&path),
            fault: Fault::Error(error),
        };
        let told = realm.log("one").len();
        realm.start_at("one", &point);
        wait_for(&context, || realm.has_ended("one").then_some(()));
        let words = realm.log("one")[told..].to_owned();
        assert!(words.contains("error["), "{context}: {words}");
        let dir = realm.data("one").display().to_string();
        let named = words.contains(&dir) || words.contains("ledger");
        assert!(named, "{context}: {words}");
        realm.start("one");
        realm.wait_ready("one");
        assert_eq!(identity(&realm.data("one")), before, "{context}");
    }
}

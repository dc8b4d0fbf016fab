//! Whoever waits goes on with another node when the one that was asked is gone.

use std::{fs::File, process::Stdio};

use realm_testkit::{Cluster, wait_for};

use crate::{
    KilledAtTheEnd, cluster, guest,
    picture::{component, node},
};

/// A command that follows something, and what it says on standard error.
struct Following {
    process: KilledAtTheEnd,
    said: tempfile::NamedTempFile,
    /// How much of it was heard, in bytes.
    heard: usize,
}

impl Following {
    fn start(realm: &Cluster, args: &[&str]) -> Self {
        Self::start_into(realm, args, Stdio::null())
    }

    fn start_into(realm: &Cluster, args: &[&str], answers: Stdio) -> Self {
        let mut command = realm.command();
        command.args(args).stdout(answers);
        let said = tempfile::NamedTempFile::new().unwrap();
        let errors = File::create(said.path()).unwrap();
        Self {
            process: KilledAtTheEnd(command.stderr(errors).spawn().unwrap()),
            said,
            heard: 0,
        }
    }

    /// A push that waits for a node with a tag that none has yet.
    fn push(realm: &Cluster, timeout: &str) -> Self {
        let ticker = guest("ticker.wasm");
        let one = realm.address("one");
        let mut args = vec!["push", "ticker", &ticker, "--tag", "late", "--via", &one];
        // Who counts lost nodes waits for a place too.
        args.extend(["--wait=all", "--timeout", timeout]);
        let mut waiting = Self::start(realm, &args);
        waiting.hears("ticker  waiting");
        waiting
    }

    /// Waits for a line with these words, after the last one that was heard.
    fn hears(&mut self, words: &str) -> String {
        wait_for(&format!("{words:?}"), || {
            let all = std::fs::read(self.said.path()).unwrap();
            let all = String::from_utf8_lossy(&all);
            let new = all[self.heard..].split_inclusive('\n');
            let mut upto = self.heard;
            for line in new.filter(|line| line.ends_with('\n')) {
                upto += line.len();
                if line.contains(words) {
                    self.heard = upto;
                    return Some(line.to_owned());
                }
            }
            None
        })
    }

    fn code(&mut self) -> Option<i32> {
        self.process.0.wait().unwrap().code()
    }
}

#[test]
fn a_wait_outlives_the_node_that_was_asked() {
    let mut realm = cluster();
    for name in ["one", "two"] {
        realm.add_node(name, &[]);
    }
    realm.wait_ready("one");
    // So that both have the program.
    let (ticker, one) = (guest("ticker.wasm"), realm.address("one"));
    let other = ["push", "other", &ticker, "--wait", "-o", "json"];
    let pushed = realm.ok(&[&other[..], &["--via", &one]].concat());
    let pushed: serde_json::Value = serde_json::from_str(&pushed).unwrap();
    assert_eq!(pushed["durable_on"], 2, "a wait wants two nodes to have it");
    assert_eq!(pushed["durable_of"], 2);
    assert_eq!(pushed["durable_away"], 0);
    // As in all that signs, beside its own name for it.
    assert_eq!(pushed["subject"], "other");
    assert_eq!(pushed["component"], "other");
    let scaled = realm.run(&["scale", "other=1", "--via", &one]);
    assert!(scaled.stderr.contains(" of 2\n"), "{}", scaled.stderr);
    let mut waiting = Following::push(&realm, "60s");
    let mut watching = Following::start(&realm, &["status", "--watch", "--via", &one]);
    let mut logs = Following::start(&realm, &["logs", "--all", "-f", "--via", &one]);
    realm.wait_status("two", "the component", |status| {
        component(status, "ticker")["state"] == "waiting"
    });
    let status = realm.status("two").unwrap();
    let short = |name: &str| -> String {
        let key = node(&status, name)["key"].as_str().unwrap();
        let key: realm_identity::PublicKey = key.parse().unwrap();
        key.short()
    };
    realm.kill("one");
    let gone = format!("{} does not answer any more", short("one"));
    let next = format!("going on with {}", short("two"));
    for command in [&mut waiting, &mut watching] {
        command.hears(&gone);
        command.hears(&next);
    }
    logs.hears("no more lines from one");
    let two = realm.address("two");
    realm.ok(&["nodes", "tag", "two", "late", "--via", &two]);
    waiting.hears("ticker is as asked");
    assert_eq!(waiting.code(), Some(0));
}

#[test]
fn the_wait_for_a_node_goes_on_with_another_one() {
    let mut realm = cluster();
    for name in ["one", "two"] {
        realm.add_node(name, &[]);
    }
    realm.wait_ready("one");
    let (panic, one) = (guest("panic.wasm"), realm.address("one"));
    let ok = |args: &[&str]| realm.ok(&[args, &["--via", &one]].concat());
    // What crashes again and again is never as asked.
    ok(&["push", "crash", &panic, "--node", "two"]);
    ok(&["nodes", "drain", "two"]);
    let undrain = ["nodes", "undrain", "two", "--wait", "--via", &one];
    let mut waiting = Following::start(&realm, &undrain);
    waiting.hears("revision 3");
    realm.kill("one");
    waiting.hears("does not answer any more");
    waiting.hears("going on with");
}

#[test]
fn a_healthy_program_is_not_said_to_fail() {
    let mut realm = cluster();
    realm.add_node("one", &[]);
    realm.wait_ready("one");
    let (ticker, one) = (guest("ticker.wasm"), realm.address("one"));
    let push = ["push", "ticker", &ticker, "--wait", "--via", &one];
    // Whether a picture falls between start and run is chance: each of these is one more.
    let restart = ["restart", "ticker", "--wait", "--via", &one];
    for command in [&push[..], &restart, &restart, &restart] {
        let done = realm.run(command);
        assert!(done.stderr.contains("is as asked"), "{}", done.stderr);
        assert!(!done.stderr.contains("failed"), "{}", done.stderr);
        assert!(!done.stderr.contains("restart 0"), "{}", done.stderr);
    }
}

#[test]
fn a_wait_that_finds_no_node_at_all_says_so() {
    let mut realm = cluster();
    realm.add_node("one", &[]);
    realm.wait_ready("one");
    let mut waiting = Following::push(&realm, "10m");
    realm.kill("one");
    waiting.hears("does not answer any more: looking for another node, for 10s");
    waiting.hears("no node of the realm could be reached within 10s");
    waiting.hears("what was asked for goes on");
    assert_eq!(waiting.code(), Some(7), "long before its time is over");
}

#[test]
fn followed_lines_go_on_when_their_node_is_back() {
    let mut realm = cluster();
    realm.add_node("one", &[]);
    realm.wait_ready("one");
    let (ticker, one) = (guest("ticker.wasm"), realm.address("one"));
    realm.ok(&["push", "ticker", &ticker, "--wait", "--via", &one]);
    let (file, follow) = (
        realm.path().join("lines"),
        ["logs", "ticker", "-f", "--via", &one],
    );
    let answers = std::fs::File::create(&file).unwrap();
    let mut logs = Following::start_into(&realm, &follow, answers.into());
    let lines = || std::fs::read_to_string(&file).unwrap();
    wait_for("the first line", || (!lines().is_empty()).then_some(()));
    realm.kill("one");
    logs.hears("they go on when it is back");
    realm.start("one");
    logs.hears("is back: it was away since 2");
    let before = lines().len();
    wait_for("lines of the new run", || {
        (lines().len() > before).then_some(())
    });
}

#[test]
fn taking_a_node_out_ends_nobody_s_following() {
    let mut realm = cluster();
    for name in ["one", "two"] {
        realm.add_node(name, &[]);
    }
    realm.wait_ready("one");
    let (ticker, one) = (guest("ticker.wasm"), realm.address("one"));
    let push = ["push", "ticker", &ticker, "--node", "one", "--wait"];
    realm.ok(&[&push[..], &["--via", &one]].concat());
    let file = realm.path().join("lines");
    let answers = File::create(&file).unwrap();
    let follow = ["logs", "ticker", "-f", "--node", "one", "--via", &one];
    let mut logs = Following::start_into(&realm, &follow, answers.into());
    let pictures = realm.path().join("pictures");
    let watch = ["status", "--watch", "--via", &one];
    let mut watching =
        Following::start_into(&realm, &watch, File::create(&pictures).unwrap().into());
    let lines = || std::fs::read_to_string(&file).unwrap();
    wait_for("the first line", || (!lines().is_empty()).then_some(()));
    wait_for("the first picture", || {
        let shown = std::fs::metadata(&pictures).unwrap().len();
        (shown > 0).then_some(())
    });
    realm.ok(&["nodes", "revoke", "two", "--yes", "--via", &one]);
    logs.hears("is back: it was away since 2");
    watching.hears("going on with");
    let before = lines().len();
    wait_for("lines after that", || {
        (lines().len() > before).then_some(())
    });
}

#[test]
fn a_lost_node_matters_to_the_logs_of_what_it_ran() {
    let mut realm = cluster();
    for name in ["one", "two"] {
        realm.add_node(name, &[]);
    }
    realm.wait_ready("one");
    let (ticker, one) = (guest("ticker.wasm"), realm.address("one"));
    let ok = |args: &[&str]| realm.ok(&[args, &["--via", &one]].concat());
    ok(&["push", "here", &ticker, "--peer", "one", "--wait"]);
    ok(&["push", "both", &ticker, "--wait"]);
    let nothing = realm.run(&["logs", "here", "--previous", "--via", &one]);
    assert_eq!(nothing.code, 0, "{}", nothing.stderr);
    let words = "no lines of a run before the present one of here";
    assert!(nothing.stderr.contains(words), "{}", nothing.stderr);
    realm.kill("two");
    realm.wait_status("one", "two is lost", |status| {
        node(status, "two")["state"] == "lost"
    });
    let here = realm.run(&["logs", "here", "--via", &one]);
    assert_eq!(here.code, 0, "{}", here.stderr);
    assert!(!here.stderr.contains("two"), "{}", here.stderr);
    let both = realm.run(&["logs", "both", "--via", &one]);
    assert_eq!(both.code, 6, "{}", both.stderr);
    assert!(
        both.stderr.contains("no lines from two: it is lost"),
        "{}",
        both.stderr
    );
}

/// Ends with exit code 1 where its volume is empty, and leaves a file there; with the file it stays.
const FAILS_ONCE: &str = r#"(module
  (import "wasi_snapshot_preview1" "path_open"
    (func $open (param i32 i32 i32 i32 i32 i64 i64 i32 i32) (result i32)))
  (import "wasi_snapshot_preview1" "proc_exit" (func $exit (param i32)))
  (import "wasi_snapshot_preview1" "poll_oneoff" (func $poll (param i32 i32 i32 i32) (result i32)))
  (memory (export "memory") 1)
  (data (i32.const 0) "been")
  (func (export "_start")
    ;; Opens the file so that it must be new.
    (if (i32.eqz (call $open (i32.const 3) (i32.const 0) (i32.const 0) (i32.const 4) (i32.const 5)
          (i64.const 64) (i64.const 0) (i32.const 0) (i32.const 16)))
      (then (call $exit (i32.const 1))))
    ;; Sleeps for an hour by the monotonic clock.
    (i32.store (i32.const 80) (i32.const 1))
    (i64.store (i32.const 88) (i64.const 3600000000000))
    (drop (call $poll (i32.const 64) (i32.const 256) (i32.const 1) (i32.const 400)))))"#;

#[test]
fn a_crash_that_is_tried_again_is_waited_for_and_told() {
    let mut realm = cluster();
    realm.add_node("one", &[]);
    realm.wait_ready("one");
    let one = realm.address("one");
    let program = realm.path().join("once.wasm");
    std::fs::write(&program, wat::parse_str(FAILS_ONCE).unwrap()).unwrap();
    let push = ["push", "once", program.to_str().unwrap(), "--via", &one];
    let volume = ["--volume", "data:/data:rw", "--replicas", "1", "--wait"];
    let waited = realm.run(&[&push[..], &volume].concat());
    assert_eq!(waited.code, 0, "{}", waited.stderr);
    let told = "one/once#0 crashed (ended with exit code 1), restart 1";
    assert!(waited.stderr.contains(told), "{}", waited.stderr);
    let status = realm.status("one").unwrap();
    let cell = &component(&status, "once")["cells"][0];
    assert_eq!(cell["restarts"], 1, "{cell}");
    assert_eq!(
        (&cell["crashes"], &cell["restart_at"]),
        (&0.into(), &serde_json::Value::Null)
    );
    let events = realm.ok(&["events", "-o", "json", "--via", &one]);
    let events = events
        .lines()
        .map(|line| serde_json::from_str::<serde_json::Value>(line).unwrap());
    let restarted: Vec<_> = events
        .filter(|event| event["kind"] == "restarted")
        .collect();
    assert_eq!(restarted.len(), 1, "{restarted:?}");
    let said = restarted[0]["message"].as_str().unwrap();
    assert_eq!(restarted[0]["subject"], "once");
    assert!(said.starts_with("once#0 after "), "{said}");
}

#[test]
fn what_keeps_crashing_is_given_up_with_its_reason() {
    let mut realm = cluster();
    realm.add_node("one", &[]);
    realm.wait_ready("one");
    let one = realm.address("one");
    let exit = guest("exit-code.p1.wasm");
    let push = ["push", "bad", &exit, "--arg", "7", "--wait", "--via", &one];
    let given_up = realm.run(&push);
    assert_eq!(given_up.code, 6, "{}", given_up.stderr);
    for words in [
        "one/bad#0 crashed (ended with exit code 7), restart",
        "times in a row without having run for a second",
        "ended with exit code 7",
        "realm logs bad",
    ] {
        assert!(given_up.stderr.contains(words), "{}", given_up.stderr);
    }
    assert!(
        !given_up.stderr.contains("not as asked after"),
        "well before the time is over"
    );
    let status = realm.status("one").unwrap();
    assert_eq!(component(&status, "bad")["state"], "failed");
    let never = realm.run(&[&push[..], &["--restart", "never"]].concat());
    assert_eq!(never.code, 6, "{}", never.stderr);
    assert!(never.stderr.contains("not tried again"), "{}", never.stderr);
}

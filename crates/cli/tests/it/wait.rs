//! Whoever waits goes on with another node when the one that was asked is gone.

use std::{
    io::{BufRead as _, BufReader},
    process::Stdio,
};

use realm_testkit::Cluster;

use crate::{
    KilledAtTheEnd, cluster, guest,
    picture::{component, node},
};

/// A command that follows something, and what it says on standard error.
struct Following {
    process: KilledAtTheEnd,
    said: Box<dyn Iterator<Item = String>>,
}

impl Following {
    fn start(realm: &Cluster, args: &[&str]) -> Self {
        let mut command = realm.command();
        command.args(args).stdout(Stdio::null());
        let mut process = command.stderr(Stdio::piped()).spawn().unwrap();
        let said = BufReader::new(process.stderr.take().unwrap()).lines();
        Self {
            process: KilledAtTheEnd(process),
            said: Box::new(said.map(Result::unwrap)),
        }
    }

    /// A push that waits for a node with a tag that none has yet.
    fn push(realm: &Cluster, timeout: &str) -> Self {
        let ticker = guest("ticker.wasm");
        let one = realm.address("one");
        let mut args = vec!["push", "ticker", &ticker, "--tag", "late", "--via", &one];
        args.extend(["--wait", "--timeout", timeout]);
        let mut waiting = Self::start(realm, &args);
        waiting.hears("ticker  waiting");
        waiting
    }

    fn hears(&mut self, words: &str) -> String {
        let mut all = Vec::new();
        for line in self.said.by_ref() {
            if line.contains(words) {
                return line;
            }
            all.push(line);
        }
        panic!("it ended without {words:?}: {all:#?}");
    }

    fn code(&mut self) -> Option<i32> {
        // A full pipe would hold it up.
        self.said.by_ref().for_each(drop);
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
    logs.hears(&format!("no more lines from {}", short("one")));
    let two = realm.address("two");
    realm.ok(&["nodes", "tag", "two", "late", "--via", &two]);
    waiting.hears("ticker is as asked");
    assert_eq!(waiting.code(), Some(0));
}

#[test]
fn a_wait_that_finds_no_node_at_all_says_so() {
    let mut realm = cluster();
    realm.add_node("one", &[]);
    realm.wait_ready("one");
    let mut waiting = Following::push(&realm, "8s");
    realm.kill("one");
    waiting.hears("no other node could be reached");
    assert_eq!(waiting.code(), Some(7));
}

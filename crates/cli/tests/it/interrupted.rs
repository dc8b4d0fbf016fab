//! Ctrl-C: where it is how a command ends nothing is said, elsewhere it is told.

use std::{
    io::{BufRead as _, BufReader},
    process::{Child, Command, ExitStatus, Stdio},
};

use realm_testkit::Cluster;

use crate::{cluster, guest};

fn spawn(realm: &Cluster, args: &[&str]) -> Child {
    let mut command = realm.command();
    let command = command.args(args).stdout(Stdio::piped());
    command.stderr(Stdio::piped()).spawn().unwrap()
}

/// Sends SIGINT; how the command ended, and what it said on standard error.
fn interrupt(child: Child) -> (ExitStatus, String) {
    let pid = child.id().to_string();
    let sent = Command::new("kill").args(["-s", "INT", &pid]).status();
    assert!(sent.unwrap().success());
    let output = child.wait_with_output().unwrap();
    let words = String::from_utf8_lossy(&output.stderr).into_owned();
    (output.status, words)
}

/// Interrupts a command that has begun to write.
fn interrupt_at_work(realm: &Cluster, args: &[&str]) {
    let mut child = spawn(realm, args);
    let mut first = String::new();
    let mut stdout = BufReader::new(child.stdout.take().unwrap());
    stdout.read_line(&mut first).unwrap();
    assert_ne!(first, "", "{args:?} writes until it is interrupted");
    let (status, words) = interrupt(child);
    assert_eq!(status.code(), Some(130), "{args:?}: {words}");
    assert!(!words.contains("interrupted"), "{args:?}: {words}");
    assert!(!words.contains("error"), "{args:?}: {words}");
}

#[test]
fn what_goes_on_until_ctrl_c_ends_without_a_word() {
    let mut realm = cluster();
    realm.add_node("one", &[]);
    realm.wait_ready("one");
    let via = realm.address("one");
    let ticker = guest("ticker.wasm");
    realm.ok(&["push", "ticker", &ticker, "--wait", "--via", &via]);
    interrupt_at_work(&realm, &["logs", "ticker", "-f", "--via", &via]);
    interrupt_at_work(&realm, &["events", "-f", "--via", &via]);
    interrupt_at_work(&realm, &["status", "--watch", "--via", &via]);
    interrupt_at_work(&realm, &["run", &ticker]);
    interrupt_at_work(&realm, &["run", &ticker, "-o", "json"]);
}

#[test]
fn what_was_cut_short_is_told() {
    let realm = cluster();
    // A node that takes the connection and says nothing.
    let silent = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let port = silent.local_addr().unwrap().port();
    let via = format!("/ip4/127.0.0.1/tcp/{port}");
    let status = spawn(&realm, &["status", "--via", &via]);
    let held = silent.accept().unwrap();
    let (ended, words) = interrupt(status);
    drop(held);
    assert_eq!(ended.code(), Some(130), "{words}");
    assert!(words.contains("interrupted"), "{words}");
}

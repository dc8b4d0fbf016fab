//! Mistakes on the command line of `realm agent`, and numbers below 0, each told in its own words.

use std::{fs, os::unix::fs::PermissionsExt as _};

use realm_testkit::{Cluster, Printed};

use crate::{cluster, guest};

/// Starts an agent that must refuse.
fn refused(realm: &Cluster, args: &[&str], code: i32) -> Printed {
    let data = realm.data("refused").display().to_string();
    let mut all = vec!["agent", "--no-mdns", "--http", "127.0.0.1:0"];
    all.extend(["--data", &data]);
    all.extend(args);
    let printed = realm.run(&all);
    assert_eq!(printed.code, code, "{args:?}: {}", printed.stderr);
    assert!(
        !realm.data("refused").exists(),
        "{args:?} began a data directory"
    );
    printed
}

#[test]
fn what_an_agent_cannot_be_started_with_is_a_mistake_of_the_command_line() {
    let realm = cluster();
    let hello = guest("hello.wasm");
    for (args, words) in [
        (&["--listen", "foo"][..], "\"foo\" is not an address"),
        (&["--listen", "/ip4/127.0.0.1"], "/tcp/PORT"),
        (&["--listen", "/dns4/a.example/tcp/1"], "IP address"),
        (&["--bootstrap", "foo"], "\"foo\" is not an address"),
        (&["--enroll", "foo"], "realm invite"),
        (&["--trust-first-use", "0s"], "24h at most"),
        (&["--trust-first-use", "25h"], "24h at most"),
        // The default's own value counts as given.
        (&["--memory-max-mb", "64"], "--wasm FILE"),
        (&["--fuel", "0"], "--wasm FILE"),
        (&["--fuel-per-sec", "0"], "--wasm FILE"),
        (&["--epoch-ms", "100"], "--wasm FILE"),
        (&["--deadline-ms", "5"], "--wasm FILE"),
        (&["--wasm", &hello, "--memory-max-mb", "0"], "memory"),
    ] {
        let told = refused(&realm, args, 2).stderr;
        assert!(told.starts_with("error[usage]: "), "{args:?}: {told}");
        assert!(told.contains(words), "{args:?}: {told}");
    }
}

#[test]
fn an_agent_starts_with_no_program_that_cannot_run() {
    let realm = cluster();
    let missing = refused(&realm, &["--wasm", "/nonexistent.wasm"], 5).stderr;
    assert!(missing.starts_with("error[not-found]: "), "{missing}");
    let library = refused(&realm, &["--wasm", &guest("adder.wasm")], 2).stderr;
    assert!(library.contains("is a library"), "{library}");
    let text = realm.path().join("text").display().to_string();
    fs::write(&text, "hello").unwrap();
    let text = refused(&realm, &["--wasm", &text], 2).stderr;
    assert!(text.contains("is not WebAssembly"), "{text}");
}

#[test]
fn a_data_directory_of_others_is_told_with_the_way_out() {
    let realm = cluster();
    let shared = realm.path().join("shared");
    fs::create_dir(&shared).unwrap();
    fs::set_permissions(&shared, fs::Permissions::from_mode(0o1777)).unwrap();
    let data = shared.display().to_string();
    let refused = realm.run(&["agent", "--no-mdns", "--data", &data]);
    assert_eq!(refused.code, 1, "{}", refused.stderr);
    let help = format!("chmod 700 {data}");
    assert!(refused.stderr.contains(&help), "{}", refused.stderr);
}

#[test]
fn a_number_below_0_is_refused_as_a_number() {
    let realm = cluster();
    let hello = guest("hello.wasm");
    for (args, words) in [
        (
            &["push", "hello", &hello, "--replicas", "-1"][..],
            "a number from 0 on, or each",
        ),
        (&["push", "hello", &hello, "--fuel", "-1"], "invalid digit"),
        (
            &["run", &hello, "--memory-max-mb", "-1"],
            "-1 is not in 0..=4294967295",
        ),
        (&["events", "--tail", "-3"], "invalid digit"),
        (&["logs", "hello", "--tail", "-3"], "invalid digit"),
    ] {
        let refused = realm.run(args);
        assert_eq!(refused.code, 2, "{}", refused.stderr);
        assert!(refused.stderr.contains(words), "{}", refused.stderr);
        assert!(!refused.stderr.contains("tip:"), "{}", refused.stderr);
    }
}

#[test]
fn a_directory_that_is_not_an_agents_is_refused_before_anything_changes() {
    let realm = cluster();
    let etc = realm.path().join("etc");
    fs::create_dir(&etc).unwrap();
    fs::write(etc.join("passwd"), "root").unwrap();
    fs::set_permissions(&etc, fs::Permissions::from_mode(0o755)).unwrap();
    let data = etc.display().to_string();
    for args in [
        &["agent", "--no-mdns", "--data", &data][..],
        &["leave", "--yes", "--data", &data],
    ] {
        let refused = realm.run(args);
        assert_eq!(refused.code, 1, "{args:?}: {}", refused.stderr);
        for words in [
            "is no data directory of an agent",
            "it has passwd",
            "choose another",
        ] {
            assert!(
                refused.stderr.contains(words),
                "{args:?}: {}",
                refused.stderr
            );
        }
    }
    let mode = etc.metadata().unwrap().permissions().mode() & 0o777;
    assert_eq!(mode, 0o755);
    assert_eq!(fs::read_dir(&etc).unwrap().count(), 1);
}

//! What programs write to harm whoever reads it, as the agent's HTTP endpoint hands it on.

use std::time::{Duration, Instant};

use realm_testkit::{Cluster, wait_for};
use serde_json::Value;

use crate::{
    cluster, guest,
    http::{ask, token},
    page::{counted, http_address},
};

/// Writes empty lines without end: as many of them as its pace allows.
const STORM: &str = r#"(module
  (import "wasi_snapshot_preview1" "fd_write" (func $write (param i32 i32 i32 i32) (result i32)))
  (memory (export "memory") 2)
  (func (export "_start")
    (memory.fill (i32.const 65536) (i32.const 10) (i32.const 65536))
    (i32.store (i32.const 0) (i32.const 65536))
    (i32.store (i32.const 4) (i32.const 65536))
    (loop $again
      (br_if $again (i32.eqz (call $write (i32.const 1) (i32.const 0) (i32.const 1) (i32.const 16)))))))"#;

/// Writes a line of 1 MiB, and one that a terminal would obey.
const NASTY: &str = r#"(module
  (import "wasi_snapshot_preview1" "fd_write" (func $write (param i32 i32 i32 i32) (result i32)))
  (memory (export "memory") 17)
  (data (i32.const 32) "\n\1b[2J\1b]0;owned\07\c2\9b31m\e2\80\ae\0dforged\7f\n")
  (func $say (param $at i32) (param $left i32)
    (loop $more
      (i32.store (i32.const 0) (local.get $at))
      (i32.store (i32.const 4) (local.get $left))
      (if (call $write (i32.const 1) (i32.const 0) (i32.const 1) (i32.const 16)) (then (unreachable)))
      (local.set $at (i32.add (local.get $at) (i32.load (i32.const 16))))
      (local.set $left (i32.sub (local.get $left) (i32.load (i32.const 16))))
      (br_if $more (local.get $left))))
  (func (export "_start")
    (memory.fill (i32.const 65536) (i32.const 121) (i32.const 1048576))
    (call $say (i32.const 65536) (i32.const 1048576))
    (call $say (i32.const 32) (i32.const 32))))"#;
const OBEYED: &str = "\u{1b}[2J\u{1b}]0;owned\u{7}\u{9b}31m\u{202e}\rforged\u{7f}";

/// What a line has at most, in bytes: a longer one goes on in the next.
const LINE_MAX: usize = 16 * 1024;
/// Well within the time for which the agent answers anybody at all.
const SOON: Duration = Duration::from_secs(60);
const SSE: &str = "Accept: text/event-stream";

/// A node that runs this program, with the address and the token of its endpoint.
fn scene(program: &str, flags: &[&str]) -> (Cluster, String, String) {
    let mut realm = cluster();
    realm.add_node("one", &[]);
    realm.wait_ready("one");
    let file = realm.path().join("program.wasm");
    std::fs::write(&file, wat::parse_str(program).unwrap()).unwrap();
    let (file, via) = (file.display().to_string(), realm.address("one"));
    realm.ok(&[&["push", "loud", &file, "--via", &via][..], flags].concat());
    let (address, token) = (http_address(&realm, "one"), token(&realm, "one"));
    (realm, address, token)
}

fn dropped(realm: &Cluster) -> Option<f64> {
    counted(realm, "one", "realm_cell_log_lines_dropped_total", "loud")
}

#[test]
fn an_answer_about_a_program_that_never_stops_writing_ends() {
    let (realm, address, token) = scene(STORM, &["--wait"]);
    let first = wait_for("more than the log holds", || {
        dropped(&realm).filter(|lines| *lines > 0.0)
    });
    for (path, headers, most) in [
        ("/logs?tail=300", &[token.as_str()][..], 300),
        ("/logs?component=loud&tail=5000", &[&token], 5000),
        ("/logs?tail=5000&follow=0", &[&token, SSE], 5000),
    ] {
        let began = Instant::now();
        let (code, body) = ask(&address, path, headers, None);
        let lines = match headers.contains(&SSE) {
            true => body.lines().filter(|line| line.starts_with("id: ")).count(),
            false => body.lines().count(),
        };
        println!("{path}: {lines} lines in {:?}", began.elapsed());
        assert_eq!(code, 200, "{path}");
        assert!(lines <= most, "{path}: {lines} lines");
        assert!(began.elapsed() < SOON, "{path}: {:?}", began.elapsed());
    }
    let began = Instant::now();
    let via = realm.address("one");
    let lines = realm.ok(&["logs", "loud", "--tail", "5000", "--via", &via]);
    let count = lines.lines().count();
    println!("realm logs: {count} lines in {:?}", began.elapsed());
    assert!(count <= 5000, "{count} lines");
    wait_for("more lines have to go", || {
        dropped(&realm).filter(|lines| *lines > first)
    });
}

#[test]
fn the_last_lines_of_a_log_storm_are_as_many_as_were_asked_for() {
    let (realm, address, token) = scene(STORM, &["--no-start"]);
    let (flood, via) = (guest("flood.wasm"), realm.address("one"));
    let push = ["push", "loud", &flood, "--start", "--wait", "--via", &via];
    realm.ok(&push);
    wait_for("more than the log holds", || {
        dropped(&realm).filter(|lines| *lines > 0.0)
    });
    // Of what a slow reader had not taken yet some may have gone meanwhile; never are there more.
    let as_many = |text: &str| {
        let count = text.lines().count();
        assert!(count <= 300, "{count} lines");
        (count == 300).then_some(())
    };
    wait_for("the last 300 lines of the endpoint", || {
        let path = "/logs?component=loud&tail=300";
        as_many(&ask(&address, path, &[&token], None).1)
    });
    wait_for("the last 300 lines of the command", || {
        as_many(&realm.ok(&["logs", "loud", "--tail", "300", "--via", &via]))
    });
}

#[test]
fn what_a_program_writes_is_cut_into_lines_and_obeyed_by_no_terminal() {
    let (realm, address, token) = scene(NASTY, &["--restart", "never", "--wait"]);
    let path = "/logs?component=loud&tail=200&follow=0";
    let text = wait_for("it has written all", || {
        let (_, text) = ask(&address, path, &[&token], None);
        text.contains("forged").then_some(text)
    });
    let (_, events) = ask(&address, path, &[&token, SSE], None);
    for body in [&text, &events] {
        let obeyed = |letter: char| (letter.is_control() && letter != '\n') || letter == '\u{202e}';
        assert!(!body.contains(obeyed), "{:?}", body.lines().last());
    }
    assert!(text.trim_end().ends_with("\\rforged\\u{7f}"));

    let said: Vec<String> = events
        .lines()
        .filter_map(|line| line.strip_prefix("data: "))
        .map(|json| serde_json::from_str::<Value>(json).unwrap())
        .map(|line| line["text"].as_str().unwrap().to_owned())
        .collect();
    assert_eq!(said.len(), text.lines().count());
    // JSON says the same, and nothing is lost of it.
    let (last, long) = said.split_last().unwrap();
    assert_eq!(last, OBEYED);
    let whole = |line: &&String| line.len() == LINE_MAX && line.bytes().all(|byte| byte == b'y');
    let pieces = long.iter().filter(whole).count();
    assert!(
        pieces > 0 && pieces == long.len(),
        "{pieces} of {}",
        long.len()
    );
    // What the log had no room for was counted.
    let dropped = dropped(&realm).unwrap() as usize;
    assert!(dropped > 0);
    assert_eq!((pieces + dropped) * LINE_MAX, 1024 * 1024);
}

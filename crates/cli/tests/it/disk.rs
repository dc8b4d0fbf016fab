//! A disk that is full: nothing is lost, and it goes on when there is room again.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use crate::{cluster, guest, http::ask, page::http_address};

/// A small file system of its own, gone at the end.
pub struct SmallDisk(PathBuf);

impl SmallDisk {
    pub fn mount(path: &Path, mebibytes: u32) -> Option<Self> {
        fs::create_dir_all(path).unwrap();
        let mounted = Command::new("mount")
            .args([
                "-t",
                "tmpfs",
                "-o",
                &format!("size={mebibytes}m,mode=700"),
                "tmpfs",
            ])
            .arg(path)
            .output();
        if mounted.is_ok_and(|output| output.status.success()) {
            return Some(Self(path.to_owned()));
        }
        realm_testkit::skipped("mounting a small file system needs root");
        None
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        // Lazily: an agent that a failing test leaves behind may still be in it.
        let unmounted = Command::new("umount").arg("-l").arg(&self.0).status();
        assert!(unmounted.is_ok_and(|status| status.success()));
    }
}

/// A module that does nothing, and is as large as wanted.
fn large_module(bytes: u32) -> Vec<u8> {
    enlarged(b"\0asm\x01\0\0\0".to_vec(), bytes)
}

/// The same program with so much more that nobody reads.
pub fn enlarged(mut module: Vec<u8>, bytes: u32) -> Vec<u8> {
    // A custom section without a name, its size as five bytes of LEB128.
    module.push(0);
    let size = bytes + 1;
    module.extend((0..5).map(|at| {
        let more = if at < 4 { 0x80 } else { 0 };
        ((size >> (7 * at)) & 0x7f) as u8 | more
    }));
    module.push(0);
    module.extend((0..bytes).map(|at| (at.wrapping_mul(2_654_435_761) >> 24) as u8));
    module
}

#[test]
fn a_full_disk_refuses_with_words_and_loses_nothing() {
    let mut realm = cluster();
    let Some(disk) = SmallDisk::mount(&realm.data("one"), 24) else {
        return;
    };
    realm.add_node("one", &[]);
    realm.wait_ready("one");
    let one = realm.address("one");
    let via = ["--via", one.as_str()];
    let ok = |args: &[&str]| realm.ok(&[args, &via].concat());
    let refused = |args: &[&str]| {
        let refused = realm.run(&[args, &via].concat());
        assert_ne!(refused.code, 0, "{}", refused.stdout);
        let words = refused.stderr.to_lowercase();
        assert!(words.contains("space") || words.contains("disk"), "{words}");
        // Which node it was, where there may be many.
        assert!(refused.stderr.contains(&one), "{}", refused.stderr);
        refused.stderr
    };
    ok(&["push", "ticker", &guest("ticker.wasm"), "--wait"]);

    // More than fits: refused, and what was received is given back.
    let large = realm.path().join("large.wasm");
    fs::write(&large, large_module(40 * 1024 * 1024)).unwrap();
    let words = refused(&["push", "large", large.to_str().unwrap()]);
    for part in [
        "error[limit]: ",
        "free on its disk",
        "help: free space",
        "--via ADDR",
    ] {
        assert!(words.contains(part), "{words}");
    }
    assert!(realm.ok(&["explain", "limit"]).contains("limit (error)"));
    let fits = realm.path().join("fits.wasm");
    fs::write(&fits, large_module(6 * 1024 * 1024)).unwrap();
    ok(&["push", "fits", fits.to_str().unwrap()]);

    // Not a byte left: the log takes nothing, and the agent stays.
    let filler = disk.0.join("filler");
    fill(&filler);
    refused(&["stop", "ticker"]);
    assert_eq!(realm.status("one").unwrap()["revision"], 2);
    fs::remove_file(&filler).unwrap();
    ok(&["stop", "ticker"]);
    assert_eq!(realm.status("one").unwrap()["revision"], 3);

    // The same across a crash while it was full.
    fill(&filler);
    // What it has allotted already it fills first.
    let mut turns = ["start", "stop"].iter().cycle().take(200);
    let last = turns.find_map(|turn| {
        let done = realm.run(&[&[*turn, "ticker"], &via[..]].concat());
        (done.code != 0).then_some(done)
    });
    let words = last.unwrap().stderr.to_lowercase();
    assert!(words.contains("space") || words.contains("disk"), "{words}");
    realm.kill("one");
    // Not one that can start: it says why, and does not go on as if nothing were.
    let data = disk.0.display().to_string();
    let agent = ["agent", "--no-mdns", "--data", &data];
    let ports = ["--listen", "/ip4/127.0.0.1/tcp/0", "--http", "127.0.0.1:0"];
    let full = realm.run(&[&agent[..], &ports].concat());
    assert_eq!(full.code, 1, "{}", full.stderr);
    assert!(full.stderr.contains("No space left"), "{}", full.stderr);
    fs::remove_file(&filler).unwrap();
    realm.start("one");
    let status = realm.wait_status("one", "the log is whole", |status| {
        status["revision"].as_u64() >= Some(3)
    });
    assert_eq!(status["components"].as_array().unwrap().len(), 2);
    assert_eq!(realm.stop("one"), 0);
}

#[test]
fn a_node_whose_disk_is_full_says_so_until_there_is_room() {
    let mut realm = cluster();
    let Some(disk) = SmallDisk::mount(&realm.data("two"), 24) else {
        return;
    };
    realm.add_node("one", &[]);
    realm.add_node("two", &[]);
    realm.wait_ready("two");
    let via = realm.address("one");
    let http = http_address(&realm, "two");
    let ready = || ask(&http, "/readyz", &[], None);
    assert_eq!(ready().0, 200);
    let code = |one: &serde_json::Value| one["code"] == "disk-full";
    let alarmed =
        |status: &serde_json::Value| status["alarms"].as_array().unwrap().iter().any(code);

    let filler = disk.0.join("filler");
    fill(&filler);
    let status = realm.wait_status("one", "the alarm of two", alarmed);
    let two = status["nodes"]
        .as_array()
        .unwrap()
        .iter()
        .find(|node| node["name"] == "two");
    assert!(
        two.unwrap()["problems"]
            .as_array()
            .unwrap()
            .iter()
            .any(code)
    );
    let (unready, why) = ready();
    assert_eq!(unready, 503, "{why}");
    assert!(why.contains("its disk is full"), "{why}");
    let (_, page) = ask(&http, "/metrics", &[], None);
    assert!(
        page.contains("realm_node_problem{code=\"disk-full\",node=\"two\"} 1"),
        "{page}"
    );
    let shown = realm.ok(&["status", "--via", &via]);
    assert!(
        shown.contains("ALARM: two: its disk is full") && shown.contains("ready,disk-full"),
        "{shown}"
    );

    let ticker = guest("ticker.wasm");
    let push = [
        "push",
        "ticker",
        &ticker,
        "--wait",
        "--timeout",
        "5s",
        "--via",
        &via,
    ];
    let late = realm.run(&push);
    assert_eq!(late.code, 6, "{}", late.stderr);
    assert!(
        late.stderr.contains("two: its disk is full"),
        "{}",
        late.stderr
    );
    realm.wait_status("one", "why two does not run it", |status| {
        let drift = status["drift"].as_array().unwrap();
        drift
            .iter()
            .any(|one| one["node"] == "two" && code(&one["reason"]))
    });

    // Whichever answers first: it is signed where it can be written.
    for act in ["stop", "start"] {
        realm.ok(&[act, "ticker"]);
    }

    fs::remove_file(&filler).unwrap();
    realm.ok(&["push", "ticker", &ticker, "--wait", "--via", &via]);
    realm.wait_status("one", "the end of the alarm", |status| !alarmed(status));
    assert_eq!(ready().0, 200);
    let log = realm.log("two");
    assert!(log.contains("recovered"), "{log}");
    assert_eq!(log.matches("nothing is written").count(), 1, "{log}");
}

#[test]
fn a_push_waits_for_a_node_that_has_no_room_for_the_program() {
    let mut realm = cluster();
    let Some(disk) = SmallDisk::mount(&realm.data("two"), 8) else {
        return;
    };
    realm.add_node("one", &[]);
    realm.add_node("two", &[]);
    realm.wait_ready("two");
    let via = realm.address("one");
    let large = realm.path().join("large.wasm");
    fs::write(&large, large_module(12 * 1024 * 1024)).unwrap();
    let push = [
        "push",
        "large",
        large.to_str().unwrap(),
        "--wait",
        "--timeout",
        "8s",
    ];
    let late = realm.run(&[&push[..], &["--via", &via]].concat());
    assert_eq!(late.code, 6, "{}", late.stderr);
    let says = |words: &str| assert!(late.stderr.contains(words), "{}", late.stderr);
    says("not as asked after 8s");
    says("no room for the program: 12 MiB do not fit in the ");
    says("help: free space");
    realm.wait_status("one", "why two does not run it", |status| {
        let drift = status["drift"].as_array().unwrap();
        let text = |one: &serde_json::Value| one["reason"]["message"].to_string();
        drift
            .iter()
            .any(|one| one["node"] == "two" && text(one).contains("12 MiB do not fit"))
    });

    // The node keeps room for its log: it learns what is asked, and runs it.
    realm.ok(&["rm", "large", "--wait", "--via", &via]);
    let ticker = guest("ticker.wasm");
    realm.ok(&["push", "ticker", &ticker, "--wait", "--via", &via]);
    let partial = disk.0.join("partial");
    assert_eq!(fs::read_dir(partial).unwrap().count(), 0);
    let log = realm.log("two");
    assert_eq!(
        log.matches("the ledger was not written").count(),
        0,
        "{log}"
    );
    assert_eq!(log.matches("nothing is written").count(), 0, "{log}");
}

fn fill(path: &Path) {
    let mut file = fs::File::create(path).unwrap();
    let block = [0; 4096];
    while std::io::Write::write_all(&mut file, &block).is_ok() {}
}

#[test]
fn what_was_removed_and_still_runs_behind_a_full_disk_is_in_the_status() {
    let mut realm = cluster();
    let Some(disk) = SmallDisk::mount(&realm.data("two"), 24) else {
        return;
    };
    realm.add_node("one", &[]);
    realm.add_node("two", &[]);
    // Two that have an intent are enough for it.
    realm.add_node("three", &[]);
    realm.wait_ready("two");
    realm.wait_ready("three");
    let via = realm.address("one");
    let via = ["--via", via.as_str()];
    let ticker = guest("ticker.wasm");
    realm.ok(&[&["push", "ticker", &ticker, "--wait"], &via[..]].concat());

    let filler = disk.0.join("filler");
    fill(&filler);
    realm.wait_status("one", "the alarm of two", |status| {
        let alarms = status["alarms"].as_array().unwrap();
        alarms.iter().any(|one| one["code"] == "disk-full")
    });
    let remove = ["rm", "ticker", "--wait", "--timeout", "5s"];
    let late = realm.run(&[&remove, &via[..]].concat());
    assert_eq!(late.code, 6, "{}", late.stderr);
    let lags = "and has not taken revision 2 yet: its disk is full";
    assert!(late.stderr.contains(lags), "{}", late.stderr);
    let status = realm.wait_status("one", "only two runs it", |status| {
        status["drift"].as_array().unwrap().len() == 1
    });
    let row = &status["drift"][0];
    assert_eq!(
        (&row["component"], &row["node"]),
        (&"ticker".into(), &"two".into())
    );
    assert_eq!(
        (&row["want"], &row["have"]),
        (&"stopped".into(), &"running".into())
    );
    assert_eq!(row["reason"]["code"], "behind");
    let shown = realm.ok(&[&["status"], &via[..]].concat());
    assert!(
        shown.contains("drift: 1") && shown.contains("ticker is removed; two: wants stopped"),
        "{shown}"
    );

    fs::remove_file(&filler).unwrap();
    realm.wait_status("one", "it is gone", |status| {
        status["drift"].as_array().unwrap().is_empty()
    });
}

#[test]
fn an_agent_that_has_no_room_to_start_says_so_and_starts_when_it_has() {
    let mut realm = cluster();
    let Some(_disk) = SmallDisk::mount(&realm.data("one"), 8) else {
        return;
    };
    realm.add_node("one", &[]);
    assert_eq!(realm.stop("one"), 0);
    let fill = realm.data("one").join("fill");
    // As much as there is.
    assert!(fs::write(&fill, vec![0; 16 * 1024 * 1024]).is_err());
    let data = realm.data("one").display().to_string();
    let refused = realm.run(&[
        "agent",
        "--no-mdns",
        "--http",
        "127.0.0.1:0",
        "--data",
        &data,
    ]);
    assert_eq!(refused.code, 1, "{}", refused.stderr);
    assert!(
        refused.stderr.contains("help: free space where"),
        "{}",
        refused.stderr
    );
    fs::remove_file(&fill).unwrap();
    realm.start("one");
    realm.wait_ready("one");
}

//! What an agent does at SIGTERM, and what it tells whoever started it.

use std::{os::unix::net::UnixDatagram, path::PathBuf, thread::JoinHandle};

use realm_testkit::PATIENCE;

use crate::{cluster, guest};

/// Waits for a word to the service manager; answers with whether `file` was there when it came.
fn told(
    socket: UnixDatagram,
    word: &'static str,
    file: PathBuf,
) -> JoinHandle<(UnixDatagram, bool)> {
    std::thread::spawn(move || {
        let mut buffer = [0; 1024];
        loop {
            let length = socket.recv(&mut buffer).expect(word);
            let text = std::str::from_utf8(&buffer[..length]).unwrap();
            if text.lines().any(|line| line == word) {
                return (socket, file.exists());
            }
        }
    })
}

#[test]
fn an_agent_says_when_it_is_ready_and_ends_its_cells_before_itself() {
    let mut realm = cluster();
    realm.add_node("one", &[]);
    realm.wait_ready("one");
    let via = realm.address("one");
    let ticker = guest("ticker.wasm");
    realm.ok(&["push", "ticker", &ticker, "--wait", "--via", &via]);
    assert_eq!(realm.stop("one"), 0);

    let path = realm.path().join("notify");
    let socket = UnixDatagram::bind(&path).unwrap();
    socket.set_read_timeout(Some(PATIENCE)).unwrap();
    realm.set_env("one", &[("NOTIFY_SOCKET", path.to_str().unwrap())]);
    let info = realm.data("one").join("agent.json");
    let _ = std::fs::remove_file(&info);
    let ready = told(socket, "READY=1", info.clone());
    realm.start("one");
    let (socket, found) = ready.join().unwrap();
    assert!(found, "who is told that it is ready finds it");
    realm.wait_status("one", "it runs again", |status| {
        status["components"][0]["running"] == 1
    });

    let stopped = "ticker#0 kind=\"stopped\"";
    let before = realm.log("one").matches(stopped).count();
    let stopping = told(socket, "STOPPING=1", info.clone());
    assert_eq!(realm.stop("one"), 0);
    stopping.join().unwrap();
    assert_eq!(realm.log("one").matches(stopped).count(), before + 1);
    assert!(!info.exists(), "nobody looks for an agent that is gone");
    let twins = std::fs::read_dir(realm.path().join("run/realm")).unwrap();
    assert_eq!(twins.count(), 0);
}

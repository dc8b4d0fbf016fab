//! The applications of `examples/`, with the grants that their pages ask for.

use std::{
    io::{Read as _, Write as _},
    net::TcpListener,
    path::Path,
    thread::JoinHandle,
};

use realm_manifest::VolumeMode;
use realm_runtime::{CellConfig, CellHandle, ExitStatus, Flavour, LogRing, Mount, Stdio};

use crate::scene::{PATIENCE, Scene, end, prebuilt, scene, until};

/// Lines of a log that a test looks at.
const LINES: usize = 100;

async fn start(
    scene: &Scene,
    name: &str,
    grant: impl FnOnce(&mut CellConfig),
) -> (CellHandle, LogRing) {
    let prepared = scene
        .runtime
        .prepare(prebuilt(name), Flavour::Epoch)
        .await
        .unwrap();
    let ring = LogRing::new();
    let mut config = CellConfig::new(name, Stdio::Log(ring.clone()));
    grant(&mut config);
    (scene.runtime.start(&prepared, config).unwrap(), ring)
}

fn said(ring: &LogRing) -> Vec<String> {
    let lines = ring.tail(LINES).into_iter();
    lines.map(|line| line.text).collect()
}

/// Starts the counter, waits for two counts, stops it and answers with what it said.
async fn count_twice(scene: &Scene, dir: &Path) -> Vec<String> {
    let (cell, ring) = start(scene, "counter-volume", |config| {
        config.mounts.push(Mount {
            host: dir.to_owned(),
            guest: "/data".to_owned(),
            mode: VolumeMode::Rw,
        });
    })
    .await;
    until(|| said(&ring).len() >= 3).await;
    cell.stop(PATIENCE).await;
    said(&ring)
}

#[tokio::test]
async fn the_counter_goes_on_where_it_was() {
    let scene = scene();
    let volume = tempfile::tempdir().unwrap();
    let first = count_twice(&scene, volume.path()).await;
    assert_eq!(first[..3], ["starting from 0", "count 1", "count 2"]);
    let kept: u64 = std::fs::read_to_string(volume.path().join("count"))
        .unwrap()
        .trim()
        .parse()
        .unwrap();
    assert!(kept >= 2);
    let second = count_twice(&scene, volume.path()).await;
    assert_eq!(second[0], format!("starting from {kept}"));
    assert_eq!(second[1], format!("count {}", kept + 1));
}

#[tokio::test]
async fn the_counter_says_that_it_needs_a_volume() {
    let scene = scene();
    let (cell, ring) = start(&scene, "counter-volume", |_| {}).await;
    assert_eq!(end(&cell).await, ExitStatus::Exited(1));
    let said = said(&ring).join("\n");
    assert!(said.contains("--volume"), "{said}");
}

#[tokio::test]
async fn the_ticker_signs_its_lines() {
    let scene = scene();
    let (cell, ring) = start(&scene, "ticker", |config| {
        config.grants.env = vec![("NAME".to_owned(), "zebra".to_owned())];
    })
    .await;
    until(|| !said(&ring).is_empty()).await;
    cell.stop(PATIENCE).await;
    assert_eq!(said(&ring)[0], "zebra tick 1");
}

/// Answers one request with this status, and hands back the request.
fn serve_once(status: &'static str) -> (u16, JoinHandle<String>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    let server = std::thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        let mut request = Vec::new();
        while !request.ends_with(b"\r\n\r\n") {
            let mut byte = [0];
            stream.read_exact(&mut byte).unwrap();
            request.extend(byte);
        }
        write!(stream, "HTTP/1.1 {status}\r\nContent-Length: 0\r\n\r\n").unwrap();
        String::from_utf8(request).unwrap()
    });
    (port, server)
}

async fn check(port: u16, allow: Option<u16>) -> (ExitStatus, String) {
    let scene = scene();
    let (cell, ring) = start(&scene, "http-check", |config| {
        config.grants.args = vec![format!("http://127.0.0.1:{port}/health")];
        let allowed = allow.map(|port| format!("tcp://127.0.0.1:{port}").parse().unwrap());
        config.grants.allowed_outbound = allowed.into_iter().collect();
    })
    .await;
    let status = end(&cell).await;
    (status, said(&ring).join("\n"))
}

#[tokio::test]
async fn the_check_succeeds_when_the_page_is_there() {
    let (port, server) = serve_once("200 OK");
    let (status, said) = check(port, Some(port)).await;
    assert_eq!(status, ExitStatus::Exited(0), "{said}");
    assert!(said.ends_with("/health: 200"), "{said}");
    let request = server.join().unwrap();
    assert!(request.starts_with("GET /health HTTP/1.1\r\n"), "{request}");
    assert!(request.contains(&format!("Host: 127.0.0.1:{port}\r\n")));
}

#[tokio::test]
async fn the_check_fails_when_the_server_is_unwell() {
    let (port, server) = serve_once("503 Service Unavailable");
    let (status, said) = check(port, Some(port)).await;
    assert_eq!(status, ExitStatus::Exited(1), "{said}");
    assert!(said.ends_with("the server answers 503"), "{said}");
    server.join().unwrap();
}

#[tokio::test]
async fn the_check_reaches_only_what_was_granted() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    listener.set_nonblocking(true).unwrap();
    let port = listener.local_addr().unwrap().port();
    for allow in [None, Some(port ^ 1)] {
        let (status, said) = check(port, allow).await;
        assert_eq!(status, ExitStatus::Exited(1), "{said}");
        assert!(said.contains("is not granted"), "{said}");
    }
    let nobody = listener.accept().unwrap_err();
    assert_eq!(nobody.kind(), std::io::ErrorKind::WouldBlock);
}

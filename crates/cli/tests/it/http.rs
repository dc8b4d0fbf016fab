//! The agent's HTTP endpoints as Prometheus, curl and a browser ask them.

use std::{
    io::{BufRead as _, BufReader, Read as _, Write as _},
    net::TcpStream,
    process::{Command, Stdio},
    time::Duration,
};

use realm_testkit::{Cluster, wait_for};
use serde_json::Value;

use crate::{cluster, debian, guest, page::http_address};

/// Asks, and reads until the agent closes; a stream is read for as long as `lines` says.
pub fn ask(address: &str, path: &str, headers: &[&str], lines: Option<usize>) -> (u16, String) {
    let mut stream = TcpStream::connect(address).unwrap();
    stream
        .set_read_timeout(Some(Duration::from_secs(20)))
        .unwrap();
    let headers: String = headers
        .iter()
        .map(|header| format!("{header}\r\n"))
        .collect();
    // An answer of 1.0 is not in chunks.
    let request = format!("GET {path} HTTP/1.0\r\nHost: localhost\r\n{headers}\r\n");
    stream.write_all(request.as_bytes()).unwrap();
    let mut reader = BufReader::new(stream);
    let mut status = String::new();
    reader.read_line(&mut status).unwrap();
    let code = status.split(' ').nth(1).unwrap().parse().unwrap();
    let mut line = String::new();
    while reader.read_line(&mut line).unwrap() > 2 {
        line.clear();
    }
    let mut body = String::new();
    match lines {
        None => {
            reader.read_to_string(&mut body).unwrap();
        }
        Some(count) => {
            while body.lines().count() < count {
                assert!(reader.read_line(&mut body).unwrap() > 0, "it ended: {body}");
            }
        }
    }
    (code, body)
}

pub fn token(realm: &Cluster, node: &str) -> String {
    let token = std::fs::read_to_string(realm.data(node).join("http.token")).unwrap();
    format!("Authorization: Bearer {}", token.trim())
}

/// One node with a cell that writes a line a second, and one that has met its fuel limit.
fn scene() -> (Cluster, String) {
    let mut realm = cluster();
    realm.add_node("one", &[]);
    realm.wait_ready("one");
    let via = realm.address("one");
    let ticker = guest("ticker.wasm");
    realm.ok(&["push", "ticker", &ticker, "--wait", "--via", &via]);
    let spin = guest("spin.wasm");
    let never = ["--restart", "never", "--fuel", "1000000", "--via", &via];
    realm.ok(&[&["push", "spin", &spin][..], &never].concat());
    realm.wait_status("one", "the limit is met", |status| {
        let components = status["components"].as_array().unwrap();
        components.iter().any(|one| one["state"] == "failed")
    });
    let address = http_address(&realm, "one");
    (realm, address)
}

#[test]
fn prometheus_can_read_what_the_agent_counts() {
    let (_realm, address) = scene();
    let (code, page) = ask(&address, "/metrics", &[], None);
    assert_eq!(code, 200, "{page}");
    let labels = |name: &str, component: &str| {
        format!("{name}{{component=\"{component}\",node=\"one\",replica=\"0\"}} ")
    };
    let value = |start: &str| -> f64 {
        let line = page.lines().find_map(|line| line.strip_prefix(start));
        line.unwrap_or_else(|| panic!("{start}: {page}"))
            .parse()
            .unwrap()
    };
    assert!(value(&labels("fuel_used_total", "spin")) >= 1e6);
    assert!(value(&labels("realm_cell_output_bytes_total", "ticker")) > 0.0);
    assert!(value(&labels("mem_peak_bytes", "ticker")) > 0.0);
    assert!(value(&labels("wasm_exec_time_ms", "spin")) > 0.0);
    let hit = "realm_cell_limit_hits_total{component=\"spin\",limit=\"fuel\",node=\"one\",replica=\"0\"} ";
    assert!(value(hit) >= 1.0);
    for name in [
        "realm_node_ready",
        "realm_revision",
        "realm_node_memory_bytes",
        "realm_node_disk_free_bytes",
    ] {
        assert!(value(&format!("{name}{{node=\"one\"}} ")) >= 1.0, "{name}");
    }

    let Some(promtool) = debian::program("prometheus", "usr/bin/promtool") else {
        return;
    };
    let mut promtool = Command::new(promtool)
        .args(["check", "metrics"])
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    promtool
        .stdin
        .take()
        .unwrap()
        .write_all(page.as_bytes())
        .unwrap();
    let judged = promtool.wait_with_output().unwrap();
    let remarks = String::from_utf8(judged.stderr).unwrap();
    // These names were asked for; their twins in base units are beside them.
    let asked = |remark: &&str| !remark.starts_with("wasm_exec_time_ms ");
    assert_eq!(remarks.lines().find(asked), None, "{remarks}");
}

#[test]
fn logs_are_read_with_the_token_and_streams_go_on_where_they_were() {
    let (realm, address) = scene();
    let (code, refusal) = ask(&address, "/logs", &[], None);
    assert_eq!(code, 401);
    assert!(refusal.contains("http.token"), "{refusal}");
    let token = token(&realm, "one");
    let (code, text) = ask(&address, "/logs?component=ticker&tail=2", &[&token], None);
    assert_eq!((code, text.lines().count()), (200, 2), "{text}");
    assert!(
        text.lines().all(|line| line.contains(" one/ticker#0 out ")),
        "{text}"
    );
    let (_, all) = ask(
        &address,
        "/logs?component=__all__&tail=200",
        &[&token],
        None,
    );
    assert!(all.contains("spin#0"), "{all}");

    let sse = "Accept: text/event-stream";
    let ids = |body: &str| -> Vec<u64> {
        let ids = body.lines().filter_map(|line| line.strip_prefix("id: "));
        ids.map(|id| id.rsplit('-').next().unwrap().parse().unwrap())
            .collect()
    };
    let path = "/logs?component=ticker&tail=1";
    let (_, first) = ask(&address, path, &[&token, sse], Some(9));
    let last = first
        .lines()
        .rfind(|line| line.starts_with("id: "))
        .unwrap();
    let resume = format!("Last-Event-ID: {}", last.trim_start_matches("id: "));
    let (_, next) = ask(&address, path, &[&token, sse, &resume], Some(6));
    assert_eq!(
        ids(&next)[0],
        ids(&first).last().unwrap() + 1,
        "{first}{next}"
    );

    let (code, status) = ask(&address, "/v1/status", &[&token], None);
    let status: Value = serde_json::from_str(&status).unwrap();
    assert_eq!((code, &status["apiVersion"]), (200, &"realm/v1".into()));
    assert_eq!(status["components"].as_array().unwrap().len(), 2);
    let (_, following) = ask(&address, "/v1/events?follow=true", &[&token], Some(1));
    assert!(following.contains("\"seq\":1"), "{following}");
    let (_, events) = ask(&address, "/v1/events", &[&token], None);
    let kinds: Vec<Value> = events
        .lines()
        .map(|line| serde_json::from_str::<Value>(line).unwrap()["kind"].clone())
        .collect();
    for kind in ["joined", "approved", "started", "limited"] {
        assert!(kinds.contains(&kind.into()), "{kind}: {events}");
    }
}

/// One request as it is, and the whole answer with its header.
fn raw(address: &str, request: &str) -> String {
    let mut stream = TcpStream::connect(address).unwrap();
    stream
        .set_read_timeout(Some(Duration::from_secs(20)))
        .unwrap();
    let request = format!("{request}Connection: close\r\nHost: localhost\r\n\r\n");
    stream.write_all(request.as_bytes()).unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    answer
}

#[test]
fn what_the_endpoint_does_not_understand_is_refused_and_says_what_to_do() {
    let (realm, address) = scene();
    let token = token(&realm, "one");
    for (path, code, words) in [
        ("/logs?component=", 400, "leave it out for all"),
        ("/logs?component=nobody", 404, "no component \"nobody\""),
        ("/logs?follow=yes", 400, "write 1 or true, 0 or false"),
        ("/logs?follow=2", 400, "write 1 or true, 0 or false"),
        ("/logs?previous=no", 400, "write 1 or true, 0 or false"),
        ("/logs?tail=x", 400, "tail"),
        ("/logs?colour=red", 400, "colour"),
        ("/logs?previous=1&follow=1", 400, "without follow"),
        ("/v1/events?follow=on", 400, "write 1 or true, 0 or false"),
        ("/v1/nothing", 404, "/v1/status"),
    ] {
        let (answer, body) = ask(&address, path, &[&token], None);
        assert_eq!(answer, code, "{path}: {body}");
        assert!(body.contains(words), "{path}: {body}");
        assert!(body.ends_with('\n'), "{path}: {body:?}");
    }
    // These answers end by themselves.
    let sse = "Accept: text/event-stream";
    for path in [
        "/logs?component=ticker&follow=0",
        "/logs?component=ticker&follow=false",
        "/logs?component=spin&previous=1",
        "/v1/events?follow=0",
    ] {
        let (code, body) = ask(&address, path, &[&token, sse], None);
        assert_eq!(code, 200, "{path}: {body}");
    }
    let lower = token.replace("Bearer", "bearer");
    assert_eq!(ask(&address, "/logs", &[&lower], None).0, 200);

    let (code, body) = ask(&address, "/nothing", &[], None);
    assert_eq!(code, 404, "{body}");
    let refused = raw(&address, "GET /logs HTTP/1.1\r\n");
    assert!(refused.starts_with("HTTP/1.1 401 "), "{refused}");
    assert!(
        refused.to_lowercase().contains("www-authenticate: bearer"),
        "{refused}"
    );
    for path in ["/metrics", "/healthz", "/logs"] {
        let wrong = raw(
            &address,
            &format!("POST {path} HTTP/1.1\r\n{token}\r\nContent-Length: 0\r\n"),
        );
        assert!(wrong.starts_with("HTTP/1.1 405 "), "{path}: {wrong}");
        let header = wrong.to_lowercase();
        assert!(
            header.contains("\r\nallow: get,head\r\n"),
            "{path}: {wrong}"
        );
        assert!(wrong.contains("use GET"), "{path}: {wrong}");
    }
}

#[test]
fn an_open_endpoint_needs_no_token() {
    let mut realm = cluster();
    realm.add_node_with("one", &[], &["--http-open"]);
    realm.wait_ready("one");
    let address = http_address(&realm, "one");
    wait_for("the status", || {
        let (code, _) = ask(&address, "/v1/status", &[], None);
        (code == 200).then_some(())
    });
    assert_eq!(ask(&address, "/logs", &[], None).0, 200);
}

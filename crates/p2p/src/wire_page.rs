//! Compares `docs/protocols/wire.md` with the code.

use std::{collections::BTreeMap, time::Duration};

use realm_identity::Hash;

use crate::{NetLimits, Topic, behaviour, blob, frames, gossip, handshakes, rpc, transport};

const PAGE: &str = include_str!("../../../docs/protocols/wire.md");

const SECTION: &str = "## Numbers of the transport";

fn bytes(count: u64) -> String {
    const KIB: u64 = 1024;
    match count {
        _ if count.is_multiple_of(KIB * KIB) => format!("{} MiB", count / KIB / KIB),
        _ if count.is_multiple_of(KIB) => format!("{} KiB", count / KIB),
        _ => count.to_string(),
    }
}

fn time(time: Duration) -> String {
    match time.subsec_millis() {
        0 => format!("{} s", time.as_secs()),
        _ => format!("{} ms", time.as_millis()),
    }
}

fn constants() -> Vec<(&'static str, String)> {
    let realm = Hash::of(b"a realm");
    let named = |name: &str| name.replace(&realm.to_string(), "\\<realm id\\>");
    let topics = gossip::Topics::new(realm);
    let kademlia = behaviour::kad_protocol(realm).expect("a name");
    vec![
        ("frames::PROTOCOL", frames::PROTOCOL.to_string()),
        ("blob::PROTOCOL", blob::PROTOCOL.to_string()),
        ("rpc::PROTOCOL", rpc::PROTOCOL.to_string()),
        ("kademlia", named(kademlia.as_ref())),
        (
            "topic heads",
            named(&topics.topic(Topic::Heads).to_string()),
        ),
        (
            "topic status",
            named(&topics.topic(Topic::Status).to_string()),
        ),
        ("gossip::MESSAGE_MAX", bytes(gossip::MESSAGE_MAX as u64)),
        (
            "gossip::TOPICS_PER_PEER",
            gossip::TOPICS_PER_PEER.to_string(),
        ),
        ("blob::REQUEST", blob::REQUEST.to_string()),
        ("blob::RANGE_MAX", bytes(blob::RANGE_MAX.into())),
        ("blob::ANSWER_MAX", bytes(blob::ANSWER_MAX as u64)),
        ("blob::ANSWER_TIME", time(blob::ANSWER_TIME)),
        ("blob::SPEED_MIN", bytes(blob::SPEED_MIN)),
        ("blob::SPEED_GRACE", time(blob::SPEED_GRACE)),
        ("blob::SILENCE_MAX", time(blob::SILENCE_MAX)),
        ("transport::HANDSHAKE", time(transport::HANDSHAKE)),
        ("handshakes::BURST", handshakes::BURST.to_string()),
        ("handshakes::BURST_TIME", time(handshakes::BURST_TIME)),
        (
            "transport::QUIC_STREAM_WINDOW",
            bytes(transport::QUIC_STREAM_WINDOW.into()),
        ),
        (
            "transport::QUIC_CONNECTION_WINDOW",
            bytes(transport::QUIC_CONNECTION_WINDOW.into()),
        ),
        (
            "behaviour::RELAY_CIRCUITS",
            behaviour::RELAY_CIRCUITS.to_string(),
        ),
        (
            "behaviour::RELAY_CIRCUIT_BYTES",
            bytes(behaviour::RELAY_CIRCUIT_BYTES),
        ),
        (
            "behaviour::RELAY_CIRCUIT_TIME",
            time(behaviour::RELAY_CIRCUIT_TIME),
        ),
        (
            "behaviour::RELAY_CIRCUITS_PER_PEER",
            behaviour::RELAY_CIRCUITS_PER_PEER.to_string(),
        ),
        (
            "behaviour::RELAY_PLACES",
            behaviour::RELAY_PLACES.to_string(),
        ),
        (
            "behaviour::RELAY_PLACES_PER_PEER",
            behaviour::RELAY_PLACES_PER_PEER.to_string(),
        ),
        ("behaviour::RELAY_BEGUN", behaviour::RELAY_BEGUN.to_string()),
        (
            "behaviour::RELAY_BEGUN_AGAIN",
            time(behaviour::RELAY_BEGUN_AGAIN),
        ),
    ]
}

/// All of them: a new one does not compile until it is listed.
fn limits() -> Vec<(&'static str, String)> {
    let NetLimits {
        stranger_in,
        stranger_out,
        approved,
        pending_out,
        pending_in,
        per_peer,
        per_approved_peer,
        per_ip,
        streams,
        frame,
        frame_queue,
        frame_queue_bytes,
        frame_bytes_per_peer,
        frame_bytes,
        frame_time,
        request_time,
        rpc_per_peer,
        rpc,
        rpc_per_stranger,
        blobs_per_peer,
        blobs,
        idle,
        heartbeat,
        ping,
        ping_answer,
        probe_after,
        probe_private: _,
    } = NetLimits::default();
    vec![
        ("limits.stranger_in", stranger_in.to_string()),
        ("limits.stranger_out", stranger_out.to_string()),
        ("limits.approved", approved.to_string()),
        ("limits.pending_out", pending_out.to_string()),
        ("limits.pending_in", pending_in.to_string()),
        ("limits.per_peer", per_peer.to_string()),
        ("limits.per_approved_peer", per_approved_peer.to_string()),
        ("limits.per_ip", per_ip.to_string()),
        ("limits.streams", streams.to_string()),
        ("limits.frame", bytes(frame as u64)),
        ("limits.frame_queue", frame_queue.to_string()),
        ("limits.frame_queue_bytes", bytes(frame_queue_bytes as u64)),
        (
            "limits.frame_bytes_per_peer",
            bytes(frame_bytes_per_peer as u64),
        ),
        ("limits.frame_bytes", bytes(frame_bytes as u64)),
        ("limits.frame_time", time(frame_time)),
        ("limits.request_time", time(request_time)),
        ("limits.rpc_per_peer", rpc_per_peer.to_string()),
        ("limits.rpc", rpc.to_string()),
        ("limits.rpc_per_stranger", rpc_per_stranger.to_string()),
        ("limits.blobs_per_peer", blobs_per_peer.to_string()),
        ("limits.blobs", blobs.to_string()),
        ("limits.idle", time(idle)),
        ("limits.heartbeat", time(heartbeat)),
        ("limits.ping", time(ping)),
        ("limits.ping_answer", time(ping_answer)),
        ("limits.probe_after", time(probe_after)),
    ]
}

/// The rows "| `name` | value |" of a section.
fn listed() -> BTreeMap<String, String> {
    let (_, section) = PAGE.split_once(SECTION).expect("the section is there");
    let section = section.split("\n## ").next().unwrap_or_default();
    let row = |line: &str| {
        let mut cells = line.split('|').map(str::trim).skip(1);
        let name = cells.next()?.strip_prefix('`')?.strip_suffix('`')?;
        Some((name.to_owned(), cells.next()?.to_owned()))
    };
    section.lines().filter_map(row).collect()
}

#[test]
fn the_page_has_the_numbers_of_the_code() {
    let code: BTreeMap<_, _> = constants()
        .into_iter()
        .chain(limits())
        .map(|(name, value)| (name.to_owned(), value))
        .collect();
    assert_eq!(listed(), code);
}

#[test]
fn the_page_speaks_of_each_status_by_its_number() {
    for (status, name) in [
        (blob::Status::Ok, "ok"),
        (blob::Status::NotFound, "not found"),
        (blob::Status::Refused, "refused"),
        (blob::Status::Busy, "busy"),
        (blob::Status::BadRequest, "bad request"),
        (blob::Status::Failed, "failed"),
    ] {
        let text = format!("{} {name}", status as u8);
        assert!(PAGE.contains(&text), "{text}");
    }
}

#[test]
fn every_number_that_the_text_names_is_in_the_table() {
    let listed = listed();
    for name in PAGE.split('`').skip(1).step_by(2) {
        let number = name.starts_with("limits.") || name.contains("::") && !name.contains('/');
        assert!(
            !number || listed.contains_key(name) || name.starts_with("limits::"),
            "{name} is not in the table"
        );
    }
}

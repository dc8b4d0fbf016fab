//! What this node knows of its realm, for who asks: signed words, and its own view of the nodes.

use std::collections::BTreeSet;

use realm_identity::PublicKey;
use realm_p2p::PeerInfo;
use realm_rpc::{HeadId, Sighting, Survey, View, status::Link};

use crate::{clock, core::Core};

/// None where this node has no log yet.
pub(crate) fn survey(core: &Core, peers: &[PeerInfo]) -> Option<Survey> {
    core.node.log()?;
    let head = core.node.durable_head();
    let mut keys: BTreeSet<PublicKey> = core.approved.keys().copied().collect();
    keys.extend(core.node.joins().map(|join| join.node));
    keys.extend(core.contested());
    // Their claims say what they were called.
    keys.extend(core.state.iter().flat_map(|state| state.nodes.keys()));
    keys.insert(core.key.public());
    let nodes = keys
        .into_iter()
        .map(|key| (key, sighting(core, key, peers)));
    Some(Survey {
        head: HeadId {
            seq: head.seq,
            hash: head.hash,
        },
        forked: core.forked,
        nodes: nodes.collect(),
    })
}

fn sighting(core: &Core, key: PublicKey, peers: &[PeerInfo]) -> Sighting {
    let seen = core.reports.get(&key);
    let claims = core.claims.iter().filter(|claim| claim.claim.node == key);
    Sighting {
        view: view(core, key, peers.iter().find(|peer| peer.key == key)),
        report: seen.map(|seen| seen.wire.clone()),
        claims: claims.map(|claim| claim.to_wire()).collect(),
    }
}

fn view(core: &Core, key: PublicKey, peer: Option<&PeerInfo>) -> View {
    let seen = core.reports.get(&key);
    let joining = core.node.joins().find(|join| join.node == key);
    let present = core.is_present(&key);
    // The connection of a lost node leads nowhere for now. Others are no members that could be lost.
    let peer = peer.filter(|_| present || !core.approved.contains_key(&key));
    let view = View {
        present,
        settled: core.sight(&key, core.clock.now()).settled,
        twin: core.twins.has(&key, core.clock.now().mono),
        boot_id: core.node.boot_id(key),
        link: peer.map(|peer| match peer.link {
            realm_p2p::Link::Quic => Link::Quic,
            realm_p2p::Link::Tcp => Link::Tcp,
            realm_p2p::Link::Relay => Link::Relay,
        }),
        rtt_micros: peer
            .and_then(|peer| peer.rtt)
            .map(|rtt| u64::try_from(rtt.as_micros()).unwrap_or(u64::MAX)),
        address: peer.and_then(|peer| peer.addresses.first().cloned()),
        last_seen: seen.map(|seen| seen.at),
        name: joining.map(|join| join.name.clone()),
    };
    if key != core.key.public() {
        return view;
    }
    View {
        link: Some(Link::Itself),
        address: core.addresses.first().cloned(),
        last_seen: Some(clock::wall()),
        name: Some(core.reporter.name()),
        ..view
    }
}

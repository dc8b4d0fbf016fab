//! The protocols a node speaks, put together.

use std::{collections::HashSet, num::NonZeroU32, time::Duration};

use libp2p::{
    PeerId, StreamProtocol, autonat, dcutr, identify, identity, kad, mdns, ping, relay,
    swarm::{NetworkBehaviour, behaviour::toggle::Toggle},
};

use realm_identity::RealmId;

use crate::{
    Config, NetLimits, for_approved::ForApproved, gossip, gossip::Gossip, limits, multicast,
    streams,
};

/// Kademlia's answers are hints about addresses, so it stores nothing for anyone.
const KAD_RECORDS: usize = 0;
/// Whoever wants a peer's address waits for it.
const KAD_TIME: Duration = Duration::from_secs(10);
/// Relayed connections are for control and hole punching, not for bulk.
pub(crate) const RELAY_CIRCUITS: usize = 64;
/// One peer's part: a command reads the logs of so many nodes through one relay.
pub(crate) const RELAY_CIRCUITS_PER_PEER: usize = 16;
/// A place is held for each node that nobody reaches, anew every so often.
pub(crate) const RELAY_PLACES: usize = 128;
pub(crate) const RELAY_PLACES_PER_PEER: usize = 4;
/// Circuits that machines at one address may begin at once, and how soon they may begin one more:
/// each command of an operator begins its own.
pub(crate) const RELAY_BEGUN: NonZeroU32 = NonZeroU32::new(128).expect("not zero");
pub(crate) const RELAY_BEGUN_AGAIN: Duration = Duration::from_secs(1);
pub(crate) const RELAY_CIRCUIT_BYTES: u64 = 64 * 1024 * 1024;
pub(crate) const RELAY_CIRCUIT_TIME: Duration = Duration::from_secs(30 * 60);

/// Fields are asked in this order whether a connection may be: the bounds come first.
#[derive(NetworkBehaviour)]
pub(crate) struct Behaviour {
    pub limits: limits::Behaviour,
    pub streams: streams::Behaviour,
    pub identify: identify::Behaviour,
    pub ping: ping::Behaviour,
    pub gossip: Gossip,
    pub kad: ForApproved<Kademlia>,
    pub mdns: Toggle<mdns::tokio::Behaviour>,
    /// Beside the other one: a network may give IPv4 addresses later.
    pub mdns_v6: Toggle<mdns::tokio::Behaviour>,
    /// Asks approved peers whether this node can be reached, and answers them the same question.
    pub autonat: ForApproved<autonat::Behaviour>,
    pub relay_client: relay::client::Behaviour,
    /// Serves operators' commands beside approved peers.
    pub relay_server: ForApproved<relay::Behaviour>,
    pub dcutr: dcutr::Behaviour,
}

pub(crate) type Kademlia = kad::Behaviour<kad::store::MemoryStore>;

impl Behaviour {
    /// Returns who was approved before.
    pub fn set_approved(&mut self, approved: HashSet<PeerId>) -> HashSet<PeerId> {
        if let Some(kad) = self.kad.as_mut() {
            for peer in self.limits.approved().difference(&approved) {
                kad.remove_peer(peer);
            }
        }
        self.kad.set_approved(approved.clone());
        self.autonat.set_approved(approved.clone());
        self.relay_server.set_approved(approved.clone());
        self.limits.set_approved(approved)
    }
}

pub(crate) fn build(
    config: &Config,
    keypair: &identity::Keypair,
    relay_client: relay::client::Behaviour,
    served: Vec<StreamProtocol>,
) -> Result<Behaviour, String> {
    let peer = keypair.public().to_peer_id();
    let kademlia = config.realm.map(|realm| kad(realm, peer)).transpose()?;
    let mut relay_server = relay::Behaviour::new(peer, relay_config());
    relay_server.set_status(Some(relay::Status::Disable));
    Ok(Behaviour {
        limits: limits::Behaviour::new(config.limits.clone()),
        streams: streams::Behaviour::new(served),
        identify: identify::Behaviour::new(identify(config, keypair)),
        ping: ping::Behaviour::new(
            ping::Config::new()
                .with_interval(config.limits.ping)
                .with_timeout(config.limits.ping_answer),
        ),
        gossip: gossip::build(config.limits.heartbeat)?,
        kad: ForApproved::new(kademlia),
        mdns: mdns(config.mdns, false, peer).into(),
        mdns_v6: mdns(config.mdns && multicast::leads_nowhere_v4(), true, peer).into(),
        autonat: ForApproved::new(Some(autonat(&config.limits, peer))),
        relay_client,
        relay_server: ForApproved::new(Some(relay_server)),
        dcutr: dcutr::Behaviour::new(peer),
    })
}

fn identify(config: &Config, keypair: &identity::Keypair) -> identify::Config {
    identify::Config::new("/realm/1".to_owned(), keypair.public())
        .with_agent_version(describe(&config.agent_version, config.run, &config.tags))
        .with_push_listen_addr_updates(true)
        // Addresses that strangers claim are not dialled.
        .with_cache_size(0)
}

pub(crate) fn kad_protocol(realm: RealmId) -> Result<StreamProtocol, String> {
    StreamProtocol::try_from_owned(format!("/realm/{realm}/kad/1"))
        .map_err(|error| error.to_string())
}

/// Kademlia of one realm.
pub(crate) fn kad(realm: RealmId, peer: PeerId) -> Result<Kademlia, String> {
    let mut settings = kad::Config::new(kad_protocol(realm)?);
    settings
        .set_record_filtering(kad::StoreInserts::FilterBoth)
        // Only addresses that the task believes are told to others.
        .set_kbucket_inserts(kad::BucketInserts::Manual)
        .disjoint_query_paths(true)
        .set_query_timeout(KAD_TIME)
        .set_publication_interval(None)
        .set_provider_publication_interval(None);
    let store = kad::store::MemoryStore::with_config(
        peer,
        kad::store::MemoryStoreConfig {
            max_records: KAD_RECORDS,
            max_provided_keys: KAD_RECORDS,
            ..Default::default()
        },
    );
    let mut behaviour = kad::Behaviour::with_config(peer, store, settings);
    // Every node answers: in a private network no other node would.
    behaviour.set_mode(Some(kad::Mode::Server));
    Ok(behaviour)
}

fn autonat(limits: &NetLimits, peer: PeerId) -> autonat::Behaviour {
    let config = autonat::Config {
        boot_delay: limits.probe_after,
        only_global_ips: !limits.probe_private,
        ..autonat::Config::default()
    };
    autonat::Behaviour::new(peer, config)
}

/// A machine without multicast still has bootstrap addresses.
fn mdns(wanted: bool, over_ipv6: bool, peer: PeerId) -> Option<mdns::tokio::Behaviour> {
    if !wanted {
        return None;
    }
    multicast::behaviour(over_ipv6, peer)
        .inspect_err(|error| tracing::warn!(%error, "no mDNS: nodes on this network are not found by themselves"))
        .ok()
}

fn relay_config() -> relay::Config {
    relay::Config {
        max_reservations: RELAY_PLACES,
        max_reservations_per_peer: RELAY_PLACES_PER_PEER,
        max_circuits: RELAY_CIRCUITS,
        max_circuits_per_peer: RELAY_CIRCUITS_PER_PEER,
        max_circuit_bytes: RELAY_CIRCUIT_BYTES,
        max_circuit_duration: RELAY_CIRCUIT_TIME,
        circuit_src_rate_limiters: Vec::new(),
        ..relay::Config::default()
    }
    .circuit_src_per_peer(RELAY_BEGUN, RELAY_BEGUN_AGAIN)
    .circuit_src_per_ip(RELAY_BEGUN, RELAY_BEGUN_AGAIN)
}

/// What stands before the run and the tags in identify's one line of text.
const RUN: &str = " run=";
const TAGS: &str = " tags=";
/// Bounds on what a peer says of itself; identify itself stops at 4 KiB.
const VERSION_MAX: usize = 64;
const TAG_MAX: usize = 128;
const TAGS_MAX: usize = 32;

fn describe(version: &str, run: Option<u64>, tags: &[String]) -> String {
    let run = run.map_or_else(String::new, |run| format!("{RUN}{run}"));
    let tags = match tags {
        [] => String::new(),
        tags => format!("{TAGS}{}", tags.join(",")),
    };
    format!("{version}{run}{tags}")
}

/// What a peer says of itself.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Described {
    pub version: String,
    /// Which start of the peer this is; None where it does not say.
    pub run: Option<u64>,
    pub tags: Vec<String>,
}

/// Reads what a peer says of itself: bounded, and without characters that steer a terminal.
pub(crate) fn described(text: &str) -> Described {
    let (text, tags) = text.split_once(TAGS).unwrap_or((text, ""));
    let (version, run) = text.split_once(RUN).unwrap_or((text, ""));
    let clean = |part: &str, max: usize| -> String {
        part.chars()
            .filter(|char| !char.is_control())
            .take(max)
            .collect()
    };
    let tags = tags.split(',').filter(|tag| !tag.is_empty()).take(TAGS_MAX);
    Described {
        version: clean(version, VERSION_MAX),
        run: run.parse().ok(),
        tags: tags.map(|tag| clean(tag, TAG_MAX)).collect(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_described_is_read() {
        let tags = vec!["edge".to_owned(), "zone=eu".to_owned()];
        for (run, tags) in [
            (None, Vec::new()),
            (Some(7), Vec::new()),
            (None, tags.clone()),
            (Some(7), tags),
        ] {
            let version = "realm/1".to_owned();
            let text = describe(&version, run, &tags);
            assert_eq!(described(&text), Described { version, run, tags });
        }
    }

    #[test]
    fn a_hostile_description_is_bounded_and_inert() {
        let text = format!("\u{1b}[2J{}{TAGS}{}", "v".repeat(4000), "x,".repeat(2000));
        let found = described(&text);
        assert!(found.version.starts_with("[2J") && found.version.len() == VERSION_MAX);
        assert_eq!((found.tags.len(), found.run), (TAGS_MAX, None));
    }
}

//! What happens in the swarm.

use libp2p::{
    Multiaddr, PeerId, autonat, gossipsub, identify, kad, mdns, ping,
    swarm::{ConnectionId, SwarmEvent},
};
use realm_identity::PublicKey;
use tokio::time::{Duration, Instant};

use super::{Connection, Flow, Peer, Task};
use crate::{
    GossipId, Link, NetworkEvent, Reachability, Verdict, address,
    behaviour::{BehaviourEvent, Described, described},
    blob, frames, gossip, key, rpc,
    streams::Accepted,
};

/// Listen addresses kept of what one peer tells.
const TOLD_ADDRESSES: usize = 8;

impl Task {
    pub(super) fn on_swarm(&mut self, event: SwarmEvent<BehaviourEvent>) -> Flow {
        match event {
            SwarmEvent::Behaviour(event) => self.on_behaviour(event),
            SwarmEvent::ConnectionEstablished {
                peer_id,
                connection_id,
                endpoint,
                ..
            } => {
                self.on_connected(peer_id, connection_id, &endpoint);
            }
            SwarmEvent::ConnectionClosed {
                peer_id,
                connection_id,
                cause,
                ..
            } => {
                tracing::debug!(%peer_id, ?cause, "connection closed");
                self.on_closed(peer_id, connection_id);
            }
            SwarmEvent::OutgoingConnectionError {
                connection_id,
                peer_id,
                error,
            } => {
                let key = peer_id.and_then(|peer| key::key_of(&peer));
                self.dial_failed(connection_id, key, &error);
            }
            SwarmEvent::NewListenAddr {
                listener_id,
                address,
            } => {
                self.listeners.remove(&listener_id);
                let id = *self.swarm.local_peer_id();
                let address = address.with_p2p(id).unwrap_or_else(|address| address);
                self.tell(NetworkEvent::Listening {
                    address: address.to_string(),
                });
            }
            SwarmEvent::ListenerClosed {
                listener_id,
                reason,
                addresses,
            } => {
                self.listeners.remove(&listener_id);
                let reason = match reason {
                    Ok(()) => "closed".to_owned(),
                    Err(error) => error.to_string(),
                };
                tracing::warn!(reason, ?addresses, "no longer listening");
                self.tell(NetworkEvent::NotListening {
                    addresses: addresses.iter().map(Multiaddr::to_string).collect(),
                    reason,
                });
            }
            SwarmEvent::ListenerError { error, .. } => tracing::warn!(%error, "a listener failed"),
            _ => {}
        }
        Flow::Go
    }

    fn on_connected(
        &mut self,
        id: PeerId,
        connection: ConnectionId,
        endpoint: &libp2p::core::ConnectedPoint,
    ) {
        // The limits let in nobody without a key.
        let Some(key) = key::key_of(&id) else { return };
        let address = address::remote_of(endpoint);
        let link = address::link_of(&address);
        if endpoint.is_dialer() {
            self.book.add(key, address.clone());
        }
        let first = !self.peers.contains_key(&key);
        let peer = self.peers.entry(key).or_insert_with(|| Peer::new(id));
        peer.connections.push(Connection {
            id: connection,
            address,
            dialled: endpoint.is_dialer(),
            link,
            run: None,
            answered: Some(Instant::now()),
        });
        if first {
            let behaviour = self.swarm.behaviour_mut();
            let score = gossip::score(behaviour.limits.is_approved(&id));
            behaviour.gossip.set_application_score(&id, score);
            self.tell(NetworkEvent::PeerConnected { key, link });
        }
        self.dial_done(connection, key, id);
    }

    fn on_closed(&mut self, id: PeerId, connection: ConnectionId) {
        if let Some(key) = key::key_of(&id) {
            self.forget_connection(key, connection);
        }
    }

    /// A connection that is of no more use, whether or not the swarm is done with it.
    pub(super) fn forget_connection(&mut self, key: PublicKey, connection: ConnectionId) {
        let Some(peer) = self.peers.get_mut(&key) else {
            return;
        };
        peer.connections.retain(|open| open.id != connection);
        if !peer.connections.is_empty() {
            return;
        }
        if let Some(reader) = self.peers.remove(&key).and_then(|peer| peer.reader) {
            reader.abort();
        }
        self.tell(NetworkEvent::PeerDisconnected { key });
    }

    fn on_behaviour(&mut self, event: BehaviourEvent) {
        match event {
            BehaviourEvent::Streams(accepted) => self.on_stream(accepted),
            BehaviourEvent::Gossip(event) => self.on_gossip(event),
            BehaviourEvent::Identify(identify::Event::Received {
                connection_id,
                peer_id,
                info,
            }) => self.on_identified(peer_id, connection_id, &info),
            BehaviourEvent::Kad(kad::Event::OutboundQueryProgressed {
                id,
                result: kad::QueryResult::GetClosestPeers(found),
                step,
                ..
            }) if step.last => {
                let peers = match &found {
                    Ok(found) => &found.peers,
                    Err(kad::GetClosestPeersError::Timeout { peers, .. }) => peers,
                };
                self.looked_up(id, peers);
            }
            BehaviourEvent::Ping(event) => self.on_ping(&event),
            BehaviourEvent::Mdns(mdns::Event::Discovered(found))
            | BehaviourEvent::MdnsV6(mdns::Event::Discovered(found)) => self.on_discovered(found),
            BehaviourEvent::Autonat(autonat::Event::StatusChanged { new, .. }) => {
                let reachability = match new {
                    autonat::NatStatus::Public(address) => Reachability::Public {
                        address: address.to_string(),
                    },
                    autonat::NatStatus::Private => Reachability::Private,
                    autonat::NatStatus::Unknown => Reachability::Unknown,
                };
                self.tell(NetworkEvent::Reachability(reachability));
            }
            _ => {}
        }
    }

    /// Streams are handed on at once: whatever takes time is a task.
    fn on_stream(
        &mut self,
        Accepted {
            peer,
            protocol,
            stream,
        }: Accepted,
    ) {
        let Some(key) = key::key_of(&peer).filter(|key| self.peers.contains_key(key)) else {
            return;
        };
        if protocol == frames::PROTOCOL {
            self.read_frames(key, stream);
        } else if protocol == blob::PROTOCOL {
            self.serve_blob(key, stream);
        } else if protocol == rpc::PROTOCOL {
            self.serve_rpc(key, stream);
        }
    }

    fn on_gossip(&mut self, event: gossipsub::Event) {
        let gossipsub::Event::Message {
            propagation_source,
            message_id,
            message,
        } = event
        else {
            return;
        };
        let Some(source) = key::key_of(&propagation_source) else {
            return;
        };
        let id = GossipId {
            message: message_id.0,
            source,
        };
        let topic = self
            .topics
            .as_ref()
            .and_then(|topics| topics.find(&message.topic));
        let event = topic.map(|topic| {
            let (id, bytes) = (id.clone(), message.data.into());
            NetworkEvent::Gossip {
                id,
                source,
                topic,
                bytes,
            }
        });
        let told = event.is_some_and(|event| self.tell_if_calm(event));
        if told {
            self.stats.gossip_in += 1;
        } else {
            self.stats.gossip_dropped += 1;
            self.report_validation(&id, Verdict::Ignore);
        }
    }

    fn on_identified(&mut self, id: PeerId, connection: ConnectionId, info: &identify::Info) {
        let Some(key) = key::key_of(&id) else { return };
        let Described { version, run, tags } = described(&info.agent_version);
        let Some(peer) = self.peers.get_mut(&key) else {
            return;
        };
        let is_restarted = peer.is_restarted(connection, run);
        if let Some(run) = run {
            self.tell(NetworkEvent::Started { key, run });
        }
        let Some(peer) = self.peers.get_mut(&key).filter(|_| !is_restarted) else {
            // What connections were told at their beginning is told once for each peer. So with
            // the dead ones the live one goes too, and everything begins anew.
            tracing::debug!(%id, "it was started anew");
            return self.disconnect(key);
        };
        peer.version = Some(version.clone());
        peer.tags.clone_from(&tags);
        let local = peer
            .connections
            .iter()
            .any(|open| open.link != Link::Relay && is_loopback(&open.address));
        let told = info
            .listen_addrs
            .iter()
            .filter(|address| local || !is_loopback(address));
        peer.told = told.take(TOLD_ADDRESSES).cloned().collect();
        self.believe(key);
        self.tell(NetworkEvent::Identified { key, version, tags });
    }

    /// A stranger could name anybody's address: only approved peers are believed.
    pub(super) fn believe(&mut self, key: PublicKey) {
        let Some(peer) = self.peers.get(&key) else {
            return;
        };
        if !self.swarm.behaviour().limits.is_approved(&peer.id) {
            return;
        }
        for address in peer.told.iter().rev() {
            self.book.add(key, address.clone());
            if let Some(kad) = self.swarm.behaviour_mut().kad.as_mut() {
                kad.add_address(&peer.id, address.clone());
            }
        }
    }

    fn on_ping(&mut self, event: &ping::Event) {
        let Some(key) = key::key_of(&event.peer) else {
            return;
        };
        match &event.result {
            Ok(rtt) => {
                self.answered(key, event.connection, Some(Instant::now()));
                self.on_rtt(key, *rtt);
            }
            Err(ping::Failure::Unsupported) => self.answered(key, event.connection, None),
            // A connection that does not carry a ping carries nothing else.
            Err(error) => {
                tracing::debug!(%key, %error, "closing a connection that no longer answers");
                self.end_connection(key, event.peer, event.connection);
            }
        }
    }

    fn on_rtt(&mut self, key: PublicKey, rtt: Duration) {
        if let Some(peer) = self.peers.get_mut(&key) {
            peer.rtt = Some(rtt);
            self.tell_if_calm(NetworkEvent::Rtt { key, rtt });
        }
    }

    fn on_discovered(&mut self, found: Vec<(PeerId, Multiaddr)>) {
        let mut peers: Vec<(PublicKey, Vec<String>)> = Vec::new();
        for (peer, address) in found {
            let Some(key) = key::key_of(&peer) else {
                continue;
            };
            let address = address
                .with_p2p(peer)
                .unwrap_or_else(|address| address)
                .to_string();
            match peers.iter_mut().find(|(known, _)| *known == key) {
                Some((_, addresses)) => addresses.push(address),
                None => peers.push((key, vec![address])),
            }
        }
        for (key, addresses) in peers {
            self.tell_if_calm(NetworkEvent::Discovered { key, addresses });
        }
    }
}

fn is_loopback(address: &Multiaddr) -> bool {
    address::ip_of(address).is_some_and(|ip| ip.is_loopback())
}

impl Peer {
    fn new(id: PeerId) -> Self {
        Self {
            id,
            connections: Vec::new(),
            rtt: None,
            version: None,
            tags: Vec::new(),
            told: Vec::new(),
            reader: None,
        }
    }
}

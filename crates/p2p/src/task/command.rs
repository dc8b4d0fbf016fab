//! What the handle asks for.

use std::{collections::HashSet, rc::Rc, sync::Arc, time::Duration};

use bytes::Bytes;
use libp2p::{Stream, gossipsub, multiaddr::Protocol, relay};
use realm_identity::{PublicKey, RealmId};
use tokio::{
    sync::{Notify, Semaphore, mpsc, oneshot},
    time::timeout,
};

use super::{
    Done, Flow, Outgoing, QUEUE_FULL, Task, WRITERS_MAX, dial::Waiting, reason::connect_error,
};
use crate::{
    ConnectError, FetchError, GossipId, Link, PeerInfo, PublishError, Stats, Topic, Verdict,
    address, behaviour, blob, frames, gossip,
    gossip::Topics,
    handle::{Command, Fetch},
    key, rpc,
    streams::OpenError,
};

impl Task {
    pub(super) fn on_command(&mut self, command: Command) -> Flow {
        // An answer that nobody waits for any more is dropped.
        match command {
            Command::Send { to, bytes } => self.send_frame(to, bytes),
            Command::Publish {
                topic,
                bytes,
                reply,
            } => {
                drop(reply.send(self.publish(topic, bytes)));
            }
            Command::Report { id, verdict } => self.report_validation(&id, verdict),
            Command::SetRealm { realm } => self.set_realm(realm),
            Command::Dial { address, reply } => self.dial(address, reply),
            Command::Connect { to, reply } => self.with_connection(to, Waiting::Connect(reply)),
            Command::AddAddress { to, address, reply } => {
                let parsed = address::parse(&address).map(|address| self.learn(to, address));
                drop(reply.send(parsed));
            }
            Command::SetApproved { keys } => self.set_approved(&keys),
            Command::SetRelay { serve } => self.set_relay(serve),
            Command::RelayFor { guest, switched } => {
                if let Some(guest) = key::peer_of(&guest) {
                    let relay = &mut self.swarm.behaviour_mut().relay_server;
                    relay.admit(guest, switched);
                }
            }
            Command::DismissGuests => self.swarm.behaviour_mut().relay_server.dismiss_guests(),
            Command::RelayVia { address, reply } => drop(reply.send(self.relay_via(&address))),
            Command::Announce { address, reply } => {
                let parsed = address::parse(&address)
                    .map(|address| self.swarm.add_external_address(address));
                drop(reply.send(parsed));
            }
            Command::ListenAddresses { reply } => drop(reply.send(self.listen_addresses())),
            Command::Peers { reply } => drop(reply.send(self.peer_infos())),
            Command::Stats { reply } => drop(reply.send(self.stats())),
            Command::Disconnect { key } => self.disconnect(key),
            Command::Ban { key, time } => self.ban(key, time),
            Command::Fetch { request, reply } => self.fetch(request, reply),
            Command::OpenRpc { to, reply } => self.open_rpc(to, reply),
            Command::Shutdown => return Flow::Stop,
            #[cfg(test)]
            Command::Panic => panic!("a panic on purpose"),
        }
        Flow::Go
    }

    fn send_frame(&mut self, to: PublicKey, bytes: Bytes) {
        let max = self.limits.frame;
        if bytes.is_empty() || bytes.len() > max {
            let reason = format!("a frame of {} bytes, 1 to {max} are allowed", bytes.len());
            return self.frames_dropped(to, 1, reason);
        }
        if self
            .writers
            .get(&to)
            .is_none_or(|writer| writer.queue.is_closed())
        {
            if self.writers.len() >= WRITERS_MAX {
                return self.frames_dropped(to, 1, "frames wait for too many peers".to_owned());
            }
            self.start_writer(to);
        }
        let Some(writer) = self.writers.get_mut(&to) else {
            return;
        };
        let room = writer
            .room
            .clone()
            .try_acquire_many_owned(bytes.len() as u32);
        let queued = room.ok().map(|permit| frames::Queued {
            frame: bytes,
            _permit: permit,
        });
        if queued.is_some_and(|queued| writer.queue.try_send(queued).is_ok()) {
            self.stats.frames_out += 1;
        } else if writer.full {
            // Told together, at the next tick: an event for each frame would be one more queue.
            writer.dropped += 1;
        } else {
            writer.full = true;
            self.frames_dropped(to, 1, QUEUE_FULL.to_owned());
        }
    }

    fn start_writer(&mut self, to: PublicKey) {
        let (queue, frames) = mpsc::channel(self.limits.frame_queue);
        let room = Arc::new(Semaphore::new(self.limits.frame_queue_bytes));
        let connected = Rc::new(Notify::new());
        let writer = frames::Writer {
            to,
            queue: frames,
            reports: self.report.clone(),
            connected: connected.clone(),
        };
        let task = self.tasks.spawn_local(async move {
            writer.run().await;
            Done::Other
        });
        self.writers.insert(
            to,
            Outgoing {
                queue,
                room,
                connected,
                task,
                full: false,
                dropped: 0,
            },
        );
    }

    fn publish(&mut self, topic: Topic, bytes: Vec<u8>) -> Result<(), PublishError> {
        if bytes.len() > gossip::MESSAGE_MAX {
            return Err(PublishError::TooLarge {
                size: bytes.len(),
                max: gossip::MESSAGE_MAX,
            });
        }
        let topics = self.topics.as_ref().ok_or(PublishError::NoRealm)?;
        let topic = topics.topic(topic).hash();
        match self.swarm.behaviour_mut().gossip.publish(topic, bytes) {
            Ok(_) => Ok(()),
            Err(gossipsub::PublishError::Duplicate) => Err(PublishError::Duplicate),
            Err(gossipsub::PublishError::NoPeersSubscribedToTopic) => Err(PublishError::NoPeers),
            Err(error) => Err(PublishError::Failed(error.to_string())),
        }
    }

    pub(super) fn report_validation(&mut self, id: &GossipId, verdict: Verdict) {
        let Some(source) = key::peer_of(&id.source) else {
            return;
        };
        if verdict == Verdict::Reject {
            self.stats.gossip_rejected += 1;
        }
        let verdict = match verdict {
            Verdict::Accept => gossipsub::MessageAcceptance::Accept,
            Verdict::Ignore => gossipsub::MessageAcceptance::Ignore,
            Verdict::Reject => gossipsub::MessageAcceptance::Reject,
        };
        let message = gossipsub::MessageId::new(&id.message);
        // False: it has left the cache, so it was not forwarded.
        self.swarm
            .behaviour_mut()
            .gossip
            .report_message_validation_result(&message, &source, verdict);
    }

    fn set_realm(&mut self, realm: RealmId) {
        let gossip = &mut self.swarm.behaviour_mut().gossip;
        if self
            .topics
            .as_ref()
            .is_some_and(|topics| topics.realm == realm)
        {
            return;
        }
        if let Some(old) = self.topics.take() {
            old.unsubscribe(gossip);
        }
        let topics = Topics::new(realm);
        match topics.subscribe(gossip) {
            Ok(()) => self.topics = Some(topics),
            Err(error) => tracing::error!(%error, %realm, "cannot subscribe to the realm's gossip"),
        }
        match behaviour::kad(realm, *self.swarm.local_peer_id()) {
            Ok(kad) => self.set_kad(kad),
            Err(error) => tracing::error!(%error, %realm, "no Kademlia: peers are not looked up"),
        }
    }

    /// Open connections speak it from now on; questions under way to an earlier one have no answer.
    fn set_kad(&mut self, kad: behaviour::Kademlia) {
        self.swarm.behaviour_mut().kad.set(kad);
        self.fail_lookups();
        let known: Vec<_> = self.peers.keys().copied().collect();
        for key in known {
            self.believe(key);
        }
    }

    fn set_approved(&mut self, keys: &HashSet<PublicKey>) {
        let approved: HashSet<_> = keys.iter().filter_map(key::peer_of).collect();
        let behaviour = self.swarm.behaviour_mut();
        for peer in self.peers.values() {
            let score = gossip::score(approved.contains(&peer.id));
            behaviour.gossip.set_application_score(&peer.id, score);
        }
        // What the others said was believed when they said it.
        let before = behaviour.set_approved(approved);
        let is_new =
            |key: &&PublicKey| key::peer_of(key).is_some_and(|peer| !before.contains(&peer));
        for key in keys.iter().filter(is_new) {
            self.believe(*key);
        }
    }

    fn set_relay(&mut self, serve: bool) {
        let status = if serve {
            relay::Status::Enable
        } else {
            relay::Status::Disable
        };
        if let Some(relay) = self.swarm.behaviour_mut().relay_server.as_mut() {
            relay.set_status(Some(status));
        }
    }

    fn relay_via(&mut self, text: &str) -> Result<(), ConnectError> {
        let failed = |reason: String| ConnectError::Failed {
            target: text.to_owned(),
            reason,
        };
        let relay = address::parse(text)?;
        if address::peer_of(&relay).is_none() {
            return Err(failed(
                "a relay's address ends in /p2p/ and its id".to_owned(),
            ));
        }
        let listener = relay.with(Protocol::P2pCircuit);
        self.swarm
            .listen_on(listener)
            .map(|_| ())
            .map_err(|error| failed(error.to_string()))
    }

    fn listen_addresses(&self) -> Vec<String> {
        let id = *self.swarm.local_peer_id();
        let mut addresses: Vec<String> = Vec::new();
        for address in self
            .swarm
            .listeners()
            .chain(self.swarm.external_addresses())
        {
            let text = match address.clone().with_p2p(id) {
                Ok(address) => address.to_string(),
                Err(address) => address.to_string(),
            };
            if !addresses.contains(&text) {
                addresses.push(text);
            }
        }
        addresses
    }

    fn peer_infos(&self) -> Vec<PeerInfo> {
        let limits = &self.swarm.behaviour().limits;
        let info = |(key, peer): (&PublicKey, &super::Peer)| PeerInfo {
            key: *key,
            addresses: self.addresses(*key, peer),
            link: peer.link(),
            rtt: peer.rtt,
            version: peer.version.clone(),
            tags: peer.tags.clone(),
            approved: limits.is_approved(&peer.id),
        };
        self.peers.iter().map(info).collect()
    }

    /// Where the peer is reached. What it dialled from is no such address: it listens elsewhere. Where
    /// relays are all there is, the circuit in use names the one that carries the connection.
    fn addresses(&self, key: PublicKey, peer: &super::Peer) -> Vec<String> {
        let mut addresses: Vec<String> = Vec::new();
        let relayed = peer.link() == Link::Relay;
        let open = peer.connections.iter();
        let open = open.filter(|open| open.dialled || relayed);
        let open = open.map(|open| open.address.clone());
        for address in open.chain(self.book.of(&key)) {
            let text = address.to_string();
            if !addresses.contains(&text) {
                addresses.push(text);
            }
        }
        addresses
    }

    fn stats(&self) -> Stats {
        let limits = &self.swarm.behaviour().limits;
        Stats {
            connections: self.peers.values().map(|peer| peer.connections.len()).sum(),
            refused: limits.refused + limits.handshakes.ended(),
            rpc_open: self.rpc_slots.taken() + self.stranger_slots.taken(),
            ..self.stats
        }
    }

    fn ban(&mut self, key: PublicKey, time: Duration) {
        if let Some(peer) = key::peer_of(&key) {
            self.swarm.behaviour_mut().limits.ban(peer, time);
        }
        self.disconnect(key);
    }

    fn fetch(&mut self, request: Fetch, mut reply: oneshot::Sender<Result<Bytes, FetchError>>) {
        let range = blob::Request {
            sha256: request.sha256,
            offset: request.offset,
            len: request.len,
        };
        if !range.is_sound() {
            return drop(reply.send(Err(FetchError::Range {
                max: blob::RANGE_MAX,
            })));
        }
        let (opened, stream) = oneshot::channel();
        let is_connected = self.peers.contains_key(&request.from);
        self.with_connection(
            request.from,
            Waiting::Stream {
                protocol: blob::PROTOCOL,
                reply: opened,
            },
        );
        let fetch = async move {
            // Dialling may take longer than a silent connection is waited for.
            let stream = match is_connected {
                true => blob::unless_silent(stream).await?,
                false => stream.await,
            };
            let stream = stream.map_err(|_| gone())?.map_err(unreachable_peer)?;
            blob::fetch(stream, range).await
        };
        self.tasks.spawn_local(async move {
            tokio::select! {
                // Whoever dropped the request wants no more bytes.
                () = reply.closed() => {}
                fetched = timeout(request.deadline, fetch) => {
                    let fetched = fetched.unwrap_or(Err(FetchError::Deadline(request.deadline)));
                    drop(reply.send(fetched));
                }
            }
            Done::Other
        });
    }

    fn open_rpc(&mut self, to: PublicKey, reply: oneshot::Sender<Result<Stream, ConnectError>>) {
        let (opened, stream) = oneshot::channel();
        self.with_connection(
            to,
            Waiting::Stream {
                protocol: rpc::PROTOCOL,
                reply: opened,
            },
        );
        self.tasks.spawn_local(async move {
            let stream = match stream.await {
                Ok(stream) => stream.map_err(|error| connect_error(to, &error)),
                Err(_) => Err(ConnectError::Failed {
                    target: to.to_string(),
                    reason: "the connection is gone".to_owned(),
                }),
            };
            drop(reply.send(stream));
            Done::Other
        });
    }

    pub(super) fn serve_blob(&mut self, peer: PublicKey, stream: Stream) {
        let slot = self.blob_slots.take(peer);
        let answer = super::blob_answer(self.blobs.as_ref(), peer, slot.is_some());
        match answer {
            Ok(_) => self.stats.blobs_served += 1,
            Err(_) => self.stats.blobs_refused += 1,
        }
        let request_time = self.limits.request_time;
        self.tasks.spawn_local(async move {
            let _slot = slot;
            if let Err(error) = blob::serve(stream, answer, request_time).await {
                tracing::debug!(%peer, %error, "a blob request ended early");
            }
            Done::Other
        });
    }

    pub(super) fn serve_rpc(&mut self, peer: PublicKey, stream: Stream) {
        let Some(server) = self.rpc.clone() else {
            return;
        };
        let approved = self
            .peers
            .get(&peer)
            .is_some_and(|known| self.swarm.behaviour().limits.is_approved(&known.id));
        let slots = if approved {
            &self.rpc_slots
        } else {
            &self.stranger_slots
        };
        let Some(slot) = slots.take(peer) else {
            self.stats.rpc_refused += 1;
            // Whoever opens streams without end would fill this node's log, too: they are counted.
            tracing::debug!(%peer, "too many RPC streams; one is closed at once");
            return;
        };
        self.tasks.spawn_local(async move {
            let sound = rpc::run(server, peer, stream, slot).await;
            Done::Rpc { peer, sound }
        });
    }

    pub(super) fn read_frames(&mut self, from: PublicKey, stream: Stream) {
        let part = self.limits.frame_bytes_per_peer;
        let own = self
            .frame_budgets
            .entry(from)
            .or_insert_with(|| Arc::new(Semaphore::new(part)));
        let reader = frames::Reader {
            from,
            max: self.limits.frame,
            time: self.limits.frame_time,
            own: own.clone(),
            all: self.frame_budget.clone(),
            reports: self.report.clone(),
        };
        let task = self.tasks.spawn_local(async move {
            let result = reader.run(stream).await;
            Done::Frames { from, result }
        });
        // One stream a peer: a new one means that the peer gave up the old one.
        let old = self
            .peers
            .get_mut(&from)
            .and_then(|peer| peer.reader.replace(task));
        if let Some(old) = old {
            old.abort();
        }
    }
}

fn gone() -> FetchError {
    FetchError::Unreachable("the connection is gone".to_owned())
}

fn unreachable_peer(error: OpenError) -> FetchError {
    match error {
        OpenError::Broken(error) => FetchError::Broken(error),
        error => FetchError::Unreachable(error.to_string()),
    }
}

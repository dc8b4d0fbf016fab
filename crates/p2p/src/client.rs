//! A connection to one node for a short-lived command.

mod driver;

use std::{
    collections::{HashMap, VecDeque},
    sync::Arc,
    time::Duration,
};

use futures::StreamExt as _;
use libp2p::{
    Multiaddr, PeerId, Stream, Swarm, mdns,
    multiaddr::Protocol,
    swarm::{self, ConnectionId, DialError, SwarmEvent, dial_opts::DialOpts},
};
use realm_identity::{PublicKey, SecretKey};
use tokio::{
    sync::oneshot,
    time::{Instant, sleep_until, timeout_at},
};

use crate::{
    AddressError, Link, address, key, multicast, rpc, streams::OpenError, task::dial_reason,
    transport,
};
use driver::{Driver, Light};

/// A command needs one stream, and one for each circuit through a relay; the node may open none.
const STREAMS: usize = 64;
/// Addresses dialled at most: a token or a saved list holds fewer.
const ADDRESSES_MAX: usize = 64;
/// Dials at once: as many connections as a node lets one unknown key have.
const ABREAST: usize = 2;
/// One more address is dialled when nothing was heard for this long.
const STAGGER: Duration = Duration::from_millis(250);
/// After the first answer, for others on the same network to answer too.
const DISCOVERY_LINGER: Duration = Duration::from_millis(150);

/// One RPC stream to one node. The connection lasts as long as this value.
#[derive(Debug)]
pub struct RpcConnection {
    /// Authenticated by the transport.
    pub peer: PublicKey,
    /// The address that won.
    pub address: String,
    /// Present until it is taken.
    pub stream: Option<Stream>,
    driver: Arc<Driver>,
}

/// An address that was dialled in vain, and why.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Attempt {
    pub address: String,
    /// Does not name the address again.
    pub reason: String,
}

impl Attempt {
    fn new(address: &Multiaddr, reason: impl Into<String>) -> Self {
        let (address, reason) = (address.to_string(), reason.into());
        Self { address, reason }
    }
}

impl std::fmt::Display for Attempt {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}: {}", self.address, self.reason)
    }
}

fn listed(attempts: &[Attempt]) -> String {
    let attempts: Vec<String> = attempts.iter().map(ToString::to_string).collect();
    attempts.join("; ")
}

#[derive(Debug, thiserror::Error)]
pub enum DialRpcError {
    #[error(transparent)]
    Address(#[from] AddressError),
    #[error("no address to dial")]
    NoAddress,
    /// See [`RpcConnection::through`].
    #[error("it is reached through a relay only")]
    OnlyRelayed,
    /// Each address with what went wrong there.
    #[error("no node answered: {}", listed(attempts))]
    Failed { attempts: Vec<Attempt> },
    /// None of the addresses failed before the time was over.
    #[error("no node answered within {0:?}")]
    Deadline(Duration),
    #[error("{peer} does not serve RPC: {reason}")]
    NoRpc { peer: PublicKey, reason: String },
    #[error("cannot dial: {0}")]
    Settings(String),
}

/// Dials the addresses of one node but those of circuits, two at once, and opens an RPC stream where it
/// answers first, which must be `expect` if given. `secret` is an ephemeral key: who the user is, the RPC
/// proves.
///
/// Runs on the caller's tokio runtime. Dropping it midway closes what was opened.
pub async fn dial_rpc(
    addresses: &[String],
    expect: Option<PublicKey>,
    secret: &SecretKey,
    deadline: Duration,
) -> Result<RpcConnection, DialRpcError> {
    let end = Instant::now() + deadline;
    let mut targets = targets(addresses, expect)?;
    targets.retain(|target| address::link_of(target) != Link::Relay);
    if targets.is_empty() {
        return Err(DialRpcError::OnlyRelayed);
    }
    let mut race = Race::new(secret, targets)?;
    let won = timeout_at(end, race.won(expect)).await;
    let (peer, address, stream) = match won {
        Ok(won) => won?,
        Err(_) => return Err(race.late(deadline)),
    };
    Ok(RpcConnection {
        peer,
        address: address.to_string(),
        stream: Some(stream),
        driver: Driver::start(race.swarm),
    })
}

impl RpcConnection {
    /// Opens an RPC stream to another node through this one, which must relay for us: encrypted and
    /// authenticated from end to end. `circuit` is one of that node's addresses.
    ///
    /// Both connections last until both values are dropped. Dropping it midway gives up the circuit.
    pub async fn through(
        &self,
        circuit: &str,
        node: PublicKey,
        deadline: Duration,
    ) -> Result<Self, DialRpcError> {
        let [target] = &targets(&[circuit.to_owned()], Some(node))?[..] else {
            return Err(DialRpcError::NoAddress);
        };
        let peer = key::peer_of(&node).ok_or(DialRpcError::NoAddress)?;
        let failed = |reason: &dyn std::fmt::Display| DialRpcError::Failed {
            attempts: vec![Attempt::new(target, reason.to_string())],
        };
        if address::Circuit::of(target).map(|circuit| circuit.relay) != key::peer_of(&self.peer) {
            return Err(failed(&"it does not lead through this node"));
        }
        if address::peer_of(target) != Some(peer) {
            return Err(failed(&"it leads to another node"));
        }
        let opened = tokio::time::timeout(deadline, self.driver.open(target.clone(), peer))
            .await
            .map_err(|_| DialRpcError::Deadline(deadline))?;
        let stream = opened.map_err(|error| match error {
            OpenError::Connect(_) | OpenError::NoAddress => failed(&error),
            error => DialRpcError::NoRpc {
                peer: node,
                reason: error.to_string(),
            },
        })?;
        Ok(Self {
            peer: node,
            address: target.to_string(),
            stream: Some(stream),
            driver: self.driver.clone(),
        })
    }
}

fn targets(
    addresses: &[String],
    expect: Option<PublicKey>,
) -> Result<Vec<Multiaddr>, DialRpcError> {
    let expect = expect.and_then(|key| key::peer_of(&key));
    let mut targets = Vec::new();
    for text in addresses.iter().take(ADDRESSES_MAX) {
        let mut address = address::parse(text)?;
        if let (Some(expect), None) = (expect, address::peer_of(&address)) {
            address.push(Protocol::P2p(expect));
        }
        if !targets.contains(&address) {
            targets.push(address);
        }
    }
    if targets.is_empty() {
        Err(DialRpcError::NoAddress)
    } else {
        Ok(targets)
    }
}

/// A light swarm: it dials, opens streams and serves nothing.
struct Race {
    swarm: Swarm<Light>,
    /// Addresses that nobody has dialled yet.
    left: VecDeque<Multiaddr>,
    dials: HashMap<ConnectionId, Multiaddr>,
    /// Connected, and asked for a stream.
    opening: Option<Multiaddr>,
    /// What went wrong, with its address.
    attempts: Vec<Attempt>,
}

impl Race {
    fn new(secret: &SecretKey, targets: Vec<Multiaddr>) -> Result<Self, DialRpcError> {
        let keypair = key::keypair(secret);
        let dns = targets.iter().flatten().any(|part| {
            matches!(
                part,
                Protocol::Dns(_) | Protocol::Dns4(_) | Protocol::Dns6(_) | Protocol::Dnsaddr(_)
            )
        });
        let options = transport::Options {
            streams: STREAMS,
            dns,
        };
        let peer = keypair.public().to_peer_id();
        let (relayed, relay) = libp2p::relay::client::new(peer);
        let transport = transport::build(&keypair, Some(relayed), None, options)
            .map_err(|error| DialRpcError::Settings(error.to_string()))?;
        let settings = swarm::Config::with_tokio_executor()
            // A stream may rest as long as the command that holds it.
            .with_idle_connection_timeout(Duration::from_secs(60));
        let swarm = Swarm::new(transport, Light::new(relay), peer, settings);
        Ok(Self {
            swarm,
            left: targets.into(),
            dials: HashMap::new(),
            opening: None,
            attempts: Vec::new(),
        })
    }

    /// A stream to whoever is connected first, and the address where that was.
    async fn won(
        &mut self,
        expect: Option<PublicKey>,
    ) -> Result<(PublicKey, Multiaddr, Stream), DialRpcError> {
        loop {
            let (peer, key, address) = self.first(expect).await?;
            self.opening = Some(address.clone());
            // A connection that the node took back may have a twin that it kept.
            while self.swarm.is_connected(&peer) {
                match self.open(peer).await {
                    Ok(stream) => return Ok((key, address, stream)),
                    Err(OpenError::Connect(reason)) => {
                        self.attempts.push(Attempt::new(&address, reason));
                    }
                    Err(error) => {
                        let reason = error.to_string();
                        return Err(DialRpcError::NoRpc { peer: key, reason });
                    }
                }
            }
        }
    }

    /// Whoever is connected first. A node lets one key have few connections, so not all addresses
    /// of one are dialled at once: the next one when one failed, or nothing was heard for a while.
    async fn first(
        &mut self,
        expect: Option<PublicKey>,
    ) -> Result<(PeerId, PublicKey, Multiaddr), DialRpcError> {
        let mut next = Instant::now() + STAGGER;
        loop {
            while self.dials.len() < ABREAST && self.dial_next() {}
            if self.dials.is_empty() {
                let attempts = std::mem::take(&mut self.attempts);
                return Err(DialRpcError::Failed { attempts });
            }
            let event = tokio::select! {
                event = self.swarm.select_next_some() => event,
                () = sleep_until(next), if !self.left.is_empty() => {
                    self.dial_next();
                    next += STAGGER;
                    continue;
                }
            };
            match event {
                SwarmEvent::ConnectionEstablished {
                    peer_id,
                    connection_id,
                    ..
                } => {
                    let Some(target) = self.dials.remove(&connection_id) else {
                        continue;
                    };
                    let key = key::key_of(&peer_id);
                    if let Some(key) = key.filter(|key| expect.is_none_or(|expect| *key == expect))
                    {
                        return Ok((peer_id, key, target));
                    }
                    self.attempts
                        .push(Attempt::new(&target, "another node answers there"));
                    self.swarm.close_connection(connection_id);
                }
                SwarmEvent::OutgoingConnectionError {
                    connection_id,
                    error,
                    ..
                } => self.failed(connection_id, &error),
                _ => {}
            }
        }
    }

    /// The time is over: what failed before says more than that.
    fn late(self, deadline: Duration) -> DialRpcError {
        let mut attempts = self.attempts;
        if attempts.is_empty() {
            return DialRpcError::Deadline(deadline);
        }
        let silent = self.dials.into_values();
        for target in silent.chain(self.opening).chain(self.left) {
            let attempt = Attempt::new(&target, format!("no answer within {deadline:?}"));
            if attempts.iter().all(|one| one.address != attempt.address) {
                attempts.push(attempt);
            }
        }
        DialRpcError::Failed { attempts }
    }

    /// Dials one more address; false where none is left.
    fn dial_next(&mut self) -> bool {
        let Some(target) = self.left.pop_front() else {
            return false;
        };
        let opts = DialOpts::unknown_peer_id().address(target.clone()).build();
        let connection = opts.connection_id();
        match self.swarm.dial(opts) {
            Ok(()) => drop(self.dials.insert(connection, target)),
            Err(error) => self
                .attempts
                .push(Attempt::new(&target, dial_reason(&error))),
        }
        true
    }

    fn failed(&mut self, connection: ConnectionId, error: &DialError) {
        if let Some(target) = self.dials.remove(&connection) {
            self.attempts
                .push(Attempt::new(&target, dial_reason(error)));
        }
    }

    async fn open(&mut self, peer: PeerId) -> Result<Stream, OpenError> {
        let (reply, mut opened) = oneshot::channel();
        let streams = &mut self.swarm.behaviour_mut().streams;
        streams.open(peer, rpc::PROTOCOL, reply);
        loop {
            tokio::select! {
                stream = &mut opened => {
                    let gone = || OpenError::Connect("the node closed the connection".to_owned());
                    return stream.map_err(|_| gone())?;
                }
                event = self.swarm.select_next_some() => match event {
                    SwarmEvent::ConnectionEstablished { connection_id, .. } => {
                        self.dials.remove(&connection_id);
                    }
                    SwarmEvent::OutgoingConnectionError { connection_id, error, .. } => {
                        self.failed(connection_id, &error);
                    }
                    _ => {}
                }
            }
        }
    }
}

/// Nodes that answer on the local network: returns soon after the first ones did, or empty after
/// `wait`. Whoever answers there is to be authenticated by dialling it.
pub async fn discover_mdns(wait: Duration) -> Vec<(PublicKey, Vec<String>)> {
    let own = PeerId::random();
    let behaviour = match multicast::behaviour(multicast::leads_nowhere_v4(), own) {
        Ok(behaviour) => behaviour,
        Err(error) => {
            tracing::warn!(%error, "no mDNS on this machine");
            return Vec::new();
        }
    };
    let transport = libp2p::core::transport::dummy::DummyTransport::new();
    let transport = libp2p::Transport::boxed(transport);
    let mut swarm = Swarm::new(
        transport,
        behaviour,
        own,
        swarm::Config::with_tokio_executor(),
    );
    let mut found = HashMap::new();
    let mut end = Instant::now() + wait;
    while let Ok(event) = timeout_at(end, swarm.select_next_some()).await {
        if let SwarmEvent::Behaviour(mdns::Event::Discovered(peers)) = event {
            collect(&mut found, peers);
            end = end.min(Instant::now() + DISCOVERY_LINGER);
        }
    }
    found.into_iter().collect()
}

fn collect(found: &mut HashMap<PublicKey, Vec<String>>, peers: Vec<(PeerId, Multiaddr)>) {
    for (peer, address) in peers.into_iter().take(ADDRESSES_MAX) {
        let Some(key) = key::key_of(&peer) else {
            continue;
        };
        let address = address.with_p2p(peer).unwrap_or_else(|address| address);
        found.entry(key).or_default().push(address.to_string());
    }
}

//! Finding and dialling peers.

use std::time::Duration;

use libp2p::{
    Multiaddr, PeerId, StreamProtocol, kad,
    swarm::{
        ConnectionId, DialError,
        dial_opts::{DialOpts, PeerCondition},
    },
};
use realm_identity::PublicKey;
use tokio::{sync::oneshot, time::Instant};

use super::Task;
use crate::{
    ConnectError, address, key,
    streams::{OpenError, Opened},
};

const BACKOFF_FIRST: Duration = Duration::from_secs(1);
const BACKOFF_LAST: Duration = Duration::from_secs(60);
/// Requests that wait for one connection.
const WAITING_MAX: usize = 256;

/// Peers asked for at once.
const LOOKUPS_MAX: usize = 32;
/// Addresses taken from one answer.
const FOUND_ADDRESSES: usize = 8;

pub(super) type Connected = oneshot::Sender<Result<PublicKey, ConnectError>>;

/// A dial under way.
pub(super) struct Dial {
    /// As the user wrote it.
    pub text: String,
    pub key: Option<PublicKey>,
    pub reply: Option<Connected>,
    /// Whether the realm may still be asked where the peer is.
    unknown: Unknown,
}

/// What is to be done once a peer is connected.
pub(super) enum Waiting {
    Connect(Connected),
    Stream {
        protocol: StreamProtocol,
        reply: Opened,
    },
}

/// What to do about a peer without an address.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Unknown {
    Ask,
    Fail,
}

/// An address that the network keeps a connection to.
pub(super) struct Bootstrap {
    address: Multiaddr,
    /// Who answered there.
    key: Option<PublicKey>,
    dial: Option<ConnectionId>,
    next: Option<Instant>,
    pause: Duration,
}

impl Bootstrap {
    pub fn new(address: Multiaddr) -> Self {
        let key = address::peer_of(&address).and_then(|peer| key::key_of(&peer));
        Self {
            address,
            key,
            dial: None,
            next: None,
            pause: BACKOFF_FIRST,
        }
    }
}

impl Waiting {
    fn fail(self, target: PublicKey, error: &OpenError) {
        // Whoever no longer waits does not need the reason.
        match self {
            Self::Connect(reply) => drop(reply.send(Err(connect_error(target, error)))),
            Self::Stream { reply, .. } => drop(reply.send(Err(again(error)))),
        }
    }
}

impl Task {
    pub(super) fn dial(&mut self, text: String, reply: Connected) {
        let address = match address::parse(&text) {
            Ok(address) => address,
            Err(error) => return drop(reply.send(Err(error.into()))),
        };
        let known = address::peer_of(&address).and_then(|peer| key::key_of(&peer));
        if let Some(known) = known.filter(|known| self.peers.contains_key(known)) {
            return drop(reply.send(Ok(known)));
        }
        let opts = DialOpts::unknown_peer_id().address(address).build();
        let connection = opts.connection_id();
        match self.swarm.dial(opts) {
            Ok(()) => {
                self.dials.insert(
                    connection,
                    Dial {
                        text,
                        key: known,
                        reply: Some(reply),
                        unknown: Unknown::Fail,
                    },
                );
            }
            Err(error) => {
                let error = ConnectError::Failed {
                    target: text,
                    reason: chain(&error),
                };
                drop(reply.send(Err(error)));
            }
        }
    }

    /// Runs `then` on a connection with the peer, which is made if there is none.
    pub(super) fn with_connection(&mut self, to: PublicKey, then: Waiting) {
        if let Some(peer) = self.peers.get(&to) {
            let peer = peer.id;
            return self.connected(to, peer, then);
        }
        let waiting = self.waiting.entry(to).or_default();
        if waiting.len() >= WAITING_MAX {
            return then.fail(
                to,
                &OpenError::Connect("too many requests wait for it".to_owned()),
            );
        }
        waiting.push(then);
        if waiting.len() == 1 {
            self.dial_known(to, Unknown::Ask);
        }
    }

    fn dial_known(&mut self, to: PublicKey, unknown: Unknown) {
        let Some(peer) = key::peer_of(&to) else {
            return self.waiting_failed(to, &OpenError::NoAddress);
        };
        let opts = DialOpts::peer_id(peer)
            // A connection that died may take long to close; it is no reason not to dial.
            .condition(PeerCondition::NotDialing)
            .addresses(self.book.of(&to))
            .extend_addresses_through_behaviour()
            .build();
        let connection = opts.connection_id();
        match self.swarm.dial(opts) {
            Ok(()) => {
                let dial = Dial {
                    text: to.to_string(),
                    key: Some(to),
                    reply: None,
                    unknown,
                };
                self.dials.insert(connection, dial);
            }
            // Somebody else dials it already; the outcome is the same.
            Err(DialError::DialPeerConditionFalse(_)) => {}
            Err(DialError::NoAddresses) => self.not_found(to, unknown, OpenError::NoAddress),
            Err(error) => self.waiting_failed(to, &OpenError::Connect(chain(&error))),
        }
    }

    /// Asks the realm's nodes where a peer is, once; what waits for it goes on waiting meanwhile.
    fn not_found(&mut self, to: PublicKey, unknown: Unknown, error: OpenError) {
        // Without neighbours a query would end at once, with nothing.
        let may_ask = unknown == Unknown::Ask
            && self.lookups.len() < LOOKUPS_MAX
            && !self.peers.is_empty()
            && self.waiting.contains_key(&to);
        let kad = self.swarm.behaviour_mut().kad.as_mut().filter(|_| may_ask);
        match (kad, key::peer_of(&to)) {
            (Some(kad), Some(peer)) => {
                self.lookups
                    .insert(kad.get_closest_peers(peer), (to, error));
            }
            _ => self.waiting_failed(to, &error),
        }
    }

    /// Dials what was found; whoever answers there is authenticated all the same.
    pub(super) fn looked_up(&mut self, query: kad::QueryId, found: &[kad::PeerInfo]) {
        let Some((to, error)) = self.lookups.remove(&query) else {
            return;
        };
        let told = found
            .iter()
            .find(|info| key::key_of(&info.peer_id) == Some(to));
        let addresses = told.map(|info| info.addrs.as_slice()).unwrap_or_default();
        if addresses.is_empty() {
            return self.waiting_failed(to, &error);
        }
        for address in addresses.iter().take(FOUND_ADDRESSES) {
            self.book.add(to, address.clone());
        }
        if self.waiting.contains_key(&to) {
            self.dial_known(to, Unknown::Fail);
        }
    }

    pub(super) fn fail_lookups(&mut self) {
        for (to, error) in std::mem::take(&mut self.lookups).into_values() {
            self.waiting_failed(to, &error);
        }
    }

    fn connected(&mut self, to: PublicKey, peer: PeerId, then: Waiting) {
        match then {
            Waiting::Connect(reply) => drop(reply.send(Ok(to))),
            Waiting::Stream { protocol, reply } => {
                self.swarm
                    .behaviour_mut()
                    .streams
                    .open(peer, protocol, reply);
            }
        }
    }

    pub(super) fn dial_done(&mut self, connection: ConnectionId, key: PublicKey, peer: PeerId) {
        if let Some(Dial {
            reply: Some(reply), ..
        }) = self.dials.remove(&connection)
        {
            drop(reply.send(Ok(key)));
        }
        for bootstrap in &mut self.bootstrap {
            if bootstrap.dial == Some(connection) {
                bootstrap.dial = None;
                bootstrap.key = Some(key);
                bootstrap.pause = BACKOFF_FIRST;
            }
        }
        for then in self.waiting.remove(&key).unwrap_or_default() {
            self.connected(key, peer, then);
        }
        if let Some(writer) = self.writers.get(&key) {
            writer.connected.notify_one();
        }
    }

    pub(super) fn dial_failed(
        &mut self,
        connection: ConnectionId,
        key: Option<PublicKey>,
        error: &DialError,
    ) {
        let dial = self.dials.remove(&connection);
        let key = key.or_else(|| dial.as_ref().and_then(|dial| dial.key));
        let unknown = dial.as_ref().map_or(Unknown::Fail, |dial| dial.unknown);
        if let Some(Dial {
            text,
            reply: Some(reply),
            ..
        }) = dial
        {
            let error = ConnectError::Failed {
                target: text,
                reason: chain(error),
            };
            drop(reply.send(Err(error)));
        }
        for bootstrap in &mut self.bootstrap {
            if bootstrap.dial == Some(connection) {
                bootstrap.dial = None;
                bootstrap.next = Some(Instant::now() + bootstrap.pause);
                bootstrap.pause = BACKOFF_LAST.min(bootstrap.pause * 2);
                tracing::debug!(address = %bootstrap.address, error = chain(error), "no bootstrap yet");
            }
        }
        let Some(key) = key else { return };
        let another = self.dials.values().any(|dial| dial.key == Some(key));
        if !another && !self.peers.contains_key(&key) {
            self.not_found(key, unknown, OpenError::Connect(chain(error)));
        }
    }

    fn waiting_failed(&mut self, to: PublicKey, error: &OpenError) {
        for waiting in self.waiting.remove(&to).unwrap_or_default() {
            waiting.fail(to, error);
        }
    }

    pub(super) fn dial_bootstrap(&mut self, now: Instant) {
        for index in 0..self.bootstrap.len() {
            let bootstrap = &self.bootstrap[index];
            let here = bootstrap
                .key
                .is_some_and(|key| self.peers.contains_key(&key));
            let early = bootstrap.next.is_some_and(|next| next > now);
            if here || early || bootstrap.dial.is_some() {
                continue;
            }
            let opts = DialOpts::unknown_peer_id()
                .address(bootstrap.address.clone())
                .build();
            let connection = opts.connection_id();
            self.bootstrap[index].dial = Some(connection);
            if let Err(error) = self.swarm.dial(opts) {
                self.dial_failed(connection, None, &error);
            }
        }
    }
}

pub(super) fn connect_error(target: PublicKey, error: &OpenError) -> ConnectError {
    match error {
        OpenError::NoAddress => ConnectError::NoAddress(target),
        OpenError::Unsupported => ConnectError::Unsupported("this protocol"),
        error => ConnectError::Failed {
            target: target.to_string(),
            reason: error.to_string(),
        },
    }
}

fn again(error: &OpenError) -> OpenError {
    match error {
        OpenError::NoAddress => OpenError::NoAddress,
        OpenError::Unsupported => OpenError::Unsupported,
        error => OpenError::Connect(error.to_string()),
    }
}

/// What went wrong, for people: each address with its innermost reason.
pub(crate) fn chain(error: &DialError) -> String {
    match error {
        DialError::Transport(attempts) => {
            let reasons: Vec<_> = attempts
                .iter()
                .map(|(address, error)| format!("{address}: {}", innermost(error)))
                .collect();
            reasons.join("; ")
        }
        DialError::Denied { cause } => innermost(cause),
        DialError::NoAddresses => "no address is known, or only our own".to_owned(),
        DialError::WrongPeerId { obtained, .. } => match key::key_of(obtained) {
            Some(key) => format!("another node answers there: {key}"),
            None => format!("another node answers there: {obtained}"),
        },
        DialError::LocalPeerId { .. } => "that is this node itself".to_owned(),
        other => other.to_string(),
    }
}

fn innermost(error: &(dyn std::error::Error + 'static)) -> String {
    let mut error = error;
    while let Some(source) = error.source() {
        error = source;
    }
    error.to_string()
}

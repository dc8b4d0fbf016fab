//! Finding and dialling peers.

use std::{num::NonZeroU8, time::Duration};

use libp2p::{
    Multiaddr, PeerId, StreamProtocol, kad,
    swarm::{
        ConnectionId, DialError,
        dial_opts::{DialOpts, PeerCondition},
    },
};
use realm_identity::PublicKey;
use tokio::{sync::oneshot, time::Instant};

use super::{
    Task, begun,
    reason::{again, chain, connect_error},
};
use crate::{
    ConnectError, Link, address, frames, key,
    streams::{OpenError, Opened},
};

const BACKOFF_FIRST: Duration = Duration::from_secs(1);
const BACKOFF_LAST: Duration = Duration::from_secs(60);
/// Addresses of one peer that are tried beside each other.
const BESIDE: NonZeroU8 = NonZeroU8::new(4).expect("not zero");
/// Requests that wait for one connection.
const WAITING_MAX: usize = 256;

/// Peers asked for at once.
const LOOKUPS_MAX: usize = 32;
/// A peer that does not answer where it was known to be is asked for again after this: it may have moved,
/// and more likely nobody reaches it, as in a partition, where all would ask for all.
const LOOKUP_AGAIN: Duration = Duration::from_secs(30);
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
    /// Which address is tried first, and when the others are to be tried beside it.
    first: Option<(Multiaddr, Instant)>,
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
                        first: None,
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
        let first = waiting.is_empty();
        // Frames are what both of two nodes have for each other all the time.
        let urgent =
            matches!(&then, Waiting::Stream { protocol, .. } if *protocol != frames::PROTOCOL);
        waiting.push(then);
        let now = Instant::now();
        if urgent {
            if self.later.remove(&to).is_some() || first {
                self.dial_known(to, Unknown::Ask);
            }
        } else if first {
            // Two that find each other at once would connect twice: the smaller key begins.
            let own = key::key_of(self.swarm.local_peer_id());
            if own.is_some_and(|own| own > to) {
                self.later.insert(to, now + self.head_start());
            } else if self.begun.allows(now) {
                self.dial_known(to, Unknown::Ask);
            } else {
                self.later.insert(to, now);
            }
        }
    }

    /// How long to wait before more is tried beside what was tried first.
    fn head_start(&self) -> Duration {
        begun::head_start(self.dials.len() + self.later.len())
    }

    /// What the book says of a peer, without this node's own addresses: the other machine has the same ones
    /// of its loopback or bridges, and the swarm does not dial itself.
    fn addresses_of(&self, to: PublicKey) -> Vec<Multiaddr> {
        let mut addresses = self.book.of(&to);
        addresses.retain(|address| !self.swarm.listeners().any(|own| own == address));
        addresses
    }

    /// Dials the best address that is known, and the others a little later.
    fn dial_known(&mut self, to: PublicKey, unknown: Unknown) {
        match &self.addresses_of(to)[..] {
            [best, _, ..] => {
                let first = (best.clone(), Instant::now() + self.head_start());
                self.dial_at(to, unknown, vec![best.clone()], Some(first));
            }
            // What the behaviours know is all there is beside it.
            all => self.dial_at(to, unknown, all.to_vec(), None),
        }
    }

    fn dial_others(&mut self, to: PublicKey, unknown: Unknown, tried: &Multiaddr) {
        let mut others = self.addresses_of(to);
        others.retain(|address| address != tried);
        self.dial_at(to, unknown, others, None);
    }

    fn dial_at(
        &mut self,
        to: PublicKey,
        unknown: Unknown,
        addresses: Vec<Multiaddr>,
        first: Option<(Multiaddr, Instant)>,
    ) {
        let Some(peer) = key::peer_of(&to) else {
            return self.waiting_failed(to, &OpenError::NoAddress);
        };
        let beside = self.dials.values().any(|dial| dial.key == Some(to));
        let is_tcp = |address| address::link_of(address) == Link::Tcp;
        let all_tcp = !addresses.is_empty() && addresses.iter().all(is_tcp);
        let mut opts = DialOpts::peer_id(peer)
            .addresses(addresses)
            .override_dial_concurrency_factor(BESIDE);
        if all_tcp {
            // Two that dial each other from the ports they listen on, as those do whom a partition parted,
            // get one connection with two beginners, which is none.
            opts = opts.allocate_new_port();
        }
        let opts = match (beside, &first) {
            (true, _) => opts.condition(PeerCondition::Always).build(),
            // A connection that died may take long to close; it is no reason not to dial.
            (false, Some(_)) => opts.condition(PeerCondition::NotDialing).build(),
            (false, None) => opts
                .condition(PeerCondition::NotDialing)
                .extend_addresses_through_behaviour()
                .build(),
        };
        let connection = opts.connection_id();
        match self.swarm.dial(opts) {
            Ok(()) => {
                let dial = Dial {
                    text: to.to_string(),
                    key: Some(to),
                    reply: None,
                    unknown,
                    first,
                };
                self.dials.insert(connection, dial);
            }
            // Somebody else dials it already; the outcome is the same.
            Err(DialError::DialPeerConditionFalse(_)) => {}
            Err(_) if beside => {}
            Err(DialError::NoAddresses) => self.not_found(to, unknown, OpenError::NoAddress),
            Err(error) => self.waiting_failed(to, &OpenError::Connect(chain(&error))),
        }
    }

    /// Begins what had to wait for something else to be tried first.
    pub(super) fn dial_late(&mut self, now: Instant) {
        let due = self.later.iter().filter(|(_, due)| **due <= now);
        let mut due: Vec<_> = due.map(|(to, due)| (*due, *to)).collect();
        // Who waits longest goes first.
        due.sort_unstable();
        for (_, to) in due {
            if !self.begun.allows(now) {
                break;
            }
            self.later.remove(&to);
            self.dial_known(to, Unknown::Ask);
        }
        let mut late = Vec::new();
        for dial in self.dials.values_mut() {
            if let Some(to) = dial.key
                && let Some((tried, _)) = dial.first.take_if(|(_, due)| *due <= now)
                && !self.peers.contains_key(&to)
            {
                late.push((to, dial.unknown, tried));
            }
        }
        for (to, unknown, tried) in late {
            self.dial_others(to, unknown, &tried);
        }
    }

    /// Asks the realm's nodes where a peer is, once; what waits for it goes on waiting meanwhile.
    fn not_found(&mut self, to: PublicKey, unknown: Unknown, error: OpenError) {
        let now = Instant::now();
        self.looked_up
            .retain(|_, at| now.duration_since(*at) < LOOKUP_AGAIN);
        let lately = matches!(error, OpenError::Connect(_)) && self.looked_up.contains_key(&to);
        // Without neighbours a query would end at once, with nothing.
        let may_ask = unknown == Unknown::Ask
            && !lately
            && self.lookups.len() < LOOKUPS_MAX
            && !self.peers.is_empty()
            && self.waiting.contains_key(&to);
        let kad = self.swarm.behaviour_mut().kad.as_mut().filter(|_| may_ask);
        match (kad, key::peer_of(&to)) {
            (Some(kad), Some(peer)) => {
                let query = kad.get_closest_peers(peer);
                self.lookups.insert(query, (to, error));
                self.looked_up.insert(to, now);
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

    /// Keeps an address that somebody told. Whoever is being looked up need not be found any more.
    pub(super) fn learn(&mut self, key: PublicKey, address: Multiaddr) {
        self.book.add(key, address);
        let before = self.lookups.len();
        self.lookups.retain(|_, (to, _)| *to != key);
        if self.lookups.len() < before {
            // Further addresses come with the first one.
            self.later.insert(key, Instant::now());
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
        self.later.remove(&key);
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
        let by_behaviour = dial.is_none();
        let key = key.or_else(|| dial.as_ref().and_then(|dial| dial.key));
        let unknown = dial.as_ref().map_or(Unknown::Fail, |dial| dial.unknown);
        let tried = dial.as_ref().and_then(|dial| dial.first.clone());
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
        match error {
            DialError::Transport(attempts) => {
                for (address, _) in attempts {
                    self.book.failed(&key, address);
                }
            }
            DialError::WrongPeerId { address, .. } => self.book.failed(&key, address),
            _ => {}
        }
        // Whoever waits for its turn has not failed yet.
        let another =
            self.later.contains_key(&key) || self.dials.values().any(|dial| dial.key == Some(key));
        if another || self.peers.contains_key(&key) {
            return;
        }
        if let Some((tried, _)) = tried {
            self.dial_others(key, unknown, &tried);
        } else if by_behaviour && self.waiting.contains_key(&key) && !self.book.of(&key).is_empty()
        {
            // A behaviour tries the best links alone.
            self.dial_known(key, Unknown::Ask);
        } else {
            self.not_found(key, unknown, OpenError::Connect(chain(error)));
        }
    }

    fn waiting_failed(&mut self, to: PublicKey, error: &OpenError) {
        self.later.remove(&to);
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

//! Who may connect, and how often: strangers within caps, approved peers within a budget of their own.

use std::{
    collections::{HashMap, HashSet},
    convert::Infallible,
    task::{Context, Poll},
    time::{Duration, Instant},
};

use libp2p::{
    Multiaddr, PeerId,
    core::{Endpoint, transport::PortUse},
    swarm::{
        ConnectionDenied, ConnectionId, FromSwarm, NetworkBehaviour, THandlerInEvent, ToSwarm,
        dummy,
    },
};

use crate::{
    NetLimits, address,
    handshakes::{Handshakes, Source},
    key,
};

/// Bans kept at once; the one that ends first makes room.
const BANS: usize = 1024;
/// Connections of one peer that were given up and still close: each keeps a socket until the system
/// gives it up too.
const ENDED_PER_PEER: usize = 16;

#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Refused {
    #[error("{max} connections from strangers are open already")]
    StrangersIn { max: usize },
    #[error("{max} connections to strangers are open already")]
    StrangersOut { max: usize },
    #[error("{max} connections with approved peers are open already")]
    Approved { max: usize },
    #[error("{max} connections to strangers are being made already")]
    Pending { max: usize },
    #[error("{max} connections with this peer are open already")]
    Peer { max: usize },
    #[error("{max} connections with this peer still close")]
    Closing { max: usize },
    #[error("{max} connections from this address are open already")]
    Address { max: usize },
    #[error("the peer is banned for now")]
    Banned,
    #[error("the peer's key is not an Ed25519 key")]
    Key,
}

struct Open {
    peer: PeerId,
    outbound: bool,
    source: Source,
}

pub(crate) struct Behaviour {
    limits: NetLimits,
    pub handshakes: Handshakes,
    approved: HashSet<PeerId>,
    /// Where each approved peer was connected from or to the last time.
    seen: HashMap<PeerId, Source>,
    banned: HashMap<PeerId, Instant>,
    pending_out: HashSet<ConnectionId>,
    open: HashMap<ConnectionId, Open>,
    /// Given up while closing waits for a peer that takes no bytes.
    ended: HashMap<ConnectionId, PeerId>,
    pub refused: u64,
}

impl Behaviour {
    pub fn new(limits: NetLimits) -> Self {
        Self {
            handshakes: Handshakes::new(&limits),
            limits,
            approved: HashSet::new(),
            seen: HashMap::new(),
            banned: HashMap::new(),
            pending_out: HashSet::new(),
            open: HashMap::new(),
            ended: HashMap::new(),
            refused: 0,
        }
    }

    /// Whoever is approved is banned no longer.
    /// Returns who was approved before.
    pub fn set_approved(&mut self, peers: HashSet<PeerId>) -> HashSet<PeerId> {
        self.banned.retain(|peer, _| !peers.contains(peer));
        let before = std::mem::replace(&mut self.approved, peers);
        self.seen.retain(|peer, _| self.approved.contains(peer));
        for open in self.open.values() {
            if self.approved.contains(&open.peer) {
                self.seen.insert(open.peer, open.source);
            }
        }
        before
    }

    /// Where approved peers were connected from or to.
    pub fn seen(&self) -> impl Iterator<Item = Source> {
        self.seen.values().copied()
    }

    pub fn approved(&self) -> &HashSet<PeerId> {
        &self.approved
    }

    pub fn is_approved(&self, peer: &PeerId) -> bool {
        self.approved.contains(peer)
    }

    pub fn ban(&mut self, peer: PeerId, time: Duration) {
        let now = Instant::now();
        self.banned.retain(|_, end| *end > now);
        if self.banned.len() >= BANS {
            let first = self
                .banned
                .iter()
                .min_by_key(|(_, end)| **end)
                .map(|(peer, _)| *peer);
            first.and_then(|peer| self.banned.remove(&peer));
        }
        // A time too long to add is a ban for good, which a day is in practice.
        let end = now
            .checked_add(time)
            .unwrap_or(now + Duration::from_secs(86_400));
        self.banned.insert(peer, end);
    }

    /// An approved peer's connection that is given up keeps no place from its successor, however
    /// long it closes. Those of strangers count until they are closed: their keys are without number.
    pub fn forget(&mut self, connection: ConnectionId) {
        let peer = self.open.get(&connection).map(|open| open.peer);
        if let Some(peer) = peer.filter(|peer| self.is_approved(peer)) {
            self.open.remove(&connection);
            self.ended.insert(connection, peer);
        }
    }

    fn check_established(
        &self,
        peer: &PeerId,
        outbound: bool,
        source: Source,
    ) -> Result<(), Refused> {
        self.check_known(peer)?;
        let approved = self.is_approved(peer);
        let count = |rule: &dyn Fn(&Open) -> bool, max: usize, refused: Refused| {
            let open = self.open.values().filter(|open| rule(open)).count();
            if open >= max { Err(refused) } else { Ok(()) }
        };
        let max = if approved {
            self.limits.per_approved_peer
        } else {
            self.limits.per_peer
        };
        count(&|open| open.peer == *peer, max, Refused::Peer { max })?;
        let closing = self.ended.values().filter(|ended| *ended == peer).count();
        if closing >= ENDED_PER_PEER {
            let max = ENDED_PER_PEER;
            return Err(Refused::Closing { max });
        }
        if approved {
            let max = self.limits.approved;
            return count(
                &|open| self.is_approved(&open.peer),
                max,
                Refused::Approved { max },
            );
        }
        let stranger = |open: &Open| !self.is_approved(&open.peer);
        if outbound {
            let max = self.limits.stranger_out;
            return count(
                &|o| o.outbound && stranger(o),
                max,
                Refused::StrangersOut { max },
            );
        }
        // Strangers from elsewhere cannot lock out a command on this machine, which is a stranger too.
        let max = self.limits.stranger_in;
        let beside = |open: &Open| capped(open.source) == capped(source);
        count(
            &|o| !o.outbound && stranger(o) && beside(o),
            max,
            Refused::StrangersIn { max },
        )?;
        if !capped(source) {
            return Ok(());
        }
        let max = self.limits.per_ip;
        count(
            &|o| !o.outbound && stranger(o) && o.source == source,
            max,
            Refused::Address { max },
        )
    }

    fn check_known(&self, peer: &PeerId) -> Result<(), Refused> {
        if self
            .banned
            .get(peer)
            .is_some_and(|end| *end > Instant::now())
        {
            return Err(Refused::Banned);
        }
        key::key_of(peer).map(|_| ()).ok_or(Refused::Key)
    }

    fn answer<T>(&mut self, result: Result<(), Refused>, value: T) -> Result<T, ConnectionDenied> {
        result.map(|()| value).map_err(|refused| {
            self.refused += 1;
            tracing::debug!(%refused, "connection refused");
            ConnectionDenied::new(refused)
        })
    }
}

/// Many peers of one machine are normal on loopback, where a stranger is a local user.
fn capped(source: Source) -> bool {
    matches!(source, Source::Net(_))
}

impl NetworkBehaviour for Behaviour {
    type ConnectionHandler = dummy::ConnectionHandler;
    type ToSwarm = Infallible;

    fn handle_established_inbound_connection(
        &mut self,
        _: ConnectionId,
        peer: PeerId,
        _: &Multiaddr,
        remote: &Multiaddr,
    ) -> Result<dummy::ConnectionHandler, ConnectionDenied> {
        let source = Source::of(address::ip_of(remote));
        let checked = self.check_established(&peer, false, source);
        self.answer(checked, dummy::ConnectionHandler)
    }

    fn handle_pending_outbound_connection(
        &mut self,
        connection: ConnectionId,
        peer: Option<PeerId>,
        _: &[Multiaddr],
        _: Endpoint,
    ) -> Result<Vec<Multiaddr>, ConnectionDenied> {
        let max = self.limits.pending_out;
        let checked = match peer {
            Some(peer) if self.is_approved(&peer) => Ok(()),
            Some(peer) if self.check_known(&peer).is_err() => self.check_known(&peer),
            _ if self.pending_out.len() >= max => Err(Refused::Pending { max }),
            _ => {
                self.pending_out.insert(connection);
                Ok(())
            }
        };
        self.answer(checked, Vec::new())
    }

    fn handle_established_outbound_connection(
        &mut self,
        connection: ConnectionId,
        peer: PeerId,
        remote: &Multiaddr,
        _: Endpoint,
        _: PortUse,
    ) -> Result<dummy::ConnectionHandler, ConnectionDenied> {
        self.pending_out.remove(&connection);
        let source = Source::of(address::ip_of(remote));
        let checked = self.check_established(&peer, true, source);
        self.answer(checked, dummy::ConnectionHandler)
    }

    fn on_swarm_event(&mut self, event: FromSwarm) {
        match event {
            FromSwarm::ConnectionEstablished(established) => {
                let address = established.endpoint.get_remote_address();
                let open = Open {
                    peer: established.peer_id,
                    outbound: established.endpoint.is_dialer(),
                    source: Source::of(address::ip_of(address)),
                };
                if self.is_approved(&open.peer) {
                    self.seen.insert(open.peer, open.source);
                }
                self.open.insert(established.connection_id, open);
            }
            FromSwarm::ConnectionClosed(closed) => {
                self.open.remove(&closed.connection_id);
                self.ended.remove(&closed.connection_id);
            }
            FromSwarm::DialFailure(failure) => {
                self.pending_out.remove(&failure.connection_id);
            }
            _ => {}
        }
    }

    fn on_connection_handler_event(&mut self, _: PeerId, _: ConnectionId, event: Infallible) {
        match event {}
    }

    fn poll(&mut self, _: &mut Context<'_>) -> Poll<ToSwarm<Infallible, THandlerInEvent<Self>>> {
        Poll::Pending
    }
}

#[cfg(test)]
mod tests {
    use realm_identity::SecretKey;

    use super::*;

    fn peer(number: u16) -> PeerId {
        let mut seed = [0; 32];
        seed[..2].copy_from_slice(&number.to_be_bytes());
        key::keypair(&SecretKey::from_seed(&seed))
            .public()
            .to_peer_id()
    }

    fn source(text: &str) -> Source {
        Source::of(Some(text.parse().expect("an address")))
    }

    /// Opens connections of different peers until one is refused.
    fn fill(limits: &mut Behaviour, outbound: bool, ips: &[&str]) -> (usize, Refused) {
        for number in 0..2000 {
            let source = source(ips[usize::from(number) % ips.len()]);
            let peer = peer(number);
            if let Err(refused) = limits.check_established(&peer, outbound, source) {
                return (usize::from(number), refused);
            }
            let id = ConnectionId::new_unchecked(usize::from(number) + limits.open.len() * 10_000);
            let open = Open {
                peer,
                outbound,
                source,
            };
            limits.open.insert(id, open);
        }
        panic!("no bound");
    }

    #[test]
    fn strangers_have_their_caps() {
        let many: Vec<String> = (1..=20).map(|host| format!("192.0.2.{host}")).collect();
        let many: Vec<&str> = many.iter().map(String::as_str).collect();
        for (outbound, ips, expected) in [
            (
                false,
                many.as_slice(),
                (128, Refused::StrangersIn { max: 128 }),
            ),
            (true, &many, (64, Refused::StrangersOut { max: 64 })),
            (false, &["192.0.2.1"], (16, Refused::Address { max: 16 })),
            (false, &["2001:db8::1"], (16, Refused::Address { max: 16 })),
            (
                false,
                &["2001:db8::1", "2001:db8::2"],
                (16, Refused::Address { max: 16 }),
            ),
            (
                false,
                &["127.0.0.1"],
                (128, Refused::StrangersIn { max: 128 }),
            ),
        ] {
            let mut limits = Behaviour::new(NetLimits::default());
            assert_eq!(fill(&mut limits, outbound, ips), expected);
        }
    }

    #[test]
    fn a_local_command_gets_in_when_strangers_fill_the_node() {
        let many: Vec<String> = (1..=20).map(|host| format!("192.0.2.{host}")).collect();
        let many: Vec<&str> = many.iter().map(String::as_str).collect();
        let mut limits = Behaviour::new(NetLimits::default());
        assert_eq!(fill(&mut limits, false, &many).0, 128);
        assert_eq!(
            limits.check_established(&peer(5000), false, source("127.0.0.1")),
            Ok(())
        );
    }

    #[test]
    fn approved_peers_have_a_budget_of_their_own() {
        let mut limits = Behaviour::new(NetLimits::default());
        assert_eq!(fill(&mut limits, false, &["192.0.2.1"]).0, 16);
        // What was a stranger is counted as approved from now on.
        limits.set_approved((0..2000).map(peer).collect());
        limits.open.clear();
        let expected = (1024, Refused::Approved { max: 1024 });
        assert_eq!(fill(&mut limits, false, &["192.0.2.1"]), expected);
        assert_eq!(
            limits.check_established(&peer(5000), false, source("192.0.2.1")),
            Ok(())
        );
    }

    #[test]
    fn a_connection_that_was_given_up_keeps_no_place() {
        let mut limits = Behaviour::new(NetLimits::default());
        limits.set_approved(HashSet::from([peer(1)]));
        let (known, source) = (peer(1), source("192.0.2.1"));
        let max = NetLimits::default().per_approved_peer;
        let mut next = 0;
        let mut open = |limits: &mut Behaviour| {
            limits.check_established(&known, true, source)?;
            let id = ConnectionId::new_unchecked(next);
            next += 1;
            let open = Open {
                peer: known,
                outbound: true,
                source,
            };
            limits.open.insert(id, open);
            Ok(id)
        };
        let first: Vec<_> = (0..max).map(|_| open(&mut limits).expect("room")).collect();
        assert_eq!(open(&mut limits), Err(Refused::Peer { max }));
        for id in first {
            limits.forget(id);
            limits.forget(id);
        }
        // Nor are there sockets without end.
        for _ in max..ENDED_PER_PEER {
            let id = open(&mut limits).expect("room again");
            limits.forget(id);
        }
        let refused = Refused::Closing {
            max: ENDED_PER_PEER,
        };
        assert_eq!(open(&mut limits), Err(refused));
        limits.ended.clear();
        let last = open(&mut limits).expect("they are closed");
        limits.set_approved(HashSet::new());
        limits.forget(last);
        assert!(limits.open.contains_key(&last), "a stranger's counts");
    }

    #[test]
    fn an_approval_ends_a_ban() {
        let mut limits = Behaviour::new(NetLimits::default());
        limits.ban(peer(0), Duration::MAX);
        limits.ban(peer(1), Duration::MAX);
        limits.set_approved(HashSet::from([peer(0)]));
        assert_eq!(limits.check_known(&peer(0)), Ok(()));
        assert_eq!(limits.check_known(&peer(1)), Err(Refused::Banned));
    }

    #[test]
    fn bans_end_and_are_bounded() {
        let mut limits = Behaviour::new(NetLimits::default());
        limits.ban(peer(0), Duration::ZERO);
        assert_eq!(limits.check_known(&peer(0)), Ok(()));
        limits.ban(peer(0), Duration::MAX);
        assert_eq!(limits.check_known(&peer(0)), Err(Refused::Banned));
        for number in 1..1500 {
            limits.ban(peer(number), Duration::from_secs(u64::from(number)));
        }
        assert_eq!(limits.banned.len(), BANS);
        assert_eq!(limits.check_known(&PeerId::random()), Err(Refused::Key));
    }
}

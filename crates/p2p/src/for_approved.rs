//! A protocol for approved peers, and for guests that are let in one by one: nobody else is offered it.
//!
//! The inner behaviour sees only connections with these. An approval reaches connections that are
//! open already, and so does its end, or an inner behaviour that is set later. A guest is one for as
//! long as it is connected, so there are no more of them than connections.

mod handler;

use std::{
    collections::{HashMap, HashSet, VecDeque},
    sync::Arc,
    task::{Context, Poll},
};

use libp2p::{
    Multiaddr, PeerId,
    core::{ConnectedPoint, Endpoint, transport::ListenerId, transport::PortUse},
    swarm::{
        ConnectionClosed, ConnectionDenied, ConnectionId, FromSwarm, NetworkBehaviour,
        NotifyHandler, THandler, THandlerInEvent, THandlerOutEvent, ToSwarm,
        behaviour::{ConnectionEstablished, ExternalAddrConfirmed, NewListenAddr},
    },
};

use tokio::sync::oneshot;

use crate::address;

pub(crate) use handler::{Handler, ToHandler};

/// Dropped by the last handler that was switched: whoever waits for the other end is told so.
pub(crate) type Switched = Arc<oneshot::Sender<()>>;

pub(crate) struct ForApproved<B: NetworkBehaviour> {
    inner: Option<B>,
    approved: HashSet<PeerId>,
    /// Let in until their last connection ends.
    guests: HashSet<PeerId>,
    open: HashMap<ConnectionId, Open>,
    /// Handlers on their way to open connections: one for each connection and change.
    swaps: VecDeque<Swap<B>>,
    /// What an inner behaviour that is set later has to be told.
    listening: Vec<(ListenerId, Multiaddr)>,
    external: HashSet<Multiaddr>,
}

struct Open {
    peer: PeerId,
    endpoint: ConnectedPoint,
    /// Whether the inner behaviour knows of it.
    on: bool,
}

struct Swap<B: NetworkBehaviour> {
    peer: PeerId,
    connection: ConnectionId,
    handler: Option<Box<THandler<B>>>,
    switched: Option<Switched>,
}

impl<B: NetworkBehaviour> ForApproved<B> {
    pub fn new(inner: Option<B>) -> Self {
        Self {
            inner,
            approved: HashSet::new(),
            guests: HashSet::new(),
            open: HashMap::new(),
            swaps: VecDeque::new(),
            listening: Vec::new(),
            external: HashSet::new(),
        }
    }

    pub fn as_mut(&mut self) -> Option<&mut B> {
        self.inner.as_mut()
    }

    /// Replaces the inner behaviour; connections that are open speak its protocol from now on.
    pub fn set(&mut self, inner: B) {
        let all = self.connections(|open| open.on);
        all.into_iter().for_each(|on| self.switch_off(on));
        self.inner = Some(inner);
        self.introduce();
        self.switch_changed(None);
    }

    pub fn set_approved(&mut self, approved: HashSet<PeerId>) {
        self.approved = approved;
        self.switch_changed(None);
    }

    /// Lets in a peer that is connected, until its last connection ends.
    pub fn admit(&mut self, guest: PeerId, switched: Switched) {
        if self.open.values().any(|open| open.peer == guest) {
            self.guests.insert(guest);
            self.switch_changed(Some(&switched));
        }
    }

    /// From now on approved peers alone are served.
    pub fn dismiss_guests(&mut self) {
        self.guests.clear();
        self.switch_changed(None);
    }

    fn is_let_in(&self, peer: &PeerId) -> bool {
        self.approved.contains(peer) || self.guests.contains(peer)
    }

    fn connections(&self, rule: impl Fn(&Open) -> bool) -> Vec<ConnectionId> {
        let open = self.open.iter().filter(|(_, open)| rule(open));
        open.map(|(connection, _)| *connection).collect()
    }

    fn switch_changed(&mut self, switched: Option<&Switched>) {
        for connection in self.connections(|open| open.on && !self.is_let_in(&open.peer)) {
            self.switch_off(connection);
        }
        for connection in self.connections(|open| !open.on && self.is_let_in(&open.peer)) {
            self.switch_on(connection, switched.cloned());
        }
    }

    fn switch_on(&mut self, connection: ConnectionId, switched: Option<Switched>) {
        let (Some(inner), Some(open)) = (&mut self.inner, self.open.get(&connection)) else {
            return;
        };
        let (peer, endpoint) = (open.peer, open.endpoint.clone());
        let handler = match &endpoint {
            ConnectedPoint::Listener {
                local_addr,
                send_back_addr,
            } => inner.handle_established_inbound_connection(
                connection,
                peer,
                local_addr,
                send_back_addr,
            ),
            ConnectedPoint::Dialer {
                address,
                role_override,
                port_use,
            } => inner.handle_established_outbound_connection(
                connection,
                peer,
                address,
                *role_override,
                *port_use,
            ),
        };
        match handler {
            Ok(handler) => {
                self.established(connection, &endpoint, &[]);
                self.swaps.push_back(Swap {
                    peer,
                    connection,
                    handler: Some(Box::new(handler)),
                    switched,
                });
            }
            Err(error) => tracing::warn!(%peer, %error, "a protocol is not used with this peer"),
        }
    }

    fn switch_off(&mut self, connection: ConnectionId) {
        let Some(open) = self.open.get(&connection) else {
            return;
        };
        let (peer, endpoint) = (open.peer, open.endpoint.clone());
        self.closed(connection, &endpoint, None);
        self.swaps.push_back(Swap {
            peer,
            connection,
            handler: None,
            switched: None,
        });
    }

    /// Tells the inner behaviour of a connection for which it has made a handler.
    fn established(
        &mut self,
        connection_id: ConnectionId,
        endpoint: &ConnectedPoint,
        failed_addresses: &[Multiaddr],
    ) {
        let Some(peer_id) = self.open.get(&connection_id).map(|open| open.peer) else {
            return;
        };
        let other_established = self.count(peer_id);
        if let Some(open) = self.open.get_mut(&connection_id) {
            open.on = true;
        }
        self.tell(FromSwarm::ConnectionEstablished(ConnectionEstablished {
            peer_id,
            connection_id,
            endpoint,
            failed_addresses,
            other_established,
        }));
    }

    fn closed(
        &mut self,
        connection_id: ConnectionId,
        endpoint: &ConnectedPoint,
        cause: Option<&libp2p::swarm::ConnectionError>,
    ) {
        let Some(open) = self.open.get_mut(&connection_id).filter(|open| open.on) else {
            return;
        };
        open.on = false;
        let peer_id = open.peer;
        let remaining_established = self.count(peer_id);
        self.tell(FromSwarm::ConnectionClosed(ConnectionClosed {
            peer_id,
            connection_id,
            endpoint,
            cause,
            remaining_established,
        }));
    }

    /// Connections with this peer that the inner behaviour knows of.
    fn count(&self, peer: PeerId) -> usize {
        let known = |open: &&Open| open.on && open.peer == peer;
        self.open.values().filter(known).count()
    }

    fn tell(&mut self, event: FromSwarm) {
        if let Some(inner) = &mut self.inner {
            inner.on_swarm_event(event);
        }
    }

    fn introduce(&mut self) {
        let Some(inner) = &mut self.inner else { return };
        for (listener_id, addr) in &self.listening {
            inner.on_swarm_event(FromSwarm::NewListenAddr(NewListenAddr {
                listener_id: *listener_id,
                addr,
            }));
        }
        for addr in &self.external {
            inner.on_swarm_event(FromSwarm::ExternalAddrConfirmed(ExternalAddrConfirmed {
                addr,
            }));
        }
    }

    fn remember(&mut self, event: &FromSwarm) {
        match event {
            FromSwarm::NewListenAddr(new) => {
                self.listening.push((new.listener_id, new.addr.clone()));
            }
            FromSwarm::ExpiredListenAddr(old) => {
                self.listening.retain(|known| known.1 != *old.addr)
            }
            FromSwarm::ListenerClosed(closed) => {
                self.listening.retain(|known| known.0 != closed.listener_id);
            }
            FromSwarm::ExternalAddrConfirmed(new) => {
                self.external.insert(new.addr.clone());
            }
            FromSwarm::ExternalAddrExpired(old) => {
                self.external.remove(old.addr);
            }
            _ => {}
        }
    }

    fn inner_for(&mut self, peer: &PeerId) -> Option<&mut B> {
        let let_in = self.is_let_in(peer);
        self.inner.as_mut().filter(|_| let_in)
    }
}

impl<B: NetworkBehaviour> NetworkBehaviour for ForApproved<B> {
    type ConnectionHandler = Handler<THandler<B>>;
    type ToSwarm = B::ToSwarm;

    fn handle_pending_inbound_connection(
        &mut self,
        connection: ConnectionId,
        local: &Multiaddr,
        remote: &Multiaddr,
    ) -> Result<(), ConnectionDenied> {
        self.inner.as_mut().map_or(Ok(()), |inner| {
            inner.handle_pending_inbound_connection(connection, local, remote)
        })
    }

    fn handle_established_inbound_connection(
        &mut self,
        connection: ConnectionId,
        peer: PeerId,
        local: &Multiaddr,
        remote: &Multiaddr,
    ) -> Result<Self::ConnectionHandler, ConnectionDenied> {
        let made = self.inner_for(&peer).map(|inner| {
            inner.handle_established_inbound_connection(connection, peer, local, remote)
        });
        Ok(Handler::new(made.transpose()?))
    }

    fn handle_pending_outbound_connection(
        &mut self,
        connection: ConnectionId,
        peer: Option<PeerId>,
        addresses: &[Multiaddr],
        role: Endpoint,
    ) -> Result<Vec<Multiaddr>, ConnectionDenied> {
        let Some(inner) = &mut self.inner else {
            return Ok(Vec::new());
        };
        let mut known =
            inner.handle_pending_outbound_connection(connection, peer, addresses, role)?;
        // All that is given here is tried at once: a worse link would often win the race by a little.
        let best = known.iter().map(address::link_of).min();
        known.retain(|address| Some(address::link_of(address)) == best);
        Ok(known)
    }

    fn handle_established_outbound_connection(
        &mut self,
        connection: ConnectionId,
        peer: PeerId,
        address: &Multiaddr,
        role: Endpoint,
        port_use: PortUse,
    ) -> Result<Self::ConnectionHandler, ConnectionDenied> {
        let made = self.inner_for(&peer).map(|inner| {
            inner.handle_established_outbound_connection(connection, peer, address, role, port_use)
        });
        Ok(Handler::new(made.transpose()?))
    }

    fn on_swarm_event(&mut self, event: FromSwarm) {
        self.remember(&event);
        match event {
            FromSwarm::ConnectionEstablished(new) => {
                let open = Open {
                    peer: new.peer_id,
                    endpoint: new.endpoint.clone(),
                    on: false,
                };
                self.open.insert(new.connection_id, open);
                // The handler was made a moment ago, for the same peers.
                if self.inner_for(&new.peer_id).is_some() {
                    self.established(new.connection_id, new.endpoint, new.failed_addresses);
                }
            }
            FromSwarm::ConnectionClosed(old) => {
                self.closed(old.connection_id, old.endpoint, old.cause);
                self.open.remove(&old.connection_id);
                if !self.open.values().any(|open| open.peer == old.peer_id) {
                    self.guests.remove(&old.peer_id);
                }
            }
            FromSwarm::AddressChange(change) => {
                let Some(open) = self.open.get_mut(&change.connection_id) else {
                    return;
                };
                open.endpoint = change.new.clone();
                if open.on {
                    self.tell(FromSwarm::AddressChange(change));
                }
            }
            other => self.tell(other),
        }
    }

    fn on_connection_handler_event(
        &mut self,
        peer: PeerId,
        connection: ConnectionId,
        event: THandlerOutEvent<Self>,
    ) {
        let on = self.open.get(&connection).is_some_and(|open| open.on);
        if let Some(inner) = self.inner.as_mut().filter(|_| on) {
            inner.on_connection_handler_event(peer, connection, event);
        }
    }

    fn poll(
        &mut self,
        context: &mut Context<'_>,
    ) -> Poll<ToSwarm<Self::ToSwarm, THandlerInEvent<Self>>> {
        // Before anything that the inner behaviour has to say to these handlers.
        while let Some(swap) = self.swaps.pop_front() {
            if self.open.contains_key(&swap.connection) {
                return Poll::Ready(ToSwarm::NotifyHandler {
                    peer_id: swap.peer,
                    handler: NotifyHandler::One(swap.connection),
                    event: ToHandler::Swap(swap.handler, swap.switched),
                });
            }
        }
        match &mut self.inner {
            Some(inner) => inner
                .poll(context)
                .map(|event| event.map_in(ToHandler::Inner)),
            None => Poll::Pending,
        }
    }
}

#[cfg(test)]
mod tests {
    use realm_identity::{Hash, SecretKey};

    use super::*;
    use crate::{behaviour, key};

    #[test]
    fn of_what_is_dialled_at_once_the_best_links_alone_are_tried() {
        let [own, peer] = [1, 2].map(|seed| {
            let key = SecretKey::from_seed(&[seed; 32]).public();
            key::peer_of(&key).expect("a peer")
        });
        let [quic, tcp, tcp6] = [
            "/ip4/192.0.2.1/udp/1/quic-v1",
            "/ip4/192.0.2.1/tcp/1",
            "/ip6/2001:db8::1/tcp/1",
        ]
        .map(|text| text.parse::<Multiaddr>().expect("an address"));
        let mut kad = behaviour::kad(Hash::of(b"a realm"), own).expect("a behaviour");
        let dialled = |kad| {
            let (id, role) = (ConnectionId::new_unchecked(1), Endpoint::Dialer);
            let mut wrapped = ForApproved::new(Some(kad));
            let known = wrapped.handle_pending_outbound_connection(id, Some(peer), &[], role);
            let mut known = known.expect("not denied");
            known.iter_mut().for_each(|address| {
                if let Some(libp2p::multiaddr::Protocol::P2p(_)) = address.iter().last() {
                    address.pop();
                }
            });
            (known, wrapped.inner.expect("a behaviour"))
        };
        kad.add_address(&peer, quic.clone());
        let (known, mut kad) = dialled(kad);
        assert_eq!(known, [quic]);
        for address in [&tcp, &tcp6] {
            kad.add_address(&peer, address.clone());
        }
        assert_eq!(dialled(kad).0, [tcp, tcp6]);
    }
}

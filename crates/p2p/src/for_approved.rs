//! A protocol for approved peers alone: nobody else is offered it.
//!
//! The inner behaviour sees only connections with approved peers. An approval reaches connections
//! that are open already, and so does its end, or an inner behaviour that is set later.

mod handler;

use std::{
    collections::{HashMap, HashSet, VecDeque},
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

pub(crate) use handler::{Handler, ToHandler};

pub(crate) struct ForApproved<B: NetworkBehaviour> {
    inner: Option<B>,
    approved: HashSet<PeerId>,
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
}

impl<B: NetworkBehaviour> ForApproved<B> {
    pub fn new(inner: Option<B>) -> Self {
        Self {
            inner,
            approved: HashSet::new(),
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
        self.switch_all(|_| false);
        self.inner = Some(inner);
        self.introduce();
        self.switch_approved();
    }

    pub fn set_approved(&mut self, approved: HashSet<PeerId>) {
        self.approved = approved;
        self.switch_approved();
    }

    fn switch_approved(&mut self) {
        let approved = self.approved.clone();
        self.switch_all(|peer| approved.contains(peer));
    }

    fn switch_all(&mut self, on: impl Fn(&PeerId) -> bool) {
        let changed: Vec<_> = self
            .open
            .iter()
            .filter(|(_, open)| open.on != on(&open.peer))
            .map(|(connection, open)| (*connection, open.on))
            .collect();
        for (connection, was_on) in changed {
            if was_on {
                self.switch_off(connection);
            } else {
                self.switch_on(connection);
            }
        }
    }

    fn switch_on(&mut self, connection: ConnectionId) {
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
        self.inner.as_mut().filter(|_| self.approved.contains(peer))
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
        self.inner.as_mut().map_or(Ok(Vec::new()), |inner| {
            inner.handle_pending_outbound_connection(connection, peer, addresses, role)
        })
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
                // The handler was made a moment ago, for the same set of approved peers.
                if self.inner_for(&new.peer_id).is_some() {
                    self.established(new.connection_id, new.endpoint, new.failed_addresses);
                }
            }
            FromSwarm::ConnectionClosed(old) => {
                self.closed(old.connection_id, old.endpoint, old.cause);
                self.open.remove(&old.connection_id);
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
                    event: ToHandler::Swap(swap.handler),
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

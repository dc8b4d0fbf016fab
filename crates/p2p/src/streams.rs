//! Opens and accepts streams, and loses none: one behaviour for all of the crate's protocols.

use std::{
    collections::{HashMap, VecDeque},
    convert::Infallible,
    io,
    task::{Context, Poll},
};

use futures::future::{Ready, ready};
use libp2p::{
    Multiaddr, PeerId, Stream, StreamProtocol,
    core::{
        Endpoint,
        transport::PortUse,
        upgrade::{InboundUpgrade, OutboundUpgrade, UpgradeInfo},
    },
    swarm::{
        ConnectionDenied, ConnectionHandler, ConnectionHandlerEvent, ConnectionId, FromSwarm,
        NetworkBehaviour, NotifyHandler, StreamUpgradeError, SubstreamProtocol, THandlerInEvent,
        ToSwarm,
        handler::{
            ConnectionEvent, DialUpgradeError, FullyNegotiatedInbound, FullyNegotiatedOutbound,
        },
    },
};
use tokio::sync::oneshot;

use crate::{Link, address};

#[derive(Debug, thiserror::Error)]
pub(crate) enum OpenError {
    #[error("no address is known")]
    NoAddress,
    #[error("{0}")]
    Connect(String),
    #[error("the peer does not speak this protocol")]
    Unsupported,
    #[error("the connection broke: {0}")]
    Broken(#[source] io::Error),
}

pub(crate) type Opened = oneshot::Sender<Result<Stream, OpenError>>;

/// A stream that a peer opened.
#[derive(Debug)]
pub(crate) struct Accepted {
    pub peer: PeerId,
    pub protocol: StreamProtocol,
    pub stream: Stream,
}

pub(crate) struct Behaviour {
    served: Vec<StreamProtocol>,
    connections: HashMap<PeerId, Vec<(ConnectionId, Link)>>,
    pending: VecDeque<ToSwarm<Accepted, Open>>,
}

impl Behaviour {
    pub fn new(served: Vec<StreamProtocol>) -> Self {
        Self {
            served,
            connections: HashMap::new(),
            pending: VecDeque::new(),
        }
    }

    /// No more streams on a connection that is being closed.
    pub fn forget(&mut self, peer: PeerId, connection: ConnectionId) {
        if let Some(open) = self.connections.get_mut(&peer) {
            open.retain(|(known, _)| *known != connection);
            if open.is_empty() {
                self.connections.remove(&peer);
            }
        }
    }

    /// Asks for a stream on the best connection with a peer. The swarm must be polled afterwards, as it always is.
    pub fn open(&mut self, peer: PeerId, protocol: StreamProtocol, reply: Opened) {
        let best = self.connections.get(&peer).and_then(|open| {
            // A direct connection beside a relayed one is what hole punching was for.
            open.iter().min_by_key(|(_, link)| *link == Link::Relay)
        });
        match best {
            Some((connection, _)) => self.pending.push_back(ToSwarm::NotifyHandler {
                peer_id: peer,
                handler: NotifyHandler::One(*connection),
                event: Open { protocol, reply },
            }),
            None => {
                let _ = reply.send(Err(OpenError::Connect("not connected".to_owned())));
            }
        }
    }
}

impl NetworkBehaviour for Behaviour {
    type ConnectionHandler = Handler;
    type ToSwarm = Accepted;

    fn handle_established_inbound_connection(
        &mut self,
        _: ConnectionId,
        _: PeerId,
        _: &Multiaddr,
        _: &Multiaddr,
    ) -> Result<Handler, ConnectionDenied> {
        Ok(Handler::new(self.served.clone()))
    }

    fn handle_established_outbound_connection(
        &mut self,
        _: ConnectionId,
        _: PeerId,
        _: &Multiaddr,
        _: Endpoint,
        _: PortUse,
    ) -> Result<Handler, ConnectionDenied> {
        Ok(Handler::new(self.served.clone()))
    }

    fn on_swarm_event(&mut self, event: FromSwarm) {
        match event {
            FromSwarm::ConnectionEstablished(established) => {
                let link = address::link_of(&address::remote_of(established.endpoint));
                self.connections
                    .entry(established.peer_id)
                    .or_default()
                    .push((established.connection_id, link));
            }
            FromSwarm::ConnectionClosed(closed) => {
                self.forget(closed.peer_id, closed.connection_id);
            }
            _ => {}
        }
    }

    fn on_connection_handler_event(
        &mut self,
        peer: PeerId,
        _: ConnectionId,
        (stream, protocol): (Stream, StreamProtocol),
    ) {
        self.pending.push_back(ToSwarm::GenerateEvent(Accepted {
            peer,
            protocol,
            stream,
        }));
    }

    fn poll(&mut self, _: &mut Context<'_>) -> Poll<ToSwarm<Accepted, THandlerInEvent<Self>>> {
        match self.pending.pop_front() {
            Some(event) => Poll::Ready(event),
            None => Poll::Pending,
        }
    }
}

/// A request to open one stream. Dropping it tells the asker that the connection is gone.
#[derive(Debug)]
pub(crate) struct Open {
    protocol: StreamProtocol,
    reply: Opened,
}

pub(crate) struct Handler {
    served: Vec<StreamProtocol>,
    // Both are bounded by the number of streams that the transport allows.
    requests: VecDeque<Open>,
    accepted: VecDeque<(Stream, StreamProtocol)>,
}

impl Handler {
    fn new(served: Vec<StreamProtocol>) -> Self {
        Self {
            served,
            requests: VecDeque::new(),
            accepted: VecDeque::new(),
        }
    }
}

impl ConnectionHandler for Handler {
    type FromBehaviour = Open;
    type ToBehaviour = (Stream, StreamProtocol);
    type InboundProtocol = Upgrade;
    type OutboundProtocol = Upgrade;
    type InboundOpenInfo = ();
    type OutboundOpenInfo = Opened;

    fn listen_protocol(&self) -> SubstreamProtocol<Upgrade> {
        SubstreamProtocol::new(Upgrade(self.served.clone()), ())
    }

    fn poll(
        &mut self,
        _: &mut Context<'_>,
    ) -> Poll<ConnectionHandlerEvent<Upgrade, Opened, (Stream, StreamProtocol)>> {
        if let Some(accepted) = self.accepted.pop_front() {
            return Poll::Ready(ConnectionHandlerEvent::NotifyBehaviour(accepted));
        }
        if let Some(Open { protocol, reply }) = self.requests.pop_front() {
            return Poll::Ready(ConnectionHandlerEvent::OutboundSubstreamRequest {
                protocol: SubstreamProtocol::new(Upgrade(vec![protocol]), reply),
            });
        }
        Poll::Pending
    }

    fn on_behaviour_event(&mut self, request: Open) {
        self.requests.push_back(request);
    }

    fn on_connection_event(&mut self, event: ConnectionEvent<Upgrade, Upgrade, (), Opened>) {
        match event {
            ConnectionEvent::FullyNegotiatedInbound(FullyNegotiatedInbound {
                protocol, ..
            }) => self.accepted.push_back(protocol),
            ConnectionEvent::FullyNegotiatedOutbound(FullyNegotiatedOutbound {
                protocol: (stream, _),
                info: reply,
            }) => {
                // Whoever no longer waits drops the stream, which resets it.
                let _ = reply.send(Ok(stream));
            }
            ConnectionEvent::DialUpgradeError(DialUpgradeError { error, info: reply }) => {
                let _ = reply.send(Err(open_error(error)));
            }
            _ => {}
        }
    }
}

fn open_error(error: StreamUpgradeError<Infallible>) -> OpenError {
    match error {
        StreamUpgradeError::Timeout => OpenError::Broken(io::ErrorKind::TimedOut.into()),
        StreamUpgradeError::NegotiationFailed => OpenError::Unsupported,
        StreamUpgradeError::Io(error) => OpenError::Broken(error),
        StreamUpgradeError::Apply(never) => match never {},
    }
}

/// Negotiates a protocol's name and hands over the stream as it is.
#[derive(Debug, Clone)]
pub(crate) struct Upgrade(Vec<StreamProtocol>);

impl UpgradeInfo for Upgrade {
    type Info = StreamProtocol;
    type InfoIter = std::vec::IntoIter<StreamProtocol>;

    fn protocol_info(&self) -> Self::InfoIter {
        self.0.clone().into_iter()
    }
}

impl InboundUpgrade<Stream> for Upgrade {
    type Output = (Stream, StreamProtocol);
    type Error = Infallible;
    type Future = Ready<Result<Self::Output, Infallible>>;

    fn upgrade_inbound(self, stream: Stream, protocol: StreamProtocol) -> Self::Future {
        ready(Ok((stream, protocol)))
    }
}

impl OutboundUpgrade<Stream> for Upgrade {
    type Output = (Stream, StreamProtocol);
    type Error = Infallible;
    type Future = Ready<Result<Self::Output, Infallible>>;

    fn upgrade_outbound(self, stream: Stream, protocol: StreamProtocol) -> Self::Future {
        ready(Ok((stream, protocol)))
    }
}

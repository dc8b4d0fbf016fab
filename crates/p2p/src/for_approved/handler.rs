//! One connection's side: a handler that comes and goes while the connection stays.

use std::{
    fmt,
    iter::Flatten,
    option,
    task::{Context, Poll},
};

use libp2p::{
    Stream,
    core::upgrade::{InboundUpgrade, UpgradeInfo},
    swarm::{
        ConnectionHandler, ConnectionHandlerEvent, SubstreamProtocol,
        handler::{
            ConnectionEvent, DialUpgradeError, FullyNegotiatedInbound, FullyNegotiatedOutbound,
            InboundUpgradeSend, ListenUpgradeError, UpgradeInfoSend,
        },
    },
};

use super::Switched;

pub(crate) struct Handler<H> {
    inner: Option<H>,
    /// Streams that an earlier inner handler asked for are not given to a later one.
    life: u64,
}

impl<H> Handler<H> {
    pub fn new(inner: Option<H>) -> Self {
        Self { inner, life: 0 }
    }

    fn of(&mut self, life: u64) -> Option<&mut H> {
        self.inner.as_mut().filter(|_| life == self.life)
    }
}

pub(crate) enum ToHandler<H: ConnectionHandler> {
    /// The protocol begins on this connection, or ends; then what comes with it is dropped.
    Swap(Option<Box<H>>, Option<Switched>),
    Inner(H::FromBehaviour),
}

impl<H: ConnectionHandler> fmt::Debug for ToHandler<H> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Swap(handler, _) => f.debug_tuple("Swap").field(&handler.is_some()).finish(),
            Self::Inner(event) => f.debug_tuple("Inner").field(event).finish(),
        }
    }
}

impl<H: ConnectionHandler> ConnectionHandler for Handler<H> {
    type FromBehaviour = ToHandler<H>;
    type ToBehaviour = H::ToBehaviour;
    type InboundProtocol = Offer<H::InboundProtocol>;
    type OutboundProtocol = H::OutboundProtocol;
    /// None where nothing is offered.
    type InboundOpenInfo = Option<(u64, H::InboundOpenInfo)>;
    type OutboundOpenInfo = (u64, H::OutboundOpenInfo);

    fn listen_protocol(&self) -> SubstreamProtocol<Self::InboundProtocol, Self::InboundOpenInfo> {
        let life = self.life;
        match &self.inner {
            Some(inner) => inner
                .listen_protocol()
                .map_upgrade(|upgrade| Offer(Some(upgrade)))
                .map_info(|info| Some((life, info))),
            None => SubstreamProtocol::new(Offer(None), None),
        }
    }

    fn connection_keep_alive(&self) -> bool {
        self.inner
            .as_ref()
            .is_some_and(ConnectionHandler::connection_keep_alive)
    }

    fn poll(
        &mut self,
        context: &mut Context<'_>,
    ) -> Poll<
        ConnectionHandlerEvent<Self::OutboundProtocol, Self::OutboundOpenInfo, Self::ToBehaviour>,
    > {
        let life = self.life;
        match &mut self.inner {
            Some(inner) => inner
                .poll(context)
                .map(|event| event.map_outbound_open_info(|info| (life, info))),
            None => Poll::Pending,
        }
    }

    fn poll_close(&mut self, context: &mut Context<'_>) -> Poll<Option<Self::ToBehaviour>> {
        match &mut self.inner {
            Some(inner) => inner.poll_close(context),
            None => Poll::Ready(None),
        }
    }

    fn on_behaviour_event(&mut self, event: ToHandler<H>) {
        match event {
            ToHandler::Swap(handler, switched) => {
                self.inner = handler.map(|handler| *handler);
                self.life += 1;
                drop(switched);
            }
            ToHandler::Inner(event) => {
                // Said before the protocol ended on this connection.
                if let Some(inner) = &mut self.inner {
                    inner.on_behaviour_event(event);
                }
            }
        }
    }

    fn on_connection_event(
        &mut self,
        event: ConnectionEvent<
            Self::InboundProtocol,
            Self::OutboundProtocol,
            Self::InboundOpenInfo,
            Self::OutboundOpenInfo,
        >,
    ) {
        match event {
            ConnectionEvent::FullyNegotiatedInbound(FullyNegotiatedInbound { protocol, info }) => {
                let Some((life, info)) = info else { return };
                if let Some(inner) = self.of(life) {
                    inner.on_connection_event(ConnectionEvent::FullyNegotiatedInbound(
                        FullyNegotiatedInbound { protocol, info },
                    ));
                }
            }
            ConnectionEvent::FullyNegotiatedOutbound(FullyNegotiatedOutbound {
                protocol,
                info: (life, info),
            }) => {
                if let Some(inner) = self.of(life) {
                    inner.on_connection_event(ConnectionEvent::FullyNegotiatedOutbound(
                        FullyNegotiatedOutbound { protocol, info },
                    ));
                }
            }
            ConnectionEvent::DialUpgradeError(DialUpgradeError {
                info: (life, info),
                error,
            }) => {
                if let Some(inner) = self.of(life) {
                    inner.on_connection_event(ConnectionEvent::DialUpgradeError(
                        DialUpgradeError { info, error },
                    ));
                }
            }
            ConnectionEvent::ListenUpgradeError(ListenUpgradeError { info, error }) => {
                let Some((life, info)) = info else { return };
                if let Some(inner) = self.of(life) {
                    inner.on_connection_event(ConnectionEvent::ListenUpgradeError(
                        ListenUpgradeError { info, error },
                    ));
                }
            }
            ConnectionEvent::AddressChange(change) => {
                self.forward(ConnectionEvent::AddressChange(change));
            }
            ConnectionEvent::LocalProtocolsChange(change) => {
                self.forward(ConnectionEvent::LocalProtocolsChange(change));
            }
            ConnectionEvent::RemoteProtocolsChange(change) => {
                self.forward(ConnectionEvent::RemoteProtocolsChange(change));
            }
            _ => {}
        }
    }
}

impl<H: ConnectionHandler> Handler<H> {
    fn forward(
        &mut self,
        event: ConnectionEvent<
            H::InboundProtocol,
            H::OutboundProtocol,
            H::InboundOpenInfo,
            H::OutboundOpenInfo,
        >,
    ) {
        if let Some(inner) = &mut self.inner {
            inner.on_connection_event(event);
        }
    }
}

/// What is offered to the remote: the inner protocol, or nothing.
pub(crate) struct Offer<U>(Option<U>);

impl<U: UpgradeInfoSend> UpgradeInfo for Offer<U> {
    type Info = U::Info;
    type InfoIter = Flatten<option::IntoIter<U::InfoIter>>;

    fn protocol_info(&self) -> Self::InfoIter {
        let names = self.0.as_ref().map(UpgradeInfoSend::protocol_info);
        names.into_iter().flatten()
    }
}

impl<U: InboundUpgradeSend> InboundUpgrade<Stream> for Offer<U> {
    type Output = U::Output;
    type Error = U::Error;
    type Future = U::Future;

    fn upgrade_inbound(self, stream: Stream, name: U::Info) -> U::Future {
        self.0
            .expect("a name is agreed on only where one was offered")
            .upgrade_inbound(stream, name)
    }
}

//! The calls of `wasi:sockets` 0.3 that are counted, in front of Wasmtime's own.
//!
//! A TCP socket of 0.3 outlives its handle for as long as one of its streams does, so its place is held by both.
//! A datagram call reserves the largest datagram while it waits, and a guest may have many calls under way.

use std::sync::Arc;

use wasmtime::{
    AsContextMut, Result, StoreContextMut,
    component::{Access, Accessor, Linker, LinkerInstance, Resource, ResourceType, StreamReader},
};
use wasmtime_wasi::{
    p3::bindings::sockets::types::{
        ErrorCode, Host as _, HostTcpSocket, HostTcpSocketWithStore, HostUdpSocket,
        HostUdpSocketWithStore, IpAddressFamily, IpSocketAddress,
    },
    sockets::{TcpSocket, UdpSocket, WasiSockets, WasiSocketsView},
};

use crate::{
    dns::GateView,
    exit::Limit,
    guest::CellState,
    held::{End, holding},
    places::Place,
};

/// The `wasi:sockets` 0.3 that Wasmtime links.
const TYPES: &str = "wasi:sockets/types@0.3.0";

type Answer<T> = std::result::Result<T, ErrorCode>;
type Sent = End<ErrorCode>;
type Received = (StreamReader<u8>, End<ErrorCode>);

/// Shadows what Wasmtime linked before.
pub(crate) fn add_to_linker(linker: &mut Linker<CellState>) -> Result<()> {
    let mut types = linker.instance(TYPES)?;
    tcp(&mut types)?;
    udp(&mut types)
}

fn tcp(types: &mut LinkerInstance<'_, CellState>) -> Result<()> {
    types.resource(
        "tcp-socket",
        ResourceType::host::<TcpSocket>(),
        |mut store, rep| {
            store.data_mut().tcp_p3.remove(&rep);
            HostTcpSocket::drop(&mut store.data_mut().sockets(), Resource::new_own(rep))
        },
    )?;
    types.func_wrap(
        "[static]tcp-socket.create",
        |mut store: StoreContextMut<'_, CellState>, (family,): (IpAddressFamily,)| {
            Ok((create_tcp(store.data_mut(), family)?,))
        },
    )?;
    types.func_wrap(
        "[method]tcp-socket.send",
        |mut store: StoreContextMut<'_, CellState>,
         (socket, data): (Resource<TcpSocket>, StreamReader<u8>)|
         -> Result<(Sent,)> {
            let place = store.data().tcp_p3.get(&socket.rep()).cloned();
            let access = Access::<_, WasiSockets>::new(store.as_context_mut(), CellState::sockets);
            let sent =
                <WasiSockets as HostTcpSocketWithStore<CellState>>::send(access, socket, data)?;
            Ok((holding(store, sent, place)?,))
        },
    )?;
    types.func_wrap(
        "[method]tcp-socket.receive",
        |mut store: StoreContextMut<'_, CellState>,
         (socket,): (Resource<TcpSocket>,)|
         -> Result<(Received,)> {
            let place = store.data().tcp_p3.get(&socket.rep()).cloned();
            let access = Access::<_, WasiSockets>::new(store.as_context_mut(), CellState::sockets);
            let (data, end) =
                <WasiSockets as HostTcpSocketWithStore<CellState>>::receive(access, socket)?;
            Ok(((data, holding(store, end, place)?),))
        },
    )
}

fn udp(types: &mut LinkerInstance<'_, CellState>) -> Result<()> {
    types.func_wrap_async(
        "[static]udp-socket.create",
        |mut store: StoreContextMut<'_, CellState>, (family,): (IpAddressFamily,)| {
            Box::new(async move { Ok((create_udp(store.data_mut(), family).await?,)) })
        },
    )?;
    types.func_wrap_concurrent(
        "[method]udp-socket.send",
        |accessor: &Accessor<CellState>,
         (socket, data, to): (Resource<UdpSocket>, Vec<u8>, Option<IpSocketAddress>)| {
            Box::pin(async move {
                let Some(_place) = accessor.with(|mut access| access.get().outbound_place()) else {
                    return Ok((Err(ErrorCode::OutOfMemory),));
                };
                let inner = accessor.with_getter::<WasiSockets>(CellState::sockets);
                let call = <WasiSockets as HostUdpSocketWithStore<CellState>>::send(
                    &inner, socket, data, to,
                );
                Ok((answer(accessor, call.await)?,))
            })
        },
    )?;
    types.func_wrap_concurrent(
        "[method]udp-socket.receive",
        |accessor: &Accessor<CellState>, (socket,): (Resource<UdpSocket>,)| {
            Box::pin(async move {
                let Some(_place) = accessor.with(|mut access| access.get().outbound_place()) else {
                    return Ok((Err(ErrorCode::OutOfMemory),));
                };
                let inner = accessor.with_getter::<WasiSockets>(CellState::sockets);
                let call =
                    <WasiSockets as HostUdpSocketWithStore<CellState>>::receive(&inner, socket);
                Ok((answer(accessor, call.await)?,))
            })
        },
    )
}

fn create_tcp(
    state: &mut CellState,
    family: IpAddressFamily,
) -> Result<Answer<Resource<TcpSocket>>> {
    if !GateView(state).room_for_socket() {
        return Ok(Err(ErrorCode::OutOfMemory));
    }
    // There was room a moment ago, and nothing else runs in this cell.
    let Some(place) = state.network.sockets_p3.take() else {
        return Ok(Err(ErrorCode::OutOfMemory));
    };
    let mut sockets = state.sockets();
    match HostTcpSocket::create(&mut sockets, family) {
        Ok(socket) => {
            state.tcp_p3.insert(socket.rep(), Arc::new(place));
            Ok(Ok(socket))
        }
        Err(error) => Ok(Err(sockets.convert_error_code(error)?)),
    }
}

async fn create_udp(
    state: &mut CellState,
    family: IpAddressFamily,
) -> Result<Answer<Resource<UdpSocket>>> {
    if !GateView(state).room_for_socket() {
        return Ok(Err(ErrorCode::OutOfMemory));
    }
    let mut sockets = state.sockets();
    Ok(match HostUdpSocket::create(&mut sockets, family).await {
        Ok(socket) => Ok(socket),
        Err(error) => Err(sockets.convert_error_code(error)?),
    })
}

fn answer<T>(
    accessor: &Accessor<CellState>,
    outcome: wasmtime_wasi::p3::sockets::SocketResult<T>,
) -> Result<Answer<T>> {
    match outcome {
        Ok(value) => Ok(Ok(value)),
        Err(error) => {
            accessor.with(|mut access| Ok(Err(access.get().sockets().convert_error_code(error)?)))
        }
    }
}

impl CellState {
    /// One call on the network; None, counted, when too many are under way.
    pub(crate) fn outbound_place(&mut self) -> Option<Place> {
        let place = self.network.calls.take();
        if place.is_none() {
            self.shared.hit(Limit::Outbound);
        }
        place
    }
}

//! What cells are offered: linked once for each engine, configured for each cell by its grants.

use wasmtime::{
    Engine, Result, StoreContextMut,
    component::{Linker, Resource},
};
use wasmtime_wasi::{
    p2, p3,
    p3::bindings::sockets::types::{
        ErrorCode, Host as _, HostTcpSocket, HostUdpSocket, IpAddressFamily,
    },
    sockets::{TcpSocket, UdpSocket, WasiSocketsView},
};
use wasmtime_wasi_config::WasiConfig;

use crate::{
    dns::{Gate, GateView},
    guest::CellState,
};

/// The `wasi:sockets` 0.3 that Wasmtime links.
const SOCKETS_P3: &str = "wasi:sockets/types@0.3.0";

/// For components: WASI 0.2 and 0.3 side by side, and `wasi:config`.
pub(crate) fn components(engine: &Engine) -> Result<Linker<CellState>> {
    let mut linker = Linker::new(engine);
    p2::add_to_linker_async(&mut linker)?;
    p3::add_to_linker(&mut linker)?;
    wasmtime_wasi_config::add_to_linker(&mut linker, |state: &mut CellState| {
        WasiConfig::from(&state.vars)
    })?;
    linker.allow_shadowing(true);
    p2::bindings::sockets::ip_name_lookup::add_to_linker::<_, Gate>(&mut linker, |state| {
        GateView(state)
    })?;
    p2::bindings::sockets::tcp_create_socket::add_to_linker::<_, Gate>(&mut linker, |state| {
        GateView(state)
    })?;
    p2::bindings::sockets::udp_create_socket::add_to_linker::<_, Gate>(&mut linker, |state| {
        GateView(state)
    })?;
    p3::bindings::sockets::ip_name_lookup::add_to_linker::<_, Gate>(&mut linker, |state| {
        GateView(state)
    })?;
    count_p3_sockets(&mut linker)?;
    Ok(linker)
}

/// For core modules of preview 1.
pub(crate) fn modules(engine: &Engine) -> Result<wasmtime::Linker<CellState>> {
    let mut linker = wasmtime::Linker::new(engine);
    wasmtime_wasi::p1::add_to_linker_async(&mut linker, |state: &mut CellState| &mut state.wasi)?;
    Ok(linker)
}

fn count_p3_sockets(linker: &mut Linker<CellState>) -> Result<()> {
    type Created<T> = (std::result::Result<Resource<T>, ErrorCode>,);
    let mut types = linker.instance(SOCKETS_P3)?;
    types.func_wrap(
        "[static]tcp-socket.create",
        |mut store: StoreContextMut<'_, CellState>,
         (family,): (IpAddressFamily,)|
         -> Result<Created<TcpSocket>> {
            if !GateView(store.data_mut()).room_for_socket() {
                return Ok((Err(ErrorCode::OutOfMemory),));
            }
            let mut sockets = store.data_mut().sockets();
            Ok((match HostTcpSocket::create(&mut sockets, family) {
                Ok(socket) => Ok(socket),
                Err(error) => Err(sockets.convert_error_code(error)?),
            },))
        },
    )?;
    types.func_wrap_async(
        "[static]udp-socket.create",
        |mut store: StoreContextMut<'_, CellState>, (family,): (IpAddressFamily,)| {
            Box::new(async move {
                if !GateView(store.data_mut()).room_for_socket() {
                    return Ok((Err(ErrorCode::OutOfMemory),));
                }
                let mut sockets = store.data_mut().sockets();
                let created: Created<UdpSocket> =
                    (match HostUdpSocket::create(&mut sockets, family).await {
                        Ok(socket) => Ok(socket),
                        Err(error) => Err(sockets.convert_error_code(error)?),
                    },);
                Ok(created)
            })
        },
    )
}

//! What cells are offered: linked once for each engine, configured for each cell by its grants.

use wasmtime::{Engine, Result, component::Linker};
use wasmtime_wasi::{I32Exit, p2, p3};
use wasmtime_wasi_config::WasiConfig;

use crate::{
    dns::{Gate, GateView},
    guest::CellState,
    sockets_p3,
};

const PREVIEW1: &str = "wasi_snapshot_preview1";

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
    sockets_p3::add_to_linker(&mut linker)?;
    Ok(linker)
}

/// For core modules of preview 1.
pub(crate) fn modules(engine: &Engine) -> Result<wasmtime::Linker<CellState>> {
    let mut linker = wasmtime::Linker::new(engine);
    wasmtime_wasi::p1::add_to_linker_async(&mut linker, |state: &mut CellState| &mut state.wasi)?;
    linker.allow_shadowing(true);
    // Wasmtime's own traps for a code above 125, which a shell would take for its own.
    linker.func_wrap(PREVIEW1, "proc_exit", |code: i32| -> Result<()> {
        Err(I32Exit(code).into())
    })?;
    Ok(linker)
}

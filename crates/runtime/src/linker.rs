//! What cells are offered: linked once for each engine, configured for each cell by its grants.

use std::sync::OnceLock;

use wasmtime::{Engine, Result, component::Linker};
use wasmtime_wasi::{I32Exit, p2, p3};
use wasmtime_wasi_config::WasiConfig;

use crate::{
    dns::{Gate, GateView},
    files_p2, files_p3,
    guest::CellState,
    sockets_p3,
};

const PREVIEW1: &str = "wasi_snapshot_preview1";

/// An engine, and what its programs may import. Made when the first one asks for it: that takes about as
/// long as loading a small program.
pub(crate) struct Linked {
    pub(crate) engine: Engine,
    components: OnceLock<Linker<CellState>>,
    modules: OnceLock<wasmtime::Linker<CellState>>,
}

impl std::fmt::Debug for Linked {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Linked").finish_non_exhaustive()
    }
}

impl Linked {
    pub(crate) const fn new(engine: Engine) -> Self {
        Self {
            engine,
            components: OnceLock::new(),
            modules: OnceLock::new(),
        }
    }

    pub(crate) fn components(&self) -> Result<&Linker<CellState>> {
        once(&self.components, || components(&self.engine))
    }

    pub(crate) fn modules(&self) -> Result<&wasmtime::Linker<CellState>> {
        once(&self.modules, || modules(&self.engine))
    }
}

/// Two that ask at once may both make one; either is as good.
fn once<T>(kept: &OnceLock<T>, make: impl FnOnce() -> Result<T>) -> Result<&T> {
    match kept.get() {
        Some(made) => Ok(made),
        None => {
            let made = make()?;
            Ok(kept.get_or_init(|| made))
        }
    }
}

/// For components: WASI 0.2 and 0.3 side by side, and `wasi:config`.
fn components(engine: &Engine) -> Result<Linker<CellState>> {
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
    files_p2::add_to_linker(&mut linker)?;
    files_p3::add_to_linker(&mut linker)?;
    Ok(linker)
}

/// For core modules of preview 1.
fn modules(engine: &Engine) -> Result<wasmtime::Linker<CellState>> {
    let mut linker = wasmtime::Linker::new(engine);
    wasmtime_wasi::p1::add_to_linker_async(&mut linker, |state: &mut CellState| &mut state.wasi)?;
    linker.allow_shadowing(true);
    // Wasmtime's own traps for a code above 125, which a shell would take for its own.
    linker.func_wrap(PREVIEW1, "proc_exit", |code: i32| -> Result<()> {
        Err(I32Exit(code).into())
    })?;
    Ok(linker)
}

//! Messages of the program and its libraries, on standard error.

use std::io::IsTerminal as _;

use tracing_subscriber::{
    EnvFilter, Registry, layer::SubscriberExt as _, reload, util::SubscriberInitExt as _,
};

use crate::{
    commands::{Color, Global},
    error::{CliError, ExitCode, Result},
};

/// What is logged, and whether a file may still say otherwise.
#[derive(Debug)]
pub struct Log {
    filter: reload::Handle<EnvFilter, Registry>,
    asked: bool,
}

impl Log {
    /// Starts logging: `RUST_LOG` has the last word, then the flags.
    pub fn start(global: &Global) -> Self {
        let level = match (global.quiet, global.verbose) {
            (true, _) => "error",
            (false, 0) => "warn,wasmtime_wasi=error,libp2p_kad=error,realm=info,realm_agent=info",
            (false, 1) => "info,realm=debug,realm_agent=debug,realm_p2p=debug",
            (false, _) => "debug",
        };
        let by_variable = EnvFilter::try_from_default_env().ok();
        let asked = by_variable.is_some() || global.quiet || global.verbose > 0;
        let filter = by_variable.unwrap_or_else(|| EnvFilter::new(level));
        let (filter, handle) = reload::Layer::new(filter);
        let plain = global.color == Color::Never || std::env::var_os("NO_COLOR").is_some();
        let lines = tracing_subscriber::fmt::layer()
            .with_ansi(!plain && std::io::stderr().is_terminal())
            .with_writer(std::io::stderr)
            // A closed standard error is no reason to stop: telling of it there would panic.
            .log_internal_errors(false);
        tracing_subscriber::registry()
            .with(filter)
            .with(lines)
            .init();
        Self {
            filter: handle,
            asked,
        }
    }

    /// What a config file says; the variable and the flags go before it.
    pub fn configure(&self, filter: &str) -> Result<()> {
        let parsed = EnvFilter::builder().parse(filter).map_err(|error| {
            CliError::new(ExitCode::Usage, format!("log = {filter:?} cannot be used"))
                .because(&error)
                .help("levels as RUST_LOG has them: log = \"info,realm=debug\"")
        })?;
        if !self.asked {
            let reloaded = self.filter.reload(parsed);
            reloaded.map_err(|error| CliError::failed("logging cannot be set").because(&error))?;
        }
        Ok(())
    }
}

//! Messages of the program and its libraries, on standard error.

use tracing_subscriber::{
    EnvFilter, Registry, layer::SubscriberExt as _, reload, util::SubscriberInitExt as _,
};

use crate::{
    commands::Global,
    error::{CliError, ExitCode, Result},
    output::style,
};

/// What is logged, and whether a file may still say otherwise.
#[derive(Debug)]
pub struct Log {
    filter: reload::Handle<EnvFilter, Registry>,
    asked: bool,
}

impl Log {
    /// Starts logging: `RUST_LOG` has the last word, then the flags. `is_agent` is for what goes to a
    /// log; other commands have a person before them, to whom libraries have nothing to say unless asked.
    pub fn start(global: &Global, is_agent: bool) -> Self {
        let level = match (global.quiet, global.verbose, is_agent) {
            (true, _, true) => "error",
            (true, _, false) => "off,realm=error",
            (false, 0, true) => {
                "warn,wasmtime_wasi=error,libp2p_kad=error,realm=info,realm_agent=info"
            }
            // A target stands for all that begin with it: those of all crates here.
            (false, 0, false) => "off,realm=info",
            (false, 1, _) => "info,realm=debug,realm_agent=debug,realm_p2p=debug",
            (false, _, _) => "debug",
        };
        let by_variable = EnvFilter::try_from_default_env().ok();
        let asked = by_variable.is_some() || global.quiet || global.verbose > 0;
        let filter = by_variable.unwrap_or_else(|| EnvFilter::new(level));
        let (filter, handle) = reload::Layer::new(filter);
        let lines = tracing_subscriber::fmt::layer()
            .with_ansi(style::errors_in_colour())
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

//! Limits and grants of a cell as flags: the same for a push, a run and a node's own program.

use std::path::PathBuf;

use realm_manifest::{Limits, Outbound, Volume, units};

use crate::{
    error::{CliError, Context as _, ExitCode, Result},
    file,
};

/// Largest env file read; a whole payload must stay below 48 KiB anyway.
const MAX_ENV_FILE: u64 = 64 * 1024;

/// How much of the machine a cell may use. A number below 0 reaches the parser of its value, which
/// says what is wrong with it.
#[derive(Debug, Clone, clap::Args)]
#[group(skip)]
pub struct LimitArgs {
    /// Memory of one cell, in MiB.
    #[arg(long, value_name = "MIB", allow_negative_numbers = true)]
    pub memory_max_mb: Option<u32>,
    /// Fuel per start; 0 is unlimited.
    #[arg(long, allow_negative_numbers = true)]
    pub fuel: Option<u64>,
    /// Fuel per second; 0 is unlimited.
    #[arg(long, value_name = "FUEL", allow_negative_numbers = true)]
    pub fuel_per_sec: Option<u64>,
    /// The longest a cell runs before others get their turn.
    #[arg(long, value_name = "MS", allow_negative_numbers = true)]
    pub epoch_ms: Option<u32>,
    /// Longest one invocation may take.
    #[arg(long, value_name = "MS", allow_negative_numbers = true)]
    pub deadline_ms: Option<u64>,
}

/// What a cell may reach.
#[derive(Debug, Clone, clap::Args)]
#[group(skip)]
pub struct GrantArgs {
    /// An environment variable; repeatable. A push replaces all of those before.
    #[arg(long = "env", value_name = "KEY=VALUE", value_parser = units::pair)]
    pub env: Vec<(String, String)>,
    /// A file of KEY=VALUE lines.
    #[arg(long, value_name = "FILE")]
    pub env_file: Option<PathBuf>,
    /// A value it reads through wasi:config; repeatable.
    #[arg(long = "var", value_name = "KEY=VALUE", value_parser = units::pair)]
    pub vars: Vec<(String, String)>,
    /// A volume: a name or a host directory, as SRC:GUEST[:ro|rw]; read-only unless rw is
    /// said; repeatable.
    #[arg(long = "volume", value_name = "SRC:GUEST[:ro|rw]", value_parser = volume)]
    pub volumes: Vec<Volume>,
    /// An address it may connect to: scheme://host[:port], such as tcp://192.0.2.7:5432, with a name,
    /// an address or a CIDR; any port where none is given. A name never permits a private address
    /// unless ?private stands behind it. Repeatable.
    #[arg(long = "allow", value_name = "ADDRESS")]
    pub allow: Vec<Outbound>,
}

/// A volume; a host directory may be given from where the person stands.
fn volume(text: &str) -> std::result::Result<Volume, String> {
    let here = |text: &str| text.starts_with("./") || text.starts_with("../");
    let told = match text.split_once(':') {
        Some((directory, rest)) if here(directory) => {
            let real = std::fs::canonicalize(directory)
                .map_err(|error| format!("{directory}: {error}"))?;
            format!("{}:{rest}", real.display())
        }
        _ => text.to_owned(),
    };
    told.parse()
        .map_err(|error: realm_manifest::VolumeError| error.to_string())
}

impl LimitArgs {
    /// Whether one was given, be it the default's value.
    pub const fn any(&self) -> bool {
        let Self {
            memory_max_mb,
            fuel,
            fuel_per_sec,
            epoch_ms,
            deadline_ms,
        } = self;
        memory_max_mb.is_some()
            || fuel.is_some()
            || fuel_per_sec.is_some()
            || epoch_ms.is_some()
            || deadline_ms.is_some()
    }

    /// `limits` with what was given.
    pub fn over(&self, limits: Limits) -> Limits {
        Limits {
            memory_max_mb: self.memory_max_mb.unwrap_or(limits.memory_max_mb),
            fuel: self.fuel.unwrap_or(limits.fuel),
            fuel_per_sec: self.fuel_per_sec.unwrap_or(limits.fuel_per_sec),
            epoch_ms: self.epoch_ms.unwrap_or(limits.epoch_ms),
            deadline_ms: self.deadline_ms.or(limits.deadline_ms),
            ..limits
        }
    }
}

impl GrantArgs {
    /// The variables of the file and of the flags; a flag has the last word.
    pub fn env(&self) -> Result<Vec<(String, String)>> {
        let mut env = Vec::new();
        if let Some(path) = &self.env_file {
            let described = || format!("cannot read {}", path.display());
            let bytes = file::read(path, MAX_ENV_FILE)
                .context(described())?
                .ok_or_else(|| {
                    CliError::new(
                        ExitCode::NotFound,
                        format!("there is no file {}", path.display()),
                    )
                })?;
            let text = String::from_utf8(bytes).context_code(ExitCode::Usage, described())?;
            env = units::env_file(&text).context_code(ExitCode::Usage, described())?;
        }
        env.retain(|(key, _)| !self.env.iter().any(|(flag, _)| flag == key));
        env.extend(self.env.clone());
        units::sorted_pairs(env).context_code(ExitCode::Usage, "cannot use --env")
    }

    pub fn vars(&self) -> Result<Vec<(String, String)>> {
        units::sorted_pairs(self.vars.clone()).context_code(ExitCode::Usage, "cannot use --var")
    }
}

//! Mistakes of whoever starts an agent, found before it opens its data.

use std::{error::Error, fs, io, os::unix::fs::PermissionsExt as _, path::Path, time::Duration};

use realm_agent::{Config, Local, StartError};
use realm_manifest::{ComponentSpec, Limits};
use realm_store::DirError;

use super::Args;
use crate::{
    artifact::LocalArtifact,
    error::{CliError, Context as _, ExitCode, Result},
    token,
};

/// The first key that comes is trusted for a day at most: whoever sets a node up is there by then.
const MAX_TRUST: Duration = Duration::from_secs(24 * 60 * 60);

/// Others may not be kept from what is in such a directory, as in /tmp.
const STICKY: u32 = 0o1000;

/// What was given, as far as it can be told without the network or the data directory.
pub fn check(config: &Config) -> Result<()> {
    let wrong = "the agent cannot listen there";
    for address in &config.listen {
        realm_p2p::check_listen_address(address).context_code(ExitCode::Usage, wrong)?;
    }
    let wrong = "the agent cannot dial such a node";
    for address in &config.bootstrap {
        realm_p2p::check_address(address).context_code(ExitCode::Usage, wrong)?;
    }
    if let Some(time) = config.trust_first_use
        && (time.is_zero() || time > MAX_TRUST)
    {
        let message = "--trust-first-use is open for more than no time, and 24h at most";
        return Err(
            CliError::new(ExitCode::Usage, message).help("for example --trust-first-use 10m")
        );
    }
    if let Some(text) = &config.enroll {
        token::parse(text)?;
    }
    Ok(())
}

/// The program of --wasm, which must be one that runs.
pub fn local(args: &Args) -> Result<Option<Local>> {
    let Some(file) = &args.wasm else {
        if !args.limits.any() {
            return Ok(None);
        }
        return Err(CliError::new(
            ExitCode::Usage,
            "limits on the command line are those of --wasm FILE, which is missing",
        )
        .help("limits of pushed components are set by realm push"));
    };
    if file.as_os_str() == "-" {
        let message = "--wasm takes a file: at its next start the agent reads it again";
        return Err(CliError::new(ExitCode::Usage, message));
    }
    let program = LocalArtifact::open(file)?;
    if program.is_library {
        let message = format!("{} is a library: it has nothing to run", file.display());
        return Err(
            CliError::new(ExitCode::Usage, message).help("see what it exports: realm inspect FILE")
        );
    }
    let limits = args.limits.over(Limits::default());
    let mut spec = ComponentSpec::new(program.artifact);
    spec.limits = limits.clone();
    spec.validate()
        .context_code(ExitCode::Usage, "these limits cannot be used")?;
    let file = file.clone();
    Ok(Some(Local { file, limits }))
}

/// Why an agent did not start, and what to do.
pub fn not_started(error: &StartError, data: &Path) -> CliError {
    if let StartError::Enroll(refused) = error {
        return token::not_taken_up(refused);
    }
    let said = CliError::failed("the agent cannot start").because(error);
    if let StartError::Dir(DirError::Foreign { .. }) = error {
        return said.help("name the agent's own: --data DIR; it is made where it is missing");
    }
    match no_room(error, data) {
        Some(help) => said.help(help),
        None => explained(said, data),
    }
}

/// What to do about a disk that has no room for what an agent writes on its start.
fn no_room(error: &(dyn Error + 'static), data: &Path) -> Option<String> {
    let mut chain = std::iter::successors(Some(error), |error| (*error).source());
    let is_full = chain.any(|error| {
        let io = error.downcast_ref::<io::Error>();
        io.is_some_and(|error| {
            matches!(
                error.kind(),
                io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded
            )
        })
    });
    let path = data.display();
    is_full.then(|| format!("free space where {path} lies, and start it again; nothing is lost"))
}

/// Adds what to do where the data directory is one that others write to.
fn explained(error: CliError, data: &Path) -> CliError {
    let mode = fs::metadata(data).map(|data| data.permissions().mode());
    let is_shared = mode.is_ok_and(|mode| mode & STICKY != 0 && mode & 0o022 != 0);
    if !is_shared || error.help.is_some() {
        return error;
    }
    let path = data.display();
    error.help(format!(
        "choose another one: --data DIR; or, where it is meant for the agent alone: chmod 700 {path}"
    ))
}

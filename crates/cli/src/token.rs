//! Invite tokens where a node takes one up: `realm enroll` and `realm agent` answer alike.

use std::{io::Read as _, path::Path};

use realm_agent::trust::TrustError;
use realm_identity::{InviteError, InviteToken};

use crate::{
    error::{CliError, Context as _, ExitCode, Result},
    file,
};

/// A token is shorter than this, whatever is in it.
const MAX_BYTES: u64 = 16 * 1024;

/// Reads the text of a token from a file, or from standard input.
pub fn read(path: &Path) -> Result<String> {
    let described = || format!("cannot read the token in {}", path.display());
    let mut bytes = Vec::new();
    if path.as_os_str() == "-" {
        std::io::stdin()
            .take(MAX_BYTES)
            .read_to_end(&mut bytes)
            .context(described())?;
    } else {
        bytes = file::read(path, MAX_BYTES)
            .context(described())?
            .ok_or_else(|| CliError::new(ExitCode::NotFound, described()))?;
    }
    Ok(String::from_utf8_lossy(&bytes).trim().to_owned())
}

/// A token that is whole, and signed by the owner of the realm that it is for.
pub fn parse(text: &str) -> Result<InviteToken> {
    let help = "copy the whole of it; or make a new one where the owner's key is: realm invite";
    text.parse()
        .context_code(ExitCode::Usage, "this is not a usable invite token")
        .map_err(|error| error.help(help))
}

/// A node that does not take up a token which is whole.
pub fn not_taken_up(error: &TrustError) -> CliError {
    let (code, help) = match error {
        TrustError::Invite(InviteError::Early) => (
            ExitCode::NotAuthorised,
            "set the clock that is wrong, here or where it was made; or make a new one where the owner's key is: realm invite",
        ),
        TrustError::Invite(_) => (
            ExitCode::NotAuthorised,
            "make a new one where the owner's key is: realm invite",
        ),
        TrustError::Refused(_) => (
            ExitCode::NotAuthorised,
            "a node is in one realm: to let this one into another, realm leave, then again",
        ),
        _ => (
            ExitCode::Failed,
            "mend the node's data directory, then again: the invite is still good",
        ),
    };
    CliError::new(code, "the invite was not taken up")
        .because(error)
        .help(help)
}

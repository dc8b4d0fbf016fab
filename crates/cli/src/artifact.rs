//! A program in a local file or from standard input, with its digests.

use std::{
    fs::File,
    io::{Cursor, Read},
    path::Path,
};

use realm_identity::Artifact;
use realm_manifest::units::size_text;

use crate::error::{CliError, Context as _, ExitCode, Result};

/// Largest program taken: what a node's compiler is given.
pub const MAX_BYTES: u64 = 256 * 1024 * 1024;

#[derive(Debug)]
pub struct LocalArtifact {
    pub artifact: Artifact,
    /// Whether it has nothing to run.
    pub is_library: bool,
    bytes: Vec<u8>,
}

impl LocalArtifact {
    /// Reads the program. What no node could run is refused before it is signed and sent to all of
    /// them.
    pub fn open(path: &Path) -> Result<Self> {
        let bytes = read(path)?;
        if !bytes.starts_with(b"\0asm") {
            return Err(CliError::new(
                ExitCode::Usage,
                format!("{} is not WebAssembly", path.display()),
            )
            .help("see what it is: realm inspect FILE"));
        }
        let refused = || format!("{} cannot run", path.display());
        let inspection = realm_runtime::inspect(&bytes).context_code(ExitCode::Usage, refused())?;
        inspection
            .check()
            .context_code(ExitCode::Usage, refused())
            .map_err(|error| error.help("see all that it imports: realm inspect FILE"))?;
        Ok(Self {
            artifact: Artifact::of(&bytes),
            is_library: inspection.entry.is_none(),
            bytes,
        })
    }

    /// The bytes from `offset` on.
    pub fn from(&self, offset: u64) -> impl Read {
        let mut bytes = Cursor::new(&self.bytes);
        bytes.set_position(offset);
        bytes
    }
}

/// Reads a whole program; `-` is standard input.
pub fn read(path: &Path) -> Result<Vec<u8>> {
    if path.as_os_str() == "-" {
        return read_all(std::io::stdin(), "standard input");
    }
    let described = || format!("cannot read {}", path.display());
    let file = match File::open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            let message = format!("there is no file {}", path.display());
            return Err(CliError::new(ExitCode::NotFound, message));
        }
        Err(error) => return Err(error).context(described()),
    };
    if file.metadata().context(described())?.is_dir() {
        let message = format!("{} is a directory", path.display());
        return Err(CliError::new(ExitCode::Usage, message));
    }
    read_all(file, &path.display().to_string())
}

fn read_all(source: impl Read, name: &str) -> Result<Vec<u8>> {
    let mut bytes = Vec::new();
    source
        .take(MAX_BYTES + 1)
        .read_to_end(&mut bytes)
        .context(format!("cannot read {name}"))?;
    if bytes.len() as u64 > MAX_BYTES {
        let max = size_text(MAX_BYTES);
        let message = format!("{name} is larger than {max}");
        return Err(CliError::new(ExitCode::Usage, message));
    }
    Ok(bytes)
}

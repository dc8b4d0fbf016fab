//! A program in a local file, with its digests.

use std::{
    fs::File,
    io::{Read as _, Seek as _, SeekFrom},
    path::{Path, PathBuf},
};

use realm_identity::Artifact;

use crate::error::{CliError, Context as _, ExitCode, Result};

/// Largest program taken: what a node's compiler is given.
pub const MAX_BYTES: u64 = 256 * 1024 * 1024;

#[derive(Debug)]
pub struct LocalArtifact {
    pub artifact: Artifact,
    path: PathBuf,
    file: File,
}

/// Reads a whole program.
pub fn read(path: &Path) -> Result<Vec<u8>> {
    let (_, bytes) = open(path)?;
    Ok(bytes)
}

impl LocalArtifact {
    /// Reads the file once for its digests. Refuses what cannot be WebAssembly before a node is asked.
    pub fn open(path: &Path) -> Result<Self> {
        let (file, bytes) = open(path)?;
        if !bytes.starts_with(b"\0asm") {
            return Err(CliError::new(
                ExitCode::Usage,
                format!("{} is not WebAssembly", path.display()),
            )
            .help("see what it is: realm inspect FILE"));
        }
        // A node would refuse it too, after it was signed and sent to all of them.
        realm_runtime::inspect(&bytes)
            .context_code(ExitCode::Usage, format!("{} cannot run", path.display()))?;
        Ok(Self {
            artifact: Artifact::of(&bytes),
            path: path.to_path_buf(),
            file,
        })
    }

    /// The bytes from `offset` on.
    pub fn from(&mut self, offset: u64) -> Result<&mut File> {
        let sought = self.file.seek(SeekFrom::Start(offset));
        sought.context(format!("cannot read {}", self.path.display()))?;
        Ok(&mut self.file)
    }
}

fn open(path: &Path) -> Result<(File, Vec<u8>)> {
    let described = || format!("cannot read {}", path.display());
    let mut file = match File::open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            let message = format!("there is no file {}", path.display());
            return Err(CliError::new(ExitCode::NotFound, message));
        }
        Err(error) => return Err(error).context(described()),
    };
    let metadata = file.metadata().context(described())?;
    let refused = |why: String| Err(CliError::new(ExitCode::Usage, why));
    if metadata.is_dir() {
        return refused(format!("{} is a directory", path.display()));
    }
    if metadata.len() > MAX_BYTES {
        return refused(format!(
            "{} is larger than {} MiB",
            path.display(),
            MAX_BYTES / 1024 / 1024
        ));
    }
    let mut bytes = Vec::new();
    (&mut file)
        .take(MAX_BYTES + 1)
        .read_to_end(&mut bytes)
        .context(described())?;
    if bytes.len() as u64 > MAX_BYTES {
        return Err(CliError::new(
            ExitCode::Usage,
            format!(
                "{} is larger than {} MiB",
                path.display(),
                MAX_BYTES / 1024 / 1024
            ),
        ));
    }
    Ok((file, bytes))
}

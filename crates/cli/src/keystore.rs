//! The owner's key: a private file, an encrypted one, or one that an ssh-agent holds.

use std::{
    io::{IsTerminal as _, Read as _},
    path::{Path, PathBuf},
};

use realm_identity::{
    PublicKey, SecretKey, Signature, Signer,
    format::{self, EncryptionNonce, Format},
};
use zeroize::Zeroizing;

use crate::{
    error::{CliError, Context as _, ExitCode, Result},
    file,
    ssh_agent::{SignError, SshAgentKey},
};

pub const MAX_BYTES: u64 = format::MAX_KEY_TEXT_BYTES as u64;

/// Signs as the owner.
pub enum OwnerKey {
    Memory(SecretKey),
    SshAgent(SshAgentKey),
}

/// Where a passphrase comes from: a file, standard input (`-`), or a prompt.
#[derive(Debug, Clone, Default)]
pub struct PassphraseSource {
    pub file: Option<PathBuf>,
}

/// Loads the owner's key from `path`. A file that holds a public key names one in the ssh-agent.
pub fn load(path: &Path, passphrase: &PassphraseSource) -> Result<OwnerKey> {
    let text = read_text(path)?;
    check_private(path, &text)?;
    if let Ok(public) = format::read_public(&text) {
        return SshAgentKey::connect(public).map(OwnerKey::SshAgent);
    }
    let described = || format!("cannot read the key in {}", path.display());
    let secret = if format::is_encrypted(&text).context(described())? {
        let passphrase = passphrase.read(&format!("Passphrase of {}", path.display()))?;
        format::read_secret(&text, Some(passphrase.as_bytes()))
    } else {
        format::read_secret(&text, None)
    };
    secret
        .context_code(ExitCode::NotAuthorised, described())
        .map(OwnerKey::Memory)
}

/// How a key file is protected.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Protection {
    /// By its permissions alone.
    None,
    Passphrase,
    /// The file names a key that an ssh-agent holds.
    SshAgent,
}

pub fn protection(path: &Path) -> Result<Protection> {
    let text = read_text(path)?;
    if format::read_public(&text).is_ok() {
        return Ok(Protection::SshAgent);
    }
    let encrypted = format::is_encrypted(&text);
    let encrypted = encrypted.context(format!("cannot read the key in {}", path.display()))?;
    Ok(if encrypted {
        Protection::Passphrase
    } else {
        Protection::None
    })
}

/// How a key file is protected, if it is whole as far as can be told without a passphrase, and nobody
/// else reads it.
pub fn check(path: &Path) -> Result<Protection> {
    let protection = protection(path)?;
    match protection {
        Protection::None => drop(load(path, &PassphraseSource::default())?),
        Protection::Passphrase => check_private(path, &read_text(path)?)?,
        Protection::SshAgent => {}
    }
    Ok(protection)
}

/// The public half, without a passphrase or an ssh-agent where the file shows it.
pub fn load_public(path: &Path, passphrase: &PassphraseSource) -> Result<PublicKey> {
    let text = read_text(path)?;
    if let Ok(public) = format::read_public(&text) {
        return Ok(public);
    }
    if let Ok(secret) = format::read_secret(&text, None) {
        return Ok(secret.public());
    }
    // An encrypted file keeps its public half beside it, in the open.
    let beside = path.with_extension("pub");
    if let Some(bytes) = file::read(&beside, MAX_BYTES).context("cannot read the public key")?
        && let Ok(public) = format::read_public(&String::from_utf8_lossy(&bytes))
    {
        return Ok(public);
    }
    load(path, passphrase).map(|key| Signer::public(&key))
}

/// Makes a key file, with its public half beside it as `.pub`. Never overwrites.
pub fn create(path: &Path, key: &SecretKey, passphrase: Option<&str>) -> Result<()> {
    let comment = "realm-owner";
    let text = match passphrase {
        Some(passphrase) => {
            format::encrypt_secret(key, comment, passphrase.as_bytes(), encryption_nonce()?)
        }
        None => format::write_secret(key, Format::OpenSsh, comment),
    }
    .context("cannot write the key as text")?;
    keep(path, text.as_bytes())?;
    create_public(&path.with_extension("pub"), key.public())
}

/// Puts the public half beside a key where it is missing, as after a command that was cut short.
pub fn complete(path: &Path, public: PublicKey) -> Result<()> {
    let beside = path.with_extension("pub");
    if beside.exists() || protection(path)? == Protection::SshAgent {
        return Ok(());
    }
    create_public(&beside, public)
}

/// Keeps the public half only: the ssh-agent has the private one.
pub fn create_for_agent(path: &Path, public: PublicKey) -> Result<()> {
    let line = format::write_public(&public, Format::OpenSsh, "realm-owner")
        .context("cannot write the key as text")?;
    keep(path, format!("{line}\n").as_bytes())
}

fn create_public(path: &Path, public: PublicKey) -> Result<()> {
    let line = format::write_public(&public, Format::OpenSsh, "realm-owner")
        .context("cannot write the key as text")?;
    file::replace(path, format!("{line}\n").as_bytes())
        .context(format!("cannot write {}", path.display()))
}

fn keep(path: &Path, bytes: &[u8]) -> Result<()> {
    match file::create(path, bytes) {
        Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => {
            Err(CliError::failed(format!(
                "{} exists already; keys are never overwritten",
                path.display()
            ))
            .help("use it as it is: realm key show; or name another file with --key"))
        }
        result => result.context(format!("cannot write {}", path.display())),
    }
}

/// Refuses a private key that others can read, as ssh does.
fn check_private(path: &Path, text: &str) -> Result<()> {
    use std::os::unix::fs::PermissionsExt as _;

    let described = || format!("cannot read the key in {}", path.display());
    let meta = std::fs::metadata(path).context(described())?;
    // What is no key at all, or no file that keeps one, is said by whoever reads it as a key.
    let is_key = meta.is_file() && format::is_encrypted(text).is_ok();
    if !is_key || meta.permissions().mode() & 0o077 == 0 || format::read_public(text).is_ok() {
        return Ok(());
    }
    Err(CliError::new(
        ExitCode::NotAuthorised,
        format!("others can read the private key in {}", path.display()),
    )
    .help(format!("make it yours alone: chmod 600 {}", path.display())))
}

fn read_text(path: &Path) -> Result<Zeroizing<String>> {
    let described = format!("cannot read the key in {}", path.display());
    read_secret_text(path, &described)?.ok_or_else(|| {
        CliError::new(
            ExitCode::NotFound,
            format!("there is no owner key at {}", path.display()),
        )
        .help("make one: realm init; or name its file with --key")
    })
}

fn read_secret_text(path: &Path, described: &str) -> Result<Option<Zeroizing<String>>> {
    let Some(bytes) = file::read(path, MAX_BYTES).context(described)? else {
        return Ok(None);
    };
    let bytes = Zeroizing::new(bytes);
    let text = std::str::from_utf8(&bytes).context(described)?;
    Ok(Some(Zeroizing::new(text.to_owned())))
}

/// A passphrase file; a pipe will do, as in `--passphrase-file <(pass show realm)`.
fn read_passphrase(path: &Path) -> Result<Zeroizing<String>> {
    let described = format!("cannot read the passphrase in {}", path.display());
    read_secret_text(path, &described)?.ok_or_else(|| {
        CliError::new(
            ExitCode::NotFound,
            format!("there is no passphrase file {}", path.display()),
        )
        .help("name a file with the passphrase: --passphrase-file FILE, or - for standard input")
    })
}

impl PassphraseSource {
    pub fn read(&self, prompt: &str) -> Result<Zeroizing<String>> {
        let text = match &self.file {
            Some(path) if path.as_os_str() == "-" => {
                let mut text = Zeroizing::new(String::new());
                std::io::stdin()
                    .take(MAX_BYTES)
                    .read_to_string(&mut text)
                    .context("cannot read the passphrase from standard input")?;
                text
            }
            Some(path) => read_passphrase(path)?,
            None if std::io::stdin().is_terminal() => dialoguer::Password::new()
                .with_prompt(prompt)
                .interact()
                .map(Zeroizing::new)
                .context("cannot read the passphrase")?,
            None => {
                return Err(CliError::new(
                    ExitCode::NotAuthorised,
                    "a passphrase is needed, and there is no terminal to ask at",
                )
                .help("give it in a file: --passphrase-file FILE, or - for standard input"));
            }
        };
        Ok(Zeroizing::new(
            text.trim_end_matches(['\r', '\n']).to_owned(),
        ))
    }

    /// Asks for a new passphrase, twice at a terminal.
    pub fn read_new(&self) -> Result<Zeroizing<String>> {
        let first = self.read("New passphrase")?;
        if first.is_empty() {
            return Err(
                CliError::new(ExitCode::Usage, "an empty passphrase protects nothing")
                    .help("leave --passphrase out for a key without one"),
            );
        }
        if self.file.is_none() && *self.read("The same again")? != *first {
            return Err(CliError::new(ExitCode::Usage, "the two passphrases differ"));
        }
        Ok(first)
    }
}

impl Signer for OwnerKey {
    type Error = SignError;

    fn public(&self) -> PublicKey {
        match self {
            Self::Memory(key) => key.public(),
            Self::SshAgent(key) => key.public(),
        }
    }

    fn sign(&self, message: &[u8]) -> std::result::Result<Signature, SignError> {
        match self {
            Self::Memory(key) => match Signer::sign(key, message) {
                Ok(signature) => Ok(signature),
                Err(never) => match never {},
            },
            Self::SshAgent(key) => key.sign(message),
        }
    }
}

impl OwnerKey {
    /// Why the key did not sign when it was asked last; what a node made of that is not its fault.
    pub fn failure(&self) -> Option<CliError> {
        match self {
            Self::Memory(_) => None,
            Self::SshAgent(key) => key.failure(),
        }
    }
}

impl std::fmt::Debug for OwnerKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "OwnerKey({})", Signer::public(self))
    }
}

/// Random bytes from the operating system.
pub fn random<const N: usize>() -> Result<[u8; N]> {
    let mut bytes = [0; N];
    getrandom::fill(&mut bytes).context("the operating system gives no random numbers")?;
    Ok(bytes)
}

fn encryption_nonce() -> Result<EncryptionNonce> {
    Ok(EncryptionNonce {
        salt: random()?,
        check: u32::from_le_bytes(random()?),
    })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    #[test]
    fn no_bit_that_turns_over_makes_another_key() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("owner.key");
        let key = SecretKey::from_seed(&[7; 32]);
        create(&path, &key, None).unwrap();
        let source = PassphraseSource::default();
        let (mut same, mut refused) = (0, 0);
        for file in [path.clone(), path.with_extension("pub")] {
            let whole = std::fs::read(&file).unwrap();
            for at in 0..whole.len() * 8 {
                let mut flipped = whole.clone();
                flipped[at / 8] ^= 1 << (at % 8);
                std::fs::write(&file, flipped).unwrap();
                match load_public(&path, &source) {
                    Ok(public) => assert_eq!(public, key.public(), "bit {at}"),
                    Err(error) => {
                        let name = path.display().to_string();
                        assert!(error.message.contains(&name), "bit {at}: {error}");
                    }
                }
                match load(&path, &source) {
                    Ok(loaded) => {
                        assert_eq!(Signer::public(&loaded), key.public(), "bit {at}");
                        same += 1;
                    }
                    Err(_) => refused += 1,
                }
            }
            std::fs::write(&file, whole).unwrap();
        }
        assert!(same > 100 && refused > 100, "{same} {refused}");
    }
}

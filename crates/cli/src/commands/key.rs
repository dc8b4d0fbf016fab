//! `realm key show|export|import`: the owner's key in other programs' formats.

use std::path::PathBuf;

use realm_identity::format::{self, Format};

use crate::{
    commands::{Session, rotate},
    error::{CliError, Context as _, ExitCode, Result},
    file,
    keystore::{self, OwnerKey},
};

#[derive(Debug, clap::Subcommand)]
pub enum Command {
    /// Print the owner's public key.
    Show {
        #[arg(long, value_name = "base58|openssh|pem", default_value = "base58")]
        format: Format,
    },
    /// Write the owner's private key to a file that must not exist yet, or to standard output (-).
    Export {
        file: PathBuf,
        #[arg(long, value_name = "base58|openssh|pem", default_value = "openssh")]
        format: Format,
    },
    /// Take a private key made elsewhere as the owner key; never overwrites one.
    Import {
        /// A file in any format that export writes, or - for standard input.
        file: PathBuf,
        /// Encrypt it at rest with a new passphrase.
        #[arg(long, conflicts_with = "no_passphrase")]
        passphrase: bool,
        /// Keep it unencrypted, though the file that it comes from is encrypted.
        #[arg(long)]
        no_passphrase: bool,
    },
    /// Hand the realm to another owner key; a new one by default.
    Rotate(rotate::Args),
}

pub fn run(command: &Command, session: &Session) -> Result<ExitCode> {
    let done = match command {
        Command::Rotate(args) => return rotate::run(args, session),
        Command::Show { format } => show(*format, session),
        Command::Export { file, format } => export(file, *format, session),
        Command::Import {
            file,
            passphrase,
            no_passphrase,
        } => import(file, *passphrase, *no_passphrase, session),
    };
    done.map(|()| ExitCode::Ok)
}

fn show(format: Format, session: &Session) -> Result<()> {
    let path = session.settings.key_path();
    let public = keystore::load_public(&path, &session.passphrase)?;
    if session.output.json() {
        return session.output.object(&serde_json::json!({
            "key": public, "fingerprint": public.words(), "file": path,
        }));
    }
    let text = format::write_public(&public, format, "realm-owner")
        .context("cannot write the key as text")?;
    session.output.text(text.trim_end())
}

fn export(target: &std::path::Path, format: Format, session: &Session) -> Result<()> {
    let key = keystore::load(&session.settings.key_path(), &session.passphrase)?;
    let OwnerKey::Memory(secret) = &key else {
        return Err(
            CliError::failed("the ssh-agent holds this key and does not give it out")
                .help("export it with the program that added it to the ssh-agent"),
        );
    };
    let text = format::write_secret(secret, format, "realm-owner")
        .context("cannot write the key as text")?;
    if target.as_os_str() == "-" {
        return session.output.text(text.trim_end());
    }
    file::create(target, text.as_bytes())
        .context(format!("cannot write {}", target.display()))
        .map_err(|error| error.help("export never overwrites a file"))?;
    session.output.say(format!(
        "✓ wrote the private key to {}: keep it offline",
        target.display()
    ));
    Ok(())
}

fn import(
    source: &std::path::Path,
    passphrase: bool,
    no_passphrase: bool,
    session: &Session,
) -> Result<()> {
    let text = read_source(source)?;
    let described = || format!("cannot read the key in {}", source.display());
    let encrypted = format::is_encrypted(&text).context_code(ExitCode::Usage, described())?;
    if encrypted && !passphrase && !no_passphrase {
        return Err(
            CliError::new(ExitCode::Usage, "this key has a passphrase").help(
                "choose: --passphrase for a new one here, or --no-passphrase to keep it unencrypted",
            ),
        );
    }
    let opened = if encrypted {
        let words = session
            .passphrase
            .read(&format!("Passphrase of {}", source.display()))?;
        format::read_secret(&text, Some(words.as_bytes()))
    } else {
        format::read_secret(&text, None)
    };
    let key = opened.context_code(ExitCode::Usage, described())?;
    let words = if passphrase {
        Some(session.passphrase.read_new()?)
    } else {
        None
    };
    let path = session.settings.key_path();
    keystore::create(&path, &key, words.as_ref().map(|text| text.as_str()))?;
    session
        .output
        .say(format!("✓ owner key  {}  {}", path.display(), key.public()));
    Ok(())
}

fn read_source(source: &std::path::Path) -> Result<zeroize::Zeroizing<String>> {
    use std::io::Read as _;

    let max = format::MAX_KEY_TEXT_BYTES as u64;
    let described = || format!("cannot read {}", source.display());
    let mut text = zeroize::Zeroizing::new(String::new());
    if source.as_os_str() == "-" {
        std::io::stdin()
            .take(max)
            .read_to_string(&mut text)
            .context(described())?;
        return Ok(text);
    }
    let bytes = file::read(source, max)
        .context(described())?
        .ok_or_else(|| {
            CliError::new(
                ExitCode::NotFound,
                format!("there is no file {}", source.display()),
            )
        })?;
    let bytes = zeroize::Zeroizing::new(bytes);
    text.push_str(std::str::from_utf8(&bytes).context(described())?);
    Ok(text)
}

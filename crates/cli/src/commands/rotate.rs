//! `realm key rotate`: hands the realm to another owner key.

use std::path::{Path, PathBuf};

use realm_identity::{PublicKey, SecretKey, Signer as _, Target, format};
use realm_manifest::payload::{Note, Payload};
use realm_planner::State;
use zeroize::Zeroizing;

use crate::{
    commands::{Session, lifecycle},
    connection,
    error::{CliError, Context as _, ExitCode, Result},
    file,
    intent::{self, Durable},
    keystore,
    output::confirm,
    realms::{Realm, Realms},
};

#[derive(Debug, clap::Args)]
#[command(
    after_help = "The old key is kept beside the new one, and is of no use to this realm any more. A rotation that\nwas interrupted is finished by running the command again."
)]
pub struct Args {
    /// Hand the realm to this public key, whose private half somebody else holds.
    #[arg(long, value_name = "KEY", conflicts_with_all = ["passphrase", "no_passphrase"])]
    pub to: Option<PublicKey>,
    /// Encrypt the new key at rest with a new passphrase.
    #[arg(long, conflicts_with = "no_passphrase")]
    pub passphrase: bool,
    /// Leave the new key unencrypted, though the present one is encrypted.
    #[arg(long)]
    pub no_passphrase: bool,
    /// Do not ask.
    #[arg(long)]
    pub yes: bool,
    /// Why; recorded in the history.
    #[arg(short = 'm', long = "message", value_name = "TEXT")]
    pub note: Option<String>,
}

pub fn run(args: &Args, session: &Session) -> Result<ExitCode> {
    connection::block_on(async {
        let realm = session.realm()?;
        match args.to {
            Some(to) => hand_over(to, args, &realm, session).await,
            None => rotate(args, &realm, session).await,
        }
    })
}

async fn hand_over(
    to: PublicKey,
    args: &Args,
    realm: &Realm,
    session: &Session,
) -> Result<ExitCode> {
    let name = &realm.genesis.name;
    session.output.say(format!("{to}  {}", to.words()));
    confirm(args.yes, &format!("hand realm {name} to this key")).await?;
    submit(to, args, realm, session).await?;
    session
        .output
        .say("Your key has no rights on this realm any more");
    Ok(ExitCode::Ok)
}

async fn rotate(args: &Args, realm: &Realm, session: &Session) -> Result<ExitCode> {
    let path = session.settings.key_path();
    let next = beside(&path, "next");
    let made = file::read(&next, keystore::MAX_BYTES)
        .context(format!("cannot read {}", next.display()))?
        .is_some();
    if made && owns(&next, realm, session).await? {
        // The log has it already; only the files were not exchanged.
        return exchange(&path, &next, realm, session);
    }
    if !made && finished_but_for_its_name(&path, &next, session)? {
        move_public(&next, &path)?;
        let new = keystore::load_public(&path, &session.passphrase)?;
        return tell(&path, new, session);
    }
    let name = &realm.genesis.name;
    confirm(args.yes, &format!("replace the owner key of realm {name}")).await?;
    if !made {
        make(args, &path, &next, session)?;
    }
    let new = keystore::load(&next, &session.passphrase)?;
    submit(new.public(), args, realm, session).await?;
    exchange(&path, &next, realm, session)
}

async fn submit(to: PublicKey, args: &Args, realm: &Realm, session: &Session) -> Result<()> {
    let connection = connection::open(session, realm).await?;
    let note = Note {
        note: args.note.clone(),
    };
    let decided = (Target::Owner(to), Payload::OwnerRotate(note));
    let asked = (&connection, realm);
    let decide = |_: &State| Ok(decided.clone());
    let outcome = intent::submit(asked, Durable::OnOne, &session.output, decide).await?;
    realm.remember_owner(to)?;
    lifecycle::report(outcome, &to.short(), session)
}

fn make(args: &Args, path: &Path, next: &Path, session: &Session) -> Result<()> {
    let protection = keystore::protection(path)?;
    let help = "choose: --passphrase for a new one, or --no-passphrase";
    let passphrase = match protection {
        keystore::Protection::SshAgent => {
            return Err(CliError::new(
                ExitCode::Usage,
                "an ssh-agent holds the present key: the next one is made by you",
            )
            .help("make a key, add it to the ssh-agent, then: realm key rotate --to KEY"));
        }
        keystore::Protection::Passphrase if !args.passphrase && !args.no_passphrase => {
            return Err(
                CliError::new(ExitCode::Usage, "the present key has a passphrase").help(help),
            );
        }
        _ if args.passphrase => Some(session.passphrase.read_new()?),
        _ => None,
    };
    let key = SecretKey::from_seed(&keystore::random()?);
    keystore::create(next, &key, passphrase.as_ref().map(|text| text.as_str()))
}

/// Whether the key in `path` has rights on the realm.
async fn owns(path: &Path, realm: &Realm, session: &Session) -> Result<bool> {
    match connection::open_as(path, session, realm).await {
        Ok(_) => Ok(true),
        Err(error) if error.code == ExitCode::NotAuthorised => Ok(false),
        Err(error) => Err(error),
    }
}

/// Puts the new key where the old one was. The old one stays beside it. At every moment there is
/// a key, and a public half beside it is its own.
fn exchange(path: &Path, next: &Path, realm: &Realm, session: &Session) -> Result<ExitCode> {
    let new = keystore::load_public(next, &session.passphrase)?;
    if path.exists() {
        let old = keystore::load_public(path, &session.passphrase)?;
        let kept = beside(path, &old.short().replace(':', "-"));
        keep(path, &kept)?;
        move_public(path, &kept)?;
        let others = others_of(old, realm, session)?;
        if !others.is_empty() {
            session.output.say(format!(
                "warning: {} still belongs to the old key: --realm NAME --key {}",
                others.join(", "),
                kept.display()
            ));
        }
    }
    file::rename(next, path).context(format!("cannot put the new key in {}", path.display()))?;
    move_public(next, path)?;
    keystore::complete(path, new)?;
    tell(path, new, session)
}

fn tell(path: &Path, new: PublicKey, session: &Session) -> Result<ExitCode> {
    session
        .output
        .say(format!("✓ owner key  {}  {new}", path.display()));
    Ok(ExitCode::Ok)
}

/// A second copy of a key, which may be there from a try that was interrupted.
fn keep(path: &Path, kept: &Path) -> Result<()> {
    let described = || format!("cannot keep the old key in {}", kept.display());
    let read = |path| file::read(path, keystore::MAX_BYTES).context(described());
    let bytes = Zeroizing::new(read(path)?.unwrap_or_default());
    match file::create(kept, &bytes) {
        Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => {
            let there = Zeroizing::new(read(kept)?.unwrap_or_default());
            if *there == *bytes {
                return Ok(());
            }
            Err(error).context(described())
        }
        kept => kept.context(described()),
    }
}

/// The public half of the key that the realm has, where only it has not got its name yet.
fn finished_but_for_its_name(path: &Path, next: &Path, session: &Session) -> Result<bool> {
    let left = next.with_extension("pub");
    let described = || format!("cannot read {}", left.display());
    let left = file::read(&left, keystore::MAX_BYTES).context(described())?;
    let left = left.and_then(|text| format::read_public(&String::from_utf8_lossy(&text)).ok());
    let Some(left) = left.filter(|_| !path.with_extension("pub").exists()) else {
        return Ok(false);
    };
    Ok(keystore::load_public(path, &session.passphrase)? == left)
}

/// Other realms that were made with `old`.
fn others_of(old: PublicKey, realm: &Realm, session: &Session) -> Result<Vec<String>> {
    let realms = Realms::new(&session.settings.state_dir()).list()?;
    Ok(realms
        .into_iter()
        .filter(|other| other.id != realm.id && other.genesis.owner() == old)
        .map(|other| other.genesis.name.clone())
        .collect())
}

/// Renames the public half of a key, where there is one.
fn move_public(from: &Path, to: &Path) -> Result<()> {
    let (from, to) = (from.with_extension("pub"), to.with_extension("pub"));
    match file::rename(&from, &to) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(error).context(format!(
            "cannot rename {} to {}",
            from.display(),
            to.display()
        )),
        _ => Ok(()),
    }
}

/// What helps who uses a key that lost its rights because its rotation was cut short.
pub fn unfinished(path: &Path) -> Option<String> {
    let next = beside(path, "next");
    next.exists().then(|| {
        format!(
            "{} holds the key of a rotation that was cut short; finish it: realm key rotate",
            next.display()
        )
    })
}

/// `owner.key` becomes `owner-next.key`.
fn beside(path: &Path, what: &str) -> PathBuf {
    let stem = path.file_stem().unwrap_or_default().to_string_lossy();
    let extension = path.extension().unwrap_or_default().to_string_lossy();
    path.with_file_name(format!("{stem}-{what}.{extension}"))
}

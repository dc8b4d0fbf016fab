//! `realm init`: makes the owner key, once, and a realm of its own.

use realm_identity::{Genesis, SecretKey, Signed, Signer as _};

use crate::{
    commands::Session,
    error::{CliError, Context as _, Result},
    keystore::{self, PassphraseSource},
    realms::Realms,
    ssh_agent,
};

#[derive(Debug, clap::Args)]
#[command(
    after_help = "Examples:\n  realm init\n  realm init --name shop --passphrase\n  realm init --ssh-agent me@laptop"
)]
pub struct Args {
    /// Name of the realm; one person may own several.
    #[arg(long, default_value = "home", value_parser = realm_name)]
    pub name: String,
    /// Encrypt the new owner key with a passphrase.
    #[arg(long)]
    pub passphrase: bool,
    /// Use an ed25519 key that the ssh-agent holds: its comment or public key.
    #[arg(long, value_name = "KEY", conflicts_with = "passphrase")]
    pub ssh_agent: Option<String>,
}

pub fn run(args: &Args, session: &Session) -> Result<()> {
    let path = session.settings.key_path();
    let exists = path
        .try_exists()
        .context(format!("cannot look at {}", path.display()))?;
    if exists && (args.passphrase || args.ssh_agent.is_some()) {
        return Err(CliError::failed(format!(
            "{} exists already; keys are never overwritten",
            path.display()
        ))
        .help(
            "leave --passphrase and --ssh-agent out to use it, or name another file with --key",
        ));
    }
    if !exists {
        make_key(args, session)?;
    }

    let realms = Realms::new(&session.settings.state_dir());
    if realms
        .list()?
        .iter()
        .any(|realm| realm.genesis.name == args.name)
    {
        return Err(
            CliError::failed(format!("there is a realm named {:?} already", args.name)).help(
                format!(
                    "use it: realm use {0}; or make another: realm init --name OTHER",
                    args.name
                ),
            ),
        );
    }
    let key = keystore::load(&path, &session.passphrase)?;
    keystore::complete(&path, key.public())?;
    let genesis = Genesis::new(key.public(), args.name.clone(), keystore::random()?);
    let genesis = Signed::sign(genesis, &key)
        .context("cannot sign the realm's first entry")
        .map_err(|error| key.failure().unwrap_or(error))?;
    let realm = realms.add(genesis)?;

    let output = &session.output;
    if output.json() {
        return output.object(&serde_json::json!({
            "realm": { "id": realm.id, "name": args.name },
            "owner": key.public(),
            "key_file": path,
            "created_key": !exists,
        }));
    }
    let made = if exists { "uses" } else { "made" };
    output.say(format!(
        "✓ {made} owner key  {}  {}",
        path.display(),
        key.public()
    ));
    output.say(format!("  fingerprint    {}", key.public().words()));
    output.say(format!(
        "✓ made realm     {}  {}",
        args.name,
        realm.id.short()
    ));
    output.say("Next: realm invite, and on a node: realm agent --enroll-file TOKEN_FILE");
    Ok(())
}

fn make_key(args: &Args, session: &Session) -> Result<()> {
    let path = session.settings.key_path();
    if let Some(wanted) = &args.ssh_agent {
        return keystore::create_for_agent(&path, ssh_agent::find(wanted)?);
    }
    let passphrase: &PassphraseSource = &session.passphrase;
    let passphrase = if args.passphrase {
        Some(passphrase.read_new()?)
    } else {
        None
    };
    let key = SecretKey::from_seed(&keystore::random()?);
    keystore::create(&path, &key, passphrase.as_ref().map(|text| text.as_str()))
}

fn realm_name(text: &str) -> std::result::Result<String, String> {
    match text.parse::<realm_manifest::NodeName>() {
        Ok(name) => Ok(name.as_str().to_owned()),
        Err(error) => Err(error.to_string()),
    }
}

//! `realm configure`, `enroll` and `leave`: whom a node trusts, which is always decided on the node.

use std::path::PathBuf;

use realm_agent::trust::{self, Trust};
use realm_identity::{PublicKey, format};
use realm_store::DataDir;

use crate::{
    commands::Session,
    connection,
    error::{CliError, Context as _, ExitCode, Result},
    output::confirm,
    token,
};

#[derive(Debug, clap::Args)]
pub struct ConfigureArgs {
    /// The owner's public key, as realm key show prints it.
    #[arg(long, value_parser = public_key)]
    pub owner: PublicKey,
    /// Multiaddr of a node to dial at every start; repeatable.
    #[arg(long, num_args = 1.., value_name = "ADDR")]
    pub bootstrap: Vec<String>,
    /// The node's data directory.
    #[arg(long, value_name = "DIR")]
    pub data: Option<PathBuf>,
}

#[derive(Debug, clap::Args)]
pub struct EnrollArgs {
    /// The token that realm invite printed; - reads it from standard input.
    #[arg(required_unless_present = "token")]
    pub invite: Option<String>,
    #[arg(long, conflicts_with = "invite")]
    pub token: Option<String>,
    /// The node's data directory.
    #[arg(long, value_name = "DIR")]
    pub data: Option<PathBuf>,
}

pub fn configure(args: &ConfigureArgs, session: &Session) -> Result<()> {
    for address in &args.bootstrap {
        realm_p2p::check_dial_address(address)
            .context_code(ExitCode::Usage, "--bootstrap is not an address")?;
    }
    let dir = open(args.data.as_ref(), session)?;
    let mut trust = Trust::load(&dir).context("cannot read whom this node trusts")?;
    trust
        .configure(args.owner)
        .context_code(ExitCode::NotAuthorised, "the owner was not set")?;
    save_peers(&dir, &args.bootstrap)?;
    session
        .output
        .say(format!("✓ {} trusts {}", dir.path().display(), args.owner));
    session
        .output
        .say("Next: realm agent, and where the owner's key is: realm nodes approve");
    Ok(())
}

#[derive(Debug, clap::Args)]
pub struct LeaveArgs {
    /// The node's data directory.
    #[arg(long, value_name = "DIR")]
    pub data: Option<PathBuf>,
    /// Remove the data of named volumes, too.
    #[arg(long)]
    pub volumes: bool,
    /// Do not ask.
    #[arg(long)]
    pub yes: bool,
}

pub fn enroll(args: &EnrollArgs, session: &Session) -> Result<()> {
    let text = args
        .invite
        .as_ref()
        .or(args.token.as_ref())
        .map_or("-", String::as_str);
    let text = if text == "-" {
        token::read("-".as_ref())?
    } else {
        text.to_owned()
    };
    let token = token::parse(&text)?;
    let dir = open(args.data.as_ref(), session)?;
    let key = trust::node_key(&dir).context("cannot make the node's key")?;
    let mut trust = Trust::load(&dir).context("cannot read whom this node trusts")?;
    trust
        .enroll(&token, &key)
        .map_err(|error| token::not_taken_up(&error))?;
    save_peers(&dir, &token.invite().addresses)?;
    session.output.say(format!(
        "✓ {} trusts {}",
        dir.path().display(),
        token.invite().owner
    ));
    session.output.say(format!("  node key  {}", key.public()));
    session.output.say("Next: realm agent");
    Ok(())
}

pub fn leave(args: &LeaveArgs, session: &Session) -> Result<()> {
    let path = args
        .data
        .clone()
        .unwrap_or_else(|| session.settings.data_dir());
    if !path.is_dir() {
        return Err(CliError::new(
            ExitCode::NotFound,
            format!("there is no data directory {}", path.display()),
        )
        .help("name the node's directory with --data"));
    }
    let dir = open(args.data.as_ref(), session)?;
    let shown = dir.path().display();
    let what = if args.volumes {
        format!("make the node in {shown} forget its realm, its key and its volumes")
    } else {
        format!("make the node in {shown} forget its realm and its key")
    };
    connection::block_on(confirm(args.yes, &what))?;
    realm_agent::leave(&dir, args.volumes).context("the node has not left entirely")?;
    session.output.say(format!("✓ {shown} is in no realm"));
    session
        .output
        .say("Next, where the owner's key is: realm nodes rm NAME; not for one that was revoked, or taken out, already");
    Ok(())
}

fn open(data: Option<&PathBuf>, session: &Session) -> Result<DataDir> {
    let path = data.cloned().unwrap_or_else(|| session.settings.data_dir());
    DataDir::open(&path)
        .context("the data directory cannot be used")
        .map_err(|error| error.help("stop the agent first, or name another directory with --data"))
}

fn save_peers(dir: &DataDir, addresses: &[String]) -> Result<()> {
    if addresses.is_empty() {
        return Ok(());
    }
    let file = dir.state_file("peers");
    let known = file
        .read_or_lose("the addresses saved so far", Some)
        .context("cannot read the saved peers")?
        .known()
        .unwrap_or_default();
    let mut lines: Vec<String> = addresses.to_vec();
    for line in String::from_utf8_lossy(&known).lines() {
        if !lines.iter().any(|other| other == line) {
            lines.push(line.to_owned());
        }
    }
    file.write(lines.join("\n").as_bytes())
        .context("cannot save the peers")
}

fn public_key(text: &str) -> std::result::Result<PublicKey, String> {
    format::read_public(text).map_err(|error| error.to_string())
}

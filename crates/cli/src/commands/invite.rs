//! `realm invite`: a token that lets one node join, made offline.

use std::time::Duration;

use realm_identity::{Invite, InviteToken, SecretKey, Signed, Signer as _, Timestamp, VERSION};
use realm_manifest::{NodeName, Tag};

use crate::{
    clock,
    commands::Session,
    connection,
    error::{CliError, Context as _, ExitCode, Result},
    keystore,
    realms::Realm,
};

/// An invite that lives longer is a key left under the mat.
const MAX_TTL: Duration = Duration::from_secs(30 * 24 * 60 * 60);
/// Nobody carries a token to a node in less.
const MIN_TTL: Duration = Duration::from_secs(1);

#[derive(Debug, clap::Args)]
#[command(
    after_help = "Examples:\n  realm invite --name edge-1 --tag edge --ttl 1h\n  realm invite --bootstrap /ip4/192.0.2.7/udp/2020/quic-v1"
)]
pub struct Args {
    /// The node's name.
    #[arg(long, visible_alias = "for")]
    pub name: Option<NodeName>,
    /// A tag of the node; repeatable.
    #[arg(long = "tag")]
    pub tags: Vec<Tag>,
    /// How long the token may be used.
    #[arg(long, default_value = "1h", value_parser = humantime::parse_duration)]
    pub ttl: Duration,
    /// A multiaddr where a node of the realm is reached; repeatable. By default what is known: agents here, and saved peers.
    #[arg(long)]
    pub bootstrap: Vec<String>,
}

pub fn run(args: &Args, session: &Session) -> Result<()> {
    if args.ttl > MAX_TTL || args.ttl < MIN_TTL {
        return Err(CliError::new(
            ExitCode::Usage,
            "an invite lives between a second and 30 days",
        )
        .help("for example --ttl 1h"));
    }
    let realm = session.realm()?;
    let owner = keystore::load(&session.settings.key_path(), &session.passphrase)?;
    let (mine, owners) = (owner.public(), realm.owner()?);
    if mine != owners {
        return Err(CliError::new(
            ExitCode::NotAuthorised,
            format!(
                "the realm {} belongs to {owners}, your key is {mine}",
                realm.genesis.name
            ),
        )
        .help("use that key: --key FILE; or another realm: realm use NAME"));
    }
    let now = clock::now()?;
    if let Some(name) = &args.name {
        check_name(name, now, &realm, session)?;
    }
    let not_after =
        now.plus_millis(u64::try_from(args.ttl.as_millis()).context("the ttl is too long")?);
    let addresses = if args.bootstrap.is_empty() {
        connection::known_addresses(session, &realm)?
    } else {
        let check = |address: &String| {
            realm_p2p::check_dial_address(address)
                .context_code(ExitCode::Usage, "--bootstrap is not an address")
        };
        args.bootstrap.iter().map(check).collect::<Result<_>>()?
    };
    let secret = SecretKey::from_seed(&keystore::random()?);
    let mut tags: Vec<String> = args
        .tags
        .iter()
        .map(|tag| tag.as_str().to_owned())
        .collect();
    tags.sort();
    tags.dedup();
    let invite = Invite {
        v: VERSION,
        realm: realm.id,
        genesis: realm.genesis.to_wire(),
        owner: owner.public(),
        key: secret.public(),
        name: args.name.as_ref().map(|name| name.as_str().to_owned()),
        tags,
        not_after,
        issued_at: now,
        addresses,
    };
    let invite = Signed::sign(invite, &owner)
        .context("cannot sign the invite")
        .map_err(|error| owner.failure().unwrap_or(error))?;
    let token = InviteToken::new(invite, secret)
        .context_code(ExitCode::Usage, "cannot make this invite")?;

    if let Some(name) = &args.name {
        realm.remember_invite(name.as_str(), not_after, now)?;
    }
    let until = clock::rfc3339(not_after);
    if session.output.json() {
        return session.output.object(&serde_json::json!({
            "token": token.to_string(), "not_after": until,
            "name": args.name, "addresses": token.invite().addresses,
        }));
    }
    session.output.line(&token.to_string())?;
    session.output.say(format!(
        "one use, until {until}; nodes whose clock differs take it up to 5 minutes later"
    ));
    session
        .output
        .say("Next, on the node: realm agent --enroll-file TOKEN_FILE");
    Ok(())
}

/// A name is to mean one node. Invites are made offline, so this knows only what was last seen; what
/// slips through raises an alarm in the status.
fn check_name(name: &NodeName, now: Timestamp, realm: &Realm, session: &Session) -> Result<()> {
    if realm.names()?.iter().any(|known| known == name.as_str()) {
        return Err(CliError::new(
            ExitCode::Usage,
            format!("a node of the realm is called {name} already"),
        )
        .help(format!(
            "choose another name; or free this one: realm nodes rm {name}, or realm nodes rename {name} NEW; if that was done elsewhere, read it anew: realm status"
        )));
    }
    if let Some(until) = realm.invited(name.as_str(), now)? {
        session.output.say(format!(
            "warning: an invite for {name} was made already, and can be used until {}: used by two nodes, both would have this name",
            clock::rfc3339(until)
        ));
    }
    Ok(())
}

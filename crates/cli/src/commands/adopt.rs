//! `realm adopt`: takes a realm from one of its nodes, for an owner whose machine does not know it:
//! a new machine with the key from a backup, or a key that the realm was handed to.

use std::{collections::BTreeSet, rc::Rc};

use realm_identity::{Genesis, PublicKey, RealmId, SecretKey, Signed};

use crate::{
    chain::{self, Link},
    commands::Session,
    connection::{self, Connection, rpc_failed},
    error::{CliError, Context as _, ExitCode, Result},
    head::{self, Base},
    keystore,
    realms::{Realm, Realms},
};

pub fn run(session: &Session) -> Result<()> {
    connection::block_on(async {
        let owner = keystore::load(&session.settings.key_path(), &session.passphrase)?;
        let (connection, id) =
            connection::first_contact(Rc::new(owner), dial(session).await?).await?;
        let realms = Realms::new(&session.settings.state_dir());
        let realm = realms.unsaved(genesis(&connection, id).await?);
        let (base, owners) = check_owner(&connection, &realm).await?;

        let realm = realms.add(realm.genesis)?;
        for owner in owners {
            realm.remember_owner(owner)?;
        }
        let revision = base.state.revision;
        realm.raise_mark(revision, base.head)?;
        realm.save_peers(&[connection.address().to_owned()]);
        let name = &realm.genesis.name;
        if session.output.json() {
            return session.output.object(&serde_json::json!({
                "realm": { "id": realm.id, "name": name },
                "owner": connection.owner_key(), "revision": revision,
            }));
        }
        session.output.say(format!(
            "✓ using {name} {}, revision {revision}, every entry verified",
            realm.id.short()
        ));
        session.output.say("Next: realm status");
        Ok(())
    })
}

/// The node that was named, else an agent of this machine.
async fn dial(session: &Session) -> Result<realm_p2p::RpcConnection> {
    if let Some(via) = session.settings.value("via") {
        return connection::dial_via(via).await;
    }
    let help = "name a node's address: realm adopt --via /ip4/HOST/udp/2020/quic-v1";
    let asked = session.settings.value("realm").unwrap_or_default();
    let is_asked = |id: &RealmId| id.to_string().starts_with(asked);
    let mut agents = connection::agents_here(session);
    agents.retain(|agent| agent.realm.as_ref().is_some_and(is_asked));
    let realms: BTreeSet<_> = agents.iter().filter_map(|agent| agent.realm).collect();
    if realms.len() > 1 {
        let realms: Vec<_> = realms.iter().map(RealmId::short).collect();
        return Err(CliError::new(
            ExitCode::Usage,
            format!("agents of several realms run here: {}", realms.join(", ")),
        )
        .help("choose one: realm adopt --realm ID"));
    }
    let addresses: Vec<String> = agents
        .into_iter()
        .flat_map(|agent| agent.addresses)
        .collect();
    let secret = SecretKey::from_seed(&keystore::random()?);
    connection::dial_all(&addresses, None, &secret)
        .await
        .context_code(
            ExitCode::NoAgent,
            "no agent of a realm answers on this machine",
        )
        .map_err(|error| error.help(help))
}

/// The realm's first entry; its digest is the realm's id, so the node cannot make one up.
async fn genesis(connection: &Connection, id: RealmId) -> Result<Signed<Genesis>> {
    let described = "the node does not give the realm's first entry";
    let first = connection.operator.history(0, 0).await;
    let first = first.map_err(|error| rpc_failed(described, &error))?;
    let first = first.into_iter().next().ok_or_else(|| {
        CliError::failed(described).help("it runs an earlier version of realm: ask another node")
    })?;
    let genesis = Signed::<Genesis>::from_wire(&first.entry)
        .context_code(ExitCode::NotAuthorised, described)?;
    if genesis.realm_id() != id {
        return Err(CliError::new(
            ExitCode::NotAuthorised,
            "the first entry that the node gives is not the one of its realm",
        )
        .help("ask another node: --via ADDR"));
    }
    Ok(genesis)
}

/// Walks the log from its first entry to the head: the key must own the realm today. Gives the
/// head, and whom the realm was handed to on the way.
async fn check_owner(connection: &Connection, realm: &Realm) -> Result<(Base, Vec<PublicKey>)> {
    let base = head::agreed(connection, realm).await?;
    let mut owners = Vec::new();
    let collect = |link: &Link| owners.extend(link.new_owner());
    let end = chain::walk(connection, realm, base.state.revision, collect).await?;
    let owner = end.owner;
    let mine = connection.owner_key();
    if owner == mine && base.state.owner == mine {
        return Ok((base, owners));
    }
    Err(CliError::new(
        ExitCode::NotAuthorised,
        format!(
            "the realm {} belongs to {owner}, your key is {mine}",
            realm.genesis.name
        ),
    )
    .help("use that key: --key FILE"))
}

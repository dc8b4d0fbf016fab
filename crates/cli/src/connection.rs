//! Finds a node and proves the owner's key to it. The only place that knows how nodes are reached.

mod here;
mod relayed;

use std::{path::Path, pin::pin, rc::Rc, time::Duration};

use futures::future::{Either, select};
use realm_agent::agent_file::AgentInfo;
use realm_identity::{PublicKey, RealmId, SecretKey, Signer as _};
use realm_p2p::{DialRpcError, RpcConnection};
use realm_rpc::{
    ConnectError, ErrorCode, Limits, Operator, PublicInfo, RpcError,
    status::{Node, NodeState, Status},
};
use tokio::sync::Notify;

use crate::{
    commands::Session,
    error::{CliError, Context as _, ExitCode, Result},
    keystore::{self, OwnerKey},
    realms::Realm,
    search,
};

pub use relayed::Relays;

/// Addresses written into an invite.
const MAX_KNOWN: usize = 8;
/// Known addresses answer at once or not at all.
const DIAL: Duration = Duration::from_secs(5);
/// Enough for a handshake whose first packet is lost. Where the node that tells of another has no
/// connection to it either, more patience seldom helps.
const DIAL_UNLINKED: Duration = Duration::from_secs(2);
/// A node that says it has relays is dialled directly for so long before they are asked: in the same
/// network it answers within.
const DIRECT: Duration = Duration::from_millis(250);
/// What still reads or writes when a command is over gets this much time.
const LINGER: Duration = Duration::from_millis(200);
/// Between two rounds of looking for any node.
const AGAIN: Duration = Duration::from_millis(500);

/// One node, with the owner's key proven to it.
#[derive(Debug)]
pub struct Connection {
    pub operator: Operator,
    pub owner: Rc<OwnerKey>,
    /// Whether the person named this node: then no other one stands in for it.
    pub named: bool,
    /// For connections to further nodes.
    pub relays: Rc<Relays>,
    /// The connection below, which lasts as long as this value.
    transport: RpcConnection,
    /// The relay below, which serves us for as long as its connection lasts.
    relay: Option<Rc<Self>>,
}

impl Connection {
    /// The node that answers.
    pub const fn node(&self) -> PublicKey {
        self.transport.peer
    }

    pub fn owner_key(&self) -> PublicKey {
        self.owner.public()
    }

    /// Where the node answers.
    pub fn address(&self) -> &str {
        &self.transport.address
    }

    /// Which node answers, and where: for words about what it did.
    pub fn described(&self) -> String {
        format!("the node {} at {}", self.node().short(), self.address())
    }
}

/// Runs `command` on one thread, as Cap'n Proto wants; Ctrl-C ends it at once.
pub fn block_on<T>(command: impl Future<Output = Result<T>>) -> Result<T> {
    realm_p2p::install_crypto_provider();
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|error| CliError::failed("cannot start").because(&error))?;
    let local = tokio::task::LocalSet::new();
    let done = runtime.block_on(local.run_until(async {
        tokio::select! {
            done = command => done,
            _ = tokio::signal::ctrl_c() => {
                Err(CliError::new(ExitCode::Interrupted, "interrupted"))
            }
        }
    }));
    drop(local);
    // Somebody who was asked a question may never answer it.
    runtime.shutdown_timeout(LINGER);
    done
}

/// Connects to a node of `realm` as its owner.
pub async fn open(session: &Session, realm: &Realm) -> Result<Connection> {
    open_as(&session.settings.key_path(), session, realm).await
}

/// Connects with the key in a certain file.
pub async fn open_as(key: &Path, session: &Session, realm: &Realm) -> Result<Connection> {
    let owner = Rc::new(keystore::load(key, &session.passphrase)?);
    let connection = match session.settings.value("via") {
        Some(via) => {
            let mut connection = prove(owner, realm, dial_via(via).await?).await?;
            connection.named = true;
            connection
        }
        None => search::any(session, realm, &owner).await?,
    };
    tracing::debug!(address = connection.transport.address, "connected");
    realm.save_peers(std::slice::from_ref(&connection.transport.address));
    Ok(connection)
}

/// Connects to one certain node, with the key that is at hand already: directly, or else through a
/// relay of the realm.
pub async fn open_at(
    owner: Rc<OwnerKey>,
    relays: &Rc<Relays>,
    realm: &Realm,
    node: &Node,
) -> Result<Connection> {
    let (transport, relay) = reach(&owner, relays, realm, node).await?;
    let mut connection = prove(owner, realm, transport).await?;
    connection.relays = relays.clone();
    connection.relay = relay;
    let by = connection.relay.as_ref().map(|relay| relay.node().short());
    tracing::debug!(node = node.name, address = connection.address(), relay = ?by, "connected");
    Ok(connection)
}

/// A stream to the node, and the relay that it leads through, if any.
async fn reach(
    owner: &Rc<OwnerKey>,
    relays: &Relays,
    realm: &Realm,
    node: &Node,
) -> Result<(RpcConnection, Option<Rc<Connection>>)> {
    let failed = Notify::new();
    let direct = pin!(async {
        let dialled = dial_node(relays, node).await;
        if dialled.is_err() {
            failed.notify_one();
        }
        dialled.map(|transport| (transport, None))
    });
    if node.circuits.is_empty() {
        return direct.await;
    }
    let relayed = pin!(async {
        // By then it failed, or takes too long for a node of this network.
        let _ = tokio::time::timeout(DIRECT, failed.notified()).await;
        let (transport, relay) = relays.reach(owner, realm, node).await?;
        Ok((transport, Some(relay)))
    });
    match select(direct, relayed).await {
        Either::Left((Ok(reached), _)) | Either::Right((Ok(reached), _)) => Ok(reached),
        Either::Left((Err(_), relayed)) => relayed.await,
        Either::Right((Err(why), direct)) => direct.await.map_err(|_| why),
    }
}

async fn dial_node(relays: &Relays, node: &Node) -> Result<RpcConnection> {
    let Some(address) = &node.address else {
        let message = format!("no address of {} is known", node.name);
        return Err(CliError::new(ExitCode::NoAgent, message));
    };
    let patience = match node.link {
        None if node.circuits.is_empty() => DIAL_UNLINKED,
        _ => DIAL,
    };
    relays.dial_told(address, node.key, patience).await
}

/// Connects to any node of the realm that answers, the one that was named or not; tries again and
/// again until `patience` ends.
pub async fn reopen(
    session: &Session,
    realm: &Realm,
    owner: Rc<OwnerKey>,
    patience: Duration,
) -> Result<Connection> {
    let connected = async {
        loop {
            match search::any(session, realm, &owner).await {
                Err(error) if error.code == ExitCode::Interrupted => return Err(error),
                Err(error) => tracing::debug!(%error, "no node yet"),
                connected => return connected,
            }
            tokio::time::sleep(AGAIN).await;
        }
    };
    tokio::time::timeout(patience, connected)
        .await
        .unwrap_or_else(|_| {
            let patience = humantime::format_duration(patience);
            Err(CliError::new(
                ExitCode::NoAgent,
                format!("no node of the realm could be reached within {patience}"),
            )
            .help("try again, or name one's address: --via /ip4/HOST/udp/2020/quic-v1"))
        })
}

/// Proves the owner's key to the node that was dialled.
pub async fn prove(
    owner: Rc<OwnerKey>,
    realm: &Realm,
    transport: RpcConnection,
) -> Result<Connection> {
    let proven = prove_ours(owner, realm, transport).await;
    proven.map_err(NotProven::into_error)
}

/// Proves the owner's key to a node that may belong to another realm.
pub async fn prove_ours(
    owner: Rc<OwnerKey>,
    realm: &Realm,
    mut transport: RpcConnection,
) -> std::result::Result<Connection, NotProven> {
    let client = client(&mut transport)?;
    let (mut operator, info) = graft(&client, &owner, transport.peer, realm).await?;
    if info.realm.is_none() {
        // It pinned this owner, and is waiting to learn which realm that is. That it knows now
        // ends what it gave out before.
        let adopted = operator.adopt(&realm.genesis.to_wire()).await;
        adopted.map_err(|error| rpc_failed("the node does not take the realm", &error))?;
        (operator, _) = graft(&client, &owner, transport.peer, realm).await?;
    }
    Ok(Connection {
        operator,
        owner,
        named: false,
        relays: Rc::new(Relays::told_by(&transport)),
        transport,
        relay: None,
    })
}

/// Proves the owner's key to a node whose realm is not known yet; gives that realm too.
pub async fn first_contact(
    owner: Rc<OwnerKey>,
    mut transport: RpcConnection,
) -> Result<(Connection, RealmId)> {
    let client = client(&mut transport)?;
    let graft = client.graft(owner.clone(), transport.peer, None).await;
    let graft = graft.map_err(|error| owner.failure().unwrap_or_else(|| graft_failed(error)))?;
    let node = graft.info.node.short();
    let Some(operator) = graft.operator else {
        return Err(CliError::new(
            ExitCode::NotAuthorised,
            format!(
                "the node {node} gives your key {} no rights",
                owner.public()
            ),
        )
        .help("use the key that owns its realm: --key FILE"));
    };
    let realm = graft.info.realm.ok_or_else(|| {
        CliError::new(
            ExitCode::NotFound,
            format!("the node {node} is in no realm yet"),
        )
        .help("make one: realm init")
    })?;
    let connection = Connection {
        operator,
        owner,
        named: true,
        relays: Rc::new(Relays::told_by(&transport)),
        transport,
        relay: None,
    };
    Ok((connection, realm))
}

fn client(transport: &mut RpcConnection) -> Result<realm_rpc::Client> {
    let stream = transport
        .stream
        .take()
        .ok_or_else(|| CliError::failed("the connection has no stream"))?;
    Ok(realm_rpc::connect(stream, Limits::default()))
}

/// Why a key could not be proven to a node.
#[derive(Debug)]
pub enum NotProven {
    /// It belongs to another realm: it has no say about this one.
    OtherRealm(CliError),
    Refused(CliError),
}

impl From<CliError> for NotProven {
    fn from(error: CliError) -> Self {
        Self::Refused(error)
    }
}

impl NotProven {
    fn into_error(self) -> CliError {
        let (Self::OtherRealm(error) | Self::Refused(error)) = self;
        error
    }
}

/// Proves the owner's key on an open connection; anyone else's node has no operator for it.
async fn graft(
    client: &realm_rpc::Client,
    owner: &Rc<OwnerKey>,
    node: PublicKey,
    realm: &Realm,
) -> std::result::Result<(Operator, PublicInfo), NotProven> {
    let graft = client.graft(owner.clone(), node, Some(realm.id)).await;
    let graft = match graft {
        Err(ConnectError::Rpc(error)) if error.code == ErrorCode::NotAuthorised => {
            if let Some(failure) = owner.failure() {
                return Err(failure.into());
            }
            let info = client.info().await.map_err(|error| {
                rpc_failed("the node does not say which realm it belongs to", &error)
            })?;
            return Err(not_ours(&info, realm, owner.public(), Some(&error)));
        }
        graft => graft.map_err(graft_failed)?,
    };
    match graft.operator {
        Some(operator) if graft.info.realm.is_none_or(|other| other == realm.id) => {
            Ok((operator, graft.info))
        }
        _ => Err(not_ours(&graft.info, realm, owner.public(), None)),
    }
}

/// Dials the address that was given.
pub async fn dial_via(via: &str) -> Result<RpcConnection> {
    let secret = SecretKey::from_seed(&keystore::random()?);
    realm_p2p::check_address(via).context_code(ExitCode::Usage, "--via is not an address")?;
    dial_all(&[via.to_owned()], None, &secret)
        .await
        .map_err(|error| {
            let mut failed = CliError::new(ExitCode::NoAgent, format!("no agent answers at {via}"));
            match &error {
                // The one address was named already.
                DialRpcError::Failed { attempts } if attempts.len() == 1 => {
                    let why = attempts.iter();
                    failed.causes.extend(why.map(|attempt| attempt.reason.clone()));
                }
                error => failed = failed.because(error),
            }
            match realm_p2p::relay_of(via) {
                Some((_, relay)) => failed.help(format!(
                    "ask its relay, which leads to the nodes behind it: --via {relay}"
                )),
                None => failed.help(
                    "see on that machine that an agent runs, and where it listens: realm doctor; without --via nodes are looked for",
                ),
            }
        })
}

pub async fn dial_all(
    addresses: &[String],
    expect: Option<PublicKey>,
    secret: &SecretKey,
) -> std::result::Result<RpcConnection, DialRpcError> {
    realm_p2p::dial_rpc(addresses, expect, secret, DIAL).await
}

/// The agents that run on this machine for this person.
pub fn agents_here(session: &Session) -> Vec<AgentInfo> {
    here::agents(session).0
}

/// Agents of this person that were killed, or ended with the machine: nobody answers where they say.
pub fn agents_gone(session: &Session) -> Vec<AgentInfo> {
    here::agents(session).1
}

/// Where others may reach nodes of the realm, as far as is known without asking anybody: addresses
/// that hold on this machine alone come only where there are no others.
pub fn known_addresses(session: &Session, realm: &Realm) -> Result<Vec<String>> {
    let agents = agents_here(session).into_iter();
    let mut known: Vec<String> = agents
        .filter(|agent| agent.realm == Some(realm.id))
        .flat_map(|agent| agent.addresses)
        .chain(realm.peers()?)
        .collect();
    let is_outside = |at: &String| !realm_p2p::is_here_only(at);
    if known.iter().any(is_outside) {
        known.retain(is_outside);
    }
    let mut seen = std::collections::HashSet::new();
    known.retain(|at| seen.insert(at.clone()));
    known.truncate(MAX_KNOWN);
    Ok(known)
}

/// Keeps where the nodes of a status are reached, by the word of the node that was asked, for when that
/// one is gone, and what they are called.
pub fn remember(connection: &Connection, realm: &Realm, status: &Status) {
    let nodes = status.nodes.iter().filter(|node| is_member(node));
    let names: Vec<String> = nodes.map(|node| node.name.clone()).collect();
    realm.remember_names(&names);
    let components = status.components.iter().map(|one| one.name.clone());
    realm.remember_components(&components.collect::<Vec<_>>());
    let addresses = status.nodes.iter().filter_map(|node| node.address.clone());
    let ours = addresses.filter(|address| connection.relays.is_for_us(address));
    realm.save_peers(&ours.collect::<Vec<_>>());
}

/// Whether the node belongs to the realm now, be it there or away.
pub fn is_member(node: &Node) -> bool {
    !matches!(node.state, NodeState::Pending | NodeState::Revoked)
}

/// `refusal` is what the node says of it, if anything.
fn not_ours(
    info: &PublicInfo,
    realm: &Realm,
    mine: PublicKey,
    refusal: Option<&RpcError>,
) -> NotProven {
    let mut error = CliError::new(
        ExitCode::NotAuthorised,
        format!("the node {} gives your key no rights", info.node.short()),
    );
    if let Some(refusal) = refusal {
        error = error.because(refusal);
    }
    if let Some(other) = info.realm.filter(|other| *other != realm.id) {
        return NotProven::OtherRealm(error.help(format!(
            "it belongs to realm {}, you are using {} {}: choose another one with --realm NAME or realm use NAME; see them: realm ls",
            other.short(),
            realm.genesis.name,
            realm.id.short()
        )));
    }
    let help = match (
        refusal.and_then(|refusal| refusal.help.clone()),
        realm.owner(),
    ) {
        (Some(help), _) => help,
        (None, Ok(owner)) if owner != mine => format!(
            "the realm {} belongs to {owner}, your key is {mine}; use the owner's: --key FILE",
            realm.genesis.name
        ),
        _ => "on that node: realm configure --owner KEY, or realm enroll TOKEN".to_owned(),
    };
    error.help(help).into()
}

fn graft_failed(error: ConnectError) -> CliError {
    match error {
        ConnectError::Rpc(error) => rpc_failed("the node does not accept your key", &error),
        error => CliError::new(ExitCode::NotAuthorised, "the node is not who it should be")
            .because(&error),
    }
}

/// What a node answered, in words for a person.
pub fn rpc_failed(message: impl Into<String>, error: &RpcError) -> CliError {
    let code = match error.code {
        ErrorCode::NotAuthorised => ExitCode::NotAuthorised,
        ErrorCode::NotFound => ExitCode::NotFound,
        ErrorCode::Invalid => ExitCode::Usage,
        ErrorCode::Deadline => ExitCode::Partial,
        ErrorCode::Disconnected => ExitCode::NoAgent,
        _ => ExitCode::Failed,
    };
    let said = CliError::new(code, message)
        .named(error.code.as_str())
        .because(error);
    match (&error.help, &error.code) {
        (Some(help), _) => said.help(help.clone()),
        (None, ErrorCode::Forked) => said.help("see the branches and end it: realm history merge"),
        (None, ErrorCode::Disconnected) => said.help("try again; another node may answer"),
        (None, ErrorCode::Limit) => {
            said.help("ask another node: --via ADDR; what limits are: realm explain limit")
        }
        _ => said,
    }
}

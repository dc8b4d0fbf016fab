//! Finds a node and proves the owner's key to it. The only place that knows how nodes are reached.

use std::{path::Path, pin::pin, rc::Rc, time::Duration};

use futures::{
    StreamExt as _,
    future::{Either, select},
    stream::FuturesUnordered,
};
use realm_agent::agent_file::{self, AgentInfo};
use realm_identity::{PublicKey, SecretKey, Signer as _};
use realm_p2p::{DialRpcError, RpcConnection};
use realm_rpc::{
    ConnectError, ErrorCode, Limits, Operator, PublicInfo, RpcError,
    status::{Node, NodeState, Status},
};

use crate::{
    commands::{Session, agent},
    error::{CliError, Context as _, ExitCode, Result},
    keystore::{self, OwnerKey},
    realms::Realm,
};

/// Addresses written into an invite.
const MAX_KNOWN: usize = 8;
/// Known addresses answer at once or not at all.
const DIAL: Duration = Duration::from_secs(5);
/// Known addresses get this much time before the local network is asked as well.
const HEAD_START: Duration = Duration::from_millis(300);
/// Nodes of the local network answer within this.
const DISCOVERY: Duration = Duration::from_secs(2);
/// Between two rounds of looking for any node.
const AGAIN: Duration = Duration::from_millis(500);

/// One node, with the owner's key proven to it.
#[derive(Debug)]
pub struct Connection {
    pub operator: Operator,
    pub owner: Rc<OwnerKey>,
    /// The connection below, which lasts as long as this value.
    transport: RpcConnection,
}

impl Connection {
    /// The node that answers.
    pub const fn node(&self) -> PublicKey {
        self.transport.peer
    }

    pub fn owner_key(&self) -> PublicKey {
        self.owner.public()
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
    runtime.block_on(local.run_until(async {
        tokio::select! {
            done = command => done,
            _ = tokio::signal::ctrl_c() => {
                Err(CliError::new(ExitCode::Interrupted, "interrupted"))
            }
        }
    }))
}

/// Connects to a node of `realm` as its owner.
pub async fn open(session: &Session, realm: &Realm) -> Result<Connection> {
    open_as(&session.settings.key_path(), session, realm).await
}

/// Connects with the key in a certain file.
pub async fn open_as(key: &Path, session: &Session, realm: &Realm) -> Result<Connection> {
    let owner = Rc::new(keystore::load(key, &session.passphrase)?);
    let transport = dial(session, realm).await?;
    let connection = prove(owner, realm, transport).await?;
    tracing::debug!(address = connection.transport.address, "connected");
    realm.save_peers(std::slice::from_ref(&connection.transport.address))?;
    Ok(connection)
}

/// Connects to one certain node, with the key that is at hand already.
pub async fn open_at(
    owner: Rc<OwnerKey>,
    realm: &Realm,
    node: PublicKey,
    address: &str,
) -> Result<Connection> {
    let secret = SecretKey::from_seed(&keystore::random()?);
    let transport = dial_all(&[address.to_owned()], Some(node), &secret)
        .await
        .map_err(|error| {
            CliError::new(ExitCode::NoAgent, format!("no agent answers at {address}"))
                .because(&error)
        })?;
    prove(owner, realm, transport).await
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
            if let Some(connection) = any_node(session, realm, &owner).await? {
                return Ok(connection);
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

/// The first known node that answers and knows the owner; None where there is none.
async fn any_node(
    session: &Session,
    realm: &Realm,
    owner: &Rc<OwnerKey>,
) -> Result<Option<Connection>> {
    let secret = SecretKey::from_seed(&keystore::random()?);
    let agents = agents_here(session).into_iter();
    let mut known: Vec<String> = agents
        .filter(|agent| agent.realm == Some(realm.id))
        .flat_map(|agent| agent.addresses)
        .chain(realm.peers()?)
        .collect();
    known.sort();
    known.dedup();
    let mut dials: FuturesUnordered<_> = known
        .chunks(1)
        .map(|address| dial_all(address, None, &secret))
        .collect();
    while let Some(dialled) = dials.next().await {
        let proven = match dialled {
            Ok(transport) => prove(owner.clone(), realm, transport).await,
            Err(error) => {
                tracing::debug!(%error, "not connected");
                continue;
            }
        };
        match proven {
            Ok(connection) => return Ok(Some(connection)),
            Err(error) => tracing::debug!(%error, "not a node to ask"),
        }
    }
    Ok(None)
}

async fn prove(
    owner: Rc<OwnerKey>,
    realm: &Realm,
    mut transport: RpcConnection,
) -> Result<Connection> {
    let stream = transport
        .stream
        .take()
        .ok_or_else(|| CliError::failed("the connection has no stream"))?;
    let client = realm_rpc::connect(stream, Limits::default());
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
        transport,
    })
}

/// Proves the owner's key on an open connection; anyone else's node has no operator for it.
async fn graft(
    client: &realm_rpc::Client,
    owner: &Rc<OwnerKey>,
    node: PublicKey,
    realm: &Realm,
) -> Result<(Operator, PublicInfo)> {
    let graft = client
        .graft(owner.clone(), node, Some(realm.id))
        .await
        .map_err(graft_failed)?;
    match graft.operator {
        Some(operator) if graft.info.realm.is_none_or(|other| other == realm.id) => {
            Ok((operator, graft.info))
        }
        _ => Err(not_ours(&graft.info, realm)),
    }
}

/// The address that was given, else the local agent and saved peers together, else the local network.
async fn dial(session: &Session, realm: &Realm) -> Result<RpcConnection> {
    let secret = SecretKey::from_seed(&keystore::random()?);
    if let Some(via) = session.settings.value("via") {
        realm_p2p::check_address(via).context_code(ExitCode::Usage, "--via is not an address")?;
        return dial_all(&[via.to_owned()], None, &secret)
            .await
            .map_err(|error| {
                CliError::new(ExitCode::NoAgent, format!("no agent answers at {via}"))
                    .because(&error)
            });
    }
    let mut known = local_agents(session);
    known.extend(realm.peers()?);
    let lan = async {
        if !known.is_empty() {
            tokio::time::sleep(HEAD_START).await;
        }
        for (key, addresses) in realm_p2p::discover_mdns(DISCOVERY).await {
            if let Ok(connection) = dial_all(&addresses, Some(key), &secret).await {
                return Ok(connection);
            }
        }
        Err(DialRpcError::NoAddress)
    };
    let (dialled, lan) = (pin!(dial_all(&known, None, &secret)), pin!(lan));
    // Whichever answers first; where neither does, the known addresses have something to say.
    let answer = match select(dialled, lan).await {
        Either::Left((Err(error), lan)) => lan.await.or(Err(error)),
        Either::Right((Err(_), dialled)) => dialled.await,
        Either::Left((answer, _)) | Either::Right((answer, _)) => answer,
    };
    let error = match answer {
        Ok(connection) => return Ok(connection),
        Err(error) => error,
    };
    let failed = CliError::new(ExitCode::NoAgent, "no agent could be reached").help(
        "start one here: realm agent; or name one's address: --via /ip4/HOST/udp/2020/quic-v1",
    );
    Err(match error {
        DialRpcError::NoAddress => failed,
        error => failed.because(&error),
    })
}

async fn dial_all(
    addresses: &[String],
    expect: Option<PublicKey>,
    secret: &SecretKey,
) -> std::result::Result<RpcConnection, DialRpcError> {
    realm_p2p::dial_rpc(addresses, expect, secret, DIAL).await
}

/// Addresses of the agents that run on this machine for this person.
fn local_agents(session: &Session) -> Vec<String> {
    agents_here(session)
        .into_iter()
        .flat_map(|agent| agent.addresses)
        .collect()
}

fn agents_here(session: &Session) -> Vec<AgentInfo> {
    agent_file::find(
        &session.settings.data_dir(),
        agent::runtime_dir().as_deref(),
    )
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
    let here_only = ["/ip4/127.", "/ip6/::1/", "/ip6/fe80:"];
    let is_outside = |at: &String| !here_only.iter().any(|start| at.starts_with(start));
    if known.iter().any(is_outside) {
        known.retain(is_outside);
    }
    let mut seen = std::collections::HashSet::new();
    known.retain(|at| seen.insert(at.clone()));
    known.truncate(MAX_KNOWN);
    Ok(known)
}

/// Keeps where the nodes of a status are reached, for when the present one is gone, and what they
/// are called.
pub fn remember(realm: &Realm, status: &Status) -> Result<()> {
    let nodes = status.nodes.iter().filter(|node| is_member(node));
    let names: Vec<String> = nodes.map(|node| node.name.clone()).collect();
    realm.remember_names(&names)?;
    let addresses = status.nodes.iter().filter_map(|node| node.address.clone());
    realm.save_peers(&addresses.collect::<Vec<_>>())
}

/// Whether the node belongs to the realm now, be it there or away.
pub fn is_member(node: &Node) -> bool {
    !matches!(node.state, NodeState::Pending | NodeState::Revoked)
}

fn not_ours(info: &PublicInfo, realm: &Realm) -> CliError {
    let error = CliError::new(
        ExitCode::NotAuthorised,
        format!("the node {} gives your key no rights", info.node.short()),
    );
    match info.realm {
        Some(other) if other != realm.id => error.help(format!(
            "it belongs to realm {}, you are using {}: realm use NAME",
            other.short(),
            realm.id.short()
        )),
        _ => error.help("on that node: realm configure --owner KEY, or realm enroll TOKEN"),
    }
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
    let said = CliError::new(code, message).because(error);
    match (&error.help, &error.code) {
        (Some(help), _) => said.help(help.clone()),
        (None, ErrorCode::Forked) => said.help("see the branches and end it: realm history merge"),
        (None, ErrorCode::Disconnected) => said.help("try again; another node may answer"),
        _ => said,
    }
}

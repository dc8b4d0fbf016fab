//! The desired state at a node's head, verified; and whether other nodes are further.

use std::{collections::BTreeSet, time::Duration};

use futures::{StreamExt as _, stream::FuturesUnordered};
use realm_agent::approvals::{ByChain, approved};
use realm_identity::{Entry, Genesis, Hash, PublicKey, Signed, WitnessedClaim};
use realm_planner::State;
use realm_rpc::{
    Head, Intent,
    status::{Node, NodeState, Status},
};

use crate::{
    chain::{self, Link},
    connection::{self, Connection, rpc_failed},
    error::{CliError, Context as _, ExitCode, Result},
    realms::Realm,
    survey,
};

/// Nodes that are asked for their head before something is signed, the connected one included.
const MAX_ASKED: usize = 5;
/// What another node may take to answer.
const ASK: Duration = Duration::from_secs(1);
/// What the connected node may take to reach a head that another one has.
const CATCH_UP: Duration = Duration::from_secs(5);
const LOOK: Duration = Duration::from_millis(100);

/// The desired state at a head that was checked.
#[derive(Debug, Clone)]
pub struct Base {
    pub state: State,
    pub head: Hash,
}

/// Asks the connected node for its head, checks it, and folds it. Refuses to go below what was
/// seen, once the node had time to catch up.
pub async fn base(connection: &Connection, realm: &Realm) -> Result<Base> {
    let mark = realm.mark()?;
    let reached = async {
        loop {
            let base = agreed(connection, realm).await?;
            let revision = base.state.revision;
            if realm.contradicts(revision, base.head)? {
                check_fork(connection, revision).await?;
                return Err(another(connection, revision, "you have seen"));
            }
            if revision >= mark {
                return Ok(base);
            }
            check_fork(connection, base.state.revision).await?;
            tokio::time::sleep(LOOK).await;
        }
    };
    match tokio::time::timeout(CATCH_UP, reached).await {
        Ok(base) => {
            let base = base?;
            realm.raise_mark(base.state.revision, base.head)?;
            realm.remember_owner(base.state.owner)?;
            Ok(base)
        }
        Err(_) => Err(CliError::failed(format!(
            "the node is behind revision {mark}, which you have seen"
        ))
        .help("it has not caught up, or was set back: ask another node with --via ADDR; where the nodes that had it are gone for good: realm history accept-loss")),
    }
}

/// Refuses a log that has forked after its revision `agreed`.
pub async fn check_fork(connection: &Connection, agreed: u64) -> Result<()> {
    let heads = connection.operator.heads().await;
    let heads = heads.map_err(|error| rpc_failed("the node does not tell its heads", &error))?;
    if heads.len() > 1 {
        return Err(forked(agreed.saturating_add(1)));
    }
    Ok(())
}

/// Refuses a node that is not approved: only approved ones get programs and intents, which may hold
/// what is private. `let_in` is the node that the intent itself lets in, if it does.
pub async fn check_approved(
    connection: &Connection,
    state: &State,
    let_in: Option<PublicKey>,
) -> Result<()> {
    let node = connection.node();
    if let_in == Some(node) {
        return Ok(());
    }
    // A node that was started just now may still be on its way in.
    let mut answered = false;
    let standing = async {
        while !is_approved(connection, state).await? {
            answered = true;
            tokio::time::sleep(LOOK).await;
        }
        Ok(())
    };
    if let Ok(done) = tokio::time::timeout(CATCH_UP, standing).await {
        return done;
    }
    if !answered {
        return Err(CliError::new(
            ExitCode::Partial,
            format!(
                "the node {} did not show within {} s that it is approved",
                node.short(),
                CATCH_UP.as_secs()
            ),
        )
        .help("it has much to do: try again, or ask another node: --via ADDR"));
    }
    Err(CliError::new(
        ExitCode::NotAuthorised,
        format!(
            "the node {} is not approved: it gets nothing from you",
            node.short()
        ),
    )
    .help(format!(
        "let it in: realm nodes approve {node}; or ask another node: --via ADDR"
    )))
}

/// Whether the connected node is approved: by the chain, or by an invite, as its claims show.
pub async fn is_approved(connection: &Connection, state: &State) -> Result<bool> {
    let node = connection.node();
    let by_chain = ByChain::of(state).approved.contains_key(&node);
    Ok(by_chain || let_in(connection, state).await?.contains(&node))
}

/// How many nodes are approved, also those that are away.
pub async fn approved_count(connection: &Connection, realm: &Realm) -> Result<usize> {
    let status = survey::picture(connection, realm).await?.status;

    let nodes = status.nodes.iter();
    Ok(nodes.filter(|node| connection::is_member(node)).count())
}

async fn let_in(connection: &Connection, state: &State) -> Result<BTreeSet<PublicKey>> {
    let claims = connection.operator.standing().await;
    let claims =
        claims.map_err(|error| rpc_failed("the node does not show its approval", &error))?;
    let claims: Vec<WitnessedClaim> = claims
        .iter()
        .filter_map(|wire| WitnessedClaim::from_wire(wire).ok())
        .collect();
    let chain = ByChain::of(state);
    let nodes = approved(state.realm, &state.owners(), &chain, &claims);
    Ok(nodes.into_keys().collect())
}

/// The state at the last entry that everybody agrees on, also during a fork.
pub async fn agreed(connection: &Connection, realm: &Realm) -> Result<Base> {
    Ok(newest(connection, realm).await?.base)
}

/// The head of a node, with the state before it.
#[derive(Debug)]
pub struct Newest {
    base: Base,
    /// None at the genesis.
    before: Option<Base>,
}

impl Newest {
    /// The state at `head`, where the node has that on disk and not yet what follows; else the
    /// newest one.
    pub fn at(self, head: Hash) -> Base {
        let on_disk = self.before.filter(|before| before.head == head);
        on_disk.unwrap_or(self.base)
    }
}

pub async fn newest(connection: &Connection, realm: &Realm) -> Result<Newest> {
    let head = connection.operator.head().await;
    let head = head.map_err(|error| rpc_failed("the node does not tell its head", &error))?;
    read(&head, connection, realm).await
}

/// Another node than the connected one, and its head.
#[derive(Debug)]
pub struct Other {
    pub name: String,
    pub base: Base,
    connection: Connection,
}

/// Asks further nodes for their heads, waits until the connected one is as far as any of them (what
/// is signed on an older head would fork the realm), and chooses where to sign: of those at the
/// newest head the one with the lowest key. Whoever signs at the same time then does so at the same
/// node, which takes one and tells the other. One that says it cannot do its part, as with a full
/// disk, is passed over. None for the connected node.
pub async fn seat(connection: &Connection, realm: &Realm) -> Result<Option<Connection>> {
    let status = survey::picture(connection, realm).await?.status;
    let ailing: BTreeSet<PublicKey> = status
        .nodes
        .iter()
        .filter(|node| !node.problems.is_empty())
        .map(|node| node.key)
        .collect();
    let others = others(connection, realm, status).await;
    let newest = others.iter().max_by_key(|other| other.base.state.revision);
    let Some(newest) = newest else {
        return Ok(None);
    };
    let here = catch_up(connection, realm, newest).await?;
    if connection.named {
        return Ok(None);
    }
    let mut seats: Vec<Connection> = others
        .into_iter()
        .filter(|other| other.base.head == here.head)
        .map(|other| other.connection)
        .filter(|other| !ailing.contains(&other.node()))
        .filter(|other| ailing.contains(&connection.node()) || other.node() < connection.node())
        .collect();
    seats.sort_by_key(Connection::node);
    Ok(seats.into_iter().next())
}

async fn catch_up(connection: &Connection, realm: &Realm, newest: &Other) -> Result<Base> {
    let caught_up = async {
        loop {
            let here = base(connection, realm).await?;
            if here.state.revision > newest.base.state.revision || here.head == newest.base.head {
                return Ok(here);
            }
            if here.state.revision == newest.base.state.revision {
                return Err(forked(here.state.revision));
            }
            tokio::time::sleep(LOOK).await;
        }
    };
    let (node, revision) = (&newest.name, newest.base.state.revision);
    tokio::time::timeout(CATCH_UP, caught_up)
        .await
        .unwrap_or_else(|_| {
            Err(CliError::failed(format!(
                "{node} is at revision {revision}, and the node you are connected to does not catch up"
            ))
            .help(format!("ask {node} itself: --via ADDR, see realm nodes show {node}")))
        })
}

/// The heads of approved nodes that are here, beside the connected one: the same ones whoever asks.
pub async fn elsewhere(connection: &Connection, realm: &Realm) -> Result<Vec<Other>> {
    let status = survey::picture(connection, realm).await?.status;
    Ok(others(connection, realm, status).await)
}

async fn others(connection: &Connection, realm: &Realm, status: Status) -> Vec<Other> {
    connection::remember(connection, realm, &status);
    let here = status.nodes.into_iter().filter(|node| {
        matches!(node.state, NodeState::Ready | NodeState::Draining)
            && node.key != connection.node()
    });
    let mut others: Vec<Node> = here.filter(|node| node.address.is_some()).collect();
    others.sort_by_key(|node| node.key);
    let asked: FuturesUnordered<_> = others
        .into_iter()
        .take(MAX_ASKED - 1)
        .map(|node| ask(connection, realm, node))
        .collect();
    asked.filter_map(std::future::ready).collect().await
}

async fn ask(connection: &Connection, realm: &Realm, node: Node) -> Option<Other> {
    let head = async {
        let (owner, relays) = (connection.owner.clone(), &connection.relays);
        let other = connection::open_at(owner, relays, realm, &node).await?;
        let base = agreed(&other, realm).await?;
        Ok::<_, CliError>((other, base))
    };
    match tokio::time::timeout(ASK, head).await {
        Ok(Ok((connection, base))) => Some(Other {
            name: node.name,
            base,
            connection,
        }),
        Ok(Err(error)) => {
            tracing::debug!(node = node.name, %error, "did not tell its head");
            None
        }
        Err(_) => {
            tracing::debug!(node = node.name, "did not tell its head in time");
            None
        }
    }
}

/// Trusts the author of the head, who owned the realm, to have signed the state before it, and folds
/// one step.
async fn read(head: &Head, connection: &Connection, realm: &Realm) -> Result<Newest> {
    let described = || format!("the node's head, revision {}, cannot be trusted", head.seq);
    let refused = |why: &str| CliError::new(ExitCode::NotAuthorised, described()).help(why);
    if head.seq == 0 {
        let genesis = Signed::<Genesis>::from_wire(&head.entry).context(described())?;
        if genesis.realm_id() != realm.id {
            return Err(refused("its first entry is another realm's"));
        }
        let base = Base {
            state: State::genesis(&genesis),
            head: realm.id,
        };
        return Ok(Newest { base, before: None });
    }
    let link = Link::read(
        &Intent {
            entry: head.entry.clone(),
            payload: Some(head.payload.clone()),
        },
        realm,
    )?;
    let entry: &Entry = &link.entry;
    if entry.seq != head.seq {
        return Err(refused("it is of another revision"));
    }
    let body = entry
        .body
        .as_ref()
        .ok_or_else(|| refused("it was written by a later version of realm: update this one"))?;
    let mine = connection.owner_key();
    if entry.author != mine && !realm.was_owned_by(entry.author) {
        // The realm changed hands and this person did not see how: only the whole log says who signed when.
        let before = head.seq.saturating_sub(1);
        let end = chain::walk(connection, realm, before, |_| {}).await?;
        if end.owner != entry.author {
            return Err(refused(
                "it was signed by somebody who did not own the realm",
            ));
        }
    }
    if Hash::of(&head.parent_state) != body.state {
        return Err(refused(
            "the state it came with is not the one that was signed",
        ));
    }
    let parent = State::decode(&head.parent_state).context(described())?;
    if parent.realm != realm.id {
        return Err(refused("its state is of another realm"));
    }
    let named: Vec<Link> = head
        .named
        .iter()
        .map(|intent| Link::read(intent, realm))
        .collect::<Result<_>>()?;
    let base = Base {
        state: chain::apply(&parent, &link, &chain::by_hash(&named))?,
        head: link.entry.hash(),
    };
    let before = Base {
        state: parent,
        head: link.entry.prev,
    };
    Ok(Newest {
        base,
        before: Some(before),
    })
}

/// Refuses a node that went on without a revision that this person knows as another one.
pub fn another(connection: &Connection, revision: u64, known: &str) -> CliError {
    CliError::failed(format!(
        "the node {} has another revision {revision} than the one that {known}",
        connection.node().short()
    ))
    .named("forked")
    .help("two sides went on alone: bring back the node that has yours, and end the fork with realm history merge; where it is gone for good: realm history accept-loss")
}

pub fn forked(seq: u64) -> CliError {
    CliError::failed(format!(
        "the log has forked at revision {seq}: two intents were signed for it"
    ))
    .named("forked")
    .help("see the branches and end it: realm history merge")
}

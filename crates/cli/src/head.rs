//! The desired state at a node's head, verified; and whether other nodes are further.

use std::time::Duration;

use futures::{StreamExt as _, stream::FuturesUnordered};
use realm_agent::approvals::{ByChain, approved};
use realm_identity::{Entry, Genesis, Hash, PublicKey, Signed, WitnessedClaim};
use realm_planner::State;
use realm_rpc::{Head, Intent, status::NodeState};

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
            if base.state.revision >= mark {
                return Ok(base);
            }
            check_fork(connection, base.state.revision).await?;
            tokio::time::sleep(LOOK).await;
        }
    };
    match tokio::time::timeout(CATCH_UP, reached).await {
        Ok(base) => {
            let base = base?;
            realm.raise_mark(base.state.revision)?;
            realm.remember_owner(base.state.owner)?;
            Ok(base)
        }
        Err(_) => Err(CliError::failed(format!(
            "the node is behind revision {mark}, which you have seen"
        ))
        .help("it has not caught up, or was set back: ask another node with --via ADDR")),
    }
}

async fn check_fork(connection: &Connection, agreed: u64) -> Result<()> {
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
    let chain = ByChain::of(state);
    if let_in == Some(node) || chain.approved.contains_key(&node) {
        return Ok(());
    }
    // A node that was started just now may still be on its way in.
    let standing = async {
        while !is_let_in(connection, state, &chain).await? {
            tokio::time::sleep(LOOK).await;
        }
        Ok(())
    };
    if let Ok(done) = tokio::time::timeout(CATCH_UP, standing).await {
        return done;
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

/// Whether an invite let the connected node in, as its claims show.
async fn is_let_in(connection: &Connection, state: &State, chain: &ByChain) -> Result<bool> {
    let claims = connection.operator.standing().await;
    let claims =
        claims.map_err(|error| rpc_failed("the node does not show its approval", &error))?;
    let claims: Vec<WitnessedClaim> = claims
        .iter()
        .filter_map(|wire| WitnessedClaim::from_wire(wire).ok())
        .collect();
    let let_in = approved(state.realm, &state.owners(), chain, &claims);
    Ok(let_in.contains_key(&connection.node()))
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

/// Asks further nodes for their heads, and waits until the connected one is as far as any of
/// them: what is signed on an older head would fork the realm.
pub async fn wait_for_newest(connection: &Connection, realm: &Realm) -> Result<()> {
    let Some((node, newest)) = newest_elsewhere(connection, realm).await? else {
        return Ok(());
    };
    let caught_up = async {
        loop {
            let here = base(connection, realm).await?;
            if here.state.revision > newest.state.revision || here.head == newest.head {
                return Ok(());
            }
            if here.state.revision == newest.state.revision {
                return Err(forked(here.state.revision));
            }
            tokio::time::sleep(LOOK).await;
        }
    };
    let revision = newest.state.revision;
    tokio::time::timeout(CATCH_UP, caught_up)
        .await
        .unwrap_or_else(|_| {
            Err(CliError::failed(format!(
                "{node} is at revision {revision}, and the node you are connected to does not catch up"
            ))
            .help(format!("ask {node} itself: --via ADDR, see realm nodes show {node}")))
        })
}

/// The newest head among nodes that are here, with the name of who has it.
async fn newest_elsewhere(
    connection: &Connection,
    realm: &Realm,
) -> Result<Option<(String, Base)>> {
    let status = survey::picture(connection, realm).await?.status;
    connection::remember(realm, &status)?;
    let others = status.nodes.into_iter().filter(|node| {
        matches!(node.state, NodeState::Ready | NodeState::Draining)
            && node.key != connection.node()
    });
    let mut asked: FuturesUnordered<_> = others
        .filter_map(|node| Some((node.name, node.key, node.address?)))
        .take(MAX_ASKED - 1)
        .map(|(name, key, address)| async move {
            let answer = tokio::time::timeout(ASK, head_of(connection, realm, key, &address)).await;
            match answer {
                Ok(Ok(base)) => Some((name, base)),
                Ok(Err(error)) => {
                    tracing::debug!(node = name, %error, "did not tell its head");
                    None
                }
                Err(_) => {
                    tracing::debug!(node = name, "did not tell its head in time");
                    None
                }
            }
        })
        .collect();
    let mut newest: Option<(String, Base)> = None;
    while let Some(answer) = asked.next().await {
        let Some((name, base)) = answer else { continue };
        if newest
            .as_ref()
            .is_none_or(|(_, newest)| newest.state.revision < base.state.revision)
        {
            newest = Some((name, base));
        }
    }
    Ok(newest)
}

async fn head_of(
    connection: &Connection,
    realm: &Realm,
    node: PublicKey,
    address: &str,
) -> Result<Base> {
    let other = connection::open_at(connection.owner.clone(), realm, node, address).await?;
    agreed(&other, realm).await
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
    if entry.author != mine && entry.author != realm.genesis.owner() {
        // The realm changed hands more than once: only the whole log says who signed when.
        let owner = chain::walk(connection, realm, head.seq.saturating_sub(1), |_| {}).await?;
        if owner != entry.author {
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

pub fn forked(seq: u64) -> CliError {
    CliError::failed(format!(
        "the log has forked at revision {seq}: two intents were signed for it"
    ))
    .help("see the branches and end it: realm history merge")
}

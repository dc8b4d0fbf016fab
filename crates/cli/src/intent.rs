//! Signs intents and hands them in: from a checked head, once, and never below what was seen.

use std::time::Duration;

use realm_identity::{PublicKey, Signed, Target};
use realm_manifest::payload::Payload;
use realm_planner::{State, fold, next_entry};
use realm_rpc::{ErrorCode, status::NodeState};

use crate::{
    clock,
    connection::{Connection, rpc_failed},
    error::{CliError, Context as _, ExitCode, Result},
    head::{self, Base},
    realms::Realm,
    survey,
};

/// Another operator may be faster this often before we give up.
const MAX_TRIES: u32 = 5;
/// How often a node is asked again whether another one has the intent on disk too.
const LOOK: Duration = Duration::from_millis(100);

/// On how many nodes an intent must be on disk before a command goes on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Durable {
    /// On the node that took it.
    OnOne,
    /// On two, where two are here, within this time.
    OnTwo(Duration),
}

/// What became of an intent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// It would have changed nothing, so there is no new revision.
    Unchanged {
        revision: u64,
    },
    Done {
        revision: u64,
        durable: DurableOn,
    },
}

/// Where an intent is on disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DurableOn {
    /// Nodes that are known to have it.
    pub nodes: u32,
    /// Approved nodes that are here; None where the node that was asked was gone before it told.
    pub of: Option<u32>,
}

impl std::fmt::Display for DurableOn {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "durable on {}", self.nodes)?;
        // A node that is on its way in may have it, and counts for itself.
        self.of
            .map_or(Ok(()), |of| write!(f, " of {}", of.max(self.nodes)))
    }
}

impl Outcome {
    pub const fn revision(self) -> u64 {
        match self {
            Self::Unchanged { revision } | Self::Done { revision, .. } => revision,
        }
    }
}

/// Signs what `decide` makes of the state, and submits it; again on a new head if somebody was faster.
pub async fn submit(
    connection: &Connection,
    realm: &Realm,
    durable: Durable,
    mut decide: impl FnMut(&State) -> Result<(Target, Payload)>,
) -> Result<Outcome> {
    if realm.outbox()?.is_some() {
        let base = head::base(connection, realm).await?;
        head::check_approved(connection, &base.state, None).await?;
        resend(connection, realm).await?;
    }
    head::wait_for_newest(connection, realm).await?;
    for _ in 0..MAX_TRIES {
        let base = head::base(connection, realm).await?;
        let (target, payload) = decide(&base.state)?;
        let changes = fold::would_change(&base.state, &target, &payload)
            .context_code(ExitCode::Usage, "this cannot be done")?;
        if !changes {
            return Ok(Outcome::Unchanged {
                revision: base.state.revision,
            });
        }
        check_owner(&base, connection)?;
        head::check_approved(connection, &base.state, let_in(&target, &payload)).await?;
        let entry = next_entry(
            &base.state,
            base.head,
            connection.owner_key(),
            target,
            &payload,
            clock::now()?,
        );
        if let Some(outcome) = send(connection, realm, durable, entry, &payload).await? {
            return Ok(outcome);
        }
    }
    Err(CliError::failed("other operators were faster, again and again").help("try again"))
}

/// Signs and submits one entry. None where the node has another head, so that a new one may be signed.
pub async fn send(
    connection: &Connection,
    realm: &Realm,
    durable: Durable,
    entry: realm_identity::Entry,
    payload: &Payload,
) -> Result<Option<Outcome>> {
    let signed = Signed::sign(entry, &*connection.owner).context("cannot sign the intent")?;
    let (wire, payload) = (signed.to_wire(), payload.encode());
    realm.put_outbox(&wire, &payload)?;
    let submitted = match connection.operator.submit(&wire, &payload).await {
        Ok(submitted) => submitted,
        // Refused, not lost.
        Err(error) if error.code == ErrorCode::Conflict => {
            realm.clear_outbox()?;
            return Ok(None);
        }
        Err(error) => return Err(not_submitted(realm, &error)),
    };
    realm.raise_mark(submitted.seq)?;
    realm.clear_outbox()?;
    let of = match nodes_here(connection, realm).await {
        Ok(count) => Some(count),
        // The intent is on disk, whatever became of the node since.
        Err(error) => {
            tracing::debug!(%error, "how many nodes are here is not known");
            None
        }
    };
    let mut nodes = submitted.durable_on;
    if let Durable::OnTwo(time) = durable
        && nodes < 2
        && of.is_some_and(|of| of > 1)
    {
        let again = on_two(connection, &wire, &payload);
        nodes = tokio::time::timeout(time, again)
            .await
            .unwrap_or_else(|_| Err(only_one(submitted.seq, time)))?;
    }
    Ok(Some(Outcome::Done {
        revision: submitted.seq,
        durable: DurableOn { nodes, of },
    }))
}

/// Asks until a second node has the intent: submitting the same bytes again is harmless, and says where they are.
async fn on_two(connection: &Connection, wire: &[u8], payload: &[u8]) -> Result<u32> {
    loop {
        let submitted = match connection.operator.submit(wire, payload).await {
            Ok(submitted) => submitted,
            // It has it on disk. Whether others have it too shows when one of them is asked.
            Err(error) if error.code == ErrorCode::Disconnected => return Ok(1),
            Err(error) => return Err(rpc_failed("the node does not say who has it", &error)),
        };
        if submitted.durable_on >= 2 {
            return Ok(submitted.durable_on);
        }
        tokio::time::sleep(LOOK).await;
    }
}

/// How many approved nodes answer.
async fn nodes_here(connection: &Connection, realm: &Realm) -> Result<u32> {
    let status = survey::picture(connection, realm).await?.status;
    let here = |state| matches!(state, NodeState::Ready | NodeState::Draining);
    let nodes = status.nodes.iter();
    let count = nodes.filter(|node| here(node.state)).count();
    Ok(u32::try_from(count).unwrap_or(u32::MAX))
}

fn only_one(revision: u64, time: Duration) -> CliError {
    let time = humantime::format_duration(time);
    CliError::new(
        ExitCode::Partial,
        format!("revision {revision} is on one node only, after {time}"),
    )
    .help("it is not lost unless that node is: see realm status")
}

/// The node that an intent lets into the realm.
const fn let_in(target: &Target, payload: &Payload) -> Option<PublicKey> {
    match (target, payload) {
        (Target::Node(key), Payload::NodeApprove(_)) => Some(*key),
        _ => None,
    }
}

fn check_owner(base: &Base, connection: &Connection) -> Result<()> {
    let (owner, mine): (PublicKey, PublicKey) = (base.state.owner, connection.owner_key());
    if owner == mine {
        return Ok(());
    }
    Err(CliError::new(
        ExitCode::NotAuthorised,
        format!("the realm belongs to {owner} now, your key is {mine}"),
    )
    .help("use that key: --key FILE"))
}

/// Hands in the intent that was signed and never acknowledged, as it is.
async fn resend(connection: &Connection, realm: &Realm) -> Result<()> {
    let Some((wire, payload)) = realm.outbox()? else {
        return Ok(());
    };
    tracing::info!("sending an intent again that was signed and not acknowledged");
    match connection.operator.submit(&wire, &payload).await {
        Ok(submitted) => {
            realm.raise_mark(submitted.seq)?;
            realm.clear_outbox()
        }
        Err(error) if error.code == ErrorCode::Conflict || error.code == ErrorCode::Invalid => {
            tracing::warn!(%error, "the earlier intent was overtaken and is dropped");
            realm.clear_outbox()
        }
        Err(error) => Err(not_submitted(realm, &error)),
    }
}

/// Whether the intent was taken is known only when the node refused it.
fn not_submitted(realm: &Realm, error: &realm_rpc::RpcError) -> CliError {
    let refused = !matches!(
        error.code,
        ErrorCode::Disconnected | ErrorCode::Deadline | ErrorCode::Failed
    );
    if refused && realm.clear_outbox().is_ok() {
        return rpc_failed("the node refuses the intent", error);
    }
    rpc_failed("the intent was signed, but not acknowledged", error)
        .help("run the command again: the same intent is sent once more")
}

//! Signs intents and hands them in: from a checked head, once, and never below what was seen.

use std::time::Duration;

use realm_identity::{PublicKey, Signed, Target};
use realm_manifest::payload::Payload;
use realm_planner::{State, fold, next_entry};
use realm_rpc::{
    ErrorCode, Submitted,
    status::{Node, NodeState},
};

use crate::{
    clock,
    connection::{Connection, rpc_failed},
    delivery,
    error::{CliError, Context as _, ExitCode, Result},
    head::{self, Base},
    keystore,
    outbox::Sealed,
    output::Output,
    realms::Realm,
    signing_lock::SigningLock,
    survey,
};

/// Another operator may be faster this often before we give up.
const MAX_TRIES: u32 = 5;
/// Whoever lost the race stays away for a random part of this, longer with each try, so that the same
/// ones do not meet again.
const BACKOFF: Duration = Duration::from_millis(200);
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
    /// None where the node that was asked was gone before it told.
    members: Option<Members>,
}

impl DurableOn {
    /// The nodes that are to have it. One that is on its way in may have it, and counts for itself.
    pub fn of(self) -> Option<Members> {
        self.members.map(|members| Members {
            here: members.here.max(self.nodes),
            ..members
        })
    }
}

/// The approved nodes of a realm.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Members {
    pub here: u32,
    /// They get an intent when they come back, and are not waited for.
    pub away: u32,
}

impl std::fmt::Display for DurableOn {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "durable on {}", self.nodes)?;
        let Some(Members { here, away }) = self.of() else {
            return Ok(());
        };
        write!(f, " of {}", here.saturating_add(away))?;
        match away {
            0 => Ok(()),
            _ => write!(f, " ({away} away)"),
        }
    }
}

impl Outcome {
    pub const fn revision(self) -> u64 {
        match self {
            Self::Unchanged { revision } | Self::Done { revision, .. } => revision,
        }
    }

    /// Where it is on disk; None where nothing was signed.
    pub const fn durable(self) -> Option<DurableOn> {
        match self {
            Self::Unchanged { .. } => None,
            Self::Done { durable, .. } => Some(durable),
        }
    }
}

/// Signs what `decide` makes of the state, and submits it; again on a new head if somebody was faster.
pub async fn submit(
    (connection, realm): (&Connection, &Realm),
    durable: Durable,
    output: &Output,
    mut decide: impl FnMut(&State) -> Result<(Target, Payload)>,
) -> Result<Outcome> {
    // Held from the look at the head until the intent on it is handed in.
    let lock = realm.lock().await?;
    delivery::resend(connection, realm, &lock, output).await?;
    let seat = head::seat(connection, realm).await?;
    let seat = seat.as_ref().unwrap_or(connection);
    for tried in 0..MAX_TRIES {
        back_off(tried).await?;
        let base = head::base(seat, realm).await?;
        let (target, payload) = decide(&base.state)?;
        let changes = fold::would_change(&base.state, &target, &payload)
            .context_code(ExitCode::Usage, "this cannot be done")?;
        if !changes {
            return Ok(Outcome::Unchanged {
                revision: base.state.revision,
            });
        }
        check_owner(&base, connection)?;
        head::check_approved(seat, &base.state, let_in(&target, &payload)).await?;
        let counted = counted_before(seat, realm, &target, &payload).await?;
        let entry = next_entry(
            &base.state,
            base.head,
            connection.owner_key(),
            target,
            &payload,
            clock::now()?,
        );
        let sent = send(seat, realm, &lock, entry, &payload).await?;
        if let Some(sent) = sent {
            // Others may sign while this one is waited for.
            drop(lock);
            let sent = Sent { counted, ..sent };
            return sent.outcome(seat, realm, durable).await;
        }
    }
    Err(CliError::failed("other operators were faster, again and again").help("try again"))
}

/// Hands in what earlier commands signed and what may be on no node or on one alone: before a node is
/// said to be behind, for it may be this that it lacks.
pub async fn resend(connection: &Connection, realm: &Realm, output: &Output) -> Result<()> {
    let lock = realm.lock().await?;
    delivery::resend(connection, realm, &lock, output).await
}

async fn back_off(tried: u32) -> Result<()> {
    if tried > 0 {
        let [part] = keystore::random::<1>()?;
        tokio::time::sleep(BACKOFF * tried * u32::from(part) / u32::from(u8::MAX)).await;
    }
    Ok(())
}

/// An intent that a node has on disk.
#[derive(Debug)]
pub struct Sent {
    intent: Sealed,
    submitted: Submitted,
    /// The nodes that there were before, where nobody can be asked afterwards.
    counted: Option<Members>,
}

/// Signs and submits one entry. None where the node has another head, so that a new one
/// may be signed.
pub async fn send(
    connection: &Connection,
    realm: &Realm,
    lock: &SigningLock,
    entry: realm_identity::Entry,
    payload: &Payload,
) -> Result<Option<Sent>> {
    let signed = Signed::sign(entry, &*connection.owner)
        .context("cannot sign the intent")
        .map_err(|error| connection.owner.failure().unwrap_or(error))?;
    let intent = Sealed {
        entry: signed.to_wire(),
        payload: payload.encode(),
    };
    let submitted = delivery::hand_in(connection, realm, lock, &intent).await?;
    Ok(submitted.map(|submitted| Sent {
        intent,
        submitted,
        counted: None,
    }))
}

impl Sent {
    /// Where it is, once it is as durable as was asked.
    pub async fn outcome(
        self,
        connection: &Connection,
        realm: &Realm,
        durable: Durable,
    ) -> Result<Outcome> {
        let Submitted {
            seq: revision,
            durable_on: mut nodes,
        } = self.submitted;
        let of = match self.counted {
            Some(count) => Some(count),
            None => match members(connection, realm, None).await {
                Ok(count) => Some(count),
                // The intent is on disk, whatever became of the node since.
                Err(error) => {
                    tracing::debug!(%error, "which nodes there are is not known");
                    None
                }
            },
        };
        if let Durable::OnTwo(time) = durable
            && nodes < 2
            && of.is_some_and(|of| of.here > 1)
        {
            let again = on_two(connection, &self.intent);
            nodes = match tokio::time::timeout(time, again).await {
                Ok(nodes) => {
                    let nodes = nodes?;
                    if nodes >= 2
                        && let Err(error) = delivery::forget_up_to(realm, revision).await
                    {
                        // It is on two nodes all the same; the next command forgets it.
                        tracing::debug!(%error, "kept to be sent again");
                    }
                    nodes
                }
                Err(_) => {
                    let mut error = only_one(revision, time);
                    error.causes = problems(connection, realm).await;
                    return Err(error);
                }
            };
        }
        Ok(Outcome::Done {
            revision,
            durable: DurableOn { nodes, members: of },
        })
    }
}

/// Asks until a second node has the intent: submitting the same bytes again is harmless, and says where they are.
async fn on_two(connection: &Connection, intent: &Sealed) -> Result<u32> {
    loop {
        let submitted = match delivery::submit(connection, intent).await {
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

/// Who takes a node out, or hands the realm on, ends what the nodes gave out before, this connection
/// among it: which nodes there are has to be counted first.
async fn counted_before(
    connection: &Connection,
    realm: &Realm,
    target: &Target,
    payload: &Payload,
) -> Result<Option<Members>> {
    let leaves = match (target, payload) {
        (Target::Node(key), Payload::NodeRevoke(_) | Payload::NodeRemove(_)) => Some(*key),
        (_, Payload::OwnerRotate(_)) => None,
        _ => return Ok(None),
    };
    members(connection, realm, leaves).await.map(Some)
}

/// The approved nodes, beside one that leaves.
async fn members(
    connection: &Connection,
    realm: &Realm,
    leaves: Option<PublicKey>,
) -> Result<Members> {
    let status = survey::picture(connection, realm).await?.status;
    let count = |is: fn(NodeState) -> bool| {
        let nodes = status.nodes.iter();
        let stays = |node: &&Node| is(node.state) && leaves != Some(node.key);
        u32::try_from(nodes.filter(stays).count()).unwrap_or(u32::MAX)
    };
    Ok(Members {
        here: count(|state| matches!(state, NodeState::Ready | NodeState::Draining)),
        away: count(|state| state == NodeState::Lost),
    })
}

fn only_one(revision: u64, time: Duration) -> CliError {
    let time = humantime::format_duration(time);
    CliError::new(
        ExitCode::Partial,
        format!("revision {revision} is on one node only, after {time}"),
    )
    .help("it is not lost unless that node is: see realm status")
}

/// What the nodes say keeps them from doing their part.
async fn problems(connection: &Connection, realm: &Realm) -> Vec<String> {
    let nodes = match survey::picture(connection, realm).await {
        Ok(picture) => picture.status.nodes,
        // It only explains an error that is told anyway.
        Err(error) => {
            tracing::debug!(%error, "what keeps the other nodes is not known");
            return Vec::new();
        }
    };
    let problems = nodes.iter().flat_map(|node| {
        let told = node.problems.iter();
        told.map(|problem| format!("{}: {}", node.name, problem.message))
    });
    problems.collect()
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_is_away_is_said_and_counted() {
        let said = |nodes, members| DurableOn { nodes, members }.to_string();
        let of = |here, away| Some(Members { here, away });
        assert_eq!(said(1, of(1, 2)), "durable on 1 of 3 (2 away)");
        assert_eq!(said(2, of(3, 0)), "durable on 2 of 3");
        assert_eq!(said(2, of(1, 1)), "durable on 2 of 3 (1 away)");
        assert_eq!(said(2, of(1, 0)), "durable on 2 of 2");
        assert_eq!(said(1, None), "durable on 1");
    }
}

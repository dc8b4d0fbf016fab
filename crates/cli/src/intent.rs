//! Signs intents and hands them in: from a checked head, once, and never below what was seen.

use realm_identity::{Entry, Genesis, Hash, Kind, Signed, Signer as _, Target};
use realm_manifest::payload::Payload;
use realm_planner::{State, fold, next_entry};
use realm_rpc::{ErrorCode, Head};

use crate::{
    clock,
    connection::{Connection, rpc_failed},
    error::{CliError, Context as _, ExitCode, Result},
    realms::Realm,
};

/// Another operator may be faster this often before we give up.
const MAX_TRIES: u32 = 5;

/// The desired state at a head that was checked.
#[derive(Debug, Clone)]
pub struct Base {
    pub state: State,
    pub head: Hash,
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
        durable_on: u32,
    },
}

impl Outcome {
    pub const fn revision(self) -> u64 {
        match self {
            Self::Unchanged { revision } | Self::Done { revision, .. } => revision,
        }
    }
}

/// Asks for the head, checks it, and folds it.
pub async fn base(connection: &Connection, realm: &Realm) -> Result<Base> {
    let head = connection.operator.head().await;
    let head = head.map_err(|error| rpc_failed("the node does not tell its head", &error))?;
    let mark = realm.mark()?;
    if head.seq < mark {
        return Err(CliError::failed(format!(
            "the node is at revision {}, you have seen {mark}",
            head.seq
        ))
        .help("it has not caught up, or was set back: ask another node with --via ADDR"));
    }
    let base = fold_head(&head, realm, connection.owner.public())?;
    realm.raise_mark(base.state.revision)?;
    Ok(base)
}

/// Signs what `decide` makes of the state, and submits it; again on a new head if somebody was faster.
pub async fn submit(
    connection: &Connection,
    realm: &Realm,
    mut decide: impl FnMut(&State) -> Result<(Target, Payload)>,
) -> Result<Outcome> {
    resend(connection, realm).await?;
    for _ in 0..MAX_TRIES {
        let base = base(connection, realm).await?;
        let (target, payload) = decide(&base.state)?;
        let changes = fold::would_change(&base.state, &target, &payload)
            .context_code(ExitCode::Usage, "this cannot be done")?;
        if !changes {
            return Ok(Outcome::Unchanged {
                revision: base.state.revision,
            });
        }
        let owner = &*connection.owner;
        let entry = next_entry(
            &base.state,
            base.head,
            owner.public(),
            target,
            &payload,
            clock::now()?,
        );
        let signed = Signed::sign(entry, owner).context("cannot sign the intent")?;
        let (wire, payload) = (signed.to_wire(), payload.encode());
        realm.put_outbox(&wire, &payload)?;
        match connection.operator.submit(&wire, &payload).await {
            Ok(submitted) => {
                realm.raise_mark(submitted.seq)?;
                realm.clear_outbox()?;
                return Ok(Outcome::Done {
                    revision: submitted.seq,
                    durable_on: submitted.durable_on,
                });
            }
            // Refused, not lost: the node has another head, so a new intent may be signed.
            Err(error) if error.code == ErrorCode::Conflict => realm.clear_outbox()?,
            Err(error) => return Err(not_submitted(realm, &error)),
        }
    }
    Err(CliError::failed("other operators were faster, again and again").help("try again"))
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

/// Trusts the author of the head to have signed the state before it, and folds one step.
fn fold_head(head: &Head, realm: &Realm, owner: realm_identity::PublicKey) -> Result<Base> {
    let described = || format!("the node's head, revision {}, cannot be trusted", head.seq);
    let refused = |why: &str| CliError::new(ExitCode::NotAuthorised, described()).help(why);
    if head.seq == 0 {
        let genesis = Signed::<Genesis>::from_wire(&head.entry).context(described())?;
        if genesis.realm_id() != realm.id {
            return Err(refused("its first entry is another realm's"));
        }
        return Ok(Base {
            state: State::genesis(&genesis),
            head: realm.id,
        });
    }
    let entry = Signed::<Entry>::from_wire(&head.entry).context(described())?;
    if entry.realm != realm.id || entry.seq != head.seq {
        return Err(refused("it is of another realm or revision"));
    }
    if entry.author != owner && entry.author != realm.genesis.owner() {
        return Err(refused("it was signed by somebody else than you"));
    }
    let body = entry
        .body
        .as_ref()
        .ok_or_else(|| refused("it was written by a later version of realm: update this one"))?;
    if Hash::of(&head.parent_state) != body.state {
        return Err(refused(
            "the state it came with is not the one that was signed",
        ));
    }
    if entry.kind() == Some(Kind::Merge) {
        return Err(CliError::failed(described())
            .help("it ends a fork; this version cannot build on a merge yet"));
    }
    let parent = State::decode(&head.parent_state).context(described())?;
    if parent.realm != realm.id {
        return Err(refused("its state is of another realm"));
    }
    let state = fold::apply(&parent, &entry, &head.payload).context(described())?;
    Ok(Base {
        state,
        head: entry.hash(),
    })
}

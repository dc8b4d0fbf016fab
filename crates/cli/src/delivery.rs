//! Hands signed intents to the nodes until they are safe there: on one node, and on two where two exist.

use std::time::Duration;

use realm_rpc::{ErrorCode, RpcError, Submitted};

use crate::{
    connection::{Connection, rpc_failed},
    error::{CliError, Result},
    head,
    outbox::Sealed,
    output::Output,
    realms::Realm,
    signing_lock::SigningLock,
};

/// How long a command waits for the signing lock only to tidy up.
const TURN: Duration = Duration::from_secs(1);

/// Hands in an intent that was signed just now. None where the node has another head, so that a new
/// one may be signed.
pub async fn hand_in(
    connection: &Connection,
    realm: &Realm,
    lock: &SigningLock,
    intent: &Sealed,
) -> Result<Option<Submitted>> {
    realm.outbox().put(intent)?;
    match submit(connection, intent).await {
        Ok(submitted) => {
            settle(connection, realm, lock, (submitted, intent)).await?;
            Ok(Some(submitted))
        }
        // Refused, not lost.
        Err(error) if error.code == ErrorCode::Conflict => {
            realm.outbox().clear()?;
            Ok(None)
        }
        Err(error) => Err(not_submitted(connection, realm, &error)),
    }
}

/// Hands in again, as they are, what earlier commands signed and what the nodes may not have: before
/// a head is compared with what was seen, for it may be this that the nodes lack. Refuses a node that
/// has gone on without it: what is signed there would contradict what was signed before.
pub async fn resend(
    connection: &Connection,
    realm: &Realm,
    lock: &SigningLock,
    output: &Output,
) -> Result<()> {
    let Some(revision) = offer(connection, realm, lock, output).await? else {
        return Ok(());
    };
    let known = "you signed and another node took";
    Err(head::another(connection, revision, known))
}

/// As [`resend`]. Some where the node has gone on without this revision, which another node took.
pub async fn offer(
    connection: &Connection,
    realm: &Realm,
    lock: &SigningLock,
    output: &Output,
) -> Result<Option<u64>> {
    let outbox = realm.outbox();
    let (kept, unacknowledged) = (outbox.kept()?, outbox.unacknowledged()?);
    if kept.is_empty() && unacknowledged.is_none() {
        return Ok(None);
    }
    let base = head::agreed(connection, realm).await?;
    // A fork takes nothing before it is ended; what was signed stays here until then.
    head::check_fork(connection, base.state.revision).await?;
    if unacknowledged.is_some() {
        head::check_approved(connection, &base.state, None).await?;
    } else if !head::is_approved(connection, &base.state).await? {
        return Ok(None);
    }
    let mut at = base.state.revision;
    for (revision, intent) in &kept {
        // What comes before it is not here either: the node is behind, and may catch up.
        if *revision == at.saturating_add(1) {
            if !again(connection, realm, (*revision, intent), output).await? {
                return Ok(Some(*revision));
            }
            at = *revision;
        }
    }
    if let Some((revision, newest)) = kept.last().filter(|(revision, _)| *revision <= at)
        && !forget_if_safe(connection, realm, newest).await?
    {
        return Ok(Some(*revision));
    }
    if let Some(intent) = unacknowledged {
        output.say("sending an intent again that was signed and not acknowledged");
        match submit(connection, &intent).await {
            Ok(submitted) => settle(connection, realm, lock, (submitted, &intent)).await?,
            Err(error) if is_overtaken(&error) => {
                output.say(format!(
                    "warning: the earlier intent was overtaken and is dropped: {error}"
                ));
                outbox.clear()?;
            }
            Err(error) => return Err(not_submitted(connection, realm, &error)),
        }
    }
    Ok(None)
}

/// Whether the node took what it did not have; not where it has something else there.
async fn again(
    connection: &Connection,
    realm: &Realm,
    (revision, intent): (u64, &Sealed),
    output: &Output,
) -> Result<bool> {
    output.say(format!(
        "{} lacks revision {revision}, which only one node is known to have: sending it again",
        connection.node().short()
    ));
    match submit(connection, intent).await {
        Ok(submitted) => realm
            .raise_mark(submitted.seq, intent.hash()?)
            .map(|()| true),
        Err(error) if is_overtaken(&error) => Ok(false),
        Err(error) => Err(rpc_failed(
            format!(
                "{} does not take revision {revision} again",
                connection.described()
            ),
            &error,
        )),
    }
}

/// An acknowledged intent leaves the outbox; its bytes stay here while one node alone has it.
async fn settle(
    connection: &Connection,
    realm: &Realm,
    _lock: &SigningLock,
    (submitted, intent): (Submitted, &Sealed),
) -> Result<()> {
    realm.raise_mark(submitted.seq, intent.hash()?)?;
    let outbox = realm.outbox();
    if submitted.durable_on >= 2 {
        outbox.forget_kept()?;
        return outbox.clear();
    }
    match head::approved_count(connection, realm).await {
        Ok(count) if count < 2 => outbox.clear(),
        Ok(_) => outbox.keep(submitted.seq),
        Err(error) => {
            tracing::debug!(%error, "whether a second node exists is not known");
            outbox.keep(submitted.seq)
        }
    }
}

/// Who has the newest kept intent has those before it too. Whether the node has it at all.
async fn forget_if_safe(connection: &Connection, realm: &Realm, newest: &Sealed) -> Result<bool> {
    let safe = match submit(connection, newest).await {
        Ok(submitted) => {
            submitted.durable_on >= 2 || head::approved_count(connection, realm).await? < 2
        }
        Err(error) if is_overtaken(&error) => return Ok(false),
        // A node that cannot write, as with a full disk: what is kept stays for another one.
        Err(error) if error.code == ErrorCode::Failed => {
            tracing::debug!(%error, "whether a second node has it is not known");
            false
        }
        Err(error) => return Err(rpc_failed("the node does not say who has it", &error)),
    };
    if safe {
        realm.outbox().forget_kept()?;
    }
    Ok(true)
}

/// Two nodes were seen to have this revision, and so all before it: nothing of them is sent again.
pub async fn forget_up_to(realm: &Realm, revision: u64) -> Result<()> {
    match tokio::time::timeout(TURN, realm.lock()).await {
        Ok(lock) => {
            let _lock = lock?;
            realm.outbox().forget_kept_to(revision)
        }
        // Whoever signs now finds it out again.
        Err(_) => Ok(()),
    }
}

/// Submitting the same bytes twice is harmless, and says where they are.
pub async fn submit(
    connection: &Connection,
    intent: &Sealed,
) -> std::result::Result<Submitted, RpcError> {
    let answer = connection.operator.submit(&intent.entry, &intent.payload);
    answer.await
}

fn is_overtaken(error: &RpcError) -> bool {
    matches!(error.code, ErrorCode::Conflict | ErrorCode::Invalid)
}

/// Whether the intent was taken is known only when the node refused it.
fn not_submitted(connection: &Connection, realm: &Realm, error: &RpcError) -> CliError {
    let node = connection.described();
    let refused = !matches!(
        error.code,
        ErrorCode::Disconnected | ErrorCode::Deadline | ErrorCode::Failed
    );
    if refused && realm.outbox().clear().is_ok() {
        return rpc_failed(format!("{node} refuses the intent"), error);
    }
    rpc_failed(
        format!("the intent was signed, but not acknowledged by {node}"),
        error,
    )
    .help(
        "run the command again: the same intent is sent once more, to another node with --via ADDR",
    )
}

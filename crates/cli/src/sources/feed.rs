//! Reads what nodes tell in order, all of them together, also when one was away in between.

use std::{rc::Rc, time::Duration};

use realm_identity::Timestamp;
use realm_rpc::{ErrorCode, RpcError};
use tokio::sync::mpsc;

use super::Source;
use crate::{
    clock,
    connection::{self, Connection, rpc_failed},
    error::{CliError, ExitCode, Result},
    output::Output,
    realms::Realm,
};

/// Between two looks whether a node is back: doubles from the first to the last.
const FIRST_LOOK: Duration = Duration::from_millis(250);
const LAST_LOOK: Duration = Duration::from_secs(5);

/// What one node tells.
pub trait Feed {
    type Item;
    type Query;

    /// What to ask of a new connection.
    fn query(&mut self) -> Self::Query;

    /// Asks for it; ends when there is no more of it.
    fn ask(
        connection: &Connection,
        query: Self::Query,
        to: mpsc::Sender<Vec<Self::Item>>,
    ) -> impl Future<Output = std::result::Result<(), RpcError>>;

    /// Whether it is wanted, and no earlier connection has told it.
    fn is_new(&mut self, item: &Self::Item) -> bool;
}

/// What is done with all that comes.
#[derive(Debug, Clone, Copy)]
pub struct Reading {
    /// Shown as it comes, until interrupted; else in the order of time.
    pub follow: bool,
    /// Only the last so many of all together, while they are not followed.
    pub tail: Option<u64>,
    /// What the nodes give, in the plural, for a person.
    pub what: &'static str,
}

/// Shows what all nodes tell, each item with the name of its node. Answers how many that were.
pub async fn read<F: Feed>(
    sources: Vec<Source<'_>>,
    realm: &Realm,
    reading: Reading,
    output: &Output,
    mut feed: impl FnMut() -> F,
    at: impl Fn(&F::Item) -> Timestamp,
    show: impl Fn(&str, &F::Item) -> Result<()>,
) -> Result<usize> {
    // One batch at a time: a slow terminal holds the nodes back.
    let (to, mut from) = mpsc::channel::<(&str, Vec<F::Item>)>(1);
    let print = async {
        let (mut kept, mut count) = (Vec::new(), 0);
        while let Some((node, items)) = from.recv().await {
            count += items.len();
            for item in items {
                if reading.follow {
                    show(node, &item)?;
                } else {
                    kept.push((node, item));
                }
            }
        }
        kept.sort_by_key(|(_, item)| at(item));
        let tail = reading.tail.and_then(|tail| usize::try_from(tail).ok());
        let skip = tail.map_or(0, |tail| kept.len().saturating_sub(tail));
        for (node, item) in &kept[skip..] {
            show(node, item)?;
        }
        Ok(count)
    };
    let told = sources.into_iter().map(|source| {
        let (to, feed) = (to.clone(), feed());
        follow(source, realm, reading, feed, to, output)
    });
    let told = futures::future::join_all(told);
    drop(to);
    // Where nobody reads any more, no node is waited for.
    let told = async { Ok::<_, CliError>(told.await) };
    let (ended, count) = tokio::try_join!(told, print)?;
    ended.into_iter().collect::<Result<()>>()?;
    Ok(count)
}

/// Sends what the node tells until it has no more, or refuses. Dropping it midway ends it.
async fn follow<'s, F: Feed>(
    mut source: Source<'s>,
    realm: &Realm,
    reading: Reading,
    mut feed: F,
    to: mpsc::Sender<(&'s str, Vec<F::Item>)>,
    output: &Output,
) -> Result<()> {
    let (node, what) = (&source.node.name, reading.what);
    loop {
        let Err(error) = one(&source, &mut feed, &to).await else {
            return Ok(());
        };
        if !reading.follow || error.code != ErrorCode::Disconnected {
            let message = format!("{node} does not give its {what}");
            return Err(rpc_failed(message, &error));
        }
        let since = clock::rfc3339(clock::now()?);
        output.say(format!(
            "no more {what} from {node}: it is gone; they go on when it is back"
        ));
        source.connection = back(&source, realm).await?;
        output.say(format!("{node} is back: it was away since {since}"));
    }
}

/// What one connection tells, but for what was told before.
async fn one<'s, F: Feed>(
    source: &Source<'s>,
    feed: &mut F,
    to: &mpsc::Sender<(&'s str, Vec<F::Item>)>,
) -> std::result::Result<(), RpcError> {
    let (sink, mut from) = mpsc::channel::<Vec<F::Item>>(1);
    let asked = F::ask(&source.connection, feed.query(), sink);
    let node = source.node.name.as_str();
    let forward = async {
        while let Some(mut items) = from.recv().await {
            items.retain(|item| feed.is_new(item));
            // Nobody reads any more: the command is over.
            if !items.is_empty() && to.send((node, items)).await.is_err() {
                return;
            }
        }
    };
    let (ended, ()) = tokio::join!(asked, forward);
    ended
}

/// Waits until the node answers again, where it did or through its relays.
async fn back(gone: &Source<'_>, realm: &Realm) -> Result<Connection> {
    let mut wait = FIRST_LOOK;
    loop {
        tokio::time::sleep(wait).await;
        let (owner, relays) = (Rc::clone(&gone.connection.owner), &gone.connection.relays);
        match connection::open_at(owner, relays, realm, gone.node).await {
            Err(error) if error.code == ExitCode::NoAgent => {
                tracing::debug!(%error, "not back yet");
                wait = wait.saturating_mul(2).min(LAST_LOOK);
            }
            opened => return opened,
        }
    }
}

//! Reads what nodes tell in order, all of them together, also when one was away in between.

use std::time::Duration;

use realm_identity::Timestamp;
use realm_rpc::{ErrorCode, RpcError};
use tokio::sync::mpsc;

use super::{Source, Way};
use crate::{
    clock,
    connection::{Connection, rpc_failed},
    error::{CliError, ExitCode, Result},
    output::Output,
    realms::Realm,
};

/// Between two looks whether a node is back: doubles from the first to the last.
const FIRST_LOOK: Duration = Duration::from_millis(250);
const LAST_LOOK: Duration = Duration::from_secs(5);
/// What is kept to be put in the order of time.
const MAX_KEPT_BYTES: usize = 512 * 1024 * 1024;

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

    fn at(item: &Self::Item) -> Timestamp;

    /// Roughly what it takes in memory.
    fn bytes(item: &Self::Item) -> usize;
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

/// Shows what all nodes tell, each item with the name of its node. Answers how many that were. Nodes
/// that `later` leads to are dialled until they answer: they are for what is followed.
pub async fn read<F: Feed>(
    sources: Vec<Source<'_>>,
    later: Vec<Way<'_>>,
    realm: &Realm,
    reading: Reading,
    output: &Output,
    mut feed: impl FnMut() -> F,
    show: impl Fn(&str, &F::Item) -> Result<()>,
) -> Result<usize> {
    // One batch at a time: a slow terminal holds the nodes back.
    let (to, mut from) = mpsc::channel::<(&str, Vec<F::Item>)>(1);
    let print = async {
        let mut count = 0;
        let mut kept = Kept::<F>::new(reading);
        while let Some((node, items)) = from.recv().await {
            count += items.len();
            if reading.follow {
                items.iter().try_for_each(|item| show(node, item))?;
            } else {
                kept.add(node, items)?;
            }
        }
        let kept = kept.in_order();
        kept.iter().try_for_each(|(node, item)| show(node, item))?;
        Ok(count)
    };
    let now = sources
        .into_iter()
        .map(|source| Told::Now(Box::new(source)));
    let told = now.chain(later.into_iter().map(Told::Later)).map(|told| {
        let (to, feed) = (to.clone(), feed());
        async move {
            let source = told.open(realm, output).await?;
            follow(source, realm, reading, feed, to, output).await
        }
    });
    let told = futures::future::join_all(told);
    drop(to);
    // Where nobody reads any more, no node is waited for.
    let told = async { Ok::<_, CliError>(told.await) };
    let (ended, count) = tokio::try_join!(told, print)?;
    ended.into_iter().collect::<Result<()>>()?;
    Ok(count)
}

/// A node that tells something.
enum Told<'s> {
    Now(Box<Source<'s>>),
    /// As soon as it is reached.
    Later(Way<'s>),
}

impl<'s> Told<'s> {
    async fn open(self, realm: &Realm, output: &Output) -> Result<Source<'s>> {
        let way = match self {
            Self::Now(source) => return Ok(*source),
            Self::Later(way) => way,
        };
        let (node, name) = (way.node, &way.node.name);
        match reached(&way, realm).await {
            Ok(connection) => {
                output.say(format!("{name} is reached"));
                Ok(Source { connection, node })
            }
            Err(error) => {
                // The others go on.
                output.say(error.in_one_line());
                Err(error)
            }
        }
    }
}

/// What came, until all of it is there.
struct Kept<'s, F: Feed> {
    items: Vec<(&'s str, F::Item)>,
    bytes: usize,
    /// How many are wanted in the end.
    tail: Option<usize>,
    what: &'static str,
}

impl<'s, F: Feed> Kept<'s, F> {
    fn new(reading: Reading) -> Self {
        Self {
            items: Vec::new(),
            bytes: 0,
            tail: reading.tail.and_then(|tail| usize::try_from(tail).ok()),
            what: reading.what,
        }
    }

    fn add(&mut self, node: &'s str, items: Vec<F::Item>) -> Result<()> {
        self.bytes += items.iter().map(F::bytes).sum::<usize>();
        self.items
            .extend(items.into_iter().map(|item| (node, item)));
        if self.bytes > MAX_KEPT_BYTES {
            self.cut();
        }
        if self.bytes > MAX_KEPT_BYTES {
            let message = format!("more {} than are shown at once", self.what);
            return Err(CliError::failed(message)
                .help("ask for less: --tail N, --since DURATION, --node NODE"));
        }
        Ok(())
    }

    /// Leaves the last ones, as many as are wanted, in the order of time.
    fn cut(&mut self) {
        self.items.sort_by_key(|(_, item)| F::at(item));
        let many = self.items.len();
        let skip = self.tail.map_or(0, |tail| many.saturating_sub(tail));
        self.items.drain(..skip);
        self.bytes = self.items.iter().map(|(_, item)| F::bytes(item)).sum();
    }

    fn in_order(mut self) -> Vec<(&'s str, F::Item)> {
        self.cut();
        self.items
    }
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
        if !reading.follow || !ended_by_itself(&error) {
            let message = format!("{node} does not give its {what}");
            let refused = rpc_failed(message, &error);
            if reading.follow {
                // The others go on.
                output.say(refused.in_one_line());
            }
            return Err(refused);
        }
        let since = clock::rfc3339(clock::now()?);
        output.say(format!(
            "no more {what} from {node}: it is gone, or ended the connection; they go on when it is back"
        ));
        source.connection = back(&source, realm).await?;
        output.say(format!("{node} is back: it was away since {since}"));
    }
}

/// Whether a new connection may go on: the node was away, or a change of the realm's nodes ended all
/// connections, as it does so that nobody keeps rights that were taken.
pub fn ended_by_itself(error: &RpcError) -> bool {
    matches!(
        error.code,
        ErrorCode::Disconnected | ErrorCode::NotAuthorised
    )
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
    let (owner, relays) = (&gone.connection.owner, &gone.connection.relays);
    let way = Way {
        node: gone.node,
        owner: owner.clone(),
        relays: relays.clone(),
    };
    reached(&way, realm).await
}

/// Waits until the node answers.
async fn reached(way: &Way<'_>, realm: &Realm) -> Result<Connection> {
    let mut wait = FIRST_LOOK;
    loop {
        tokio::time::sleep(wait).await;
        match way.open(realm).await {
            Err(error) if error.code == ExitCode::NoAgent => {
                tracing::debug!(%error, "not reached yet");
                wait = wait.saturating_mul(2).min(LAST_LOOK);
            }
            opened => return opened,
        }
    }
}

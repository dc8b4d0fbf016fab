//! What runs where, as the nodes themselves have signed it: the status of a realm, once or followed.
//!
//! What is asked comes from the verified head, what runs from reports that each node has signed. The
//! node that is asked can leave something out; it cannot speak for another one.

use std::{ops::ControlFlow, time::Duration};

use realm_agent::status::{Picture, Reader};
use realm_identity::{Hash, PublicKey};
use realm_rpc::{
    RpcError, Survey,
    status::{Node, Status},
};
use tokio::sync::mpsc;

use crate::{
    commands::Session,
    connection::{self, Connection, rpc_failed},
    error::{CliError, ExitCode, Result},
    head::{self, Base},
    output::Output,
    realms::Realm,
    sources::feed::ended_by_itself,
};

/// Fewer letters of a key name no node.
const LEAST_LETTERS: usize = 4;
/// A node that is followed says something every two seconds; silence for longer means that it is gone.
const SILENCE: Duration = Duration::from_secs(5);

/// The status as it is now.
pub async fn picture(connection: &Connection, realm: &Realm) -> Result<Picture> {
    Ok(read(connection, realm).await?.0)
}

/// The status as it is now, and the entry that it follows from.
async fn read(connection: &Connection, realm: &Realm) -> Result<(Picture, Hash)> {
    let survey = async { connection.operator.survey().await.map_err(failed) };
    let (newest, survey) = tokio::try_join!(head::newest(connection, realm), survey)?;
    let base = newest.at(survey.head.hash);
    let picture = Reader::default().read(&base.state, connection.node(), &survey);
    Ok((picture, base.head))
}

/// The status as it is now, with a word about what does not verify.
pub async fn status(connection: &Connection, realm: &Realm, output: &Output) -> Result<Status> {
    Ok(status_and_head(connection, realm, output).await?.0)
}

/// The same, and the entry of its revision.
pub async fn status_and_head(
    connection: &Connection,
    realm: &Realm,
    output: &Output,
) -> Result<(Status, Hash)> {
    let (picture, head) = read(connection, realm).await?;
    warn(&picture, output);
    Ok((picture.status, head))
}

/// The keys of nodes, as [`node_key`], and the status that they are found in; None where none is wanted.
pub async fn named(
    wanted: &[String],
    connection: &Connection,
    realm: &Realm,
    output: &Output,
) -> Result<Option<(Vec<PublicKey>, Status)>> {
    if wanted.is_empty() {
        return Ok(None);
    }
    let status = status(connection, realm, output).await?;
    let keys = wanted.iter().map(|wanted| node_key(&status, wanted));
    let keys = keys.collect::<Result<_>>()?;
    Ok(Some((keys, status)))
}

/// The key of the node called `wanted`, which may be a key itself.
///
/// A node of the realm comes before one that asks to join or was revoked: no stranger makes a name
/// ambiguous by calling itself so.
pub fn node_key(status: &Status, wanted: &str) -> Result<PublicKey> {
    if let Ok(key) = wanted.parse() {
        return Ok(key);
    }
    // A name comes before a few letters that begin somebody's key.
    let is_called = |node: &&Node| node.name == wanted;
    let is_wanted = |node: &&Node| match status.nodes.iter().any(|node| is_called(&node)) {
        true => is_called(node) || is_shown_as(&node.key, wanted),
        false => begins(&node.key, wanted),
    };
    let found = status.nodes.iter().filter(is_wanted);
    let (members, others): (Vec<&Node>, Vec<&Node>) =
        found.partition(|node| connection::is_member(node));
    let found = if members.is_empty() { others } else { members };
    match found[..] {
        [node] => Ok(node.key),
        [] => Err(
            CliError::new(ExitCode::NotFound, format!("no node {wanted:?}"))
                .help("list them: realm nodes ls"),
        ),
        _ => {
            let keys: Vec<String> = found.iter().map(|node| node.key.to_string()).collect();
            Err(CliError::new(
                ExitCode::Usage,
                format!("several nodes are called {wanted}: {}", keys.join(", ")),
            )
            .help("give the key of the right one, or its first letters: realm nodes ls"))
        }
    }
}

/// How lists show a key.
fn is_shown_as(key: &PublicKey, wanted: &str) -> bool {
    key.short() == wanted.trim_start_matches("ed25519:")
}

/// Whether these are the first letters of a key, enough of them to be no slip of the hand.
pub fn begins(key: &PublicKey, wanted: &str) -> bool {
    let wanted = wanted.trim_start_matches("ed25519:");
    let whole = key.to_string();
    let letters = whole.trim_start_matches("ed25519:");
    wanted.len() >= LEAST_LETTERS && letters.starts_with(wanted)
}

/// Says which node's word was handed over without that node's signature.
fn warn(picture: &Picture, output: &Output) {
    for unsigned in &picture.unsigned {
        output.say(format!(
            "warning: what was handed over as the word of {} is not signed by it and does not count: {}; ask another node: --via ADDR",
            unsigned.node, unsigned.why
        ));
    }
}

fn failed(error: RpcError) -> CliError {
    rpc_failed("the node does not tell its status", &error)
}

/// Follows the status of a realm; goes on with another node when the one that it asks is gone.
#[derive(Debug)]
pub struct Follower<'a> {
    session: &'a Session,
    realm: &'a Realm,
    first: &'a Connection,
    /// The node that took the place of the first one.
    other: Option<Connection>,
    /// How long another node is looked for.
    patience: Duration,
    /// Why nobody is asked at present.
    gone: Option<CliError>,
    warned: bool,
}

/// Why one node is not followed any longer.
enum End<T> {
    Found(T),
    Gone(CliError),
}

impl<'a> Follower<'a> {
    pub const fn new(
        session: &'a Session,
        realm: &'a Realm,
        first: &'a Connection,
        patience: Duration,
    ) -> Self {
        Self {
            session,
            realm,
            first,
            other: None,
            patience,
            gone: None,
            warned: false,
        }
    }

    /// Why nobody is asked at present; None while somebody is.
    pub fn gone(&mut self) -> Option<CliError> {
        self.gone.take()
    }

    /// Shows each status to `visit` until that breaks.
    pub async fn follow<T>(
        &mut self,
        mut visit: impl FnMut(Picture) -> Result<ControlFlow<T>>,
    ) -> Result<T> {
        loop {
            match self.follow_one(&mut visit).await? {
                End::Found(value) => return Ok(value),
                End::Gone(why) => self.go_on_elsewhere(why).await?,
            }
        }
    }

    async fn go_on_elsewhere(&mut self, why: CliError) -> Result<()> {
        let left = self.other.as_ref().unwrap_or(self.first);
        let (node, owner) = (left.node(), left.owner.clone());
        let output = &self.session.output;
        output.say(format!(
            "{} does not answer any more: looking for another node, for {}",
            node.short(),
            humantime::format_duration(self.patience)
        ));
        self.gone = Some(why);
        let other = connection::reopen(self.session, self.realm, owner, self.patience).await?;
        output.say(format!("going on with {}", other.node().short()));
        self.gone = None;
        self.other = Some(other);
        Ok(())
    }

    async fn follow_one<T>(
        &mut self,
        visit: &mut impl FnMut(Picture) -> Result<ControlFlow<T>>,
    ) -> Result<End<T>> {
        let connection = self.other.as_ref().unwrap_or(self.first);
        let (to, mut from) = mpsc::channel::<Survey>(1);
        let mut following = std::pin::pin!(connection.operator.watch(to));
        let mut reader = Reader::default();
        let mut base: Option<Base> = None;
        loop {
            let survey = tokio::select! {
                survey = from.recv() => survey,
                ended = &mut following => match ended {
                    Err(error) if !ended_by_itself(&error) => return Err(failed(error)),
                    Err(error) => return Ok(End::Gone(failed(error))),
                    Ok(()) => {
                        let ended = CliError::new(ExitCode::NoAgent, "the node ended the status");
                        return Ok(End::Gone(ended));
                    }
                },
                () = tokio::time::sleep(SILENCE) => {
                    let silent = CliError::new(ExitCode::NoAgent, "the node says nothing any more");
                    return Ok(End::Gone(silent));
                }
            };
            let Some(survey) = survey else { continue };
            let moved = base
                .as_ref()
                .is_none_or(|base| base.head != survey.head.hash);
            if moved {
                match head::newest(connection, self.realm).await {
                    Ok(now) => base = Some(now.at(survey.head.hash)),
                    Err(error) if error.code == ExitCode::NoAgent => return Ok(End::Gone(error)),
                    Err(error) => return Err(error),
                }
            }
            let Some(base) = &base else { continue };
            let picture = reader.read(&base.state, connection.node(), &survey);
            if !self.warned && !picture.unsigned.is_empty() {
                self.warned = true;
                warn(&picture, &self.session.output);
            }
            if moved {
                connection::remember(connection, self.realm, &picture.status);
            }
            if let ControlFlow::Break(value) = visit(picture)? {
                return Ok(End::Found(value));
            }
        }
    }
}

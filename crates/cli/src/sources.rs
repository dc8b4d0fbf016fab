//! A connection to each node of the realm, for what each tells of itself alone.

pub mod feed;

use std::rc::Rc;

use futures::{StreamExt as _, stream};
use realm_rpc::status::{Link, Node, NodeState, Status};

use crate::{
    connection::{self, Connection, Relays},
    error::{CliError, ExitCode, Result},
    keystore::OwnerKey,
    output::Output,
    realms::Realm,
    survey,
};

/// Nodes dialled at the same time.
const AT_ONCE: usize = 16;
/// Nodes of other machines that a person is told of.
const MAX_ELSEWHERE: usize = 2;

/// A node that can be asked.
#[derive(Debug)]
pub struct Source<'s> {
    pub connection: Connection,
    /// Where it is reached when it is back.
    pub node: &'s Node,
}

/// A node that belongs to the realm and cannot be asked.
#[derive(Debug)]
pub struct Silent<'s> {
    pub node: &'s Node,
    pub why: String,
    /// How it is dialled again, where it is there for others and only we do not reach it.
    way: Option<Way<'s>>,
}

/// All that it takes to dial a node once more.
#[derive(Debug, Clone)]
pub struct Way<'s> {
    node: &'s Node,
    owner: Rc<OwnerKey>,
    relays: Rc<Relays>,
}

impl Silent<'_> {
    /// Whether the node should have answered: it is not away.
    pub const fn is_here(&self) -> bool {
        is_here(self.node)
    }
}

impl Way<'_> {
    async fn open(&self, realm: &Realm) -> Result<Connection> {
        connection::open_at(self.owner.clone(), &self.relays, realm, self.node).await
    }
}

/// Whether the node is believed to answer.
pub const fn is_here(node: &Node) -> bool {
    matches!(
        node.state,
        NodeState::Ready | NodeState::Draining | NodeState::Incompatible
    )
}

/// Connects to every approved node, or to the one that is called `only`; `first` is connected already.
pub async fn open<'s>(
    first: Connection,
    realm: &Realm,
    status: &'s Status,
    only: Option<&str>,
) -> Result<(Vec<Source<'s>>, Vec<Silent<'s>>)> {
    let only = only.map(|name| survey::node_key(status, name));
    let only = only.transpose()?;
    let wanted = |node: &&Node| only.is_none_or(|key| key == node.key);
    let nodes = status.nodes.iter().filter(wanted);
    let (owner, relays) = (first.owner.clone(), first.relays.clone());
    let mut own = Some(first);
    let (mut sources, mut silent, mut others) = (Vec::new(), Vec::new(), Vec::new());
    for node in nodes {
        if node.link == Some(Link::Itself) {
            sources.extend(own.take().map(|connection| Source { connection, node }));
        } else if is_here(node) && node.address.is_some() {
            others.push(node);
        } else if connection::is_member(node) || only.is_some() {
            let why = format!("it is {}", node.state);
            let way = None;
            silent.push(Silent { node, why, way });
        }
    }
    let dialled = others.into_iter().map(|node| {
        let (owner, relays) = (owner.clone(), relays.clone());
        let way = Way {
            node,
            owner,
            relays,
        };
        async move { (way.open(realm).await, way) }
    });
    let mut dialled = stream::iter(dialled).buffered(AT_ONCE);
    while let Some((opened, way)) = dialled.next().await {
        let node = way.node;
        match opened {
            Ok(connection) => sources.push(Source { connection, node }),
            Err(error) => silent.push(unreached(way, error, status)),
        }
    }
    if let Some(key) = only.filter(|_| sources.is_empty() && silent.is_empty()) {
        let message = format!("{key} is no node of this realm");
        return Err(CliError::new(ExitCode::NotFound, message).help("list them: realm nodes ls"));
    }
    Ok((sources, silent))
}

/// Says which nodes give no `what`, and gives the ways to those that are dialled again, where what
/// they tell is followed.
pub fn tell_silent<'s>(
    what: &str,
    silent: &[Silent<'s>],
    follow: bool,
    output: &Output,
) -> Vec<Way<'s>> {
    let mut later = Vec::new();
    for one in silent {
        let mut told = format!("no {what} from {}: {}", one.node.name, one.why);
        if let Some(way) = one.way.as_ref().filter(|_| follow) {
            told.push_str("; it is dialled again and again meanwhile");
            later.push(way.clone());
        }
        output.say(told);
    }
    later
}

/// A node that is there, as others say, and did not let us ask.
fn unreached<'s>(way: Way<'s>, error: CliError, status: &Status) -> Silent<'s> {
    let node = way.node;
    if error.code != ExitCode::NoAgent {
        let (why, way) = (error.message, None);
        return Silent { node, why, way };
    }
    let why = match &error.help {
        Some(help) => format!("{}; {help}", error.message),
        None => format!("{}; {}", error.message, elsewhere(node, status)),
    };
    let way = Some(way);
    Silent { node, why, way }
}

/// What a person may do about a node that this machine does not reach: another machine may.
fn elsewhere(node: &Node, status: &Status) -> String {
    let may = |other: &&Node| other.key != node.key && is_here(other) && linked(other);
    let others = status.nodes.iter().filter(may).take(MAX_ELSEWHERE);
    let others: Vec<&str> = others.map(|other| other.name.as_str()).collect();
    let mut told = format!(
        "this machine does not reach it: ask on one that does, such as its own{}",
        match others.as_slice() {
            [] => String::new(),
            others => format!(" or that of {}", others.join(" or ")),
        }
    );
    if let Some(address) = &node.address {
        told.push_str(&format!(", with --via {address}"));
    }
    told
}

const fn linked(node: &Node) -> bool {
    matches!(node.link, Some(Link::Quic | Link::Tcp | Link::Relay))
}

//! A connection to each node of the realm, for what each tells of itself alone.

pub mod feed;

use futures::{StreamExt as _, stream};
use realm_rpc::status::{Link, Node, NodeState, Status};

use crate::{
    connection::{self, Connection},
    error::{CliError, ExitCode, Result},
    realms::Realm,
    survey,
};

/// Nodes dialled at the same time.
const AT_ONCE: usize = 16;

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
}

impl Silent<'_> {
    /// Whether the node should have answered: it is not away.
    pub const fn is_here(&self) -> bool {
        is_here(self.node)
    }
}

const fn is_here(node: &Node) -> bool {
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
            silent.push(Silent { node, why });
        }
    }
    let dialled = others.into_iter().map(|node| {
        let (owner, relays) = (owner.clone(), relays.clone());
        async move { (node, connection::open_at(owner, &relays, realm, node).await) }
    });
    let mut dialled = stream::iter(dialled).buffered(AT_ONCE);
    while let Some((node, opened)) = dialled.next().await {
        match opened {
            Ok(connection) => sources.push(Source { connection, node }),
            Err(error) => silent.push(Silent {
                node,
                why: error.message,
            }),
        }
    }
    if let Some(key) = only.filter(|_| sources.is_empty() && silent.is_empty()) {
        let message = format!("{key} is no node of this realm");
        return Err(CliError::new(ExitCode::NotFound, message).help("list them: realm nodes ls"));
    }
    Ok((sources, silent))
}

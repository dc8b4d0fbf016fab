//! A connection to each node of the realm, for what each tells of itself alone.

pub mod feed;

use futures::{StreamExt as _, stream};
use realm_rpc::status::{Link, Node, NodeState, Status};

use crate::{
    connection::{self, Connection},
    error::{CliError, ExitCode, Result},
    realms::Realm,
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
    matches!(node.state, NodeState::Ready | NodeState::Draining)
}

/// Connects to every approved node, or to the one that is called `only`; `first` is connected already.
pub async fn open<'s>(
    first: Connection,
    realm: &Realm,
    status: &'s Status,
    only: Option<&str>,
) -> Result<(Vec<Source<'s>>, Vec<Silent<'s>>)> {
    let wanted = |node: &&Node| only.is_none_or(|name| name == node.name);
    let nodes: Vec<&Node> = status.nodes.iter().filter(wanted).collect();
    if nodes.is_empty() {
        let name = only.unwrap_or_default();
        return Err(
            CliError::new(ExitCode::NotFound, format!("no node {name:?}"))
                .help("list them: realm nodes ls"),
        );
    }
    let (owner, relays) = (first.owner.clone(), first.relays.clone());
    let mut own = Some(first);
    let (mut sources, mut silent, mut others) = (Vec::new(), Vec::new(), Vec::new());
    for node in nodes {
        if node.link == Some(Link::Itself) {
            sources.extend(own.take().map(|connection| Source { connection, node }));
        } else if is_here(node) && node.address.is_some() {
            others.push(node);
        } else if connection::is_member(node) {
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
    Ok((sources, silent))
}

//! `realm nodes`: who belongs to the realm, and who asks to.

use realm_identity::{PublicKey, Target};
use realm_manifest::{
    NodeName, Tag,
    payload::{NodeFacts, Note, Payload},
};
use realm_planner::State;
use realm_rpc::{PendingNode, status::Status};

use crate::{
    commands::{Session, lifecycle, push::node_key, status},
    connection::{self, Connection, rpc_failed},
    error::{CliError, ExitCode, Result},
    intent::{self, Durable},
    output::confirm,
};

#[derive(Debug, clap::Subcommand)]
pub enum Command {
    /// List the nodes of the realm, also those that are away or ask to join.
    Ls,
    /// Show one node in full.
    Show { node: String },
    /// Let a node in that asks to join.
    Approve {
        /// Its name, or its key; the key is needed where a name is ambiguous.
        node: String,
        /// The name it gets; its own by default.
        #[arg(long)]
        name: Option<NodeName>,
        /// A tag it gets, beside its own; repeatable.
        #[arg(long = "tag")]
        tags: Vec<Tag>,
        /// Why; recorded in the history.
        #[arg(short = 'm', long = "message", value_name = "TEXT")]
        note: Option<String>,
    },
    /// Take a node's approval away, for good.
    Revoke {
        node: String,
        /// Do not ask.
        #[arg(long)]
        yes: bool,
        /// Why; recorded in the history.
        #[arg(short = 'm', long = "message", value_name = "TEXT")]
        note: Option<String>,
    },
    /// Replace the tags of a node.
    Tag { node: String, tags: Vec<Tag> },
    /// Rename a node.
    Rename { node: String, name: NodeName },
}

pub fn run(command: &Command, session: &Session) -> Result<ExitCode> {
    connection::block_on(async {
        let realm = session.realm()?;
        let connection = connection::open(session, &realm).await?;
        let now = status_of(&connection).await?;
        let (key, payload) = match command {
            Command::Ls => return ls(&now, &connection, session).await,
            Command::Show { node } => return show(&now, node, session),
            Command::Approve {
                node,
                name,
                tags,
                note,
            } => {
                let pending = pending(&connection).await?;
                let found = find_pending(&pending, node)?;
                session
                    .output
                    .say(format!("{}  {}", found.key, found.key.words()));
                (
                    found.key,
                    approve(found, name.as_ref(), tags, note.clone())?,
                )
            }
            Command::Revoke { node, yes, note } => {
                let key = node_key(&now, node)?;
                confirm(*yes, &format!("revoke {node} for good"))?;
                (key, Payload::NodeRevoke(Note { note: note.clone() }))
            }
            Command::Tag { node, tags } => {
                let key = node_key(&now, node)?;
                let mut facts = facts(&now, &key)?;
                facts.tags = sorted(tags.clone());
                (key, Payload::NodeSet(facts))
            }
            Command::Rename { node, name } => {
                let key = node_key(&now, node)?;
                let mut facts = facts(&now, &key)?;
                facts.name = name.clone();
                (key, Payload::NodeSet(facts))
            }
        };
        let decide = |state: &State| {
            let mut payload = payload.clone();
            // Tags and a name say nothing about draining.
            if let Payload::NodeSet(facts) = &mut payload {
                facts.drain = state.is_draining(&key);
            }
            Ok((Target::Node(key), payload))
        };
        let outcome = intent::submit(&connection, &realm, Durable::OnOne, decide).await?;
        lifecycle::report(outcome, &key.short(), session)?;
        Ok(ExitCode::Ok)
    })
}

async fn status_of(connection: &Connection) -> Result<Status> {
    let status = connection.operator.status().await;
    status.map_err(|error| rpc_failed("the node does not tell its status", &error))
}

async fn pending(connection: &Connection) -> Result<Vec<PendingNode>> {
    let pending = connection.operator.pending().await;
    pending.map_err(|error| rpc_failed("the node does not tell who asks to join", &error))
}

async fn ls(now: &Status, connection: &Connection, session: &Session) -> Result<ExitCode> {
    if session.output.json() {
        session.output.object(&now.nodes)?;
        return Ok(ExitCode::Ok);
    }
    status::nodes(&now.nodes, &session.output)?;
    for node in pending(connection).await? {
        session.output.say(format!(
            "asks to join: {}  {}  {}  Next: realm nodes approve {}",
            node.name,
            node.key,
            node.key.words(),
            node.key
        ));
    }
    Ok(ExitCode::Ok)
}

fn show(now: &Status, wanted: &str, session: &Session) -> Result<ExitCode> {
    let key = node_key(now, wanted)?;
    let node = now.nodes.iter().find(|node| node.key == key);
    let node = node.ok_or_else(|| {
        CliError::new(ExitCode::NotFound, format!("no node {wanted:?}"))
            .help("list them: realm nodes ls")
    })?;
    if session.output.json() {
        session.output.object(node)?;
        return Ok(ExitCode::Ok);
    }
    status::nodes(std::slice::from_ref(node), &session.output)?;
    session.output.line(&format!("key          {}", node.key))?;
    session
        .output
        .line(&format!("fingerprint  {}", node.key.words()))?;
    session.output.line(&format!(
        "address      {}",
        node.address.as_deref().unwrap_or("-")
    ))?;
    session.output.line(&format!(
        "version      {}",
        node.version.as_deref().unwrap_or("-")
    ))?;
    Ok(ExitCode::Ok)
}

fn find_pending<'a>(pending: &'a [PendingNode], wanted: &str) -> Result<&'a PendingNode> {
    let key: Option<PublicKey> = wanted.parse().ok();
    let mut found = pending
        .iter()
        .filter(|node| key.map_or(node.name == wanted, |key| node.key == key));
    match (found.next(), found.next()) {
        (Some(node), None) => Ok(node),
        (Some(_), Some(_)) => Err(CliError::new(
            ExitCode::Usage,
            format!("several nodes that ask to join call themselves {wanted}"),
        )
        .help("give the key of the right one: realm nodes ls")),
        (None, _) => Err(CliError::new(
            ExitCode::NotFound,
            format!("no node {wanted:?} asks to join"),
        )
        .help("see who does: realm nodes ls")),
    }
}

fn approve(
    node: &PendingNode,
    name: Option<&NodeName>,
    tags: &[Tag],
    note: Option<String>,
) -> Result<Payload> {
    let own = |what: &str| {
        CliError::new(
            ExitCode::Usage,
            format!("the node's own {what} cannot be used"),
        )
    };
    let name = match name {
        Some(name) => name.clone(),
        None => node
            .name
            .parse()
            .map_err(|_| own("name").help("give it one: --name NAME"))?,
    };
    let mut all = tags.to_vec();
    for tag in &node.tags {
        all.push(tag.parse().map_err(|_| own("tag"))?);
    }
    Ok(Payload::NodeApprove(NodeFacts {
        name,
        tags: sorted(all),
        drain: false,
        note,
    }))
}

fn facts(now: &Status, key: &PublicKey) -> Result<NodeFacts> {
    let unknown = || {
        CliError::new(ExitCode::NotFound, "this node is not of the realm").help("realm nodes ls")
    };
    let node = now
        .nodes
        .iter()
        .find(|node| node.key == *key)
        .ok_or_else(unknown)?;
    Ok(NodeFacts {
        name: node.name.parse().map_err(|_| unknown())?,
        tags: sorted(
            node.tags
                .iter()
                .filter_map(|tag| tag.parse().ok())
                .collect(),
        ),
        drain: false,
        note: None,
    })
}

fn sorted(mut tags: Vec<Tag>) -> Vec<Tag> {
    tags.sort();
    tags.dedup();
    tags
}

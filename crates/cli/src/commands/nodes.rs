//! `realm nodes`: who belongs to the realm, and who asks to.

mod approve;

use std::time::Duration;

use realm_identity::{PublicKey, SealingCertificate, SealingKey, Target};
use realm_manifest::{
    NodeName, Tag,
    payload::{NodeFacts, Note, Payload},
};
use realm_planner::State;
use realm_rpc::{
    PendingNode,
    status::{Node, Status},
};

use crate::{
    commands::{Session, lifecycle, status},
    connection::{self, Connection, rpc_failed},
    error::{CliError, Context as _, ExitCode, Result},
    intent::{self, Durable},
    output::{Page, confirm},
    realms::Realm,
    survey,
};

mod homeless;
mod wait;

#[derive(Debug, clap::Subcommand)]
pub enum Command {
    /// List the nodes of the realm, also those that are away or ask to join.
    Ls,
    /// Show one node in full.
    Show {
        /// Its name, its key, or the key's first letters.
        node: String,
    },
    /// Let nodes in that ask to join.
    Approve(approve::Args),
    /// Take a node's approval away, for good.
    Revoke {
        /// Its name, its key, or the key's first letters.
        node: String,
        /// Do not ask.
        #[arg(long)]
        yes: bool,
        /// Why; recorded in the history.
        #[arg(short = 'm', long = "message", value_name = "TEXT")]
        note: Option<String>,
    },
    /// Replace the tags of a node.
    Tag {
        /// Its name, its key, or the key's first letters.
        node: String,
        /// Every tag that it is to have.
        tags: Vec<Tag>,
        /// Take every tag away.
        #[arg(long, conflicts_with = "tags")]
        clear: bool,
    },
    /// Rename a node.
    Rename {
        /// Its name, its key, or the key's first letters.
        node: String,
        /// The name it gets.
        name: NodeName,
    },
    /// Give a node no new cells, and move those it has.
    Drain {
        /// Its name, its key, or the key's first letters.
        node: String,
        /// Return once no cell runs on it.
        #[arg(long)]
        wait: bool,
        /// How long to wait, such as 30s.
        #[arg(long, default_value = "60s", value_parser = humantime::parse_duration)]
        timeout: Duration,
        /// Why; recorded in the history.
        #[arg(short = 'm', long = "message", value_name = "TEXT")]
        note: Option<String>,
    },
    /// Give a node work again.
    Undrain {
        /// Its name, its key, or the key's first letters.
        node: String,
        /// Return once all that should run on it does.
        #[arg(long)]
        wait: bool,
        /// How long to wait, such as 30s.
        #[arg(long, default_value = "60s", value_parser = humantime::parse_duration)]
        timeout: Duration,
        /// Why; recorded in the history.
        #[arg(short = 'm', long = "message", value_name = "TEXT")]
        note: Option<String>,
    },
    /// Take a node out of the realm; it can be approved again later.
    #[command(alias = "remove")]
    Rm {
        /// Its name, its key, or the key's first letters.
        node: String,
        /// Do not ask.
        #[arg(long)]
        yes: bool,
        /// Why; recorded in the history.
        #[arg(short = 'm', long = "message", value_name = "TEXT")]
        note: Option<String>,
    },
}

/// What is asked of one node.
enum Act {
    Revoke(Note),
    Remove(Note),
    Tags(Vec<Tag>),
    Rename(NodeName),
    Drain(bool, Option<String>),
}

pub fn run(command: &Command, session: &Session) -> Result<ExitCode> {
    connection::block_on(async {
        let realm = session.realm()?;
        let connection = connection::open(session, &realm).await?;
        let now = survey::status(&connection, &realm, &session.output).await?;
        let (key, act) = match command {
            Command::Ls => return ls(&now, (&connection, &realm), session).await,
            Command::Show { node } => return show(&now, node, session),
            Command::Approve(args) => {
                return approve::run(args, &now, (&connection, &realm), session).await;
            }
            Command::Revoke { node, yes, note } => {
                let key = survey::node_key(&now, node)?;
                confirm(*yes, &format!("revoke {node} for good")).await?;
                (key, Act::Revoke(Note { note: note.clone() }))
            }
            Command::Rm { node, yes, note } => {
                let key = survey::node_key(&now, node)?;
                confirm(*yes, &format!("take {node} out of the realm")).await?;
                (key, Act::Remove(Note { note: note.clone() }))
            }
            Command::Tag { node, tags, clear } => {
                if tags.is_empty() && !clear {
                    return Err(CliError::new(ExitCode::Usage, "no tags are given")
                        .help("name them all, or take all away: --clear"));
                }
                (
                    survey::node_key(&now, node)?,
                    Act::Tags(sorted(tags.clone())),
                )
            }
            Command::Rename { node, name } => {
                let key = survey::node_key(&now, node)?;
                check_free(name, &key, &now, "choose another")?;
                (key, Act::Rename(name.clone()))
            }
            Command::Drain { node, note, .. } => (
                survey::node_key(&now, node)?,
                Act::Drain(true, note.clone()),
            ),
            Command::Undrain { node, note, .. } => (
                survey::node_key(&now, node)?,
                Act::Drain(false, note.clone()),
            ),
        };
        let decide = |state: &State| Ok((Target::Node(key), act.payload(&key, state, &now)?));
        let durable = match command {
            Command::Drain {
                wait: true,
                timeout,
                ..
            }
            | Command::Undrain {
                wait: true,
                timeout,
                ..
            } => Durable::OnTwo(*timeout),
            _ => Durable::OnOne,
        };
        let outcome =
            intent::submit((&connection, &realm), durable, &session.output, decide).await?;
        lifecycle::report(outcome, command.node().unwrap_or(&key.short()), session)?;
        if matches!(command, Command::Drain { .. }) {
            // It is done, whether or not the node can still say what follows from it.
            match survey::picture(&connection, &realm).await {
                Ok(after) => homeless::lines(&now, &after.status)
                    .iter()
                    .for_each(|line| session.output.say(line)),
                Err(error) => tracing::debug!(%error, "what has nowhere to run is not known"),
            }
        }
        match command {
            Command::Drain {
                wait: true,
                timeout,
                ..
            } => wait::drained(&key, *timeout, (&connection, &realm), session).await,
            Command::Undrain {
                wait: true,
                timeout,
                ..
            } => {
                let revision = outcome.revision();
                wait::undrained((&key, revision), *timeout, (&connection, &realm), session).await
            }
            _ => Ok(ExitCode::Ok),
        }
    })
}

impl Command {
    /// The node as it was named.
    fn node(&self) -> Option<&str> {
        match self {
            Self::Ls | Self::Approve(_) => None,
            Self::Show { node }
            | Self::Revoke { node, .. }
            | Self::Tag { node, .. }
            | Self::Rename { node, .. }
            | Self::Drain { node, .. }
            | Self::Undrain { node, .. }
            | Self::Rm { node, .. } => Some(node),
        }
    }
}

impl Act {
    fn payload(&self, key: &PublicKey, state: &State, now: &Status) -> Result<Payload> {
        let changed = |change: &dyn Fn(&mut NodeFacts)| {
            let mut facts = facts(key, state, now)?;
            change(&mut facts);
            Ok(Payload::NodeSet(facts))
        };
        match self {
            Self::Revoke(note) => Ok(Payload::NodeRevoke(note.clone())),
            Self::Remove(note) => Ok(Payload::NodeRemove(note.clone())),
            Self::Tags(tags) => changed(&|facts| facts.tags.clone_from(tags)),
            Self::Rename(name) => changed(&|facts| facts.name.clone_from(name)),
            Self::Drain(drain, note) => changed(&|facts| {
                facts.drain = *drain;
                facts.note.clone_from(note);
            }),
        }
    }
}

/// A name that two nodes have names neither of them. `instead` says how another one is given.
fn check_free(name: &NodeName, key: &PublicKey, now: &Status, instead: &str) -> Result<()> {
    let taken = |node: &&Node| {
        node.name == name.as_str() && node.key != *key && connection::is_member(node)
    };
    match now.nodes.iter().find(taken) {
        None => Ok(()),
        Some(node) => Err(CliError::new(
            ExitCode::Usage,
            format!("the name {name} is that of {}", node.key),
        )
        .help(format!(
            "{instead}; or rename that one first: realm nodes rename {} NEW",
            node.key.short()
        ))),
    }
}

async fn pending(connection: &Connection) -> Result<Vec<PendingNode>> {
    let pending = connection.operator.pending().await;
    pending.map_err(|error| rpc_failed("the node does not tell who asks to join", &error))
}

async fn ls(
    now: &Status,
    (connection, realm): (&Connection, &Realm),
    session: &Session,
) -> Result<ExitCode> {
    if session.output.json() {
        session.output.object(&now.nodes)?;
        return Ok(ExitCode::Ok);
    }
    let mut page = Page::default();
    status::alarms(&now.alarms, &mut page);
    status::nodes(&now.nodes, &mut page);
    page.write(&session.output)?;
    let pending = pending(connection).await?;
    realm.remember_pending(&approve::names(&pending));
    for node in pending {
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
    let key = survey::node_key(now, wanted)?;
    let node = now.nodes.iter().find(|node| node.key == key);
    let node = node.ok_or_else(|| {
        CliError::new(ExitCode::NotFound, format!("no node {wanted:?}"))
            .help("list them: realm nodes ls")
    })?;
    let sealing = sealing_key(node, session);
    let is_by = |other: &&Node| other.key != key && other.witnesses.contains(&key);
    let let_in: Vec<&Node> = now.nodes.iter().filter(is_by).collect();
    if session.output.json() {
        let mut shown = serde_json::to_value(node).context("cannot write JSON")?;
        shown["sealing_key"] = sealing.map(|key| key.to_string()).into();
        let keys = |keys: Vec<PublicKey>| serde_json::to_value(keys).context("cannot write JSON");
        shown["witnesses"] = keys(node.witnesses.clone())?;
        shown["let_in"] = keys(let_in.iter().map(|node| node.key).collect())?;
        session.output.object(&shown)?;
        return Ok(ExitCode::Ok);
    }
    let mut page = Page::default();
    status::nodes(std::slice::from_ref(node), &mut page);
    page.write(&session.output)?;
    session.output.line(&format!("key          {}", node.key))?;
    session
        .output
        .line(&format!("fingerprint  {}", node.key.words()))?;
    session.output.line(&format!(
        "address      {}",
        node.address.as_deref().unwrap_or("-")
    ))?;
    let sealing = sealing.map_or_else(|| "-".to_owned(), |key| key.to_string());
    session.output.line(&format!("sealing key  {sealing}"))?;
    session.output.line(&format!(
        "version      {}",
        node.version.as_deref().unwrap_or("-")
    ))?;
    // Who vouched for it by an invite; nobody where the owner named it.
    if !node.witnesses.is_empty() {
        let names = node.witnesses.iter().map(|key| name_of(now, key));
        let names: Vec<String> = names.collect();
        session
            .output
            .line(&format!("let in by    {}", names.join(", ")))?;
    }
    if !let_in.is_empty() {
        let names: Vec<&str> = let_in.iter().map(|node| node.name.as_str()).collect();
        session
            .output
            .line(&format!("has let in   {}", names.join(", ")))?;
    }
    Ok(ExitCode::Ok)
}

fn name_of(now: &Status, key: &PublicKey) -> String {
    let node = now.nodes.iter().find(|node| node.key == *key);
    node.map_or_else(|| key.to_string(), |node| node.name.clone())
}

/// The key that the node itself certified; whoever is asked only passes that on.
fn sealing_key(node: &Node, session: &Session) -> Option<SealingKey> {
    let certificate = node.sealing_certificate.as_ref()?;
    match SealingCertificate::verify_text(certificate, node.key) {
        Ok(certificate) => Some(certificate.key),
        Err(error) => {
            session.output.say(format!(
                "warning: the sealing key that is told of {} is not its own: {error}",
                node.name
            ));
            None
        }
    }
}

/// What the realm says of the node now: in its log, or where an invite approved it, in its status.
fn facts(key: &PublicKey, state: &State, now: &Status) -> Result<NodeFacts> {
    if let Some(record) = state.nodes.get(key) {
        return Ok(NodeFacts {
            name: record.name.clone(),
            tags: record.tags.clone(),
            note: None,
            drain: record.draining,
        });
    }
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
        note: None,
        drain: false,
    })
}

fn sorted(mut tags: Vec<Tag>) -> Vec<Tag> {
    tags.sort();
    tags.dedup();
    tags
}

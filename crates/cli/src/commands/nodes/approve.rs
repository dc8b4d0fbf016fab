//! `realm nodes approve`: lets nodes in that ask to join.

use realm_identity::{PublicKey, Target};
use realm_manifest::{
    NodeName, Tag,
    payload::{NodeFacts, Payload},
};
use realm_rpc::{PendingNode, status::Status};

use crate::{
    commands::{Session, lifecycle},
    connection::Connection,
    error::{CliError, ExitCode, Result},
    intent::{self, Durable},
    realms::Realm,
    survey,
};

#[derive(Debug, clap::Args)]
pub struct Args {
    /// Names or keys; the key is needed where a name is ambiguous.
    #[arg(required = true, value_name = "NODE")]
    pub nodes: Vec<String>,
    /// The name it gets, where there is one node; its own by default.
    #[arg(long)]
    pub name: Option<NodeName>,
    /// A tag that each of them gets, beside its own; repeatable.
    #[arg(long = "tag")]
    pub tags: Vec<Tag>,
    /// Why; recorded in the history.
    #[arg(short = 'm', long = "message", value_name = "TEXT")]
    pub note: Option<String>,
}

/// One intent for each node; all are checked before the first one is signed.
pub async fn run(
    args: &Args,
    now: &Status,
    (connection, realm): (&Connection, &Realm),
    session: &Session,
) -> Result<ExitCode> {
    if args.name.is_some() && args.nodes.len() > 1 {
        return Err(
            CliError::new(ExitCode::Usage, "several nodes cannot have one name")
                .help("approve them one by one, or leave --name out: each keeps its own"),
        );
    }
    let pending = super::pending(connection).await?;
    let mut approved: Vec<(PublicKey, NodeFacts)> = Vec::new();
    for wanted in &args.nodes {
        let node = find(&pending, wanted)?;
        let facts = facts(node, args)?;
        super::check_free(&facts.name, &node.key, now, "choose another: --name NAME")?;
        match approved
            .iter()
            .find(|(key, other)| *key == node.key || other.name == facts.name)
        {
            // The same node, named in two ways.
            Some((key, _)) if *key == node.key => {}
            Some((key, _)) => return Err(called_the_same(&facts.name, key, &node.key)),
            None => approved.push((node.key, facts)),
        }
    }
    let still = pending.iter().filter(|node| {
        let is_it = |(key, _): &&(PublicKey, NodeFacts)| *key == node.key;
        approved.iter().find(is_it).is_none()
    });
    realm.remember_pending(&names(still));
    for (key, facts) in approved {
        session.output.say(format!("{key}  {}", key.words()));
        let name = facts.name.clone();
        let decide = |_: &_| Ok((Target::Node(key), Payload::NodeApprove(facts.clone())));
        let outcome =
            intent::submit((connection, realm), Durable::OnOne, &session.output, decide).await?;
        lifecycle::report(outcome, name.as_str(), session)?;
    }
    Ok(ExitCode::Ok)
}

/// What each of these can be called by: its name, or its key where another one has that name.
pub fn names<'a>(pending: impl IntoIterator<Item = &'a PendingNode>) -> Vec<String> {
    let pending: Vec<&PendingNode> = pending.into_iter().collect();
    let is_free = |node: &PendingNode| {
        let same = pending.iter().filter(|other| other.name == node.name);
        same.count() == 1 && node.name.parse::<NodeName>().is_ok()
    };
    pending
        .iter()
        .map(|node| match is_free(node) {
            true => node.name.clone(),
            false => node.key.to_string(),
        })
        .collect()
}

fn called_the_same(name: &NodeName, one: &PublicKey, other: &PublicKey) -> CliError {
    CliError::new(
        ExitCode::Usage,
        format!("{one} and {other} would both be called {name}"),
    )
    .help("approve one of them by itself, under another name: --name NAME")
}

fn find<'a>(pending: &'a [PendingNode], wanted: &str) -> Result<&'a PendingNode> {
    let key: Option<PublicKey> = wanted.parse().ok();
    let mut found = pending.iter().filter(|node| match key {
        Some(key) => node.key == key,
        None => node.name == wanted || survey::begins(&node.key, wanted),
    });
    match (found.next(), found.next()) {
        (Some(node), None) => Ok(node),
        (Some(_), Some(_)) => Err(CliError::new(
            ExitCode::Usage,
            format!("several nodes that ask to join are called {wanted}"),
        )
        .help("give the key of the right one: realm nodes ls")),
        (None, _) => Err(CliError::new(
            ExitCode::NotFound,
            format!("no node {wanted:?} asks to join"),
        )
        .help("see who does: realm nodes ls")),
    }
}

fn facts(node: &PendingNode, args: &Args) -> Result<NodeFacts> {
    let own = |what: &str| {
        CliError::new(
            ExitCode::Usage,
            format!("the own {what} of {} cannot be used", node.key),
        )
    };
    let name = match &args.name {
        Some(name) => name.clone(),
        None => node
            .name
            .parse()
            .map_err(|_| own("name").help("give it one: --name NAME"))?,
    };
    let mut tags = args.tags.clone();
    for tag in &node.tags {
        tags.push(tag.parse().map_err(|_| own("tag"))?);
    }
    Ok(NodeFacts {
        name,
        tags: super::sorted(tags),
        drain: false,
        note: args.note.clone(),
    })
}

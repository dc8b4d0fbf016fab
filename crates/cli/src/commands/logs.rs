//! `realm logs`: what cells wrote.

mod follow;

use std::time::Duration;

use realm_manifest::ComponentName;
use realm_rpc::{
    LogLine, LogQuery, LogStream,
    status::{Link, Node, NodeState, Status},
};
use realm_runtime::printable;
use tokio::sync::mpsc;

use crate::{
    clock,
    commands::Session,
    connection::{self, Connection, rpc_failed},
    error::{CliError, ExitCode, Result},
    output::Output,
    realms::Realm,
    survey,
};

#[derive(Debug, clap::Args)]
#[command(
    after_help = "Examples:\n  realm logs hello -f\n  realm logs --all --since 5m\n  realm logs hello --node edge-1 --tail 100 -o json"
)]
pub struct Args {
    /// The component.
    #[arg(required_unless_present = "all", conflicts_with = "all")]
    pub name: Option<ComponentName>,
    /// Every component.
    #[arg(long)]
    pub all: bool,
    /// Go on with new lines until interrupted.
    #[arg(short, long)]
    pub follow: bool,
    /// Only the last so many lines; while following, of each node.
    #[arg(long, value_name = "N")]
    pub tail: Option<u64>,
    /// Only lines of the last so long, such as 5m.
    #[arg(long, value_name = "DURATION", value_parser = humantime::parse_duration)]
    pub since: Option<Duration>,
    /// Only from this node.
    #[arg(long, visible_alias = "peer")]
    pub node: Option<String>,
    /// The run before the present one.
    #[arg(short, long, conflicts_with = "follow")]
    pub previous: bool,
}

pub fn run(args: &Args, session: &Session) -> Result<ExitCode> {
    let mut since = None;
    if let Some(ago) = args.since {
        let now = clock::now()?.as_millis();
        let ago = u64::try_from(ago.as_millis()).unwrap_or(u64::MAX);
        since = Some(realm_identity::Timestamp(now.saturating_sub(ago)));
    }
    let query = LogQuery {
        component: args.name.as_ref().map(|name| name.as_str().to_owned()),
        node: args.node.clone(),
        tail: args.tail,
        since,
        follow: args.follow,
        previous: args.previous,
    };
    connection::block_on(async {
        let realm = session.realm()?;
        let first = connection::open(session, &realm).await?;
        let status = survey::status(&first, &realm, &session.output).await?;
        let (sources, silent) = sources(args, &realm, first, &status).await?;
        for (node, why) in &silent {
            session.output.say(format!("no lines from {node}: {why}"));
        }
        let lines = read(sources, &realm, &query, &session.output).await?;
        if let Some(name) = &args.name
            && lines == 0
            && !status
                .components
                .iter()
                .any(|one| one.name == name.as_str())
        {
            return Err(
                CliError::new(ExitCode::NotFound, format!("no component {name}"))
                    .help("list them: realm status"),
            );
        }
        if lines == 0 && !args.follow {
            session.output.say(nothing(args));
        }
        Ok(if silent.is_empty() {
            ExitCode::Ok
        } else {
            ExitCode::Partial
        })
    })
}

fn nothing(args: &Args) -> String {
    let what = if args.previous {
        "no lines of a run before the present one"
    } else {
        "no lines"
    };
    match &args.name {
        Some(name) => format!("{what} of {name}"),
        None => what.to_owned(),
    }
}

/// Whether a node that gives no lines had some to give: as far as the status tells, or because it was named.
fn matters(args: &Args, node: &Node, status: &Status) -> bool {
    let asked = |name: &str| {
        args.name
            .as_ref()
            .is_none_or(|asked| asked.as_str() == name)
    };
    let mut components = status.components.iter().filter(|one| asked(&one.name));
    args.node.is_some() || components.any(|one| one.cells.iter().any(|cell| cell.node == node.name))
}

/// A node that gives lines.
#[derive(Debug)]
struct Source<'s> {
    connection: Connection,
    /// Where it is reached when it is back.
    node: &'s Node,
}

/// A node's name, and why it gives no lines.
type Silent = Vec<(String, String)>;

/// One connection for each node that has lines to give; each node keeps those of its own cells.
async fn sources<'s>(
    args: &Args,
    realm: &Realm,
    first: Connection,
    status: &'s Status,
) -> Result<(Vec<Source<'s>>, Silent)> {
    let wanted = |node: &&Node| args.node.as_ref().is_none_or(|name| *name == node.name);
    let nodes: Vec<&Node> = status.nodes.iter().filter(wanted).collect();
    if nodes.is_empty() {
        let name = args.node.as_deref().unwrap_or_default();
        return Err(
            CliError::new(ExitCode::NotFound, format!("no node {name:?}"))
                .help("list them: realm nodes ls"),
        );
    }
    let (owner, relays) = (first.owner.clone(), first.relays.clone());
    let mut own = Some(first);
    let (mut sources, mut silent) = (Vec::new(), Vec::new());
    for node in nodes {
        if node.link == Some(Link::Itself) {
            sources.extend(own.take().map(|connection| Source { connection, node }));
            continue;
        }
        match (node.state, &node.address) {
            (NodeState::Ready | NodeState::Draining, Some(_)) => {
                match connection::open_at(owner.clone(), &relays, realm, node).await {
                    Ok(connection) => sources.push(Source { connection, node }),
                    Err(error) => silent.push((node.name.clone(), error.message)),
                }
            }
            // One that is not approved runs nothing.
            (NodeState::Pending | NodeState::Revoked, _) => {}
            _ if !matters(args, node, status) => {
                tracing::debug!(node = node.name, "runs nothing of it, and is not asked");
            }
            (state, _) => silent.push((node.name.clone(), format!("it is {state}"))),
        }
    }
    Ok((sources, silent))
}

/// Prints what all of them give: as it comes when following, else in the order of time. Answers how
/// many lines that were.
async fn read(
    sources: Vec<Source<'_>>,
    realm: &Realm,
    query: &LogQuery,
    output: &Output,
) -> Result<usize> {
    // One batch at a time: a slow terminal holds the nodes back.
    let (to, mut from) = mpsc::channel::<Vec<LogLine>>(1);
    let print = async {
        let (mut kept, mut count) = (Vec::new(), 0);
        while let Some(lines) = from.recv().await {
            count += lines.len();
            if !query.follow {
                kept.extend(lines);
                continue;
            }
            for line in &lines {
                show(line, output)?;
            }
        }
        kept.sort_by_key(|line| line.at);
        let tail = query.tail.and_then(|tail| usize::try_from(tail).ok());
        let skip = tail.map_or(0, |tail| kept.len().saturating_sub(tail));
        kept[skip..]
            .iter()
            .try_for_each(|line| show(line, output))?;
        Ok(count)
    };
    let logs = sources.into_iter().map(|source| {
        let to = to.clone();
        async move {
            if query.follow {
                return follow::follow(source, realm, query, to, output).await;
            }
            let ended = source.connection.operator.logs(query, to).await;
            ended.map_err(|error| rpc_failed("a node does not give logs", &error))
        }
    });
    let logs = futures::future::join_all(logs);
    drop(to);
    // Where nobody reads any more, no node is waited for.
    let logs = async { Ok::<_, CliError>(logs.await) };
    let (ended, count) = tokio::try_join!(logs, print)?;
    ended.into_iter().collect::<Result<()>>()?;
    Ok(count)
}

fn show(line: &LogLine, output: &Output) -> Result<()> {
    let text = String::from_utf8_lossy(&line.text);
    let stream = match line.stream {
        LogStream::Out => "out",
        LogStream::Err => "err",
        LogStream::Agent => "agent",
    };
    if output.json() {
        return output.json_line(&serde_json::json!({
            "time": clock::rfc3339(line.at), "component": line.component, "node": line.node,
            "index": line.index, "stream": stream, "text": text,
        }));
    }
    // A line of a guest is one line, and moves nothing on the terminal.
    let text = printable(&text);
    output.line(&format!(
        "{} {}/{}#{} {stream} │ {text}",
        clock::rfc3339(line.at),
        line.node,
        line.component,
        line.index
    ))
}

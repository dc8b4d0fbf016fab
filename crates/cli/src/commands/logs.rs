//! `realm logs`: what cells wrote.

mod lines;

use std::time::Duration;

use realm_manifest::ComponentName;
use realm_rpc::{
    LogLine, LogQuery, LogStream,
    status::{Node, Status},
};
use realm_runtime::printable;

use self::lines::Lines;
use crate::{
    clock,
    commands::Session,
    connection,
    error::{CliError, ExitCode, Result},
    output::Output,
    sources::{
        self,
        feed::{self, Reading},
    },
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
    #[arg(long, value_name = "N", allow_negative_numbers = true)]
    pub tail: Option<u64>,
    /// Only lines of the last so long, such as 5m.
    #[arg(long, value_name = "DURATION", value_parser = humantime::parse_duration)]
    pub since: Option<Duration>,
    /// Only from this node.
    #[arg(long, visible_alias = "peer", alias = "nodes")]
    pub node: Option<String>,
    /// The run before the present one.
    #[arg(short, long, conflicts_with = "follow")]
    pub previous: bool,
}

pub fn run(args: &Args, session: &Session) -> Result<ExitCode> {
    let since = args.since.map(clock::ago).transpose()?;
    let query = LogQuery {
        component: args.name.as_ref().map(|name| name.as_str().to_owned()),
        tail: args.tail,
        since,
        follow: args.follow,
        previous: args.previous,
    };
    connection::block_on(async {
        let realm = session.realm()?;
        let first = connection::open(session, &realm).await?;
        let status = survey::status(&first, &realm, &session.output).await?;
        let only = args.node.as_deref();
        let (sources, mut silent) = sources::open(first, &realm, &status, only).await?;
        // Whoever was not read may have lines.
        let all_read = silent.is_empty();
        silent.retain(|silent| silent.is_here() || matters(args, silent.node, &status));
        let later = sources::tell_silent("lines", &silent, args.follow, &session.output);
        let reading = Reading {
            follow: args.follow,
            tail: args.tail,
            what: "lines",
        };
        let lines = feed::read(
            sources,
            later,
            &realm,
            reading,
            &session.output,
            || Lines::new(query.clone()),
            |_, line| show(line, &session.output),
        )
        .await?;
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
        if lines == 0 && !args.follow && all_read {
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

/// A line names its node itself.
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

//! `realm logs`: what cells wrote.

use std::time::Duration;

use realm_manifest::ComponentName;
use realm_rpc::{LogLine, LogQuery, LogStream};
use tokio::sync::mpsc;

use crate::{
    clock,
    commands::Session,
    connection::{self, rpc_failed},
    error::{ExitCode, Result},
    output::Output,
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
    /// Only the last so many lines.
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
        let connection = connection::open(session, &realm).await?;
        // One batch at a time: a slow terminal holds the node back.
        let (to, mut from) = mpsc::channel::<Vec<LogLine>>(1);
        let print = async {
            while let Some(lines) = from.recv().await {
                for line in &lines {
                    show(line, &session.output)?;
                }
            }
            Ok(())
        };
        let logs = connection.operator.logs(&query, to);
        let (ended, printed) = tokio::join!(logs, print);
        printed?;
        ended.map_err(|error| rpc_failed("the node does not give logs", &error))?;
        Ok(ExitCode::Ok)
    })
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
    // A guest must not drive the terminal: control characters are shown, not obeyed.
    let text: String = text
        .chars()
        .map(|c| {
            if c.is_control() && c != '\t' {
                '\u{fffd}'
            } else {
                c
            }
        })
        .collect();
    output.line(&format!(
        "{} {}/{}#{} {stream} │ {text}",
        clock::rfc3339(line.at),
        line.node,
        line.component,
        line.index
    ))
}

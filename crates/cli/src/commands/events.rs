//! `realm events`: what happened on the nodes, as each of them tells it.

use std::time::Duration;

use realm_identity::Timestamp;
use realm_rpc::{Event, RpcError};
use realm_runtime::printable;
use tokio::sync::mpsc;

use crate::{
    clock,
    commands::Session,
    connection::{self, Connection},
    error::{ExitCode, Result},
    output::Output,
    sources::{
        self,
        feed::{self, Feed, Reading},
    },
    survey,
};

#[derive(Debug, clap::Args)]
#[command(
    after_help = "Examples:\n  realm events --since 1h\n  realm events -f --node edge-1\n  realm events --tail 20 -o json\n\nA node keeps its last 4096 events, in memory: those before its agent's last start are gone."
)]
pub struct Args {
    /// Go on with new events until interrupted.
    #[arg(short, long)]
    pub follow: bool,
    /// Only the last so many; while following, of each node.
    #[arg(long, value_name = "N", allow_negative_numbers = true)]
    pub tail: Option<u64>,
    /// Only events of the last so long, such as 5m.
    #[arg(long, value_name = "DURATION", value_parser = humantime::parse_duration)]
    pub since: Option<Duration>,
    /// Only of this node.
    #[arg(long, visible_alias = "peer", alias = "nodes")]
    pub node: Option<String>,
}

pub fn run(args: &Args, session: &Session) -> Result<ExitCode> {
    let since = args.since.map(clock::ago).transpose()?;
    let output = &session.output;
    connection::block_on(async {
        let realm = session.realm()?;
        let first = connection::open(session, &realm).await?;
        let status = survey::status(&first, &realm, output).await?;
        let only = args.node.as_deref();
        let (sources, silent) = sources::open(first, &realm, &status, only).await?;
        let later = sources::tell_silent("events", &silent, args.follow, output);
        let reading = Reading {
            follow: args.follow,
            tail: args.tail,
            what: "events",
        };
        let follow = args.follow;
        let events = feed::read(
            sources,
            later,
            &realm,
            reading,
            output,
            || Events {
                follow,
                since,
                tail: args.tail.filter(|_| follow),
                last: None,
            },
            |node, event| show(node, event, output),
        )
        .await?;
        // Whoever was not read may have some.
        if events == 0 && !follow && silent.is_empty() {
            output.say("no events");
        }
        // Nodes that are away are named; only where one was asked for does that count.
        let missing = |silent: &sources::Silent<'_>| silent.is_here() || only.is_some();
        Ok(if silent.iter().any(missing) {
            ExitCode::Partial
        } else {
            ExitCode::Ok
        })
    })
}

/// The events of one node.
#[derive(Debug)]
struct Events {
    follow: bool,
    since: Option<Timestamp>,
    /// So many of those that are there come before the new ones; of a later connection all do.
    tail: Option<u64>,
    /// The number of the last one that was shown, and when it happened.
    last: Option<(u64, Timestamp)>,
}

impl Feed for Events {
    type Item = Event;
    /// Whether to follow, and how many come first.
    type Query = (bool, Option<u64>);

    fn query(&mut self) -> Self::Query {
        (self.follow, self.tail.take())
    }

    /// All that the node has: after a restart of its agent it counts from one again.
    async fn ask(
        connection: &Connection,
        (follow, tail): Self::Query,
        to: mpsc::Sender<Vec<Event>>,
    ) -> std::result::Result<(), RpcError> {
        let after = match tail {
            Some(tail) => send_last(connection, tail, &to).await?,
            None => 0,
        };
        connection.operator.events(after, follow, to).await
    }

    fn is_new(&mut self, event: &Event) -> bool {
        let told = |(seq, at)| event.seq <= seq && event.at <= at;
        let old = |since| event.at < since;
        if self.last.is_some_and(told) || self.since.is_some_and(old) {
            return false;
        }
        self.last = Some((event.seq, event.at));
        true
    }

    fn at(event: &Event) -> Timestamp {
        event.at
    }

    fn bytes(event: &Event) -> usize {
        size_of::<Event>() + event.kind.len() + event.subject.len() + event.message.len()
    }
}

/// Sends the last events that the node has; gives the number that new ones come after.
async fn send_last(
    connection: &Connection,
    tail: u64,
    to: &mpsc::Sender<Vec<Event>>,
) -> std::result::Result<u64, RpcError> {
    let (sink, mut from) = mpsc::channel::<Vec<Event>>(1);
    let asked = connection.operator.events(0, false, sink);
    let gather = async {
        let mut there = Vec::new();
        while let Some(events) = from.recv().await {
            there.extend(events);
        }
        there
    };
    let (asked, mut there) = tokio::join!(asked, gather);
    asked?;
    let after = there.last().map_or(0, |event| event.seq);
    let tail = usize::try_from(tail).unwrap_or(usize::MAX);
    there.drain(..there.len().saturating_sub(tail));
    // Where nobody reads any more, the command is over.
    let _ = to.send(there).await;
    Ok(after)
}

fn show(node: &str, event: &Event, output: &Output) -> Result<()> {
    if output.json() {
        return output.json_line(&serde_json::json!({
            "time": clock::rfc3339(event.at), "node": node, "seq": event.seq,
            "kind": event.kind, "subject": event.subject, "message": event.message,
        }));
    }
    let words = [&event.kind, &event.subject, &event.message].map(|text| printable(text));
    let [kind, subject, message] = words;
    output.line(&format!(
        "{} {node} {kind:<12} {subject}: {message}",
        clock::rfc3339(event.at)
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_new_connection_repeats_no_event_also_when_the_node_counts_anew() {
        let event = |seq, at| Event {
            seq,
            at: Timestamp(at),
            kind: "joined".into(),
            subject: "one".into(),
            message: String::new(),
        };
        let mut events = Events {
            follow: true,
            since: Some(Timestamp(5)),
            tail: None,
            last: None,
        };
        let told = [
            event(1, 4),
            event(2, 5),
            event(3, 6),
            // Again, after the connection was lost.
            event(2, 5),
            event(3, 6),
            event(4, 6),
            // A new agent.
            event(1, 7),
            event(2, 7),
        ];
        let new: Vec<bool> = told.iter().map(|event| events.is_new(event)).collect();
        assert_eq!(new, [false, true, true, false, false, true, true, true]);
    }
}

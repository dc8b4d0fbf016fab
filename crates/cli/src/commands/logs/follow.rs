//! Follows the lines of one node, also when it was away in between.

use std::{rc::Rc, time::Duration};

use realm_identity::Timestamp;
use realm_rpc::{ErrorCode, LogLine, LogQuery};
use tokio::sync::mpsc;

use super::Source;
use crate::{
    clock,
    connection::{self, Connection, rpc_failed},
    error::{ExitCode, Result},
    output::Output,
    realms::Realm,
};

/// Between two looks whether a node is back: doubles from the first to the last.
const FIRST_LOOK: Duration = Duration::from_millis(250);
const LAST_LOOK: Duration = Duration::from_secs(5);

/// Sends the node's lines until it refuses to give more. Dropping it midway ends it.
pub async fn follow(
    mut source: Source<'_>,
    realm: &Realm,
    query: &LogQuery,
    to: mpsc::Sender<Vec<LogLine>>,
    output: &Output,
) -> Result<()> {
    let node = source.connection.node().short();
    let mut seen = Seen::default();
    loop {
        let ended = read(&source.connection, &seen.after(query), &mut seen, &to).await;
        let Err(error) = ended else { return Ok(()) };
        if error.code != ErrorCode::Disconnected {
            return Err(rpc_failed(
                format!("{node} does not give its lines"),
                &error,
            ));
        }
        let since = clock::rfc3339(clock::now()?);
        output.say(format!(
            "no more lines from {node}: it is gone; they go on when it is back"
        ));
        source.connection = back(&source, realm).await?;
        output.say(format!("{node} is back: it was away since {since}"));
    }
}

/// One connection's lines, but for those that were seen.
async fn read(
    source: &Connection,
    query: &LogQuery,
    seen: &mut Seen,
    to: &mpsc::Sender<Vec<LogLine>>,
) -> std::result::Result<(), realm_rpc::RpcError> {
    // One batch at a time: a slow terminal holds the node back.
    let (sink, mut from) = mpsc::channel::<Vec<LogLine>>(1);
    let forward = async {
        while let Some(mut lines) = from.recv().await {
            lines.retain(|line| seen.is_new(line));
            // Nobody reads any more: the command is over.
            if !lines.is_empty() && to.send(lines).await.is_err() {
                return;
            }
        }
    };
    let (ended, ()) = tokio::join!(source.operator.logs(query, sink), forward);
    ended
}

/// Waits until the node answers again, where it did or through its relays.
async fn back(gone: &Source<'_>, realm: &Realm) -> Result<Connection> {
    let mut wait = FIRST_LOOK;
    loop {
        tokio::time::sleep(wait).await;
        let (owner, relays) = (Rc::clone(&gone.connection.owner), &gone.connection.relays);
        match connection::open_at(owner, relays, realm, gone.node).await {
            Err(error) if error.code == ExitCode::NoAgent => {
                tracing::debug!(%error, "not back yet");
                wait = wait.saturating_mul(2).min(LAST_LOOK);
            }
            opened => return opened,
        }
    }
}

/// The last lines that were shown, so that none is shown twice.
#[derive(Debug, Default)]
struct Seen {
    /// When the last one was written.
    at: Option<Timestamp>,
    /// Those of that moment.
    last: Vec<LogLine>,
    /// Those of that moment that a new connection has not repeated yet.
    repeated: Vec<LogLine>,
}

impl Seen {
    /// What to ask of a new connection.
    fn after(&mut self, query: &LogQuery) -> LogQuery {
        self.repeated.clone_from(&self.last);
        match self.at {
            None => query.clone(),
            Some(at) => LogQuery {
                tail: None,
                since: Some(at),
                ..query.clone()
            },
        }
    }

    fn is_new(&mut self, line: &LogLine) -> bool {
        if let Some(index) = self.repeated.iter().position(|known| known == line) {
            self.repeated.swap_remove(index);
            return false;
        }
        // Cells of one node write side by side: one may come late.
        if self.at < Some(line.at) {
            self.at = Some(line.at);
            self.last.clear();
        }
        if self.at == Some(line.at) {
            self.last.push(line.clone());
        }
        true
    }
}

#[cfg(test)]
mod tests {
    use realm_rpc::LogStream;

    use super::*;

    fn line(at: u64, text: &str) -> LogLine {
        LogLine {
            at: Timestamp(at),
            component: "web".into(),
            node: "one".into(),
            index: 0,
            stream: LogStream::Out,
            text: text.as_bytes().to_vec(),
        }
    }

    #[test]
    fn a_new_connection_repeats_no_line_and_loses_none() {
        let query = LogQuery {
            component: None,
            node: None,
            tail: Some(5),
            since: None,
            follow: true,
            previous: false,
        };
        let mut seen = Seen::default();
        assert_eq!(seen.after(&query).tail, Some(5));
        for line in [line(1, "a"), line(2, "same"), line(2, "same")] {
            assert!(seen.is_new(&line));
        }
        let again = seen.after(&query);
        assert_eq!((again.tail, again.since), (None, Some(Timestamp(2))));
        let told = [
            line(2, "same"),
            line(2, "same"),
            line(2, "same"),
            line(3, "b"),
        ];
        let new: Vec<bool> = told.iter().map(|line| seen.is_new(line)).collect();
        assert_eq!(new, [false, false, true, true]);
    }
}

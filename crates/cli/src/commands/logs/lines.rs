//! The lines of one node, each once, also when it was away in between.

use realm_identity::Timestamp;
use realm_rpc::{LogLine, LogQuery, RpcError};
use tokio::sync::mpsc;

use crate::{connection::Connection, sources::feed::Feed};

/// What is asked for, and the last lines that were shown, so that none is shown twice.
#[derive(Debug)]
pub struct Lines {
    query: LogQuery,
    /// When the last one was written.
    at: Option<Timestamp>,
    /// Those of that moment.
    last: Vec<LogLine>,
    /// Those of that moment that a new connection has not repeated yet.
    repeated: Vec<LogLine>,
}

impl Lines {
    pub const fn new(query: LogQuery) -> Self {
        Self {
            query,
            at: None,
            last: Vec::new(),
            repeated: Vec::new(),
        }
    }
}

impl Feed for Lines {
    type Item = LogLine;
    type Query = LogQuery;

    fn query(&mut self) -> LogQuery {
        self.repeated.clone_from(&self.last);
        match self.at {
            None => self.query.clone(),
            Some(at) => LogQuery {
                tail: None,
                since: Some(at),
                ..self.query.clone()
            },
        }
    }

    async fn ask(
        connection: &Connection,
        query: LogQuery,
        to: mpsc::Sender<Vec<LogLine>>,
    ) -> Result<(), RpcError> {
        connection.operator.logs(&query, to).await
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

    fn at(line: &LogLine) -> Timestamp {
        line.at
    }

    fn bytes(line: &LogLine) -> usize {
        size_of::<LogLine>() + line.component.len() + line.node.len() + line.text.len()
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
            tail: Some(5),
            since: None,
            follow: true,
            previous: false,
        };
        let mut lines = Lines::new(query);
        assert_eq!(lines.query().tail, Some(5));
        for line in [line(1, "a"), line(2, "same"), line(2, "same")] {
            assert!(lines.is_new(&line));
        }
        let again = lines.query();
        assert_eq!((again.tail, again.since), (None, Some(Timestamp(2))));
        let told = [
            line(2, "same"),
            line(2, "same"),
            line(2, "same"),
            line(3, "b"),
        ];
        let new: Vec<bool> = told.iter().map(|line| lines.is_new(line)).collect();
        assert_eq!(new, [false, false, true, true]);
    }
}

//! Where a node sends what it was asked to follow. Every send waits for the receiver.

use std::time::Duration;

use crate::{
    Event, Limits, LogLine, convert,
    schema::operator_capnp::{event_sink, log_sink},
};

/// Most items in one message, so that many small ones stay within what a message may hold.
const MAX_ITEMS: usize = 512;

/// The receiver is gone, or took longer than a call may.
#[derive(Debug, thiserror::Error)]
#[error("the receiver is gone or does not keep up")]
pub struct SinkClosed;

macro_rules! sink {
    ($(#[$doc:meta])* $name:ident, $client:path) => {
        $(#[$doc])*
        #[derive(Clone)]
        pub struct $name {
            client: $client,
            limits: Limits,
        }

        impl $name {
            pub(crate) fn new(client: $client, limits: Limits) -> Self {
                Self { client, limits }
            }
        }

        impl std::fmt::Debug for $name {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.debug_struct(stringify!($name)).finish_non_exhaustive()
            }
        }
    };
}

sink!(
    /// Takes lines of logs.
    LogSink, log_sink::Client
);
sink!(
    /// Takes events.
    EventSink, event_sink::Client
);

impl LogSink {
    /// Sends `lines` and returns once the receiver took them.
    pub async fn send(&self, lines: &[LogLine]) -> Result<(), SinkClosed> {
        let max = self.limits.content_bytes();
        let size = |line: &LogLine| line.text.len() + line.component.len() + line.node.len();
        for lines in split(lines, max, size) {
            let mut request = self.client.lines_request();
            let mut list = request.get().init_lines(convert::length(lines));
            for (index, line) in (0..).zip(lines) {
                convert::write_line(list.reborrow().get(index), line, max);
            }
            wait(self.limits.call, request.send().promise).await?;
        }
        Ok(())
    }
}

impl EventSink {
    /// Sends `events` and returns once the receiver took them.
    pub async fn send(&self, events: &[Event]) -> Result<(), SinkClosed> {
        let size = |event: &Event| event.kind.len() + event.subject.len() + event.message.len();
        for events in split(events, self.limits.content_bytes(), size) {
            let mut request = self.client.events_request();
            let mut list = request.get().init_events(convert::length(events));
            for (index, event) in (0..).zip(events) {
                convert::write_event(list.reborrow().get(index), event);
            }
            wait(self.limits.call, request.send().promise).await?;
        }
        Ok(())
    }
}

pub(crate) async fn wait<T>(
    deadline: Duration,
    call: impl Future<Output = Result<T, capnp::Error>>,
) -> Result<(), SinkClosed> {
    match tokio::time::timeout(deadline, call).await {
        Ok(Ok(_)) => Ok(()),
        Ok(Err(_)) | Err(_) => Err(SinkClosed),
    }
}

/// Cuts a list into runs that each fit a message; one item alone is always a run.
pub(crate) fn split<T>(items: &[T], max: usize, size: impl Fn(&T) -> usize) -> Vec<&[T]> {
    let mut runs = Vec::new();
    let (mut start, mut bytes) = (0, 0);
    for (index, item) in items.iter().enumerate() {
        let next = size(item).saturating_add(64);
        if index > start && (bytes + next > max || index - start == MAX_ITEMS) {
            runs.push(&items[start..index]);
            (start, bytes) = (index, 0);
        }
        bytes = bytes.saturating_add(next);
    }
    if start < items.len() {
        runs.push(&items[start..]);
    }
    runs
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn runs_hold_everything_in_order_within_bounds() {
        let items: Vec<usize> = (0..2000).collect();
        let runs = split(&items, 100_000, |n| *n);
        assert_eq!(runs.concat(), items);
        for run in runs {
            let bytes: usize = run.iter().map(|n| n + 64).sum();
            assert!(run.len() == 1 || (bytes <= 100_000 && run.len() <= MAX_ITEMS));
        }
    }
}

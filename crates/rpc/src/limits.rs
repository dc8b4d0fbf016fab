//! What one connection may hold and how long it may take.

use std::time::Duration;

/// Bytes in one write of an upload: a quarter of the largest message, four in flight.
pub const CHUNK_BYTES: usize = 256 * 1024;

/// Bounds of one connection, the same for both sides.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Words read from one message, which bounds its size too: 128 Ki words are 1 MiB.
    pub traversal_words: usize,
    pub nesting: i32,
    /// Calls that wait for an answer, capabilities we hold and capabilities we gave, each.
    pub table_entries: usize,
    /// Bytes of calls that are not answered, and bytes queued to be written, each.
    pub bytes_in_flight: usize,
    /// Uploads open at once.
    pub uploads: usize,
    /// A connection on which nothing is under way is closed after this.
    pub idle: Duration,
    /// One call, and one wait for a sink. Followed logs, events and status may last.
    pub call: Duration,
    /// The end of an upload, in which the whole of it is verified and written durably.
    pub finish: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            traversal_words: 128 * 1024,
            nesting: 32,
            table_entries: 1024,
            bytes_in_flight: 8 * 1024 * 1024,
            uploads: 16,
            idle: Duration::from_secs(120),
            call: Duration::from_secs(30),
            finish: Duration::from_secs(300),
        }
    }
}

impl Limits {
    pub(crate) fn reader_options(&self) -> capnp::message::ReaderOptions {
        capnp::message::ReaderOptions {
            traversal_limit_in_words: Some(self.traversal_words),
            nesting_limit: self.nesting,
        }
    }

    pub(crate) const fn message_bytes(&self) -> usize {
        self.traversal_words * 8
    }

    /// Largest sum of contents in one answer; the rest is room for what surrounds them.
    pub(crate) const fn content_bytes(&self) -> usize {
        self.message_bytes() / 2
    }
}

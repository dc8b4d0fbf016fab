//! What a cell wrote: a bounded ring of lines, with readers that follow it.

use std::{
    collections::VecDeque,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, AtomicUsize, Ordering},
    },
    time::SystemTime,
};

use serde::Serialize;
use tokio::sync::watch;

/// Bytes a ring holds unless told otherwise: minutes of a talkative cell, and small beside its memory.
const CAPACITY_BYTES: usize = 1024 * 1024;
/// A longer line is split, so that a cell that never ends its line cannot fill the ring with one.
const MAX_LINE_BYTES: usize = 16 * 1024;
/// What a kept line costs beside its text.
const LINE_OVERHEAD_BYTES: usize = 64;

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum LogStream {
    Stdout,
    Stderr,
    /// What is said about the cell, not by it.
    Agent,
}

/// One line, without its end. Bytes that are not UTF-8 were replaced.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LogLine {
    /// Rises with each line of the rings that share a [`Sequence`], over both streams.
    pub seq: u64,
    pub at: SystemTime,
    pub stream: LogStream,
    pub text: String,
    /// The line goes on in the next one of this stream: it was too long.
    pub partial: bool,
}

/// Numbers the lines of several rings in the order in which they were written.
#[derive(Debug, Clone)]
pub struct Sequence(Arc<Numbers>);

#[derive(Debug)]
struct Numbers {
    next: AtomicU64,
    changed: watch::Sender<()>,
}

impl Default for Sequence {
    fn default() -> Self {
        Self(Arc::new(Numbers {
            next: AtomicU64::new(0),
            changed: watch::Sender::new(()),
        }))
    }
}

impl Sequence {
    /// The number of the next line. Every line with a lower one is in its ring for whoever looks
    /// there after this was read.
    pub fn next(&self) -> u64 {
        self.0.next.load(Ordering::Acquire)
    }

    /// Wakes when lines were written.
    pub fn watch(&self) -> watch::Receiver<()> {
        self.0.changed.subscribe()
    }

    /// Under the lock of the ring that the line goes into.
    fn take(&self) -> u64 {
        self.0.next.fetch_add(1, Ordering::AcqRel)
    }
}

/// Shared by a cell and its readers; outlives the cell, so that a restarted cell goes on in the same ring.
#[derive(Debug, Clone)]
pub struct LogRing {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    lines: Mutex<Lines>,
    /// The sequence number the next line will have.
    next: watch::Sender<u64>,
    /// Bytes.
    capacity: AtomicUsize,
}

#[derive(Debug, Default)]
struct Lines {
    kept: VecDeque<LogLine>,
    kept_bytes: usize,
    dropped: u64,
    /// The number after the newest line's.
    next: u64,
    sequence: Sequence,
    /// Unfinished lines of each stream.
    open: [Vec<u8>; 3],
}

impl Default for LogRing {
    fn default() -> Self {
        Self::new()
    }
}

impl LogRing {
    pub fn new() -> Self {
        Self::with_capacity(CAPACITY_BYTES)
    }

    pub fn with_capacity(bytes: usize) -> Self {
        Self::numbered(Sequence::default(), bytes)
    }

    /// A ring whose lines are numbered together with those of others.
    pub fn numbered(sequence: Sequence, bytes: usize) -> Self {
        let lines = Lines {
            next: sequence.next(),
            sequence,
            ..Lines::default()
        };
        let inner = Inner {
            next: watch::Sender::new(lines.next),
            lines: Mutex::new(lines),
            capacity: AtomicUsize::new(bytes),
        };
        Self {
            inner: Arc::new(inner),
        }
    }

    /// Holds so many bytes from now on; what does not fit goes at once, the oldest first.
    pub fn set_capacity(&self, bytes: usize) {
        self.inner.capacity.store(bytes, Ordering::Relaxed);
        self.lines().trim(bytes);
    }

    /// Takes what a cell wrote; whole lines become visible at once, the rest with [`LogRing::finish`].
    pub fn write(&self, stream: LogStream, bytes: &[u8]) {
        let mut lines = self.lines();
        for piece in bytes.split_inclusive(|byte| *byte == b'\n') {
            lines.take(stream, piece);
        }
        self.announce(lines);
    }

    /// Ends unfinished lines: the cell is gone.
    pub fn finish(&self) {
        let mut lines = self.lines();
        for stream in [LogStream::Stdout, LogStream::Stderr, LogStream::Agent] {
            if !lines.open[stream as usize].is_empty() {
                lines.close(stream, false);
            }
        }
        self.announce(lines);
    }

    /// The newest `count` lines, oldest first.
    pub fn tail(&self, count: usize) -> Vec<LogLine> {
        let lines = self.lines();
        let skip = lines.kept.len().saturating_sub(count);
        lines.kept.iter().skip(skip).cloned().collect()
    }

    /// The newest `count` lines whose sequence number is below `end`, oldest first.
    pub fn before(&self, end: u64, count: usize) -> Vec<LogLine> {
        let lines = self.lines();
        let end = lines.kept.partition_point(|line| line.seq < end);
        let begin = end.saturating_sub(count);
        lines.kept.range(begin..end).cloned().collect()
    }

    /// Lines written at or after `at`.
    pub fn since(&self, at: SystemTime) -> Vec<LogLine> {
        self.lines()
            .kept
            .iter()
            .filter(|line| line.at >= at)
            .cloned()
            .collect()
    }

    /// Up to `max` lines whose sequence number is `seq` or higher.
    pub fn from_seq(&self, seq: u64, max: usize) -> Vec<LogLine> {
        let lines = self.lines();
        let first = lines.kept.partition_point(|line| line.seq < seq);
        lines.kept.iter().skip(first).take(max).cloned().collect()
    }

    /// Lines that had to go to make room.
    pub fn dropped(&self) -> u64 {
        self.lines().dropped
    }

    /// The sequence number of the next line.
    pub fn next_seq(&self) -> u64 {
        *self.inner.next.borrow()
    }

    /// A reader that starts at `seq` and waits for more.
    pub fn follow(&self, seq: u64) -> LogReader {
        LogReader {
            ring: self.clone(),
            at: seq,
            next: self.inner.next.subscribe(),
        }
    }

    fn lines(&self) -> MutexGuard<'_, Lines> {
        // Every change leaves the lines whole, so a panic elsewhere spoils nothing.
        self.inner
            .lines
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }

    fn announce(&self, mut lines: MutexGuard<'_, Lines>) {
        lines.trim(self.inner.capacity.load(Ordering::Relaxed));
        let (next, sequence) = (lines.next, lines.sequence.clone());
        drop(lines);
        let newer = self.inner.next.send_if_modified(|seen| {
            let newer = *seen < next;
            *seen = next.max(*seen);
            newer
        });
        if newer {
            sequence.0.changed.send_replace(());
        }
    }
}

impl Lines {
    fn take(&mut self, stream: LogStream, mut piece: &[u8]) {
        loop {
            let open = &mut self.open[stream as usize];
            let room = MAX_LINE_BYTES - open.len();
            let body = piece.strip_suffix(b"\n").unwrap_or(piece);
            if body.len() <= room {
                open.extend_from_slice(body);
                if body.len() < piece.len() {
                    self.close(stream, false);
                }
                return;
            }
            open.extend_from_slice(&piece[..room]);
            piece = &piece[room..];
            self.close(stream, true);
        }
    }

    fn close(&mut self, stream: LogStream, partial: bool) {
        let bytes = std::mem::take(&mut self.open[stream as usize]);
        let body = bytes.strip_suffix(b"\r").unwrap_or(&bytes);
        let text = String::from_utf8_lossy(body).into_owned();
        self.kept_bytes += text.len() + LINE_OVERHEAD_BYTES;
        let seq = self.sequence.take();
        self.kept.push_back(LogLine {
            seq,
            at: SystemTime::now(),
            stream,
            text,
            partial,
        });
        self.next = seq + 1;
    }

    fn trim(&mut self, capacity: usize) {
        while self.kept_bytes > capacity {
            let Some(line) = self.kept.pop_front() else {
                break;
            };
            self.kept_bytes -= line.text.len() + LINE_OVERHEAD_BYTES;
            self.dropped += 1;
        }
    }
}

/// Follows a ring from a place in it.
#[derive(Debug)]
pub struct LogReader {
    ring: LogRing,
    at: u64,
    next: watch::Receiver<u64>,
}

impl LogReader {
    /// The next lines, at most `max`; waits until there is one. A gap in the sequence numbers means that the ring
    /// was faster than the reader. None when nobody can write any more. May be dropped midway: nothing is lost.
    pub async fn next(&mut self, max: usize) -> Option<Vec<LogLine>> {
        loop {
            let lines = self.ring.from_seq(self.at, max);
            if let Some(last) = lines.last() {
                self.at = last.seq + 1;
                return Some(lines);
            }
            let at = self.at;
            self.next.wait_for(|next| *next > at).await.ok()?;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn texts(ring: &LogRing) -> Vec<String> {
        ring.tail(usize::MAX)
            .into_iter()
            .map(|line| line.text)
            .collect()
    }

    #[test]
    fn splits_at_line_ends_over_writes() {
        let ring = LogRing::new();
        ring.write(LogStream::Stdout, b"one\ntw");
        ring.write(LogStream::Stderr, b"other\r\n");
        ring.write(LogStream::Stdout, b"o\nthree");
        assert_eq!(texts(&ring), ["one", "other", "two"]);
        ring.finish();
        assert_eq!(texts(&ring), ["one", "other", "two", "three"]);
        assert_eq!(
            ring.tail(2).iter().map(|line| line.seq).collect::<Vec<_>>(),
            [2, 3]
        );
    }

    #[test]
    fn long_lines_are_split_and_marked() {
        let ring = LogRing::new();
        let mut line = vec![b'x'; MAX_LINE_BYTES * 2 + 5];
        line.push(b'\n');
        ring.write(LogStream::Stdout, &line);
        let lines = ring.tail(10);
        assert_eq!(
            lines.iter().map(|line| line.text.len()).collect::<Vec<_>>(),
            [MAX_LINE_BYTES, MAX_LINE_BYTES, 5]
        );
        assert_eq!(
            lines.iter().map(|line| line.partial).collect::<Vec<_>>(),
            [true, true, false]
        );
    }

    #[test]
    fn invalid_utf8_is_replaced() {
        let ring = LogRing::new();
        ring.write(LogStream::Stdout, b"a\xff\xfeb\n");
        assert_eq!(texts(&ring), ["a\u{fffd}\u{fffd}b"]);
    }

    #[test]
    fn oldest_lines_go_first_and_are_counted() {
        let ring = LogRing::with_capacity(10 * (LINE_OVERHEAD_BYTES + 1));
        for _ in 0..25 {
            ring.write(LogStream::Stdout, b"x\n");
        }
        assert_eq!(ring.tail(usize::MAX).len(), 10);
        assert_eq!(ring.dropped(), 15);
        assert_eq!(ring.from_seq(0, 1)[0].seq, 15);
        let before = |end, count| -> Vec<u64> {
            let lines = ring.before(end, count).into_iter();
            lines.map(|line| line.seq).collect()
        };
        assert_eq!(before(18, 2), [16, 17]);
        assert_eq!(before(18, 99), [15, 16, 17], "those before are gone");
        assert!(before(15, 2).is_empty());
        assert_eq!(before(u64::MAX, 2), [23, 24]);
    }

    #[test]
    fn rings_that_share_a_sequence_have_one_order() {
        let sequence = Sequence::default();
        let (one, two) = (
            LogRing::numbered(sequence.clone(), 1024),
            LogRing::numbered(sequence.clone(), 1024),
        );
        one.write(LogStream::Stdout, b"a\n");
        two.write(LogStream::Stdout, b"b\n");
        one.write(LogStream::Stdout, b"c\n");
        let seqs = |ring: &LogRing| -> Vec<u64> {
            ring.tail(9).into_iter().map(|line| line.seq).collect()
        };
        assert_eq!((seqs(&one), seqs(&two)), (vec![0, 2], vec![1]));
        assert_eq!(sequence.next(), 3);
        assert_eq!(texts(&one), ["a", "c"]);
        one.set_capacity(LINE_OVERHEAD_BYTES + 1);
        assert_eq!(texts(&one), ["c"]);
    }

    #[tokio::test]
    async fn follow_waits_and_resumes() {
        let ring = LogRing::new();
        let mut reader = ring.follow(0);
        let writer = ring.clone();
        let (lines, ()) = tokio::join!(reader.next(10), async {
            writer.write(LogStream::Stdout, b"a\n")
        });
        assert_eq!(lines.unwrap_or_default().len(), 1);
        ring.write(LogStream::Stdout, b"b\nc\n");
        let lines = reader.next(1).await.unwrap_or_default();
        assert_eq!(lines[0].text, "b");
    }
}

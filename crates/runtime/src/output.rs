//! A cell's output: written to its ring or to the process, no faster than its limit.

use std::{
    pin::Pin,
    sync::{Arc, Mutex, PoisonError},
    task::{Context, Poll, ready},
    time::{Duration, Instant},
};

use bytes::Bytes;
use tokio::{
    io::AsyncWrite,
    time::{Sleep, sleep},
};
use wasmtime_wasi::{
    async_trait,
    cli::{IsTerminal, StdoutStream},
    p2::{OutputStream, Pollable, StreamError, StreamResult, pipe::AsyncWriteStream},
};

use crate::{LogRing, LogStream, exit::Limit, guest::Shared, streams::Strict};

/// One write of a guest takes at most this much from the bucket, so that two streams share it fairly.
const CHUNK_BYTES: usize = 4096;
/// What a stream of 0.2 into the process holds of output that waits for its turn.
const STREAM_BYTES: usize = 8192;

/// Where the bytes go.
#[derive(Debug, Clone)]
pub(crate) enum Sink {
    Ring(LogRing, LogStream),
    Process(LogStream),
}

/// One of a cell's output streams. Every handle the guest opens shares one bucket.
#[derive(Debug, Clone)]
pub(crate) struct Output {
    pub(crate) sink: Sink,
    pub(crate) bucket: Option<Arc<Bucket>>,
    pub(crate) shared: Arc<Shared>,
}

impl IsTerminal for Output {
    fn is_terminal(&self) -> bool {
        match self.sink {
            Sink::Ring(..) => false,
            Sink::Process(LogStream::Stdout) => {
                std::io::IsTerminal::is_terminal(&std::io::stdout())
            }
            Sink::Process(LogStream::Stderr | LogStream::Agent) => {
                std::io::IsTerminal::is_terminal(&std::io::stderr())
            }
        }
    }
}

impl StdoutStream for Output {
    fn async_stream(&self) -> Box<dyn AsyncWrite + Send + Sync> {
        Box::new(Writer {
            output: self.clone(),
            process: self.sink.open(),
            waiting: None,
        })
    }

    fn p2_stream(&self) -> Box<dyn OutputStream> {
        if let Sink::Ring(ring, stream) = &self.sink {
            return Box::new(IntoRing {
                ring: ring.clone(),
                stream: *stream,
                bucket: self.bucket.clone(),
                shared: self.shared.clone(),
                permit: 0,
            });
        }
        let writer = AsyncWriteStream::new(STREAM_BYTES, Pin::from(self.async_stream()));
        Box::new(Strict::new(Box::new(writer), STREAM_BYTES))
    }
}

impl Sink {
    fn open(&self) -> Option<Process> {
        match self {
            Self::Ring(..) => None,
            Self::Process(LogStream::Stdout) => Some(Box::pin(tokio::io::stdout())),
            Self::Process(LogStream::Stderr | LogStream::Agent) => {
                Some(Box::pin(tokio::io::stderr()))
            }
        }
    }
}

type Process = Pin<Box<dyn AsyncWrite + Send + Sync>>;

struct Writer {
    output: Output,
    process: Option<Process>,
    waiting: Option<Pin<Box<Sleep>>>,
}

impl Writer {
    fn poll_budget(&mut self, cx: &mut Context<'_>, wanted: usize) -> Poll<usize> {
        let Some(bucket) = &self.output.bucket else {
            return Poll::Ready(wanted);
        };
        loop {
            if let Some(waiting) = &mut self.waiting {
                ready!(waiting.as_mut().poll(cx));
                self.waiting = None;
            }
            match bucket.take(wanted.min(CHUNK_BYTES) as u64) {
                Ok(()) => return Poll::Ready(wanted.min(CHUNK_BYTES)),
                Err(wait) => {
                    self.output.shared.hit(Limit::Output);
                    self.waiting = Some(Box::pin(sleep(wait)));
                }
            }
        }
    }
}

impl AsyncWrite for Writer {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<std::io::Result<usize>> {
        let this = &mut *self;
        let count = ready!(this.poll_budget(cx, bytes.len()));
        let written = match (&this.output.sink, &mut this.process) {
            (_, Some(process)) => ready!(process.as_mut().poll_write(cx, &bytes[..count]))?,
            (Sink::Ring(ring, stream), None) => {
                ring.write(*stream, &bytes[..count]);
                count
            }
            (Sink::Process(_), None) => {
                return Poll::Ready(Err(std::io::ErrorKind::NotConnected.into()));
            }
        };
        this.output.shared.usage.count_output(written as u64);
        Poll::Ready(Ok(written))
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        match &mut self.process {
            Some(process) => process.as_mut().poll_flush(cx),
            None => Poll::Ready(Ok(())),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        self.poll_flush(cx)
    }
}

/// A stream of 0.2 into a ring: what it takes is in the ring at once. A cell that opens very many of them may write a
/// chunk to each beyond its burst; it then waits for as long as all of that takes at its rate.
struct IntoRing {
    ring: LogRing,
    stream: LogStream,
    bucket: Option<Arc<Bucket>>,
    shared: Arc<Shared>,
    /// What the guest was told that it may write. It holds also where the other stream has emptied the bucket since.
    permit: usize,
}

impl IntoRing {
    fn charge(&self, count: usize) -> Option<Duration> {
        self.bucket
            .as_ref()
            .and_then(|bucket| bucket.charge(count as u64))
    }
}

#[async_trait]
impl OutputStream for IntoRing {
    fn write(&mut self, bytes: Bytes) -> StreamResult<()> {
        if bytes.len() > self.permit && bytes.len() > self.check_write()? {
            return Err(StreamError::trap(
                "a write of more bytes than `check-write` permits",
            ));
        }
        self.permit -= bytes.len();
        if bytes.is_empty() {
            return Ok(());
        }
        self.ring.write(self.stream, &bytes);
        self.shared.usage.count_output(bytes.len() as u64);
        if self.charge(bytes.len()).is_some() {
            self.shared.hit(Limit::Output);
        }
        Ok(())
    }

    /// Once the last of it is in the ring; only what comes next waits for a bucket in debt.
    async fn blocking_write_and_flush(&mut self, mut bytes: Bytes) -> StreamResult<()> {
        while !bytes.is_empty() {
            let permit = self.write_ready().await?;
            let chunk = bytes.split_to(bytes.len().min(permit));
            let full = chunk.len() == CHUNK_BYTES;
            self.write(chunk)?;
            if full {
                // One call of a guest may write megabytes: kills, deadlines and other cells come between.
                tokio::task::yield_now().await;
            }
        }
        Ok(())
    }

    fn write_zeroes(&mut self, count: usize) -> StreamResult<()> {
        if count > CHUNK_BYTES {
            return Err(StreamError::trap(
                "more zeroes than `check-write` ever permits",
            ));
        }
        self.write(vec![0; count].into())
    }

    fn flush(&mut self) -> StreamResult<()> {
        Ok(())
    }

    fn check_write(&mut self) -> StreamResult<usize> {
        self.permit = match self.charge(0) {
            None => CHUNK_BYTES,
            Some(_) => 0,
        };
        Ok(self.permit)
    }
}

#[async_trait]
impl Pollable for IntoRing {
    async fn ready(&mut self) {
        while let Some(wait) = self.charge(0) {
            sleep(wait).await;
        }
    }
}

/// A token bucket that may go into debt by what its takers were permitted.
#[derive(Debug)]
pub(crate) struct Bucket {
    per_sec: u64,
    burst: u64,
    level: Mutex<Level>,
}

#[derive(Debug)]
struct Level {
    tokens: f64,
    at: Instant,
}

impl Bucket {
    /// `burst` is what may be taken at once after a pause.
    pub(crate) fn new(per_sec: u64, burst: u64) -> Self {
        let level = Level {
            tokens: burst as f64,
            at: Instant::now(),
        };
        Self {
            per_sec: per_sec.max(1),
            burst,
            level: Mutex::new(level),
        }
    }

    /// Takes `count` if the bucket is not dry, or says how long to wait.
    pub(crate) fn take(&self, count: u64) -> Result<(), Duration> {
        let mut level = self.level.lock().unwrap_or_else(PoisonError::into_inner);
        self.refill(&mut level);
        if level.tokens > 0.0 {
            level.tokens -= count as f64;
            return Ok(());
        }
        Err(self.wait(level.tokens))
    }

    /// Takes `count` whatever the level, and says how long to wait before the next.
    pub(crate) fn charge(&self, count: u64) -> Option<Duration> {
        let mut level = self.level.lock().unwrap_or_else(PoisonError::into_inner);
        self.refill(&mut level);
        level.tokens -= count as f64;
        (level.tokens < 0.0).then(|| self.wait(level.tokens))
    }

    fn refill(&self, level: &mut Level) {
        let now = Instant::now();
        let gained = now.duration_since(level.at).as_secs_f64() * self.per_sec as f64;
        level.tokens = (level.tokens + gained).min(self.burst as f64);
        level.at = now;
    }

    fn wait(&self, tokens: f64) -> Duration {
        /// Timers are no finer, and a debt of less is not worth one.
        const LEAST: Duration = Duration::from_millis(1);
        /// An hour of debt is a limit far too low; a kill still wakes the sleeper.
        const MOST_SECS: f64 = 3600.0;
        let secs = (-tokens / self.per_sec as f64).clamp(0.0, MOST_SECS);
        Duration::from_secs_f64(secs).max(LEAST)
    }
}

#[cfg(test)]
mod tests {
    use futures::FutureExt as _;
    use realm_manifest::Limits;

    use super::*;

    const BURST: u64 = 10;

    /// Two streams that share a bucket of so many bytes, and the ring that they write to.
    fn streams() -> ([Box<dyn OutputStream>; 2], LogRing) {
        let ring = LogRing::new();
        let shared = Arc::new(Shared::new(Limits::default()));
        let bucket = Some(Arc::new(Bucket::new(1, BURST)));
        let stream = |stream| {
            let output = Output {
                sink: Sink::Ring(ring.clone(), stream),
                bucket: bucket.clone(),
                shared: shared.clone(),
            };
            output.p2_stream()
        };
        let streams = [stream(LogStream::Stdout), stream(LogStream::Stderr)];
        (streams, ring)
    }

    #[tokio::test]
    async fn what_is_written_is_in_the_ring_at_once() {
        let ([mut out, _], ring) = streams();
        assert_eq!(out.check_write().expect("open"), CHUNK_BYTES);
        out.write(Bytes::from_static(b"a line\n"))
            .expect("takes it");
        let lines = ring.follow(0).next(1).now_or_never().flatten();
        assert_eq!(lines.expect("it is there")[0].text, "a line");
    }

    #[tokio::test]
    async fn a_dry_bucket_holds_up_both_streams_but_not_what_was_permitted() {
        let ([mut out, mut err], _ring) = streams();
        assert_eq!(out.check_write().expect("open"), CHUNK_BYTES);
        assert_eq!(err.check_write().expect("open"), CHUNK_BYTES);
        out.write_zeroes(1).expect("nothing is owed yet");
        let more = Bytes::from(vec![b'x'; BURST as usize + 1]);
        out.write(more.clone()).expect("goes into debt");
        err.write_zeroes(1).expect("it was permitted");
        err.write(more.clone()).expect("so was this");
        for stream in [&mut out, &mut err] {
            assert_eq!(stream.check_write().expect("open"), 0);
            assert!(stream.ready().now_or_never().is_none(), "it waits");
            let error = stream.write(more.clone()).expect_err("not permitted");
            assert!(matches!(error, StreamError::Trap(_)), "{error:?}");
        }
    }

    #[tokio::test]
    async fn a_last_write_waits_for_nothing_and_a_long_one_lets_others_in_between() {
        let ([mut out, _], _ring) = streams();
        let more = Bytes::from(vec![b'x'; BURST as usize + 1]);
        let last = out.blocking_write_and_flush(more).now_or_never();
        last.expect("at once").expect("takes it");

        let ([mut out, _], _ring) = streams();
        let long = Bytes::from(vec![b'x'; CHUNK_BYTES]);
        let first = out.blocking_write_and_flush(long).now_or_never();
        assert!(first.is_none(), "others have a turn");
    }

    #[tokio::test]
    async fn nobody_writes_more_than_was_permitted() {
        let ([mut out, _], ring) = streams();
        let most = Bytes::from(vec![b'x'; CHUNK_BYTES + 1]);
        let error = out.write(most).expect_err("more than is ever permitted");
        assert!(matches!(error, StreamError::Trap(_)), "{error:?}");
        assert!(ring.follow(0).next(1).now_or_never().is_none(), "nothing");
    }
}

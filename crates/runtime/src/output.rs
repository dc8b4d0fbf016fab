//! A cell's output: written to its ring or to the process, no faster than its limit.

use std::{
    pin::Pin,
    sync::{Arc, Mutex, PoisonError},
    task::{Context, Poll, ready},
    time::{Duration, Instant},
};

use tokio::{
    io::AsyncWrite,
    time::{Sleep, sleep},
};
use wasmtime_wasi::{
    cli::{IsTerminal, StdoutStream},
    p2::{OutputStream, pipe::AsyncWriteStream},
};

use crate::{LogRing, LogStream, exit::Limit, guest::Shared, streams::Strict};

/// One write of a guest takes at most this much from the bucket, so that two streams share it fairly.
const CHUNK_BYTES: usize = 4096;
/// What a stream of 0.2 holds of output that waits for its turn.
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

/// A token bucket that may go into debt by its last taker.
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

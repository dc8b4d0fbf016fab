//! Connections of the HTTP endpoint, in number and in time.

use std::{
    io,
    net::SocketAddr,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    task::{Context, Poll},
    time::Duration,
};

use axum::{extract::connect_info::Connected, serve::IncomingStream};
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::{TcpListener, TcpStream},
    sync::{OwnedSemaphorePermit, Semaphore},
    time::{Instant, Sleep},
};

/// Connections open at once.
const MAX_CONNECTIONS: usize = 64;
/// What one connection may last: every answer is short, but those that stream.
const MAX_TIME: Duration = Duration::from_secs(10);
/// After a connection could not be accepted, as when no file is left.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Accepts so many connections at once, each for so long: nobody can hold the agent's files by
/// saying nothing.
pub struct Bounded {
    listener: TcpListener,
    free: Arc<Semaphore>,
}

/// A connection that ends with its time. One that streams ends when its reader stands still for so
/// long.
pub struct Timed {
    stream: TcpStream,
    until: Pin<Box<Sleep>>,
    /// Whether the reader takes nothing, since `until` was set.
    stalled: bool,
    streams: Streams,
    _place: OwnedSemaphorePermit,
}

/// Whether a connection's answer is one that goes on and on.
#[derive(Debug, Clone, Default)]
pub struct Streams(Arc<AtomicBool>);

impl Streams {
    /// Frees the connection from its time.
    pub fn begin(&self) {
        self.0.store(true, Ordering::Relaxed);
    }

    fn yes(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }
}

impl Connected<IncomingStream<'_, Bounded>> for Streams {
    fn connect_info(stream: IncomingStream<'_, Bounded>) -> Self {
        stream.io().streams.clone()
    }
}

impl Bounded {
    pub fn new(listener: TcpListener) -> Self {
        let free = Arc::new(Semaphore::new(MAX_CONNECTIONS));
        Self { listener, free }
    }
}

impl axum::serve::Listener for Bounded {
    type Io = Timed;
    type Addr = SocketAddr;

    async fn accept(&mut self) -> (Timed, SocketAddr) {
        loop {
            let place = self.free.clone().acquire_owned().await;
            // The semaphore is never closed.
            let Ok(place) = place else { continue };
            match self.listener.accept().await {
                Ok((stream, address)) => {
                    let timed = Timed {
                        stream,
                        until: Box::pin(tokio::time::sleep(MAX_TIME)),
                        stalled: false,
                        streams: Streams::default(),
                        _place: place,
                    };
                    return (timed, address);
                }
                Err(error) => {
                    tracing::warn!(%error, "an http connection was not accepted");
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                }
            }
        }
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        self.listener.local_addr()
    }
}

impl Timed {
    /// Whether the whole connection has had its time.
    fn is_over(&mut self, cx: &mut Context<'_>) -> bool {
        !self.streams.yes() && self.until.as_mut().poll(cx).is_ready()
    }

    /// Counts how long a stream's reader stands still.
    fn wait_for_reader<T>(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<T>> {
        if !self.stalled && self.streams.yes() {
            self.until.as_mut().reset(Instant::now() + MAX_TIME);
        }
        self.stalled = true;
        match self.until.as_mut().poll(cx) {
            Poll::Ready(()) => Poll::Ready(Err(io::ErrorKind::TimedOut.into())),
            Poll::Pending => Poll::Pending,
        }
    }
}

impl AsyncRead for Timed {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if self.is_over(cx) {
            return Poll::Ready(Err(io::ErrorKind::TimedOut.into()));
        }
        Pin::new(&mut self.stream).poll_read(cx, buffer)
    }
}

impl AsyncWrite for Timed {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        if self.is_over(cx) {
            return Poll::Ready(Err(io::ErrorKind::TimedOut.into()));
        }
        match Pin::new(&mut self.stream).poll_write(cx, bytes) {
            Poll::Pending => self.wait_for_reader(cx),
            written => {
                self.stalled = false;
                written
            }
        }
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

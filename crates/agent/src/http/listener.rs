//! Connections of the HTTP endpoint, in number and in time.

use std::{
    collections::BTreeMap,
    io,
    net::SocketAddr,
    pin::Pin,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    task::{Context, Poll},
    time::Duration,
};

use axum::{extract::connect_info::Connected, serve::IncomingStream};
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::{TcpListener, TcpStream},
    time::{Instant, Sleep},
};
use tokio_util::sync::{CancellationToken, WaitForCancellationFutureOwned};

/// Connections open at once; beyond it the oldest one goes that is not being answered.
const MAX_CONNECTIONS: usize = 64;
/// For the first request's header: who connects knows what to ask.
const HEADER_TIME: Duration = Duration::from_secs(2);
/// What one connection may last: every answer is short.
const MAX_TIME: Duration = Duration::from_secs(10);
/// After a connection could not be accepted, as when no file is left.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Accepts so many connections at once, each for so long: nobody can hold the agent's files, or
/// keep others out, by saying nothing.
pub struct Bounded {
    listener: TcpListener,
    accepted: u64,
    places: Places,
}

/// Open connections, by their order of coming.
#[derive(Clone, Default)]
struct Places(Arc<Mutex<BTreeMap<u64, Exchange>>>);

/// How far a connection is, shared with those who answer its requests.
#[derive(Debug, Clone, Default)]
pub struct Exchange(Arc<Progress>);

#[derive(Debug, Default)]
struct Progress {
    asked: AtomicBool,
    /// Guards that are held.
    answering: AtomicUsize,
    /// The answer goes on and on.
    streams: AtomicBool,
    out: CancellationToken,
}

/// Lasts while a request is answered.
#[derive(Debug)]
pub struct Answering(Exchange);

impl Exchange {
    /// A request's header is there.
    pub fn begin(&self) -> Answering {
        self.0.asked.store(true, Ordering::Relaxed);
        self.0.answering.fetch_add(1, Ordering::Relaxed);
        Answering(self.clone())
    }

    /// An answer that lasts as long as its reader takes it; the guard is held until its end.
    pub fn stream(&self) -> Answering {
        self.0.streams.store(true, Ordering::Relaxed);
        self.begin()
    }

    fn streams(&self) -> bool {
        self.0.streams.load(Ordering::Relaxed)
    }
}

impl Drop for Answering {
    fn drop(&mut self) {
        self.0.0.answering.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Connected<IncomingStream<'_, Bounded>> for Exchange {
    fn connect_info(stream: IncomingStream<'_, Bounded>) -> Self {
        stream.io().exchange.clone()
    }
}

impl Places {
    fn open(&self) -> MutexGuard<'_, BTreeMap<u64, Exchange>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A place for one more, which an older one may lose; None where all are being answered.
    fn enter(&self, number: u64) -> Option<Place> {
        let mut open = self.open();
        if open.len() >= MAX_CONNECTIONS {
            let idle = |other: &&Exchange| other.0.answering.load(Ordering::Relaxed) == 0;
            let oldest = open.iter().find(|(_, other)| idle(other));
            let oldest = oldest.map(|(number, _)| *number)?;
            if let Some(other) = open.remove(&oldest) {
                other.0.out.cancel();
            }
        }
        let exchange = Exchange::default();
        open.insert(number, exchange.clone());
        let place = Place {
            places: self.clone(),
            number,
            exchange,
        };
        Some(place)
    }
}

/// Free again when it is dropped.
struct Place {
    places: Places,
    number: u64,
    exchange: Exchange,
}

impl Drop for Place {
    fn drop(&mut self) {
        self.places.open().remove(&self.number);
    }
}

/// A connection that ends with its time, or when it loses its place. One that streams ends when its
/// reader takes nothing for as long.
pub struct Timed {
    stream: TcpStream,
    until: Pin<Box<Sleep>>,
    /// The reader takes nothing, since `until` was set.
    stalled: bool,
    /// When it has had its time, whatever was asked.
    end: Instant,
    out: Pin<Box<WaitForCancellationFutureOwned>>,
    exchange: Exchange,
    _place: Place,
}

impl Timed {
    fn new(stream: TcpStream, place: Place) -> Self {
        let now = Instant::now();
        let exchange = place.exchange.clone();
        Self {
            stream,
            until: Box::pin(tokio::time::sleep_until(now + HEADER_TIME)),
            stalled: false,
            end: now + MAX_TIME,
            out: Box::pin(exchange.0.out.clone().cancelled_owned()),
            exchange,
            _place: place,
        }
    }

    fn is_over(&mut self, cx: &mut Context<'_>) -> bool {
        if self.out.as_mut().poll(cx).is_ready() {
            return true;
        }
        if self.exchange.streams() {
            return false;
        }
        while self.until.as_mut().poll(cx).is_ready() {
            let asked = self.exchange.0.asked.load(Ordering::Relaxed);
            if !asked || Instant::now() >= self.end {
                return true;
            }
            self.until.as_mut().reset(self.end);
        }
        false
    }

    /// Counts how long a stream's reader stands still.
    fn wait_for_reader<T>(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<T>> {
        if !self.exchange.streams() {
            return Poll::Pending;
        }
        if !self.stalled {
            self.stalled = true;
            self.until.as_mut().reset(Instant::now() + MAX_TIME);
        }
        match self.until.as_mut().poll(cx) {
            Poll::Ready(()) => Poll::Ready(Err(io::ErrorKind::TimedOut.into())),
            Poll::Pending => Poll::Pending,
        }
    }
}

impl Bounded {
    pub fn new(listener: TcpListener) -> Self {
        Self {
            listener,
            accepted: 0,
            places: Places::default(),
        }
    }
}

impl axum::serve::Listener for Bounded {
    type Io = Timed;
    type Addr = SocketAddr;

    async fn accept(&mut self) -> (Timed, SocketAddr) {
        loop {
            // In a flood whoever came last may speak before the next one comes.
            if self.places.open().len() >= MAX_CONNECTIONS {
                tokio::task::yield_now().await;
            }
            match self.listener.accept().await {
                Ok((stream, address)) => {
                    let number = self.accepted;
                    self.accepted += 1;
                    match self.places.enter(number) {
                        Some(place) => return (Timed::new(stream, place), address),
                        None => tracing::debug!("an http connection found no place"),
                    }
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

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    #[test]
    fn who_is_answered_keeps_the_place_and_the_oldest_other_goes() {
        let places = Places::default();
        let mut held: Vec<Place> = (0..64)
            .map(|number| places.enter(number).unwrap())
            .collect();
        let answering = held[0].exchange.begin();
        let out = |place: &Place| place.exchange.0.out.is_cancelled();
        held.push(places.enter(64).unwrap());
        assert!(!out(&held[0]), "is answered");
        assert!(out(&held[1]), "the oldest other");
        assert_eq!(held.iter().filter(|place| out(place)).count(), 1);
        assert_eq!(places.open().len(), MAX_CONNECTIONS);
        drop(answering);
        held.push(places.enter(65).unwrap());
        assert!(out(&held[0]), "is answered no more");
        let all: Vec<_> = held.iter().map(|place| place.exchange.begin()).collect();
        assert!(places.enter(66).is_none(), "all are answered");
        drop((all, held));
        assert!(places.open().is_empty());
    }
}

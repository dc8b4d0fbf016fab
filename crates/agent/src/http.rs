//! The read-only HTTP endpoints on loopback: whether the agent lives, and whether it is ready.

use std::{
    io,
    net::{IpAddr, SocketAddr},
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use axum::{
    Router,
    extract::{Request, State},
    http::{StatusCode, header::HOST},
    middleware::{self, Next},
    response::{IntoResponse, Response},
    routing::get,
};
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::{TcpListener, TcpStream},
    sync::{OwnedSemaphorePermit, Semaphore, watch},
    task::JoinHandle,
    time::Sleep,
};
use tokio_util::sync::CancellationToken;

/// Connections open at once.
const MAX_CONNECTIONS: usize = 64;
/// What one connection may last: every answer is short.
const MAX_TIME: Duration = Duration::from_secs(10);
/// After a connection could not be accepted, as when no file is left.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Why the agent is not ready; None when it is.
pub type Readiness = watch::Receiver<Option<String>>;

#[derive(Debug, thiserror::Error)]
#[error("cannot listen on http address {address}")]
pub struct BindError {
    pub address: SocketAddr,
    pub source: std::io::Error,
}

/// The bound endpoint. Dropping it does not stop the server: cancel its token, then wait.
#[derive(Debug)]
pub struct HttpServer {
    pub address: SocketAddr,
    task: JoinHandle<()>,
}

impl HttpServer {
    pub async fn start(
        address: SocketAddr,
        readiness: Readiness,
        cancel: CancellationToken,
    ) -> Result<Self, BindError> {
        let bind_error = |source| BindError { address, source };
        let listener = TcpListener::bind(address).await.map_err(bind_error)?;
        let address = listener.local_addr().map_err(bind_error)?;
        let router = router(readiness);
        let task = tokio::spawn(async move {
            let served = axum::serve(Bounded::new(listener), router)
                .with_graceful_shutdown(async move { cancel.cancelled().await })
                .await;
            if let Err(error) = served {
                tracing::error!(%error, "http endpoint ended");
            }
        });
        Ok(Self { address, task })
    }

    pub async fn stopped(self) {
        // A panic was already printed by the task; there is nothing left to stop.
        let _ = self.task.await;
    }
}

/// Accepts so many connections at once, each for so long: nobody can hold the agent's files by
/// saying nothing.
struct Bounded {
    listener: TcpListener,
    free: Arc<Semaphore>,
}

/// A connection that ends with its time.
struct Timed {
    stream: TcpStream,
    until: Pin<Box<Sleep>>,
    _place: OwnedSemaphorePermit,
}

impl Bounded {
    fn new(listener: TcpListener) -> Self {
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

impl AsyncRead for Timed {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if self.until.as_mut().poll(cx).is_ready() {
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
        if self.until.as_mut().poll(cx).is_ready() {
            return Poll::Ready(Err(io::ErrorKind::TimedOut.into()));
        }
        Pin::new(&mut self.stream).poll_write(cx, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

fn router(readiness: Readiness) -> Router {
    Router::new()
        .route("/healthz", get(async || "ok\n"))
        .route("/readyz", get(ready))
        .layer(middleware::from_fn(known_host))
        .with_state(readiness)
}

async fn ready(State(readiness): State<Readiness>) -> Response {
    match readiness.borrow().clone() {
        None => (StatusCode::OK, "ready\n").into_response(),
        Some(reason) => (
            StatusCode::SERVICE_UNAVAILABLE,
            format!("not ready: {reason}\n"),
        )
            .into_response(),
    }
}

/// Refuses names that are not this machine's loopback, so that a web page cannot read this
/// endpoint by pointing its own name here.
async fn known_host(request: Request, next: Next) -> Response {
    let host = request
        .headers()
        .get(HOST)
        .and_then(|host| host.to_str().ok())
        .unwrap_or("");
    if is_local(host) {
        next.run(request).await
    } else {
        (
            StatusCode::MISDIRECTED_REQUEST,
            "unknown host: use an address or localhost\n",
        )
            .into_response()
    }
}

fn is_local(host: &str) -> bool {
    if host.parse::<SocketAddr>().is_ok() {
        return true;
    }
    let name = host
        .strip_prefix('[')
        .and_then(|rest| rest.strip_suffix(']'))
        .unwrap_or(host);
    let name = match name.rsplit_once(':') {
        Some((name, port)) if port.bytes().all(|b| b.is_ascii_digit()) && !name.contains(':') => {
            name
        }
        _ => name,
    };
    name == "localhost" || name.parse::<IpAddr>().is_ok()
}

#[cfg(test)]
mod tests {
    use super::is_local;

    #[test]
    fn only_addresses_and_localhost_are_hosts() {
        for host in [
            "localhost",
            "localhost:9920",
            "127.0.0.1",
            "127.0.0.1:1",
            "[::1]:9920",
            "::1",
        ] {
            assert!(is_local(host), "{host}");
        }
        for host in [
            "",
            "evil.example",
            "evil.example:9920",
            "localhost.evil.example",
            "a:b:c",
        ] {
            assert!(!is_local(host), "{host}");
        }
    }
}

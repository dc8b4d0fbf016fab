//! The read-only HTTP endpoints on loopback: whether the agent lives and is ready, what it counts, and
//! what its cells wrote.

use std::{net::SocketAddr, sync::Arc};

use axum::{
    Router,
    extract::{ConnectInfo, Request, State},
    http::{StatusCode, header::CONTENT_TYPE},
    middleware::{self, Next},
    response::{IntoResponse, Response},
    routing::get,
};
use tokio::{
    net::TcpListener,
    sync::{OwnedSemaphorePermit, Semaphore, watch},
    task::JoinHandle,
};
use tokio_util::sync::CancellationToken;

use crate::{control::Shared, fold::chain};

pub mod host;
mod listener;
mod logs;
mod query;
mod seen;

use host::Token;
use listener::{Answering, Bounded, Exchange};

/// Streams open at once: they last.
const MAX_STREAMS: usize = 16;

const NO_SUCH_PATH: &str =
    "no such path; there are /healthz, /readyz, /metrics, /logs, /v1/status and /v1/events\n";
const READING_ONLY: &str =
    "this endpoint is for reading only: use GET; intents are given by realm\n";

/// Why the agent is not ready; None when it is. Its sender is the core's.
pub type Readiness = watch::Receiver<Option<String>>;

#[derive(Debug, thiserror::Error)]
#[error("cannot listen on http address {address}")]
pub struct BindError {
    pub address: SocketAddr,
    pub source: std::io::Error,
}

/// Everybody who may follow does.
struct Busy;

impl IntoResponse for Busy {
    fn into_response(self) -> Response {
        let help = "too many followers; ask without follow\n";
        (StatusCode::SERVICE_UNAVAILABLE, help).into_response()
    }
}

/// What an answer that goes on and on holds until its end.
type Following = (OwnedSemaphorePermit, Answering);

/// What the endpoints read from.
#[derive(Debug, Clone)]
pub struct Web {
    pub shared: Shared,
    pub token: Token,
    /// Number of this start: places in streams are of one start.
    pub boot: u64,
    pub cancel: CancellationToken,
    /// Places for streams.
    streams: Arc<Semaphore>,
}

impl Web {
    pub fn new(shared: Shared, token: Token, boot: u64, cancel: CancellationToken) -> Self {
        Self {
            shared,
            token,
            boot,
            cancel,
            streams: Arc::new(Semaphore::new(MAX_STREAMS)),
        }
    }

    /// A place for an answer that goes on and on, where one is asked for.
    fn follow(&self, exchange: &Exchange, wanted: bool) -> Result<Option<Following>, Busy> {
        if !wanted {
            return Ok(None);
        }
        match self.streams.clone().try_acquire_owned() {
            Ok(place) => Ok(Some((place, exchange.stream()))),
            Err(_) => Err(Busy),
        }
    }

    /// Every path that tells of more than whether the agent lives.
    pub fn routes(self) -> Router {
        let token = middleware::from_fn_with_state(self.token.clone(), host::known_token);
        let closed = Router::new()
            .route("/logs", get(logs::logs))
            .route("/v1/status", get(seen::status))
            .route("/v1/events", get(seen::events))
            // Not of paths that do not exist: which ones do is in the documentation, so that nothing is
            // kept secret by asking for a token first, and whoever mistypes one learns that.
            .route_layer(token);
        Router::new()
            .route("/metrics", get(metrics))
            .merge(closed)
            .with_state(self)
    }
}

/// The bound endpoint. Dropping it does not stop the server: cancel its token, then wait.
#[derive(Debug)]
pub struct HttpServer {
    pub address: SocketAddr,
    task: JoinHandle<()>,
}

impl HttpServer {
    /// Serves liveness, readiness and `more` until `cancel`.
    pub async fn start(
        address: SocketAddr,
        readiness: Readiness,
        more: Router,
        cancel: CancellationToken,
    ) -> Result<Self, BindError> {
        let bind_error = |source| BindError { address, source };
        let listener = TcpListener::bind(address).await.map_err(bind_error)?;
        let address = listener.local_addr().map_err(bind_error)?;
        let service = router(readiness, more).into_make_service_with_connect_info::<Exchange>();
        let task = tokio::spawn(async move {
            let served = axum::serve(Bounded::new(listener), service)
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

fn router(readiness: Readiness, more: Router) -> Router {
    Router::new()
        .route("/healthz", get(async || "ok\n"))
        .route("/readyz", get(ready))
        .with_state(readiness)
        .merge(more)
        .fallback(async || (StatusCode::NOT_FOUND, NO_SUCH_PATH))
        .method_not_allowed_fallback(async || (StatusCode::METHOD_NOT_ALLOWED, READING_ONLY))
        .layer(middleware::from_fn(host::known_host))
        .layer(middleware::from_fn(answering))
}

/// Who has asked keeps its place until the answer is there.
async fn answering(
    ConnectInfo(exchange): ConnectInfo<Exchange>,
    request: Request,
    next: Next,
) -> Response {
    let _answering = exchange.begin();
    next.run(request).await
}

async fn metrics(State(web): State<Web>) -> Response {
    let page = match web.shared.metrics().await {
        Ok(snapshot) => crate::metrics::page(&snapshot).map_err(|error| chain(&error)),
        Err(error) => Err(error.message),
    };
    match page {
        Ok(page) => ([(CONTENT_TYPE, prometheus::TEXT_FORMAT)], page).into_response(),
        Err(error) => (StatusCode::INTERNAL_SERVER_ERROR, error + "\n").into_response(),
    }
}

async fn ready(State(readiness): State<Readiness>) -> Response {
    let reason = if readiness.has_changed().is_err() {
        // What the core said last is no longer so.
        Some("the agent's core has ended: see its log, and start it again".to_owned())
    } else {
        readiness.borrow().clone()
    };
    match reason {
        None => (StatusCode::OK, "ready\n").into_response(),
        Some(reason) => (
            StatusCode::SERVICE_UNAVAILABLE,
            format!("not ready: {reason}\n"),
        )
            .into_response(),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use std::time::{Duration, Instant};

    use tokio::{
        io::{AsyncReadExt as _, AsyncWriteExt as _},
        net::TcpStream,
        task::JoinSet,
    };

    use super::*;

    /// Far more than an answer takes.
    const PATIENCE: Duration = Duration::from_secs(20);

    struct Scene {
        server: HttpServer,
        readiness: Option<watch::Sender<Option<String>>>,
        cancel: CancellationToken,
    }

    impl Scene {
        async fn new() -> Self {
            let (readiness, receiver) = watch::channel(None);
            let cancel = CancellationToken::new();
            let address = ([127, 0, 0, 1], 0).into();
            let server = HttpServer::start(address, receiver, Router::new(), cancel.clone());
            Self {
                server: server.await.unwrap(),
                readiness: Some(readiness),
                cancel,
            }
        }

        /// The answer to these bytes, which asked to close.
        async fn say(&self, request: &str) -> String {
            let mut stream = TcpStream::connect(self.server.address).await.unwrap();
            stream.write_all(request.as_bytes()).await.unwrap();
            let mut answer = String::new();
            let read = stream.read_to_string(&mut answer);
            tokio::time::timeout(PATIENCE, read).await.unwrap().unwrap();
            answer
        }

        async fn get(&self, target: &str, headers: &[&str]) -> String {
            let headers: String = headers.iter().map(|line| format!("{line}\r\n")).collect();
            let request = format!("GET {target} HTTP/1.1\r\nConnection: close\r\n{headers}\r\n");
            self.say(&request).await
        }

        async fn stop(self) {
            self.cancel.cancel();
            self.server.stopped().await;
        }
    }

    #[tokio::test]
    async fn a_request_has_one_name_and_it_is_of_this_machine() {
        let scene = Scene::new().await;
        for (target, headers, expected) in [
            ("/readyz", &["Host: localhost"][..], "200"),
            ("/readyz", &["Host: LOCALHOST"], "200"),
            ("http://localhost/readyz", &["Host: localhost"], "200"),
            ("http://evil/readyz", &["Host: localhost"], "421"),
            ("http://evil/readyz", &["Host: evil"], "421"),
            ("http://localhost/readyz", &["Host: evil"], "421"),
            ("/readyz", &["Host: evil"], "421"),
            ("/readyz", &[], "421"),
            ("/readyz", &["Host: localhost", "Host: evil"], "400"),
            ("/readyz", &["Host: localhost", "Host: localhost"], "400"),
        ] {
            let answer = scene.get(target, headers).await;
            let expected = format!("HTTP/1.1 {expected}");
            assert!(
                answer.starts_with(&expected),
                "{target} {headers:?}: {answer}"
            );
        }
        scene.stop().await;
    }

    #[tokio::test]
    async fn nobody_is_ready_after_the_core_is_gone() {
        let mut scene = Scene::new().await;
        let host = &["Host: localhost"][..];
        assert!(scene.get("/readyz", host).await.contains("200 OK"));
        scene.readiness = None;
        let answer = scene.get("/readyz", host).await;
        assert!(answer.starts_with("HTTP/1.1 503"), "{answer}");
        assert!(answer.contains("core has ended"), "{answer}");
        scene.stop().await;
    }

    #[tokio::test]
    async fn slow_connections_keep_nobody_out() {
        let scene = Scene::new().await;
        let address = scene.server.address;
        let mut slow = JoinSet::new();
        for number in 0..300 {
            // Half of them say nothing at all.
            let says = if number % 2 == 0 { "" } else { "GET /hea" };
            slow.spawn(async move {
                loop {
                    let Ok(mut stream) = TcpStream::connect(address).await else {
                        continue;
                    };
                    if stream.write_all(says.as_bytes()).await.is_ok() {
                        // Ends when the agent does not want it any more.
                        let _ = stream.read_to_end(&mut Vec::new()).await;
                    }
                }
            });
        }
        for _ in 0..20 {
            let began = Instant::now();
            let answer = scene.get("/healthz", &["Host: localhost"]).await;
            assert!(answer.contains("200 OK"), "{answer}");
            assert!(began.elapsed() < PATIENCE / 10, "{:?}", began.elapsed());
        }
        slow.shutdown().await;
        scene.stop().await;
    }

    #[tokio::test]
    async fn half_a_header_ends_before_a_whole_connection_does() {
        let scene = Scene::new().await;
        let began = Instant::now();
        let answer = scene.say("GET /healthz HTTP/1.1\r\nHost:").await;
        assert_eq!(answer, "");
        assert!(
            began.elapsed() < Duration::from_secs(8),
            "{:?}",
            began.elapsed()
        );
        scene.stop().await;
    }
}

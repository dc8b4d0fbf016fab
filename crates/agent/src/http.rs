//! The read-only HTTP endpoints on loopback: whether the agent lives and is ready, what it counts, and
//! what its cells wrote.

use std::{net::SocketAddr, sync::Arc};

use axum::{
    Router,
    extract::State,
    http::{StatusCode, header::CONTENT_TYPE},
    middleware,
    response::{IntoResponse, Response},
    routing::get,
};
use tokio::{
    net::TcpListener,
    sync::{Semaphore, watch},
    task::JoinHandle,
};
use tokio_util::sync::CancellationToken;

use crate::{control::Shared, fold::chain};

pub mod host;
mod listener;
mod logs;
mod seen;

use host::Token;
use listener::{Bounded, Streams};

/// Streams open at once: they last.
const MAX_STREAMS: usize = 16;

/// Why the agent is not ready; None when it is.
pub type Readiness = watch::Receiver<Option<String>>;

#[derive(Debug, thiserror::Error)]
#[error("cannot listen on http address {address}")]
pub struct BindError {
    pub address: SocketAddr,
    pub source: std::io::Error,
}

/// What the endpoints read from.
#[derive(Debug, Clone)]
pub struct Web {
    pub readiness: Readiness,
    pub shared: Shared,
    pub token: Token,
    /// Number of this start: places in streams are of one start.
    pub boot: u64,
    pub cancel: CancellationToken,
    /// Places for streams.
    streams: Arc<Semaphore>,
}

impl Web {
    pub fn new(
        readiness: Readiness,
        shared: Shared,
        token: Token,
        boot: u64,
        cancel: CancellationToken,
    ) -> Self {
        Self {
            readiness,
            shared,
            token,
            boot,
            cancel,
            streams: Arc::new(Semaphore::new(MAX_STREAMS)),
        }
    }
}

/// The bound endpoint. Dropping it does not stop the server: cancel its token, then wait.
#[derive(Debug)]
pub struct HttpServer {
    pub address: SocketAddr,
    task: JoinHandle<()>,
}

impl HttpServer {
    pub async fn start(address: SocketAddr, web: Web) -> Result<Self, BindError> {
        let bind_error = |source| BindError { address, source };
        let listener = TcpListener::bind(address).await.map_err(bind_error)?;
        let address = listener.local_addr().map_err(bind_error)?;
        let cancel = web.cancel.clone();
        let service = router(web).into_make_service_with_connect_info::<Streams>();
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

fn router(web: Web) -> Router {
    let token = middleware::from_fn_with_state(web.token.clone(), host::known_token);
    let closed = Router::new()
        .route("/logs", get(logs::logs))
        .route("/v1/status", get(seen::status))
        .route("/v1/events", get(seen::events))
        .layer(token);
    Router::new()
        .route("/healthz", get(async || "ok\n"))
        .route("/readyz", get(ready))
        .route("/metrics", get(metrics))
        .merge(closed)
        .layer(middleware::from_fn(host::known_host))
        .with_state(web)
}

async fn ready(State(web): State<Web>) -> Response {
    match web.readiness.borrow().clone() {
        None => (StatusCode::OK, "ready\n").into_response(),
        Some(reason) => (
            StatusCode::SERVICE_UNAVAILABLE,
            format!("not ready: {reason}\n"),
        )
            .into_response(),
    }
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

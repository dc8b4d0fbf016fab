//! The read-only HTTP endpoints on loopback: whether the agent lives, and whether it is ready.

use std::net::{IpAddr, SocketAddr};

use axum::{
    Router,
    extract::{Request, State},
    http::{StatusCode, header::HOST},
    middleware::{self, Next},
    response::{IntoResponse, Response},
    routing::get,
};
use tokio::{net::TcpListener, sync::watch, task::JoinHandle};
use tokio_util::sync::CancellationToken;

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
            let served = axum::serve(listener, router)
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

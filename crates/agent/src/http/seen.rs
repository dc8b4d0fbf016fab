//! `/v1/status` and `/v1/events`: what `realm status` shows, and what happened on this node, for programs of
//! this machine.

use std::convert::Infallible;

use axum::{
    Json,
    body::Body,
    extract::{ConnectInfo, State},
    http::{StatusCode, header::CONTENT_TYPE},
    response::{IntoResponse as _, Response},
};
use futures::{StreamExt as _, stream};
use realm_rpc::RpcError;

use super::{
    Web,
    listener::Exchange,
    query::{self, Switch},
};

pub async fn status(State(web): State<Web>) -> Response {
    match web.shared.status().await {
        Ok(status) => Json(status).into_response(),
        Err(error) => failed(error),
    }
}

/// The agent does not tell its status, as when it stops.
pub(super) fn failed(error: RpcError) -> Response {
    let help = error
        .help
        .map_or_else(String::new, |help| format!("; {help}"));
    let message = format!("{}{help}\n", error.message);
    (StatusCode::SERVICE_UNAVAILABLE, message).into_response()
}

#[derive(Debug, serde::Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Asked {
    /// Only events with a higher number.
    #[serde(default)]
    after: u64,
    /// Go on with new ones.
    follow: Option<Switch>,
}

/// One JSON object on each line.
pub async fn events(
    State(web): State<Web>,
    ConnectInfo(exchange): ConnectInfo<Exchange>,
    query::Asked(asked): query::Asked<Asked>,
) -> Response {
    let follow = asked.follow == Some(Switch(true));
    let place = match web.follow(&exchange, follow) {
        Ok(place) => place,
        Err(busy) => return busy.into_response(),
    };
    let changed = web.shared.events.watch();
    let begin = (web, asked.after, changed, place);
    let batches = stream::unfold(begin, move |(web, after, mut changed, place)| async move {
        loop {
            changed.borrow_and_update();
            let events = web.shared.events.after(after);
            if let Some(last) = events.last() {
                let after = last.seq;
                return Some((stream::iter(events), (web, after, changed, place)));
            }
            if !follow {
                return None;
            }
            tokio::select! {
                () = web.cancel.cancelled() => return None,
                changed = changed.changed() => changed.ok()?,
            }
        }
    });
    let lines = batches.flatten().map(|event| {
        let line = serde_json::json!({
            "seq": event.seq, "time": realm_rpc::status::time(event.at),
            "kind": event.kind, "subject": event.subject, "message": event.message,
        });
        Ok::<_, Infallible>(format!("{line}\n"))
    });
    let json_lines = [(CONTENT_TYPE, "application/jsonl")];
    (json_lines, Body::from_stream(lines)).into_response()
}

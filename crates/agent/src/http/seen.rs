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
use futures::{Stream, StreamExt as _, stream};
use realm_rpc::RpcError;
use tokio_util::sync::CancellationToken;

use super::{
    Following, Web,
    listener::Exchange,
    query::{self, Switch},
};
use crate::events::{Event, Events};

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
    let lines = told(web.shared.events, web.cancel, asked.after, follow, place).map(|event| {
        let line = serde_json::json!({
            "seq": event.seq, "time": realm_rpc::status::time(event.at),
            "kind": event.kind, "subject": event.subject, "message": event.message,
        });
        Ok::<_, Infallible>(format!("{line}\n"))
    });
    let json_lines = [(CONTENT_TYPE, "application/jsonl")];
    (json_lines, Body::from_stream(lines)).into_response()
}

/// Every event after a number; goes on with new ones where it follows.
fn told(
    events: Events,
    cancel: CancellationToken,
    after: u64,
    follow: bool,
    place: Option<Following>,
) -> impl Stream<Item = Event> {
    let changed = events.watch();
    let begin = (events, after, changed, place);
    let batches = stream::unfold(begin, move |(events, after, mut changed, place)| {
        let cancel = cancel.clone();
        async move {
            loop {
                changed.borrow_and_update();
                let new = events.after(after);
                if let Some(last) = new.last() {
                    let after = last.seq;
                    return Some((stream::iter(new), (events, after, changed, place)));
                }
                if !follow {
                    return None;
                }
                tokio::select! {
                    () = cancel.cancelled() => return None,
                    changed = changed.changed() => changed.ok()?,
                }
            }
        }
    });
    // All that is there comes at once: what happens while that is sent is for the next request.
    let count = if follow { usize::MAX } else { 1 };
    batches.take(count).flatten()
}

#[cfg(test)]
mod tests {
    use std::pin::pin;

    use realm_manifest::identity::Timestamp;

    use super::*;

    #[tokio::test]
    async fn without_following_what_happens_meanwhile_is_not_told() {
        let events = Events::default();
        let record = || events.record(Timestamp(0), "started", "a".into(), String::new());
        let told = |follow| told(events.clone(), CancellationToken::new(), 0, follow, None);
        record();
        let (mut now, mut on) = (pin!(told(false)), pin!(told(true)));
        for stream in [&mut now as &mut (dyn Stream<Item = Event> + Unpin), &mut on] {
            assert_eq!(stream.next().await.map(|event| event.seq), Some(1));
        }
        record();
        assert_eq!(now.next().await, None);
        assert_eq!(on.next().await.map(|event| event.seq), Some(2));
    }
}

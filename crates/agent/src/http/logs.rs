//! `/logs`: what cells wrote, as plain text or as server-sent events that can be resumed.

use std::convert::Infallible;

use axum::{
    body::Body,
    extract::{ConnectInfo, State},
    http::{
        HeaderMap, StatusCode,
        header::{ACCEPT, CONTENT_TYPE},
    },
    response::{
        IntoResponse as _, Response,
        sse::{Event, KeepAlive, Sse},
    },
};
use futures::{Stream, StreamExt as _, stream};
use realm_runtime::{LogStream, printable, printable_json};

use super::{
    Following, Web,
    listener::Exchange,
    query::{self, Switch},
    seen,
};
use crate::{
    clock,
    logs::{Line, Select},
};

/// Lines where nobody says how many.
const TAIL: usize = 200;
/// Lines at once.
const BATCH: usize = 256;
/// What stands for every component.
const ALL: &str = "__all__";

#[derive(Debug, serde::Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Asked {
    component: Option<String>,
    tail: Option<usize>,
    /// Go on with new lines; as events it does unless this says otherwise.
    follow: Option<Switch>,
    previous: Option<Switch>,
}

pub async fn logs(
    State(web): State<Web>,
    ConnectInfo(exchange): ConnectInfo<Exchange>,
    query::Asked(asked): query::Asked<Asked>,
    headers: HeaderMap,
) -> Response {
    let events = headers
        .get(ACCEPT)
        .is_some_and(|accept| accept.as_bytes().starts_with(b"text/event-stream"));
    let previous = asked.previous == Some(Switch(true));
    if previous && asked.follow == Some(Switch(true)) {
        // It would wait for lines that nobody writes any more.
        return refused("the run before the present one has ended: ask for it without follow");
    }
    let follow = asked.follow.map_or(events, |Switch(follow)| follow) && !previous;
    let select = Select {
        component: asked.component.filter(|name| name != ALL),
        previous,
        until: (!follow).then(|| web.shared.logs.next()),
    };
    if let Err(refusal) = known(select.component.as_deref(), &web).await {
        return refusal;
    }
    let resumed = headers
        .get("last-event-id")
        .and_then(|id| place(&web, id.to_str().ok()?));
    let tail = asked.tail.unwrap_or(TAIL);
    let from = resumed.unwrap_or_else(|| web.shared.logs.tail(&select, tail));
    let place = match web.follow(&exchange, follow) {
        Ok(place) => place,
        Err(busy) => return busy.into_response(),
    };
    let name = web.shared.view.borrow().name.clone();
    let boot = web.boot;
    let lines = lines(web, select, from, follow, place);
    if events {
        let events = lines.map(move |line| Ok::<_, Infallible>(event(&name, boot, &line)));
        return Sse::new(events)
            .keep_alive(KeepAlive::default())
            .into_response();
    }
    let text = lines.map(move |line| Ok::<_, Infallible>(text(&name, &line) + "\n"));
    let plain = [(CONTENT_TYPE, "text/plain; charset=utf-8")];
    (plain, Body::from_stream(text)).into_response()
}

fn refused(why: &str) -> Response {
    (StatusCode::BAD_REQUEST, format!("{why}\n")).into_response()
}

/// Refuses a component that neither the realm nor this node knows. One that the realm has and that wrote
/// nothing here gives no lines, which is an answer.
async fn known(component: Option<&str>, web: &Web) -> Result<(), Response> {
    let Some(name) = component else {
        return Ok(());
    };
    if name.is_empty() {
        return Err(refused(
            "component= is empty: name one, or leave it out for all of them",
        ));
    }
    if web.shared.logs.has(name) {
        return Ok(());
    }
    let status = web.shared.status().await.map_err(seen::failed)?;
    if status.components.iter().any(|one| one.name == name) {
        return Ok(());
    }
    let help = format!(
        "no component {name:?}: see which there are with /v1/status, or leave component out for all of them\n"
    );
    Err((StatusCode::NOT_FOUND, help).into_response())
}

/// Every line from `from` on, in the order of writing; goes on with new ones where it follows.
fn lines(
    web: Web,
    select: Select,
    from: u64,
    follow: bool,
    place: Option<Following>,
) -> impl Stream<Item = Line> {
    let written = web.shared.logs.watch();
    let begin = (web, select, from, written, place);
    let batches = stream::unfold(
        begin,
        move |(web, select, from, mut written, place)| async move {
            loop {
                written.borrow_and_update();
                let (lines, next) = web.shared.logs.read(&select, from, BATCH);
                if !lines.is_empty() {
                    return Some((stream::iter(lines), (web, select, next, written, place)));
                }
                // An agent that stops ends every stream.
                let stopped = web.cancel.cancelled();
                if !follow {
                    return None;
                }
                tokio::select! {
                    () = stopped => return None,
                    changed = written.changed() => changed.ok()?,
                }
            }
        },
    );
    batches.flatten()
}

fn text(node: &str, line: &Line) -> String {
    format!(
        "{} {node}/{}#{} {} {}",
        realm_rpc::status::time(clock::to_timestamp(line.line.at))
            .map_or_else(|| "-".to_owned(), |time| format!("{time:.3}")),
        line.component,
        line.index,
        stream_name(line.line.stream),
        printable(&line.line.text),
    )
}

fn event(node: &str, boot: u64, line: &Line) -> Event {
    let json = serde_json::json!({
        "time": realm_rpc::status::time(clock::to_timestamp(line.line.at)),
        "component": line.component, "node": node, "index": line.index,
        "stream": stream_name(line.line.stream), "text": line.line.text,
    });
    Event::default()
        .id(format!("{boot}-{}", line.line.seq))
        .data(printable_json(&json.to_string()))
}

const fn stream_name(stream: LogStream) -> &'static str {
    match stream {
        LogStream::Stdout => "out",
        LogStream::Stderr => "err",
        LogStream::Agent => "agent",
    }
}

/// The line after the one a reader has seen; numbers of an earlier start of the agent mean nothing.
fn place(web: &Web, id: &str) -> Option<u64> {
    let (boot, seq) = id.split_once('-')?;
    if boot.parse() != Ok(web.boot) {
        return Some(0);
    }
    seq.parse::<u64>().ok()?.checked_add(1)
}

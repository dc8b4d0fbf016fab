//! The operator's capability as a caller holds it.

use std::{io::Read, rc::Rc};

use realm_identity::Artifact;
use tokio::sync::mpsc;

use crate::{
    CHUNK_BYTES, ErrorCode, Event, Fork, Head, HeadId, Intent, Limits, LogLine, LogQuery,
    PendingNode, RpcError, Submitted,
    client::{Driver, within},
    convert,
    schema::operator_capnp::{event_sink, log_sink, operator, upload},
    survey::{Gathering, Survey},
};

/// What the grafted key may do on the node. Dropping a call gives it up; what was acknowledged stays.
#[derive(Clone)]
pub struct Operator {
    cap: operator::Client,
    limits: Limits,
    driver: Rc<Driver>,
}

/// An upload under way; see [`Operator::upload`].
pub struct UploadClient {
    cap: upload::Client,
    limits: Limits,
    received: u64,
    _driver: Rc<Driver>,
}

/// Refuses an answer that carries an error.
macro_rules! checked {
    ($answer:expr) => {{
        let answer = $answer.get()?;
        if answer.has_error() {
            return Err(convert::read_error(answer.get_error()?)?);
        }
        answer
    }};
}

impl Operator {
    pub(crate) fn new(cap: operator::Client, limits: Limits, driver: Rc<Driver>) -> Self {
        Self {
            cap,
            limits,
            driver,
        }
    }

    pub async fn head(&self) -> Result<Head, RpcError> {
        let answer = within(self.limits, self.cap.head_request().send().promise).await?;
        convert::read_head(checked!(answer).get_head()?)
    }

    pub async fn heads(&self) -> Result<Vec<HeadId>, RpcError> {
        let answer = within(self.limits, self.cap.heads_request().send().promise).await?;
        checked!(answer)
            .get_heads()?
            .iter()
            .map(convert::read_head_id)
            .collect()
    }

    /// Submits a signed entry with its payload. Sending the same bytes again is harmless.
    pub async fn submit(&self, entry: &[u8], payload: &[u8]) -> Result<Submitted, RpcError> {
        let mut request = self.cap.submit_request();
        request.get().set_entry(entry);
        request.get().set_payload(payload);
        let answer = within(self.limits, request.send().promise).await?;
        let answer = checked!(answer);
        Ok(Submitted {
            seq: answer.get_seq(),
            durable_on: answer.get_durable_on(),
        })
    }

    /// What the node knows of its realm.
    pub async fn survey(&self) -> Result<Survey, RpcError> {
        // The node answers once its one survey was taken.
        let (to, mut from) = mpsc::channel(1);
        let mut request = self.cap.survey_request();
        let sink = capnp_rpc::new_client(Gathering::new(to));
        request.get().set_sink(sink);
        let answer = within(self.limits, request.send().promise).await?;
        checked!(answer);
        from.try_recv()
            .map_err(|_| RpcError::malformed("survey: it has no end"))
    }

    /// Sends each survey to `to` until its receiver is dropped or the node ends it.
    pub async fn watch(&self, to: mpsc::Sender<Survey>) -> Result<(), RpcError> {
        let mut request = self.cap.watch_request();
        let sink = capnp_rpc::new_client(Gathering::new(to));
        request.get().set_sink(sink);
        let answer = request.send().promise.await?;
        checked!(answer);
        Ok(())
    }

    /// Sends lines to `to`; the node waits while the channel is full. Returns when there are no
    /// more, or `to`'s receiver is dropped.
    pub async fn logs(
        &self,
        query: &LogQuery,
        to: mpsc::Sender<Vec<LogLine>>,
    ) -> Result<(), RpcError> {
        let mut request = self.cap.logs_request();
        convert::write_query(request.get().init_query(), query);
        request.get().set_sink(capnp_rpc::new_client(Receiver(to)));
        let answer = request.send().promise.await?;
        checked!(answer);
        Ok(())
    }

    /// Sends events after the one numbered `after` to `to`.
    pub async fn events(
        &self,
        after: u64,
        follow: bool,
        to: mpsc::Sender<Vec<Event>>,
    ) -> Result<(), RpcError> {
        let mut request = self.cap.events_request();
        request.get().set_after(after);
        request.get().set_follow(follow);
        request.get().set_sink(capnp_rpc::new_client(Receiver(to)));
        let answer = request.send().promise.await?;
        checked!(answer);
        Ok(())
    }

    /// Intents from `from` on, as many as fit one answer; none when there are no more up to `to`.
    pub async fn history(&self, from: u64, to: u64) -> Result<Vec<Intent>, RpcError> {
        let mut request = self.cap.history_request();
        request.get().set_from(from);
        request.get().set_to(to);
        let answer = within(self.limits, request.send().promise).await?;
        checked!(answer)
            .get_intents()?
            .iter()
            .map(convert::read_intent)
            .collect()
    }

    pub async fn forks(&self) -> Result<Vec<Fork>, RpcError> {
        let answer = within(self.limits, self.cap.forks_request().send().promise).await?;
        checked!(answer)
            .get_forks()?
            .iter()
            .map(convert::read_fork)
            .collect()
    }

    /// Begins or resumes an upload.
    pub async fn upload(&self, artifact: &Artifact) -> Result<UploadClient, RpcError> {
        let mut request = self.cap.upload_begin_request();
        convert::write_artifact(request.get().init_artifact(), artifact);
        let answer = within(self.limits, request.send().promise).await?;
        let answer = checked!(answer);
        Ok(UploadClient {
            cap: answer.get_upload()?,
            limits: self.limits,
            received: answer.get_received(),
            _driver: self.driver.clone(),
        })
    }

    /// Hands in a node's claim of an invite; answers with the witnessed claim.
    pub async fn claim(&self, claim: &[u8]) -> Result<Vec<u8>, RpcError> {
        let mut request = self.cap.claim_request();
        request.get().set_claim(claim);
        let answer = within(self.limits, request.send().promise).await?;
        Ok(checked!(answer).get_witnessed()?.to_vec())
    }

    pub async fn pending(&self) -> Result<Vec<PendingNode>, RpcError> {
        let answer = within(self.limits, self.cap.pending_request().send().promise).await?;
        checked!(answer)
            .get_nodes()?
            .iter()
            .map(convert::read_pending)
            .collect()
    }

    pub async fn peer_add(&self, address: &str) -> Result<(), RpcError> {
        let mut request = self.cap.peer_add_request();
        request.get().set_address(address);
        let answer = within(self.limits, request.send().promise).await?;
        checked!(answer);
        Ok(())
    }

    /// Gives the node the realm of the owner it has pinned.
    pub async fn adopt(&self, genesis: &[u8]) -> Result<(), RpcError> {
        let mut request = self.cap.adopt_request();
        request.get().set_genesis(genesis);
        let answer = within(self.limits, request.send().promise).await?;
        checked!(answer);
        Ok(())
    }

    /// The witnessed claims by which the node came into the realm, its own first.
    pub async fn standing(&self) -> Result<Vec<Vec<u8>>, RpcError> {
        let answer = within(self.limits, self.cap.standing_request().send().promise).await?;
        let claims = checked!(answer).get_claims()?;
        claims.iter().map(|claim| Ok(claim?.to_vec())).collect()
    }
}

impl UploadClient {
    /// Bytes that are on the node already: continue from there.
    pub const fn received(&self) -> u64 {
        self.received
    }

    /// Sends the bytes that follow what was received; at most [`CHUNK_BYTES`].
    pub async fn write(&mut self, bytes: &[u8]) -> Result<u64, RpcError> {
        let mut request = self.cap.write_request();
        request.get().set_offset(self.received);
        request.get().set_bytes(bytes);
        let answer = within(self.limits, request.send().promise).await?;
        self.received = checked!(answer).get_received();
        Ok(self.received)
    }

    /// Sends the rest of `source`, which stands at [`UploadClient::received`]; `progress` hears how far it is.
    pub async fn write_all(
        &mut self,
        source: &mut dyn Read,
        mut progress: impl FnMut(u64),
    ) -> Result<(), RpcError> {
        let mut buffer = vec![0; CHUNK_BYTES];
        loop {
            let failed = |error: std::io::Error| {
                RpcError::new(
                    ErrorCode::Failed,
                    format!("cannot read what is uploaded: {error}"),
                )
            };
            match source.read(&mut buffer).map_err(failed)? {
                0 => return Ok(()),
                length => progress(self.write(&buffer[..length]).await?),
            }
        }
    }

    /// Returns once the node verified the bytes and has them on disk.
    pub async fn finish(self) -> Result<(), RpcError> {
        // The node reads the whole of it once more, and writes it durably.
        let limits = Limits {
            call: self.limits.finish,
            ..self.limits
        };
        let answer = within(limits, self.cap.finish_request().send().promise).await?;
        checked!(answer);
        Ok(())
    }
}

/// Hands what arrives to a channel, and answers once it was taken.
struct Receiver<T>(mpsc::Sender<T>);

impl<T> Receiver<T> {
    async fn take(&self, item: Result<T, RpcError>) -> Result<(), capnp::Error> {
        let item = item.map_err(|error| capnp::Error::failed(error.message))?;
        let closed = |_| capnp::Error::disconnected("nobody listens any more".into());
        self.0.send(item).await.map_err(closed)
    }
}

impl log_sink::Server for Receiver<Vec<LogLine>> {
    async fn lines(
        self: Rc<Self>,
        params: log_sink::LinesParams,
        _: log_sink::LinesResults,
    ) -> Result<(), capnp::Error> {
        let lines = params
            .get()?
            .get_lines()?
            .iter()
            .map(convert::read_line)
            .collect();
        self.take(lines).await
    }
}

impl event_sink::Server for Receiver<Vec<Event>> {
    async fn events(
        self: Rc<Self>,
        params: event_sink::EventsParams,
        _: event_sink::EventsResults,
    ) -> Result<(), capnp::Error> {
        let events = params
            .get()?
            .get_events()?
            .iter()
            .map(convert::read_event)
            .collect();
        self.take(events).await
    }
}

macro_rules! opaque {
    ($($name:ident),+) => {
        $(impl std::fmt::Debug for $name {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.debug_struct(stringify!($name)).finish_non_exhaustive()
            }
        })+
    };
}

opaque!(Operator, UploadClient);

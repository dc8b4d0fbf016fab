//! The operator's capability as the node serves it: every call bounded in time and size.

use std::{
    cell::{Cell, RefCell},
    rc::Rc,
    time::Duration,
};

use crate::{
    CHUNK_BYTES, Control, ErrorCode, EventSink, Host, Limits, LogSink, RpcError, SurveySink,
    convert,
    schema::operator_capnp::{operator, upload},
};

/// Uploads open on one connection.
#[derive(Clone)]
pub(crate) struct Uploads {
    open: Rc<Cell<usize>>,
    max: usize,
}

/// Room for one upload, given back when it is dropped.
struct UploadSlot(Rc<Cell<usize>>);

pub(crate) struct OperatorServer {
    pub(crate) control: Rc<dyn Control>,
    pub(crate) host: Rc<dyn Host>,
    /// In which this capability was given out; it ends with it.
    pub(crate) epoch: u64,
    pub(crate) limits: Limits,
    pub(crate) uploads: Uploads,
}

struct UploadServer {
    operator: Rc<OperatorServer>,
    /// Taken while a write is under way: writes follow one another.
    upload: RefCell<Option<Box<dyn crate::Upload>>>,
    _slot: UploadSlot,
}

impl Uploads {
    pub(crate) fn new(max: usize) -> Self {
        Self {
            open: Rc::default(),
            max,
        }
    }

    fn take(&self) -> Result<UploadSlot, RpcError> {
        if self.open.get() >= self.max {
            return Err(RpcError::new(
                ErrorCode::Limit,
                "too many uploads on one connection",
            ));
        }
        self.open.set(self.open.get() + 1);
        Ok(UploadSlot(self.open.clone()))
    }
}

impl Drop for UploadSlot {
    fn drop(&mut self) {
        self.0.set(self.0.get() - 1);
    }
}

impl OperatorServer {
    fn check_epoch(&self) -> Result<(), RpcError> {
        if self.host.epoch() == self.epoch {
            return Ok(());
        }
        let message = "the authority of this connection has ended";
        Err(RpcError::new(ErrorCode::NotAuthorised, message).help("connect again"))
    }

    /// Begins one call if the authority still stands, and runs it within its deadline.
    ///
    /// A call is not even begun before that was checked: what it does at once would be done.
    async fn within<T, F>(&self, call: impl FnOnce() -> F) -> Result<T, RpcError>
    where
        F: Future<Output = Result<T, RpcError>>,
    {
        self.within_time(self.limits.call, call).await
    }

    async fn within_time<T, F>(
        &self,
        time: Duration,
        call: impl FnOnce() -> F,
    ) -> Result<T, RpcError>
    where
        F: Future<Output = Result<T, RpcError>>,
    {
        self.check_epoch()?;
        let answered = tokio::time::timeout(time, call()).await;
        answered.unwrap_or_else(|_| Err(RpcError::deadline()))
    }

    /// Begins a call that may last, and runs it until it ends or the authority does.
    async fn while_it_stands<F>(&self, call: impl FnOnce() -> F) -> Result<(), RpcError>
    where
        F: Future<Output = Result<(), RpcError>>,
    {
        self.check_epoch()?;
        tokio::select! {
            done = call() => done,
            () = self.host.epoch_ended(self.epoch) => self.check_epoch(),
        }
    }
}

/// Takes the value, or answers with the error.
macro_rules! answer {
    ($results:ident, $outcome:expr) => {
        match $outcome {
            Ok(value) => value,
            Err(error) => {
                convert::write_error($results.get().init_error(), &error);
                return Ok(());
            }
        }
    };
}

/// Answers with a list of messages.
macro_rules! list {
    ($builder:expr, $items:expr, $write:path) => {{
        let mut list = $builder;
        for (index, item) in (0..).zip($items) {
            $write(list.reborrow().get(index), item);
        }
    }};
}

type Answered = Result<(), capnp::Error>;

impl operator::Server for OperatorServer {
    async fn head(
        self: Rc<Self>,
        _: operator::HeadParams,
        mut results: operator::HeadResults,
    ) -> Answered {
        let head = answer!(results, self.within(|| self.control.head()).await);
        convert::write_head(results.get().init_head(), &head);
        Ok(())
    }

    async fn heads(
        self: Rc<Self>,
        _: operator::HeadsParams,
        mut results: operator::HeadsResults,
    ) -> Answered {
        let heads = answer!(results, self.within(|| self.control.heads()).await);
        list!(
            results.get().init_heads(convert::length(&heads)),
            &heads,
            convert::write_head_id
        );
        Ok(())
    }

    async fn submit(
        self: Rc<Self>,
        params: operator::SubmitParams,
        mut results: operator::SubmitResults,
    ) -> Answered {
        let params = params.get()?;
        let (entry, payload) = (params.get_entry()?.to_vec(), params.get_payload()?.to_vec());
        let submitted = answer!(
            results,
            self.within(|| self.control.submit(entry, payload)).await
        );
        results.get().set_seq(submitted.seq);
        results.get().set_durable_on(submitted.durable_on);
        Ok(())
    }

    async fn survey(
        self: Rc<Self>,
        params: operator::SurveyParams,
        mut results: operator::SurveyResults,
    ) -> Answered {
        let mut sink = SurveySink::new(params.get()?.get_sink()?, self.limits);
        let control = &self.control;
        let survey = move || async move {
            let survey = control.survey().await?;
            let sent = sink.send(&survey).await;
            sent.map_err(|error| RpcError::new(ErrorCode::Disconnected, error.to_string()))
        };
        answer!(results, self.within(survey).await);
        Ok(())
    }

    async fn watch(
        self: Rc<Self>,
        params: operator::WatchParams,
        mut results: operator::WatchResults,
    ) -> Answered {
        let sink = SurveySink::new(params.get()?.get_sink()?, self.limits);
        let watch = || self.control.watch(sink);
        answer!(results, self.while_it_stands(watch).await);
        Ok(())
    }

    async fn logs(
        self: Rc<Self>,
        params: operator::LogsParams,
        mut results: operator::LogsResults,
    ) -> Answered {
        let params = params.get()?;
        let sink = LogSink::new(params.get_sink()?, self.limits);
        let query = answer!(results, convert::read_query(params.get_query()?));
        let logs = || self.control.logs(query, sink);
        answer!(results, self.while_it_stands(logs).await);
        Ok(())
    }

    async fn events(
        self: Rc<Self>,
        params: operator::EventsParams,
        mut results: operator::EventsResults,
    ) -> Answered {
        let params = params.get()?;
        let sink = EventSink::new(params.get_sink()?, self.limits);
        let (after, follow) = (params.get_after(), params.get_follow());
        let events = || self.control.events(after, follow, sink);
        answer!(results, self.while_it_stands(events).await);
        Ok(())
    }

    async fn history(
        self: Rc<Self>,
        params: operator::HistoryParams,
        mut results: operator::HistoryResults,
    ) -> Answered {
        let params = params.get()?;
        let max = self.limits.content_bytes();
        let (from, to) = (params.get_from(), params.get_to());
        let history = || self.control.history(from, to, max);
        let mut intents = answer!(results, self.within(history).await);
        truncate(&mut intents, max);
        list!(
            results.get().init_intents(convert::length(&intents)),
            &intents,
            convert::write_intent
        );
        Ok(())
    }

    async fn forks(
        self: Rc<Self>,
        _: operator::ForksParams,
        mut results: operator::ForksResults,
    ) -> Answered {
        let forks = answer!(results, self.within(|| self.control.forks()).await);
        list!(
            results.get().init_forks(convert::length(&forks)),
            &forks,
            convert::write_fork
        );
        Ok(())
    }

    async fn upload_begin(
        self: Rc<Self>,
        params: operator::UploadBeginParams,
        mut results: operator::UploadBeginResults,
    ) -> Answered {
        let artifact = answer!(
            results,
            convert::read_artifact(params.get()?.get_artifact()?)
        );
        let slot = answer!(results, self.uploads.take());
        let upload = answer!(results, self.within(|| self.control.upload(artifact)).await);
        results.get().set_received(upload.received());
        let server = UploadServer {
            operator: self,
            upload: RefCell::new(Some(upload)),
            _slot: slot,
        };
        results.get().set_upload(capnp_rpc::new_client(server));
        Ok(())
    }

    async fn claim(
        self: Rc<Self>,
        params: operator::ClaimParams,
        mut results: operator::ClaimResults,
    ) -> Answered {
        let claim = params.get()?.get_claim()?.to_vec();
        let witnessed = answer!(results, self.within(|| self.control.claim(claim)).await);
        results.get().set_witnessed(&witnessed);
        Ok(())
    }

    async fn pending(
        self: Rc<Self>,
        _: operator::PendingParams,
        mut results: operator::PendingResults,
    ) -> Answered {
        let nodes = answer!(results, self.within(|| self.control.pending()).await);
        list!(
            results.get().init_nodes(convert::length(&nodes)),
            &nodes,
            convert::write_pending
        );
        Ok(())
    }

    async fn peer_add(
        self: Rc<Self>,
        params: operator::PeerAddParams,
        mut results: operator::PeerAddResults,
    ) -> Answered {
        let address = answer!(results, convert::text(params.get()?.get_address()));
        answer!(
            results,
            self.within(|| self.control.peer_add(address)).await
        );
        Ok(())
    }

    async fn adopt(
        self: Rc<Self>,
        params: operator::AdoptParams,
        mut results: operator::AdoptResults,
    ) -> Answered {
        let genesis = params.get()?.get_genesis()?.to_vec();
        answer!(results, self.within(|| self.control.adopt(genesis)).await);
        Ok(())
    }

    async fn standing(
        self: Rc<Self>,
        _: operator::StandingParams,
        mut results: operator::StandingResults,
    ) -> Answered {
        let claims = answer!(results, self.within(|| self.control.standing()).await);
        let mut list = results.get().init_claims(convert::length(&claims));
        for (index, claim) in (0..).zip(&claims) {
            list.set(index, claim);
        }
        Ok(())
    }
}

impl UploadServer {
    /// Lends the upload to one call at a time. A call that is dropped midway ends the upload:
    /// what was received stays, and a new one resumes there.
    fn take(&self) -> Result<Box<dyn crate::Upload>, RpcError> {
        self.upload.borrow_mut().take().ok_or_else(|| {
            RpcError::new(
                ErrorCode::Invalid,
                "a write of this upload is under way, or failed",
            )
            .help("begin the upload again; it resumes where it was")
        })
    }
}

impl upload::Server for UploadServer {
    async fn write(
        self: Rc<Self>,
        params: upload::WriteParams,
        mut results: upload::WriteResults,
    ) -> Answered {
        let params = params.get()?;
        let bytes = params.get_bytes()?;
        if bytes.len() > CHUNK_BYTES {
            let error = RpcError::new(
                ErrorCode::Limit,
                format!("at most {CHUNK_BYTES} bytes are taken at once"),
            );
            convert::write_error(results.get().init_error(), &error);
            return Ok(());
        }
        let mut upload = answer!(results, self.take());
        let (writing, offset, bytes) = (&mut upload, params.get_offset(), bytes.to_vec());
        let write = self.operator.within(move || writing.write(offset, bytes));
        let received = answer!(results, write.await);
        *self.upload.borrow_mut() = Some(upload);
        results.get().set_received(received);
        Ok(())
    }

    async fn finish(
        self: Rc<Self>,
        _: upload::FinishParams,
        mut results: upload::FinishResults,
    ) -> Answered {
        let mut upload = answer!(results, self.take());
        let (ending, time) = (&mut upload, self.operator.limits.finish);
        let finish = self.operator.within_time(time, move || ending.finish());
        answer!(results, finish.await);
        Ok(())
    }
}

/// Keeps as many as fit `max` bytes, at least one.
fn truncate(intents: &mut Vec<crate::Intent>, max: usize) {
    let mut bytes = 0;
    let fits = intents.iter().position(|intent| {
        bytes += intent.entry.len() + intent.payload.as_ref().map_or(0, Vec::len);
        bytes > max
    });
    if let Some(fits) = fits {
        intents.truncate(fits.max(1));
    }
}

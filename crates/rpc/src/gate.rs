//! Bounds what a peer can make one connection hold, which Cap'n Proto itself leaves open.
//!
//! It stands between the RPC system and the two-party network: every message passes, and is
//! counted. A peer that exceeds a bound loses the connection; a peer that does not read is
//! no longer read from.

use std::{
    cell::{Cell, RefCell},
    collections::{HashMap, VecDeque},
    io,
    pin::Pin,
    rc::Rc,
    task::{Context, Poll, Waker},
};

use capnp::capability::Promise;
use capnp_rpc::{
    IncomingMessage, OutgoingMessage,
    rpc_capnp::{cap_descriptor, message, payload},
    rpc_twoparty_capnp::Side,
    twoparty,
};
use futures::{
    AsyncRead, AsyncReadExt as _, AsyncWrite,
    future::poll_fn,
    io::{BufReader, BufWriter, ReadHalf, WriteHalf},
};
use tokio::time::Instant;

use crate::{Limits, trace};

/// What one connection holds on behalf of its peer.
#[derive(Debug)]
pub(crate) struct Gate {
    limits: Limits,
    questions: RefCell<HashMap<u32, Question>>,
    /// Capabilities of the peer that we hold, with how often each was sent.
    imports: RefCell<HashMap<u32, u64>>,
    /// Bytes of calls that are not answered.
    in_flight: Cell<usize>,
    /// Sizes of the messages that wait to be written.
    queued: RefCell<VecDeque<usize>>,
    queued_bytes: Cell<usize>,
    /// Bytes read since the last message.
    read_bytes: Cell<usize>,
    reader: RefCell<Option<Waker>>,
    active: Cell<Instant>,
}

/// A call or bootstrap of the peer that it has not finished.
#[derive(Debug)]
struct Question {
    bytes: usize,
    answered: bool,
}

impl Gate {
    fn new(limits: Limits) -> Rc<Self> {
        Rc::new(Self {
            limits,
            questions: RefCell::default(),
            imports: RefCell::default(),
            in_flight: Cell::new(0),
            queued: RefCell::default(),
            queued_bytes: Cell::new(0),
            read_bytes: Cell::new(0),
            reader: RefCell::new(None),
            active: Cell::new(Instant::now()),
        })
    }

    /// Since when nothing was under way; None while a call waits for its answer.
    pub(crate) fn idle_since(&self) -> Option<Instant> {
        let busy = self
            .questions
            .borrow()
            .values()
            .any(|question| !question.answered);
        (!busy).then(|| self.active.get())
    }

    /// Ready once little enough waits to be written.
    fn poll_room(&self, cx: &Context<'_>) -> Poll<()> {
        if self.queued_bytes.get() <= self.limits.bytes_in_flight {
            return Poll::Ready(());
        }
        *self.reader.borrow_mut() = Some(cx.waker().clone());
        Poll::Pending
    }

    fn incoming(&self, incoming: &dyn IncomingMessage) -> capnp::Result<()> {
        self.active.set(Instant::now());
        let bytes = self.read_bytes.take();
        let message = incoming.get_body()?.get_as::<message::Reader<'_>>()?;
        trace::message("received", message, bytes);
        match message.which() {
            Ok(message::Bootstrap(bootstrap)) => self.ask(bootstrap?.get_question_id(), bytes),
            Ok(message::Call(call)) => {
                let call = call?;
                self.import(call.get_params()?)?;
                self.ask(call.get_question_id(), bytes)
            }
            Ok(message::Return(answer)) => match answer?.which() {
                Ok(capnp_rpc::rpc_capnp::return_::Results(results)) => self.import(results?),
                _ => Ok(()),
            },
            Ok(message::Finish(finish)) => {
                self.finish(finish?.get_question_id());
                Ok(())
            }
            // The RPC system answers what it does not know.
            _ => Ok(()),
        }
    }

    fn outgoing(&self, outgoing: &dyn OutgoingMessage) -> capnp::Result<()> {
        let bytes = outgoing.size_in_words() * 8;
        self.queued.borrow_mut().push_back(bytes);
        self.queued_bytes.set(self.queued_bytes.get() + bytes);
        let message = outgoing
            .get_body_as_reader()?
            .get_as::<message::Reader<'_>>()?;
        trace::message("sent", message, bytes);
        match message.which() {
            Ok(message::Return(answer)) => self.answer(answer?.get_answer_id()),
            Ok(message::Release(release)) => {
                let release = release?;
                self.release(release.get_id(), u64::from(release.get_reference_count()));
            }
            _ => {}
        }
        Ok(())
    }

    fn written(&self) {
        self.active.set(Instant::now());
        let bytes = self.queued.borrow_mut().pop_front().unwrap_or_default();
        self.queued_bytes.set(self.queued_bytes.get() - bytes);
        if let Some(waker) = self.reader.borrow_mut().take() {
            waker.wake();
        }
    }

    fn ask(&self, id: u32, bytes: usize) -> capnp::Result<()> {
        let mut questions = self.questions.borrow_mut();
        if questions.len() >= self.limits.table_entries {
            return Err(too_many("calls in flight", self.limits.table_entries));
        }
        let in_flight = self.in_flight.get() + bytes;
        if in_flight > self.limits.bytes_in_flight {
            return Err(too_many("bytes in flight", self.limits.bytes_in_flight));
        }
        // An id in use twice is an error that the RPC system reports.
        if questions
            .insert(
                id,
                Question {
                    bytes,
                    answered: false,
                },
            )
            .is_none()
        {
            self.in_flight.set(in_flight);
        }
        Ok(())
    }

    fn answer(&self, id: u32) {
        if let Some(question) = self.questions.borrow_mut().get_mut(&id) {
            question.answered = true;
            self.in_flight
                .set(self.in_flight.get().saturating_sub(question.bytes));
            question.bytes = 0;
        }
    }

    fn finish(&self, id: u32) {
        if let Some(question) = self.questions.borrow_mut().remove(&id) {
            self.in_flight
                .set(self.in_flight.get().saturating_sub(question.bytes));
        }
    }

    fn import(&self, payload: payload::Reader<'_>) -> capnp::Result<()> {
        let mut imports = self.imports.borrow_mut();
        for descriptor in payload.get_cap_table()? {
            let (cap_descriptor::SenderHosted(id) | cap_descriptor::SenderPromise(id)) =
                descriptor.which()?
            else {
                continue;
            };
            *imports.entry(id).or_default() += 1;
            if imports.len() > self.limits.table_entries {
                return Err(too_many("capabilities", self.limits.table_entries));
            }
        }
        Ok(())
    }

    fn release(&self, id: u32, count: u64) {
        let mut imports = self.imports.borrow_mut();
        if let Some(held) = imports.get_mut(&id) {
            *held = held.saturating_sub(count);
            if *held == 0 {
                imports.remove(&id);
            }
        }
    }
}

fn too_many(what: &str, limit: usize) -> capnp::Error {
    capnp::Error::overloaded(format!("more than {limit} {what} on one connection"))
}

/// A two-party network with every message counted.
pub(crate) struct Network<S: 'static + AsyncRead + Unpin> {
    inner: twoparty::VatNetwork<Reader<S>>,
    gate: Rc<Gate>,
}

impl<S: AsyncRead + AsyncWrite + Unpin + 'static> Network<S> {
    pub(crate) fn new(stream: S, side: Side, limits: Limits) -> (Self, Rc<Gate>) {
        let gate = Gate::new(limits);
        let (reader, writer) = stream.split();
        let reader = Reader {
            inner: BufReader::new(reader),
            gate: gate.clone(),
        };
        let writer = Writer {
            inner: BufWriter::new(writer),
            gate: gate.clone(),
        };
        let inner = twoparty::VatNetwork::new(reader, writer, side, limits.reader_options());
        (
            Self {
                inner,
                gate: gate.clone(),
            },
            gate,
        )
    }
}

impl<S: AsyncRead + Unpin + 'static> capnp_rpc::VatNetwork<Side> for Network<S> {
    fn connect(&mut self, side: Side) -> Option<Box<dyn capnp_rpc::Connection<Side>>> {
        let inner = self.inner.connect(side)?;
        Some(Box::new(Connection {
            inner,
            gate: self.gate.clone(),
        }))
    }

    fn accept(&mut self) -> Promise<Box<dyn capnp_rpc::Connection<Side>>, capnp::Error> {
        let (accepted, gate) = (self.inner.accept(), self.gate.clone());
        Promise::from_future(async move {
            let inner = accepted.await?;
            Ok(Box::new(Connection { inner, gate }) as Box<dyn capnp_rpc::Connection<Side>>)
        })
    }

    fn drive_until_shutdown(&mut self) -> Promise<(), capnp::Error> {
        self.inner.drive_until_shutdown()
    }
}

struct Connection {
    inner: Box<dyn capnp_rpc::Connection<Side>>,
    gate: Rc<Gate>,
}

impl capnp_rpc::Connection<Side> for Connection {
    fn get_peer_vat_id(&self) -> Side {
        self.inner.get_peer_vat_id()
    }

    fn new_outgoing_message(&mut self, words: u32) -> Box<dyn OutgoingMessage> {
        let inner = self.inner.new_outgoing_message(words);
        Box::new(Outgoing {
            inner,
            gate: self.gate.clone(),
        })
    }

    fn receive_incoming_message(
        &mut self,
    ) -> Promise<Option<Box<dyn IncomingMessage>>, capnp::Error> {
        let (next, gate) = (self.inner.receive_incoming_message(), self.gate.clone());
        Promise::from_future(async move {
            poll_fn(|cx| gate.poll_room(cx)).await;
            let next = next.await?;
            if let Some(message) = &next {
                gate.incoming(&**message)?;
            }
            Ok(next)
        })
    }

    fn new_stream(
        &mut self,
    ) -> (
        Box<dyn capnp_rpc::FlowController>,
        Promise<(), capnp::Error>,
    ) {
        self.inner.new_stream()
    }

    fn shutdown(&mut self, result: capnp::Result<()>) -> Promise<(), capnp::Error> {
        self.inner.shutdown(result)
    }
}

struct Outgoing {
    inner: Box<dyn OutgoingMessage>,
    gate: Rc<Gate>,
}

impl OutgoingMessage for Outgoing {
    fn get_body(&mut self) -> capnp::Result<capnp::any_pointer::Builder<'_>> {
        self.inner.get_body()
    }

    fn get_body_as_reader(&self) -> capnp::Result<capnp::any_pointer::Reader<'_>> {
        self.inner.get_body_as_reader()
    }

    fn send(
        self: Box<Self>,
    ) -> (
        Promise<(), capnp::Error>,
        Rc<capnp::message::Builder<capnp::message::HeapAllocator>>,
    ) {
        if let Err(error) = self.gate.outgoing(&*self.inner) {
            tracing::debug!(%error, "a message of our own cannot be read");
        }
        self.inner.send()
    }

    fn take(self: Box<Self>) -> capnp::message::Builder<capnp::message::HeapAllocator> {
        self.inner.take()
    }

    fn size_in_words(&self) -> usize {
        self.inner.size_in_words()
    }
}

/// Counts the bytes of each message. Outside the buffer, so that what was read ahead does not count.
struct Reader<S> {
    inner: BufReader<ReadHalf<S>>,
    gate: Rc<Gate>,
}

impl<S: AsyncRead + Unpin> AsyncRead for Reader<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut [u8],
    ) -> Poll<io::Result<usize>> {
        let polled = Pin::new(&mut self.inner).poll_read(cx, buffer);
        if let Poll::Ready(Ok(bytes)) = &polled {
            self.gate.read_bytes.set(self.gate.read_bytes.get() + bytes);
        }
        polled
    }
}

/// Learns when a message was written: the queue above flushes once for each.
struct Writer<S> {
    inner: BufWriter<WriteHalf<S>>,
    gate: Rc<Gate>,
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Writer<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.inner).poll_write(cx, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let polled = Pin::new(&mut self.inner).poll_flush(cx);
        if let Poll::Ready(Ok(())) = &polled {
            self.gate.written();
        }
        polled
    }

    fn poll_close(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_close(cx)
    }
}

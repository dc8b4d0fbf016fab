//! A line between two that speak honestly, until it is turned over to somebody else.

use std::{
    cell::RefCell,
    io,
    pin::Pin,
    rc::Rc,
    task::{Context, Poll, Waker},
};

use futures::{AsyncRead, AsyncWrite};

use super::Tape;

/// Pieces as they were read.
pub(super) type Heard = Rc<RefCell<Vec<Vec<u8>>>>;

/// Who is at the other end of a line.
#[derive(Debug, Default)]
pub(super) enum Now {
    /// The one it was laid to.
    #[default]
    Honest,
    /// The same, and what it says is kept.
    Recorded(Heard),
    /// What the tape has; what is answered goes nowhere.
    Tape(Tape),
}

/// Turns what one of two streams reads.
#[derive(Debug, Default)]
pub(super) struct Line(Rc<Turned>);

#[derive(Debug, Default)]
struct Turned {
    now: RefCell<Now>,
    /// Who waits for the honest end to speak.
    reader: RefCell<Option<Waker>>,
}

impl Line {
    pub(super) fn turn(&self, now: Now) {
        *self.0.now.borrow_mut() = now;
        if let Some(reader) = self.0.reader.take() {
            reader.wake();
        }
    }

    /// One of the two ends; only the one whose reader it is follows the line.
    pub(super) fn stream<S>(&self, inner: S, follows: bool) -> OnLine<S> {
        let turned = if follows {
            self.0.clone()
        } else {
            Rc::default()
        };
        OnLine { inner, turned }
    }
}

pub(super) struct OnLine<S> {
    inner: S,
    turned: Rc<Turned>,
}

impl<S: AsyncRead + Unpin> AsyncRead for OnLine<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut [u8],
    ) -> Poll<io::Result<usize>> {
        let turned = self.turned.clone();
        if let Now::Tape(tape) = &mut *turned.now.borrow_mut() {
            return Pin::new(tape).poll_read(cx, buffer);
        }
        *turned.reader.borrow_mut() = Some(cx.waker().clone());
        let polled = Pin::new(&mut self.inner).poll_read(cx, buffer);
        if let (Poll::Ready(Ok(size)), Now::Recorded(heard)) = (&polled, &*turned.now.borrow())
            && *size > 0
        {
            heard.borrow_mut().push(buffer[..*size].to_vec());
        }
        polled
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for OnLine<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        if let Now::Tape(tape) = &mut *self.turned.now.borrow_mut() {
            return Pin::new(tape).poll_write(cx, bytes);
        }
        Pin::new(&mut self.inner).poll_write(cx, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_flush(cx)
    }

    fn poll_close(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_close(cx)
    }
}

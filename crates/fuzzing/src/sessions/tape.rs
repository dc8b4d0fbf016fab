//! A stream whose other end says what is on the tape, and then leaves.

use std::{
    collections::VecDeque,
    io,
    pin::Pin,
    task::{Context, Poll},
};

use futures::{AsyncRead, AsyncWrite};

use crate::script;

/// Pieces of one session that are delivered.
const MAX_PIECES: usize = 64;
/// Looks at the stream between two pieces: time for the answer to the first one.
pub(super) const LOOKS: u8 = 16;
/// A piece may wait for fewer looks than this.
const MAX_LOOKS: u8 = 32;
/// What may be written in answer to one input: its largest calls are answered by a few hundred KiB.
const MAX_WRITTEN: usize = 64 * 1024 * 1024;

#[derive(Debug)]
pub(super) struct Tape {
    /// How many looks each piece waits, and its bytes.
    pieces: VecDeque<(u8, Vec<u8>)>,
    looks: u8,
    written: usize,
}

impl Tape {
    pub(super) fn new(input: &[u8]) -> Self {
        let steps = script::steps(input).take(MAX_PIECES);
        Self {
            pieces: steps
                .map(|step| (step.op % MAX_LOOKS, step.bytes.to_vec()))
                .collect(),
            looks: 0,
            written: 0,
        }
    }
}

impl AsyncRead for Tape {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut [u8],
    ) -> Poll<io::Result<usize>> {
        let wait = self.pieces.front().map_or(LOOKS, |(wait, _)| *wait);
        if self.looks < wait {
            self.looks += 1;
            cx.waker().wake_by_ref();
            return Poll::Pending;
        }
        let Some((_, piece)) = self.pieces.front_mut() else {
            return Poll::Ready(Ok(0));
        };
        let size = piece.len().min(buffer.len());
        buffer[..size].copy_from_slice(&piece[..size]);
        piece.drain(..size);
        if piece.is_empty() {
            self.pieces.pop_front();
            self.looks = 0;
        }
        // An empty piece is no end.
        match size {
            0 => {
                cx.waker().wake_by_ref();
                Poll::Pending
            }
            size => Poll::Ready(Ok(size)),
        }
    }
}

impl AsyncWrite for Tape {
    fn poll_write(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.written += bytes.len();
        assert!(self.written <= MAX_WRITTEN, "answers without end");
        Poll::Ready(Ok(bytes.len()))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_close(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}

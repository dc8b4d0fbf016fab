//! Streams of 0.2 that hold no more than they say: what is in them between two calls is memory of the host.

use bytes::Bytes;
use wasmtime_wasi::{
    async_trait,
    p2::{
        DynInputStream, DynOutputStream, InputStream, OutputStream, Pollable, StreamError,
        StreamResult,
    },
};

/// A stream to read from that reads little ahead: a guest may begin a read and never fetch it.
pub(crate) struct Sips {
    inner: DynInputStream,
    held: usize,
}

impl Sips {
    /// Holds at most `held` bytes.
    pub(crate) fn new(inner: DynInputStream, held: usize) -> Self {
        Self { inner, held }
    }
}

#[async_trait]
impl InputStream for Sips {
    fn read(&mut self, size: usize) -> StreamResult<Bytes> {
        self.inner.read(size.min(self.held))
    }

    /// As much as is asked for: all of it is handed over at once.
    async fn blocking_read(&mut self, size: usize) -> StreamResult<Bytes> {
        self.inner.blocking_read(size).await
    }

    async fn cancel(&mut self) {
        self.inner.cancel().await;
    }
}

#[async_trait]
impl Pollable for Sips {
    async fn ready(&mut self) {
        self.inner.ready().await;
    }
}

/// A stream to write to that takes what it has room for and no more. Wasmtime's streams of files take any write when
/// they are idle, and those of output keep a note of each write of nothing.
pub(crate) struct Strict {
    inner: DynOutputStream,
    held: usize,
}

impl Strict {
    /// Holds at most `held` bytes, or what `inner` permits if that is less.
    pub(crate) fn new(inner: DynOutputStream, held: usize) -> Self {
        Self { inner, held }
    }
}

#[async_trait]
impl OutputStream for Strict {
    fn write(&mut self, bytes: Bytes) -> StreamResult<()> {
        let room = self.check_write()?;
        if bytes.len() > room {
            return Err(StreamError::trap(
                "a write of more bytes than `check-write` permits",
            ));
        }
        if bytes.is_empty() {
            return Ok(());
        }
        self.inner.write(bytes)
    }

    fn flush(&mut self) -> StreamResult<()> {
        self.inner.flush()
    }

    fn check_write(&mut self) -> StreamResult<usize> {
        Ok(self.inner.check_write()?.min(self.held))
    }

    /// Waits until the bytes are written, so that nothing is left in the stream.
    async fn blocking_write_and_flush(&mut self, bytes: Bytes) -> StreamResult<()> {
        if bytes.is_empty() {
            self.flush()?;
            return self.write_ready().await.map(drop);
        }
        self.inner.blocking_write_and_flush(bytes).await
    }

    async fn cancel(&mut self) {
        self.inner.cancel().await;
    }
}

#[async_trait]
impl Pollable for Strict {
    async fn ready(&mut self) {
        self.inner.ready().await;
    }
}

#[cfg(test)]
mod tests {
    use std::sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    };

    use super::*;

    const HELD: usize = 4096;

    /// Takes and gives whatever is asked, and counts it, as streams of files do when they are idle.
    #[derive(Default, Clone)]
    struct Any {
        writes: Arc<AtomicUsize>,
        asked: Arc<AtomicUsize>,
    }

    #[async_trait]
    impl Pollable for Any {
        async fn ready(&mut self) {}
    }

    #[async_trait]
    impl OutputStream for Any {
        fn write(&mut self, _: Bytes) -> StreamResult<()> {
            self.writes.fetch_add(1, Ordering::Relaxed);
            Ok(())
        }

        fn flush(&mut self) -> StreamResult<()> {
            Ok(())
        }

        fn check_write(&mut self) -> StreamResult<usize> {
            Ok(10 * HELD)
        }
    }

    impl InputStream for Any {
        fn read(&mut self, size: usize) -> StreamResult<Bytes> {
            self.asked.fetch_max(size, Ordering::Relaxed);
            Ok(Bytes::new())
        }
    }

    #[tokio::test]
    async fn a_strict_stream_takes_what_it_permits_and_no_note_of_nothing() {
        let any = Any::default();
        let mut strict = Strict::new(Box::new(any.clone()), HELD);
        let writes = || any.writes.load(Ordering::Relaxed);
        assert!(matches!(strict.check_write(), Ok(HELD)));
        assert!(strict.write(Bytes::new()).is_ok());
        assert!(strict.write_zeroes(0).is_ok());
        assert!(strict.blocking_write_and_flush(Bytes::new()).await.is_ok());
        assert_eq!(writes(), 0);
        for much in [vec![0; HELD + 1], vec![0; 20 * HELD]] {
            assert!(matches!(
                strict.write(much.into()),
                Err(StreamError::Trap(_))
            ));
        }
        assert!(matches!(
            strict.write_zeroes(HELD + 1),
            Err(StreamError::Trap(_))
        ));
        assert_eq!(writes(), 0);
        assert!(strict.write(vec![0; HELD].into()).is_ok());
        assert_eq!(writes(), 1);
    }

    #[test]
    fn a_stream_that_sips_reads_little_ahead() {
        let any = Any::default();
        let mut sips = Sips::new(Box::new(any.clone()), HELD);
        for size in [0, 1, usize::MAX] {
            assert!(sips.read(size).is_ok());
        }
        assert!(sips.skip(usize::MAX).is_ok());
        assert_eq!(any.asked.load(Ordering::Relaxed), HELD);
    }
}

//! Frames on `/realm/log/1`: a stream of messages, each behind its length as a big-endian u32.

use std::{io, rc::Rc, sync::Arc, time::Duration};

use bytes::Bytes;
use futures::{AsyncReadExt as _, AsyncWriteExt as _};
use libp2p::{Stream, StreamProtocol};
use realm_identity::PublicKey;
use tokio::{
    sync::{Notify, OwnedSemaphorePermit, Semaphore, mpsc, oneshot},
    time::{sleep, timeout},
};

use crate::{streams::OpenError, task::Report};

pub(crate) const PROTOCOL: StreamProtocol = StreamProtocol::new("/realm/log/1");

/// A frame that is not taken in this time has met a peer that does not read.
const WRITE_TIME: Duration = Duration::from_secs(30);
/// A frame's length is a claim, so memory follows the bytes that came.
const READ_STEP: usize = 64 * 1024;
/// An outgoing queue that nobody used for so long gives its stream back.
const QUEUE_IDLE: Duration = Duration::from_secs(300);
const BACKOFF_FIRST: Duration = Duration::from_millis(100);
const BACKOFF_LAST: Duration = Duration::from_secs(5);
/// A frame that met a dead stream is written once more, on a new one.
const ATTEMPTS: usize = 2;

#[derive(Debug, thiserror::Error)]
pub(crate) enum ReadError {
    #[error("a frame of {len} bytes, 1 to {max} are allowed")]
    Length { len: usize, max: usize },
    #[error("a frame was not complete after {0:?}")]
    Slow(Duration),
    #[error("the stream broke")]
    Io(#[from] io::Error),
}

/// Half of it to all of it, at random: those that a cut struck at once would dial in step for ever.
fn spread(pause: Duration) -> Duration {
    let part = getrandom::u32().unwrap_or(u32::MAX);
    pause / 2 + (pause / 2).mul_f64(f64::from(part) / f64::from(u32::MAX))
}

/// The frames from one peer.
pub(crate) struct Reader {
    pub from: PublicKey,
    /// Longest frame, in bytes.
    pub max: usize,
    /// From a frame's first byte to its last: a peer cannot hold a half frame for long.
    pub time: Duration,
    /// Bytes that may wait for whoever consumes frames: this peer's, and everybody's.
    pub own: Arc<Semaphore>,
    pub all: Arc<Semaphore>,
    pub reports: mpsc::Sender<Report>,
}

impl Reader {
    /// Reads until the peer closes; each frame is reported in order.
    pub async fn run(self, mut stream: Stream) -> Result<(), ReadError> {
        while let Some(first) = read_first(&mut stream).await? {
            let frame = timeout(self.time, read_frame(&mut stream, first, self.max))
                .await
                .map_err(|_| ReadError::Slow(self.time))??;
            let Some(bytes) = self.hold(frame).await else {
                return Ok(());
            };
            let from = self.from;
            if self
                .reports
                .send(Report::Frame { from, bytes })
                .await
                .is_err()
            {
                return Ok(());
            }
        }
        Ok(())
    }

    /// Waits for whoever consumes frames: a peer that floods is slowed down, by its own stream, and
    /// takes no more than its part of what all may hold. None when the network has stopped.
    async fn hold(&self, frame: Vec<u8>) -> Option<Bytes> {
        let size = frame.len() as u32;
        let own = self.own.clone().acquire_many_owned(size).await.ok()?;
        let all = self.all.clone().acquire_many_owned(size).await.ok()?;
        Some(Bytes::from_owner(Held {
            frame,
            _permits: [own, all],
        }))
    }
}

/// None when the stream ends between two frames.
async fn read_first(stream: &mut Stream) -> io::Result<Option<u8>> {
    let mut first = [0];
    Ok(if stream.read(&mut first).await? == 0 {
        None
    } else {
        Some(first[0])
    })
}

async fn read_frame(stream: &mut Stream, first: u8, max: usize) -> Result<Vec<u8>, ReadError> {
    let mut rest = [0; 3];
    stream.read_exact(&mut rest).await?;
    let len = u32::from_be_bytes([first, rest[0], rest[1], rest[2]]) as usize;
    if len == 0 || len > max {
        return Err(ReadError::Length { len, max });
    }
    let mut frame = Vec::new();
    while frame.len() < len {
        let start = frame.len();
        frame.resize(len.min(start + READ_STEP), 0);
        stream.read_exact(&mut frame[start..]).await?;
    }
    Ok(frame)
}

/// A received frame, counted until its last clone is dropped.
struct Held {
    frame: Vec<u8>,
    _permits: [OwnedSemaphorePermit; 2],
}

impl AsRef<[u8]> for Held {
    fn as_ref(&self) -> &[u8] {
        &self.frame
    }
}

/// A frame that waits for its peer, counted until it is written or dropped.
#[derive(Debug)]
pub(crate) struct Queued {
    pub frame: Bytes,
    pub _permit: OwnedSemaphorePermit,
}

/// The frames to one peer, in order, over one stream that is opened again when it breaks.
pub(crate) struct Writer {
    pub to: PublicKey,
    pub queue: mpsc::Receiver<Queued>,
    pub reports: mpsc::Sender<Report>,
    /// Ends a pause: the peer has just connected.
    pub connected: Rc<Notify>,
}

impl Writer {
    pub async fn run(mut self) {
        let mut stream = None;
        let mut pause = BACKOFF_FIRST;
        while let Ok(Some(queued)) = timeout(QUEUE_IDLE, self.queue.recv()).await {
            match self.deliver(&mut stream, &queued.frame).await {
                Ok(()) => pause = BACKOFF_FIRST,
                Err(reason) => {
                    if !self.drop_queued(reason).await {
                        return;
                    }
                    tokio::select! {
                        () = sleep(spread(pause)) => {}
                        () = self.connected.notified() => {}
                    }
                    pause = BACKOFF_LAST.min(pause * 2);
                }
            }
        }
    }

    async fn deliver(&self, stream: &mut Option<Stream>, frame: &Bytes) -> Result<(), String> {
        let mut last = String::new();
        for _ in 0..ATTEMPTS {
            let open = match stream.take() {
                Some(open) => open,
                None => self.open().await.map_err(|error| error.to_string())?,
            };
            match self.write(open, frame).await {
                Ok(open) => {
                    *stream = Some(open);
                    return Ok(());
                }
                Err(error) => last = error.to_string(),
            }
        }
        Err(last)
    }

    async fn open(&self) -> Result<Stream, OpenError> {
        let gone = || OpenError::Connect("the connection is gone".to_owned());
        let (reply, opened) = oneshot::channel();
        let request = Report::Open {
            to: self.to,
            protocol: PROTOCOL,
            reply,
        };
        self.reports.send(request).await.map_err(|_| gone())?;
        opened.await.map_err(|_| gone())?
    }

    async fn write(&self, mut stream: Stream, frame: &Bytes) -> io::Result<Stream> {
        // At once: a length of its own would be a packet of its own.
        let bytes = [&(frame.len() as u32).to_be_bytes()[..], frame].concat();
        let write = async {
            stream.write_all(&bytes).await?;
            if self.queue.is_empty() {
                stream.flush().await
            } else {
                Ok(())
            }
        };
        timeout(WRITE_TIME, write)
            .await
            .map_err(|_| io::ErrorKind::TimedOut)??;
        Ok(stream)
    }

    /// What waited behind a frame that could not be sent would be stale. False when the network has stopped.
    async fn drop_queued(&mut self, reason: String) -> bool {
        let mut count = 1;
        while self.queue.try_recv().is_ok() {
            count += 1;
        }
        self.reports
            .send(Report::FramesDropped {
                to: self.to,
                count,
                reason,
            })
            .await
            .is_ok()
    }
}

//! Ranges of artifacts by digest, `/realm/blob/1`: one request and one answer a stream.
//!
//! Request: digest (32 bytes), offset (u64), length (u32). Answer: one status byte; after
//! [`Status::Ok`] the length (u32) and that many bytes. Numbers are big-endian.

use std::{
    io,
    sync::Arc,
    time::{Duration, Instant},
};

use bytes::Bytes;
use futures::{AsyncReadExt as _, AsyncWriteExt as _};
use libp2p::{Stream, StreamProtocol};
use realm_identity::{Hash, PublicKey};
use tokio::time::timeout;

pub(crate) const PROTOCOL: StreamProtocol = StreamProtocol::new("/realm/blob/1");

/// Most bytes of content one request may ask for.
pub(crate) const RANGE_MAX: u32 = 1024 * 1024;
/// The answer is larger by the hashes that prove it: at most 64 bytes for each 1 KiB, and a path to the root.
pub(crate) const ANSWER_MAX: usize = RANGE_MAX as usize + RANGE_MAX as usize / 8;
pub(crate) const REQUEST: usize = 32 + 8 + 4;
/// A reader that takes longer for one answer gives its slot to someone else.
pub(crate) const ANSWER_TIME: Duration = Duration::from_secs(60);
/// A slower source is given up, so that another can be asked.
pub(crate) const SPEED_MIN: u64 = 16 * 1024;
/// Before the speed counts.
pub(crate) const SPEED_GRACE: Duration = Duration::from_secs(5);
/// A source that gives nothing at all for this long is given up sooner.
pub(crate) const SILENCE_MAX: Duration = Duration::from_secs(3);

/// Where served ranges come from.
pub trait BlobSource: Send + Sync + 'static {
    /// Whether this peer may have any bytes at all. Called on the network's thread: must not block.
    fn allow(&self, peer: PublicKey) -> bool;

    /// The range as it goes over the wire, already encoded for verified streaming.
    /// None when this node does not have it. Called on a thread that may block.
    fn read_range(&self, sha256: Hash, offset: u64, len: u32) -> io::Result<Option<Vec<u8>>>;
}

/// Why a range did not arrive.
#[derive(Debug, thiserror::Error)]
pub enum FetchError {
    #[error("the peer does not have it")]
    NotFound,
    #[error("the peer does not serve us: not approved there")]
    Refused,
    #[error("the peer is busy")]
    Busy,
    #[error("the peer cannot read it")]
    Failed,
    #[error("a range is 1 to {max} bytes")]
    Range { max: u32 },
    #[error("the peer's answer is malformed: {0}")]
    Malformed(&'static str),
    #[error("not done within {0:?}")]
    Deadline(Duration),
    #[error("slower than {0} bytes a second")]
    TooSlow(u64),
    #[error("nothing came for {0:?}")]
    Silent(Duration),
    #[error("the peer cannot be reached: {0}")]
    Unreachable(String),
    #[error("the connection broke")]
    Broken(#[source] io::Error),
    #[error("the network has stopped")]
    Closed,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum Status {
    Ok = 0,
    NotFound = 1,
    Refused = 2,
    Busy = 3,
    BadRequest = 4,
    Failed = 5,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Request {
    pub sha256: Hash,
    pub offset: u64,
    pub len: u32,
}

impl Request {
    fn to_bytes(self) -> [u8; REQUEST] {
        let mut bytes = [0; REQUEST];
        bytes[..32].copy_from_slice(self.sha256.as_bytes());
        bytes[32..40].copy_from_slice(&self.offset.to_be_bytes());
        bytes[40..].copy_from_slice(&self.len.to_be_bytes());
        bytes
    }

    fn from_bytes(bytes: &[u8; REQUEST]) -> Self {
        let (digest, rest) = bytes
            .split_first_chunk::<32>()
            .expect("44 bytes begin with 32");
        let (offset, rest) = rest
            .split_first_chunk::<8>()
            .expect("12 bytes begin with 8");
        let len = rest.first_chunk::<4>().expect("4 bytes are left");
        Self {
            sha256: Hash::from_bytes(*digest),
            offset: u64::from_be_bytes(*offset),
            len: u32::from_be_bytes(*len),
        }
    }

    pub fn is_sound(self) -> bool {
        (1..=RANGE_MAX).contains(&self.len)
            && self.offset.checked_add(u64::from(self.len)).is_some()
    }
}

/// Answers one request. None as a source means that this peer is refused, or has to wait its turn.
pub(crate) async fn serve(
    mut stream: Stream,
    source: Result<Arc<dyn BlobSource>, Status>,
    request_time: Duration,
) -> io::Result<()> {
    let mut request = [0; REQUEST];
    timeout(request_time, stream.read_exact(&mut request))
        .await
        .map_err(timed_out)??;
    let answer = match source {
        Ok(source) => read(source, Request::from_bytes(&request)).await,
        Err(status) => Err(status),
    };
    timeout(ANSWER_TIME, write(&mut stream, answer))
        .await
        .map_err(timed_out)?
}

async fn read(source: Arc<dyn BlobSource>, request: Request) -> Result<Vec<u8>, Status> {
    if !request.is_sound() {
        return Err(Status::BadRequest);
    }
    let Request {
        sha256,
        offset,
        len,
    } = request;
    let read = move || source.read_range(sha256, offset, len);
    match tokio::task::spawn_blocking(read).await {
        Ok(Ok(Some(bytes))) if bytes.len() <= ANSWER_MAX => Ok(bytes),
        Ok(Ok(Some(bytes))) => {
            tracing::error!(%sha256, size = bytes.len(), "a range's encoding is too large to send");
            Err(Status::Failed)
        }
        Ok(Ok(None)) => Err(Status::NotFound),
        Ok(Err(error)) => {
            tracing::warn!(%sha256, %error, "cannot read an artifact");
            Err(Status::Failed)
        }
        Err(error) => {
            tracing::error!(%sha256, %error, "reading an artifact ended badly");
            Err(Status::Failed)
        }
    }
}

async fn write(stream: &mut Stream, answer: Result<Vec<u8>, Status>) -> io::Result<()> {
    match answer {
        Ok(bytes) => {
            let len = (bytes.len() as u32).to_be_bytes();
            stream
                .write_all(&[&[Status::Ok as u8], &len[..]].concat())
                .await?;
            stream.write_all(&bytes).await?;
        }
        Err(status) => stream.write_all(&[status as u8]).await?,
    }
    stream.close().await
}

/// Asks for one range; the caller bounds the time.
pub(crate) async fn fetch(mut stream: Stream, request: Request) -> Result<Bytes, FetchError> {
    stream
        .write_all(&request.to_bytes())
        .await
        .map_err(FetchError::Broken)?;
    stream.flush().await.map_err(FetchError::Broken)?;
    let started = Instant::now();
    let mut status = [0];
    unless_silent(stream.read_exact(&mut status))
        .await?
        .map_err(FetchError::Broken)?;
    match status[0] {
        0 => {}
        1 => return Err(FetchError::NotFound),
        2 => return Err(FetchError::Refused),
        3 => return Err(FetchError::Busy),
        4 => return Err(FetchError::Range { max: RANGE_MAX }),
        5 => return Err(FetchError::Failed),
        _ => return Err(FetchError::Malformed("unknown status")),
    }
    let mut len = [0; 4];
    unless_silent(stream.read_exact(&mut len))
        .await?
        .map_err(FetchError::Broken)?;
    let len = u32::from_be_bytes(len) as usize;
    if len > ANSWER_MAX {
        return Err(FetchError::Malformed("longer than any range"));
    }
    receive(&mut stream, len, started).await
}

async fn receive(stream: &mut Stream, len: usize, started: Instant) -> Result<Bytes, FetchError> {
    // Zeroed by the system when it is first touched: whoever promises much and sends little takes no memory.
    let mut bytes = vec![0; len];
    let mut filled = 0;
    while filled < len {
        let read = unless_silent(stream.read(&mut bytes[filled..]))
            .await?
            .map_err(FetchError::Broken)?;
        if read == 0 {
            return Err(FetchError::Broken(io::ErrorKind::UnexpectedEof.into()));
        }
        filled += read;
        check_speed(filled as u64, started.elapsed())?;
    }
    Ok(bytes.into())
}

fn check_speed(received: u64, elapsed: Duration) -> Result<(), FetchError> {
    let counted = elapsed.saturating_sub(SPEED_GRACE).as_secs();
    if received < counted.saturating_mul(SPEED_MIN) {
        return Err(FetchError::TooSlow(SPEED_MIN));
    }
    Ok(())
}

/// What `step` gives, if it gives anything in time.
pub(crate) async fn unless_silent<T>(step: impl Future<Output = T>) -> Result<T, FetchError> {
    timeout(SILENCE_MAX, step)
        .await
        .map_err(|_| FetchError::Silent(SILENCE_MAX))
}

fn timed_out(_: tokio::time::error::Elapsed) -> io::Error {
    io::ErrorKind::TimedOut.into()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request(offset: u64, len: u32) -> Request {
        Request {
            sha256: Hash::of(b"x"),
            offset,
            len,
        }
    }

    #[test]
    fn a_request_is_read_as_it_was_written() {
        let written = request(7, 9);
        assert_eq!(Request::from_bytes(&written.to_bytes()), written);
    }

    #[test]
    fn unsound_ranges_are_known() {
        for (offset, len, sound) in [
            (0, 1, true),
            (0, RANGE_MAX, true),
            (0, 0, false),
            (0, RANGE_MAX + 1, false),
            (0, u32::MAX, false),
            (u64::MAX, 1, false),
        ] {
            assert_eq!(request(offset, len).is_sound(), sound, "{offset} {len}");
        }
    }

    #[test]
    fn a_trickle_is_too_slow() {
        assert!(check_speed(0, Duration::from_secs(5)).is_ok());
        assert!(check_speed(SPEED_MIN, Duration::from_secs(7)).is_err());
        assert!(check_speed(SPEED_MIN * 2, Duration::from_secs(7)).is_ok());
    }
}

//! Ranges of artifacts by digest, `/realm/blob/1`.

use std::{io, time::Duration};

use realm_identity::{Hash, PublicKey};

/// Where served ranges come from. Called on a blocking thread.
pub trait BlobSource: Send + Sync + 'static {
    /// Whether this peer may have any bytes at all. Called on the network's thread: must not block.
    fn allow(&self, peer: PublicKey) -> bool;

    /// The range as it goes over the wire, already encoded for verified streaming.
    /// None when this node does not have it.
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
    #[error("the peer cannot be reached: {0}")]
    Unreachable(String),
    #[error("the connection broke")]
    Broken(#[source] io::Error),
    #[error("the network has stopped")]
    Closed,
}

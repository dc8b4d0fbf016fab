//! Where a cell's standard streams lead.

use crate::LogRing;

/// The other end of a cell's standard streams.
#[derive(Debug, Clone)]
pub enum Stdio {
    /// Output to a ring in memory, within `output_bytes_per_sec`; no input.
    Log(LogRing),
    /// The streams of this process: `realm run` in a terminal. `rate` is bytes a second for output, None has no limit.
    Inherit { rate: Option<u64> },
}

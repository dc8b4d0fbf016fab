//! What a node keeps: its directory, the ledger of its realm's log, and artifacts by digest.
//!
//! Everything blocks; callers run it where blocking is allowed. [`DataDir`] owns the directory
//! and its lock, [`Ledger`] holds the log in one transactional file, [`Blobs`] holds artifacts
//! that are verified before anyone sees them. Nothing here knows a network; the clock is asked
//! only for when an artifact was used last.

mod blobs;
mod dir;
mod ledger;
pub mod own;
mod quiet;
mod room;
mod state_file;

pub use blobs::{BlobError, Blobs, Partial, Upload};
pub use dir::{DataDir, DirError};
pub use ledger::{Checkpoint, Item, Ledger, LedgerContents, LedgerError, LedgerStorage, Op};
pub use redb::StorageBackend;
pub use room::{free_bytes, try_room};
pub use state_file::{ASIDE, Kept, StateFile, StateFileError};

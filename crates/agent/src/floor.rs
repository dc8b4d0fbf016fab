//! A time that this node knows to have passed, whatever its clock says.
//!
//! It is the highest time in what the owner and approved nodes signed and this node accepted. It
//! rises to five minutes after the node's own clock at most, so that nobody who signs a far future
//! closes the node to everything. It is used where time decides: a clock that was reset takes no
//! invite that has expired.

use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering},
};

use realm_identity::{Timestamp, invite::CLOCK_TOLERANCE_MS};
use realm_store::{DataDir, StateFile, StateFileError};

use crate::fold::chain;

/// Between two writes of a floor that rises; what a crash loses is no more.
const WRITE_EVERY_MS: u64 = 60_000;

#[derive(Debug)]
pub struct Floor {
    at: Timestamp,
    file: StateFile,
    /// In milliseconds, as it is on disk.
    written: Arc<AtomicU64>,
    /// On the monotonic clock; None before the first time of this run.
    taken_at: Option<u64>,
}

impl Floor {
    pub fn load(dir: &DataDir) -> Result<Self, StateFileError> {
        let file = dir.state_file("floor");
        let loss = "where the clock stands behind, an invite that has expired may be taken";
        let read = |bytes: Vec<u8>| Some(u64::from_be_bytes(bytes.try_into().ok()?));
        let at = Timestamp(file.read_or_lose(loss, read)?.known().unwrap_or(0));
        Ok(Self {
            at,
            file,
            written: Arc::new(AtomicU64::new(at.as_millis())),
            taken_at: None,
        })
    }

    /// `own`, the node's clock, or the floor where that is later.
    pub fn raised(&self, own: Timestamp) -> Timestamp {
        own.max(self.at)
    }

    /// Takes note of a time that was signed, by whom this node believes.
    pub fn saw(&mut self, signed: Timestamp, own: Timestamp) {
        let at = signed.min(own.plus_millis(CLOCK_TOLERANCE_MS));
        self.at = self.at.max(at);
    }

    /// What is to be written of a floor that has risen, once a minute. Writing it blocks.
    pub fn due(&mut self, mono: u64) -> Option<Write> {
        let due = self
            .taken_at
            .is_none_or(|at| mono >= at.saturating_add(WRITE_EVERY_MS));
        let write = self.unwritten().filter(|_| due)?;
        // A disk that fails is not tried again at once.
        self.taken_at = Some(mono);
        Some(write)
    }

    /// What is to be written of a floor that has risen.
    pub fn unwritten(&self) -> Option<Write> {
        let written = self.written.load(Ordering::Acquire);
        (self.at.as_millis() != written).then(|| Write {
            at: self.at,
            file: self.file.clone(),
            written: self.written.clone(),
        })
    }
}

/// A floor that is to be written.
#[derive(Debug)]
pub struct Write {
    at: Timestamp,
    file: StateFile,
    written: Arc<AtomicU64>,
}

impl Write {
    /// What fails is told, and stays to be written.
    pub fn keep(self) {
        match self.file.write(&self.at.as_millis().to_be_bytes()) {
            Ok(()) => self.written.store(self.at.as_millis(), Ordering::Release),
            Err(error) => {
                let error = chain(&error);
                tracing::error!(error, "the time floor is not kept");
            }
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    const HOUR: u64 = 3_600_000;
    const NOW: Timestamp = Timestamp(1_000 * HOUR);

    fn floor(temp: &tempfile::TempDir) -> Floor {
        Floor::load(&DataDir::open(temp.path()).unwrap()).unwrap()
    }

    #[test]
    fn it_rises_to_five_minutes_ahead_and_never_falls() {
        let temp = tempfile::tempdir().unwrap();
        let mut floor = floor(&temp);
        assert_eq!(floor.raised(NOW), NOW);
        floor.saw(Timestamp(NOW.0 - HOUR), NOW);
        assert_eq!(floor.raised(Timestamp(0)), Timestamp(NOW.0 - HOUR));
        assert_eq!(floor.raised(NOW), NOW, "a clock that is ahead is right");
        // The far future is capped by the node's own clock.
        floor.saw(Timestamp(u64::MAX), NOW);
        let most = NOW.plus_millis(CLOCK_TOLERANCE_MS);
        assert_eq!(floor.raised(Timestamp(0)), most);
        // A clock that was reset neither lowers nor raises it.
        floor.saw(Timestamp(u64::MAX), Timestamp(5));
        assert_eq!(floor.raised(Timestamp(5)), most);
    }

    #[test]
    fn it_survives_a_restart_and_is_written_once_a_minute() {
        let temp = tempfile::tempdir().unwrap();
        let on_disk = || floor(&temp).raised(Timestamp(0));
        let mut kept = floor(&temp);
        assert!(kept.due(0).is_none(), "nothing to keep yet");
        let later = |hours: u64| Timestamp(NOW.0 - 100 * HOUR + hours * HOUR);
        kept.saw(later(1), NOW);
        kept.due(10).unwrap().keep();
        assert_eq!(on_disk(), later(1));
        kept.saw(later(2), NOW);
        assert!(kept.due(9 + WRITE_EVERY_MS).is_none());
        kept.due(10 + WRITE_EVERY_MS).unwrap().keep();
        assert_eq!(on_disk(), later(2));
        kept.saw(later(3), NOW);
        kept.unwritten().unwrap().keep();
        assert_eq!(on_disk(), later(3));
    }
    #[test]
    fn what_a_disk_did_not_take_is_written_later() {
        let temp = tempfile::tempdir().unwrap();
        let mut kept = floor(&temp);
        kept.saw(NOW, NOW);
        // No file can take its place.
        std::fs::create_dir(temp.path().join("floor")).unwrap();
        kept.due(10).unwrap().keep();
        assert!(kept.due(9 + WRITE_EVERY_MS).is_none());
        std::fs::remove_dir(temp.path().join("floor")).unwrap();
        kept.due(10 + WRITE_EVERY_MS).unwrap().keep();
        assert!(kept.unwritten().is_none());
        assert_eq!(floor(&temp).raised(Timestamp(0)), NOW);
    }
}

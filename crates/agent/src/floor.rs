//! A time that this node knows to have passed, whatever its clock says.
//!
//! It is the highest time in what the owner and approved nodes signed and this node accepted. It
//! rises to five minutes after the node's own clock at most, so that nobody who signs a far future
//! closes the node to everything. It is used where time decides: a clock that was reset takes no
//! invite that has expired.

use realm_identity::{Timestamp, invite::CLOCK_TOLERANCE_MS};
use realm_store::{DataDir, StateFile, StateFileError};

/// Between two writes of a floor that rises; what a crash loses is no more.
const WRITE_EVERY_MS: u64 = 60_000;

#[derive(Debug)]
pub struct Floor {
    at: Timestamp,
    file: StateFile,
    written: Timestamp,
    /// On the monotonic clock; None before the first write of this run.
    written_at: Option<u64>,
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
            written: at,
            written_at: None,
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

    /// Writes a floor that has risen, once a minute.
    pub fn keep(&mut self, mono: u64) -> Result<(), StateFileError> {
        let due = self
            .written_at
            .is_none_or(|at| mono >= at.saturating_add(WRITE_EVERY_MS));
        if due && self.at != self.written {
            // A disk that fails is not tried again at once.
            self.written_at = Some(mono);
            return self.keep_now();
        }
        Ok(())
    }

    /// Writes a floor that has risen.
    pub fn keep_now(&mut self) -> Result<(), StateFileError> {
        if self.at != self.written {
            self.file.write(&self.at.as_millis().to_be_bytes())?;
            self.written = self.at;
        }
        Ok(())
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
        kept.keep(0).unwrap();
        assert!(!temp.path().join("floor").exists(), "nothing to keep yet");
        let later = |hours: u64| Timestamp(NOW.0 - 100 * HOUR + hours * HOUR);
        kept.saw(later(1), NOW);
        kept.keep(10).unwrap();
        assert_eq!(on_disk(), later(1));
        kept.saw(later(2), NOW);
        kept.keep(9 + WRITE_EVERY_MS).unwrap();
        assert_eq!(on_disk(), later(1));
        kept.keep(10 + WRITE_EVERY_MS).unwrap();
        assert_eq!(on_disk(), later(2));
        kept.saw(later(3), NOW);
        kept.keep_now().unwrap();
        assert_eq!(on_disk(), later(3));
    }
}

//! Cells that have ended for good: a job that ran is not run again because the agent was restarted.

use std::sync::{Arc, Mutex};

use realm_identity::{Hash, canonical};
use realm_manifest::{ComponentName, report::CellReport};
use realm_store::{StateFile, StateFileError};

use crate::supervisor::lock;

/// Ends that are remembered; the oldest go first.
const MAX_ENDS: usize = 1000;
/// The file with so many of them, each with a reason that was cut, stays below this.
const MAX_BYTES: usize = 4 * 1024 * 1024;

type Key = (ComponentName, u32);

/// What ended here, and how, on disk.
#[derive(Debug, Clone)]
pub struct Ended(Arc<Mutex<Ends>>);

#[derive(Debug)]
struct Ends {
    file: StateFile,
    /// In the order in which they ended.
    reports: Vec<CellReport>,
}

impl Ended {
    /// A damaged file counts as none: the node starts, and what ended here may run once more.
    pub fn open(file: StateFile) -> Result<Self, StateFileError> {
        let loss = "jobs of this node that have ended may run once more";
        let ends = file.read_or_lose(loss, |bytes| canonical::decode(&bytes, MAX_BYTES).ok())?;
        let reports = ends.unwrap_or_default();
        Ok(Self(Arc::new(Mutex::new(Ends { file, reports }))))
    }

    /// How a cell with this spec and generation ended here, if it did.
    pub fn of(&self, key: &Key, spec: &Hash, generation: u64) -> Option<CellReport> {
        let ends = lock(&self.0);
        let mut reports = ends.reports.iter().filter(|end| is_of(end, key));
        let end = reports.next()?;
        (end.spec == *spec && end.generation == generation).then(|| end.clone())
    }

    /// Remembers an end, durably. Blocks.
    pub fn put(&self, report: CellReport) -> Result<(), StateFileError> {
        let mut ends = lock(&self.0);
        let key = (report.component.clone(), report.index);
        ends.reports.retain(|end| !is_of(end, &key));
        ends.reports.push(report);
        let surplus = ends.reports.len().saturating_sub(MAX_ENDS);
        ends.reports.drain(..surplus);
        ends.write()
    }

    /// Whoever takes a component out, or stops it, may want it to run again. Blocks.
    pub fn forget(&self, key: &Key) -> Result<(), StateFileError> {
        let mut ends = lock(&self.0);
        let before = ends.reports.len();
        ends.reports.retain(|end| !is_of(end, key));
        if ends.reports.len() == before {
            return Ok(());
        }
        ends.write()
    }
}

impl Ends {
    fn write(&self) -> Result<(), StateFileError> {
        self.file.write(&canonical::encode(&self.reports))
    }
}

fn is_of(end: &CellReport, (component, index): &Key) -> bool {
    end.component == *component && end.index == *index
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    #[test]
    fn a_damaged_file_is_written_anew() {
        let temp = tempfile::tempdir().unwrap();
        let file = StateFile::new(temp.path().join("ended"));
        // Cut short, and whole with a content that is none.
        std::fs::write(file.path(), b"cut").unwrap();
        Ended::open(file.clone()).unwrap();
        file.write(b"whole, and not CBOR").unwrap();
        let ended = Ended::open(file.clone()).unwrap();
        assert!(lock(&ended.0).reports.is_empty());
        lock(&ended.0).write().unwrap();
        assert!(file.read().unwrap().is_some());
    }
}

//! Cells that have ended for good: a job that ran is not run again because the agent was restarted.

use std::{
    collections::BTreeSet,
    path::{Path, PathBuf},
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
    },
};

use realm_identity::{Hash, canonical};
use realm_manifest::{
    ComponentName,
    report::{CellReport, MAX_CELLS},
};
use realm_store::{Kept, StateFile, StateFileError};

use crate::supervisor::lock;

/// Ends that are remembered, the oldest go first: those of all cells that a node may have, and as
/// many of cells that moved away.
const MAX_ENDS: usize = 2 * MAX_CELLS as usize;
/// The file with so many of them, each with a reason that was cut, stays below this.
const MAX_BYTES: usize = 16 * 1024 * 1024;

type Key = (ComponentName, u32);

/// What a cell was made from: its component, spec and generation.
pub(crate) type Version = (ComponentName, Hash, u64);

/// What ended here, and how, on disk.
#[derive(Debug, Clone)]
pub struct Ended(Arc<Parts>);

#[derive(Debug)]
struct Parts {
    /// Held while the disk is written, so that a later content is not followed by an earlier one.
    file: Mutex<StateFile>,
    /// In the order in which they ended. Never held while the disk is written: the core looks here.
    reports: Mutex<Vec<CellReport>>,
    /// The disk does not have all of them: something was forgotten, or a write failed.
    unwritten: AtomicBool,
    /// Where the record is that was found damaged at this start.
    lost: Option<PathBuf>,
    /// What may have ended here before the record was lost.
    doubtful: Mutex<BTreeSet<Version>>,
}

impl Ended {
    /// A damaged file is put aside: the node starts, and what ended here may run once more.
    pub fn open(file: StateFile) -> Result<Self, StateFileError> {
        let file = file.holding(MAX_BYTES);
        let loss = "jobs of this node that have ended may run once more";
        let kept = file.read_or_lose(loss, |bytes| canonical::decode(&bytes, MAX_BYTES).ok())?;
        let (reports, lost) = match kept {
            Kept::Nothing => (Vec::new(), None),
            Kept::Whole(reports) => (reports, None),
            Kept::Lost(aside) => (Vec::new(), Some(aside)),
        };
        Ok(Self(Arc::new(Parts {
            file: Mutex::new(file),
            reports: Mutex::new(reports),
            unwritten: AtomicBool::new(false),
            lost,
            doubtful: Mutex::default(),
        })))
    }

    /// Where the record lies that was found damaged at this start.
    pub fn lost(&self) -> Option<&Path> {
        self.0.lost.as_deref()
    }

    /// Of these nobody knows whether they have ended here.
    pub fn doubt(&self, versions: BTreeSet<Version>) {
        *lock(&self.0.doubtful) = versions;
    }

    pub fn is_doubtful(&self, version: &Version) -> bool {
        lock(&self.0.doubtful).contains(version)
    }

    /// How a cell with this spec and generation ended here, if it did.
    pub fn of(&self, key: &Key, spec: &Hash, generation: u64) -> Option<CellReport> {
        let reports = lock(&self.0.reports);
        let mut ends = reports.iter().filter(|end| is_of(end, key));
        let end = ends.next()?;
        (end.spec == *spec && end.generation == generation).then(|| end.clone())
    }

    /// Remembers an end, durably. Blocks.
    pub fn put(&self, report: CellReport) -> Result<(), StateFileError> {
        let file = lock(&self.0.file);
        {
            let mut reports = lock(&self.0.reports);
            let key = (report.component.clone(), report.index);
            reports.retain(|end| !is_of(end, &key));
            reports.push(report);
            let surplus = reports.len().saturating_sub(MAX_ENDS);
            reports.drain(..surplus);
        }
        self.write(&file)
    }

    /// Whoever takes a component out, or stops it, may want it to run again. Holds at once; whether
    /// there was something to forget, which is on disk after [`Ended::keep`].
    pub fn forget(&self, key: &Key) -> bool {
        let mut reports = lock(&self.0.reports);
        let before = reports.len();
        reports.retain(|end| !is_of(end, key));
        let forgot = reports.len() < before;
        if forgot {
            self.0.unwritten.store(true, Ordering::Release);
        }
        forgot
    }

    /// Whether [`Ended::keep`] has something to write.
    pub fn is_unwritten(&self) -> bool {
        self.0.unwritten.load(Ordering::Acquire)
    }

    /// Writes what the disk does not have, unless somebody else has meanwhile. Blocks.
    pub fn keep(&self) -> Result<(), StateFileError> {
        let file = lock(&self.0.file);
        if !self.is_unwritten() {
            return Ok(());
        }
        self.write(&file)
    }

    /// `file` is locked, so what is written last is the newest.
    fn write(&self, file: &StateFile) -> Result<(), StateFileError> {
        let content = {
            let reports = lock(&self.0.reports);
            self.0.unwritten.store(false, Ordering::Release);
            canonical::encode(&*reports)
        };
        file.write(&content)
            .inspect_err(|_| self.0.unwritten.store(true, Ordering::Release))
    }
}

fn is_of(end: &CellReport, (component, index): &Key) -> bool {
    end.component == *component && end.index == *index
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use realm_manifest::report::{CellState, Reason};

    use super::*;

    fn end(index: u32) -> CellReport {
        let key = ("job".parse().unwrap(), index);
        let mut report = crate::supervisor::new_report(&key, Hash::of(b"spec"), 1);
        report.state = CellState::Failed;
        report
    }

    fn of(ended: &Ended, index: u32) -> Option<CellReport> {
        let key = ("job".parse().unwrap(), index);
        ended.of(&key, &Hash::of(b"spec"), 1)
    }

    #[test]
    fn a_damaged_file_is_put_aside() {
        let temp = tempfile::tempdir().unwrap();
        let file = StateFile::new(temp.path().join("ended"));
        let aside = temp.path().join("ended.damaged");
        // Cut short, and whole with a content that is none.
        for damage in [false, true] {
            match damage {
                false => std::fs::write(file.path(), b"cut").unwrap(),
                true => file.write(b"whole, and not CBOR").unwrap(),
            }
            let damaged = std::fs::read(file.path()).unwrap();
            let ended = Ended::open(file.clone()).unwrap();
            assert_eq!(ended.lost(), Some(&*aside));
            assert_eq!(std::fs::read(&aside).unwrap(), damaged);
            ended.put(end(0)).unwrap();
            let again = Ended::open(file.clone()).unwrap();
            assert_eq!((again.lost(), of(&again, 0)), (None, Some(end(0))));
        }
    }

    #[test]
    fn the_ends_of_a_full_node_are_there_after_a_restart() {
        let temp = tempfile::tempdir().unwrap();
        let file = StateFile::new(temp.path().join("ended"));
        let ended = Ended::open(file.clone()).unwrap();
        // The longest words that a report may have.
        let long = |index| CellReport {
            reason: Some(Reason {
                code: "limit".into(),
                message: "\u{1f980}".repeat(crate::reason::MAX_REASON_CHARS),
                help: Some("\u{1f980}".repeat(crate::reason::MAX_REASON_CHARS)),
            }),
            ..end(index)
        };
        let count = MAX_ENDS as u32;
        let last = count - 1;
        lock(&ended.0.reports).extend((0..last).map(long));
        ended.put(long(last)).unwrap();
        let ended = Ended::open(file.clone()).unwrap();
        assert_eq!(of(&ended, 0), Some(long(0)));
        assert_eq!(of(&ended, last), Some(long(last)));
        // One more, and the oldest goes.
        ended.put(long(count)).unwrap();
        let ended = Ended::open(file).unwrap();
        assert_eq!(of(&ended, 0), None);
        assert_eq!(of(&ended, 1), Some(long(1)));
        assert_eq!(of(&ended, count), Some(long(count)));
    }

    #[test]
    fn what_is_forgotten_is_so_at_once_and_after_a_restart_once_it_is_kept() {
        let temp = tempfile::tempdir().unwrap();
        let file = StateFile::new(temp.path().join("ended"));
        let ended = Ended::open(file.clone()).unwrap();
        ended.put(end(0)).unwrap();
        ended.put(end(1)).unwrap();
        let key = ("job".parse().unwrap(), 0);
        assert!(ended.forget(&key));
        assert!(!ended.forget(&key), "once");
        assert_eq!(of(&ended, 0), None);
        assert_eq!(of(&Ended::open(file.clone()).unwrap(), 0), Some(end(0)));
        ended.keep().unwrap();
        let again = Ended::open(file).unwrap();
        assert_eq!((of(&again, 0), of(&again, 1)), (None, Some(end(1))));
    }
}

//! Whether the ledger's disk takes writes, and when that is said.

use std::{
    fs, io,
    os::unix::fs::MetadataExt as _,
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use realm_manifest::report::Reason;
use realm_store::{LedgerError, free_bytes, try_room};
use tokio::sync::watch;

use crate::{
    fold::chain,
    ledger::LEDGER,
    reason::{DATA_GONE, DISK_FAILED, DISK_FULL, reason},
};

/// With less room than this a disk counts as full: the largest intent must fit.
const ROOM_BYTES: usize = 1024 * 1024;
/// While nothing is written, between two tries.
const TRY_EVERY: Duration = Duration::from_secs(2);
/// Between two lines of the agent's log about the same trouble.
const TELL_EVERY: Duration = Duration::from_secs(10 * 60);

/// Lives on the ledger's thread.
#[derive(Debug)]
pub(super) struct Watch {
    dir: PathBuf,
    /// The file by which the directory is known: it is open for as long as the agent runs, so that no other file is
    /// taken for it.
    ledger: Option<FileId>,
    trouble: watch::Sender<Option<Reason>>,
    /// When the log last said so.
    told: Option<Instant>,
    refused: Refused,
    tried: Option<Instant>,
}

impl Watch {
    pub fn new(dir: PathBuf, trouble: watch::Sender<Option<Reason>>) -> Self {
        let ledger = match FileId::of(&dir.join(LEDGER)) {
            Ok(ledger) => Some(ledger),
            Err(error) => {
                tracing::warn!(%error, "whether the data directory is taken away is not watched: see {LEDGER}");
                None
            }
        };
        Self {
            ledger,
            dir,
            trouble,
            told: None,
            refused: Refused::default(),
            tried: None,
        }
    }

    /// A batch was not written.
    pub fn failed(&mut self, error: &LedgerError) {
        let why = match error {
            LedgerError::Full(_) => full(),
            LedgerError::Failed { .. } => failed("mend the disk, then start the agent again"),
            // After a failed write each batch opens the ledger again, and may find any of these.
            LedgerError::Open { .. }
            | LedgerError::Read(_)
            | LedgerError::Write(_)
            | LedgerError::Mark(_)
            | LedgerError::Closed => {
                failed("see the agent's log and mend the disk; writing goes on by itself")
            }
            LedgerError::Damaged { .. }
            | LedgerError::RolledBack { .. }
            | LedgerError::Gone { .. }
            | LedgerError::MarkDamaged => {
                failed("the agent's log says what is wrong with the ledger, and what to do")
            }
            // Refused for what the batch says: the disk is not to blame.
            LedgerError::Refused { .. } | LedgerError::Entry { .. } => {
                if let Some(times) = self.refused.again(Instant::now()) {
                    let error = chain(error);
                    tracing::error!(error, times, "the ledger was not written");
                }
                return;
            }
        };
        self.begins(why, &chain(error));
    }

    /// Whether what is written now lasts: not where the directory was taken away or replaced under the agent,
    /// which still holds its files open.
    pub fn is_there(&mut self) -> bool {
        let Some(ledger) = &self.ledger else {
            return true;
        };
        let found = match FileId::of(&self.dir.join(LEDGER)) {
            Ok(found) if found == *ledger => return true,
            Ok(_) => "another file is there".to_owned(),
            Err(error) if is_absence(&error) => error.to_string(),
            // A disk that fails shows in what is written.
            Err(error) => {
                tracing::debug!(%error, "whether the data directory is there is not known");
                return true;
            }
        };
        let path = self.dir.join(LEDGER);
        self.begins(gone(), &format!("{}: {found}", path.display()));
        false
    }

    /// Looks whether the directory is there and has room, and after trouble whether `write` works again.
    pub fn look(&mut self, write: impl FnOnce() -> Result<(), LedgerError>) {
        if !self.is_there() {
            return;
        }
        let free = free_bytes(&self.dir);
        let no_room = free.is_some_and(|free| free < ROOM_BYTES as u64);
        if no_room {
            let left = free.unwrap_or(0);
            return self.begins(full(), &format!("{left} bytes are left"));
        }
        if self.trouble.borrow().is_none() || !self.is_time() {
            return;
        }
        self.tried = Some(Instant::now());
        if let Err(error) = try_room(&self.dir, ROOM_BYTES) {
            return tracing::debug!(%error, "the disk does not take a trial yet");
        }
        match write() {
            Ok(()) => {
                tracing::info!("the disk takes writes again");
                self.told = None;
                self.trouble.send_replace(None);
            }
            Err(error) => self.failed(&error),
        }
    }

    fn is_time(&self) -> bool {
        self.tried.is_none_or(|tried| tried.elapsed() >= TRY_EVERY)
    }

    fn begins(&mut self, why: Reason, error: &str) {
        let due = self.told.is_none_or(|told| told.elapsed() >= TELL_EVERY);
        if due {
            tracing::error!(error, "nothing is written: {}", why.message);
            self.told = Some(Instant::now());
        }
        self.trouble.send_if_modified(|now| {
            let new = now.as_ref() != Some(&why);
            *now = Some(why);
            new
        });
    }
}

/// Which file it is, whatever its name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct FileId {
    device: u64,
    inode: u64,
}

impl FileId {
    fn of(path: &Path) -> io::Result<Self> {
        let found = fs::symlink_metadata(path)?;
        Ok(Self {
            device: found.dev(),
            inode: found.ino(),
        })
    }
}

fn is_absence(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::NotFound | io::ErrorKind::NotADirectory
    )
}

/// Batches that the ledger does not take. What was not written before is asked for again and again,
/// so that the same refusal may come many times a second.
#[derive(Debug, Default)]
struct Refused {
    told: Option<Instant>,
    /// Since then.
    times: u64,
}

impl Refused {
    /// One more; how many there were since the last line, where it is time for another.
    fn again(&mut self, now: Instant) -> Option<u64> {
        self.times += 1;
        let since = self.told.map(|told| now.saturating_duration_since(told));
        if since.is_some_and(|since| since < TELL_EVERY) {
            return None;
        }
        self.told = Some(now);
        Some(std::mem::take(&mut self.times))
    }
}

fn full() -> Reason {
    let message = "its disk is full: new intents and programs may not reach it";
    let help = "free space where its data directory lies; writing goes on by itself";
    reason(DISK_FULL, message.to_owned(), Some(help))
}

fn gone() -> Reason {
    let message = "its data directory was taken away while it runs: nothing that it takes would last, so it takes no intents";
    let help = "move the directory back, and it goes on by itself; where it is lost, stop the agent and put a backup there, or enroll the machine anew and take the old node out: realm nodes rm";
    reason(DATA_GONE, message.to_owned(), Some(help))
}

fn failed(help: &str) -> Reason {
    let message = "its disk takes no writes: new intents and programs do not reach it";
    reason(DISK_FAILED, message.to_owned(), Some(help))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    #[test]
    fn trouble_lasts_until_a_write_works() {
        let dir = tempfile::tempdir().unwrap();
        let (tell, told) = watch::channel(None);
        let mut watch = Watch::new(dir.path().to_owned(), tell);
        let code = || told.borrow().as_ref().map(|why: &Reason| why.code.clone());

        watch.look(|| panic!("nothing is tried while all is well"));
        assert_eq!(code(), None);
        watch.failed(&LedgerError::Refused { what: "a test" });
        assert_eq!(code(), None, "the disk is not to blame");

        watch.failed(&LedgerError::Failed { source: None });
        assert_eq!(code().as_deref(), Some("disk-failed"));
        watch.look(|| Err(LedgerError::Failed { source: None }));
        assert_eq!(code().as_deref(), Some("disk-failed"));
        watch.look(|| panic!("not again at once"));
        watch.tried = None;
        watch.look(|| Ok(()));
        assert_eq!(code(), None);
    }

    #[test]
    fn a_directory_that_was_taken_away_is_trouble_until_it_is_back() {
        let temp = tempfile::tempdir().unwrap();
        let (dir, away) = (temp.path().join("data"), temp.path().join("away"));
        fs::create_dir(&dir).unwrap();
        fs::write(dir.join(LEDGER), "the ledger").unwrap();
        let (tell, told) = watch::channel(None);
        let mut watch = Watch::new(dir.clone(), tell);
        let code = || told.borrow().as_ref().map(|why: &Reason| why.code.clone());
        assert!(watch.is_there());

        fs::rename(&dir, &away).unwrap();
        assert!(!watch.is_there());
        watch.look(|| panic!("nothing is tried"));
        assert_eq!(code().as_deref(), Some("data-gone"));
        // Another directory in its place is none of this agent's.
        fs::create_dir(&dir).unwrap();
        fs::write(dir.join(LEDGER), "the ledger").unwrap();
        assert!(!watch.is_there());
        fs::remove_dir_all(&dir).unwrap();
        fs::write(&dir, "a file").unwrap();
        assert!(!watch.is_there());

        fs::remove_file(&dir).unwrap();
        fs::rename(&away, &dir).unwrap();
        watch.look(|| Ok(()));
        assert_eq!(code(), None);
    }

    #[test]
    fn a_batch_that_is_refused_again_and_again_is_told_once_and_then_rarely() {
        let mut refused = Refused::default();
        let start = Instant::now();
        let lines: Vec<_> = (0..1200)
            .filter_map(|half_second| {
                refused.again(start + Duration::from_millis(500) * half_second)
            })
            .collect();
        assert_eq!(lines, [1], "in ten minutes, two tries a second");
        assert_eq!(refused.again(start + TELL_EVERY), Some(1200));
        assert_eq!(refused.again(start + TELL_EVERY), None);
    }

    #[test]
    fn a_ledger_that_cannot_be_opened_again_is_trouble_and_told_once() {
        let dir = tempfile::tempdir().unwrap();
        // What redb's own errors are is the store's to know: a file that is no ledger gives one.
        let file = dir.path().join("ledger.redb");
        std::fs::write(&file, [7; 8192]).unwrap();
        let found = realm_store::Ledger::open(&file).expect_err("it is no ledger");
        let damaged = LedgerError::Damaged {
            what: "a page".into(),
        };
        for error in [
            found,
            damaged,
            LedgerError::Closed,
            LedgerError::MarkDamaged,
        ] {
            let (tell, told) = watch::channel(None);
            let mut watch = Watch::new(dir.path().to_owned(), tell);
            watch.failed(&error);
            let why: Reason = told.borrow().clone().expect("trouble");
            assert_eq!(why.code, "disk-failed", "{error:?}");
            let first = watch.told;
            assert!(first.is_some());
            watch.failed(&error);
            assert_eq!(watch.told, first, "{error:?} is in the log once");
        }
    }
}

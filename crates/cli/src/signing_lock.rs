//! One command of this person signs for a realm at a time: two that sign on one head would fork it.

use std::{
    fs::{File, TryLockError},
    io::{Read as _, Seek as _, Write as _},
    path::Path,
    time::Duration,
};

use crate::{
    error::{CliError, Context as _, ExitCode, Result},
    file,
};

/// Who signs is done within seconds; a person who confirms each signature takes longer.
const PATIENCE: Duration = Duration::from_secs(60);
const LOOK: Duration = Duration::from_millis(20);
/// A process id is shorter.
const MAX_NOTE_BYTES: u64 = 32;

/// Held while a head is read and an intent on it is signed and handed in. The system gives it back
/// when the process ends, however it ends.
#[derive(Debug)]
pub struct SigningLock {
    _file: File,
}

impl SigningLock {
    /// Waits its turn. May be dropped midway.
    pub async fn take(path: &Path) -> Result<Self> {
        Self::take_within(path, PATIENCE).await
    }

    async fn take_within(path: &Path, patience: Duration) -> Result<Self> {
        let described = || format!("cannot lock {}", path.display());
        let mut file = file::open_lock(path).context(described())?;
        if !try_lock(&file).context(described())? {
            tracing::info!("waiting for {}, which signs for this realm", holder(path));
            let turn = async {
                while !try_lock(&file)? {
                    tokio::time::sleep(LOOK).await;
                }
                Ok::<(), std::io::Error>(())
            };
            tokio::time::timeout(patience, turn)
                .await
                .map_err(|_| busy(path, patience))?
                .context(described())?;
        }
        // For whoever waits; nothing depends on it.
        let noted = file
            .set_len(0)
            .and_then(|()| file.rewind())
            .and_then(|()| write!(file, "{}", std::process::id()));
        if let Err(error) = noted {
            tracing::debug!(%error, "who holds the lock is not noted");
        }
        Ok(Self { _file: file })
    }
}

fn try_lock(file: &File) -> std::io::Result<bool> {
    match file.try_lock() {
        Ok(()) => Ok(true),
        Err(TryLockError::WouldBlock) => Ok(false),
        Err(TryLockError::Error(error)) => Err(error),
    }
}

/// Who holds the lock, as it noted itself.
fn holder(path: &Path) -> String {
    let mut note = String::new();
    let read =
        File::open(path).and_then(|file| file.take(MAX_NOTE_BYTES).read_to_string(&mut note));
    match (read, note.parse::<u32>()) {
        (Ok(_), Ok(pid)) => format!("another realm command (process {pid})"),
        _ => "another realm command".to_owned(),
    }
}

fn busy(path: &Path, patience: Duration) -> CliError {
    let patience = humantime::format_duration(patience);
    CliError::new(
        ExitCode::Partial,
        format!(
            "{} still signs for this realm after {patience}",
            holder(path)
        ),
    )
    .help("nothing was signed: try again when it is done, or end it")
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    #[tokio::test]
    async fn only_one_signs_and_who_waits_is_told_whom_for() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("lock");
        let held = SigningLock::take(&path).await.unwrap();
        let error = SigningLock::take_within(&path, LOOK).await.unwrap_err();
        assert_eq!(error.code, ExitCode::Partial);
        let me = format!("process {}", std::process::id());
        assert!(error.message.contains(&me), "{error}");
        drop(held);
        SigningLock::take(&path).await.unwrap();
    }
}

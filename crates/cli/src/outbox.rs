//! Signed intents that are not safe with the nodes yet, so that they can be sent again as they are.
//!
//! `outbox` is the one that was signed and not acknowledged; `kept/<revision>` are those that one node
//! acknowledged where a second one exists: were that node lost, they would be too. Who reads or
//! writes holds the realm's signing lock.

use std::path::{Path, PathBuf};

use minicbor::bytes::ByteVec;

use crate::{
    error::{CliError, Context as _, Result},
    file,
};

/// An intent with its payload stays below this.
const MAX_BYTES: u64 = 256 * 1024;
/// Intents kept beside the outbox; beyond that the oldest go, which were offered the most often.
const MAX_KEPT: usize = 64;

/// The signed intents of one realm.
#[derive(Debug)]
pub struct Outbox<'a> {
    dir: &'a Path,
}

/// A signed intent as it is sent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sealed {
    pub entry: Vec<u8>,
    pub payload: Vec<u8>,
}

impl<'a> Outbox<'a> {
    pub const fn new(dir: &'a Path) -> Self {
        Self { dir }
    }

    /// Keeps an intent before it is sent.
    pub fn put(&self, intent: &Sealed) -> Result<()> {
        let bytes = minicbor::to_vec((
            ByteVec::from(intent.entry.clone()),
            ByteVec::from(intent.payload.clone()),
        ))
        .expect("writing to memory does not fail");
        let path = self.path();
        file::replace(&path, &bytes).context(format!("cannot write {}", path.display()))
    }

    /// The intent that was signed and never acknowledged.
    pub fn unacknowledged(&self) -> Result<Option<Sealed>> {
        read(&self.path())
    }

    /// The node has it, or refused it for good.
    pub fn clear(&self) -> Result<()> {
        remove(&self.path())
    }

    /// One node has it as `revision`, and another one exists: what was put is kept.
    pub fn keep(&self, revision: u64) -> Result<()> {
        let to = self.kept_dir().join(revision.to_string());
        let described = || format!("cannot keep {}", to.display());
        file::create_dir(&self.kept_dir()).context(described())?;
        file::rename(&self.path(), &to).context(described())?;
        let revisions = self.revisions()?;
        let over = revisions.len().saturating_sub(MAX_KEPT);
        revisions[..over]
            .iter()
            .try_for_each(|old| remove(&self.kept_dir().join(old.to_string())))
    }

    /// What one node acknowledged, by revision.
    pub fn kept(&self) -> Result<Vec<(u64, Sealed)>> {
        let mut kept = Vec::new();
        for revision in self.revisions()? {
            let intent = read(&self.kept_dir().join(revision.to_string()))?;
            kept.extend(intent.map(|intent| (revision, intent)));
        }
        Ok(kept)
    }

    /// Two nodes have what was kept, or it is given up.
    pub fn forget_kept(&self) -> Result<()> {
        self.forget_kept_to(u64::MAX)
    }

    /// The same for what was kept up to this revision.
    pub fn forget_kept_to(&self, last: u64) -> Result<()> {
        let revisions = self.revisions()?;
        let safe = revisions.iter().filter(|revision| **revision <= last);
        let dir = self.kept_dir();
        safe.map(|revision| dir.join(revision.to_string()))
            .try_for_each(|path| remove(&path))
    }

    fn revisions(&self) -> Result<Vec<u64>> {
        let dir = self.kept_dir();
        let described = || format!("cannot read {}", dir.display());
        let entries = match std::fs::read_dir(&dir) {
            Ok(entries) => entries,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
            Err(error) => return Err(error).context(described()),
        };
        let mut revisions = Vec::new();
        for entry in entries {
            let name = entry.context(described())?.file_name();
            revisions.extend(name.to_string_lossy().parse::<u64>());
        }
        revisions.sort_unstable();
        Ok(revisions)
    }

    fn path(&self) -> PathBuf {
        self.dir.join("outbox")
    }

    fn kept_dir(&self) -> PathBuf {
        self.dir.join("kept")
    }
}

fn read(path: &Path) -> Result<Option<Sealed>> {
    let described = || format!("cannot read a signed intent, {}", path.display());
    let Some(bytes) = file::read(path, MAX_BYTES).context(described())? else {
        return Ok(None);
    };
    let decoded: std::result::Result<(ByteVec, ByteVec), _> = minicbor::decode(&bytes);
    let (entry, payload) = decoded
        .context(described())
        .map_err(|error: CliError| {
            error.help(format!(
                "the file is damaged. It held an intent that may have reached no node: look for it in realm history, and run its command again if it is not there. First: rm {}",
                path.display()
            ))
        })?;
    Ok(Some(Sealed {
        entry: entry.into(),
        payload: payload.into(),
    }))
}

fn remove(path: &Path) -> Result<()> {
    match std::fs::remove_file(path) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(error).context(format!("cannot remove {}", path.display()))
        }
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    fn intent(text: &str) -> Sealed {
        Sealed {
            entry: text.as_bytes().to_vec(),
            payload: b"payload".to_vec(),
        }
    }

    #[test]
    fn returns_what_was_put_and_keeps_what_one_node_has() {
        let dir = tempfile::tempdir().unwrap();
        let outbox = Outbox::new(dir.path());
        outbox.put(&intent("a")).unwrap();
        assert_eq!(outbox.unacknowledged().unwrap(), Some(intent("a")));
        outbox.keep(10).unwrap();
        assert_eq!(outbox.unacknowledged().unwrap(), None);
        outbox.put(&intent("b")).unwrap();
        outbox.keep(9).unwrap();
        let kept = outbox.kept().unwrap();
        assert_eq!(kept, [(9, intent("b")), (10, intent("a"))]);
        outbox.forget_kept_to(9).unwrap();
        assert_eq!(outbox.kept().unwrap(), [(10, intent("a"))]);
        outbox.forget_kept().unwrap();
        assert!(outbox.kept().unwrap().is_empty());
        outbox.clear().unwrap();
    }

    #[test]
    fn what_is_kept_is_bounded() {
        let dir = tempfile::tempdir().unwrap();
        let outbox = Outbox::new(dir.path());
        let last = MAX_KEPT as u64 + 3;
        for revision in 1..=last {
            outbox.put(&intent("a")).unwrap();
            outbox.keep(revision).unwrap();
        }
        let kept = outbox.kept().unwrap();
        assert_eq!((kept.len(), kept[0].0), (MAX_KEPT, 4));
    }

    #[test]
    fn damage_names_the_file() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("outbox"), "").unwrap();
        let error = Outbox::new(dir.path()).unacknowledged().unwrap_err();
        let path = dir.path().join("outbox").display().to_string();
        assert!(error.message.contains(&path), "{error}");
        assert!(error.help.unwrap().contains("rm "));
    }
}

//! Signed intents that are not safe with the nodes yet, so that they can be sent again as they are.
//!
//! `outbox` is the one that was signed and not acknowledged; `kept/<revision>` are those that one node
//! acknowledged where a second one exists: were that node lost, they would be too. Who reads or
//! writes holds the realm's signing lock.

use std::path::{Path, PathBuf};

use minicbor::bytes::ByteVec;
use realm_identity::{Artifact, Entry, Hash, Signed};

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

impl Sealed {
    /// The hash that the entry has in the log.
    pub fn hash(&self) -> Result<Hash> {
        let entry = Signed::<Entry>::from_wire(&self.entry);
        Ok(entry.context("the signed intent is damaged")?.hash())
    }
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
    let intent = decode(&bytes).context(described()).map_err(|error: CliError| {
        error.help(format!(
            "the file is damaged. It held an intent that may have reached no node: look for it in realm history, and run its command again if it is not there. First: rm {}",
            path.display()
        ))
    })?;
    Ok(Some(intent))
}

/// What was written: bytes that changed on disk would be refused by every node, as if somebody else
/// had been faster, and be dropped for it.
fn decode(bytes: &[u8]) -> std::result::Result<Sealed, Damage> {
    let (entry, payload): (ByteVec, ByteVec) = minicbor::decode(bytes)?;
    let signed = Signed::<Entry>::from_wire(&entry)?;
    let body = signed.body.as_ref();
    if body.is_none_or(|body| body.payload != Artifact::of(&payload)) {
        return Err(Damage::Payload);
    }
    Ok(Sealed {
        entry: entry.into(),
        payload: payload.into(),
    })
}

#[derive(Debug, thiserror::Error)]
enum Damage {
    #[error("it is not made of an intent and its payload")]
    Form(#[from] minicbor::decode::Error),
    #[error(transparent)]
    Entry(#[from] realm_identity::VerifyError),
    #[error("its payload is not the one that was signed")]
    Payload,
}

fn remove(path: &Path) -> Result<()> {
    file::remove(path).context(format!("cannot remove {}", path.display()))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use realm_identity::{Body, Genesis, Hash, Kind, SecretKey, Target, Timestamp};

    use super::*;

    fn intent(text: &str) -> Sealed {
        let owner = SecretKey::from_seed(&[1; 32]);
        let genesis = Genesis::new(owner.public(), "home".into(), [0; 32]);
        let realm = Signed::sign(genesis, &owner).unwrap().realm_id();
        let payload = text.as_bytes().to_vec();
        let body = Body {
            state: Hash::of(b"state"),
            kind: Kind::Push.number(),
            target: Target::Component("web".into()),
            not_after: None,
            issued_at: Timestamp(1),
            payload: Artifact::of(&payload),
        };
        let entry = Entry::new(realm, owner.public(), 1, realm, body);
        Sealed {
            entry: Signed::sign(entry, &owner).unwrap().to_wire(),
            payload,
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

    #[test]
    fn a_bit_that_turned_over_is_damage_and_not_another_intent() {
        let dir = tempfile::tempdir().unwrap();
        let outbox = Outbox::new(dir.path());
        outbox.put(&intent("a")).unwrap();
        outbox.keep(1).unwrap();
        let path = dir.path().join("kept/1");
        let whole = std::fs::read(&path).unwrap();
        for at in 0..whole.len() * 8 {
            let mut flipped = whole.clone();
            flipped[at / 8] ^= 1 << (at % 8);
            std::fs::write(&path, flipped).unwrap();
            let error = outbox.kept().unwrap_err();
            assert!(error.message.contains("kept/1"), "bit {at}: {error}");
        }
    }
}

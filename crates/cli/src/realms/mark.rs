//! The newest revision that this person saw or signed, and which entry it was. In the realm's directory `mark` has
//! the number and `head` the number and the entry's hash: earlier versions know `mark` alone, and one that raises it
//! leaves a `head` of another number, which says nothing.

use std::fs::File;

use realm_identity::Hash;

use super::{MAX_BYTES, Realm};
use crate::{
    checked,
    error::{CliError, Context as _, Result},
    file,
};

impl Realm {
    /// The highest revision this person saw or signed; 0 before the first.
    pub fn mark(&self) -> Result<u64> {
        let path = self.dir.join("mark");
        let described = || {
            format!(
                "cannot read the newest revision you have seen, {}",
                path.display()
            )
        };
        let help = format!(
            "if the file is damaged, remove it: the next command takes the revision that a node has; compare it with the one you remember: rm {}",
            path.display()
        );
        let Some(bytes) = file::read(&path, MAX_BYTES)
            .context(described())
            .map_err(|error| error.help(&help))?
        else {
            return Ok(0);
        };
        let mark = checked::unseal(&bytes).and_then(|mark| mark.parse().ok());
        mark.ok_or_else(|| CliError::failed(format!("{}: it is damaged", described())).help(help))
    }

    /// The entry that is the newest revision, where it is known: an earlier version kept the number alone.
    pub fn seen_head(&self) -> Result<Option<Hash>> {
        self.head_at(self.mark()?)
    }

    fn head_at(&self, mark: u64) -> Result<Option<Hash>> {
        let path = self.dir.join("head");
        let described = || {
            format!(
                "cannot read which entry you have seen last, {}",
                path.display()
            )
        };
        let help = format!(
            "if the file is damaged, remove it: the next command takes the entry that a node has: rm {}",
            path.display()
        );
        let Some(bytes) = file::read(&path, MAX_BYTES)
            .context(described())
            .map_err(|error| error.help(&help))?
        else {
            return Ok(None);
        };
        let head = checked::unseal(&bytes).and_then(|word| {
            let (revision, head) = word.split_once(' ')?;
            Some((revision.parse::<u64>().ok()?, head.parse::<Hash>().ok()?))
        });
        let (revision, head) = head.ok_or_else(|| {
            CliError::failed(format!("{}: it is damaged", described())).help(help)
        })?;
        Ok((revision == mark).then_some(head))
    }

    /// Whether `head` contradicts what this person has seen: another entry of the same revision.
    pub fn contradicts(&self, revision: u64, head: Hash) -> Result<bool> {
        let mark = self.mark()?;
        Ok(revision == mark && self.head_at(mark)?.is_some_and(|seen| seen != head))
    }

    /// Raises the mark to an entry, durably; never lowers it, nor takes another entry of the same revision.
    pub fn raise_mark(&self, revision: u64, head: Hash) -> Result<()> {
        let is_news = || {
            let mark = self.mark()?;
            Ok::<_, CliError>(
                revision > mark || (revision == mark && self.head_at(mark)?.is_none()),
            )
        };
        if !is_news()? {
            return Ok(());
        }
        let _turn = self.mark_turn()?;
        // Another command may have raised it meanwhile.
        if is_news()? {
            // The number first: after a crash in between, the entry alone would say nothing, and no
            // longer which one the old number was.
            self.write_mark(revision)?;
            self.write_head(revision, head)?;
        }
        Ok(())
    }

    /// Gives up what was seen above `revision`, and which entry that was.
    pub fn lower_mark(&self, revision: u64) -> Result<()> {
        let _turn = self.mark_turn()?;
        self.write_mark(revision)?;
        let path = self.dir.join("head");
        file::remove(&path).context(format!("cannot remove {}", path.display()))
    }

    fn write_head(&self, revision: u64, head: Hash) -> Result<()> {
        let path = self.dir.join("head");
        file::replace(
            &path,
            checked::seal(&format!("{revision} {head}")).as_bytes(),
        )
        .context(format!("cannot write {}", path.display()))
    }

    fn write_mark(&self, revision: u64) -> Result<()> {
        let path = self.dir.join("mark");
        file::replace(&path, checked::seal(&revision.to_string()).as_bytes())
            .context(format!("cannot write {}", path.display()))
    }

    /// Held for the moment between reading the mark and writing it, so the wait for it is as short.
    fn mark_turn(&self) -> Result<File> {
        let path = self.dir.join("mark.lock");
        let file = file::open_lock(&path).and_then(|file| file.lock().map(|()| file));
        file.context(format!("cannot lock {}", path.display()))
    }
}

//! What a realm's nodes and components were called, who asked to join and where the log forked, when that was last
//! read: what a shell offers after TAB without asking a node. In the realm's directory `names`, `components`,
//! `pending` and `branches`, one a line.

use super::{MAX_BYTES, Realm};
use crate::{
    error::{Context as _, Result},
    file,
};

impl Realm {
    /// What the nodes of the realm were called when their status was last read.
    pub fn names(&self) -> Result<Vec<String>> {
        self.lines("names", "cannot read the names of the realm's nodes")
    }

    /// A help and no more, as saved addresses are.
    pub fn remember_names(&self, names: &[String]) {
        self.remember_lines("names", names);
    }

    /// The components that the realm had when its status was last read, and those pushed since.
    pub fn components(&self) -> Result<Vec<String>> {
        self.lines(
            "components",
            "cannot read the names of the realm's components",
        )
    }

    /// A help and no more, as saved addresses are.
    pub fn remember_components(&self, names: &[String]) {
        self.remember_lines("components", names);
    }

    /// One more, beside those that are known.
    pub fn remember_component(&self, name: &str) {
        let mut known = self.components().unwrap_or_default();
        known.push(name.to_owned());
        known.sort();
        known.dedup();
        self.remember_components(&known);
    }

    /// Who asked to join when that was last read: names, and keys where a name does not tell who is meant.
    pub fn pending(&self) -> Result<Vec<String>> {
        self.lines("pending", "cannot read who asked to join the realm")
    }

    /// A help and no more, as saved addresses are.
    pub fn remember_pending(&self, nodes: &[String]) {
        self.remember_lines("pending", nodes);
    }

    /// The newest entries of the branches of a fork, where one was seen.
    pub fn branches(&self) -> Result<Vec<String>> {
        self.lines("branches", "cannot read the branches of the realm's fork")
    }

    /// A help and no more, as saved addresses are.
    pub fn remember_branches(&self, tips: &[String]) {
        self.remember_lines("branches", tips);
    }

    fn remember_lines(&self, name: &str, lines: &[String]) {
        let path = self.dir.join(name);
        // What cannot be read is written anew.
        if self.lines(name, "").is_ok_and(|known| known == lines) {
            return;
        }
        let written = file::replace(&path, lines.join("\n").as_bytes())
            .context(format!("cannot remember names in {}", path.display()));
        if let Err(error) = written {
            tracing::warn!("{}", error.in_one_line());
        }
    }

    /// What a file of this realm says, line by line; nothing where there is none.
    pub(super) fn lines(&self, name: &str, failed: &str) -> Result<Vec<String>> {
        let bytes = file::read(&self.dir.join(name), MAX_BYTES).context(failed)?;
        let text = String::from_utf8_lossy(&bytes.unwrap_or_default()).into_owned();
        Ok(text.lines().map(str::to_owned).collect())
    }
}

//! Merges: what ends a fork.

use std::collections::BTreeSet;

use realm_identity::{Entry, Hash, Kind, Signed};
use realm_manifest::payload::{Merge, Payload};

use super::{Log, next_seq};
use crate::{Fold, FoldRefusal, Refusal};

type Reapplied<'a> = Vec<(&'a Signed<Entry>, &'a [u8])>;

/// Everything that a merge names.
pub(super) struct Named<'a> {
    pub heads: Vec<&'a Signed<Entry>>,
    pub reapplied: Reapplied<'a>,
}

impl<F: Fold> Log<F> {
    /// Checks what can be said of a merge by itself. Whether it names every head is decided by
    /// the walk, each time another entry appears.
    pub(super) fn check_merge(&self, entry: &Signed<Entry>, payload: &[u8]) -> Result<(), Refusal> {
        let merge = decode(payload).ok_or(Refusal::BadMerge("its payload cannot be read"))?;
        let heads: BTreeSet<Hash> = merge.heads.iter().copied().collect();
        if heads.len() != merge.heads.len() || !merge.heads.is_sorted() || heads.len() < 2 {
            return Err(Refusal::BadMerge(
                "its heads are not two or more, sorted, each once",
            ));
        }
        if merge.keep != entry.prev || !heads.contains(&merge.keep) {
            return Err(Refusal::BadMerge("its parent is not the head it keeps"));
        }
        let unknown = merge
            .heads
            .iter()
            .chain(&merge.reapply)
            .find(|hash| !self.tree.contains_key(hash));
        if let Some(prev) = unknown {
            return Err(Refusal::UnknownParent { prev: *prev });
        }
        let newest = heads
            .iter()
            .map(|hash| self.seq_of(*hash))
            .max()
            .unwrap_or(0);
        let expected = next_seq(newest, entry)?;
        if entry.seq != expected {
            return Err(Refusal::BadSequence {
                found: entry.seq,
                expected,
            });
        }
        let structural = |hash: &&Hash| {
            let kind = self.tree.get(hash).and_then(|stored| stored.entry.kind());
            matches!(kind, Some(Kind::OwnerRotate | Kind::Merge) | None)
        };
        match merge.reapply.iter().find(structural) {
            Some(_) => Err(Refusal::BadMerge(
                "it applies an owner change or a merge again",
            )),
            None => Ok(()),
        }
    }

    /// The merge below the fork at `at` that names every other branch, if there is one.
    pub(super) fn merge_of(&self, at: Hash) -> Option<Hash> {
        let mut open = vec![at];
        while let Some(hash) = open.pop() {
            if self.is_merge(hash) && self.names_all(at, hash) {
                return Some(hash);
            }
            open.extend(self.children(hash));
        }
        None
    }

    fn names_all(&self, at: Hash, merge: Hash) -> bool {
        let payload = self
            .tree
            .get(&merge)
            .and_then(|stored| stored.payload.as_deref());
        let Some(named) = payload.and_then(decode) else {
            return false;
        };
        let leaves: BTreeSet<Hash> = self
            .leaves(at, Some(merge))
            .into_iter()
            .map(|point| point.hash)
            .collect();
        leaves.into_iter().eq(named.heads)
    }

    /// Every entry that the head names, where the head is a merge: its heads, and what it applies again.
    pub fn named_by_head(&self) -> impl Iterator<Item = (&Signed<Entry>, Option<&[u8]>)> {
        let payload = self
            .entry(self.head.hash)
            .filter(|(entry, _)| entry.kind() == Some(Kind::Merge))
            .and_then(|(_, payload)| payload);
        let merge = payload.and_then(decode);
        merge
            .into_iter()
            .flat_map(|merge| merge.heads.into_iter().chain(merge.reapply))
            .filter_map(|hash| self.entry(hash))
    }

    pub(super) fn named(&self, payload: &[u8]) -> Result<Named<'_>, FoldRefusal> {
        let unreadable = || FoldRefusal::Refused("the merge cannot be read".to_owned());
        let merge = decode(payload).ok_or_else(unreadable)?;
        let heads = merge
            .heads
            .iter()
            .map(|hash| Some(&self.tree.get(hash)?.entry));
        let reapplied = merge.reapply.iter().map(|hash| {
            let stored = self.tree.get(hash)?;
            Some((&stored.entry, stored.payload.as_deref()?))
        });
        Ok(Named {
            heads: heads.collect::<Option<_>>().ok_or_else(unreadable)?,
            reapplied: reapplied.collect::<Option<_>>().ok_or_else(unreadable)?,
        })
    }
}

fn decode(payload: &[u8]) -> Option<Merge> {
    match Payload::decode(Kind::Merge, payload) {
        Ok(Payload::Merge(merge)) => Some(merge),
        _ => None,
    }
}

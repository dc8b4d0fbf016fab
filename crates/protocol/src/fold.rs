//! The meaning of intents, supplied by the caller: how one changes the desired state.

use realm_identity::{Entry, Genesis, Signed};

/// Why an entry was not folded.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum FoldRefusal {
    /// A later version wrote it: it is kept and forwarded, and the fold stops before it.
    #[error("not understood by this version: {0}")]
    Incompatible(String),
    /// It makes no sense in this state: it is not kept.
    #[error("{0}")]
    Refused(String),
}

/// A pure function over canonical state bytes: equal input must give equal bytes on every node.
pub trait Fold {
    /// The state right after the genesis.
    fn genesis(&self, genesis: &Genesis) -> Vec<u8>;

    /// The state after `entry`, which is not a merge.
    fn apply(
        &self,
        state: &[u8],
        entry: &Signed<Entry>,
        payload: &[u8],
    ) -> Result<Vec<u8>, FoldRefusal>;

    /// The state after `merge`: `state` is that of the kept head, `heads` are the entries it names,
    /// `reapplied` comes from the other branches; both in the order the merge lists them. What no
    /// longer applies is left out by the fold itself, or makes it refuse.
    fn merge(
        &self,
        state: &[u8],
        merge: &Signed<Entry>,
        payload: &[u8],
        heads: &[&Signed<Entry>],
        reapplied: &[(&Signed<Entry>, &[u8])],
    ) -> Result<Vec<u8>, FoldRefusal>;
}

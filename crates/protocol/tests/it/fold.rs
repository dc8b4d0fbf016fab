//! The simplest fold that tells every history from every other.

use realm_identity::{Entry, Genesis, Hash, Signed};
use realm_protocol::{Fold, FoldRefusal};

#[derive(Debug, Clone, Copy)]
pub struct Chain;

/// A payload that this fold refuses.
pub const REFUSED: &[u8] = b"refused";

impl Fold for Chain {
    fn genesis(&self, genesis: &Genesis) -> Vec<u8> {
        genesis.realm_id().as_bytes().to_vec()
    }

    fn apply(
        &self,
        state: &[u8],
        entry: &Signed<Entry>,
        payload: &[u8],
    ) -> Result<Vec<u8>, FoldRefusal> {
        if payload == REFUSED {
            return Err(FoldRefusal::Refused("as the test wants it".to_owned()));
        }
        let all = [state, entry.hash().as_bytes(), payload].concat();
        Ok(Hash::of(&all).as_bytes().to_vec())
    }

    fn merge(
        &self,
        state: &[u8],
        merge: &Signed<Entry>,
        payload: &[u8],
        heads: &[&Signed<Entry>],
        reapplied: &[(&Signed<Entry>, &[u8])],
    ) -> Result<Vec<u8>, FoldRefusal> {
        let newest = heads.iter().map(|head| head.seq).max();
        assert_eq!(newest.map(|seq| seq + 1), Some(merge.seq));
        let mut state = state.to_vec();
        for (entry, payload) in reapplied {
            state = self.apply(&state, entry, payload)?;
        }
        self.apply(&state, merge, payload)
    }
}

//! A fold whose states are as large as a test wants them.

use std::{cell::Cell, rc::Rc};

use realm_identity::{Entry, Genesis, Signed};
use realm_protocol::{Fold, FoldRefusal};

/// The state is as large as the last payload says, and how often that was asked is counted.
#[derive(Debug, Clone, Default)]
pub struct Sized {
    pub folded: Rc<Cell<usize>>,
}

impl Fold for Sized {
    fn genesis(&self, _: &Genesis) -> Vec<u8> {
        Vec::new()
    }

    fn apply(&self, _: &[u8], _: &Signed<Entry>, payload: &[u8]) -> Result<Vec<u8>, FoldRefusal> {
        self.folded.set(self.folded.get() + 1);
        let size = std::str::from_utf8(payload).unwrap();
        Ok(vec![0; size.parse().unwrap()])
    }

    fn merge(
        &self,
        _: &[u8],
        _: &Signed<Entry>,
        _: &[u8],
        _: &[&Signed<Entry>],
        _: &[(&Signed<Entry>, &[u8])],
    ) -> Result<Vec<u8>, FoldRefusal> {
        Err(FoldRefusal::Refused("it has no forks".to_owned()))
    }
}

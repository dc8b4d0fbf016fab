//! Gives the protocol the meaning of intents, which the planner knows.

use realm_identity::{Entry, Genesis, Signed};
use realm_planner::{FoldError, State, fold};
use realm_protocol::{Fold, FoldRefusal};

/// The planner's fold over canonical bytes.
#[derive(Debug, Clone, Copy, Default)]
pub struct PlannerFold;

impl Fold for PlannerFold {
    fn genesis(&self, genesis: &Genesis) -> Vec<u8> {
        State::genesis(genesis).encode()
    }

    fn apply(
        &self,
        state: &[u8],
        entry: &Signed<Entry>,
        payload: &[u8],
    ) -> Result<Vec<u8>, FoldRefusal> {
        let next = fold::apply(&read(state)?, entry, payload).map_err(refusal)?;
        Ok(next.encode())
    }

    fn merge(
        &self,
        state: &[u8],
        merge: &Signed<Entry>,
        payload: &[u8],
        heads: &[&Signed<Entry>],
        reapplied: &[(&Signed<Entry>, &[u8])],
    ) -> Result<Vec<u8>, FoldRefusal> {
        let reapplied: Vec<(&Entry, &[u8])> = reapplied
            .iter()
            .map(|(entry, payload)| (&***entry, *payload))
            .collect();
        let heads: Vec<&Entry> = heads.iter().map(|head| &***head).collect();
        let next = fold::apply_merge(&read(state)?, merge, payload, &heads, &reapplied)
            .map_err(refusal)?;
        Ok(next.encode())
    }
}

fn read(state: &[u8]) -> Result<State, FoldRefusal> {
    State::decode(state).map_err(|error| FoldRefusal::Refused(error.to_string()))
}

fn refusal(error: FoldError) -> FoldRefusal {
    match error {
        FoldError::Incompatible { .. } => FoldRefusal::Incompatible(error.to_string()),
        _ => FoldRefusal::Refused(chain(&error)),
    }
}

/// An error with its causes on one line.
pub(crate) fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(cause) = next {
        text = format!("{text}: {cause}");
        next = cause.source();
    }
    text
}

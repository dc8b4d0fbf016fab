//! Faults that the simulator plants, to show that it would find them.

/// Never set outside of tests.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mutation {
    /// Answers a submit before its entry is on disk.
    AckBeforePersist,
    /// Takes entries that the owner did not write.
    WrongAuthor,
    /// Takes entries whose parent is not known.
    SkipPrev,
    /// Starts at revision 0, whatever is on disk.
    ForgetRevision,
    /// Goes on with the entry it saw first.
    IgnoreFork,
}

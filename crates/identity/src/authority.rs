//! Who may write what: one rule for every kind of intent.

use crate::{Entry, Kind, PublicKey, Target};

/// Whose signature a kind needs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Rule {
    /// The realm's present owner.
    Owner,
}

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    #[error("{} is the owner's to write, and {author} is not the owner", kind.name())]
    NotOwner { kind: Kind, author: PublicKey },
    #[error("{} cannot be about {target:?}", kind.name())]
    WrongTarget { kind: Kind, target: Target },
}

/// The rule of `kind`. The match has no wildcard: a kind without a rule does not compile.
pub const fn rule(kind: Kind) -> Rule {
    match kind {
        Kind::Push
        | Kind::Remove
        | Kind::Restart
        | Kind::Scale
        | Kind::Run
        | Kind::NodeApprove
        | Kind::NodeRevoke
        | Kind::NodeSet
        | Kind::OwnerRotate
        | Kind::Merge
        | Kind::NodeRemove => Rule::Owner,
    }
}

/// Checks that `entry`, of a known kind, was written by someone who may, about something it can be about.
pub fn check(entry: &Entry, kind: Kind, target: &Target, owner: PublicKey) -> Result<(), Refusal> {
    match rule(kind) {
        Rule::Owner if entry.author != owner => {
            return Err(Refusal::NotOwner {
                kind,
                author: entry.author,
            });
        }
        Rule::Owner => {}
    }
    let fits = match kind {
        Kind::Push | Kind::Remove | Kind::Restart | Kind::Scale | Kind::Run => {
            matches!(target, Target::Component(_))
        }
        Kind::NodeApprove | Kind::NodeRevoke | Kind::NodeSet | Kind::NodeRemove => {
            matches!(target, Target::Node(_))
        }
        Kind::OwnerRotate => matches!(target, Target::Owner(_)),
        Kind::Merge => matches!(target, Target::Realm),
    };
    if fits {
        Ok(())
    } else {
        Err(Refusal::WrongTarget {
            kind,
            target: target.clone(),
        })
    }
}

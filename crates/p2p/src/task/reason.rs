//! Why a peer was not reached, for people.

use libp2p::swarm::DialError;
use realm_identity::PublicKey;

use crate::{ConnectError, key, streams::OpenError};

pub(super) fn connect_error(target: PublicKey, error: &OpenError) -> ConnectError {
    match error {
        OpenError::NoAddress => ConnectError::NoAddress(target),
        OpenError::Unsupported => ConnectError::Unsupported("this protocol"),
        error => ConnectError::Failed {
            target: target.to_string(),
            reason: error.to_string(),
        },
    }
}

pub(super) fn again(error: &OpenError) -> OpenError {
    match error {
        OpenError::NoAddress => OpenError::NoAddress,
        OpenError::Unsupported => OpenError::Unsupported,
        error => OpenError::Connect(error.to_string()),
    }
}

/// What went wrong, for people: each address with its innermost reason.
pub(crate) fn chain(error: &DialError) -> String {
    match error {
        DialError::Transport(attempts) => {
            let reasons: Vec<_> = attempts
                .iter()
                .map(|(address, error)| format!("{address}: {}", innermost(error)))
                .collect();
            reasons.join("; ")
        }
        DialError::Denied { cause } => innermost(cause),
        DialError::NoAddresses => "no address is known, or only our own".to_owned(),
        DialError::WrongPeerId { obtained, .. } => match key::key_of(obtained) {
            Some(key) => format!("another node answers there: {key}"),
            None => format!("another node answers there: {obtained}"),
        },
        DialError::LocalPeerId { .. } => "that is this node itself".to_owned(),
        other => other.to_string(),
    }
}

/// What went wrong where one address was dialled, which whoever dialled it names.
pub(crate) fn of_one(error: &DialError) -> String {
    match error {
        DialError::Transport(attempts) => {
            let reasons: Vec<_> = attempts.iter().map(|(_, error)| innermost(error)).collect();
            reasons.join("; ")
        }
        error => chain(error),
    }
}

fn innermost(error: &(dyn std::error::Error + 'static)) -> String {
    let mut error = error;
    while let Some(source) = error.source() {
        error = source;
    }
    error.to_string()
}

//! An error that crosses the wire: a stable code, words, and what to do next.

use std::fmt;

/// The version of the error type that this code writes.
pub(crate) const VERSION: u16 = 1;

/// Longest message or help that is sent or kept; the rest is cut off.
const MAX_TEXT_BYTES: usize = 4 * 1024;

/// Stable names of what can go wrong; programs compare these, people read the message.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum ErrorCode {
    /// The key has no right to this, or could not be proven.
    NotAuthorised,
    NotFound,
    /// The request is malformed or breaks a rule.
    Invalid,
    /// The head is another than the intent was made for: ask for it and sign anew.
    Conflict,
    /// The realm's log is forked: merge it first.
    Forked,
    /// This version cannot do it.
    Unsupported,
    /// A bound was hit: too many, too large.
    Limit,
    /// The other side took too long.
    Deadline,
    /// The connection is gone.
    Disconnected,
    /// The other side failed by itself: disk full, store damaged.
    Failed,
    /// A code of a later version.
    Other(String),
}

const CODES: [(&str, ErrorCode); 10] = [
    ("not-authorised", ErrorCode::NotAuthorised),
    ("not-found", ErrorCode::NotFound),
    ("invalid", ErrorCode::Invalid),
    ("conflict", ErrorCode::Conflict),
    ("forked", ErrorCode::Forked),
    ("unsupported", ErrorCode::Unsupported),
    ("limit", ErrorCode::Limit),
    ("deadline", ErrorCode::Deadline),
    ("disconnected", ErrorCode::Disconnected),
    ("failed", ErrorCode::Failed),
];

impl ErrorCode {
    /// The codes of this version.
    pub fn names() -> impl Iterator<Item = &'static str> {
        CODES.iter().map(|(name, _)| *name)
    }

    pub fn as_str(&self) -> &str {
        if let Self::Other(code) = self {
            return code;
        }
        CODES
            .iter()
            .find(|(_, code)| code == self)
            .map_or("failed", |(name, _)| name)
    }
}

impl From<&str> for ErrorCode {
    fn from(text: &str) -> Self {
        let known = CODES.iter().find(|(name, _)| *name == text);
        known.map_or_else(|| Self::Other(shorten(text)), |(_, code)| code.clone())
    }
}

impl fmt::Display for ErrorCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// What a call answers when it was refused or failed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct RpcError {
    pub code: ErrorCode,
    pub message: String,
    pub help: Option<String>,
}

impl RpcError {
    pub fn new(code: ErrorCode, message: impl Into<String>) -> Self {
        Self {
            code,
            message: message.into(),
            help: None,
        }
    }

    #[must_use]
    pub fn help(mut self, help: impl Into<String>) -> Self {
        self.help = Some(help.into());
        self
    }

    pub(crate) fn deadline() -> Self {
        Self::new(
            ErrorCode::Deadline,
            "the call took longer than its deadline",
        )
    }

    pub(crate) fn malformed(what: &str) -> Self {
        Self::new(ErrorCode::Invalid, format!("malformed {what}"))
    }

    /// As sent: bounded, so that no error breaks a message limit.
    pub(crate) fn shortened(&self) -> Self {
        Self {
            code: self.code.clone(),
            message: shorten(&self.message),
            help: self.help.as_deref().map(shorten),
        }
    }
}

/// What Cap'n Proto itself reports: a lost connection, a broken message, a missing method.
impl From<capnp::Error> for RpcError {
    fn from(error: capnp::Error) -> Self {
        let code = match error.kind {
            capnp::ErrorKind::Disconnected => ErrorCode::Disconnected,
            capnp::ErrorKind::Unimplemented => ErrorCode::Unsupported,
            capnp::ErrorKind::Overloaded => ErrorCode::Limit,
            _ => ErrorCode::Failed,
        };
        Self::new(code, shorten(&error.to_string()))
    }
}

fn shorten(text: &str) -> String {
    let mut end = text.len().min(MAX_TEXT_BYTES);
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    text[..end].to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_code_is_read_as_it_was_written() {
        for (name, code) in CODES {
            assert_eq!(code.as_str(), name);
            assert_eq!(ErrorCode::from(name), code);
        }
        assert_eq!(ErrorCode::from("later"), ErrorCode::Other("later".into()));
    }

    #[test]
    fn long_words_are_cut_at_a_character() {
        let error = RpcError::new(ErrorCode::Failed, "ä".repeat(MAX_TEXT_BYTES)).help("x");
        let short = error.shortened();
        assert!(short.message.len() <= MAX_TEXT_BYTES && short.message.starts_with('ä'));
    }
}

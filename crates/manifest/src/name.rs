//! Names of components and nodes, and tags.

use std::{fmt, str::FromStr};

use minicbor::{Decode, Decoder, Encode, Encoder};

/// `[a-z0-9-]{1,63}`, so that a name is safe in a path, a host name and a label.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NameError {
    #[error("{0:?} is not a name: use 1 to 63 of a-z, 0-9 and '-'")]
    Name(String),
    #[error(
        "{0:?} is not a tag: use 1 to 63 of a-z, 0-9, '-', '_' and '.', or such a key and value with '=' between"
    )]
    Tag(String),
}

macro_rules! checked_text {
    ($(#[$doc:meta])* $type:ident, $valid:ident, $error:expr) => {
        $(#[$doc])*
        #[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $type(String);

        impl $type {
            pub fn new(text: impl Into<String>) -> Result<Self, NameError> {
                let text = text.into();
                if $valid(&text) { Ok(Self(text)) } else { Err($error(text)) }
            }

            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl FromStr for $type {
            type Err = NameError;

            fn from_str(text: &str) -> Result<Self, NameError> {
                Self::new(text)
            }
        }

        impl fmt::Display for $type {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.pad(&self.0)
            }
        }

        impl fmt::Debug for $type {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Debug::fmt(&self.0, f)
            }
        }

        impl<C> Encode<C> for $type {
            fn encode<W: minicbor::encode::Write>(
                &self,
                encoder: &mut Encoder<W>,
                _: &mut C,
            ) -> Result<(), minicbor::encode::Error<W::Error>> {
                encoder.str(&self.0)?.ok()
            }
        }

        impl<'b, C> Decode<'b, C> for $type {
            fn decode(decoder: &mut Decoder<'b>, _: &mut C) -> Result<Self, minicbor::decode::Error> {
                Self::new(decoder.str()?).map_err(minicbor::decode::Error::custom)
            }
        }

        impl serde::Serialize for $type {
            fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.serialize_str(&self.0)
            }
        }

        impl<'de> serde::Deserialize<'de> for $type {
            fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                Self::new(<String as serde::Deserialize>::deserialize(deserializer)?)
                    .map_err(serde::de::Error::custom)
            }
        }
    };
}

checked_text!(
    /// A component's name. `name@label` is reserved for blue and green versions.
    ComponentName, is_name, NameError::Name
);
checked_text!(
    /// A node's name: a claim its owner made, unique in a realm.
    NodeName, is_name, NameError::Name
);
checked_text!(
    /// A tag that placement matches: a word, or `key=value`.
    Tag, is_tag, NameError::Tag
);

fn is_name(text: &str) -> bool {
    (1..=63).contains(&text.len())
        && text
            .bytes()
            .all(|b| matches!(b, b'a'..=b'z' | b'0'..=b'9' | b'-'))
}

fn is_tag(text: &str) -> bool {
    let word = |word: &str| {
        (1..=63).contains(&word.len())
            && word
                .bytes()
                .all(|b| matches!(b, b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'_' | b'.'))
    };
    match text.split_once('=') {
        Some((key, value)) => word(key) && word(value),
        None => word(text),
    }
}

//! The one signed envelope, and the one verify path.

use crate::{Hash, PublicKey, Signature, Signer, canonical};

/// Largest signed message of most kinds, its signature included: 64 KiB.
pub const MAX_SIGNED_BYTES: usize = 64 * 1024;

/// A value that is only ever seen with its author's signature on it.
///
/// The signature covers `"realm/v1/" + DOMAIN + "\0" + bytes`, so that a signature
/// made for one kind of message means nothing for another.
pub trait Message: Sized {
    const DOMAIN: &'static str;
    /// Largest envelope that is read, its signature included.
    const MAX_BYTES: usize = MAX_SIGNED_BYTES;

    /// The key whose signature makes this message valid. It is inside the signed bytes.
    fn author(&self) -> PublicKey;

    fn to_bytes(&self) -> Vec<u8>;

    /// Refuses bytes that are not the canonical encoding.
    fn from_bytes(bytes: &[u8]) -> Result<Self, canonical::Error>;
}

/// Implements [`Message`] for a type with derived CBOR: `message!(Type, "domain", |m| m.author);`
///
/// A fourth argument is the largest envelope of this kind, in bytes, where 64 KiB are too few.
#[macro_export]
macro_rules! message {
    ($type:ty, $domain:literal, |$value:ident| $author:expr) => {
        $crate::message!($type, $domain, |$value| $author, $crate::MAX_SIGNED_BYTES);
    };
    ($type:ty, $domain:literal, |$value:ident| $author:expr, $max:expr) => {
        impl $crate::Message for $type {
            const DOMAIN: &'static str = $domain;
            const MAX_BYTES: usize = $max;

            fn author(&self) -> $crate::PublicKey {
                let $value = self;
                $author
            }

            fn to_bytes(&self) -> Vec<u8> {
                $crate::canonical::encode(self)
            }

            fn from_bytes(bytes: &[u8]) -> Result<Self, $crate::canonical::Error> {
                $crate::canonical::decode(bytes, <Self as $crate::Message>::MAX_BYTES)
            }
        }
    };
}

/// A message whose signature has been verified, with the exact bytes that were signed.
#[derive(Debug, Clone)]
pub struct Signed<T> {
    value: T,
    bytes: Vec<u8>,
    signature: Signature,
    hash: Hash,
}

#[derive(Debug, thiserror::Error)]
pub enum VerifyError {
    #[error("malformed envelope")]
    Malformed(#[source] minicbor::decode::Error),
    #[error("malformed {domain}")]
    Content {
        domain: &'static str,
        source: canonical::Error,
    },
    #[error("{size} bytes, at most {max} are allowed")]
    TooLarge { size: usize, max: usize },
    #[error("envelope is not in canonical form")]
    NotCanonical,
    #[error("the signature on this {domain} is not {author}'s")]
    BadSignature {
        domain: &'static str,
        author: PublicKey,
    },
}

impl<T: Message> Signed<T> {
    /// Signs `value`. The signer's key must be the message's author.
    ///
    /// The signer is trusted to sign what it is given; what an agent outside this process signed
    /// is read back with [`Signed::from_wire`] before it is sent.
    pub fn sign<S: Signer + ?Sized>(value: T, signer: &S) -> Result<Self, S::Error> {
        let bytes = value.to_bytes();
        debug_assert_eq!(
            value.author(),
            signer.public(),
            "signed by another key than the author"
        );
        let signature = signer.sign(&signing_input::<T>(&bytes))?;
        let hash = Hash::of(&bytes);
        Ok(Self {
            value,
            bytes,
            signature,
            hash,
        })
    }

    /// Reads and verifies an envelope made by [`Signed::to_wire`].
    pub fn from_wire(wire: &[u8]) -> Result<Self, VerifyError> {
        if wire.len() > T::MAX_BYTES {
            return Err(VerifyError::TooLarge {
                size: wire.len(),
                max: T::MAX_BYTES,
            });
        }
        let mut decoder = minicbor::Decoder::new(wire);
        let (bytes, signature) = read_envelope(&mut decoder).map_err(VerifyError::Malformed)?;
        let value = T::from_bytes(bytes).map_err(|source| VerifyError::Content {
            domain: T::DOMAIN,
            source,
        })?;
        let author = value.author();
        if !author.verify(&signing_input::<T>(bytes), &signature) {
            return Err(VerifyError::BadSignature {
                domain: T::DOMAIN,
                author,
            });
        }
        let signed = Self {
            value,
            hash: Hash::of(bytes),
            bytes: bytes.to_vec(),
            signature,
        };
        // One envelope has one encoding: no trailing bytes, no longer lengths.
        if signed.to_wire() == wire {
            Ok(signed)
        } else {
            Err(VerifyError::NotCanonical)
        }
    }

    /// `[bytes, signature]` in CBOR: what is stored and forwarded.
    pub fn to_wire(&self) -> Vec<u8> {
        let mut encoder = minicbor::Encoder::new(Vec::with_capacity(self.bytes.len() + 72));
        encoder
            .array(2)
            .and_then(|e| e.bytes(&self.bytes))
            .and_then(|e| e.bytes(&self.signature.to_bytes()))
            .expect("writing to memory does not fail");
        encoder.into_writer()
    }
}

impl<T> Signed<T> {
    /// The digest of the signed bytes, without the signature: the message's identity.
    pub fn hash(&self) -> Hash {
        self.hash
    }

    /// The exact bytes that were signed.
    pub fn signed_bytes(&self) -> &[u8] {
        &self.bytes
    }

    pub fn into_inner(self) -> T {
        self.value
    }
}

impl<T> std::ops::Deref for Signed<T> {
    type Target = T;

    fn deref(&self) -> &T {
        &self.value
    }
}

impl<T> PartialEq for Signed<T> {
    fn eq(&self, other: &Self) -> bool {
        self.hash == other.hash && self.signature.to_bytes() == other.signature.to_bytes()
    }
}

impl<T> Eq for Signed<T> {}

fn signing_input<T: Message>(bytes: &[u8]) -> Vec<u8> {
    [b"realm/v1/", T::DOMAIN.as_bytes(), b"\0", bytes].concat()
}

fn read_envelope<'b>(
    decoder: &mut minicbor::Decoder<'b>,
) -> Result<(&'b [u8], Signature), minicbor::decode::Error> {
    if decoder.array()? != Some(2) {
        return Err(minicbor::decode::Error::message(
            "an envelope is an array of two",
        ));
    }
    let bytes = decoder.bytes()?;
    let signature = <[u8; 64]>::try_from(decoder.bytes()?)
        .map_err(|_| minicbor::decode::Error::message("a signature is 64 bytes"))?;
    Ok((bytes, Signature::from_bytes(&signature)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Genesis, SecretKey};

    fn named(name: &str) -> Signed<Genesis> {
        let key = SecretKey::from_seed(&[1; 32]);
        let genesis = Genesis::new(key.public(), name.to_owned(), [9; 32]);
        Signed::sign(genesis, &key).unwrap_or_else(|never| match never {})
    }

    #[test]
    fn two_are_one_when_message_and_signature_are() {
        let signed = named("home");
        assert_eq!(signed, named("home"));
        // A key can sign one message in many ways: each is bytes of its own on the wire.
        let again = Signed {
            signature: Signature::from_bytes(&[1; 64]),
            ..named("home")
        };
        assert_ne!(signed, again);
        let other = Signed {
            signature: signed.signature,
            ..named("elsewhere")
        };
        assert_ne!(signed, other);
    }
}

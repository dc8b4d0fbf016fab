//! Ed25519 keys, which sign everything and name every node.

use std::{convert::Infallible, fmt, str::FromStr};

use ed25519_dalek::Signer as _;
use minicbor::{Decode, Decoder, Encode, Encoder};
use zeroize::Zeroizing;

pub use ed25519_dalek::Signature;

const PREFIX: &str = "ed25519:";

/// A verified point or not: [`PublicKey::verify`] refuses what is none. Shown as `ed25519:<base58>`.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PublicKey([u8; 32]);

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ParseKeyError {
    #[error("a public key looks like \"ed25519:7Hq3…\"")]
    Format,
    #[error("not a point on the curve")]
    Point,
}

/// Something that signs as one key: a key in memory, or one that an ssh-agent holds.
pub trait Signer {
    type Error;

    fn public(&self) -> PublicKey;

    fn sign(&self, message: &[u8]) -> Result<Signature, Self::Error>;
}

/// A private key in memory, overwritten when dropped.
#[derive(Clone)]
pub struct SecretKey(ed25519_dalek::SigningKey);

impl PublicKey {
    /// Nobody's key: the all-zero bytes verify no signature.
    pub const NONE: Self = Self([0; 32]);

    /// Refuses bytes that are no point, or a weak one.
    pub fn from_bytes(bytes: [u8; 32]) -> Result<Self, ParseKeyError> {
        match ed25519_dalek::VerifyingKey::from_bytes(&bytes) {
            Ok(point) if !point.is_weak() => Ok(Self(bytes)),
            _ => Err(ParseKeyError::Point),
        }
    }

    pub const fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }

    /// Strict verification: no small-order keys, no second encodings.
    #[must_use]
    pub fn verify(&self, message: &[u8], signature: &Signature) -> bool {
        ed25519_dalek::VerifyingKey::from_bytes(&self.0)
            .is_ok_and(|point| point.verify_strict(message, signature).is_ok())
    }

    /// The first eight characters of the base58 form, for tables.
    pub fn short(&self) -> String {
        bs58::encode(self.0).into_string().chars().take(8).collect()
    }
}

impl SecretKey {
    pub fn from_seed(seed: &[u8; 32]) -> Self {
        Self(ed25519_dalek::SigningKey::from_bytes(seed))
    }

    pub fn seed(&self) -> Zeroizing<[u8; 32]> {
        Zeroizing::new(self.0.to_bytes())
    }

    pub fn public(&self) -> PublicKey {
        PublicKey(self.0.verifying_key().to_bytes())
    }
}

impl Signer for SecretKey {
    type Error = Infallible;

    fn public(&self) -> PublicKey {
        Self::public(self)
    }

    fn sign(&self, message: &[u8]) -> Result<Signature, Infallible> {
        Ok(self.0.sign(message))
    }
}

impl fmt::Debug for SecretKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SecretKey({})", self.public())
    }
}

impl fmt::Display for PublicKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{PREFIX}{}", bs58::encode(self.0).into_string())
    }
}

impl fmt::Debug for PublicKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl FromStr for PublicKey {
    type Err = ParseKeyError;

    fn from_str(text: &str) -> Result<Self, ParseKeyError> {
        let base58 = text.strip_prefix(PREFIX).ok_or(ParseKeyError::Format)?;
        let mut bytes = [0; 32];
        match bs58::decode(base58).onto(&mut bytes) {
            Ok(32) => Self::from_bytes(bytes),
            _ => Err(ParseKeyError::Format),
        }
    }
}

impl<C> Encode<C> for PublicKey {
    fn encode<W: minicbor::encode::Write>(
        &self,
        encoder: &mut Encoder<W>,
        _: &mut C,
    ) -> Result<(), minicbor::encode::Error<W::Error>> {
        encoder.bytes(&self.0)?.ok()
    }
}

impl<'b, C> Decode<'b, C> for PublicKey {
    fn decode(decoder: &mut Decoder<'b>, _: &mut C) -> Result<Self, minicbor::decode::Error> {
        let bytes = <[u8; 32]>::try_from(decoder.bytes()?)
            .map_err(|_| minicbor::decode::Error::message("a public key is 32 bytes"))?;
        Self::from_bytes(bytes).map_err(|_| minicbor::decode::Error::message("not a public key"))
    }
}

impl serde::Serialize for PublicKey {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> serde::Deserialize<'de> for PublicKey {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        text.parse().map_err(serde::de::Error::custom)
    }
}

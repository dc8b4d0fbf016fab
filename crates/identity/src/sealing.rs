//! The key to which secrets of a node are sealed, and the node's word that it is its own.
//!
//! It is an X25519 key apart from the node's signing key, in the text form of an age recipient.

use std::{fmt, str::FromStr};

use base64::{Engine as _, engine::general_purpose::STANDARD};
use bech32::{Bech32, Hrp, primitives::decode::CheckedHrpstring};
use minicbor::{Decode, Decoder, Encode, Encoder};
use zeroize::Zeroizing;

use crate::{PublicKey, Signed, Timestamp, VERSION, VerifyError, message};

/// Largest certificate on the wire.
pub const MAX_CERTIFICATE_BYTES: usize = 512;

/// Longest text of a certificate: the largest one in base64.
const MAX_TEXT_BYTES: usize = MAX_CERTIFICATE_BYTES.div_ceil(3) * 4;

const HRP: Hrp = Hrp::parse_unchecked("age");

/// The private half, overwritten when dropped.
#[derive(Clone)]
pub struct SealingSecret(Zeroizing<[u8; 32]>);

/// An X25519 public key. Shown as `age1…`, as age writes its recipients.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct SealingKey([u8; 32]);

/// A node's word that `key` is where secrets for it are sealed to. It holds in every realm.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub struct SealingCertificate {
    #[n(0)]
    pub v: u16,
    /// The author.
    #[n(1)]
    pub node: PublicKey,
    #[n(2)]
    pub key: SealingKey,
    /// Rises when the node had to make another key: of two certificates the later one holds.
    #[n(3)]
    pub created: Timestamp,
}

message!(
    SealingCertificate,
    "sealing",
    |word| word.node,
    MAX_CERTIFICATE_BYTES
);

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ParseSealingKeyError {
    #[error("a sealing key looks like \"age1qyqsz…\"")]
    Format,
    #[error("this sealing key keeps no secret: every message to it has the same key")]
    Weak,
}

#[derive(Debug, thiserror::Error)]
pub enum CertificateError {
    #[error("the certificate of the sealing key is not in base64, or too long")]
    Format,
    #[error("the certificate of the sealing key cannot be verified")]
    Verify(#[from] VerifyError),
    #[error("version {0} of sealing keys is not known to this version of realm")]
    Version(u16),
    #[error("the certificate of the sealing key is {found}'s, not {expected}'s")]
    OtherNode {
        found: PublicKey,
        expected: PublicKey,
    },
}

impl SealingSecret {
    pub fn from_bytes(bytes: &[u8; 32]) -> Self {
        Self(Zeroizing::new(*bytes))
    }

    pub fn public(&self) -> SealingKey {
        let base = x25519_dalek::X25519_BASEPOINT_BYTES;
        SealingKey(x25519_dalek::x25519(*self.0, base))
    }
}

impl fmt::Debug for SealingSecret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SealingSecret({})", self.public())
    }
}

impl SealingKey {
    /// Refuses the points with which every secret makes the same shared key.
    pub fn from_bytes(bytes: [u8; 32]) -> Result<Self, ParseSealingKeyError> {
        // X25519 multiplies by eight whatever it multiplies by: such a point gives zero with any secret.
        if x25519_dalek::x25519([1; 32], bytes) == [0; 32] {
            Err(ParseSealingKeyError::Weak)
        } else {
            Ok(Self(bytes))
        }
    }

    pub const fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }
}

impl fmt::Display for SealingKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let text = bech32::encode::<Bech32>(HRP, &self.0);
        f.write_str(&text.expect("32 bytes are short enough for bech32"))
    }
}

impl fmt::Debug for SealingKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl FromStr for SealingKey {
    type Err = ParseSealingKeyError;

    fn from_str(text: &str) -> Result<Self, ParseSealingKeyError> {
        let read = CheckedHrpstring::new::<Bech32>(text);
        let read = read.map_err(|_| ParseSealingKeyError::Format)?;
        let bytes: Vec<u8> = read.byte_iter().collect();
        let bytes = <[u8; 32]>::try_from(bytes).map_err(|_| ParseSealingKeyError::Format)?;
        let key = Self::from_bytes(bytes)?;
        // One key has one text: no other prefix, no capitals.
        if key.to_string() == text {
            Ok(key)
        } else {
            Err(ParseSealingKeyError::Format)
        }
    }
}

impl<C> Encode<C> for SealingKey {
    fn encode<W: minicbor::encode::Write>(
        &self,
        encoder: &mut Encoder<W>,
        _: &mut C,
    ) -> Result<(), minicbor::encode::Error<W::Error>> {
        encoder.bytes(&self.0)?.ok()
    }
}

impl<'b, C> Decode<'b, C> for SealingKey {
    fn decode(decoder: &mut Decoder<'b>, _: &mut C) -> Result<Self, minicbor::decode::Error> {
        let bytes = <[u8; 32]>::try_from(decoder.bytes()?)
            .map_err(|_| minicbor::decode::Error::message("a sealing key is 32 bytes"))?;
        Self::from_bytes(bytes).map_err(minicbor::decode::Error::custom)
    }
}

impl SealingCertificate {
    pub fn new(node: PublicKey, key: SealingKey, created: Timestamp) -> Self {
        let v = VERSION;
        Self {
            v,
            node,
            key,
            created,
        }
    }

    /// Reads a certificate as on the wire, which must be `node`'s own.
    pub fn verify(wire: &[u8], node: PublicKey) -> Result<Signed<Self>, CertificateError> {
        let signed = Signed::<Self>::from_wire(wire)?;
        if signed.v != VERSION {
            return Err(CertificateError::Version(signed.v));
        }
        if signed.node != node {
            return Err(CertificateError::OtherNode {
                found: signed.node,
                expected: node,
            });
        }
        Ok(signed)
    }

    /// The same for its text in a status.
    pub fn verify_text(text: &str, node: PublicKey) -> Result<Signed<Self>, CertificateError> {
        if text.len() > MAX_TEXT_BYTES {
            return Err(CertificateError::Format);
        }
        let wire = STANDARD
            .decode(text)
            .map_err(|_| CertificateError::Format)?;
        Self::verify(&wire, node)
    }
}

/// A certificate as statuses write it: its wire form in base64.
pub fn to_text(wire: &[u8]) -> String {
    STANDARD.encode(wire)
}

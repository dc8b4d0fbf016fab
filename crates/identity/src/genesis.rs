//! The entry a realm begins with.

use minicbor::{Decode, Encode};

use crate::{Hash, PublicKey, RealmId, canonical, message};

/// Entry 0 of the owner's chain. Its digest is the realm's id.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub struct Genesis {
    #[n(0)]
    pub v: u16,
    /// One key today; k of n can follow.
    #[n(1)]
    pub owners: Vec<PublicKey>,
    #[n(2)]
    pub threshold: u8,
    #[n(3)]
    pub name: String,
    /// Random, so that one person may own several realms of one name.
    #[cbor(n(4), with = "minicbor::bytes")]
    pub nonce: [u8; 32],
}

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum GenesisError {
    #[error("version {0} of realms is not known to this version of realm")]
    Version(u16),
    #[error(
        "a realm of {owners} owners of which {threshold} must sign is not supported by this version of realm"
    )]
    Owners { owners: usize, threshold: u8 },
    #[error("{0:?} is not a realm's name: use 1 to 63 of a-z, 0-9 and '-'")]
    Name(String),
}

message!(Genesis, "genesis", |genesis| genesis.owner());

impl Genesis {
    pub fn new(owner: PublicKey, name: String, nonce: [u8; 32]) -> Self {
        Self {
            v: crate::VERSION,
            owners: vec![owner],
            threshold: 1,
            name,
            nonce,
        }
    }

    /// Checks that this code can keep the realm that begins so. The signature has been checked already.
    pub fn check(&self) -> Result<(), GenesisError> {
        if self.v != crate::VERSION {
            return Err(GenesisError::Version(self.v));
        }
        if self.owners.len() != 1 || self.threshold != 1 {
            let owners = self.owners.len();
            return Err(GenesisError::Owners {
                owners,
                threshold: self.threshold,
            });
        }
        let letter = |b| matches!(b, b'a'..=b'z' | b'0'..=b'9' | b'-');
        if (1..=63).contains(&self.name.len()) && self.name.bytes().all(letter) {
            Ok(())
        } else {
            Err(GenesisError::Name(self.name.clone()))
        }
    }

    /// The first owner: the author. [`PublicKey::NONE`], which verifies nothing, where there is none.
    pub fn owner(&self) -> PublicKey {
        self.owners.first().copied().unwrap_or(PublicKey::NONE)
    }

    /// The realm's id: SHA-256 of the canonical bytes, as [`crate::Signed::hash`] gives it too.
    pub fn realm_id(&self) -> RealmId {
        Hash::of(&canonical::encode(self))
    }
}

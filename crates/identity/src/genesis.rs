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

    pub fn owner(&self) -> PublicKey {
        self.owners.first().copied().unwrap_or(PublicKey::NONE)
    }

    pub fn realm_id(&self) -> RealmId {
        Hash::of(&canonical::encode(self))
    }
}

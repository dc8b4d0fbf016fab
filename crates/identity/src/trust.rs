//! The pin: whom this node takes for its owner. Nothing else decides it.

use minicbor::{Decode, Encode};

use crate::{PublicKey, RealmId, Timestamp, canonical};

/// Largest pin on disk.
const MAX_PIN_BYTES: usize = 256;

/// The owner that a node trusts, and how it came to.
///
/// First trust is a local act: someone at the node configures the owner, enrols with an
/// invite, or opens a window. Only [`OwnerPin::offer`] is ever called for something that came
/// over the network, and only an open window gives it an effect.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Encode, Decode)]
pub enum OwnerPin {
    #[default]
    #[n(0)]
    Unpinned,
    /// The first key that is offered up to `until` becomes the owner.
    #[n(1)]
    Window {
        #[n(0)]
        until: Timestamp,
    },
    /// `realm` is None until the owner's genesis is known: a configured key alone names none.
    #[n(2)]
    Pinned {
        #[n(0)]
        owner: PublicKey,
        #[n(1)]
        realm: Option<RealmId>,
    },
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum PinError {
    #[error("this node belongs to {owner} already: leave that realm first")]
    OtherOwner { owner: PublicKey },
    #[error("this node belongs to realm {} already: leave it first", realm.short())]
    OtherRealm { realm: RealmId },
    #[error(
        "this node has no owner yet: configure one, enrol it with an invite, or open a trust-on-first-use window"
    )]
    Closed,
    #[error("the window in which this node took the first key has closed")]
    WindowClosed,
}

/// What may move the pin.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Act {
    /// At the node: configure, or an invite that the operator handed over.
    Local {
        owner: PublicKey,
        realm: Option<RealmId>,
    },
    /// Over the network.
    Offer {
        owner: PublicKey,
        realm: Option<RealmId>,
        now: Timestamp,
    },
    /// By the pinned owner's own chain.
    Rotate { from: PublicKey, to: PublicKey },
}

impl OwnerPin {
    pub const fn owner(&self) -> Option<PublicKey> {
        match self {
            Self::Pinned { owner, .. } => Some(*owner),
            Self::Unpinned | Self::Window { .. } => None,
        }
    }

    pub const fn realm(&self) -> Option<RealmId> {
        match self {
            Self::Pinned { realm, .. } => *realm,
            Self::Unpinned | Self::Window { .. } => None,
        }
    }

    /// `realm configure --owner`: the person at the node names the owner.
    pub fn pin_by_configure(self, owner: PublicKey) -> Result<Self, PinError> {
        self.apply(Act::Local { owner, realm: None })
    }

    /// `realm enroll`: the person at the node hands over an invite that has been verified.
    pub fn pin_by_invite(self, owner: PublicKey, realm: RealmId) -> Result<Self, PinError> {
        self.apply(Act::Local {
            owner,
            realm: Some(realm),
        })
    }

    /// The first key that comes over the network, with the realm it says it owns.
    ///
    /// Takes effect once, in an open window. For a pinned node it says whether the key is the
    /// owner's, and completes a pin that knows no realm yet.
    pub fn offer(
        self,
        owner: PublicKey,
        realm: Option<RealmId>,
        now: Timestamp,
    ) -> Result<Self, PinError> {
        self.apply(Act::Offer { owner, realm, now })
    }

    /// `--trust-first-use`: the person at the node opens the window. A pinned node stays pinned.
    pub fn open_window(self, until: Timestamp) -> Result<Self, PinError> {
        match self {
            Self::Unpinned | Self::Window { .. } => Ok(Self::Window { until }),
            Self::Pinned { owner, .. } => Err(PinError::OtherOwner { owner }),
        }
    }

    /// The owner handed the realm over, as its verified chain says.
    pub fn follow_rotation(self, from: PublicKey, to: PublicKey) -> Result<Self, PinError> {
        self.apply(Act::Rotate { from, to })
    }

    /// The one function that sets the pin.
    fn apply(self, act: Act) -> Result<Self, PinError> {
        match (self, act) {
            (
                Self::Pinned { owner, realm },
                Act::Local {
                    owner: new,
                    realm: named,
                },
            )
            | (
                Self::Pinned { owner, realm },
                Act::Offer {
                    owner: new,
                    realm: named,
                    ..
                },
            ) => agree(owner, realm, new, named),
            (_, Act::Local { owner, realm }) => Ok(Self::Pinned { owner, realm }),
            (Self::Window { until }, Act::Offer { owner, realm, now }) if now <= until => {
                Ok(Self::Pinned { owner, realm })
            }
            (Self::Pinned { owner, realm }, Act::Rotate { from, to }) if owner == from => {
                Ok(Self::Pinned { owner: to, realm })
            }
            (Self::Pinned { owner, .. }, Act::Rotate { .. }) => Err(PinError::OtherOwner { owner }),
            (_, Act::Rotate { .. }) => Err(PinError::Closed),
            (Self::Window { .. }, Act::Offer { .. }) => Err(PinError::WindowClosed),
            (Self::Unpinned, Act::Offer { .. }) => Err(PinError::Closed),
        }
    }

    pub fn to_bytes(&self) -> Vec<u8> {
        canonical::encode(self)
    }

    pub fn from_bytes(bytes: &[u8]) -> Result<Self, canonical::Error> {
        canonical::decode(bytes, MAX_PIN_BYTES)
    }
}

/// A pin never changes; it only learns the realm it lacked.
fn agree(
    owner: PublicKey,
    realm: Option<RealmId>,
    new: PublicKey,
    named: Option<RealmId>,
) -> Result<OwnerPin, PinError> {
    if owner != new {
        return Err(PinError::OtherOwner { owner });
    }
    match (realm, named) {
        (Some(realm), Some(named)) if realm != named => Err(PinError::OtherRealm { realm }),
        _ => Ok(OwnerPin::Pinned {
            owner,
            realm: realm.or(named),
        }),
    }
}

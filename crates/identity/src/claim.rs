//! How a node takes up an invite, and how another one vouches for when it did.

use minicbor::{Decode, Encode};

use crate::{
    Hash, Invite, InviteError, PublicKey, RealmId, SecretKey, Signed, Signer, Timestamp,
    VerifyError, canonical, invite::CLOCK_TOLERANCE_MS, message,
};

/// Largest claim with its witness, as stored and gossiped: the invite inside is at most 8 KiB.
pub const MAX_CLAIM_BYTES: usize = 12 * 1024;

/// The node's own word that it wants to be enrolled: without it, whoever steals an invite could
/// enrol a node of somebody else.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub struct Consent {
    #[n(0)]
    pub v: u16,
    #[n(1)]
    pub realm: RealmId,
    /// Digest of the invite's signed bytes.
    #[n(2)]
    pub invite: Hash,
    /// The author: the node that joins.
    #[n(3)]
    pub node: PublicKey,
    #[n(4)]
    pub at: Timestamp,
}

message!(Consent, "consent", |consent| consent.node);

/// An invite taken up by one node: the invite's key signs over the node's consent.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub struct Claim {
    #[n(0)]
    pub v: u16,
    #[n(1)]
    pub realm: RealmId,
    /// The author: the key of the invite.
    #[n(2)]
    pub key: PublicKey,
    /// `Signed<Invite>` as on the wire.
    #[cbor(n(3), with = "minicbor::bytes")]
    pub invite: Vec<u8>,
    #[n(4)]
    pub node: PublicKey,
    #[n(5)]
    pub at: Timestamp,
    /// `Signed<Consent>` as on the wire, of the same node and time.
    #[cbor(n(6), with = "minicbor::bytes")]
    pub consent: Vec<u8>,
}

message!(Claim, "claim", |claim| claim.key);

/// An approved node's word on when it first saw a claim.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub struct Witness {
    #[n(0)]
    pub v: u16,
    #[n(1)]
    pub realm: RealmId,
    /// Digest of the claim's signed bytes.
    #[n(2)]
    pub claim: Hash,
    #[n(3)]
    pub at: Timestamp,
    /// The author: the node that saw it.
    #[n(4)]
    pub node: PublicKey,
}

message!(Witness, "witness", |witness| witness.node);

/// A claim whose parts have been checked against each other and against the realm's owner.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct VerifiedClaim {
    pub claim: Signed<Claim>,
    pub invite: Signed<Invite>,
}

/// A claim and the witness it needs: one element of the grow-only set beside the chain.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WitnessedClaim {
    pub claim: Signed<Claim>,
    pub witness: Signed<Witness>,
}

#[derive(Debug, thiserror::Error)]
pub enum ClaimError {
    #[error("malformed claim")]
    Malformed(#[source] canonical::Error),
    #[error("version {0} of claims is not known to this version of realm")]
    Version(u16),
    #[error("the claim or its witness cannot be verified")]
    Verify(#[from] VerifyError),
    #[error("the claim's invite is not usable")]
    Invite(#[from] InviteError),
    #[error("the parts of the claim are about different realms")]
    OtherRealm,
    #[error("the claim is signed by {found}, its invite names {expected}")]
    OtherKey {
        found: PublicKey,
        expected: PublicKey,
    },
    #[error("the node's consent is to another invite, node or time")]
    OtherConsent,
    #[error("the witness saw another claim")]
    OtherClaim,
    #[error("{0} may not witness a claim")]
    NotWitness(PublicKey),
    #[error("the claim is dated {skew_ms} ms after its witness saw it: check the clocks")]
    Clock { skew_ms: u64 },
}

impl Claim {
    /// Makes a node's claim: `node` consents, then the invite's key signs.
    pub fn sign<S: Signer + ?Sized>(
        invite: &Signed<Invite>,
        invite_key: &SecretKey,
        node: &S,
        at: Timestamp,
    ) -> Result<Signed<Self>, S::Error> {
        let (v, realm, key) = (crate::VERSION, invite.realm, node.public());
        let consent = Consent {
            v,
            realm,
            invite: invite.hash(),
            node: key,
            at,
        };
        let claim = Self {
            v,
            realm,
            key: invite_key.public(),
            invite: invite.to_wire(),
            node: key,
            at,
            consent: Signed::sign(consent, node)?.to_wire(),
        };
        Ok(Signed::sign(claim, invite_key).unwrap_or_else(|never| match never {}))
    }
}

impl VerifiedClaim {
    /// Checks everything but time: that one of `owners` invited into `realm`, that the invite's key
    /// signed, and that the node agreed.
    pub fn new(
        claim: Signed<Claim>,
        realm: RealmId,
        owners: &[PublicKey],
    ) -> Result<Self, ClaimError> {
        if claim.v != crate::VERSION {
            return Err(ClaimError::Version(claim.v));
        }
        let invite = Signed::<Invite>::from_wire(&claim.invite)?;
        invite.check_owner(realm, owners)?;
        if claim.realm != realm {
            return Err(ClaimError::OtherRealm);
        }
        if claim.key != invite.key {
            return Err(ClaimError::OtherKey {
                found: claim.key,
                expected: invite.key,
            });
        }
        let expected = Consent {
            v: crate::VERSION,
            realm,
            invite: invite.hash(),
            node: claim.node,
            at: claim.at,
        };
        if *Signed::<Consent>::from_wire(&claim.consent)? != expected {
            return Err(ClaimError::OtherConsent);
        }
        Ok(Self { claim, invite })
    }

    /// Checks that the claim can be taken up at `at`: the invite holds, and the claim is not dated
    /// later. An earlier one may have waited for somebody to vouch for it.
    pub fn check_time(&self, at: Timestamp) -> Result<(), ClaimError> {
        self.invite.check_time(at)?;
        let skew_ms = self.claim.at.millis_since(at);
        if skew_ms > CLOCK_TOLERANCE_MS {
            Err(ClaimError::Clock { skew_ms })
        } else {
            Ok(())
        }
    }

    /// Vouches, as `node` at `now`, for a claim made just now.
    ///
    /// Whether `node` may witness is for those who read it to say.
    pub fn witness(self, node: &SecretKey, now: Timestamp) -> Result<WitnessedClaim, ClaimError> {
        self.check_time(now)?;
        let witness = Witness {
            v: crate::VERSION,
            realm: self.claim.realm,
            claim: self.claim.hash(),
            at: now,
            node: node.public(),
        };
        let witness = Signed::sign(witness, node).unwrap_or_else(|never| match never {});
        Ok(WitnessedClaim {
            claim: self.claim,
            witness,
        })
    }
}

impl WitnessedClaim {
    /// Checks claim and witness. The present time does not matter: the witness's does.
    ///
    /// `may_witness` says whether a node was approved, or was the realm's first node vouching for itself.
    pub fn verify(
        &self,
        realm: RealmId,
        owners: &[PublicKey],
        may_witness: impl FnOnce(PublicKey) -> bool,
    ) -> Result<VerifiedClaim, ClaimError> {
        let verified = VerifiedClaim::new(self.claim.clone(), realm, owners)?;
        if self.witness.v != crate::VERSION {
            return Err(ClaimError::Version(self.witness.v));
        }
        if self.witness.realm != realm {
            return Err(ClaimError::OtherRealm);
        }
        if self.witness.claim != self.claim.hash() {
            return Err(ClaimError::OtherClaim);
        }
        if !may_witness(self.witness.node) {
            return Err(ClaimError::NotWitness(self.witness.node));
        }
        verified.check_time(self.witness.at)?;
        Ok(verified)
    }

    /// Whether both claims use one invite for two nodes: then neither counts.
    pub fn contradicts(&self, other: &Self) -> bool {
        self.claim.key == other.claim.key && self.claim.node != other.claim.node
    }

    /// `[Signed<Claim>, Signed<Witness>]`, each as on the wire, in CBOR.
    pub fn to_wire(&self) -> Vec<u8> {
        canonical::encode(&Wire {
            claim: self.claim.to_wire(),
            witness: self.witness.to_wire(),
        })
    }

    /// Reads what [`WitnessedClaim::to_wire`] made and checks both signatures, nothing more.
    pub fn from_wire(wire: &[u8]) -> Result<Self, ClaimError> {
        let wire: Wire = canonical::decode(wire, MAX_CLAIM_BYTES).map_err(ClaimError::Malformed)?;
        Ok(Self {
            claim: Signed::from_wire(&wire.claim)?,
            witness: Signed::from_wire(&wire.witness)?,
        })
    }
}

#[derive(Encode, Decode)]
struct Wire {
    #[cbor(n(0), with = "minicbor::bytes")]
    claim: Vec<u8>,
    #[cbor(n(1), with = "minicbor::bytes")]
    witness: Vec<u8>,
}

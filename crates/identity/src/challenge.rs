//! The proof of a key in `Membrane.graft`.

use minicbor::{Decode, Encode};

use crate::{PublicKey, RealmId, Signed, VerifyError, message};

/// The one purpose that a graft is signed for; other uses of a challenge get another word.
pub const GRAFT_DOMAIN: &str = "realm-graft";

/// What a client signs to prove its key to the node it dialled.
///
/// The node's key is inside, so that a node cannot pass the proof on to another; the nonce and
/// the epoch are the node's, so that a proof is good once and not after its epoch.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub struct GraftChallenge {
    #[n(0)]
    pub v: u16,
    #[n(1)]
    pub domain: String,
    /// None when the node belongs to no realm yet.
    #[n(2)]
    pub realm: Option<RealmId>,
    /// The node that was dialled, as the transport proved it.
    #[n(3)]
    pub node: PublicKey,
    /// The author: the key that is proven, not the one that dialled.
    #[n(4)]
    pub client: PublicKey,
    #[cbor(n(5), with = "minicbor::bytes")]
    pub nonce: [u8; 32],
    /// The node's epoch of authority.
    #[n(6)]
    pub epoch: u64,
}

message!(GraftChallenge, "graft", |challenge| challenge.client);

#[derive(Debug, thiserror::Error)]
pub enum ChallengeError {
    #[error("the proof of the key cannot be verified")]
    Verify(#[from] VerifyError),
    #[error("the signed challenge has another {0} than was asked for")]
    Mismatch(&'static str),
}

impl GraftChallenge {
    pub fn new(
        realm: Option<RealmId>,
        node: PublicKey,
        client: PublicKey,
        nonce: [u8; 32],
        epoch: u64,
    ) -> Self {
        let domain = GRAFT_DOMAIN.to_owned();
        Self {
            v: crate::VERSION,
            domain,
            realm,
            node,
            client,
            nonce,
            epoch,
        }
    }

    /// Checks the proof in `wire` against the challenge that was given to this client.
    pub fn verify(&self, wire: &[u8]) -> Result<Signed<Self>, ChallengeError> {
        let signed = Signed::<Self>::from_wire(wire)?;
        match self.difference(&signed) {
            Some(field) => Err(ChallengeError::Mismatch(field)),
            None => Ok(signed),
        }
    }

    /// The first field in which the two differ. A client asks it before signing what a node sent.
    pub fn difference(&self, other: &Self) -> Option<&'static str> {
        let Self {
            v,
            domain,
            realm,
            node,
            client,
            nonce,
            epoch,
        } = self;
        let same = [
            ("version", *v == other.v),
            ("domain", *domain == other.domain),
            ("realm", *realm == other.realm),
            ("node", *node == other.node),
            ("key", *client == other.client),
            ("nonce", *nonce == other.nonce),
            ("epoch", *epoch == other.epoch),
        ];
        same.into_iter()
            .find(|(_, same)| !same)
            .map(|(field, _)| field)
    }
}

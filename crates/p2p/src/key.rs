//! One Ed25519 key is a node's public key and its peer id.

use libp2p::{PeerId, identity};
use realm_identity::{PublicKey, SecretKey};

/// The key a peer id is made of. None for other kinds of key, which are not spoken to.
pub(crate) fn key_of(peer: &PeerId) -> Option<PublicKey> {
    let public = identity::PublicKey::try_decode_protobuf(peer.as_ref().digest()).ok()?;
    let bytes = public.try_into_ed25519().ok()?.to_bytes();
    let key = PublicKey::from_bytes(bytes).ok()?;
    // A peer id has one form only: anything else under the same digest is not it.
    (peer_of(&key) == Some(*peer)).then_some(key)
}

/// None for bytes that are no key at all.
pub(crate) fn peer_of(key: &PublicKey) -> Option<PeerId> {
    let public = identity::ed25519::PublicKey::try_from_bytes(key.as_bytes()).ok()?;
    Some(PeerId::from_public_key(&public.into()))
}

pub(crate) fn keypair(secret: &SecretKey) -> identity::Keypair {
    let mut seed = secret.seed();
    identity::Keypair::ed25519_from_bytes(seed.as_mut_slice()).expect("a seed is 32 bytes")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_is_its_peer_id_and_back() {
        let secret = SecretKey::from_seed(&[7; 32]);
        let peer = keypair(&secret).public().to_peer_id();
        assert_eq!(key_of(&peer), Some(secret.public()));
        assert_eq!(peer_of(&secret.public()), Some(peer));
    }

    #[test]
    fn a_random_peer_id_is_no_key() {
        assert_eq!(key_of(&PeerId::random()), None);
    }
}

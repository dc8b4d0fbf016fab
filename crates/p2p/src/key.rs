//! One Ed25519 key is a node's public key and its peer id.

use libp2p::{PeerId, identity};
use realm_identity::{PublicKey, SecretKey};

/// Before the 32 bytes of a key in a peer id: an identity hash of 36 bytes, which are a protobuf of an
/// Ed25519 key. By libp2p's own functions the curve's point is taken out of its bytes three times on the
/// way from one to the other and back, which costs more than most events that name a peer.
const FRAME: [u8; 6] = [0, 36, 8, 1, 18, 32];

/// The key a peer id is made of. None for other kinds of key, which are not spoken to.
pub(crate) fn key_of(peer: &PeerId) -> Option<PublicKey> {
    let bytes = peer.to_bytes();
    let key = bytes.strip_prefix(&FRAME)?.try_into().ok()?;
    PublicKey::from_bytes(key).ok()
}

/// None only where libp2p has changed what peer ids are made of.
pub(crate) fn peer_of(key: &PublicKey) -> Option<PeerId> {
    PeerId::from_bytes(&[&FRAME[..], key.as_bytes()].concat()).ok()
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

//! Where peers may be found. Hints only: whoever answers there is authenticated by its key.

use std::collections::{HashMap, VecDeque};

use libp2p::{Multiaddr, multiaddr::Protocol};
use realm_identity::PublicKey;

/// Peers that are remembered; one beyond that is forgotten at once.
const PEERS: usize = 4096;
/// Addresses of one peer; the newest push out the oldest.
const ADDRESSES: usize = 16;

#[derive(Debug, Default)]
pub(crate) struct Book(HashMap<PublicKey, VecDeque<Multiaddr>>);

impl Book {
    pub fn add(&mut self, key: PublicKey, address: Multiaddr) {
        let address = nameless(address);
        if self.0.len() >= PEERS && !self.0.contains_key(&key) {
            return;
        }
        let known = self.0.entry(key).or_default();
        known.retain(|old| *old != address);
        known.push_front(address);
        known.truncate(ADDRESSES);
    }

    /// Nobody answered there: the others are tried before it the next time.
    pub fn failed(&mut self, key: &PublicKey, address: &Multiaddr) {
        let Some(known) = self.0.get_mut(key) else {
            return;
        };
        let address = nameless(address.clone());
        let before = known.len();
        known.retain(|old| *old != address);
        if known.len() < before {
            known.push_back(address);
        }
    }

    pub fn iter(&self) -> impl Iterator<Item = (&PublicKey, &Multiaddr)> {
        let peers = self.0.iter();
        peers.flat_map(|(key, known)| known.iter().map(move |address| (key, address)))
    }

    /// The best first: those that did not fail, the newest before the others.
    pub fn of(&self, key: &PublicKey) -> Vec<Multiaddr> {
        self.0
            .get(key)
            .map(|known| known.iter().cloned().collect())
            .unwrap_or_default()
    }
}

/// Without the peer's own name at the end, which the swarm adds.
fn nameless(mut address: Multiaddr) -> Multiaddr {
    if let Some(Protocol::P2p(_)) = address.iter().last() {
        address.pop();
    }
    address
}

#[cfg(test)]
mod tests {
    use realm_identity::SecretKey;

    use super::*;
    use crate::key;

    #[test]
    fn addresses_are_bounded_newest_first_and_once() {
        let key = SecretKey::from_seed(&[1; 32]).public();
        let mut book = Book::default();
        let address = |port: usize| -> Multiaddr {
            format!("/ip4/192.0.2.1/tcp/{port}")
                .parse()
                .expect("an address")
        };
        for port in 1..=40 {
            book.add(key, address(port));
        }
        book.add(key, address(30));
        let known = book.of(&key);
        assert_eq!(known.len(), ADDRESSES);
        assert_eq!(known[..2], [address(30), address(40)]);
        let peer = key::peer_of(&key).expect("a peer");
        let named = address(30).with_p2p(peer).expect("an address");
        book.failed(&key, &named);
        let known = book.of(&key);
        assert_eq!(known.len(), ADDRESSES);
        assert_eq!(
            (&known[0], &known[ADDRESSES - 1]),
            (&address(40), &address(30))
        );
    }
}

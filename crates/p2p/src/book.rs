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
    pub fn add(&mut self, key: PublicKey, mut address: Multiaddr) {
        if let Some(Protocol::P2p(_)) = address.iter().last() {
            address.pop();
        }
        if self.0.len() >= PEERS && !self.0.contains_key(&key) {
            return;
        }
        let known = self.0.entry(key).or_default();
        known.retain(|old| *old != address);
        known.push_front(address);
        known.truncate(ADDRESSES);
    }

    /// The newest first.
    pub fn of(&self, key: &PublicKey) -> Vec<Multiaddr> {
        self.0
            .get(key)
            .map(|known| known.iter().cloned().collect())
            .unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use realm_identity::SecretKey;

    use super::*;

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
    }
}

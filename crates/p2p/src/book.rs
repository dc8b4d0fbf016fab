//! Where peers may be found. Hints only: whoever answers there is authenticated by its key.

use std::collections::{HashMap, VecDeque};

use libp2p::{Multiaddr, multiaddr::Protocol};
use realm_identity::PublicKey;

use crate::{address, event::Link};

/// Peers that are remembered; one beyond that is forgotten at once.
const PEERS: usize = 4096;
/// Addresses of one peer; the newest push out the oldest.
const ADDRESSES: usize = 16;

#[derive(Debug, Default)]
pub(crate) struct Book(HashMap<PublicKey, VecDeque<Place>>);

#[derive(Debug)]
struct Place {
    address: Multiaddr,
    /// Nobody answered there when it was last tried.
    failed: bool,
    /// The best link goes first.
    link: Link,
}

impl Book {
    pub fn add(&mut self, key: PublicKey, address: Multiaddr) {
        let address = nameless(address);
        if self.0.len() >= PEERS && !self.0.contains_key(&key) {
            return;
        }
        let known = self.0.entry(key).or_default();
        known.retain(|old| old.address != address);
        known.push_front(Place {
            link: address::link_of(&address),
            address,
            failed: false,
        });
        known.truncate(ADDRESSES);
    }

    /// Nobody answered there: the others are tried before it the next time.
    pub fn failed(&mut self, key: &PublicKey, address: &Multiaddr) {
        let Some(known) = self.0.get_mut(key) else {
            return;
        };
        let address = nameless(address.clone());
        if let Some(at) = known.iter().position(|old| old.address == address)
            && let Some(mut place) = known.remove(at)
        {
            place.failed = true;
            known.push_back(place);
        }
    }

    pub fn iter(&self) -> impl Iterator<Item = (&PublicKey, &Multiaddr)> {
        let peers = self.0.iter();
        peers.flat_map(|(key, known)| known.iter().map(move |place| (key, &place.address)))
    }

    /// The best first: those that did not fail, the better link before the others, then the newest.
    pub fn of(&self, key: &PublicKey) -> Vec<Multiaddr> {
        let mut known: Vec<_> = self.0.get(key).into_iter().flatten().collect();
        known.sort_by_key(|place| (place.failed, place.link));
        known.iter().map(|place| place.address.clone()).collect()
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

    #[test]
    fn the_way_that_notices_a_death_goes_before_newer_ones_unless_it_failed() {
        let key = SecretKey::from_seed(&[1; 32]).public();
        let mut book = Book::default();
        let [relayed, tcp, quic] = [
            "/ip4/192.0.2.9/tcp/1/p2p-circuit",
            "/ip4/192.0.2.1/tcp/1",
            "/ip4/192.0.2.1/udp/1/quic-v1",
        ]
        .map(|text| text.parse::<Multiaddr>().expect("an address"));
        for address in [&tcp, &quic, &relayed] {
            book.add(key, address.clone());
        }
        assert_eq!(book.of(&key), [&tcp, &quic, &relayed].map(Clone::clone));
        book.failed(&key, &tcp);
        assert_eq!(book.of(&key), [&quic, &relayed, &tcp].map(Clone::clone));
        book.add(key, tcp.clone());
        assert_eq!(book.of(&key), [tcp, quic, relayed]);
    }
}

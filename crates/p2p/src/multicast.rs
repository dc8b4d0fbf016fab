//! How nodes of one network find each other: over IPv4, and over IPv6 where IPv4 leads nowhere.

use std::{
    io,
    net::{Ipv4Addr, UdpSocket},
};

use libp2p::{
    PeerId,
    mdns::{Config, IPV4_MDNS_MULTICAST_ADDRESS, tokio::Behaviour},
};

const PORT: u16 = 5353;

/// Whether this machine has no way to the group of IPv4. Only then is that of IPv6 used: with both, each of a
/// machine's addresses would ask, and each of the others' would answer.
pub fn leads_nowhere_v4() -> bool {
    // This asks the kernel for a way, and sends nothing.
    UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0))
        .and_then(|socket| socket.connect((IPV4_MDNS_MULTICAST_ADDRESS, PORT)))
        .is_err()
}

pub(crate) fn behaviour(over_ipv6: bool, peer: PeerId) -> io::Result<Behaviour> {
    let config = Config {
        enable_ipv6: over_ipv6,
        ..Config::default()
    };
    Behaviour::new(config, peer)
}

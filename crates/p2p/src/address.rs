//! Addresses as users write them.

use std::net::IpAddr;

use libp2p::{Multiaddr, PeerId, core::ConnectedPoint, multiaddr::Protocol};

use realm_identity::PublicKey;

use crate::{event::Link, key};

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("\"{text}\" is not an address like /ip4/192.0.2.7/udp/2020/quic-v1: {reason}")]
pub struct AddressError {
    pub text: String,
    pub reason: String,
}

/// Reads a multiaddr; `/quic` is read as `/quic-v1`.
pub(crate) fn parse(text: &str) -> Result<Multiaddr, AddressError> {
    let current: Vec<&str> = text
        .trim()
        .split('/')
        .map(|part| if part == "quic" { "quic-v1" } else { part })
        .collect();
    current
        .join("/")
        .parse()
        .map_err(|error: libp2p::multiaddr::Error| AddressError {
            text: text.to_owned(),
            reason: error.to_string(),
        })
}

/// Checks an address that somebody typed, and gives it as it is written today.
pub fn check_address(text: &str) -> Result<String, AddressError> {
    let address = parse(text)?;
    if has_transport(&address) {
        return Ok(address.to_string());
    }
    Err(AddressError {
        text: text.to_owned(),
        reason: "neither /tcp/PORT nor /udp/PORT/quic-v1 is in it".to_owned(),
    })
}

/// Checks an address that somebody wants to listen on: like [`check_address`], and of an interface.
pub fn check_listen_address(text: &str) -> Result<String, AddressError> {
    let checked = check_address(text)?;
    if matches!(
        parse(&checked)?.iter().next(),
        Some(Protocol::Ip4(_) | Protocol::Ip6(_) | Protocol::Ip6zone(_))
    ) {
        return Ok(checked);
    }
    Err(AddressError {
        text: text.to_owned(),
        reason: "to listen takes an IP address of this machine, or /ip4/0.0.0.0".to_owned(),
    })
}

/// Checks an address that others are to dial: like [`check_address`], and of one machine and one port.
pub fn check_dial_address(text: &str) -> Result<String, AddressError> {
    let checked = check_address(text)?;
    let parsed = parse(&checked)?;
    let wrong = match parsed.iter().next() {
        Some(Protocol::Ip4(ip)) => !names_one(ip.into()),
        Some(Protocol::Ip6(ip)) => !names_one(ip.into()),
        Some(Protocol::Ip6zone(_) | Protocol::Dns(_) | Protocol::Dns4(_) | Protocol::Dns6(_)) => {
            false
        }
        _ => true,
    };
    let refused = |reason: &str| AddressError {
        text: text.to_owned(),
        reason: reason.to_owned(),
    };
    if wrong {
        return Err(refused(
            "to dial takes the IP address, or the name, of one machine",
        ));
    }
    let no_port = |part| matches!(part, Protocol::Tcp(0) | Protocol::Udp(0));
    if parsed.iter().any(no_port) {
        return Err(refused("nobody listens at port 0"));
    }
    Ok(checked)
}

/// Whether an address is that of one machine.
fn names_one(ip: IpAddr) -> bool {
    let is_broadcast = matches!(ip, IpAddr::V4(ip) if ip.is_broadcast());
    !ip.is_unspecified() && !ip.is_multicast() && !is_broadcast
}

fn has_transport(address: &Multiaddr) -> bool {
    let mut parts = address.iter().peekable();
    while let Some(part) = parts.next() {
        match (part, parts.peek()) {
            (Protocol::Tcp(_), _) | (Protocol::Udp(_), Some(Protocol::QuicV1)) => return true,
            _ => {}
        }
    }
    false
}

/// Whether an address means something on its own machine, or link, alone.
pub fn is_here_only(address: &str) -> bool {
    let Ok(address) = parse(address) else {
        return false;
    };
    address.iter().any(|part| match part {
        Protocol::Ip4(ip) => is_ip_here_only(ip.into()),
        Protocol::Ip6(ip) => is_ip_here_only(ip.to_canonical()),
        Protocol::Dns(name)
        | Protocol::Dns4(name)
        | Protocol::Dns6(name)
        | Protocol::Dnsaddr(name) => is_localhost(&name),
        _ => false,
    })
}

/// Link-local addresses are also where clouds tell a machine its own secrets.
fn is_ip_here_only(ip: IpAddr) -> bool {
    let is_link_local = match ip {
        IpAddr::V4(ip) => ip.is_link_local(),
        IpAddr::V6(ip) => ip.is_unicast_link_local(),
    };
    is_link_local || ip.is_loopback() || ip.is_unspecified()
}

/// Names that are never asked of anybody: they are this machine.
fn is_localhost(name: &str) -> bool {
    let name = name.trim_end_matches('.').to_ascii_lowercase();
    name == "localhost" || name.ends_with(".localhost")
}

/// The peer that an address ends in.
pub(crate) fn peer_of(address: &Multiaddr) -> Option<PeerId> {
    match address.iter().last() {
        Some(Protocol::P2p(peer)) => Some(peer),
        _ => None,
    }
}

pub(crate) fn link_of(address: &Multiaddr) -> Link {
    let mut link = Link::Tcp;
    for part in address {
        match part {
            Protocol::P2pCircuit => return Link::Relay,
            Protocol::QuicV1 => link = Link::Quic,
            _ => {}
        }
    }
    link
}

/// Where the other end of a connection is. Of one that came in through a relay the transport says no more
/// than who it is: the way to it is the circuit.
pub(crate) fn remote_of(endpoint: &ConnectedPoint) -> Multiaddr {
    match endpoint {
        ConnectedPoint::Listener {
            local_addr,
            send_back_addr,
        } if endpoint.is_relayed() => local_addr.iter().chain(send_back_addr).collect(),
        _ => endpoint.get_remote_address().clone(),
    }
}

/// The parts of a circuit's address `/…/p2p/RELAY/p2p-circuit/p2p/NODE`.
pub(crate) struct Circuit {
    pub relay: PeerId,
    /// Where the relay itself is, with its id at the end.
    pub relay_address: Multiaddr,
}

impl Circuit {
    /// None for an address that is reached without a relay, or that names none.
    pub fn of(address: &Multiaddr) -> Option<Self> {
        let mut relay_address = Multiaddr::empty();
        let mut parts = address.iter();
        loop {
            match parts.next()? {
                Protocol::P2pCircuit => break,
                part => relay_address.push(part),
            }
        }
        let relay = peer_of(&relay_address)?;
        Some(Self {
            relay,
            relay_address,
        })
    }
}

/// The relay that an address leads through: its key, and where it is itself.
pub fn relay_of(address: &str) -> Option<(PublicKey, String)> {
    let circuit = Circuit::of(&parse(address).ok()?)?;
    let key = key::key_of(&circuit.relay)?;
    Some((key, circuit.relay_address.to_string()))
}

pub(crate) fn ip_of(address: &Multiaddr) -> Option<IpAddr> {
    address.iter().find_map(|part| match part {
        Protocol::Ip4(ip) => Some(ip.into()),
        Protocol::Ip6(ip) => Some(ip.to_canonical()),
        _ => None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_others_dial_is_one_machine_and_port() {
        for good in [
            "/ip4/192.0.2.7/udp/2020/quic-v1",
            "/ip4/127.0.0.1/tcp/2020",
            "/ip6/2001:db8::7/tcp/2020",
            "/dns4/node.example/udp/2020/quic-v1",
        ] {
            assert_eq!(check_dial_address(good).as_deref(), Ok(good));
        }
        for odd in [
            "/ip4/0.0.0.0/tcp/2020",
            "/ip6/::/tcp/2020",
            "/ip4/224.0.0.251/udp/2020/quic-v1",
            "/ip4/255.255.255.255/tcp/2020",
            "/ip4/192.0.2.7/tcp/0",
            "/ip4/192.0.2.7/udp/0/quic-v1",
            "/tcp/2020",
        ] {
            assert!(check_address(odd).is_ok(), "{odd}");
            assert!(check_dial_address(odd).is_err(), "{odd}");
        }
    }

    #[test]
    fn old_quic_is_read_as_quic_v1() {
        let address = parse("/ip4/127.0.0.1/udp/2020/quic").expect("parses");
        assert_eq!(address.to_string(), "/ip4/127.0.0.1/udp/2020/quic-v1");
        assert_eq!(link_of(&address), Link::Quic);
    }

    #[test]
    fn an_address_that_nothing_carries_is_none() {
        for carried in ["/ip4/127.0.0.1/tcp/1", "/dns4/a.example/udp/1/quic"] {
            check_address(carried).expect(carried);
        }
        for bare in ["/ip4/127.0.0.1", "/ip4/127.0.0.1/udp/1", "/dns4/a.example"] {
            let error = check_address(bare).expect_err(bare).to_string();
            assert!(error.contains("/tcp/PORT"), "{error}");
        }
        check_listen_address("/ip6/::/tcp/1").expect("an interface");
        check_listen_address("/dns4/a.example/tcp/1").expect_err("a name is no interface");
    }

    #[test]
    fn an_error_repeats_the_text() {
        let error = parse("127.0.0.1:2020").expect_err("no multiaddr");
        assert!(error.to_string().contains("127.0.0.1:2020"), "{error}");
    }

    #[test]
    fn a_relay_is_found_in_the_address_of_a_circuit() {
        let key = realm_identity::SecretKey::from_seed(&[1; 32]).public();
        let peer = key::peer_of(&key).expect("a peer");
        let relay = format!("/ip4/192.0.2.7/tcp/2020/p2p/{peer}");
        for circuit in [
            "/p2p-circuit".to_owned(),
            format!("/p2p-circuit/p2p/{peer}"),
        ] {
            let found = relay_of(&format!("{relay}{circuit}"));
            assert_eq!(found, Some((key, relay.clone())));
        }
        for none in [&*relay, "/ip4/192.0.2.7/tcp/2020/p2p-circuit", "no address"] {
            assert_eq!(relay_of(none), None, "{none}");
        }
    }

    #[test]
    fn what_means_this_machine_is_known_however_it_is_written() {
        for here in [
            "/ip4/127.0.0.1/tcp/1",
            "/ip4/127.9.9.9/udp/1/quic-v1",
            "/ip4/0.0.0.0/tcp/1",
            "/ip6/::1/tcp/1",
            "/ip6/0:0:0:0:0:0:0:1/tcp/1",
            "/ip6/::/tcp/1",
            "/ip6/::ffff:127.0.0.1/tcp/1",
            "/ip6/::ffff:0.0.0.0/tcp/1",
            "/ip6/fe80::1/tcp/1",
            "/ip4/169.254.169.254/tcp/80",
            "/ip6/::ffff:169.254.169.254/tcp/80",
            "/ip6zone/lo/ip6/::1/tcp/1",
            "/dns4/localhost/tcp/1",
            "/dns/LOCALHOST./tcp/1",
            "/dns6/a.localhost/tcp/1",
        ] {
            assert!(is_here_only(here), "{here}");
        }
        for elsewhere in [
            "/ip4/192.168.0.7/tcp/1",
            "/ip4/10.127.0.1/tcp/1",
            "/ip4/169.253.0.1/tcp/1",
            "/ip6/2001:db8::1/tcp/1",
            "/dns4/localhost.example/tcp/1",
            "no address",
        ] {
            assert!(!is_here_only(elsewhere), "{elsewhere}");
        }
    }

    #[test]
    fn mapped_addresses_count_as_what_they_are() {
        let address = parse("/ip6/::ffff:127.0.0.1/tcp/1").expect("parses");
        assert_eq!(ip_of(&address).map(|ip| ip.is_loopback()), Some(true));
    }
}

//! Where a cell may connect, decided on addresses: listed ones, and those this cell itself resolved.

use std::{
    collections::HashMap,
    net::{IpAddr, Ipv6Addr, SocketAddr},
    sync::{Mutex, PoisonError},
};

use realm_manifest::{Outbound, OutboundHost, Scheme};
use wasmtime_wasi::sockets::SocketAddrUse;

use crate::places::Places;

/// Addresses a cell may have resolved; a cell that resolves more forgets none but learns no new ones.
const RESOLVED_MAX: usize = 1024;

/// Sockets of one cell at once.
pub(crate) const SOCKETS_MAX: usize = 32;
/// Calls of one cell that wait for the network at once: lookups, and datagrams of 0.3.
pub(crate) const OUTBOUND_MAX: usize = 64;
/// The longest name that DNS knows, with the dot at its end.
const NAME_MAX: usize = 254;

/// A cell's outbound rules, and what its names resolved to.
#[derive(Debug)]
pub(crate) struct Network {
    rules: Vec<Outbound>,
    /// Which rules (by index) each resolved address was permitted by.
    resolved: Mutex<HashMap<IpAddr, Vec<usize>>>,
    pub(crate) calls: Places,
    pub(crate) sockets_p3: Places,
}

impl Network {
    pub(crate) fn new(rules: &[Outbound]) -> Self {
        Self {
            rules: rules.to_vec(),
            resolved: Mutex::default(),
            calls: Places::new(OUTBOUND_MAX),
            sockets_p3: Places::new(SOCKETS_MAX),
        }
    }

    pub(crate) fn uses(&self, scheme: Scheme) -> bool {
        self.rules.iter().any(|rule| rule.scheme == scheme)
    }

    /// Whether looking `name` up is permitted at all.
    pub(crate) fn may_resolve(&self, name: &str) -> bool {
        if name.len() > NAME_MAX {
            return false;
        }
        if let Ok(ip) = name.parse::<IpAddr>() {
            return self
                .rules
                .iter()
                .any(|rule| is_socket(rule) && net_contains(rule, ip));
        }
        !self.matching(name).is_empty()
    }

    /// Takes note of what `name` resolved to; false if no rule permits the address.
    pub(crate) fn learn(&self, name: &str, ip: IpAddr) -> bool {
        let ip = ip.to_canonical();
        if self
            .rules
            .iter()
            .any(|rule| is_socket(rule) && net_contains(rule, ip))
        {
            return true;
        }
        let permitted: Vec<usize> = self
            .matching(name)
            .into_iter()
            .filter(|index| may_name(&self.rules[*index], ip))
            .collect();
        if permitted.is_empty() {
            return false;
        }
        let mut resolved = self.resolved.lock().unwrap_or_else(PoisonError::into_inner);
        if resolved.len() >= RESOLVED_MAX && !resolved.contains_key(&ip) {
            return false;
        }
        let known = resolved.entry(ip).or_default();
        known.extend(permitted);
        known.sort_unstable();
        known.dedup();
        true
    }

    /// Whether this use of this address is permitted.
    pub(crate) fn permits(&self, address: SocketAddr, usage: SocketAddrUse) -> bool {
        match usage {
            SocketAddrUse::TcpConnect => self.permits_peer(Scheme::Tcp, address),
            SocketAddrUse::UdpSend | SocketAddrUse::UdpReceive => {
                self.permits_peer(Scheme::Udp, address)
            }
            // A socket that connects is bound by the system; choosing an address or a port is not granted.
            SocketAddrUse::TcpBind => is_wildcard(address) && self.uses(Scheme::Tcp),
            SocketAddrUse::UdpBind => is_wildcard(address) && self.uses(Scheme::Udp),
            SocketAddrUse::TcpListen | SocketAddrUse::TcpAccept => false,
        }
    }

    fn permits_peer(&self, scheme: Scheme, address: SocketAddr) -> bool {
        let ip = address.ip().to_canonical();
        let fits = |rule: &Outbound| {
            rule.scheme == scheme && rule.port.is_none_or(|port| port == address.port())
        };
        if self
            .rules
            .iter()
            .any(|rule| fits(rule) && net_contains(rule, ip))
        {
            return true;
        }
        let resolved = self.resolved.lock().unwrap_or_else(PoisonError::into_inner);
        resolved
            .get(&ip)
            .is_some_and(|rules| rules.iter().any(|index| fits(&self.rules[*index])))
    }

    fn matching(&self, name: &str) -> Vec<usize> {
        let name = name.trim_end_matches('.').to_ascii_lowercase();
        let fits = |rule: &Outbound| {
            is_socket(rule)
                && matches!(&rule.host, OutboundHost::Name(host) if host_fits(host, &name))
        };
        (0..self.rules.len())
            .filter(|index| fits(&self.rules[*index]))
            .collect()
    }
}

const fn is_socket(rule: &Outbound) -> bool {
    matches!(rule.scheme, Scheme::Tcp | Scheme::Udp)
}

fn is_wildcard(address: SocketAddr) -> bool {
    address.ip().is_unspecified() && address.port() == 0
}

fn host_fits(rule: &str, name: &str) -> bool {
    match rule.strip_prefix("*.") {
        Some(parent) => name
            .strip_suffix(parent)
            .is_some_and(|rest| rest.len() > 1 && rest.ends_with('.')),
        None => rule == "*" || rule == name,
    }
}

fn net_contains(rule: &Outbound, ip: IpAddr) -> bool {
    let OutboundHost::Net(net, length) = &rule.host else {
        return false;
    };
    match (net, ip) {
        (IpAddr::V4(net), IpAddr::V4(ip)) => same_prefix(
            u128::from(net.to_bits()) << 96,
            u128::from(ip.to_bits()) << 96,
            *length,
        ),
        (IpAddr::V6(net), IpAddr::V6(ip)) => same_prefix(net.to_bits(), ip.to_bits(), *length),
        _ => false,
    }
}

fn same_prefix(left: u128, right: u128, length: u8) -> bool {
    let differing = (left ^ right).leading_zeros();
    differing >= u32::from(length)
}

/// Whether a rule by name permits this address: private ones only with `?private`, link-local ones (where clouds
/// keep their credentials) never.
fn may_name(rule: &Outbound, ip: IpAddr) -> bool {
    match reach(ip) {
        Reach::Public => true,
        Reach::Private => rule.private,
        Reach::Never => false,
    }
}

#[derive(Debug, PartialEq, Eq)]
enum Reach {
    Public,
    Private,
    Never,
}

fn reach(ip: IpAddr) -> Reach {
    match ip.to_canonical() {
        IpAddr::V4(ip) => {
            let [a, b, c, _] = ip.octets();
            if ip.is_link_local()
                || ip.is_unspecified()
                || ip.is_broadcast()
                || ip.is_multicast()
                || a == 0
                || a >= 240
            {
                return Reach::Never;
            }
            let shared = a == 100 && (64..128).contains(&b);
            let special = (a == 198 && (18..20).contains(&b)) || (a == 192 && b == 0 && c == 0);
            if ip.is_private() || ip.is_loopback() || shared || special {
                Reach::Private
            } else {
                Reach::Public
            }
        }
        IpAddr::V6(ip) => reach_v6(ip),
    }
}

fn reach_v6(ip: Ipv6Addr) -> Reach {
    let segments = ip.segments();
    if ip.is_unicast_link_local() || ip.is_unspecified() || ip.is_multicast() {
        return Reach::Never;
    }
    if ip.is_loopback() || ip.is_unique_local() {
        return Reach::Private;
    }
    // Addresses that carry an IPv4 address reach what that one reaches: 6to4, NAT64, and the compatible form.
    match segments {
        [0x2002, high, low, ..]
        | [0x64, 0xff9b, 0, 0, 0, 0, high, low]
        | [0, 0, 0, 0, 0, 0, high, low] => reach(IpAddr::V4(
            ((u32::from(high) << 16) | u32::from(low)).into(),
        )),
        // Global unicast is 2000::/3; the rest is nobody's.
        [first, ..] if first & 0xe000 == 0x2000 => Reach::Public,
        _ => Reach::Private,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rule(scheme: Scheme, host: OutboundHost, port: Option<u16>, private: bool) -> Outbound {
        Outbound {
            scheme,
            host,
            port,
            private,
        }
    }

    fn name(host: &str, private: bool) -> Network {
        Network::new(&[rule(
            Scheme::Tcp,
            OutboundHost::Name(host.into()),
            Some(443),
            private,
        )])
    }

    fn ip(text: &str) -> IpAddr {
        text.parse().expect("test address")
    }

    fn connects(network: &Network, address: &str) -> bool {
        network.permits(
            address.parse().expect("test address"),
            SocketAddrUse::TcpConnect,
        )
    }

    #[test]
    fn names_permit_only_what_this_cell_resolved() {
        let network = name("example.com", false);
        assert!(!connects(&network, "93.184.216.34:443"));
        assert!(network.may_resolve("Example.com."));
        assert!(!network.may_resolve("example.org"));
        assert!(network.learn("example.com", ip("93.184.216.34")));
        assert!(connects(&network, "93.184.216.34:443"));
        assert!(!connects(&network, "93.184.216.34:80"), "another port");
        assert!(!network.permits(
            "93.184.216.34:443".parse().expect("address"),
            SocketAddrUse::UdpSend
        ));
    }

    #[test]
    fn names_never_permit_private_addresses() {
        let network = name("*", false);
        for address in [
            "127.0.0.1",
            "10.0.0.1",
            "192.168.1.1",
            "100.64.0.1",
            "::1",
            "fd00::1",
            "::ffff:10.0.0.1",
            "64:ff9b::a00:1",
            "2002:0a00:0001::1",
            "169.254.169.254",
            "fe80::1",
            "0.0.0.0",
            "224.0.0.1",
        ] {
            assert!(!network.learn("evil.example", ip(address)), "{address}");
        }
        let private = name("db.internal", true);
        assert!(private.learn("db.internal", ip("10.0.0.1")));
        assert!(connects(&private, "10.0.0.1:443"));
        assert!(
            !private.learn("db.internal", ip("169.254.169.254")),
            "link-local needs its address"
        );
    }

    #[test]
    fn a_name_that_turns_private_later_is_not_followed() {
        let network = name("rebind.example", false);
        assert!(network.learn("rebind.example", ip("93.184.216.34")));
        for later in ["127.0.0.1", "::1", "10.0.0.1", "169.254.169.254"] {
            assert!(!network.learn("rebind.example", ip(later)), "{later}");
            let at = std::net::SocketAddr::new(ip(later), 443);
            assert!(!network.permits(at, SocketAddrUse::TcpConnect), "{later}");
        }
        // What it said first stands.
        assert!(connects(&network, "93.184.216.34:443"));
        // What another name may reach is no answer for this one.
        let network = Network::new(&[
            rule(
                Scheme::Tcp,
                OutboundHost::Name("open.example".into()),
                Some(443),
                true,
            ),
            rule(
                Scheme::Tcp,
                OutboundHost::Name("shut.example".into()),
                Some(22),
                false,
            ),
        ]);
        assert!(!network.learn("shut.example", ip("10.0.0.1")));
        assert!(network.learn("open.example", ip("10.0.0.1")));
        assert!(connects(&network, "10.0.0.1:443"));
        assert!(!connects(&network, "10.0.0.1:22"), "the other name's port");
    }

    #[test]
    fn networks_permit_by_prefix() {
        let network = Network::new(&[rule(
            Scheme::Tcp,
            OutboundHost::Net(ip("10.1.0.0"), 16),
            None,
            false,
        )]);
        assert!(connects(&network, "10.1.255.7:1"));
        assert!(
            connects(&network, "[::ffff:10.1.0.1]:1"),
            "the mapped form is the same address"
        );
        assert!(!connects(&network, "10.2.0.1:1"));
        assert!(network.may_resolve("10.1.2.3"));
    }

    #[test]
    fn nothing_listens_and_only_wildcards_bind() {
        let network = Network::new(&[rule(
            Scheme::Tcp,
            OutboundHost::Net(ip("0.0.0.0"), 0),
            None,
            false,
        )]);
        let local = "0.0.0.0:0".parse().expect("address");
        assert!(network.permits(local, SocketAddrUse::TcpBind));
        assert!(!network.permits(local, SocketAddrUse::UdpBind));
        assert!(!network.permits(local, SocketAddrUse::TcpListen));
        assert!(!network.permits(
            "0.0.0.0:8080".parse().expect("address"),
            SocketAddrUse::TcpBind
        ));
    }

    #[test]
    fn wildcards_need_a_label() {
        assert!(host_fits("*.example.com", "a.example.com"));
        assert!(!host_fits("*.example.com", "example.com"));
        assert!(!host_fits("*.example.com", "badexample.com"));
    }
}

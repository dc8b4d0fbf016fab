//! Where a node is reached, by its own word and by what others see.

use realm_identity::PublicKey;
use realm_rpc::status::Link;

/// Circuits kept of one node, which asks for places at two relays.
const MAX_CIRCUITS: usize = 4;

/// Its address as somebody sees it, or else as it reports it. Where they see it over the loopback that
/// both are on, it may report one that others can dial.
pub(crate) fn address(seen: Option<String>, reported: Option<String>) -> Option<String> {
    let is_outside = |at: &String| !realm_p2p::is_here_only(at);
    let better = reported.as_ref().is_some_and(is_outside);
    let seen = seen.filter(|at| is_outside(at) || !better);
    seen.or(reported)
}

/// That address, or the node's own one on the same machine that fits the connection to it: a link over
/// TCP is not shown beside an address of QUIC. Other machines' addresses may not be reachable from here.
pub(crate) fn of_link(
    address: Option<String>,
    link: Option<Link>,
    reported: &[String],
) -> Option<String> {
    let address = address?;
    let Some(link @ (Link::Quic | Link::Tcp)) = link else {
        return Some(address);
    };
    if kind(&address) == link {
        return Some(address);
    }
    let mut fitting = reported.iter().filter(|other| kind(other) == link);
    let fitting = fitting.find(|other| host(other) == host(&address));
    Some(fitting.cloned().unwrap_or(address))
}

/// Whether an address leads to the node that listens at `own`, by its own machine.
pub(crate) fn is_one_of(address: &str, own: &[String]) -> bool {
    let (wanted, key) = split(address);
    // Others are reached through the same relay.
    let direct = own.iter().filter(|at| kind(at) != Link::Relay);
    let mut direct = direct.map(|at| split(at));
    direct.any(|(at, own_key)| at == wanted && (key.is_none() || key == own_key))
}

/// A direct address, and whose it is where that is said.
fn split(address: &str) -> (&str, Option<&str>) {
    match address.split_once("/p2p/") {
        Some((at, key)) => (at, Some(key)),
        None => (address, None),
    }
}

/// In the order in which a node tells where it listens: what other machines can dial first, and of that
/// what they dial first.
pub(crate) fn sort(addresses: &mut [String]) {
    addresses.sort_by_key(|at| {
        let link = match kind(at) {
            Link::Tcp => 0,
            Link::Quic => 1,
            _ => 2,
        };
        (realm_p2p::is_here_only(at), link)
    });
}

fn kind(address: &str) -> Link {
    let mut parts = address.split('/');
    if parts.clone().any(|part| part == "p2p-circuit") {
        Link::Relay
    } else if parts.any(|part| part == "quic-v1") {
        Link::Quic
    } else {
        Link::Tcp
    }
}

/// The first protocol and its value, such as `ip4` and `192.0.2.7`.
fn host(address: &str) -> Option<(&str, &str)> {
    let mut parts = address.strip_prefix('/')?.split('/');
    Some((parts.next()?, parts.next()?))
}

/// Those of a node's addresses that lead through relays of the realm. A node may name anybody as its
/// relay, and whoever asks there proves its key: nobody else is believed to be one.
pub(crate) fn circuits(addresses: &[String], approved: impl Fn(&PublicKey) -> bool) -> Vec<String> {
    let ours = |address: &&String| {
        let relay = realm_p2p::relay_of(address);
        relay.is_some_and(|(relay, _)| approved(&relay))
    };
    let ours = addresses.iter().filter(ours);
    ours.take(MAX_CIRCUITS).cloned().collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const RELAY: &str =
        "/ip4/192.0.2.7/tcp/2020/p2p/12D3KooWDpJ7As7BWAwRMfu1VU2WCqNjvq387JEYKDBj4kx6nXTN";
    const OTHER: &str =
        "/ip4/192.0.2.8/tcp/2020/p2p/12D3KooWRBy97UB99e3J6hiPesre1MZeuNQvfan4gBziswrRJsNK";

    const OWN: &str = "12D3KooWRBy97UB99e3J6hiPesre1MZeuNQvfan4gBziswrRJsNK";

    /// An address through this relay.
    fn through(relay: &str) -> String {
        format!("{relay}/p2p-circuit/p2p/{OWN}")
    }

    #[test]
    fn an_address_of_loopback_gives_way_to_one_that_others_can_dial() {
        let at = |text: &str| Some(text.to_owned());
        let (loopback, outside) = (at("/ip4/127.0.0.1/tcp/1"), at("/ip4/192.0.2.7/tcp/1"));
        let other = at("/ip4/127.0.0.1/tcp/2");
        assert_eq!(address(loopback.clone(), outside.clone()), outside);
        assert_eq!(address(outside.clone(), loopback.clone()), outside);
        assert_eq!(address(loopback.clone(), other), loopback);
        assert_eq!(address(loopback.clone(), None), loopback);
        assert_eq!(address(None, outside.clone()), outside);
        assert_eq!(address(None, None), None);
    }

    #[test]
    fn the_address_fits_the_link_where_the_node_has_one_that_does() {
        let at = |text: &str| Some(text.to_owned());
        let (quic, tcp) = ("/ip4/192.0.2.7/udp/1/quic-v1", "/ip4/192.0.2.7/tcp/1");
        let elsewhere = "/ip4/172.17.0.1/tcp/1";
        let all = [elsewhere, quic, tcp, &through(RELAY)].map(str::to_owned);
        let fits = |address, link| of_link(at(address), link, &all);
        assert_eq!(fits(quic, Some(Link::Tcp)), at(tcp));
        assert_eq!(fits(tcp, Some(Link::Quic)), at(quic));
        assert_eq!(fits(tcp, Some(Link::Tcp)), at(tcp));
        for link in [None, Some(Link::Itself), Some(Link::Relay)] {
            assert_eq!(fits(quic, link), at(quic));
        }
        let other = of_link(at(quic), Some(Link::Tcp), &all[..1]);
        assert_eq!(other, at(quic), "that machine may be out of reach");
        assert_eq!(of_link(None, Some(Link::Tcp), &all), None);
    }

    #[test]
    fn a_node_knows_its_own_addresses() {
        let own = [
            format!("/ip4/192.0.2.1/udp/2020/quic-v1/p2p/{OWN}"),
            format!("/ip4/127.0.0.1/tcp/2020/p2p/{OWN}"),
            through(RELAY),
        ];
        for (address, is_own) in [
            ("/ip4/192.0.2.1/udp/2020/quic-v1", true),
            ("/ip4/127.0.0.1/tcp/2020", true),
            (&*own[0], true),
            ("/ip4/192.0.2.1/tcp/2020", false),
            ("/ip4/192.0.2.2/udp/2020/quic-v1", false),
            (RELAY, false),
            (&*through(RELAY), false),
        ] {
            assert_eq!(is_one_of(address, &own), is_own, "{address}");
        }
        let other = own[0].replace(OWN, "12D3KooWQcskD8qa4ytdwXG3GLco5kSds4XtAmpepbjSwfy4ErRt");
        assert!(!is_one_of(&other, &own), "another one is meant");
    }

    #[test]
    fn what_others_can_dial_is_told_first_and_of_that_what_they_dial_first() {
        let circuit = through(RELAY);
        let [here, quic, tcp] = [
            "/ip4/127.0.0.1/tcp/2020",
            "/ip4/192.0.2.1/udp/2020/quic-v1",
            "/ip4/192.0.2.1/tcp/2020",
        ];
        let mut addresses = [here, &circuit, quic, tcp].map(str::to_owned);
        sort(&mut addresses);
        assert_eq!(addresses, [tcp, quic, &circuit, here]);
    }

    #[test]
    fn only_approved_relays_are_believed() {
        let (relay, _) = realm_p2p::relay_of(&through(RELAY)).unwrap();
        let told = [RELAY.to_owned(), through(OTHER), through(RELAY)];
        let kept = circuits(&told, |key| *key == relay);
        assert_eq!(kept, [through(RELAY)]);
        let kept = circuits(&vec![through(RELAY); 9], |_| true);
        assert_eq!(kept.len(), MAX_CIRCUITS);
    }
}

//! Tries to reach the targets in its arguments and prints one result per target.
//!
//! Arguments are `tcp:ADDRESS:PORT`, `udp:ADDRESS:PORT`, `dns:NAME`, `tcpname:NAME:PORT`
//! (look up, then connect to each answer), `bind:ADDRESS:PORT`, `udpto:ADDRESS:PORT` (a socket without a peer) and
//! `udpvia:ADDRESS:PORT=ADDRESS:PORT` (a socket with a peer, and a datagram for another one); `storm:ADDRESS:PORT` connects
//! again and again without end. IPv6 addresses go in brackets.
//! It speaks to `wasi:sockets` itself, so a refusal is the host's own error and not one of libc's.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use wasip2::sockets::instance_network::instance_network;
use wasip2::sockets::ip_name_lookup::resolve_addresses;
use wasip2::sockets::network::{
    ErrorCode, IpAddress, IpAddressFamily, IpSocketAddress, Ipv4SocketAddress, Ipv6SocketAddress,
};
use wasip2::sockets::tcp_create_socket::create_tcp_socket;
use wasip2::sockets::udp::OutgoingDatagram;
use wasip2::sockets::udp_create_socket::create_udp_socket;

fn main() {
    for arg in std::env::args().skip(1) {
        match probe(&arg) {
            Ok(said) => println!("{arg}: ok {said}"),
            Err(error) => println!("{arg}: error: {error}"),
        }
    }
}

fn probe(arg: &str) -> Result<String, String> {
    let (verb, target) = arg.split_once(':').ok_or("expected VERB:TARGET")?;
    match verb {
        "tcp" => connect(parse(target)?).map_err(name),
        "udp" => {
            let to = parse(target)?;
            send(Some(to), to.ip(), None).map_err(name)
        }
        "udpto" => {
            let to = parse(target)?;
            send(None, to.ip(), Some(to)).map_err(name)
        }
        "udpvia" => {
            let (peer, to) = target.split_once('=').ok_or("expected PEER=TARGET")?;
            let (peer, to) = (parse(peer)?, parse(to)?);
            send(Some(peer), peer.ip(), Some(to)).map_err(name)
        }
        "storm" => {
            let to = parse(target)?;
            loop {
                // What becomes of each is not the point.
                let _ = connect(to);
            }
        }
        "bind" => bind(parse(target)?).map_err(name),
        "dns" => {
            let found = resolve(target).map_err(name)?;
            Ok(found
                .iter()
                .map(ToString::to_string)
                .collect::<Vec<_>>()
                .join(" "))
        }
        "tcpname" => connect_by_name(target),
        _ => Err("unknown verb".to_owned()),
    }
}

fn parse(target: &str) -> Result<SocketAddr, String> {
    target
        .parse()
        .map_err(|_| format!("not an address and port: {target}"))
}

fn connect(to: SocketAddr) -> Result<String, ErrorCode> {
    let socket = create_tcp_socket(family(&to.ip()))?;
    socket.start_connect(&instance_network(), raw(to))?;
    socket.subscribe().block();
    let (input, output) = loop {
        match socket.finish_connect() {
            Err(ErrorCode::WouldBlock) => socket.subscribe().block(),
            other => break other?,
        }
    };
    // A peer that answers shows that bytes pass, one that hangs up that the connection stood.
    let sent = output.blocking_write_and_flush(b"net-probe\n").is_ok();
    let heard = input
        .blocking_read(64)
        .map(|bytes| bytes.len())
        .unwrap_or(0);
    Ok(format!("sent={sent} heard={heard}"))
}

fn send(peer: Option<SocketAddr>, ip: IpAddr, to: Option<SocketAddr>) -> Result<String, ErrorCode> {
    let socket = create_udp_socket(family(&ip))?;
    let any = match ip {
        IpAddr::V4(_) => SocketAddr::from((Ipv4Addr::UNSPECIFIED, 0)),
        IpAddr::V6(_) => SocketAddr::from((Ipv6Addr::UNSPECIFIED, 0)),
    };
    socket.start_bind(&instance_network(), raw(any))?;
    while let Err(error) = socket.finish_bind() {
        if error != ErrorCode::WouldBlock {
            return Err(error);
        }
        socket.subscribe().block();
    }
    let (_incoming, outgoing) = socket.stream(peer.map(raw))?;
    while outgoing.check_send()? == 0 {
        outgoing.subscribe().block();
    }
    let datagram = OutgoingDatagram {
        data: b"net-probe\n".to_vec(),
        remote_address: to.map(raw),
    };
    Ok(format!("sent={}", outgoing.send(&[datagram])?))
}

fn bind(to: SocketAddr) -> Result<String, ErrorCode> {
    let socket = create_tcp_socket(family(&to.ip()))?;
    socket.start_bind(&instance_network(), raw(to))?;
    while let Err(error) = socket.finish_bind() {
        if error != ErrorCode::WouldBlock {
            return Err(error);
        }
        socket.subscribe().block();
    }
    socket.start_listen()?;
    Ok("listening".to_owned())
}

fn resolve(name: &str) -> Result<Vec<IpAddr>, ErrorCode> {
    let answers = resolve_addresses(&instance_network(), name)?;
    let mut found = Vec::new();
    loop {
        match answers.resolve_next_address() {
            Ok(Some(address)) => found.push(cooked(address)),
            Ok(None) => return Ok(found),
            Err(ErrorCode::WouldBlock) => answers.subscribe().block(),
            Err(error) => return Err(error),
        }
    }
}

fn connect_by_name(target: &str) -> Result<String, String> {
    let (host, port) = target.rsplit_once(':').ok_or("expected NAME:PORT")?;
    let port = port.parse().map_err(|_| "not a port".to_owned())?;
    let mut said = Vec::new();
    for ip in resolve(host).map_err(name)? {
        match connect(SocketAddr::new(ip, port)) {
            Ok(_) => said.push(format!("{ip}=connected")),
            Err(error) => said.push(format!("{ip}={}", name(error))),
        }
    }
    Ok(said.join(" "))
}

fn family(ip: &IpAddr) -> IpAddressFamily {
    match ip {
        IpAddr::V4(_) => IpAddressFamily::Ipv4,
        IpAddr::V6(_) => IpAddressFamily::Ipv6,
    }
}

fn raw(address: SocketAddr) -> IpSocketAddress {
    let port = address.port();
    match address.ip() {
        IpAddr::V4(ip) => {
            let [a, b, c, d] = ip.octets();
            IpSocketAddress::Ipv4(Ipv4SocketAddress {
                port,
                address: (a, b, c, d),
            })
        }
        IpAddr::V6(ip) => {
            let [a, b, c, d, e, f, g, h] = ip.segments();
            IpSocketAddress::Ipv6(Ipv6SocketAddress {
                port,
                flow_info: 0,
                address: (a, b, c, d, e, f, g, h),
                scope_id: 0,
            })
        }
    }
}

fn cooked(address: IpAddress) -> IpAddr {
    match address {
        IpAddress::Ipv4((a, b, c, d)) => Ipv4Addr::new(a, b, c, d).into(),
        IpAddress::Ipv6((a, b, c, d, e, f, g, h)) => Ipv6Addr::new(a, b, c, d, e, f, g, h).into(),
    }
}

fn name(error: ErrorCode) -> String {
    error.name().to_owned()
}

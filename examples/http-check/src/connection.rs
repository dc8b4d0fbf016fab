//! One TCP connection through `wasi:sockets`, with an end to all waiting.

use std::net::IpAddr;
use std::time::Duration;

use wasip2::clocks::monotonic_clock;
use wasip2::io::poll::{Pollable, poll};
use wasip2::io::streams::{InputStream, OutputStream, StreamError};
use wasip2::sockets::instance_network::instance_network;
use wasip2::sockets::ip_name_lookup::resolve_addresses;
use wasip2::sockets::network::{
    ErrorCode, IpAddress, IpAddressFamily, IpSocketAddress, Ipv4SocketAddress, Ipv6SocketAddress,
};
use wasip2::sockets::tcp::TcpSocket;
use wasip2::sockets::tcp_create_socket::create_tcp_socket;

/// The most that is read at once, in bytes.
const CHUNK: u64 = 4096;

/// A moment after which waiting fails.
pub struct Deadline(Pollable);

impl Deadline {
    pub fn after(wait: Duration) -> Self {
        let nanos = u64::try_from(wait.as_nanos()).unwrap_or(u64::MAX);
        Self(monotonic_clock::subscribe_duration(nanos))
    }

    fn wait(&self, event: &Pollable) -> Result<(), String> {
        let ready = poll(&[event, &self.0]);
        if ready.contains(&0) {
            Ok(())
        } else {
            Err("no answer in time".to_owned())
        }
    }
}

/// Fields are dropped in this order: streams belong to their socket.
pub struct Connection {
    input: InputStream,
    output: OutputStream,
    _socket: TcpSocket,
}

impl Connection {
    /// Tries each address of the host until one accepts.
    pub fn open(host: &str, port: u16, deadline: &Deadline) -> Result<Self, String> {
        let mut failed = format!("{host} has no address");
        for address in resolve(host, deadline)? {
            match connect(address, port, deadline) {
                Ok(connection) => return Ok(connection),
                Err(error) => failed = error,
            }
        }
        Err(failed)
    }

    pub fn send(&self, bytes: &[u8]) -> Result<(), String> {
        self.output
            .blocking_write_and_flush(bytes)
            .map_err(|error| format!("cannot send: {error:?}"))
    }

    /// Some bytes, or None at the end of the answer.
    pub fn receive(&self, deadline: &Deadline) -> Result<Option<Vec<u8>>, String> {
        loop {
            deadline.wait(&self.input.subscribe())?;
            match self.input.read(CHUNK) {
                Ok(bytes) if bytes.is_empty() => {}
                Ok(bytes) => return Ok(Some(bytes)),
                Err(StreamError::Closed) => return Ok(None),
                Err(error) => return Err(format!("cannot receive: {error:?}")),
            }
        }
    }
}

fn resolve(host: &str, deadline: &Deadline) -> Result<Vec<IpAddress>, String> {
    if let Ok(address) = host.parse::<IpAddr>() {
        return Ok(vec![raw(address)]);
    }
    let refused = |error: ErrorCode| format!("cannot look up {host}: {}", error.name());
    let answers = resolve_addresses(&instance_network(), host).map_err(refused)?;
    let mut found = Vec::new();
    loop {
        match answers.resolve_next_address() {
            Ok(Some(address)) => found.push(address),
            Ok(None) => return Ok(found),
            Err(ErrorCode::WouldBlock) => deadline.wait(&answers.subscribe())?,
            Err(error) => return Err(refused(error)),
        }
    }
}

fn connect(address: IpAddress, port: u16, deadline: &Deadline) -> Result<Connection, String> {
    let refused = |error: ErrorCode| match error {
        ErrorCode::AccessDenied => "connecting is not granted; see --allow".to_owned(),
        error => format!("cannot connect: {}", error.name()),
    };
    let (family, remote) = match address {
        IpAddress::Ipv4(address) => (
            IpAddressFamily::Ipv4,
            IpSocketAddress::Ipv4(Ipv4SocketAddress { port, address }),
        ),
        IpAddress::Ipv6(address) => {
            let (flow_info, scope_id) = (0, 0);
            let remote = Ipv6SocketAddress {
                port,
                flow_info,
                address,
                scope_id,
            };
            (IpAddressFamily::Ipv6, IpSocketAddress::Ipv6(remote))
        }
    };
    let socket = create_tcp_socket(family).map_err(refused)?;
    socket
        .start_connect(&instance_network(), remote)
        .map_err(refused)?;
    loop {
        deadline.wait(&socket.subscribe())?;
        match socket.finish_connect() {
            Ok((input, output)) => {
                return Ok(Connection {
                    input,
                    output,
                    _socket: socket,
                });
            }
            Err(ErrorCode::WouldBlock) => {}
            Err(error) => return Err(refused(error)),
        }
    }
}

fn raw(address: IpAddr) -> IpAddress {
    match address {
        IpAddr::V4(ip) => {
            let [a, b, c, d] = ip.octets();
            IpAddress::Ipv4((a, b, c, d))
        }
        IpAddr::V6(ip) => {
            let [a, b, c, d, e, f, g, h] = ip.segments();
            IpAddress::Ipv6((a, b, c, d, e, f, g, h))
        }
    }
}

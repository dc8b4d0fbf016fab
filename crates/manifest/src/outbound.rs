//! Where a cell may connect to.

use std::{fmt, net::IpAddr, str::FromStr};

use minicbor::{Decode, Encode};
use serde::{Deserialize, Serialize};

/// `scheme://host[:port][?private]`, checked again on the resolved address.
///
/// The host is a name, `*.` and a name, `*`, an address or a CIDR; IPv6 stands in brackets, its
/// prefix length with it. Without a port, tcp and udp mean any port, http means 80 and https 443;
/// `:*` is any port. A well-known scheme such as `postgres` is short for `tcp` and its port.
///
/// A name never permits a private address: that needs the address, a CIDR, or `?private`.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode, Serialize, Deserialize)]
#[cbor(map)]
#[serde(try_from = "String", into = "String")]
pub struct Outbound {
    #[n(0)]
    pub scheme: Scheme,
    #[n(1)]
    pub host: OutboundHost,
    /// None is any port.
    #[n(2)]
    pub port: Option<u16>,
    /// `?private`: the name may resolve to a private address.
    #[n(3)]
    pub private: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Encode, Decode)]
#[cbor(index_only)]
pub enum Scheme {
    #[n(0)]
    Tcp,
    #[n(1)]
    Udp,
    /// Grants `wasi:http` only.
    #[n(2)]
    Http,
    /// Grants `wasi:http` only.
    #[n(3)]
    Https,
}

#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub enum OutboundHost {
    /// A DNS name, lowercase; `*.example.com` is every name below it; `*` is any public host.
    #[n(0)]
    Name(#[n(0)] String),
    /// An address and a prefix length; a single address has the full length.
    #[n(1)]
    Net(#[cbor(n(0), with = "address")] IpAddr, #[n(1)] u8),
}

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum OutboundError {
    #[error("{0:?} is not scheme://host[:port]")]
    Format(String),
    #[error(
        "unknown scheme {0:?}: use tcp, udp, http, https, or a well-known one such as postgres"
    )]
    Scheme(String),
    #[error("{0:?} is neither a name nor an address")]
    Host(String),
    #[error("{0:?} has bits set behind its prefix length, or a prefix that is too long")]
    Prefix(String),
    #[error("{0:?} is not a port: use 1 to 65535, or '*' for any")]
    Port(String),
    #[error("{0:?} is not known here: only \"?private\" may follow the host")]
    Option(String),
}

/// Schemes that are short for tcp and a port.
const WELL_KNOWN: [(&str, u16); 14] = [
    ("amqp", 5672),
    ("amqps", 5671),
    ("imaps", 993),
    ("kafka", 9092),
    ("ldap", 389),
    ("ldaps", 636),
    ("memcached", 11211),
    ("mongodb", 27017),
    ("mqtt", 1883),
    ("mysql", 3306),
    ("nats", 4222),
    ("postgres", 5432),
    ("postgresql", 5432),
    ("redis", 6379),
];

/// Longest DNS name and longest label of one.
const NAME_MAX: usize = 253;
const LABEL_MAX: usize = 63;

impl Scheme {
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Tcp => "tcp",
            Self::Udp => "udp",
            Self::Http => "http",
            Self::Https => "https",
        }
    }

    /// What a missing port means; None is any.
    const fn port(self) -> Option<u16> {
        match self {
            Self::Tcp | Self::Udp => None,
            Self::Http => Some(80),
            Self::Https => Some(443),
        }
    }

    /// The scheme a word stands for, with the port it implies.
    fn parse(word: &str) -> Option<(Self, Option<u16>)> {
        let plain = [Self::Tcp, Self::Udp, Self::Http, Self::Https];
        if let Some(scheme) = plain.into_iter().find(|scheme| scheme.as_str() == word) {
            return Some((scheme, scheme.port()));
        }
        let (_, port) = WELL_KNOWN.into_iter().find(|(name, _)| *name == word)?;
        Some((Self::Tcp, Some(port)))
    }
}

impl OutboundHost {
    /// Whether `address` lies in this net; never true of a name.
    pub fn contains(&self, address: IpAddr) -> bool {
        match (self, address.to_canonical()) {
            (Self::Net(IpAddr::V4(net), prefix), IpAddr::V4(address)) => {
                let mask = u32::MAX
                    .checked_shl(32 - u32::from(*prefix).min(32))
                    .unwrap_or(0);
                u32::from(*net) & mask == u32::from(address) & mask
            }
            (Self::Net(IpAddr::V6(net), prefix), IpAddr::V6(address)) => {
                let mask = u128::MAX
                    .checked_shl(128 - u32::from(*prefix).min(128))
                    .unwrap_or(0);
                u128::from(*net) & mask == u128::from(address) & mask
            }
            _ => false,
        }
    }

    /// Whether a DNS name is meant, in any case, with or without a trailing dot; never true of a net.
    pub fn matches_name(&self, name: &str) -> bool {
        let Self::Name(pattern) = self else {
            return false;
        };
        let name = name.strip_suffix('.').unwrap_or(name).to_ascii_lowercase();
        match pattern.strip_prefix("*.") {
            _ if pattern == "*" => true,
            Some(parent) => name
                .strip_suffix(parent)
                .and_then(|below| below.strip_suffix('.'))
                .is_some_and(|below| !below.is_empty()),
            None => name == *pattern,
        }
    }
}

impl FromStr for Outbound {
    type Err = OutboundError;

    fn from_str(text: &str) -> Result<Self, OutboundError> {
        let format = || OutboundError::Format(text.to_owned());
        let (word, rest) = text.split_once("://").ok_or_else(format)?;
        let (scheme, implied) =
            Scheme::parse(word).ok_or_else(|| OutboundError::Scheme(word.to_owned()))?;
        let (authority, private) = match rest.split_once('?') {
            None => (rest, false),
            Some((authority, "private")) => (authority, true),
            Some((_, option)) => return Err(OutboundError::Option(option.to_owned())),
        };
        let (host, port) = split_port(authority).ok_or_else(format)?;
        let host: OutboundHost = host.parse()?;
        let port = match port {
            None => implied,
            Some("*") => None,
            Some(port) => Some(parse_port(port)?),
        };
        // An address is named already: it needs no leave to be private.
        let private = private && matches!(host, OutboundHost::Name(_));
        Ok(Self {
            scheme,
            host,
            port,
            private,
        })
    }
}

impl fmt::Display for Outbound {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}://{}", self.scheme.as_str(), self.host)?;
        match self.port {
            port if port == self.scheme.port() => {}
            None => f.write_str(":*")?,
            Some(port) => write!(f, ":{port}")?,
        }
        if self.private {
            f.write_str("?private")
        } else {
            Ok(())
        }
    }
}

impl FromStr for OutboundHost {
    type Err = OutboundError;

    fn from_str(text: &str) -> Result<Self, OutboundError> {
        let inner = text
            .strip_prefix('[')
            .and_then(|inner| inner.strip_suffix(']'));
        let (address, prefix) = match inner.unwrap_or(text).split_once('/') {
            Some((address, prefix)) => (address, Some(prefix)),
            None => (inner.unwrap_or(text), None),
        };
        match address.parse::<IpAddr>() {
            Ok(address) if address.is_ipv6() == inner.is_some() => net(text, address, prefix),
            Err(_) if inner.is_none() && prefix.is_none() => name(text),
            _ => Err(OutboundError::Host(text.to_owned())),
        }
    }
}

impl fmt::Display for OutboundHost {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Name(name) => f.write_str(name),
            Self::Net(IpAddr::V4(address), 32) => write!(f, "{address}"),
            Self::Net(IpAddr::V4(address), prefix) => write!(f, "{address}/{prefix}"),
            Self::Net(IpAddr::V6(address), 128) => write!(f, "[{address}]"),
            Self::Net(IpAddr::V6(address), prefix) => write!(f, "[{address}/{prefix}]"),
        }
    }
}

/// Parts `host[:port]`; the colons of a bracketed host are its own.
fn split_port(authority: &str) -> Option<(&str, Option<&str>)> {
    if authority.starts_with('[') {
        let end = authority.find(']')? + 1;
        let (host, rest) = authority.split_at(end);
        return match rest {
            "" => Some((host, None)),
            _ => Some((host, Some(rest.strip_prefix(':')?))),
        };
    }
    Some(match authority.split_once(':') {
        Some((host, port)) => (host, Some(port)),
        None => (authority, None),
    })
}

fn parse_port(text: &str) -> Result<u16, OutboundError> {
    match text.parse() {
        Ok(port) if port > 0 && text.bytes().all(|b| b.is_ascii_digit()) => Ok(port),
        _ => Err(OutboundError::Port(text.to_owned())),
    }
}

fn net(text: &str, address: IpAddr, prefix: Option<&str>) -> Result<OutboundHost, OutboundError> {
    let error = || OutboundError::Prefix(text.to_owned());
    let full: u8 = if address.is_ipv4() { 32 } else { 128 };
    let prefix = match prefix {
        Some(prefix) => prefix
            .parse()
            .ok()
            .filter(|length| *length <= full)
            .ok_or_else(error)?,
        None => full,
    };
    let canonical = address.to_canonical();
    if prefix == full && canonical != address {
        return Ok(OutboundHost::Net(canonical, 32));
    }
    let host_bits_set = match address {
        IpAddr::V4(v4) => u32::from(v4).checked_shl(prefix.into()).unwrap_or(0) != 0,
        IpAddr::V6(v6) => u128::from(v6).checked_shl(prefix.into()).unwrap_or(0) != 0,
    };
    if host_bits_set {
        Err(error())
    } else {
        Ok(OutboundHost::Net(address, prefix))
    }
}

fn name(text: &str) -> Result<OutboundHost, OutboundError> {
    let name = text.strip_suffix('.').unwrap_or(text).to_ascii_lowercase();
    let bare = name.strip_prefix("*.").unwrap_or(&name);
    if name == "*" || is_dns_name(bare) {
        Ok(OutboundHost::Name(name))
    } else {
        Err(OutboundError::Host(text.to_owned()))
    }
}

fn is_dns_name(name: &str) -> bool {
    let label = |label: &str| {
        (1..=LABEL_MAX).contains(&label.len())
            && label
                .bytes()
                .all(|b| matches!(b, b'a'..=b'z' | b'0'..=b'9' | b'-' | b'_'))
    };
    // A name that ends in a number is an old way to write an IPv4 address (0x7f.1), and resolves as one.
    let ends_in_number = name
        .rsplit('.')
        .next()
        .is_some_and(|last| last.bytes().all(|b| b.is_ascii_digit()) || last.starts_with("0x"));
    name.len() <= NAME_MAX && name.split('.').all(label) && !ends_in_number
}

/// Addresses as byte strings of 4 or 16.
mod address {
    use std::net::IpAddr;

    use minicbor::{Decoder, Encoder};

    pub fn encode<C, W: minicbor::encode::Write>(
        address: &IpAddr,
        encoder: &mut Encoder<W>,
        _: &mut C,
    ) -> Result<(), minicbor::encode::Error<W::Error>> {
        match address {
            IpAddr::V4(v4) => encoder.bytes(&v4.octets())?.ok(),
            IpAddr::V6(v6) => encoder.bytes(&v6.octets())?.ok(),
        }
    }

    pub fn decode<C>(
        decoder: &mut Decoder<'_>,
        _: &mut C,
    ) -> Result<IpAddr, minicbor::decode::Error> {
        let bytes = decoder.bytes()?;
        if let Ok(v4) = <[u8; 4]>::try_from(bytes) {
            return Ok(IpAddr::from(v4));
        }
        <[u8; 16]>::try_from(bytes)
            .map(IpAddr::from)
            .map_err(|_| minicbor::decode::Error::message("an address is 4 or 16 bytes"))
    }
}

impl TryFrom<String> for Outbound {
    type Error = OutboundError;

    fn try_from(text: String) -> Result<Self, OutboundError> {
        text.parse()
    }
}

impl From<Outbound> for String {
    fn from(outbound: Outbound) -> Self {
        outbound.to_string()
    }
}

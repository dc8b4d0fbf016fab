//! Where a cell may connect to.

use std::net::IpAddr;

use minicbor::{Decode, Encode};
use serde::{Deserialize, Serialize};

/// `scheme://host[:port]`, checked again on the resolved address.
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
    #[error("unknown scheme {0:?}: use tcp, udp, http, https, or a well-known one such as postgres")]
    Scheme(String),
    #[error("{0:?} is neither a name nor an address")]
    Host(String),
    #[error("{0:?} is not a port")]
    Port(String),
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

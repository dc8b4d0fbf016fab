//! TCP and QUIC, both encrypted and authenticated.

use std::time::Duration;

use futures::io::BufReader;
use libp2p::{
    PeerId, Transport as _,
    core::{
        muxing::StreamMuxerBox,
        transport::{Boxed, OrTransport},
        upgrade,
    },
    dns, identity, noise, quic, relay, tcp, yamux,
};

use crate::handshakes::{Gate, Handshakes};

/// A transport's output, ready for a swarm.
pub(crate) type Transport = Boxed<(PeerId, StreamMuxerBox)>;

/// A stranger that does not finish its handshake in this time is let go.
pub(crate) const HANDSHAKE: Duration = Duration::from_secs(5);
/// Taken from a TCP connection at once. What is above takes 8 KiB at a time, and single bytes while it negotiates.
/// Each connection has it from the start, also one of a stranger.
const READ_BYTES: usize = 16 * 1024;
/// What one peer may have in flight to us on one stream, and on one connection.
pub(crate) const QUIC_STREAM_WINDOW: u32 = 256 * 1024;
pub(crate) const QUIC_CONNECTION_WINDOW: u32 = 1024 * 1024;

#[derive(Debug, Clone, Copy)]
pub(crate) struct Options {
    /// Streams the remote may have open at once.
    pub streams: usize,
    /// Reading the system's resolver settings costs a moment, so a command line asks only when it has names.
    pub dns: bool,
}

/// TCP and QUIC, and relayed connections if there is a relay client's transport. Whoever listens
/// has places for handshakes.
pub(crate) fn build(
    keypair: &identity::Keypair,
    relay: Option<relay::client::Transport>,
    handshakes: Option<&Handshakes>,
    options: Options,
) -> Result<Transport, noise::Error> {
    let direct = with_names(keypair, handshakes, options)?;
    let Some(relay) = relay else {
        return Ok(direct);
    };
    let relayed = relay
        .upgrade(upgrade::Version::V1Lazy)
        .authenticate(noise::Config::new(keypair)?)
        .multiplex(muxer(options))
        .timeout(HANDSHAKE)
        .boxed();
    Ok(OrTransport::new(gated(relayed, handshakes), direct)
        .map(|either, _| either.into_inner())
        .boxed())
}

/// Without resolver settings, names fail one by one and addresses go on working.
fn with_names(
    keypair: &identity::Keypair,
    handshakes: Option<&Handshakes>,
    options: Options,
) -> Result<Transport, noise::Error> {
    let direct = direct(keypair, handshakes, options)?;
    if !options.dns {
        return Ok(direct);
    }
    match dns::tokio::Transport::system(direct) {
        Ok(transport) => Ok(transport.boxed()),
        Err(error) => {
            tracing::warn!(%error, "no resolver settings: addresses with names will not work");
            self::direct(keypair, handshakes, options)
        }
    }
}

fn direct(
    keypair: &identity::Keypair,
    handshakes: Option<&Handshakes>,
    options: Options,
) -> Result<Transport, noise::Error> {
    let tcp = tcp::tokio::Transport::new(tcp::Config::default().nodelay(true))
        .map(|stream, _| BufReader::with_capacity(READ_BYTES, stream))
        .upgrade(upgrade::Version::V1Lazy)
        .authenticate(noise::Config::new(keypair)?)
        .multiplex(muxer(options))
        .timeout(HANDSHAKE)
        .boxed();
    let mut config = quic::Config::new(keypair);
    config.handshake_timeout = HANDSHAKE;
    config.max_concurrent_stream_limit = options.streams as u32;
    config.max_stream_data = QUIC_STREAM_WINDOW;
    config.max_connection_data = QUIC_CONNECTION_WINDOW;
    let quic = quic::tokio::Transport::new(config)
        .map(|(peer, muxer), _| (peer, StreamMuxerBox::new(muxer)))
        .boxed();
    Ok(
        OrTransport::new(gated(quic, handshakes), gated(tcp, handshakes))
            .map(|either, _| either.into_inner())
            .boxed(),
    )
}

/// Each transport has a gate of its own, since the second one is asked when the first one has
/// nothing: a flood of datagrams must not keep TCP out.
fn gated(transport: Transport, handshakes: Option<&Handshakes>) -> Transport {
    match handshakes {
        Some(handshakes) => Gate::new(transport, handshakes.clone()).boxed(),
        None => transport,
    }
}

fn muxer(options: Options) -> yamux::Config {
    let mut config = yamux::Config::default();
    config.set_max_num_streams(options.streams);
    config
}

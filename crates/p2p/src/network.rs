//! Starting a network.

use std::{
    collections::HashSet,
    error::Error,
    io,
    net::{SocketAddr, TcpListener, UdpSocket},
    panic::AssertUnwindSafe,
    thread,
};

use futures::FutureExt as _;
use libp2p::{
    Multiaddr, StreamProtocol, Swarm,
    core::transport::{ListenerId, TransportError},
    identity,
    multiaddr::Protocol,
    noise, relay, swarm,
};
use tokio::{
    sync::{mpsc, oneshot},
    task::LocalSet,
};

use crate::{
    Config, NetworkEvent, NetworkHandle, Services, StartError, address, behaviour,
    behaviour::Behaviour,
    beside::Beside,
    blob, frames,
    gossip::Topics,
    handle::Command,
    key, rpc,
    task::{Parts, Task},
    transport,
};

/// Commands on their way to the network; askers wait when it is busy.
const COMMANDS: usize = 256;
/// Events on their way to the consumer, beside those that the network keeps itself.
const EVENTS: usize = 256;

/// Entry point: see [`Network::start`].
#[derive(Debug)]
pub struct Network;

type Ready = oneshot::Sender<Result<Beside, StartError>>;

impl Network {
    /// Starts the network's thread and returns once it listens on every address of the configuration.
    pub async fn start(
        config: Config,
        services: Services,
    ) -> Result<(NetworkHandle, mpsc::Receiver<NetworkEvent>), StartError> {
        let limits = &config.limits;
        if limits.frame_bytes.min(limits.frame_bytes_per_peer) < limits.frame {
            return Err(StartError::Settings(
                "frame_bytes and frame_bytes_per_peer must hold one frame".to_owned(),
            ));
        }
        let listen = parse_all(&config.listen)?;
        let bootstrap = parse_all(&config.bootstrap)?;
        let own = config.secret.public();
        let (commands, receive_commands) = mpsc::channel(COMMANDS);
        let (send_events, events) = mpsc::channel(EVENTS);
        let (ready, started) = oneshot::channel();
        let start = Start {
            config,
            services,
            listen,
            bootstrap,
            commands: receive_commands,
            events: send_events,
        };
        let thread = thread::Builder::new()
            .name("realm-p2p".to_owned())
            .spawn(move || run(start, ready))
            .map_err(StartError::Thread)?;
        // A caller that goes away meanwhile drops the commands, which ends the thread.
        let beside = started.await.map_err(|_| StartError::Stopped)??;
        Ok((NetworkHandle::new(own, commands, beside, thread), events))
    }
}

struct Start {
    config: Config,
    services: Services,
    listen: Vec<Multiaddr>,
    bootstrap: Vec<Multiaddr>,
    commands: mpsc::Receiver<Command>,
    events: mpsc::Sender<NetworkEvent>,
}

/// The network's thread: the swarm, its streams, RPC, and who asks to be beside them share one runtime, which
/// spares every message a hop.
fn run(start: Start, ready: Ready) {
    let runtime = match tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
    {
        Ok(runtime) => runtime,
        Err(error) => return drop(ready.send(Err(StartError::Thread(error)))),
    };
    let beside = Beside::new(runtime.handle().clone());
    LocalSet::new().block_on(&runtime, async move {
        match build(start) {
            Ok(parts) => {
                let mut task = Task::new(parts);
                task.listening().await;
                // Whoever stopped waiting has dropped the handle too, which ends the task.
                drop(ready.send(Ok(beside.clone())));
                let ran = AssertUnwindSafe(Box::pin(task.run())).catch_unwind().await;
                // They hear that the network is gone, and stop in order, also after a panic.
                beside.ended().await;
                if let Err(panic) = ran {
                    std::panic::resume_unwind(panic);
                }
            }
            Err(error) => drop(ready.send(Err(error))),
        }
    });
}

fn build(start: Start) -> Result<Parts, StartError> {
    let Start {
        config,
        services,
        listen,
        bootstrap,
        commands,
        events,
    } = start;
    let keypair = key::keypair(&config.secret);
    let mut swarm = build_swarm(&config, &services, &keypair)?;
    let topics = config.realm.map(Topics::new);
    if let Some(topics) = &topics {
        topics
            .subscribe(&mut swarm.behaviour_mut().gossip)
            .map_err(StartError::Settings)?;
    }
    let listeners = listen_all(&mut swarm, &listen)?;
    Ok(Parts {
        swarm,
        limits: config.limits,
        topics,
        bootstrap,
        listeners,
        commands,
        events,
        blobs: services.blobs,
        rpc: services.rpc.map(|factory| factory()),
    })
}

fn build_swarm(
    config: &Config,
    services: &Services,
    keypair: &identity::Keypair,
) -> Result<Swarm<Behaviour>, StartError> {
    let peer = keypair.public().to_peer_id();
    let (relay_transport, relay_client) = relay::client::new(peer);
    let options = transport::Options {
        streams: config.limits.streams,
        dns: true,
    };
    let behaviour = behaviour::build(config, keypair, relay_client, served(services))
        .map_err(StartError::Settings)?;
    let handshakes = Some(&behaviour.limits.handshakes);
    let transport = transport::build(keypair, Some(relay_transport), handshakes, options)
        .map_err(|error: noise::Error| StartError::Settings(error.to_string()))?;
    let settings = swarm::Config::with_tokio_executor()
        .with_idle_connection_timeout(config.limits.idle)
        .with_max_negotiating_inbound_streams(config.limits.streams);
    Ok(Swarm::new(transport, behaviour, peer, settings))
}

fn served(services: &Services) -> Vec<StreamProtocol> {
    let mut served = vec![frames::PROTOCOL];
    if services.blobs.is_some() {
        served.push(blob::PROTOCOL);
    }
    if services.rpc.is_some() {
        served.push(rpc::PROTOCOL);
    }
    served
}

fn parse_all(addresses: &[String]) -> Result<Vec<Multiaddr>, StartError> {
    addresses
        .iter()
        .map(|text| Ok(address::parse(text)?))
        .collect()
}

fn listen_all(
    swarm: &mut Swarm<Behaviour>,
    addresses: &[Multiaddr],
) -> Result<HashSet<ListenerId>, StartError> {
    // All before any: a probe of "::" would meet our own listener on "0.0.0.0".
    for address in addresses {
        check_free(address).map_err(|error| listen_error(address, error))?;
    }
    let mut listeners = HashSet::new();
    for address in addresses {
        let listener = swarm
            .listen_on(address.clone())
            .map_err(|error| listen_error(address, cause(&error)))?;
        listeners.insert(listener);
    }
    Ok(listeners)
}

/// libp2p shares its TCP ports, so that a second agent would get half of the first one's connections.
fn check_free(address: &Multiaddr) -> io::Result<()> {
    let Some(ip) = address::ip_of(address) else {
        return Ok(());
    };
    for part in address {
        match part {
            Protocol::Tcp(port) if port != 0 => {
                TcpListener::bind(SocketAddr::new(ip, port))?;
            }
            Protocol::Udp(port) if port != 0 => {
                UdpSocket::bind(SocketAddr::new(ip, port))?;
            }
            _ => {}
        }
    }
    Ok(())
}

fn listen_error(address: &Multiaddr, source: io::Error) -> StartError {
    let address = address.to_string();
    if source.kind() == io::ErrorKind::AddrInUse {
        StartError::InUse { address }
    } else {
        StartError::Listen { address, source }
    }
}

/// What the operating system said, out of the layers of transports, which say it again each or
/// nothing at all.
fn cause(error: &TransportError<io::Error>) -> io::Error {
    let mut deepest: &(dyn Error + 'static) = match error {
        TransportError::MultiaddrNotSupported(_) => {
            return io::Error::other("no transport is known for this address");
        }
        TransportError::Other(error) => error,
    };
    loop {
        // What an io::Error holds is not its source.
        let inner = match deepest.downcast_ref::<io::Error>() {
            Some(error) if error.raw_os_error().is_some() => break,
            Some(error) => error.get_ref().map(|inner| inner as &(dyn Error + 'static)),
            None => deepest.source(),
        };
        let Some(inner) = inner else { break };
        deepest = inner;
    }
    let said = deepest.downcast_ref::<io::Error>();
    match said.and_then(io::Error::raw_os_error) {
        Some(code) => io::Error::from_raw_os_error(code),
        None => io::Error::other(deepest.to_string()),
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use realm_identity::SecretKey;
    use tokio::time::timeout;

    use super::*;
    use crate::handle::Closed;

    /// Far more than it takes: the bound is for what never comes.
    const PATIENCE: Duration = Duration::from_secs(60);

    #[tokio::test]
    async fn a_panic_of_the_network_ends_it_and_everybody_hears_of_it() {
        let mut config = Config::new(SecretKey::from_seed(&[1; 32]));
        config.listen = vec!["/ip4/127.0.0.1/tcp/0".to_owned()];
        let (handle, mut events) = Network::start(config, Services::default()).await.unwrap();
        // As an agent's core: it waits for events, and stops in order once there are none any more.
        let (told, stopped) = oneshot::channel();
        let stays = handle.clone();
        let beside = handle.spawn(async move {
            while events.recv().await.is_some() {}
            // What it asks meanwhile is answered, and not waited for.
            told.send(stays.peers().await).is_ok()
        });
        assert!(handle.peers().await.is_ok());
        handle.panic().await.unwrap();
        let asked = timeout(PATIENCE, stopped).await.unwrap().unwrap();
        assert!(matches!(asked, Err(Closed)));
        assert!(timeout(PATIENCE, beside).await.unwrap().unwrap());
        assert!(matches!(handle.peers().await, Err(Closed)));
        timeout(PATIENCE, handle.shutdown()).await.unwrap();
    }
}

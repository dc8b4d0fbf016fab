//! A peer that speaks libp2p, and keeps to no rule of what is said over it.

use std::{
    net::Ipv4Addr,
    sync::atomic::{AtomicU64, Ordering},
    time::Duration,
};

use futures::{AsyncWriteExt as _, StreamExt as _};
use libp2p::{
    Multiaddr, PeerId, Stream, StreamProtocol, Swarm, SwarmBuilder,
    gossipsub::{self, IdentTopic, MessageAuthenticity, ValidationMode},
    identity::Keypair,
    noise,
    swarm::{NetworkBehaviour, SwarmEvent, dial_opts::DialOpts},
    tcp, yamux,
};
use libp2p_stream::{Control, IncomingStreams};
use realm_identity::{RealmId, SecretKey};
use tokio::{sync::mpsc, task::JoinHandle, time::timeout};

pub const LOG: StreamProtocol = StreamProtocol::new("/realm/log/1");
pub const BLOB: StreamProtocol = StreamProtocol::new("/realm/blob/1");
pub const RPC: StreamProtocol = StreamProtocol::new("/realm/rpc/1");
/// For a handshake, or a stream: a foe that gets no answer tries something else.
const STEP: Duration = Duration::from_secs(10);
/// What waits to be gossiped; the rest of a flood waits with whoever makes it.
const SAY: usize = 64;
/// Larger than a node takes, so that a message that is too large is sent at all.
const GOSSIP_MAX: usize = 256 * 1024;

/// One connection of a hostile peer.
pub struct Foe {
    pub secret: SecretKey,
    control: Control,
    node: PeerId,
    say: mpsc::Sender<(Topic, Vec<u8>)>,
    driver: JoinHandle<()>,
}

#[derive(Debug, Clone, Copy)]
pub enum Topic {
    Heads,
    Status,
}

#[derive(NetworkBehaviour)]
struct Behaviour {
    streams: libp2p_stream::Behaviour,
    gossip: gossipsub::Behaviour,
}

/// The node was not reached, or does not want this peer.
#[derive(Debug)]
pub struct Refused;

/// A key that nobody has seen.
pub fn fresh_key() -> SecretKey {
    static NEXT: AtomicU64 = AtomicU64::new(1);
    let mut seed = [66; 32];
    seed[..8].copy_from_slice(&NEXT.fetch_add(1, Ordering::Relaxed).to_be_bytes());
    SecretKey::from_seed(&seed)
}

impl Foe {
    /// Connects with this key, by way of one of this machine's addresses.
    pub async fn connect(
        address: &str,
        secret: SecretKey,
        realm: RealmId,
        from: Option<Ipv4Addr>,
    ) -> Result<Self, Refused> {
        let mut swarm = swarm(&secret);
        if let Some(from) = from {
            // What is listened at is where dials come from.
            let at = format!("/ip4/{from}/tcp/0").parse().unwrap();
            swarm.listen_on(at).map_err(|_| Refused)?;
            let listening = async {
                while !matches!(
                    swarm.select_next_some().await,
                    SwarmEvent::NewListenAddr { .. }
                ) {}
            };
            timeout(STEP, listening).await.map_err(|_| Refused)?;
        }
        let topics = [Topic::Heads, Topic::Status].map(|topic| topic.of(realm));
        for topic in &topics {
            swarm.behaviour_mut().gossip.subscribe(topic).unwrap();
        }
        let node = timeout(STEP, dial(&mut swarm, address))
            .await
            .map_err(|_| Refused)??;
        let control = swarm.behaviour().streams.new_control();
        let (say, said) = mpsc::channel(SAY);
        Ok(Self {
            secret,
            control,
            node,
            say,
            driver: tokio::spawn(drive(swarm, topics, said)),
        })
    }

    pub async fn open(&mut self, protocol: StreamProtocol) -> Result<Stream, Refused> {
        let opened = timeout(STEP, self.control.open_stream(self.node, protocol));
        opened.await.map_err(|_| Refused)?.map_err(|_| Refused)
    }

    /// A stream with these bytes on it.
    pub async fn say(&mut self, protocol: StreamProtocol, bytes: &[u8]) -> Result<Stream, Refused> {
        let mut stream = self.open(protocol).await?;
        write(&mut stream, bytes).await?;
        Ok(stream)
    }

    /// What the node asks of this peer by `protocol`.
    pub fn asked(&mut self, protocol: StreamProtocol) -> IncomingStreams {
        self.control.accept(protocol).unwrap()
    }

    pub async fn gossip(&self, topic: Topic, bytes: Vec<u8>) -> Result<(), Refused> {
        self.say.send((topic, bytes)).await.map_err(|_| Refused)
    }

    /// Waits until the node has ended the connection.
    pub async fn ended(&self) {
        self.say.closed().await;
    }
}

impl Drop for Foe {
    fn drop(&mut self) {
        self.driver.abort();
    }
}

impl Topic {
    fn of(self, realm: RealmId) -> IdentTopic {
        let name = match self {
            Self::Heads => "heads",
            Self::Status => "status",
        };
        IdentTopic::new(format!("realm/{realm}/{name}"))
    }
}

pub async fn write(stream: &mut Stream, bytes: &[u8]) -> Result<(), Refused> {
    stream.write_all(bytes).await.map_err(|_| Refused)?;
    stream.flush().await.map_err(|_| Refused)
}

/// A frame behind its length.
pub fn framed(frame: &[u8]) -> Vec<u8> {
    [&(frame.len() as u32).to_be_bytes()[..], frame].concat()
}

fn swarm(secret: &SecretKey) -> Swarm<Behaviour> {
    let keypair = Keypair::ed25519_from_bytes(*secret.seed()).unwrap();
    let gossip = gossipsub::ConfigBuilder::default()
        .validation_mode(ValidationMode::Anonymous)
        .max_transmit_size(GOSSIP_MAX)
        .heartbeat_interval(Duration::from_millis(200))
        .build()
        .unwrap();
    SwarmBuilder::with_existing_identity(keypair)
        .with_tokio()
        .with_tcp(
            tcp::Config::default().nodelay(true),
            noise::Config::new,
            yamux::Config::default,
        )
        .unwrap()
        .with_behaviour(|_| Behaviour {
            streams: libp2p_stream::Behaviour::new(),
            gossip: gossipsub::Behaviour::new(MessageAuthenticity::Anonymous, gossip).unwrap(),
        })
        .unwrap_or_else(|never| match never {})
        .with_swarm_config(|config| config.with_idle_connection_timeout(Duration::MAX))
        .build()
}

async fn dial(swarm: &mut Swarm<Behaviour>, address: &str) -> Result<PeerId, Refused> {
    let address: Multiaddr = address.parse().unwrap();
    let dial = DialOpts::unknown_peer_id().address(address).build();
    swarm.dial(dial).map_err(|_| Refused)?;
    loop {
        match swarm.select_next_some().await {
            SwarmEvent::ConnectionEstablished { peer_id, .. } => return Ok(peer_id),
            SwarmEvent::OutgoingConnectionError { .. } => return Err(Refused),
            _ => {}
        }
    }
}

/// Runs the swarm until its only connection ends.
async fn drive(
    mut swarm: Swarm<Behaviour>,
    [heads, status]: [IdentTopic; 2],
    mut said: mpsc::Receiver<(Topic, Vec<u8>)>,
) {
    loop {
        tokio::select! {
            Some((topic, bytes)) = said.recv() => {
                let topic = match topic {
                    Topic::Heads => &heads,
                    Topic::Status => &status,
                };
                // Nobody may listen, and a queue of its own may be full: it tries again.
                let _ = swarm.behaviour_mut().gossip.publish(topic.clone(), bytes);
            }
            event = swarm.select_next_some() => {
                if matches!(event, SwarmEvent::ConnectionClosed { .. }) {
                    return;
                }
            }
        }
    }
}

//! Keeps a command's connection going, and begins circuits to other nodes through it.

use std::{collections::HashMap, sync::Arc};

use futures::StreamExt as _;
use libp2p::{
    Multiaddr, PeerId, Stream, Swarm, relay,
    swarm::{
        ConnectionId, NetworkBehaviour, SwarmEvent,
        dial_opts::{DialOpts, PeerCondition},
    },
};
use tokio::{
    sync::{mpsc, oneshot},
    task::JoinHandle,
};

use crate::{
    rpc,
    streams::{self, OpenError, Opened},
    task::dial_reason,
};

/// Circuits that are being made at once, and those that wait for their turn; a relay gives one peer
/// no more.
const CIRCUITS: usize = 16;

/// What a command speaks: it opens streams, and circuits through nodes that it is connected to.
#[derive(NetworkBehaviour)]
pub(super) struct Light {
    pub streams: streams::Behaviour,
    pub relay: relay::client::Behaviour,
}

impl Light {
    pub fn new(relay: relay::client::Behaviour) -> Self {
        Self {
            // It serves nothing.
            streams: streams::Behaviour::new(Vec::new()),
            relay,
        }
    }
}

/// An RPC stream that is asked for, to a node behind a relay.
struct Request {
    circuit: Multiaddr,
    node: PeerId,
    reply: Opened,
}

/// The task that drives the swarm. It ends with the last connection that it carries.
#[derive(Debug)]
pub(super) struct Driver {
    task: JoinHandle<()>,
    requests: mpsc::Sender<Request>,
}

impl Driver {
    pub fn start(swarm: Swarm<Light>) -> Arc<Self> {
        let (requests, receive) = mpsc::channel(CIRCUITS);
        let task = tokio::spawn(drive(swarm, receive));
        Arc::new(Self { task, requests })
    }

    /// Opens an RPC stream through a relay that is connected. Dropping it midway gives the circuit up.
    pub async fn open(&self, circuit: Multiaddr, node: PeerId) -> Result<Stream, OpenError> {
        let gone = || OpenError::Connect("the connection to the relay is gone".to_owned());
        let (reply, opened) = oneshot::channel();
        let request = Request {
            circuit,
            node,
            reply,
        };
        let sent = self.requests.send(request).await;
        sent.map_err(|_| gone())?;
        opened.await.map_err(|_| gone())?
    }
}

impl Drop for Driver {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn drive(swarm: Swarm<Light>, mut requests: mpsc::Receiver<Request>) {
    let mut driving = Driving {
        dials: HashMap::new(),
        swarm,
    };
    loop {
        tokio::select! {
            Some(request) = requests.recv() => driving.begin(request),
            event = driving.swarm.select_next_some() => driving.on_event(event),
        }
    }
}

struct Driving {
    swarm: Swarm<Light>,
    dials: HashMap<ConnectionId, Request>,
}

impl Driving {
    fn begin(&mut self, request: Request) {
        // One circuit to a node carries all streams to it.
        if self.swarm.is_connected(&request.node) {
            return self.open(request);
        }
        if self.dials.len() >= CIRCUITS {
            return request.fail(format!("{CIRCUITS} circuits are being made already"));
        }
        let opts = DialOpts::peer_id(request.node)
            .condition(PeerCondition::Always)
            .addresses(vec![request.circuit.clone()])
            .build();
        let connection = opts.connection_id();
        match self.swarm.dial(opts) {
            Ok(()) => drop(self.dials.insert(connection, request)),
            Err(error) => request.fail(dial_reason(&error)),
        }
    }

    fn on_event(&mut self, event: SwarmEvent<LightEvent>) {
        match event {
            SwarmEvent::ConnectionEstablished { connection_id, .. } => {
                match self.dials.remove(&connection_id) {
                    Some(request) if !request.reply.is_closed() => self.open(request),
                    // Nobody wants it, be it a late answer to the first dials.
                    _ => {
                        self.swarm.close_connection(connection_id);
                    }
                }
            }
            SwarmEvent::OutgoingConnectionError {
                connection_id,
                error,
                ..
            } => {
                if let Some(request) = self.dials.remove(&connection_id) {
                    request.fail(dial_reason(&error));
                }
            }
            _ => {}
        }
    }

    fn open(&mut self, request: Request) {
        let streams = &mut self.swarm.behaviour_mut().streams;
        streams.open(request.node, rpc::PROTOCOL, request.reply);
    }
}

impl Request {
    fn fail(self, reason: String) {
        // Whoever no longer waits needs no reason.
        let _ = self.reply.send(Err(OpenError::Connect(reason)));
    }
}

//! The handle through which everything else speaks to the network.

use std::{
    collections::HashSet,
    sync::{Arc, Mutex},
    thread,
    time::Duration,
};

use bytes::Bytes;
use libp2p::Stream;
use realm_identity::{Hash, PublicKey, RealmId};
use tokio::{
    sync::{mpsc, oneshot},
    task::JoinHandle,
};

use crate::{
    AddressError, FetchError, GossipId, PeerInfo, Stats, Topic, Verdict, beside::Beside,
    for_approved::Switched,
};

/// The network has stopped.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the network has stopped")]
pub struct Closed;

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PublishError {
    #[error("{size} bytes, gossip takes at most {max}")]
    TooLarge { size: usize, max: usize },
    #[error("no realm set yet")]
    NoRealm,
    #[error("no peer listens to this topic")]
    NoPeers,
    #[error("published already")]
    Duplicate,
    #[error("gossip failed: {0}")]
    Failed(String),
    #[error("the network has stopped")]
    Closed,
}

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ConnectError {
    #[error(transparent)]
    Address(#[from] AddressError),
    #[error("no address of {0} is known")]
    NoAddress(PublicKey),
    #[error("cannot connect to {target}: {reason}")]
    Failed { target: String, reason: String },
    #[error("the peer does not speak {0}")]
    Unsupported(&'static str),
    #[error("the network has stopped")]
    Closed,
}

/// Commands to a running network; clones speak to the same one.
///
/// Every method may be dropped midway: the command is then either not sent or done without an answer.
/// The network ends by [`NetworkHandle::shutdown`], or when the last clone is dropped.
#[derive(Debug, Clone)]
pub struct NetworkHandle {
    key: PublicKey,
    commands: mpsc::Sender<Command>,
    beside: Beside,
    // Declared after the sender: dropping it waits for the thread, which waits for the senders.
    thread: Arc<Thread>,
}

#[derive(Debug)]
pub(crate) enum Command {
    Send {
        to: PublicKey,
        bytes: Bytes,
    },
    Publish {
        topic: Topic,
        bytes: Vec<u8>,
        reply: oneshot::Sender<Result<(), PublishError>>,
    },
    Report {
        id: GossipId,
        verdict: Verdict,
    },
    SetRealm {
        realm: RealmId,
    },
    Dial {
        address: String,
        reply: oneshot::Sender<Result<PublicKey, ConnectError>>,
    },
    Connect {
        to: PublicKey,
        reply: oneshot::Sender<Result<PublicKey, ConnectError>>,
    },
    AddAddress {
        to: PublicKey,
        address: String,
        reply: oneshot::Sender<Result<(), AddressError>>,
    },
    SetApproved {
        keys: HashSet<PublicKey>,
    },
    SetRelay {
        serve: bool,
    },
    RelayFor {
        guest: PublicKey,
        switched: Switched,
    },
    DismissGuests,
    RelayVia {
        address: String,
        reply: oneshot::Sender<Result<(), ConnectError>>,
    },
    Announce {
        address: String,
        reply: oneshot::Sender<Result<(), AddressError>>,
    },
    ListenAddresses {
        reply: oneshot::Sender<Vec<String>>,
    },
    Peers {
        reply: oneshot::Sender<Vec<PeerInfo>>,
    },
    Stats {
        reply: oneshot::Sender<Stats>,
    },
    Disconnect {
        key: PublicKey,
    },
    Ban {
        key: PublicKey,
        time: Duration,
    },
    Fetch {
        request: Fetch,
        reply: oneshot::Sender<Result<Bytes, FetchError>>,
    },
    OpenRpc {
        to: PublicKey,
        reply: oneshot::Sender<Result<Stream, ConnectError>>,
    },
    Shutdown,
    /// As a defect of the network would.
    #[cfg(test)]
    Panic,
}

#[derive(Debug, Clone, Copy)]
pub(crate) struct Fetch {
    pub from: PublicKey,
    pub sha256: Hash,
    pub offset: u64,
    pub len: u32,
    pub deadline: Duration,
}

impl NetworkHandle {
    pub(crate) fn new(
        key: PublicKey,
        commands: mpsc::Sender<Command>,
        beside: Beside,
        thread: thread::JoinHandle<()>,
    ) -> Self {
        Self {
            key,
            commands,
            beside,
            thread: Arc::new(Thread(Mutex::new(Some(thread)))),
        }
    }

    /// This node's key.
    pub fn key(&self) -> PublicKey {
        self.key
    }

    /// Queues a frame for a peer, which is dialled if an address of it is known.
    /// There is no promise of delivery: what is dropped shows as `FramesDropped`.
    pub async fn send_frame(&self, to: PublicKey, bytes: Bytes) -> Result<(), Closed> {
        self.send(Command::Send { to, bytes }).await
    }

    pub async fn publish(&self, topic: Topic, bytes: Vec<u8>) -> Result<(), PublishError> {
        self.ask(|reply| Command::Publish {
            topic,
            bytes,
            reply,
        })
        .await
        .unwrap_or(Err(PublishError::Closed))
    }

    /// Each gossip message needs one report, within seconds, to be forwarded.
    pub async fn report_validation(&self, id: GossipId, verdict: Verdict) -> Result<(), Closed> {
        self.send(Command::Report { id, verdict }).await
    }

    /// Subscribes to the realm's topics and joins its Kademlia, also on connections that are open already.
    pub async fn set_realm(&self, realm: RealmId) -> Result<(), Closed> {
        self.send(Command::SetRealm { realm }).await
    }

    /// Connects to whoever is at this multiaddr, or to the key it ends in.
    pub async fn dial(&self, address: &str) -> Result<PublicKey, ConnectError> {
        let address = address.to_owned();
        self.ask(|reply| Command::Dial { address, reply })
            .await
            .unwrap_or(Err(ConnectError::Closed))
    }

    /// Connects to a peer by the addresses known of it; at once when connected already.
    pub async fn connect(&self, to: PublicKey) -> Result<PublicKey, ConnectError> {
        self.ask(|reply| Command::Connect { to, reply })
            .await
            .unwrap_or(Err(ConnectError::Closed))
    }

    /// Remembers where a peer may be found, without dialling it.
    pub async fn add_address(&self, to: PublicKey, address: &str) -> Result<(), AddressError> {
        let address = address.to_owned();
        // A stopped network forgets addresses anyway.
        self.ask(|reply| Command::AddAddress { to, address, reply })
            .await
            .unwrap_or(Ok(()))
    }

    /// Replaces the set of approved peers. Those no longer in it count as strangers from now on.
    pub async fn set_approved(&self, keys: HashSet<PublicKey>) -> Result<(), Closed> {
        self.send(Command::SetApproved { keys }).await
    }

    /// Whether this node relays for approved peers. Only for nodes that are publicly reachable and approved.
    pub async fn set_relay(&self, serve: bool) -> Result<(), Closed> {
        self.send(Command::SetRelay { serve }).await
    }

    /// Relays for one connected peer that is not approved too, until its last connection ends. Once
    /// this returns, the peer may use what it was given.
    pub async fn relay_for(&self, guest: PublicKey) -> Result<(), Closed> {
        let (switched, done) = oneshot::channel();
        let switched = Switched::new(switched);
        self.send(Command::RelayFor { guest, switched }).await?;
        // Never sent: the last connection that was switched lets go of it.
        let _ = done.await;
        Ok(())
    }

    /// Ends what was given by `relay_for`, and the circuits that were made with it.
    pub async fn dismiss_guests(&self) -> Result<(), Closed> {
        self.send(Command::DismissGuests).await
    }

    /// Asks the relay at this multiaddr to accept connections for us; it ends in the relay's `/p2p/` id.
    pub async fn relay_via(&self, address: &str) -> Result<(), ConnectError> {
        let address = address.to_owned();
        self.ask(|reply| Command::RelayVia { address, reply })
            .await
            .unwrap_or(Err(ConnectError::Closed))
    }

    /// Tells peers an address that this node can be reached at but cannot see itself,
    /// such as a forwarded port. A relay needs one, or to have been found reachable.
    pub async fn announce(&self, address: &str) -> Result<(), AddressError> {
        let address = address.to_owned();
        self.ask(|reply| Command::Announce { address, reply })
            .await
            .unwrap_or(Ok(()))
    }

    /// Where this node listens, with its id at the end, ready to be dialled.
    pub async fn listen_addresses(&self) -> Result<Vec<String>, Closed> {
        self.ask(|reply| Command::ListenAddresses { reply }).await
    }

    /// The connected peers.
    pub async fn peers(&self) -> Result<Vec<PeerInfo>, Closed> {
        self.ask(|reply| Command::Peers { reply }).await
    }

    pub async fn stats(&self) -> Result<Stats, Closed> {
        self.ask(|reply| Command::Stats { reply }).await
    }

    pub async fn disconnect(&self, key: PublicKey) -> Result<(), Closed> {
        self.send(Command::Disconnect { key }).await
    }

    /// Disconnects and refuses the peer for this time.
    pub async fn ban(&self, key: PublicKey, time: Duration) -> Result<(), Closed> {
        self.send(Command::Ban { key, time }).await
    }

    /// Fetches a range as the peer's `BlobSource` encoded it. Nothing is verified here.
    /// At most 1 MiB is asked for at once; a peer that is too slow is given up before the deadline.
    pub async fn fetch_range(
        &self,
        from: PublicKey,
        sha256: Hash,
        offset: u64,
        len: u32,
        deadline: Duration,
    ) -> Result<Bytes, FetchError> {
        let request = Fetch {
            from,
            sha256,
            offset,
            len,
            deadline,
        };
        self.ask(|reply| Command::Fetch { request, reply })
            .await
            .unwrap_or(Err(FetchError::Closed))
    }

    /// Opens an RPC stream to a peer, which is dialled if needed.
    pub async fn open_rpc(&self, to: PublicKey) -> Result<Stream, ConnectError> {
        self.ask(|reply| Command::OpenRpc { to, reply })
            .await
            .unwrap_or(Err(ConnectError::Closed))
    }

    /// Runs `task` on the network's own thread, for who takes most of what comes in and answers it: between two
    /// threads each message would wake both. It must not compute for long, and ends by itself once the network
    /// has: its thread waits for that. A network that is gone cancels it at once.
    pub fn spawn<T: Send + 'static>(
        &self,
        task: impl Future<Output = T> + Send + 'static,
    ) -> JoinHandle<T> {
        self.beside.spawn(task)
    }

    /// Ends the network and waits for its thread, so that no task of [`NetworkHandle::spawn`] may call it. Other clones answer [`Closed`] from then on.
    pub async fn shutdown(&self) {
        // Closed already is as good.
        let _ = self.send(Command::Shutdown).await;
        let thread = self.thread.clone();
        if tokio::task::spawn_blocking(move || thread.join())
            .await
            .is_err()
        {
            tracing::error!("waiting for the network's thread panicked");
        }
    }

    /// Has the network's task panic.
    #[cfg(test)]
    pub(crate) async fn panic(&self) -> Result<(), Closed> {
        self.send(Command::Panic).await
    }

    async fn send(&self, command: Command) -> Result<(), Closed> {
        self.commands.send(command).await.map_err(|_| Closed)
    }

    async fn ask<T>(
        &self,
        command: impl FnOnce(oneshot::Sender<T>) -> Command,
    ) -> Result<T, Closed> {
        let (reply, answer) = oneshot::channel();
        self.send(command(reply)).await?;
        answer.await.map_err(|_| Closed)
    }
}

/// The network's thread, joined by whoever lets go of it last.
#[derive(Debug)]
struct Thread(Mutex<Option<thread::JoinHandle<()>>>);

impl Thread {
    fn join(&self) {
        let thread = self
            .0
            .lock()
            .unwrap_or_else(std::sync::PoisonError::into_inner)
            .take();
        let Some(thread) = thread else { return };
        // Whoever serves RPC may hold the last handle: a thread cannot wait for itself.
        if thread.thread().id() == thread::current().id() {
            return;
        }
        if thread.join().is_err() {
            tracing::error!("the network's thread panicked");
        }
    }
}

impl Drop for Thread {
    fn drop(&mut self) {
        self.join();
    }
}

//! Nodes to test with: each has its events recorded and waited for by what they say.

use std::time::Duration;

use realm_identity::{Hash, PublicKey, RealmId, SecretKey};
use realm_p2p::{Config, Network, NetworkEvent, NetworkHandle, Services};
use tokio::{sync::mpsc, time::timeout};

/// Far more than anything here takes; reached only by a failure.
pub const PATIENCE: Duration = Duration::from_secs(20);

pub const TCP: &str = "/ip4/127.0.0.1/tcp/0";
pub const QUIC: &str = "/ip4/127.0.0.1/udp/0/quic-v1";

pub struct Node {
    pub handle: NetworkHandle,
    pub events: mpsc::Receiver<NetworkEvent>,
}

pub fn secret(seed: u8) -> SecretKey {
    SecretKey::from_seed(&[seed; 32])
}

pub fn realm() -> RealmId {
    Hash::of(b"a realm")
}

pub fn config(seed: u8, listen: &str) -> Config {
    realm_p2p::install_crypto_provider();
    let mut config = Config::new(secret(seed));
    config.realm = Some(realm());
    config.listen = vec![listen.to_owned()];
    config.agent_version = format!("realm/test-{seed}");
    config.limits.heartbeat = Duration::from_millis(100);
    config.limits.ping = Duration::from_secs(2);
    config.limits.ping_answer = Duration::from_secs(2);
    config
}

impl Node {
    pub async fn start(config: Config) -> Self {
        Self::serving(config, Services::default()).await
    }

    pub async fn serving(config: Config, services: Services) -> Self {
        let (handle, events) = Network::start(config, services).await.expect("starts");
        Self { handle, events }
    }

    pub fn key(&self) -> PublicKey {
        self.handle.key()
    }

    pub async fn address(&self) -> String {
        self.handle
            .listen_addresses()
            .await
            .unwrap()
            .first()
            .expect("listens")
            .clone()
    }

    pub async fn dial(&self, other: &Self) {
        let key = self
            .handle
            .dial(&other.address().await)
            .await
            .expect("connects");
        assert_eq!(key, other.key());
    }

    pub async fn approve(&self, others: &[&Self]) {
        let keys = others.iter().map(|other| other.key()).collect();
        self.handle.set_approved(keys).await.unwrap();
        // Answered after it: commands are done in order.
        self.handle.peers().await.unwrap();
    }

    /// The first event from now on that `pick` takes.
    pub async fn wait<T>(
        &mut self,
        what: &str,
        mut pick: impl FnMut(NetworkEvent) -> Option<T>,
    ) -> T {
        let found = timeout(PATIENCE, async {
            loop {
                let event = self.events.recv().await.expect("the network runs");
                if let Some(found) = pick(event) {
                    return found;
                }
            }
        });
        found
            .await
            .unwrap_or_else(|_| panic!("no {what} in {PATIENCE:?}"))
    }

    pub async fn frame(&mut self) -> (PublicKey, Vec<u8>) {
        self.wait("frame", |event| match event {
            NetworkEvent::Frame { from, bytes } => Some((from, bytes.to_vec())),
            _ => None,
        })
        .await
    }

    pub async fn connected(&mut self) -> PublicKey {
        self.wait("connection", |event| match event {
            NetworkEvent::PeerConnected { key, .. } => Some(key),
            _ => None,
        })
        .await
    }

    pub async fn disconnected(&mut self) -> PublicKey {
        self.wait("disconnection", |event| match event {
            NetworkEvent::PeerDisconnected { key } => Some(key),
            _ => None,
        })
        .await
    }
}

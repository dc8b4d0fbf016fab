//! A peer that speaks the transport, and rubbish above it.

use std::time::Duration;

use realm_identity::{PublicKey, SecretKey};
use realm_p2p::{Network, NetworkEvent, Services};
use tokio::sync::mpsc;

use crate::cluster;

const PATIENCE: Duration = Duration::from_secs(20);

/// Frames enough, and fewer than would be too many at once.
const RUBBISH: usize = 12;

/// Waits until a connection is gone; says with whom it was.
async fn cut_off(events: &mut mpsc::Receiver<NetworkEvent>) -> PublicKey {
    let gone = async {
        loop {
            if let NetworkEvent::PeerDisconnected { key } = events.recv().await.unwrap() {
                return key;
            }
        }
    };
    tokio::time::timeout(PATIENCE, gone).await.unwrap()
}

#[test]
fn a_stranger_that_sends_rubbish_is_kept_out() {
    let mut realm = cluster();
    realm.add_node("one", &[]);
    realm.wait_ready("one");
    let one = realm.address("one");
    realm_p2p::install_crypto_provider();
    let runtime = tokio::runtime::Runtime::new().unwrap();
    runtime.block_on(async {
        let mut config = realm_p2p::Config::new(SecretKey::from_seed(&[66; 32]));
        config.listen = vec!["/ip4/127.0.0.1/tcp/0".into()];
        config.mdns = false;
        let (stranger, mut events) = Network::start(config, Services::default()).await.unwrap();
        let node = stranger.dial(&one).await.unwrap();
        for _ in 0..RUBBISH {
            let frame = vec![0xff].into();
            stranger.send_frame(node, frame).await.unwrap();
        }
        assert_eq!(cut_off(&mut events).await, node);
        // The handshake may end before the refusal arrives: the connection does not last.
        if stranger.dial(&one).await.is_ok() {
            cut_off(&mut events).await;
        }
        stranger.shutdown().await;
    });
    let log = realm.log("one");
    assert_eq!(log.matches("is kept out").count(), 1, "{log}");
    assert_eq!(
        log.matches("malformed frame").count(),
        2,
        "told at first, and at the end: {log}"
    );
    // Nobody else is: the owner's command is a stranger to the transport, too.
    realm.ok(&["status", "--via", &one]);
}

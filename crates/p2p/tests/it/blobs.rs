//! Ranges of artifacts.

use std::{
    io,
    sync::{Arc, Barrier},
    time::Duration,
};

use realm_identity::{Hash, PublicKey};
use realm_p2p::{BlobSource, FetchError, Services};

use crate::scene::{Node, PATIENCE, QUIC, TCP, config, secret};

/// Serves one artifact to one peer, its bytes as they are.
struct Shelf {
    bytes: Vec<u8>,
    allowed: PublicKey,
    /// Reads meet here, when a test wants them all under way.
    gate: Option<Arc<Barrier>>,
}

impl BlobSource for Shelf {
    fn allow(&self, peer: PublicKey) -> bool {
        peer == self.allowed
    }

    fn read_range(&self, sha256: Hash, offset: u64, len: u32) -> io::Result<Option<Vec<u8>>> {
        if let Some(gate) = &self.gate {
            gate.wait();
        }
        if offset == 13 {
            return Err(io::Error::other("bad sector"));
        }
        let range = offset as usize..offset as usize + len as usize;
        Ok((sha256 == Hash::of(&self.bytes)).then(|| self.bytes[range].to_vec()))
    }
}

async fn shelf(listen: &str, bytes: &[u8], gate: Option<Arc<Barrier>>) -> Node {
    let shelf = Shelf {
        bytes: bytes.to_vec(),
        allowed: secret(2).public(),
        gate,
    };
    let services = Services {
        blobs: Some(Arc::new(shelf)),
        rpc: None,
    };
    Node::serving(config(1, listen), services).await
}

#[tokio::test]
async fn a_range_arrives_and_every_refusal_has_its_name() {
    let bytes: Vec<u8> = (0..3_000_000u32).map(|number| number as u8).collect();
    for listen in [TCP, QUIC] {
        let server = shelf(listen, &bytes, None).await;
        let client = Node::start(config(2, listen)).await;
        client.dial(&server).await;
        let digest = Hash::of(&bytes);
        let fetch = |sha256, offset, len| {
            client
                .handle
                .fetch_range(server.key(), sha256, offset, len, PATIENCE)
        };
        let got = fetch(digest, 1_000_000, 1024 * 1024)
            .await
            .expect("arrives");
        assert!(got == bytes[1_000_000..1_000_000 + 1024 * 1024]);
        assert!(matches!(
            fetch(Hash::of(b"other"), 0, 1).await,
            Err(FetchError::NotFound)
        ));
        assert!(matches!(
            fetch(digest, 13, 1).await,
            Err(FetchError::Failed)
        ));
        assert!(matches!(
            fetch(digest, 0, 0).await,
            Err(FetchError::Range { .. })
        ));
        assert!(matches!(
            fetch(digest, 0, 1024 * 1024 + 1).await,
            Err(FetchError::Range { .. })
        ));
        let stranger = Node::start(config(3, listen)).await;
        stranger.dial(&server).await;
        let refused = stranger
            .handle
            .fetch_range(server.key(), digest, 0, 1, PATIENCE)
            .await;
        assert!(matches!(refused, Err(FetchError::Refused)), "{refused:?}");
        // The client offers no blobs at all.
        let none = server
            .handle
            .fetch_range(client.key(), digest, 0, 1, PATIENCE)
            .await;
        assert!(matches!(none, Err(FetchError::Unreachable(_))), "{none:?}");
    }
}

#[tokio::test]
async fn a_deadline_holds_and_a_ninth_request_has_to_wait_its_turn() {
    // Eight reads and this test: nothing goes on before the test says so.
    let gate = Arc::new(Barrier::new(9));
    let server = shelf(TCP, &[5; 100], Some(gate.clone())).await;
    let client = Node::start(config(2, TCP)).await;
    client.dial(&server).await;
    let digest = Hash::of(&[5; 100]);
    let fetch = |deadline| {
        let (handle, from) = (client.handle.clone(), server.key());
        tokio::spawn(async move { handle.fetch_range(from, digest, 0, 100, deadline).await })
    };
    let mut requests: Vec<_> = (0..9).map(|_| fetch(PATIENCE)).collect();
    // Only the ninth is answered while the others are read.
    let (first, _, rest) = futures::future::select_all(requests.drain(..)).await;
    assert!(matches!(first.unwrap(), Err(FetchError::Busy)));
    tokio::task::spawn_blocking({
        let gate = gate.clone();
        move || gate.wait()
    })
    .await
    .unwrap();
    for request in rest {
        assert_eq!(request.await.unwrap().expect("arrives").len(), 100);
    }
    let late = fetch(Duration::from_millis(50)).await.unwrap();
    assert!(matches!(late, Err(FetchError::Deadline(_))), "{late:?}");
    // Lets the read that nobody waits for end, so that the thread pool can stop.
    for _ in 0..8 {
        std::thread::spawn({
            let gate = gate.clone();
            move || gate.wait()
        });
    }
}

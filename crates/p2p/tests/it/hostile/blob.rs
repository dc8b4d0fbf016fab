//! Peers that misuse ranges, as those who ask and as those who answer.

use std::{io, sync::Arc, time::Duration};

use futures::{AsyncReadExt as _, AsyncWriteExt as _, StreamExt as _};
use realm_identity::{Hash, PublicKey};
use realm_p2p::{BlobSource, FetchError, Services};
use tokio::time::timeout;

use super::{BLOB, Hostile};
use crate::scene::{Node, PATIENCE, TCP, config};

/// Allows everybody, and is never read.
struct Shut;

impl BlobSource for Shut {
    fn allow(&self, _: PublicKey) -> bool {
        true
    }

    fn read_range(&self, _: Hash, _: u64, _: u32) -> io::Result<Option<Vec<u8>>> {
        panic!("an unsound request reaches no source")
    }
}

fn shut() -> Services {
    Services {
        blobs: Some(Arc::new(Shut)),
        rpc: None,
    }
}

#[tokio::test]
async fn unsound_blob_requests_are_answered_with_a_refusal() {
    let node = Node::serving(config(1, TCP), shut()).await;
    let mut hostile = Hostile::connect(&node).await;
    for (offset, len) in [(0, 0), (0, 1024 * 1024 + 1), (0, u32::MAX), (u64::MAX, 1)] {
        let mut stream = hostile.open(BLOB).await;
        let mut request = vec![7; 32];
        request.extend_from_slice(&u64::to_be_bytes(offset));
        request.extend_from_slice(&u32::to_be_bytes(len));
        stream.write_all(&request).await.unwrap();
        stream.flush().await.unwrap();
        let mut answer = Vec::new();
        timeout(PATIENCE, stream.read_to_end(&mut answer))
            .await
            .expect("in time")
            .unwrap();
        assert_eq!(answer, [4], "{offset} {len}");
    }
}

#[tokio::test]
async fn half_a_request_holds_its_place_for_a_while_and_no_longer() {
    let mut settings = config(1, TCP);
    settings.limits.request_time = Duration::from_millis(300);
    let node = Node::serving(settings, shut()).await;
    let mut hostile = Hostile::connect(&node).await;
    let mut halves = Vec::new();
    for _ in 0..8 {
        halves.push(hostile.say(BLOB, &[7; 10]).await);
    }
    // The ninth is told to come back, as soon as it has asked.
    let mut ninth = hostile.say(BLOB, &[7; 44]).await;
    let mut answer = Vec::new();
    ninth.read_to_end(&mut answer).await.unwrap();
    assert_eq!(answer, [3], "busy");
    for mut half in halves {
        let ended = timeout(PATIENCE, half.read(&mut [0])).await;
        assert!(
            matches!(ended.expect("in time"), Ok(0) | Err(_)),
            "no answer"
        );
    }
    // Its places are free again: an unsound request is refused for what it is.
    let mut tenth = hostile.say(BLOB, &[0xff; 44]).await;
    let mut answer = Vec::new();
    tenth.read_to_end(&mut answer).await.unwrap();
    assert_eq!(answer, [4], "bad request");
}

#[tokio::test]
async fn an_answer_that_lies_about_itself_is_a_named_error() {
    let mut node = Node::start(config(1, TCP)).await;
    let mut hostile = Hostile::connect(&node).await;
    assert_eq!(node.connected().await, hostile.key);
    let mut asked = hostile.control.accept(BLOB).unwrap();
    // What it answers, and whether it then closes the stream.
    let answers: [(&[u8], bool); 6] = [
        (&[], true),
        (&[9], true),
        (&[0, 0xff, 0xff, 0xff, 0xff], false),
        (&[0, 0, 0, 0, 9, 1, 2, 3], true),
        (&[0, 0, 0, 0, 9, 1, 2, 3], false),
        (&[0], false),
    ];
    for (answer, close) in answers {
        let deadline = Duration::from_millis(300);
        let fetch = node
            .handle
            .fetch_range(hostile.key, Hash::of(b"x"), 0, 9, deadline);
        let serve = async {
            let (_, mut stream) = asked.next().await.expect("is asked");
            let mut request = [0; 44];
            stream.read_exact(&mut request).await.unwrap();
            stream.write_all(answer).await.unwrap();
            stream.flush().await.unwrap();
            if close {
                stream.close().await.unwrap();
            }
            stream
        };
        let (fetched, open) = futures::join!(fetch, timeout(PATIENCE / 4, serve));
        let _open = open.unwrap_or_else(|_| panic!("never asked: {fetched:?}"));
        let error = fetched.expect_err("no range");
        let named = match (answer.first(), close) {
            (Some(9), _) => matches!(error, FetchError::Malformed("unknown status")),
            _ if answer.len() == 5 => matches!(error, FetchError::Malformed(_)),
            (_, true) => matches!(error, FetchError::Broken(_)),
            (_, false) => matches!(error, FetchError::Deadline(_)),
        };
        assert!(named, "{answer:?} {close}: {error:?}");
    }
}

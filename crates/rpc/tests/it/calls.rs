//! Each call arrives as it was made, and each answer too.

use std::time::Duration;

use realm_identity::{Artifact, Hash};
use realm_rpc::{CHUNK_BYTES, ErrorCode, HeadId, Limits, LogQuery};
use tokio::sync::mpsc;

use crate::scene::{key, run, scene, survey};

#[test]
fn intents_are_submitted_and_refused() {
    run(async {
        let scene = scene(Limits::default());
        let operator = scene.operator().await;
        let submitted = operator.submit(b"entry", b"payload").await.unwrap();
        assert_eq!((submitted.seq, submitted.durable_on), (1, 1));
        assert_eq!(scene.node.control.intents.borrow()[0].entry, b"entry");
        assert_eq!(operator.head().await.unwrap().seq, 1);
        let refused = operator.submit(b"", b"").await.unwrap_err();
        assert_eq!(refused.code, ErrorCode::Conflict);
        assert_eq!(refused.help.as_deref(), Some("sign again"));
    });
}

#[test]
fn what_is_asked_is_answered() {
    run(async {
        let scene = scene(Limits::default());
        let operator = scene.operator().await;
        assert_eq!(operator.survey().await.unwrap(), survey(7));
        let heads = operator.heads().await.unwrap();
        assert_eq!(
            heads,
            [HeadId {
                seq: 7,
                hash: Hash::of(b"a")
            }; 2]
        );
        assert!(operator.forks().await.unwrap().is_empty());
        assert_eq!(operator.claim(b"claim").await.unwrap(), b"claim!");
        let pending = operator.pending().await.unwrap();
        assert_eq!(pending[0].key, key(9).public());
        assert_eq!(pending[0].tags, ["edge", "zone=a"]);
        operator.peer_add("/ip4/192.0.2.1/tcp/2020").await.unwrap();
        assert_eq!(
            operator.adopt(b"x").await.unwrap_err().code,
            ErrorCode::Invalid
        );
    });
}

#[test]
fn a_long_history_comes_in_parts() {
    run(async {
        let scene = scene(Limits::default());
        let operator = scene.operator().await;
        let mut next = 1;
        let mut answers = 0;
        while next <= 40 {
            let part = operator.history(next, 40).await.unwrap();
            assert_eq!(part[0].entry[0], next as u8);
            assert_eq!(part[0].payload, None);
            next += part.len() as u64;
            answers += 1;
        }
        assert!(answers > 1 && next == 41, "{answers} answers up to {next}");
    });
}

#[test]
fn an_upload_resumes_and_is_verified() {
    run(async {
        let scene = scene(Limits::default());
        let operator = scene.operator().await;
        let bytes: Vec<u8> = (0..CHUNK_BYTES * 3 + 5).map(|n| n as u8).collect();
        let artifact = Artifact::of(&bytes);
        let mut upload = operator.upload(&artifact).await.unwrap();
        assert_eq!(upload.write(&bytes[..1000]).await.unwrap(), 1000);
        let too_much = upload.write(&bytes[..CHUNK_BYTES + 1]).await.unwrap_err();
        assert_eq!(too_much.code, ErrorCode::Limit);
        drop(upload);

        let mut upload = operator.upload(&artifact).await.unwrap();
        assert_eq!(upload.received(), 1000);
        let mut heard = Vec::new();
        upload
            .write_all(&mut &bytes[1000..], |at| heard.push(at))
            .await
            .unwrap();
        assert_eq!(heard.last(), Some(&artifact.size));
        upload.finish().await.unwrap();
        assert_eq!(*scene.node.control.uploaded.borrow(), bytes);
    });
}

#[test]
fn uploads_open_at_once_are_bounded() {
    run(async {
        let scene = scene(Limits {
            uploads: 2,
            ..Limits::default()
        });
        let operator = scene.operator().await;
        let artifact = Artifact::of(b"x");
        let first = operator.upload(&artifact).await.unwrap();
        let _second = operator.upload(&artifact).await.unwrap();
        assert_eq!(
            operator.upload(&artifact).await.unwrap_err().code,
            ErrorCode::Limit
        );
        drop(first);
        // The release travels ahead of the next call.
        operator.upload(&artifact).await.unwrap();
    });
}

#[test]
fn a_call_that_hangs_meets_its_deadline() {
    run(async {
        let scene = scene(Limits {
            call: Duration::from_millis(50),
            ..Limits::default()
        });
        let operator = scene.operator().await;
        scene.node.control.stuck.set(true);
        assert_eq!(operator.head().await.unwrap_err().code, ErrorCode::Deadline);
        scene.node.control.stuck.set(false);
        operator.head().await.unwrap();
    });
}

#[test]
fn a_node_that_is_gone_is_reported() {
    run(async {
        let scene = scene(Limits::default());
        let operator = scene.operator().await;
        scene.served.abort();
        assert_eq!(
            operator.head().await.unwrap_err().code,
            ErrorCode::Disconnected
        );
        let (to, _from) = mpsc::channel(1);
        let ended = operator.logs(&LogQuery::default(), to).await;
        assert_eq!(ended.unwrap_err().code, ErrorCode::Disconnected);
    });
}

//! A peer that asks without end is cut off, or no longer read from.

use std::time::Duration;

use capnp::message::{Builder, HeapAllocator};
use capnp_rpc::rpc_capnp::message;
use realm_rpc::{Limits, ServeError, serve};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _, DuplexStream},
    task::JoinHandle,
};
use tokio_util::compat::TokioAsyncReadCompatExt as _;

use crate::scene::{node, run, scene};

type Served = JoinHandle<Result<(), ServeError>>;

/// A served node, and the raw bytes to and from it.
fn raw(limits: Limits) -> (DuplexStream, Served) {
    let (near, far) = tokio::io::duplex(16 * 1024);
    (
        near,
        tokio::task::spawn_local(serve(far.compat(), node(), limits)),
    )
}

fn bytes(build: impl FnOnce(message::Builder<'_>)) -> Vec<u8> {
    let mut message = Builder::new(HeapAllocator::new());
    build(message.init_root());
    capnp::serialize::write_message_to_words(&message)
}

fn bootstrap(id: u32) -> Vec<u8> {
    bytes(|message| message.init_bootstrap().set_question_id(id))
}

fn finish(id: u32) -> Vec<u8> {
    bytes(|message| message.init_finish().set_question_id(id))
}

fn cause(ended: Result<(), ServeError>) -> String {
    match ended {
        Err(ServeError::Cut(error)) => error.to_string(),
        other => panic!("expected a cut, got {other:?}"),
    }
}

#[test]
fn a_flood_of_bootstraps_is_cut() {
    run(async {
        let (stream, served) = raw(Limits::default());
        let (mut reader, mut writer) = tokio::io::split(stream);
        let mut sink = tokio::io::sink();
        let flood = async {
            let mut sent = 0;
            while sent < 1_000_000 && writer.write_all(&bootstrap(sent)).await.is_ok() {
                sent += 1;
            }
            sent
        };
        let (sent, _) = tokio::join!(flood, tokio::io::copy(&mut reader, &mut sink));
        assert!(sent < 10_000, "{sent} bootstraps were taken");
        assert!(cause(served.await.unwrap()).contains("1024 calls in flight"));
    });
}

#[test]
fn a_peer_that_does_not_read_is_not_read_from() {
    run(async {
        let limits = Limits {
            bytes_in_flight: 64 * 1024,
            ..Limits::default()
        };
        let (mut stream, served) = raw(limits);
        let mut sent = 0;
        loop {
            let pair = [bootstrap(sent), finish(sent)].concat();
            let write = stream.write_all(&pair);
            match tokio::time::timeout(Duration::from_millis(200), write).await {
                Ok(written) => written.unwrap(),
                Err(_) => break,
            }
            sent += 1;
            assert!(sent < 100_000, "the node went on reading");
        }
        served.abort();
    });
}

#[test]
fn a_message_larger_than_allowed_is_cut_before_it_is_read() {
    run(async {
        let (mut stream, served) = raw(Limits::default());
        // One segment of 2^28 words.
        let mut header = 0_u32.to_le_bytes().to_vec();
        header.extend((1_u32 << 28).to_le_bytes());
        stream.write_all(&header).await.unwrap();
        cause(served.await.unwrap());
    });
}

#[test]
fn noise_is_cut() {
    run(async {
        for seed in 0..200_u32 {
            let (mut stream, served) = raw(Limits::default());
            let mut state = seed.wrapping_mul(2_654_435_761) | 1;
            let noise: Vec<u8> = (0..256)
                .map(|_| {
                    state ^= state << 13;
                    state ^= state >> 17;
                    state ^= state << 5;
                    state as u8
                })
                .collect();
            // A small segment table in front, so that the noise is taken for messages.
            let mut framed = vec![0, 0, 0, 0, 32, 0, 0, 0];
            framed.extend(&noise);
            let _ = stream.write_all(&framed).await;
            stream.shutdown().await.unwrap();
            let mut answer = Vec::new();
            let _ = stream.read_to_end(&mut answer).await;
            // Cut or closed, but ended, and without a panic.
            let _ = served.await.unwrap();
        }
    });
}

#[test]
fn an_idle_connection_is_closed() {
    run(async {
        let scene = scene(Limits {
            idle: Duration::from_millis(50),
            ..Limits::default()
        });
        let _operator = scene.operator().await;
        assert!(matches!(
            scene.served.await.unwrap(),
            Err(ServeError::Idle(_))
        ));
    });
}

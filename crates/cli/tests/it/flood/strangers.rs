//! What peers do that nobody let in.

use std::{sync::Arc, time::Duration};

use capnp::message::{Builder, HeapAllocator};
use capnp_rpc::rpc_capnp::message;
use futures::AsyncReadExt as _;
use realm_identity::{Signed, Timestamp};
use realm_protocol::{Frame, JoinRequest, gossip};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpStream, UdpSocket},
    time::{sleep, timeout},
};

use super::{
    foe::{Foe, LOG, RPC, Refused, Topic, framed, fresh_key, write},
    siege::Blows,
};

/// Multistream's header is this, with its length before it; half of it says nothing yet.
const HALF_A_HEADER: &[u8] = b"\x13/multist";
/// How long one of the crowd stays where it is let.
const STAY: Duration = Duration::from_secs(2);
/// Capabilities that come with one call.
const CAPS: u32 = 1000;
/// A frame of a stranger's, of bytes that are no frame.
const RUBBISH: [u8; 40] = [0xff; 40];

/// Sockets that begin a handshake and say no more.
pub async fn half_open(blows: Arc<Blows>) {
    let at = blows.target.tcp();
    loop {
        let Ok(mut stream) = TcpStream::connect(at).await else {
            sleep(Duration::from_millis(1)).await;
            continue;
        };
        if stream.write_all(HALF_A_HEADER).await.is_ok() {
            blows.count();
            // Ends when the node does not want it any more.
            let _ = stream.read_to_end(&mut Vec::new()).await;
        }
    }
}

/// A new identity, connected and gone, again and again.
pub async fn churn(blows: Arc<Blows>) {
    loop {
        if blows.connect(fresh_key(), None).await.is_ok() {
            blows.count();
        }
    }
}

/// One of many strangers, each with an offence of its own.
pub async fn crowd(blows: Arc<Blows>, number: usize) {
    let from = blows.target.from[number % 3];
    for round in number.. {
        let Ok(mut foe) = blows.connect(fresh_key(), Some(from)).await else {
            continue;
        };
        if offend(&mut foe, round, &blows).await.is_ok() {
            blows.count();
        }
        // It keeps its place for as long as it may.
        let _ = timeout(STAY, foe.ended()).await;
    }
}

async fn offend(foe: &mut Foe, round: usize, blows: &Blows) -> Result<(), Refused> {
    let log = |bytes: &[u8]| bytes.to_vec();
    let lengths = [0, 1024 * 1024 + 1, 1 << 31, u32::MAX];
    let said = match round % 10 {
        at @ 0..4 => log(&lengths[at].to_be_bytes()),
        // The largest frame, of which a part comes.
        4 => [&(1024 * 1024_u32).to_be_bytes()[..], &[7; 100_000]].concat(),
        5 => log(&[0, 0]),
        6 => framed(&RUBBISH).repeat(64),
        7 => framed(&join(foe, blows)).repeat(64),
        8 => {
            for number in 0..64_u8 {
                foe.gossip(Topic::Heads, vec![number; 2000]).await?;
            }
            return Ok(());
        }
        // Streams without end.
        _ => {
            let mut streams = Vec::new();
            for _ in 0..200 {
                streams.push(foe.open(LOG).await?);
            }
            return Ok(());
        }
    };
    let stream = foe.say(LOG, &said).await?;
    let _ = timeout(STAY, foe.ended()).await;
    drop(stream);
    Ok(())
}

fn join(foe: &Foe, blows: &Blows) -> Vec<u8> {
    let request = JoinRequest {
        v: gossip::VERSION,
        node: foe.secret.public(),
        realm: Some(blows.target.realm),
        name: "sybil".to_owned(),
        tags: vec!["x".repeat(60); 16],
        addresses: vec!["/ip4/192.0.2.1/tcp/4001".to_owned(); 16],
        version: "realm/0".to_owned(),
        at: Timestamp(0),
    };
    let Ok(signed) = Signed::sign(request, &foe.secret);
    Frame::Join(signed.to_wire()).encode()
}

/// One of a swarm of 60 identities that keep coming back, to gossip and to be asked for.
pub async fn sybil(blows: Arc<Blows>, number: usize) {
    let key = fresh_key();
    let from = blows.target.from[number % 3];
    loop {
        let Ok(mut foe) = blows.connect(key.clone(), Some(from)).await else {
            continue;
        };
        let join = framed(&join(&foe, &blows));
        let flood = async {
            let mut stream = foe.say(LOG, &join).await?;
            for number in 0_u64.. {
                foe.gossip(Topic::Status, number.to_be_bytes().repeat(100))
                    .await?;
                write(&mut stream, &join).await?;
                blows.count();
            }
            Ok::<_, Refused>(())
        };
        let _ = flood.await;
    }
}

/// Calls of every kind that nobody needs, on as many streams as there are.
pub async fn calls(blows: Arc<Blows>, number: usize) {
    loop {
        let Ok(mut foe) = blows.connect(fresh_key(), None).await else {
            continue;
        };
        for round in number.. {
            let Ok(mut stream) = foe.open(RPC).await else {
                break;
            };
            let flood = async {
                for at in 0..4000_u32 {
                    write(&mut stream, &call(round, at)).await?;
                }
                Ok::<_, Refused>(())
            };
            // Some read nothing, and some all, of what they are answered.
            let flooded = timeout(STAY, flood).await;
            if round % 2 == 0 {
                let _ = timeout(STAY, stream.read_to_end(&mut Vec::new())).await;
            }
            blows.count();
            if matches!(flooded, Ok(Err(Refused))) {
                continue;
            }
        }
    }
}

fn call(round: usize, at: u32) -> Vec<u8> {
    match round % 6 {
        // Asked for and never finished.
        0 => bytes(|message| message.init_bootstrap().set_question_id(at)),
        1 => [
            bytes(|message| message.init_bootstrap().set_question_id(at)),
            bytes(|message| message.init_finish().set_question_id(at)),
        ]
        .concat(),
        // Of what never was.
        2 => bytes(|message| {
            message
                .init_finish()
                .set_question_id(at.wrapping_mul(2_654_435_761))
        }),
        3 => bytes(|message| {
            let mut release = message.init_release();
            release.set_id(0);
            release.set_reference_count(at);
        }),
        // Calls of what was never given, with a table of capabilities.
        4 => bytes(|message| {
            let mut call = message.init_call();
            call.set_question_id(at);
            call.reborrow().init_target().set_imported_cap(at);
            let mut table = call.init_params().init_cap_table(CAPS);
            for index in 0..CAPS {
                let mut cap = table.reborrow().get(index);
                cap.set_sender_hosted(at.wrapping_mul(CAPS).wrapping_add(index));
            }
        }),
        _ => {
            let mut noise = vec![0, 0, 0, 0, 32, 0, 0, 0];
            noise.extend((0..256_u32).map(|byte| (byte.wrapping_mul(at | 1) >> 3) as u8));
            noise
        }
    }
}

fn bytes(build: impl FnOnce(message::Builder<'_>)) -> Vec<u8> {
    let mut message = Builder::new(HeapAllocator::new());
    build(message.init_root());
    capnp::serialize::write_message_to_words(&message)
}

/// Datagrams in a row, before a pause.
const DATAGRAMS: u64 = 64;
/// With it some 30,000 datagrams a second: what a line of 300 Mbit carries. A sender without a pause
/// takes a whole core of this machine, and then that is what is measured.
const DATAGRAM_PAUSE: Duration = Duration::from_millis(2);

/// Datagrams at the QUIC port: some look like the beginning of a connection.
pub async fn datagrams(blows: Arc<Blows>) {
    let socket = UdpSocket::bind((blows.target.from[0], 0)).await.unwrap();
    for number in 0_u64.. {
        let mut bytes = vec![0; 1200];
        if number % 2 == 0 {
            // A long header, version 1, an initial packet with a connection id of 8 bytes.
            bytes[..6].copy_from_slice(&[0xc3, 0, 0, 0, 1, 8]);
            bytes[6..14].copy_from_slice(&number.to_be_bytes());
        } else {
            bytes.fill(number as u8);
        }
        let _ = socket.send_to(&bytes, blows.target.quic).await;
        blows.count();
        if number % DATAGRAMS == 0 {
            sleep(DATAGRAM_PAUSE).await;
        }
    }
}

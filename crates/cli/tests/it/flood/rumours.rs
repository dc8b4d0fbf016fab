//! What a member of the realm says of other members' lives.

use std::{
    sync::{Arc, Mutex},
    time::{Duration, SystemTime},
};

use futures::{AsyncReadExt as _, StreamExt as _};
use libp2p::Stream;
use realm_identity::PublicKey;
use realm_protocol::Frame;
use tokio::time::sleep;

use super::{
    foe::{Foe, LOG, Refused, framed, write},
    siege::Blows,
};

/// Which of the members that were taken over.
pub const LIAR: usize = 3;
/// Within what a member may send.
const PAUSE: Duration = Duration::from_millis(10);
/// Among so many packets is a question.
const ASK_EVERY: usize = 7;
const HOUR_MS: u64 = 3_600_000;
/// What a node believes of others, in docs/protocols/log.md.
const TOLD_AHEAD_MS: u64 = 100 * 365 * 24 * HOUR_MS;
/// Kinds of packets, and states, in the bytes of docs/protocols/log.md.
const ANNOUNCE: u8 = 7;
const GOSSIP: u8 = 9;
const ALIVE: u8 = 0;
const SUSPECT: u8 = 1;
const DOWN: u8 = 2;

/// Key, epoch and counter.
type Life = [u8; 44];

/// One life of a member, and the state it is said to be in.
struct Rumour {
    epoch: u64,
    counter: u32,
    incarnation: u16,
    state: u8,
}

/// Tells a node again and again that another one, and itself, are dead, suspected, or somebody else by now.
pub async fn of_a_node(blows: Arc<Blows>) {
    loop {
        let Ok(mut foe) = blows.member(LIAR).await else {
            continue;
        };
        let mut told = foe.asked(LOG);
        let heard = Mutex::new(None);
        let listen = async {
            while let Some((_, stream)) = told.next().await {
                // It ends with the connection, and another one may begin.
                let _: Result<(), Refused> = read_lives(stream, &heard).await;
            }
        };
        let speak = async {
            let mut stream = foe.open(LOG).await?;
            for round in 0.. {
                let life = *heard.lock().unwrap();
                let packet = say(&foe, &blows, round, life);
                write(&mut stream, &framed(&Frame::Swim(packet).encode())).await?;
                // What is said to another life than the node's own is not read.
                if life.is_some() {
                    blows.count();
                }
                sleep(PAUSE).await;
            }
            Ok::<(), Refused>(())
        };
        tokio::select! {
            () = listen => {}
            _ = speak => {}
        }
    }
}

/// Remembers as whom the node speaks by now.
async fn read_lives(mut stream: Stream, heard: &Mutex<Option<Life>>) -> Result<(), Refused> {
    loop {
        let mut length = [0; 4];
        stream.read_exact(&mut length).await.map_err(|_| Refused)?;
        let mut frame = vec![0; u32::from_be_bytes(length) as usize];
        stream.read_exact(&mut frame).await.map_err(|_| Refused)?;
        if let Ok(Frame::Swim(packet)) = Frame::decode(&frame) {
            *heard.lock().unwrap() = packet.first_chunk().copied();
        }
    }
}

fn say(foe: &Foe, blows: &Blows, round: usize, to: Option<Life>) -> Vec<u8> {
    // It answers no question, so it is taken for dead soon: each of its packets begins a life.
    let from = life(foe.secret.public(), now_ms(), 0);
    let unknown = life(blows.target.nodes[0], 0, 0);
    let header = |to: Life, kind| [&from[..], &[0, 0], &to, &[kind]].concat();
    // Whatever life this is for, the answer tells the newest.
    let Some(to) = to.filter(|_| !round.is_multiple_of(ASK_EVERY)) else {
        return header(unknown, ANNOUNCE);
    };
    let about = blows.target.nodes[round % 2];
    let rumour = rumour(round / 2);
    let mut packet = header(to, GOSSIP);
    packet.extend(1_u16.to_be_bytes());
    packet.extend(life(about, rumour.epoch, rumour.counter));
    packet.extend(rumour.incarnation.to_be_bytes());
    packet.push(rumour.state);
    packet
}

fn rumour(round: usize) -> Rumour {
    let now = now_ms();
    let of = |epoch, counter, incarnation, state| Rumour {
        epoch,
        counter,
        incarnation,
        state,
    };
    match round % 9 {
        0 => of(u64::MAX, u32::MAX, u16::MAX, ALIVE),
        1 => of(u64::MAX, u32::MAX, u16::MAX, DOWN),
        2 => of(now + HOUR_MS, u32::MAX, 0, ALIVE),
        3 => of(now + HOUR_MS, u32::MAX, u16::MAX, DOWN),
        4 => of(now + HOUR_MS, u32::MAX, u16::MAX, SUSPECT),
        5 => of(now + TOLD_AHEAD_MS, u32::MAX, 0, ALIVE),
        6 => of(now + TOLD_AHEAD_MS, u32::MAX, u16::MAX, DOWN),
        7 => of(now + 2 * TOLD_AHEAD_MS, u32::MAX, u16::MAX, DOWN),
        _ => of(now, 0, u16::MAX, SUSPECT),
    }
}

fn life(key: PublicKey, epoch: u64, counter: u32) -> Life {
    let bytes = [
        &key.as_bytes()[..],
        &epoch.to_be_bytes(),
        &counter.to_be_bytes(),
    ]
    .concat();
    *bytes.first_chunk().unwrap()
}

fn now_ms() -> u64 {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
    since.unwrap().as_millis() as u64
}

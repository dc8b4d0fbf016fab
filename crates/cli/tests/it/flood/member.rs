//! What a member of the realm does that was taken over: it is believed, and speaks as it likes.

use std::{sync::Arc, time::Duration};

use realm_identity::{
    Artifact, Body, Entry, Hash, Kind, SecretKey, Signed, Target as About, Timestamp,
};
use realm_manifest::report::{Capacity, NodeReport, NodeState, Reason, StatusDigest};
use realm_protocol::{Frame, HeadAnnounce, Item, Point, gossip};
use tokio::time::sleep;

use super::{
    foe::{BLOB, Foe, LOG, Refused, Topic, framed, write},
    siege::Blows,
};

/// A boot that is later than any of the member's own.
const BOOT: u64 = 1 << 60;
/// Among the others so many that cost nothing to make or to read: on a slow machine the others alone come more slowly
/// than a member may speak.
const CHEAP: usize = 2_000;
const CHEAP_EVERY: u64 = 64;
/// Nearly the largest report.
const LARGE: usize = 400 * 1024;

/// Frames at full rate: rubbish, forged entries, wrong verdicts, reports that are always new.
pub async fn frames(blows: Arc<Blows>) {
    let mut number = BOOT;
    let cheap = framed(&Frame::GetEntry(Hash::of(b"none")).encode()).repeat(CHEAP);
    loop {
        let Ok(mut foe) = blows.member(0).await else {
            continue;
        };
        let flood = async {
            let mut stream = foe.open(LOG).await?;
            loop {
                number += 1;
                let frame = frame(&blows, number);
                write(&mut stream, &framed(&frame)).await?;
                blows.count();
                if number.is_multiple_of(CHEAP_EVERY) {
                    write(&mut stream, &cheap).await?;
                }
            }
        };
        let _: Result<(), Refused> = flood.await;
    }
}

fn frame(blows: &Blows, number: u64) -> Vec<u8> {
    let target = &blows.target;
    let nowhere = Point {
        seq: u64::MAX,
        hash: Hash::of(&number.to_be_bytes()),
    };
    match number % 8 {
        0 => vec![0xff; 64],
        1 => forged(blows, number).encode(),
        2 => Frame::Swim(number.to_be_bytes().repeat(40)).encode(),
        3 => Frame::Locator {
            realm: target.realm,
            tips: vec![nowhere; 32],
            samples: vec![nowhere; 64],
        }
        .encode(),
        4 => Frame::GetEntry(nowhere.hash).encode(),
        5 => Frame::ClaimsHave(vec![nowhere.hash; 4096]).encode(),
        _ => Frame::Report(report(blows, &target.members[0], number, 100).to_wire()).encode(),
    }
}

/// An entry of the member's own, for the next revision of nobody's log.
fn forged(blows: &Blows, number: u64) -> Frame {
    let [member, ..] = &blows.target.members;
    let body = Body {
        state: Hash::of(b"a state"),
        kind: Kind::Scale.number(),
        target: About::Component("still".to_owned()),
        not_after: None,
        issued_at: Timestamp(0),
        payload: Artifact::of(b"x"),
    };
    let realm = blows.target.realm;
    let entry = Entry::new(realm, member.public(), number, realm, body);
    let Ok(signed) = Signed::sign(entry, member);
    let item = Item {
        entry: signed.to_wire(),
        payload: Some(b"x".to_vec()),
    };
    Frame::Entries {
        realm,
        items: vec![item; 16],
        more: true,
    }
}

/// A report that is newer with each number, with other addresses each time.
fn report(blows: &Blows, member: &SecretKey, number: u64, filler: usize) -> Signed<NodeReport> {
    let report = NodeReport {
        node: member.public(),
        realm: blows.target.realm,
        boot_id: BOOT,
        seq: number,
        at: Timestamp(0),
        revision: u64::MAX,
        head: Hash::of(b"a head"),
        state: NodeState::Ready,
        name: "mallory".parse().unwrap(),
        tags: Vec::new(),
        version: "realm/0".to_owned(),
        addresses: vec![format!("/ip4/192.0.2.1/tcp/{}", 1024 + number % 60_000)],
        cpu_hundredths: None,
        memory_bytes: None,
        capacity: Capacity::default(),
        cells: Vec::new(),
        declined: Vec::new(),
        holds: Vec::new(),
        sealing: None,
        problems: vec![Reason {
            code: "full".to_owned(),
            message: "x".repeat(filler),
            help: None,
        }],
    };
    let Ok(report) = Signed::sign(report, member);
    report
}

/// Gossip without end: a status that is always new, and heads that nobody has.
pub async fn gossip(blows: Arc<Blows>) {
    let mut number = BOOT;
    loop {
        let Ok(foe) = blows.member(0).await else {
            continue;
        };
        let flood = async {
            loop {
                number += 1;
                foe.gossip(
                    Topic::Status,
                    status(&blows, &blows.target.members[0], number),
                )
                .await?;
                foe.gossip(Topic::Heads, head(&blows, number)).await?;
                blows.count();
            }
        };
        let _: Result<(), Refused> = flood.await;
    }
}

fn status(blows: &Blows, member: &SecretKey, number: u64) -> Vec<u8> {
    let digest = StatusDigest {
        node: member.public(),
        realm: blows.target.realm,
        boot_id: BOOT,
        seq: number,
        at: Timestamp(0),
        revision: u64::MAX,
        head: Hash::of(b"a head"),
        state: NodeState::Ready,
        report: Hash::of(&number.to_be_bytes()),
        cells_running: 0,
        cells_wanted: 0,
        problems: Vec::new(),
    };
    let Ok(signed) = Signed::sign(digest, member);
    signed.to_wire()
}

fn head(blows: &Blows, number: u64) -> Vec<u8> {
    let announce = HeadAnnounce {
        v: gossip::VERSION,
        node: blows.target.members[0].public(),
        realm: blows.target.realm,
        seq: u64::MAX,
        head: Hash::of(&number.to_be_bytes()),
        tips: Vec::new(),
        boot_id: BOOT,
        count: number,
    };
    let Ok(signed) = Signed::sign(announce, &blows.target.members[0]);
    signed.to_wire()
}

/// Asks for what is large, and reads nothing of it.
pub async fn greed(blows: Arc<Blows>) {
    loop {
        let Ok(mut foe) = blows.member(1).await else {
            continue;
        };
        let _ = ask(&mut foe, &blows).await;
    }
}

async fn ask(foe: &mut Foe, blows: &Blows) -> Result<(), Refused> {
    // It takes the node's stream of answers, and never reads it.
    let _unread = foe.asked(LOG);
    let member = &foe.secret.clone();
    let mut stream = foe.open(LOG).await?;
    let own = report(blows, member, 2 * BOOT, LARGE).to_wire();
    let own = framed(&Frame::Report(own).encode());
    // A status that is new makes the node ask for the report, once in a while.
    foe.gossip(Topic::Status, status(blows, member, 2 * BOOT))
        .await?;
    write(&mut stream, &own).await?;
    let question = Frame::GetReport {
        node: member.public(),
        boot_id: 0,
        seq: 0,
    };
    let locator = Frame::Locator {
        realm: blows.target.realm,
        tips: Vec::new(),
        samples: Vec::new(),
    };
    let questions = [framed(&question.encode()), framed(&locator.encode())].concat();
    let mut ranges = Vec::new();
    for _ in 0..32 {
        // A member that answers no probe, and says nothing for some seconds, is hung up on.
        write(&mut stream, &questions).await?;
        ranges.push(foe.say(BLOB, &[7; 44]).await?);
    }
    loop {
        write(&mut stream, &questions).await?;
        blows.count();
        // Below the rate at which frames are dropped.
        sleep(Duration::from_millis(8)).await;
    }
}

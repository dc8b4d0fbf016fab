//! Sessions of Cap'n Proto: what a node reads of a stranger and of an operator, and a command of a node.
//!
//! An operator proves its key here as everywhere: a real client does it, and then the line is turned
//! over to the tape. There is no way into a node that a fuzzer has and nobody else.

use std::{cell::RefCell, rc::Rc, time::Duration};

use realm_identity::{Artifact, Timestamp};
use realm_rpc::{Limits, LogQuery, Operator, connect, serve};
use tokio::{
    sync::mpsc,
    task::{JoinHandle, LocalSet},
};
use tokio_util::compat::TokioAsyncReadCompatExt as _;

use crate::{
    scene::{self, key, scene},
    script,
};

mod line;
mod served;
mod tape;

use line::{Heard, Line, Now};
use served::Served;
use tape::{LOOKS, Tape};

/// Who reads the bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Side {
    /// A node, of a peer that has proven nothing.
    Node,
    /// A node, of an operator.
    Admitted,
    /// A command, of a node that may be hostile.
    Command,
    /// The same, after the graft.
    Operator,
}

impl Side {
    pub const ALL: [Self; 4] = [Self::Node, Self::Admitted, Self::Command, Self::Operator];

    /// Whether a node reads, or else a command.
    fn is_node(self) -> bool {
        matches!(self, Self::Node | Self::Admitted)
    }
}

/// A session whose peer has gone is over. Far more than it takes.
const PATIENCE: Duration = Duration::from_secs(5);
/// What fits between a real client and a real server: far more than they say here.
const LINE_BYTES: usize = 1024 * 1024;
/// Turns of the loop in which what follows a graft is said and heard.
const SETTLING_TURNS: usize = 64;

/// The first byte says who reads; pieces follow, as they came.
pub fn feed(input: &[u8]) {
    let Some((first, rest)) = input.split_first() else {
        return;
    };
    let side = Side::ALL[usize::from(*first) % Side::ALL.len()];
    let tape = Tape::new(rest);
    let session = LocalSet::new();
    let ended = runtime().block_on(
        session.run_until(async { tokio::time::timeout(PATIENCE, read(side, tape)).await }),
    );
    assert!(ended.is_ok(), "a session outlives its peer");
}

async fn read(side: Side, tape: Tape) {
    // How it ends is the peer's doing.
    match side {
        Side::Node => drop(serve(tape, Rc::new(Served::default()), Limits::default()).await),
        Side::Command => {
            let client = connect(tape, Limits::default());
            let _ = client.info().await;
            let owner = Rc::new(scene::owner());
            let realm = Some(scene().genesis.realm_id());
            let graft = client.graft(owner, served::node(), realm).await;
            if let Ok(graft) = graft {
                assert_eq!(graft.info.node, served::node(), "another node");
            }
        }
        Side::Admitted | Side::Operator => {
            let (operator, line, serving) = admitted(side).await;
            line.turn(Now::Tape(tape));
            match side {
                // The one who proved the key says nothing more; it only has to stay.
                Side::Admitted => ended(serving).await,
                _ => ask_all(&operator).await,
            }
        }
    }
}

/// A command that proved the owner's key to a node, and the line of the one who reads.
async fn admitted(side: Side) -> (Operator, Line, JoinHandle<()>) {
    let line = Line::default();
    let (near, far) = tokio::io::duplex(LINE_BYTES);
    let near = line.stream(near.compat(), !side.is_node());
    let far = line.stream(far.compat(), side.is_node());
    let limits = Limits::default();
    let serving = serve(far, Rc::new(Served::default()), limits);
    let serving = tokio::task::spawn_local(async move { drop(serving.await) });
    let client = connect(near, limits);
    let realm = Some(scene().genesis.realm_id());
    let graft = client.graft(Rc::new(scene::owner()), served::node(), realm);
    let operator = graft.await.expect("both are honest").operator;
    for _ in 0..SETTLING_TURNS {
        tokio::task::yield_now().await;
    }
    (operator.expect("the owner may"), line, serving)
}

/// How a session ends is the peer's doing; that it breaks is not.
async fn ended(serving: JoinHandle<()>) {
    serving.await.expect("a node's session broke");
}

/// How many things commands ask a node.
const QUESTIONS: u8 = 15;
/// Items of a stream that wait for who asked.
const WAITING_ITEMS: usize = 8;

async fn ask_all(operator: &Operator) {
    for number in 0..QUESTIONS {
        ask(operator, number).await;
    }
}

/// What commands ask a node, by number. What it answers is the peer's doing.
async fn ask(operator: &Operator, number: u8) {
    match number {
        0 => drop(operator.head().await),
        1 => drop(operator.heads().await),
        2 => drop(operator.survey().await),
        3 => drop(operator.submit(b"entry", b"payload").await),
        4 => drop(operator.history(1, 3).await),
        5 => drop(operator.forks().await),
        6 => drop(operator.pending().await),
        7 => drop(operator.standing().await),
        8 => drop(operator.claim(b"claim").await),
        9 => drop(operator.adopt(b"genesis").await),
        10 => drop(operator.peer_add("/ip4/192.0.2.7/tcp/2020").await),
        11 => {
            let (surveys, _read) = mpsc::channel(WAITING_ITEMS);
            drop(operator.watch(surveys).await);
        }
        12 => {
            let (lines, _read) = mpsc::channel(WAITING_ITEMS);
            drop(operator.logs(&LogQuery::default(), lines).await);
        }
        13 => {
            let (events, _read) = mpsc::channel(WAITING_ITEMS);
            drop(operator.events(0, false, events).await);
        }
        _ => {
            let bytes = b"hello";
            if let Ok(mut upload) = operator.upload(&Artifact::of(bytes)).await {
                let _ = upload.write(bytes).await;
                let _ = upload.finish().await;
            }
        }
    }
}

/// Sessions between a real client and a real server: inputs that have all that `side` reads, of
/// everything that is asked and of each question by itself.
pub fn record(side: Side) -> Vec<Vec<u8>> {
    let each = match side {
        Side::Admitted => (0..QUESTIONS).map(Some).collect(),
        _ => Vec::new(),
    };
    std::iter::once(None)
        .chain(each)
        .map(|only| recorded(side, only))
        .collect()
}

fn recorded(side: Side, only: Option<u8>) -> Vec<u8> {
    let place = Side::ALL.iter().position(|other| *other == side);
    let mut input = vec![place.map_or(0, |place| place as u8)];
    let heard: Heard = Rc::new(RefCell::new(Vec::new()));
    let session = LocalSet::new();
    runtime().block_on(session.run_until(talk(side, only, heard.clone())));
    for piece in heard.borrow().iter() {
        script::push(&mut input, LOOKS, piece);
    }
    input
}

async fn talk(side: Side, only: Option<u8>, heard: Heard) {
    match side {
        Side::Node | Side::Command => {
            let line = Line::default();
            line.turn(Now::Recorded(heard));
            let (near, far) = tokio::io::duplex(LINE_BYTES);
            let near = line.stream(near.compat(), !side.is_node());
            let far = line.stream(far.compat(), side.is_node());
            let serving = serve(far, Rc::new(Served::default()), Limits::default());
            let serving = tokio::task::spawn_local(async move { drop(serving.await) });
            let client = connect(near, Limits::default());
            let _ = client.info().await;
            let realm = Some(scene().genesis.realm_id());
            for secret in [scene::owner(), key(scene::NODES[4])] {
                let _ = client.graft(Rc::new(secret), served::node(), realm).await;
            }
            drop(client);
            ended(serving).await;
        }
        Side::Admitted | Side::Operator => {
            let (operator, line, serving) = admitted(side).await;
            line.turn(Now::Recorded(heard));
            match only {
                Some(number) => ask(&operator, number).await,
                None => ask_all(&operator).await,
            }
            drop(operator);
            ended(serving).await;
        }
    }
}

fn runtime() -> tokio::runtime::Runtime {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .build();
    runtime.expect("a runtime of this thread")
}

/// When everything was written, for those who answer.
const AT: Timestamp = scene::NOW;

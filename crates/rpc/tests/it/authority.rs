//! Who may call what: every method of the schema, and that each ends with the authority it came from.

use std::{collections::BTreeSet, fs, path::Path, rc::Rc};

use futures::future::join_all;
use realm_identity::Artifact;
use realm_rpc::{ErrorCode, Limits, LogQuery, Operator, RpcError};
use tokio::sync::mpsc;

use crate::scene::{key, node_key, run, scene};

/// Who may call a method of an interface.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Who {
    /// Whoever opens a connection.
    Anybody,
    /// Whoever proved the owner's key on this connection, until the epoch of the proof ends.
    Owner,
    /// The other end of the connection, which this end gave the capability to.
    Answerer,
}

const METHODS: [(&str, &str, Who); 23] = [
    ("Membrane", "info", Who::Anybody),
    ("Membrane", "graft", Who::Anybody),
    ("Signer", "sign", Who::Answerer),
    ("LogSink", "lines", Who::Answerer),
    ("EventSink", "events", Who::Answerer),
    ("SurveySink", "part", Who::Answerer),
    ("Upload", "write", Who::Owner),
    ("Upload", "finish", Who::Owner),
    ("Operator", "head", Who::Owner),
    ("Operator", "heads", Who::Owner),
    ("Operator", "submit", Who::Owner),
    ("Operator", "survey", Who::Owner),
    ("Operator", "watch", Who::Owner),
    ("Operator", "logs", Who::Owner),
    ("Operator", "events", Who::Owner),
    ("Operator", "history", Who::Owner),
    ("Operator", "forks", Who::Owner),
    ("Operator", "uploadBegin", Who::Owner),
    ("Operator", "claim", Who::Owner),
    ("Operator", "pending", Who::Owner),
    ("Operator", "peerAdd", Who::Owner),
    ("Operator", "adopt", Who::Owner),
    ("Operator", "standing", Who::Owner),
];

/// `Interface.method` for each of a schema.
fn methods(schema: &str) -> Vec<String> {
    let mut found = Vec::new();
    for part in schema.split("\ninterface ").skip(1) {
        let (name, body) = part.split_once('{').unwrap();
        let body = body.split_once("\n}").unwrap().0;
        for line in body.lines().map(str::trim) {
            if let Some((method, rest)) = line.split_once(" @")
                && rest.contains('(')
                && !line.starts_with('#')
            {
                found.push(format!("{}.{method}", name.trim()));
            }
        }
    }
    found
}

#[test]
fn every_method_of_the_schema_says_who_may_call_it() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("schema");
    let mut schema = BTreeSet::new();
    for entry in fs::read_dir(root).unwrap() {
        let path = entry.unwrap().path();
        if path
            .extension()
            .is_some_and(|extension| extension == "capnp")
        {
            schema.extend(methods(&fs::read_to_string(path).unwrap()));
        }
    }
    let listed: BTreeSet<_> = METHODS
        .iter()
        .map(|(interface, method, _)| format!("{interface}.{method}"))
        .collect();
    assert_eq!(schema, listed);
}

fn owners() -> impl Iterator<Item = &'static str> {
    METHODS
        .into_iter()
        .filter(|(interface, _, who)| *interface == "Operator" && *who == Who::Owner)
        .map(|(_, method, _)| method)
}

/// Calls a method by its name in the schema; one that is listed and not here is a failure.
async fn call(operator: &Operator, method: &str) -> Result<(), RpcError> {
    match method {
        "head" => operator.head().await.map(drop),
        "heads" => operator.heads().await.map(drop),
        "submit" => operator.submit(b"entry", b"payload").await.map(drop),
        "survey" => operator.survey().await.map(drop),
        "watch" => {
            // Who watches is told until he is gone: at once.
            let (to, gone) = mpsc::channel(1);
            drop(gone);
            operator.watch(to).await
        }
        "logs" => {
            let query = LogQuery {
                component: None,
                tail: Some(1),
                since: None,
                follow: false,
                previous: false,
            };
            let (to, _lines) = mpsc::channel(4);
            operator.logs(&query, to).await
        }
        "events" => {
            let (to, _events) = mpsc::channel(4);
            operator.events(0, false, to).await
        }
        "history" => operator.history(1, 2).await.map(drop),
        "forks" => operator.forks().await.map(drop),
        "uploadBegin" => operator.upload(&Artifact::of(b"bytes")).await.map(drop),
        "claim" => operator.claim(b"claim").await.map(drop),
        "pending" => operator.pending().await.map(drop),
        "peerAdd" => operator.peer_add("/ip4/192.0.2.1/tcp/1").await,
        "adopt" => operator.adopt(b"genesis").await,
        "standing" => operator.standing().await.map(drop),
        other => panic!("{other} is listed and not called"),
    }
}

#[test]
fn every_method_ends_with_the_authority_it_came_from() {
    run(async {
        let scene = scene(Limits::default());
        let operator = scene.operator().await;
        for method in owners() {
            let refused = call(&operator, method).await.err().map(|error| error.code);
            assert_ne!(refused, Some(ErrorCode::NotAuthorised), "{method}");
        }
        let mut begun = operator.upload(&Artifact::of(b"bytes")).await.unwrap();
        let (lines, intents) = (
            scene.node.control.lines_taken.get(),
            scene.node.control.intents.borrow().len(),
        );
        scene.node.epoch.send_replace(4);
        for method in owners() {
            let refused = call(&operator, method).await.unwrap_err();
            assert_eq!(refused.code, ErrorCode::NotAuthorised, "{method}");
        }
        let refused = begun.write(b"bytes").await.unwrap_err();
        assert_eq!(refused.code, ErrorCode::NotAuthorised, "write");
        let refused = begun.finish().await.unwrap_err();
        assert_eq!(refused.code, ErrorCode::Invalid, "the upload ended with it");
        // None of it was so much as begun.
        let control = &scene.node.control;
        assert!(control.uploaded.borrow().is_empty(), "bytes landed");
        assert_eq!(control.intents.borrow().len(), intents);
        assert_eq!(control.lines_taken.get(), lines);
    });
}

#[test]
fn a_stranger_holds_nothing_to_call() {
    run(async {
        let scene = scene(Limits::default());
        for who in [66, 1, 9] {
            let graft = scene.client.graft(Rc::new(key(who)), node_key(), None);
            assert!(graft.await.unwrap().operator.is_none());
        }
        assert!(scene.node.control.intents.borrow().is_empty());
    });
}

/// A small generator: what happens next is chosen by it alone, so that a seed tells the whole story.
struct Dice(u64);

impl Dice {
    fn roll(&mut self, sides: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % sides
    }
}

/// Stories, and what happens in each.
const STORIES: u64 = 60;
const STEPS: usize = 60;

/// Grants, copies, single and pipelined calls and revocations in any order, against a model that
/// knows for each capability the epoch that it was given out in.
#[test]
fn what_is_held_never_reaches_beyond_what_was_granted() {
    for seed in 1..=STORIES {
        run(story(seed));
    }
}

async fn story(seed: u64) {
    let mut dice = Dice(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15));
    let mut scene = scene(Limits::default());
    let (mut epoch, mut landed, mut grafts) = (3, 0, 0);
    let mut held: Vec<(u64, Operator)> = Vec::new();
    for step in 0..STEPS {
        let what = || format!("seed {seed}, step {step}");
        match dice.roll(6) {
            // A connection takes 16 proofs; the next one is another connection's.
            0 => {
                if grafts == 16 {
                    let node = scene.node.clone();
                    scene = crate::scene::connected(node, Limits::default());
                    grafts = 0;
                }
                grafts += 1;
                held.push((epoch, scene.operator().await));
            }
            1 => {
                // To be given on: the same capability, no more and no less.
                let copied = match held.len() {
                    0 => continue,
                    all => held[dice.roll(all as u64) as usize].clone(),
                };
                held.push(copied);
            }
            2 => {
                epoch += 1;
                scene.node.epoch.send_replace(epoch);
            }
            // Several at once, and the authority ends before the node has seen one of them.
            3 => {
                let calls = held.iter().map(|(_, operator)| operator.submit(b"x", b""));
                epoch += 1;
                let revoke = async {
                    scene.node.epoch.send_replace(epoch);
                };
                let ((), answers) = futures::future::join(revoke, join_all(calls)).await;
                assert!(answers.iter().all(Result::is_err), "{}", what());
            }
            _ => {
                let calls = held.iter().map(|(_, operator)| operator.submit(b"x", b""));
                let answers = join_all(calls).await;
                for ((given, _), answer) in held.iter().zip(&answers) {
                    assert_eq!(answer.is_ok(), *given == epoch, "{}", what());
                }
                landed += answers.iter().filter(|answer| answer.is_ok()).count();
            }
        }
        let reached = scene.node.control.intents.borrow().len();
        assert_eq!(reached, landed, "{}", what());
    }
}

//! A node that keeps what it is told in memory, and a client connected to it.

use std::{
    cell::{Cell, RefCell},
    rc::Rc,
    time::Duration,
};

use futures::{FutureExt as _, future::LocalBoxFuture};
use realm_identity::{Artifact, Hash, PublicKey, RealmId, SecretKey, Timestamp};
use realm_rpc::{
    Client, Control, ErrorCode, Event, EventSink, Fork, Head, HeadId, Host, Intent, Limits,
    LogLine, LogQuery, LogSink, LogStream, PendingNode, PublicInfo, RpcError, ServeError, Sighting,
    Submitted, Survey, SurveySink, Upload, View, connect, serve, status::Link,
};
use tokio::{
    sync::watch,
    task::{JoinHandle, LocalSet},
};
use tokio_util::compat::TokioAsyncReadCompatExt as _;

pub(crate) fn key(n: u8) -> SecretKey {
    SecretKey::from_seed(&[n; 32])
}

pub(crate) fn node_key() -> PublicKey {
    key(1).public()
}

pub(crate) fn owner() -> Rc<SecretKey> {
    Rc::new(key(2))
}

pub(crate) fn realm() -> RealmId {
    Hash::of(b"realm")
}

pub(crate) struct Node {
    pub(crate) control: Rc<Memory>,
    pub(crate) epoch: watch::Sender<u64>,
}

/// Everything the tests ask about afterwards.
#[derive(Default)]
pub(crate) struct Memory {
    pub(crate) intents: RefCell<Vec<Intent>>,
    pub(crate) uploaded: Rc<RefCell<Vec<u8>>>,
    pub(crate) lines_taken: Cell<usize>,
    pub(crate) stuck: Cell<bool>,
    /// What is told before the usual surveys.
    pub(crate) surveys: RefCell<Vec<Survey>>,
}

impl Host for Node {
    fn info(&self) -> PublicInfo {
        PublicInfo {
            node: node_key(),
            version: "1.2.3".into(),
            realm: Some(realm()),
            name: Some("home".into()),
        }
    }

    fn realm(&self) -> Option<RealmId> {
        Some(realm())
    }

    fn epoch(&self) -> u64 {
        *self.epoch.borrow()
    }

    fn epoch_ended(&self, epoch: u64) -> LocalBoxFuture<'_, ()> {
        let mut epochs = self.epoch.subscribe();
        async move {
            // The sender lives as long as the node.
            let _ = epochs.wait_for(|now| *now != epoch).await;
        }
        .boxed_local()
    }

    fn authorise(
        &self,
        key: PublicKey,
    ) -> LocalBoxFuture<'_, Result<Option<Rc<dyn Control>>, RpcError>> {
        let control = self.control.clone() as Rc<dyn Control>;
        async move { Ok((key == owner().public()).then_some(control)) }.boxed_local()
    }
}

/// Two nodes, of which the asked one changes with every revision.
pub(crate) fn survey(revision: u64) -> Survey {
    let view = View {
        present: true,
        settled: true,
        twin: true,
        boot_id: Some(3),
        link: Some(Link::Quic),
        rtt_micros: Some(700),
        address: Some("/ip4/192.0.2.1/tcp/2020".into()),
        last_seen: Some(Timestamp(9)),
        name: None,
    };
    let own = View {
        link: Some(Link::Itself),
        last_seen: Some(Timestamp(10 + revision)),
        name: Some("one".into()),
        ..View::default()
    };
    let other = Sighting {
        view,
        report: Some(b"report"[..].into()),
        claims: vec![b"claim".to_vec()],
    };
    let own = Sighting {
        view: own,
        ..Sighting::default()
    };
    Survey {
        head: HeadId {
            seq: revision,
            hash: Hash::of(&revision.to_be_bytes()),
        },
        forked: false,
        nodes: [(key(9).public(), other), (node_key(), own)].into(),
    }
}

pub(crate) fn line(n: usize) -> LogLine {
    LogLine {
        at: Timestamp(n as u64),
        component: "hello".into(),
        node: "one".into(),
        index: 0,
        stream: LogStream::Out,
        text: format!("line {n}").into_bytes(),
    }
}

type Answer<'a, T> = LocalBoxFuture<'a, Result<T, RpcError>>;

impl Control for Memory {
    fn head(&self) -> Answer<'_, Head> {
        let head = Head {
            seq: self.intents.borrow().len() as u64,
            entry: vec![1],
            parent_state: vec![2],
            payload: vec![3],
            named: vec![Intent {
                entry: vec![4],
                payload: Some(vec![5]),
            }],
        };
        async move {
            if self.stuck.get() {
                std::future::pending::<()>().await;
            }
            Ok(head)
        }
        .boxed_local()
    }

    fn heads(&self) -> Answer<'_, Vec<HeadId>> {
        let heads = vec![
            HeadId {
                seq: 7,
                hash: Hash::of(b"a")
            };
            2
        ];
        async move { Ok(heads) }.boxed_local()
    }

    fn submit(&self, entry: Vec<u8>, payload: Vec<u8>) -> Answer<'_, Submitted> {
        async move {
            if entry.is_empty() {
                return Err(RpcError::new(ErrorCode::Conflict, "the head is 7").help("sign again"));
            }
            let mut intents = self.intents.borrow_mut();
            intents.push(Intent {
                entry,
                payload: Some(payload),
            });
            Ok(Submitted {
                seq: intents.len() as u64,
                durable_on: 1,
            })
        }
        .boxed_local()
    }

    fn survey(&self) -> Answer<'_, Survey> {
        let told = self.surveys.borrow().first().cloned();
        async { Ok(told.unwrap_or_else(|| survey(7))) }.boxed_local()
    }

    fn watch(&self, mut sink: SurveySink) -> Answer<'_, ()> {
        let told = self.surveys.borrow().clone();
        async move {
            for survey in told.into_iter().chain((0..).map(survey)) {
                if sink.send(&survey).await.is_err() {
                    break;
                }
            }
            Ok(())
        }
        .boxed_local()
    }

    fn logs(&self, query: LogQuery, sink: LogSink) -> Answer<'_, ()> {
        async move {
            for n in 0..query.tail.unwrap_or(u64::MAX) {
                if sink.send(&[line(n as usize)]).await.is_err() {
                    break;
                }
                self.lines_taken.set(self.lines_taken.get() + 1);
            }
            Ok(())
        }
        .boxed_local()
    }

    fn events(&self, after: u64, _: bool, sink: EventSink) -> Answer<'_, ()> {
        async move {
            let event = Event {
                seq: after + 1,
                at: Timestamp(5),
                kind: "joined".into(),
                subject: "two".into(),
                message: String::new(),
            };
            sink.send(&[event])
                .await
                .map_err(|_| RpcError::new(ErrorCode::Failed, "closed"))
        }
        .boxed_local()
    }

    fn history(&self, from: u64, to: u64, _: usize) -> Answer<'_, Vec<Intent>> {
        let intents = (from..=to)
            .map(|n| Intent {
                entry: vec![n as u8; 60_000],
                payload: None,
            })
            .collect();
        async move { Ok(intents) }.boxed_local()
    }

    fn forks(&self) -> Answer<'_, Vec<Fork>> {
        async { Ok(Vec::new()) }.boxed_local()
    }

    fn upload(&self, artifact: Artifact) -> Answer<'_, Box<dyn Upload>> {
        let upload = MemoryUpload {
            artifact,
            bytes: self.uploaded.clone(),
        };
        async move { Ok(Box::new(upload) as Box<dyn Upload>) }.boxed_local()
    }

    fn claim(&self, claim: Vec<u8>) -> Answer<'_, Vec<u8>> {
        async move { Ok([claim, b"!".to_vec()].concat()) }.boxed_local()
    }

    fn pending(&self) -> Answer<'_, Vec<PendingNode>> {
        let node = PendingNode {
            key: key(9).public(),
            name: "nine".into(),
            tags: vec!["edge".into(), "zone=a".into()],
            address: "/ip4/192.0.2.1/tcp/2020".into(),
            first_seen: Timestamp(12),
        };
        async move { Ok(vec![node]) }.boxed_local()
    }

    fn peer_add(&self, _: String) -> Answer<'_, ()> {
        async { Ok(()) }.boxed_local()
    }

    fn adopt(&self, _: Vec<u8>) -> Answer<'_, ()> {
        async { Err(RpcError::new(ErrorCode::Invalid, "there is a realm")) }.boxed_local()
    }

    fn standing(&self) -> Answer<'_, Vec<Vec<u8>>> {
        async { Ok(vec![vec![1, 2], vec![3]]) }.boxed_local()
    }
}

struct MemoryUpload {
    artifact: Artifact,
    bytes: Rc<RefCell<Vec<u8>>>,
}

impl Upload for MemoryUpload {
    fn received(&self) -> u64 {
        self.bytes.borrow().len() as u64
    }

    fn write(&mut self, offset: u64, bytes: Vec<u8>) -> Answer<'_, u64> {
        assert_eq!(offset, self.received());
        self.bytes.borrow_mut().extend(bytes);
        let received = self.received();
        async move { Ok(received) }.boxed_local()
    }

    fn finish(&mut self) -> Answer<'_, ()> {
        let right = Artifact::of(&self.bytes.borrow()) == self.artifact;
        async move {
            let wrong = || RpcError::new(ErrorCode::Invalid, "other bytes than announced");
            right.then_some(()).ok_or_else(wrong)
        }
        .boxed_local()
    }
}

/// A served node with a client connected to it.
pub(crate) struct Scene {
    pub(crate) node: Rc<Node>,
    pub(crate) client: Client,
    pub(crate) served: JoinHandle<Result<(), ServeError>>,
}

pub(crate) fn node() -> Rc<Node> {
    Rc::new(Node {
        control: Rc::default(),
        epoch: watch::Sender::new(3),
    })
}

pub(crate) fn scene(limits: Limits) -> Scene {
    connected(node(), limits)
}

/// One more connection to `node`.
pub(crate) fn connected(node: Rc<Node>, limits: Limits) -> Scene {
    let (near, far) = tokio::io::duplex(64 * 1024);
    let served = tokio::task::spawn_local(serve(far.compat(), node.clone(), limits));
    let client = connect(near.compat(), Limits::default());
    Scene {
        node,
        client,
        served,
    }
}

impl Scene {
    pub(crate) async fn operator(&self) -> realm_rpc::Operator {
        let graft = self
            .client
            .graft(owner(), node_key(), Some(realm()))
            .await
            .unwrap();
        graft.operator.unwrap()
    }
}

/// Runs a test on one thread, and not for ever.
pub(crate) fn run(test: impl Future<Output = ()>) {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    runtime.block_on(LocalSet::new().run_until(async {
        tokio::time::timeout(Duration::from_secs(30), test)
            .await
            .unwrap();
    }));
}

//! A node of the owner's that lies about the others: it speaks the protocol, and signs nothing for them.

use std::{
    rc::Rc,
    sync::{Arc, mpsc},
    thread::JoinHandle,
};

use futures::{FutureExt as _, future::LocalBoxFuture};
use realm_identity::{Artifact, Message as _, PublicKey, RealmId, SecretKey, Signed, format};
use realm_manifest::report::{CellState, NodeReport};
use realm_p2p::{Network, RpcServe, Services, Stream};
use realm_rpc::{
    Control, ErrorCode, EventSink, Fork, Head, HeadId, Host, Intent, Limits, LogQuery, LogSink,
    Operator, PendingNode, PublicInfo, RpcError, Sighting, Submitted, Survey, SurveySink, Upload,
};
use realm_testkit::Cluster;
use serde_json::Value;
use tokio::sync::oneshot;

use crate::{
    cluster, guest,
    picture::{cells_on, component, node},
};

/// What a real node told, as the liar tells it.
#[derive(Debug, Clone)]
pub struct Told {
    head: Head,
    pub survey: Survey,
    realm: RealmId,
    owner: PublicKey,
    me: PublicKey,
}

/// A liar on a thread of its own; dropping it stops it.
pub struct Liar {
    pub address: String,
    stop: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

struct Server(Arc<Told>);

#[derive(Clone)]
struct Teller(Arc<Told>);

type Answer<'a, T> = LocalBoxFuture<'a, Result<T, RpcError>>;

impl Liar {
    fn start(told: Told, key: SecretKey) -> Self {
        Self::at("/ip4/127.0.0.1/tcp/0", told, key)
    }

    pub fn at(listen: &str, told: Told, key: SecretKey) -> Self {
        let listen = listen.to_owned();
        let (say, address) = mpsc::channel();
        let (stop, stopped) = oneshot::channel();
        let thread = std::thread::spawn(move || {
            runtime().block_on(async {
                let mut config = realm_p2p::Config::new(key);
                config.listen = vec![listen];
                let told = Arc::new(told);
                let services = Services {
                    rpc: Some(Box::new(|| Rc::new(Server(told)) as Rc<dyn RpcServe>)),
                    ..Services::default()
                };
                let (handle, mut events) = Network::start(config, services).await.unwrap();
                let at = handle.listen_addresses().await.unwrap();
                say.send(at[0].clone()).unwrap();
                let drain = async { while events.recv().await.is_some() {} };
                tokio::select! {
                    // Either way it is over.
                    _ = stopped => {}
                    () = drain => {}
                }
                handle.shutdown().await;
            });
        });
        Self {
            address: address.recv().unwrap(),
            stop: Some(stop),
            thread: Some(thread),
        }
    }
}

impl Drop for Liar {
    fn drop(&mut self) {
        if let (Some(stop), Some(thread)) = (self.stop.take(), self.thread.take()) {
            // It may have ended already; a panic of its own was printed by its thread.
            let _ = stop.send(());
            let _ = thread.join();
        }
    }
}

impl RpcServe for Server {
    fn serve(&self, _: PublicKey, stream: Stream) -> LocalBoxFuture<'static, ()> {
        let host: Rc<dyn Host> = Rc::new(Teller(self.0.clone()));
        // How a connection ends is the caller's to see.
        async move { drop(realm_rpc::serve(stream, host, Limits::default()).await) }.boxed_local()
    }
}

impl Host for Teller {
    fn info(&self) -> PublicInfo {
        PublicInfo {
            node: self.0.me,
            version: "realm/0".into(),
            realm: Some(self.0.realm),
            name: Some("liar".into()),
        }
    }

    fn realm(&self) -> Option<RealmId> {
        Some(self.0.realm)
    }

    fn epoch(&self) -> u64 {
        0
    }

    fn epoch_ended(&self, _: u64) -> LocalBoxFuture<'_, ()> {
        std::future::pending().boxed_local()
    }

    fn authorise(&self, key: PublicKey) -> Answer<'_, Option<Rc<dyn Control>>> {
        let control = Rc::new(self.clone()) as Rc<dyn Control>;
        answer(Ok((key == self.0.owner).then_some(control)))
    }
}

impl Control for Teller {
    fn head(&self) -> Answer<'_, Head> {
        answer(Ok(self.0.head.clone()))
    }

    fn survey(&self) -> Answer<'_, Survey> {
        answer(Ok(self.0.survey.clone()))
    }

    fn heads(&self) -> Answer<'_, Vec<HeadId>> {
        answer(Ok(vec![self.0.survey.head]))
    }

    fn submit(&self, _: Vec<u8>, _: Vec<u8>) -> Answer<'_, Submitted> {
        answer(silent())
    }

    fn watch(&self, _: SurveySink) -> Answer<'_, ()> {
        answer(silent())
    }

    fn logs(&self, _: LogQuery, _: LogSink) -> Answer<'_, ()> {
        answer(silent())
    }

    fn events(&self, _: u64, _: bool, _: EventSink) -> Answer<'_, ()> {
        answer(silent())
    }

    fn history(&self, _: u64, _: u64, _: usize) -> Answer<'_, Vec<Intent>> {
        answer(silent())
    }

    fn forks(&self) -> Answer<'_, Vec<Fork>> {
        answer(silent())
    }

    fn upload(&self, _: Artifact) -> Answer<'_, Box<dyn Upload>> {
        answer(silent())
    }

    fn claim(&self, _: Vec<u8>) -> Answer<'_, Vec<u8>> {
        answer(silent())
    }

    fn pending(&self) -> Answer<'_, Vec<PendingNode>> {
        answer(silent())
    }

    fn peer_add(&self, _: String) -> Answer<'_, ()> {
        answer(silent())
    }

    fn adopt(&self, _: Vec<u8>) -> Answer<'_, ()> {
        answer(silent())
    }

    fn standing(&self) -> Answer<'_, Vec<Vec<u8>>> {
        answer(silent())
    }
}

fn answer<'a, T: 'a>(answer: Result<T, RpcError>) -> Answer<'a, T> {
    async { answer }.boxed_local()
}

fn silent<T>() -> Result<T, RpcError> {
    Err(RpcError::new(ErrorCode::Unsupported, "not told"))
}

pub fn runtime() -> tokio::runtime::Runtime {
    realm_p2p::install_crypto_provider();
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap()
}

pub fn owner(realm: &Cluster) -> SecretKey {
    let text = std::fs::read_to_string(realm.path().join("config/owner.key")).unwrap();
    format::read_secret(&text, None).unwrap()
}

/// What the node at `address` tells the realm's owner.
pub fn listen_to(realm: &Cluster, address: &str, me: PublicKey) -> Told {
    as_owner(realm, address, async |owner, realm, operator| Told {
        head: operator.head().await.unwrap(),
        survey: operator.survey().await.unwrap(),
        realm,
        owner: owner.public(),
        me,
    })
}

/// Asks the node at `address` with the realm's owner key, without the checks of the command line.
pub fn as_owner<T>(
    realm: &Cluster,
    address: &str,
    ask: impl AsyncFnOnce(&SecretKey, RealmId, Operator) -> T,
) -> T {
    let owner = Rc::new(owner(realm));
    let local = tokio::task::LocalSet::new();
    local.block_on(&runtime(), async {
        let guest = SecretKey::from_seed(&[77; 32]);
        let at = [address.to_owned()];
        let dialled = realm_p2p::dial_rpc(&at, None, &guest, realm_testkit::PATIENCE).await;
        let mut transport = dialled.unwrap();
        let client = realm_rpc::connect(transport.stream.take().unwrap(), Limits::default());
        let graft = client.graft(owner.clone(), transport.peer, None).await;
        let graft = graft.unwrap();
        ask(&owner, graft.info.realm.unwrap(), graft.operator.unwrap()).await
    })
}

/// The report with its cells failed, under the signature that it had.
fn forged(wire: &[u8]) -> Vec<u8> {
    let mut report = Signed::<NodeReport>::from_wire(wire).unwrap().into_inner();
    assert!(!report.cells.is_empty());
    for cell in &mut report.cells {
        cell.state = CellState::Failed;
    }
    let mut forged = minicbor::Encoder::new(Vec::new());
    forged.array(2).unwrap();
    forged.bytes(&report.to_bytes()).unwrap();
    forged.bytes(&wire[wire.len() - 64..]).unwrap();
    forged.into_writer()
}

#[test]
fn a_node_cannot_speak_for_another_one() {
    let mut realm = cluster();
    for name in ["one", "two"] {
        realm.add_node(name, &[]);
    }
    realm.wait_ready("one");
    let one = realm.address("one");
    let ticker = guest("ticker.wasm");
    realm.ok(&["push", "ticker", &ticker, "--wait", "--via", &one]);
    let status = realm.wait_status("one", "two cells", |status| {
        component(status, "ticker")["running"] == 2
    });
    let key = |name: &str| -> PublicKey {
        let key = node(&status, name)["key"].as_str().unwrap();
        key.parse().unwrap()
    };
    let liar = SecretKey::from_seed(&[66; 32]);
    let told = listen_to(&realm, &one, liar.public());
    let says = |told: Told| {
        let liar = Liar::start(told, liar.clone());
        realm.run(&[
            "status",
            "--exit-code",
            "-o",
            "json",
            "--via",
            &liar.address,
        ])
    };
    let read = |printed: &str| -> Value { serde_json::from_str(printed).unwrap() };

    // What others told it, it can tell.
    let honest = says(told.clone());
    assert_eq!(honest.code, 0, "{}{}", honest.stdout, honest.stderr);
    assert_eq!(component(&read(&honest.stdout), "ticker")["running"], 2);
    assert!(!honest.stderr.contains("signed"), "{}", honest.stderr);

    let two = &told.survey.nodes[&key("two")];
    let others = told.survey.nodes[&key("one")].report.clone();
    let lies = [
        Some(forged(two.report.as_deref().unwrap()).into()),
        others,
        Some(b"what two says"[..].into()),
    ];
    for lie in lies {
        let mut told = told.clone();
        let sighting = Sighting {
            report: lie,
            ..two.clone()
        };
        told.survey.nodes.insert(key("two"), sighting);
        // It would like to be a node of the realm, too.
        let me = Sighting {
            claims: two.claims.clone(),
            ..Sighting::default()
        };
        told.survey.nodes.insert(liar.public(), me);
        let caught = says(told);
        assert_eq!(caught.code, 3, "{}{}", caught.stdout, caught.stderr);
        let warned = caught.stderr.lines().any(|line| {
            line.contains("the word of two is not signed by it") && line.contains("--via")
        });
        assert!(warned, "{}", caught.stderr);
        let status = read(&caught.stdout);
        let ticker = component(&status, "ticker");
        assert_eq!(cells_on(ticker), ["one"], "one's own word counts");
        assert_eq!(ticker["cells"].as_array().unwrap().len(), 1);
        assert_eq!(node(&status, "two")["cell_count"], Value::Null);
        assert_eq!(status["drift"][0]["node"], "two");
        assert_eq!(status["drift"][0]["reason"]["code"], "unsigned");
        let nodes = status["nodes"].as_array().unwrap();
        let me = nodes
            .iter()
            .find(|node| node["key"] == liar.public().to_string());
        assert_eq!(me.unwrap()["state"], "pending");
    }
}

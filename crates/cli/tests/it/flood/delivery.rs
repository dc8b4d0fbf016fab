//! How long an intent takes from the command that submits it at one node until another node has it on disk.

use std::{
    rc::Rc,
    time::{Duration, Instant},
};

use realm_identity::{Hash, SecretKey, Signed, Target, Timestamp};
use realm_manifest::payload::{Payload, Scale};
use realm_p2p::RpcConnection;
use realm_planner::{State, fold, next_entry};
use realm_rpc::{Limits, Operator};
use realm_testkit::Cluster;
use tokio::{runtime::Runtime, task::LocalSet, time::timeout};

use super::scene::STILL;
use crate::liar::{owner, runtime};

/// Longer than any delivery; reached only by a failure.
const PATIENCE: Duration = Duration::from_secs(30);

/// Between two looks at whether something else is done.
const LOOK: Duration = Duration::from_millis(50);

/// An owner with a connection to two nodes, who signs one intent after the other.
pub struct Deliveries {
    runtime: Runtime,
    local: LocalSet,
    owner: Rc<SecretKey>,
    from: Session,
    to: Session,
    state: State,
    head: Hash,
}

struct Session {
    operator: Operator,
    _transport: RpcConnection,
}

impl Deliveries {
    pub fn new(realm: &Cluster, from: &str, to: &str) -> Self {
        let (runtime, local) = (runtime(), LocalSet::new());
        let owner = Rc::new(owner(realm));
        let (from, to) = (realm.address(from), realm.address(to));
        let (from, to, state, head) = local.block_on(&runtime, async {
            let from = Session::open(&owner, &from, 77).await;
            let to = Session::open(&owner, &to, 78).await;
            let (state, head) = from.state().await;
            (from, to, state, head)
        });
        Self {
            runtime,
            local,
            owner,
            from,
            to,
            state,
            head,
        }
    }

    /// Signs and submits one intent; answers once the other node has it.
    pub fn deliver(&mut self) -> Duration {
        let replicas = 1 + (self.state.revision % 7) as u32;
        let payload = Payload::Scale(Scale {
            replicas: Some(replicas),
            note: None,
        });
        let target = Target::Component(STILL.to_owned());
        let entry = next_entry(
            &self.state,
            self.head,
            self.owner.public(),
            target,
            &payload,
            Timestamp(jiff::Timestamp::now().as_millisecond() as u64),
        );
        let Ok(signed) = Signed::sign(entry, &*self.owner);
        let (wire, payload) = (signed.to_wire(), payload.encode());
        let (from, to, seq) = (&self.from.operator, &self.to.operator, signed.seq);
        let took = self.local.block_on(&self.runtime, async {
            let began = Instant::now();
            let submit = async { from.submit(&wire, &payload).await.expect("is taken") };
            let arrive = async {
                loop {
                    let heads = to.heads().await.expect("tells its heads");
                    if heads.iter().any(|head| head.seq >= seq) {
                        return began.elapsed();
                    }
                }
            };
            let both = async { futures::join!(submit, arrive).1 };
            timeout(PATIENCE, both)
                .await
                .unwrap_or_else(|_| panic!("revision {seq} did not arrive in {PATIENCE:?}"))
        });
        self.state = fold::apply(&self.state, &signed, &payload).unwrap();
        self.head = signed.hash();
        took
    }

    /// Begins anew from what the node has, which others may have written to.
    pub fn refresh(&mut self, revision: u64) {
        let state = async {
            loop {
                let (state, head) = self.from.state().await;
                if state.revision >= revision {
                    return (state, head);
                }
            }
        };
        let within = async { timeout(PATIENCE, state).await.expect("catches up") };
        (self.state, self.head) = self.local.block_on(&self.runtime, within);
    }

    /// Lets the connections go on until `done`.
    pub fn rest_until(&self, done: impl Fn() -> bool) {
        while !done() {
            self.rest(Instant::now() + LOOK);
        }
    }

    pub const fn revision(&self) -> u64 {
        self.state.revision
    }

    /// Delivers one after the other for so long, at most one in each `pause`.
    pub fn during(&mut self, time: Duration, pause: Duration) -> Latencies {
        let began = Instant::now();
        let mut took = Vec::new();
        while began.elapsed() < time {
            let next = Instant::now() + pause;
            took.push(self.deliver());
            self.rest(next);
        }
        Latencies::of(took)
    }

    /// Lets the connections go on until then.
    fn rest(&self, until: Instant) {
        let until = tokio::time::Instant::from_std(until);
        let rest = async { tokio::time::sleep_until(until).await };
        self.local.block_on(&self.runtime, rest);
    }
}

impl Session {
    async fn open(owner: &Rc<SecretKey>, address: &str, seed: u8) -> Self {
        let guest = SecretKey::from_seed(&[seed; 32]);
        let at = [address.to_owned()];
        let mut transport = realm_p2p::dial_rpc(&at, None, &guest, PATIENCE)
            .await
            .unwrap();
        let client = realm_rpc::connect(transport.stream.take().unwrap(), Limits::default());
        let graft = client.graft(owner.clone(), transport.peer, None).await;
        Self {
            operator: graft.unwrap().operator.unwrap(),
            _transport: transport,
        }
    }

    /// What follows from the newest entry of the log.
    async fn state(&self) -> (State, Hash) {
        let head = self.operator.head().await.unwrap();
        let entry = Signed::<realm_identity::Entry>::from_wire(&head.entry).unwrap();
        let before = State::decode(&head.parent_state).unwrap();
        let state = fold::apply(&before, &entry, &head.payload).unwrap();
        (state, entry.hash())
    }
}

/// Times of deliveries, in order of length.
#[derive(Debug, Clone)]
pub struct Latencies(Vec<Duration>);

impl Latencies {
    fn of(mut took: Vec<Duration>) -> Self {
        took.sort();
        Self(took)
    }

    pub fn count(&self) -> usize {
        self.0.len()
    }

    pub fn percentile(&self, percent: usize) -> Duration {
        let at = (self.0.len() * percent).div_ceil(100).max(1) - 1;
        self.0[at]
    }

    pub fn with(self, other: Self) -> Self {
        Self::of([self.0, other.0].concat())
    }
}

impl std::fmt::Display for Latencies {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let ms = |percent| self.percentile(percent).as_secs_f64() * 1000.0;
        let (count, p50, p99, max) = (self.count(), ms(50), ms(99), ms(100));
        write!(
            f,
            "{count} deliveries, p50 {p50:.1} ms, p99 {p99:.1} ms, longest {max:.1} ms"
        )
    }
}

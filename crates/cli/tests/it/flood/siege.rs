//! Foes on threads of their own, and how much they did.

use std::{
    net::{Ipv4Addr, SocketAddr},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use realm_identity::SecretKey;
use realm_testkit::Host;
use tokio::runtime::Runtime;

use super::{
    foe::{Foe, Refused},
    lies, member, rumours,
    scene::Target,
    strangers, web,
};

/// Foes have machines of their own; here they share the processor, and leave it to whom they attack.
const NICE: i32 = 15;
/// For the foes' tasks to end.
const STOP: Duration = Duration::from_secs(10);
/// Between two tries of a foe that is refused: each costs it a handshake.
const AGAIN: Duration = Duration::from_millis(5);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Attack {
    HalfOpen,
    Churn,
    Crowd,
    Sybils,
    Calls,
    Datagrams,
    MemberFrames,
    MemberGossip,
    MemberGreed,
    Lies,
    Rumours,
    Web,
}

impl Attack {
    pub const STRANGERS: [Self; 7] = [
        Self::HalfOpen,
        Self::Churn,
        Self::Crowd,
        Self::Sybils,
        Self::Calls,
        Self::Datagrams,
        Self::Web,
    ];
    pub const MEMBER: [Self; 4] = [
        Self::MemberFrames,
        Self::MemberGossip,
        Self::MemberGreed,
        Self::Rumours,
    ];
    pub const ALL: [Self; 12] = [
        Self::HalfOpen,
        Self::Churn,
        Self::Crowd,
        Self::Sybils,
        Self::Calls,
        Self::Datagrams,
        Self::Web,
        Self::MemberFrames,
        Self::MemberGossip,
        Self::MemberGreed,
        Self::Lies,
        Self::Rumours,
    ];

    /// Whether nobody can be blamed: for datagrams that begin no connection, for what could be so, and for what a user
    /// of this machine may do.
    pub const fn is_no_offence(self, is_here: bool) -> bool {
        let here = matches!(self, Self::HalfOpen | Self::Churn | Self::Web);
        matches!(self, Self::Datagrams | Self::Rumours) || (is_here && here)
    }

    /// How many foes do it at once.
    const fn foes(self) -> usize {
        match self {
            Self::HalfOpen => 200,
            Self::Churn | Self::Calls => 16,
            Self::Crowd => 128,
            Self::Sybils => 60,
            Self::Datagrams
            | Self::MemberFrames
            | Self::MemberGossip
            | Self::MemberGreed
            | Self::Lies
            | Self::Rumours => 1,
            Self::Web => 200,
        }
    }
}

/// What the foes of one attack share.
#[derive(Debug)]
pub struct Blows {
    pub target: Target,
    count: AtomicU64,
}

impl Blows {
    pub fn count(&self) {
        self.count.fetch_add(1, Ordering::Relaxed);
    }

    /// A connection under this key, from one of the foes' addresses.
    pub async fn connect(&self, secret: SecretKey, from: Option<Ipv4Addr>) -> Result<Foe, Refused> {
        let target = &self.target;
        let connected = Foe::connect(&target.address, secret, target.realm, from).await;
        if connected.is_err() {
            tokio::time::sleep(AGAIN).await;
        }
        connected
    }

    /// Under the key of one of the members.
    pub async fn member(&self, which: usize) -> Result<Foe, Refused> {
        let member = self.target.members[which].clone();
        self.connect(member, None).await
    }
}

/// Attacks under way; they end with it.
pub struct Siege {
    runtime: Option<Runtime>,
    attacks: Vec<(Attack, Arc<Blows>)>,
}

impl Siege {
    pub fn lay(target: &Target, attacks: &[Attack]) -> Self {
        let host = target.host.clone();
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(2)
            .on_thread_start(move || {
                host.iter().for_each(Host::enter);
                // Of this thread alone. One that is not allowed attacks with more strength.
                let _ = rustix::process::nice(NICE);
            })
            .enable_all()
            .build()
            .unwrap();
        let mut laid = Vec::new();
        for attack in attacks.iter().copied() {
            let blows = Arc::new(Blows {
                target: target.clone(),
                count: AtomicU64::new(0),
            });
            for number in 0..attack.foes() {
                let blows = blows.clone();
                drop(runtime.spawn(async move { attack.run(blows, number).await }));
            }
            laid.push((attack, blows));
        }
        Self {
            runtime: Some(runtime),
            attacks: laid,
        }
    }

    /// How much was done of each.
    pub fn blows(&self) -> impl Iterator<Item = (Attack, u64)> {
        let count = |blows: &Blows| blows.count.load(Ordering::Relaxed);
        self.attacks
            .iter()
            .map(move |(attack, blows)| (*attack, count(blows)))
    }
}

impl Attack {
    async fn run(self, blows: Arc<Blows>, number: usize) {
        match self {
            Self::HalfOpen => strangers::half_open(blows).await,
            Self::Churn => strangers::churn(blows).await,
            Self::Crowd => strangers::crowd(blows, number).await,
            Self::Sybils => strangers::sybil(blows, number).await,
            Self::Calls => strangers::calls(blows, number).await,
            Self::Datagrams => strangers::datagrams(blows).await,
            Self::MemberFrames => member::frames(blows).await,
            Self::MemberGossip => member::gossip(blows).await,
            Self::MemberGreed => member::greed(blows).await,
            Self::Lies => lies::about_programs(blows).await,
            Self::Rumours => rumours::of_a_node(blows).await,
            Self::Web => web::clients(blows, number).await,
        }
    }
}

impl Drop for Siege {
    fn drop(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_timeout(STOP);
        }
    }
}

impl Target {
    pub fn tcp(&self) -> SocketAddr {
        let mut parts = self.address.split('/');
        let (ip, port) = (parts.nth(2).unwrap(), parts.nth(1).unwrap());
        SocketAddr::new(ip.parse().unwrap(), port.parse().unwrap())
    }
}

//! The one task that owns the realm's state on this node: events in, effects out.
//!
//! It drives the protocol's state machine, folds what the log says, plans, and hands steps to
//! the supervisor. It never waits for a cell, a peer or the log's disk: those answer as events. The network shares
//! its thread, so what it does for itself is short; small files that it writes seldom are the exception.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    sync::Arc,
};

use realm_identity::{PublicKey, RealmId, SecretKey, Timestamp, WitnessedClaim};
use realm_manifest::report::Reason;
use realm_p2p::{NetworkEvent, NetworkHandle};
use realm_planner::State;
use realm_protocol::{Event, Halt, Node, Now, Token};
use realm_rpc::Submitted;
use realm_store::{Blobs, Op};
use tokio::{
    sync::{mpsc, watch},
    task::JoinSet,
};
use tokio_util::sync::CancellationToken;

use crate::{
    approvals::{Approval, Checked, served},
    clock::Clock,
    events::Events,
    fold::PlannerFold,
    ledger::{LedgerTask, Written},
    offenders::Offenders,
    presence::Presence,
    report::Reporter,
    supervisor::Supervisor,
    trust::Trust,
    twins::Twins,
};

mod changes;
mod commands;
mod dials;
mod effects;
mod health;
mod joining;
mod later_start;
mod names;
mod network;
mod placement;
mod relays;
mod seen;
mod told;
mod vouching;

pub use commands::Command;
pub(crate) use later_start::LaterStart;
pub(crate) use seen::Seen;
pub(crate) use vouching::Vouching;

/// How often the node looks at itself when nothing happens.
const HOUSEKEEPING_MS: u64 = 1_000;
/// In a large realm, or on a machine that is full, news come faster than plans can be made: after one, other
/// work has so many times what it took, in milliseconds up to the second number.
const REST_OF_PLANNING: u64 = 4;
const REST_MAX_MS: u64 = 200;

/// What others may read at any time, without asking the core.
#[derive(Debug, Clone, Default)]
pub struct View {
    pub realm: Option<RealmId>,
    pub realm_name: Option<String>,
    /// The owner, then earlier ones, each with the revision that ended its time.
    pub owners: Vec<(PublicKey, Option<u64>)>,
    /// Whether a key that proves itself may become the owner now.
    pub window: bool,
    pub pinned: Option<PublicKey>,
    pub name: String,
    /// Rises whenever authority that was given out ends.
    pub epoch: u64,
    pub approved: std::collections::HashSet<PublicKey>,
}

/// Everything the core is made of.
pub(crate) struct Core {
    pub key: SecretKey,
    /// The certificate of the node's sealing key, as on the wire.
    pub sealing: Vec<u8>,
    pub clock: Clock,
    pub node: Node<PlannerFold>,
    pub network: NetworkHandle,
    pub ledger: LedgerTask,
    pub trust: Trust,
    pub blobs: Arc<Blobs>,
    pub supervisor: Supervisor,
    pub reporter: Reporter,
    pub events: Events,
    pub view: watch::Sender<View>,
    pub sources: watch::Sender<Vec<PublicKey>>,
    pub readiness: watch::Sender<Option<String>>,
    pub peers_file: realm_store::StateFile,
    pub boot_file: realm_store::StateFile,
    pub later_start: LaterStart,
    pub agent_file: crate::agent_file::AgentFile,
    /// How many addresses that file names; None before it was written.
    pub announced: watch::Sender<Option<usize>>,
    /// The folded state; None before there is a realm.
    pub state: Option<State>,
    pub claims: Vec<WitnessedClaim>,
    /// What was found of them.
    pub checked: Checked,
    pub approved: BTreeMap<PublicKey, Approval>,
    pub reports: BTreeMap<PublicKey, Seen>,
    pub submits: HashMap<Token, commands::Reply<Submitted>>,
    /// Who waits for a witnessed claim, with the node it is about.
    pub claimants: Vec<(PublicKey, commands::Reply<Vec<u8>>)>,
    pub vouching: Vouching,
    /// Who waits until the realm that was brought is on disk.
    pub adopters: Vec<commands::Reply<()>>,
    pub pending_since: BTreeMap<PublicKey, Timestamp>,
    pub offenders: Offenders,
    pub presence: Presence,
    pub twins: Twins,
    /// As they were last told.
    pub alarms_told: Vec<realm_rpc::status::Alarm>,
    /// Nodes whose claim was refused: told once.
    pub refused_claims: BTreeSet<PublicKey>,
    pub forked: bool,
    pub incompatible: Option<String>,
    pub addresses: Vec<String>,
    /// Whether the owner is asked to let this node in.
    pub asked_to_join: bool,
    /// Whether it is settled that this node begins the realm, or does not, by the addresses that it has now.
    pub begun: bool,
    /// Nodes that the local network told of.
    pub neighbours: BTreeSet<PublicKey>,
    /// Whether nodes of the local network are looked for.
    pub mdns: bool,
    /// Whether peers found that this node is reached from outside; none has tried yet, otherwise.
    pub reached: Option<bool>,
    /// When each peer was asked to relay, on the monotonic clock.
    pub relays_asked: BTreeMap<PublicKey, u64>,
    pub saved_peers: Vec<String>,
    pub dials: JoinSet<()>,
    /// What is done to files beside the core: a slow disk would hold up the network, too.
    pub writes: JoinSet<()>,
    /// Pulls may have lost their purpose.
    pub loosened: bool,
    pub next_token: Token,
    pub started_mono: u64,
    /// Since when this node is one of the realm; its start where it was before.
    pub member_since: u64,
    /// What keeps this node from doing its part.
    pub problems: Vec<Reason>,
    /// Something that placement depends on has changed.
    pub replan: bool,
    /// Claims came since who is approved was computed.
    pub claims_came: bool,
}

/// How the core ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum End {
    Stopped,
    /// The agent is to start again at once: others remember a later start than this one.
    Again,
}

/// Where the core's events come from.
pub(crate) struct Inputs {
    pub network: mpsc::Receiver<NetworkEvent>,
    pub written: mpsc::Receiver<Written>,
    pub commands: mpsc::Receiver<Command>,
    pub cells: watch::Receiver<u64>,
    pub cancel: CancellationToken,
}

/// One thing that happened.
enum Input {
    Network(NetworkEvent),
    Written(Written),
    Command(Command),
    Cells,
    Tick,
    Stop,
}

impl Core {
    /// Runs until it is cancelled, the network is gone, or it has to start again; then stops everything
    /// in order.
    pub async fn run(mut self, mut inputs: Inputs) -> End {
        self.begin().await;
        let (mut housekeeping, mut plan_due) = (0, 0);
        loop {
            let now = self.clock.now();
            if now.mono >= housekeeping {
                housekeeping = now.mono + HOUSEKEEPING_MS;
                self.housekeep().await;
            }
            let due = self.node.next_timeout().min(housekeeping);
            let due = self.presence.next().map_or(due, |next| due.min(next));
            let due = self.vouching.next().map_or(due, |next| due.min(next));
            let due = if self.replan { due.min(plan_due) } else { due };
            let due = self.clock.at(due);
            let input = tokio::select! {
                () = inputs.cancel.cancelled() => Input::Stop,
                Some(written) = inputs.written.recv() => Input::Written(written),
                event = inputs.network.recv() => event.map_or(Input::Stop, Input::Network),
                Some(command) = inputs.commands.recv() => Input::Command(command),
                Ok(()) = inputs.cells.changed() => Input::Cells,
                Some(_) = self.dials.join_next() => continue,
                () = tokio::time::sleep_until(due) => Input::Tick,
            };
            if matches!(input, Input::Stop) {
                break;
            }
            self.take(input).await;
            if self.step_over_later_start() {
                self.stop(inputs).await;
                return End::Again;
            }
            self.carry_out().await;
            let began = self.clock.now().mono;
            if self.replan && began >= plan_due {
                self.replan = false;
                self.plan();
                let ended = self.clock.now().mono;
                let rest = (ended - began).saturating_mul(REST_OF_PLANNING);
                plan_due = ended.saturating_add(rest.min(REST_MAX_MS));
            }
        }
        self.stop(inputs).await;
        End::Stopped
    }

    async fn take(&mut self, input: Input) {
        let now = self.clock.now();
        match input {
            Input::Network(event) => self.network_event(event, now).await,
            Input::Written(written) => self.written(written, now),
            Input::Command(command) => self.command(command, now).await,
            Input::Cells => {
                self.report(false).await;
                self.replan = true;
            }
            Input::Tick => {
                self.node.handle(Event::Tick, now);
                self.vouch_late(now);
                self.replan |= self.presence.take_due(now.mono);
            }
            Input::Stop => {}
        }
    }

    async fn begin(&mut self) {
        let now = self.clock.now();
        if let Some(log) = self.node.log() {
            self.state = State::decode(&log.head().state).ok();
            let halt = log.halt().cloned();
            self.pin_artifacts();
            match halt {
                Some(Halt::Forked { .. }) => self.forked = true,
                Some(Halt::Incompatible { seq, reason }) => self.behind(seq, reason, now),
                None => {}
            }
        }
        self.supervisor.forget_lines(self.state.as_ref(), now.wall);
        let me = self.key.public();
        self.supervisor.doubt_ends(self.state.as_ref(), &me);
        self.claims = self.node.claims().cloned().collect();
        // Those were approved before this start: no news.
        self.approved = self.approved_now();
        self.tell_start(now);
        self.raise_floor(now);
        let known: Vec<_> = self
            .reports
            .iter()
            .map(|(key, seen)| (*key, seen.report.addresses.clone()))
            .collect();
        for (key, addresses) in known {
            self.learn_addresses(key, &addresses).await;
            self.connect(key);
        }
        // The agent may have ended between the log and the pin.
        self.follow_owner(now);
        self.approve(now).await;
        self.take_up_invite(now);
        self.ask_to_join(now);
        self.report(true).await;
        self.carry_out().await;
        self.plan();
    }

    pub(crate) fn realm(&self) -> Option<RealmId> {
        self.state.as_ref().map(|state| state.realm)
    }

    pub(crate) async fn publish_view(&mut self) {
        let pin = self.trust.pin();
        let me = self.key.public();
        let name = self.node_name(&me);
        let approved = served(&self.approved, self.node.is_caught_up());
        let owners = self.state.as_ref().map(owners).unwrap_or_default();
        let realm = self.realm();
        let window =
            matches!(pin, realm_identity::OwnerPin::Window { until } if until >= self.trust.now());
        let mut ended = false;
        self.view.send_modify(|view| {
            ended = view.owners.first() != owners.first()
                || view.approved.iter().any(|key| !approved.contains(key));
            view.epoch += u64::from(ended);
            view.realm = realm;
            view.realm_name = self.state.as_ref().map(|state| state.name.clone());
            view.owners = owners;
            view.window = window;
            view.pinned = pin.owner();
            view.name = name;
            view.approved = approved;
        });
        if ended && self.network.dismiss_guests().await.is_err() {
            tracing::warn!("the network has stopped");
        }
        let reason = self.unready();
        let changed = self
            .readiness
            .send_if_modified(|now| std::mem::replace(now, reason.clone()) != reason);
        if changed && self.is_revoked(&me) {
            let (now, name) = (self.clock.now(), self.node_name(&me));
            self.events
                .record(now.wall, "revoked", name, reason.unwrap_or_default());
        }
        // Commands on this machine have places of their own where they come over its loopback.
        let mut addresses = self.addresses.clone();
        addresses.sort_by_cached_key(|at| !realm_p2p::is_here_only(at));
        let count = addresses.len();
        self.agent_file.write(addresses, realm, self.reached);
        self.announced.send_replace(Some(count));
    }

    async fn publish_sources(&mut self) {
        let me = self.key.public();
        let connected: Vec<PublicKey> = self
            .node
            .connected()
            .filter(|peer| *peer != me && self.approved.contains_key(peer))
            .collect();
        self.sources
            .send_if_modified(|now| std::mem::replace(now, connected.clone()) != connected);
    }

    /// Signs a new report if there is something new to say, or `anyway`.
    async fn report(&mut self, anyway: bool) {
        let Some(realm) = self.realm() else { return };
        let now = self.clock.now();
        let head = self.node.durable_head();
        let facts = crate::report::Facts {
            realm,
            revision: head.seq,
            head: head.hash,
            approved: self.approved.contains_key(&self.key.public()),
            nodes: self.approved.len(),
            incompatible: self.incompatible.is_some(),
            addresses: self.addresses.clone(),
            cells: self.supervisor.reports(),
            declined: self.supervisor.declined(),
            holds: self.supervisor.holds(),
            sealing: self.sealing.clone(),
            problems: self.problems.clone(),
        };
        if let Some((report, digest)) = self.reporter.make(&self.key, facts, now.wall, anyway) {
            let wire = report.to_wire();
            let seen = Seen::new(report, now.wall);
            self.reports.insert(self.key.public(), seen);
            self.node.handle(
                Event::OwnReport {
                    report: wire,
                    digest,
                },
                now,
            );
        }
    }

    fn written(&mut self, written: Written, now: Now) {
        let Some(token) = written.token else { return };
        let event = if written.durable {
            Event::Persisted { token }
        } else {
            Event::PersistFailed { token }
        };
        self.node.handle(event, now);
    }

    /// No new work, then the cells, then the disk.
    async fn stop(mut self, mut inputs: Inputs) {
        inputs.commands.close();
        let reports: Vec<Op> = self
            .reports
            .iter()
            .map(|(key, seen)| seen.op(key))
            .collect();
        self.supervisor.shutdown().await;
        // Else an older floor could be written after the newest one.
        while self.writes.join_next().await.is_some() {}
        if let Some(write) = self.trust.floor.unwritten() {
            self.writes.spawn_blocking(move || write.keep());
            while self.writes.join_next().await.is_some() {}
        }
        self.ledger.commit(None, reports).await;
        // Whoever writes the results of the last batches must not wait for us.
        let drain = tokio::spawn(async move { while inputs.written.recv().await.is_some() {} });
        let mut ledger = self.ledger;
        let closed = tokio::task::spawn_blocking(move || ledger.close()).await;
        if closed.is_err() || drain.await.is_err() {
            tracing::error!("the ledger did not close in order");
        }
        self.dials.shutdown().await;
        self.agent_file.remove();
    }
}

/// The owner, then earlier ones, each with the revision that ended its time.
fn owners(state: &State) -> Vec<(PublicKey, Option<u64>)> {
    let past = state.past_owners.iter();
    std::iter::once((state.owner, None))
        .chain(past.map(|(key, ended)| (*key, Some(*ended))))
        .collect()
}

//! Reaches a node that nobody reaches but relays of its realm: encrypted up to the node itself, so that
//! a relay reads nothing and can say nothing in its name.

use std::{cell::RefCell, collections::BTreeMap, rc::Rc, time::Duration};

use realm_identity::{PublicKey, SecretKey};
use realm_p2p::RpcConnection;
use realm_rpc::status::Node;
use tokio::{sync::OnceCell, time::timeout};

use super::{Connection, DIAL, prove};
use crate::{
    error::{CliError, ExitCode, Result},
    keystore::{self, OwnerKey},
    realms::Realm,
};

/// For all relays of a node together.
const REACH: Duration = Duration::from_secs(10);

/// Relays that the command is connected to. Each serves it because it proved the owner's key there,
/// and carries the circuits to all nodes behind it.
#[derive(Debug)]
pub struct Relays {
    open: RefCell<BTreeMap<PublicKey, Rc<OnceCell<Rc<Connection>>>>>,
    /// Whether the node that tells where others are is on this machine.
    here: bool,
}

impl Relays {
    /// For nodes that this one tells of.
    pub(super) fn told_by(asked: &RpcConnection) -> Self {
        Self {
            open: RefCell::default(),
            here: realm_p2p::is_here_only(&asked.address),
        }
    }

    /// Whether an address that was told means to us what it means to who told it: on another machine
    /// loopback is not ours, where something else may listen.
    pub(super) fn is_for_us(&self, address: &str) -> bool {
        self.here || !realm_p2p::is_here_only(address)
    }

    /// Dials an address that the asked node, or the one that is meant, told of.
    pub(super) async fn dial_told(
        &self,
        address: &str,
        node: PublicKey,
        patience: Duration,
    ) -> Result<RpcConnection> {
        if !self.is_for_us(address) {
            let message = format!("{address} is for its own machine alone");
            return Err(CliError::new(ExitCode::NoAgent, message)
                .help("ask a node of that machine: --via ADDR"));
        }
        let secret = SecretKey::from_seed(&keystore::random()?);
        let addresses = [address.to_owned()];
        let dialled = realm_p2p::dial_rpc(&addresses, Some(node), &secret, patience).await;
        dialled.map_err(|error| {
            CliError::new(ExitCode::NoAgent, format!("no agent answers at {address}"))
                .because(&error)
        })
    }

    /// A stream to the node through the first of its relays that leads to it, and that relay.
    pub(super) async fn reach(
        &self,
        owner: &Rc<OwnerKey>,
        realm: &Realm,
        node: &Node,
    ) -> Result<(RpcConnection, Rc<Connection>)> {
        let reached = async {
            let mut why = None;
            for circuit in &node.circuits {
                match self.through(owner, realm, node.key, circuit).await {
                    Ok(reached) => return Ok(reached),
                    Err(error) => {
                        tracing::debug!(circuit, %error, "not reached through this relay");
                        why = Some(error);
                    }
                }
            }
            Err(why.unwrap_or_else(|| not_reached(node)))
        };
        let late = |_| Err(not_reached(node));
        timeout(REACH, reached).await.unwrap_or_else(late)
    }

    async fn through(
        &self,
        owner: &Rc<OwnerKey>,
        realm: &Realm,
        node: PublicKey,
        circuit: &str,
    ) -> Result<(RpcConnection, Rc<Connection>)> {
        let (key, address) = realm_p2p::relay_of(circuit)
            .ok_or_else(|| CliError::failed(format!("{circuit} names no relay")))?;
        loop {
            let (relay, known) = self.relay(owner, realm, key, &address).await?;
            match relay.transport.through(circuit, node, DIAL).await {
                Ok(transport) => return Ok((transport, relay)),
                Err(error) => {
                    self.forget(key, &relay);
                    // The connection to the relay may have ended since, and what it was served with it.
                    if !known {
                        let message = format!("the relay {} does not lead there", key.short());
                        return Err(CliError::new(ExitCode::NoAgent, message).because(&error));
                    }
                }
            }
        }
    }

    fn forget(&self, key: PublicKey, relay: &Rc<Connection>) {
        let mut open = self.open.borrow_mut();
        let now = open.get(&key).and_then(|slot| slot.get());
        if now.is_some_and(|now| Rc::ptr_eq(now, relay)) {
            open.remove(&key);
        }
    }

    /// The relay, and whether it was connected before. It is dialled once, whoever else wants it
    /// meanwhile.
    async fn relay(
        &self,
        owner: &Rc<OwnerKey>,
        realm: &Realm,
        key: PublicKey,
        address: &str,
    ) -> Result<(Rc<Connection>, bool)> {
        let slot = self.open.borrow_mut().entry(key).or_default().clone();
        let known = slot.initialized();
        let connect = || async {
            let transport = self.dial_told(address, key, DIAL).await;
            let transport = transport.map_err(|mut error| {
                error.message = format!("its relay {}: {}", key.short(), error.message);
                error
            })?;
            Ok(Rc::new(prove(owner.clone(), realm, transport).await?))
        };
        let relay = slot.get_or_try_init(connect).await?;
        Ok((relay.clone(), known))
    }
}

fn not_reached(node: &Node) -> CliError {
    CliError::new(
        ExitCode::NoAgent,
        "it is behind a firewall, and no relay of the realm leads to it",
    )
    .help(format!(
        "ask it from its own machine or network; see realm nodes show {}",
        node.name
    ))
}

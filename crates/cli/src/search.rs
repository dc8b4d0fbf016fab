//! Finds a node of the realm: among the agents of this machine and the saved addresses, else on the
//! local network. The first that accepts the owner's key, is approved and is as far as was seen.

use std::{
    collections::{BTreeMap, HashSet},
    rc::Rc,
    time::Duration,
};

use futures::{FutureExt as _, StreamExt as _, future::LocalBoxFuture, stream::FuturesUnordered};
use realm_identity::{PublicKey, SecretKey};
use realm_p2p::{DialRpcError, RpcConnection};

use crate::{
    commands::Session,
    connection::{self, Connection, NotProven},
    error::{CliError, ExitCode, Result},
    head,
    keystore::{self, OwnerKey},
    realms::Realm,
};

/// Known addresses get this much time before anything else is tried.
const HEAD_START: Duration = Duration::from_millis(300);
/// Nodes of the local network answer within this.
const DISCOVERY: Duration = Duration::from_secs(2);
/// Addresses that are named where nobody answered.
const MAX_NAMED: usize = 4;
/// A better node than one that is at hand is waited for no longer.
const SETTLE: Duration = Duration::from_millis(500);

/// What a part of the search found.
enum Found {
    Dialled(RpcConnection),
    /// What went wrong, with where that was: an address most often.
    Failed(Vec<Unanswered>),
    /// Addresses to dial besides, each with the key of its node where that is known.
    More(Vec<(Vec<String>, Option<PublicKey>)>),
}

/// An address or a node, and why nobody answered there.
type Unanswered = (String, String);

type Searches<'a> = FuturesUnordered<LocalBoxFuture<'a, Found>>;

/// A node of `realm`, with the owner's key proven to it.
pub async fn any(session: &Session, realm: &Realm, owner: &Rc<OwnerKey>) -> Result<Connection> {
    let secret = SecretKey::from_seed(&keystore::random()?);
    let known = known(session, realm)?;
    let searches = Searches::new();
    let head_start = if known.is_empty() {
        Duration::ZERO
    } else {
        HEAD_START
    };
    for addresses in known {
        searches.push(dial(addresses, None, secret.clone()));
    }
    // Proving the key to a node without a realm makes it one of this realm: not while others are left.
    let unclaimed = connection::agents_here(session).into_iter();
    let unclaimed: Vec<_> = unclaimed
        .filter(|agent| agent.realm.is_none())
        .map(|agent| (agent.addresses, Some(agent.key)))
        .collect();
    searches.push(
        tokio::time::sleep(head_start)
            .map(|()| Found::More(unclaimed))
            .boxed_local(),
    );
    searches.push(lan(head_start).boxed_local());
    choose(searches, realm, owner, &secret).await
}

/// The first that fits. Where none does, one that at least accepts the key; else the best reason.
async fn choose(
    mut searches: Searches<'_>,
    realm: &Realm,
    owner: &Rc<OwnerKey>,
    secret: &SecretKey,
) -> Result<Connection> {
    let mark = realm.mark()?;
    let (mut second, mut refused, mut unanswered) = (None, None, Vec::new());
    let mut strangers = 0;
    loop {
        let found = if second.is_some() {
            tokio::time::timeout(SETTLE, searches.next())
                .await
                .unwrap_or(None)
        } else {
            searches.next().await
        };
        match found {
            None => break,
            Some(Found::More(more)) => {
                for (addresses, key) in more {
                    searches.push(dial(addresses, key, secret.clone()));
                }
            }
            Some(Found::Failed(failed)) => unanswered.extend(failed),
            Some(Found::Dialled(transport)) => {
                match connection::prove_ours(owner.clone(), realm, transport).await {
                    Ok(connection) if fits(&connection, realm, mark).await => {
                        return Ok(connection);
                    }
                    Ok(connection) => second = second.or(Some(connection)),
                    Err(NotProven::OtherRealm(error)) => {
                        tracing::debug!(%error, "a node of another realm");
                        strangers += 1;
                    }
                    // No other node could help.
                    Err(NotProven::Refused(error)) if error.code == ExitCode::Interrupted => {
                        return Err(error);
                    }
                    Err(NotProven::Refused(error)) => {
                        tracing::debug!(%error, "not a node to ask");
                        refused = refused.or(Some(error));
                    }
                }
            }
        }
    }
    second.ok_or_else(|| refused.unwrap_or_else(|| nobody(realm, strangers, unanswered)))
}

/// Whether the node is approved, and as far as this person has seen.
async fn fits(connection: &Connection, realm: &Realm, mark: u64) -> bool {
    let fits = async {
        let base = head::agreed(connection, realm).await?;
        Ok::<_, CliError>(
            base.state.revision >= mark
                && !realm.contradicts(base.state.revision, base.head)?
                && head::is_approved(connection, &base.state).await?,
        )
    };
    fits.await.unwrap_or_else(|error| {
        tracing::debug!(node = %connection.node(), %error, "does not tell where it is");
        false
    })
}

fn dial<'a>(
    addresses: Vec<String>,
    expect: Option<PublicKey>,
    secret: SecretKey,
) -> LocalBoxFuture<'a, Found> {
    async move {
        match connection::dial_all(&addresses, expect, &secret).await {
            Ok(transport) => Found::Dialled(transport),
            Err(error) => {
                tracing::debug!(%error, "not connected");
                Found::Failed(unanswered(addresses, &error))
            }
        }
    }
    .boxed_local()
}

/// Each address with its own reason; one that holds for all of them is said of each. What a node itself did, at
/// whichever of them, is said of the node.
fn unanswered(addresses: Vec<String>, error: &DialRpcError) -> Vec<Unanswered> {
    match error {
        DialRpcError::Failed { attempts } => {
            let attempts = attempts.iter().cloned();
            attempts.map(|one| (one.address, one.reason)).collect()
        }
        // The others were not dialled for it.
        DialRpcError::Address(error) => vec![(error.text.clone(), error.reason.clone())],
        DialRpcError::NoRpc { peer, reason } if addresses.len() > 1 => {
            vec![(peer.to_string(), format!("it does not serve RPC: {reason}"))]
        }
        error => {
            let addresses = addresses.into_iter();
            addresses.map(|at| (at, error.to_string())).collect()
        }
    }
}

async fn lan(wait: Duration) -> Found {
    tokio::time::sleep(wait).await;
    let found = realm_p2p::discover_mdns(DISCOVERY).await;
    Found::More(
        found
            .into_iter()
            .map(|(key, addresses)| (addresses, Some(key)))
            .collect(),
    )
}

/// What is known of the realm's nodes, together what belongs to one node. Agents of other realms on
/// this machine are none of them.
fn known(session: &Session, realm: &Realm) -> Result<Vec<Vec<String>>> {
    let agents = connection::agents_here(session).into_iter();
    let here = agents
        .filter(|agent| agent.realm == Some(realm.id))
        .flat_map(|agent| agent.addresses);
    // Where one of this machine was that has ended, nobody answers for as long as a dial may take.
    let gone: Vec<String> = connection::agents_gone(session)
        .into_iter()
        .flat_map(|agent| agent.addresses)
        .collect();
    let mut peers = realm.peers()?;
    peers.retain(|address| !gone.contains(address));
    let mut nodes: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for address in here.chain(peers) {
        // An address ends in its node's key, or stands for itself.
        let node = address.rsplit_once("/p2p/").map(|(_, key)| key);
        let node = node.unwrap_or(&address).to_owned();
        let addresses = nodes.entry(node).or_default();
        if !addresses.contains(&address) {
            addresses.push(address);
        }
    }
    Ok(nodes.into_values().collect())
}

/// `strangers` is how many nodes of other realms answered.
fn nobody(realm: &Realm, strangers: usize, unanswered: Vec<Unanswered>) -> CliError {
    let start = "realm agent; or name one's address: --via /ip4/HOST/udp/2020/quic-v1";
    let mut failed = CliError::new(ExitCode::NoAgent, "no agent could be reached")
        .help(format!("start one here: {start}"));
    if strangers > 0 {
        let name = &realm.genesis.name;
        failed = CliError::new(
            ExitCode::NoAgent,
            format!("no agent of realm {name} could be reached"),
        )
        .help(format!(
            "start one: {start}; or use another realm: --realm NAME, see them: realm ls"
        ));
        let belong = if strangers == 1 {
            "1 agent that answered belongs".to_owned()
        } else {
            format!("{strangers} agents that answered belong")
        };
        failed.causes.push(format!("{belong} to another realm"));
    }
    failed.causes.extend(named(unanswered));
    failed
}

/// Some of the addresses, each once, and how many more there are.
fn named(unanswered: Vec<Unanswered>) -> Vec<String> {
    let mut seen = HashSet::new();
    let mut tried = unanswered;
    // The network may tell of an address that was known, too.
    tried.retain(|(address, _)| seen.insert(address.clone()));
    let more = tried.len().saturating_sub(MAX_NAMED);
    let mut causes: Vec<String> = tried
        .into_iter()
        .take(MAX_NAMED)
        .map(|(address, reason)| format!("{address}: {reason}"))
        .collect();
    if more > 0 {
        causes.push(format!("and {more} more"));
    }
    causes
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_wrong_with_one_address_is_not_said_of_the_others() {
        let addresses = || vec!["junk".to_owned(), "/ip4/192.0.2.1/tcp/1".to_owned()];
        let error = realm_p2p::check_address("junk").unwrap_err();
        let junk = unanswered(addresses(), &error.into());
        assert_eq!(junk.len(), 1);
        assert_eq!(junk[0].0, "junk");
        let peer = SecretKey::from_seed(&[1; 32]).public();
        let mute = DialRpcError::NoRpc {
            peer,
            reason: "it hung up".to_owned(),
        };
        let said = named(unanswered(addresses(), &mute));
        assert_eq!(said, [format!("{peer}: it does not serve RPC: it hung up")]);
        // The one address says where that was, too.
        let one = addresses().split_off(1);
        let at = format!("{}: {mute}", one[0]);
        assert_eq!(named(unanswered(one, &mute)), [at]);
    }

    #[test]
    fn each_address_is_named_once_with_its_own_reason() {
        let at = |port: u16| format!("/ip4/192.0.2.1/tcp/{port}");
        let late = DialRpcError::Deadline(Duration::from_secs(5));
        let mut tried = unanswered(vec![at(1), at(2)], &late);
        tried.push((at(1), "refused".to_owned()));
        let within = "no node answered within 5s";
        let two = [1, 2].map(|port| format!("{}: {within}", at(port)));
        assert_eq!(named(tried.clone()), two);
        tried.extend((3..=9).map(|port| (at(port), "refused".to_owned())));
        let causes = named(tried);
        assert_eq!(causes.len(), MAX_NAMED + 1);
        assert_eq!(causes[..2], two);
        assert_eq!(causes[2], format!("{}: refused", at(3)));
        assert_eq!(causes[MAX_NAMED], "and 5 more");
    }
}

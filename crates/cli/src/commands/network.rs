//! `realm network`: who is linked to whom, how fast, and through which relays.

use std::collections::{BTreeMap, BTreeSet};

use realm_identity::PublicKey;
use realm_rpc::status::{Link, Node, NodeState, Status};

use crate::{
    commands::Session,
    connection,
    error::{ExitCode, Result},
    output::Output,
    sources, survey,
};

#[derive(Debug, clap::Args)]
#[command(
    after_help = "Examples:\n  realm network            the links of the node that answers\n  realm network --all      those of every node, each by its own word\n  realm network --node edge-1 -o json"
)]
pub struct Args {
    /// The links of every node.
    #[arg(long, conflicts_with = "node")]
    pub all: bool,
    /// The links of this node.
    #[arg(long, visible_alias = "peer", alias = "nodes")]
    pub node: Option<String>,
}

/// What one node says of its way to another one.
#[derive(Debug, serde::Serialize)]
struct Way {
    from: String,
    to: String,
    state: NodeState,
    /// None where they have no connection: they make one when they need it.
    link: Option<Link>,
    rtt_ms: Option<f64>,
    /// Where it is reached.
    address: Option<String>,
    /// The node that relays, where the link leads through one.
    relay: Option<String>,
}

pub fn run(args: &Args, session: &Session) -> Result<ExitCode> {
    connection::block_on(async {
        let realm = session.realm()?;
        let first = connection::open(session, &realm).await?;
        let status = survey::status(&first, &realm, &session.output).await?;
        if !args.all && args.node.is_none() {
            show(&ways(&status), &session.output)?;
            return Ok(ExitCode::Ok);
        }
        let only = args.node.as_deref();
        let (sources, mut silent) = sources::open(first, &realm, &status, only).await?;
        silent.retain(|silent| silent.is_here() || only.is_some());
        for silent in &silent {
            unknown(&silent.node.name, &silent.why, &session.output);
        }
        let told = sources
            .iter()
            .map(|source| survey::status(&source.connection, &realm, &session.output));
        let told = futures::future::join_all(told).await;
        let (mut all, mut untold) = (Vec::new(), 0);
        for (source, told) in sources.iter().zip(told) {
            match told {
                Ok(told) => all.extend(ways(&told)),
                Err(error) => {
                    untold += 1;
                    unknown(&source.node.name, &error.in_one_line(), &session.output);
                }
            }
        }
        let is_whole = silent.is_empty() && untold == 0;
        // Who says nothing may have links all the same.
        if is_whole || !all.is_empty() || session.output.json() {
            show(&all, &session.output)?;
        }
        Ok(if is_whole {
            ExitCode::Ok
        } else {
            ExitCode::Partial
        })
    })
}

fn unknown(node: &str, why: &str, output: &Output) {
    output.say(format!("the links of {node} are not known: {why}"));
}

/// The ways from the node that gave this status to the others.
fn ways(status: &Status) -> Vec<Way> {
    let asked = |node: &&Node| node.link == Some(Link::Itself);
    let from = status.nodes.iter().find(asked);
    let from = from.map_or("?", |node| node.name.as_str());
    let names: BTreeMap<PublicKey, &str> = status
        .nodes
        .iter()
        .map(|node| (node.key, node.name.as_str()))
        .collect();
    let others = status.nodes.iter().filter(|node| !asked(node));
    others
        .filter(|node| connection::is_member(node))
        .map(|node| Way {
            from: from.to_owned(),
            to: node.name.clone(),
            state: node.state,
            link: node.link,
            rtt_ms: node.rtt_ms,
            address: node.address.clone(),
            relay: relay(node).map(|key| {
                names
                    .get(&key)
                    .map_or_else(|| key.short(), |name| (*name).to_owned())
            }),
        })
        .collect()
}

fn relay(node: &Node) -> Option<PublicKey> {
    let address = node
        .address
        .as_ref()
        .filter(|_| node.link == Some(Link::Relay))?;
    realm_p2p::relay_of(address).map(|(relay, _)| relay)
}

fn show(ways: &[Way], output: &Output) -> Result<()> {
    if output.json() {
        return output.object(&serde_json::json!({ "apiVersion": "realm/v1", "links": ways }));
    }
    if ways.is_empty() {
        output.say("this node is alone: let others join with realm invite");
        return Ok(());
    }
    let or_dash = |text: Option<String>| text.unwrap_or_else(|| "-".to_owned());
    let rows = ways.iter().map(|way| {
        vec![
            way.from.clone(),
            way.to.clone(),
            way.state.to_string(),
            or_dash(way.link.map(|link| link.to_string())),
            or_dash(way.rtt_ms.map(|rtt| format!("{rtt:.1}ms"))),
            or_dash(way.relay.clone()),
            or_dash(way.address.clone()),
        ]
    });
    let header = ["FROM", "TO", "STATE", "LINK", "RTT", "RELAY", "ADDRESS"];
    output.table(&header, rows.collect())?;
    let relays: BTreeSet<&str> = ways.iter().filter_map(|way| way.relay.as_deref()).collect();
    let relays: Vec<&str> = relays.into_iter().collect();
    let linked = ways.iter().filter(|way| way.link.is_some()).count();
    let through = match relays.as_slice() {
        [] => "no relay is in use".to_owned(),
        relays => format!("relays in use: {}", relays.join(", ")),
    };
    output.line(&format!("{linked} of {} linked; {through}", ways.len()))
}

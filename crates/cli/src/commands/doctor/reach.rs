//! Whether nodes are reached by themselves, or through others that relay for them.

use realm_agent::agent_file::AgentInfo;
use realm_rpc::status::{Node, Status};

use super::{Finding, State};
use crate::sources;

const OPEN: &str = "let its port (UDP and TCP 2020, or what --listen says) in at its firewall or router, or at the container that it runs in";
const RELAY: &str =
    "or take a node into the realm that everybody reaches: it relays for the others";

/// By what each node says of itself, and other nodes found of the agents of this machine.
pub(super) fn reach(agents: &[AgentInfo], status: &Status) -> Finding {
    let (mut directly, mut relayed, mut not) = (Vec::new(), Vec::new(), Vec::new());
    for node in status.nodes.iter().filter(|node| sources::is_here(node)) {
        let agent = agents.iter().find(|agent| agent.key == node.key);
        match (agent.and_then(|agent| agent.reached), relays(node, status)) {
            (Some(true), _) => directly.push(node.name.clone()),
            (Some(false), None) => not.push(node.name.clone()),
            (_, Some(relays)) => relayed.push(format!("{} (by {relays})", node.name)),
            (None, None) => {}
        }
    }
    let said: Vec<String> = [
        ("reached by nobody outside, and no node relays", &not),
        ("reached through a relay alone", &relayed),
        ("reached directly", &directly),
    ]
    .iter()
    .filter(|(_, names)| !names.is_empty())
    .map(|(words, names)| format!("{words}: {}", names.join(", ")))
    .collect();
    let found = said.join("; ");
    match (not.is_empty(), relayed.is_empty(), directly.is_empty()) {
        (false, _, _) => {
            Finding::new("reach", State::Warning, found).help(format!("{OPEN}; {RELAY}"))
        }
        (true, false, _) => Finding::new("reach", State::Warning, found).help(OPEN),
        (true, true, false) => Finding::new("reach", State::Ok, found),
        (true, true, true) => Finding::new(
            "reach",
            State::Skipped,
            "no node has tried yet to reach an agent of this machine from outside",
        ),
    }
}

/// The nodes that relay for this one.
fn relays(node: &Node, status: &Status) -> Option<String> {
    let keys = node.circuits.iter();
    let keys = keys.filter_map(|at| Some(realm_p2p::relay_of(at)?.0));
    let names = keys.map(|key| {
        let relay = status.nodes.iter().find(|node| node.key == key);
        relay.map_or_else(|| key.short(), |relay| relay.name.clone())
    });
    let names: std::collections::BTreeSet<String> = names.collect();
    let names: Vec<String> = names.into_iter().collect();
    (!names.is_empty()).then(|| names.join(", "))
}

//! What finds no place once a node is drained.

use realm_rpc::status::{Component, ComponentState, Drift, Status};

/// A line for each component that has less of a place than before the drain, or none because of it.
pub fn lines(before: &Status, after: &Status) -> Vec<String> {
    let short = after.components.iter().filter(|component| {
        let has_place = component.state != ComponentState::Waiting
            && homeless(component, after).next().is_none();
        let drained = reason(component, after).is_some_and(|(code, _)| code == "draining");
        let known = before.components.iter();
        let known = known.filter(|known| known.name == component.name);
        let fewer = known
            .map(|known| places(known, before))
            .any(|had| places(component, after) < had);
        !has_place && (drained || fewer)
    });
    short.map(|component| line(component, after)).collect()
}

fn line(component: &Component, status: &Status) -> String {
    let name = &component.name;
    let effect = match places(component, status) {
        0 => format!("{name} has nowhere to run then"),
        places => format!("{name} has room for {places} of {} then", component.desired),
    };
    let why = reason(component, status).map(|(_, why)| why);
    let why = why.unwrap_or_else(|| format!("see why: realm status {name}"));
    format!("warning: {effect}: {why}")
}

/// Cells that should be somewhere, and have no node that may run them.
fn homeless<'a>(
    component: &'a Component,
    status: &'a Status,
) -> impl Iterator<Item = &'a Drift> + 'a {
    status.drift.iter().filter(|drift| {
        let code = drift.reason.as_ref().map(|reason| reason.code.as_str());
        drift.component == component.name
            && drift.want == "running"
            && (drift.node.is_none() || code == Some("draining"))
    })
}

fn places(component: &Component, status: &Status) -> u64 {
    let homeless = homeless(component, status).count();
    component.desired.saturating_sub(homeless as u64)
}

/// The code, and the words with what to do.
fn reason<'a>(component: &'a Component, status: &'a Status) -> Option<(&'a str, String)> {
    let missing = homeless(component, status).find_map(|drift| drift.reason.as_ref());
    let reason = missing.or(component.reason.as_ref())?;
    let help = reason.help.iter().map(|help| format!(". Next: {help}"));
    let words = std::iter::once(reason.message.clone()).chain(help);
    Some((&reason.code, words.collect()))
}

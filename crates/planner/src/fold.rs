//! How one intent changes the state.
//!
//! Every check here, with its bounds, is a rule of consensus: a change needs a new entry version
//! (`docs/decisions/0007-limits-of-a-spec-are-consensus.md`).

use std::collections::BTreeMap;

use realm_manifest::{
    ComponentName, NodeName,
    identity::{
        Artifact, Entry, Hash, Kind, Message as _, PublicKey, Target, authority, canonical,
    },
    payload::{Merge, NodeFacts, Payload, Push, Restart},
};

use crate::{Component, NodeRecord, SetBy, Standing, State};

/// Components of one realm; the state is sent whole to nodes that start from a checkpoint.
pub const MAX_COMPONENTS: usize = 1000;
/// Nodes the log may name, removed and revoked ones included.
pub const MAX_NODES: usize = 4096;

#[derive(Debug, thiserror::Error)]
pub enum FoldError {
    /// A later version wrote it: the fold stops before it.
    #[error("revision {revision} is not understood by this version of realm")]
    Incompatible { revision: u64 },
    #[error("the entry is for another realm")]
    ForeignRealm,
    #[error("revision {found} does not follow revision {at}")]
    Sequence { found: u64, at: u64 },
    #[error("the entry was signed over another state than the one at revision {at}")]
    StateMismatch { at: u64 },
    #[error(transparent)]
    Authority(#[from] authority::Refusal),
    #[error("malformed payload")]
    Payload(#[source] canonical::Error),
    #[error("no component {0}")]
    NoComponent(String),
    #[error("{0:?} is not a component's name")]
    ComponentName(String),
    #[error("not a usable spec: {0}")]
    Spec(String),
    #[error("no approved node {0}")]
    NoNode(PublicKey),
    #[error("{0} is revoked for good")]
    Revoked(PublicKey),
    #[error("{0} was taken out of the realm: approve it again first")]
    Removed(PublicKey),
    #[error("the name {0} is another node's")]
    NameTaken(NodeName),
    #[error("the nodes of a restart are not sorted, each once")]
    UnsortedNodes,
    #[error("a generation only rises, and {found} is not above {at}")]
    Generation { found: u64, at: u64 },
    #[error("{0} was the owner before, and cannot be again")]
    OldOwner(PublicKey),
    #[error("a realm has at most {max} {what}")]
    TooMany { what: &'static str, max: usize },
    #[error("a merge is folded with the branches it names")]
    MergeAlone,
    #[error("not a merge of this fork: {0}")]
    BadMerge(&'static str),
}

/// The state after `entry`, whose parent is folded in `state`. Merges go to [`apply_merge`].
pub fn apply(state: &State, entry: &Entry, payload: &[u8]) -> Result<State, FoldError> {
    let (kind, target, payload) = read(state, entry, payload)?;
    if entry.seq != state.revision.saturating_add(1) {
        return Err(FoldError::Sequence {
            found: entry.seq,
            at: state.revision,
        });
    }
    if kind == Kind::Merge {
        return Err(FoldError::MergeAlone);
    }
    let mut next = state.clone();
    next.revision = entry.seq;
    change(&mut next, target, &payload)?;
    Ok(next)
}

/// The state after a merge: `state` is that of the kept head, `heads` are the entries that it names,
/// and `reapplied` those of the other branches, each in the order of the merge. All of it is checked
/// against what was signed. What no longer makes sense is left out, equally on every node.
pub fn apply_merge(
    state: &State,
    merge: &Entry,
    payload: &[u8],
    heads: &[&Entry],
    reapplied: &[(&Entry, &[u8])],
) -> Result<State, FoldError> {
    let (_, _, Payload::Merge(named)) = read(state, merge, payload)? else {
        return Err(FoldError::MergeAlone);
    };
    signed_payload(merge, payload)?;
    check_merge(state, merge, &named, heads)?;
    let listed = reapplied.iter().map(|(entry, _)| entry_hash(entry));
    if !listed.eq(named.reapply) {
        return Err(FoldError::BadMerge(
            "the entries are not those it reapplies",
        ));
    }
    for (entry, payload) in reapplied {
        signed_payload(entry, payload)?;
    }
    let mut next = state.clone();
    next.revision = merge.seq;
    // Whoever signed the merge could know what is left out: see `left_out`.
    reapply_in_order(&mut next, reapplied);
    Ok(next)
}

/// What a merge with number `seq` on `state` leaves out of the entries that it applies again: which, by
/// its place in the list, and why.
pub fn left_out(state: &State, seq: u64, reapplied: &[(&Entry, &[u8])]) -> Vec<(usize, FoldError)> {
    let mut next = state.clone();
    next.revision = seq;
    reapply_in_order(&mut next, reapplied)
}

/// Each on what those before it made; one that is refused changes nothing.
fn reapply_in_order(state: &mut State, reapplied: &[(&Entry, &[u8])]) -> Vec<(usize, FoldError)> {
    let mut left_out = Vec::new();
    for (index, (entry, payload)) in reapplied.iter().enumerate() {
        let mut tried = state.clone();
        match reapply(&mut tried, entry, payload) {
            Ok(()) => *state = tried,
            Err(error) => left_out.push((index, error)),
        }
    }
    left_out
}

fn check_merge(
    state: &State,
    merge: &Entry,
    named: &Merge,
    heads: &[&Entry],
) -> Result<(), FoldError> {
    if !heads
        .iter()
        .map(|head| entry_hash(head))
        .eq(named.heads.iter().copied())
    {
        return Err(FoldError::BadMerge(
            "the entries are not the heads it names",
        ));
    }
    let kept = heads.iter().find(|head| entry_hash(head) == named.keep);
    if merge.prev != named.keep || kept.is_none_or(|kept| kept.seq != state.revision) {
        return Err(FoldError::BadMerge("its parent is not the head it keeps"));
    }
    let newest = heads.iter().map(|head| head.seq).max().unwrap_or(0);
    if newest.checked_add(1) != Some(merge.seq) {
        return Err(FoldError::Sequence {
            found: merge.seq,
            at: newest,
        });
    }
    Ok(())
}

/// Whether `payload` is the one that the entry was signed with.
fn signed_payload(entry: &Entry, payload: &[u8]) -> Result<(), FoldError> {
    let signed = entry.body.as_ref().map(|body| body.payload);
    if signed.is_none_or(|signed| signed == Artifact::of(payload)) {
        Ok(())
    } else {
        Err(FoldError::BadMerge(
            "a payload is not the one that was signed",
        ))
    }
}

/// Whether the payload would change anything but the revision: a push of the same content does not.
pub fn would_change(state: &State, target: &Target, payload: &Payload) -> Result<bool, FoldError> {
    let mut next = state.clone();
    change(&mut next, target, payload)?;
    Ok(next != *state)
}

/// Checks everything of an entry but its place in the chain.
fn read<'e>(
    state: &State,
    entry: &'e Entry,
    payload: &[u8],
) -> Result<(Kind, &'e Target, Payload), FoldError> {
    let incompatible = FoldError::Incompatible {
        revision: entry.seq,
    };
    let Some(body) = &entry.body else {
        return Err(incompatible);
    };
    let Some(kind) = Kind::from_number(body.kind) else {
        return Err(incompatible);
    };
    if entry.realm != state.realm {
        return Err(FoldError::ForeignRealm);
    }
    authority::check(entry, kind, &body.target, state.owner)?;
    if body.state != state.digest() {
        return Err(FoldError::StateMismatch { at: state.revision });
    }
    let payload = Payload::decode(kind, payload).map_err(FoldError::Payload)?;
    Ok((kind, &body.target, payload))
}

/// An entry of another branch: its owner then was this branch's owner too, or it stays out.
fn reapply(state: &mut State, entry: &Entry, payload: &[u8]) -> Result<(), FoldError> {
    let incompatible = FoldError::Incompatible {
        revision: entry.seq,
    };
    let Some(body) = &entry.body else {
        return Err(incompatible);
    };
    let Some(kind) = Kind::from_number(body.kind) else {
        return Err(incompatible);
    };
    authority::check(entry, kind, &body.target, state.owner)?;
    // Who owns the realm is never decided by a branch that lost.
    if matches!(kind, Kind::Merge | Kind::OwnerRotate) {
        return Err(FoldError::MergeAlone);
    }
    let payload = Payload::decode(kind, payload).map_err(FoldError::Payload)?;
    change(state, &body.target, &payload)
}

fn change(state: &mut State, target: &Target, payload: &Payload) -> Result<(), FoldError> {
    let revision = state.revision;
    match (payload, target) {
        (Payload::Push(push), Target::Component(name)) => set_component(state, name, push),
        (Payload::Remove(_), Target::Component(name)) => {
            let name = component_name(name)?;
            match state.components.remove(&name) {
                Some(_) => Ok(()),
                None => Err(FoldError::NoComponent(name.to_string())),
            }
        }
        (Payload::Restart(restart), Target::Component(name)) => {
            restart_component(state, name, restart)
        }
        (Payload::Scale(scale), Target::Component(name)) => {
            let component = component(state, name)?;
            if component.spec.replicas != scale.replicas {
                component.spec.replicas = scale.replicas;
                component.revision = revision;
            }
            valid(&component.spec)
        }
        (Payload::Run(run), Target::Component(name)) => {
            let component = component(state, name)?;
            if component.run != run.run {
                component.run = run.run;
                component.revision = revision;
            }
            Ok(())
        }
        // A node that an invite approved is not in the log until something is said of it, so
        // that setting its facts is no different from approving it.
        (Payload::NodeSet(_), Target::Node(key))
            if standing(state, key) == Some(Standing::Removed) =>
        {
            Err(FoldError::Removed(*key))
        }
        (Payload::NodeApprove(facts) | Payload::NodeSet(facts), Target::Node(key)) => {
            set_node(state, *key, facts)
        }
        (Payload::NodeRevoke(_), Target::Node(key)) => expel(state, *key, Standing::Revoked),
        (Payload::NodeRemove(_), Target::Node(key)) => expel(state, *key, Standing::Removed),
        (Payload::OwnerRotate(_), Target::Owner(key)) => rotate(state, *key),
        // The authority rule has matched kind and target; a merge has no change of its own.
        _ => Err(FoldError::MergeAlone),
    }
}

fn set_component(state: &mut State, name: &str, push: &Push) -> Result<(), FoldError> {
    let name = component_name(name)?;
    valid(&push.spec)?;
    let revision = state.revision;
    let full = state.components.len() >= MAX_COMPONENTS;
    match state.components.get_mut(&name) {
        Some(component) => {
            let run = push.run.unwrap_or(component.run);
            if component.spec != push.spec
                || component.run != run
                || component.set_by != SetBy::Push
            {
                component.spec = push.spec.clone();
                component.run = run;
                component.set_by = SetBy::Push;
                component.revision = revision;
            }
            Ok(())
        }
        None if full => Err(FoldError::TooMany {
            what: "components",
            max: MAX_COMPONENTS,
        }),
        None => {
            let component = Component {
                spec: push.spec.clone(),
                set_by: SetBy::Push,
                revision,
                generation: 0,
                restarted_on: BTreeMap::new(),
                run: push.run.unwrap_or(true),
                created: revision,
            };
            state.components.insert(name, component);
            Ok(())
        }
    }
}

fn restart_component(state: &mut State, name: &str, restart: &Restart) -> Result<(), FoldError> {
    let revision = state.revision;
    if !restart.nodes.is_sorted_by(|one, next| one < next) {
        return Err(FoldError::UnsortedNodes);
    }
    // One that an invite approved may not be in the log.
    for key in &restart.nodes {
        match standing(state, key) {
            Some(Standing::Removed) => return Err(FoldError::Removed(*key)),
            Some(Standing::Revoked) => return Err(FoldError::Revoked(*key)),
            Some(Standing::Approved) | None => {}
        }
    }
    let component = component(state, name)?;
    let at = component.newest_generation();
    let found = restart.generation;
    if found <= at {
        return Err(FoldError::Generation { found, at });
    }
    if restart.nodes.is_empty() {
        component.generation = found;
        component.restarted_on.clear();
    } else {
        let named = restart.nodes.iter().map(|key| (*key, found));
        component.restarted_on.extend(named);
    }
    component.revision = revision;
    Ok(())
}

fn set_node(state: &mut State, key: PublicKey, facts: &NodeFacts) -> Result<(), FoldError> {
    let taken = state
        .nodes
        .iter()
        .filter(|(other, node)| **other != key && node.standing == Standing::Approved)
        .any(|(_, node)| node.name == facts.name);
    if taken {
        return Err(FoldError::NameTaken(facts.name.clone()));
    }
    match state.nodes.get(&key) {
        Some(node) if node.standing == Standing::Revoked => return Err(FoldError::Revoked(key)),
        None if state.nodes.len() >= MAX_NODES => {
            return Err(FoldError::TooMany {
                what: "nodes",
                max: MAX_NODES,
            });
        }
        _ => {}
    }
    let mut tags = facts.tags.clone();
    tags.sort();
    tags.dedup();
    let record = NodeRecord {
        name: facts.name.clone(),
        tags,
        standing: Standing::Approved,
        draining: facts.drain,
        revision: state.revision,
    };
    match state.nodes.get_mut(&key) {
        // The revision is that of the last change.
        Some(node)
            if *node
                == (NodeRecord {
                    revision: node.revision,
                    ..record.clone()
                }) => {}
        Some(node) => *node = record,
        None => {
            state.nodes.insert(key, record);
        }
    }
    Ok(())
}

/// Takes a node out, for now or for good. It may be one that only an invite approved, and that the
/// log does not know: then its key is noted alone.
fn expel(state: &mut State, key: PublicKey, standing: Standing) -> Result<(), FoldError> {
    let revision = state.revision;
    for component in state.components.values_mut() {
        component.restarted_on.remove(&key);
    }
    if let Some(node) = state.nodes.get_mut(&key) {
        if node.standing == Standing::Revoked && standing != Standing::Revoked {
            return Err(FoldError::Revoked(key));
        }
        if node.standing != standing {
            (node.standing, node.draining) = (standing, false);
            node.revision = revision;
        }
        return Ok(());
    }
    if state.nodes.len() >= MAX_NODES {
        return Err(FoldError::TooMany {
            what: "nodes",
            max: MAX_NODES,
        });
    }
    let name = match standing {
        Standing::Revoked => "revoked",
        Standing::Approved | Standing::Removed => "removed",
    };
    let record = NodeRecord {
        name: NodeName::new(name).map_err(|error| FoldError::Spec(error.to_string()))?,
        tags: Vec::new(),
        standing,
        draining: false,
        revision,
    };
    state.nodes.insert(key, record);
    Ok(())
}

fn standing(state: &State, key: &PublicKey) -> Option<Standing> {
    state.nodes.get(key).map(|node| node.standing)
}

fn rotate(state: &mut State, key: PublicKey) -> Result<(), FoldError> {
    if state.owners().contains(&key) {
        return Err(FoldError::OldOwner(key));
    }
    state.past_owners.push((state.owner, state.revision));
    state.owner = key;
    Ok(())
}

fn component<'s>(state: &'s mut State, name: &str) -> Result<&'s mut Component, FoldError> {
    let name = component_name(name)?;
    state
        .components
        .get_mut(&name)
        .ok_or_else(|| FoldError::NoComponent(name.to_string()))
}

fn component_name(name: &str) -> Result<ComponentName, FoldError> {
    name.parse()
        .map_err(|_| FoldError::ComponentName(name.to_owned()))
}

fn valid(spec: &realm_manifest::ComponentSpec) -> Result<(), FoldError> {
    spec.validate()
        .map_err(|problems| FoldError::Spec(problems.to_string()))
}

/// The digest an entry has in the chain.
pub fn entry_hash(entry: &Entry) -> Hash {
    Hash::of(&entry.to_bytes())
}

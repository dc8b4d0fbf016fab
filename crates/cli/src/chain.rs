//! The realm's log as a node gives it, each entry checked against the one before it.

use std::collections::HashMap;

use realm_identity::{Entry, Hash, Kind, PublicKey, Signed, Target};
use realm_manifest::{
    gist,
    payload::{Merge, Payload},
};
use realm_planner::{State, fold};
use realm_rpc::{Fork, Intent};

use crate::{
    connection::{Connection, rpc_failed},
    error::{CliError, Context as _, ExitCode, Result},
    realms::Realm,
};

/// One verified entry.
#[derive(Debug, Clone)]
pub struct Link {
    pub entry: Signed<Entry>,
    /// None when it was erased, as superseded payloads may be, or is of a later version.
    pub payload: Option<Payload>,
    payload_bytes: Option<Vec<u8>>,
}

/// Where a walk along the log ended.
#[derive(Debug, Clone, Copy)]
pub struct End {
    /// The last entry that was visited; the realm's first one where there is none.
    pub head: Hash,
    pub owner: PublicKey,
    /// The number after that entry.
    next: u64,
    /// The merge whose number is beyond the revision that was walked to, which it passed over.
    pub passed_by: Option<u64>,
}

/// Walks the agreed log from its first entry up to revision `to`.
pub async fn walk(
    connection: &Connection,
    realm: &Realm,
    to: u64,
    mut visit: impl FnMut(&Link),
) -> Result<End> {
    let mut end = End {
        head: realm.id,
        owner: realm.genesis.owner(),
        next: 1,
        passed_by: None,
    };
    while end.next <= to {
        let part = history(connection, end.next, to).await?;
        if part.is_empty() {
            end.passed_by = Some(merge_beyond(connection, realm, &end, to).await?);
            break;
        }
        for intent in part {
            let link = Link::read(&intent, realm)?;
            link.follows(end.next, end.head, end.owner)
                .map_err(|refusal| match link.entry.seq > end.next {
                    true => partial(end.next),
                    false => refusal,
                })?;
            visit(&link);
            end.owner = link.new_owner().unwrap_or(end.owner);
            end.head = link.entry.hash();
            end.next = link.entry.seq.saturating_add(1);
        }
    }
    Ok(end)
}

/// The number of the merge that follows `end`, beyond `to`: only a merge passes over revisions.
async fn merge_beyond(connection: &Connection, realm: &Realm, end: &End, to: u64) -> Result<u64> {
    let rest = history(connection, end.next, u64::MAX).await?;
    let link = rest.first().map(|intent| Link::read(intent, realm));
    let link = link
        .transpose()?
        .filter(|link| link.entry.seq > to && link.follows(end.next, end.head, end.owner).is_ok());
    Ok(link.ok_or_else(|| partial(end.next))?.entry.seq)
}

/// A node that found nobody with the whole log when it came in has it from a checkpoint on.
fn partial(lacks: u64) -> CliError {
    CliError::failed(format!(
        "the node does not have revision {lacks} of the log"
    ))
    .help("it has the log from a checkpoint on: ask another node with --via ADDR")
}

async fn history(connection: &Connection, from: u64, to: u64) -> Result<Vec<Intent>> {
    let part = connection.operator.history(from, to).await;
    part.map_err(|error| rpc_failed("the node does not give its log", &error))
}

/// The fork after the agreed log, which a walk to its newest entry has ended at.
pub async fn fork(connection: &Connection, realm: &Realm, end: &End) -> Result<Option<Forked>> {
    let forks = connection.operator.forks().await;
    let forks = forks.map_err(|error| rpc_failed("the node does not tell its forks", &error))?;
    let Some(fork) = forks.first() else {
        return Ok(None);
    };
    if fork.seq < end.next {
        return Err(CliError::failed("the log changed meanwhile").help("look again"));
    }
    Forked::read(fork, realm, end.head, end.owner).map(Some)
}

impl Link {
    /// Verifies the signature, the realm, and that the payload is the one that was signed.
    pub fn read(intent: &Intent, realm: &Realm) -> Result<Self> {
        let described = "an entry of the node's log does not verify";
        let entry = Signed::<Entry>::from_wire(&intent.entry)
            .context_code(ExitCode::NotAuthorised, described)?;
        let seq = entry.seq;
        if entry.realm != realm.id {
            return Err(refused(seq, "it is of another realm"));
        }
        let payload = match (&intent.payload, entry.kind(), &entry.body) {
            (Some(bytes), Some(kind), Some(body)) => {
                if Hash::of(bytes) != body.payload.sha256 {
                    return Err(refused(seq, "its payload is not the one that was signed"));
                }
                let payload = Payload::decode(kind, bytes);
                Some(payload.context_code(ExitCode::NotAuthorised, described)?)
            }
            _ => None,
        };
        Ok(Self {
            entry,
            payload,
            payload_bytes: intent.payload.clone(),
        })
    }

    fn follows(&self, seq: u64, prev: Hash, owner: PublicKey) -> Result<()> {
        let entry = &self.entry;
        if entry.author != owner {
            return Err(refused(seq, "it was not signed by the owner of its time"));
        }
        // A merge may follow a longer branch, so its number may jump; nothing else may.
        let jumps = entry.kind() == Some(Kind::Merge) && entry.seq > seq;
        if entry.prev != prev || (entry.seq != seq && !jumps) {
            return Err(refused(seq, "it does not follow the one before it"));
        }
        Ok(())
    }

    /// Whom it hands the realm to.
    pub fn new_owner(&self) -> Option<PublicKey> {
        match self.entry.body.as_ref().map(|body| &body.target) {
            Some(Target::Owner(new)) if self.entry.kind() == Some(Kind::OwnerRotate) => Some(*new),
            _ => None,
        }
    }

    /// What the entry is about, for people.
    pub fn subject(&self) -> String {
        gist::subject(&self.entry)
    }

    /// What it is about and what becomes of that, in one cell of a table.
    pub fn gist(&self) -> String {
        gist::gist(&self.entry, self.payload.as_ref())
    }

    pub fn kind_name(&self) -> &'static str {
        gist::kind_name(&self.entry)
    }

    /// The same for people: what was done with the program, where the kind leaves that open.
    pub fn verb(&self) -> &'static str {
        gist::verb(&self.entry, self.payload.as_ref())
    }

    /// Why it was done (`-m`).
    pub fn note(&self) -> Option<&str> {
        self.payload.as_ref()?.note()
    }

    fn payload_bytes(&self) -> Result<&[u8]> {
        let missing = || refused(self.entry.seq, "the node does not give its payload");
        self.payload_bytes.as_deref().ok_or_else(missing)
    }

    pub const fn merge(&self) -> Option<&Merge> {
        match &self.payload {
            Some(Payload::Merge(merge)) => Some(merge),
            _ => None,
        }
    }
}

/// A fork, verified.
#[derive(Debug)]
pub struct Forked {
    pub seq: u64,
    pub branches: Vec<Branch>,
}

/// One side of a fork.
#[derive(Debug)]
pub struct Branch {
    /// Hash of its newest entry.
    pub tip: Hash,
    /// From the fork on, oldest first; never empty.
    pub links: Vec<Link>,
}

impl Forked {
    /// `at` is the agreed head, which every branch goes on from.
    pub fn read(fork: &Fork, realm: &Realm, at: Hash, owner: PublicKey) -> Result<Self> {
        let mut branches = Vec::new();
        for branch in &fork.branches {
            let (mut prev, mut owner, mut next) = (at, owner, fork.seq);
            let mut links = Vec::new();
            for intent in &branch.entries {
                let link = Link::read(intent, realm)?;
                link.follows(next, prev, owner)?;
                owner = link.new_owner().unwrap_or(owner);
                prev = link.entry.hash();
                next = link.entry.seq.saturating_add(1);
                links.push(link);
            }
            if !links.is_empty() {
                branches.push(Branch { tip: prev, links });
            }
        }
        Ok(Self {
            seq: fork.seq,
            branches,
        })
    }

    /// The state after `kept`, one of the branches, where `base` is the state before the fork.
    pub fn fold(&self, base: &State, kept: &Branch) -> Result<State> {
        let known = by_hash(self.branches.iter().flat_map(|branch| &branch.links));
        kept.links
            .iter()
            .try_fold(base.clone(), |state, link| apply(&state, link, &known))
    }
}

/// What a merge with number `seq` on `state` would leave out of `links`, applied again in this order: which,
/// by its place, and why.
pub fn left_out(state: &State, seq: u64, links: &[&Link]) -> Result<Vec<(usize, String)>> {
    let entries = links
        .iter()
        .map(|link| Ok((&*link.entry, link.payload_bytes()?)))
        .collect::<Result<Vec<(&Entry, &[u8])>>>()?;
    let refused = fold::left_out(state, seq, &entries);
    Ok(refused
        .into_iter()
        .map(|(index, error)| (index, error.to_string()))
        .collect())
}

pub fn by_hash<'l>(links: impl IntoIterator<Item = &'l Link>) -> HashMap<Hash, &'l Link> {
    links
        .into_iter()
        .map(|link| (link.entry.hash(), link))
        .collect()
}

/// The state after `link`, where `state` is the one before it, and `known` has what a merge names.
pub fn apply(state: &State, link: &Link, known: &HashMap<Hash, &Link>) -> Result<State> {
    let described = || format!("revision {} cannot be folded", link.entry.seq);
    let payload = link.payload_bytes()?;
    let Some(merge) = link.merge() else {
        return fold::apply(state, &link.entry, payload).context(described());
    };
    let seq = link.entry.seq;
    let find = |hash: &Hash| {
        let why = "it names entries that the node does not give";
        let link = known.get(hash).copied();
        link.ok_or_else(|| refused(seq, why))
    };
    let heads = merge
        .heads
        .iter()
        .map(|hash| Ok(&*find(hash)?.entry))
        .collect::<Result<Vec<&Entry>>>()?;
    let reapplied = merge
        .reapply
        .iter()
        .map(|hash| find(hash).and_then(|link| Ok((&*link.entry, link.payload_bytes()?))))
        .collect::<Result<Vec<(&Entry, &[u8])>>>()?;
    fold::apply_merge(state, &link.entry, payload, &heads, &reapplied).context(described())
}

fn refused(seq: u64, why: &str) -> CliError {
    CliError::new(
        ExitCode::NotAuthorised,
        format!("revision {seq} of the node's log does not verify"),
    )
    .help(why)
}

//! The folded log: everything the realm is asked to be at one revision.

use std::collections::BTreeMap;

use minicbor::{Decode, Encode};
use realm_manifest::{
    ComponentName, ComponentSpec, NodeName, Placement, Tag,
    identity::{Genesis, Hash, PublicKey, RealmId, canonical},
};

/// Largest state that is read: a thousand components with all their settings fit.
pub const MAX_STATE_BYTES: usize = 16 * 1024 * 1024;

/// Canonical: one state has one encoding, and its digest is signed into the next entry.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub struct State {
    #[n(0)]
    pub v: u16,
    #[n(1)]
    pub realm: RealmId,
    #[n(2)]
    pub name: String,
    /// The owner chain's sequence number; the genesis is 0.
    #[n(3)]
    pub revision: u64,
    #[n(4)]
    pub owner: PublicKey,
    /// Earlier owners, each with the revision that ended its time.
    #[n(5)]
    pub past_owners: Vec<(PublicKey, u64)>,
    #[n(6)]
    pub components: BTreeMap<ComponentName, Component>,
    #[n(7)]
    pub nodes: BTreeMap<PublicKey, NodeRecord>,
}

#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub struct Component {
    #[n(0)]
    pub spec: ComponentSpec,
    #[n(1)]
    pub set_by: SetBy,
    /// The revision that last changed this component.
    #[n(2)]
    pub revision: u64,
    /// Cells of a lower generation start anew, wherever they are.
    #[n(3)]
    pub generation: u64,
    /// Whether its cells should run.
    #[n(4)]
    pub run: bool,
    /// The revision that first set this component, or set it anew after a removal: where room is
    /// short, who was there before comes first.
    #[n(5)]
    pub created: u64,
    /// The generation of nodes that were named in a restart since the last one of all; it is above
    /// [`Component::generation`].
    #[n(6)]
    #[cbor(default, skip_if = "BTreeMap::is_empty")]
    pub restarted_on: BTreeMap<PublicKey, u64>,
}

impl Component {
    /// Cells on `node` of a lower generation start anew.
    pub fn generation_on(&self, node: &PublicKey) -> u64 {
        let own = self.restarted_on.get(node).copied();
        own.unwrap_or(self.generation)
    }

    /// The highest generation anywhere: the next restart is above it.
    pub fn newest_generation(&self) -> u64 {
        let named = self.restarted_on.values().copied();
        named.max().unwrap_or(self.generation)
    }
}

/// What set a component's spec; `apply` stops only what `apply` set.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Encode, Decode)]
#[cbor(index_only)]
pub enum SetBy {
    #[n(0)]
    Push,
    #[n(1)]
    Apply,
}

/// What the owner's log says of a node.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub struct NodeRecord {
    #[n(0)]
    pub name: NodeName,
    #[n(1)]
    pub tags: Vec<Tag>,
    #[n(2)]
    pub standing: Standing,
    /// Its cells leave it, and no new ones come.
    #[n(3)]
    pub draining: bool,
    #[n(4)]
    pub revision: u64,
}

/// Whether a node that the log names belongs to the realm.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Encode, Decode)]
#[cbor(index_only)]
pub enum Standing {
    #[n(0)]
    Approved,
    /// Taken out: an invite does not approve it again, the owner can.
    #[n(1)]
    Removed,
    /// For good: a revoked key never counts again.
    #[n(2)]
    Revoked,
}

impl State {
    pub fn genesis(genesis: &Genesis) -> Self {
        Self {
            v: 1,
            realm: genesis.realm_id(),
            name: genesis.name.clone(),
            revision: 0,
            owner: genesis.owner(),
            past_owners: Vec::new(),
            components: BTreeMap::new(),
            nodes: BTreeMap::new(),
        }
    }

    pub fn encode(&self) -> Vec<u8> {
        canonical::encode(self)
    }

    pub fn decode(bytes: &[u8]) -> Result<Self, canonical::Error> {
        canonical::decode(bytes, MAX_STATE_BYTES)
    }

    pub fn digest(&self) -> Hash {
        Hash::of(&self.encode())
    }

    /// Whether the owner wants the node to be empty.
    pub fn is_draining(&self, node: &PublicKey) -> bool {
        self.nodes.get(node).is_some_and(|node| node.draining)
    }

    /// The present owner and every earlier one.
    pub fn owners(&self) -> Vec<PublicKey> {
        std::iter::once(self.owner)
            .chain(self.past_owners.iter().map(|(key, _)| *key))
            .collect()
    }
}

impl SetBy {
    pub const fn name(self) -> &'static str {
        match self {
            Self::Push => "push",
            Self::Apply => "apply",
        }
    }
}

/// Digest of what a cell is made from. Where and how often it runs is not part of it, so that
/// scaling restarts nothing.
pub fn cell_digest(spec: &ComponentSpec) -> Hash {
    let cell = ComponentSpec {
        replicas: None,
        placement: Placement::default(),
        source: None,
        rollout: None,
        ..spec.clone()
    };
    Hash::of(&canonical::encode(&cell))
}

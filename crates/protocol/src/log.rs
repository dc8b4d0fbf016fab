//! The owner's chain: which entries are kept, which of them everybody agrees on, and their state.
//!
//! Entries form a tree below the base (the genesis, or a checkpoint). The agreed path is a
//! pure function of that tree, so that nodes with the same entries are in the same state:
//! it ends before two entries for one revision, and goes on behind a merge that names
//! every branch.

use std::collections::{BTreeMap, HashMap};

use realm_identity::{
    Artifact, Entry, Genesis, Hash, Kind, PublicKey, RealmId, Signed, Target, authority,
};

use crate::{Checkpoint, Fold, FoldRefusal, Mutation, Point, Refusal, limits::*};

mod agreed;
mod merge;
mod sync;

/// The newest entry everybody agrees on, and the state after it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Head {
    pub seq: u64,
    pub hash: Hash,
    pub state: Vec<u8>,
}

/// Why the head does not move.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Halt {
    /// There is more than one entry for `seq`.
    Forked { seq: u64 },
    /// The entry for `seq` is of a later version.
    Incompatible { seq: u64, reason: String },
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Inserted {
    New(Point),
    Known(Point),
}

#[derive(Debug)]
pub(crate) struct Stored {
    pub entry: Signed<Entry>,
    pub payload: Option<Vec<u8>>,
    owner_after: PublicKey,
    children: Vec<Hash>,
    incompatible: Option<String>,
}

/// The log of one realm, in memory.
#[derive(Debug)]
pub struct Log<F> {
    fold: F,
    genesis: Signed<Genesis>,
    realm: RealmId,
    base: Head,
    base_owner: PublicKey,
    base_children: Vec<Hash>,
    tree: HashMap<Hash, Stored>,
    by_seq: BTreeMap<u64, Vec<Hash>>,
    /// Digest of an entry's wire bytes to its hash: known bytes need no second verification.
    wires: HashMap<Hash, Hash>,
    /// The agreed path, by revision.
    main: BTreeMap<u64, Hash>,
    head: Head,
    /// The state before the head's entry: every operator asks for it, and folding it anew takes
    /// longer with every entry. None where it must be.
    before_head: Option<Vec<u8>>,
    halt: Option<Halt>,
    /// Parent of the first fork ever, and revision of the last merge that ended one.
    forks: Option<(u64, u64)>,
    pub(crate) mutation: Option<Mutation>,
}

impl<F: Fold> Log<F> {
    /// A log that starts at its genesis.
    pub fn new(genesis: Signed<Genesis>, fold: F) -> Self {
        let realm = genesis.realm_id();
        let head = Head {
            seq: 0,
            hash: realm,
            state: fold.genesis(&genesis),
        };
        let owner = genesis.owner();
        Self::at(genesis, owner, head, fold)
    }

    /// A log that starts at `checkpoint`. The caller trusts `owners`, one of which must have
    /// signed the entry.
    pub fn from_checkpoint(
        checkpoint: &Checkpoint,
        owners: &[PublicKey],
        fold: F,
    ) -> Result<Self, Refusal> {
        let genesis = Signed::<Genesis>::from_wire(&checkpoint.genesis).map_err(invalid)?;
        genesis
            .check()
            .map_err(|error| Refusal::Invalid(error.to_string()))?;
        let realm = genesis.realm_id();
        let entry = Signed::<Entry>::from_wire(&checkpoint.entry).map_err(invalid)?;
        if entry.realm != realm {
            return Err(Refusal::ForeignRealm {
                found: entry.realm,
                expected: realm,
            });
        }
        let owner = entry.author;
        if !owners.contains(&owner) {
            return Err(Refusal::BadAuthor {
                found: owner,
                owner: genesis.owner(),
            });
        }
        let seq = entry.seq.checked_sub(1).ok_or(Refusal::Stale { seq: 0 })?;
        let expected = Hash::of(&checkpoint.state);
        let found = entry.body.as_ref().map(|body| body.state);
        if found != Some(expected) {
            let found = found.ok_or(Refusal::Incompatible { seq: entry.seq })?;
            return Err(Refusal::StateMismatch { found, expected });
        }
        if checkpoint.state.len() > MAX_STATE_BYTES {
            return Err(Refusal::StateTooLarge {
                max: MAX_STATE_BYTES,
            });
        }
        let head = Head {
            seq,
            hash: entry.prev,
            state: checkpoint.state.clone(),
        };
        let mut log = Self::at(genesis, owner, head, fold);
        log.insert(&checkpoint.entry, Some(checkpoint.payload.clone()))?;
        Ok(log)
    }

    fn at(genesis: Signed<Genesis>, owner: PublicKey, base: Head, fold: F) -> Self {
        Self {
            realm: genesis.realm_id(),
            genesis,
            fold,
            base_owner: owner,
            base_children: Vec::new(),
            tree: HashMap::new(),
            by_seq: BTreeMap::new(),
            wires: HashMap::new(),
            main: BTreeMap::from([(base.seq, base.hash)]),
            head: base.clone(),
            before_head: None,
            base,
            halt: None,
            forks: None,
            mutation: None,
        }
    }

    pub fn realm(&self) -> RealmId {
        self.realm
    }

    pub fn genesis(&self) -> &Signed<Genesis> {
        &self.genesis
    }

    pub fn head(&self) -> &Head {
        &self.head
    }

    /// The genesis, or the parent of the checkpoint that this log starts with.
    pub fn start(&self) -> Point {
        Point {
            seq: self.base.seq,
            hash: self.base.hash,
        }
    }

    pub fn halt(&self) -> Option<&Halt> {
        self.halt.as_ref()
    }

    /// The owner who signs the next entry.
    pub fn owner(&self) -> PublicKey {
        self.owner_after(self.head.hash).unwrap_or(self.base_owner)
    }

    /// The owners of the agreed path, oldest first, each once.
    pub fn owners(&self) -> Vec<PublicKey> {
        let mut owners = vec![self.genesis.owner(), self.base_owner];
        owners.extend(
            self.main
                .values()
                .filter_map(|hash| self.owner_after(*hash)),
        );
        owners.dedup();
        owners
    }

    pub fn contains(&self, hash: Hash) -> bool {
        hash == self.base.hash || self.tree.contains_key(&hash)
    }

    /// Entries kept, branches included.
    pub fn len(&self) -> usize {
        self.tree.len()
    }

    pub fn is_empty(&self) -> bool {
        self.tree.is_empty()
    }

    /// An entry and its payload, as on the wire.
    pub fn entry(&self, hash: Hash) -> Option<(&Signed<Entry>, Option<&[u8]>)> {
        self.tree
            .get(&hash)
            .map(|stored| (&stored.entry, stored.payload.as_deref()))
    }

    /// The agreed entries from revision `from`, oldest first.
    pub fn agreed(&self, from: u64) -> impl Iterator<Item = (&Signed<Entry>, Option<&[u8]>)> {
        self.main
            .range(from..)
            .filter_map(|(_, hash)| self.entry(*hash))
    }

    /// What a newcomer needs to start at the head. None before the first entry, or while the
    /// state is too large.
    pub fn checkpoint(&self) -> Option<Checkpoint> {
        let stored = self.tree.get(&self.head.hash)?;
        let state = match &self.before_head {
            Some(state) => state.clone(),
            None => self.state_at(stored.entry.prev)?,
        };
        self.checkpoint_of(stored, state)
    }

    fn checkpoint_of(&self, stored: &Stored, state: Vec<u8>) -> Option<Checkpoint> {
        (state.len() <= MAX_STATE_BYTES).then_some(())?;
        Some(Checkpoint {
            genesis: self.genesis.to_wire(),
            entry: stored.entry.to_wire(),
            state,
            payload: stored.payload.clone()?,
        })
    }

    /// Checks what an operator submits beyond what [`Log::insert`] checks: that it goes on from
    /// the present head, and is understood here. All kinds in the log are desired state, which is
    /// never refused for a clock: `not_after` says nothing about them.
    pub fn check_submit(&self, wire: &[u8]) -> Result<(), Refusal> {
        if self.known_wire(wire).is_some() || self.mutation == Some(Mutation::SkipPrev) {
            return Ok(());
        }
        let entry = Signed::<Entry>::from_wire(wire).map_err(invalid)?;
        // A later version of an entry has no kind that is known here either.
        let kind = entry
            .kind()
            .ok_or(Refusal::Incompatible { seq: entry.seq })?;
        if entry.realm != self.realm {
            return Err(Refusal::ForeignRealm {
                found: entry.realm,
                expected: self.realm,
            });
        }
        match (&self.halt, kind) {
            (Some(Halt::Forked { .. }), Kind::Merge) => Ok(()),
            (Some(Halt::Forked { .. }), _) => Err(Refusal::Forked),
            (Some(Halt::Incompatible { seq, .. }), _) => Err(Refusal::Incompatible { seq: *seq }),
            (None, _) if entry.prev != self.head.hash => Err(Refusal::HeadMoved {
                seq: self.head.seq,
                head: self.head.hash,
            }),
            (None, Kind::Merge) => Err(Refusal::BadMerge("there is no fork")),
            (None, _) => Ok(()),
        }
    }

    fn known_wire(&self, wire: &[u8]) -> Option<Point> {
        let hash = *self.wires.get(&Hash::of(wire))?;
        Some(Point {
            seq: self.tree.get(&hash)?.entry.seq,
            hash,
        })
    }

    /// Verifies an entry and keeps it; moves the head where that is agreed.
    pub fn insert(&mut self, wire: &[u8], payload: Option<Vec<u8>>) -> Result<Inserted, Refusal> {
        if let Some(point) = self.known_wire(wire) {
            return Ok(Inserted::Known(point));
        }
        let entry = Signed::<Entry>::from_wire(wire).map_err(invalid)?;
        let point = Point {
            seq: entry.seq,
            hash: entry.hash(),
        };
        if self.tree.contains_key(&point.hash) {
            return Ok(Inserted::Known(point));
        }
        let parent = self.check_chain(&entry)?;
        self.check_payload(&entry, payload.as_deref())?;
        let outcome = self.fold_one(parent, &entry, payload.as_deref())?;
        self.keep(parent, entry, wire, payload, &outcome);
        self.advance(parent, point, outcome);
        Ok(Inserted::New(point))
    }

    /// Realm, author, sequence and parent. Gives the parent's hash.
    fn check_chain(&self, entry: &Signed<Entry>) -> Result<Hash, Refusal> {
        if entry.realm != self.realm {
            return Err(Refusal::ForeignRealm {
                found: entry.realm,
                expected: self.realm,
            });
        }
        if entry.seq <= self.base.seq {
            return Err(Refusal::Stale { seq: entry.seq });
        }
        let parent = match self.mutation {
            Some(Mutation::SkipPrev) => self.head.hash,
            _ => entry.prev,
        };
        let owner = self
            .owner_after(parent)
            .ok_or(Refusal::UnknownParent { prev: parent })?;
        if entry.author != owner && self.mutation != Some(Mutation::WrongAuthor) {
            return Err(Refusal::BadAuthor {
                found: entry.author,
                owner,
            });
        }
        if let (Some(kind), Some(body)) = (entry.kind(), &entry.body)
            && self.mutation != Some(Mutation::WrongAuthor)
        {
            authority::check(entry, kind, &body.target, owner)?;
        }
        let expected = next_seq(self.seq_of(parent), entry)?;
        let follows = match entry.kind() {
            Some(Kind::Merge) => entry.seq >= expected,
            _ => entry.seq == expected || self.mutation == Some(Mutation::SkipPrev),
        };
        if !follows {
            return Err(Refusal::BadSequence {
                found: entry.seq,
                expected,
            });
        }
        if self.children(parent).len() >= MAX_SIBLINGS {
            return Err(Refusal::TooManySiblings { seq: entry.seq });
        }
        Ok(parent)
    }

    fn check_payload(&self, entry: &Signed<Entry>, payload: Option<&[u8]>) -> Result<(), Refusal> {
        // The payload of an unknown version cannot be checked: it is kept for the next version to check.
        let Some(body) = &entry.body else {
            return Ok(());
        };
        let payload = payload.ok_or(Refusal::PayloadMissing)?;
        if Artifact::of(payload) != body.payload {
            return Err(Refusal::PayloadMismatch);
        }
        if entry.kind() == Some(Kind::Merge) {
            self.check_merge(entry, payload)
        } else {
            Ok(())
        }
    }

    /// The state after `entry`; None where the state before it is not known to this version.
    fn fold_one(
        &self,
        parent: Hash,
        entry: &Signed<Entry>,
        payload: Option<&[u8]>,
    ) -> Result<Outcome, Refusal> {
        let Some(state) = self.state_at(parent) else {
            return Ok(Outcome::Unknown);
        };
        let (Some(body), Some(payload)) = (&entry.body, payload) else {
            return Ok(Outcome::Incompatible(format!("entry version {}", entry.v)));
        };
        let expected = Hash::of(&state);
        if body.state != expected && self.mutation != Some(Mutation::SkipPrev) {
            return Err(Refusal::StateMismatch {
                found: body.state,
                expected,
            });
        }
        if entry.kind().is_none() {
            return Ok(Outcome::Incompatible(format!("kind {}", body.kind)));
        }
        match self.fold_onto(&state, entry, payload) {
            Ok(state) if state.len() > MAX_STATE_BYTES => Err(Refusal::StateTooLarge {
                max: MAX_STATE_BYTES,
            }),
            Ok(state) => Ok(Outcome::Folded(state)),
            Err(FoldRefusal::Incompatible(reason)) => Ok(Outcome::Incompatible(reason)),
            Err(FoldRefusal::Refused(reason)) => Err(Refusal::Fold(reason)),
        }
    }

    fn keep(
        &mut self,
        parent: Hash,
        entry: Signed<Entry>,
        wire: &[u8],
        payload: Option<Vec<u8>>,
        outcome: &Outcome,
    ) {
        let hash = entry.hash();
        let owner_after = match (entry.kind(), entry.body.as_ref().map(|body| &body.target)) {
            (Some(Kind::OwnerRotate), Some(Target::Owner(owner))) => *owner,
            _ => self.owner_after(parent).unwrap_or(self.base_owner),
        };
        let incompatible = match outcome {
            Outcome::Incompatible(reason) => Some(reason.clone()),
            _ => None,
        };
        self.wires.insert(Hash::of(wire), hash);
        self.by_seq.entry(entry.seq).or_default().push(hash);
        match self.tree.get_mut(&parent) {
            Some(stored) => stored.children.push(hash),
            None => self.base_children.push(hash),
        }
        let stored = Stored {
            entry,
            payload,
            owner_after,
            children: Vec::new(),
            incompatible,
        };
        self.tree.insert(hash, stored);
    }

    /// Of an entry of this log, or of its base.
    fn children(&self, hash: Hash) -> &[Hash] {
        let stored = self.tree.get(&hash);
        stored.map_or(&self.base_children, |stored| &stored.children)
    }

    fn seq_of(&self, hash: Hash) -> u64 {
        self.tree
            .get(&hash)
            .map_or(self.base.seq, |stored| stored.entry.seq)
    }

    fn owner_after(&self, hash: Hash) -> Option<PublicKey> {
        if hash == self.base.hash {
            return Some(self.base_owner);
        }
        self.tree.get(&hash).map(|stored| stored.owner_after)
    }
}

/// What became of an entry's state.
enum Outcome {
    Folded(Vec<u8>),
    Incompatible(String),
    /// Behind an entry that is not understood.
    Unknown,
}

fn invalid(error: realm_identity::VerifyError) -> Refusal {
    Refusal::Invalid(error.to_string())
}

/// The revision after `seq`. The last one there can be has none.
fn next_seq(seq: u64, entry: &Signed<Entry>) -> Result<u64, Refusal> {
    seq.checked_add(1).ok_or(Refusal::BadSequence {
        found: entry.seq,
        expected: u64::MAX,
    })
}

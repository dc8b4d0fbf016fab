//! What an entry must go on from. Signatures say who wrote it; this says that none is missing.

use realm_manifest::identity::{Entry, Genesis, Hash, Kind, RealmId, Signed};

/// Where a log starts: at its genesis, or at a checkpoint.
pub(super) struct Start {
    pub realm: RealmId,
    /// The genesis, or the checkpoint's parent.
    pub base: (Hash, u64),
    /// The checkpoint's entry.
    pub checkpoint: Option<(Hash, u64)>,
}

impl Start {
    /// None where there is no genesis yet.
    pub fn read(
        genesis: Option<&[u8]>,
        checkpoint: Option<&[u8]>,
    ) -> Result<Option<Self>, &'static str> {
        let Some(genesis) = genesis else {
            return Ok(None);
        };
        let genesis =
            Signed::<Genesis>::from_wire(genesis).map_err(|_| "its genesis does not verify")?;
        let realm = genesis.realm_id();
        let Some(wire) = checkpoint else {
            return Ok(Some(Self {
                realm,
                base: (realm, 0),
                checkpoint: None,
            }));
        };
        let entry =
            Signed::<Entry>::from_wire(wire).map_err(|_| "its checkpoint does not verify")?;
        Ok(Some(Self {
            realm,
            base: (entry.prev, entry.seq.saturating_sub(1)),
            checkpoint: Some((entry.hash(), entry.seq)),
        }))
    }

    /// The revision of `hash`, if the log starts there.
    pub fn seq(&self, hash: &Hash) -> Option<u64> {
        [Some(self.base), self.checkpoint]
            .into_iter()
            .flatten()
            .find_map(|(start, seq)| (start == *hash).then_some(seq))
    }

    /// Whether the entry is older than where the log starts: what came before it may be gone.
    pub fn precedes(&self, entry: &Entry) -> bool {
        entry.seq <= self.base.1
    }
}

/// `parent` is the revision of the entry that `entry` names before it, if that is here.
pub(super) fn check(
    entry: &Signed<Entry>,
    start: &Start,
    parent: Option<u64>,
) -> Result<(), &'static str> {
    if entry.realm != start.realm {
        return Err("an entry is another realm's");
    }
    if start.precedes(entry) {
        return Ok(());
    }
    let parent = parent.ok_or("an entry before it is missing")?;
    let next = parent.checked_add(1).ok_or("its revision is too high")?;
    let follows = match entry.kind() {
        // A merge comes after the highest of the branches that it ends.
        Some(Kind::Merge) => entry.seq >= next,
        _ => entry.seq == next,
    };
    if follows {
        Ok(())
    } else {
        Err("its revision does not follow that of the entry before it")
    }
}

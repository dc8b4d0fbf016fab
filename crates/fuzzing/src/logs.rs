//! Logs as a node finds them on disk: the ledger with its mark, batch by batch and with damage; what is
//! made of it at a start; and what a command makes of the same entries as history.

use std::{
    io,
    sync::{Arc, Mutex, PoisonError},
};

use realm_identity::{Entry, Hash, Signed, WitnessedClaim};
use realm_store::{Ledger, LedgerContents, LedgerStorage, Op, StorageBackend};

use crate::{
    scene::{self, key, scene},
    script,
};

/// Steps of one input that are carried out: each may write the whole ledger to memory.
const MAX_STEPS: usize = 48;
/// What the files may grow to: the steps hold far less.
const MAX_FILE_BYTES: u64 = 64 * 1024 * 1024;

/// Kinds of steps.
const KINDS: u8 = 12;

/// Steps: things for the batch, ends of a batch, and damage.
pub fn feed(input: &[u8]) {
    let files = Files::default();
    let Ok(ledger) = Ledger::open_storage(files.clone()) else {
        panic!("a new ledger does not open");
    };
    let mut disk = Disk {
        files,
        ledger: Some(ledger),
        batch: Vec::new(),
        last_entry: Vec::new(),
        damaged: false,
        known: None,
    };
    disk.known = disk.contents();
    for step in script::steps(input).take(MAX_STEPS) {
        disk.step(step.op % KINDS, step.bytes);
    }
    disk.commit();
    disk.reopen();
    if let Some(contents) = &disk.known {
        history(contents);
    }
}

struct Disk {
    files: Files,
    ledger: Option<Ledger>,
    batch: Vec<Op>,
    last_entry: Vec<u8>,
    damaged: bool,
    /// What it held after the last step that may have changed it.
    known: Option<LedgerContents>,
}

impl Disk {
    fn step(&mut self, kind: u8, bytes: &[u8]) {
        let wire = bytes.to_vec();
        match kind {
            0 => self.batch.push(Op::Genesis { wire }),
            1 => self.batch.push(Op::Genesis {
                wire: scene().genesis.to_wire(),
            }),
            2 => self.entry(wire),
            3 => self.entry(scene::signed_again::<Entry>(bytes).unwrap_or(wire)),
            4 => self.batch.push(Op::Payload {
                sha256: Hash::of(bytes),
                bytes: wire,
            }),
            5 => self.batch.push(Op::Claim {
                hash: Hash::of(bytes),
                wire,
            }),
            6 => self.batch.push(Op::Report {
                node: *key(scene::NODES[0]).public().as_bytes(),
                seen_ms: 7,
                wire,
            }),
            7 => self.batch.push(Op::Checkpoint(realm_store::Checkpoint {
                entry: self.last_entry.clone(),
                state: wire,
                payload: Vec::new(),
            })),
            8 => self.batch.push(Op::CaughtUp),
            9 => self.commit(),
            10 => self.reopen(),
            _ => self.damage(bytes),
        }
    }

    fn entry(&mut self, wire: Vec<u8>) {
        let hash = Signed::<Entry>::from_wire(&wire).map_or(Hash::of(&wire), |entry| entry.hash());
        self.last_entry.clone_from(&wire);
        self.batch.push(Op::Entry { hash, wire });
    }

    /// What was committed can be loaded; what was refused changed nothing.
    fn commit(&mut self) {
        let batch = std::mem::take(&mut self.batch);
        let Some(ledger) = &mut self.ledger else {
            return;
        };
        let committed = ledger.commit(&batch);
        let after = self.contents();
        if !self.damaged {
            let after = after.as_ref().expect("a ledger that cannot be loaded");
            match committed {
                Ok(()) => acknowledged(&batch, after),
                Err(_) => assert_eq!(
                    self.known.as_ref(),
                    Some(after),
                    "a refused batch changed something"
                ),
            }
        }
        self.known = after;
    }

    /// After a stop in order everything is as it was.
    fn reopen(&mut self) {
        self.ledger = None;
        self.ledger = Ledger::open_storage(self.files.clone()).ok();
        let after = self.contents();
        if !self.damaged {
            assert_eq!(self.known, after, "a restart changed something");
        }
        if let Some(contents) = &after {
            realm_agent::fuzzing::restored(contents, &key(scene::NODES[0]));
        }
        self.known = after;
    }

    /// Writes over one of the files while nobody has it open: which, where, and what.
    fn damage(&mut self, bytes: &[u8]) {
        let Some(([which, high, middle, low], bytes)) = bytes.split_first_chunk() else {
            return;
        };
        self.ledger = None;
        self.damaged = true;
        let file = match which & 1 {
            0 => &self.files.ledger,
            _ => &self.files.mark,
        };
        let at = u32::from_be_bytes([0, *high, *middle, *low]);
        let mut held = file.held();
        let at = at as usize % held.len().max(1);
        for (byte, new) in held[at..].iter_mut().zip(bytes) {
            *byte = *new;
        }
        drop(held);
        self.ledger = Ledger::open_storage(self.files.clone()).ok();
        self.known = self.contents();
    }

    fn contents(&self) -> Option<LedgerContents> {
        let contents = self.ledger.as_ref()?.load().ok()?;
        for item in &contents.entries {
            let entry = Signed::<Entry>::from_wire(&item.entry).expect("an unsigned entry");
            if let (Some(payload), Some(body)) = (&item.payload, &entry.body) {
                assert_eq!(Hash::of(payload), body.payload.sha256, "another payload");
            }
        }
        Some(contents)
    }
}

/// What a batch acknowledged is there. A checkpoint stands for the entries before it.
fn acknowledged(batch: &[Op], contents: &LedgerContents) {
    let has = |wanted: &Hash| {
        contents.entries.iter().any(|item| {
            let entry = Signed::<Entry>::from_wire(&item.entry);
            entry.is_ok_and(|entry| entry.hash() == *wanted)
        })
    };
    for op in batch {
        match op {
            Op::Entry { hash, .. } if contents.checkpoint.is_none() => {
                assert!(has(hash), "an acknowledged entry is gone");
            }
            Op::Claim { wire, .. } => {
                assert!(
                    contents.claims.contains(wire),
                    "an acknowledged claim is gone"
                );
            }
            _ => {}
        }
    }
}

fn history(contents: &LedgerContents) {
    let intent = |item: &realm_store::Item| realm_rpc::Intent {
        entry: item.entry.clone(),
        payload: item.payload.clone(),
    };
    let entries: Vec<_> = contents.entries.iter().map(intent).collect();
    realm::fuzzing::history(&scene().genesis, &entries);
    for claim in &contents.claims {
        let _ = WitnessedClaim::from_wire(claim);
    }
}

/// Both files of a ledger, in memory.
#[derive(Debug, Clone, Default)]
struct Files {
    ledger: Bytes,
    mark: Bytes,
}

impl LedgerStorage for Files {
    fn ledger(&self) -> io::Result<Box<dyn StorageBackend>> {
        Ok(Box::new(self.ledger.clone()))
    }

    fn mark(&self) -> io::Result<Box<dyn StorageBackend>> {
        Ok(Box::new(self.mark.clone()))
    }
}

#[derive(Debug, Clone, Default)]
struct Bytes(Arc<Mutex<Vec<u8>>>);

impl Bytes {
    fn held(&self) -> std::sync::MutexGuard<'_, Vec<u8>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl StorageBackend for Bytes {
    fn len(&self) -> io::Result<u64> {
        Ok(self.held().len() as u64)
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        let held = self.held();
        let start = usize::try_from(offset).map_err(io::Error::other)?;
        let end = start.checked_add(out.len());
        let bytes = end.and_then(|end| held.get(start..end));
        out.copy_from_slice(bytes.ok_or_else(|| io::Error::other("past the end"))?);
        Ok(())
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        if len > MAX_FILE_BYTES {
            return Err(io::ErrorKind::StorageFull.into());
        }
        self.held().resize(len as usize, 0);
        Ok(())
    }

    fn sync_data(&self) -> io::Result<()> {
        Ok(())
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        let end = offset.saturating_add(data.len() as u64);
        if end > MAX_FILE_BYTES {
            return Err(io::ErrorKind::StorageFull.into());
        }
        let (start, end) = (offset as usize, end as usize);
        let mut held = self.held();
        if held.len() < end {
            held.resize(end, 0);
        }
        held[start..end].copy_from_slice(data);
        Ok(())
    }
}

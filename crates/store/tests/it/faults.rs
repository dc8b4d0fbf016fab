//! Storage that fails on purpose: every write and sync, one after the other.

use std::{
    io,
    sync::{Arc, Mutex},
};

use realm_store::{Ledger, LedgerError, Op, StorageBackend};

use super::{batch, chain, genesis};

/// A disk with a page cache: what was written and not synced may be lost, or torn.
#[derive(Debug, Clone, Default)]
struct Disk(Arc<Mutex<DiskState>>);

#[derive(Debug, Default)]
struct DiskState {
    synced: Vec<u8>,
    cache: Vec<u8>,
    /// Writes since the last sync, in order.
    pending: Vec<Write>,
    operations: u64,
    fail_at: Option<u64>,
}

#[derive(Debug, Clone)]
enum Write {
    Bytes(u64, Vec<u8>),
    Length(u64),
}

impl DiskState {
    fn step(&mut self) -> io::Result<()> {
        self.operations += 1;
        match self.fail_at {
            Some(at) if self.operations >= at => Err(io::Error::other("the power is gone")),
            _ => Ok(()),
        }
    }
}

fn apply(bytes: &mut Vec<u8>, write: &Write) {
    match write {
        Write::Length(length) => bytes.resize(*length as usize, 0),
        Write::Bytes(offset, data) => {
            let end = *offset as usize + data.len();
            if bytes.len() < end {
                bytes.resize(end, 0);
            }
            bytes[*offset as usize..end].copy_from_slice(data);
        }
    }
}

impl Disk {
    /// What is left after the power went: all that was synced, and of the rest whatever `seed` says.
    fn after_power_loss(&self, seed: u64) -> Self {
        let state = self.0.lock().unwrap();
        let mut bytes = state.synced.clone();
        let mut random = seed;
        for write in &state.pending {
            random = random
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1_442_695_040_888_963_407);
            match (random >> 33) % 3 {
                0 => {}
                1 => apply(&mut bytes, write),
                _ => {
                    if let Write::Bytes(offset, data) = write {
                        // Torn at a sector: the first part arrived, the rest did not.
                        let torn = (data.len() / 512).div_ceil(2) * 512;
                        apply(
                            &mut bytes,
                            &Write::Bytes(*offset, data[..torn.min(data.len())].to_vec()),
                        );
                    }
                }
            }
        }
        Self(Arc::new(Mutex::new(DiskState {
            synced: bytes.clone(),
            cache: bytes,
            ..DiskState::default()
        })))
    }
}

impl StorageBackend for Disk {
    fn len(&self) -> io::Result<u64> {
        Ok(self.0.lock().unwrap().cache.len() as u64)
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        let state = self.0.lock().unwrap();
        let (start, end) = (offset as usize, offset as usize + out.len());
        let bytes = state
            .cache
            .get(start..end)
            .ok_or_else(|| io::Error::other("past the end"))?;
        out.copy_from_slice(bytes);
        Ok(())
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        let mut state = self.0.lock().unwrap();
        state.step()?;
        let write = Write::Length(len);
        apply(&mut state.cache, &write);
        state.pending.push(write);
        Ok(())
    }

    fn sync_data(&self) -> io::Result<()> {
        let mut state = self.0.lock().unwrap();
        state.step()?;
        state.synced = state.cache.clone();
        state.pending.clear();
        Ok(())
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        let mut state = self.0.lock().unwrap();
        state.step()?;
        let write = Write::Bytes(offset, data.to_vec());
        apply(&mut state.cache, &write);
        state.pending.push(write);
        Ok(())
    }
}

const ENTRIES: u64 = 6;

/// Commits the chain until the disk fails; says how many batches were acknowledged.
fn run(disk: &Disk) -> u64 {
    let Ok(mut ledger) = Ledger::open_backend(disk.clone()) else {
        return 0;
    };
    let mut acknowledged = 0;
    let genesis = vec![Op::Genesis {
        wire: genesis().to_wire(),
    }];
    for batch in std::iter::once(genesis).chain(chain(ENTRIES).iter().map(batch)) {
        if ledger.commit(&batch).is_err() {
            assert!(matches!(ledger.commit(&batch), Err(LedgerError::Failed)));
            break;
        }
        acknowledged += 1;
    }
    acknowledged
}

fn check(disk: Disk, acknowledged: u64, context: &str) {
    let ledger = Ledger::open_backend(disk).unwrap_or_else(|error| panic!("{context}: {error:?}"));
    let contents = ledger
        .load()
        .unwrap_or_else(|error| panic!("{context}: {error:?}"));
    let found = u64::from(contents.genesis.is_some()) + contents.entries.len() as u64;
    assert!(
        found >= acknowledged,
        "{context}: {found} of {acknowledged} acknowledged batches"
    );
    assert!(
        found <= acknowledged + 1,
        "{context}: {found} batches, {acknowledged} acknowledged"
    );
    for item in &contents.entries {
        assert!(
            item.payload.is_some(),
            "{context}: an entry without its payload"
        );
    }
}

#[test]
fn no_acknowledged_batch_is_lost_wherever_the_power_goes() {
    // Making the file is the rename's business; here the ledger exists.
    let created = Disk::default();
    drop(Ledger::open_backend(created.clone()).unwrap());
    let whole = created.after_power_loss(0);
    assert_eq!(run(&whole), ENTRIES + 1);
    let operations = whole.0.lock().unwrap().operations;
    assert!(
        operations > 20,
        "{operations} operations are too few to mean much"
    );
    for fail_at in 1..=operations {
        let disk = created.after_power_loss(0);
        disk.0.lock().unwrap().fail_at = Some(fail_at);
        let acknowledged = run(&disk);
        for seed in 0..4 {
            let after = disk.after_power_loss(seed ^ (fail_at << 8));
            check(
                after,
                acknowledged,
                &format!("power lost at operation {fail_at}, seed {seed}"),
            );
        }
    }
}

#[test]
fn after_a_full_disk_the_ledger_opens_again_and_goes_on() {
    let disk = Disk::default();
    assert_eq!(run(&disk), ENTRIES + 1);
    let entry = chain(ENTRIES + 1).pop().unwrap();
    let operations = disk.0.lock().unwrap().operations;
    {
        let mut ledger = Ledger::open_backend(disk.clone()).unwrap();
        let now = disk.0.lock().unwrap().operations;
        disk.0.lock().unwrap().fail_at = Some(now + 1);
        let error = ledger.commit(&batch(&entry)).unwrap_err();
        assert!(error.to_string().contains("free disk space"), "{error}");
        assert_eq!(
            ledger.load().unwrap().entries.len() as u64,
            ENTRIES,
            "reading goes on"
        );
        disk.0.lock().unwrap().fail_at = None;
    }
    assert!(disk.0.lock().unwrap().operations > operations);
    let mut ledger = Ledger::open_backend(disk).unwrap();
    ledger.commit(&batch(&entry)).unwrap();
    assert_eq!(ledger.load().unwrap().entries.len() as u64, ENTRIES + 1);
}

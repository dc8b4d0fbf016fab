//! Disks in memory that lose power, fill up and fail on purpose.

use std::{
    io,
    sync::{
        Arc, Mutex,
        atomic::{AtomicU64, Ordering},
    },
};

use realm_store::{LedgerStorage, StorageBackend};

/// What both files of a ledger depend on.
#[derive(Debug)]
pub struct Power {
    operations: AtomicU64,
    fail_at: AtomicU64,
}

impl Default for Power {
    fn default() -> Self {
        Self {
            operations: AtomicU64::new(0),
            fail_at: AtomicU64::new(u64::MAX),
        }
    }
}

impl Power {
    fn step(&self) -> io::Result<()> {
        let now = self.operations.fetch_add(1, Ordering::SeqCst) + 1;
        if now >= self.fail_at.load(Ordering::SeqCst) {
            return Err(io::Error::other("the power is gone"));
        }
        Ok(())
    }
}

/// A ledger and its mark on disks with a page cache: what was written and not synced may be
/// lost, or torn.
#[derive(Debug, Clone, Default)]
pub struct Disks {
    pub ledger: Disk,
    pub mark: Disk,
    power: Arc<Power>,
}

#[derive(Debug, Clone, Default)]
pub struct Disk {
    state: Arc<Mutex<DiskState>>,
    power: Arc<Power>,
}

#[derive(Debug, Default)]
struct DiskState {
    synced: Vec<u8>,
    cache: Vec<u8>,
    /// Writes since the last sync, in order.
    pending: Vec<Write>,
    syncs: u64,
    /// Bytes from here on have no room on the disk.
    room: Option<u64>,
    syncs_fail: bool,
}

#[derive(Debug, Clone)]
enum Write {
    Bytes(u64, Vec<u8>),
    Length(u64),
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

impl Disks {
    pub fn new() -> Self {
        Self::holding(Vec::new(), Vec::new())
    }

    pub fn holding(ledger: Vec<u8>, mark: Vec<u8>) -> Self {
        let power = Arc::<Power>::default();
        let disk = |bytes: Vec<u8>| Disk {
            state: Arc::new(Mutex::new(DiskState {
                synced: bytes.clone(),
                cache: bytes,
                ..DiskState::default()
            })),
            power: power.clone(),
        };
        Self {
            ledger: disk(ledger),
            mark: disk(mark),
            power: power.clone(),
        }
    }

    /// What is left after the power went: all that was synced, and of the rest whatever `seed` says.
    pub fn after_power_loss(&self, seed: u64) -> Self {
        Self::holding(
            self.ledger.after_power_loss(seed),
            self.mark.after_power_loss(seed.rotate_left(17)),
        )
    }

    pub fn operations(&self) -> u64 {
        self.power.operations.load(Ordering::SeqCst)
    }

    /// Of the ledger and of the mark.
    pub fn syncs(&self) -> (u64, u64) {
        let of = |disk: &Disk| disk.state.lock().unwrap().syncs;
        (of(&self.ledger), of(&self.mark))
    }

    /// Everything from this operation on fails.
    pub fn fail_at(&self, operation: u64) {
        self.power.fail_at.store(operation, Ordering::SeqCst);
    }
}

impl Disk {
    pub fn bytes(&self) -> Vec<u8> {
        self.state.lock().unwrap().cache.clone()
    }

    /// Bytes from `room` on cannot be written; None gives room again.
    pub fn fill(&self, room: Option<u64>) {
        self.state.lock().unwrap().room = room;
    }

    pub fn fail_syncs(&self, fail: bool) {
        self.state.lock().unwrap().syncs_fail = fail;
    }

    fn after_power_loss(&self, seed: u64) -> Vec<u8> {
        let state = self.state.lock().unwrap();
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
                        // Torn: the first part arrived, the rest did not.
                        let torn = (data.len() / 512).div_ceil(2) * 512;
                        let torn = if data.len() < 512 {
                            data.len() / 2
                        } else {
                            torn
                        };
                        apply(
                            &mut bytes,
                            &Write::Bytes(*offset, data[..torn.min(data.len())].to_vec()),
                        );
                    }
                }
            }
        }
        bytes
    }
}

impl LedgerStorage for Disks {
    fn ledger(&self) -> io::Result<Box<dyn StorageBackend>> {
        Ok(Box::new(self.ledger.clone()))
    }

    fn mark(&self) -> io::Result<Box<dyn StorageBackend>> {
        Ok(Box::new(self.mark.clone()))
    }
}

impl StorageBackend for Disk {
    fn len(&self) -> io::Result<u64> {
        Ok(self.state.lock().unwrap().cache.len() as u64)
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        let state = self.state.lock().unwrap();
        let (start, end) = (offset as usize, offset as usize + out.len());
        let bytes = state
            .cache
            .get(start..end)
            .ok_or_else(|| io::Error::other("past the end"))?;
        out.copy_from_slice(bytes);
        Ok(())
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.power.step()?;
        let mut state = self.state.lock().unwrap();
        let write = Write::Length(len);
        apply(&mut state.cache, &write);
        state.pending.push(write);
        Ok(())
    }

    fn sync_data(&self) -> io::Result<()> {
        self.power.step()?;
        let mut state = self.state.lock().unwrap();
        if state.syncs_fail {
            return Err(io::Error::other("the disk did not answer"));
        }
        state.syncs += 1;
        state.synced = state.cache.clone();
        state.pending.clear();
        Ok(())
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        self.power.step()?;
        let mut state = self.state.lock().unwrap();
        if state
            .room
            .is_some_and(|room| offset + data.len() as u64 > room)
        {
            return Err(io::ErrorKind::StorageFull.into());
        }
        let write = Write::Bytes(offset, data.to_vec());
        apply(&mut state.cache, &write);
        state.pending.push(write);
        Ok(())
    }
}

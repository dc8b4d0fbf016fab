//! What artifacts leave free on their disk: a log that cannot be written takes no intent, not even
//! the one that takes the artifact away.

use super::{
    BlobError,
    room::{Kept, Wanted},
};
use crate::room::DiskRoom;

const MIB: u64 = 1024 * 1024;
/// Artifacts leave this part of a small file system free,
const RESERVE_PART: u64 = 16;
/// and never more than this, in bytes,
const RESERVE_MAX: u64 = 16 * MIB;
/// nor less: with less than 1 MiB free an agent counts its disk as full, and writes no log.
const RESERVE_MIN: u64 = 2 * MIB;

/// Bytes that artifacts leave free on a file system of `total` bytes.
pub(super) fn reserve(total: u64) -> u64 {
    (total / RESERVE_PART).clamp(RESERVE_MIN, RESERVE_MAX)
}

/// What has to go before something fits.
#[derive(Debug)]
pub(super) struct Gap {
    /// Bytes that count in the budget now.
    pub used: u64,
    /// Bytes over the budget.
    pub budget: u64,
    /// None where the file system does not tell: then the budget decides.
    pub disk: Option<DiskGap>,
}

/// In bytes.
#[derive(Debug)]
pub(super) struct DiskGap {
    /// Free to it, with what it holds already and without what others were promised.
    free: u64,
    reserve: u64,
    lacks: u64,
}

impl DiskGap {
    /// `promised`: bytes that others under way will still write.
    pub fn of(room: DiskRoom, promised: u64, wanted: &Wanted<'_>) -> Self {
        let free = room.free.saturating_sub(promised);
        let reserve = reserve(room.total);
        let lacks = match wanted.disk {
            0 => 0,
            more => more.saturating_add(reserve).saturating_sub(free),
        };
        let free = free.saturating_add(wanted.held);
        Self {
            free,
            reserve,
            lacks,
        }
    }
}

impl Gap {
    pub fn is_closed(&self) -> bool {
        self.budget == 0 && self.disk.as_ref().is_none_or(|disk| disk.lacks == 0)
    }

    /// What it is when `kept` has gone.
    pub fn close(&mut self, kept: &Kept) {
        self.budget = self.budget.saturating_sub(kept.size);
        if let Some(disk) = &mut self.disk {
            disk.lacks = disk.lacks.saturating_sub(kept.allocated);
        }
    }

    pub fn refusal(&self, wanted: &Wanted<'_>, budget: u64) -> Option<BlobError> {
        if self.budget > 0 {
            return Some(BlobError::Budget {
                size: wanted.budget,
                used: self.used,
                budget,
            });
        }
        let disk = self.disk.as_ref().filter(|disk| disk.lacks > 0)?;
        Some(BlobError::NoRoom {
            size: wanted.size,
            free: disk.free,
            reserve: disk.reserve,
        })
    }
}

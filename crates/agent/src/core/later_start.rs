//! A later start of this node that others remember: its directory is an older copy, or its clock was ahead
//! once. They take nothing of it for news until its number is above that one's.

use std::collections::BTreeSet;

use realm_identity::{PublicKey, Signed};
use realm_manifest::report::NodeReport;
use realm_protocol::{Frame, Now};

use super::Core;

/// Nodes that were here meanwhile know, and they are found soon after the start.
const ASK_FOR_MS: u64 = 60_000;
/// Any of them knows.
const MAX_ASKED: usize = 16;

#[derive(Debug)]
pub(crate) struct LaterStart {
    /// Whether anybody is asked.
    looks: bool,
    asked: BTreeSet<PublicKey>,
    /// Its number.
    pub found: Option<u64>,
}

impl LaterStart {
    pub fn new(looks: bool) -> Self {
        Self {
            looks,
            asked: BTreeSet::new(),
            found: None,
        }
    }
}

impl Core {
    /// Asks a node that came for a later report of this one. Only who has one answers.
    pub(super) async fn ask_for_later_start(&mut self, peer: PublicKey, now: Now) {
        if !self.later_start.looks
            || self.runs_for_ms(now) > ASK_FOR_MS
            || self.later_start.asked.len() >= MAX_ASKED
            || !self.approved.contains_key(&peer)
            || !self.later_start.asked.insert(peer)
        {
            return;
        }
        let wanted = Frame::GetReport {
            node: self.key.public(),
            boot_id: self.reporter.boot_id().saturating_add(1),
            seq: 0,
        };
        if self
            .network
            .send_frame(peer, wanted.encode().into())
            .await
            .is_err()
        {
            tracing::debug!("the network has stopped");
        }
    }

    /// Looks for this node's own later report in what a node that was asked sends. Nobody else can have
    /// signed one, and the next start is later than it.
    pub(super) fn look_for_later_start(&mut self, from: PublicKey, bytes: &[u8], now: Now) {
        if self.runs_for_ms(now) > 2 * ASK_FOR_MS || !self.later_start.asked.contains(&from) {
            return;
        }
        let Ok(Frame::Report(wire)) = Frame::decode(bytes) else {
            return;
        };
        let Ok(report) = Signed::<NodeReport>::from_wire(&wire) else {
            return;
        };
        let is_own = report.node == self.key.public() && Some(report.realm) == self.realm();
        if is_own && report.boot_id > self.reporter.boot_id() {
            let later = self.later_start.found.unwrap_or_default();
            self.later_start.found = Some(later.max(report.boot_id));
        }
    }

    const fn runs_for_ms(&self, now: Now) -> u64 {
        now.mono.saturating_sub(self.started_mono)
    }

    /// Has the next start number itself above the one that was found. Whether it will.
    pub(super) fn step_over_later_start(&mut self) -> bool {
        let Some(boot) = self.later_start.found.take() else {
            return false;
        };
        tracing::warn!(
            "others remember a later start of this node: its data directory is an older copy, or its clock was ahead; starting again above it"
        );
        match self.boot_file.write(&boot.to_be_bytes()) {
            Ok(()) => true,
            Err(error) => {
                // Nothing is better for another start then.
                tracing::warn!(%error, "the number of the next start cannot be kept");
                false
            }
        }
    }
}

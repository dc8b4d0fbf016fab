//! What an agent finds on disk when it starts.

use std::collections::BTreeMap;

use realm_identity::{InviteToken, PublicKey, SecretKey, Signed, Timestamp};
use realm_manifest::report::NodeReport;
use realm_protocol::Node;
use realm_store::{DataDir, Ledger, LedgerContents};

use super::StartError;
use crate::{
    Config,
    clock::Clock,
    core::Seen,
    fold::PlannerFold,
    ledger::{self, LEDGER},
    sealing::Sealing,
    trust::{self, Trust},
};

/// What the data directory holds, opened.
pub(super) struct Kept {
    pub dir: DataDir,
    pub key: SecretKey,
    pub sealing: Sealing,
    pub trust: Trust,
    pub ledger: Ledger,
    pub contents: LedgerContents,
}

impl Kept {
    /// Refuses what does not belong together, and takes up what the flags of this start ask for.
    pub fn open(config: &Config) -> Result<Self, StartError> {
        let dir = DataDir::open(&config.data)?;
        let key = trust::node_key(&dir)?;
        let sealing = Sealing::load(&dir, &key)?;
        let mut trust = Trust::load(&dir)?;
        let ledger = Ledger::open(&dir.path().join(LEDGER))?;
        let contents = ledger.load()?;
        if contents.genesis.is_some() || contents.checkpoint.is_some() {
            trust.check_pin(LEDGER)?;
        }
        if let Some(window) = config.trust_first_use {
            trust.open_window(window)?;
        }
        if let Some(token) = &config.enroll {
            enroll(&mut trust, token, &key)?;
        }
        Ok(Self {
            dir,
            key,
            sealing,
            trust,
            ledger,
            contents,
        })
    }
}

/// What earlier starts left behind.
pub(super) struct Past {
    /// Number of this start.
    pub boot_id: u64,
    pub node: Node<PlannerFold>,
    pub reports: BTreeMap<PublicKey, Seen>,
}

impl Past {
    pub fn read(kept: &Kept, clock: &Clock) -> Result<Self, StartError> {
        let reports = reports(&kept.contents);
        let own = reports.get(&kept.key.public());
        let boot_id = trust::next_boot(&kept.dir, own.map(|own| own.report.boot_id))?;
        let node = restore(&kept.trust, &kept.key, boot_id, &kept.contents, clock)?;
        Ok(Self {
            boot_id,
            node,
            reports,
        })
    }
}

fn enroll(trust: &mut Trust, token: &str, key: &SecretKey) -> Result<(), StartError> {
    let token: InviteToken = token.trim().parse()?;
    trust.enroll(&token, key).map_err(StartError::Enroll)
}

fn restore(
    trust: &Trust,
    key: &SecretKey,
    boot_id: u64,
    contents: &LedgerContents,
    clock: &Clock,
) -> Result<Node<PlannerFold>, StartError> {
    let pin = trust.pin();
    let config = realm_protocol::Config {
        key: key.clone(),
        realm: pin.realm(),
        pins: pin.owner().into_iter().collect(),
        boot_id,
        seed: trust::random_u64()?,
        mutation: None,
    };
    Ok(Node::new(
        config,
        PlannerFold,
        ledger::restored(contents),
        clock.now(),
    )?)
}

fn reports(contents: &LedgerContents) -> BTreeMap<PublicKey, Seen> {
    let read = |(_, seen_ms, wire): &([u8; 32], u64, Vec<u8>)| {
        let report = Signed::<NodeReport>::from_wire(wire).ok()?;
        Some((report.node, Seen::new(report, Timestamp(*seen_ms))))
    };
    contents.reports.iter().filter_map(read).collect()
}

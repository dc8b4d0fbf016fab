//! Whom this node trusts, on disk: the pin, and the invite it took up.

use std::{path::PathBuf, time::Duration};

use realm_identity::{
    Claim, InviteError, InviteToken, OwnerPin, PinError, PublicKey, SecretKey, Signed, Timestamp,
    canonical,
};
use realm_store::{DataDir, DirError, StateFileError};

use crate::{clock, floor::Floor};

/// Everything that decides trust on this node. Every change is on disk before it counts.
#[derive(Debug)]
pub struct Trust {
    pin: OwnerPin,
    pin_file: realm_store::StateFile,
    claim_file: realm_store::StateFile,
    pub floor: Floor,
    /// There was no pin on disk: nobody has been trusted yet, or the file is lost.
    pinless: bool,
}

#[derive(Debug, thiserror::Error)]
pub enum TrustError {
    #[error(transparent)]
    Dir(#[from] DirError),
    #[error(transparent)]
    File(#[from] StateFileError),
    #[error("the owner pin is damaged")]
    Pin(#[source] canonical::Error),
    #[error(
        "{path} is gone, and {because} says that this node has an owner: put it back from a backup of this node, or let the node join anew: realm leave, then realm enroll"
    )]
    PinGone {
        path: PathBuf,
        because: &'static str,
    },
    #[error(transparent)]
    Refused(#[from] PinError),
    #[error("the invite cannot be used")]
    Invite(#[from] InviteError),
    #[error("the operating system gives no random numbers")]
    Random(#[source] getrandom::Error),
}

impl Trust {
    pub fn load(dir: &DataDir) -> Result<Self, TrustError> {
        let pin_file = dir.state_file("owner.pin");
        let stored = pin_file.read()?;
        let pinless = stored.is_none();
        let pin = match stored {
            Some(bytes) => OwnerPin::from_bytes(&bytes).map_err(TrustError::Pin)?,
            None => OwnerPin::default(),
        };
        let trust = Self {
            pin,
            pin_file,
            claim_file: dir.state_file("claim"),
            floor: Floor::load(dir)?,
            pinless,
        };
        if trust.claim_file.read()?.is_some() {
            trust.check_pin("claim")?;
        }
        Ok(trust)
    }

    /// Refuses a pin that is not there, where `because` cannot be without one: a node that forgot
    /// its owner would take another one.
    pub fn check_pin(&self, because: &'static str) -> Result<(), TrustError> {
        if !self.pinless {
            return Ok(());
        }
        Err(TrustError::PinGone {
            path: self.pin_file.path().to_owned(),
            because,
        })
    }

    /// The present, where time decides.
    pub fn now(&self) -> Timestamp {
        self.floor.raised(clock::wall())
    }

    pub fn pin(&self) -> OwnerPin {
        self.pin
    }

    /// `realm configure --owner`.
    pub fn configure(&mut self, owner: PublicKey) -> Result<(), TrustError> {
        self.set(self.pin.pin_by_configure(owner)?)
    }

    /// `realm enroll`: pins the invite's owner and keeps the claim until it is witnessed.
    /// One that this node has taken up already stays as it is, also where it has expired since: a
    /// restart of the agent hands it in again.
    pub fn enroll(&mut self, token: &InviteToken, node: &SecretKey) -> Result<(), TrustError> {
        let taken_up = |claim: &Signed<Claim>| {
            claim.key == token.secret().public() && claim.node == node.public()
        };
        if self.claim()?.as_ref().is_some_and(taken_up) {
            return Ok(());
        }
        let invite = token.invite();
        let now = self.now();
        invite.check_time(now)?;
        let pin = self.pin.pin_by_invite(invite.owner, invite.realm)?;
        let claim =
            Claim::sign(invite, token.secret(), node, now).unwrap_or_else(|never| match never {});
        // In this order: a claim without a pin is a pin that was lost.
        self.set(pin)?;
        self.claim_file.write(&claim.to_wire())?;
        Ok(())
    }

    /// `realm agent --trust-first-use`: opens the window. A pinned node stays pinned.
    pub fn open_window(&mut self, time: Duration) -> Result<(), TrustError> {
        if self.pin.owner().is_some() {
            return Ok(());
        }
        let millis = u64::try_from(time.as_millis()).unwrap_or(u64::MAX);
        self.set(self.pin.open_window(self.now().plus_millis(millis))?)
    }

    /// A key that was proven over the network, with the realm whose genesis it signed.
    pub fn offer(
        &mut self,
        owner: PublicKey,
        realm: realm_identity::RealmId,
        now: Timestamp,
    ) -> Result<(), TrustError> {
        let now = self.floor.raised(now);
        self.set(self.pin.offer(owner, Some(realm), now)?)
    }

    /// The realm's verified chain names another owner.
    pub fn follow_rotation(&mut self, from: PublicKey, to: PublicKey) -> Result<(), TrustError> {
        self.set(self.pin.follow_rotation(from, to)?)
    }

    /// The invite that this node took up, if it did.
    pub fn claim(&self) -> Result<Option<Signed<Claim>>, TrustError> {
        let Some(wire) = self.claim_file.read()? else {
            return Ok(None);
        };
        let claim = Signed::from_wire(&wire);
        Ok(Some(claim.map_err(|_| self.claim_file.damaged())?))
    }

    fn set(&mut self, pin: OwnerPin) -> Result<(), TrustError> {
        if pin != self.pin {
            self.pin_file.write(&pin.to_bytes())?;
            self.pin = pin;
            self.pinless = false;
        }
        Ok(())
    }
}

/// The node's signing key, made at the first start. Later a lost one is an error.
pub fn node_key(dir: &DataDir) -> Result<SecretKey, TrustError> {
    Ok(SecretKey::from_seed(&dir.identity("node.key", random)?))
}

/// A secret of 32 bytes that never leaves this directory.
pub fn secret(dir: &DataDir, name: &str) -> Result<[u8; 32], TrustError> {
    Ok(dir.secret(name, random)?)
}

/// Bytes from the operating system.
pub fn random() -> std::io::Result<[u8; 32]> {
    let mut bytes = [0; 32];
    getrandom::fill(&mut bytes).map_err(std::io::Error::other)?;
    Ok(bytes)
}

/// More than the starts that a node makes without putting a report on disk, which it does when it
/// stops in order. As milliseconds it is little: where the file comes back with the number that it had,
/// the clock is beyond this soon.
const UNREPORTED_STARTS: u64 = 10_000;

/// The number of this start, durable before anybody hears it: it rises with every start, also
/// when the clock was set back, and when the directory was restored from a copy. Others do not
/// hear a node whose number fell.
///
/// `reported` is the number in the node's own report in the ledger. Where the file is lost or
/// damaged the number goes on from there, well above the starts that left no report; without a
/// report the clock has to do.
pub fn next_boot(dir: &DataDir, reported: Option<u64>) -> Result<u64, TrustError> {
    let file = boot_file(dir);
    let loss = "the number of this start is taken from the clock and the node's last report";
    let last = file.read_or_lose(loss, |bytes| bytes.try_into().ok().map(u64::from_be_bytes))?;
    let last = match (last.known(), reported) {
        (Some(last), reported) => last.max(reported.unwrap_or_default()),
        (None, Some(reported)) => reported.saturating_add(UNREPORTED_STARTS),
        (None, None) => 0,
    };
    let next = last.saturating_add(1).max(clock::wall().as_millis());
    file.write(&next.to_be_bytes())?;
    Ok(next)
}

/// Where the number of the last start is kept.
pub(crate) fn boot_file(dir: &DataDir) -> realm_store::StateFile {
    dir.state_file("boot")
}

/// A random number for a seed.
pub fn random_u64() -> Result<u64, TrustError> {
    getrandom::u64().map_err(TrustError::Random)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use realm_identity::{Genesis, Invite};

    use super::*;

    fn key(seed: u8) -> SecretKey {
        SecretKey::from_seed(&[seed; 32])
    }

    fn genesis(owner: &SecretKey) -> Signed<Genesis> {
        Signed::sign(Genesis::new(owner.public(), "home".into(), [0; 32]), owner).unwrap()
    }

    fn token(owner: &SecretKey, from: Timestamp) -> InviteToken {
        let secret = key(50);
        let mut invite = Invite::new(
            &genesis(owner),
            owner.public(),
            secret.public(),
            from,
            from.plus_millis(60_000),
        );
        invite.name = Some("one".into());
        InviteToken::new(Signed::sign(invite, owner).unwrap(), secret).unwrap()
    }

    #[test]
    fn trust_survives_a_restart_and_a_second_owner_is_refused() {
        let temp = tempfile::tempdir().unwrap();
        let dir = DataDir::open(temp.path()).unwrap();
        let node = node_key(&dir).unwrap();
        let mut trust = Trust::load(&dir).unwrap();
        trust.enroll(&token(&key(1), clock::wall()), &node).unwrap();
        let again = Trust::load(&dir).unwrap();
        assert_eq!(again.pin().owner(), Some(key(1).public()));
        assert_eq!(again.claim().unwrap().unwrap().node, node.public());
        assert!(matches!(
            trust.configure(key(2).public()),
            Err(TrustError::Refused(PinError::OtherOwner { .. }))
        ));
        assert_eq!(node_key(&dir).unwrap().public(), node.public());
    }

    #[test]
    fn a_node_that_lost_its_key_does_not_make_another() {
        let temp = tempfile::tempdir().unwrap();
        let dir = DataDir::open(temp.path()).unwrap();
        let node = node_key(&dir).unwrap();
        let mut trust = Trust::load(&dir).unwrap();
        trust.enroll(&token(&key(1), clock::wall()), &node).unwrap();
        std::fs::remove_file(temp.path().join("node.key")).unwrap();
        let error = node_key(&dir).unwrap_err();
        assert!(
            matches!(error, TrustError::Dir(DirError::KeyGone { .. })),
            "{error}"
        );
    }

    #[test]
    fn a_claim_without_a_pin_is_a_pin_that_was_lost() {
        let temp = tempfile::tempdir().unwrap();
        let dir = DataDir::open(temp.path()).unwrap();
        let node = node_key(&dir).unwrap();
        let mut trust = Trust::load(&dir).unwrap();
        trust.enroll(&token(&key(1), clock::wall()), &node).unwrap();
        std::fs::remove_file(temp.path().join("owner.pin")).unwrap();
        let error = Trust::load(&dir).unwrap_err();
        assert!(
            matches!(
                &error,
                TrustError::PinGone {
                    because: "claim",
                    ..
                }
            ),
            "{error}"
        );
        assert!(error.to_string().contains("owner.pin is gone"), "{error}");
    }

    #[test]
    fn an_invite_that_was_taken_up_stays_so_once_it_has_expired() {
        let temp = tempfile::tempdir().unwrap();
        let dir = DataDir::open(temp.path()).unwrap();
        let mut trust = Trust::load(&dir).unwrap();
        let (good, node) = (token(&key(1), clock::wall()), key(9));
        trust.enroll(&good, &node).unwrap();
        let claim = trust.claim().unwrap().map(|claim| claim.to_wire());
        let later = clock::wall().plus_millis(3_600_000);
        trust.floor.saw(later, later);
        trust.enroll(&good, &node).unwrap();
        assert_eq!(trust.claim().unwrap().map(|claim| claim.to_wire()), claim);
        assert!(trust.enroll(&good, &key(8)).is_err(), "another node's key");
    }

    #[test]
    fn an_expired_invite_changes_nothing() {
        let temp = tempfile::tempdir().unwrap();
        let dir = DataDir::open(temp.path()).unwrap();
        let mut trust = Trust::load(&dir).unwrap();
        let error = trust
            .enroll(&token(&key(1), Timestamp(1_000)), &key(9))
            .unwrap_err();
        assert!(
            matches!(error, TrustError::Invite(InviteError::Expired)),
            "{error}"
        );
        assert_eq!(Trust::load(&dir).unwrap().pin(), OwnerPin::Unpinned);
    }

    #[test]
    fn a_clock_that_was_reset_takes_no_expired_invite() {
        let temp = tempfile::tempdir().unwrap();
        let dir = DataDir::open(temp.path()).unwrap();
        let mut trust = Trust::load(&dir).unwrap();
        // It has seen a time after which this invite, good by the clock, has expired.
        let good = token(&key(1), clock::wall());
        let later = clock::wall().plus_millis(3_600_000);
        trust.floor.saw(later, later);
        let error = trust.enroll(&good, &key(9)).unwrap_err();
        assert!(
            matches!(error, TrustError::Invite(InviteError::Expired)),
            "{error}"
        );
        // So it is with a window that has closed.
        trust.open_window(Duration::from_secs(60)).unwrap();
        let after = later.plus_millis(120_000);
        trust.floor.saw(after, after);
        let owner = genesis(&key(1));
        let reset = Timestamp(1_000);
        assert!(
            trust
                .offer(key(1).public(), owner.realm_id(), reset)
                .is_err()
        );
    }

    #[test]
    fn the_network_pins_nothing_outside_an_open_window() {
        let temp = tempfile::tempdir().unwrap();
        let dir = DataDir::open(temp.path()).unwrap();
        let mut trust = Trust::load(&dir).unwrap();
        let (first, second) = (genesis(&key(1)), genesis(&key(2)));
        let now = clock::wall();
        assert!(trust.offer(key(1).public(), first.realm_id(), now).is_err());
        trust.open_window(Duration::from_secs(60)).unwrap();
        trust.offer(key(1).public(), first.realm_id(), now).unwrap();
        assert!(
            trust
                .offer(key(2).public(), second.realm_id(), now)
                .is_err()
        );
        assert_eq!(trust.pin().realm(), Some(first.realm_id()));
        trust.open_window(Duration::from_secs(60)).unwrap();
        assert_eq!(
            trust.pin().owner(),
            Some(key(1).public()),
            "a pinned node stays pinned"
        );
    }

    #[test]
    fn a_pin_is_missed_until_somebody_is_trusted() {
        let temp = tempfile::tempdir().unwrap();
        let dir = DataDir::open(temp.path()).unwrap();
        let mut trust = Trust::load(&dir).unwrap();
        assert!(matches!(
            trust.check_pin("ledger.redb"),
            Err(TrustError::PinGone {
                because: "ledger.redb",
                ..
            })
        ));
        trust.configure(key(1).public()).unwrap();
        trust.check_pin("ledger.redb").unwrap();
        let again = Trust::load(&dir).unwrap();
        again.check_pin("ledger.redb").unwrap();
        assert_eq!(again.pin().owner(), Some(key(1).public()));
    }

    #[test]
    fn the_pin_follows_its_owner_s_own_chain_also_over_a_restart() {
        let temp = tempfile::tempdir().unwrap();
        let dir = DataDir::open(temp.path()).unwrap();
        let [first, second, third] = [1, 2, 3].map(|seed| key(seed).public());
        let mut trust = Trust::load(&dir).unwrap();
        assert!(
            trust.follow_rotation(first, second).is_err(),
            "nobody is trusted yet"
        );
        trust.configure(first).unwrap();
        trust.follow_rotation(first, second).unwrap();
        let mut again = Trust::load(&dir).unwrap();
        assert_eq!(again.pin().owner(), Some(second));
        assert!(matches!(
            again.follow_rotation(first, third),
            Err(TrustError::Refused(PinError::OtherOwner { owner })) if owner == second
        ));
        assert_eq!(Trust::load(&dir).unwrap().pin().owner(), Some(second));
    }

    #[test]
    fn a_secret_stays_and_no_two_are_alike() {
        let temp = tempfile::tempdir().unwrap();
        let dir = DataDir::open(temp.path()).unwrap();
        let first = secret(&dir, "one").unwrap();
        assert_ne!(secret(&dir, "two").unwrap(), first);
        assert_eq!(secret(&dir, "one").unwrap(), first);
        assert_ne!(random().unwrap(), random().unwrap());
        assert_ne!(random_u64().unwrap(), random_u64().unwrap());
    }

    #[test]
    fn boots_rise_also_when_the_clock_falls() {
        let temp = tempfile::tempdir().unwrap();
        let dir = DataDir::open(temp.path()).unwrap();
        let first = next_boot(&dir, None).unwrap();
        assert!(first >= clock::wall().as_millis() - 60_000);
        let far_ahead = first + 1_000_000_000;
        dir.state_file("boot")
            .write(&far_ahead.to_be_bytes())
            .unwrap();
        assert_eq!(next_boot(&dir, None).unwrap(), far_ahead + 1);
        // An older copy of the file knows less than the ledger.
        assert_eq!(
            next_boot(&dir, Some(far_ahead + 9)).unwrap(),
            far_ahead + 10
        );
    }

    #[test]
    fn boots_rise_also_when_their_file_is_damaged_or_gone() {
        let temp = tempfile::tempdir().unwrap();
        let dir = DataDir::open(temp.path()).unwrap();
        let path = temp.path().join("boot");
        // The clock was far ahead once; the starts after the last report went on from there.
        let reported = clock::wall().as_millis() + 1_000_000_000;
        let mut last = reported + 100;
        for spoiled in [&b"short"[..], &[7; 40]] {
            std::fs::write(&path, spoiled).unwrap();
            let next = next_boot(&dir, Some(reported)).unwrap();
            assert!(next > last, "{next} is not above {last}");
            last = next_boot(&dir, Some(reported)).unwrap();
            assert_eq!(last, next + 1);
            last = reported + 100;
            assert!(
                next < reported + 60_000,
                "no longer than a minute ahead of the others' clocks"
            );
        }
        std::fs::remove_file(&path).unwrap();
        assert!(next_boot(&dir, Some(reported)).unwrap() > last);
        std::fs::write(&path, b"short").unwrap();
        assert!(next_boot(&dir, None).unwrap() >= clock::wall().as_millis() - 60_000);
    }
}

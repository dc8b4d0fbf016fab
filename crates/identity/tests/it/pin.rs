//! Every way to the pin, and every way that is none.

use realm_identity::{Hash, OwnerPin, PinError};

use crate::scene::{NOW, key, owner, realm};

const LATER: u64 = 600_000;

fn pinned(realm: Option<Hash>) -> OwnerPin {
    OwnerPin::Pinned {
        owner: owner().public(),
        realm,
    }
}

#[test]
fn a_fresh_node_takes_nobody_from_the_network() {
    let offer = OwnerPin::default().offer(owner().public(), Some(realm()), NOW);
    assert_eq!(offer, Err(PinError::Closed));
}

#[test]
fn a_local_act_pins() {
    let fresh = OwnerPin::default();
    assert_eq!(fresh.pin_by_configure(owner().public()), Ok(pinned(None)));
    assert_eq!(
        fresh.pin_by_invite(owner().public(), realm()),
        Ok(pinned(Some(realm())))
    );
    let open = fresh.open_window(NOW).unwrap();
    assert_eq!(open.pin_by_configure(owner().public()), Ok(pinned(None)));
}

#[test]
fn a_window_takes_one_key_until_it_closes() {
    let open = OwnerPin::default()
        .open_window(NOW.plus_millis(LATER))
        .unwrap();
    let taken = open.offer(owner().public(), Some(realm()), NOW).unwrap();
    assert_eq!(taken, pinned(Some(realm())));
    let second = taken.offer(key(8).public(), Some(realm()), NOW);
    assert_eq!(
        second,
        Err(PinError::OtherOwner {
            owner: owner().public()
        })
    );
    let last = open.offer(owner().public(), None, NOW.plus_millis(LATER));
    assert_eq!(last, Ok(pinned(None)));
    let late = open.offer(owner().public(), None, NOW.plus_millis(LATER + 1));
    assert_eq!(late, Err(PinError::WindowClosed));
}

#[test]
fn a_pin_does_not_move() {
    let pin = pinned(Some(realm()));
    let (other, elsewhere) = (key(8).public(), Hash::of(b"elsewhere"));
    assert!(matches!(
        pin.pin_by_configure(other),
        Err(PinError::OtherOwner { .. })
    ));
    assert!(matches!(
        pin.pin_by_invite(other, realm()),
        Err(PinError::OtherOwner { .. })
    ));
    assert!(matches!(
        pin.offer(other, Some(realm()), NOW),
        Err(PinError::OtherOwner { .. })
    ));
    assert!(matches!(
        pin.open_window(NOW),
        Err(PinError::OtherOwner { .. })
    ));
    let again = pin.pin_by_invite(owner().public(), elsewhere);
    assert_eq!(again, Err(PinError::OtherRealm { realm: realm() }));
    let again = pin.offer(owner().public(), Some(elsewhere), NOW);
    assert_eq!(again, Err(PinError::OtherRealm { realm: realm() }));
    assert_eq!(
        pin.pin_by_configure(owner().public()),
        Ok(pin),
        "and forgets no realm"
    );
}

#[test]
fn a_pin_agrees_with_its_own_owner_and_realm() {
    let pin = pinned(Some(realm()));
    for named in [Some(realm()), None] {
        assert_eq!(pin.offer(owner().public(), named, NOW), Ok(pin));
    }
    assert_eq!(pin.pin_by_invite(owner().public(), realm()), Ok(pin));
}

#[test]
fn a_configured_pin_learns_its_realm_from_its_owner() {
    let pin = pinned(None).offer(owner().public(), Some(realm()), NOW);
    assert_eq!(pin, Ok(pinned(Some(realm()))));
}

#[test]
fn a_rotation_moves_the_pin_from_the_owner_only() {
    let new = key(8).public();
    let moved = pinned(Some(realm()))
        .follow_rotation(owner().public(), new)
        .unwrap();
    assert_eq!((moved.owner(), moved.realm()), (Some(new), Some(realm())));
    let wrong = pinned(None).follow_rotation(key(9).public(), new);
    assert!(matches!(wrong, Err(PinError::OtherOwner { .. })));
    let fresh = OwnerPin::default().follow_rotation(owner().public(), new);
    assert_eq!(fresh, Err(PinError::Closed));
}

#[test]
fn a_pin_survives_the_disk() {
    let window = OwnerPin::Window { until: NOW };
    for pin in [
        OwnerPin::Unpinned,
        window,
        pinned(None),
        pinned(Some(realm())),
    ] {
        let bytes = pin.to_bytes();
        assert_eq!(OwnerPin::from_bytes(&bytes).unwrap(), pin);
        assert!(OwnerPin::from_bytes(&[&bytes[..], &[0]].concat()).is_err());
        for length in 0..bytes.len() {
            assert!(OwnerPin::from_bytes(&bytes[..length]).is_err());
        }
    }
}

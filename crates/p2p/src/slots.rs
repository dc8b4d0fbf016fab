//! Counted places, for each peer and in all, given back when dropped.

use std::{cell::RefCell, collections::HashMap, rc::Rc};

use realm_identity::PublicKey;

#[derive(Debug, Clone)]
pub(crate) struct Slots {
    taken: Rc<RefCell<HashMap<PublicKey, usize>>>,
    per_peer: usize,
    total: usize,
}

#[derive(Debug)]
pub(crate) struct Slot {
    slots: Slots,
    peer: PublicKey,
}

impl Slots {
    pub fn new(per_peer: usize, total: usize) -> Self {
        Self {
            taken: Rc::default(),
            per_peer,
            total,
        }
    }

    pub fn take(&self, peer: PublicKey) -> Option<Slot> {
        let total = self.taken();
        let mut taken = self.taken.borrow_mut();
        let own = taken.get(&peer).copied().unwrap_or(0);
        if own >= self.per_peer || total >= self.total {
            return None;
        }
        taken.insert(peer, own + 1);
        Some(Slot {
            slots: self.clone(),
            peer,
        })
    }

    pub fn taken(&self) -> usize {
        self.taken.borrow().values().sum()
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        let mut taken = self.slots.taken.borrow_mut();
        let left = taken.get(&self.peer).map_or(0, |own| own - 1);
        if left == 0 {
            taken.remove(&self.peer);
        } else {
            taken.insert(self.peer, left);
        }
    }
}

#[cfg(test)]
mod tests {
    use realm_identity::SecretKey;

    use super::*;

    #[test]
    fn both_bounds_hold_and_places_come_back() {
        let key = |seed| SecretKey::from_seed(&[seed; 32]).public();
        let slots = Slots::new(2, 3);
        let first = slots.take(key(1));
        let _second = slots.take(key(1));
        assert!(slots.take(key(1)).is_none(), "two for one peer");
        let _third = slots.take(key(2));
        assert!(slots.take(key(2)).is_none(), "three in all");
        drop(first);
        assert!(slots.take(key(2)).is_some());
        assert_eq!(slots.taken(), 2);
    }
}

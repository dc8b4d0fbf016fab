//! Invites that were taken up: four signed parts in each other.

use std::rc::Rc;

use realm_identity::{
    Claim, Consent, Hash, Invite, Message, Signed, Timestamp, VERSION, Witness, canonical,
};

use super::{
    host::{FOREIGNER, HEIR, Host, OWNER, REVOKED, SENDER, STRANGER, Way, public, secret},
    mutate::{Class, Part, Wrap, opened},
    objects::{Original, sign},
    scenes::genesis_of,
};
use crate::net::WALL;

pub const MINUTE_MS: u64 = 60_000;
/// The key of the invite, and the node that takes it up.
pub const INVITE: u64 = 50;
const NEWCOMER: u64 = 60;

/// Everything that is said when an invite is taken up; what one test changes, the rest follows.
#[derive(Clone)]
pub struct Inviter {
    owner: u64,
    issued_at: u64,
    not_after: u64,
    claimed_at: u64,
    witnessed_at: u64,
    witness: u64,
}

impl Inviter {
    pub fn of(owner: u64) -> Self {
        Self {
            owner,
            issued_at: WALL,
            not_after: WALL + 60 * MINUTE_MS,
            claimed_at: WALL,
            witnessed_at: WALL,
            witness: SENDER,
        }
    }

    pub fn invite(&self) -> Invite {
        Invite {
            v: VERSION,
            realm: genesis_of(self.owner).realm_id(),
            genesis: genesis_of(self.owner).to_wire(),
            owner: public(self.owner),
            key: public(INVITE),
            name: Some("pi".to_owned()),
            tags: vec!["edge".to_owned()],
            issued_at: Timestamp(self.issued_at),
            not_after: Timestamp(self.not_after),
            addresses: vec!["/ip4/192.0.2.1/tcp/2020".to_owned()],
        }
    }

    fn consent(&self, invite: &[u8]) -> Consent {
        Consent {
            v: VERSION,
            realm: genesis_of(self.owner).realm_id(),
            invite: Hash::of(&opened(invite).unwrap_or_default()),
            node: public(NEWCOMER),
            at: Timestamp(self.claimed_at),
        }
    }

    fn claim(&self, invite: &[u8], consent: &[u8]) -> Claim {
        Claim {
            v: VERSION,
            realm: genesis_of(self.owner).realm_id(),
            key: public(INVITE),
            invite: invite.to_vec(),
            node: public(NEWCOMER),
            at: Timestamp(self.claimed_at),
            consent: consent.to_vec(),
        }
    }

    fn witness(&self, claim: &[u8]) -> Witness {
        Witness {
            v: VERSION,
            realm: genesis_of(self.owner).realm_id(),
            claim: Hash::of(&opened(claim).unwrap_or_default()),
            at: Timestamp(self.witnessed_at),
            node: public(self.witness),
        }
    }

    fn invite_wire(&self) -> Vec<u8> {
        sign(self.invite(), &secret(self.owner)).to_wire()
    }

    /// The claim of an invite, whatever that is, with the consent to it.
    fn claim_of(&self, invite: &[u8]) -> Vec<u8> {
        let consent = sign(self.consent(invite), &secret(NEWCOMER)).to_wire();
        self.claim_with(invite, &consent)
    }

    fn claim_with(&self, invite: &[u8], consent: &[u8]) -> Vec<u8> {
        sign(self.claim(invite, consent), &secret(INVITE)).to_wire()
    }

    fn claim_wire(&self) -> Vec<u8> {
        self.claim_of(&self.invite_wire())
    }

    fn witnessed(&self, claim: &[u8]) -> Vec<u8> {
        let witness = sign(self.witness(claim), &secret(self.witness)).to_wire();
        pair(claim, &witness)
    }
}

fn pair(claim: &[u8], witness: &[u8]) -> Vec<u8> {
    let bytes = |bytes: &[u8]| minicbor::bytes::ByteVec::from(bytes.to_vec());
    canonical::encode(&(bytes(claim), bytes(witness)))
}

/// The parts of a claim, each signed anew by whoever can: all but the part that is forged.
fn parts(inviter: &Inviter, outermost: Rc<Wrap>) -> Vec<Part> {
    fn part<T: Message>(
        wire: &[u8],
        signer: u64,
        author: &'static [usize],
        others: Vec<u64>,
        wrap: impl Fn(&[u8]) -> Vec<u8> + 'static,
    ) -> Part {
        Part {
            domain: T::DOMAIN,
            bytes: Signed::<T>::from_wire(wire)
                .unwrap()
                .signed_bytes()
                .to_vec(),
            signer: secret(signer),
            author,
            others,
            wrap: Box::new(wrap),
        }
    }
    let invite = inviter.invite_wire();
    let consent = sign(inviter.consent(&invite), &secret(NEWCOMER)).to_wire();
    let claim = inviter.claim_wire();
    let outsiders = vec![SENDER, STRANGER, HEIR, FOREIGNER];
    let (of, around) = (inviter.clone(), outermost.clone());
    let inner = part::<Invite>(&invite, OWNER, &[3], outsiders.clone(), move |wire| {
        around(&of.claim_of(wire))
    });
    let (of, around, taken) = (inviter.clone(), outermost.clone(), invite.clone());
    let agreed = part::<Consent>(&consent, NEWCOMER, &[3], outsiders.clone(), move |wire| {
        around(&of.claim_with(&taken, wire))
    });
    let whole = part::<Claim>(&claim, INVITE, &[2], outsiders, move |wire| outermost(wire));
    vec![inner, agreed, whole]
}

/// A witnessed claim, as nodes give it to each other.
pub fn claims(_: &Host) -> Original {
    let good = Inviter::of(OWNER);
    let of = good.clone();
    let mut parts = parts(&good, Rc::new(move |claim| of.witnessed(claim)));
    let claim = good.claim_wire();
    let witness = good.witness(&claim);
    let taken = claim.clone();
    parts.push(Part {
        domain: Witness::DOMAIN,
        bytes: witness.to_bytes(),
        signer: secret(SENDER),
        author: &[4],
        others: vec![REVOKED, STRANGER, OWNER, FOREIGNER],
        wrap: Box::new(move |wire| pair(&taken, wire)),
    });
    let mut extra: Vec<_> = untimely()
        .into_iter()
        .map(|late| {
            let wire = late.witnessed(&late.claim_wire());
            (Class::WrongTime, wire, None)
        })
        .collect();
    // Seen before the invite was made, and after it was over, by an honest witness.
    for at in [WALL - 6 * MINUTE_MS, WALL + 66 * MINUTE_MS] {
        let mut seen = good.clone();
        seen.witnessed_at = at;
        extra.push((Class::WrongTime, seen.witnessed(&claim), None));
    }
    // One that the witness saw, and another one.
    let mut later = good.clone();
    later.claimed_at += 1;
    let other = pair(
        &later.claim_wire(),
        &sign(good.witness(&claim), &secret(SENDER)).to_wire(),
    );
    extra.push((Class::WrongTarget, other, None));
    let foreign = Inviter::of(FOREIGNER);
    let wire = foreign.witnessed(&foreign.claim_wire());
    extra.push((Class::ForeignRealm, wire, None));
    for who in [REVOKED, STRANGER] {
        let mut unknown = good.clone();
        unknown.witness = who;
        extra.push((Class::WrongAuthor, unknown.witnessed(&claim), None));
    }
    Original {
        name: "witnessed claim".to_owned(),
        way: Way::Claims,
        from: SENDER,
        before: Vec::new(),
        wire: good.witnessed(&claim),
        payload: Vec::new(),
        parts,
        extra,
    }
}

/// A claim that asks for a witness.
pub fn claim(_: &Host) -> Original {
    let good = Inviter::of(OWNER);
    let foreign = Inviter::of(FOREIGNER).claim_wire();
    let mut extra: Vec<_> = untimely()
        .into_iter()
        .map(|late| (Class::WrongTime, late.claim_wire(), None))
        .collect();
    extra.push((Class::ForeignRealm, foreign, None));
    // The key of the invite signs for a node that agreed to something else.
    let invite = good.invite_wire();
    let mut agreed = good.consent(&invite);
    agreed.at = Timestamp(WALL - 1);
    let consent = sign(agreed, &secret(NEWCOMER)).to_wire();
    let wire = good.claim_with(&invite, &consent);
    extra.push((Class::WrongTarget, wire, None));
    Original {
        name: "claim".to_owned(),
        way: Way::Claim,
        from: SENDER,
        before: Vec::new(),
        wire: good.claim_wire(),
        payload: Vec::new(),
        parts: parts(&good, Rc::new(<[u8]>::to_vec)),
        extra,
    }
}

/// Invites that are over, that have not begun, that end before they begin, and a claim from the future.
fn untimely() -> [Inviter; 4] {
    let of = |issued_at, not_after, claimed_at| Inviter {
        issued_at,
        not_after,
        claimed_at,
        ..Inviter::of(OWNER)
    };
    let hour = 60 * MINUTE_MS;
    [
        of(WALL - hour, WALL - 6 * MINUTE_MS, WALL),
        of(WALL + 6 * MINUTE_MS, WALL + hour, WALL),
        of(WALL, WALL - 1, WALL),
        of(WALL, WALL + hour, WALL + 6 * MINUTE_MS),
    ]
}

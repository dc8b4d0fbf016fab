//! Genuine messages, each of which the node of a scene takes, and what belongs to them alone.

use realm_identity::{
    Entry, GraftChallenge, Hash, Invite, InviteToken, Message, SealingCertificate, SealingSecret,
    SecretKey, Signed, Target, Timestamp,
};
use realm_manifest::{
    payload::{Note, Payload},
    report::{Capacity, NodeReport, NodeState, StatusDigest},
};
use realm_protocol::{HeadAnnounce, JoinRequest, Point};

use super::{
    entries::{entries, foreign_realm, merge},
    host::{
        BYSTANDER, FOREIGNER, HEIR, Host, ME, OWNER, REVOKED, SENDER, STRANGER, Way, challenge,
        checkpoint_bytes, public, secret,
    },
    invites::{INVITE, Inviter, MINUTE_MS, claim, claims},
    mutate::{Class, Part},
    scenes::{self, Scene, facts, genesis_of, next, push},
};
use crate::net::WALL;

pub struct Original {
    pub name: String,
    pub way: Way,
    pub from: u64,
    /// Taken before, so that something older can be shown.
    pub before: Vec<Vec<u8>>,
    pub wire: Vec<u8>,
    pub payload: Vec<u8>,
    pub parts: Vec<Part>,
    /// Forgeries that only this message has, with the payload where it is another one.
    pub extra: Vec<(Class, Vec<u8>, Option<Vec<u8>>)>,
}

pub fn sign<T: Message>(value: T, key: &SecretKey) -> Signed<T> {
    let Ok(signed) = Signed::sign(value, key);
    signed
}

/// Everything that is offered to the node of `scene`.
pub fn of(scene: Scene) -> Vec<Original> {
    let host = scene.build();
    let mut all = Vec::new();
    match scene {
        Scene::Fresh => {
            all.extend([genesis(), checkpoint()]);
            all.push(revoked(Target::Node(public(ME))));
        }
        Scene::Member => {
            for way in [Way::Entries, Way::Submit, Way::ForkProof] {
                all.extend(entries(&host, scene, way));
            }
            all.extend([announce(&host), report(&host), status(&host), join(&host)]);
            all.extend([claims(&host), claim(&host), graft(&host, scene)]);
            all.extend([sealing(), token()]);
        }
        Scene::Restarted | Scene::Waiting => all.extend(entries(&host, scene, Way::Entries)),
        Scene::Rotated => {
            all.extend(entries(&host, scene, Way::Entries));
            all.extend(entries(&host, scene, Way::Submit));
            all.extend([graft(&host, scene), announce(&host)]);
        }
        Scene::Forked => {
            all.extend([merge(&host, Way::Entries), merge(&host, Way::Submit)]);
            all.extend([announce(&host), claims(&host)]);
        }
    }
    all
}

/// A message that is one signed part.
fn simple<T: Message>(
    way: Way,
    signed: &Signed<T>,
    signer: u64,
    author: &'static [usize],
    others: Vec<u64>,
) -> Original {
    let part = Part {
        domain: T::DOMAIN,
        bytes: signed.signed_bytes().to_vec(),
        signer: secret(signer),
        author,
        others,
        wrap: Box::new(<[u8]>::to_vec),
    };
    Original {
        name: T::DOMAIN.to_owned(),
        way,
        from: SENDER,
        before: Vec::new(),
        wire: signed.to_wire(),
        payload: Vec::new(),
        parts: vec![part],
        extra: Vec::new(),
    }
}

/// Who is no node of the realm.
const OUTSIDERS: [u64; 4] = [REVOKED, STRANGER, OWNER, FOREIGNER];

fn announce(host: &Host) -> Original {
    let realm = host.log().realm();
    let said = |boot_id, count, realm| {
        let announce = HeadAnnounce {
            v: 1,
            node: public(SENDER),
            realm,
            seq: 1,
            head: Hash::of(b"head"),
            tips: vec![Point {
                seq: 1,
                hash: Hash::of(b"tip"),
            }],
            boot_id,
            count,
        };
        sign(announce, &secret(SENDER))
    };
    let foreign = said(7, 6, genesis_of(FOREIGNER).realm_id());
    let older = [said(7, 5, realm), said(7, 4, realm), said(6, 9, realm)];
    let mut original = simple(
        Way::Heads,
        &said(7, 6, realm),
        SENDER,
        &[1],
        OUTSIDERS.into(),
    );
    original.with(foreign.to_wire(), older.map(|older| older.to_wire()));
    original
}

impl Original {
    /// Of another realm, and what was said before, of which the newest is known.
    fn with(&mut self, foreign: Vec<u8>, older: [Vec<u8>; 3]) {
        self.before = vec![older[0].clone()];
        self.extra.push((Class::ForeignRealm, foreign, None));
        let older = older.into_iter();
        self.extra
            .extend(older.map(|wire| (Class::Stale, wire, None)));
    }
}

fn status(host: &Host) -> Original {
    let realm = host.log().realm();
    let said = |boot_id, seq, realm| {
        let digest = StatusDigest {
            node: public(SENDER),
            realm,
            boot_id,
            seq,
            at: Timestamp(WALL),
            revision: 1,
            head: Hash::of(b"head"),
            state: NodeState::Ready,
            report: Hash::of(b"report"),
            cells_running: 1,
            cells_wanted: 2,
            problems: vec!["disk-full".to_owned()],
        };
        sign(digest, &secret(SENDER))
    };
    let foreign = said(7, 6, genesis_of(FOREIGNER).realm_id());
    let older = [said(7, 5, realm), said(7, 4, realm), said(6, 9, realm)];
    let newest = said(7, 6, realm);
    let mut original = simple(Way::Status, &newest, SENDER, &[0], OUTSIDERS.into());
    original.with(foreign.to_wire(), older.map(|older| older.to_wire()));
    original
}

fn report(host: &Host) -> Original {
    let realm = host.log().realm();
    let said = |boot_id, seq, realm| {
        let report = NodeReport {
            node: public(SENDER),
            realm,
            boot_id,
            seq,
            at: Timestamp(WALL),
            revision: 1,
            head: Hash::of(b"head"),
            state: NodeState::Ready,
            name: "one".parse().unwrap(),
            tags: vec!["edge".parse().unwrap()],
            version: "0.1.0".to_owned(),
            addresses: vec!["/ip4/192.0.2.1/tcp/2020".to_owned()],
            cpu_hundredths: Some(3),
            memory_bytes: None,
            capacity: Capacity::default(),
            cells: vec![],
            declined: vec![],
            holds: vec![],
            sealing: Some(vec![1, 2, 3].into()),
            problems: vec![],
        };
        sign(report, &secret(SENDER))
    };
    let foreign = said(7, 6, genesis_of(FOREIGNER).realm_id());
    let older = [said(7, 5, realm), said(7, 4, realm), said(6, 9, realm)];
    let newest = said(7, 6, realm);
    let mut original = simple(Way::Report, &newest, SENDER, &[0], OUTSIDERS.into());
    original.with(foreign.to_wire(), older.map(|older| older.to_wire()));
    original
}

fn join(host: &Host) -> Original {
    let said = |realm| {
        let request = JoinRequest {
            v: 1,
            node: public(STRANGER),
            realm: Some(realm),
            name: "pi".to_owned(),
            tags: vec!["edge".to_owned()],
            addresses: vec!["/ip4/192.0.2.1/tcp/2020".to_owned()],
            version: "0.1.0".to_owned(),
            at: Timestamp(WALL),
        };
        sign(request, &secret(STRANGER))
    };
    // Others ask for themselves, by connections of their own.
    let others = vec![SENDER, BYSTANDER, REVOKED, FOREIGNER];
    let asked = said(host.log().realm());
    let mut original = simple(Way::Join, &asked, STRANGER, &[1], others);
    original.from = STRANGER;
    let foreign = said(genesis_of(FOREIGNER).realm_id()).to_wire();
    original.extra.push((Class::ForeignRealm, foreign, None));
    original
}

fn genesis() -> Original {
    let others = vec![SENDER, STRANGER, HEIR, FOREIGNER];
    let genesis = genesis_of(OWNER);
    let mut original = simple(Way::Genesis, &genesis, OWNER, &[1, 0], others);
    let foreign = genesis_of(FOREIGNER).to_wire();
    original.extra.push((Class::ForeignRealm, foreign, None));
    // Realms that this version cannot keep, by their own owner.
    let of = || genesis_of(OWNER).into_inner();
    let (mut later, mut two, mut none, mut named) = (of(), of(), of(), of());
    later.v = 2;
    two.owners.push(public(HEIR));
    none.threshold = 0;
    named.name = "A Realm".to_owned();
    for odd in [later, two, none, named] {
        let wire = sign(odd, &secret(OWNER)).to_wire();
        original.extra.push((Class::WrongPlace, wire, None));
    }
    original
}

fn checkpoint() -> Original {
    let checkpoint = Scene::Member.build().log().checkpoint().unwrap();
    let said = Signed::<Entry>::from_wire(&checkpoint.entry).unwrap();
    let with = checkpoint.clone();
    let entry = Part {
        domain: Entry::DOMAIN,
        bytes: said.signed_bytes().to_vec(),
        signer: secret(OWNER),
        author: &[2],
        others: Scene::Member.not_owners(),
        wrap: Box::new(move |wire| {
            let mut checkpoint = with.clone();
            checkpoint.entry = wire.to_vec();
            checkpoint_bytes(&checkpoint)
        }),
    };
    let with = checkpoint.clone();
    let genesis = Part {
        domain: realm_identity::Genesis::DOMAIN,
        bytes: genesis_of(OWNER).signed_bytes().to_vec(),
        signer: secret(OWNER),
        author: &[1, 0],
        others: vec![SENDER, STRANGER, FOREIGNER],
        wrap: Box::new(move |wire| {
            let mut checkpoint = with.clone();
            checkpoint.genesis = wire.to_vec();
            checkpoint_bytes(&checkpoint)
        }),
    };
    let mut extra = Vec::new();
    let mut other = checkpoint.clone();
    other.payload = push("other").encode();
    extra.push((Class::WrongPayload, checkpoint_bytes(&other), None));
    let mut other = checkpoint.clone();
    other.state = realm_planner::State::genesis(&genesis_of(OWNER)).encode();
    extra.push((Class::WrongPayload, checkpoint_bytes(&other), None));
    let foreign = foreign_realm().log().checkpoint().unwrap();
    extra.push((Class::ForeignRealm, checkpoint_bytes(&foreign), None));
    Original {
        name: "checkpoint".to_owned(),
        way: Way::Checkpoint,
        from: SENDER,
        before: Vec::new(),
        wire: checkpoint_bytes(&checkpoint),
        payload: Vec::new(),
        parts: vec![entry, genesis],
        extra,
    }
}

fn revoked(target: Target) -> Original {
    let host = scenes::realm_of(OWNER, &[SENDER]);
    let owner = secret(OWNER);
    let say = |target, payload: &Payload| next(&host, &owner, target, payload).wire;
    let note = Note::default;
    let wire = say(target.clone(), &Payload::NodeRevoke(note()));
    let said = Signed::<Entry>::from_wire(&wire).unwrap();
    let mut original = simple(Way::Revoked, &said, OWNER, &[2], Scene::Member.not_owners());
    original.name = "entry that revokes".to_owned();
    // About another node, or no revocation: true, and nothing to this one.
    let other = Target::Node(public(BYSTANDER));
    for wire in [
        say(other, &Payload::NodeRevoke(note())),
        say(target.clone(), &Payload::NodeRemove(note())),
        say(target, &Payload::NodeApprove(facts(0))),
    ] {
        original.extra.push((Class::WrongPlace, wire, None));
    }
    original
}

fn graft(host: &Host, scene: Scene) -> Original {
    let owner = match scene {
        Scene::Rotated => HEIR,
        _ => OWNER,
    };
    let sent = challenge(host.log().realm());
    let proof = |change: &dyn Fn(&mut GraftChallenge)| {
        let mut challenge = sent.clone();
        challenge.client = public(owner);
        change(&mut challenge);
        sign(challenge, &secret(owner))
    };
    let good = proof(&|_| {});
    let mut original = simple(Way::Graft, &good, owner, &[4], scene.not_owners());
    let foreign = genesis_of(FOREIGNER).realm_id();
    // Proofs that the owner gave to others: another node, nonce, epoch, realm or purpose.
    let others: [(Class, Signed<GraftChallenge>); 7] = [
        (Class::Replayed, proof(&|sent| sent.nonce = [4; 32])),
        (Class::Stale, proof(&|sent| sent.epoch -= 1)),
        (Class::WrongTime, proof(&|sent| sent.epoch += 1)),
        (
            Class::WrongTarget,
            proof(&|sent| sent.node = public(SENDER)),
        ),
        (
            Class::ForeignRealm,
            proof(&|sent| sent.realm = Some(foreign)),
        ),
        (Class::ForeignRealm, proof(&|sent| sent.realm = None)),
        (
            Class::OtherDomain,
            proof(&|sent| sent.domain = "realm-other".to_owned()),
        ),
    ];
    for (class, proof) in others {
        original.extra.push((class, proof.to_wire(), None));
    }
    original
}

fn sealing() -> Original {
    let said = |who| {
        let key = SealingSecret::from_bytes(&[9; 32]).public();
        let certificate = SealingCertificate::new(public(who), key, Timestamp(WALL));
        sign(certificate, &secret(who))
    };
    let others = vec![BYSTANDER, REVOKED, STRANGER, OWNER, FOREIGNER];
    simple(Way::Sealing, &said(SENDER), SENDER, &[1], others)
}

fn token() -> Original {
    let said = |change: &dyn Fn(&mut Invite)| {
        let mut invite = Inviter::of(OWNER).invite();
        change(&mut invite);
        let token = InviteToken::new(sign(invite, &secret(OWNER)), secret(INVITE)).unwrap();
        token.to_string().into_bytes()
    };
    let over = |invite: &mut Invite| {
        invite.issued_at = Timestamp(WALL - 60 * MINUTE_MS);
        invite.not_after = Timestamp(WALL - 6 * MINUTE_MS);
    };
    let early = |invite: &mut Invite| {
        invite.issued_at = Timestamp(WALL + 6 * MINUTE_MS);
        invite.not_after = Timestamp(WALL + 60 * MINUTE_MS);
    };
    let foreign = sign(Inviter::of(FOREIGNER).invite(), &secret(FOREIGNER));
    let foreign = InviteToken::new(foreign, secret(INVITE)).unwrap();
    let extra = vec![
        (Class::WrongTime, said(&over), None),
        (Class::WrongTime, said(&early), None),
        (Class::ForeignRealm, foreign.to_string().into_bytes(), None),
    ];
    Original {
        name: "token".to_owned(),
        way: Way::Token,
        from: SENDER,
        before: Vec::new(),
        wire: said(&|_| {}),
        payload: Vec::new(),
        parts: Vec::new(),
        extra,
    }
}

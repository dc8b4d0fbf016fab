//! Nodes in the states that a realm brings them to.

use realm_identity::{Artifact, Genesis, Hash, SecretKey, Signed, Target, Timestamp};
use realm_manifest::{
    ComponentSpec,
    payload::{NodeFacts, Note, Payload, Push},
};
use realm_planner::next_entry;
use realm_protocol::{Effect, Event};

use super::host::{BYSTANDER, FOREIGNER, HEIR, Host, ME, OWNER, REVOKED, SENDER, public, secret};

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Scene {
    /// It pinned the owner, and is in no realm.
    Fresh,
    /// In the realm, with all of its log.
    Member,
    /// The same, started again from its disk.
    Restarted,
    /// In the realm, and not approved.
    Waiting,
    /// The owner handed the realm on.
    Rotated,
    /// The owner signed two entries for one revision.
    Forked,
}

/// A signed entry with its payload.
pub struct Signature {
    pub wire: Vec<u8>,
    pub payload: Vec<u8>,
    pub hash: Hash,
}

impl Scene {
    pub const ALL: [Self; 6] = [
        Self::Fresh,
        Self::Member,
        Self::Restarted,
        Self::Waiting,
        Self::Rotated,
        Self::Forked,
    ];

    /// The key that owns the realm in this state.
    pub fn owner(self) -> SecretKey {
        match self {
            Self::Rotated => secret(HEIR),
            _ => secret(OWNER),
        }
    }

    /// Whose signature is not enough, be it what it is in the realm.
    pub fn not_owners(self) -> Vec<u64> {
        let former = match self {
            Self::Rotated => OWNER,
            _ => HEIR,
        };
        vec![SENDER, BYSTANDER, REVOKED, FOREIGNER, former, ME]
    }

    pub fn build(self) -> Host {
        match self {
            Self::Fresh => Host::new(public(OWNER), Vec::new()),
            Self::Member => member(&[ME, SENDER, BYSTANDER]),
            Self::Waiting => member(&[SENDER, BYSTANDER]),
            Self::Restarted => Host::new(public(OWNER), member(&[ME, SENDER, BYSTANDER]).disk),
            Self::Rotated => {
                let mut host = member(&[ME, SENDER, BYSTANDER]);
                let to = Target::Owner(public(HEIR));
                let note = Payload::OwnerRotate(Note::default());
                write(&mut host, OWNER, to, &note);
                host
            }
            Self::Forked => {
                let mut host = member(&[ME, SENDER, BYSTANDER]);
                fork(&mut host);
                host
            }
        }
    }
}

pub fn genesis_of(owner: u64) -> Signed<Genesis> {
    let genesis = Genesis::new(public(owner), "home".to_owned(), [1; 32]);
    let Ok(genesis) = Signed::sign(genesis, &secret(owner));
    genesis
}

/// A realm of `owner` with a component, a revoked node, and `approved` ones.
pub fn realm_of(owner: u64, approved: &[u64]) -> Host {
    let mut host = Host::new(public(owner), Vec::new());
    let genesis = genesis_of(owner).to_wire();
    host.handle(Event::Found { genesis });
    for node in approved {
        write(
            &mut host,
            owner,
            Target::Node(public(*node)),
            &Payload::NodeApprove(facts(*node)),
        );
    }
    let note = Note::default();
    let revoked = Target::Node(public(REVOKED));
    write(&mut host, owner, revoked, &Payload::NodeRevoke(note));
    write(&mut host, owner, component("web"), &push("web"));
    host.caught_up()
}

fn member(approved: &[u64]) -> Host {
    realm_of(OWNER, approved)
}

pub fn component(name: &str) -> Target {
    Target::Component(name.to_owned())
}

pub fn facts(node: u64) -> NodeFacts {
    NodeFacts {
        name: format!("node-{node}").parse().unwrap(),
        tags: vec!["edge".parse().unwrap()],
        drain: false,
        note: None,
    }
}

pub fn push(artifact: &str) -> Payload {
    Payload::Push(Push {
        spec: ComponentSpec::new(Artifact::of(artifact.as_bytes())),
        run: None,
        note: Some("why".to_owned()),
    })
}

/// The entry that goes on from the node's head.
pub fn next(host: &Host, owner: &SecretKey, target: Target, payload: &Payload) -> Signature {
    let head = host.log().head().hash;
    let author = owner.public();
    let entry = next_entry(&host.state(), head, author, target, payload, Timestamp(1));
    let Ok(signed) = Signed::sign(entry, owner);
    Signature {
        wire: signed.to_wire(),
        payload: payload.encode(),
        hash: signed.hash(),
    }
}

fn write(host: &mut Host, owner: u64, target: Target, payload: &Payload) {
    let signature = next(host, &secret(owner), target, payload);
    let effects = host.handle(Event::Submit {
        token: 1,
        entry: signature.wire,
        payload: signature.payload,
    });
    let accepted = effects
        .iter()
        .any(|effect| matches!(effect, Effect::SubmitResult { result: Ok(_), .. }));
    assert!(accepted, "{effects:?}");
}

/// Two entries of the owner for one revision: the second is a proof, and no entry of the agreed log.
pub fn fork(host: &mut Host) -> [Signature; 2] {
    let owner = secret(OWNER);
    let sides = ["one", "two"].map(|side| next(host, &owner, component(side), &push(side)));
    for side in &sides {
        host.offer(super::host::Way::Entries, SENDER, &side.wire, &side.payload);
    }
    sides
}

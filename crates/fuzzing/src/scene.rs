//! The realm that inputs are about: its keys are known here, so that what a fuzzer changed can be
//! signed again, and reaches what lies behind a signature.

use std::sync::OnceLock;

use realm_identity::{
    Artifact, Claim, Entry, Genesis, Hash, Invite, InviteToken, Message, PublicKey, SecretKey,
    Signed, Target, Timestamp, WitnessedClaim,
};
use realm_manifest::{
    ComponentSpec, NodeName,
    payload::{NodeFacts, Payload, Push},
};
use realm_planner::{State, fold, next_entry};
use realm_protocol::Item;

/// When everything happens.
pub const NOW: Timestamp = Timestamp(1_800_000_000_000);
/// The node that inputs are fed to, its neighbours, one that asks to join, and a stranger.
pub const NODES: [u8; 5] = [10, 11, 12, 13, 20];
const OWNER: u8 = 1;
const NEXT_OWNER: u8 = 2;
const INVITE: u8 = 30;

/// A realm with three nodes and a program.
#[derive(Debug)]
pub struct Scene {
    pub genesis: Signed<Genesis>,
    /// Its entries with their payloads, oldest first.
    pub log: Vec<Item>,
    pub head: Hash,
    pub state: State,
    /// Of the fourth node, by an invite.
    pub claim: WitnessedClaim,
}

/// A key by its number.
pub fn key(number: u8) -> SecretKey {
    let known = ring().iter().find(|(of, _)| *of == number);
    known.map_or_else(|| made(number), |(_, secret)| secret.clone())
}

fn made(number: u8) -> SecretKey {
    SecretKey::from_seed(&[number; 32])
}

/// The realm's owner.
pub fn owner() -> SecretKey {
    key(OWNER)
}

/// The one realm of all inputs.
pub fn scene() -> &'static Scene {
    static SCENE: OnceLock<Scene> = OnceLock::new();
    SCENE.get_or_init(Scene::new)
}

/// Those who can sign here. Made once: that takes longer than most inputs.
fn ring() -> &'static [(u8, SecretKey)] {
    static RING: OnceLock<Vec<(u8, SecretKey)>> = OnceLock::new();
    RING.get_or_init(|| {
        let numbers = NODES.into_iter().chain([OWNER, NEXT_OWNER, INVITE]);
        numbers.map(|number| (number, made(number))).collect()
    })
}

fn secret_of(author: &PublicKey) -> Option<&'static SecretKey> {
    let mut secrets = ring().iter().map(|(_, secret)| secret);
    secrets.find(|secret| secret.public() == *author)
}

/// Signs by the author's key; None where nobody here has it.
pub fn sign<T: Message>(value: T) -> Option<Signed<T>> {
    let secret = secret_of(&value.author())?;
    let signed = Signed::sign(value, secret);
    Some(signed.unwrap_or_else(|never| match never {}))
}

/// What an envelope holds, whoever signed it; bytes that are none are taken for the content.
fn content<T: Message>(wire: &[u8]) -> Option<T> {
    let mut decoder = minicbor::Decoder::new(wire);
    let inner = decoder.array().and_then(|_| decoder.bytes());
    let inner = inner.ok().and_then(|inner| T::from_bytes(inner).ok());
    inner.or_else(|| T::from_bytes(wire).ok())
}

/// The envelope with a signature that fits what it says now.
pub fn signed_again<T: Message>(wire: &[u8]) -> Option<Vec<u8>> {
    Some(sign(content::<T>(wire)?)?.to_wire())
}

/// The same for a claim with its witness: each signature, and the digest between them.
pub fn witnessed_again(wire: &[u8]) -> Option<Vec<u8>> {
    let mut decoder = minicbor::Decoder::new(wire);
    decoder.array().ok()?;
    let claim = sign(content::<Claim>(decoder.bytes().ok()?)?)?;
    let mut witness = content::<realm_identity::Witness>(decoder.bytes().ok()?)?;
    witness.claim = claim.hash();
    let witness = sign(witness)?;
    let mut encoder = minicbor::Encoder::new(Vec::new());
    encoder.array(2).ok()?;
    encoder.bytes(&claim.to_wire()).ok()?;
    encoder.bytes(&witness.to_wire()).ok()?;
    Some(encoder.into_writer())
}

/// A token of the invite that these bytes hold, with keys that are known here: the rest is the fuzzer's.
pub fn token(wire: &[u8]) -> Option<InviteToken> {
    let mut invite = content::<Invite>(wire)?;
    invite.owner = owner().public();
    invite.key = key(INVITE).public();
    InviteToken::new(sign(invite)?, key(INVITE)).ok()
}

/// The entry as `author` would have signed it behind `head`, where `state` is: nothing but what it
/// asks for is the fuzzer's.
pub fn chained(wire: &[u8], payload: &[u8], state: &State, head: Hash) -> Option<Vec<u8>> {
    let mut entry = content::<Entry>(wire)?;
    entry.realm = state.realm;
    entry.author = state.owner;
    entry.seq = state.revision.checked_add(1)?;
    entry.prev = head;
    if let Some(body) = &mut entry.body {
        body.state = state.digest();
        body.payload = Artifact::of(payload);
    }
    Some(sign(entry)?.to_wire())
}

impl Scene {
    fn new() -> Self {
        let genesis = Genesis::new(owner().public(), "home".to_owned(), [7; 32]);
        let genesis = sign(genesis).expect("the owner's key is known");
        let mut scene = Self {
            head: genesis.realm_id(),
            state: State::genesis(&genesis),
            claim: claim(&genesis),
            genesis,
            log: Vec::new(),
        };
        for (number, name) in NODES.into_iter().zip(["one", "two", "three"]) {
            let facts = NodeFacts {
                name: NodeName::new(name.to_owned()).expect("a name"),
                tags: Vec::new(),
                drain: false,
                note: None,
            };
            let target = Target::Node(key(number).public());
            scene.add(target, &Payload::NodeApprove(facts));
        }
        let push = Push {
            spec: ComponentSpec::new(Artifact::of(b"hello")),
            run: Some(true),
            note: None,
        };
        scene.add(Target::Component("hello".to_owned()), &Payload::Push(push));
        scene
    }

    fn add(&mut self, target: Target, payload: &Payload) {
        let author = self.state.owner;
        let entry = next_entry(&self.state, self.head, author, target, payload, NOW);
        let entry = sign(entry).expect("the owner's key is known");
        let bytes = payload.encode();
        self.state = fold::apply(&self.state, &entry, &bytes).expect("it is an honest entry");
        self.head = entry.hash();
        self.log.push(Item {
            entry: entry.to_wire(),
            payload: Some(bytes),
        });
    }
}

fn claim(genesis: &Signed<Genesis>) -> WitnessedClaim {
    let (secret, node) = (key(INVITE), key(NODES[3]));
    let until = NOW.plus_millis(3_600_000);
    let mut invite = Invite::new(genesis, owner().public(), secret.public(), NOW, until);
    invite.name = Some("four".to_owned());
    let invite = sign(invite).expect("the owner's key is known");
    let claim = Claim::sign(&invite, &secret, &node, NOW).unwrap_or_else(|never| match never {});
    let owners = [owner().public()];
    realm_identity::VerifiedClaim::new(claim, genesis.realm_id(), &owners)
        .and_then(|claim| claim.witness(&key(NODES[0]), NOW))
        .expect("an honest claim")
}

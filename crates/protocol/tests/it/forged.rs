//! Every signed message that a node reads: changed in any byte or field, it changes nothing.

use std::{collections::BTreeSet, fs, path::Path};

use realm_identity::{Claim, Hash, Invite, Message, Signed, Timestamp, VERSION, VerifiedClaim};
use realm_manifest::report::{Capacity, NodeReport, NodeState, StatusDigest};
use realm_protocol::{
    Config, Effect, Event, Frame, HeadAnnounce, Item, JoinRequest, Node, Now, Restored, Topic,
    Verdict,
};

use crate::{
    cbor,
    client::push,
    fold::Chain,
    net::{WALL, genesis, name, node, owner},
    world::key,
};

/// The node that sends, approved but for [`Way::Join`].
const SENDER: usize = 1;

/// How a message comes in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Way {
    Heads,
    Status,
    Report,
    Join,
    Entries,
    Claims,
    Genesis,
}

/// One kind of message with its bytes; the type's name is the one in the sources.
struct Case {
    of: &'static str,
    way: Way,
    wire: Vec<u8>,
    /// Signed parts: bytes that the message's own signature covers.
    signed: Vec<u8>,
}

fn case<T: Message>(of: &'static str, way: Way, signed: &Signed<T>) -> Case {
    Case {
        of,
        way,
        wire: signed.to_wire(),
        signed: signed.signed_bytes().to_vec(),
    }
}

/// All kinds. A type that the sources read and that is not here fails [`no_message_is_left_out`].
fn cases() -> Vec<Case> {
    let entry = push(node(0, 0).log().unwrap(), &owner(), b"payload");
    let entry = Signed::<realm_identity::Entry>::from_wire(&entry.wire).unwrap();
    let claim = claim();
    vec![
        case("HeadAnnounce", Way::Heads, &announce()),
        case("StatusDigest", Way::Status, &digest()),
        case("NodeReport", Way::Report, &report()),
        case("JoinRequest", Way::Join, &request()),
        case("Entry", Way::Entries, &entry),
        case("Genesis", Way::Genesis, &genesis()),
        Case {
            of: "WitnessedClaim",
            way: Way::Claims,
            // Envelopes in an envelope: its own encoding is what fields are changed in.
            signed: Vec::new(),
            wire: claim,
        },
    ]
}

#[test]
fn no_message_is_left_out() {
    let mut read = BTreeSet::new();
    sources(
        &Path::new(env!("CARGO_MANIFEST_DIR")).join("src"),
        &mut |code| {
            for part in code.split("Signed::<").skip(1) {
                let (name, rest) = part.split_once('>').unwrap();
                if rest.starts_with("::from_wire") {
                    read.insert(name.to_owned());
                }
            }
            for part in code.split("message!(").skip(1) {
                read.insert(part.split(',').next().unwrap().to_owned());
            }
            if code.contains("WitnessedClaim::from_wire") {
                read.insert("WitnessedClaim".to_owned());
            }
        },
    );
    let covered: BTreeSet<_> = cases().iter().map(|case| case.of.to_owned()).collect();
    assert_eq!(read, covered);
}

pub fn sources(dir: &Path, look: &mut impl FnMut(&str)) {
    for path in fs::read_dir(dir)
        .unwrap()
        .map(|entry| entry.unwrap().path())
    {
        if path.is_dir() {
            sources(&path, look);
        } else {
            look(&fs::read_to_string(path).unwrap());
        }
    }
}

#[test]
fn every_byte_and_every_field_counts() {
    for case in cases() {
        let mut reader = Reader::new(case.way);
        for at in 0..case.wire.len() {
            for mask in [0x01, 0x80] {
                let mut forged = case.wire.clone();
                forged[at] ^= mask;
                assert!(!reader.takes(&forged), "{} byte {at} ^ {mask}", case.of);
            }
        }
        for cut in [0, 1, case.wire.len() / 2, case.wire.len() - 1] {
            assert!(!reader.takes(&case.wire[..cut]), "{} cut at {cut}", case.of);
        }
        let longer = [case.wire.clone(), vec![0]].concat();
        assert!(!reader.takes(&longer), "{} and a byte more", case.of);
        for forged in fields(&case) {
            assert!(!reader.takes(&forged), "{} {forged:?}", case.of);
        }
        // Nothing of it left a trace: the true one is news.
        assert!(reader.takes(&case.wire), "{} as it was signed", case.of);
    }
}

/// The message with each field changed, canonical again, under the old signature.
fn fields(case: &Case) -> Vec<Vec<u8>> {
    if case.signed.is_empty() {
        let changed = cbor::changes(&cbor::read(&case.wire));
        return changed.iter().map(cbor::write).collect();
    }
    let signature = &case.wire[case.wire.len() - 64..];
    let changed = cbor::changes(&cbor::read(&case.signed));
    assert!(changed.len() > 3, "{} has fields", case.of);
    let envelope = |tree| {
        let mut wire = minicbor::Encoder::new(Vec::new());
        let bytes = cbor::write(tree);
        let written = wire.array(2).and_then(|wire| wire.bytes(&bytes));
        written.and_then(|wire| wire.bytes(signature)).unwrap();
        wire.into_writer()
    };
    changed.iter().map(envelope).collect()
}

#[test]
fn no_message_passes_for_another() {
    let cases = cases();
    for reader in &cases {
        let others = cases.iter().filter(|case| case.of != reader.of);
        for other in others {
            let taken = Reader::new(reader.way).takes(&other.wire);
            assert!(!taken, "{} taken for {}", other.of, reader.of);
        }
    }
}

/// A node that is sent one kind of message.
struct Reader {
    node: Node<Chain>,
    way: Way,
    mono: u64,
}

impl Reader {
    fn new(way: Way) -> Self {
        let node = match way {
            Way::Genesis => homeless(),
            _ => node(0, 0),
        };
        let mut reader = Self { node, way, mono: 0 };
        let peer = name(SENDER);
        if way != Way::Join {
            let nodes = BTreeSet::from([name(0), peer]);
            reader.handle(Event::Approved { nodes });
        }
        reader.handle(Event::PeerConnected { peer });
        // It takes itself for a newcomer no longer: that would be written in the middle.
        reader.mono = 10_000;
        reader.handle(Event::Tick);
        reader
    }

    fn now(&self) -> Now {
        Now {
            wall: Timestamp::from_millis(WALL),
            mono: self.mono,
        }
    }

    fn handle(&mut self, event: Event) -> Vec<Effect> {
        let now = self.now();
        self.node.handle(event, now);
        std::iter::from_fn(|| self.node.poll_effect()).collect()
    }

    /// Whether the message changed anything here, or would be forwarded.
    fn takes(&mut self, wire: &[u8]) -> bool {
        // So slowly that no limit is met.
        self.mono += 1_000;
        let from = name(SENDER);
        let topic = match self.way {
            Way::Heads => Some(Topic::Heads),
            Way::Status => Some(Topic::Status),
            _ => None,
        };
        if let Some(topic) = topic {
            let now = self.now();
            let verdict = self.node.handle_gossip(from, topic, wire, now);
            let effects: Vec<_> = std::iter::from_fn(|| self.node.poll_effect()).collect();
            assert!(
                verdict != Verdict::Reject || effects.iter().any(is_warning),
                "a rejected message is held against the sender"
            );
            return verdict == Verdict::Accept;
        }
        let bytes = self.frame(wire);
        let effects = self.handle(Event::Frame { from, bytes });
        effects.iter().any(|effect| {
            matches!(
                effect,
                Effect::Persist { .. }
                    | Effect::ReportUpdated { .. }
                    | Effect::JoinRequested { .. }
                    | Effect::RealmJoined { .. }
            )
        })
    }

    fn frame(&self, wire: &[u8]) -> Vec<u8> {
        let wire = wire.to_vec();
        let frame = match self.way {
            Way::Report => Frame::Report(wire),
            Way::Join => Frame::Join(wire),
            Way::Genesis => Frame::Genesis(wire),
            Way::Entries => Frame::Entries {
                realm: genesis().realm_id(),
                items: vec![Item {
                    entry: wire,
                    payload: Some(b"payload".to_vec()),
                }],
                more: false,
            },
            Way::Claims => return claims_frame(&wire),
            Way::Heads | Way::Status => unreachable!("gossip is no frame"),
        };
        frame.encode()
    }
}

fn is_warning(effect: &Effect) -> bool {
    matches!(effect, Effect::Warn { .. })
}

pub fn claims_frame(claim: &[u8]) -> Vec<u8> {
    frame_of_claims(&[claim])
}

/// `[7, [[claim, …]]]`: the frame's list type is not public.
pub fn frame_of_claims(claims: &[&[u8]]) -> Vec<u8> {
    let mut frame = minicbor::Encoder::new(Vec::new());
    let opened = frame.array(2).and_then(|frame| frame.u8(7));
    let mut list = opened.and_then(|frame| frame.array(1)?.array(claims.len() as u64));
    for claim in claims {
        list = list.and_then(|frame| frame.bytes(claim));
    }
    list.unwrap();
    frame.into_writer()
}

/// A node that pinned the owner and is in no realm yet.
pub fn homeless() -> Node<Chain> {
    let config = Config {
        key: key(0, 0),
        realm: None,
        pins: vec![owner().public()],
        boot_id: 1,
        seed: 0,
        mutation: None,
    };
    let now = Now {
        wall: Timestamp::from_millis(WALL),
        mono: 0,
    };
    Node::new(config, Chain, Restored::default(), now).unwrap()
}

fn sign<T: Message>(value: T) -> Signed<T> {
    let Ok(signed) = Signed::sign(value, &key(0, SENDER as u64));
    signed
}

fn announce() -> Signed<HeadAnnounce> {
    sign(HeadAnnounce {
        v: 1,
        node: name(SENDER),
        realm: genesis().realm_id(),
        seq: 3,
        head: Hash::of(b"head"),
        tips: vec![realm_protocol::Point {
            seq: 3,
            hash: Hash::of(b"tip"),
        }],
        boot_id: 7,
        count: 1,
    })
}

fn request() -> Signed<JoinRequest> {
    sign(JoinRequest {
        v: 1,
        node: name(SENDER),
        realm: Some(genesis().realm_id()),
        name: "pi".to_owned(),
        tags: vec!["edge".to_owned()],
        addresses: vec!["/ip4/192.0.2.1/tcp/2020".to_owned()],
        version: "0.1.0".to_owned(),
        at: Timestamp::from_millis(WALL),
    })
}

fn report() -> Signed<NodeReport> {
    sign(NodeReport {
        node: name(SENDER),
        realm: genesis().realm_id(),
        boot_id: 7,
        seq: 1,
        at: Timestamp::from_millis(WALL),
        revision: 0,
        head: Hash::of(b"x"),
        state: NodeState::Ready,
        name: "one".parse().unwrap(),
        tags: vec![],
        version: "0.1.0".to_owned(),
        addresses: vec![],
        cpu_hundredths: Some(3),
        memory_bytes: Some(4),
        capacity: Capacity::default(),
        cells: vec![],
        declined: vec![],
        holds: vec![],
        sealing: Some(vec![1, 2, 3].into()),
        problems: vec![],
    })
}

fn digest() -> Signed<StatusDigest> {
    sign(StatusDigest {
        node: name(SENDER),
        realm: genesis().realm_id(),
        boot_id: 7,
        seq: 1,
        at: Timestamp::from_millis(WALL),
        revision: 0,
        head: Hash::of(b"x"),
        state: NodeState::Ready,
        report: Hash::of(b"report"),
        cells_running: 1,
        cells_wanted: 2,
        problems: vec![],
    })
}

fn claim() -> Vec<u8> {
    let invite_key = key(0, 50);
    let invite = Invite {
        v: VERSION,
        realm: genesis().realm_id(),
        genesis: genesis().to_wire(),
        owner: owner().public(),
        key: invite_key.public(),
        name: Some("pi".to_owned()),
        tags: vec!["edge".to_owned()],
        issued_at: Timestamp::from_millis(WALL),
        not_after: Timestamp::from_millis(WALL + 60_000),
        addresses: vec![],
    };
    let Ok(invite) = Signed::sign(invite, &owner());
    let now = Timestamp::from_millis(WALL);
    let Ok(claim) = Claim::sign(&invite, &invite_key, &key(0, 60), now);
    let verified = VerifiedClaim::new(claim, genesis().realm_id(), &[owner().public()]).unwrap();
    let witness = key(0, SENDER as u64);
    verified.witness(&witness, now).unwrap().to_wire()
}

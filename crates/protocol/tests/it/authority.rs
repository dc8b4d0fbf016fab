//! Who may send what: every kind of frame and every topic, each sent by those who may not and by one
//! who may. A variant that is not listed here does not compile.

use std::collections::BTreeSet;

use realm_identity::Hash;
use realm_protocol::{Effect, Event, Frame, Item, Offence, Point, Topic};

use crate::forgeries::{
    host::{Host, Outcome, REVOKED, SENDER, STRANGER, Way, public},
    objects::{self, Original},
    scenes::{self, Scene, component, next, push},
};

/// Whose frames of a kind a node of the realm listens to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Who {
    /// Approved nodes; to others it says nothing, for they may not know that they are none.
    Approved,
    /// Approved nodes; whoever else sends it is held to account.
    ApprovedOrWarned,
    /// Whoever brings it: what counts is who signed it.
    Anybody,
    /// The node that it is about, while it is not approved.
    ItselfUnapproved,
    /// Anybody, to a node that is not in the realm yet; in the realm nobody.
    OutsideOnly,
}

const KINDS: usize = 14;

/// The number of a kind on the wire, and who may send it.
fn rule(frame: &Frame) -> (usize, Who) {
    match frame {
        Frame::Locator { .. } => (0, Who::Approved),
        Frame::Entries { .. } => (1, Who::ApprovedOrWarned),
        Frame::Checkpoint(_) => (2, Who::OutsideOnly),
        Frame::Genesis(_) => (3, Who::OutsideOnly),
        Frame::GetEntry(_) => (4, Who::Approved),
        Frame::ForkProof(_) => (5, Who::ApprovedOrWarned),
        Frame::ClaimsHave(_) => (6, Who::Approved),
        Frame::Claims(_) => (7, Who::Anybody),
        Frame::Claim(_) => (8, Who::ItselfUnapproved),
        Frame::Join(_) => (9, Who::ItselfUnapproved),
        Frame::Swim(_) => (10, Who::Approved),
        Frame::GetReport { .. } => (11, Who::Approved),
        Frame::Report(_) => (12, Who::Approved),
        Frame::Revoked(_) => (13, Who::OutsideOnly),
    }
}

/// Who may hand over a topic's messages, and whose they must be: anybody, an approved node's own.
fn way(topic: Topic) -> Way {
    match topic {
        Topic::Heads => Way::Heads,
        Topic::Status => Way::Status,
    }
}

fn original(scene: Scene, way: Way) -> Original {
    let all = objects::of(scene).into_iter();
    all.into_iter().find(|found| found.way == way).unwrap()
}

/// A frame of each kind that does something where it is allowed.
fn frames(host: &Host) -> Vec<Frame> {
    let log = host.log();
    let realm = log.realm();
    let entry = next(host, &Scene::Member.owner(), component("new"), &push("new"));
    let item = Item {
        entry: entry.wire,
        payload: Some(entry.payload),
    };
    let first = Point {
        seq: 0,
        hash: realm,
    };
    let bytes = |scene, way| original(scene, way).wire;
    let claims = Frame::decode(&crate::forged::claims_frame(&bytes(
        Scene::Member,
        Way::Claims,
    )));
    vec![
        Frame::Locator {
            realm,
            tips: vec![first],
            samples: vec![first],
        },
        Frame::Entries {
            realm,
            items: vec![item.clone()],
            more: false,
        },
        Frame::Checkpoint(log.checkpoint().unwrap()),
        Frame::Genesis(log.genesis().to_wire()),
        Frame::GetEntry(log.head().hash),
        Frame::ForkProof(vec![item]),
        Frame::ClaimsHave(vec![Hash::of(b"unknown here")]),
        claims.unwrap(),
        Frame::Claim(bytes(Scene::Member, Way::Claim)),
        Frame::Join(bytes(Scene::Member, Way::Join)),
        // Nobody who may not send it is told that it is none.
        Frame::Swim(vec![1; 20]),
        Frame::GetReport {
            node: public(SENDER),
            boot_id: 0,
            seq: 0,
        },
        Frame::Report(bytes(Scene::Member, Way::Report)),
        Frame::Revoked(bytes(Scene::Fresh, Way::Revoked)),
    ]
}

/// A node of the realm that has a report to tell of.
fn member() -> Host {
    let mut host = Scene::Member.build();
    let report = original(Scene::Member, Way::Report);
    let outcome = host.offer(Way::Report, SENDER, &report.before[0], &[]);
    assert!(matches!(outcome, Outcome::Taken(_)));
    host
}

fn send(host: &mut Host, from: u64, frame: &Frame) -> Vec<Effect> {
    host.mono += 1_000;
    let (from, bytes) = (public(from), frame.encode());
    host.handle(Event::Frame { from, bytes })
}

/// Whether the sender got something, or something came of it.
fn does(effects: &[Effect], sender: u64) -> bool {
    effects.iter().any(|effect| match effect {
        Effect::Warn { what, .. } => *what == Offence::BadSwim,
        // The word of the owner to who was revoked, and to nobody else.
        Effect::Send { to, frame } => {
            let told = matches!(Frame::decode(frame), Ok(Frame::Revoked(_)));
            !(told && sender == REVOKED && *to == public(REVOKED))
        }
        _ => true,
    })
}

#[test]
fn every_frame_has_its_senders() {
    let kinds: BTreeSet<_> = frames(&member())
        .iter()
        .map(|frame| rule(frame).0)
        .collect();
    assert!(kinds.into_iter().eq(0..KINDS), "one of each kind");
    for frame in frames(&member()) {
        let (number, who) = rule(&frame);
        assert_eq!(frame.encode()[1], number as u8, "the number on the wire");
        let mut host = member();
        let before = host.snapshot();
        for sender in [STRANGER, REVOKED] {
            let may = match who {
                Who::Anybody => continue,
                Who::ItselfUnapproved => sender == STRANGER,
                _ => false,
            };
            if may {
                continue;
            }
            let effects = send(&mut host, sender, &frame);
            assert!(!does(&effects, sender), "{number} by {sender}: {effects:?}");
            assert_eq!(host.snapshot(), before, "{number} by {sender}");
            let warned = effects.iter().any(|effect| {
                let what = Offence::NotApproved;
                *effect
                    == Effect::Warn {
                        peer: public(sender),
                        what,
                    }
            });
            assert_eq!(warned, who == Who::ApprovedOrWarned, "{number} by {sender}");
        }
        // The same frame by one who may: it was not refused for what is in it.
        let (mut host, sender) = match who {
            Who::Approved | Who::ApprovedOrWarned => (host, SENDER),
            Who::Anybody | Who::ItselfUnapproved => (host, STRANGER),
            Who::OutsideOnly => {
                let effects = send(&mut host, SENDER, &frame);
                assert!(!does(&effects, SENDER), "{number}: {effects:?}");
                assert_eq!(host.snapshot(), before, "{number} in the realm");
                (Scene::Fresh.build(), STRANGER)
            }
        };
        let effects = send(&mut host, sender, &frame);
        assert!(does(&effects, sender), "{number} by {sender}: {effects:?}");
    }
}

#[test]
fn frames_of_another_realm_do_nothing_here() {
    let elsewhere = scenes::realm_of(
        crate::forgeries::host::FOREIGNER,
        &[crate::forgeries::host::ME, SENDER],
    );
    let there = elsewhere.log();
    let of_there = |frame: &Frame| match frame {
        Frame::Locator { tips, samples, .. } => Some(Frame::Locator {
            realm: there.realm(),
            tips: tips.clone(),
            samples: samples.clone(),
        }),
        Frame::Entries { items, .. } => Some(Frame::Entries {
            realm: there.realm(),
            items: items.clone(),
            more: true,
        }),
        Frame::ForkProof(_) => Some(Frame::ForkProof(there.proofs(1))),
        Frame::Checkpoint(_) => there.checkpoint().map(Frame::Checkpoint),
        Frame::Genesis(_) => Some(Frame::Genesis(there.genesis().to_wire())),
        Frame::GetEntry(_) => Some(Frame::GetEntry(there.head().hash)),
        // What is in these is signed: the forgeries have those of other realms.
        Frame::Claims(_) | Frame::Claim(_) | Frame::Join(_) | Frame::Report(_) => None,
        Frame::Revoked(_) => Some(Frame::Revoked(there.proofs(1)[0].entry.clone())),
        // These name no realm: the connection is an approved node's.
        Frame::ClaimsHave(_) | Frame::Swim(_) | Frame::GetReport { .. } => None,
    };
    let mut host = member();
    let before = host.snapshot();
    for frame in frames(&host).iter().filter_map(of_there) {
        for sender in [SENDER, STRANGER, REVOKED] {
            let effects = send(&mut host, sender, &frame);
            assert!(!does(&effects, sender), "{frame:?}: {effects:?}");
            assert_eq!(host.snapshot(), before, "{frame:?}");
        }
    }
}

#[test]
fn every_topic_has_its_authors() {
    for topic in [Topic::Heads, Topic::Status] {
        let way = way(topic);
        let good = original(Scene::Member, way);
        let mut host = Scene::Member.build();
        let before = host.snapshot();
        // In the name of a node that is none of the realm, and of another realm's.
        let bad = good.extra.iter().map(|(_, wire, _)| wire.clone());
        let part = &good.parts[0];
        let bad: Vec<_> = bad
            .filter(|wire| !good.before.contains(wire))
            .take(1)
            .chain([STRANGER, REVOKED].map(|who| part.said_by(who)))
            .collect();
        for wire in bad {
            for from in [SENDER, STRANGER] {
                let outcome = host.offer(way, from, &wire, &[]);
                assert_eq!(outcome, Outcome::Silent, "{topic:?}");
                assert_eq!(host.snapshot(), before, "{topic:?}");
            }
        }
        // Gossip is handed on: by whom does not matter.
        let outcome = host.offer(way, STRANGER, &good.wire, &[]);
        assert!(
            matches!(outcome, Outcome::Taken(_)),
            "{topic:?}: {outcome:?}"
        );
    }
}

//! Forgeries on the disk, and what was recorded and comes again.

use std::{collections::BTreeSet, fs, path::Path};

use rand_foca::{RngExt as _, SeedableRng, rngs::SmallRng};
use realm_identity::canonical;
use realm_protocol::{Config, Event, Halt, Item, Node, Restored};

use super::{
    host::{Host, ME, OWNER, Outcome, SENDER, Way, now, public, restored, secret},
    mutate::{DOMAINS, of_part, of_wire},
    objects,
    scenes::{Scene, component, fork, next, push},
};
use crate::planner_fold::PlannerFold;

fn start(disk: Restored) -> Result<Node<PlannerFold>, realm_protocol::RestoreError> {
    let config = Config {
        key: secret(ME),
        realm: None,
        pins: vec![public(OWNER)],
        boot_id: 1,
        seed: 0,
        mutation: None,
    };
    Node::new(config, PlannerFold, disk, now(0))
}

#[test]
fn forged_entries_on_disk_are_left_out() {
    let mut rng = SmallRng::seed_from_u64(1);
    let host = Scene::Member.build();
    let mut disk = restored(&host.disk);
    let genuine = disk.entries.len();
    for original in objects::of(Scene::Restarted).iter().take(2) {
        let mut made = Vec::new();
        of_wire(&original.wire, &mut rng, &mut made);
        of_part(&original.parts[0], &mut rng, &mut made);
        made.retain(|(_, wire)| *wire != original.wire);
        disk.entries.extend(made.into_iter().map(|(_, entry)| Item {
            entry,
            payload: Some(original.payload.clone()),
        }));
    }
    let forged = disk.entries.len() - genuine;
    assert!(forged > 1_000, "{forged} forgeries");
    let node = start(disk).unwrap();
    let log = node.log().unwrap();
    assert_eq!(log.head(), host.log().head());
    assert_eq!((log.len(), log.halt()), (genuine, None));
}

#[test]
fn a_forged_beginning_on_disk_is_an_error() {
    let mut rng = SmallRng::seed_from_u64(2);
    for original in objects::of(Scene::Fresh).iter().take(2) {
        let mut made = Vec::new();
        of_wire(&original.wire, &mut rng, &mut made);
        for part in &original.parts {
            of_part(part, &mut rng, &mut made);
        }
        let mut tried = 0;
        for (class, wire) in made.iter().filter(|(_, wire)| *wire != original.wire) {
            let mut disk = Restored::default();
            if original.way == Way::Genesis {
                disk.genesis = Some(wire.clone());
            } else {
                let Ok(checkpoint) = canonical::decode(wire, wire.len()) else {
                    continue;
                };
                disk.genesis = Some(super::scenes::genesis_of(OWNER).to_wire());
                disk.checkpoint = Some(checkpoint);
            }
            tried += 1;
            // Somebody else's own realm is no forgery by itself: the pin, not the disk, says whose it is.
            let is_other = *class == super::Class::WrongAuthor && original.way == Way::Genesis;
            assert!(is_other || start(disk).is_err(), "{class:?} {wire:02x?}");
        }
        assert!(tried > 300, "{tried} of {}", original.name);
    }
}

#[test]
fn a_second_entry_for_a_revision_is_a_proof_and_no_entry() {
    let mut host = Scene::Member.build();
    let before = host.log().head().clone();
    let (approved, owner) = (host.state().nodes, host.log().owner());
    let sides = fork(&mut host);
    let forked = Some(Halt::Forked {
        seq: before.seq + 1,
    });
    assert_eq!(host.log().halt(), forked.as_ref());
    assert_eq!(*host.log().head(), before, "neither of them counts");
    assert_eq!((host.state().nodes, host.log().owner()), (approved, owner));
    for side in &sides {
        assert!(host.log().contains(side.hash), "both are kept as proofs");
    }
    // Nor does what follows one of them, or a third.
    let third = next(&host, &secret(OWNER), component("three"), &push("three"));
    host.offer(Way::Entries, SENDER, &third.wire, &third.payload);
    assert_eq!(*host.log().head(), before);
    assert_eq!(host.log().tips().len(), 3);
    let refused = host.offer(Way::Submit, SENDER, &third.wire, &third.payload);
    assert!(matches!(refused, Outcome::Taken(_)), "known, as a proof");
    let fourth = next(&host, &secret(OWNER), component("four"), &push("four"));
    let refused = host.offer(Way::Submit, SENDER, &fourth.wire, &fourth.payload);
    assert_eq!(refused, Outcome::Named("forked".to_owned()));
}

/// Intents that were recorded, and how often all of them come again.
const RECORDED: usize = 200;
const AGAIN: usize = 20;

#[test]
fn recorded_intents_change_nothing_when_they_come_again() {
    let mut rng = SmallRng::seed_from_u64(3);
    let mut host = Scene::Member.build();
    let mut recorded = Vec::new();
    for at in 0..RECORDED {
        let signature = next(
            &host,
            &secret(OWNER),
            component(&format!("c{}", at % 5)),
            &push(&at.to_string()),
        );
        let (entry, payload) = (signature.wire.clone(), signature.payload.clone());
        host.handle(Event::Submit {
            token: 1,
            entry,
            payload,
        });
        recorded.push(signature);
    }
    let head = host.log().head().clone();
    assert_eq!(head.hash, recorded[RECORDED - 1].hash);
    let restarted = Host::new(public(OWNER), host.disk.clone());
    assert_eq!(*restarted.log().head(), head);
    for mut node in [host, restarted] {
        let before = node.snapshot();
        for round in 0..AGAIN {
            let way = [Way::Entries, Way::ForkProof, Way::Submit][round % 3];
            for at in (1..recorded.len()).rev() {
                recorded.swap(at, rng.random_range(0..=at));
            }
            for signature in &recorded {
                node.offer(way, SENDER, &signature.wire, &signature.payload);
            }
            assert_eq!(node.snapshot(), before);
        }
    }
}

#[test]
fn every_domain_is_forged() {
    let crates = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap();
    let mut signed = BTreeSet::new();
    for entry in fs::read_dir(crates).unwrap() {
        crate::forged::sources(&entry.unwrap().path().join("src"), &mut |text| {
            let code = text
                .lines()
                .filter(|line| !line.trim_start().starts_with("//"));
            let code = code.collect::<Vec<_>>().join("\n");
            for marker in ["message!(", "const DOMAIN: &'static str ="] {
                let statements = code.split(marker).skip(1);
                let strings =
                    statements.filter_map(|text| text.split(';').next()?.split('"').nth(1));
                signed.extend(strings.map(str::to_owned));
            }
        });
    }
    let listed: BTreeSet<_> = DOMAINS.map(str::to_owned).into();
    assert_eq!(signed, listed, "mutate::DOMAINS lists what is signed");
    let all = Scene::ALL.into_iter().flat_map(objects::of);
    let forged = all.flat_map(|original| original.parts);
    let forged: BTreeSet<_> = forged.map(|part| part.domain.to_owned()).collect();
    assert_eq!(forged, listed, "each has forgeries");
}

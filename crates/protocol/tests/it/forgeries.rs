//! A hundred thousand forgeries of everything that is signed, given to nodes in every state the way
//! they would come: none is taken, none leaves a trace, and what is genuine is taken after them.
//!
//! `REALM_FORGERIES=n` makes at least so many, `REALM_FORGERY_SEED=n` makes those of a seed again.

use std::{
    collections::BTreeMap,
    env,
    num::NonZero,
    sync::{
        Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    thread,
};

use rand_foca::{RngExt as _, SeedableRng, rngs::SmallRng};

mod disk;
mod entries;
pub mod host;
mod invites;
mod mutate;
pub mod objects;
pub mod scenes;

use host::{FOREIGNER, Host, ME, OWNER, Outcome, SENDER, Way, public};
use mutate::{Class, of_part, of_wire};
use objects::Original;
use scenes::Scene;

/// What the issue asks for; a longer campaign says how many by `REALM_FORGERIES`.
const FORGERIES: usize = 100_000;
const SEED: u64 = 1;

/// How many of each class met with each outcome.
type Tally = BTreeMap<(Class, String), usize>;

fn number(name: &str) -> Option<u64> {
    let text = env::var(name).ok()?;
    Some(
        text.parse()
            .unwrap_or_else(|_| panic!("{name} is no number: {text}")),
    )
}

#[test]
fn no_forgery_is_taken() {
    let wanted = number("REALM_FORGERIES").map_or(FORGERIES, |count| count as usize);
    let first = number("REALM_FORGERY_SEED").unwrap_or(SEED);
    let (mut tally, mut total) = (Tally::new(), 0);
    for seed in first.. {
        let made = round(seed, &mut tally);
        total += made;
        if total >= wanted {
            break;
        }
    }
    for class in Class::ALL {
        let of = tally.iter().filter(|((found, _), _)| *found == class);
        let outcomes: Vec<_> = of
            .map(|((_, name), count)| format!("{name} {count}"))
            .collect();
        let count: usize = tally
            .iter()
            .filter_map(|((found, _), count)| (*found == class).then_some(count))
            .sum();
        println!("{class:?}: {count} ({})", outcomes.join(", "));
        assert!(count > 0, "{class:?} was not tried");
    }
    println!("{total} forgeries from seed {first}, 0 accepted");
    assert!(total >= wanted);
}

/// Every message in every scene with all its forgeries, on as many threads as there are processors.
fn round(seed: u64, tally: &mut Tally) -> usize {
    let work: Vec<(Scene, usize)> = Scene::ALL
        .into_iter()
        .flat_map(|scene| (0..objects::of(scene).len()).map(move |index| (scene, index)))
        .collect();
    let (next, done) = (AtomicUsize::new(0), Mutex::new(Tally::new()));
    thread::scope(|threads| {
        for _ in 0..thread::available_parallelism().map_or(1, NonZero::get) {
            threads.spawn(|| {
                while let Some((scene, index)) = work.get(next.fetch_add(1, Ordering::Relaxed)) {
                    let found = campaign(seed, *scene, *index);
                    let mut done = done.lock().unwrap();
                    for (key, count) in found {
                        *done.entry(key).or_default() += count;
                    }
                }
            });
        }
    });
    let done = done.into_inner().unwrap();
    let total = done.values().sum();
    for (key, count) in done {
        *tally.entry(key).or_default() += count;
    }
    total
}

/// One genuine message: its forgeries, then itself, to a node that saw them and to one that did not.
fn campaign(seed: u64, scene: Scene, index: usize) -> Tally {
    let mut rng = SmallRng::seed_from_u64(seed ^ (scene as u64) << 32 ^ (index as u64) << 40);
    let original = objects::of(scene).swap_remove(index);
    let (mut node, mut twin) = (scene.build(), scene.build());
    for wire in &original.before {
        for host in [&mut node, &mut twin] {
            let outcome = host.offer(original.way, original.from, wire, &original.payload);
            assert!(
                matches!(outcome, Outcome::Taken(_)),
                "{}: {outcome:?}",
                original.name
            );
        }
    }
    let mut tally = Tally::new();
    let whose = format!(
        "seed {seed}, {scene:?}, {} by {:?}",
        original.name, original.way
    );
    let before = node.snapshot();
    for (class, wire, payload) in forgeries(&original, &mut rng) {
        let payload = payload.as_deref().unwrap_or(&original.payload);
        let outcome = node.offer(original.way, original.from, &wire, payload);
        let what = || format!("{whose}: {class:?} {}: {outcome:?}", hex(&wire));
        assert_eq!(node.snapshot(), before, "{}", what());
        let name = match &outcome {
            // A submit that is known is answered as it was: nothing comes of it.
            Outcome::Taken(_) if class == Class::Stale && original.way == Way::Submit => "known",
            Outcome::Taken(_) => panic!("{}", what()),
            Outcome::Silent if class.is_named() => panic!("not counted: {}", what()),
            Outcome::Silent => "passed over",
            Outcome::Named(name) => name,
        };
        *tally.entry((class, name.to_owned())).or_default() += 1;
    }
    let offer = |host: &mut Host| {
        let outcome = host.offer(
            original.way,
            original.from,
            &original.wire,
            &original.payload,
        );
        let taken = matches!(outcome, Outcome::Taken(_));
        assert!(taken, "{whose}: the genuine one was refused: {outcome:?}");
        host.snapshot()
    };
    assert_eq!(
        offer(&mut node),
        offer(&mut twin),
        "{whose}: a trace is left"
    );
    replay(&original, &mut node, &whose, &mut tally);
    tally
}

fn forgeries(original: &Original, rng: &mut SmallRng) -> Vec<(Class, Vec<u8>, Option<Vec<u8>>)> {
    let mut made = Vec::new();
    of_wire(&original.wire, rng, &mut made);
    for part in &original.parts {
        of_part(part, rng, &mut made);
    }
    let made = made.into_iter().filter(|(_, wire)| *wire != original.wire);
    let mut made: Vec<_> = made.map(|(class, wire)| (class, wire, None)).collect();
    made.extend(original.extra.iter().cloned());
    // In any order: none may prepare the way for another.
    for at in (1..made.len()).rev() {
        made.swap(at, rng.random_range(0..=at));
    }
    made
}

/// A node that came into a realm waits for the whole log for less.
const WHOLE_LOG_MS: u64 = 10_000;

/// The genuine message again: to the node that has it, to the same one started again, and to nodes
/// of another realm and of none.
fn replay(original: &Original, node: &mut Host, whose: &str, tally: &mut Tally) {
    if matches!(
        original.way,
        Way::Graft | Way::Claim | Way::Sealing | Way::Token
    ) {
        // These leave nothing in the node: what makes them good once is in the forgeries.
        return;
    }
    if original.way == Way::Checkpoint {
        // The first one vouches for the realm; the log begins at one when nobody had more for a while.
        node.mono += WHOLE_LOG_MS;
        node.offer(
            original.way,
            original.from,
            &original.wire,
            &original.payload,
        );
    }
    let again = Host::new(public(OWNER), node.disk.clone());
    let is_lasting = matches!(
        original.way,
        Way::Entries | Way::ForkProof | Way::Submit | Way::Claims | Way::Checkpoint | Way::Genesis
    );
    let foreign = scenes::realm_of(FOREIGNER, &[ME, SENDER]);
    let stranger = Host::new(public(FOREIGNER), Vec::new());
    let needs_realm = matches!(original.way, Way::Entries | Way::Join);
    let hosts = [
        ("the same", Some(again).filter(|_| is_lasting)),
        ("of another realm", Some(foreign)),
        ("of no realm", Some(stranger).filter(|_| !needs_realm)),
    ];
    let mut give = |host: &mut Host, to: &str| {
        let before = host.snapshot();
        let outcome = host.offer(
            original.way,
            original.from,
            &original.wire,
            &original.payload,
        );
        assert_eq!(host.snapshot(), before, "{whose}: replayed to a node {to}");
        let name = match outcome {
            Outcome::Taken(_) if original.way == Way::Submit && to == "the same" => "known",
            Outcome::Taken(what) => panic!("{whose}: a node {to} took a replay: {what}"),
            Outcome::Silent => "passed over",
            Outcome::Named(_) => "named",
        };
        *tally.entry((Class::Replayed, name.to_owned())).or_default() += 1;
    };
    give(node, "the same");
    for (to, host) in hosts {
        if let Some(mut host) = host {
            give(&mut host, to);
        }
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

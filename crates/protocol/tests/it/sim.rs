//! A thousand seeds, and five planted bugs that they must find.

use std::{
    sync::atomic::{AtomicU64, Ordering},
    thread,
};

use realm_protocol::Mutation;

use crate::world::{Scene, World};

const SEEDS: u64 = 1_000;
/// Seeds within which a planted bug must show.
const SEEDS_TO_CATCH: u64 = 200;
const THREADS: usize = 2;
/// Seeds beyond those, each of which found something once.
const FOUND_BY: [u64; 1] = [1646];

fn run(seed: u64, mutation: Option<Mutation>) -> Result<u64, String> {
    World::new(Scene { seed, mutation }).run()
}

/// `REALM_SIM_SEED` runs that seed alone, `REALM_SIM_SEEDS` that many.
#[test]
fn every_seed_keeps_every_promise() {
    let number = |name| {
        std::env::var(name)
            .ok()
            .map(|text| text.parse::<u64>().unwrap())
    };
    let (first, last) = match number("REALM_SIM_SEED") {
        Some(seed) => (seed, seed + 1),
        None => (0, number("REALM_SIM_SEEDS").unwrap_or(SEEDS)),
    };
    let next = AtomicU64::new(first);
    let work = || -> Result<(), String> {
        loop {
            let seed = next.fetch_add(1, Ordering::Relaxed);
            if seed >= last {
                return Ok(());
            }
            let events = run(seed, None).map_err(|broken| {
                next.store(last, Ordering::Relaxed);
                format!(
                    "seed {seed}: {broken}\nrun it again: REALM_SIM_SEED={seed} cargo test -p realm-protocol \
                     --test it every_seed"
                )
            })?;
            assert!(events >= 200, "seed {seed}: only {events} events");
        }
    };
    let results: Vec<_> = thread::scope(|scope| {
        let workers: Vec<_> = (0..THREADS).map(|_| scope.spawn(work)).collect();
        workers
            .into_iter()
            .map(|worker| worker.join().unwrap())
            .collect()
    });
    let failures: Vec<_> = results.into_iter().filter_map(Result::err).collect();
    assert!(failures.is_empty(), "{}", failures.join("\n"));
}

#[test]
fn seeds_that_found_something_once() {
    for seed in FOUND_BY {
        run(seed, None).unwrap();
    }
}

#[test]
fn the_same_seed_runs_the_same_way() {
    assert_eq!(run(5, None).unwrap(), run(5, None).unwrap());
}

fn caught(mutation: Mutation, words: &[&str]) {
    let broken = (0..SEEDS_TO_CATCH).find_map(|seed| run(seed, Some(mutation)).err());
    let broken = broken.unwrap_or_else(|| panic!("{mutation:?} was not caught"));
    assert!(
        words.iter().any(|word| broken.contains(word)),
        "{mutation:?} caught as something else: {broken}"
    );
}

#[test]
fn catches_an_ack_before_the_write() {
    caught(
        Mutation::AckBeforePersist,
        &["lost the acknowledged", "not on disk", "fell from"],
    );
}

#[test]
fn catches_a_wrong_author() {
    caught(
        Mutation::WrongAuthor,
        &["did not sign", "fork that nobody made", "is two entries"],
    );
}

#[test]
fn catches_a_skipped_parent_check() {
    caught(
        Mutation::SkipPrev,
        // An entry of another branch is taken, or shows first as what it leads to.
        &[
            "without its parent",
            "fork that nobody made",
            "two states",
            "past the fork",
        ],
    );
}

#[test]
fn catches_a_forgotten_revision() {
    caught(Mutation::ForgetRevision, &["in a restart"]);
}

#[test]
fn catches_an_ignored_fork() {
    caught(Mutation::IgnoreFork, &["past the fork", "logs differ"]);
}

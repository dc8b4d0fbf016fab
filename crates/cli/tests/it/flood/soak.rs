//! Every attack at once, for as long as is asked for.

use std::time::{Duration, Instant};

use super::{
    CALM, FILES_MORE, PAUSE, RESIDENT_MAX, back_to,
    delivery::{Deliveries, Latencies},
    large_program,
    scene::Scene,
    siege::{Attack, Siege},
    watch,
};

/// How long, in minutes.
const MINUTES: &str = "SOAK_MINUTES";
const MINUTES_DEFAULT: u64 = 1;
/// From here on memory has to stay what it is.
const LONG: u64 = 10;
/// How much more may be resident at the end than in the middle, in a long soak and in a short one,
/// in which caches still fill.
const GROWTH: f64 = 0.01;
const GROWTH_SHORT: f64 = 0.15;
/// Between two programs that are pushed meanwhile.
const PUSH_EVERY: Duration = Duration::from_secs(20);
/// Bytes of such a program beyond what it does.
const PROGRAM: usize = 2 * 1024 * 1024;
/// Between the begins of two deliveries. Each makes the log longer, which every node keeps in memory: at two or three in a
/// second that alone is more than the growth that is allowed here.
const CALMLY: Duration = Duration::from_secs(1);
const ROUND: Duration = Duration::from_secs(2);

#[test]
#[ignore = "takes as many minutes as SOAK_MINUTES says: make soak"]
fn a_realm_goes_on_while_all_of_it_happens_at_once() {
    let minutes = std::env::var(MINUTES).ok();
    let minutes = minutes.map_or(MINUTES_DEFAULT, |text| text.parse().unwrap());
    let scene = Scene::new();
    let mut deliveries = Deliveries::new(&scene.realm, "one", "two");
    watch(&scene, &mut deliveries, CALM / 4, PAUSE);
    let calm = watch(&scene, &mut deliveries, CALM, PAUSE).took;
    let before = ["one", "two"].map(|node| scene.gauge(node));
    println!("calm: {calm}; one {}; two {}", before[0], before[1]);

    let siege = Siege::lay(&scene.target, &Attack::ALL);
    let mut soak = Soak::default();
    let (began, mut pushed, mut told) = (Instant::now(), Instant::now(), 0);
    let end = Duration::from_secs(60 * minutes);
    while began.elapsed() < end {
        let watched = watch(&scene, &mut deliveries, ROUND, CALMLY);
        soak.resident.push(watched.peak.map(|gauge| gauge.resident));
        soak.files = soak.files.max(watched.peak[0].files);
        soak.took = Some(match soak.took.take() {
            Some(before) => before.with(watched.took),
            None => watched.took,
        });
        if pushed.elapsed() >= PUSH_EVERY {
            pushed = Instant::now();
            soak.pushes += 1;
            // The nodes end connections that answer no ping meanwhile.
            std::thread::scope(|scope| {
                let pushed = scope.spawn(|| push(&scene, soak.pushes));
                deliveries.rest_until(|| pushed.is_finished());
            });
            deliveries.refresh(deliveries.revision() + 1);
        }
        if began.elapsed().as_secs() / 60 > told {
            told += 1;
            println!("minute {told}: {}", soak.now(&scene));
        }
    }
    println!("the end: {}", soak.now(&scene));
    for (attack, blows) in siege.blows() {
        println!("{attack:?}: {blows} blows");
        assert!(blows > 0, "{attack:?} did nothing");
    }
    drop(siege);

    let took = soak.took.as_ref().expect("deliveries");
    println!("calm: {calm}");
    // All foes and both nodes share this machine, so that no time says much: what each attack does to it
    // is measured alone. But not one delivery failed.
    println!("besieged: {took}");
    for (at, node) in ["one", "two"].iter().enumerate() {
        let growth = soak.growth(at);
        let most = soak.resident.iter().map(|both| both[at]).max().unwrap();
        println!(
            "{node}: growth {:.2} %, at most {} MiB",
            growth * 100.0,
            most >> 20
        );
        assert!(most <= RESIDENT_MAX, "{node}: {most} bytes");
        let bound = if minutes >= LONG {
            GROWTH
        } else {
            GROWTH_SHORT
        };
        assert!(growth <= bound, "{node} grows: {growth}");
    }
    let ended = Instant::now();
    for (node, before) in ["one", "two"].iter().zip(before) {
        back_to(&scene, node, before);
        println!(
            "{node} is back after {:?}: {}",
            ended.elapsed(),
            scene.gauge(node)
        );
    }
    assert!(scene.gauge("one").files <= before[0].files + FILES_MORE);
    scene.assert_answers();
    let named = [&scene.target.members[0]];
    scene.assert_shown(&["framing", "malformed_frame", "rate_limited"], &named);
}

/// A new program for "one", which is sent to "two".
fn push(scene: &Scene, number: u8) {
    let (program, via) = (
        large_program(scene, number, PROGRAM),
        scene.realm.address("two"),
    );
    let args = ["push", "changing", &program, "--node", "one", "--via", &via];
    scene.realm.ok(&args);
    std::fs::remove_file(program).unwrap();
}

#[derive(Default)]
struct Soak {
    took: Option<Latencies>,
    /// The most of each round, of "one" and of "two".
    resident: Vec<[u64; 2]>,
    files: usize,
    pushes: u8,
}

impl Soak {
    fn now(&self, scene: &Scene) -> String {
        let took = self.took.as_ref().expect("deliveries");
        let (one, two) = (scene.gauge("one"), scene.gauge("two"));
        let (files, pushes) = (self.files, self.pushes);
        format!("one {one}, at most {files} files; two {two}; {took}; {pushes} programs")
    }

    /// How much more is resident in the last third than in the one before, by their medians.
    fn growth(&self, at: usize) -> f64 {
        let third = self.resident.len() / 3;
        let median = |rounds: &[[u64; 2]]| {
            let mut resident: Vec<u64> = rounds.iter().map(|both| both[at]).collect();
            resident.sort_unstable();
            resident[resident.len() / 2] as f64
        };
        let rounds = &self.resident[self.resident.len() - 2 * third..];
        median(&rounds[third..]) / median(&rounds[..third]) - 1.0
    }
}

//! Whole agents, as processes, while hostile peers do what they can to be in the way.

mod delivery;
mod foe;
mod guests;
mod lies;
mod member;
mod rumours;
mod scene;
mod siege;
mod soak;
mod strangers;
mod web;

use std::time::{Duration, Instant};

use realm_testkit::{Net, wait_for};
use serde_json::Value;

pub use delivery::Deliveries;
pub use scene::STILL;

use delivery::Latencies;
use scene::{Gauge, Scene};
use siege::{Attack, Siege};

use crate::guest;

const MIB: u64 = 1024 * 1024;
/// What an agent may take at any time, in bytes.
const RESIDENT_MAX: u64 = 256 * MIB;
/// How long each flood lasts: longer than what a burst may be.
const FLOOD: Duration = Duration::from_secs(8);
/// How long deliveries are measured without one.
const CALM: Duration = Duration::from_secs(8);
/// Between the begins of two deliveries.
const PAUSE: Duration = Duration::from_millis(40);
/// Deliveries that take no longer than this are not late, however fast they are in a calm.
const FLOOR: Duration = Duration::from_millis(250);
/// A flood in which deliveries are late is laid once more: a disk that stalls for a moment is not the
/// foes' doing, and they have to do it again.
const TRIES: usize = 2;
/// Files beyond those that were open before, once the foes are gone.
const FILES_MORE: usize = 4;
/// What the agent may write to its log in a second of a flood, in bytes.
const LOG_PER_SECOND: u64 = 64 * 1024;

/// The program that is pushed while a member lies about it, in bytes beyond what it does: some ranges.
const LARGE: usize = 5 * 1024 * 1024;
/// Packets of rumours: some seconds of them.
const RUMOURS: u64 = 600;

/// For a program to run at a node that pulls it from an honest node and from a liar.
const PULLED: Duration = Duration::from_secs(20);

/// What a node took while foes were at it.
struct Watched {
    took: Latencies,
    /// The most of "one" and of "two".
    peak: [Gauge; 2],
}

/// Delivers for so long, and looks at what the nodes hold meanwhile.
fn watch(scene: &Scene, deliveries: &mut Deliveries, time: Duration, pause: Duration) -> Watched {
    let began = Instant::now();
    let mut took: Option<Latencies> = None;
    let mut peak = ["one", "two"].map(|node| scene.gauge(node));
    while began.elapsed() < time {
        let some = deliveries.during(Duration::from_millis(200), pause);
        took = Some(match took {
            Some(before) => before.with(some),
            None => some,
        });
        for (node, peak) in ["one", "two"].iter().zip(&mut peak) {
            let now = scene.gauge(node);
            peak.resident = peak.resident.max(now.resident);
            peak.files = peak.files.max(now.files);
        }
    }
    Watched {
        took: took.expect("one at least"),
        peak,
    }
}

/// Waits until a node holds no more than it did, but a fifth of its memory and a few files.
fn back_to(scene: &Scene, node: &str, before: Gauge) {
    wait_for(
        &format!("{node} gives back what the foes made it take"),
        || {
            let now = scene.gauge(node);
            let memory = now.resident <= before.resident + before.resident / 5;
            (memory && now.files <= before.files + FILES_MORE).then_some(())
        },
    );
}

/// One flood after the other, each against what the same realm does in a calm.
fn withstand(scene: Scene, attacks: &[Attack]) -> Scene {
    let mut deliveries = Deliveries::new(&scene.realm, "one", "two");
    watch(&scene, &mut deliveries, CALM / 4, PAUSE);
    let calm = watch(&scene, &mut deliveries, CALM, PAUSE);
    println!("calm: {}; {}; {}", calm.took, calm.peak[0], calm.peak[1]);
    let bound = FLOOR.max(calm.took.percentile(99) * 2);
    let before = ["one", "two"].map(|node| scene.gauge(node));
    let mut failures = Vec::new();
    let mut late = 0;
    let mut left: Vec<Attack> = attacks.iter().rev().copied().collect();
    while let Some(attack) = left.pop() {
        let log = scene.realm.log("one").len() as u64;
        let refused = scene.refused();
        let siege = Siege::lay(&scene.target, &[attack]);
        let watched = watch(&scene, &mut deliveries, FLOOD, PAUSE);
        let came_in = Instant::now();
        let answer = scene.realm.status("one");
        let came_in = came_in.elapsed();
        let blows: u64 = siege.blows().map(|(_, count)| count).sum();
        drop(siege);
        let refused: Vec<_> = scene
            .refused()
            .into_iter()
            .filter(|(what, count)| refused.get(what).is_none_or(|before| before < count))
            .map(|(what, count)| (what.clone(), count - refused.get(&what).unwrap_or(&0)))
            .collect();
        late = match watched.took.percentile(99) > bound {
            true => late + 1,
            false => 0,
        };
        if (1..TRIES).contains(&late) {
            left.push(attack);
        }
        let written = scene.realm.log("one").len() as u64 - log;
        println!(
            "{attack:?}: {blows} blows; {}; {}; {}; {} KiB of log; a status took {came_in:?}; {refused:?}",
            watched.took,
            watched.peak[0],
            watched.peak[1],
            written / 1024
        );
        let mut check = |sound: bool, what: &str| {
            if !sound {
                failures.push(format!("{attack:?}: {what}"));
            }
        };
        // Of many at few addresses most do not come in.
        let tries = blows + refused.iter().map(|(_, count)| count).sum::<u64>();
        check(tries > 10, "the foes did nothing");
        check(late < TRIES, "deliveries are late");
        late %= TRIES;
        let most = watched.peak.iter().map(|peak| peak.resident).max();
        check(most.unwrap() <= RESIDENT_MAX, "too much memory");
        // Who opens connections on the same machine can keep commands out.
        let is_here = scene.target.host.is_none();
        check(answer.is_some() || is_here, "no status");
        let is_counted = attack.is_no_offence(is_here) || !refused.is_empty();
        check(is_counted, "it is not counted");
        check(written <= LOG_PER_SECOND * FLOOD.as_secs(), "a log storm");
        let ended = Instant::now();
        for (node, before) in ["one", "two"].iter().zip(before) {
            back_to(&scene, node, before);
        }
        println!("back after {:?}", ended.elapsed());
        scene.assert_answers();
    }
    assert!(failures.is_empty(), "{failures:#?}");
    scene
}

/// A program with so much in it that it comes in several ranges; each number makes another one.
fn large_program(scene: &Scene, number: u8, filler: usize) -> String {
    let mut bytes = std::fs::read(guest("ticker.wasm")).unwrap();
    // A custom section: its length, an empty name, and what nobody reads.
    bytes.push(0);
    bytes.extend(guests::leb(filler + 1));
    bytes.push(0);
    bytes.extend(std::iter::repeat_n(number, filler));
    let path = scene.realm.path().join(format!("large-{number}.wasm"));
    std::fs::write(&path, bytes).unwrap();
    path.display().to_string()
}

#[test]
fn strangers_in_the_way_are_withstood() {
    let scene = withstand(Scene::new(), &Attack::STRANGERS);
    scene.assert_shown(
        &["framing", "malformed_frame", "rate_limited", "overload"],
        &[],
    );
    let refused = scene.counted("realm_network_connections_refused_total", "");
    assert!(refused > 0.0, "nobody was refused");
    println!("{refused} connections were refused");
}

/// The same from another machine, whose addresses have fewer places than this one's own users.
#[test]
fn strangers_from_the_network_are_withstood() {
    let Some(net) = Net::new(2) else { return };
    let [home, away] = net.hosts() else {
        panic!("two hosts")
    };
    home.within(|| {
        let attacks = Attack::STRANGERS.into_iter();
        // The endpoint is for this machine alone.
        let attacks: Vec<_> = attacks.filter(|attack| *attack != Attack::Web).collect();
        let scene = withstand(Scene::between(home, away.clone()), &attacks);
        scene.assert_shown(&["overload"], &[]);
    });
}

#[test]
fn a_hostile_member_is_withstood() {
    let scene = withstand(Scene::new(), &Attack::MEMBER);
    let offences = ["malformed_frame", "bad_swim", "rate_limited"];
    scene.assert_shown(&offences, &[&scene.target.members[0]]);
}

#[test]
fn a_member_that_lies_about_programs_holds_up_nobody() {
    let scene = Scene::new();
    let two = scene.realm.address("two");
    let push = |number: u8| {
        let program = large_program(&scene, number, LARGE);
        let began = Instant::now();
        // Sent to "two", and run by "one", which has to pull it.
        let (name, node) = (format!("large-{number}"), ["--node", "one"]);
        let args = ["push", &name, &program, "--wait", "--via", &two];
        scene.realm.ok(&[&args[..], &node].concat());
        began.elapsed()
    };
    println!("without a liar: {:?}", push(0));
    let before = ["one", "two"].map(|node| scene.gauge(node));
    let siege = Siege::lay(&scene.target, &[Attack::Lies]);
    let asked = || siege.blows().map(|(_, count)| count).sum::<u64>();
    for number in 1..=4 {
        let (took, most) = (push(number), scene.gauge("one"));
        println!("with one: {took:?}; {most}; it was asked {} times", asked());
        assert!(took <= PULLED, "{took:?}");
        assert!(most.resident <= RESIDENT_MAX, "{most}");
    }
    assert!(asked() > 0, "the liar was never asked");
    drop(siege);
    // What "one" runs by now is its own: the programs of this test, and what the liars ran before.
    let programs = (1..=4).map(|number| format!("large-{number}"));
    let programs: Vec<_> = programs.chain([scene::LOUD.to_owned()]).collect();
    let programs = programs.iter().map(String::as_str);
    let remove: Vec<_> = ["rm", "--wait", "--via", &two]
        .into_iter()
        .chain(programs)
        .collect();
    scene.realm.ok(&remove);
    back_to(&scene, "one", before[0]);
    scene.assert_shown(&[], &[&scene.target.members[2]]);
}

#[test]
fn rumours_of_a_member_take_nobodys_work_away() {
    let scene = Scene::new();
    let one = scene.realm.address("one");
    let ticker = guest("ticker.wasm");
    let args = ["push", "kept", &ticker, "--node", "two", "--wait"];
    scene.realm.ok(&[&args[..], &["--via", &one]].concat());
    let told = |kind: &str, subject: &str| {
        // It fails for those that are gone, and prints the others.
        let events = scene.realm.run(&["events", "-o", "json", "--via", &one]);
        let events = events
            .stdout
            .lines()
            .map(|line| serde_json::from_str(line).unwrap());
        let wanted = ["one", kind, subject];
        let is = |event: &Value| ["node", "kind", "subject"].map(|field| &event[field]) == wanted;
        events.filter(is).count()
    };
    let liar = scene::TAKEN[rumours::LIAR];
    wait_for("the liar's own agent is gone", || {
        (told("lost", liar) > 0).then_some(())
    });

    let (joined, lost) = (told("joined", liar), told("lost", "two"));
    let gone = told("lost", liar);
    let started = scene.realm.log("two").matches("starting a cell").count();
    let siege = Siege::lay(&scene.target, &[Attack::Rumours]);
    wait_for("rumours enough", || {
        let blows: u64 = siege.blows().map(|(_, count)| count).sum();
        (blows >= RUMOURS).then_some(())
    });
    drop(siege);
    assert!(told("joined", liar) > joined, "it was not heard");
    // By then what was begun by the last rumour is over, too.
    wait_for("the liar is gone", || {
        (told("lost", liar) > gone).then_some(())
    });
    let unread = scene.counted("realm_offences_total", "offence=\"bad_swim\"");
    assert!(unread == 0.0, "{unread} packets were not read");
    assert_eq!(told("lost", "two"), lost);
    let now = scene.realm.log("two").matches("starting a cell").count();
    assert_eq!(now, started, "its cell was begun anew");
    scene.assert_answers();
}

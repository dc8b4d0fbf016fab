//! What cells that compute without end do to one that wants to wake, and to a deadline.

use std::time::SystemTime;

use anyhow::{Context as _, Result};
use realm_testkit::{Cluster, wait_for};

use crate::{
    figure::{Bound, Figure},
    report::Measured,
    scene::{Scene, events, say, wrote},
};

const SPINNING: &str = "8";
/// Lines of the waking guest, each about 500 wakes, which are 5 seconds.
const LINES: usize = 8;
const KILLS: usize = 10;
const DEADLINE_MS: f64 = 500.0;

pub fn run(scene: &Scene) -> Result<Measured> {
    let realm = scene.realm_of(&["one"]);
    let via = realm.address("one");
    let guest = |name: &str| scene.guest(name).display().to_string();
    realm.ok(&["push", "wake", &guest("wake.wasm"), "--wait", "--via", &via]);
    say("neighbour", "alone");
    let lines = scene.rounds(LINES);
    let alone = late(&realm, &via, lines)?;
    realm.ok(&[
        "push",
        "spin",
        &guest("spin.wasm"),
        "--replicas",
        SPINNING,
        "--wait",
        "--via",
        &via,
    ]);
    say("neighbour", "among spinning cells");
    let among = late(&realm, &via, lines)?;
    let kills = kills(scene, &realm, &via)?;
    let wake = "realm push wake wake.wasm";
    Ok(Measured {
        figures: vec![
            Figure::new(
                "p99 of how late a cell wakes, among 8 spinning cells",
                "us",
                &format!("{wake}; realm push spin spin.wasm --replicas 8"),
                among,
            )
            .beside("the same cell alone on the node", wake, alone)
            .should(Bound::RatioAtMost(3.0), Bound::RatioAtMost(1.5)),
            Figure::new(
                "how late a spinning cell is ended at its deadline, among them",
                "ms",
                "realm push late spin.wasm --deadline-ms 500 --restart never",
                kills,
            )
            .by_its_worst()
            .must(Bound::AtMost(100.0)),
        ],
        notes: vec![format!(
            "The cell sleeps 10 ms again and again; each value is the p99 of 500 wakes. {SPINNING} cells compute without end on the same node meanwhile. Its peer is itself, alone, before."
        )],
        peers: Vec::new(),
    })
}

/// The p99 of each of the next lines, in microseconds.
fn late(realm: &Cluster, via: &str, lines: usize) -> Result<Vec<f64>> {
    let began = SystemTime::now();
    let found = wait_for("the cell says how late it woke", || {
        // The first line tells of wakes before `began`, too.
        let wrote = wrote(realm, via, "wake", began).ok()?;
        (wrote.len() > lines).then_some(wrote)
    });
    let p99 = |text: &str| {
        let value = text.split("p99 ").nth(1)?.split(' ').next()?;
        value.parse().ok()
    };
    let values = found.iter().skip(1).map(|line| p99(&line.message));
    values.collect::<Option<_>>().context("the guest says p99")
}

/// Milliseconds between a deadline and the end that it brought.
fn kills(scene: &Scene, realm: &Cluster, via: &str) -> Result<Vec<f64>> {
    let guest = scene.guest("spin.wasm").display().to_string();
    let mut late = Vec::new();
    for round in 0..scene.rounds(KILLS) {
        let began = SystemTime::now();
        let push = [
            "push",
            "late",
            &guest,
            "--deadline-ms",
            "500",
            "--restart",
            "never",
            "--via",
            via,
        ];
        realm.ok(&push);
        let ended = wait_for("the deadline ends it", || {
            events(realm, via, "limited", began).ok()?.first().cloned()
        });
        let first = wrote(realm, via, "late", began)?;
        let first = first.first().context("it wrote nothing")?;
        late.push(ended.at - first.at - DEADLINE_MS);
        say(
            "neighbour",
            format!("deadline {round}: {:.1} ms late", late[round]),
        );
        realm.ok(&["rm", "late", "--wait", "--via", via]);
    }
    Ok(late)
}

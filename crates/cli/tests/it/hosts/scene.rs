//! Realms of hosts in several sizes.

use std::time::Duration;

use realm_testkit::Bridged;

use crate::cluster;

/// Nodes of a realm that is called large, where `REALM_HOSTS` says nothing else.
const MANY: u8 = 12;

pub fn of(count: u8) -> Option<Bridged> {
    Bridged::new(cluster(), count)
}

/// As many as one such test has: `REALM_HOSTS`, or what two busy cores bear.
pub fn of_many() -> Option<Bridged> {
    let count = std::env::var("REALM_HOSTS");
    of(count.map_or(MANY, |count| count.parse().unwrap()))
}

/// Started, and ready in each other's eyes.
pub fn ready(count: u8) -> Option<Bridged> {
    let mut scene = of(count)?;
    scene.start();
    scene.wait_ready();
    Some(scene)
}

/// Prints how long something took, for whoever runs a test to read it.
pub fn figure(what: &str, took: Duration) {
    eprintln!("figure: {what}: {:.1} s", took.as_secs_f64());
}

//! How often a node that has nothing new to say speaks. What one says, all hear: in a large realm
//! each speaks more rarely, so that what a node hears stays bounded however many there are. News is
//! never held back by this, and who is there is told by membership, whose cost does not grow.

/// Between two reports that differ in numbers only, in a small realm; in milliseconds.
const REPORT_MS: u64 = 10_000;
/// Of all nodes together two such reports come in a second, as long as that is one of each in a minute.
const REPORT_MS_PER_NODE: u64 = 500;
const REPORT_SLOW_MS: u64 = 60_000;
/// Of all nodes together at most 20 come in a second, however many there are.
const REPORT_MS_PER_NODE_AT_LEAST: u64 = 50;
/// Between two announcements of a head that did not move.
const ANNOUNCE_MS: u64 = 30_000;
/// Of all nodes together at most 10 announcements come in a second.
const ANNOUNCE_MS_PER_NODE: u64 = 100;

/// Milliseconds between two reports of a calm node in a realm of `nodes` nodes.
pub fn report_every_ms(nodes: usize) -> u64 {
    let slow = every(REPORT_MS, REPORT_MS_PER_NODE, nodes).min(REPORT_SLOW_MS);
    every(slow, REPORT_MS_PER_NODE_AT_LEAST, nodes)
}

/// Milliseconds between two announcements of one head.
pub(crate) fn announce_every_ms(nodes: usize) -> u64 {
    every(ANNOUNCE_MS, ANNOUNCE_MS_PER_NODE, nodes)
}

fn every(least: u64, per_node: u64, nodes: usize) -> u64 {
    least.max(per_node.saturating_mul(nodes as u64))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_all_nodes_say_together_is_bounded() {
        assert_eq!((report_every_ms(1), announce_every_ms(1)), (10_000, 30_000));
        assert_eq!(
            [20, 50, 120, 1_000].map(report_every_ms),
            [10_000, 25_000, 60_000, 60_000]
        );
        for nodes in [8, 50, 300, 1_000, 10_000] {
            let per_second = |every: u64| nodes as f64 * 1_000.0 / every as f64;
            assert!(per_second(report_every_ms(nodes)) <= 20.0);
            assert!(per_second(announce_every_ms(nodes)) <= 10.0);
        }
    }
}

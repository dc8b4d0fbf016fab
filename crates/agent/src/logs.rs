//! What the cells of this node wrote: rings that are bounded together, read in the order of writing.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, Mutex},
    time::SystemTime,
};

use realm_identity::Timestamp;
use realm_manifest::ComponentName;
use realm_runtime::{LogLine, LogRing, LogStream, Sequence};
use tokio::sync::watch;

use crate::{
    clock,
    supervisor::{Key, lock},
};

/// All lines of a node together.
const NODE_BYTES: usize = 64 * 1024 * 1024;
/// The most that one ring holds, and the least that is left to it where there are many.
const RING_BYTES: usize = 1024 * 1024;
const MIN_RING_BYTES: usize = 8 * 1024;

/// Output of every cell, and of the run before it.
#[derive(Debug, Clone, Default)]
pub struct Logs {
    rings: Arc<Mutex<BTreeMap<Key, Rings>>>,
    sequence: Sequence,
    earlier: Arc<Mutex<Earlier>>,
}

/// What may have written lines before this start of the agent, which are gone: rings are in memory.
#[derive(Debug, Default)]
struct Earlier {
    components: BTreeSet<ComponentName>,
    /// What is said in place of those lines.
    words: String,
}

#[derive(Debug)]
struct Rings {
    current: LogRing,
    previous: Option<LogRing>,
    /// Lines that runs before the present one had no room for.
    dropped: u64,
}

/// Which lines are asked for.
#[derive(Debug, Clone, Default)]
pub struct Select {
    /// None is every component.
    pub component: Option<String>,
    /// Lines of the run before the present one.
    pub previous: bool,
    /// Only lines with a lower number. Whoever does not follow is answered with what is there: a cell that
    /// writes faster than its lines are read would make the answer go on without end.
    pub until: Option<u64>,
}

/// A line, and the cell that wrote it.
#[derive(Debug, Clone)]
pub struct Line {
    pub component: ComponentName,
    pub index: u32,
    pub line: LogLine,
}

impl Rings {
    fn all_dropped(&self) -> u64 {
        self.dropped.saturating_add(self.current.dropped())
    }
}

impl Select {
    fn end(&self) -> u64 {
        self.until.unwrap_or(u64::MAX)
    }
}

impl Logs {
    /// Lines of these components from before `at`, when the agent was started, are said to be gone.
    pub fn started(&self, at: Timestamp, components: BTreeSet<ComponentName>) {
        let time = clock::seconds(at);
        let words = format!(
            "the agent of this node was started at {time}: what was written before is gone"
        );
        *lock(&self.earlier) = Earlier { components, words };
    }

    /// A new ring for a new run; the last one becomes the previous. The first one after a start of
    /// the agent begins with a word about the lines that are gone, where there may have been some.
    pub fn begin(&self, key: &Key) -> LogRing {
        let current = LogRing::numbered(self.sequence.clone(), RING_BYTES);
        let mut rings = lock(&self.rings);
        let (previous, dropped) = match rings.remove(key) {
            Some(last) => {
                let dropped = last.all_dropped();
                (Some(last.current), dropped)
            }
            None => {
                let previous = self.gone(key).map(|words| {
                    current.write(LogStream::Agent, &words);
                    let previous = LogRing::numbered(self.sequence.clone(), RING_BYTES);
                    previous.write(LogStream::Agent, &words);
                    previous
                });
                (previous, 0)
            }
        };
        let new = Rings {
            current: current.clone(),
            previous,
            dropped,
        };
        rings.insert(key.clone(), new);
        share(&rings);
        current
    }

    /// What stands for the lines of a cell from before the agent's start.
    fn gone(&self, (component, _): &Key) -> Option<Vec<u8>> {
        let earlier = lock(&self.earlier);
        let had = earlier.components.contains(component);
        had.then(|| format!("{}\n", earlier.words).into_bytes())
    }

    /// Whether a cell of this component is here, or was and its lines are kept.
    pub fn has(&self, component: &str) -> bool {
        let rings = lock(&self.rings);
        rings.keys().any(|(name, _)| name.as_str() == component)
    }

    pub fn forget(&self, key: &Key) {
        let mut rings = lock(&self.rings);
        rings.remove(key);
        share(&rings);
    }

    /// Up to `max` lines from number `from` on, and the number to go on with.
    pub fn read(&self, select: &Select, from: u64, max: usize) -> (Vec<Line>, u64) {
        // First: whatever is written from here on comes with the next look.
        let end = select.end().min(self.sequence.next());
        let mut lines = Vec::new();
        for (key, ring) in self.select(select) {
            let found = ring.from_seq(from, max).into_iter();
            let wanted = found.filter(|line| line.seq < end);
            lines.extend(wanted.map(|line| Line {
                component: key.0.clone(),
                index: key.1,
                line,
            }));
        }
        lines.sort_by_key(|line| line.line.seq);
        let next = if lines.len() >= max {
            lines.truncate(max);
            lines.last().map_or(end, |last| last.line.seq + 1)
        } else {
            end
        };
        (lines, next)
    }

    /// The number from which on there are `count` lines.
    pub fn tail(&self, select: &Select, count: usize) -> u64 {
        let rings = self.select(select).into_iter();
        let mut seqs: Vec<u64> = rings
            .flat_map(|(_, ring)| ring.before(select.end(), count))
            .map(|line| line.seq)
            .collect();
        seqs.sort_unstable_by(|a, b| b.cmp(a));
        match count.checked_sub(1) {
            None => self.sequence.next(),
            Some(last) => seqs.get(last).copied().unwrap_or(0),
        }
    }

    /// The number from which on lines were written at or after `at`.
    pub fn since(&self, select: &Select, at: SystemTime) -> u64 {
        let rings = self.select(select).into_iter();
        let first = rings.filter_map(|(_, ring)| ring.since(at).first().map(|line| line.seq));
        first.min().unwrap_or_else(|| self.sequence.next())
    }

    /// The number of the next line that is written.
    pub fn next(&self) -> u64 {
        self.sequence.next()
    }

    /// Lines of a cell that had to go, over its runs.
    pub fn dropped(&self, key: &Key) -> u64 {
        lock(&self.rings).get(key).map_or(0, Rings::all_dropped)
    }

    /// Wakes when lines were written.
    pub fn watch(&self) -> watch::Receiver<()> {
        self.sequence.watch()
    }

    fn select(&self, select: &Select) -> Vec<(Key, LogRing)> {
        let wanted = |name: &ComponentName| {
            let component = select.component.as_deref();
            component.is_none_or(|wanted| wanted == name.as_str())
        };
        lock(&self.rings)
            .iter()
            .filter(|((name, _), _)| wanted(name))
            .filter_map(|(key, rings)| {
                let ring = match select.previous {
                    true => rings.previous.clone()?,
                    false => rings.current.clone(),
                };
                Some((key.clone(), ring))
            })
            .collect()
    }
}

/// Gives every ring its part of what the node keeps.
fn share(rings: &BTreeMap<Key, Rings>) {
    let count = rings
        .values()
        .map(|rings| 1 + usize::from(rings.previous.is_some()))
        .sum::<usize>();
    let bytes = (NODE_BYTES / count.max(1)).clamp(MIN_RING_BYTES, RING_BYTES);
    for rings in rings.values() {
        rings.current.set_capacity(bytes);
        if let Some(previous) = &rings.previous {
            previous.set_capacity(bytes);
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    fn key(name: &str, index: u32) -> Key {
        (name.parse().unwrap(), index)
    }

    fn texts(lines: &[Line]) -> Vec<&str> {
        lines.iter().map(|line| line.line.text.as_str()).collect()
    }

    #[test]
    fn lines_of_all_cells_come_in_the_order_of_writing_and_once() {
        let logs = Logs::default();
        let (a, b) = (logs.begin(&key("a", 0)), logs.begin(&key("b", 0)));
        a.write(LogStream::Stdout, b"1\n");
        b.write(LogStream::Stderr, b"2\n");
        a.write(LogStream::Stdout, b"3\n");
        let all = Select::default();
        let (first, next) = logs.read(&all, 0, 2);
        assert_eq!(texts(&first), ["1", "2"]);
        let (rest, next) = logs.read(&all, next, 2);
        assert_eq!(texts(&rest), ["3"]);
        assert!(logs.read(&all, next, 2).0.is_empty());
        assert_eq!(texts(&logs.read(&all, logs.tail(&all, 2), 9).0), ["2", "3"]);
        assert!(logs.read(&all, logs.tail(&all, 0), 9).0.is_empty());
        let one = Select {
            component: Some("b".into()),
            ..Select::default()
        };
        assert_eq!(texts(&logs.read(&one, 0, 9).0), ["2"]);
    }

    #[test]
    fn an_answer_that_ends_has_what_was_there_when_it_began() {
        let logs = Logs::default();
        let ring = logs.begin(&key("a", 0));
        ring.write(LogStream::Stdout, b"1\n2\n3\n");
        let now = Select {
            until: Some(logs.next()),
            ..Select::default()
        };
        ring.write(LogStream::Stdout, b"4\n5\n");
        let from = logs.tail(&now, 2);
        assert_eq!(texts(&logs.read(&now, from, 9).0), ["2", "3"]);
        let (first, next) = logs.read(&now, from, 1);
        assert_eq!(texts(&first), ["2"]);
        ring.write(LogStream::Stdout, b"6\n");
        let (rest, next) = logs.read(&now, next, 9);
        assert_eq!(texts(&rest), ["3"]);
        assert!(logs.read(&now, next, 9).0.is_empty());
    }

    #[test]
    fn a_new_run_leaves_the_one_before_it_to_be_read() {
        let logs = Logs::default();
        logs.begin(&key("a", 0)).write(LogStream::Stdout, b"old\n");
        logs.begin(&key("a", 0)).write(LogStream::Stdout, b"new\n");
        let previous = Select {
            previous: true,
            ..Select::default()
        };
        assert_eq!(texts(&logs.read(&previous, 0, 9).0), ["old"]);
        assert_eq!(texts(&logs.read(&Select::default(), 0, 9).0), ["new"]);
        logs.forget(&key("a", 0));
        assert!(logs.read(&Select::default(), 0, 9).0.is_empty());
    }

    #[test]
    fn lines_of_before_the_agents_start_are_said_to_be_gone() {
        let logs = Logs::default();
        logs.started(Timestamp(0), BTreeSet::from(["old".parse().unwrap()]));
        logs.begin(&key("old", 0)).write(LogStream::Stdout, b"a\n");
        logs.begin(&key("new", 0)).write(LogStream::Stdout, b"b\n");
        let (lines, _) = logs.read(&Select::default(), 0, 9);
        let [first, second, third] = &texts(&lines)[..] else {
            panic!("{lines:?}");
        };
        assert!(first.contains("1970-01-01T00:00:00Z: what"), "{first}");
        assert_eq!(lines[0].line.stream, LogStream::Agent);
        assert_eq!((*second, *third), ("a", "b"));
        let previous = Select {
            previous: true,
            ..Select::default()
        };
        let (lines, _) = logs.read(&previous, 0, 9);
        assert_eq!(texts(&lines).len(), 1, "so does the run before");
        // It is said once.
        logs.begin(&key("old", 0));
        assert!(logs.read(&Select::default(), 0, 9).0.len() == 1);
    }

    #[test]
    fn lines_that_had_to_go_are_counted_over_restarts() {
        let logs = Logs::default();
        let key = key("a", 0);
        let storm = "x\n".repeat(RING_BYTES / 64);
        logs.begin(&key).write(LogStream::Stdout, storm.as_bytes());
        let first = logs.dropped(&key);
        assert!(first > 0);
        let second = logs.begin(&key);
        assert_eq!(logs.dropped(&key), first);
        second.write(LogStream::Stdout, storm.as_bytes());
        assert_eq!(logs.dropped(&key), 2 * first);
    }

    #[test]
    fn many_cells_share_what_a_node_keeps() {
        let logs = Logs::default();
        let cells = 200;
        let line = [b'x'; 1023];
        for index in 0..cells {
            let ring = logs.begin(&key("a", index));
            for _ in 0..2048 {
                ring.write(LogStream::Stdout, &[&line[..], b"\n"].concat());
            }
        }
        let kept: usize = logs
            .select(&Select::default())
            .iter()
            .map(|(_, ring)| ring.tail(usize::MAX).len() * 1024)
            .sum();
        assert!(kept <= NODE_BYTES, "{kept}");
        assert!(kept > NODE_BYTES / 2, "{kept}");
    }
}

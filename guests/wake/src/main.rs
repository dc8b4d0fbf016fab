//! Sleeps 10 ms again and again, and says every five seconds how late it woke, in microseconds.

use std::time::{Duration, Instant};

const PAUSE: Duration = Duration::from_millis(10);
/// Wakes that one line tells of.
const WAKES: usize = 500;

fn main() {
    let mut late = Vec::with_capacity(WAKES);
    loop {
        late.clear();
        while late.len() < WAKES {
            let before = Instant::now();
            std::thread::sleep(PAUSE);
            let after = before.elapsed();
            late.push(after.saturating_sub(PAUSE).as_micros());
        }
        late.sort_unstable();
        let at = |part: usize| late[(WAKES * part / 100).min(WAKES - 1)];
        println!("late p50 {} p99 {} max {}", at(50), at(99), at(100));
    }
}

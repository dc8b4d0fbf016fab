//! Who compiles when: few at once, and what is small never behind what is large.

use std::{
    collections::BTreeMap,
    sync::{Mutex, MutexGuard, PoisonError},
};

use tokio::sync::watch;

/// Compiling takes a core and up to the memory limit each.
const AT_ONCE: usize = 2;
/// So many of these may be large: what is small finds a turn soon, whatever else is pushed.
const LARGE_AT_ONCE: usize = 1;
/// Beyond this many bytes an artifact is large: it takes more than about two seconds of a core.
const LARGE_BYTES: u64 = 1024 * 1024;

/// Hands out turns in the order in which they were asked for, but for large ones that have to wait for each other.
#[derive(Debug)]
pub(crate) struct Turns {
    line: Mutex<Line>,
    /// Tells those who wait that somebody has left.
    moved: watch::Sender<()>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Size {
    Small,
    Large,
}

#[derive(Debug, Default)]
struct Line {
    next: u64,
    /// Bounded by the cells of the node: each waits for one artifact.
    waiting: BTreeMap<u64, Size>,
    running: BTreeMap<u64, Size>,
}

/// A place in the line, and then a turn. Dropping it lets the next one come.
#[derive(Debug)]
pub(crate) struct Turn<'a> {
    turns: &'a Turns,
    number: u64,
}

impl Default for Turns {
    fn default() -> Self {
        Self {
            line: Mutex::default(),
            moved: watch::Sender::new(()),
        }
    }
}

impl Turns {
    /// Waits for a turn for this many bytes; `waits` hears how many are before it, each time that changes.
    /// May be dropped midway: the place is given up.
    pub(crate) async fn take(&self, bytes: u64, waits: impl Fn(usize)) -> Turn<'_> {
        let mut moved = self.moved.subscribe();
        let turn = self.line_up(Size::of(bytes));
        let mut told = None;
        loop {
            moved.mark_unchanged();
            let ahead = match self.line().admit(turn.number) {
                Ok(()) => return turn,
                Err(ahead) => ahead,
            };
            if told.replace(ahead) != Some(ahead) {
                waits(ahead);
            }
            // The sender is in `self`.
            let _ = moved.changed().await;
        }
    }

    fn line_up(&self, size: Size) -> Turn<'_> {
        let mut line = self.line();
        let number = line.next;
        line.next += 1;
        line.waiting.insert(number, size);
        Turn {
            turns: self,
            number,
        }
    }

    fn line(&self) -> MutexGuard<'_, Line> {
        // Every change leaves the line whole, so a panic elsewhere spoils nothing.
        self.line.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Turn<'_> {
    fn drop(&mut self) {
        self.turns.line().leave(self.number);
        self.turns.moved.send_replace(());
    }
}

impl Size {
    const fn of(bytes: u64) -> Self {
        if bytes > LARGE_BYTES {
            Self::Large
        } else {
            Self::Small
        }
    }
}

impl Line {
    /// Lets `number` run if it is its turn, else says how many are before it.
    fn admit(&mut self, number: u64) -> Result<(), usize> {
        let Some(&size) = self.waiting.get(&number) else {
            return Ok(());
        };
        if self.comes(number) {
            self.waiting.remove(&number);
            self.running.insert(number, size);
            return Ok(());
        }
        let before = self.waiting.range(..number).map(|(_, size)| *size);
        let in_its_way = before.filter(|other| size == Size::Large || *other == Size::Small);
        Err(self.running.len() + in_its_way.count())
    }

    /// Whether there is a place left for `number` once those before it took what they may.
    fn comes(&self, number: u64) -> bool {
        let is_large = |size: &&Size| **size == Size::Large;
        let mut running = self.running.len();
        let mut large = self.running.values().filter(is_large).count();
        for (waiting, size) in &self.waiting {
            let may = running < AT_ONCE && (*size == Size::Small || large < LARGE_AT_ONCE);
            if *waiting == number {
                return may;
            }
            running += usize::from(may);
            large += usize::from(may && *size == Size::Large);
        }
        false
    }

    fn leave(&mut self, number: u64) {
        self.waiting.remove(&number);
        self.running.remove(&number);
    }
}

#[cfg(test)]
mod tests {
    use std::{cell::RefCell, pin::pin, task::Poll};

    use futures::poll;

    use super::*;

    const SMALL: u64 = LARGE_BYTES;
    const LARGE: u64 = LARGE_BYTES + 1;

    fn silent(_: usize) {}

    macro_rules! ready {
        ($future:expr) => {
            match poll!($future.as_mut()) {
                Poll::Ready(turn) => Some(turn),
                Poll::Pending => None,
            }
        };
    }

    #[tokio::test]
    async fn what_is_small_never_waits_for_what_is_large() {
        let turns = Turns::default();
        let large = turns.take(LARGE, silent).await;
        let mut second = pin!(turns.take(LARGE, silent));
        assert!(ready!(second).is_none(), "one large one at a time");
        let small = turns.take(SMALL, silent).await;
        let mut waits = pin!(turns.take(SMALL, silent));
        assert!(ready!(waits).is_none(), "two at a time");
        drop(small);
        let small = ready!(waits);
        assert!(small.is_some(), "before the large one, which came before");
        drop(large);
        assert!(ready!(second).is_some());
    }

    #[tokio::test]
    async fn large_ones_have_their_turn_among_many_small_ones() {
        let turns = Turns::default();
        let first = turns.take(SMALL, silent).await;
        let _second = turns.take(SMALL, silent).await;
        let mut large = pin!(turns.take(LARGE, silent));
        let mut small = pin!(turns.take(SMALL, silent));
        assert!(ready!(large).is_none());
        assert!(ready!(small).is_none());
        drop(first);
        assert!(ready!(small).is_none(), "it came later");
        assert!(ready!(large).is_some());
    }

    #[tokio::test]
    async fn who_waits_hears_how_many_are_before_it() {
        let turns = Turns::default();
        let large = turns.take(LARGE, silent).await;
        let heard = RefCell::new(Vec::new());
        let mut second = pin!(turns.take(LARGE, silent));
        assert!(ready!(second).is_none());
        let mut third = pin!(turns.take(LARGE, |ahead| heard.borrow_mut().push(ahead)));
        assert!(ready!(third).is_none());
        assert!(ready!(third).is_none());
        drop(large);
        let second = ready!(second);
        assert!(second.is_some());
        assert!(ready!(third).is_none());
        drop(second);
        assert!(ready!(third).is_some());
        assert_eq!(*heard.borrow(), [2, 1]);
    }

    #[tokio::test]
    async fn who_gives_up_is_in_nobodys_way() {
        let turns = Turns::default();
        let first = turns.take(LARGE, silent).await;
        {
            let mut gives_up = pin!(turns.take(LARGE, silent));
            assert!(ready!(gives_up).is_none());
        }
        let mut last = pin!(turns.take(LARGE, silent));
        assert!(ready!(last).is_none());
        drop(first);
        assert!(ready!(last).is_some());
    }
}

//! Polls a guest, counts the slices it uses up, and moves it between the pools.

use std::{
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    task::{Context, Poll},
    time::{Duration, Instant},
};

use futures::{
    future::BoxFuture,
    task::{ArcWake, AtomicWaker, waker},
};

use crate::{exit::ExitStatus, guest::Shared, pool::Handles, ticker::Pulse};

/// Over such a window a cell in the low pool may show that it waits more than it computes.
const WINDOW: Duration = Duration::from_secs(1);
/// Below this part of a window a cell counts as waiting again: one fifth.
const BUSY_DIVISOR: u32 = 5;

/// A guest computes for so long at least before it offers its processor to others.
const TURN: Duration = Duration::from_millis(1);

/// Runs the guest to its end, in the pool that fits it.
pub(crate) async fn run(
    mut guest: BoxFuture<'static, ExitStatus>,
    shared: Arc<Shared>,
    pools: Handles,
    pulse: Pulse,
) -> ExitStatus {
    let mut low = false;
    loop {
        let handle = if low { &pools.low } else { &pools.normal };
        let task = handle.spawn(Paced::new(guest, shared.clone(), pulse.clone(), low));
        match task.await {
            Ok(Step::Done(status)) => return status,
            Ok(Step::Move(moved)) => guest = moved,
            Err(error) if error.is_panic() => {
                return ExitStatus::Failed {
                    message: "a host call panicked; the cell was ended".into(),
                };
            }
            Err(_) => return ExitStatus::Killed,
        }
        low = !low;
        shared.usage.demoted.store(low, Ordering::Relaxed);
    }
}

enum Step {
    Done(ExitStatus),
    Move(BoxFuture<'static, ExitStatus>),
}

struct Paced {
    guest: Option<BoxFuture<'static, ExitStatus>>,
    shared: Arc<Shared>,
    pulse: Pulse,
    low: bool,
    slice: Duration,
    /// Time spent computing since the cell last waited.
    run: Duration,
    /// Of that, since the processor was last offered to others.
    unbroken: Duration,
    window_start: Instant,
    window_busy: Duration,
    woken: Arc<Woken>,
}

impl Paced {
    fn new(
        guest: BoxFuture<'static, ExitStatus>,
        shared: Arc<Shared>,
        pulse: Pulse,
        low: bool,
    ) -> Self {
        let slice = Duration::from_millis(u64::from(shared.limits.epoch_ms.max(1)));
        Self {
            guest: Some(guest),
            shared,
            pulse,
            low,
            slice,
            run: Duration::ZERO,
            unbroken: Duration::ZERO,
            window_start: Instant::now(),
            window_busy: Duration::ZERO,
            woken: Arc::default(),
        }
    }

    /// Takes account of one poll; true if the cell belongs in the other pool.
    fn account(&mut self, busy: Duration) -> bool {
        self.window_busy += busy;
        self.run += busy;
        let mut spent = 0;
        while self.run >= self.slice {
            self.run -= self.slice;
            spent += 1;
        }
        self.shared
            .usage
            .preemptions
            .fetch_add(spent, Ordering::Relaxed);
        if !self.woken.flag.load(Ordering::Acquire) {
            self.run = Duration::ZERO;
        }
        if self.low {
            self.waits_again(spent)
        } else {
            spent > 0
        }
    }

    /// A thread that has just begun to run keeps its processor until the kernel's next tick, some milliseconds, whoever
    /// wakes up. One that would go on computing lets those go first. Not after less than [`TURN`]: what it gives up it
    /// gets back only after the others' turns.
    fn let_others_run(&mut self, busy: Duration) {
        self.unbroken += busy;
        let goes_on = self.woken.flag.load(Ordering::Acquire);
        if goes_on && self.unbroken >= TURN {
            rustix::thread::sched_yield();
        }
        if !goes_on || self.unbroken >= TURN {
            self.unbroken = Duration::ZERO;
        }
    }

    fn waits_again(&mut self, spent: u64) -> bool {
        let window = self.window_start.elapsed();
        if spent > 0 || window >= WINDOW {
            let calm = spent == 0 && self.window_busy < window / BUSY_DIVISOR;
            self.window_start = Instant::now();
            self.window_busy = Duration::ZERO;
            return calm;
        }
        false
    }
}

impl Future for Paced {
    type Output = Step;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Step> {
        let this = &mut *self;
        this.woken.outer.register(cx.waker());
        this.woken.flag.store(false, Ordering::Release);
        let Some(guest) = &mut this.guest else {
            return Poll::Ready(Step::Done(ExitStatus::Killed));
        };
        let waker = waker(this.woken.clone());
        let start = Instant::now();
        let computing = this.pulse.computes();
        let polled = guest.as_mut().poll(&mut Context::from_waker(&waker));
        drop(computing);
        let busy = start.elapsed();
        this.shared.usage.count_busy(busy);
        if let Poll::Ready(status) = polled {
            return Poll::Ready(Step::Done(status));
        }
        this.let_others_run(busy);
        if this.account(busy)
            && let Some(guest) = this.guest.take()
        {
            return Poll::Ready(Step::Move(guest));
        }
        Poll::Pending
    }
}

/// Tells a guest that yielded (it woke itself while it was polled) from one that waits.
#[derive(Default)]
struct Woken {
    flag: AtomicBool,
    outer: AtomicWaker,
}

impl ArcWake for Woken {
    fn wake_by_ref(this: &Arc<Self>) {
        this.flag.store(true, Ordering::Release);
        this.outer.wake();
    }
}

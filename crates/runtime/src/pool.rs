//! The threads that run guests: one pool for cells that wait, one of lower priority for cells that compute.

use std::{io, time::Duration};

use tokio::runtime::{Builder, Handle, Runtime};

use crate::network::OUTBOUND_MAX;

/// Between these the kernel gives a waiting cell about thirty times the share of a computing one.
const NICE: i32 = 15;
/// Threads for file calls and name lookups of guests, each pool; they come and go with the calls. Twice the lookups
/// that one cell may have under way, so that slow name servers of one do not hold up the files of the others.
const BLOCKING_THREADS: usize = 2 * OUTBOUND_MAX;
/// Timers and sockets are looked at after every poll of a guest: one poll may last a whole tick.
const POLLS_BETWEEN_EVENTS: u32 = 1;

#[derive(Debug)]
pub(crate) struct GuestPools {
    normal: Option<Runtime>,
    low: Option<Runtime>,
    handles: Handles,
}

#[derive(Debug, Clone)]
pub(crate) struct Handles {
    pub(crate) normal: Handle,
    pub(crate) low: Handle,
}

impl GuestPools {
    pub(crate) fn new(threads: usize) -> io::Result<Self> {
        let normal = pool("realm-guest", threads).build()?;
        let low = pool("realm-guest-low", threads)
            .on_thread_start(lower_priority)
            .build()?;
        let handles = Handles {
            normal: normal.handle().clone(),
            low: low.handle().clone(),
        };
        Ok(Self {
            normal: Some(normal),
            low: Some(low),
            handles,
        })
    }

    pub(crate) const fn handles(&self) -> &Handles {
        &self.handles
    }
}

impl Drop for GuestPools {
    fn drop(&mut self) {
        // Waiting is forbidden in async code, and the guests' tasks end at their next tick.
        for runtime in [self.normal.take(), self.low.take()].into_iter().flatten() {
            runtime.shutdown_background();
        }
    }
}

fn pool(name: &'static str, threads: usize) -> Builder {
    let mut builder = Builder::new_multi_thread();
    builder
        .worker_threads(threads.max(1))
        .max_blocking_threads(BLOCKING_THREADS)
        .thread_name(name)
        .thread_keep_alive(Duration::from_secs(5))
        .event_interval(POLLS_BETWEEN_EVENTS)
        .global_queue_interval(POLLS_BETWEEN_EVENTS)
        .enable_all();
    builder
}

fn lower_priority() {
    if let Err(error) = rustix::process::setpriority_process(None, NICE) {
        tracing::warn!(%error, "threads for computing cells keep their priority");
    }
}

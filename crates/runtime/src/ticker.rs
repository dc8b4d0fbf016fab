//! The thread that ticks the engines' epochs while a guest computes. A node whose cells all wait does not
//! wake for them.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    thread::{JoinHandle, Thread},
    time::Duration,
};

use wasmtime::Engine;

/// How often a running guest is interrupted: bounds how late a kill, a deadline or another cell is.
pub(crate) const TICK: Duration = Duration::from_millis(5);
/// Ticks without a guest that computes before the thread rests: waking it costs more than a tick.
const CALM_TICKS: u32 = 20;

/// Ticks until it is dropped.
#[derive(Debug)]
pub(crate) struct Ticker {
    load: Arc<Load>,
    thread: Option<JoinHandle<()>>,
}

/// Tells the ticker of guests that compute.
#[derive(Debug, Clone)]
pub(crate) struct Pulse {
    load: Arc<Load>,
    thread: Thread,
}

/// A guest computes until this is dropped.
#[derive(Debug)]
pub(crate) struct Computing<'a>(&'a Load);

#[derive(Debug, Default)]
struct Load {
    /// Guests that are being polled.
    computing: AtomicUsize,
    rests: AtomicBool,
    stop: AtomicBool,
}

impl Ticker {
    pub(crate) fn start(engines: Vec<Engine>) -> std::io::Result<(Self, Pulse)> {
        let load = Arc::new(Load::default());
        let seen = load.clone();
        let handle = std::thread::Builder::new()
            .name("realm-epoch".into())
            .spawn(move || tick(&engines, &seen))?;
        let pulse = Pulse {
            load: load.clone(),
            thread: handle.thread().clone(),
        };
        let thread = Some(handle);
        Ok((Self { load, thread }, pulse))
    }
}

impl Drop for Ticker {
    fn drop(&mut self) {
        self.load.stop.store(true, Ordering::SeqCst);
        if let Some(thread) = self.thread.take() {
            thread.thread().unpark();
            // The loop cannot panic, and there would be nobody to tell.
            let _ = thread.join();
        }
    }
}

impl Pulse {
    pub(crate) fn computes(&self) -> Computing<'_> {
        // Either the thread sees this count before it rests, or it is seen here that it rests.
        self.load.computing.fetch_add(1, Ordering::SeqCst);
        if self.load.rests.load(Ordering::SeqCst) {
            self.thread.unpark();
        }
        Computing(&self.load)
    }
}

impl Drop for Computing<'_> {
    fn drop(&mut self) {
        self.0.computing.fetch_sub(1, Ordering::SeqCst);
    }
}

fn tick(engines: &[Engine], load: &Load) {
    let mut calm = 0;
    while !load.stop.load(Ordering::SeqCst) {
        std::thread::park_timeout(TICK);
        engines.iter().for_each(Engine::increment_epoch);
        calm = if load.is_calm() { calm + 1 } else { 0 };
        if calm >= CALM_TICKS {
            load.rests.store(true, Ordering::SeqCst);
            while load.is_calm() && !load.stop.load(Ordering::SeqCst) {
                std::thread::park();
            }
            load.rests.store(false, Ordering::SeqCst);
            calm = 0;
        }
    }
}

impl Load {
    fn is_calm(&self) -> bool {
        self.computing.load(Ordering::SeqCst) == 0
    }
}

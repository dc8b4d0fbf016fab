//! One preparation per artifact at a time: who comes second waits for it, and hears how far it is.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
    time::SystemTime,
};

use tokio::sync::{Mutex as AsyncMutex, watch};

use crate::Flavour;

/// The artifact's digest, and what it is compiled for.
pub(crate) type Version = ([u8; 32], Flavour);

/// What a preparation that takes long is at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stage {
    /// So many other artifacts are compiled before this one.
    Waiting { ahead: usize },
    /// It is read and compiled in a child.
    Compiling { since: SystemTime, bytes: u64 },
}

/// The preparations under way.
#[derive(Debug, Default)]
pub(crate) struct Flights(Mutex<HashMap<Version, Arc<Flight>>>);

/// One of them; who holds the lock does the work.
#[derive(Debug)]
pub(crate) struct Flight {
    pub(crate) pilot: AsyncMutex<()>,
    stage: watch::Sender<Option<Stage>>,
}

impl Default for Flight {
    fn default() -> Self {
        Self {
            pilot: AsyncMutex::default(),
            stage: watch::Sender::new(None),
        }
    }
}

impl Flights {
    pub(crate) fn join(&self, version: Version) -> Arc<Flight> {
        let mut flights = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        flights.retain(|_, flight| Arc::strong_count(flight) > 1);
        flights.entry(version).or_default().clone()
    }
}

impl Flight {
    pub(crate) fn at(&self, stage: Stage) {
        self.stage.send_replace(Some(stage));
    }

    /// Does `work`, and tells every stage that anybody on this flight comes to meanwhile.
    pub(crate) async fn aboard<T>(&self, work: impl Future<Output = T>, told: impl Fn(Stage)) -> T {
        let mut stage = self.stage.subscribe();
        let mut work = std::pin::pin!(work);
        loop {
            if let Some(stage) = *stage.borrow_and_update() {
                told(stage);
            }
            tokio::select! {
                biased;
                done = &mut work => return done,
                // The sender is in `self`.
                _ = stage.changed() => {}
            }
        }
    }
}

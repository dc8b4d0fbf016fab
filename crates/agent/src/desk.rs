//! Where statuses and metrics are worked out: beside the core, one at a time.
//!
//! The core only hands over what it knows. However often somebody asks, and however much there is
//! to place, what the core has to do meanwhile does not wait for it.

use std::sync::Arc;

use realm_identity::PublicKey;
use realm_planner::{Nodes, State};
use realm_rpc::{Survey, status::Status};
use tokio::{
    sync::Mutex,
    task::{JoinError, spawn_blocking},
};

use crate::{metrics::Snapshot, status::Reader};

/// What a status is made from.
#[derive(Debug)]
pub struct Grounds {
    pub state: State,
    /// The node that was asked.
    pub asked: PublicKey,
    pub survey: Survey,
}

/// What the core counts, and what the components are still to be counted from.
#[derive(Debug)]
pub struct Counted {
    pub snapshot: Snapshot,
    /// None where there is no realm.
    pub placed: Option<(State, Nodes)>,
}

/// Who waits here has asked the core for nothing yet: pictures do not pile up.
#[derive(Debug, Clone, Default)]
pub struct Desk(Arc<Mutex<Reader>>);

impl Desk {
    /// The status that a reader of the survey makes of it. May be dropped midway; what was begun is
    /// worked out to its end before the next one is.
    pub async fn status<E>(
        &self,
        ask: impl Future<Output = Result<Grounds, E>>,
    ) -> Result<Result<Status, E>, JoinError> {
        let mut reader = self.0.clone().lock_owned().await;
        let Grounds {
            state,
            asked,
            survey,
        } = match ask.await {
            Ok(grounds) => grounds,
            Err(error) => return Ok(Err(error)),
        };
        let work = move || reader.read(&state, asked, &survey).status;
        spawn_blocking(work).await.map(Ok)
    }

    /// The snapshot with its components counted. May be dropped midway, likewise.
    pub async fn snapshot<E>(
        &self,
        ask: impl Future<Output = Result<Counted, E>>,
    ) -> Result<Result<Snapshot, E>, JoinError> {
        let turn = self.0.clone().lock_owned().await;
        let counted = match ask.await {
            Ok(counted) => counted,
            Err(error) => return Ok(Err(error)),
        };
        let work = move || {
            let _turn = turn;
            counted.finish()
        };
        spawn_blocking(work).await.map(Ok)
    }
}

impl Counted {
    fn finish(self) -> Snapshot {
        let Self {
            mut snapshot,
            placed,
        } = self;
        if let Some((state, nodes)) = placed {
            for component in realm_planner::status::components(&state, &nodes) {
                let name = component.state.name().to_owned();
                *snapshot.components.entry(name).or_default() += 1;
            }
        }
        snapshot
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use std::convert::Infallible;

    use tokio::sync::oneshot;

    use super::*;

    fn counted() -> Result<Counted, Infallible> {
        Ok(Counted {
            snapshot: Snapshot::default(),
            placed: None,
        })
    }

    #[tokio::test]
    async fn the_core_is_asked_for_one_at_a_time() {
        let desk = Desk::default();
        let (answer, answered) = oneshot::channel::<()>();
        let (asked, is_asked) = oneshot::channel();
        let slow = desk.clone();
        let first = tokio::spawn(async move {
            let ask = async {
                asked.send(()).unwrap();
                answered.await.unwrap();
                counted()
            };
            slow.snapshot(ask).await.unwrap()
        });
        is_asked.await.unwrap();
        let mut second = Box::pin(desk.snapshot(async { counted() }));
        assert!(
            futures::poll!(&mut second).is_pending(),
            "it waits for its turn"
        );
        answer.send(()).unwrap();
        first.await.unwrap().unwrap();
        second.await.unwrap().unwrap();
    }
}

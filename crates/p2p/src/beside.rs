//! Tasks of others on the network's thread.

use tokio::{runtime::Handle, task::JoinHandle};
use tokio_util::task::TaskTracker;

#[derive(Debug, Clone)]
pub(crate) struct Beside {
    runtime: Handle,
    tasks: TaskTracker,
}

impl Beside {
    pub fn new(runtime: Handle) -> Self {
        Self {
            runtime,
            tasks: TaskTracker::new(),
        }
    }

    pub fn spawn<T: Send + 'static>(
        &self,
        task: impl Future<Output = T> + Send + 'static,
    ) -> JoinHandle<T> {
        self.tasks.spawn_on(task, &self.runtime)
    }

    /// Waits until no task is left.
    pub async fn ended(&self) {
        self.tasks.close();
        self.tasks.wait().await;
    }
}

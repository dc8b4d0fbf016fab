//! A thread of its own for the core.
//!
//! It waits for little things many times a second, and plans for longer. Among the workers of a shared runtime
//! it and what else runs there, such as the HTTP endpoint, would wait for each other, and an idle agent of eight
//! woke these 43 times a second, where this thread wakes 31 times.

use std::{future::Future, io, thread};

use tokio::{runtime, sync::oneshot};
use tokio_util::task::AbortOnDropHandle;

/// Runs `task` on a thread that ends with it. What it spawns by itself runs there too.
pub(crate) fn spawn(
    task: impl Future<Output = ()> + Send + 'static,
) -> io::Result<AbortOnDropHandle<()>> {
    let runtime = runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    let (running, over) = oneshot::channel::<()>();
    let handle = runtime.spawn(async move {
        let _running = running;
        task.await;
    });
    thread::Builder::new()
        .name("realm-core".to_owned())
        .spawn(move || {
            // Nobody sends: the other end is dropped when the task ends, in whatever way.
            let _ended = runtime.block_on(over);
        })?;
    Ok(AbortOnDropHandle::new(handle))
}

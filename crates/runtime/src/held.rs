//! Keeps a place taken for as long as a stream of 0.3 lives: it may outlive the handle that it came from.

use std::{
    pin::Pin,
    task::{Context, Poll},
};

use tokio::sync::oneshot;
use wasmtime::{
    Error, Result, StoreContextMut,
    component::{FutureConsumer, FutureReader, Lift, Lower, Source},
};

use crate::guest::CellState;

/// What a stream's end tells: `E` is the error code of its interface.
pub(crate) type End<E> = FutureReader<std::result::Result<(), E>>;

/// Hands the end of a stream on to the guest; until then the stream keeps `kept`.
pub(crate) fn holding<E, K>(
    mut store: StoreContextMut<'_, CellState>,
    end: End<E>,
    kept: K,
) -> Result<End<E>>
where
    E: Lift + Lower + Send + Sync + 'static,
    K: Send + Unpin + 'static,
{
    let (tell, told) = oneshot::channel();
    let holder = Holder {
        tell: Some(tell),
        _kept: kept,
    };
    end.pipe(&mut store, holder)?;
    FutureReader::new(&mut store, async move {
        // The holder is dropped unheard only with the store itself.
        told.await.map_err(Error::from)
    })
}

struct Holder<E, K> {
    tell: Option<oneshot::Sender<std::result::Result<(), E>>>,
    _kept: K,
}

impl<E, K> FutureConsumer<CellState> for Holder<E, K>
where
    E: Lift + Send + Sync + 'static,
    K: Send + Unpin + 'static,
{
    type Item = std::result::Result<(), E>;

    fn poll_consume(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
        store: StoreContextMut<'_, CellState>,
        mut source: Source<'_, Self::Item>,
        _: bool,
    ) -> Poll<Result<()>> {
        let mut ended = None;
        source.read(store, &mut ended)?;
        if let (Some(ended), Some(tell)) = (ended, self.tell.take()) {
            // A guest that dropped its future does not want to know.
            let _ = tell.send(ended);
        }
        Poll::Ready(Ok(()))
    }
}

//! What streams of `wasi:filesystem` 0.3 keep, bounded, in front of Wasmtime's own.
//!
//! Wasmtime reads each directory in a thread that waits until the guest takes the next name: some guests that wait could
//! take every thread that files have. A stream of a file has a buffer, and keeps its file open when the guest closed it.

use std::{
    iter,
    pin::Pin,
    task::{Context, Poll, ready},
};

use rustix::fs::FileType;
use tokio::sync::oneshot;
use wasmtime::{
    AsContextMut, Result, StoreContextMut,
    component::{
        Access, Destination, FutureReader, Linker, LinkerInstance, Resource, StreamProducer,
        StreamReader, StreamResult, VecBuffer,
    },
};
use wasmtime_wasi::{
    filesystem::{Descriptor, WasiFilesystem, WasiFilesystemView as _},
    p3::bindings::filesystem::types::{
        DescriptorType, DirectoryEntry, ErrorCode, HostDescriptorWithStore,
    },
};

use crate::{
    exit::Limit,
    guest::CellState,
    held::{End, holding},
    listing::{Fault, Found, Listing},
    places::Place,
};

/// The `wasi:filesystem` 0.3 that Wasmtime links.
const TYPES: &str = "wasi:filesystem/types@0.3.0";
/// Streams of files of one cell at once, each with a buffer of 8 KiB and its file open.
pub(crate) const FILE_STREAMS_MAX: usize = 1024;

type Outcome = std::result::Result<(), ErrorCode>;
type Names = (StreamReader<DirectoryEntry>, End<ErrorCode>);
type Content = (StreamReader<u8>, End<ErrorCode>);

/// Shadows what Wasmtime linked before.
pub(crate) fn add_to_linker(linker: &mut Linker<CellState>) -> Result<()> {
    let mut types = linker.instance(TYPES)?;
    types.func_wrap(
        "[method]descriptor.read-directory",
        |mut store: StoreContextMut<'_, CellState>, (directory,): (Resource<Descriptor>,)| {
            let listing = store.data_mut().list(&directory)?;
            let (tell, told) = oneshot::channel();
            let producer = Entries {
                listing: listing.unwrap_or_else(Listing::refused),
                tell: Some(tell),
            };
            let names: Names = (
                StreamReader::new(&mut store, producer)?,
                FutureReader::new(&mut store, told)?,
            );
            Ok((names,))
        },
    )?;
    content(&mut types)
}

fn content(types: &mut LinkerInstance<'_, CellState>) -> Result<()> {
    types.func_wrap(
        "[method]descriptor.read-via-stream",
        |mut store: StoreContextMut<'_, CellState>,
         (file, offset): (Resource<Descriptor>, u64)|
         -> Result<(Content,)> {
            let Some(place) = store.data_mut().file_stream_place() else {
                let nothing = StreamReader::new(&mut store, iter::empty())?;
                return Ok(((nothing, refused(store)?),));
            };
            let access = access(&mut store);
            let (data, end) =
                <WasiFilesystem as HostDescriptorWithStore<CellState>>::read_via_stream(
                    access, file, offset,
                )?;
            Ok(((data, holding(store, end, place)?),))
        },
    )?;
    types.func_wrap(
        "[method]descriptor.write-via-stream",
        |mut store: StoreContextMut<'_, CellState>,
         (file, mut data, offset): (Resource<Descriptor>, StreamReader<u8>, u64)|
         -> Result<(End<ErrorCode>,)> {
            let Some(place) = store.data_mut().file_stream_place() else {
                data.close(&mut store)?;
                return Ok((refused(store)?,));
            };
            let end = <WasiFilesystem as HostDescriptorWithStore<CellState>>::write_via_stream(
                access(&mut store),
                file,
                data,
                offset,
            )?;
            Ok((holding(store, end, place)?,))
        },
    )?;
    types.func_wrap(
        "[method]descriptor.append-via-stream",
        |mut store: StoreContextMut<'_, CellState>,
         (file, mut data): (Resource<Descriptor>, StreamReader<u8>)|
         -> Result<(End<ErrorCode>,)> {
            let Some(place) = store.data_mut().file_stream_place() else {
                data.close(&mut store)?;
                return Ok((refused(store)?,));
            };
            let end = <WasiFilesystem as HostDescriptorWithStore<CellState>>::append_via_stream(
                access(&mut store),
                file,
                data,
            )?;
            Ok((holding(store, end, place)?,))
        },
    )
}

fn access<'a>(
    store: &'a mut StoreContextMut<'_, CellState>,
) -> Access<'a, CellState, WasiFilesystem> {
    Access::<_, WasiFilesystem>::new(store.as_context_mut(), CellState::filesystem)
}

fn refused(store: StoreContextMut<'_, CellState>) -> Result<End<ErrorCode>> {
    FutureReader::new(store, async {
        wasmtime::error::Ok(Outcome::Err(ErrorCode::InsufficientMemory))
    })
}

impl CellState {
    fn file_stream_place(&mut self) -> Option<Place> {
        let place = self.file_streams.take();
        if place.is_none() {
            self.shared.hit(Limit::FileStreams);
        }
        place
    }
}

/// The names of a directory, a page at a time.
struct Entries {
    listing: Listing,
    tell: Option<oneshot::Sender<Outcome>>,
}

impl Entries {
    fn end(&mut self, outcome: Outcome) -> StreamResult {
        if let Some(tell) = self.tell.take() {
            // A guest that dropped its future does not want to know.
            let _ = tell.send(outcome);
        }
        StreamResult::Dropped
    }
}

impl Drop for Entries {
    fn drop(&mut self) {
        self.end(Ok(()));
    }
}

impl StreamProducer<CellState> for Entries {
    type Item = DirectoryEntry;
    type Buffer = VecBuffer<DirectoryEntry>;

    fn poll_produce<'a>(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        mut store: StoreContextMut<'a, CellState>,
        mut to: Destination<'a, Self::Item, Self::Buffer>,
        finish: bool,
    ) -> Poll<Result<StreamResult>> {
        // Nothing is asked for: whether there is something will be seen then.
        if to.remaining(&mut store) == Some(0) {
            return Poll::Ready(Ok(StreamResult::Completed));
        }
        let page = match self.listing.poll_page(cx) {
            Poll::Pending if finish => return Poll::Ready(Ok(StreamResult::Cancelled)),
            polled => ready!(polled),
        };
        let mut entries = Vec::with_capacity(page.len());
        while let Some(Ok(_)) = page.front() {
            entries.extend(page.pop_front().into_iter().flatten().map(entry));
        }
        if !entries.is_empty() {
            to.set_buffer(entries.into());
            return Poll::Ready(Ok(StreamResult::Completed));
        }
        let outcome = match page.pop_front() {
            Some(Err(fault)) => Err(code(fault)),
            Some(Ok(_)) | None => Ok(()),
        };
        Poll::Ready(Ok(self.end(outcome)))
    }
}

fn entry(found: Found) -> DirectoryEntry {
    let type_ = match found.kind {
        FileType::RegularFile => DescriptorType::RegularFile,
        FileType::Directory => DescriptorType::Directory,
        FileType::Symlink => DescriptorType::SymbolicLink,
        FileType::BlockDevice => DescriptorType::BlockDevice,
        FileType::CharacterDevice => DescriptorType::CharacterDevice,
        FileType::Fifo | FileType::Socket | FileType::Unknown => DescriptorType::Other(None),
    };
    DirectoryEntry {
        type_,
        name: found.name,
    }
}

fn code(fault: Fault) -> ErrorCode {
    match fault {
        Fault::Io(error) => error.into(),
        Fault::Name => ErrorCode::IllegalByteSequence,
        Fault::NotDirectory => ErrorCode::NotDirectory,
        Fault::Full => ErrorCode::InsufficientMemory,
    }
}

//! What `wasi:filesystem` 0.2 keeps between two calls, bounded, in front of Wasmtime's own.
//!
//! Wasmtime keeps every name of a directory that is being read, and for each stream of a file what one call read ahead
//! or has yet to write; a guest may have as many of both as it may have resources.

use rustix::fs::FileType;
use wasmtime::{
    Result, StoreContextMut,
    component::{Linker, LinkerInstance, Resource, ResourceType},
};
use wasmtime_wasi::{
    WasiView as _,
    filesystem::{Descriptor, WasiFilesystemView as _},
    p2::{
        DynInputStream, DynOutputStream, FsResult,
        bindings::filesystem::types::{
            DescriptorType, DirectoryEntry, ErrorCode, Host as _, HostDescriptor,
        },
        pipe::{ClosedInputStream, ClosedOutputStream},
    },
};

use crate::{
    guest::CellState,
    listing::{Fault, Found, Listing},
    streams::{Sips, Strict},
};

/// The `wasi:filesystem` 0.2 that Wasmtime links.
const TYPES: &str = "wasi:filesystem/types@0.2.12";
/// What a stream of a file holds between two calls. With such a stream for every resource of a cell, that is 16 MiB.
const HELD_BYTES: usize = 4096;

type Answer<T> = std::result::Result<T, ErrorCode>;

/// Shadows what Wasmtime linked before.
pub(crate) fn add_to_linker(linker: &mut Linker<CellState>) -> Result<()> {
    let mut types = linker.instance(TYPES)?;
    listings(&mut types)?;
    streams(&mut types)
}

fn listings(types: &mut LinkerInstance<'_, CellState>) -> Result<()> {
    types.resource(
        "directory-entry-stream",
        ResourceType::host::<Listing>(),
        |mut store, rep| {
            let listing = Resource::<Listing>::new_own(rep);
            store.data_mut().ctx().table.delete(listing)?;
            Ok(())
        },
    )?;
    types.func_wrap_async(
        "[method]descriptor.read-directory",
        |mut store: StoreContextMut<'_, CellState>, (directory,): (Resource<Descriptor>,)| {
            Box::new(async move {
                let state = store.data_mut();
                let mut listing = match state.list(&directory)? {
                    Ok(listing) => listing,
                    Err(fault) => return Ok((Answer::Err(code(fault)),)),
                };
                let answer: Answer<Resource<Listing>> = match listing.begin().await {
                    Ok(()) => Ok(state.ctx().table.push(listing)?),
                    Err(fault) => Err(code(fault)),
                };
                Ok((answer,))
            })
        },
    )?;
    types.func_wrap_async(
        "[method]directory-entry-stream.read-directory-entry",
        |mut store: StoreContextMut<'_, CellState>, (listing,): (Resource<Listing>,)| {
            Box::new(async move {
                let listing = store.data_mut().ctx().table.get_mut(&listing)?;
                let next = listing.page().await.pop_front().transpose();
                let answer: Answer<_> = next.map(|found| found.map(entry)).map_err(code);
                Ok((answer,))
            })
        },
    )
}

fn streams(types: &mut LinkerInstance<'_, CellState>) -> Result<()> {
    types.func_wrap(
        "[method]descriptor.read-via-stream",
        |mut store: StoreContextMut<'_, CellState>, (file, offset): (Resource<Descriptor>, u64)| {
            let state = store.data_mut();
            let made = state.filesystem().read_via_stream(file, offset);
            Ok((state.bounded(made, sips)?,))
        },
    )?;
    types.func_wrap(
        "[method]descriptor.write-via-stream",
        |mut store: StoreContextMut<'_, CellState>, (file, offset): (Resource<Descriptor>, u64)| {
            let state = store.data_mut();
            let made = state.filesystem().write_via_stream(file, offset);
            Ok((state.bounded(made, strict)?,))
        },
    )?;
    types.func_wrap(
        "[method]descriptor.append-via-stream",
        |mut store: StoreContextMut<'_, CellState>, (file,): (Resource<Descriptor>,)| {
            let state = store.data_mut();
            let made = state.filesystem().append_via_stream(file);
            Ok((state.bounded(made, strict)?,))
        },
    )
}

fn sips(stream: &mut DynInputStream) {
    let inner = std::mem::replace(stream, Box::new(ClosedInputStream));
    *stream = Box::new(Sips::new(inner, HELD_BYTES));
}

fn strict(stream: &mut DynOutputStream) {
    let inner = std::mem::replace(stream, Box::new(ClosedOutputStream));
    *stream = Box::new(Strict::new(inner, HELD_BYTES));
}

impl CellState {
    /// Puts a bound around a stream that was just made.
    fn bounded<T: 'static>(
        &mut self,
        made: FsResult<Resource<T>>,
        bound: fn(&mut T),
    ) -> Result<Answer<Resource<T>>> {
        Ok(match made {
            Ok(stream) => {
                bound(self.ctx().table.get_mut(&stream)?);
                Ok(stream)
            }
            Err(error) => Err(self.filesystem().convert_error_code(error)?),
        })
    }
}

fn entry(found: Found) -> DirectoryEntry {
    let type_ = match found.kind {
        FileType::RegularFile => DescriptorType::RegularFile,
        FileType::Directory => DescriptorType::Directory,
        FileType::Symlink => DescriptorType::SymbolicLink,
        FileType::BlockDevice => DescriptorType::BlockDevice,
        FileType::CharacterDevice => DescriptorType::CharacterDevice,
        FileType::Fifo | FileType::Socket | FileType::Unknown => DescriptorType::Unknown,
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

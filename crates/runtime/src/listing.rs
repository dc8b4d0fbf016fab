//! A directory that a guest reads, a few names at a time: however many there are, the host keeps a page of them.

use std::{
    collections::VecDeque,
    fs::File,
    future::poll_fn,
    io,
    mem::MaybeUninit,
    os::fd::OwnedFd,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
};

use rustix::fs::{AtFlags, FileType, Mode, OFlags, RawDir, openat, statat};
use tokio::task::{JoinHandle, spawn_blocking};
use wasmtime::component::Resource;
use wasmtime_wasi::{WasiView as _, filesystem::Descriptor};

use crate::{exit::Limit, guest::CellState, places::Place};

/// Directories that one cell reads at once, each with a file descriptor of the host and a page.
pub(crate) const LISTINGS_MAX: usize = 64;
/// What the kernel hands over at once: some dozens of names.
const PAGE_BYTES: usize = 4096;

/// One name in a directory.
#[derive(Debug)]
pub(crate) struct Found {
    pub(crate) name: String,
    pub(crate) kind: FileType,
}

/// Why reading a directory stopped before its end.
#[derive(Debug)]
pub(crate) enum Fault {
    Io(io::Error),
    /// A name that is not UTF-8: a guest could not be told of it.
    Name,
    NotDirectory,
    /// The cell reads [`LISTINGS_MAX`] already.
    Full,
}

type Page = VecDeque<Result<Found, Fault>>;
/// A reader that has more, and what it read.
type Read = (Option<Reader>, Page);

/// What is left of a directory. Reads no further than it is asked to.
#[derive(Debug)]
pub(crate) struct Listing {
    page: Page,
    state: State,
}

#[derive(Debug)]
enum State {
    Idle(Reader),
    Reading(JoinHandle<Read>),
    Ended,
}

/// Reads in a thread that may wait for the disk. Its place is taken for as long, whether or not anybody still
/// wants to know.
#[derive(Debug)]
struct Reader {
    directory: Directory,
    _place: Place,
}

#[derive(Debug)]
enum Directory {
    Unopened(Arc<File>),
    Open(OwnedFd),
}

impl Listing {
    pub(crate) fn new(directory: Arc<File>, place: Place) -> Self {
        Self {
            page: Page::new(),
            state: State::Idle(Reader {
                directory: Directory::Unopened(directory),
                _place: place,
            }),
        }
    }

    /// One that ends at once.
    pub(crate) fn refused(fault: Fault) -> Self {
        Self {
            page: Page::from([Err(fault)]),
            state: State::Ended,
        }
    }

    /// What was read and not taken yet; empty at the end only. May be dropped midway and called again: a page that
    /// is being read is not lost.
    pub(crate) async fn page(&mut self) -> &mut Page {
        poll_fn(|cx| self.poll_read(cx)).await;
        &mut self.page
    }

    /// Opens the directory and reads its first names: what is wrong with it is told now.
    pub(crate) async fn begin(&mut self) -> Result<(), Fault> {
        let first = self.page().await;
        match first.pop_front_if(|first| matches!(first, Err(Fault::Io(_)))) {
            Some(Err(fault)) => Err(fault),
            _ => Ok(()),
        }
    }

    /// As [`Listing::page`].
    pub(crate) fn poll_page(&mut self, cx: &mut Context<'_>) -> Poll<&mut Page> {
        ready!(self.poll_read(cx));
        Poll::Ready(&mut self.page)
    }

    fn poll_read(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        while self.page.is_empty() {
            let mut task = match std::mem::replace(&mut self.state, State::Ended) {
                State::Ended => break,
                State::Idle(reader) => spawn_blocking(|| reader.read()),
                State::Reading(task) => task,
            };
            let Poll::Ready(read) = Pin::new(&mut task).poll(cx) else {
                self.state = State::Reading(task);
                return Poll::Pending;
            };
            let (reader, page) = read.unwrap_or_else(|error| {
                let fault = Fault::Io(io::Error::other(error));
                (None, Page::from([Err(fault)]))
            });
            self.page = page;
            self.state = reader.map_or(State::Ended, State::Idle);
        }
        Poll::Ready(())
    }
}

impl CellState {
    /// Begins to read a directory. The outer error is a handle that is none.
    pub(crate) fn list(
        &mut self,
        directory: &Resource<Descriptor>,
    ) -> wasmtime::Result<Result<Listing, Fault>> {
        let Descriptor::Dir(directory) = self.ctx().table.get(directory)? else {
            return Ok(Err(Fault::NotDirectory));
        };
        let directory = directory.dir.clone();
        let Some(place) = self.listings.take() else {
            self.shared.hit(Limit::Listings);
            return Ok(Err(Fault::Full));
        };
        Ok(Ok(Listing::new(directory, place)))
    }
}

impl Reader {
    fn read(self) -> Read {
        match self.directory.open().and_then(|directory| {
            let page = page(&directory)?;
            Ok((directory, page))
        }) {
            Ok((_, page)) if page.is_empty() => (None, page),
            Ok((directory, page)) => {
                let directory = Directory::Open(directory);
                (Some(Self { directory, ..self }), page)
            }
            Err(error) => (None, Page::from([Err(Fault::Io(error))])),
        }
    }
}

impl Directory {
    /// A descriptor of its own: two that read one directory have a position each.
    fn open(self) -> io::Result<OwnedFd> {
        match self {
            Self::Open(directory) => Ok(directory),
            Self::Unopened(directory) => {
                let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
                Ok(openat(&*directory, c".", flags, Mode::empty())?)
            }
        }
    }
}

/// The next names; none at the end.
fn page(directory: &OwnedFd) -> io::Result<Page> {
    let mut page = Page::new();
    let mut bytes = [MaybeUninit::uninit(); PAGE_BYTES];
    // The two names that are no files may be a page's only ones.
    while page.is_empty() {
        let mut entries = RawDir::new(directory, &mut bytes);
        loop {
            let Some(entry) = entries.next() else {
                return Ok(page);
            };
            let entry = entry?;
            if entry.file_name() != c"." && entry.file_name() != c".." {
                page.push_back(match entry.file_name().to_str() {
                    Ok(name) => Ok(Found {
                        name: name.to_owned(),
                        kind: kind(directory, entry.file_type(), name),
                    }),
                    Err(_) => Err(Fault::Name),
                });
            }
            if entries.is_buffer_empty() {
                break;
            }
        }
    }
    Ok(page)
}

/// Some file systems do not say of what kind an entry is. One that is gone by now has none.
fn kind(directory: &OwnedFd, said: FileType, name: &str) -> FileType {
    match said {
        FileType::Unknown => statat(directory, name, AtFlags::SYMLINK_NOFOLLOW)
            .map_or(FileType::Unknown, |stat| {
                FileType::from_raw_mode(stat.st_mode)
            }),
        known => known,
    }
}

#[cfg(test)]
mod tests {
    use std::{collections::BTreeSet, path::Path};

    use super::*;
    use crate::places::Places;

    fn listing(path: &Path) -> Listing {
        let place = Places::new(1).take().expect("a place");
        Listing::new(Arc::new(File::open(path).expect("it opens")), place)
    }

    #[tokio::test]
    async fn every_name_comes_once_and_few_are_kept() {
        let dir = tempfile::tempdir().expect("a directory");
        let names: BTreeSet<_> = (0..500).map(|number| format!("{number:0200}")).collect();
        for name in &names {
            std::fs::write(dir.path().join(name), "").expect("it is written");
        }
        let mut listing = listing(dir.path());
        let mut found = Vec::new();
        loop {
            let page = listing.page().await;
            assert!(page.len() <= PAGE_BYTES / 200, "{}", page.len());
            if page.is_empty() {
                break;
            }
            for entry in page.drain(..) {
                let entry = entry.expect("it is read");
                assert_eq!(entry.kind, FileType::RegularFile);
                found.push(entry.name);
            }
        }
        assert_eq!(found.len(), names.len());
        assert_eq!(found.into_iter().collect::<BTreeSet<_>>(), names);
        // The end stays the end.
        assert!(listing.page().await.is_empty());
    }

    #[tokio::test]
    async fn kinds_are_told_and_names_that_are_no_text_are_faults() {
        use std::os::unix::ffi::OsStrExt as _;

        let dir = tempfile::tempdir().expect("a directory");
        assert!(listing(dir.path()).page().await.is_empty(), "nothing there");
        let mut file = listing(Path::new("/proc/self/status"));
        assert!(
            matches!(file.begin().await, Err(Fault::Io(_))),
            "no directory"
        );
        std::fs::create_dir(dir.path().join("dir")).expect("it is made");
        std::os::unix::fs::symlink("x", dir.path().join("link")).expect("it is made");
        let mut listed = listing(dir.path());
        let kinds: BTreeSet<_> = listed
            .page()
            .await
            .drain(..)
            .map(|entry| {
                let entry = entry.expect("it is read");
                (entry.name, format!("{:?}", entry.kind))
            })
            .collect();
        let told = [("dir", "Directory"), ("link", "Symlink")];
        assert_eq!(
            kinds,
            told.map(|(name, kind)| (name.into(), kind.into())).into()
        );
        let wrong = dir.path().join(std::ffi::OsStr::from_bytes(b"\xff"));
        std::fs::write(wrong, "").expect("it is written");
        let mut listed = listing(dir.path());
        let faults = listed.page().await.drain(..).filter_map(Result::err);
        assert!(matches!(faults.collect::<Vec<_>>()[..], [Fault::Name]));
    }
}

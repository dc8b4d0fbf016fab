//! Compiled code on disk: only what this node made, proved by a MAC, is ever loaded.
#![expect(
    unsafe_code,
    reason = "wasmtime cannot check native code; the MAC over the very bytes that are mapped can"
)]

use std::{
    fs::{self, File, OpenOptions},
    io::{self, Read, Write},
    os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt, PermissionsExt},
    path::{Path, PathBuf},
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::SystemTime,
};

use wasmtime::{Engine, Module, component::Component};

use crate::{
    CompileError, Flavour, Kind, PrepareError,
    artifact::{Artifact, Named},
    compile::Seat,
    inspect::Facts,
};

mod budget;

pub(crate) use budget::InUse;
use budget::{TEMPORARY, Users};

const MAC_BYTES: usize = 32;
/// The longest of what is kept beside code: why there is none, or what the artifact is.
const SMALL_BYTES: u64 = 64 * 1024 * 1024;
const DIR_MODE: u32 = 0o700;
const FILE_MODE: u32 = 0o600;
/// Whoever may write a file may swap it between the check and the use.
const WRITABLE_BY_OTHERS: u32 = 0o022;

/// Cheap to clone.
#[derive(Debug, Clone)]
pub(crate) struct Cache(Arc<Store>);

#[derive(Debug)]
struct Store {
    dir: PathBuf,
    key: [u8; 32],
    bytes_max: u64,
    users: Users,
    /// One at a time counts and deletes.
    sweeping: Mutex<()>,
    /// Tells the temporary files of this process apart.
    written: AtomicU64,
}

/// Code that an engine has loaded, and the entry that it came from.
pub(crate) struct Loaded {
    pub(crate) code: Compiled,
    pub(crate) in_use: InUse,
}

pub(crate) enum Compiled {
    Module(Module),
    Component(Component),
}

/// An artifact, and what is kept of it already.
pub(crate) struct Known {
    pub(crate) artifact: Artifact,
    pub(crate) facts: Option<Facts>,
    /// None as well where the facts are not known: how it is loaded depends on them.
    pub(crate) code: Option<Loaded>,
}

/// The part of an entry: code, or why there is none.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Ending {
    /// What the artifact is.
    Facts,
    Code,
    Bad,
}

impl Ending {
    const ALL: [Self; 3] = [Self::Facts, Self::Code, Self::Bad];

    const fn as_str(self) -> &'static str {
        match self {
            Self::Facts => "facts",
            Self::Code => "code",
            Self::Bad => "bad",
        }
    }

    const fn mac(self) -> &'static str {
        match self {
            Self::Facts => "facts.mac",
            Self::Code => "code.mac",
            Self::Bad => "bad.mac",
        }
    }
}

/// Why an entry that is there gives no code.
#[derive(Debug)]
enum Fault {
    /// Not what we wrote, or not readable: to be made again.
    Spoiled(anyhow::Error),
    /// Ours, but the engine has no room for such code: making it again changes nothing.
    Refused(anyhow::Error),
}

impl Cache {
    /// `bytes_max` bounds what lies on disk, without what is in use.
    pub(crate) fn open(dir: PathBuf, key: [u8; 32], bytes_max: u64) -> io::Result<Self> {
        fs::DirBuilder::new()
            .recursive(true)
            .mode(DIR_MODE)
            .create(&dir)?;
        tighten(&dir)?;
        let store = Store {
            dir,
            key,
            bytes_max,
            users: Users::default(),
            sweeping: Mutex::default(),
            written: AtomicU64::default(),
        };
        let foreign = store.sweep()?;
        if foreign > 0 {
            tracing::warn!(
                files = foreign,
                dir = %store.dir.display(),
                "the cache of compiled code holds files that it did not write; they are ignored"
            );
        }
        Ok(Self(Arc::new(store)))
    }

    /// Takes hold of the entry of an artifact: it stays, whether it is there already or is about to be made.
    pub(crate) fn hold(&self, digest: &[u8; 32], flavour: Flavour, engine: &Engine) -> InUse {
        let name = format!(
            "{}-{}-{:016x}",
            hex::encode(digest),
            flavour.as_str(),
            compatibility(engine)
        );
        self.0.users.add(&name)
    }

    /// What is kept, in one visit to the disk.
    pub(crate) async fn known(
        &self,
        held: &InUse,
        engine: &Engine,
        named: Named,
    ) -> Result<Known, PrepareError> {
        let (name, engine) = (held.name().to_owned(), engine.clone());
        self.blocking(move |store| {
            let artifact = named.find()?;
            let facts = store.facts(&name);
            let code = match &facts {
                Some(facts) => store.find(&engine, &name, facts.kind)?,
                None => None,
            };
            Ok(Known {
                artifact,
                facts,
                code,
            })
        })
        .await
    }

    /// What the artifact is, told by a child and kept; and the code that may be there all the same.
    pub(crate) async fn told(
        &self,
        held: &InUse,
        engine: &Engine,
        seat: &mut Seat<'_>,
    ) -> Result<(Facts, Option<Loaded>), PrepareError> {
        let facts = seat.facts().await??;
        let told = serde_json::to_vec(&facts).map_err(|error| PrepareError::Load(error.into()))?;
        let (name, engine) = (held.name().to_owned(), engine.clone());
        self.blocking(move |store| {
            store.keep(&name, Ending::Facts, &told);
            let code = store.find(&engine, &name, facts.kind)?;
            Ok((facts, code))
        })
        .await
    }

    /// Compiled by a child, kept and loaded.
    pub(crate) async fn compiled(
        &self,
        held: &InUse,
        engine: &Engine,
        flavour: Flavour,
        kind: Kind,
        seat: &mut Seat<'_>,
    ) -> Result<Loaded, PrepareError> {
        let name = held.name().to_owned();
        match seat.compile(flavour, kind).await {
            Ok(code) => {
                let on = engine.clone();
                self.blocking(move |store| store.keep_and_load(&on, &name, kind, &code))
                    .await
            }
            Err(CompileError::Bad { message }) => {
                let kept = message.clone();
                self.blocking(move |store| {
                    store.keep(&name, Ending::Bad, kept.as_bytes());
                    Ok(())
                })
                .await?;
                Err(CompileError::Bad { message }.into())
            }
            Err(error) => Err(error.into()),
        }
    }

    /// Reading and checking megabytes is too long for a thread that does IO.
    async fn blocking<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Store) -> Result<T, PrepareError> + Send + 'static,
    ) -> Result<T, PrepareError> {
        let store = self.0.clone();
        tokio::task::spawn_blocking(move || work(&store))
            .await
            .map_err(|error| PrepareError::Load(error.into()))?
    }
}

impl Store {
    /// What is known of these bytes already.
    fn find(
        &self,
        engine: &Engine,
        name: &str,
        kind: Kind,
    ) -> Result<Option<Loaded>, PrepareError> {
        if let Some(message) = self.refusal(name) {
            return Err(CompileError::Bad { message }.into());
        }
        match self.load(engine, name, kind) {
            Ok(loaded) => Ok(loaded),
            Err(Fault::Refused(error)) => Err(PrepareError::load(error)),
            Err(Fault::Spoiled(error)) => {
                tracing::warn!(
                    artifact = name,
                    error = format!("{error:#}"),
                    "compiled code is ignored; compiling again"
                );
                Ok(None)
            }
        }
    }

    fn keep_and_load(
        &self,
        engine: &Engine,
        name: &str,
        kind: Kind,
        code: &[u8],
    ) -> Result<Loaded, PrepareError> {
        let in_use = self.users.add(name);
        self.keep(name, Ending::Code, code);
        let loaded = match self.load(engine, name, kind) {
            Ok(Some(loaded)) => return Ok(loaded),
            Err(Fault::Refused(error)) => Err(error),
            // It could not be kept, and somebody was told.
            Ok(None) | Err(Fault::Spoiled(_)) => load_bytes(engine, kind, code).map_err(Into::into),
        };
        loaded
            .map(|code| Loaded { code, in_use })
            .map_err(PrepareError::load)
    }

    fn load(&self, engine: &Engine, name: &str, kind: Kind) -> Result<Option<Loaded>, Fault> {
        let in_use = self.users.add(name);
        let Some(file) = self.checked(name, Ending::Code).map_err(Fault::Spoiled)? else {
            return Ok(None);
        };
        // SAFETY: the MAC says that these bytes came from this node's own compiler, and the open file is the one that was checked.
        let code = unsafe {
            match kind {
                Kind::Module => Module::deserialize_open_file(engine, file).map(Compiled::Module),
                Kind::Component => {
                    Component::deserialize_file(engine, proc_path(&file)).map(Compiled::Component)
                }
            }
        };
        code.map(|code| Some(Loaded { code, in_use }))
            .map_err(|error| Fault::Refused(error.into()))
    }

    fn refusal(&self, name: &str) -> Option<String> {
        String::from_utf8(self.small(name, Ending::Bad)?).ok()
    }

    /// None too if another version of realm wrote them in another form.
    fn facts(&self, name: &str) -> Option<Facts> {
        serde_json::from_slice(&self.small(name, Ending::Facts)?).ok()
    }

    /// What is kept to be read: whatever is wrong with it, it can be made again.
    fn small(&self, name: &str, ending: Ending) -> Option<Vec<u8>> {
        let mut bytes = Vec::new();
        let read = self.checked(name, ending).and_then(|file| {
            let Some(file) = file else {
                return Ok(None);
            };
            io::Seek::rewind(&mut &file)?;
            (&file).take(SMALL_BYTES).read_to_end(&mut bytes)?;
            Ok(Some(bytes))
        });
        read.unwrap_or_else(|error| {
            tracing::warn!(
                artifact = name,
                error = format!("{error:#}"),
                "a file beside compiled code is ignored"
            );
            None
        })
    }

    /// The file of an entry if its MAC fits; it counts as used now.
    fn checked(&self, name: &str, ending: Ending) -> anyhow::Result<Option<File>> {
        let file = self.file(&format!("{name}.{}", ending.as_str()))?;
        let mac_file = self.file(&format!("{name}.{}", ending.mac()))?;
        let (Some(file), Some(mut mac_file)) = (file, mac_file) else {
            return Ok(None);
        };
        let mut mac = [0; MAC_BYTES];
        mac_file.read_exact(&mut mac)?;
        self.verify(name, ending, &file, mac)?;
        mac_file.set_modified(SystemTime::now())?;
        Ok(Some(file))
    }

    /// Keeps bytes and their MAC; a full disk costs the next start a compile, nothing more.
    fn keep(&self, name: &str, ending: Ending, bytes: &[u8]) {
        let mac = self.mac(name, ending).update(bytes).finalize();
        let kept = self
            .write(&format!("{name}.{}", ending.as_str()), bytes)
            .and_then(|()| self.write(&format!("{name}.{}", ending.mac()), mac.as_bytes()))
            .and_then(|()| self.sweep());
        if let Err(error) = kept {
            tracing::warn!(%error, dir = %self.dir.display(), "compiled code could not be kept");
        }
    }

    fn sweep(&self) -> io::Result<usize> {
        let _one = self.sweeping.lock().unwrap_or_else(PoisonError::into_inner);
        budget::sweep(&self.dir, self.bytes_max, &self.users)
    }

    /// Whole, or not at all, wherever this stops.
    fn write(&self, file_name: &str, bytes: &[u8]) -> io::Result<()> {
        let count = self.written.fetch_add(1, Ordering::Relaxed);
        let process = std::process::id();
        let temporary = self
            .dir
            .join(format!("{file_name}.{process}-{count}.{TEMPORARY}"));
        let mut file = OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(FILE_MODE)
            .open(&temporary)?;
        let written = file
            .write_all(bytes)
            .and_then(|()| file.sync_all())
            .and_then(|()| fs::rename(&temporary, self.dir.join(file_name)));
        if written.is_err() {
            // The first error counts; what is left is swept some time.
            let _ = fs::remove_file(&temporary);
        }
        written
    }

    /// A file of ours that nobody else can have written.
    fn file(&self, file_name: &str) -> anyhow::Result<Option<File>> {
        let opened = OpenOptions::new()
            .read(true)
            .custom_flags(libc::O_NOFOLLOW)
            .open(self.dir.join(file_name));
        let file = match opened {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(error.into()),
        };
        let metadata = file.metadata()?;
        let own = rustix::process::geteuid().as_raw();
        anyhow::ensure!(metadata.is_file(), "{file_name} is not a file");
        anyhow::ensure!(
            metadata.uid() == own,
            "{file_name} belongs to user {}, not to {own}",
            metadata.uid()
        );
        anyhow::ensure!(
            metadata.mode() & WRITABLE_BY_OTHERS == 0,
            "others may write {file_name} (mode {:o})",
            metadata.mode() & 0o7777
        );
        Ok(Some(file))
    }

    fn verify(
        &self,
        name: &str,
        ending: Ending,
        file: &File,
        expected: [u8; MAC_BYTES],
    ) -> anyhow::Result<()> {
        let mut mac = self.mac(name, ending);
        mac.update_reader(file)?;
        // Compared in constant time.
        anyhow::ensure!(mac.finalize() == expected, "its MAC does not fit");
        Ok(())
    }

    /// Covers the name too, so that one artifact's code cannot stand in for another's.
    fn mac(&self, name: &str, ending: Ending) -> blake3::Hasher {
        let mut mac = blake3::Hasher::new_keyed(&self.key);
        for part in ["realm-compiled-v3", name, ending.as_str()] {
            mac.update(&(part.len() as u64).to_le_bytes());
            mac.update(part.as_bytes());
        }
        mac
    }
}

/// Takes the directory for this user alone, and says so if it was not; a link to one is no directory.
fn tighten(dir: &Path) -> io::Result<()> {
    let open = OpenOptions::new()
        .read(true)
        .custom_flags(libc::O_NOFOLLOW | libc::O_DIRECTORY)
        .open(dir)?;
    let mode = open.metadata()?.permissions().mode();
    if mode & WRITABLE_BY_OTHERS != 0 {
        tracing::warn!(
            dir = %dir.display(),
            mode = format!("{:o}", mode & 0o7777),
            "others could write to the cache of compiled code; it is private now"
        );
        // What was looked at, whatever the name means by now.
        open.set_permissions(fs::Permissions::from_mode(DIR_MODE))?;
    }
    Ok(())
}

/// The open file itself, by a path: what was checked is what is mapped, even if the name now means another file.
fn proc_path(file: &File) -> PathBuf {
    use std::os::fd::AsRawFd;
    format!("/proc/self/fd/{}", file.as_raw_fd()).into()
}

/// For a cache that could not be written: the same bytes from memory.
fn load_bytes(engine: &Engine, kind: Kind, code: &[u8]) -> wasmtime::Result<Compiled> {
    // SAFETY: the bytes came from this node's own compiler a moment ago and never left this process.
    unsafe {
        Ok(match kind {
            Kind::Module => Compiled::Module(Module::deserialize(engine, code)?),
            Kind::Component => Compiled::Component(Component::deserialize(engine, code)?),
        })
    }
}

fn compatibility(engine: &Engine) -> u64 {
    use std::hash::{DefaultHasher, Hash, Hasher};
    let mut hasher = DefaultHasher::new();
    engine.precompile_compatibility_hash().hash(&mut hasher);
    hasher.finish()
}

//! Compiled code on disk: only what this node made, proved by a MAC, is ever loaded.
#![expect(
    unsafe_code,
    reason = "wasmtime cannot check native code; the MAC over the very bytes that are mapped can"
)]

use std::{
    fs::{self, File},
    io::{self, Read, Write},
    path::PathBuf,
};

use hmac::{Hmac, KeyInit, Mac};
use sha2::Sha256;
use wasmtime::{Engine, Module, component::Component};

use crate::{
    CompileError, Flavour, Inspection, Kind, PrepareError,
    compile::{Compiler, Job},
};

const MAC_BYTES: usize = 32;
/// Read at once while checking.
const CHUNK_BYTES: usize = 64 * 1024;
/// The refusal that is kept for bytes that do not compile.
const REFUSAL_BYTES: u64 = 16 * 1024;

#[derive(Debug)]
pub(crate) struct Cache {
    dir: PathBuf,
    key: [u8; 32],
}

/// Code that an engine has loaded.
pub(crate) enum Compiled {
    Module(Module),
    Component(Component),
}

impl Cache {
    pub(crate) fn open(dir: PathBuf, key: [u8; 32]) -> io::Result<Self> {
        fs::create_dir_all(&dir)?;
        Ok(Self { dir, key })
    }

    /// The compiled form of `wasm`: mapped if a valid one is there, else compiled and kept. Any fault in the cache means compiling again.
    pub(crate) async fn compiled(
        &self,
        engine: &Engine,
        flavour: Flavour,
        inspection: &Inspection,
        wasm: &[u8],
        compiler: &Compiler,
    ) -> Result<Compiled, PrepareError> {
        let name = format!(
            "{}-{}-{:016x}",
            inspection.sha256,
            flavour.as_str(),
            compatibility(engine)
        );
        if let Some(message) = self.refusal(&name) {
            return Err(CompileError::Bad { message }.into());
        }
        match self.load(engine, &name, inspection.kind) {
            Ok(Some(code)) => return Ok(code),
            Ok(None) => {}
            Err(error) => tracing::warn!(
                artifact = name,
                error = format!("{error:#}"),
                "compiled code is spoiled; compiling again"
            ),
        }
        let code = match compiler
            .compile(Job {
                wasm,
                flavour,
                kind: inspection.kind,
            })
            .await
        {
            Ok(code) => code,
            Err(CompileError::Bad { message }) => {
                self.keep(&name, "bad", message.as_bytes());
                return Err(CompileError::Bad { message }.into());
            }
            Err(error) => return Err(error.into()),
        };
        self.keep(&name, "code", &code);
        match self.load(engine, &name, inspection.kind) {
            Ok(Some(code)) => Ok(code),
            Ok(None) => load_bytes(engine, inspection.kind, &code)
                .map_err(|error| PrepareError::load(error.into())),
            Err(error) => Err(PrepareError::load(error)),
        }
    }

    fn load(&self, engine: &Engine, name: &str, kind: Kind) -> anyhow::Result<Option<Compiled>> {
        let (Some(file), Some(mac)) = (self.file(name, "code")?, self.mac_file(name, "code")?)
        else {
            return Ok(None);
        };
        self.verify(name, "code", &file, &mac)?;
        // SAFETY: the MAC says that these bytes came from this node's own compiler, and the open file is the one that was checked.
        let code = unsafe {
            match kind {
                Kind::Module => Compiled::Module(Module::deserialize_open_file(engine, file)?),
                Kind::Component => {
                    Compiled::Component(Component::deserialize_file(engine, proc_path(&file))?)
                }
            }
        };
        Ok(Some(code))
    }

    fn refusal(&self, name: &str) -> Option<String> {
        let file = self.file(name, "bad").ok()??;
        let mac = self.mac_file(name, "bad").ok()??;
        self.verify(name, "bad", &file, &mac).ok()?;
        let mut message = String::new();
        let mut file = self.file(name, "bad").ok()??;
        (&mut file)
            .take(REFUSAL_BYTES)
            .read_to_string(&mut message)
            .ok()?;
        Some(message)
    }

    /// Keeps bytes and their MAC; a full disk costs the next start a compile, nothing more.
    fn keep(&self, name: &str, ending: &str, bytes: &[u8]) {
        let mut mac = self.mac(name, ending);
        mac.update(bytes);
        let mac = mac.finalize().into_bytes();
        let kept = self
            .write(&format!("{name}.{ending}"), bytes)
            .and_then(|()| self.write(&format!("{name}.{ending}.mac"), &mac));
        if let Err(error) = kept {
            tracing::warn!(%error, dir = %self.dir.display(), "compiled code could not be kept");
        }
    }

    fn write(&self, name: &str, bytes: &[u8]) -> io::Result<()> {
        let temporary = self.dir.join(format!("{name}.{}.new", std::process::id()));
        let mut file = File::create(&temporary)?;
        file.write_all(bytes)?;
        file.sync_all()?;
        fs::rename(temporary, self.dir.join(name))
    }

    fn file(&self, name: &str, ending: &str) -> io::Result<Option<File>> {
        match File::open(self.dir.join(format!("{name}.{ending}"))) {
            Ok(file) => Ok(Some(file)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }

    fn mac_file(&self, name: &str, ending: &str) -> io::Result<Option<[u8; MAC_BYTES]>> {
        let Some(mut file) = self.file(name, &format!("{ending}.mac"))? else {
            return Ok(None);
        };
        let mut mac = [0; MAC_BYTES];
        file.read_exact(&mut mac)?;
        Ok(Some(mac))
    }

    fn verify(
        &self,
        name: &str,
        ending: &str,
        mut file: &File,
        expected: &[u8],
    ) -> anyhow::Result<()> {
        let mut mac = self.mac(name, ending);
        let mut chunk = vec![0; CHUNK_BYTES];
        loop {
            match file.read(&mut chunk)? {
                0 => break,
                count => mac.update(&chunk[..count]),
            }
        }
        mac.verify_slice(expected)
            .map_err(|_| anyhow::anyhow!("its MAC does not fit"))
    }

    /// Covers the name too, so that one artifact's code cannot stand in for another's.
    fn mac(&self, name: &str, ending: &str) -> Hmac<Sha256> {
        // HMAC pads a shorter key with zeros.
        let mut block = [0; 64];
        block[..self.key.len()].copy_from_slice(&self.key);
        let mut mac = <Hmac<Sha256> as KeyInit>::new(&block.into());
        for part in ["realm-compiled-v1", name, ending] {
            mac.update(&(part.len() as u64).to_le_bytes());
            mac.update(part.as_bytes());
        }
        mac
    }
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

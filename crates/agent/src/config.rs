//! What an agent is started with: defaults, then config files, then flags.

use std::{
    net::SocketAddr,
    path::{Path, PathBuf},
    time::Duration,
};

use realm_manifest::{NodeName, Tag, report::MAX_CELLS};
use serde::Deserialize;

use crate::local::Local;

/// Everything an agent needs to start. Made by [`Config::default`], changed by files and flags.
#[derive(Debug, Clone)]
pub struct Config {
    /// Holds keys, the log, artifacts and volumes; locked while the agent runs.
    pub data: PathBuf,
    /// What the node calls itself until its owner names it.
    pub name: Option<NodeName>,
    pub tags: Vec<Tag>,
    /// Multiaddrs to listen on.
    pub listen: Vec<String>,
    /// Address of the read-only HTTP endpoints.
    pub http: SocketAddr,
    /// Everybody on this machine may read logs and status over HTTP, without the token.
    pub http_open: bool,
    /// Multiaddrs dialled at start, beside the saved peers.
    pub bootstrap: Vec<String>,
    /// Whether to end, for another start, where others remember a later start than this one. Not in that next
    /// one: two agents with one key would chase each other.
    pub step_over_later_start: bool,
    /// An invite token claimed at start.
    pub enroll: Option<String>,
    pub mdns: bool,
    /// How long the first owner key that speaks is trusted, opened by this flag alone.
    pub trust_first_use: Option<Duration>,
    /// Host directories that volumes may come from; none by default.
    pub volume_prefixes: Vec<PathBuf>,
    /// Memory given to all cells together, in MiB.
    pub memory_mb: u64,
    pub max_cells: u32,
    /// Disk given to artifacts, in bytes.
    pub artifact_bytes: u64,
    /// Disk given to compiled code, in bytes.
    pub cache_bytes: u64,
    /// A program that this node runs beside what the realm asks for.
    pub local: Option<Local>,
    /// Compile untrusted code although this kernel cannot sandbox the compiler.
    pub allow_unsandboxed_compile: bool,
    /// Traps name the source file and line, where a program carries them.
    pub wasm_debug: bool,
    /// What the agent logs, as `RUST_LOG` has it; whoever starts the agent puts it in force.
    pub log: Option<String>,
    /// Program and arguments of the compile child; this binary's hidden command by default.
    pub compile_child: (PathBuf, Vec<String>),
    /// Where the running agent says how to reach it, beside its data directory.
    pub runtime_dir: Option<PathBuf>,
}

pub const DEFAULT_PORT: u16 = 2020;
pub const DEFAULT_HTTP: &str = "127.0.0.1:9920";

/// Cells of one node where its config says nothing else. The room for one costs address space, not
/// memory: an idle agent with a thousand has 1 MiB more than with 200.
pub const DEFAULT_CELLS: u32 = 1000;

/// Memory for cells where the machine's own is not known.
const UNKNOWN_MEMORY_MB: u64 = 1024;

/// Largest config file read: nobody writes a megabyte by hand.
const MAX_CONFIG_BYTES: u64 = 1024 * 1024;

#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    #[error("cannot read {path}")]
    Read {
        path: PathBuf,
        source: std::io::Error,
    },
    #[error("{path} is {size} bytes; at most {MAX_CONFIG_BYTES} are read")]
    TooLarge { path: PathBuf, size: u64 },
    #[error("{path} says max_cells = {found}; a node's report holds at most {MAX_CELLS}")]
    TooManyCells { path: PathBuf, found: u32 },
    #[error("{path} has both listen and port: port stands for four addresses to listen on")]
    ListenAndPort { path: PathBuf },
    #[error("{path} is not valid")]
    Parse {
        path: PathBuf,
        source: Box<toml::de::Error>,
    },
}

impl Config {
    /// Defaults for an agent whose state lives in `data` and whose own program is `exe`.
    pub fn new(data: PathBuf, exe: PathBuf) -> Self {
        Self {
            data,
            name: None,
            tags: Vec::new(),
            listen: default_listen(DEFAULT_PORT),
            http: DEFAULT_HTTP.parse().expect("the default address is one"),
            http_open: false,
            bootstrap: Vec::new(),
            step_over_later_start: true,
            enroll: None,
            mdns: true,
            trust_first_use: None,
            volume_prefixes: Vec::new(),
            memory_mb: half_of_memory_mb(),
            max_cells: DEFAULT_CELLS,
            artifact_bytes: 10 * 1024 * 1024 * 1024,
            cache_bytes: 1024 * 1024 * 1024,
            local: None,
            allow_unsandboxed_compile: false,
            wasm_debug: false,
            log: None,
            compile_child: (exe, vec!["__compile".into()]),
            runtime_dir: None,
        }
    }

    /// Reads one config file over what stands so far. A missing file changes nothing.
    pub fn read_file(&mut self, path: &Path) -> Result<bool, ConfigError> {
        let read_error = |source| ConfigError::Read {
            path: path.into(),
            source,
        };
        match std::fs::metadata(path) {
            Ok(meta) if meta.len() > MAX_CONFIG_BYTES => {
                return Err(ConfigError::TooLarge {
                    path: path.into(),
                    size: meta.len(),
                });
            }
            Ok(_) => {}
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(false),
            Err(error) => return Err(read_error(error)),
        }
        let text = std::fs::read_to_string(path).map_err(read_error)?;
        let file: File = toml::from_str(&text).map_err(|source| ConfigError::Parse {
            path: path.into(),
            source: Box::new(source),
        })?;
        if let Some(found) = file.max_cells.filter(|found| *found > MAX_CELLS) {
            return Err(ConfigError::TooManyCells {
                path: path.into(),
                found,
            });
        }
        if file.listen.is_some() && file.port.is_some() {
            return Err(ConfigError::ListenAndPort { path: path.into() });
        }
        self.apply(file);
        Ok(true)
    }

    /// Reads `*.toml` of a directory in the order of their names.
    pub fn read_dir(&mut self, dir: &Path) -> Result<(), ConfigError> {
        let read_error = |source| ConfigError::Read {
            path: dir.into(),
            source,
        };
        let entries = match std::fs::read_dir(dir) {
            Ok(entries) => entries,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(()),
            Err(error) => return Err(read_error(error)),
        };
        let mut paths = Vec::new();
        for entry in entries {
            let path = entry.map_err(read_error)?.path();
            if path
                .extension()
                .is_some_and(|extension| extension == "toml")
            {
                paths.push(path);
            }
        }
        paths.sort();
        for path in paths {
            self.read_file(&path)?;
        }
        Ok(())
    }

    fn apply(&mut self, file: File) {
        set(&mut self.data, file.data);
        set(&mut self.listen, file.port.map(default_listen));
        set(&mut self.listen, file.listen);
        set(&mut self.http, file.http);
        set(&mut self.http_open, file.http_open);
        set(&mut self.bootstrap, file.bootstrap);
        set(&mut self.mdns, file.mdns);
        set(&mut self.tags, file.tags);
        set(&mut self.volume_prefixes, file.volume_prefixes);
        set(&mut self.memory_mb, file.memory_mb);
        set(&mut self.max_cells, file.max_cells);
        set(
            &mut self.artifact_bytes,
            file.artifact_mb.map(|mb| mb.saturating_mul(1024 * 1024)),
        );
        set(
            &mut self.cache_bytes,
            file.cache_mb.map(|mb| mb.saturating_mul(1024 * 1024)),
        );
        set(
            &mut self.allow_unsandboxed_compile,
            file.allow_unsandboxed_compile,
        );
        set(&mut self.wasm_debug, file.wasm_debug);
        self.name = file.name.or(self.name.take());
        self.log = file.log.or(self.log.take());
    }
}

/// What a config file may say. It never holds a token or a key.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    data: Option<PathBuf>,
    name: Option<NodeName>,
    #[serde(alias = "roles")]
    tags: Option<Vec<Tag>>,
    listen: Option<Vec<String>>,
    port: Option<u16>,
    http: Option<SocketAddr>,
    http_open: Option<bool>,
    bootstrap: Option<Vec<String>>,
    mdns: Option<bool>,
    volume_prefixes: Option<Vec<PathBuf>>,
    memory_mb: Option<u64>,
    max_cells: Option<u32>,
    artifact_mb: Option<u64>,
    cache_mb: Option<u64>,
    allow_unsandboxed_compile: Option<bool>,
    wasm_debug: Option<bool>,
    log: Option<String>,
}

/// QUIC and TCP on every interface, IPv4 and IPv6.
pub fn default_listen(port: u16) -> Vec<String> {
    vec![
        format!("/ip4/0.0.0.0/udp/{port}/quic-v1"),
        format!("/ip4/0.0.0.0/tcp/{port}"),
        format!("/ip6/::/udp/{port}/quic-v1"),
        format!("/ip6/::/tcp/{port}"),
    ]
}

/// What cells get where nobody says otherwise: the machine has more to do than run them.
fn half_of_memory_mb() -> u64 {
    let total = sysinfo::System::new().map(|mut system| {
        system.refresh_memory();
        system.total_memory()
    });
    match total {
        Ok(bytes) if bytes > 0 => bytes / 2 / 1024 / 1024,
        // A system that does not tell.
        _ => UNKNOWN_MEMORY_MB,
    }
}

fn set<T>(slot: &mut T, value: Option<T>) {
    if let Some(value) = value {
        *slot = value;
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    fn config() -> Config {
        Config::new("/data".into(), "/bin/realm".into())
    }

    #[test]
    fn later_files_override_earlier_ones() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(
            dir.path().join("10-a.toml"),
            "name = \"one\"\nmemory_mb = 10",
        )
        .unwrap();
        std::fs::write(
            dir.path().join("20-b.toml"),
            "memory_mb = 20\nroles = [\"edge\"]",
        )
        .unwrap();
        std::fs::write(dir.path().join("readme.txt"), "not toml").unwrap();
        let mut config = config();
        config.read_dir(dir.path()).unwrap();
        assert_eq!(config.memory_mb, 20);
        assert_eq!(config.name.unwrap().as_str(), "one");
        assert_eq!(config.tags.len(), 1);
        assert_eq!(config.max_cells, DEFAULT_CELLS);
    }

    #[test]
    fn an_unknown_key_is_an_error_that_names_it() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("agent.toml");
        std::fs::write(&path, "memry_mb = 10").unwrap();
        let error = config().read_file(&path).unwrap_err();
        let chain = format!("{error}: {}", std::error::Error::source(&error).unwrap());
        assert!(
            chain.contains("memry_mb") && chain.contains("agent.toml"),
            "{chain}"
        );
    }

    #[test]
    fn a_port_is_four_addresses_and_excludes_others() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("agent.toml");
        std::fs::write(&path, "port = 3000").unwrap();
        let mut config = config();
        config.read_file(&path).unwrap();
        assert_eq!(config.listen, default_listen(3000));
        std::fs::write(&path, "port = 1\nlisten = []").unwrap();
        let error = config.read_file(&path).unwrap_err();
        assert!(error.to_string().contains("both"), "{error}");
    }

    #[test]
    fn a_missing_file_changes_nothing() {
        assert!(
            !config()
                .read_file(Path::new("/nonexistent/agent.toml"))
                .unwrap()
        );
    }
}

//! Settings of the command line in layers: flag, variable, project, user, system. Each knows its origin.

use std::{
    collections::BTreeMap,
    env,
    path::{Path, PathBuf},
};

use crate::error::{CliError, Context, ExitCode, Result};

/// Largest settings file read.
const MAX_BYTES: u64 = 256 * 1024;

/// Where a machine keeps its settings.
const SYSTEM_DIR: &str = "/etc/realm";

/// Every setting: its key in files, and the variable that overrides the files.
pub const KEYS: [(&str, &str); 9] = [
    ("system-dir", "REALM_SYSTEM_DIR"),
    ("config-dir", "REALM_CONFIG_DIR"),
    ("data-dir", "REALM_DATA_DIR"),
    ("state-dir", "REALM_STATE_DIR"),
    ("agent-config", "REALM_AGENT_CONFIG"),
    ("key", "REALM_KEY"),
    ("passphrase-file", "REALM_PASSPHRASE_FILE"),
    ("realm", "REALM_REALM"),
    ("via", "REALM_VIA"),
];

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Setting {
    pub value: String,
    pub origin: Origin,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Origin {
    Flag,
    Variable(&'static str),
    Project(PathBuf),
    User(PathBuf),
    System(PathBuf),
    Default,
}

/// The settings in force, each with the layer it came from.
#[derive(Debug, Clone, Default)]
pub struct Settings {
    values: BTreeMap<&'static str, Setting>,
}

impl Settings {
    /// Reads all layers. `flags` are those given on the command line.
    pub fn load(flags: &[(&'static str, Option<String>)]) -> Result<Self> {
        let environment = |name: &str| env::var(name).ok().filter(|value| !value.is_empty());
        let flag = |key: &str| {
            flags
                .iter()
                .find(|(name, _)| *name == key)
                .and_then(|(_, value)| value.clone())
        };
        let named = |key, variable| {
            flag(key)
                .or_else(|| environment(variable))
                .map(PathBuf::from)
        };
        let system_dir =
            named("system-dir", "REALM_SYSTEM_DIR").unwrap_or_else(|| SYSTEM_DIR.into());
        let config_dir = named("config-dir", "REALM_CONFIG_DIR");
        let user_dir = match config_dir.or_else(|| xdg("XDG_CONFIG_HOME", ".config")) {
            Some(dir) => dir,
            None => return Err(no_home()),
        };
        let layers = [
            (system_dir.join("config.toml"), Layer::System),
            (user_dir.join("config.toml"), Layer::User),
            (PathBuf::from(".realm/config.toml"), Layer::Project),
        ];

        let mut settings = Self::defaults(&system_dir, &user_dir)?;
        for (path, layer) in layers {
            settings.read(&path, layer)?;
        }
        for (key, variable) in KEYS {
            if let Some(value) = environment(variable) {
                settings.set(key, value, Origin::Variable(variable));
            }
            if let Some(value) = flag(key) {
                settings.set(key, value, Origin::Flag);
            }
        }
        Ok(settings)
    }

    /// What one file says, and nothing else.
    pub(crate) fn of_file(path: &Path) -> Result<Self> {
        let mut settings = Self::default();
        settings.read(path, Layer::User)?;
        Ok(settings)
    }

    pub fn value(&self, key: &str) -> Option<&str> {
        self.values.get(key).map(|setting| setting.value.as_str())
    }

    pub fn iter(&self) -> impl Iterator<Item = (&'static str, &Setting)> {
        self.values.iter().map(|(key, setting)| (*key, setting))
    }

    /// Settings of this machine, for all its people and its agent.
    pub fn system_dir(&self) -> PathBuf {
        PathBuf::from(self.value("system-dir").unwrap_or_default())
    }

    /// Keys and settings of the person.
    pub fn config_dir(&self) -> PathBuf {
        PathBuf::from(self.value("config-dir").unwrap_or_default())
    }

    /// Realms, outbox, high-water marks.
    pub fn state_dir(&self) -> PathBuf {
        PathBuf::from(self.value("state-dir").unwrap_or_default())
    }

    /// An agent's data directory.
    pub fn data_dir(&self) -> PathBuf {
        PathBuf::from(self.value("data-dir").unwrap_or_default())
    }

    /// The data directory, where a flag, a variable or a file names one.
    pub fn explicit_data_dir(&self) -> Option<PathBuf> {
        let setting = self.values.get("data-dir")?;
        (setting.origin != Origin::Default).then(|| PathBuf::from(&setting.value))
    }

    pub fn key_path(&self) -> PathBuf {
        PathBuf::from(self.value("key").unwrap_or_default())
    }

    /// A file with the passphrase of the key; `-` is standard input.
    pub fn passphrase_file(&self) -> Option<PathBuf> {
        self.value("passphrase-file").map(PathBuf::from)
    }

    /// A file that an agent reads after the system's and the user's.
    pub fn agent_config(&self) -> Option<PathBuf> {
        self.value("agent-config").map(PathBuf::from)
    }

    fn defaults(system_dir: &Path, user_dir: &Path) -> Result<Self> {
        let state = xdg("XDG_STATE_HOME", ".local/state").ok_or_else(no_home)?;
        let data = xdg("XDG_DATA_HOME", ".local/share").ok_or_else(no_home)?;
        let mut settings = Self::default();
        for (key, path) in [
            ("system-dir", system_dir.to_path_buf()),
            ("config-dir", user_dir.to_path_buf()),
            ("state-dir", state),
            ("data-dir", data.join("agent")),
            ("key", user_dir.join("owner.key")),
        ] {
            settings.set(key, path.display().to_string(), Origin::Default);
        }
        Ok(settings)
    }

    fn set(&mut self, key: &'static str, value: String, origin: Origin) {
        self.values.insert(key, Setting { value, origin });
    }

    fn read(&mut self, path: &Path, layer: Layer) -> Result<()> {
        let described = || format!("cannot read settings from {}", path.display());
        match std::fs::metadata(path) {
            Ok(meta) if meta.len() > MAX_BYTES => {
                return Err(CliError::failed(described()).help(format!(
                    "the file is {} bytes; at most {MAX_BYTES} are read",
                    meta.len()
                )));
            }
            Ok(_) => {}
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(()),
            Err(error) => return Err(error).context(described()),
        }
        let text = std::fs::read_to_string(path).context(described())?;
        let table: BTreeMap<String, String> =
            toml::from_str(&text).context_code(ExitCode::Usage, described())?;
        for (name, value) in table {
            let Some((key, _)) = KEYS.iter().find(|(key, _)| *key == name) else {
                let known = KEYS.map(|(key, _)| key).join(", ");
                return Err(CliError::new(
                    ExitCode::Usage,
                    format!("unknown setting {name:?} in {}", path.display()),
                )
                .help(format!("known settings: {known}")));
            };
            self.set(key, value, layer.origin(path));
        }
        Ok(())
    }
}

#[derive(Debug, Clone, Copy)]
enum Layer {
    System,
    User,
    Project,
}

impl Layer {
    fn origin(self, path: &Path) -> Origin {
        match self {
            Self::System => Origin::System(path.into()),
            Self::User => Origin::User(path.into()),
            Self::Project => Origin::Project(path.into()),
        }
    }
}

impl std::fmt::Display for Origin {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Flag => f.write_str("flag"),
            Self::Variable(name) => write!(f, "variable {name}"),
            Self::Project(path) => write!(f, "project {}", path.display()),
            Self::User(path) => write!(f, "user {}", path.display()),
            Self::System(path) => write!(f, "system {}", path.display()),
            Self::Default => f.write_str("default"),
        }
    }
}

/// `$variable/realm`, or `~/fallback/realm`. A relative one is not valid, as the XDG specification says.
fn xdg(variable: &str, fallback: &str) -> Option<PathBuf> {
    let named = env::var_os(variable).map(PathBuf::from);
    let home = || env::home_dir().filter(|home| home.is_absolute());
    let base = match named.filter(|dir| dir.is_absolute()) {
        Some(dir) => dir,
        None => home()?.join(fallback),
    };
    Some(base.join("realm"))
}

fn no_home() -> CliError {
    CliError::failed("cannot tell where your settings are: HOME is not an absolute path")
        .help("set HOME, or REALM_CONFIG_DIR, REALM_STATE_DIR and REALM_DATA_DIR")
}

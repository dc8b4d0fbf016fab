//! How a command on this machine finds the running agent: a small file that says who and where.

use std::{
    fs,
    io::{self, Write as _},
    path::{Path, PathBuf},
};

use realm_identity::{PublicKey, RealmId};
use realm_store::own;
use serde::{Deserialize, Serialize};

/// Name of the file in the data directory.
pub const FILE_NAME: &str = "agent.json";
/// Nobody writes a larger one.
const MAX_BYTES: u64 = 64 * 1024;

/// What the file says.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AgentInfo {
    pub key: PublicKey,
    pub addresses: Vec<String>,
    pub realm: Option<RealmId>,
    pub pid: u32,
    /// Whether other nodes reach it from outside; none has tried yet where it is not said.
    #[serde(default)]
    pub reached: Option<bool>,
}

/// The file in the data directory, and its twin in the runtime directory.
#[derive(Debug)]
pub struct AgentFile {
    key: PublicKey,
    /// Made where it is missing. The data directory is not: another one in its place would keep the node's own from
    /// being moved back.
    runtime_dir: Option<PathBuf>,
    paths: Vec<PathBuf>,
    /// What was written last.
    written: Option<AgentInfo>,
}

impl AgentFile {
    /// `runtime_dir` is `XDG_RUNTIME_DIR/realm`, where there is one.
    pub fn new(key: PublicKey, data: &Path, runtime_dir: Option<&Path>) -> Self {
        let mut paths = vec![data.join(FILE_NAME)];
        paths.extend(runtime_dir.map(|dir| dir.join(format!("{}.json", key.short()))));
        Self {
            key,
            runtime_dir: runtime_dir.map(Path::to_owned),
            paths,
            written: None,
        }
    }

    /// Writes what commands need. A directory that cannot be written is told of and no more.
    pub fn write(&mut self, addresses: Vec<String>, realm: Option<RealmId>, reached: Option<bool>) {
        let info = AgentInfo {
            key: self.key,
            addresses,
            realm,
            pid: std::process::id(),
            reached,
        };
        // A runtime directory may be swept while an agent runs.
        let there = self.paths.iter().all(|path| path.exists());
        if there && self.written.as_ref() == Some(&info) {
            return;
        }
        if let Some(dir) = &self.runtime_dir
            && let Err(error) = fs::create_dir_all(dir)
        {
            tracing::debug!(dir = %dir.display(), %error, "the runtime directory cannot be made");
        }
        let mut all = true;
        for path in &self.paths {
            if let Err(error) = write(path, &info) {
                tracing::warn!(path = %path.display(), %error, "commands cannot find this agent");
                all = false;
            }
        }
        self.written = all.then_some(info);
    }

    pub fn remove(&self) {
        for path in &self.paths {
            // A file that stays names a process that is gone, which commands notice.
            let _ = fs::remove_file(path);
        }
    }
}

fn write(path: &Path, info: &AgentInfo) -> io::Result<()> {
    let new = path.with_extension("json.new");
    let text = serde_json::to_vec_pretty(info).map_err(io::Error::other)?;
    own::make(&new, 0o644)?.write_all(&text)?;
    fs::rename(new, path)
}

/// The agents whose files lie at `data` and in `runtime_dir`; files that are not readable are left out.
pub fn find(data: &Path, runtime_dir: Option<&Path>) -> Vec<AgentInfo> {
    let mut found: Vec<AgentInfo> = read(&data.join(FILE_NAME)).into_iter().collect();
    let twins = runtime_dir.and_then(|dir| fs::read_dir(dir).ok());
    for entry in twins.into_iter().flatten().flatten() {
        if let Some(info) = read(&entry.path())
            && !found.iter().any(|other| other.key == info.key)
        {
            found.push(info);
        }
    }
    found
}

fn read(path: &Path) -> Option<AgentInfo> {
    if fs::metadata(path).ok()?.len() > MAX_BYTES {
        return None;
    }
    serde_json::from_slice(&fs::read(path).ok()?).ok()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use realm_identity::SecretKey;

    use super::*;

    #[test]
    fn commands_find_an_agent_in_both_places_once() {
        let temp = tempfile::tempdir().unwrap();
        let (data, run) = (temp.path().join("data"), temp.path().join("run"));
        fs::create_dir(&data).unwrap();
        let key = SecretKey::from_seed(&[1; 32]).public();
        let mut file = AgentFile::new(key, &data, Some(&run));
        file.write(vec!["/ip4/127.0.0.1/tcp/1".into()], None, None);
        assert_eq!(find(&data, Some(&run)).len(), 1);
        assert_eq!(find(Path::new("/nonexistent"), Some(&run))[0].key, key);
        file.remove();
        assert!(find(&data, Some(&run)).is_empty());

        fs::remove_dir(&data).unwrap();
        file.write(vec!["/ip4/127.0.0.1/tcp/1".into()], None, None);
        assert_eq!(find(&data, Some(&run)).len(), 1);
        assert!(!data.exists(), "what was taken away is not made anew");
    }
}

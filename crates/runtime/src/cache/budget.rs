//! Keeps the cache of compiled code within its bytes: what was not used for longest goes first, what is in use stays.

use std::{
    collections::HashMap,
    fs, io,
    path::Path,
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, SystemTime},
};

use super::Ending;

/// A temporary file of this age was left by a process that died: no write takes so long.
const TEMPORARY_AGE: Duration = Duration::from_secs(60 * 60);
pub(super) const TEMPORARY: &str = "new";

/// Entries whose code this process has loaded, and how often.
#[derive(Debug, Clone, Default)]
pub(super) struct Users(Arc<Mutex<HashMap<String, usize>>>);

/// Code that is loaded from an entry; its entry stays while this lives.
#[derive(Debug)]
pub(crate) struct InUse {
    name: String,
    users: Users,
}

impl Users {
    pub(super) fn add(&self, name: &str) -> InUse {
        *self.lock().entry(name.to_owned()).or_default() += 1;
        InUse {
            name: name.to_owned(),
            users: self.clone(),
        }
    }

    fn has(&self, name: &str) -> bool {
        self.lock().contains_key(name)
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, HashMap<String, usize>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl InUse {
    pub(super) fn name(&self) -> &str {
        &self.name
    }
}

impl Drop for InUse {
    fn drop(&mut self) {
        let mut users = self.users.lock();
        if let Some(count) = users.get_mut(&self.name) {
            *count -= 1;
            if *count == 0 {
                users.remove(&self.name);
            }
        }
    }
}

/// What a directory holds.
#[derive(Debug, Default)]
struct Census {
    entries: HashMap<String, Entry>,
    /// Files that no cache of ours wrote: left alone.
    foreign: usize,
}

#[derive(Debug)]
struct Entry {
    bytes: u64,
    used: SystemTime,
}

/// Deletes entries until the rest fits. Returns how many files are not ours.
pub(super) fn sweep(dir: &Path, bytes_max: u64, users: &Users) -> io::Result<usize> {
    let census = take_census(dir)?;
    let mut total: u64 = census.entries.values().map(|entry| entry.bytes).sum();
    let mut oldest_first: Vec<_> = census.entries.into_iter().collect();
    oldest_first.sort_by(|(left_name, left), (right_name, right)| {
        (left.used, left_name).cmp(&(right.used, right_name))
    });
    for (name, entry) in oldest_first {
        if total <= bytes_max {
            break;
        }
        if users.has(&name) {
            continue;
        }
        evict(dir, &name)?;
        total = total.saturating_sub(entry.bytes);
        tracing::debug!(
            artifact = name,
            bytes = entry.bytes,
            "compiled code evicted"
        );
    }
    Ok(census.foreign)
}

fn take_census(dir: &Path) -> io::Result<Census> {
    let mut census = Census::default();
    for found in fs::read_dir(dir)? {
        let found = found?;
        let file_name = found.file_name();
        let file_name = file_name.to_string_lossy();
        let metadata = match found.metadata() {
            Ok(metadata) => metadata,
            // Another process was faster.
            Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
            Err(error) => return Err(error),
        };
        let modified = metadata.modified()?;
        let Some((name, ending)) = parse(&file_name).filter(|_| metadata.is_file()) else {
            census.foreign += 1;
            continue;
        };
        if ending.is_none() {
            if modified.elapsed().is_ok_and(|age| age > TEMPORARY_AGE) {
                remove(&found.path())?;
            }
            continue;
        }
        let entry = census.entries.entry(name.to_owned()).or_insert(Entry {
            bytes: 0,
            used: modified,
        });
        entry.bytes += metadata.len();
        entry.used = entry.used.max(modified);
    }
    Ok(census)
}

/// The entry and its part that a file is; no part is a temporary file. None is not ours.
fn parse(file_name: &str) -> Option<(&str, Option<Ending>)> {
    let (name, rest) = file_name.split_once('.')?;
    if !is_entry(name) {
        return None;
    }
    if rest.rsplit('.').next() == Some(TEMPORARY) {
        return Some((name, None));
    }
    Ending::ALL
        .into_iter()
        .find(|ending| rest == ending.as_str() || rest == ending.mac())
        .map(|ending| (name, Some(ending)))
}

/// Digest, flavour and compatibility, as [`super::Cache`] names them.
fn is_entry(name: &str) -> bool {
    let is_hex = |text: &str, length| {
        text.len() == length && text.bytes().all(|byte| byte.is_ascii_hexdigit())
    };
    let mut parts = name.split('-');
    matches!(
        (parts.next(), parts.next(), parts.next(), parts.next()),
        (Some(digest), Some("epoch" | "fuel"), Some(hash), None)
            if is_hex(digest, 64) && is_hex(hash, 16)
    )
}

/// The MAC first: code without one is never loaded, wherever this stops.
fn evict(dir: &Path, name: &str) -> io::Result<()> {
    for ending in Ending::ALL {
        remove(&dir.join(format!("{name}.{}", ending.mac())))?;
        remove(&dir.join(format!("{name}.{}", ending.as_str())))?;
    }
    Ok(())
}

fn remove(path: &Path) -> io::Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

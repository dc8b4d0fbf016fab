//! What a power cut would take: a process below strace must sync what it writes before that gets its
//! name, and the directory after.

use std::{
    collections::{BTreeMap, BTreeSet},
    ffi::OsStr,
    path::{Path, PathBuf},
    process::Command,
};

/// Calls that change what is on disk, and those that make it last.
const CALLS: &str = "write,pwrite64,ftruncate,fsync,fdatasync,rename,renameat2,link,linkat,mkdir";

/// `program` below strace, which writes to `trace`; arguments are added by the caller.
pub fn traced(program: impl AsRef<OsStr>, trace: &Path) -> Command {
    let mut command = Command::new("strace");
    command
        .args(["-f", "-y", "-s", "1", "-e", &format!("trace={CALLS}"), "-o"])
        .arg(trace)
        .arg(program);
    command
}

/// What was not safe below `dir` when the process ended, or had its name too early. `exempt` names
/// files that may be lost.
pub fn unsafe_names(trace: &str, dir: &Path, exempt: &[&str]) -> Vec<String> {
    let mut disk = Disk {
        dir: dir.to_owned(),
        exempt: exempt.iter().map(ToString::to_string).collect(),
        ..Disk::default()
    };
    for line in trace.lines() {
        disk.call(line);
    }
    let dirty = disk.dirty.iter().map(|path| ("bytes", path));
    let names = disk.unnamed.values().flatten().map(|path| ("name", path));
    let left = dirty.chain(names);
    let left = left.map(|(what, path)| format!("the {what} of {} not synced", path.display()));
    disk.early.iter().cloned().chain(left).collect()
}

#[derive(Default)]
struct Disk {
    dir: PathBuf,
    exempt: Vec<String>,
    /// Files with bytes that were not synced.
    dirty: BTreeSet<PathBuf>,
    /// Names that were not synced, by directory.
    unnamed: BTreeMap<PathBuf, BTreeSet<PathBuf>>,
    early: Vec<String>,
}

impl Disk {
    fn call(&mut self, line: &str) {
        // A call that failed changed nothing; one that goes on in a later line has begun.
        let failed = line
            .rsplit(" = ")
            .next()
            .is_some_and(|end| end.starts_with('-'));
        let call = line
            .split_once(' ')
            .map_or(line, |(_, call)| call.trim_start());
        let Some((name, args)) = call.split_once('(') else {
            return;
        };
        if failed {
            return;
        }
        match name {
            "write" | "pwrite64" | "ftruncate" => {
                let path = open_file(args).filter(|path| self.counts(path));
                self.dirty.extend(path);
            }
            "fsync" | "fdatasync" => {
                if let Some(path) = open_file(args) {
                    self.dirty.remove(&path);
                    self.unnamed.remove(&path);
                }
            }
            "rename" | "renameat2" | "link" | "linkat" => {
                let mut quoted = args.split('"').skip(1).step_by(2).map(PathBuf::from);
                if let (Some(from), Some(to)) = (quoted.next(), quoted.next()) {
                    if self.dirty.remove(&from) {
                        let early = format!("{} had its name before its bytes", to.display());
                        self.early.push(early);
                    }
                    self.named(to);
                }
            }
            "mkdir" => self.named(args.split('"').nth(1).unwrap_or_default().into()),
            _ => {}
        }
    }

    fn named(&mut self, path: PathBuf) {
        if self.counts(&path)
            && let Some(above) = path.parent()
        {
            self.unnamed
                .entry(above.to_owned())
                .or_default()
                .insert(path);
        }
    }

    fn counts(&self, path: &Path) -> bool {
        let is_exempt = |name: &String| path.components().any(|part| part.as_os_str() == &**name);
        path.starts_with(&self.dir) && !self.exempt.iter().any(is_exempt)
    }
}

/// The file behind the descriptor that the arguments begin with.
fn open_file(args: &str) -> Option<PathBuf> {
    let path = args.split_once('<')?.1.split('>').next()?;
    Some(path.into())
}

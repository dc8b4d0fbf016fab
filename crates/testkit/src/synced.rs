//! What a power cut would take: a process below strace must sync what it writes before that gets its
//! name, and the directory after.

use std::{
    collections::{BTreeMap, BTreeSet},
    ffi::OsStr,
    path::{Path, PathBuf},
    process::Command,
};

/// Calls that change what is on disk, and those that make it last.
const CALLS: &str = "write,pwrite64,writev,pwritev,pwritev2,copy_file_range,sendfile,ftruncate,fallocate,\
     fsync,fdatasync,openat,rename,renameat,renameat2,link,linkat,symlink,symlinkat,mkdir,mkdirat,\
     unlink,unlinkat,rmdir";

/// `program` below strace, which writes to `trace`; arguments are added by the caller.
pub fn traced(program: impl AsRef<OsStr>, trace: &Path) -> Command {
    tracing(&[], program, trace)
}

/// The same where the program is the caller's own child, to be waited for and ended as ever. Its trace is
/// there a little later: see [`whole`].
pub fn traced_child(program: impl AsRef<OsStr>, trace: &Path) -> Command {
    tracing(&["-D"], program, trace)
}

fn tracing(how: &[&str], program: impl AsRef<OsStr>, trace: &Path) -> Command {
    let mut command = Command::new("strace");
    command
        .args(how)
        .args(["-f", "-y", "-s", "1", "-e", &format!("trace={CALLS}"), "-o"])
        .arg(trace)
        .arg(program);
    command
}

/// The trace of a process that has ended, once strace has written all of it.
pub fn whole(trace: &Path) -> Option<String> {
    let text = std::fs::read_to_string(trace).ok()?;
    let first = text.split_whitespace().next()?;
    let mut lines = text.lines().filter_map(|line| line.split_once(' '));
    lines
        .any(|(process, call)| process == first && call.trim_start().starts_with("+++ "))
        .then_some(text)
}

/// What was not safe below `dir` when the process ended, or had its name too early. `exempt` names
/// files that may be lost.
pub fn unsafe_names(trace: &str, dir: &Path, exempt: &[&str]) -> Vec<String> {
    let mut disk = Disk {
        dir: dir.to_owned(),
        exempt: exempt.iter().map(ToString::to_string).collect(),
        ..Disk::default()
    };
    // Calls that other threads' came between, by thread.
    let mut begun = BTreeMap::new();
    for line in trace.lines() {
        let Some((thread, call)) = line.split_once(' ') else {
            continue;
        };
        let call = call.trim_start();
        if let Some(call) = call.strip_suffix(" <unfinished ...>") {
            // What is written after it began it may not cover.
            if is_sync(call) {
                disk.call(call);
            }
            begun.insert(thread, call);
        } else if call.starts_with("<... ") {
            let end = call.split_once(" resumed>").map_or("", |(_, end)| end);
            match begun.remove(thread) {
                Some(call) if !is_sync(call) => disk.call(&format!("{call}{end}")),
                Some(call) if has_failed(end) => disk.early.push(format!("{call}{end}")),
                _ => {}
            }
        } else {
            disk.call(call);
        }
    }
    // The process ended in the middle of these.
    let cut = begun.into_values().filter(|call| !is_sync(call));
    cut.for_each(|call| disk.call(call));
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
    fn call(&mut self, call: &str) {
        let Some((name, args)) = call.split_once('(') else {
            return;
        };
        // It changed nothing.
        if has_failed(call) {
            return;
        }
        match name {
            "write" | "pwrite64" | "writev" | "pwritev" | "pwritev2" | "sendfile" | "ftruncate"
            | "fallocate" => self.written(open_files(args).next()),
            "copy_file_range" => self.written(open_files(args).nth(1)),
            "fsync" | "fdatasync" => {
                if let Some(path) = open_files(args).next() {
                    self.dirty.remove(&path);
                    self.unnamed.remove(&path);
                }
            }
            "rename" | "renameat" | "renameat2" | "link" | "linkat" => {
                let mut quoted = quoted(args);
                if let (Some(from), Some(to)) = (quoted.next(), quoted.next()) {
                    if self.dirty.remove(&from) {
                        let early = format!("{} had its name before its bytes", to.display());
                        self.early.push(early);
                    }
                    if name.starts_with("rename") {
                        self.gone(&from);
                    }
                    self.named(to);
                }
            }
            // Another way of opening it may have found the name there.
            "openat" if !args.contains("O_EXCL") => {}
            "mkdir" | "mkdirat" | "openat" => {
                quoted(args).take(1).for_each(|path| self.named(path))
            }
            "symlink" | "symlinkat" => quoted(args).skip(1).for_each(|path| self.named(path)),
            "unlink" | "unlinkat" | "rmdir" => quoted(args).for_each(|path| self.gone(&path)),
            _ => {}
        }
    }

    fn written(&mut self, path: Option<PathBuf>) {
        let path = path.filter(|path| self.counts(path));
        self.dirty.extend(path);
    }

    /// What has no name any more needs no sync; that the name is gone may be lost: it is cleared up again.
    fn gone(&mut self, path: &Path) {
        self.dirty.remove(path);
        self.unnamed.remove(path);
        for names in self.unnamed.values_mut() {
            names.remove(path);
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

fn is_sync(call: &str) -> bool {
    call.starts_with("fsync(") || call.starts_with("fdatasync(")
}

fn has_failed(call: &str) -> bool {
    let result = call.rsplit(" = ").next();
    result.is_some_and(|result| result.starts_with('-'))
}

/// The files behind the descriptors among the arguments, which strace shows in brackets.
fn open_files(args: &str) -> impl Iterator<Item = PathBuf> {
    let shown = args.split('<').skip(1);
    shown.filter_map(|rest| rest.split_once('>').map(|(path, _)| path.into()))
}

/// The names among the arguments, which the process gives in full.
fn quoted(args: &str) -> impl Iterator<Item = PathBuf> {
    args.split('"').skip(1).step_by(2).map(PathBuf::from)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn unsafe_after(calls: &[&str]) -> Vec<String> {
        let trace: Vec<_> = calls.iter().map(|call| format!("77 {call}")).collect();
        unsafe_names(&trace.join("\n"), Path::new("/d"), &["log"])
    }

    #[test]
    fn what_is_synced_is_safe() {
        let calls = [
            r#"openat(AT_FDCWD</>, "/d/a.new", O_WRONLY|O_CREAT|O_EXCL|O_CLOEXEC, 0600) = 5</d/a.new>"#,
            r#"write(5</d/a.new>, "a"..., 9) = 9"#,
            r#"fsync(5</d/a.new>) = 0"#,
            r#"rename("/d/a.new", "/d/a") = 0"#,
            r#"fsync(6</d>) = 0"#,
            r#"write(7</d/log/x>, "a"..., 9) = 9"#,
            r#"write(1</elsewhere>, "a"..., 9) = 9"#,
            r#"mkdir("/d", 0700) = -1 EEXIST (File exists)"#,
            r#"openat(AT_FDCWD</>, "/d/b", O_RDWR|O_CREAT|O_EXCL, 0600) = 5</d/b>"#,
            r#"pwritev(5</d/b>, [{iov_base="a"..., iov_len=9}], 1, 0) = 9"#,
            r#"unlink("/d/b") = 0"#,
        ];
        assert_eq!(unsafe_after(&calls), Vec::<String>::new());
    }

    #[test]
    fn a_trace_is_whole_when_its_first_process_has_ended() {
        let trace = tempfile::NamedTempFile::new().unwrap();
        // Numbers are padded to five places.
        let begin = "7     execve(\"/d/a\") = 0\n70    +++ exited with 0 +++\n";
        std::fs::write(&trace, begin).unwrap();
        assert_eq!(whole(trace.path()), None);
        let all = format!("{begin}7     +++ exited with 0 +++\n");
        std::fs::write(&trace, &all).unwrap();
        assert_eq!(whole(trace.path()), Some(all));
    }

    #[test]
    fn calls_of_several_threads_are_told_apart() {
        let told = |calls: &[&str]| unsafe_names(&calls.join("\n"), Path::new("/d"), &[]);
        let made_before = [
            r#"78 mkdir("/d/a", 0700 <unfinished ...>"#,
            r#"77 write(1</elsewhere>, "a"..., 9) = 9"#,
            r#"78 <... mkdir resumed>) = -1 EEXIST (File exists)"#,
        ];
        assert_eq!(told(&made_before), Vec::<String>::new());
        let meanwhile = [
            r#"78 write(5</d/a>, "a"..., 9 <unfinished ...>"#,
            r#"77 fsync(5</d/a> <unfinished ...>"#,
            r#"78 <... write resumed>) = 9"#,
            r#"77 <... fsync resumed>) = 0"#,
        ];
        assert_eq!(told(&meanwhile), ["the bytes of /d/a not synced"]);
        let cut = [r#"78 mkdir("/d/a", 0700 <unfinished ...>"#];
        assert_eq!(told(&cut), ["the name of /d/a not synced"]);
        let failed = [
            r#"78 fsync(5</d/a> <unfinished ...>"#,
            r#"78 <... fsync resumed>) = -1 EIO (Input/output error)"#,
        ];
        assert_eq!(told(&failed).len(), 1);
    }

    #[test]
    fn what_is_not_synced_is_told() {
        for (call, of) in [
            (
                r#"writev(5</d/a>, [{iov_base="a"..., iov_len=9}], 1) = 9"#,
                "bytes of /d/a",
            ),
            (
                r#"copy_file_range(5</e/a>, NULL, 6</d/a>, NULL, 9, 0) = 9"#,
                "bytes of /d/a",
            ),
            (
                r#"sendfile(6</d/a>, 5</e/a>, NULL, 9) = 9"#,
                "bytes of /d/a",
            ),
            (
                r#"renameat(AT_FDCWD</>, "/d/a", AT_FDCWD</>, "/d/b") = 0"#,
                "name of /d/b",
            ),
            (
                r#"openat(AT_FDCWD</>, "/d/a", O_RDWR|O_CREAT|O_EXCL, 0600) = 5</d/a>"#,
                "name of /d/a",
            ),
            (r#"symlink("/e/a", "/d/a") = 0"#, "name of /d/a"),
            (r#"mkdirat(AT_FDCWD</>, "/d/a", 0700) = 0"#, "name of /d/a"),
        ] {
            assert_eq!(
                unsafe_after(&[call]),
                [format!("the {of} not synced")],
                "{call}"
            );
        }
        let early = unsafe_after(&[
            r#"write(5</d/a>, "a"..., 9) = 9"#,
            r#"rename("/d/a", "/d/b") = 0"#,
            r#"fsync(6</d>) = 0"#,
        ]);
        assert_eq!(early, ["/d/b had its name before its bytes"]);
    }
}

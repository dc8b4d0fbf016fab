//! The same acts on files, by preview 1 and by `wasi:filesystem` 0.2 and 0.3: one number printed for each, 0 if it was done.

use std::{collections::HashMap, fmt::Write};

use crate::text::{MEMORY, Text, component};

/// Volumes are counted from 0, in the order of the mounts.
#[derive(Debug, Clone, Copy)]
pub enum Act<'a> {
    Read(u32, &'a str),
    /// Opens, unless the last name is a link.
    ReadHere(u32, &'a str),
    /// Opens for reading, and asks to empty the file on the way.
    Truncate(u32, &'a str),
    Create(u32, &'a str),
    /// Creates what is not there yet.
    Exclusive(u32, &'a str),
    OpenDir(u32, &'a str),
    /// Sets the file's size to three bytes.
    Write(u32, &'a str),
    Mkdir(u32, &'a str),
    Rmdir(u32, &'a str),
    Unlink(u32, &'a str),
    Stat(u32, &'a str),
    /// Of the link itself, where the last name is one.
    StatHere(u32, &'a str),
    /// Sets both times to now.
    Touch(u32, &'a str),
    Readlink(u32, &'a str),
    /// What it points to, and where it is.
    Symlink(&'a str, u32, &'a str),
    Link(u32, &'a str, u32, &'a str),
    Rename(u32, &'a str, u32, &'a str),
}

/// Where texts begin in memory: behind what the frame and the acts use, before the heap.
const TEXTS: usize = 8192;

/// Texts of the acts, each once.
#[derive(Default)]
struct Data {
    bytes: Vec<u8>,
    known: HashMap<String, usize>,
}

impl Data {
    fn put(&mut self, text: &str) -> String {
        let at = *self.known.entry(text.to_owned()).or_insert_with(|| {
            self.bytes.extend(text.bytes());
            TEXTS + self.bytes.len() - text.len()
        });
        format!("(i32.const {at}) (i32.const {})", text.len())
    }

    /// A data segment, in which every byte may stand.
    fn segment(&self) -> String {
        let escaped = self.bytes.iter().fold(String::new(), |mut all, byte| {
            // Writing to a string does not fail.
            let _ = write!(all, "\\{byte:02x}");
            all
        });
        format!("(data (i32.const {TEXTS}) \"{escaped}\")")
    }
}

pub fn preview1(acts: &[Act<'_>]) -> String {
    let mut data = Data::default();
    let steps: String = acts
        .iter()
        .map(|act| format!("(call $say {})", act_p1(&mut data, *act)))
        .collect();
    format!(
        r#"(module
    (import "wasi_snapshot_preview1" "fd_write" (func $write (param i32 i32 i32 i32) (result i32)))
    (import "wasi_snapshot_preview1" "path_open" (func $open (param i32 i32 i32 i32 i32 i64 i64 i32 i32) (result i32)))
    (import "wasi_snapshot_preview1" "fd_filestat_set_size" (func $set-size (param i32 i64) (result i32)))
    (import "wasi_snapshot_preview1" "path_create_directory" (func $mkdir (param i32 i32 i32) (result i32)))
    (import "wasi_snapshot_preview1" "path_remove_directory" (func $rmdir (param i32 i32 i32) (result i32)))
    (import "wasi_snapshot_preview1" "path_unlink_file" (func $unlink (param i32 i32 i32) (result i32)))
    (import "wasi_snapshot_preview1" "path_filestat_get" (func $stat (param i32 i32 i32 i32 i32) (result i32)))
    (import "wasi_snapshot_preview1" "path_filestat_set_times" (func $touch (param i32 i32 i32 i32 i64 i64 i32) (result i32)))
    (import "wasi_snapshot_preview1" "path_readlink" (func $readlink (param i32 i32 i32 i32 i32 i32) (result i32)))
    (import "wasi_snapshot_preview1" "path_symlink" (func $symlink (param i32 i32 i32 i32 i32) (result i32)))
    (import "wasi_snapshot_preview1" "path_link" (func $link (param i32 i32 i32 i32 i32 i32 i32) (result i32)))
    (import "wasi_snapshot_preview1" "path_rename" (func $rename (param i32 i32 i32 i32 i32 i32) (result i32)))
    (memory (export "memory") 1)
    {}
    (func $say (param $number i32)
        (i32.store8 (i32.const 16) (i32.add (i32.const 48) (i32.div_u (local.get $number) (i32.const 10))))
        (i32.store8 (i32.const 17) (i32.add (i32.const 48) (i32.rem_u (local.get $number) (i32.const 10))))
        (i32.store8 (i32.const 18) (i32.const 10))
        (i32.store (i32.const 0) (i32.const 16)) (i32.store (i32.const 4) (i32.const 3))
        (drop (call $write (i32.const 1) (i32.const 0) (i32.const 1) (i32.const 8))))
    (func $size (param $opened i32) (result i32)
        (if (local.get $opened) (then (return (local.get $opened))))
        (call $set-size (i32.load (i32.const 32)) (i64.const 3)))
    (func (export "_start") {steps}))"#,
        data.segment()
    )
}

fn act_p1(data: &mut Data, act: Act<'_>) -> String {
    const READ: u32 = 1 << 1;
    const WRITE: u32 = 1 << 6;
    const SET_SIZE: u32 = 1 << 22;
    /// Access and modification, each by the clock.
    const NOW: u32 = 2 | 8;
    let dir = |volume: u32| format!("(i32.const {})", 3 + volume);
    let mut look = |volume, path, follow: u32, flags: u32, rights: u32| {
        format!(
            "(call $open {} (i32.const {follow}) {} (i32.const {flags}) (i64.const {rights}) (i64.const 0) (i32.const 0) (i32.const 32))",
            dir(volume),
            data.put(path)
        )
    };
    let mut open = |volume, path, flags, rights| look(volume, path, 1, flags, rights);
    match act {
        Act::Read(volume, path) => open(volume, path, 0, READ),
        Act::ReadHere(volume, path) => look(volume, path, 0, 0, READ),
        Act::Truncate(volume, path) => open(volume, path, 8, READ),
        Act::Create(volume, path) => open(volume, path, 1, WRITE),
        Act::Exclusive(volume, path) => open(volume, path, 5, WRITE),
        Act::OpenDir(volume, path) => open(volume, path, 2, READ),
        Act::Write(volume, path) => {
            format!("(call $size {})", open(volume, path, 0, WRITE | SET_SIZE))
        }
        Act::Mkdir(volume, path) => format!("(call $mkdir {} {})", dir(volume), data.put(path)),
        Act::Rmdir(volume, path) => format!("(call $rmdir {} {})", dir(volume), data.put(path)),
        Act::Unlink(volume, path) => format!("(call $unlink {} {})", dir(volume), data.put(path)),
        Act::Stat(volume, path) | Act::StatHere(volume, path) => format!(
            "(call $stat {} (i32.const {}) {} (i32.const 256))",
            dir(volume),
            u32::from(matches!(act, Act::Stat(..))),
            data.put(path)
        ),
        Act::Touch(volume, path) => format!(
            "(call $touch {} (i32.const 1) {} (i64.const 0) (i64.const 0) (i32.const {NOW}))",
            dir(volume),
            data.put(path)
        ),
        Act::Readlink(volume, path) => format!(
            "(call $readlink {} {} (i32.const 256) (i32.const 4096) (i32.const 48))",
            dir(volume),
            data.put(path)
        ),
        Act::Symlink(to, volume, path) => {
            format!(
                "(call $symlink {} {} {})",
                data.put(to),
                dir(volume),
                data.put(path)
            )
        }
        Act::Link(from, path, to, new) => format!(
            "(call $link {} (i32.const 0) {} {} {})",
            dir(from),
            data.put(path),
            dir(to),
            data.put(new)
        ),
        Act::Rename(from, path, to, new) => {
            format!(
                "(call $rename {} {} {} {})",
                dir(from),
                data.put(path),
                dir(to),
                data.put(new)
            )
        }
    }
}

/// The error of 0.3; that of 0.2 is an enumeration.
const ERRORS: &str = "access already bad-descriptor busy deadlock quota exist file-too-large illegal-byte-sequence in-progress interrupted \
    invalid io is-directory loop too-many-links message-size name-too-long no-device no-entry no-lock insufficient-memory \
    insufficient-space not-directory not-empty not-recoverable unsupported no-tty no-such-device overflow not-permitted pipe \
    read-only invalid-seek text-file-busy cross-device";
const KINDS: &str =
    "block-device character-device directory fifo symbolic-link regular-file socket";

pub fn imports(preview: Preview) -> String {
    let cases = |names: &str| -> String {
        let case = |name| format!("(case \"{name}\")");
        names.split_whitespace().map(case).collect()
    };
    let names = |names: &str| -> String {
        let quoted = |name| format!("\"{name}\" ");
        names.split_whitespace().map(quoted).collect()
    };
    let (version, is_async, error, kind, instant, seconds) = match preview {
        Preview::P2 => (
            "0.2.0",
            "",
            format!(
                "(enum {})",
                names(&ERRORS.replace("already", "would-block already"))
            ),
            format!("(enum \"unknown\" {})", names(KINDS)),
            "datetime",
            "u64",
        ),
        Preview::P3 => (
            "0.3.0",
            "async",
            format!(
                "(variant {} (case \"other\" (option string)))",
                cases(ERRORS)
            ),
            format!(
                "(variant {} (case \"other\" (option string)))",
                cases(KINDS)
            ),
            "instant",
            "s64",
        ),
    };
    let method = |name: &str, rest: &str| {
        format!(
            "(export \"[method]descriptor.{name}\" (func {is_async} (param \"self\" (borrow $descriptor)) {rest}))\n"
        )
    };
    let done = "(result (result (error $error)))";
    let path = "(param \"path\" string)";
    let flags = "(param \"path-flags\" $path)";
    let methods = [
        method(
            "open-at",
            &format!(
                "{flags} {path} (param \"open-flags\" $open) (param \"flags\" $flags) (result (result (own $descriptor) (error $error)))"
            ),
        ),
        method("set-size", &format!("(param \"size\" u64) {done}")),
        method("create-directory-at", &format!("{path} {done}")),
        method("remove-directory-at", &format!("{path} {done}")),
        method("unlink-file-at", &format!("{path} {done}")),
        method(
            "stat-at",
            &format!("{flags} {path} (result (result $stat (error $error)))"),
        ),
        method(
            "set-times-at",
            &format!(
                "{flags} {path} (param \"data-access-timestamp\" $new-time) (param \"data-modification-timestamp\" $new-time) {done}"
            ),
        ),
        method(
            "readlink-at",
            &format!("{path} (result (result string (error $error)))"),
        ),
        method(
            "symlink-at",
            &format!("(param \"old-path\" string) (param \"new-path\" string) {done}"),
        ),
        method(
            "link-at",
            &format!(
                "(param \"old-path-flags\" $path) (param \"old-path\" string) (param \"new-descriptor\" (borrow $descriptor)) (param \"new-path\" string) {done}"
            ),
        ),
        method(
            "rename-at",
            &format!(
                "(param \"old-path\" string) (param \"new-descriptor\" (borrow $descriptor)) (param \"new-path\" string) {done}"
            ),
        ),
    ]
    .concat();
    format!(
        r#"
    (import "wasi:filesystem/types@{version}" (instance $files
        (type $e {error}) (export "error-code" (type $error (eq $e)))
        (type $p (flags "symlink-follow")) (export "path-flags" (type $path (eq $p)))
        (type $o (flags "create" "directory" "exclusive" "truncate")) (export "open-flags" (type $open (eq $o)))
        (type $d (flags "read" "write" "file-integrity-sync" "data-integrity-sync" "requested-write-sync" "mutate-directory"))
        (export "descriptor-flags" (type $flags (eq $d)))
        (type $k {kind}) (export "descriptor-type" (type $kind (eq $k)))
        (type $i (record (field "seconds" {seconds}) (field "nanoseconds" u32))) (export "{instant}" (type $instant (eq $i)))
        (type $n (variant (case "no-change") (case "now") (case "timestamp" $instant)))
        (export "new-timestamp" (type $new-time (eq $n)))
        (type $s (record (field "type" $kind) (field "link-count" u64) (field "size" u64)
            (field "data-access-timestamp" (option $instant)) (field "data-modification-timestamp" (option $instant))
            (field "status-change-timestamp" (option $instant))))
        (export "descriptor-stat" (type $stat (eq $s)))
        (export "descriptor" (type $descriptor (sub resource)))
        {methods}))
    (alias export $files "descriptor" (type $file))
    (import "wasi:filesystem/preopens@{version}" (instance $preopens
        (alias outer 1 $file (type $outer)) (export "descriptor" (type $descriptor (eq $outer)))
        (export "get-directories" (func (result (list (tuple (own $descriptor) string)))))))"#
    )
}

#[derive(Debug, Clone, Copy)]
pub enum Preview {
    P2,
    P3,
}

/// Volumes as `get-directories` lists them.
const FUNCTIONS: &str = r#"
    (global $volumes (mut i32) (i32.const 0))
    (func $volume (param i32) (result i32)
        (if (i32.eqz (global.get $volumes)) (then
            (call $directories (i32.const 2048)) (global.set $volumes (i32.load (i32.const 2048)))))
        (i32.load (i32.add (global.get $volumes) (i32.mul (local.get 0) (i32.const 12)))))
    (func $outcome (call $say (if (result i32) (i32.load8_u (i32.const 2048))
        (then (i32.add (i32.const 1) (i32.load8_u (i32.const 2052)))) (else (i32.const 0)))))
    (func $size
        (if (i32.eqz (i32.load8_u (i32.const 2048))) (then
            (call $set-size (i32.load (i32.const 2052)) (i64.const 3) (i32.const 2048)))))"#;

pub fn preview2(acts: &[Act<'_>]) -> String {
    by_component(acts, Preview::P2)
}

pub fn preview3(acts: &[Act<'_>]) -> String {
    by_component(acts, Preview::P3)
}

/// The functions that the acts use: name, `canon` expression and core type.
pub fn calls() -> Vec<(&'static str, String, &'static str)> {
    let lower =
        |name: &str| format!("(canon lower (func $files \"[method]descriptor.{name}\") {MEMORY})");
    vec![
        (
            "open",
            lower("open-at"),
            "(param i32 i32 i32 i32 i32 i32 i32)",
        ),
        ("set-size", lower("set-size"), "(param i32 i64 i32)"),
        (
            "mkdir",
            lower("create-directory-at"),
            "(param i32 i32 i32 i32)",
        ),
        (
            "rmdir",
            lower("remove-directory-at"),
            "(param i32 i32 i32 i32)",
        ),
        ("unlink", lower("unlink-file-at"), "(param i32 i32 i32 i32)"),
        ("stat", lower("stat-at"), "(param i32 i32 i32 i32 i32)"),
        (
            "touch",
            lower("set-times-at"),
            "(param i32 i32 i32 i32 i32 i64 i32 i32 i64 i32 i32)",
        ),
        ("readlink", lower("readlink-at"), "(param i32 i32 i32 i32)"),
        (
            "symlink",
            lower("symlink-at"),
            "(param i32 i32 i32 i32 i32 i32)",
        ),
        (
            "link",
            lower("link-at"),
            "(param i32 i32 i32 i32 i32 i32 i32 i32)",
        ),
        (
            "rename",
            lower("rename-at"),
            "(param i32 i32 i32 i32 i32 i32 i32)",
        ),
        (
            "directories",
            format!("(canon lower (func $preopens \"get-directories\") {MEMORY})"),
            "(param i32)",
        ),
    ]
}

fn by_component(acts: &[Act<'_>], preview: Preview) -> String {
    let mut data = Data::default();
    let steps: String = acts
        .iter()
        .map(|act| format!("{} (call $outcome)\n", act_component(&mut data, *act)))
        .collect();
    let canons = calls();
    let calls: Vec<_> = canons
        .iter()
        .map(|(name, canon, ty)| (*name, canon.as_str(), *ty))
        .collect();
    component(&Text {
        imports: &imports(preview),
        calls: &calls,
        data: "",
        functions: &format!("{FUNCTIONS} {}", data.segment()),
        body: &steps,
    })
}

fn act_component(data: &mut Data, act: Act<'_>) -> String {
    const READ: u32 = 1;
    const WRITE: u32 = 2;
    const RETURN: &str = "(i32.const 2048)";
    /// A time that the clock gives: its case, and the fields of the other one.
    const NOW: &str = "(i32.const 1) (i64.const 0) (i32.const 0)";
    let dir = |volume: u32| format!("(call $volume (i32.const {volume}))");
    let mut look = |volume, path, follow: u32, how: u32, flags: u32| {
        format!(
            "(call $open {} (i32.const {follow}) {} (i32.const {how}) (i32.const {flags}) {RETURN})",
            dir(volume),
            data.put(path)
        )
    };
    let mut open = |volume, path, how, flags| look(volume, path, 1, how, flags);
    match act {
        Act::Read(volume, path) => open(volume, path, 0, READ),
        Act::ReadHere(volume, path) => look(volume, path, 0, 0, READ),
        Act::Truncate(volume, path) => open(volume, path, 8, READ),
        Act::Create(volume, path) => open(volume, path, 1, WRITE),
        Act::Exclusive(volume, path) => open(volume, path, 5, WRITE),
        Act::OpenDir(volume, path) => open(volume, path, 2, READ),
        Act::Write(volume, path) => format!("{} (call $size)", open(volume, path, 0, WRITE)),
        Act::Mkdir(volume, path) => {
            format!("(call $mkdir {} {} {RETURN})", dir(volume), data.put(path))
        }
        Act::Rmdir(volume, path) => {
            format!("(call $rmdir {} {} {RETURN})", dir(volume), data.put(path))
        }
        Act::Unlink(volume, path) => {
            format!("(call $unlink {} {} {RETURN})", dir(volume), data.put(path))
        }
        Act::Stat(volume, path) | Act::StatHere(volume, path) => format!(
            "(call $stat {} (i32.const {}) {} {RETURN})",
            dir(volume),
            u32::from(matches!(act, Act::Stat(..))),
            data.put(path)
        ),
        Act::Touch(volume, path) => format!(
            "(call $touch {} (i32.const 1) {} {NOW} {NOW} {RETURN})",
            dir(volume),
            data.put(path)
        ),
        Act::Readlink(volume, path) => {
            format!(
                "(call $readlink {} {} {RETURN})",
                dir(volume),
                data.put(path)
            )
        }
        Act::Symlink(to, volume, path) => {
            format!(
                "(call $symlink {} {} {} {RETURN})",
                dir(volume),
                data.put(to),
                data.put(path)
            )
        }
        Act::Link(from, path, to, new) => format!(
            "(call $link {} (i32.const 0) {} {} {} {RETURN})",
            dir(from),
            data.put(path),
            dir(to),
            data.put(new)
        ),
        Act::Rename(from, path, to, new) => format!(
            "(call $rename {} {} {} {} {RETURN})",
            dir(from),
            data.put(path),
            dir(to),
            data.put(new)
        ),
    }
}

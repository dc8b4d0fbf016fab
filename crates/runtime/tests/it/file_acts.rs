//! The same acts on files, by preview 1 and by `wasi:filesystem` 0.3: one number printed for each, 0 if it was done.

use crate::text::{MEMORY, Text, component};

/// Volumes are counted from 0, in the order of the mounts.
#[derive(Debug, Clone, Copy)]
pub enum Act<'a> {
    Read(u32, &'a str),
    /// Opens for reading, and asks to empty the file on the way.
    Truncate(u32, &'a str),
    Create(u32, &'a str),
    /// Sets the file's size to three bytes.
    Write(u32, &'a str),
    Mkdir(u32, &'a str),
    Unlink(u32, &'a str),
    /// What it points to, and where it is.
    Symlink(&'a str, u32, &'a str),
    Link(u32, &'a str, u32, &'a str),
    Rename(u32, &'a str, u32, &'a str),
}

/// Texts of the acts, one after another in memory from 1024.
#[derive(Default)]
struct Data(String);

impl Data {
    fn put(&mut self, text: &str) -> String {
        let at = 1024 + self.0.len();
        self.0.push_str(text);
        format!("(i32.const {at}) (i32.const {})", text.len())
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
    (import "wasi_snapshot_preview1" "path_unlink_file" (func $unlink (param i32 i32 i32) (result i32)))
    (import "wasi_snapshot_preview1" "path_symlink" (func $symlink (param i32 i32 i32 i32 i32) (result i32)))
    (import "wasi_snapshot_preview1" "path_link" (func $link (param i32 i32 i32 i32 i32 i32 i32) (result i32)))
    (import "wasi_snapshot_preview1" "path_rename" (func $rename (param i32 i32 i32 i32 i32 i32) (result i32)))
    (memory (export "memory") 1)
    (data (i32.const 1024) "{}")
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
        data.0
    )
}

fn act_p1(data: &mut Data, act: Act<'_>) -> String {
    const READ: u32 = 1 << 1;
    const WRITE: u32 = 1 << 6;
    const SET_SIZE: u32 = 1 << 22;
    let dir = |volume: u32| format!("(i32.const {})", 3 + volume);
    let mut open = |volume, path, flags: u32, rights: u32| {
        format!(
            "(call $open {} (i32.const 1) {} (i32.const {flags}) (i64.const {rights}) (i64.const 0) (i32.const 0) (i32.const 32))",
            dir(volume),
            data.put(path)
        )
    };
    match act {
        Act::Read(volume, path) => open(volume, path, 0, READ),
        Act::Truncate(volume, path) => open(volume, path, 8, READ),
        Act::Create(volume, path) => open(volume, path, 1, WRITE),
        Act::Write(volume, path) => {
            format!("(call $size {})", open(volume, path, 0, WRITE | SET_SIZE))
        }
        Act::Mkdir(volume, path) => format!("(call $mkdir {} {})", dir(volume), data.put(path)),
        Act::Unlink(volume, path) => format!("(call $unlink {} {})", dir(volume), data.put(path)),
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

const IMPORTS: &str = r#"
    (import "wasi:filesystem/types@0.3.0" (instance $files
        (type $e (variant (case "access") (case "already") (case "bad-descriptor") (case "busy") (case "deadlock")
            (case "quota") (case "exist") (case "file-too-large") (case "illegal-byte-sequence") (case "in-progress")
            (case "interrupted") (case "invalid") (case "io") (case "is-directory") (case "loop") (case "too-many-links")
            (case "message-size") (case "name-too-long") (case "no-device") (case "no-entry") (case "no-lock")
            (case "insufficient-memory") (case "insufficient-space") (case "not-directory") (case "not-empty")
            (case "not-recoverable") (case "unsupported") (case "no-tty") (case "no-such-device") (case "overflow")
            (case "not-permitted") (case "pipe") (case "read-only") (case "invalid-seek") (case "text-file-busy")
            (case "cross-device") (case "other" (option string))))
        (export "error-code" (type $error (eq $e)))
        (type $p (flags "symlink-follow")) (export "path-flags" (type $path (eq $p)))
        (type $o (flags "create" "directory" "exclusive" "truncate")) (export "open-flags" (type $open (eq $o)))
        (type $d (flags "read" "write" "file-integrity-sync" "data-integrity-sync" "requested-write-sync" "mutate-directory"))
        (export "descriptor-flags" (type $flags (eq $d)))
        (export "descriptor" (type $descriptor (sub resource)))
        (export "[method]descriptor.open-at" (func async (param "self" (borrow $descriptor)) (param "path-flags" $path)
            (param "path" string) (param "open-flags" $open) (param "flags" $flags) (result (result (own $descriptor) (error $error)))))
        (export "[method]descriptor.set-size" (func async (param "self" (borrow $descriptor)) (param "size" u64) (result (result (error $error)))))
        (export "[method]descriptor.create-directory-at" (func async (param "self" (borrow $descriptor)) (param "path" string) (result (result (error $error)))))
        (export "[method]descriptor.unlink-file-at" (func async (param "self" (borrow $descriptor)) (param "path" string) (result (result (error $error)))))
        (export "[method]descriptor.symlink-at" (func async (param "self" (borrow $descriptor)) (param "old-path" string) (param "new-path" string) (result (result (error $error)))))
        (export "[method]descriptor.link-at" (func async (param "self" (borrow $descriptor)) (param "old-path-flags" $path) (param "old-path" string)
            (param "new-descriptor" (borrow $descriptor)) (param "new-path" string) (result (result (error $error)))))
        (export "[method]descriptor.rename-at" (func async (param "self" (borrow $descriptor)) (param "old-path" string)
            (param "new-descriptor" (borrow $descriptor)) (param "new-path" string) (result (result (error $error)))))))
    (alias export $files "descriptor" (type $file))
    (import "wasi:filesystem/preopens@0.3.0" (instance $preopens
        (alias outer 1 $file (type $outer)) (export "descriptor" (type $descriptor (eq $outer)))
        (export "get-directories" (func (result (list (tuple (own $descriptor) string)))))))"#;

/// Volumes from 4096 on, as `get-directories` lists them.
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

pub fn preview3(acts: &[Act<'_>]) -> String {
    let mut data = Data::default();
    let steps: String = acts
        .iter()
        .map(|act| format!("{} (call $outcome)\n", act_p3(&mut data, *act)))
        .collect();
    let lower =
        |name: &str| format!("(canon lower (func $files \"[method]descriptor.{name}\") {MEMORY})");
    let canons = [
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
        ("unlink", lower("unlink-file-at"), "(param i32 i32 i32 i32)"),
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
    ];
    let calls: Vec<_> = canons
        .iter()
        .map(|(name, canon, ty)| (*name, canon.as_str(), *ty))
        .collect();
    component(&Text {
        imports: IMPORTS,
        calls: &calls,
        data: &data.0,
        functions: FUNCTIONS,
        body: &steps,
    })
}

fn act_p3(data: &mut Data, act: Act<'_>) -> String {
    const READ: u32 = 1;
    const WRITE: u32 = 2;
    const RETURN: &str = "(i32.const 2048)";
    let dir = |volume: u32| format!("(call $volume (i32.const {volume}))");
    let mut open = |volume, path, how: u32, flags: u32| {
        format!(
            "(call $open {} (i32.const 1) {} (i32.const {how}) (i32.const {flags}) {RETURN})",
            dir(volume),
            data.put(path)
        )
    };
    match act {
        Act::Read(volume, path) => open(volume, path, 0, READ),
        Act::Truncate(volume, path) => open(volume, path, 8, READ),
        Act::Create(volume, path) => open(volume, path, 1, WRITE),
        Act::Write(volume, path) => format!("{} (call $size)", open(volume, path, 0, WRITE)),
        Act::Mkdir(volume, path) => {
            format!("(call $mkdir {} {} {RETURN})", dir(volume), data.put(path))
        }
        Act::Unlink(volume, path) => {
            format!("(call $unlink {} {} {RETURN})", dir(volume), data.put(path))
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

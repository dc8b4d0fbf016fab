//! Calls of the host from near the bottom of the guest's stack: the host has room of its own below it, whoever
//! calls and from however deep.

use std::sync::Arc;

use realm_manifest::{Grants, VolumeMode};
use realm_runtime::{CellConfig, ExitStatus, Limit, LogRing, Mount, Stdio};

use crate::{
    scene::{Scene, scene, wasm},
    text::{Text, component},
};

/// Every function that a module of preview 1 may import, but `proc_raise`, which nobody carries out: name, parameters, and arguments that lead furthest into the
/// host. At 1024 lie one vector of 16 bytes at 2048, at 1056 a subscription to a clock that is due, at 1200 a path;
/// from 4096 on the host may write.
const IMPORTS: &[(&str, &str, &str)] = &[
    ("args_get", "i32 i32", "4096 8192"),
    ("args_sizes_get", "i32 i32", "4096 8192"),
    ("environ_get", "i32 i32", "4096 8192"),
    ("environ_sizes_get", "i32 i32", "4096 8192"),
    ("clock_res_get", "i32 i32", "0 4096"),
    ("clock_time_get", "i32 i64 i32", "0 0 4096"),
    ("fd_advise", "i32 i64 i64 i32", "1 0 0 0"),
    ("fd_allocate", "i32 i64 i64", "1 0 16"),
    ("fd_datasync", "i32", "1"),
    ("fd_fdstat_get", "i32 i32", "1 4096"),
    ("fd_fdstat_set_flags", "i32 i32", "1 0"),
    ("fd_fdstat_set_rights", "i32 i64 i64", "1 0 0"),
    ("fd_filestat_get", "i32 i32", "1 4096"),
    ("fd_filestat_set_size", "i32 i64", "1 0"),
    ("fd_filestat_set_times", "i32 i64 i64 i32", "1 0 0 0"),
    ("fd_pread", "i32 i32 i32 i64 i32", "0 1024 1 0 4096"),
    ("fd_prestat_get", "i32 i32", "3 4096"),
    ("fd_prestat_dir_name", "i32 i32 i32", "3 4096 64"),
    ("fd_pwrite", "i32 i32 i32 i64 i32", "1 1024 1 0 4096"),
    ("fd_read", "i32 i32 i32 i32", "0 1024 1 4096"),
    ("fd_readdir", "i32 i32 i32 i64 i32", "3 8192 4096 0 4096"),
    ("fd_renumber", "i32 i32", "1 2"),
    ("fd_seek", "i32 i64 i32 i32", "1 0 0 4096"),
    ("fd_sync", "i32", "1"),
    ("fd_tell", "i32 i32", "1 4096"),
    ("fd_write", "i32 i32 i32 i32", "1 1024 1 4096"),
    ("fd_close", "i32", "0"),
    ("path_create_directory", "i32 i32 i32", "3 1200 4"),
    (
        "path_filestat_get",
        "i32 i32 i32 i32 i32",
        "3 0 1200 4 4096",
    ),
    (
        "path_filestat_set_times",
        "i32 i32 i32 i32 i64 i64 i32",
        "3 0 1200 4 0 0 0",
    ),
    (
        "path_link",
        "i32 i32 i32 i32 i32 i32 i32",
        "3 0 1200 4 3 1204 4",
    ),
    (
        "path_open",
        "i32 i32 i32 i32 i32 i64 i64 i32 i32",
        "3 0 1200 4 1 2 2 0 4096",
    ),
    (
        "path_readlink",
        "i32 i32 i32 i32 i32 i32",
        "3 1200 4 8192 64 4096",
    ),
    ("path_remove_directory", "i32 i32 i32", "3 1200 4"),
    (
        "path_rename",
        "i32 i32 i32 i32 i32 i32",
        "3 1200 4 3 1204 4",
    ),
    ("path_symlink", "i32 i32 i32 i32 i32", "1200 4 3 1204 4"),
    ("path_unlink_file", "i32 i32 i32", "3 1200 4"),
    ("poll_oneoff", "i32 i32 i32 i32", "1056 8192 1 4096"),
    ("proc_exit", "i32", "7"),
    ("random_get", "i32 i32", "8192 16384"),
    ("sched_yield", "", ""),
    ("sock_accept", "i32 i32 i32", "0 0 4096"),
    (
        "sock_recv",
        "i32 i32 i32 i32 i32 i32",
        "0 1024 1 0 4096 4100",
    ),
    ("sock_send", "i32 i32 i32 i32 i32", "1 1024 1 0 4096"),
    ("sock_shutdown", "i32 i32", "0 0"),
];

/// A module that recurses as deep as its arguments are long, and then calls the import that their number names.
fn module() -> Arc<[u8]> {
    let parts = IMPORTS.iter().enumerate().map(|(index, (name, params, args))| {
        let args: String = params
            .split_whitespace()
            .zip(args.split_whitespace())
            .map(|(ty, value)| format!("({ty}.const {value})"))
            .collect();
        let results = if *name == "proc_exit" { "" } else { "(result i32)" };
        let import = format!(
            "(import \"wasi_snapshot_preview1\" \"{name}\" (func ${name} (param {params}) {results}))\n"
        );
        let done = if results.is_empty() { "" } else { "drop" };
        let call = format!(
            "(if (i32.eq (global.get $which) (i32.const {index})) (then (call ${name} {args}) {done}))\n"
        );
        (import, call)
    });
    let (imports, calls): (String, String) = parts.unzip();
    wasm(&format!(
        r#"(module
        {imports}
        (memory (export "memory") 1)
        (global $which (mut i32) (i32.const 0))
        (data (i32.const 1024) "\00\08\00\00\10\00\00\00")
        (data (i32.const 1200) "one.two.")
        (data (i32.const 2048) "sixteen bytes..\n")
        (func $call {calls})
        (func $deep (param i32) (result i32)
            (if (local.get 0)
                (then (return (i32.add (call $deep (i32.sub (local.get 0) (i32.const 1))) (i32.const 1)))))
            (call $call)
            (i32.const 0))
        (func (export "_start")
            (drop (call $args_sizes_get (i32.const 4096) (i32.const 4100)))
            (global.set $which (i32.sub (i32.load (i32.const 4096)) (i32.const 2)))
            (drop (call $deep (i32.load (i32.const 4100))))))"#
    ))
}

struct Deep {
    scene: Scene,
    module: Arc<[u8]>,
    dir: tempfile::TempDir,
}

impl Deep {
    /// How a cell ends that makes this call from so deep.
    async fn call(&self, which: usize, depth: usize) -> ExitStatus {
        let mut config = CellConfig::new("test", Stdio::Log(LogRing::new()));
        // Each counts with a byte at its end.
        let rest = "test".len() + 1 + which;
        config.grants.args = vec!["x".repeat(depth - rest - 1)];
        config.grants.args.extend(vec![String::new(); which]);
        config.mounts = vec![Mount {
            host: self.dir.path().to_owned(),
            guest: "/data".to_owned(),
            mode: VolumeMode::Rw,
        }];
        self.scene.run_config(&self.module, config).await
    }
}

fn meets_the_stack(status: &ExitStatus) -> bool {
    matches!(status, ExitStatus::LimitHit(hit) if hit.which == Limit::Stack)
}

/// The greatest depth within bounds from which a call returns.
async fn deepest(returns: impl AsyncFn(usize) -> bool) -> usize {
    let (mut good, mut bad) = (100, 60_000);
    assert!(returns(good).await && !returns(bad).await);
    while good + 1 < bad {
        let depth = usize::midpoint(good, bad);
        if returns(depth).await {
            good = depth;
        } else {
            bad = depth;
        }
    }
    good
}

#[tokio::test]
async fn every_host_call_of_a_module_returns_at_the_bottom_of_the_stack_or_the_guest_meets_it() {
    let deep = Deep {
        scene: scene(),
        module: module(),
        dir: tempfile::tempdir().unwrap(),
    };
    let yields = IMPORTS.iter().position(|(name, ..)| *name == "sched_yield");
    let yields = yields.unwrap();
    let bottom = deepest(async |depth| {
        let status = deep.call(yields, depth).await;
        assert!(
            status == ExitStatus::Exited(0) || meets_the_stack(&status),
            "{status}"
        );
        status == ExitStatus::Exited(0)
    })
    .await;
    // Frames are small: the guest has come as deep as it may.
    assert!(bottom > 5_000, "{bottom}");
    for (which, (name, ..)) in IMPORTS.iter().enumerate() {
        std::fs::write(deep.dir.path().join("one."), "there").unwrap();
        for depth in [bottom, bottom + 1] {
            let status = deep.call(which, depth).await;
            let what = format!("{name} at {depth}: {status}");
            let as_expected = match depth == bottom {
                true if *name == "proc_exit" => status == ExitStatus::Exited(7),
                true => status == ExitStatus::Exited(0),
                false => meets_the_stack(&status),
            };
            assert!(as_expected, "{what}");
        }
    }
    // And the runtime goes on.
    assert_eq!(deep.call(yields, 100).await, ExitStatus::Exited(0));
}

/// What the host hands over is put where the guest's own code says, which needs its stack once more.
#[tokio::test]
async fn a_guest_that_is_called_back_at_the_bottom_of_its_stack_meets_it() {
    let scene = scene();
    let text = |depth: usize| {
        component(&Text {
            imports: r#"(import "wasi:random/random@0.2.0" (instance $random
                (export "get-random-bytes" (func (param "len" u64) (result (list u8))))))"#,
            calls: &[(
                "bytes",
                r#"(canon lower (func $random "get-random-bytes") (memory $memory) (realloc $realloc))"#,
                "(param i64 i32)",
            )],
            functions: r#"(func $deep (param i32) (result i32)
                (if (local.get 0)
                    (then (return (i32.add (call $deep (i32.sub (local.get 0) (i32.const 1))) (i32.const 1)))))
                (call $bytes (i64.const 4096) (i32.const 2048))
                (i32.const 0))"#,
            body: &format!("(drop (call $deep (i32.const {depth})))"),
            ..Text::default()
        })
    };
    let ends = async |depth| {
        let (status, lines) = scene
            .run_granted(&wasm(&text(depth)), Grants::default())
            .await;
        let sound = status == ExitStatus::Exited(0) || meets_the_stack(&status);
        assert!(sound, "at {depth}: {status}, {lines:?}");
        status == ExitStatus::Exited(0)
    };
    let bottom = deepest(ends).await;
    for depth in bottom - 2..bottom + 8 {
        assert_eq!(ends(depth).await, depth <= bottom, "at {depth}");
    }
}

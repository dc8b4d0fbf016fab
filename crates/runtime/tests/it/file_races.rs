//! One cell swaps a directory for a link that leads out of the volume, another one uses the path meanwhile.

use std::{fs, os::unix::fs::symlink, path::Path};

use realm_manifest::VolumeMode;
use realm_runtime::{CellConfig, CellHandle, ExitStatus, Flavour, LogRing, Mount, Stdio};

use crate::{
    scene::{Scene, scene, wasm},
    text::SAY,
};

/// Turns of the cell that uses the path, each with seven tries: what two cores do in some ten seconds. A campaign has 100,000
/// and more, by this variable.
const TURNS: u32 = 20_000;
const TURNS_ENV: &str = "REALM_RACE_TURNS";

const IMPORTS: &str = r#"
    (import "wasi_snapshot_preview1" "fd_write" (func $write (param i32 i32 i32 i32) (result i32)))
    (import "wasi_snapshot_preview1" "fd_close" (func $close (param i32) (result i32)))
    (import "wasi_snapshot_preview1" "path_open" (func $open (param i32 i32 i32 i32 i32 i64 i64 i32 i32) (result i32)))
    (import "wasi_snapshot_preview1" "path_unlink_file" (func $unlink (param i32 i32 i32) (result i32)))
    (import "wasi_snapshot_preview1" "path_rename" (func $rename (param i32 i32 i32 i32 i32 i32) (result i32)))
    (import "wasi_snapshot_preview1" "path_link" (func $link (param i32 i32 i32 i32 i32 i32 i32) (result i32)))
    (memory (export "memory") 1)
    (data (i32.const 1024) "cur")
    (data (i32.const 1040) "dir")
    (data (i32.const 1056) "out")
    (data (i32.const 1072) "cur/secret")
    (data (i32.const 1104) "cur/file")
    (data (i32.const 1136) "cur/made")
    (data (i32.const 1168) "taken")"#;

/// `cur` is the directory, then the link, then the directory again, and so on.
fn swapper() -> String {
    let rename = |from: u32, to: u32| {
        format!(
            "(drop (call $rename (i32.const 3) (i32.const {from}) (i32.const 3) (i32.const 3) (i32.const {to}) (i32.const 3)))"
        )
    };
    let (cur, dir, out) = (1024, 1040, 1056);
    let turn = [
        rename(cur, dir),
        rename(out, cur),
        rename(cur, out),
        rename(dir, cur),
    ]
    .concat();
    format!("(module {IMPORTS} (func (export \"_start\") (loop {turn} (br 0))))")
}

/// Prints how often it got at what is outside, and how often at what is inside.
fn user(turns: u32) -> String {
    format!(
        r#"(module {IMPORTS}
    (global $outside (mut i32) (i32.const 0)) (global $inside (mut i32) (i32.const 0))
    (func $try (param $path i32) (param $length i32) (param $how i32) (param $rights i64) (result i32)
        (if (call $open (i32.const 3) (i32.const 1) (local.get $path) (local.get $length) (local.get $how) (local.get $rights)
                (i64.const 0) (i32.const 0) (i32.const 32)) (then (return (i32.const 0))))
        (drop (call $close (i32.load (i32.const 32))))
        (i32.const 1))
    (func $count (param $errno i32)
        (if (i32.eqz (local.get $errno)) (then (global.set $outside (i32.add (global.get $outside) (i32.const 1))))))
    {SAY}
    (func (export "_start") (local $left i32)
        (local.set $left (i32.const {turns}))
        (loop
            (global.set $inside (i32.add (global.get $inside) (call $try (i32.const 1104) (i32.const 8) (i32.const 0) (i64.const 2))))
            (global.set $outside (i32.add (global.get $outside) (call $try (i32.const 1072) (i32.const 10) (i32.const 0) (i64.const 2))))
            (global.set $outside (i32.add (global.get $outside) (call $try (i32.const 1072) (i32.const 10) (i32.const 8) (i64.const 64))))
            (drop (call $try (i32.const 1136) (i32.const 8) (i32.const 1) (i64.const 64)))
            (call $count (call $unlink (i32.const 3) (i32.const 1072) (i32.const 10)))
            (call $count (call $rename (i32.const 3) (i32.const 1072) (i32.const 10) (i32.const 3) (i32.const 1168) (i32.const 5)))
            (call $count (call $link (i32.const 3) (i32.const 0) (i32.const 1072) (i32.const 10) (i32.const 3) (i32.const 1168) (i32.const 5)))
            (br_if 0 (local.tee $left (i32.sub (local.get $left) (i32.const 1)))))
        (call $say (global.get $outside))
        (call $say (global.get $inside))))"#
    )
}

async fn start(scene: &Scene, text: &str, volume: &Path) -> (CellHandle, LogRing) {
    let prepared = scene.runtime.prepare(wasm(text), Flavour::Epoch).await;
    let ring = LogRing::new();
    let mut config = CellConfig::new("test", Stdio::Log(ring.clone()));
    config.mounts = vec![Mount {
        host: volume.to_owned(),
        guest: "/v".into(),
        mode: VolumeMode::Rw,
    }];
    (
        scene.runtime.start(&prepared.unwrap(), config).unwrap(),
        ring,
    )
}

#[tokio::test]
async fn a_path_that_is_swapped_while_it_is_used_leads_nowhere_outside() {
    let turns = std::env::var(TURNS_ENV).map_or(TURNS, |turns| turns.parse().unwrap());
    let scene = scene();
    let dir = tempfile::tempdir().unwrap();
    let volume = dir.path().join("volume");
    fs::create_dir_all(volume.join("cur")).unwrap();
    fs::write(volume.join("cur/file"), "inside").unwrap();
    fs::write(dir.path().join("secret"), "secret").unwrap();
    symlink("..", volume.join("out")).unwrap();
    let (swaps, _ring) = start(&scene, &swapper(), &volume).await;
    let (uses, ring) = start(&scene, &user(turns), &volume).await;
    // However busy the machine is, and however long a campaign.
    let status = uses.wait().await;
    assert_eq!(status, ExitStatus::Exited(0));
    let lines = ring.tail(2);
    let inside: u32 = lines[1].text.parse().unwrap();
    assert_eq!(lines[0].text, "0", "times that it was outside");
    println!("{turns} turns: {inside} times inside, never outside");
    // It met both.
    assert!(0 < inside && inside < turns, "{inside} of {turns}");
    assert!(swaps.exit_status().is_none(), "it still swaps");
    drop(swaps);
    assert_eq!(
        fs::read_to_string(dir.path().join("secret")).unwrap(),
        "secret"
    );
    let mut names: Vec<_> = fs::read_dir(dir.path())
        .unwrap()
        .map(|entry| entry.unwrap().file_name())
        .collect();
    names.sort();
    assert_eq!(names, ["secret", "volume"]);
}

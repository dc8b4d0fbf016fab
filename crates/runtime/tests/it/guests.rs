//! Guests as a toolchain builds them: preview 1, and components of 0.2 and 0.3.

use realm_manifest::Grants;
use realm_runtime::{CellConfig, ExitStatus, Flavour, LogRing, PrepareError, Stdio};

use crate::scene::{Scene, end, prebuilt, scene, wasm};

async fn run(scene: &Scene, name: &str, args: &[&str]) -> (ExitStatus, String) {
    let prepared = scene
        .runtime
        .prepare(prebuilt(name), Flavour::Epoch)
        .await
        .unwrap();
    let ring = LogRing::new();
    let mut config = CellConfig::new(name, Stdio::Log(ring.clone()));
    config.grants.args = args.iter().map(ToString::to_string).collect();
    let cell = scene.runtime.start(&prepared, config).unwrap();
    let status = end(&cell).await;
    let lines: Vec<_> = ring.tail(100).into_iter().map(|line| line.text).collect();
    (status, lines.join("|"))
}

#[tokio::test]
async fn every_preview_says_hello() {
    let scene = scene();
    for name in ["hello.p1", "hello", "hello-p3"] {
        let (status, output) = run(&scene, name, &[]).await;
        assert_eq!(status, ExitStatus::Exited(0), "{name}: {output}");
        assert!(!output.is_empty(), "{name}");
    }
}

#[tokio::test]
async fn exit_codes_survive_as_far_as_the_guest_says_them() {
    let scene = scene();
    for code in [0, 7, 255] {
        let said = code.to_string();
        // Preview 1 has one way to end, and it takes a number.
        let (status, _) = run(&scene, "exit-code.p1", &[&said]).await;
        assert_eq!(status, ExitStatus::Exited(code));
        let (status, _) = run(&scene, "exit-code", &[&said]).await;
        assert_eq!(status, ExitStatus::Exited(code));
        // The standard library of 0.2 calls `exit`, which knows success and failure, and not `exit-with-code`.
        let (status, _) = run(&scene, "exit-code", &["std", &said]).await;
        assert_eq!(status, ExitStatus::Exited(code.min(1)));
        for version in ["0.2.12", "0.3.0"] {
            let (status, _) = scene
                .run_granted(&wasm(&exit_with_code(version, code)), Grants::default())
                .await;
            assert_eq!(status, ExitStatus::Exited(code), "{version}");
        }
    }
}

/// A command of its preview that ends by `exit-with-code`, deep in a call.
fn exit_with_code(version: &str, code: i32) -> String {
    let (is_async, run) = match version.starts_with("0.3") {
        true => ("async", "0.3.0"),
        false => ("", "0.2.0"),
    };
    format!(
        r#"(component
        (import "wasi:cli/exit@{version}" (instance $exit (export "exit-with-code" (func (param "status-code" u8)))))
        (core func $exit (canon lower (func $exit "exit-with-code")))
        (core module $m (import "" "exit" (func $exit (param i32)))
            (func $deep (param i32) (call $exit (local.get 0)))
            (func (export "run") (result i32) (call $deep (i32.const {code})) (i32.const 1)))
        (core instance $i (instantiate $m (with "" (instance (export "exit" (func $exit))))))
        (func $run {is_async} (result (result)) (canon lift (core func $i "run")))
        (instance $exports (export "run" (func $run)))
        (export "wasi:cli/run@{run}" (instance $exports)))"#
    )
}

#[tokio::test]
async fn servers_are_refused_by_name() {
    let error = scene()
        .runtime
        .prepare(prebuilt("hello-http"), Flavour::Epoch)
        .await
        .unwrap_err();
    assert!(matches!(error, PrepareError::NotYet { .. }), "{error}");
}

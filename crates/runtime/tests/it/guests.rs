//! Guests as a toolchain builds them: preview 1, and components of 0.2 and 0.3.

use std::sync::Arc;

use realm_runtime::{CellConfig, ExitStatus, Flavour, LogRing, PrepareError, Stdio};

use crate::scene::{Scene, end, scene};

pub fn prebuilt(name: &str) -> Arc<[u8]> {
    let path = format!(
        "{}/../../guests/prebuilt/{name}.wasm",
        env!("CARGO_MANIFEST_DIR")
    );
    std::fs::read(path).unwrap().into()
}

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
    assert_eq!(
        run(&scene, "exit-code.p1", &["7"]).await.0,
        ExitStatus::Exited(7)
    );
    assert_eq!(
        run(&scene, "exit-code", &["42"]).await.0,
        ExitStatus::Exited(42)
    );
    // The standard library calls `exit`, which knows success and failure, and not `exit-with-code`.
    assert_eq!(
        run(&scene, "exit-code", &["std", "42"]).await.0,
        ExitStatus::Exited(1)
    );
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

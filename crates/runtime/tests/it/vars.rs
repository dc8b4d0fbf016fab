//! `wasi:config`: a guest sees the vars of its spec, and nothing else.

use realm_manifest::Grants;
use realm_runtime::{ExitStatus, Need, inspect};

use crate::scene::{Scene, scene, wasm};

/// Prints what `get("greeting")` says, then every pair of `get-all`.
const READER: &str = include_str!("vars.wat");

async fn read(scene: &Scene, vars: &[(&str, &str)]) -> Vec<String> {
    let pair = |(key, value): &(&str, &str)| ((*key).to_owned(), (*value).to_owned());
    let grants = Grants {
        vars: vars.iter().map(pair).collect(),
        ..Grants::default()
    };
    let (status, mut lines) = scene.run_granted(&wasm(READER), grants).await;
    assert_eq!(status, ExitStatus::Exited(0), "{lines:?}");
    lines.sort();
    lines
}

#[tokio::test]
async fn a_guest_reads_the_vars_it_was_given() {
    let scene = scene();
    let given = [("greeting", "good day"), ("level", "3"), ("empty", "")];
    assert_eq!(
        read(&scene, &given).await,
        ["empty=", "get: good day", "greeting=good day", "level=3"]
    );
    // The same code in another cell: nothing is left over, and nothing comes from the environment.
    assert_eq!(read(&scene, &[]).await, ["get: none"]);
    assert_eq!(
        read(&scene, &[("other", "x")]).await,
        ["get: none", "other=x"]
    );
}

#[test]
fn vars_are_offered_and_other_candidates_are_not() {
    let seen = inspect(&wasm(READER)).unwrap();
    assert_eq!(seen.missing.len(), 0);
    assert!(seen.needs.contains(&Need::Config), "{:?}", seen.needs);
    let other = READER.replace("store@0.2.0-rc.1", "store@0.2.0-draft");
    assert_eq!(
        inspect(&wasm(&other)).unwrap().missing,
        ["wasi:config/store@0.2.0-draft"]
    );
}

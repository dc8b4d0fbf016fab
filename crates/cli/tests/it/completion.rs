//! What a shell offers after TAB.

use std::process::Command;

use realm_testkit::{Cluster, wait_for};

use crate::{cluster, guest};

/// Runs the script of `realm completions bash` in a real bash, and presses TAB after `words`.
const PRESS_TAB: &str = r#"
source <(realm completions bash)
COMP_WORDS=("$@"); COMP_CWORD=$(($# - 1)); COMP_TYPE=9
function=$(complete -p realm | sed 's/.*-F \([^ ]*\) .*/\1/')
$function realm "${COMP_WORDS[$COMP_CWORD]}" "${COMP_WORDS[$COMP_CWORD - 1]}"
printf '%s\n' "${COMPREPLY[@]}"
"#;

/// What bash offers after these words, on the machine of the realm's owner.
pub fn tab(realm: &Cluster, words: &[&str]) -> Vec<String> {
    let exe = std::path::Path::new(env!("CARGO_BIN_EXE_realm"));
    let path = format!(
        "{}:{}",
        exe.parent().unwrap().display(),
        std::env::var("PATH").unwrap()
    );
    let mut bash = Command::new("bash");
    bash.args(["--norc", "-c", PRESS_TAB, "bash", "realm"])
        .args(words)
        .env("PATH", &path);
    for (key, value) in realm.command().get_envs() {
        value.map(|value| bash.env(key, value));
    }
    let output = bash.output().unwrap();
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{errors}");
    let offered = String::from_utf8_lossy(&output.stdout).into_owned();
    offered.lines().map(str::to_owned).collect()
}

#[test]
fn a_shell_offers_the_names_of_nodes_and_components_without_asking_a_node() {
    let mut realm = cluster();
    realm.add_node("edge-1", &[]);
    realm.wait_ready("edge-1");
    let via = realm.address("edge-1");
    let hello = guest("hello.wasm");
    realm.ok(&["push", "greeter", &hello, "--via", &via]);
    wait_for("the status names the node", || {
        let status = realm.ok(&["status", "--via", &via]);
        status.contains("edge-1").then_some(())
    });
    // One that asks to join, and is not let in.
    let owner = realm.ok(&["key", "show"]);
    let owner = owner.split_whitespace().next().unwrap();
    let data = realm.data("newcomer").display().to_string();
    let configure = ["configure", "--owner", owner, "--bootstrap", &via];
    realm.ok(&[&configure[..], &["--data", &data]].concat());
    realm.add_agent("newcomer", &["--name", "newcomer"]);
    wait_for("it asks to join", || {
        let listed = realm.run(&["nodes", "ls", "--via", &via]);
        listed.stderr.contains("newcomer").then_some(())
    });
    realm.kill("edge-1");

    let tab = |words: &[&str]| tab(&realm, words);
    assert_eq!(tab(&["logs", "gr"]), ["greeter"]);
    assert_eq!(tab(&["scale", "gr"]), ["greeter="]);
    assert_eq!(tab(&["logs", "greeter", "--node", "e"]), ["edge-1"]);
    assert_eq!(tab(&["nodes", "show", ""])[0], "edge-1");
    assert_eq!(tab(&["expl"]), ["explain"]);
    assert_eq!(tab(&["explain", "no-ro"]), ["no-room"]);
    assert_eq!(tab(&["help", "exit"]), ["exit-codes"]);
    assert_eq!(tab(&["help", "nodes", "appr"]), ["approve"]);
    assert_eq!(tab(&["nodes", "approve", "newc"]), ["newcomer"]);
    assert!(tab(&["history", "show", ""]).contains(&"1".to_owned()));
}

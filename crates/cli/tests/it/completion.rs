//! What a shell offers after TAB.

use std::process::{Command, Stdio};

use realm_testkit::{Cluster, skipped, wait_for};

use crate::{cluster, guest};

/// Runs the script of `realm completions bash` in a real bash, and presses TAB after `words`.
const PRESS_TAB: &str = r#"
source <(realm completions bash)
COMP_WORDS=("$@"); COMP_CWORD=$(($# - 1)); COMP_TYPE=9
function=$(complete -p realm | sed 's/.*-F \([^ ]*\) .*/\1/')
$function realm "${COMP_WORDS[$COMP_CWORD]}" "${COMP_WORDS[$COMP_CWORD - 1]}"
printf '%s\n' "${COMPREPLY[@]}"
"#;

/// What a person has in a .zshrc, and a key that tells what stands in the line.
const ZSHRC: &str = r#"
PROMPT=; autoload -U compinit; compinit -u -D
source <(realm completions zsh)
ready() { print ready }
tell() { print -r -- "$BUFFER" > "$LINE"; exit }
zle -N zle-line-init ready
zle -N tell
bindkey '^X' tell
"#;

/// Types into a zsh that has a terminal, presses TAB, and asks for the line.
const TYPE_INTO_ZSH: &str = r#"
zmodload zsh/zpty
zpty shell zsh -d -i
zpty -r -m shell said '*ready*'
zpty -w -n shell "$1"$'\t\x18'
while zpty -t shell; do zpty -r shell said; done
exit 0
"#;

/// The same in fish, which tells by itself what it offers.
const ASK_FISH: &str = "source (realm completions fish | psub); complete -C $argv[1]";

/// A shell on the machine of the realm's owner.
fn shell(realm: &Cluster, program: &str) -> Command {
    let exe = std::path::Path::new(env!("CARGO_BIN_EXE_realm"));
    let path = format!(
        "{}:{}",
        exe.parent().unwrap().display(),
        std::env::var("PATH").unwrap()
    );
    let mut shell = Command::new(program);
    for (key, value) in realm.command().get_envs() {
        value.map(|value| shell.env(key, value));
    }
    shell.env("PATH", &path).env("HOME", realm.path());
    shell.env("TERM", "xterm");
    shell
}

/// Whether there is such a shell; one that is missing is told of.
fn has(program: &str) -> bool {
    let mut there = Command::new(program);
    let there = there.arg("--version").stdout(Stdio::null()).status();
    let is_there = there.is_ok_and(|status| status.success());
    if !is_there {
        skipped(&format!(
            "{program} is not installed (Debian package {program})"
        ));
    }
    is_there
}

/// The line as zsh leaves it after TAB.
fn tab_in_zsh(realm: &Cluster, line: &str) -> String {
    let (dir, told) = (realm.path(), realm.path().join("line"));
    std::fs::write(dir.join(".zshrc"), ZSHRC).unwrap();
    let mut zsh = shell(realm, "zsh");
    zsh.args(["-d", "-f", "-c", TYPE_INTO_ZSH, "zsh", line]);
    let output = zsh.env("ZDOTDIR", dir).env("LINE", &told).output().unwrap();
    assert!(output.status.success(), "{output:?}");
    std::fs::read_to_string(told).unwrap()
}

/// What fish offers, without its explanations.
fn tab_in_fish(realm: &Cluster, line: &str) -> Vec<String> {
    let mut fish = shell(realm, "fish");
    let output = fish.args(["--no-config", "-c", ASK_FISH, line]).output();
    let output = output.unwrap();
    assert!(output.status.success(), "{output:?}");
    let offered = String::from_utf8(output.stdout).unwrap();
    let names = offered.lines().filter_map(|line| line.split('\t').next());
    names.map(str::to_owned).collect()
}

/// What bash offers after these words, on the machine of the realm's owner.
pub fn tab(realm: &Cluster, words: &[&str]) -> Vec<String> {
    let mut bash = shell(realm, "bash");
    bash.args(["--norc", "-c", PRESS_TAB, "bash", "realm"])
        .args(words);
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

    let (zsh, fish) = (has("zsh"), has("fish"));
    for (words, offered) in [
        ("logs gr", "greeter"),
        ("scale gr", "greeter="),
        ("logs greeter --node e", "edge-1"),
        ("expl", "explain"),
        ("explain no-ro", "no-room"),
        ("help exit", "exit-codes"),
        ("help nodes appr", "approve"),
        ("nodes approve newc", "newcomer"),
    ] {
        let typed: Vec<&str> = words.split(' ').collect();
        assert_eq!(tab(&realm, &typed), [offered], "bash: {words}");
        let (before, _) = words.rsplit_once(' ').unwrap_or_default();
        if zsh {
            let line = tab_in_zsh(&realm, &format!("realm {words}"));
            let whole = format!("realm {before} {offered}").replace("  ", " ");
            assert_eq!(line.trim_end(), whole, "zsh");
        }
        if fish {
            let offers = tab_in_fish(&realm, &format!("realm {words}"));
            assert_eq!(offers, [offered], "fish: {words}");
        }
    }
    let tab = |words: &[&str]| tab(&realm, words);
    assert_eq!(tab(&["nodes", "show", ""])[0], "edge-1");
    assert!(tab(&["history", "show", ""]).contains(&"1".to_owned()));
}

//! What needs no agent: keys, settings, running and inspecting right here.

use std::{
    io::{BufRead as _, BufReader},
    os::unix::fs::PermissionsExt as _,
    process::{Command, Stdio},
};

use crate::{KilledAtTheEnd, cluster, guest};

#[test]
fn init_makes_a_private_key_once() {
    let person = cluster();
    let key = person.path().join("config/owner.key");
    assert_eq!(
        std::fs::metadata(&key).unwrap().permissions().mode() & 0o777,
        0o600
    );
    let before = std::fs::read(&key).unwrap();
    let again = person.run(&["init", "--name", "test"]);
    assert_eq!(again.code, 1);
    assert!(again.stderr.contains("realm use test"), "{}", again.stderr);
    person.ok(&["init", "--name", "other"]);
    assert_eq!(
        std::fs::read(&key).unwrap(),
        before,
        "the key is never overwritten"
    );
    assert!(person.ok(&["ls"]).contains("other"));
    person.ok(&["use", "test"]);
    assert!(person.ok(&["key", "show"]).starts_with("ed25519:"));
}

#[test]
fn keys_are_exported_imported_and_read_by_others() {
    let person = cluster();
    let file = person.path().join("exported");
    let path = file.display().to_string();
    person.ok(&["key", "export", &path]);
    assert_ne!(
        person.run(&["key", "export", &path]).code,
        0,
        "export never overwrites"
    );
    let other = cluster_without_key();
    other.ok(&[
        "key",
        "import",
        &path,
        "--key",
        &other.path().join("k").display().to_string(),
    ]);
    let shown = other.ok(&[
        "key",
        "show",
        "--key",
        &other.path().join("k").display().to_string(),
    ]);
    assert_eq!(shown, person.ok(&["key", "show"]));
    match Command::new("ssh-keygen")
        .args(["-y", "-f", &path])
        .output()
    {
        Ok(output) => {
            let theirs = String::from_utf8_lossy(&output.stdout).into_owned();
            let ours = person.ok(&["key", "show", "--format", "openssh"]);
            assert_eq!(
                theirs.split(' ').nth(1).unwrap().trim(),
                ours.split(' ').nth(1).unwrap().trim()
            );
        }
        Err(_) => realm_testkit::skipped("ssh-keygen is not installed"),
    }
}

fn cluster_without_key() -> realm_testkit::Cluster {
    cluster()
}

#[test]
fn a_passphrase_protects_the_key_at_rest() {
    let person = cluster();
    let words = person.path().join("words");
    std::fs::write(&words, "correct horse\n").unwrap();
    let words = words.display().to_string();
    let key = person.path().join("locked").display().to_string();
    person.ok(&[
        "init",
        "--name",
        "locked",
        "--passphrase",
        "--passphrase-file",
        &words,
        "--key",
        &key,
    ]);
    let bare = person.run(&["key", "export", "-", "--key", &key]);
    assert_eq!(bare.code, 4, "{}", bare.stderr);
    std::fs::write(person.path().join("wrong"), "wrong\n").unwrap();
    let wrong = person.path().join("wrong").display().to_string();
    assert_eq!(
        person
            .run(&[
                "key",
                "export",
                "-",
                "--key",
                &key,
                "--passphrase-file",
                &wrong
            ])
            .code,
        4
    );
    let secret = person.ok(&[
        "key",
        "export",
        "-",
        "--key",
        &key,
        "--passphrase-file",
        &words,
    ]);
    assert!(secret.contains("OPENSSH PRIVATE KEY"));
}

#[test]
fn config_show_names_the_layer_that_won() {
    let person = cluster();
    std::fs::write(
        person.path().join("config/config.toml"),
        "via = \"/ip4/192.0.2.1/tcp/1\"\n",
    )
    .unwrap();
    let shown = person.ok(&["config", "show", "--origin"]);
    assert!(
        shown.contains("/ip4/192.0.2.1/tcp/1") && shown.contains("user "),
        "{shown}"
    );
    assert!(shown.contains("variable REALM_CONFIG_DIR"), "{shown}");
    let flag = person.ok(&[
        "config",
        "show",
        "--origin",
        "--via",
        "/ip4/192.0.2.2/tcp/1",
    ]);
    assert!(
        flag.contains("/ip4/192.0.2.2/tcp/1") && flag.contains("flag"),
        "{flag}"
    );
    std::fs::write(person.path().join("config/config.toml"), "vai = \"x\"\n").unwrap();
    let wrong = person.run(&["config", "show"]);
    assert_eq!(wrong.code, 2);
    assert!(
        wrong.stderr.contains("vai") && wrong.stderr.contains("known settings"),
        "{}",
        wrong.stderr
    );
}

#[test]
fn run_passes_output_and_exit_code_through() {
    let person = cluster();
    let hello = person.run(&["run", &guest("hello.wasm"), "--", "there"]);
    assert_eq!(hello.code, 0, "{}", hello.stderr);
    assert!(hello.stdout.contains("there"), "{}", hello.stdout);
    assert_eq!(
        person.run(&["run", &guest("hello.p1.wasm")]).code,
        0,
        "a preview-1 module"
    );
    assert_eq!(
        person.run(&["run", &guest("hello-p3.wasm")]).code,
        0,
        "a 0.3 component"
    );
    assert_eq!(
        person
            .run(&["run", &guest("exit-code.p1.wasm"), "--", "7"])
            .code,
        7
    );
    assert_eq!(person.run(&["run", "/nonexistent.wasm"]).code, 127);
    let env = person.ok(&["run", &guest("env-dump.wasm"), "--env", "GIVEN=yes"]);
    assert!(
        env.contains("GIVEN") && !env.contains("REALM_STATE_DIR"),
        "only what is granted: {env}"
    );
}

#[test]
fn run_keeps_a_guest_within_its_limits() {
    let person = cluster();
    let spin = person.run(&["run", "--deadline-ms", "300", &guest("spin.wasm")]);
    assert_eq!(spin.code, 1);
    assert!(spin.stderr.contains("deadline"), "{}", spin.stderr);
    let fuel = person.run(&["run", "--fuel", "1000000", &guest("spin.wasm")]);
    assert!(fuel.stderr.contains("fuel"), "{}", fuel.stderr);
    assert_eq!(fuel.code, 1);
    assert!(fuel.stderr.contains("1000000"), "{}", fuel.stderr);
    let grow = person.run(&["run", "--memory-max-mb", "8", &guest("grow.wasm")]);
    assert_eq!(grow.code, 0, "the guest goes on without: {}", grow.stderr);
    let told = grow.stdout.split("refused after ").nth(1).unwrap();
    let got: u64 = told.split(' ').next().unwrap().parse().unwrap();
    assert!((1..8).contains(&got), "{}", grow.stdout);
}

/// The most memory that `realm run` took while a guest held all that it could get, in MiB.
fn held(person: &realm_testkit::Cluster, limit_mb: &str) -> u64 {
    let mut command = person.command();
    command.args([
        "run",
        "--memory-max-mb",
        limit_mb,
        &guest("grow.wasm"),
        "--",
        "hold",
    ]);
    let mut running = command.stdout(Stdio::piped()).spawn().unwrap();
    let mut line = String::new();
    let mut stdout = BufReader::new(running.stdout.take().unwrap());
    stdout.read_line(&mut line).unwrap();
    let status = std::fs::read_to_string(format!("/proc/{}/status", running.id())).unwrap();
    drop(KilledAtTheEnd(running));
    assert!(line.contains("refused after"), "{line}");
    let peak = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    let kib = peak.unwrap().trim().trim_end_matches(" kB");
    kib.parse::<u64>().unwrap() / 1024
}

#[test]
fn the_memory_of_a_guest_is_that_of_the_process() {
    let person = cluster();
    let (small, large) = (held(&person, "8"), held(&person, "256"));
    // Between the two lies what the limit gave, and no more.
    let between = large.saturating_sub(small);
    assert!((180..280).contains(&between), "{small} and {large} MiB");
    assert!(small < 160, "{small} MiB with 8 for the guest");
}

#[test]
fn files_are_reached_only_where_a_volume_was_granted() {
    let person = cluster();
    let shared = person.path().join("shared");
    std::fs::create_dir(&shared).unwrap();
    std::fs::write(shared.join("in"), "content").unwrap();
    std::fs::write(person.path().join("secret"), "sentinel").unwrap();
    let probe = guest("fs-probe.wasm");
    let secret = format!("read:{}", person.path().join("secret").display());
    let none = person.run(&["run", &probe, "--", &secret, "read:/data/in"]);
    assert!(
        !none.stdout.contains("sentinel") && !none.stdout.contains("content"),
        "{}",
        none.stdout
    );
    let volume = format!("{}:/data:ro", shared.display());
    let read = person.run(&[
        "run",
        "--volume",
        &volume,
        &probe,
        "--",
        "read:/data/in",
        "write:/data/out",
        "read:/data/../secret",
        "escape:/data",
    ]);
    assert!(!read.stdout.contains("sentinel"), "{}", read.stdout);
    assert!(
        !shared.join("out").exists(),
        "a read-only volume is not written"
    );
    let volume = format!("{}:/data:rw", shared.display());
    person.run(&["run", "--volume", &volume, &probe, "--", "write:/data/out"]);
    assert!(shared.join("out").exists());
    let near = person
        .command()
        .current_dir(person.path())
        .args([
            "run",
            "--volume",
            "./shared:/data:ro",
            &probe,
            "--",
            "read:/data/in",
        ])
        .output()
        .unwrap();
    assert!(String::from_utf8_lossy(&near.stdout).contains("content"));
}

#[test]
fn inspect_says_what_a_file_is_and_what_it_needs() {
    let person = cluster();
    let json = person.ok(&["inspect", &guest("hello.wasm"), "-o", "json"]);
    let value: serde_json::Value = serde_json::from_str(&json).unwrap();
    assert_eq!(value["kind"], "component", "{json}");
    assert!(
        person
            .ok(&["inspect", &guest("net-probe.wasm")])
            .contains("sockets")
    );
    let text = person.path().join("text");
    std::fs::write(&text, "this is no wasm").unwrap();
    let refused = person.run(&["inspect", &text.display().to_string()]);
    assert_eq!(refused.code, 2, "{}", refused.stderr);
    let library = person.run(&["run", &guest("adder.wasm")]);
    assert_eq!(library.code, 2, "{}", library.stderr);
    // It was checked only: what is kept is what it is, and no code.
    let kept = std::fs::read_dir(person.path().join("state/compiled")).unwrap();
    let kept: Vec<String> = kept
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    assert!(kept.iter().any(|name| name.ends_with(".facts")), "{kept:?}");
    assert!(!kept.iter().any(|name| name.contains(".code")), "{kept:?}");
    let http = person.run(&["run", &guest("hello-http.wasm")]);
    assert!(
        http.code != 0 && http.stderr.contains("http"),
        "{}",
        http.stderr
    );
}

#[test]
fn a_program_that_forges_lines_or_turns_them_around_is_shown_as_it_is() {
    let person = cluster();
    let file = person.path().join("forged.wasm");
    let forged = r#"(module
        (import "env\nruns     yes" "a\u{202e}b\u{200f}\u{61c}\u{2066}\u{1b}[2J" (func))
        (func (export "_start"))
        (func (export "x\nmade by  somebody 1 (language)")))"#;
    std::fs::write(&file, wat::parse_str(forged).unwrap()).unwrap();
    let file = file.display().to_string();
    let inspected = person.ok(&["inspect", &file]);
    let refused = person.run(&["run", &file]);
    assert_eq!(refused.code, 126, "{}", refused.stderr);
    for shown in [&inspected, &refused.stderr] {
        let forged = |line: &str| line.starts_with("runs     yes") || line.starts_with("made by");
        assert!(!shown.lines().any(forged), "{shown}");
        let obeyed = |letter: char| {
            let turns = ['\u{202e}', '\u{200f}', '\u{61c}', '\u{2066}'].contains(&letter);
            turns || (letter.is_control() && letter != '\n')
        };
        assert!(!shown.contains(obeyed), "{shown:?}");
        assert!(shown.contains(r"a\u{202e}b\u{200f}"), "{shown}");
    }
    assert!(inspected.contains(r"env\nruns     yes"), "{inspected}");
}

#[test]
fn an_empty_file_is_no_setting_that_is_wrong() {
    let person = cluster();
    let file = person.path().join("empty.wasm");
    std::fs::write(&file, "").unwrap();
    let file = file.display().to_string();
    for (command, code) in [("inspect", 2), ("run", 126)] {
        let refused = person.run(&[command, &file]);
        assert_eq!(refused.code, code, "{}", refused.stderr);
        let cause = "cause: the file is empty\n";
        assert!(refused.stderr.contains(cause), "{}", refused.stderr);
    }
}

#[test]
fn a_program_whose_compiled_code_cannot_be_kept_is_told_where_and_what_helps() {
    let person = cluster();
    let blocked = person.path().join("blocked");
    std::fs::write(&blocked, "no directory").unwrap();
    let broken = person.path().join("broken");
    std::fs::create_dir(&broken).unwrap();
    std::fs::write(broken.join("compiled"), "no directory").unwrap();
    let below = blocked.join("state");
    for (state, named) in [
        (below.clone(), below.join("cache.key")),
        ("/proc/nope".into(), "/proc/nope/cache.key".into()),
        (broken.clone(), broken.join("compiled")),
    ] {
        let state = state.display().to_string();
        let failed = person.run(&["--state-dir", &state, "run", &guest("hello.wasm")]);
        assert_eq!(failed.code, 125, "{}", failed.stderr);
        for words in [
            &*named.display().to_string(),
            "choose another place: --state-dir DIR, or REALM_STATE_DIR",
        ] {
            assert!(failed.stderr.contains(words), "{words}: {}", failed.stderr);
        }
    }
    let state = below.display().to_string();
    let failed = person.run(&["--state-dir", &state, "run", &guest("hello.wasm")]);
    let why = format!("{} is not a directory", blocked.display());
    assert!(failed.stderr.contains(&why), "{}", failed.stderr);
    assert!(
        failed.stderr.contains("help: move it away; or choose"),
        "{}",
        failed.stderr
    );
}

#[test]
fn nodes_that_do_not_answer_are_named_once_each() {
    let person = cluster();
    let realms = std::fs::read_dir(person.path().join("state/realms")).unwrap();
    let realm = realms
        .map(|entry| entry.unwrap().path())
        .find(|path| path.is_dir())
        .unwrap();
    let ports = 1..=6;
    let peers: Vec<String> = ports
        .map(|port| format!("/ip4/127.0.0.1/tcp/{port}"))
        .collect();
    std::fs::write(realm.join("peers"), peers.join("\n")).unwrap();
    let failed = person.run(&["status"]);
    assert_eq!(failed.code, 7, "{}", failed.stderr);
    let causes: Vec<&str> = failed
        .stderr
        .lines()
        .filter(|line| line.contains("cause: "))
        .collect();
    let refused = |line: &&&str| line.matches("/ip4/").count() == 1 && line.contains("refused");
    assert_eq!(
        causes.iter().filter(refused).count(),
        4,
        "{}",
        failed.stderr
    );
    assert!(causes[4].ends_with("and 2 more"), "{}", failed.stderr);
}

#[test]
fn mistakes_are_answered_with_the_next_step() {
    let person = cluster();
    assert_eq!(person.run(&["stauts"]).code, 2);
    let nobody = person.run(&["status", "--via", "/ip4/127.0.0.1/tcp/1"]);
    assert_eq!(nobody.code, 7, "{}", nobody.stderr);
    assert!(
        nobody.stderr.contains("no agent answers"),
        "{}",
        nobody.stderr
    );
    assert_eq!(person.run(&["use", "nowhere"]).code, 5);
    assert!(
        person
            .ok(&["help", "exit-codes"])
            .contains("no agent could be reached")
    );
    assert!(person.ok(&["completions", "bash"]).contains("realm"));
}

#[test]
fn a_reader_that_leaves_ends_a_command_quietly() {
    let person = cluster();
    let script = format!(
        "set -o pipefail; for i in $(seq 20); do {} ls || exit 1; done | head -n 1 >/dev/null",
        env!("CARGO_BIN_EXE_realm")
    );
    let output = Command::new("bash")
        .args(["-c", &script])
        .env("HOME", person.path())
        .env("REALM_STATE_DIR", person.path().join("state"))
        .output()
        .unwrap();
    let stderr = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(
        !stderr.contains("Broken pipe") && !stderr.contains("error"),
        "{stderr}"
    );
}

#[test]
fn the_level_of_the_log_follows_rust_log() {
    let person = cluster();
    let run = ["run", &guest("hello.wasm")];
    // Compiling is worth a word where it takes long; the second time there is nothing to compile.
    person.ok(&run);
    assert_eq!(person.run(&run).stderr, "");
    let told = person.run_with(&run, &[("RUST_LOG", "realm_runtime=trace")]);
    assert!(told.stderr.contains("realm_runtime"), "{}", told.stderr);
    assert_eq!(person.run_with(&run, &[("RUST_LOG", "error")]).stderr, "");
}

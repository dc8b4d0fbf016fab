//! Colour, and views that go on: on a terminal, and where there is none.

use std::{
    fs::{self, File},
    process::{Command, Stdio},
    time::{Duration, Instant},
};

use realm_testkit::{Cluster, wait_for};

use crate::{KilledAtTheEnd, cluster, guest};

const GREEN: &str = "\u{1b}[32m";
const RED: &str = "\u{1b}[31m";
const HOME: &str = "\u{1b}[H\u{1b}[J";

fn one_node() -> (Cluster, String) {
    let mut realm = cluster();
    realm.add_node("one", &[]);
    realm.wait_ready("one");
    let via = realm.address("one");
    (realm, via)
}

#[test]
fn colour_is_what_the_flag_and_the_variables_say() {
    let (realm, via) = one_node();
    let ask = |flag: &[&str], env: &[(&str, &str)]| {
        // Tests have it set; empty it says nothing.
        let env = [&[("NO_COLOR", "")][..], env].concat();
        realm.run_with(&[&["status", "--via", &via][..], flag].concat(), &env)
    };
    let ready = format!("{GREEN}ready");
    for (flag, env, coloured) in [
        (&[][..], &[][..], false),
        (&["--color", "always"], &[], true),
        (&["--color", "always"], &[("NO_COLOR", "1")], true),
        (&["--color", "never"], &[("CLICOLOR_FORCE", "1")], false),
        (&[], &[("CLICOLOR_FORCE", "1")], true),
        (&[], &[("CLICOLOR_FORCE", "1"), ("NO_COLOR", "1")], false),
    ] {
        let printed = ask(flag, env);
        let has = printed.stdout.contains(&ready);
        assert_eq!(has, coloured, "{flag:?} {env:?}: {:?}", printed.stdout);
        assert_eq!(printed.stdout.contains('\u{1b}'), coloured);
    }
    let json = ask(&["--color", "always", "-o", "json"], &[]);
    assert!(!json.stdout.contains('\u{1b}'), "{}", json.stdout);

    for wrong in [&["status", "nobody"][..], &["status", "--nobody"]] {
        let via = ["--via", &via, "--color", "always"];
        let printed = realm.run(&[wrong, &via].concat());
        let begin = printed.stderr.lines().next().unwrap();
        assert!(begin.contains(RED), "{begin:?}");
        assert!(begin.contains("error["), "{begin:?}");
    }
    let help = realm.ok(&["help", "status", "--color", "always"]);
    assert!(help.contains('\u{1b}'), "{help}");
    assert!(!realm.ok(&["help", "status"]).contains('\u{1b}'));
}

#[test]
fn a_pipe_gets_no_picture_twice() {
    /// A node that is followed says something every two seconds.
    const LONG: Duration = Duration::from_secs(7);
    let (realm, via) = one_node();
    let hello = guest("hello.wasm");
    realm.ok(&["push", "hello", &hello, "--wait", "--via", &via]);
    let path = realm.path().join("pictures");
    let _watching = KilledAtTheEnd(
        realm
            .command()
            .args(["status", "hello", "--watch", "--via", &via])
            .stdout(File::create(&path).unwrap())
            .stderr(Stdio::null())
            .spawn()
            .unwrap(),
    );
    let pictures = || {
        let text = fs::read_to_string(&path).unwrap();
        text.matches("hello  done").count()
    };
    wait_for("a picture", || (pictures() > 0).then_some(()));
    let begun = Instant::now();
    wait_for("a while of it", || (begun.elapsed() > LONG).then_some(()));
    assert_eq!(pictures(), 1, "{}", fs::read_to_string(&path).unwrap());
    realm.ok(&["restart", "hello", "--via", &via]);
    wait_for("what changed is shown", || (pictures() > 1).then_some(()));
}

#[test]
fn a_terminal_is_drawn_over_also_without_colours() {
    let (realm, via) = one_node();
    let path = realm.path().join("typescript");
    let program = env!("CARGO_BIN_EXE_realm");
    for (more, coloured) in [("", true), (" --color never", false)] {
        let line = format!("stty cols 60 rows 7; {program} status --watch --via {via}{more}");
        let mut script = Command::new("script");
        script
            .args(["-q", "-f", "-c", &line])
            .arg(&path)
            .env("TERM", "xterm")
            .stdin(Stdio::null())
            .stdout(Stdio::null());
        for (key, value) in realm.command().get_envs() {
            value.map(|value| script.env(key, value));
        }
        script.env_remove("NO_COLOR").env_remove("CLICOLOR_FORCE");
        let mut watching = KilledAtTheEnd(script.spawn().unwrap());
        let seen = wait_for("it is drawn twice", || {
            let seen = fs::read(&path).ok()?;
            let seen = String::from_utf8_lossy(&seen).into_owned();
            (seen.matches(HOME).count() > 1).then_some(seen)
        });
        assert_eq!(
            seen.contains(&format!("{GREEN}ready")),
            coloured,
            "{seen:?}"
        );
        // Too narrow for the columns, and no word is broken.
        assert!(seen.contains("NODE"), "{seen:?}");
        assert!(seen.contains("ready"), "{seen:?}");
        // And too low for all of it.
        assert!(seen.contains("than this terminal has room for"), "{seen:?}");
        watching.0.kill().unwrap();
        watching.0.wait().unwrap();
        fs::remove_file(&path).unwrap();
    }
}

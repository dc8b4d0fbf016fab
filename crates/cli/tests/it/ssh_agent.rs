//! An owner key that an ssh-agent holds.

use std::process::Command;

use crate::{KilledAtTheEnd, cluster, guest};

#[test]
fn an_ssh_agent_can_hold_the_owner_key() {
    let mut realm = cluster();
    let socket = realm.path().join("ssh.sock");
    let Ok(agent) = Command::new("ssh-agent")
        .args(["-D", "-a"])
        .arg(&socket)
        .stdout(std::process::Stdio::null())
        .spawn()
    else {
        realm_testkit::skipped("ssh-agent is not installed");
        return;
    };
    let _agent = KilledAtTheEnd(agent);
    realm_testkit::wait_for("the ssh-agent", || socket.exists().then_some(()));
    let file = realm.path().join("mine");
    let made = Command::new("ssh-keygen")
        .args(["-q", "-t", "ed25519", "-N", "", "-C", "mine", "-f"])
        .arg(&file)
        .status();
    assert!(made.unwrap().success());
    let added = Command::new("ssh-add")
        .arg(&file)
        .env("SSH_AUTH_SOCK", &socket)
        .output();
    assert!(added.unwrap().status.success());
    std::fs::remove_file(&file).unwrap();

    let config = realm.path().join("ssh-config").display().to_string();
    let here = ["--config-dir", &config, "--realm", "by-agent"];
    let socket = [("SSH_AUTH_SOCK", socket.to_str().unwrap())];
    let init = [
        "init",
        "--name",
        "by-agent",
        "--ssh-agent",
        "mine",
        "--config-dir",
        &config,
    ];
    assert_eq!(realm.run(&init).code, 1, "no ssh-agent, no key");
    let made = realm.run_with(&init, &socket);
    assert_eq!(made.code, 0, "{}", made.stderr);
    let kept = std::fs::read_to_string(format!("{config}/owner.key")).unwrap();
    assert!(
        kept.starts_with("ssh-ed25519 "),
        "only the public half is kept"
    );

    let invite = ["invite", "--quiet", "--name", "one"];
    let invite = realm.run_with(&[&invite[..], &here].concat(), &socket);
    assert_eq!(invite.code, 0, "{}", invite.stderr);
    let token = realm.path().join("by-agent.token").display().to_string();
    std::fs::write(&token, invite.stdout).unwrap();
    realm.add_agent("one", &["--enroll-file", &token]);
    let via = realm.address("one");
    let hello = guest("hello.wasm");
    let push = ["push", "hello", &hello, "--wait", "--via", &via];
    let push = [&push[..], &here].concat();
    let pushed = realm.run_with(&push, &socket);
    assert_eq!(pushed.code, 0, "{}", pushed.stderr);
    let refused = realm.run(&push);
    assert!(
        refused.stderr.contains("SSH_AUTH_SOCK"),
        "{}",
        refused.stderr
    );

    // A key that was taken out is not the node's fault.
    let emptied = Command::new("ssh-add")
        .arg("-D")
        .envs(socket.iter().copied())
        .output();
    assert!(emptied.unwrap().status.success());
    let refused = realm.run_with(&push, &socket);
    assert_eq!(refused.code, 4, "{}", refused.stderr);
    assert!(refused.stderr.contains("ssh-add -l"), "{}", refused.stderr);
}

#[test]
fn ctrl_c_does_not_wait_for_an_ssh_agent() {
    use std::io::Read as _;

    let mut realm = cluster();
    realm.add_node("one", &[]);
    realm.wait_ready("one");
    // Takes what it is asked, and never answers.
    let socket = realm.path().join("silent.sock");
    let silent = std::os::unix::net::UnixListener::bind(&socket).unwrap();
    let public = realm.path().join("config/owner.pub");
    let via = realm.address("one");
    let mut asking = realm
        .command()
        .args(["status", "--via", &via, "--key", public.to_str().unwrap()])
        .env("SSH_AUTH_SOCK", &socket)
        .stderr(std::process::Stdio::piped())
        .spawn()
        .unwrap();
    let (mut asked, _) = silent.accept().unwrap();
    asked.read_exact(&mut [0; 5]).unwrap();
    let began = std::time::Instant::now();
    let pid = asking.id().to_string();
    assert!(
        Command::new("kill")
            .args(["-s", "INT", &pid])
            .status()
            .unwrap()
            .success()
    );
    let ended = asking.wait().unwrap();
    assert_eq!(ended.code(), Some(130));
    assert!(began.elapsed() < std::time::Duration::from_secs(10));
}

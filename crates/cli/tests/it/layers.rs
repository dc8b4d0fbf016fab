//! Settings of the command line: which layer wins, and that each has its say.

use std::{fs, path::Path};

use realm_testkit::Cluster;

use crate::cluster;

fn write(path: &Path, text: &str) {
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    fs::write(path, text).unwrap();
}

/// One setting as `config show -o json` tells it, asked in a project's directory.
fn shown(realm: &Cluster, key: &str, args: &[&str], env: &[(&str, &str)]) -> (String, String) {
    let output = realm
        .command()
        .current_dir(realm.path().join("project"))
        .args(["config", "show", "--origin", "-o", "json"])
        .args(args)
        .env("REALM_SYSTEM_DIR", realm.path().join("etc"))
        .envs(env.iter().copied())
        .output()
        .unwrap();
    let words = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{words}");
    let value: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    let text = |what: &str| value[key][what].as_str().unwrap_or("unset").to_owned();
    (text("value"), text("origin"))
}

#[test]
fn the_upper_layer_wins_and_the_next_one_follows_when_it_is_gone() {
    let realm = cluster();
    let system = realm.path().join("etc/config.toml");
    let user = realm.path().join("config/config.toml");
    let project = realm.path().join("project/.realm/config.toml");
    for (path, port) in [(&system, 1), (&user, 2), (&project, 3)] {
        write(path, &format!("via = \"/ip4/192.0.2.1/tcp/{port}\"\n"));
    }
    let at = |port: u16| format!("/ip4/192.0.2.1/tcp/{port}");
    let (variable, flag) = (at(4), at(5));
    let env = [("REALM_VIA", variable.as_str())];
    let via = |args: &[&str], env: &[(&str, &str)]| shown(&realm, "via", args, env);

    assert_eq!(via(&["--via", &flag], &env), (at(5), "flag".into()));
    assert_eq!(via(&[], &env), (at(4), "variable REALM_VIA".into()));
    let below = [("project", project), ("user", user), ("system", system)];
    for (port, (layer, path)) in [3, 2, 1].into_iter().zip(below) {
        let (value, origin) = via(&[], &[]);
        assert_eq!(value, at(port));
        assert!(origin.starts_with(layer), "{origin}");
        fs::remove_file(path).unwrap();
    }
    assert_eq!(via(&[], &[]), ("unset".into(), "unset".into()));
}

#[test]
fn a_passphrase_file_is_a_setting() {
    let realm = cluster();
    let words = realm.path().join("words");
    write(&words, "correct horse\n");
    let words = words.display().to_string();
    let key = realm.path().join("locked").display().to_string();
    let init = ["init", "--name", "locked", "--passphrase", "--key", &key];
    let by_variable = [("REALM_PASSPHRASE_FILE", words.as_str())];
    assert_eq!(realm.run_with(&init, &by_variable).code, 0);

    let export = ["key", "export", "-", "--key", &key];
    assert_eq!(realm.run(&export).code, 4, "nothing says where it is");
    assert_eq!(realm.run_with(&export, &by_variable).code, 0);
    let user = realm.path().join("config/config.toml");
    write(&user, &format!("passphrase-file = \"{words}\"\n"));
    assert_eq!(realm.run(&export).code, 0);
    write(&realm.path().join("wrong"), "wrong\n");
    let wrong = realm.path().join("wrong").display().to_string();
    let flag = [&export[..], &["--passphrase-file", &wrong]].concat();
    assert_eq!(realm.run_with(&flag, &by_variable).code, 4, "a flag wins");

    fs::create_dir(realm.path().join("project")).unwrap();
    let told = |args: &[&str], env: &[(&str, &str)]| shown(&realm, "passphrase-file", args, env).1;
    assert!(told(&[], &[]).starts_with("user "));
    assert_eq!(told(&[], &by_variable), "variable REALM_PASSPHRASE_FILE");
    assert_eq!(told(&["--passphrase-file", &wrong], &by_variable), "flag");
}

#[test]
fn the_agents_own_file_is_a_setting() {
    let realm = cluster();
    let mistake = |name: &str| {
        let path = realm.path().join(name);
        write(&path, &format!("{name} = 1\n"));
        path.display().to_string()
    };
    let (flag, variable, user) = (mistake("flag"), mistake("variable"), mistake("user"));
    let data = realm.data("one").display().to_string();
    let agent = ["agent", "--data", &data];
    let by_variable = [("REALM_AGENT_CONFIG", variable.as_str())];
    let config = realm.path().join("config/config.toml");
    write(&config, &format!("agent-config = \"{user}\"\n"));

    // What the file is seen by is the unknown key in it.
    let refused = |args: &[&str], env: &[(&str, &str)], name: &str| {
        let refused = realm.run_with(args, env);
        assert_eq!(refused.code, 2, "{}", refused.stderr);
        assert!(refused.stderr.contains(&format!("unknown field `{name}`")));
    };
    let flagged = [&agent[..], &["--config", &flag]].concat();
    refused(&flagged, &by_variable, "flag");
    refused(&agent, &by_variable, "variable");
    refused(&agent, &[], "user");
}

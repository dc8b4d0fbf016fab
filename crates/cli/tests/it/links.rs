//! Links that somebody put into an agent's directory: it follows none, whatever it is allowed to do.

use std::{
    fs::{self, Permissions},
    os::unix::fs::{MetadataExt as _, PermissionsExt as _, symlink},
    path::Path,
};

use crate::{cluster, guest};

/// These hold nothing: what has their name goes when they are written.
const REPLACED: [&str; 1] = ["agent.json"];

/// What lies at a path and below it: names, modes and sizes.
fn picture(path: &Path, found: &mut Vec<String>) {
    let metadata = fs::symlink_metadata(path).unwrap();
    found.push(format!("{} {:o}", path.display(), metadata.mode()));
    if metadata.is_dir() {
        let mut inside: Vec<_> = fs::read_dir(path)
            .unwrap()
            .map(|entry| entry.unwrap().path())
            .collect();
        inside.sort();
        inside.iter().for_each(|path| picture(path, found));
    } else {
        found.push(format!("{:?}", fs::read(path).unwrap()));
    }
}

fn seen(path: &Path) -> Vec<String> {
    let mut found = Vec::new();
    picture(path, &mut found);
    found
}

#[test]
fn an_agent_refuses_links_in_its_directory_and_touches_nothing_behind_them() {
    let mut realm = cluster();
    realm.add_node("one", &[]);
    realm.wait_ready("one");
    let via = realm.address("one");
    realm.ok(&[
        "push",
        "ticker",
        &guest("ticker.wasm"),
        "--wait",
        "--via",
        &via,
    ]);
    realm.stop("one");

    let data = realm.data("one");
    let outside = realm.path().join("outside");
    fs::create_dir(&outside).unwrap();
    let start = || {
        let data = data.display().to_string();
        let agent = ["agent", "--no-mdns", "--data", &data];
        let ports = ["--listen", "/ip4/127.0.0.1/tcp/0", "--http", "127.0.0.1:0"];
        realm.run(&[&agent[..], &ports].concat())
    };
    let mut names: Vec<String> = fs::read_dir(&data)
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .filter(|name| !REPLACED.contains(&name.as_str()))
        .collect();
    names.sort();
    for known in [
        "compiled",
        "blobs",
        "volumes",
        "lock",
        "ledger.redb",
        "boot",
    ] {
        assert!(names.iter().any(|name| name == known), "{names:?}");
    }
    for name in names {
        let (here, there) = (data.join(&name), outside.join(&name));
        fs::rename(&here, &there).unwrap();
        let mode = if there.is_dir() { 0o777 } else { 0o644 };
        fs::set_permissions(&there, Permissions::from_mode(mode)).unwrap();
        let before = seen(&there);
        symlink(&there, &here).unwrap();

        let refused = start();
        let words = &refused.stderr;
        assert_eq!(refused.code, 1, "{name}: {words}");
        let link = format!("{} is a symbolic link", here.display());
        assert!(words.contains(&link), "{name}: {words}");
        assert_eq!(seen(&there), before, "{name}");

        fs::remove_file(&here).unwrap();
        fs::set_permissions(&there, Permissions::from_mode(mode & 0o700)).unwrap();
        fs::rename(&there, &here).unwrap();
    }
    // The directory as a whole may be anywhere.
    fs::rename(&data, outside.join("one")).unwrap();
    symlink(outside.join("one"), &data).unwrap();
    realm.start("one");
    realm.wait_ready("one");
}

#[test]
fn what_is_written_for_the_moment_replaces_a_link_and_not_what_it_leads_to() {
    let mut realm = cluster();
    let data = realm.data("one");
    fs::create_dir(&data).unwrap();
    // An agent was here before.
    fs::write(data.join("lock"), "").unwrap();
    let theirs = realm.path().join("theirs");
    fs::write(&theirs, "kept").unwrap();
    for name in [
        "agent.json",
        "agent.json.new",
        "trial",
        "http.token.new",
        "boot.new",
    ] {
        symlink(&theirs, data.join(name)).unwrap();
    }
    realm.add_node("one", &[]);
    realm.wait_ready("one");
    assert_eq!(fs::read_to_string(&theirs).unwrap(), "kept");
    assert!(
        !fs::symlink_metadata(data.join("agent.json"))
            .unwrap()
            .is_symlink()
    );
}

#[test]
fn a_cell_gets_no_volume_that_a_link_leads_to() {
    let mut realm = cluster();
    realm.add_node("one", &[]);
    realm.wait_ready("one");
    let via = realm.address("one");
    let theirs = realm.path().join("theirs");
    fs::create_dir(&theirs).unwrap();
    symlink(&theirs, realm.data("one").join("volumes/count")).unwrap();
    let volume = ["--volume", "data:/data", "--via", &via];
    let push = ["push", "count", &guest("counter-volume.wasm")];
    realm.ok(&[&push[..], &volume].concat());
    let status = realm.wait_status("one", "the volume is refused", |status| {
        status["components"][0]["cells"][0]["reason"]["code"] == "volume"
    });
    let reason = &status["components"][0]["cells"][0]["reason"]["message"];
    assert!(
        reason.as_str().unwrap().contains("symbolic link"),
        "{reason}"
    );
    assert_eq!(fs::read_dir(&theirs).unwrap().count(), 0);
}

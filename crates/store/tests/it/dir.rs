//! One directory, one agent, and small files that notice damage.

use std::{error::Error as _, fs::Permissions, os::unix::fs::PermissionsExt as _};

use realm_store::{DataDir, DirError, Kept, StateFileError};

#[test]
fn a_second_agent_is_refused_and_told_who_has_it() {
    let temp = tempfile::tempdir().unwrap();
    let path = temp.path().join("data");
    let first = DataDir::open(&path).unwrap();
    assert_eq!(
        std::fs::metadata(&path).unwrap().permissions().mode() & 0o777,
        0o700
    );
    let error = DataDir::open(&path).unwrap_err();
    assert!(
        error.to_string().contains(&std::process::id().to_string()),
        "{error}"
    );
    drop(first);
    DataDir::open(&path).unwrap();
}

#[test]
fn a_secret_is_made_once() {
    let temp = tempfile::tempdir().unwrap();
    let dir = DataDir::open(temp.path()).unwrap();
    assert_eq!(dir.secret("node.key", || Ok([7; 32])).unwrap(), [7; 32]);
    assert_eq!(dir.secret("node.key", || Ok([8; 32])).unwrap(), [7; 32]);
    let mode = std::fs::metadata(temp.path().join("node.key"))
        .unwrap()
        .permissions()
        .mode();
    assert_eq!(mode & 0o777, 0o600);

    // Also where a crash left an open file of the name that it is made under.
    let left = temp.path().join("cache.key.new");
    std::fs::write(&left, b"half").unwrap();
    std::fs::set_permissions(&left, Permissions::from_mode(0o666)).unwrap();
    dir.secret("cache.key", || Ok([9; 32])).unwrap();
    assert_eq!(dir.secret("cache.key", || Ok([8; 32])).unwrap(), [9; 32]);
}

#[test]
fn a_lost_key_of_a_directory_in_use_is_not_replaced() {
    for trace in ["ledger.redb", "ledger.mark", "claim"] {
        let temp = tempfile::tempdir().unwrap();
        let dir = DataDir::open(temp.path()).unwrap();
        assert_eq!(dir.identity("node.key", || Ok([7; 32])).unwrap(), [7; 32]);
        std::fs::write(temp.path().join(trace), b"x").unwrap();
        assert_eq!(dir.identity("node.key", || Ok([8; 32])).unwrap(), [7; 32]);
        std::fs::remove_file(temp.path().join("node.key")).unwrap();
        let error = dir.identity("node.key", || Ok([8; 32])).unwrap_err();
        assert!(matches!(error, DirError::KeyGone { .. }), "{error:?}");
        for words in [
            "node.key",
            trace,
            "from a backup",
            "move the whole directory",
        ] {
            assert!(error.to_string().contains(words), "{error}");
        }
        assert!(!temp.path().join("node.key").exists());
        // Nobody knows the node by this one.
        dir.secret("cache.key", || Ok([9; 32])).unwrap();
    }
}

#[test]
fn a_key_that_others_may_read_is_refused_and_says_what_to_do() {
    let temp = tempfile::tempdir().unwrap();
    let dir = DataDir::open(temp.path()).unwrap();
    let path = temp.path().join("node.key");
    dir.identity("node.key", || Ok([7; 32])).unwrap();
    for mode in [0o644, 0o640, 0o660, 0o604] {
        std::fs::set_permissions(&path, Permissions::from_mode(mode)).unwrap();
        for error in [
            dir.identity("node.key", || Ok([8; 32])).unwrap_err(),
            dir.secret("node.key", || Ok([8; 32])).unwrap_err(),
        ] {
            assert!(matches!(error, DirError::KeyExposed { .. }), "{error:?}");
            assert!(error.to_string().contains("chmod 600"), "{error}");
        }
    }
    std::fs::set_permissions(&path, Permissions::from_mode(0o400)).unwrap();
    assert_eq!(dir.identity("node.key", || Ok([8; 32])).unwrap(), [7; 32]);
}

#[test]
fn an_open_directory_is_closed_and_a_shared_one_refused() {
    let temp = tempfile::tempdir().unwrap();
    let path = temp.path().join("data");
    let mode = |path: &std::path::Path| path.metadata().unwrap().permissions().mode() & 0o7777;
    drop(DataDir::open(&path).unwrap().subdir("volumes").unwrap());
    for dir in [&path, &path.join("volumes")] {
        std::fs::set_permissions(dir, Permissions::from_mode(0o755)).unwrap();
    }
    DataDir::open(&path).unwrap().subdir("volumes").unwrap();
    assert_eq!(mode(&path), 0o700);
    assert_eq!(mode(&path.join("volumes")), 0o700);
    std::fs::set_permissions(&path, Permissions::from_mode(0o1777)).unwrap();
    assert!(matches!(DataDir::open(&path), Err(DirError::Open { .. })));
    assert_eq!(mode(&path), 0o1777, "nobody's /tmp is closed");
}

#[test]
fn a_directory_of_somebody_else_is_refused_and_left_as_it_is() {
    let temp = tempfile::tempdir().unwrap();
    let path = temp.path().join("etc");
    std::fs::create_dir_all(path.join("boot")).unwrap();
    std::fs::set_permissions(&path, Permissions::from_mode(0o755)).unwrap();
    let error = DataDir::open(&path).unwrap_err();
    assert!(matches!(error, DirError::Foreign { .. }), "{error:?}");
    assert!(error.to_string().contains("it has boot"), "{error}");
    let mode = path.metadata().unwrap().permissions().mode() & 0o777;
    assert_eq!(mode, 0o755, "nobody's /etc is closed");
    assert_eq!(std::fs::read_dir(&path).unwrap().count(), 1);

    // An empty one is taken, also one that is a disk of its own or was made for a user, and so is a backup of the
    // key alone.
    for name in ["lost+found", ".snapshot", ".bashrc", "node.key"] {
        let path = temp.path().join(name);
        std::fs::create_dir(&path).unwrap();
        match name {
            "node.key" | ".bashrc" => std::fs::write(path.join(name), "a text").unwrap(),
            _ => std::fs::create_dir(path.join(name)).unwrap(),
        }
        DataDir::open(&path).unwrap();
    }
}

#[test]
fn a_file_in_the_place_of_a_directory_is_named_and_left_as_it_is() {
    let temp = tempfile::tempdir().unwrap();
    let path = temp.path().join("data");
    let dir = DataDir::open(&path).unwrap();
    let blobs = path.join("blobs");
    std::fs::write(&blobs, "a file").unwrap();
    std::fs::set_permissions(&blobs, Permissions::from_mode(0o644)).unwrap();
    let Err(DirError::Open { path, source }) = dir.subdir("blobs") else {
        panic!("a file is no directory");
    };
    assert_eq!(path, blobs);
    assert!(source.to_string().contains("move it away"), "{source}");
    let mode = blobs.metadata().unwrap().permissions().mode() & 0o777;
    assert_eq!(mode, 0o644);
}

#[test]
fn a_directory_in_the_place_of_a_file_is_said_with_what_to_do() {
    let temp = tempfile::tempdir().unwrap();
    let dir = DataDir::open(temp.path()).unwrap();
    std::fs::create_dir(temp.path().join("floor")).unwrap();
    let file = dir.state_file("floor");
    for error in [file.read().unwrap_err(), file.write(b"1").unwrap_err()] {
        let cause = error.source().expect("why").to_string();
        assert!(cause.contains("move it away"), "{error}: {cause}");
    }
}

#[test]
fn files_whose_names_differ_only_in_their_extension_do_not_meet() {
    let temp = tempfile::tempdir().unwrap();
    let dir = DataDir::open(temp.path()).unwrap();
    let (one, two) = (dir.state_file("node.key"), dir.state_file("node.pin"));
    // What a crash leaves of the one is not what the other is made of.
    std::fs::create_dir(temp.path().join("node.new")).unwrap();
    std::fs::create_dir(temp.path().join("node.key.new")).unwrap();
    assert!(one.write(b"one").is_err());
    two.write(b"two").unwrap();
    assert_eq!(two.read().unwrap().unwrap(), b"two");
}

#[test]
fn every_flipped_byte_and_every_cut_is_noticed() {
    let temp = tempfile::tempdir().unwrap();
    let dir = DataDir::open(temp.path()).unwrap();
    let file = dir.state_file("pin");
    assert!(file.read().unwrap().is_none());
    file.write(b"who this node trusts").unwrap();
    assert_eq!(file.read().unwrap().unwrap(), b"who this node trusts");
    let whole = std::fs::read(file.path()).unwrap();
    for at in 0..whole.len() {
        let mut bytes = whole.clone();
        bytes[at] ^= 1;
        std::fs::write(file.path(), &bytes).unwrap();
        assert!(
            matches!(file.read(), Err(StateFileError::Damaged { .. })),
            "byte {at}"
        );
        std::fs::write(file.path(), &whole[..at]).unwrap();
        assert!(
            matches!(file.read(), Err(StateFileError::Damaged { .. })),
            "cut at {at}"
        );
    }
}

#[test]
fn a_damaged_secret_is_made_anew_and_a_damaged_identity_is_not() {
    let temp = tempfile::tempdir().unwrap();
    let dir = DataDir::open(temp.path()).unwrap();
    let damage = |name: &str| {
        let path = temp.path().join(name);
        let mut bytes = std::fs::read(&path).unwrap();
        bytes[5] ^= 1;
        std::fs::write(path, bytes).unwrap();
    };
    assert_eq!(dir.secret("cache.key", || Ok([1; 32])).unwrap(), [1; 32]);
    damage("cache.key");
    assert_eq!(dir.secret("cache.key", || Ok([2; 32])).unwrap(), [2; 32]);
    assert_eq!(dir.secret("cache.key", || Ok([3; 32])).unwrap(), [2; 32]);

    assert_eq!(dir.identity("node.key", || Ok([1; 32])).unwrap(), [1; 32]);
    damage("node.key");
    let error = dir.identity("node.key", || Ok([2; 32])).unwrap_err();
    let text = error.to_string();
    assert!(text.contains("node.key is damaged"), "{text}");
    // Leaving would destroy what may still be mended.
    assert!(
        text.contains("move the whole directory aside") && !text.contains("leave"),
        "{text}"
    );
}

#[test]
fn what_may_be_lost_counts_as_absent_when_it_is_damaged() {
    let temp = tempfile::tempdir().unwrap();
    let dir = DataDir::open(temp.path()).unwrap();
    let file = dir.state_file("peers");
    let text = |bytes| String::from_utf8(bytes).ok();
    let aside = dir.path().join("peers.damaged");
    assert_eq!(file.read_or_lose("lost", text).unwrap(), Kept::Nothing);
    file.write(b"here").unwrap();
    let here = Kept::Whole("here".to_owned());
    assert_eq!(file.read_or_lose("lost", text).unwrap(), here);
    file.write(&[255]).unwrap();
    let lost = Kept::Lost(aside.clone());
    assert_eq!(file.read_or_lose("lost", text).unwrap(), lost);
    assert_eq!(
        std::fs::read(&aside).unwrap()[0],
        255,
        "it can be looked at"
    );
    assert_eq!(file.read_or_lose("lost", text).unwrap(), Kept::Nothing);
    std::fs::write(file.path(), b"cut").unwrap();
    assert_eq!(file.read_or_lose("lost", text).unwrap(), lost);
    assert_eq!(
        std::fs::read(&aside).unwrap(),
        b"cut",
        "the last one is kept"
    );
    // What cannot be read at all is another thing.
    std::fs::create_dir(file.path()).unwrap();
    assert!(file.read_or_lose("lost", text).is_err());
}

#[test]
fn what_could_not_be_read_again_is_not_written() {
    let temp = tempfile::tempdir().unwrap();
    let dir = DataDir::open(temp.path()).unwrap();
    let file = dir.state_file("ended").holding(100);
    file.write(&[1; 68]).unwrap();
    assert_eq!(file.read().unwrap().unwrap(), [1; 68]);
    let error = file.write(&[2; 69]).unwrap_err();
    assert!(matches!(error, StateFileError::TooLarge { .. }), "{error}");
    assert_eq!(file.read().unwrap().unwrap(), [1; 68], "it is as it was");
}

#[test]
fn a_link_in_place_of_a_file_is_not_followed() {
    let temp = tempfile::tempdir().unwrap();
    let dir = DataDir::open(&temp.path().join("data")).unwrap();
    std::fs::write(temp.path().join("elsewhere"), b"x").unwrap();
    std::os::unix::fs::symlink(temp.path().join("elsewhere"), dir.path().join("node.key")).unwrap();
    assert!(matches!(
        dir.secret("node.key", || Ok([1; 32])),
        Err(DirError::State(_))
    ));
}

//! One directory, one agent, and small files that notice damage.

use std::os::unix::fs::PermissionsExt as _;

use realm_store::{DataDir, DirError, StateFileError};

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

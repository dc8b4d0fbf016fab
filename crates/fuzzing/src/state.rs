//! Small files that an agent and a person's commands keep, as they find them at their next start.

use std::{fs, path::Path};

use realm_agent::fuzzing::STATE_FILES;
use realm_store::StateFile;

use crate::{scene::scene, scratch, script};

/// What an agent keeps beside the files with a checksum, and what commands keep.
const MORE: [&str; 12] = [
    "agent.json",
    "genesis",
    "mark",
    "owner",
    "peers",
    "names",
    "components",
    "invites",
    "outbox",
    "kept/7",
    "current",
    "head",
];
/// How many of all have a checksum: the first ones.
pub const CHECKED: usize = STATE_FILES.len();
/// How many are an agent's.
pub const AGENTS: usize = CHECKED + 1;
/// A step with this bit has the checksum in its bytes, which then is most often wrong.
const RAW: u8 = 0x80;

/// The files, by the number of a step: first those of an agent, then those of commands.
pub fn files() -> Vec<&'static str> {
    [&STATE_FILES[..], &MORE].concat()
}

/// Steps: a file each. The rest is as after `realm init` and a first start.
pub fn feed(input: &[u8]) {
    let temp = scratch::dir();
    let (agent, person) = (temp.path().join("agent"), temp.path().join("person"));
    let realm = person
        .join("realms")
        .join(scene().genesis.realm_id().to_string());
    fs::create_dir_all(realm.join("kept")).expect("a directory");
    fs::create_dir_all(&agent).expect("a directory");
    put(&realm.join("genesis"), &scene().genesis.to_wire());
    let files = files();
    for step in script::steps(input).take(files.len()) {
        let number = usize::from(step.op & !RAW) % files.len();
        let name = files[number];
        match number {
            0..CHECKED if step.op & RAW == 0 => {
                let file = StateFile::new(agent.join(name));
                file.write(step.bytes).expect("an input is no large file");
            }
            0..AGENTS => put(&agent.join(name), step.bytes),
            _ if name == "current" => put(&person.join(name), step.bytes),
            _ => put(&realm.join(name), step.bytes),
        }
    }
    realm_agent::fuzzing::state(&agent);
    realm::fuzzing::state(&person);
}

fn put(path: &Path, bytes: &[u8]) {
    use std::os::unix::fs::PermissionsExt as _;

    fs::write(path, bytes).expect("a file in a temporary directory");
    // A key that others may read is refused unread.
    let private = fs::Permissions::from_mode(0o600);
    fs::set_permissions(path, private).expect("its owner may");
}

//! Which agents of this machine still run, by the files that they leave for commands.

use std::{fs, path::Path};

use realm_agent::agent_file::{self, AgentInfo};
use rustix::{
    fs::{FlockOperation, flock},
    io::Errno,
    process::{Pid, test_kill_process},
};

use crate::commands::{Session, agent};

/// Those that run, and those that ended without tidying up.
pub(super) fn agents(session: &Session) -> (Vec<AgentInfo>, Vec<AgentInfo>) {
    let data = session.settings.data_dir();
    let found = agent_file::find(&data, agent::runtime_dir().as_deref());
    found.into_iter().partition(|agent| runs(agent, &data))
}

fn runs(agent: &AgentInfo, data: &Path) -> bool {
    if is_alive(agent.pid) {
        return true;
    }
    // One in a container has a number of its own there, and holds its data directory all the same.
    let lies_there = agent_file::find(data, None);
    let is_it = lies_there.iter().any(|other| other.key == agent.key);
    is_it && is_held(data)
}

/// Whether there is such a process, which may be another one by now.
fn is_alive(pid: u32) -> bool {
    let pid = i32::try_from(pid).ok().filter(|pid| *pid > 0);
    let Some(pid) = pid.and_then(Pid::from_raw) else {
        return false;
    };
    // Somebody else's may not be signalled, and is there.
    test_kill_process(pid) != Err(Errno::SRCH) && !is_zombie(pid)
}

/// Whether it ended and nobody has asked how.
fn is_zombie(pid: Pid) -> bool {
    let stat = fs::read_to_string(format!("/proc/{}/stat", pid.as_raw_nonzero()));
    // Its name comes before that in parentheses, and may hold any of them.
    let state = stat.as_deref().ok().and_then(|stat| stat.rsplit_once(") "));
    state.is_some_and(|(_, rest)| rest.starts_with('Z'))
}

/// Whether an agent holds the lock of the data directory.
fn is_held(data: &Path) -> bool {
    let Ok(lock) = fs::File::open(data.join("lock")) else {
        return false;
    };
    // It is let go of at once, with the file.
    flock(&lock, FlockOperation::NonBlockingLockShared) == Err(Errno::WOULDBLOCK)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use std::process::{Command, Stdio};

    use realm_agent::agent_file::AgentFile;
    use realm_identity::SecretKey;

    use super::*;

    #[test]
    fn a_process_that_ended_is_not_alive_also_before_it_is_waited_for() {
        assert!(is_alive(std::process::id()));
        assert!(!is_alive(0) && !is_alive(u32::MAX));
        let mut child = Command::new("cat").stdin(Stdio::piped()).spawn().unwrap();
        assert!(is_alive(child.id()));
        drop(child.stdin.take());
        realm_testkit::wait_for("it ended", || (!is_alive(child.id())).then_some(()));
        child.wait().unwrap();
        assert!(!is_alive(child.id()));
    }

    #[test]
    fn who_holds_the_data_directory_runs_whatever_its_number() {
        let temp = tempfile::tempdir().unwrap();
        let data = temp.path();
        let key = SecretKey::from_seed(&[1; 32]).public();
        AgentFile::new(key, data, None).write(Vec::new(), None, None);
        let mut agent = agent_file::find(data, None).remove(0);
        assert!(runs(&agent, data));
        agent.pid = 0;
        assert!(!runs(&agent, data), "no lock, no process");
        let lock = fs::File::create(data.join("lock")).unwrap();
        assert!(!runs(&agent, data), "nobody holds it");
        flock(&lock, FlockOperation::NonBlockingLockExclusive).unwrap();
        assert!(runs(&agent, data));
        agent.key = SecretKey::from_seed(&[2; 32]).public();
        assert!(!runs(&agent, data), "the directory is another agent's");
    }
}

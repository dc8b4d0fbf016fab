//! Why a cell is as it is, in words that fit a report.

use realm_manifest::{ComponentName, report::Reason, units::size_text};
use realm_p2p::FetchError;
use realm_runtime::{ExitStatus, LimitHit, Stage};
use realm_store::BlobError;

use crate::{
    fetch::{PULLS, Progress, PullError},
    fold::chain,
};

/// Letters of a message or help in a report; the log has the rest.
pub(crate) const MAX_REASON_CHARS: usize = 240;

/// The codes of what ails a node itself.
pub(crate) const DISK_FULL: &str = "disk-full";
pub(crate) const DISK_FAILED: &str = "disk-failed";
pub(crate) const DATA_GONE: &str = "data-gone";

/// The codes of the reasons of a cell whose program is not compiled yet. A report is sent when a code changes.
const QUEUED: &str = "queued";
const COMPILING: &str = "compiling";
/// And of one whose program comes.
const PULLING: &str = "pulling";

/// Every limit that a program met and went on with, and how often.
pub fn met_reason(hits: &[(LimitHit, u64)]) -> Option<Reason> {
    let message = match hits {
        [] => return None,
        [(hit, count)] => format!("{hit} ({count} times)"),
        _ => {
            let names = hits
                .iter()
                .map(|(hit, count)| format!("{} ({count} times)", hit.name()));
            format!("met {}", names.collect::<Vec<_>>().join(", "))
        }
    };
    let remedies = remedies(hits.iter().map(|(hit, _)| hit));
    Some(reason("limit", message, Some(&remedies)))
}

/// A reason that says what another one says too.
pub fn beside(why: Reason, other: &Reason) -> Reason {
    let message = format!("{}; {}", why.message, other.message);
    let help = why.help.as_ref().or(other.help.as_ref());
    reason(&why.code, message, help.map(String::as_str))
}

/// What helps against these limits, each once.
fn remedies<'h>(hits: impl Iterator<Item = &'h LimitHit>) -> String {
    let mut remedies: Vec<&str> = Vec::new();
    for hit in hits {
        if !remedies.contains(&hit.remedy.as_str()) {
            remedies.push(&hit.remedy);
        }
    }
    remedies.join("; ")
}

/// `met` are limits that the program was told of, and went on with.
pub fn ended_reason(name: &ComponentName, status: &ExitStatus, met: &[LimitHit]) -> Option<Reason> {
    if let ExitStatus::Exited(code) = status
        && *code != 0
        && !met.is_empty()
    {
        let hits: Vec<String> = met.iter().map(ToString::to_string).collect();
        let message = format!(
            "ended with exit code {code}, after this: {}",
            hits.join(", ")
        );
        return Some(reason("exit", message, Some(&remedies(met.iter()))));
    }
    match status {
        ExitStatus::Exited(0) => None,
        ExitStatus::Exited(code) => Some(reason(
            "exit",
            format!("ended with exit code {code}"),
            Some(&format!("see why: realm logs {name}")),
        )),
        ExitStatus::Trapped { message } => Some(reason(
            "trap",
            message.clone(),
            Some(&format!("see what it wrote: realm logs {name}")),
        )),
        ExitStatus::LimitHit(hit) => Some(reason("limit", hit.to_string(), Some(&hit.remedy))),
        ExitStatus::Killed => Some(reason("killed", "it was killed".into(), None)),
        ExitStatus::Failed { message } => Some(reason("host", message.clone(), None)),
    }
}

/// Why a program is not here. Whatever it is, it is tried again.
pub fn pull_reason(error: &PullError) -> Reason {
    let message = match error {
        // Its own words are for who sits at the node: what helps comes apart here.
        PullError::Store(BlobError::DiskFull { .. }) => {
            "there is no room for the program: its disk is full".to_owned()
        }
        PullError::Store(error @ BlobError::NoRoom { .. }) => {
            format!("there is no room for the program: {error}")
        }
        error => chain(error),
    };
    let help = match error {
        PullError::Store(BlobError::DiskFull { .. }) => {
            "free space where the node's data directory lies, or lower artifact_mb in its agent.toml; it goes on by itself"
        }
        PullError::Store(BlobError::NoRoom { .. }) => {
            "free space where the node's data directory lies, or place it elsewhere: realm push --tag; it goes on by itself"
        }
        PullError::Store(BlobError::Budget { .. } | BlobError::TooLarge { .. }) => {
            "raise artifact_mb in the node's agent.toml, or take away what is not needed: realm rm; it goes on by itself"
        }
        PullError::NoSource(_) => {
            "start a node that has it, or push it again from a machine that has the file"
        }
        PullError::Stuck { source, .. } => match source {
            FetchError::Failed => {
                "it goes on by itself where another node has it; see the agent's log and the disk of that node"
            }
            FetchError::Refused => {
                "that node does not count this one as approved; compare what both know: realm nodes ls --via ADDR"
            }
            FetchError::Busy => "it serves others; it goes on by itself",
            FetchError::Malformed(_) | FetchError::Range { .. } => {
                "it goes on by itself where another node has it; compare the versions of the two: realm nodes ls"
            }
            _ => {
                "what has come is kept, and it goes on by itself; see the line between the two: realm network"
            }
        },
        PullError::Store(_) | PullError::Interrupted => {
            "it is tried again; if that does not help, see the agent's log on the node"
        }
    };
    reason("pull", message, Some(help))
}

pub fn library_reason(exports: &[String]) -> Reason {
    /// Status is a table: who wants all of them asks `realm inspect`.
    const MANY: usize = 8;
    let mut list = exports
        .iter()
        .take(MANY)
        .cloned()
        .collect::<Vec<_>>()
        .join(", ");
    if exports.is_empty() {
        list.push_str("nothing");
    }
    let help = (exports.len() > MANY).then(|| {
        list.push_str(&format!(" and {} more", exports.len() - MANY));
        "see all: realm inspect FILE"
    });
    reason(
        "library",
        format!("a library has no entry point to run; it exports {list}"),
        help,
    )
}

/// Whether a cell may have run to its end before is not known, and it is run.
pub fn doubtful_reason(name: &ComponentName) -> Reason {
    let message = "it may have ended here before: this node's record of that was damaged";
    let help = format!("if it must not run twice, see what it did: realm logs {name}");
    reason("maybe-again", message.into(), Some(&help))
}

/// How far a pull is that takes a while.
pub fn pulling_reason(progress: Progress, size: u64) -> Reason {
    let message = match progress {
        Progress::Waiting => format!("waits for its turn: {PULLS} programs come at a time"),
        Progress::Here(here) => format!("{} of {} are here", size_text(here), size_text(size)),
    };
    reason(PULLING, message, None)
}

/// What a cell waits for before it can start for the first time.
pub fn compiling_reason(stage: Stage) -> Reason {
    match stage {
        Stage::Waiting { ahead } => reason(
            QUEUED,
            format!("waits for its turn to be compiled: {ahead} before it"),
            None,
        ),
        Stage::Compiling { since, bytes } => {
            let since = jiff::Timestamp::try_from(since).unwrap_or(jiff::Timestamp::UNIX_EPOCH);
            let message = format!(
                "compiling {} since {}",
                size_text(bytes),
                since.strftime("%H:%M:%S UTC")
            );
            let help = "large programs take minutes the first time; the result is kept";
            reason(COMPILING, message, Some(help))
        }
    }
}

/// Whether a reason was one of those, and is over when the program is there.
pub fn is_preparing(reason: &Reason) -> bool {
    [PULLING, QUEUED, COMPILING].contains(&&*reason.code)
}

/// What a report says about a cell. Programs have a hand in some messages: those are cut, and have
/// no control characters.
pub fn reason(code: &str, message: String, help: Option<&str>) -> Reason {
    Reason {
        code: code.into(),
        message: plain(&message),
        help: help.map(plain),
    }
}

/// One line without control characters, of at most [`MAX_REASON_CHARS`] letters and a mark that it was cut.
pub(crate) fn plain(text: &str) -> String {
    let mut plain: String = text
        .chars()
        .map(|letter| if letter.is_control() { ' ' } else { letter })
        .take(MAX_REASON_CHARS)
        .collect();
    if plain.len() < text.len() {
        plain.push('…');
    }
    plain
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_limit_that_the_program_met_on_its_way_is_told() {
        let name: ComponentName = "mem".parse().expect("a name");
        let hit = LimitHit::new(realm_runtime::Limit::Memory, 64 << 20);
        let met = [hit];
        let failed = ended_reason(&name, &ExitStatus::Exited(1), &met).expect("a reason");
        assert!(failed.message.contains("exit code 1"), "{failed:?}");
        assert!(failed.message.contains("limit memory"), "{failed:?}");
        assert!(
            failed
                .help
                .is_some_and(|help| help.contains("memory_max_mb"))
        );
        assert_eq!(ended_reason(&name, &ExitStatus::Exited(0), &met), None);
    }

    #[test]
    fn what_helps_a_pull_depends_on_what_failed() {
        let help = |error| pull_reason(&error).help.expect("a help");
        let source = || std::io::Error::from(std::io::ErrorKind::StorageFull);
        let full = BlobError::DiskFull {
            path: "/data/partial".into(),
            source: source(),
        };
        assert!(help(full.into()).contains("free space"));
        const MIB: u64 = 1024 * 1024;
        let large = BlobError::NoRoom {
            size: 41 * MIB / 2,
            free: 7 * MIB,
            reserve: 2 * MIB,
        };
        let large = pull_reason(&large.into());
        assert!(
            large
                .message
                .contains("20.5 MiB do not fit in the 7 MiB that are free"),
            "{large:?}"
        );
        assert!(large.help.is_some_and(|help| help.contains("--tag")));
        let used = BlobError::Budget {
            size: 1,
            used: 2,
            budget: 2,
        };
        assert!(help(used.into()).contains("artifact_mb"));
        let sha256 = realm_manifest::identity::Hash::of(b"program");
        assert!(help(PullError::NoSource(sha256)).contains("push it again"));
        assert!(!help(PullError::Interrupted).contains("push it again"));
        let stuck = |source| PullError::Stuck {
            sha256,
            from: realm_manifest::identity::SecretKey::from_seed(&[7; 32]).public(),
            source,
        };
        let silent = FetchError::Silent(std::time::Duration::from_secs(3));
        for (source, word) in [
            (silent, "realm network"),
            (FetchError::Failed, "disk of that node"),
            (FetchError::Refused, "realm nodes ls"),
            (FetchError::Busy, "goes on by itself"),
        ] {
            assert!(help(stuck(source)).contains(word), "{word}");
        }
    }

    #[test]
    fn every_limit_that_was_met_is_told_with_its_value_and_remedy() {
        use realm_runtime::Limit;

        let limits = realm_manifest::Limits::default();
        let hits = [Limit::Sockets, Limit::Resources, Limit::Outbound].map(|limit| {
            let hit = LimitHit::of(limit, &limits);
            assert!(hit.value > 0, "{hit}");
            (hit, 2)
        });
        assert_eq!(met_reason(&[]), None);
        let one = met_reason(&hits[..1]).expect("a reason");
        assert!(one.message.contains("limit sockets of 32 met"), "{one:?}");
        let all = met_reason(&hits).expect("a reason");
        for name in ["sockets of 32", "resources of 4096", "outbound of 64"] {
            assert!(all.message.contains(name), "{all:?}");
        }
        let help = all.help.clone().expect("a help");
        assert_eq!(help.matches("close some first").count(), 1, "{help}");
        assert!(help.contains("wait for some first"), "{help}");

        let name: ComponentName = "job".parse().expect("a name");
        let both = beside(doubtful_reason(&name), &all);
        assert_eq!(both.code, "maybe-again");
        assert!(both.message.contains("sockets of 32"), "{both:?}");
    }
}

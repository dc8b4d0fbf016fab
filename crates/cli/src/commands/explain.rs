//! `realm explain`: every code that a status, an alarm or an error has, with what to do about it.

mod nearest;
mod states;

use crate::{
    error::{CliError, ExitCode, Result},
    output::Output,
};

#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:\n  realm explain no-room\n  realm explain            every code")]
pub struct Args {
    /// A code or a state, as status, an alarm or an error has it.
    code: Option<String>,
}

/// One code.
struct Entry {
    code: &'static str,
    /// Where it is met.
    of: Of,
    means: &'static str,
    what_to_do: &'static str,
}

#[derive(Clone, Copy)]
enum Of {
    Cell,
    Component,
    Node,
    Alarm,
    Error,
    /// A word for how a node, a component or a cell is, rather than why.
    State,
}

impl Of {
    const fn name(self) -> &'static str {
        match self {
            Self::Cell => "cell",
            Self::Component => "component",
            Self::Node => "node",
            Self::Alarm => "alarm",
            Self::Error => "error",
            Self::State => "state",
        }
    }
}

const fn entry(code: &'static str, of: Of, means: &'static str, what_to_do: &'static str) -> Entry {
    Entry {
        code,
        of,
        means,
        what_to_do,
    }
}

const ENTRIES: &[Entry] = &[
    entry(
        "compile",
        Of::Cell,
        "The program could not be compiled on this node: it is broken, needs more than a compile may take, or the kernel cannot confine the compiler.",
        "Look at it: realm inspect FILE. On the node: realm doctor.",
    ),
    entry(
        "compiling",
        Of::Cell,
        "The program is compiled for the first time on this node. The result is kept, so the next start takes milliseconds.",
        "Wait. Large programs take minutes.",
    ),
    entry(
        "exit",
        Of::Cell,
        "The program ended with an exit code that is not 0.",
        "See what it wrote: realm logs NAME, and of the run before: realm logs NAME --previous.",
    ),
    entry(
        "full",
        Of::Cell,
        "The node runs as many cells as it may.",
        "Raise max_cells in the agent's config, or place it elsewhere: --tag, --replicas.",
    ),
    entry(
        "host",
        Of::Cell,
        "The node failed at something that is not the program's fault.",
        "The agent's log on that machine says what.",
    ),
    entry(
        "killed",
        Of::Cell,
        "The cell was ended by the node: it was stopped, replaced or drained while it ran.",
        "Nothing, if that was asked for.",
    ),
    entry(
        "library",
        Of::Cell,
        "The program has no entry point: it is kept, listed with its exports, and not run.",
        "Nothing, if that is what it is; else export wasi:cli/run or _start.",
    ),
    entry(
        "limit",
        Of::Cell,
        "The program met a limit. The message names the limit and its value.",
        "Push it with another limit, as the help beside it says, or mend the program.",
    ),
    entry(
        "maybe-again",
        Of::Cell,
        "The node's record of ended jobs was damaged, so a job that had ended may have run once more.",
        "See whether running it twice did harm; the damaged file is kept beside the new one.",
    ),
    entry(
        "pull",
        Of::Cell,
        "The node could not fetch the program from its peers. It tries again.",
        "See that a node which has it is there, and that this node's disk has room: realm nodes ls, realm doctor.",
    ),
    entry(
        "pulling",
        Of::Cell,
        "The program is on its way from another node; the message says how much of it is here.",
        "Wait. What has come is kept. Where it does not go on, see the line between the two: realm network.",
    ),
    entry(
        "queued",
        Of::Cell,
        "The program waits for its turn to be compiled: two are compiled at a time, one of them large.",
        "Wait.",
    ),
    entry(
        "start",
        Of::Cell,
        "The program could not be started: an import, a grant or memory was missing.",
        "The message says which. Look at what it needs: realm inspect FILE.",
    ),
    entry(
        "trap",
        Of::Cell,
        "The program did something that ends it: it panicked, divided by zero, or reached unreachable code.",
        "See what it wrote: realm logs NAME. --wasm-debug on the agent names source lines where the program has them.",
    ),
    entry(
        "unsupported",
        Of::Cell,
        "The component asks for something that this version does not do.",
        "Upgrade the node, or push it without.",
    ),
    entry(
        "volume",
        Of::Cell,
        "A volume cannot be opened: the host directory is not under one of the node's volume_prefixes, or is not there.",
        "Set volume_prefixes in the agent's config, or use a named volume.",
    ),
    entry(
        "behind",
        Of::Component,
        "The node has not taken the newest intents yet: it goes on with what was asked before, and so a component that was removed may still run there.",
        "Wait a moment; if it stays, see what ails the node: realm nodes show NODE. A full disk takes no intents: free space there.",
    ),
    entry(
        "draining",
        Of::Component,
        "The nodes that could run it are being drained, or are away.",
        "Undrain one: realm nodes undrain NAME; or let others take it: realm push NAME FILE --tag TAG.",
    ),
    entry(
        "incompatible",
        Of::Component,
        "The node's version of realm does not understand the log up to where this was changed. What it ran before goes on.",
        "Install the version on it that signed the change: docs/operating/upgrade.md. Which nodes: realm nodes ls.",
    ),
    entry(
        "no-match",
        Of::Component,
        "No node of the realm has the tags, or the name, that it is placed by.",
        "Tag one: realm nodes tag NODE TAG; or place it differently: realm push NAME FILE --tag TAG.",
    ),
    entry(
        "no-nodes",
        Of::Component,
        "The realm has no node that is ready.",
        "Start one: realm agent; see them: realm nodes ls.",
    ),
    entry(
        "no-room",
        Of::Component,
        "No eligible node has enough memory or cells left for it. What was there before keeps its room.",
        "Lower --memory-max-mb of it or others, remove something, raise memory_mb of a node, or add one.",
    ),
    entry(
        "nodes-away",
        Of::Component,
        "The nodes that could run it do not answer.",
        "See why: realm nodes ls.",
    ),
    entry(
        "node-lost",
        Of::Component,
        "The node that should run it does not answer. Where its placement allows, it is started elsewhere; a cell with a named volume that it writes waits.",
        "See why: realm nodes show NODE; take a node out that is gone for good: realm nodes rm NODE.",
    ),
    entry(
        "replacing",
        Of::Component,
        "An older version runs until the new one does.",
        "Wait; if it stays, the new version does not start: realm status NAME.",
    ),
    entry(
        "lost",
        Of::Node,
        "The node has not answered for 1.5 seconds or more. What it runs is not known.",
        "Look at the machine and its line.",
    ),
    entry(
        "unsigned",
        Of::Node,
        "The node that was asked handed over a report that its author has not signed. It does not count.",
        "Ask another node: --via ADDR; find out what is wrong with the first one.",
    ),
    entry(
        "clock",
        Of::Alarm,
        "The clock of a node differs by more than two minutes from that of the node that was asked. Invites and what expires are judged by it.",
        "Set the clock that is wrong, and have it kept right, as by chrony or systemd-timesyncd.",
    ),
    entry(
        "disk-failed",
        Of::Alarm,
        "A node's disk takes no writes. The node goes on with what it runs; new intents and programs do not reach it.",
        "See the agent's log on that machine and mend the disk. Where a sync failed, start the agent again.",
    ),
    entry(
        "disk-full",
        Of::Alarm,
        "There is no room where a node's data directory lies. The node goes on with what it runs; new intents and programs may not reach it.",
        "Free space there. Writing goes on by itself.",
    ),
    entry(
        "data-gone",
        Of::Alarm,
        "A node's data directory was removed, moved or replaced while its agent runs. The node goes on with what it runs and takes no intents, for nothing that it writes would last.",
        "Move the directory back: it goes on by itself. Where it is lost, stop the agent and put a backup there, or enroll the machine anew and take the old node out: realm nodes rm NAME.",
    ),
    entry(
        "invite-used-twice",
        Of::Alarm,
        "Two keys took up one invite. It counts for neither, and both wait.",
        "Let the right one in: realm nodes approve KEY; keep the others out: realm nodes revoke KEY.",
    ),
    entry(
        "unheard",
        Of::Alarm,
        "A node is here, and nothing new is heard of it: others remember a later start of it than the one that speaks, as where an older copy of its data directory was put back.",
        "Start its agent again; it steps over the later start. docs/operating/backup.md has more.",
    ),
    entry(
        "twin",
        Of::Alarm,
        "Two agents run with one node's key, as where its data directory was copied. Others hear now one of them, now the other, so the node is lost and joins again and again.",
        "Stop one of the two. The copy may join as a node of its own: realm leave there, then realm enroll with a new invite. Where nobody made a copy, the key was stolen: realm nodes revoke NAME.",
    ),
    entry(
        "name-used-twice",
        Of::Alarm,
        "Several approved nodes have one name, so it means none of them.",
        "Give one another name: realm nodes rename KEY NAME.",
    ),
    entry(
        "conflict",
        Of::Error,
        "Somebody else changed the realm at the same moment.",
        "Run the command again.",
    ),
    entry(
        "deadline",
        Of::Error,
        "The node took too long to answer.",
        "Try again, or ask another node: --via ADDR.",
    ),
    entry(
        "differs",
        Of::Error,
        "Differences exist.",
        "See them in the output.",
    ),
    entry(
        "disconnected",
        Of::Error,
        "The connection to the node broke.",
        "Try again; another node may answer.",
    ),
    entry(
        "failed",
        Of::Error,
        "Something failed; the message and its causes say what.",
        "As the help beside it says; more words: -v.",
    ),
    entry(
        "forked",
        Of::Error,
        "One revision exists twice, so nothing new is taken until the owner decides. What was agreed before goes on; what only one branch asked for is stopped when the fork is seen.",
        "See the branches and end it: realm history merge. docs/operating/forks.md has more.",
    ),
    entry(
        "interrupted",
        Of::Error,
        "The command was interrupted. What was signed before that is sent by the next one.",
        "Run it again if it was not meant.",
    ),
    entry(
        "invalid",
        Of::Error,
        "The node refuses what was sent, as malformed or against a rule.",
        "The message says which rule. If the versions differ, upgrade: realm doctor.",
    ),
    entry(
        "limit",
        Of::Error,
        "The node refuses what would be too much: for its disk, for artifact_mb in its config, or for what one node or one connection may ask. The message says which node, and how much room there is where that is known.",
        "As the help beside it says: free space there, or ask another node: --via ADDR.",
    ),
    entry(
        "no-agent",
        Of::Error,
        "No agent of the realm could be reached.",
        "Start one: realm agent; name an address: --via /ip4/HOST/udp/2020/quic-v1; look around: realm doctor.",
    ),
    entry(
        "no-such-program",
        Of::Error,
        "realm run: there is no such file.",
        "Look at the path.",
    ),
    entry(
        "not-authorised",
        Of::Error,
        "The key has no right to this, or could not be proven; or a node is not trusted.",
        "See which key you use: realm key show; choose another: --key FILE; see the realm's: realm ls.",
    ),
    entry(
        "not-found",
        Of::Error,
        "There is no such component, node, realm or file.",
        "List them: realm status, realm nodes ls, realm ls.",
    ),
    entry(
        "not-runnable",
        Of::Error,
        "realm run: the file is no program that can run here.",
        "See why: realm inspect FILE.",
    ),
    entry(
        "partial",
        Of::Error,
        "It was done only in part, or not within the time that was given.",
        "See what is missing: realm status.",
    ),
    entry(
        "run-failed",
        Of::Error,
        "realm run: realm itself failed, before or beside the program.",
        "Look around: realm doctor.",
    ),
    entry(
        "unsupported",
        Of::Error,
        "The node's version of realm cannot do that.",
        "Upgrade the node: docs/operating/upgrade.md; or ask another one: --via ADDR.",
    ),
    entry(
        "usage",
        Of::Error,
        "The command line is wrong, or the file is not what the command takes.",
        "See how it is used: realm help COMMAND.",
    ),
];

pub fn run(args: &Args, output: &Output) -> Result<()> {
    let Some(code) = &args.code else {
        return list(output);
    };
    let found: Vec<&Entry> = all().filter(|entry| entry.code == code).collect();
    if found.is_empty() {
        return Err(unknown(code));
    }
    if output.json() {
        let mut found = found.into_iter().map(as_json);
        let mut first = found.next().unwrap_or_default();
        let also: Vec<_> = found.collect();
        if !also.is_empty() {
            first["also"] = also.into();
        }
        return output.object(&first);
    }
    for entry in found {
        output.text(&format!(
            "{} ({})\n  {}\n  {}",
            entry.code,
            entry.of.name(),
            entry.means,
            entry.what_to_do
        ))?;
    }
    Ok(())
}

fn all() -> impl Iterator<Item = &'static Entry> {
    ENTRIES.iter().chain(states::ENTRIES)
}

/// Every word that is explained, once.
pub fn codes() -> impl Iterator<Item = &'static str> {
    let codes: std::collections::BTreeSet<&str> = all().map(|entry| entry.code).collect();
    codes.into_iter()
}

fn unknown(code: &str) -> CliError {
    let error = CliError::new(ExitCode::NotFound, format!("no code {code:?}"));
    match nearest::to(code, all().map(|entry| entry.code)) {
        Some(near) => error.help(format!(
            "did you mean {near}? realm explain {near}; see them all: realm explain"
        )),
        None => error.help("see them all: realm explain"),
    }
}

fn list(output: &Output) -> Result<()> {
    if output.json() {
        return output.object(&all().map(as_json).collect::<Vec<_>>());
    }
    let row = |entry: &Entry| {
        [entry.of.name(), entry.code, first_sentence(entry.means)]
            .map(str::to_owned)
            .into()
    };
    output.table(&["OF", "CODE", "MEANS"], all().map(row).collect())
}

/// A full stop within a number or a name ends none.
fn first_sentence(text: &str) -> &str {
    let first = text.split_inclusive(". ").next();
    first.unwrap_or_default().trim_end()
}

fn as_json(entry: &Entry) -> serde_json::Value {
    serde_json::json!({
        "code": entry.code, "of": entry.of.name(), "means": entry.means, "help": entry.what_to_do,
    })
}

#[cfg(test)]
mod tests;

//! What a shell offers after TAB: commands and flags, and the names of nodes, components and realms
//! that this machine has seen. No node is asked: a TAB takes milliseconds.

use clap::{Command, CommandFactory as _, builder::ArgExt};
use clap_complete::{
    ArgValueCandidates, CompletionCandidate, Shell,
    env::{CompleteEnv, Shells},
};

use crate::{
    commands::{Cli, TOPICS, explain},
    error::{CliError, Context as _, Result},
    realms::{Realm, Realms},
    settings::Settings,
};

/// Set by the shell's script when it asks what to offer.
const VARIABLE: &str = "REALM_COMPLETE";
const PROGRAM: &str = "realm";

/// What an argument names.
#[derive(Debug, Clone, Copy)]
enum Names {
    Nodes,
    Components,
    /// Components with the `=` that a count follows.
    Counts,
    Realms,
    /// Nodes that ask to join.
    Pending,
    /// The newest revisions.
    Revisions,
    /// The branches of a fork.
    Branches,
    /// What `realm explain` explains.
    Codes,
    /// What `realm help` tells of.
    Topics,
}

/// So many revisions are offered.
const REVISIONS: u64 = 100;

/// Commands, the argument, and what it names.
const NAMED: &[(&[&str], &str, Names)] = &[
    (&["status"], "name", Names::Components),
    (&["logs"], "name", Names::Components),
    (&["logs"], "node", Names::Nodes),
    (&["events"], "node", Names::Nodes),
    (&["network"], "node", Names::Nodes),
    (&["push"], "name", Names::Components),
    (&["push"], "nodes", Names::Nodes),
    (&["restart"], "nodes", Names::Nodes),
    (&["start"], "name", Names::Components),
    (&["stop"], "name", Names::Components),
    (&["restart"], "name", Names::Components),
    (&["rm"], "names", Names::Components),
    (&["scale"], "scale", Names::Counts),
    (&["nodes", "show"], "node", Names::Nodes),
    (&["nodes", "revoke"], "node", Names::Nodes),
    (&["nodes", "tag"], "node", Names::Nodes),
    (&["nodes", "rename"], "node", Names::Nodes),
    (&["nodes", "drain"], "node", Names::Nodes),
    (&["nodes", "undrain"], "node", Names::Nodes),
    (&["nodes", "rm"], "node", Names::Nodes),
    (&["nodes", "approve"], "nodes", Names::Pending),
    (&["history", "show"], "revision", Names::Revisions),
    (&["history", "merge"], "keep", Names::Branches),
    (&["explain"], "code", Names::Codes),
    (&["help"], "topic", Names::Topics),
    (&["use"], "name", Names::Realms),
    (&[], "realm", Names::Realms),
];

/// Answers a shell that asks what to offer, and ends; does nothing otherwise.
pub fn answer() {
    CompleteEnv::with_factory(command)
        .var(VARIABLE)
        .completer(PROGRAM)
        .complete();
}

/// The script that makes a shell ask.
pub fn script(shell: Shell) -> Result<String> {
    let shells = Shells::builtins();
    let name = shell.to_string();
    let shell = shells
        .completer(&name)
        .ok_or_else(|| CliError::failed(format!("no completions for {name}")))?;
    let mut script = Vec::new();
    shell
        .write_registration(VARIABLE, PROGRAM, PROGRAM, PROGRAM, &mut script)
        .context("cannot write the script")?;
    Ok(String::from_utf8_lossy(&script).into_owned())
}

fn command() -> Command {
    NAMED
        .iter()
        .fold(Cli::command(), |command, (path, argument, names)| {
            offer(command, path, argument, *names)
        })
}

fn offer(command: Command, path: &[&str], argument: &str, names: Names) -> Command {
    match path {
        // Keeps their order, on which positional ones depend.
        [] => command.mut_args(|one| {
            if one.get_id() == argument {
                one.add(candidates(names))
            } else {
                one
            }
        }),
        [first, rest @ ..] => {
            command.mut_subcommand(first, |command| offer(command, rest, argument, names))
        }
    }
}

fn candidates(names: Names) -> impl ArgExt {
    ArgValueCandidates::new(move || {
        // What cannot be read is not offered: there is nowhere to say why.
        let known = known(names).unwrap_or_default();
        known.into_iter().map(CompletionCandidate::new).collect()
    })
}

fn known(names: Names) -> Result<Vec<String>> {
    match names {
        Names::Codes => return Ok(explain::codes().map(str::to_owned).collect()),
        Names::Topics => return Ok(topics(&Cli::command(), std::env::args())),
        _ => {}
    }
    let settings = Settings::load(&[])?;
    let realms = Realms::new(&settings.state_dir());
    let realm = || -> Result<Realm> { realms.find(settings.value("realm")) };
    match names {
        Names::Nodes => realm()?.names(),
        Names::Components => realm()?.components(),
        Names::Counts => {
            let known = realm()?.components()?;
            Ok(known.into_iter().map(|name| format!("{name}=")).collect())
        }
        Names::Pending => realm()?.pending(),
        Names::Branches => realm()?.branches(),
        Names::Revisions => {
            let newest = realm()?.mark()?;
            let first = newest.saturating_sub(REVISIONS).saturating_add(1).max(1);
            Ok((first..=newest).map(|number| number.to_string()).collect())
        }
        // Said already: they are no realm's.
        Names::Codes | Names::Topics => Ok(Vec::new()),
        Names::Realms => {
            let known = realms.list()?;
            Ok(known
                .into_iter()
                .map(|realm| realm.genesis.name.clone())
                .collect())
        }
    }
}

/// What may follow on the words of `realm help` that are there already; the last one is being written.
fn topics(command: &Command, words: impl Iterator<Item = String>) -> Vec<String> {
    let words: Vec<String> = words.skip_while(|word| word != "help").skip(1).collect();
    let before = words.split_last().map_or(&[][..], |(_, before)| before);
    let found = before
        .iter()
        .try_fold(command, |command, word| command.find_subcommand(word));
    let Some(found) = found else {
        return Vec::new();
    };
    let below = found.get_subcommands().map(|one| one.get_name().to_owned());
    let more = if before.is_empty() { &TOPICS[..] } else { &[] };
    below
        .chain(more.iter().map(|topic| (*topic).to_owned()))
        .collect()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use clap_complete::ArgValueCandidates;

    use super::*;

    #[test]
    fn help_goes_down_to_the_command_that_is_named() {
        let told = |line: &str| {
            let words = line.split(' ').map(str::to_owned);
            topics(&Cli::command(), words)
        };
        let all = told("realm help ");
        for topic in ["status", "nodes", "exit-codes", "all"] {
            assert!(all.iter().any(|one| one == topic), "{topic}: {all:?}");
        }
        let nodes = told("realm help nodes a");
        assert!(nodes.iter().any(|one| one == "approve"), "{nodes:?}");
        assert!(!nodes.iter().any(|one| one == "all"), "{nodes:?}");
        assert_eq!(told("realm help nothing a"), Vec::<String>::new());
    }

    #[test]
    fn what_is_offered_belongs_to_an_argument() {
        let command = command();
        command.clone().debug_assert();
        for (path, argument, _) in NAMED {
            let found = path
                .iter()
                .try_fold(&command, |command, name| command.find_subcommand(name));
            let mut arguments = found.unwrap().get_arguments();
            let offers = arguments
                .find(|one| one.get_id() == argument)
                .map(|one| one.get::<ArgValueCandidates>().is_some());
            assert_eq!(offers, Some(true), "{path:?} {argument}");
        }
    }
}

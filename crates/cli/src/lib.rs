//! `realm`: one binary for the person and for the node. All of it but the allocator, so that what reads
//! files can be fuzzed.

mod artifact;
mod chain;
mod checked;
mod clock;
mod commands;
mod completion;
mod connection;
mod delivery;
mod error;
mod file;
#[doc(hidden)]
pub mod fuzzing;
mod head;
mod intent;
mod keystore;
mod log;
mod outbox;
mod output;
#[cfg(test)]
mod printed;
mod realms;
mod search;
mod settings;
mod signing_lock;
mod sources;
mod ssh_agent;
mod survey;
mod token;
mod usage;

use std::{ffi::OsString, path::Path};

use crate::{error::ExitCode, log::Log, output::Format};

/// The hidden command that compiles in a child process.
const COMPILE: &str = "__compile";

/// The whole program.
pub fn main() -> std::process::ExitCode {
    let mut args: Vec<OsString> = std::env::args_os().collect();
    // Before any thread exists: the compiler confines itself, and threads would escape that.
    if args.get(1).is_some_and(|arg| arg == COMPILE) {
        return realm_runtime::compile_child::main(args.into_iter().skip(2));
    }
    if started_as_agent(args.first()) {
        args.insert(1, "agent".into());
    }
    completion::answer();
    output::style::choose(&args);
    let cli = usage::parse(args);
    let log = Log::start(&cli.global, cli.command.is_agent());
    let code = match commands::run(&cli, log) {
        Ok(code) => code,
        Err(error) => {
            let as_meant =
                error.code == ExitCode::Interrupted && cli.command.goes_on_until_interrupted();
            if !as_meant {
                error.print(cli.global.output == Format::Json);
            }
            error.code as u8
        }
    };
    std::process::ExitCode::from(code)
}

fn started_as_agent(program: Option<&OsString>) -> bool {
    let stem = program.and_then(|program| Path::new(program).file_stem());
    stem.is_some_and(|stem| stem == "realm-agent")
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;

    use crate::error::ExitCode;

    #[test]
    fn the_grammar_holds_together() {
        crate::commands::Cli::command().debug_assert();
    }

    #[test]
    fn exit_codes_are_all_listed() {
        let codes: std::collections::BTreeSet<u8> = ExitCode::TABLE
            .iter()
            .map(|(code, _)| *code as u8)
            .collect();
        assert_eq!(codes.len(), ExitCode::TABLE.len());
    }
}

//! The grammar as pages to read: manual pages, and the reference in `docs/cli.md`.

use std::{fmt::Write as _, path::PathBuf};

use clap::{Command, CommandFactory as _};
use clap_mangen::Man;

use crate::{
    commands::Cli,
    error::{Context as _, Result},
    output::Output,
};

/// Columns of help in the reference, wherever it is made.
const COLUMNS: usize = 100;

#[derive(Debug, clap::Args)]
#[command(
    after_help = "Examples:\n  realm man | man -l -\n  realm man --dir ~/.local/share/man/man1"
)]
pub struct Args {
    /// Write a page for each command into this directory, instead of the first one to standard output.
    #[arg(long, value_name = "DIR")]
    dir: Option<PathBuf>,
}

pub fn run(args: &Args, output: &Output) -> Result<()> {
    let mut command = Cli::command();
    command.build();
    let Some(dir) = &args.dir else {
        let mut page = Vec::new();
        let written = Man::new(command).render(&mut page);
        written.context("cannot make the manual page")?;
        return output.text(String::from_utf8_lossy(&page).trim_end());
    };
    let described = || format!("cannot write manual pages to {}", dir.display());
    std::fs::create_dir_all(dir).context(described())?;
    clap_mangen::generate_to(command, dir).context(described())
}

/// The reference of all commands, in Markdown.
pub fn reference() -> String {
    let mut command = Cli::command().term_width(COLUMNS).disable_help_flag(true);
    command.build();
    let mut page = "# Command line\n\nWhat each command says of itself: `realm help COMMAND`. Made by `realm help all`.\n".to_owned();
    section(command, &mut page, true);
    page
}

fn section(mut command: Command, page: &mut String, first: bool) {
    if command.is_hide_set() {
        return;
    }
    if !first {
        // Those of all commands are told once.
        let ids: Vec<_> = command
            .get_arguments()
            .filter(|arg| arg.is_global_set())
            .map(|arg| arg.get_id().clone())
            .collect();
        for id in ids {
            command = command.mut_arg(id, |arg| arg.hide(true));
        }
    }
    let name = command.get_bin_name().unwrap_or("realm").to_owned();
    let help = command.render_long_help().to_string();
    // Writing to a string does not fail.
    let _ = write!(page, "\n## {name}\n\n```text\n");
    for line in help.lines() {
        let _ = writeln!(page, "{}", line.trim_end());
    }
    page.push_str("```\n");
    let inner: Vec<Command> = command.get_subcommands().cloned().collect();
    for command in inner {
        section(command, page, false);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_reference_is_the_grammar() {
        let kept = include_str!("../../../../docs/cli.md");
        assert!(
            kept == reference(),
            "docs/cli.md is not what the commands say: cargo run -p realm -- help all > docs/cli.md"
        );
    }
}

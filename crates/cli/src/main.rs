//! `realm`: one binary for the person and for the node.

mod artifact;
mod clock;
mod commands;
mod connection;
mod error;
mod file;
mod intent;
mod keystore;
mod output;
mod realms;
mod settings;

use clap::Parser as _;

use crate::{
    commands::{Cli, Color},
    output::Format,
};

fn main() -> std::process::ExitCode {
    let cli = Cli::parse();
    match cli.global.color {
        Color::Auto => {}
        Color::Always => anstream::ColorChoice::Always.write_global(),
        Color::Never => anstream::ColorChoice::Never.write_global(),
    }
    let code = match commands::run(&cli) {
        Ok(code) => code,
        Err(error) => {
            error.print(cli.global.output == Format::Json);
            error.code
        }
    };
    std::process::ExitCode::from(code as u8)
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;

    use crate::error::ExitCode;

    #[test]
    fn the_grammar_holds_together() {
        super::Cli::command().debug_assert();
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

//! A command line that is wrong: clap's words, with this program's code, and a tip where people mean
//! something that can be guessed.

use std::ffi::OsString;

use clap::{
    Parser as _,
    error::{ContextKind, ContextValue, ErrorKind},
};

use crate::{
    commands::Cli,
    error::{CliError, ExitCode},
    output,
};

/// Reads the command line; ends the program where it is wrong, or asks for help or the version.
pub fn parse(args: Vec<OsString>) -> Cli {
    let json = wants_json(&args);
    match Cli::try_parse_from(&args) {
        Ok(cli) => cli,
        Err(error) if error.exit_code() != i32::from(ExitCode::Usage as u8) || is_help(&error) => {
            error.exit()
        }
        Err(error) => {
            if json {
                as_error(&error, &args).print(true);
            } else {
                output::tell(&in_words(&error, &args));
            }
            std::process::exit(i32::from(ExitCode::Usage as u8));
        }
    }
}

/// `realm` or `realm nodes` alone: what is printed is help, not an error.
fn is_help(error: &clap::Error) -> bool {
    error.kind() == ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand
}

/// The command line did not parse, so that its format is looked for by hand.
fn wants_json(args: &[OsString]) -> bool {
    let args: Vec<_> = args.iter().filter_map(|arg| arg.to_str()).collect();
    let pair = |pair: &[&str]| matches!(pair, ["-o" | "--output", "json"]);
    let glued = |arg: &&str| matches!(*arg, "-ojson" | "-o=json" | "--output=json");
    args.windows(2).any(pair) || args.iter().any(glued)
}

fn in_words(error: &clap::Error, args: &[OsString]) -> String {
    let text = error.render().to_string();
    let text = text.strip_prefix("error: ").unwrap_or(&text);
    let (what, usage) = text.split_once("\n\nUsage:").unwrap_or((text, ""));
    let mut words = format!("error[{}]: {what}\n", ExitCode::Usage.name());
    if let Some(tip) = tip(error, args) {
        words.push_str(&format!("\n  tip: {tip}\n"));
    }
    if !usage.is_empty() {
        words.push_str(&format!("\nUsage:{usage}"));
    }
    words
}

fn as_error(error: &clap::Error, args: &[OsString]) -> CliError {
    let text = error.render().to_string();
    let text = text.strip_prefix("error: ").unwrap_or(&text);
    let (what, usage) = text.split_once("\n\n").unwrap_or((text, ""));
    let help = tip(error, args).unwrap_or_else(|| usage.trim_end().to_owned());
    CliError::new(ExitCode::Usage, what.trim_end()).help(help)
}

/// What was probably meant.
fn tip(error: &clap::Error, args: &[OsString]) -> Option<String> {
    let names = |command: &str| args.iter().any(|arg| arg == command);
    let context = |kind| match error.get(kind) {
        Some(ContextValue::String(text)) => Some(text.as_str()),
        _ => None,
    };
    let usage = match error.get(ContextKind::Usage) {
        Some(ContextValue::StyledStr(usage)) => usage.to_string(),
        _ => error.render().to_string(),
    };
    match error.kind() {
        ErrorKind::ValueValidation => {
            let value = context(ContextKind::InvalidValue)?;
            let is_file = value.contains('/') || value.contains('.');
            // The name before the file, and not one that a flag gives.
            let of_name = context(ContextKind::InvalidArg)
                .is_some_and(|arg| arg.contains("NAME") && !arg.starts_with('-'));
            (is_file && of_name && names("push")).then(|| {
                "that looks like a file: the name comes first, as in: realm push NAME FILE"
                    .to_owned()
            })
        }
        ErrorKind::UnknownArgument if usage.contains("realm scale") => {
            let count = context(ContextKind::InvalidArg)?;
            let counts = count.parse::<u32>().is_ok();
            counts.then(|| format!("join the two with =, as in: realm scale web={count}"))
        }
        ErrorKind::MissingRequiredArgument if names("logs") => {
            Some("the lines of every component: realm logs --all".to_owned())
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn args(line: &str) -> Vec<OsString> {
        line.split(' ').map(OsString::from).collect()
    }

    fn wrong(line: &str) -> clap::Error {
        Cli::try_parse_from(args(line)).expect_err("a wrong command line")
    }

    fn words(line: &str) -> String {
        in_words(&wrong(line), &args(line))
    }

    #[test]
    fn a_wrong_command_line_has_a_code_and_keeps_its_usage() {
        let line = "realm status --vai x";
        let words = words(line);
        assert!(
            words.starts_with("error[usage]: unexpected argument '--vai'"),
            "{words}"
        );
        assert!(words.contains("\nUsage: realm status"), "{words}");
        let error = as_error(&wrong(line), &args(line));
        assert_eq!(error.code, ExitCode::Usage);
        assert!(error.help.is_some_and(|help| help.contains("Usage")));
    }

    #[test]
    fn what_people_mean_is_guessed() {
        let cases = [
            ("realm scale web 3", "realm scale web=3"),
            ("realm push ./web.wasm --replicas 2", "realm push NAME FILE"),
            ("realm logs", "realm logs --all"),
        ];
        for (line, tip) in cases {
            let words = words(line);
            assert!(words.contains(tip), "{line}: {words}");
        }
        for line in [
            "realm push Not_A_Name web.wasm",
            "realm invite --name a.b",
            "realm start web.wasm",
        ] {
            let words = words(line);
            assert!(!words.contains("tip: that looks"), "{line}: {words}");
        }
    }

    #[test]
    fn the_format_is_found_where_nothing_parses() {
        for line in ["realm x -o json", "realm --output=json x", "realm -ojson x"] {
            assert!(wants_json(&args(line)), "{line}");
        }
        assert!(!wants_json(&args("realm push json -o table")));
    }
}

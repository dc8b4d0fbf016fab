//! The command line: its grammar, and what every command is handed.

use std::path::PathBuf;

use clap::{CommandFactory as _, Parser, Subcommand};

use crate::{
    commands::lifecycle::Verb,
    completion, connection,
    error::{CliError, ExitCode, Result},
    keystore::PassphraseSource,
    log::Log,
    output::{Format, Output},
    realms::{Realm, Realms},
    settings::Settings,
};

mod accept_loss;
mod adopt;
pub mod agent;
mod cell_args;
mod config;
mod doctor;
mod events;
pub mod explain;
mod history;
mod init;
mod inspect;
mod invite;
mod join;
mod key;
mod lifecycle;
mod logs;
mod man;
mod merge;
mod network;
mod nodes;
mod peer;
mod push;
mod realms;
mod remove;
mod rotate;
mod run;
mod status;
mod until;
mod wait;

/// Push WebAssembly once, and it runs on every machine you own.
#[derive(Debug, Parser)]
#[command(
    name = "realm",
    version,
    disable_help_subcommand = true,
    arg_required_else_help = true
)]
#[command(
    after_help = "Examples:\n  realm init                      make an owner key and a realm\n  realm run hello.wasm            run a program right here\n  realm push hello hello.wasm     run it on every node\n  realm status                    see where it runs"
)]
pub struct Cli {
    #[command(flatten)]
    pub global: Global,
    #[command(subcommand)]
    pub command: Command,
}

#[derive(Debug, clap::Args)]
#[command(next_help_heading = "Global options")]
pub struct Global {
    /// How answers are written.
    #[arg(short, long, value_enum, default_value_t, global = true)]
    pub output: Format,
    /// Say nothing but answers and errors.
    #[arg(short, long, global = true)]
    pub quiet: bool,
    /// Say more; twice for all. RUST_LOG has the last word.
    #[arg(short, long, action = clap::ArgAction::Count, global = true)]
    pub verbose: u8,
    /// Colour: auto follows the terminal, NO_COLOR and CLICOLOR_FORCE.
    #[arg(long, value_enum, default_value_t, global = true)]
    pub color: Color,
    /// The realm to work on: a name, or the start of an id.
    #[arg(long, global = true)]
    pub realm: Option<String>,
    /// The owner key's file.
    #[arg(long, value_name = "FILE", global = true)]
    pub key: Option<PathBuf>,
    /// A file with the key's passphrase; - is standard input.
    #[arg(long, value_name = "FILE", global = true)]
    pub passphrase_file: Option<PathBuf>,
    /// Directory of this machine's settings.
    #[arg(long, value_name = "DIR", global = true)]
    pub system_dir: Option<PathBuf>,
    /// Directory of your settings and keys.
    #[arg(long, value_name = "DIR", global = true)]
    pub config_dir: Option<PathBuf>,
    /// Directory where the command line remembers its realms.
    #[arg(long, value_name = "DIR", global = true)]
    pub state_dir: Option<PathBuf>,
    /// Multiaddr of a node to ask, instead of looking for one.
    #[arg(long, value_name = "ADDR", global = true)]
    pub via: Option<String>,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum Color {
    #[default]
    Auto,
    Always,
    Never,
}

#[derive(Debug, Subcommand)]
pub enum Command {
    /// Make the owner key, and a realm.
    Init(init::Args),
    /// Take a realm that your key owns from one of its nodes, where this machine does not know it.
    Adopt,
    /// List your realms.
    Ls,
    /// Choose the realm that commands work on.
    Use { name: String },
    /// Show, export or import the owner key.
    #[command(subcommand)]
    Key(key::Command),
    /// Make a token that lets one node join.
    Invite(invite::Args),
    /// Run this machine as a node.
    Agent(Box<agent::Args>),
    /// Make a node trust an owner; run it on the node.
    Configure(join::ConfigureArgs),
    /// Make a node join with an invite; run it on the node.
    Enroll(join::EnrollArgs),
    /// Make a node forget its realm; run it on the node, with its agent stopped.
    Leave(join::LeaveArgs),
    /// Run a program right here.
    Run(Box<run::Args>),
    /// See what a WebAssembly file is, and what it would need.
    Inspect(inspect::Args),
    /// Make the realm run a program.
    Push(Box<push::Args>),
    /// Start a component's cells.
    Start(lifecycle::Args),
    /// Stop a component's cells; it stays placed.
    Stop(lifecycle::Args),
    /// Start the cells of a component anew, everywhere or on some nodes.
    Restart(lifecycle::RestartArgs),
    /// Take components out of the realm.
    #[command(alias = "remove")]
    Rm(remove::Args),
    /// Set how many cells a component has.
    Scale(lifecycle::ScaleArgs),
    /// See what runs where, and why not.
    #[command(alias = "ps")]
    Status(status::Args),
    /// See what cells wrote.
    Logs(logs::Args),
    /// See what happened on the nodes.
    Events(events::Args),
    /// See who is linked to whom, how fast, and through which relays.
    Network(network::Args),
    /// See the realm's log of intents.
    #[command(visible_alias = "log")]
    History(history::Args),
    /// See, approve, tag and revoke nodes.
    #[command(subcommand)]
    Nodes(nodes::Command),
    /// Say where nodes are reached.
    #[command(subcommand)]
    Peer(peer::Command),
    /// Look for what keeps a realm from working here, and say what to do.
    Doctor(doctor::Args),
    /// Show the settings in force.
    #[command(subcommand)]
    Config(config::Command),
    /// Say what a code of a status, an alarm or an error means, and what to do.
    Explain(explain::Args),
    /// Write a shell's completion script, such as: source <(realm completions bash).
    Completions { shell: clap_complete::Shell },
    /// Write the manual pages.
    Man(man::Args),
    /// Explain a command, or: exit-codes, all.
    Help { topic: Vec<String> },
}

impl Command {
    /// Whether Ctrl-C is how this command ends, and so nothing to be told of.
    pub const fn goes_on_until_interrupted(&self) -> bool {
        match self {
            Self::Run(_) => true,
            Self::Logs(args) => args.follow,
            Self::Events(args) => args.follow,
            Self::Status(args) => args.watch,
            _ => false,
        }
    }

    /// Whether it runs for long, and its messages go to a log.
    pub const fn is_agent(&self) -> bool {
        matches!(self, Self::Agent(_))
    }
}

/// What every command is handed.
#[derive(Debug)]
pub struct Session {
    pub settings: Settings,
    pub output: Output,
    pub passphrase: PassphraseSource,
    pub log: Log,
}

impl Session {
    pub fn open(cli: &Cli, log: Log) -> Result<Self> {
        let global = &cli.global;
        let path = |path: &Option<PathBuf>| path.as_ref().map(|path| path.display().to_string());
        let agent_config = match &cli.command {
            Command::Agent(args) => path(&args.config),
            _ => None,
        };
        let settings = Settings::load(&[
            ("system-dir", path(&global.system_dir)),
            ("config-dir", path(&global.config_dir)),
            ("state-dir", path(&global.state_dir)),
            ("agent-config", agent_config),
            ("key", path(&global.key)),
            ("passphrase-file", path(&global.passphrase_file)),
            ("realm", global.realm.clone()),
            ("via", global.via.clone()),
        ])?;
        let passphrase = PassphraseSource {
            file: settings.passphrase_file(),
        };
        Ok(Self {
            settings,
            output: Output {
                format: global.output,
                quiet: global.quiet,
            },
            passphrase,
            log,
        })
    }

    /// The realm that was asked for, or the one in use.
    pub fn realm(&self) -> Result<Realm> {
        let realms = Realms::new(&self.settings.state_dir());
        let asked = self.settings.value("realm");
        realms.find(asked).map_err(|error| {
            if asked.is_some() || error.code != ExitCode::NotFound {
                return error;
            }
            let (at, whose) = match self.settings.value("via") {
                Some(via) => (format!("realm adopt --via {via}"), "the realm of that node"),
                None if !connection::agents_here(self).is_empty() => {
                    ("realm adopt".to_owned(), "the realm of that node")
                }
                // One that came from a backup may own a realm that this machine has not seen.
                None if self.settings.key_path().exists() => {
                    ("realm adopt --via ADDR".to_owned(), "a realm")
                }
                None => return error,
            };
            error.help(format!(
                "make one: realm init; or, where your key owns {whose}: {at}"
            ))
        })
    }
}

/// Runs the command; answers with the exit code, which is the guest's own for `run`.
pub fn run(cli: &Cli, log: Log) -> Result<u8> {
    match &cli.command {
        Command::Completions { shell } => {
            let script = completion::script(*shell)?;
            let output = Output {
                format: Format::Text,
                quiet: false,
            };
            output.text(script.trim_end())?;
            return Ok(ExitCode::Ok as u8);
        }
        Command::Man(args) => {
            let output = Output {
                format: Format::Text,
                quiet: false,
            };
            return man::run(args, &output).map(|()| ExitCode::Ok as u8);
        }
        Command::Help { topic } => {
            return help(topic, cli.global.output).map(|()| ExitCode::Ok as u8);
        }
        _ => {}
    }
    let session = Session::open(cli, log)?;
    let code = match &cli.command {
        Command::Run(args) => return run::run(args, &session),
        command => dispatch(command, &session).map_err(|error| with_rights(error, &session))?,
    };
    Ok(code as u8)
}

/// A key may have lost its rights to one that lies beside it.
fn with_rights(error: CliError, session: &Session) -> CliError {
    if error.code != ExitCode::NotAuthorised {
        return error;
    }
    match (
        rotate::unfinished(&session.settings.key_path()),
        &error.help,
    ) {
        (Some(unfinished), Some(help)) => {
            let help = format!("{help}; but {unfinished}");
            error.help(help)
        }
        (Some(unfinished), None) => error.help(unfinished),
        (None, _) => error,
    }
}

fn dispatch(command: &Command, session: &Session) -> Result<ExitCode> {
    match command {
        Command::Init(args) => init::run(args, session)?,
        Command::Adopt => adopt::run(session)?,
        Command::Ls => realms::ls(session)?,
        Command::Use { name } => realms::select(name, session)?,
        Command::Key(command) => return key::run(command, session),
        Command::Invite(args) => invite::run(args, session)?,
        Command::Agent(args) => agent::run(args, session)?,
        Command::Configure(args) => join::configure(args, session)?,
        Command::Enroll(args) => join::enroll(args, session)?,
        Command::Leave(args) => join::leave(args, session)?,
        Command::Config(command) => config::run(command, &session.settings, &session.output)?,
        Command::Push(args) => return push::run(args, session),
        Command::Start(args) => return lifecycle::run(Verb::Start, args, session),
        Command::Stop(args) => return lifecycle::run(Verb::Stop, args, session),
        Command::Restart(args) => return lifecycle::restart(args, session),
        Command::Rm(args) => return remove::run(args, session),
        Command::Scale(args) => return lifecycle::scale(args, session),
        Command::Status(args) => return status::run(args, session),
        Command::Logs(args) => return logs::run(args, session),
        Command::Events(args) => return events::run(args, session),
        Command::Network(args) => return network::run(args, session),
        Command::History(args) => return history::run(args, session),
        Command::Nodes(command) => return nodes::run(command, session),
        Command::Doctor(args) => return doctor::run(args, session),
        Command::Explain(args) => explain::run(args, &session.output)?,
        Command::Peer(command) => return peer::run(command, session),
        Command::Inspect(args) => inspect::run(args, session)?,
        Command::Run(_) | Command::Completions { .. } | Command::Man(_) | Command::Help { .. } => {}
    }
    Ok(ExitCode::Ok)
}

/// What `realm help` tells of, beside the commands.
pub const TOPICS: [&str; 2] = ["exit-codes", "all"];

fn help(topic: &[String], format: Format) -> Result<()> {
    let output = Output {
        format,
        quiet: false,
    };
    let json = output.json();
    if topic.first().is_some_and(|topic| topic == "exit-codes") {
        if json {
            let codes = ExitCode::TABLE.map(|(code, meaning)| {
                serde_json::json!({ "code": code as u8, "name": code.name(), "meaning": meaning })
            });
            return output.object(&codes);
        }
        let rows = ExitCode::TABLE
            .into_iter()
            .map(|(code, meaning)| vec![(code as u8).to_string(), meaning.to_owned()])
            .collect();
        return output.table(&["CODE", "MEANING"], rows);
    }
    if topic.first().is_some_and(|topic| topic == "all") {
        return output.text(man::reference().trim_end());
    }
    let mut command = Cli::command();
    // Usage names the whole command, as its own --help does.
    command.build();
    let mut found = &mut command;
    for name in topic {
        found = found.find_subcommand_mut(name).ok_or_else(|| {
            CliError::new(ExitCode::Usage, format!("no help on {name:?}"))
                .help("see all commands: realm help; see exit codes: realm help exit-codes")
        })?;
    }
    output.help(&found.render_long_help())
}

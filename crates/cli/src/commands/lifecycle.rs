//! `realm start|stop|restart|scale`: changes what a component should be.

use realm_identity::Target;
use realm_manifest::{
    ComponentName, MAX_REPLICAS,
    payload::{Payload, Restart, Run, Scale},
};
use realm_planner::State;

use crate::{
    commands::{Session, wait},
    connection,
    error::{CliError, ExitCode, Result},
    intent::{self, Outcome},
};

#[derive(Debug, clap::Args)]
pub struct Args {
    /// The component.
    pub name: ComponentName,
    /// Why; recorded in the history.
    #[arg(short = 'm', long = "message", value_name = "TEXT")]
    pub note: Option<String>,
    #[command(flatten)]
    pub wait: wait::Args,
}

#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:\n  realm scale web=3\n  realm scale web=each")]
pub struct ScaleArgs {
    /// The component and its number of cells; `each` is one on every eligible node.
    #[arg(value_name = "NAME=N", value_parser = scale_pair)]
    pub scale: (ComponentName, Option<u32>),
    /// Why; recorded in the history.
    #[arg(short = 'm', long = "message", value_name = "TEXT")]
    pub note: Option<String>,
    #[command(flatten)]
    pub wait: wait::Args,
}

#[derive(Debug, Clone, Copy)]
pub enum Verb {
    Start,
    Stop,
    Restart,
}

fn scale_pair(text: &str) -> std::result::Result<(ComponentName, Option<u32>), String> {
    let (name, count) = text
        .split_once('=')
        .ok_or("write NAME=N, for example web=3")?;
    let name = name
        .parse()
        .map_err(|error: realm_manifest::NameError| error.to_string())?;
    match count {
        "each" => Ok((name, None)),
        count => match count.parse() {
            Ok(count) => Ok((name, Some(count))),
            // Whether it is one that a realm takes is said once for all numbers, by the rules of a spec.
            Err(_) if is_number(count) => Err(format!("at most {MAX_REPLICAS} cells")),
            Err(_) => Err("after the = comes a number, or each".to_owned()),
        },
    }
}

fn is_number(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit())
}

pub fn run(verb: Verb, args: &Args, session: &Session) -> Result<ExitCode> {
    let note = args.note.clone();
    let decide = |state: &State| {
        let component = state.components.get(&args.name);
        let generation = component.map_or(0, |component| component.generation);
        match verb {
            Verb::Start => Payload::Run(Run {
                run: true,
                note: note.clone(),
            }),
            Verb::Stop => Payload::Run(Run {
                run: false,
                note: note.clone(),
            }),
            Verb::Restart => Payload::Restart(Restart {
                generation: generation + 1,
                note: note.clone(),
            }),
        }
    };
    change(&args.name, decide, &args.wait, session)
}

pub fn scale(args: &ScaleArgs, session: &Session) -> Result<ExitCode> {
    let (name, replicas) = &args.scale;
    let decide = |_: &State| {
        Payload::Scale(Scale {
            replicas: *replicas,
            note: args.note.clone(),
        })
    };
    change(name, decide, &args.wait, session)
}

fn change(
    name: &ComponentName,
    decide: impl Fn(&State) -> Payload,
    wait: &wait::Args,
    session: &Session,
) -> Result<ExitCode> {
    connection::block_on(async {
        let realm = session.realm()?;
        let connection = connection::open(session, &realm).await?;
        let asked = (&connection, &realm);
        let outcome = intent::submit(asked, wait.durable(), &session.output, |state| {
            check_known(name, state)?;
            Ok((Target::Component(name.as_str().to_owned()), decide(state)))
        })
        .await?;
        report(outcome, name.as_str(), session)?;
        wait::finish(wait, asked, name, outcome.revision(), session).await
    })
}

/// Refuses a component that the realm does not have.
pub fn check_known(name: &ComponentName, state: &State) -> Result<()> {
    if state.components.contains_key(name) {
        return Ok(());
    }
    Err(
        CliError::new(ExitCode::NotFound, format!("no component {name}"))
            .help("list them: realm status"),
    )
}

/// Says what became of an intent about `subject`.
pub fn report(outcome: Outcome, subject: &str, session: &Session) -> Result<()> {
    let revision = outcome.revision();
    if session.output.json() {
        let changed = matches!(outcome, Outcome::Done { .. });
        return session.output.json_line(
            &serde_json::json!({ "subject": subject, "revision": revision, "changed": changed }),
        );
    }
    match outcome {
        Outcome::Unchanged { .. } => {
            session.output.say(format!(
                "✓ {subject} is as asked already, revision {revision}: nothing was signed"
            ));
        }
        Outcome::Done { durable, .. } => session
            .output
            .say(format!("✓ {subject}  revision {revision}, {durable}")),
    }
    Ok(())
}

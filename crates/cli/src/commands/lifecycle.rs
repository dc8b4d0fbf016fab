//! `realm start|stop|restart|scale`: changes what a component should be.

use std::collections::BTreeSet;

use realm_identity::{PublicKey, Target};
use realm_manifest::{
    ComponentName, MAX_REPLICAS,
    payload::{Payload, Restart, Run, Scale},
};
use realm_planner::{Component, State};

use crate::{
    commands::{Session, wait},
    connection::{self, Connection},
    error::{CliError, ExitCode, Result},
    intent::{self, DurableOn, Outcome},
    realms::Realm,
    survey,
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
#[command(
    after_help = "Examples:\n  realm restart web --wait\n  realm restart web --node edge-1 --node edge-2"
)]
pub struct RestartArgs {
    /// The component.
    pub name: ComponentName,
    /// Only its cells on this node: a name or a key; repeatable.
    #[arg(
        long = "node",
        visible_aliases = ["nodes", "peer"],
        value_name = "NODE"
    )]
    pub nodes: Vec<String>,
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
    let decide = |_: &State| {
        Payload::Run(Run {
            run: matches!(verb, Verb::Start),
            note: note.clone(),
        })
    };
    change(&args.name, decide, &args.wait, session)
}

pub fn restart(args: &RestartArgs, session: &Session) -> Result<ExitCode> {
    connection::block_on(async {
        let realm = session.realm()?;
        let connection = connection::open(session, &realm).await?;
        let asked = (&connection, &realm);
        let nodes = having(&args.name, &args.nodes, asked, session).await?;
        let decide = |state: &State| {
            let component = state.components.get(&args.name);
            let newest = component.map_or(0, Component::newest_generation);
            Payload::Restart(Restart {
                generation: newest.saturating_add(1),
                note: args.note.clone(),
                nodes: nodes.clone(),
            })
        };
        change_at(asked, &args.name, decide, &args.wait, session).await
    })
}

/// The keys of the nodes called `wanted`, sorted, each once. Each has a cell of the component, or should have one.
async fn having(
    name: &ComponentName,
    wanted: &[String],
    (connection, realm): (&Connection, &Realm),
    session: &Session,
) -> Result<Vec<PublicKey>> {
    let found = survey::named(wanted, connection, realm, &session.output).await?;
    let Some((nodes, status)) = found else {
        return Ok(Vec::new());
    };
    let nodes: BTreeSet<_> = nodes.into_iter().collect();
    let mut components = status.components.iter();
    if let Some(component) = components.find(|one| one.name == name.as_str()) {
        let cells = component.cells.iter().map(|cell| &cell.node);
        let places: BTreeSet<_> = cells.chain(&component.desired_nodes).collect();
        for key in &nodes {
            let node = status.nodes.iter().find(|node| node.key == *key);
            if !node.is_some_and(|node| places.contains(&node.name)) {
                let node = node.map_or_else(|| key.to_string(), |node| node.name.clone());
                let message = format!("{name} has no cell on {node}");
                return Err(CliError::new(ExitCode::NotFound, message)
                    .help(format!("see where it is: realm status {name}")));
            }
        }
    }
    Ok(nodes.into_iter().collect())
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
        change_at((&connection, &realm), name, decide, wait, session).await
    })
}

async fn change_at(
    asked: (&Connection, &Realm),
    name: &ComponentName,
    decide: impl Fn(&State) -> Payload,
    wait: &wait::Args,
    session: &Session,
) -> Result<ExitCode> {
    let outcome = intent::submit(asked, wait.durable(), &session.output, |state| {
        check_known(name, state)?;
        Ok((Target::Component(name.as_str().to_owned()), decide(state)))
    })
    .await?;
    report(outcome, name.as_str(), session)?;
    wait::finish(wait, asked, name, outcome.revision(), session).await
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

/// What became of an intent about `subject`, for programs: one form for all that signs.
pub fn as_json(outcome: Outcome, subject: &str) -> serde_json::Value {
    let durable = outcome.durable();
    let of = durable.and_then(DurableOn::of);
    serde_json::json!({
        "subject": subject, "revision": outcome.revision(), "changed": durable.is_some(),
        "durable_on": durable.map(|durable| durable.nodes),
        "durable_of": of.map(|of| of.here), "durable_away": of.map(|of| of.away),
    })
}

/// Says what became of an intent about `subject`.
pub fn report(outcome: Outcome, subject: &str, session: &Session) -> Result<()> {
    let revision = outcome.revision();
    if session.output.json() {
        return session.output.json_line(&as_json(outcome, subject));
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

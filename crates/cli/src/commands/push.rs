//! `realm push`: makes the realm run a program.

use std::{
    io::Write as _,
    path::{Path, PathBuf},
    time::Duration,
};

use clap::builder::{PossibleValuesParser, TypedValueParser};
use realm_identity::{Artifact, PublicKey, Target};
use realm_manifest::{
    ComponentName, RestartPolicy, Tag,
    payload::{Payload, Push},
    units,
};
use realm_planner::{PushPatch, State};
use realm_rpc::{
    ErrorCode, RpcError, UploadClient,
    status::{Node, NodeState},
};

use crate::{
    artifact::LocalArtifact,
    commands::{
        Session,
        cell_args::{GrantArgs, LimitArgs},
        lifecycle, wait,
    },
    connection::{self, Connection, rpc_failed},
    error::{CliError, Context as _, ExitCode, Result},
    head,
    intent::{self, Outcome},
    realms::Realm,
    survey,
};

/// Nodes that a push is tried with, when one after the other is gone before anything is signed.
const MAX_NODES: u32 = 3;
/// How long somebody else's upload of the same program is waited for, and how often it is looked at.
const OTHER_UPLOAD: Duration = Duration::from_secs(60);
const LOOK: Duration = Duration::from_millis(100);
/// How long another node is looked for.
const PATIENCE: Duration = Duration::from_secs(10);

#[derive(Debug, clap::Args)]
#[command(
    after_help = "Examples:\n  realm push hello hello.wasm\n  realm push web web.wasm --replicas 2 --tag edge --wait\n  realm push job job.wasm --restart never --env LEVEL=info --memory-max-mb 32\n\nA flag that is left out keeps what the component had before; --reset begins anew."
)]
pub struct Args {
    /// The component's name.
    #[arg(required_unless_present = "name_flag", conflicts_with = "name_flag")]
    pub name: Option<ComponentName>,
    /// The program: a WebAssembly component or core module; - is standard input.
    #[arg(required_unless_present = "file_flag", conflicts_with = "file_flag")]
    pub file: Option<PathBuf>,
    /// The component's name, as a flag.
    #[arg(long = "name", value_name = "NAME", requires = "file_flag")]
    pub name_flag: Option<ComponentName>,
    /// The program, as a flag.
    #[arg(long = "file", value_name = "FILE", requires = "name_flag")]
    pub file_flag: Option<PathBuf>,
    /// So many cells in total; `each` is one on every eligible node.
    #[arg(long, value_parser = replicas, value_name = "N|each", allow_negative_numbers = true)]
    pub replicas: Option<Replicas>,
    /// Only on this node: a name or a key; repeatable.
    #[arg(
        long = "node",
        visible_alias = "peer",
        alias = "nodes",
        value_name = "NODE"
    )]
    pub nodes: Vec<String>,
    /// Only on nodes with this tag; repeatable.
    #[arg(long = "tag")]
    pub tags: Vec<Tag>,
    #[command(flatten)]
    pub limits: LimitArgs,
    #[command(flatten)]
    pub grants: GrantArgs,
    /// An argument of the program; repeatable.
    #[arg(long = "arg", value_name = "ARG", allow_hyphen_values = true)]
    pub args: Vec<String>,
    /// When it ends: always, on-failure or never start it again.
    #[arg(long, value_parser = restart_policies())]
    pub restart: Option<RestartPolicy>,
    /// Start its cells; the default for a new component.
    #[arg(long, conflicts_with = "no_start")]
    pub start: bool,
    /// Place it without starting it.
    #[arg(long)]
    pub no_start: bool,
    /// Forget the component's earlier settings.
    #[arg(long)]
    pub reset: bool,
    /// Why; recorded in the history.
    #[arg(short = 'm', long = "message", value_name = "TEXT")]
    pub note: Option<String>,
    #[command(flatten)]
    pub wait: wait::Args,
}

#[derive(Debug, Clone, Copy)]
pub struct Replicas(Option<u32>);

/// Its values, which help and completions list.
fn restart_policies() -> impl TypedValueParser<Value = RestartPolicy> {
    PossibleValuesParser::new(RestartPolicy::ALL.map(RestartPolicy::as_str))
        .try_map(|text| text.parse::<RestartPolicy>())
}

fn replicas(text: &str) -> std::result::Result<Replicas, String> {
    if text == "each" {
        return Ok(Replicas(None));
    }
    let count = text
        .parse()
        .map_err(|_| "a number from 0 on, or each".to_owned())?;
    Ok(Replicas(Some(count)))
}

pub fn run(args: &Args, session: &Session) -> Result<ExitCode> {
    connection::block_on(push(args, session))
}

async fn push(args: &Args, session: &Session) -> Result<ExitCode> {
    let usage = || CliError::new(ExitCode::Usage, "a name and a file are needed");
    let name = args
        .name
        .as_ref()
        .or(args.name_flag.as_ref())
        .ok_or_else(usage)?;
    let path = args
        .file
        .as_ref()
        .or(args.file_flag.as_ref())
        .ok_or_else(usage)?;
    let local = LocalArtifact::open(path)?;
    let realm = session.realm()?;
    let mut connection = connection::open(session, &realm).await?;
    let mut tries = 1;
    let outcome = loop {
        let asked = (&connection, &realm);
        match send_all(args, name, path, &local, asked, session).await {
            // Gone before anything was signed: another node does as well.
            Err(error) if error.code == ExitCode::NoAgent && tries < MAX_NODES => {
                if realm.outbox().unacknowledged()?.is_some() {
                    return Err(error);
                }
                session.output.say(format!(
                    "{} does not answer any more: looking for another node",
                    connection.node().short()
                ));
                let owner = connection.owner.clone();
                connection = connection::reopen(session, &realm, owner, PATIENCE).await?;
                tries += 1;
            }
            outcome => break outcome?,
        }
    };
    realm.remember_component(name.as_str());
    report(outcome, name, &local.artifact, session)?;
    if args.no_start {
        return Ok(ExitCode::Ok);
    }
    let asked = (&connection, &realm);
    wait::finish(&args.wait, asked, name, outcome.revision(), session).await
}

/// Uploads the program and signs the intent.
async fn send_all(
    args: &Args,
    name: &ComponentName,
    path: &Path,
    local: &LocalArtifact,
    (connection, realm): (&Connection, &Realm),
    session: &Session,
) -> Result<Outcome> {
    intent::resend(connection, realm, &session.output).await?;
    let nodes = nodes(&args.nodes, (connection, realm), session).await?;
    let patch = patch(args, path.display().to_string(), nodes, session)?;

    let base = head::base(connection, realm).await?;
    // What would be refused afterwards is refused before anything is sent.
    payload(args, &patch, local.artifact, name, &base.state)?;
    head::check_approved(connection, &base.state, None).await?;
    upload(local, name, connection, session).await?;
    let durable = args.wait.durable();
    intent::submit((connection, realm), durable, &session.output, |state| {
        payload(args, &patch, local.artifact, name, state)
    })
    .await
}

fn payload(
    args: &Args,
    patch: &PushPatch,
    artifact: Artifact,
    name: &ComponentName,
    state: &State,
) -> Result<(Target, Payload)> {
    let earlier = state.components.get(name).filter(|_| !args.reset);
    let spec = patch
        .clone()
        .apply(artifact, earlier.map(|earlier| &earlier.spec));
    spec.validate()
        .context_code(ExitCode::Usage, "these settings cannot be used")?;
    spec.unsupported()
        .context_code(ExitCode::Usage, "these settings cannot be used")?;
    let run = match (args.start, args.no_start) {
        (true, _) => Some(true),
        (_, true) => Some(false),
        _ => None,
    };
    let push = Push {
        spec,
        run,
        note: args.note.clone(),
    };
    Ok((
        Target::Component(name.as_str().to_owned()),
        Payload::Push(push),
    ))
}

fn patch(
    args: &Args,
    source: String,
    nodes: Vec<PublicKey>,
    session: &Session,
) -> Result<PushPatch> {
    fn given<T: Clone>(list: &[T]) -> Option<Vec<T>> {
        (!list.is_empty()).then(|| list.to_vec())
    }
    let grants = &args.grants;
    let env = grants.env()?;
    for (key, _) in env.iter().filter(|(key, _)| units::looks_secret(key)) {
        session.output.say(format!(
            "warning: {key} looks like a secret; env is signed and stored in the clear on every node"
        ));
    }
    Ok(PushPatch {
        source: Some(Some(source)),
        replicas: args.replicas.map(|replicas| replicas.0),
        nodes: given(&nodes),
        tags: given(&args.tags),
        memory_max_mb: args.limits.memory_max_mb,
        fuel: args.limits.fuel,
        fuel_per_sec: args.limits.fuel_per_sec,
        epoch_ms: args.limits.epoch_ms,
        deadline_ms: args.limits.deadline_ms.map(Some),
        args: given(&args.args),
        env: given(&env),
        vars: given(&grants.vars()?),
        volumes: given(&grants.volumes),
        allowed_outbound: given(&grants.allow),
        restart: args.restart,
    })
}

/// Names and keys of nodes as keys.
async fn nodes(
    wanted: &[String],
    (connection, realm): (&Connection, &Realm),
    session: &Session,
) -> Result<Vec<PublicKey>> {
    let found = survey::named(wanted, connection, realm, &session.output).await?;
    let Some((keys, status)) = found else {
        return Ok(Vec::new());
    };
    for (key, wanted) in keys.iter().zip(wanted) {
        let is_revoked = |node: &Node| node.key == *key && node.state == NodeState::Revoked;
        if status.nodes.iter().any(is_revoked) {
            let message = format!("{wanted} is revoked: nothing ever runs there");
            return Err(CliError::new(ExitCode::Usage, message)
                .help("see which nodes there are: realm nodes ls"));
        }
    }
    Ok(keys)
}

/// Sends what the node lacks. What an earlier try left there may be damaged: then all of it is sent again.
async fn upload(
    local: &LocalArtifact,
    name: &ComponentName,
    connection: &Connection,
    session: &Session,
) -> Result<()> {
    let failed = |error| {
        let node = connection.described();
        rpc_failed(format!("the program could not be sent to {node}"), &error)
    };
    let (resumed, sent) = send(local, name, connection, session)
        .await
        .map_err(failed)?;
    match sent {
        Err(error) if resumed && error.code == ErrorCode::Invalid => {
            let (_, again) = send(local, name, connection, session)
                .await
                .map_err(failed)?;
            again.map_err(failed)
        }
        sent => sent.map_err(failed),
    }
}

/// Begins an upload; where another command is sending the same program, once that is done.
async fn begin(
    local: &LocalArtifact,
    name: &ComponentName,
    connection: &Connection,
    session: &Session,
) -> std::result::Result<UploadClient, RpcError> {
    let until = tokio::time::Instant::now() + OTHER_UPLOAD;
    let mut told = false;
    loop {
        let error = match connection.operator.upload(&local.artifact).await {
            Err(error) if error.code == ErrorCode::Conflict => error,
            begun => return begun,
        };
        if tokio::time::Instant::now() > until {
            return Err(error);
        }
        if !told {
            session.output.say(format!("{name}: {}", error.message));
            told = true;
        }
        tokio::time::sleep(LOOK).await;
    }
}

/// Whether it went on from what was there, and what became of it.
async fn send(
    local: &LocalArtifact,
    name: &ComponentName,
    connection: &Connection,
    session: &Session,
) -> std::result::Result<(bool, std::result::Result<(), RpcError>), RpcError> {
    let whole = local.artifact.size;
    let mut upload = begin(local, name, connection, session).await?;
    let from = upload.received();
    if from == whole {
        return Ok((false, upload.finish().await));
    }
    let mut source = local.from(from);
    let draw = session.output.interactive();
    if !draw {
        let size = units::size_text(whole - from);
        session.output.say(format!("{name}: sending {size}"));
    }
    let mut last = None;
    let progress = |sent: u64| {
        let percent = sent.saturating_mul(100) / whole.max(1);
        if draw && last != Some(percent) {
            last = Some(percent);
            // A line that cannot be drawn is no reason to stop an upload.
            let _ = write!(std::io::stderr(), "\r{name}: {percent} % sent");
        }
    };
    upload.write_all(&mut source, progress).await?;
    if draw {
        let _ = writeln!(std::io::stderr());
    }
    Ok((from > 0, upload.finish().await))
}

fn report(
    outcome: Outcome,
    name: &ComponentName,
    artifact: &Artifact,
    session: &Session,
) -> Result<()> {
    if session.output.json() {
        let mut object = lifecycle::as_json(outcome, name.as_str());
        object["component"] = name.as_str().into();
        object["digest"] = artifact.sha256.to_string().into();
        object["size"] = artifact.size.into();
        return session.output.json_line(&object);
    }
    match outcome {
        Outcome::Unchanged { revision } => {
            session.output.say(format!(
                "✓ {name} is as asked already, revision {revision}: nothing was signed"
            ));
        }
        Outcome::Done { revision, durable } => session.output.say(format!(
            "✓ {name}  sha256:{}  revision {revision}, {durable}",
            artifact.sha256.short()
        )),
    }
    Ok(())
}

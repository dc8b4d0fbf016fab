//! `realm run`: a program right here, with no key and no agent, under the same limits and grants.

use std::{path::PathBuf, sync::Arc, time::Duration};

use realm_identity::Artifact;
use realm_manifest::{ComponentSpec, VolumeSource};
use realm_runtime::{
    CellConfig, CompilerConfig, ExitStatus, Flavour, InspectError, Inspection, LimitHit, Mount,
    PreparedKind, Runtime, RuntimeConfig, RuntimeError, Stdio,
};

use crate::{
    artifact,
    commands::{
        Session,
        cell_args::{GrantArgs, LimitArgs},
        doctor::not_kept,
    },
    connection,
    error::{CliError, Context as _, ExitCode, Result},
    file, keystore,
};

#[derive(Debug, clap::Args)]
#[command(
    after_help = "Examples:\n  realm run hello.wasm\n  realm run tool.wasm --volume $PWD:/data:rw -- --verbose /data/in\n  realm run client.wasm --allow tcp://example.org:443"
)]
pub struct Args {
    /// A WebAssembly component or core module; - is standard input.
    pub file: PathBuf,
    /// Arguments of the program.
    #[arg(last = true)]
    pub args: Vec<String>,
    #[command(flatten)]
    pub limits: LimitArgs,
    #[command(flatten)]
    pub grants: GrantArgs,
    /// Compile although this kernel cannot confine the compiler.
    #[arg(long)]
    pub allow_unsandboxed_compile: bool,
    /// A trap names the source file and line, where the program carries them (DWARF).
    #[arg(long)]
    pub wasm_debug: bool,
}

/// Compiling is worth a word after this.
const LONG: Duration = Duration::from_secs(1);

/// Answers with the guest's exit code.
pub fn run(args: &Args, session: &Session) -> Result<u8> {
    let name = args.file.display();
    let wasm = artifact::read(&args.file).map_err(|mut error| {
        error.code = match error.code {
            ExitCode::NotFound => ExitCode::NoSuchProgram,
            _ => ExitCode::NotRunnable,
        };
        error
    })?;
    if wasm.is_empty() {
        // No setting is wrong: said before they are looked at.
        let refused = CliError::new(ExitCode::NotRunnable, format!("cannot run {name}"));
        return Err(refused.because(&InspectError::Empty));
    }
    let cell = cell(args, &wasm)?;
    connection::block_on(async {
        let runtime = runtime(session, args.compiling())?;
        let preparing = runtime.prepare(Arc::from(wasm), Flavour::of(&cell.limits));
        let prepared = told_when_long(preparing, &name.to_string(), session).await;
        let prepared =
            prepared.context_code(ExitCode::NotRunnable, format!("cannot run {name}"))?;
        if let PreparedKind::Library { exports } = prepared.kind() {
            return Err(CliError::new(
                ExitCode::Usage,
                format!("{name} is a library: it has nothing to run"),
            )
            .help(told(exports, prepared.inspection())));
        }
        let limits = cell.limits.clone();
        let handle = runtime
            .start(&prepared, cell)
            .context_code(ExitCode::RunFailed, format!("cannot run {name}"))?;
        let status = handle.wait().await;
        let hits = handle.stats().limit_hits;
        runtime.shutdown().await;
        let failed = match status {
            ExitStatus::Exited(code) => code != 0,
            ExitStatus::Trapped { .. } => true,
            _ => false,
        };
        if failed {
            // The guest may have told what became of it in words that say nothing of a limit.
            for (limit, _) in hits {
                let hit = LimitHit::of(limit, &limits);
                session.output.say(format!("before it ended: {hit}"));
            }
        }
        exit_code(status)
    })
    .map_err(|mut error| {
        // What is ours is told from what is the guest's.
        if error.code == ExitCode::Failed && error.message.starts_with("cannot") {
            error.code = ExitCode::RunFailed;
        }
        error
    })
}

/// Tells what is going on, where compiling takes long.
async fn told_when_long<T>(work: impl Future<Output = T>, name: &str, session: &Session) -> T {
    let mut work = std::pin::pin!(work);
    tokio::select! {
        done = &mut work => return done,
        () = tokio::time::sleep(LONG) => {}
    }
    // Checking a large one takes long, too; a library is not compiled.
    let told = format!(
        "getting {name} ready: it is checked, and compiled if it is to run; both are kept for the next time"
    );
    session.output.say(told);
    work.await
}

/// What is in a library, and what it wants that realm does not have.
fn told(exports: &[String], inspection: &Inspection) -> String {
    const MANY: usize = 20;
    let mut told = format!("it exports {}", named(exports, MANY));
    if exports.iter().any(|export| export == "_start") {
        told.push_str("; a _start that can be run has no parameters and no results");
    }
    if !inspection.missing.is_empty() {
        let missing = named(&inspection.missing, MANY);
        told.push_str(&format!(
            "; it was built for another host, with imports that realm does not offer: {missing}"
        ));
    }
    told
}

/// The first of some names, and how many more there are.
fn named(names: &[String], most: usize) -> String {
    let shown = names.iter().take(most);
    let mut list = shown
        .map(|name| if name.is_empty() { "\"\"" } else { name })
        .collect::<Vec<_>>()
        .join(", ");
    if names.is_empty() {
        list.push_str("nothing");
    }
    if names.len() > most {
        list.push_str(&format!(" and {} more", names.len() - most));
    }
    list
}

fn exit_code(status: ExitStatus) -> Result<u8> {
    match status {
        // As a shell does: only the low byte of an exit code counts.
        // One that is not 0 stays so.
        ExitStatus::Exited(code) if code != 0 && code & 0xff == 0 => Ok(1),
        ExitStatus::Exited(code) => Ok((code & 0xff) as u8),
        ExitStatus::LimitHit(hit) => Err(CliError::failed(format!("the program ended: {hit}"))),
        ExitStatus::Failed { message } => Err(CliError::new(
            ExitCode::RunFailed,
            format!("the program could not run: {message}"),
        )),
        status => Err(CliError::failed(format!("the program {status}"))),
    }
}

fn cell(args: &Args, wasm: &[u8]) -> Result<CellConfig> {
    let stem = args
        .file
        .file_name()
        .map(|name| name.to_string_lossy().into_owned());
    let mut cell = CellConfig::new(stem.unwrap_or_default(), Stdio::Inherit { rate: None });
    let mut spec = ComponentSpec::new(Artifact::of(wasm));
    spec.limits = args.limits.over(cell.limits);
    spec.grants.env = args.grants.env()?;
    spec.grants.vars = args.grants.vars()?;
    spec.grants.args.clone_from(&args.args);
    spec.validate()
        .context_code(ExitCode::Usage, "these settings cannot be used")?;
    cell.limits = spec.limits;
    cell.grants = spec.grants;
    cell.grants.allowed_outbound = args.grants.allow.clone();
    for volume in &args.grants.volumes {
        let VolumeSource::Host(host) = &volume.source else {
            return Err(
                CliError::new(ExitCode::Usage, "named volumes exist on nodes only")
                    .help("name a directory of this machine: /path:/guest"),
            );
        };
        cell.mounts.push(Mount {
            host: PathBuf::from(host),
            guest: volume.guest.clone(),
            mode: volume.mode,
        });
    }
    Ok(cell)
}

/// How programs are compiled right here.
#[derive(Debug, Clone, Copy, Default)]
pub struct Compiling {
    pub allow_unsandboxed: bool,
    pub wasm_debug: bool,
    /// Nothing is compiled: there is what the cache has.
    pub kept_only: bool,
}

impl Args {
    const fn compiling(&self) -> Compiling {
        Compiling {
            allow_unsandboxed: self.allow_unsandboxed_compile,
            wasm_debug: self.wasm_debug,
            kept_only: false,
        }
    }
}

/// Compiled code is kept beside the command line's state, and trusted by a key that lies there.
pub fn runtime(session: &Session, compiling: Compiling) -> Result<Runtime> {
    let state = session.settings.state_dir();
    let exe = match compiling.kept_only {
        // It cannot be started.
        true => PathBuf::from("/dev/null"),
        false => std::env::current_exe().context("cannot find this program itself")?,
    };
    let mut compiler = CompilerConfig::new(exe, vec!["__compile".into()]);
    compiler.allow_unsandboxed = compiling.allow_unsandboxed;
    let key = cache_key(&state.join("cache.key")).map_err(|error| not_kept(&state, error))?;
    let mut config = RuntimeConfig::new(state.join("compiled"), key, compiler);
    // One program: little address space, and no waiting for the pools.
    config.max_cells = 1;
    config.wasm_debug = compiling.wasm_debug;
    Runtime::new(config).map_err(|error| {
        let failed = CliError::failed("cannot start the runtime").because(&error);
        match error {
            RuntimeError::Cache { .. } => not_kept(&state, failed),
            _ => failed,
        }
    })
}

fn cache_key(path: &std::path::Path) -> Result<[u8; 32]> {
    let described = || format!("cannot keep the key of compiled code in {}", path.display());
    let kept = || file::read(path, 32).context(described());
    if let Some(Ok(key)) = kept()?.map(<[u8; 32]>::try_from) {
        return Ok(key);
    }
    let key = keystore::random()?;
    match file::create(path, &key) {
        Ok(()) => Ok(key),
        // Another run was faster, or the file is damaged and code made under it is not trusted.
        Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => match kept()? {
            Some(bytes) if bytes.len() == 32 => Ok(bytes.try_into().unwrap_or(key)),
            _ => file::replace(path, &key).context(described()).map(|()| key),
        },
        Err(error) => Err(error).context(described()),
    }
}

//! `realm inspect`: what a WebAssembly file is, and what it would need.

use std::path::PathBuf;

use realm_runtime::{Inspection, Item, inspect};

use crate::{
    artifact,
    commands::Session,
    error::{CliError, Context as _, ExitCode, Result},
    output::Output,
};

#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:\n  realm inspect hello.wasm\n  realm inspect hello.wasm -o json")]
pub struct Args {
    /// A WebAssembly component or core module; - is standard input.
    pub file: PathBuf,
}

pub fn run(args: &Args, session: &Session) -> Result<()> {
    let bytes = artifact::read(&args.file)?;
    let inspection = inspect(&bytes)
        .context_code(
            ExitCode::Usage,
            format!("cannot inspect {}", args.file.display()),
        )
        .map_err(|error: CliError| error.help("give a WebAssembly component or core module"))?;
    if session.output.json() {
        return session.output.object(&inspection);
    }
    show(&inspection, &session.output)
}

fn show(inspection: &Inspection, output: &Output) -> Result<()> {
    output.line(&format!(
        "{}  sha256:{}  {} bytes",
        word(inspection.kind),
        inspection.sha256,
        inspection.size
    ))?;
    let entry = match &inspection.entry {
        Some(entry) => word(entry),
        None => "none: a library, which is called and not run".to_owned(),
    };
    output.line(&format!("entry    {entry}"))?;
    let list = |words: Vec<String>| {
        if words.is_empty() {
            "nothing".into()
        } else {
            words.join(", ")
        }
    };
    let previews = inspection.previews.iter().map(word).collect();
    output.line(&format!("wasi     {}", list(previews)))?;
    let needs = inspection.needs.iter().map(word).collect();
    output.line(&format!("may want {}", list(needs)))?;
    let runs = match &inspection.refused {
        _ if inspection.is_library() => "no: a library".to_owned(),
        Some(why) => format!("no: {why}"),
        None => "yes".to_owned(),
    };
    output.line(&format!("runs     {runs}"))?;
    for producer in &inspection.producers {
        let (field, name, version) = (&producer.field, &producer.name, &producer.version);
        output.line(&format!("made by  {name} {version} ({field})"))?;
    }
    items("imports", &inspection.imports, output)?;
    items("exports", &inspection.exports, output)
}

fn items(title: &str, items: &[Item], output: &Output) -> Result<()> {
    output.line(title)?;
    for item in items {
        // A name may be empty.
        let name = if item.name.is_empty() {
            "\"\""
        } else {
            &item.name
        };
        output.line(&format!("  {name}: {}", item.ty))?;
    }
    Ok(())
}

/// A value's word in JSON, without quotes.
fn word(value: impl serde::Serialize) -> String {
    let json = serde_json::to_value(value).unwrap_or_default();
    json.as_str().unwrap_or("?").to_owned()
}

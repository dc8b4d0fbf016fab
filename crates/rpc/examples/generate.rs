//! Makes `src/schema/*_capnp.rs` from `schema/*.capnp`: needs the `capnp` program, building does not.
//!
//! Run by `cargo xtask capnp`.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use sha2::{Digest as _, Sha256};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let schemas = ["membrane", "operator"];
    let mut command = capnpc::CompilerCommand::new();
    command
        .src_prefix(root.join("schema"))
        .output_path(root.join("src/schema"))
        .default_parent_module(vec!["schema".to_owned()]);
    for name in schemas {
        command.file(root.join(format!("schema/{name}.capnp")));
    }
    command.run()?;
    format(schemas.map(|name| root.join(format!("src/schema/{name}_capnp.rs"))))?;
    for name in schemas {
        let mut record = String::new();
        for file in [
            format!("schema/{name}.capnp"),
            format!("src/schema/{name}_capnp.rs"),
        ] {
            let digest = hex::encode(Sha256::digest(fs::read(root.join(&file))?));
            record.push_str(&format!("{digest}  {file}\n"));
        }
        fs::write(root.join(format!("schema/{name}.sha256")), record)?;
    }
    Ok(())
}

/// As `cargo fmt` leaves them, so that what is recorded is what is committed.
fn format<const N: usize>(files: [PathBuf; N]) -> Result<(), Box<dyn std::error::Error>> {
    let status = Command::new("rustfmt")
        .args(["--edition", "2024"])
        .args(files)
        .status()?;
    if status.success() {
        return Ok(());
    }
    Err(format!("rustfmt ended with {status}").into())
}

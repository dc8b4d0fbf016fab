//! Makes `src/schema/*_capnp.rs` from `schema/*.capnp`: needs the `capnp` program, building does not.
//!
//! Run it in this crate's directory: `cargo run -p realm-rpc --example generate`.

use std::{fs, path::Path};

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
    for name in schemas {
        let source = fs::read(root.join(format!("schema/{name}.capnp")))?;
        let digest = hex::encode(Sha256::digest(source));
        fs::write(
            root.join(format!("schema/{name}.sha256")),
            format!("{digest}\n"),
        )?;
    }
    Ok(())
}

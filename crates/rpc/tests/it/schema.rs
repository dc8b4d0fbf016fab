//! The generated code belongs to the schema beside it.

use std::{fs, path::Path};

use sha2::{Digest as _, Sha256};

#[test]
fn generated_code_is_of_this_schema() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("schema");
    for name in ["membrane", "operator"] {
        let source = fs::read(root.join(format!("{name}.capnp"))).unwrap();
        let recorded = fs::read_to_string(root.join(format!("{name}.sha256"))).unwrap();
        assert_eq!(
            hex::encode(Sha256::digest(source)),
            recorded.trim(),
            "{name}.capnp changed: run `cargo run -p realm-rpc --example generate`"
        );
    }
}

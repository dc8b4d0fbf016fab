//! The generated code belongs to the schema beside it.

use std::{fs, path::Path};

use sha2::{Digest as _, Sha256};

#[test]
fn generated_code_is_of_this_schema() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    for name in ["membrane", "operator"] {
        let record = fs::read_to_string(root.join(format!("schema/{name}.sha256"))).unwrap();
        let recorded: Vec<(&str, &str)> = record
            .lines()
            .map(|line| line.split_once("  ").unwrap())
            .collect();
        // Both: one that was changed by hand is not what the other one makes.
        let files = [
            format!("schema/{name}.capnp"),
            format!("src/schema/{name}_capnp.rs"),
        ];
        assert_eq!(recorded.len(), files.len(), "{name}.sha256: {record}");
        for (file, (digest, recorded)) in files.iter().zip(recorded) {
            assert_eq!(file, recorded);
            let bytes = fs::read(root.join(file)).unwrap();
            assert_eq!(
                hex::encode(Sha256::digest(bytes)),
                digest,
                "{file} is not as it was when the code was generated: run `cargo xtask capnp`"
            );
        }
    }
}

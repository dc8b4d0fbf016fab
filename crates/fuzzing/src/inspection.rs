//! Artifacts, as `realm inspect` and a node's compile child read them before anything is compiled.

use realm_runtime::{InspectError, inspect};

/// Bytes of names and types that an inspection may list for the largest input: types are written out, so
/// that a small artifact can have much to tell, but not without end.
const MAX_TOLD: usize = 4 * 1024 * 1024;

pub fn feed(input: &[u8]) {
    match inspect(input) {
        Ok(found) => {
            assert_eq!(found.size, input.len() as u64, "another size");
            assert_eq!(inspect(input).ok().as_ref(), Some(&found), "two answers");
            let items = found.imports.iter().chain(&found.exports);
            let told: usize = items.map(|item| item.name.len() + item.ty.len()).sum();
            assert!(told <= MAX_TOLD, "{told} bytes to tell");
            assert_eq!(
                found.refused.is_none(),
                found.check().is_ok(),
                "two verdicts"
            );
        }
        Err(InspectError::Empty) => assert!(input.is_empty(), "not empty"),
        Err(error) => assert!(!error.to_string().is_empty()),
    }
}

//! The fuzzer: libFuzzer with the target that a variable names. `cargo xtask fuzz` builds and runs it.

#![no_main]

use std::{path::Path, sync::OnceLock};

use realm_fuzzing::Target;

/// Names the target.
const VARIABLE: &str = "REALM_FUZZ_TARGET";

fn chosen() -> &'static Target {
    static CHOSEN: OnceLock<&'static Target> = OnceLock::new();
    CHOSEN.get_or_init(|| {
        let name = std::env::var(VARIABLE).unwrap_or_default();
        match realm_fuzzing::target(&name) {
            Some(target) => target,
            None => panic!("{VARIABLE} names no target: {name:?}"),
        }
    })
}

/// Names a `realm` program and a directory of corpora, parted by a line break: it is recorded there,
/// instead of feeding anything.
const RECORD: &str = "REALM_FUZZ_RECORD";

fn begin() {
    if let Ok(asked) = std::env::var(RECORD) {
        let (binary, to) = asked.split_once('\n').unwrap_or((&asked, "corpus"));
        realm_fuzzing::record(Path::new(binary), Path::new(to));
        std::process::exit(0);
    }
    bound_memory();
}

/// Memory that may be asked for, in bytes, used or not: who believes a length that a peer names asks
/// for more, and ends the program. Several times what all of a target takes.
const MAX_DATA_BYTES: u64 = 1 << 30;

fn bound_memory() {
    let limit = rustix::process::Rlimit {
        current: Some(MAX_DATA_BYTES),
        maximum: Some(MAX_DATA_BYTES),
    };
    if let Err(error) = rustix::process::setrlimit(rustix::process::Resource::Data, limit) {
        panic!("cannot bound what an input may ask for: {error}");
    }
}

libfuzzer_sys::fuzz_target!(init: begin(), |input: &[u8]| (chosen().feed)(input));

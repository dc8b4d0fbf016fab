//! The compile child on its own, for this crate's tests; the `realm` binary has it as a hidden subcommand.

use std::process::ExitCode;

fn main() -> ExitCode {
    realm_runtime::compile_child::main(std::env::args_os().skip(1))
}

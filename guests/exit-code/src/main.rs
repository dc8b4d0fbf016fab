//! Ends with the exit code given as the last argument.
//!
//! A component says it through `exit-with-code` of `wasi:cli/exit`. The standard library calls
//! `exit` there, which knows success and failure only; `std CODE` ends in its way.

fn main() {
    let mut args = std::env::args().skip(1);
    let code = match args.next().as_deref() {
        Some("std") => number(args.next()).map(|code| std::process::exit(code)),
        code => number(code.map(str::to_owned)).map(exit),
    };
    if code.is_none() {
        eprintln!("usage: exit-code [std] CODE, where CODE is 0 to 255");
        std::process::exit(2);
    }
}

fn number<T: std::str::FromStr>(arg: Option<String>) -> Option<T> {
    arg?.parse().ok()
}

#[cfg(target_env = "p2")]
fn exit(code: u8) {
    wasip2::cli::exit::exit_with_code(code);
}

#[cfg(not(target_env = "p2"))]
fn exit(code: u8) {
    std::process::exit(code.into());
}

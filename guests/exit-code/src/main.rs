//! Ends with the exit code given as the first argument.

fn main() {
    let code = std::env::args().nth(1).and_then(|arg| arg.parse().ok());
    match code {
        Some(code) => std::process::exit(code),
        None => {
            eprintln!("usage: exit-code CODE");
            std::process::exit(2);
        }
    }
}

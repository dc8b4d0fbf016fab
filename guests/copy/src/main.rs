//! Copies its standard input to its standard output, and says on standard error how much that was.

use std::io::{self, Write as _};

fn main() {
    let mut stdout = io::stdout().lock();
    let copied = io::copy(&mut io::stdin().lock(), &mut stdout).and_then(|copied| {
        stdout.flush()?;
        Ok(copied)
    });
    match copied {
        Ok(copied) => eprintln!("copied {copied} bytes"),
        Err(error) => {
            eprintln!("cannot copy: {error}");
            std::process::exit(1);
        }
    }
}

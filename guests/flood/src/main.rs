//! Writes lines to its output without end and without pause.

use std::io::Write;

fn main() {
    let line = [b'x'; 1023];
    let mut stdout = std::io::stdout().lock();
    loop {
        if stdout
            .write_all(&line)
            .and_then(|()| stdout.write_all(b"\n"))
            .is_err()
        {
            return;
        }
    }
}

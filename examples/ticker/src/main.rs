//! The demo service: one counted line a second, for ever, signed with `NAME`.

use std::io::Write;
use std::time::Duration;

fn main() {
    let name = std::env::var("NAME").unwrap_or_else(|_| "ticker".to_owned());
    let mut stdout = std::io::stdout();
    for count in 1_u64.. {
        if writeln!(stdout, "{name} tick {count}")
            .and_then(|()| stdout.flush())
            .is_err()
        {
            // Nobody reads any more.
            return;
        }
        std::thread::sleep(Duration::from_secs(1));
    }
}

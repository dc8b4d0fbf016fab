//! Counts once a second and keeps the count in a volume, so that a restart goes on from it.

use std::fs::{self, File};
use std::io::{self, ErrorKind, Write};
use std::path::Path;
use std::process::ExitCode;
use std::time::Duration;

const DIR: &str = "/data";
const INTERVAL: Duration = Duration::from_secs(1);

fn main() -> ExitCode {
    match run(Path::new(DIR)) {
        // Nobody reads the output any more.
        Err(error) if error.kind() == ErrorKind::BrokenPipe => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("counter-volume: {error}; was a volume granted with --volume NAME:{DIR}:rw?");
            ExitCode::FAILURE
        }
        Ok(()) => ExitCode::SUCCESS,
    }
}

fn run(dir: &Path) -> io::Result<()> {
    let mut count = load(&dir.join("count"))?;
    let mut stdout = io::stdout();
    writeln!(stdout, "starting from {count}")?;
    loop {
        count += 1;
        store(dir, count)?;
        // Said only once it is kept: what was printed is never counted twice.
        writeln!(stdout, "count {count}")?;
        stdout.flush()?;
        std::thread::sleep(INTERVAL);
    }
}

fn load(file: &Path) -> io::Result<u64> {
    match fs::read_to_string(file) {
        Ok(text) => text.trim().parse().map_err(|_| {
            let message = format!("{} holds {text:?}, which is no count", file.display());
            io::Error::new(ErrorKind::InvalidData, message)
        }),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(0),
        Err(error) => Err(error),
    }
}

/// A new file takes the old one's place, so that a cell that is stopped halfway leaves one of them whole.
fn store(dir: &Path, count: u64) -> io::Result<()> {
    let next = dir.join("count.next");
    let mut file = File::create(&next)?;
    writeln!(file, "{count}")?;
    file.sync_all()?;
    fs::rename(next, dir.join("count"))
}

//! What the kernel knows of a process, and small talk with an agent's endpoint.

use std::{
    fs,
    io::{BufRead as _, BufReader, Read as _, Write as _},
    net::{TcpListener, TcpStream},
    path::Path,
    process::{Child, Command, Stdio},
    time::{Duration, Instant, SystemTime},
};

use anyhow::{Context as _, Result, bail, ensure};

/// Linux counts processor time for user space in hundredths of a second, whatever its own clock does.
const TICKS_PER_SECOND: f64 = 100.0;

/// Seconds of processor time that a process has used, its ended children left out.
pub fn cpu_seconds(pid: u32) -> Result<f64> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).context("the process is gone")?;
    // Its name may hold anything: what comes after the last bracket is numbers.
    let numbers = stat.rsplit_once(')').context("no name in stat")?.1;
    let ticks = numbers
        .split_whitespace()
        .skip(11)
        .take(2)
        .map(str::parse::<f64>);
    Ok(ticks.sum::<Result<f64, _>>()? / TICKS_PER_SECOND)
}

/// A value of `/proc/PID/status`, in KiB.
pub fn kib(pid: u32, name: &str) -> Result<f64> {
    let status =
        fs::read_to_string(format!("/proc/{pid}/status")).context("the process is gone")?;
    let line = status.lines().find(|line| line.starts_with(name));
    let line = line.with_context(|| format!("/proc tells no {name}"))?;
    let value = line.split_whitespace().nth(1).context("a value")?;
    Ok(value.parse()?)
}

/// What each of some processes used while it was watched.
pub struct Watched {
    /// Of one core, in percent.
    pub percent: Vec<f64>,
    /// Resident in the end.
    pub mib: Vec<f64>,
}

/// Watches processes that have nothing to do.
pub fn watch(pids: &[u32], time: Duration) -> Result<Watched> {
    let all = |look: fn(u32) -> Result<f64>| -> Result<Vec<f64>> {
        pids.iter().map(|pid| look(*pid)).collect()
    };
    let (before, began) = (all(cpu_seconds)?, Instant::now());
    std::thread::sleep(time);
    let (after, took) = (all(cpu_seconds)?, began.elapsed().as_secs_f64());
    let percent = before.iter().zip(&after);
    let resident = all(|pid| kib(pid, "VmRSS:"))?;
    Ok(Watched {
        percent: percent
            .map(|(before, after)| 100.0 * (after - before) / took)
            .collect(),
        mib: resident.iter().map(|kib| kib / 1024.0).collect(),
    })
}

pub fn free_port() -> Result<u16> {
    Ok(TcpListener::bind("127.0.0.1:0")?.local_addr()?.port())
}

/// Whether `http://ADDRESS/PATH` answers with 200 now.
pub fn answers(address: &str, path: &str) -> bool {
    let asked = || -> std::io::Result<bool> {
        let mut stream = TcpStream::connect(address)?;
        stream.set_read_timeout(Some(Duration::from_secs(1)))?;
        write!(
            stream,
            "GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"
        )?;
        let mut line = String::new();
        BufReader::new(stream).read_line(&mut line)?;
        Ok(line.contains(" 200 "))
    };
    asked().unwrap_or(false)
}

/// Looks every millisecond until it is so, for `patience` at most; says how long that took.
pub fn until(what: &str, patience: Duration, mut so: impl FnMut() -> bool) -> Result<Duration> {
    look(Duration::from_millis(1), patience, what, || Ok(so()))
}

/// Looks again and again until it is so; says how long that took.
pub fn look(
    pause: Duration,
    patience: Duration,
    what: &str,
    mut so: impl FnMut() -> Result<bool>,
) -> Result<Duration> {
    let started = Instant::now();
    while !so()? {
        ensure!(
            started.elapsed() < patience,
            "{what}: not within {patience:?}"
        );
        std::thread::sleep(pause);
    }
    Ok(started.elapsed())
}

/// Runs a program to its end, which must be a good one; says how long that took.
pub fn timed(command: &mut Command) -> Result<Duration> {
    let started = Instant::now();
    let output = command
        .stdin(Stdio::null())
        .output()
        .with_context(|| format!("cannot start {command:?}"))?;
    let took = started.elapsed();
    if !output.status.success() {
        let text = String::from_utf8_lossy(&output.stderr);
        bail!("{command:?} failed: {}: {}", output.status, text.trim());
    }
    Ok(took)
}

/// Starts a program; says how long it took until its first byte of output, and lets it end.
pub fn first_output(command: &mut Command) -> Result<Duration> {
    let started = Instant::now();
    let mut child = command
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .with_context(|| format!("cannot start {command:?}"))?;
    let mut output = child.stdout.take().context("its output")?;
    let mut byte = [0];
    let read = output.read_exact(&mut byte);
    let took = started.elapsed();
    let mut rest = Vec::new();
    output.read_to_end(&mut rest)?;
    let status = child.wait()?;
    read.with_context(|| format!("{command:?} wrote nothing"))?;
    ensure!(status.success(), "{command:?} failed: {status}");
    Ok(took)
}

pub fn millis(time: Duration) -> f64 {
    time.as_secs_f64() * 1000.0
}

/// Milliseconds between two points of the machine's clock.
pub fn since(start: SystemTime, end: jiff::Timestamp) -> Result<f64> {
    let start = jiff::Timestamp::try_from(start)?;
    Ok(end.duration_since(start).as_secs_f64() * 1000.0)
}

/// The program on the path with this name.
pub fn on_path(name: &str) -> Option<std::path::PathBuf> {
    let path = std::env::var_os("PATH")?;
    let mut places = std::env::split_paths(&path).map(|dir| dir.join(name));
    places.find(|place| is_program(place))
}

pub fn is_program(path: &Path) -> bool {
    use std::os::unix::fs::PermissionsExt as _;
    fs::metadata(path).is_ok_and(|it| it.is_file() && it.permissions().mode() & 0o111 != 0)
}

/// A process that ends with the benchmark.
#[derive(Debug)]
pub struct Held(pub Child);

impl Drop for Held {
    fn drop(&mut self) {
        // It may have ended by itself, which is as good.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

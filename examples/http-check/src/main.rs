//! Fetches a page over TCP and succeeds if the answer is 2xx or 3xx.
//!
//! The argument is `http://HOST[:PORT][/PATH]`. The grant that it needs is `tcp://HOST:PORT`.

mod connection;

use std::process::ExitCode;
use std::time::Duration;

use connection::{Connection, Deadline};

/// From the look-up of the name to the first line of the answer.
const PATIENCE: Duration = Duration::from_secs(10);
/// A status line is shorter; a server that says more first is not one of HTTP.
const STATUS_LINE_BYTES: usize = 1024;

fn main() -> ExitCode {
    let Some(url) = std::env::args().nth(1) else {
        eprintln!("usage: http-check http://HOST[:PORT][/PATH]");
        return ExitCode::FAILURE;
    };
    match check(&url) {
        Ok(status) if (200..400).contains(&status) => {
            println!("{url}: {status}");
            ExitCode::SUCCESS
        }
        Ok(status) => {
            eprintln!("{url}: the server answers {status}");
            ExitCode::FAILURE
        }
        Err(error) => {
            eprintln!("{url}: {error}");
            ExitCode::FAILURE
        }
    }
}

fn check(url: &str) -> Result<u16, String> {
    let target = Target::parse(url)?;
    let deadline = Deadline::after(PATIENCE);
    let connection = Connection::open(target.host, target.port, &deadline)?;
    connection.send(target.request().as_bytes())?;
    let mut answer = Vec::new();
    while !answer.contains(&b'\n') && answer.len() < STATUS_LINE_BYTES {
        match connection.receive(&deadline)? {
            Some(bytes) => answer.extend(bytes),
            None => break,
        }
    }
    status(&answer).ok_or_else(|| "the answer is not HTTP".to_owned())
}

/// The code in a line such as `HTTP/1.1 200 OK`.
fn status(answer: &[u8]) -> Option<u16> {
    let line = answer.split(|byte| *byte == b'\n').next()?;
    let mut words = std::str::from_utf8(line).ok()?.split_whitespace();
    words.next()?.starts_with("HTTP/1.").then_some(())?;
    words.next()?.parse().ok()
}

struct Target<'a> {
    /// As in the URL, with its port: the server may want to see it.
    authority: &'a str,
    host: &'a str,
    port: u16,
    path: &'a str,
}

impl<'a> Target<'a> {
    fn parse(url: &'a str) -> Result<Self, String> {
        let rest = url
            .strip_prefix("http://")
            .ok_or("only http:// is checked here")?;
        let (authority, path) = rest.split_at(rest.find('/').unwrap_or(rest.len()));
        let (host, port) = match authority.rsplit_once(':') {
            Some((host, port)) if !port.ends_with(']') => (
                host,
                port.parse()
                    .map_err(|_| format!("{port:?} is not a port"))?,
            ),
            _ => (authority, 80),
        };
        let host = host.trim_start_matches('[').trim_end_matches(']');
        if host.is_empty() || url.contains(|c: char| c.is_whitespace() || c.is_control()) {
            return Err("not a URL".to_owned());
        }
        Ok(Self {
            authority,
            host,
            port,
            path: if path.is_empty() { "/" } else { path },
        })
    }

    fn request(&self) -> String {
        format!(
            "GET {} HTTP/1.1\r\nHost: {}\r\nUser-Agent: http-check\r\nConnection: close\r\n\r\n",
            self.path, self.authority
        )
    }
}

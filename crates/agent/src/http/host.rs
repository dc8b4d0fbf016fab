//! Whom the endpoint answers: those who call it by a name of this machine's loopback, and who has the
//! token where one is needed.

use std::{
    io::{self, Read as _, Write as _},
    net::{IpAddr, SocketAddr},
    path::Path,
    sync::Arc,
};

use axum::{
    extract::{Request, State},
    http::{
        StatusCode,
        header::{AUTHORIZATION, HOST, WWW_AUTHENTICATE},
    },
    middleware::Next,
    response::{IntoResponse as _, Response},
};
use realm_store::own;

/// The token's file in the data directory.
pub const TOKEN_FILE: &str = "http.token";
/// Letters of a token: 32 bytes in hexadecimal.
const TOKEN_LETTERS: usize = 64;

/// What a request must bring; None where everybody on this machine may read.
pub type Token = Option<Arc<str>>;

/// Refuses names that are not this machine's loopback, so that a web page cannot read this
/// endpoint by pointing its own name here. A request may give its name twice: in the header and,
/// as one to a proxy, in its first line.
pub async fn known_host(request: Request, next: Next) -> Response {
    let mut hosts = request.headers().get_all(HOST).iter();
    let host = hosts.next().and_then(|host| host.to_str().ok());
    if hosts.next().is_some() {
        return (StatusCode::BAD_REQUEST, "more than one Host header\n").into_response();
    }
    let named = request.uri().authority();
    if is_local(host.unwrap_or("")) && named.is_none_or(|name| is_local(name.as_str())) {
        next.run(request).await
    } else {
        (
            StatusCode::MISDIRECTED_REQUEST,
            "unknown host: use an address or localhost\n",
        )
            .into_response()
    }
}

/// Refuses who has not read the token's file: other people of this machine reach loopback too.
pub async fn known_token(State(token): State<Token>, request: Request, next: Next) -> Response {
    let given = request.headers().get(AUTHORIZATION);
    let given = given.and_then(|value| bearer(value.to_str().ok()?));
    let known = match (&token, given) {
        (None, _) => true,
        (Some(token), Some(given)) => same(token.as_bytes(), given.as_bytes()),
        (Some(_), None) => false,
    };
    if known {
        return next.run(request).await;
    }
    let help = "a token is needed: send it as `Authorization: Bearer TOKEN`; it is in http.token of \
                the agent's data directory\n";
    // Which RFC 9110 asks of every 401.
    let scheme = [(WWW_AUTHENTICATE, "Bearer")];
    (StatusCode::UNAUTHORIZED, scheme, help).into_response()
}

/// The token in `Bearer TOKEN`; the scheme's letters may be of either case (RFC 9110, section 11.1).
fn bearer(credentials: &str) -> Option<&str> {
    let (scheme, token) = credentials.split_once(' ')?;
    let is_bearer = scheme.eq_ignore_ascii_case("bearer");
    is_bearer.then(|| token.trim_start_matches(' '))
}

/// Compares in a time that does not tell where two tokens differ.
fn same(a: &[u8], b: &[u8]) -> bool {
    a.len() == b.len() && a.iter().zip(b).fold(0, |sum, (a, b)| sum | (a ^ b)) == 0
}

/// The token of a data directory; a new one where there is none.
pub fn token(dir: &Path, random: impl FnOnce() -> io::Result<[u8; 32]>) -> io::Result<Arc<str>> {
    let path = dir.join(TOKEN_FILE);
    let mut bytes = Vec::new();
    match own::open(std::fs::OpenOptions::new().read(true), &path) {
        Ok(file) => {
            let most = u64::try_from(TOKEN_LETTERS).unwrap_or(u64::MAX) + 1;
            file.take(most).read_to_end(&mut bytes)?;
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Err(error) => return Err(error),
    }
    let text = bytes.trim_ascii_end();
    if text.len() == TOKEN_LETTERS && text.iter().all(u8::is_ascii_hexdigit) {
        return Ok(String::from_utf8_lossy(text).into());
    }
    // A file that was cut short or changed is no token: whoever used it is told so by the answer.
    let token: String = random()?.iter().map(|byte| format!("{byte:02x}")).collect();
    let new = dir.join(format!("{TOKEN_FILE}.new"));
    let mut file = own::make(&new, 0o600)?;
    file.write_all(format!("{token}\n").as_bytes())?;
    file.sync_all()?;
    std::fs::rename(&new, &path)?;
    std::fs::File::open(dir)?.sync_all()?;
    Ok(token.into())
}

fn is_local(host: &str) -> bool {
    if host.parse::<SocketAddr>().is_ok() {
        return true;
    }
    let name = host
        .strip_prefix('[')
        .and_then(|rest| rest.strip_suffix(']'))
        .unwrap_or(host);
    let name = match name.rsplit_once(':') {
        Some((name, port)) if port.bytes().all(|b| b.is_ascii_digit()) && !name.contains(':') => {
            name
        }
        _ => name,
    };
    name.eq_ignore_ascii_case("localhost") || name.parse::<IpAddr>().is_ok()
}

#[cfg(test)]
mod tests {
    use super::{TOKEN_FILE, TOKEN_LETTERS, bearer, is_local, token};

    #[test]
    fn a_damaged_token_is_made_anew_and_a_good_one_stays() {
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join(TOKEN_FILE);
        let seven = || token(dir.path(), || Ok([7; 32])).expect("a token");
        let good = "07".repeat(32);
        assert_eq!(&*seven(), good);
        let kept = std::fs::read(&path).expect("it is kept");
        // A file of a crash in the middle does not keep it from being made.
        std::fs::write(dir.path().join("http.token.new"), "cut").expect("writes");
        let other = "0a".repeat(32);
        std::fs::write(&path, &other).expect("writes");
        assert_eq!(&*seven(), other, "a good one stays");
        for cut in 0..TOKEN_LETTERS {
            std::fs::write(&path, &kept[..cut]).expect("writes");
            assert_eq!(&*seven(), good, "cut to {cut}");
        }
        for at in 0..TOKEN_LETTERS * 8 {
            let mut flipped = kept.clone();
            flipped[at / 8] ^= 1 << (at % 8);
            std::fs::write(&path, &flipped).expect("writes");
            // The agent starts, with that file's token or a new one.
            let token = seven();
            assert!(*token == *good || token.as_bytes() == &flipped[..TOKEN_LETTERS]);
            assert_eq!(token.len(), TOKEN_LETTERS);
        }
        assert!(!dir.path().join("http.token.new").exists());
    }

    #[test]
    fn a_scheme_is_the_same_in_every_case() {
        for (credentials, token) in [
            ("Bearer abc", Some("abc")),
            ("bearer abc", Some("abc")),
            ("BEARER  abc", Some("abc")),
            ("Basic abc", None),
            ("Bearerabc", None),
            ("abc", None),
        ] {
            assert_eq!(bearer(credentials), token, "{credentials}");
        }
    }

    #[test]
    fn only_addresses_and_localhost_are_hosts() {
        for host in [
            "localhost",
            "LOCALHOST",
            "Localhost:9920",
            "localhost:9920",
            "127.0.0.1",
            "127.0.0.1:1",
            "[::1]:9920",
            "::1",
        ] {
            assert!(is_local(host), "{host}");
        }
        for host in [
            "",
            "evil.example",
            "evil.example:9920",
            "localhost.evil.example",
            "evil@localhost",
            "a:b:c",
        ] {
            assert!(!is_local(host), "{host}");
        }
    }
}

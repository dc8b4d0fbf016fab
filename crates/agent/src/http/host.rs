//! Whom the endpoint answers: those who call it by a name of this machine's loopback.

use std::net::{IpAddr, SocketAddr};

use axum::{
    extract::Request,
    http::{StatusCode, header::HOST},
    middleware::Next,
    response::{IntoResponse as _, Response},
};

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
    use super::is_local;

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

//! What an agent's HTTP endpoint answers.

use realm_testkit::{Cluster, Metrics, wait_for};

/// Where the agent of a node says that its HTTP endpoint is, which may be a moment after it listens.
pub fn http_address(realm: &Cluster, node: &str) -> String {
    wait_for("its HTTP endpoint", || {
        let log = realm.log(node);
        let (address, _) = log.rsplit_once("http://")?.1.split_once('/')?;
        Some(address.to_owned())
    })
}

pub fn get(address: &str, path: &str, host: &str) -> String {
    use std::io::{Read as _, Write as _};
    let mut stream = std::net::TcpStream::connect(address).unwrap();
    write!(
        stream,
        "GET {path} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n"
    )
    .unwrap();
    let mut text = String::new();
    stream.read_to_string(&mut text).unwrap();
    text
}

/// What a node has counted of a component: the newest value of `name` in its `/metrics`.
pub fn counted(realm: &Cluster, node: &str, name: &str, component: &str) -> Option<f64> {
    let page = Metrics::at(http_address(realm, node).parse().unwrap())?;
    page.value(name, &format!("component=\"{component}\""))
}

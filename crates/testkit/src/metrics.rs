//! What an agent says of itself at its HTTP endpoint.

use std::{
    io::{Read as _, Write as _},
    net::{SocketAddr, TcpStream},
    time::Duration,
};

/// An answer of a machine that works takes no longer, however busy it is.
const ANSWER: Duration = Duration::from_secs(10);

/// A page of `/metrics`.
#[derive(Debug)]
pub struct Metrics(String);

impl Metrics {
    /// None while the agent does not answer.
    pub fn at(address: SocketAddr) -> Option<Self> {
        let mut stream = TcpStream::connect_timeout(&address, ANSWER).ok()?;
        stream.set_read_timeout(Some(ANSWER)).ok()?;
        let request = "GET /metrics HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n";
        stream.write_all(request.as_bytes()).ok()?;
        let mut text = String::new();
        stream.read_to_string(&mut text).ok()?;
        Some(Self(text))
    }

    /// The values of `name` whose line has this among its labels, in the page's order.
    pub fn values(&self, name: &str, label: &str) -> Vec<f64> {
        let start = format!("{name}{{");
        let lines = self.0.lines();
        lines
            .filter(|line| line.starts_with(&start) && line.contains(label))
            .filter_map(|line| line.rsplit_once(' ')?.1.parse().ok())
            .collect()
    }

    /// Every line with its value: the name with its labels.
    pub fn all(&self) -> impl Iterator<Item = (&str, f64)> {
        let lines = self.0.lines().filter(|line| !line.starts_with('#'));
        lines.filter_map(|line| {
            let (name, value) = line.rsplit_once(' ')?;
            Some((name, value.parse().ok()?))
        })
    }

    /// The first of [`Metrics::values`].
    pub fn value(&self, name: &str, label: &str) -> Option<f64> {
        self.values(name, label).first().copied()
    }

    pub fn revision(&self) -> Option<u64> {
        self.value("realm_revision", "").map(|value| value as u64)
    }

    pub fn is_forked(&self) -> bool {
        self.value("realm_forked", "") == Some(1.0)
    }

    /// How many nodes are in this state, in the eyes of the one that was asked.
    pub fn nodes(&self, state: &str) -> usize {
        let label = format!("state=\"{state}\"");
        self.value("realm_nodes", &label).unwrap_or(0.0) as usize
    }

    /// Cells of this node that run.
    pub fn running(&self, component: &str) -> usize {
        let component = format!("component=\"{component}\"");
        let runs = |line: &&str| {
            line.starts_with("realm_cell_state{")
                && line.contains(&component)
                && line.contains("state=\"running\"")
                && line.ends_with(" 1")
        };
        self.0.lines().filter(runs).count()
    }

    /// What is said of the realm.
    pub fn in_short(&self) -> String {
        const OF_THE_REALM: [&str; 4] = [
            "realm_revision{",
            "realm_forked{",
            "realm_nodes{",
            "realm_node_problem{",
        ];
        let of_it = |line: &&str| OF_THE_REALM.iter().any(|start| line.starts_with(start));
        self.0.lines().filter(of_it).collect::<Vec<_>>().join("; ")
    }
}

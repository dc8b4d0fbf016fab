//! A realm with one node on each host of a net, and a look at all of them that costs them little.

use std::{
    io::{Read as _, Write as _},
    net::{Ipv4Addr, SocketAddr, TcpStream},
    ops::Range,
    time::{Duration, Instant},
};

use realm_testkit::{Cluster, Net, wait_within};

use crate::cluster;

/// An answer of a machine that works takes no longer, however busy it is.
const ANSWER: Duration = Duration::from_secs(10);
/// For what many agents of one machine do together.
const LONG: Duration = Duration::from_secs(240);
/// Nodes of a realm that is called large, where `REALM_HOSTS` says nothing else.
const MANY: u8 = 12;
/// Where agents serve their HTTP endpoints by default.
const HTTP: u16 = 9920;

/// A realm over a net; the agents end before their hosts do.
pub struct Scene {
    pub realm: Cluster,
    pub net: Net,
    pub names: Vec<String>,
}

/// What one node has to say at its HTTP endpoint.
pub struct Page(String);

impl Page {
    /// The value of the first line that begins with this name and has these labels.
    pub fn value(&self, name: &str, labels: &str) -> Option<f64> {
        let start = format!("{name}{{");
        let of_it = |line: &&str| line.starts_with(&start) && line.contains(labels);
        let line = self.0.lines().find(of_it)?;
        line.rsplit_once(' ')?.1.parse().ok()
    }

    /// What is said of the realm.
    fn in_short(self) -> String {
        let of_it = |line: &&str| {
            [
                "realm_revision{",
                "realm_forked{",
                "realm_nodes{",
                "realm_node_problem{",
            ]
            .iter()
            .any(|start| line.starts_with(start))
        };
        self.0.lines().filter(of_it).collect::<Vec<_>>().join("; ")
    }

    pub fn revision(&self) -> Option<u64> {
        self.value("realm_revision", "").map(|value| value as u64)
    }

    pub fn is_forked(&self) -> bool {
        self.value("realm_forked", "") == Some(1.0)
    }

    /// How many nodes are in this state, in the eyes of the one that was asked.
    pub fn nodes(&self, state: &str) -> usize {
        let labels = format!("state=\"{state}\"");
        self.value("realm_nodes", &labels).unwrap_or(0.0) as usize
    }

    /// Cells of this node that run.
    pub fn running(&self, component: &str) -> usize {
        let (component, running) = (format!("component=\"{component}\""), "state=\"running\"");
        let of_it = |line: &&str| {
            line.starts_with("realm_cell_state{")
                && line.contains(&component)
                && line.contains(running)
                && line.ends_with(" 1")
        };
        self.0.lines().filter(of_it).count()
    }
}

impl Scene {
    /// So many nodes with invites made beforehand, which know no address: they find each other by
    /// mDNS. None is started.
    pub fn of(count: u8) -> Option<Self> {
        let net = Net::new(count)?;
        let mut realm = cluster();
        let mut names = Vec::new();
        for (index, host) in net.hosts().iter().enumerate() {
            let name = format!("n{}", index + 1);
            let token = realm.path().join(format!("{name}.token"));
            let invite = realm.ok(&["invite", "--quiet", "--name", &name]);
            std::fs::write(&token, invite).unwrap();
            let token = token.display().to_string();
            realm.add_agent_on(host, &name, &["--enroll-file", &token]);
            names.push(name);
        }
        Some(Self { realm, net, names })
    }

    /// As many as one such test has: `REALM_HOSTS`, or what two busy cores bear.
    pub fn of_many() -> Option<Self> {
        let count = std::env::var("REALM_HOSTS");
        Self::of(count.map_or(MANY, |count| count.parse().unwrap()))
    }

    /// The same, started, and ready in each other's eyes.
    pub fn ready(count: u8) -> Option<Self> {
        let mut scene = Self::of(count)?;
        scene.start();
        scene.wait("every node ready for every node", |page| {
            page.nodes("ready") == usize::from(count)
        });
        Some(scene)
    }

    /// Starts every agent at once.
    pub fn start(&mut self) {
        for name in &self.names {
            self.realm.spawn(name);
        }
        for name in &self.names {
            self.realm.wait_listens(name);
        }
    }

    /// Nothing gets from one part of the nodes to the other.
    pub fn cut(&mut self, left: &Range<usize>, right: &Range<usize>) {
        let hosts = self.net.hosts().to_vec();
        let of = |part: &Range<usize>| hosts[part.clone()].to_vec();
        self.net.split(&of(left), &of(right));
    }

    /// What a node tells; None while it does not answer.
    pub fn page(&self, index: usize) -> Option<Page> {
        self.net.hosts()[index].within(metrics)
    }

    /// Waits until all nodes tell what is wanted; answers with how long that took.
    pub fn wait(&self, what: &str, wanted: impl Fn(&Page) -> bool) -> Duration {
        self.wait_of(what, 0..self.names.len(), wanted)
    }

    /// Waits until each of these nodes has told what is wanted, asked in turn until it does.
    pub fn wait_of(
        &self,
        what: &str,
        part: Range<usize>,
        wanted: impl Fn(&Page) -> bool,
    ) -> Duration {
        let started = Instant::now();
        let mut waiting: Vec<usize> = part.collect();
        wait_within(2 * LONG, what, || {
            waiting.retain(|index| {
                let page = self.page(*index);
                let tells = page.as_ref().is_some_and(&wanted);
                let (name, said) = (&self.names[*index], page.map(Page::in_short));
                assert!(
                    tells || started.elapsed() < LONG,
                    "{what}: not within {LONG:?}: {name} says {said:?}"
                );
                !tells
            });
            waiting.is_empty().then_some(())
        });
        started.elapsed()
    }

    /// Waits until these nodes together run so many cells, no more and no less.
    pub fn wait_running(&self, component: &str, wanted: usize, part: Range<usize>) -> Duration {
        let started = Instant::now();
        wait_within(LONG, &format!("{wanted} cells of {component}"), || {
            let pages: Option<Vec<Page>> = part.clone().map(|index| self.page(index)).collect();
            let running = pages?
                .iter()
                .map(|page| page.running(component))
                .sum::<usize>();
            (running == wanted).then_some(())
        });
        started.elapsed()
    }

    /// Runs `realm` on a node's machine, which must succeed.
    pub fn ok(&self, index: usize, args: &[&str]) -> String {
        let printed = self.realm.run_at(&self.names[index], args);
        assert_eq!(
            printed.code, 0,
            "realm {args:?} at {}: {}{}",
            self.names[index], printed.stdout, printed.stderr
        );
        printed.stdout
    }
}

/// Prints how long something took, for whoever runs a test to read it.
pub fn figure(what: &str, took: Duration) {
    eprintln!("figure: {what}: {:.1} s", took.as_secs_f64());
}

/// Of the agent on this host.
fn metrics() -> Option<Page> {
    let address = SocketAddr::from((Ipv4Addr::LOCALHOST, HTTP));
    let mut stream = TcpStream::connect_timeout(&address, ANSWER).ok()?;
    stream.set_read_timeout(Some(ANSWER)).ok()?;
    let request = "GET /metrics HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n";
    stream.write_all(request.as_bytes()).ok()?;
    let mut text = String::new();
    stream.read_to_string(&mut text).ok()?;
    Some(Page(text))
}

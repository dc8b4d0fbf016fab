//! A realm with one node on each host of a net, and a look at all of them that costs them little.

use std::{
    net::{Ipv4Addr, SocketAddr},
    ops::Range,
    time::{Duration, Instant},
};

use crate::{Cluster, Metrics, Net, wait_within};

/// For what many agents of one machine do together.
const LONG: Duration = Duration::from_secs(240);
/// Where agents serve their HTTP endpoints by default.
const HTTP: u16 = 9920;

/// A realm over a net; the agents end before their hosts do.
#[derive(Debug)]
pub struct Bridged {
    pub realm: Cluster,
    pub net: Net,
    pub names: Vec<String>,
}

impl Bridged {
    /// So many nodes with invites made beforehand, which know no address: they find each other by
    /// mDNS. None is started. None where this machine cannot have such hosts, visibly.
    pub fn new(mut realm: Cluster, count: u8) -> Option<Self> {
        let net = Net::new(count)?;
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

    /// Starts every agent at once.
    pub fn start(&mut self) {
        for name in &self.names {
            self.realm.spawn(name);
        }
        for name in &self.names {
            self.realm.wait_listens(name);
        }
    }

    /// Waits until every node is ready in the eyes of every node.
    pub fn wait_ready(&self) -> Duration {
        let all = self.names.len();
        self.wait("every node ready for every node", |page| {
            page.nodes("ready") == all
        })
    }

    /// Nothing gets from one part of the nodes to the other.
    pub fn cut(&mut self, left: &Range<usize>, right: &Range<usize>) {
        let hosts = self.net.hosts().to_vec();
        let of = |part: &Range<usize>| hosts[part.clone()].to_vec();
        self.net.split(&of(left), &of(right));
    }

    /// What a node tells; None while it does not answer.
    pub fn page(&self, index: usize) -> Option<Metrics> {
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, HTTP));
        self.net.hosts()[index].within(|| Metrics::at(address))
    }

    /// Waits until all nodes tell what is wanted; answers with how long that took.
    pub fn wait(&self, what: &str, wanted: impl Fn(&Metrics) -> bool) -> Duration {
        self.wait_of(what, 0..self.names.len(), wanted)
    }

    /// Waits until each of these nodes has told what is wanted, asked in turn until it does.
    pub fn wait_of(
        &self,
        what: &str,
        part: Range<usize>,
        wanted: impl Fn(&Metrics) -> bool,
    ) -> Duration {
        let started = Instant::now();
        let mut waiting: Vec<usize> = part.collect();
        wait_within(2 * LONG, what, || {
            waiting.retain(|index| {
                let page = self.page(*index);
                let tells = page.as_ref().is_some_and(&wanted);
                let (name, said) = (&self.names[*index], page.as_ref().map(Metrics::in_short));
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
            let pages: Option<Vec<Metrics>> = part.clone().map(|index| self.page(index)).collect();
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

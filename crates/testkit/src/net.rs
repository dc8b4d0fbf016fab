//! Hosts of their own on one bridge: network namespaces that this machine does not see.
//!
//! One process holds all of them in a mount namespace of its own, and ends when this one does,
//! however it does: nothing of the machine's own network is touched, and nothing stays.

use std::{
    collections::BTreeSet,
    ffi::OsStr,
    fs::File,
    io::{BufRead as _, BufReader, Write as _},
    net::{Ipv4Addr, Ipv6Addr},
    os::fd::AsFd as _,
    path::PathBuf,
    process::{Child, Command, Stdio},
};

use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

use crate::skipped;

/// Before the hosts: a place for their names that only this process sees, and the bridge.
const BEGIN: &str = "set -e
mount -t tmpfs tmpfs /run
mkdir /run/netns
ip link add br0 type bridge
ip link set br0 up
nft add table bridge faults
";

/// Hosts on one bridge, with the faults of what lies between them.
#[derive(Debug)]
pub struct Net {
    /// Holds the namespaces until its standard input closes.
    anchor: Child,
    hosts: Vec<Host>,
    /// Frames of the first host do not get to the second.
    cut: BTreeSet<(u8, u8)>,
    /// Frames lost on the way, in percent.
    loss: u8,
}

/// A machine with addresses of its own; public ones, for that is what AutoNAT looks at.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Host {
    /// Last byte of its addresses.
    number: u8,
    place: PathBuf,
}

impl Host {
    pub fn v4(&self) -> Ipv4Addr {
        Ipv4Addr::new(45, 45, 45, self.number)
    }

    pub fn v6(&self) -> Ipv6Addr {
        Ipv6Addr::new(0xfd45, 0, 0, 0, 0, 0, 0, u16::from(self.number))
    }

    /// A program on this host, to be started by the test.
    pub fn command(&self, program: impl AsRef<OsStr>) -> Command {
        let mut command = Command::new("nsenter");
        let place = format!("--net={}", self.place.display());
        command.args([place.as_str(), "--"]).arg(program);
        command
    }

    /// Does some work of the test's own on this host.
    pub fn within<T: Send>(&self, work: impl FnOnce() -> T + Send) -> T {
        let work = || {
            self.enter();
            work()
        };
        std::thread::scope(|scope| scope.spawn(work).join().unwrap())
    }

    /// From now on this thread is on this host, with what it starts.
    pub fn enter(&self) {
        let place = File::open(&self.place).unwrap();
        move_into_link_name_space(place.as_fd(), Some(LinkNameSpaceType::Network)).unwrap();
    }

    /// Of its network card.
    fn mac(&self) -> String {
        format!("02:00:00:00:00:{:02x}", self.number)
    }

    /// What a shell makes it of. It knows the others' cards from the start: what the kernel finds out itself
    /// is counted for all namespaces together, and there is no room for what fifty know of each other.
    fn lines(&self, others: &[Host]) -> String {
        let (n, v4, v6, mac) = (self.number, self.v4(), self.v6(), self.mac());
        let known: String = others
            .iter()
            .filter(|other| *other != self)
            .flat_map(|other| {
                [other.v4().to_string(), other.v6().to_string()].map(|at| (at, other.mac()))
            })
            .map(|(at, mac)| format!("neigh add {at} lladdr {mac} dev eth0 nud permanent\n"))
            .collect();
        // Multicast needs a route. Whether an address is free is not asked for a second or two.
        format!(
            "ip netns add h{n}
ip link add p{n} type veth peer name eth0 address {mac} netns h{n}
ip link set p{n} master br0 up
ip -n h{n} -batch - <<end
link set lo up
addr add {v4}/24 dev eth0
addr add {v6}/64 dev eth0 nodad
link set eth0 up
route add default dev eth0
{known}end
"
        )
    }
}

impl Net {
    /// So many hosts. None, visibly, where this machine cannot have them.
    pub fn new(hosts: u8) -> Option<Self> {
        let mut anchor = Command::new("unshare")
            // What the test mounts later is seen by agents, and the other way round is not.
            .args(["--net", "--mount", "--propagation", "slave", "sh"])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .ok()?;
        let mut net = Self {
            hosts: Vec::new(),
            cut: BTreeSet::new(),
            loss: 0,
            anchor: {
                // What it is told is read as lines of a shell, for as long as this process lives.
                let input = anchor.stdin.as_mut().unwrap();
                // A shell that ended has said why, and its silence is seen below.
                let _ = input.write_all(BEGIN.as_bytes());
                anchor
            },
        };
        let place = format!("/proc/{}/root/run/netns", net.anchor.id());
        net.hosts = (1..=hosts)
            .map(|number| Host {
                number,
                place: PathBuf::from(&place).join(format!("h{number}")),
            })
            .collect();
        let lines: String = net
            .hosts
            .iter()
            .map(|host| host.lines(&net.hosts))
            .collect();
        let input = net.anchor.stdin.as_mut().unwrap();
        let _ = input.write_all(format!("{lines}echo ready\n").as_bytes());
        let mut said = String::new();
        let output = net.anchor.stdout.as_mut().unwrap();
        BufReader::new(output).read_line(&mut said).unwrap();
        if said != "ready\n" {
            skipped("network namespaces need root, iproute2 and nftables");
            return None;
        }
        Some(net)
    }

    pub fn hosts(&self) -> &[Host] {
        &self.hosts
    }

    /// Nothing gets from one side to the other, in both directions.
    pub fn split(&mut self, left: &[Host], right: &[Host]) {
        for (left, right) in pairs(left, right) {
            self.cut.extend([(left, right), (right, left)]);
        }
        self.enforce();
    }

    /// Nothing of `from` gets to `to`; the other way is open.
    pub fn one_way(&mut self, from: &[Host], to: &[Host]) {
        self.cut.extend(pairs(from, to));
        self.enforce();
    }

    /// So many of a hundred frames are lost, on every way.
    pub fn lose(&mut self, percent: u8) {
        self.loss = percent;
        self.enforce();
    }

    /// All ways are open, and nothing is lost.
    pub fn heal(&mut self) {
        self.cut.clear();
        self.loss = 0;
        self.enforce();
    }

    fn enforce(&self) {
        let Self { cut, loss, .. } = self;
        let senders: BTreeSet<u8> = cut.iter().map(|(from, _)| *from).collect();
        let cuts: String = senders
            .into_iter()
            .map(|from| {
                let to = cut.iter().filter(|(sender, _)| *sender == from);
                let to: Vec<String> = to.map(|(_, to)| format!("p{to}")).collect();
                format!("iifname p{from} oifname {{ {} }} drop\n", to.join(", "))
            })
            .collect();
        // In one transaction: no frame meets half of it.
        let rules = format!(
            "add table bridge faults
delete table bridge faults
table bridge faults {{
 chain forward {{
  type filter hook forward priority 0; policy accept;
  {cuts}
  numgen random mod 100 < {loss} drop
 }}
}}
"
        );
        let anchor = self.anchor.id().to_string();
        let mut nft = Command::new("nsenter");
        feed(nft.args(["--net", "-t", &anchor, "nft"]), &rules);
    }
}

impl Drop for Net {
    fn drop(&mut self) {
        // Its namespaces go with it, and with the last process in them.
        let _ = self.anchor.kill();
        let _ = self.anchor.wait();
    }
}

fn pairs(from: &[Host], to: &[Host]) -> Vec<(u8, u8)> {
    let pairs = from
        .iter()
        .flat_map(|from| to.iter().map(|to| (from.number, to.number)));
    pairs.collect()
}

/// Has nft read rules from its standard input.
fn feed(nft: &mut Command, rules: &str) {
    let mut nft = nft.args(["-f", "-"]).stdin(Stdio::piped()).spawn().unwrap();
    let mut input = nft.stdin.take().unwrap();
    input.write_all(rules.as_bytes()).unwrap();
    drop(input);
    assert!(nft.wait().unwrap().success(), "nft refuses: {rules}");
}

#[cfg(test)]
mod tests {
    use std::{
        net::{SocketAddr, UdpSocket},
        time::Duration,
    };

    use super::*;

    /// How many of a hundred datagrams get from one host to the other.
    fn get_through(from: &Host, to: &Host, v6: bool) -> usize {
        let at = |host: &Host| match v6 {
            true => SocketAddr::from((host.v6(), 0)),
            false => SocketAddr::from((host.v4(), 0)),
        };
        let receiver = to.within(|| UdpSocket::bind(at(to)).unwrap());
        let sender = from.within(|| UdpSocket::bind(at(from)).unwrap());
        let (address, wait) = (receiver.local_addr().unwrap(), Duration::from_millis(200));
        receiver.set_read_timeout(Some(wait)).unwrap();
        for _ in 0..100 {
            sender.send_to(b"x", address).unwrap();
        }
        std::iter::from_fn(|| receiver.recv(&mut [0]).ok()).count()
    }

    #[test]
    fn hosts_reach_each_other_as_far_as_the_faults_let_them() {
        let Some(mut net) = Net::new(3) else { return };
        let hosts = net.hosts().to_vec();
        let [one, two, three] = &hosts[..] else {
            panic!("three hosts")
        };
        let through =
            |from: &Host, to: &Host| [get_through(from, to, false), get_through(from, to, true)];
        assert_eq!(through(one, two), [100, 100]);
        net.split(&hosts[..1], &hosts[1..]);
        assert_eq!(through(one, two), [0, 0]);
        assert_eq!(through(three, one), [0, 0]);
        assert_eq!(through(two, three), [100, 100]);
        net.heal();
        net.one_way(&hosts[..1], &hosts[1..2]);
        assert_eq!(through(one, two), [0, 0]);
        assert_eq!(through(two, one), [100, 100]);
        net.heal();
        assert_eq!(through(two, one), [100, 100]);
        net.lose(50);
        let lossy: usize = through(one, two).iter().sum();
        assert!((50..150).contains(&lossy), "{lossy} of 200");
    }

    #[test]
    fn nothing_stays_of_a_net() {
        let Some(net) = Net::new(1) else { return };
        let place = net.hosts()[0].place.clone();
        assert!(place.exists());
        drop(net);
        assert!(!place.exists());
    }
}

//! What can happen in a world, and what it does to its hosts.

use rand_foca::RngExt as _;
use realm_protocol::{Event, Token, Topic, Verdict};

use super::{HEAL_AT, HONEST, SPEAK_AT, World};
use crate::forger;

pub enum Happening {
    Frame {
        from: usize,
        to: usize,
        bytes: Vec<u8>,
    },
    Gossip {
        from: usize,
        to: usize,
        topic: Topic,
        bytes: Vec<u8>,
    },
    Written {
        host: usize,
        boot: u64,
        token: Token,
        works: bool,
    },
    Submit {
        client: usize,
    },
    Fault,
    Restart {
        host: usize,
    },
    Relink {
        a: usize,
        b: usize,
    },
    Forge,
    Heal,
    /// All nodes but this one are approved from now on, or all again.
    Approve {
        without: Option<usize>,
    },
    /// A host learns of it.
    Approved {
        host: usize,
        without: Option<usize>,
    },
    Merge,
    /// A node is stopped, or all that is said to it is lost.
    Silence,
    /// It hears again.
    Speak,
}

impl Happening {
    /// The host that it happens to, which must run for it.
    fn host(&self) -> Option<usize> {
        match self {
            Self::Frame { to, .. } | Self::Gossip { to, .. } => Some(*to),
            Self::Written { host, .. } | Self::Approved { host, .. } => Some(*host),
            _ => None,
        }
    }
}

impl World {
    pub(super) fn happen(&mut self, happening: Happening) {
        if let Some(host) = happening.host() {
            let stopped_until = self.hosts[host].stopped_until;
            if stopped_until > self.now {
                return self.at(stopped_until, happening);
            }
        }
        match happening {
            Happening::Frame { from, to, bytes } => {
                let from = self.name(from);
                self.handle(to, Event::Frame { from, bytes });
            }
            Happening::Gossip {
                from,
                to,
                topic,
                bytes,
            } => {
                let (from, now) = (self.name(from), self.time(to));
                if let Some(node) = &mut self.hosts[to].node {
                    let honest = from != self.forger.public();
                    let verdict = node.handle_gossip(from, topic, &bytes, now);
                    if honest && verdict == Verdict::Reject {
                        self.invariants
                            .fail("honest gossip was rejected".to_owned());
                    }
                    self.effects(to);
                }
            }
            Happening::Written {
                host,
                boot,
                token,
                works,
            } => self.written(host, boot, token, works),
            Happening::Submit { client } => self.submit(client),
            Happening::Fault => self.fault(),
            Happening::Restart { host } => self.start(host),
            Happening::Relink { a, b } => self.relink(a, b),
            Happening::Forge => {
                forger::forge(self);
                if self.now < HEAL_AT {
                    self.after(500..4_000, Happening::Forge);
                }
            }
            Happening::Heal => self.heal(),
            Happening::Approve { without } => {
                if without.is_some() {
                    self.invariants.taken_out = without;
                }
                (0..HONEST)
                    .for_each(|host| self.after(1..400, Happening::Approved { host, without }));
            }
            Happening::Approved { host, without } => self.approve(host, without),
            Happening::Merge => self.merge(),
            Happening::Silence => self.silence(),
            Happening::Speak => self.cut.clear(),
        }
    }

    fn silence(&mut self) {
        let host = self.rng.random_range(0..HONEST);
        self.invariants.silenced = Some(host);
        if self.rng.random() {
            self.hosts[host].stopped_until = SPEAK_AT;
        } else {
            self.cut.extend((0..HONEST).map(|other| (other, host)));
        }
    }
}

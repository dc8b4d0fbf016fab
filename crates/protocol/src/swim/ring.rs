//! Some nodes in virtual time, whose packets take none.

use std::sync::LazyLock;

use foca::{Header, Message, State};
use realm_identity::{PublicKey, SecretKey, Timestamp};

use super::{Id, Out, Swim, read_packet, write_packet};
use crate::{MemberState, Now};

pub(super) const NODES: usize = 4;
/// Time goes on by so much.
pub(super) const STEP: u64 = 10;
/// On the wall clocks at first.
const WALL: u64 = 1_800_000_000_000;
/// By then everybody knows everybody.
const SETTLED_MS: u64 = 5_000;

pub(super) struct Ring {
    pub nodes: Vec<Swim>,
    pub mono: u64,
    /// The first node hears nobody.
    pub deaf: bool,
    /// Timers come later than they are due by so much.
    pub late: u64,
    /// What this one says is lost.
    pub mute: Option<usize>,
    /// Members that the first one called suspect or down, other than to their face.
    pub verdicts: usize,
    /// Members that somebody took for lost.
    pub losses: usize,
    /// Probes that each began; what it asks a suspect beside them bears the number 0.
    pub probes: [usize; NODES],
    /// By how many milliseconds the wall clock of each node is ahead.
    pub ahead: [i64; NODES],
}

/// Made once: every packet asks for some of them.
static NAMES: LazyLock<[PublicKey; NODES]> = LazyLock::new(|| {
    std::array::from_fn(|index| SecretKey::from_seed(&[index as u8; 32]).public())
});

pub(super) fn name(index: usize) -> PublicKey {
    NAMES[index]
}

/// A node that announces itself to all others.
fn begun(index: usize, epoch: u64, mono: u64) -> Swim {
    let mut node = Swim::new(name(index), epoch, index as u64);
    node.set_approved(&(0..NODES).map(name).collect(), mono);
    (0..NODES).for_each(|peer| node.announce(name(peer), mono));
    node
}

impl Ring {
    pub fn settled() -> Self {
        let nodes = (0..NODES).map(|index| begun(index, 1, 0)).collect();
        let mut ring = Self {
            nodes,
            mono: 0,
            deaf: false,
            late: 0,
            mute: None,
            verdicts: 0,
            losses: 0,
            probes: [0; NODES],
            ahead: [0; NODES],
        };
        ring.run(SETTLED_MS);
        ring
    }

    /// A node forgets everything, and begins at `epoch`.
    pub fn restart(&mut self, index: usize, epoch: u64) {
        self.nodes[index] = begun(index, epoch, self.mono);
    }

    /// One node tells all others of a life of `of`.
    pub fn lie(&mut self, liar: usize, of: Id, state: State) {
        for to in (0..NODES).filter(|to| *to != liar) {
            self.say(liar, to, vec![foca::Member::new(of, 0, state)]);
        }
    }

    pub fn run(&mut self, millis: u64) {
        for _ in 0..millis / STEP {
            self.mono += STEP;
            for index in 0..NODES {
                let node = &mut self.nodes[index];
                if node
                    .next_timeout()
                    .is_some_and(|due| due + self.late <= self.mono)
                {
                    node.tick(self.mono);
                }
                self.deliver(index);
            }
        }
    }

    /// What a node's clocks tell.
    pub fn now(&self, at: usize) -> Now {
        let wall = (WALL + self.mono).saturating_add_signed(self.ahead[at]);
        Now {
            wall: Timestamp::from_millis(wall),
            mono: self.mono,
        }
    }

    /// A packet of one node to another, although none was due.
    pub fn say(&mut self, from: usize, to: usize, members: Vec<foca::Member<Id>>) {
        let header = Header {
            src: *self.nodes[from].foca.identity(),
            src_incarnation: 0,
            dst: *self.nodes[to].foca.identity(),
            message: Message::Gossip,
        };
        let packet = write_packet(&header, members);
        let now = self.now(to);
        let taken = self.nodes[to].packet(name(from), &packet, now);
        taken.expect("an honest packet");
    }

    pub fn states(&self, at: usize) -> Vec<MemberState> {
        let members = self.nodes[at].members().values();
        members.map(|member| member.state).collect()
    }

    pub fn state(&self, at: usize, of: usize) -> MemberState {
        self.nodes[at].members()[&name(of)].state
    }

    fn deliver(&mut self, from: usize) {
        while let Some(out) = self.nodes[from].poll() {
            match out {
                Out::Send { to, packet } => self.send(from, to, &packet),
                Out::Changed { state, .. } => {
                    self.losses += usize::from(state == MemberState::Lost);
                }
            }
        }
    }

    fn send(&mut self, from: usize, to: PublicKey, packet: &[u8]) {
        let (header, members) = read_packet(packet).expect("is a packet");
        let probe = matches!(header.message, Message::Ping(number) if number != 0);
        self.probes[from] += usize::from(probe);
        let bad = members
            .iter()
            .filter(|member| member.state() != State::Alive && *member.id() != header.dst);
        self.verdicts += if from == 0 { bad.count() } else { 0 };
        let to = (0..NODES).find(|index| name(*index) == to);
        let to = to.expect("is one of them");
        if (to != 0 || !self.deaf) && self.mute != Some(from) {
            let now = self.now(to);
            let taken = self.nodes[to].packet(name(from), packet, now);
            taken.expect("an honest packet");
        }
    }
}

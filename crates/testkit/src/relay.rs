//! A relay that delays, reorders, doubles and corrupts what passes, as its seed decides.
//!
//! It stands between two nodes that reach each other by nothing else, for the kernel may have no means of
//! its own for this. Datagrams meet each fault by themselves; a stream keeps its order.

use std::{
    collections::HashMap,
    io,
    net::{Ipv4Addr, SocketAddr},
    rc::Rc,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
        mpsc as answer,
    },
    thread::JoinHandle,
    time::Duration,
};

use tokio::{
    io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _},
    net::{TcpListener, TcpStream, UdpSocket},
    sync::{mpsc, oneshot},
    task::{JoinSet, LocalSet},
    time::{Instant, sleep, sleep_until},
};

use crate::Host;

/// Addresses that send datagrams to one relay; those of others are dropped.
const FLOWS: usize = 64;
/// Datagrams on their way; more are lost, as on a line.
const IN_FLIGHT: usize = 4_096;
/// Pieces of a stream on their way; then the sender waits.
const PIECES: usize = 256;
/// Largest datagram, and largest piece of a stream, in bytes.
const PIECE: usize = 16 * 1024;

/// What happens on the way. Chances are in a thousand, of datagrams or of pieces of a stream.
#[derive(Debug, Clone, Copy, Default)]
pub struct Faults {
    pub delay: Duration,
    /// Up to so much more, each time anew.
    pub jitter: Duration,
    /// Datagrams that wait twice as long, so that later ones overtake them.
    pub reordered: u16,
    pub doubled: u16,
    /// One bit of it is flipped.
    pub corrupted: u16,
    /// Of a stream, in each direction.
    pub bytes_per_second: Option<u32>,
    /// Bytes after which a direction of a stream says nothing more, and does not end either.
    pub stalls_after: Option<usize>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    Tcp,
    Udp,
}

#[derive(Debug, Default)]
struct Counts {
    connections: AtomicUsize,
    corrupted: AtomicUsize,
}

/// Runs until it is dropped.
#[derive(Debug)]
pub struct Relay {
    pub port: u16,
    counts: Arc<Counts>,
    stop: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Relay {
    /// Takes what comes to a port of `host`, and passes it on to `to`.
    pub fn new(host: &Host, kind: Kind, to: SocketAddr, faults: Faults, seed: u64) -> Self {
        let (stop, stopped) = oneshot::channel();
        let (told, port) = answer::channel();
        let (host, counts) = (host.clone(), Arc::new(Counts::default()));
        let line = Line {
            to,
            faults,
            seed,
            counts: counts.clone(),
        };
        let thread = std::thread::spawn(move || {
            host.within(|| {
                let runtime = tokio::runtime::Builder::new_current_thread();
                let runtime = { runtime }.enable_all().build().unwrap();
                LocalSet::new().block_on(&runtime, async {
                    tokio::select! {
                        ended = line.run(kind, told) => ended.unwrap(),
                        // The relay was dropped.
                        _ = stopped => {}
                    }
                });
            });
        });
        Self {
            port: port.recv().unwrap(),
            counts,
            stop: Some(stop),
            thread: Some(thread),
        }
    }

    /// Streams that were begun, or addresses that sent datagrams.
    pub fn connections(&self) -> usize {
        self.counts.connections.load(Ordering::Relaxed)
    }

    /// Datagrams or pieces of streams that were corrupted.
    pub fn corrupted(&self) -> usize {
        self.counts.corrupted.load(Ordering::Relaxed)
    }
}

impl Drop for Relay {
    fn drop(&mut self) {
        // The thread may have failed, which its panic said.
        let _ = self.stop.take().map(|stop| stop.send(()));
        let _ = self.thread.take().map(JoinHandle::join);
    }
}

/// One that is always the same for the same seed: the generator called SplitMix64.
#[derive(Debug)]
struct Dice(u64);

impl Dice {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    fn below(&mut self, end: usize) -> usize {
        (self.next() % end.max(1) as u64) as usize
    }

    fn is(&mut self, thousandths: u16) -> bool {
        self.below(1000) < usize::from(thousandths)
    }
}

/// One direction of what an address sends.
#[derive(Debug)]
struct Way {
    dice: Dice,
    /// When the last of those that keep their order arrives.
    last: Instant,
}

#[derive(Debug, Clone)]
struct Line {
    to: SocketAddr,
    faults: Faults,
    seed: u64,
    counts: Arc<Counts>,
}

impl Line {
    async fn run(self, kind: Kind, told: answer::Sender<u16>) -> io::Result<()> {
        let any = (Ipv4Addr::UNSPECIFIED, 0);
        let tell = |port| told.send(port).map_err(io::Error::other);
        match kind {
            Kind::Tcp => {
                let listener = TcpListener::bind(any).await?;
                tell(listener.local_addr()?.port())?;
                self.streams(listener).await
            }
            Kind::Udp => {
                let socket = UdpSocket::bind(any).await?;
                tell(socket.local_addr()?.port())?;
                self.datagrams(Rc::new(socket)).await
            }
        }
    }

    /// The direction with this number.
    fn way(&self, number: usize) -> Way {
        Way {
            dice: self.dice(number),
            last: Instant::now(),
        }
    }

    fn dice(&self, number: usize) -> Dice {
        Dice(self.seed ^ (number as u64).wrapping_mul(0x2545_f491_4f6c_dd1d))
    }

    fn delay(&self, dice: &mut Dice) -> Duration {
        let jitter = self.faults.jitter.as_micros() as usize;
        self.faults.delay + Duration::from_micros(dice.below(jitter) as u64)
    }

    fn corrupt(&self, dice: &mut Dice, bytes: &mut [u8]) {
        if !bytes.is_empty() && dice.is(self.faults.corrupted) {
            let at = dice.below(bytes.len());
            bytes[at] ^= 1 << dice.below(8);
            self.counts.corrupted.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// When each copy of a datagram arrives, and what it has become. Only those that are to be
    /// overtaken are.
    fn fate(&self, way: &mut Way, datagram: &[u8]) -> Vec<(Instant, Vec<u8>)> {
        let dice = &mut way.dice;
        let copies = 1 + usize::from(dice.is(self.faults.doubled));
        let copies = (0..copies).map(|_| {
            let mut bytes = datagram.to_vec();
            self.corrupt(dice, &mut bytes);
            let wait = self.delay(dice);
            if dice.is(self.faults.reordered) {
                return (Instant::now() + 2 * wait, bytes);
            }
            way.last = way.last.max(Instant::now() + wait);
            (way.last, bytes)
        });
        copies.collect()
    }

    async fn datagrams(self, near: Rc<UdpSocket>) -> io::Result<()> {
        let mut flows: HashMap<SocketAddr, mpsc::Sender<Vec<u8>>> = HashMap::new();
        let mut tasks = JoinSet::new();
        let mut bytes = vec![0; PIECE];
        loop {
            // A datagram that nobody took is answered with an error, which is no end.
            let Ok((length, from)) = near.recv_from(&mut bytes).await else {
                continue;
            };
            if !flows.contains_key(&from) && flows.len() < FLOWS {
                let (sender, receiver) = mpsc::channel(IN_FLIGHT);
                let number = flows.len();
                flows.insert(from, sender);
                self.counts.connections.fetch_add(1, Ordering::Relaxed);
                tasks.spawn_local(self.clone().flow(number, near.clone(), from, receiver));
            }
            if let Some(flow) = flows.get(&from) {
                // A full line loses it.
                let _ = flow.try_send(bytes[..length].to_vec());
            }
        }
    }

    /// Both directions of what one address sends.
    async fn flow(
        self,
        number: usize,
        near: Rc<UdpSocket>,
        from: SocketAddr,
        mut sent: mpsc::Receiver<Vec<u8>>,
    ) {
        let Ok(far) = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0)).await else {
            return;
        };
        let far = Rc::new(far);
        let (mut there, mut back) = (self.way(2 * number), self.way(2 * number + 1));
        let mut on_the_way = JoinSet::new();
        let mut bytes = vec![0; PIECE];
        loop {
            let (fates, socket, to) = tokio::select! {
                datagram = sent.recv() => match datagram {
                    Some(datagram) => (self.fate(&mut there, &datagram), far.clone(), self.to),
                    None => return,
                },
                Ok((length, _)) = far.recv_from(&mut bytes) => {
                    (self.fate(&mut back, &bytes[..length]), near.clone(), from)
                }
                Some(_) = on_the_way.join_next() => continue,
            };
            for (due, bytes) in fates {
                let socket = socket.clone();
                if on_the_way.len() < IN_FLIGHT {
                    on_the_way.spawn_local(async move {
                        sleep_until(due).await;
                        // Whoever is not there loses it.
                        let _ = socket.send_to(&bytes, to).await;
                    });
                }
            }
        }
    }

    async fn streams(self, listener: TcpListener) -> io::Result<()> {
        let mut tasks = JoinSet::new();
        for number in 0.. {
            let (near, _) = listener.accept().await?;
            self.counts.connections.fetch_add(1, Ordering::Relaxed);
            let line = self.clone();
            tasks.spawn_local(async move {
                let Ok(far) = TcpStream::connect(line.to).await else {
                    return;
                };
                let (near_read, near_write) = near.into_split();
                let (far_read, far_write) = far.into_split();
                // What ends one direction ends the connection.
                tokio::select! {
                    () = line.direction(2 * number, near_read, far_write) => {}
                    () = line.direction(2 * number + 1, far_read, near_write) => {}
                }
            });
        }
        Ok(())
    }

    async fn direction(
        &self,
        number: usize,
        mut from: impl AsyncRead + Unpin,
        mut to: impl AsyncWrite + Unpin,
    ) {
        let (sender, mut pieces) = mpsc::channel::<(Instant, Vec<u8>)>(PIECES);
        let mut dice = self.dice(number);
        let read = async {
            let mut bytes = vec![0; PIECE];
            let mut passed = 0;
            while let Ok(length @ 1..) = from.read(&mut bytes).await {
                let mut piece = bytes[..length].to_vec();
                self.corrupt(&mut dice, &mut piece);
                if let Some(most) = self.faults.stalls_after {
                    piece.truncate(most.saturating_sub(passed));
                }
                passed += length;
                let due = Instant::now() + self.delay(&mut dice);
                if sender.send((due, piece)).await.is_err() {
                    return;
                }
            }
            drop(sender);
        };
        let write = async {
            while let Some((due, piece)) = pieces.recv().await {
                sleep_until(due).await;
                if to.write_all(&piece).await.is_err() {
                    return;
                }
                if let Some(rate) = self.faults.bytes_per_second {
                    sleep(Duration::from_secs(1) * piece.len() as u32 / rate.max(1)).await;
                }
            }
        };
        tokio::join!(read, write);
    }
}

#[cfg(test)]
mod tests {
    use std::{
        io::{Read as _, Write as _},
        net::{TcpListener, TcpStream, UdpSocket},
    };

    use super::*;
    use crate::Net;

    /// What of a hundred numbered datagrams arrives, in its order.
    fn arrives(net: &Net, faults: Faults, seed: u64) -> Vec<Vec<u8>> {
        let [from, over, to] = net.hosts() else {
            panic!("three hosts")
        };
        let target = to.within(|| UdpSocket::bind((to.v4(), 0)).unwrap());
        let address = target.local_addr().unwrap();
        let relay = Relay::new(over, Kind::Udp, address, faults, seed);
        let source = from.within(|| UdpSocket::bind((from.v4(), 0)).unwrap());
        for number in 0..100 {
            let to = (over.v4(), relay.port);
            source.send_to(&[number, 0, 0, 0], to).unwrap();
        }
        let wait = Duration::from_millis(500);
        target.set_read_timeout(Some(wait)).unwrap();
        let mut bytes = [0; 8];
        std::iter::from_fn(|| {
            let length = target.recv(&mut bytes).ok()?;
            Some(bytes[..length].to_vec())
        })
        .collect()
    }

    #[test]
    fn datagrams_meet_the_faults_that_their_seed_says() {
        let Some(net) = Net::new(3) else { return };
        let all: Vec<Vec<u8>> = (0..100).map(|number| vec![number, 0, 0, 0]).collect();
        let mut told = arrives(&net, Faults::default(), 1);
        told.sort();
        assert_eq!(told, all, "no fault, no loss");
        let faults = Faults {
            delay: Duration::from_millis(100),
            reordered: 200,
            doubled: 200,
            corrupted: 200,
            ..Faults::default()
        };
        let told = arrives(&net, faults, 1);
        assert!((105..150).contains(&told.len()), "{} of 100", told.len());
        let intact = told.iter().filter(|one| all.contains(one));
        assert!(intact.count() < told.len(), "some are corrupt");
        let numbers: Vec<u8> = told.iter().map(|one| one[0]).collect();
        assert!(!numbers.is_sorted(), "{numbers:?}");
        let sorted = |mut told: Vec<Vec<u8>>| {
            told.sort();
            told
        };
        let same = sorted(arrives(&net, faults, 1));
        assert_eq!(sorted(told.clone()), same, "the seed decides");
        assert_ne!(sorted(arrives(&net, faults, 2)), same);
    }

    /// What arrives of a stream of so many bytes, until it ends or says nothing for a while.
    fn streamed(net: &Net, faults: Faults, bytes: &[u8]) -> Vec<u8> {
        let [from, over, to] = net.hosts() else {
            panic!("three hosts")
        };
        let target = to.within(|| TcpListener::bind((to.v4(), 0)).unwrap());
        let address = target.local_addr().unwrap();
        let relay = Relay::new(over, Kind::Tcp, address, faults, 7);
        let mut source = from.within(|| TcpStream::connect((over.v4(), relay.port)).unwrap());
        let (mut stream, _) = target.accept().unwrap();
        let wait = Duration::from_millis(500);
        stream.set_read_timeout(Some(wait)).unwrap();
        source.write_all(bytes).unwrap();
        let mut told = Vec::new();
        let mut some = [0; 4096];
        while let Ok(length @ 1..) = stream.read(&mut some) {
            told.extend(&some[..length]);
        }
        told
    }

    #[test]
    fn streams_keep_their_order_and_meet_the_faults() {
        let Some(net) = Net::new(3) else { return };
        let bytes: Vec<u8> = (0..50_000_u32).map(|at| (at / 7) as u8).collect();
        let slow = Faults {
            delay: Duration::from_millis(20),
            jitter: Duration::from_millis(20),
            ..Faults::default()
        };
        assert!(streamed(&net, slow, &bytes) == bytes);
        let corrupt = Faults {
            corrupted: 1000,
            ..slow
        };
        let told = streamed(&net, corrupt, &bytes);
        assert!(told.len() == bytes.len() && told != bytes);
        let stalls = Faults {
            stalls_after: Some(10_000),
            ..slow
        };
        assert!(streamed(&net, stalls, &bytes) == bytes[..10_000]);
    }
}

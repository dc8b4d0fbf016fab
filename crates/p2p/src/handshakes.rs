//! Places for inbound handshakes: whoever says nothing loses its place to a newcomer.
//!
//! libp2p can refuse a newcomer, but not end a handshake that has begun; then a few silent
//! connections shut a node until they time out. So the transport is wrapped: each handshake can be
//! ended, and where places are full the oldest one of the source that has most of them goes.

use std::{
    collections::{BTreeMap, HashMap, HashSet},
    io,
    net::{IpAddr, Ipv6Addr},
    pin::Pin,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    task::{Context, Poll},
    time::Duration,
};

use futures::{
    FutureExt as _,
    future::{AbortHandle, AbortRegistration, Abortable, BoxFuture},
    ready,
};
use libp2p::{
    Multiaddr, PeerId,
    core::{
        muxing::StreamMuxerBox,
        transport::{DialOpts, ListenerId, TransportError, TransportEvent},
    },
};
use tokio::time::{Instant, Sleep, sleep_until};

use crate::{NetLimits, address, transport::Transport};

/// So many connections of one transport are accepted in so long at most, a thousand in a second;
/// the others wait with the kernel. So a place is kept for half a second even in a flood, which is
/// enough for a handshake, and a flood does not take the whole processor.
pub(crate) const BURST: usize = 32;
pub(crate) const BURST_TIME: Duration = Duration::from_millis(32);
/// What one subscriber of IPv6 has at least: these bits are the network, the rest is its own.
const IPV6_NETWORK: u32 = 64;

type Output = (PeerId, StreamMuxerBox);
type Upgrade = BoxFuture<'static, io::Result<Output>>;

/// Who a connection comes from, as far as its address tells.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Source {
    /// This machine, where many peers at one address are normal.
    Local,
    /// Through a relay, which serves approved peers and operators alone.
    Relay,
    /// An IPv4 address, or a network of IPv6.
    Net(IpAddr),
}

impl Source {
    pub fn of(ip: Option<IpAddr>) -> Self {
        match ip {
            None => Self::Relay,
            Some(ip) if ip.is_loopback() => Self::Local,
            Some(IpAddr::V4(ip)) => Self::Net(ip.into()),
            Some(IpAddr::V6(ip)) => {
                let network = ip.to_bits() & (u128::MAX << (128 - IPV6_NETWORK));
                Self::Net(Ipv6Addr::from_bits(network).into())
            }
        }
    }
}

/// Each has as many places as the others, and nobody can take another one's.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Pool {
    Local,
    /// Sources that approved peers were seen at, or say that they are at.
    Known,
    Others,
}

struct Pending {
    source: Source,
    pool: Pool,
    abort: AbortHandle,
}

/// The rules, apart from the transport.
struct Places {
    /// Of each pool.
    max: usize,
    /// Of one source among the others.
    max_source: usize,
    known: HashSet<Source>,
    /// By their order of coming.
    pending: BTreeMap<u64, Pending>,
    /// How many of them each source has in a pool.
    taken: HashMap<(Pool, Source), usize>,
    next: u64,
    ended: u64,
}

impl Places {
    fn new(limits: &NetLimits) -> Self {
        Self {
            max: limits.pending_in,
            max_source: limits.per_ip,
            known: HashSet::new(),
            pending: BTreeMap::new(),
            taken: HashMap::new(),
            next: 0,
            ended: 0,
        }
    }

    fn pool(&self, source: Source) -> Pool {
        match source {
            Source::Local => Pool::Local,
            Source::Relay => Pool::Known,
            Source::Net(_) if self.known.contains(&source) => Pool::Known,
            Source::Net(_) => Pool::Others,
        }
    }

    /// Takes a place, which somebody else may lose.
    fn enter(&mut self, source: Source) -> (u64, AbortRegistration) {
        let pool = self.pool(source);
        let own = self.taken.get(&(pool, source)).copied();
        let of_pool = self.taken.iter().filter(|((other, _), _)| *other == pool);
        if pool == Pool::Others && own.unwrap_or_default() >= self.max_source {
            self.end_oldest(&[(pool, source)]);
        } else if of_pool.clone().map(|(_, count)| count).sum::<usize>() >= self.max {
            let most = of_pool.clone().map(|(_, count)| count).max();
            let have_most = of_pool.filter(|(_, count)| Some(*count) == most);
            let have_most: Vec<_> = have_most.map(|(key, _)| *key).collect();
            self.end_oldest(&have_most);
        }
        let (abort, registration) = AbortHandle::new_pair();
        let number = self.next;
        self.next += 1;
        let pending = Pending {
            source,
            pool,
            abort,
        };
        self.pending.insert(number, pending);
        *self.taken.entry((pool, source)).or_default() += 1;
        (number, registration)
    }

    fn leave(&mut self, number: u64) -> Option<Pending> {
        let pending = self.pending.remove(&number)?;
        let key = (pending.pool, pending.source);
        if let Some(count) = self.taken.get_mut(&key) {
            *count -= 1;
            if *count == 0 {
                self.taken.remove(&key);
            }
        }
        Some(pending)
    }

    fn end_oldest(&mut self, of: &[(Pool, Source)]) {
        let of = |pending: &Pending| of.contains(&(pending.pool, pending.source));
        let oldest = self.pending.iter().find(|(_, pending)| of(pending));
        let oldest = oldest.map(|(number, _)| *number);
        if let Some(pending) = oldest.and_then(|number| self.leave(number)) {
            pending.abort.abort();
            self.ended += 1;
        }
    }
}

/// The places of one network, shared by its transport and its task.
#[derive(Clone)]
pub(crate) struct Handshakes(Arc<Mutex<Places>>);

impl Handshakes {
    pub fn new(limits: &NetLimits) -> Self {
        Self(Arc::new(Mutex::new(Places::new(limits))))
    }

    /// Handshakes from here have places that strangers elsewhere cannot take.
    pub fn set_known(&self, known: HashSet<Source>) {
        self.places().known = known;
    }

    /// How many lost their place so far.
    pub fn ended(&self) -> u64 {
        self.places().ended
    }

    /// Gives a handshake a place for as long as it lasts.
    fn hold(&self, source: Source, upgrade: Upgrade) -> Upgrade {
        let (number, registration) = self.places().enter(source);
        let place = Place {
            handshakes: self.clone(),
            number,
        };
        Abortable::new(upgrade, registration)
            .map(move |result| {
                drop(place);
                result.unwrap_or_else(|_| {
                    Err(io::Error::other("the handshake made room for a newer one"))
                })
            })
            .boxed()
    }

    fn places(&self) -> MutexGuard<'_, Places> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Free again when it is dropped, be the handshake done or given up.
struct Place {
    handshakes: Handshakes,
    number: u64,
}

impl Drop for Place {
    fn drop(&mut self) {
        self.handshakes.places().leave(self.number);
    }
}

/// A transport whose inbound handshakes have places.
pub(crate) struct Gate {
    inner: Transport,
    handshakes: Handshakes,
    pace: Pace,
}

/// Counts what is accepted in the present time of a burst.
#[derive(Default)]
struct Pace {
    accepted: usize,
    /// When the next burst may begin; None where nothing was accepted in this one.
    end: Option<Pin<Box<Sleep>>>,
}

impl Pace {
    fn accept(&mut self) {
        self.accepted += 1;
        self.end
            .get_or_insert_with(|| Box::pin(sleep_until(Instant::now() + BURST_TIME)));
    }

    /// Ready when another one may be accepted.
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        if self.accepted < BURST {
            let over = |end: &Pin<Box<Sleep>>| Instant::now() >= end.deadline();
            if self.end.as_ref().is_some_and(over) {
                *self = Self::default();
            }
            return Poll::Ready(());
        }
        let Some(end) = &mut self.end else {
            return Poll::Ready(());
        };
        ready!(end.as_mut().poll(cx));
        *self = Self::default();
        Poll::Ready(())
    }
}

impl Gate {
    pub fn new(inner: Transport, handshakes: Handshakes) -> Self {
        Self {
            inner,
            handshakes,
            pace: Pace::default(),
        }
    }
}

impl libp2p::Transport for Gate {
    type Output = Output;
    type Error = io::Error;
    type ListenerUpgrade = Upgrade;
    type Dial = <Transport as libp2p::Transport>::Dial;

    fn listen_on(
        &mut self,
        id: ListenerId,
        address: Multiaddr,
    ) -> Result<(), TransportError<io::Error>> {
        self.inner.listen_on(id, address)
    }

    fn remove_listener(&mut self, id: ListenerId) -> bool {
        self.inner.remove_listener(id)
    }

    fn dial(
        &mut self,
        address: Multiaddr,
        options: DialOpts,
    ) -> Result<Self::Dial, TransportError<io::Error>> {
        self.inner.dial(address, options)
    }

    fn poll(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<TransportEvent<Upgrade, io::Error>> {
        ready!(self.pace.poll(cx));
        match Pin::new(&mut self.inner).poll(cx) {
            Poll::Ready(TransportEvent::Incoming {
                listener_id,
                upgrade,
                local_addr,
                send_back_addr,
            }) => {
                self.pace.accept();
                let source = Source::of(address::ip_of(&send_back_addr));
                Poll::Ready(TransportEvent::Incoming {
                    listener_id,
                    upgrade: self.handshakes.hold(source, upgrade),
                    local_addr,
                    send_back_addr,
                })
            }
            event => event,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn source(ip: &str) -> Source {
        Source::of(Some(ip.parse().expect("an address")))
    }

    fn places() -> Places {
        Places::new(&NetLimits::default())
    }

    fn held(places: &Places, source: Source) -> usize {
        let of = |pending: &&Pending| pending.source == source;
        places.pending.values().filter(of).count()
    }

    #[test]
    fn a_network_of_ipv6_is_one_source() {
        assert_eq!(source("2001:db8::1"), source("2001:db8::ffff:1"));
        assert_ne!(source("2001:db8::1"), source("2001:db8:0:1::1"));
        assert_eq!(source("127.0.0.1"), source("::1"));
        assert_ne!(source("192.0.2.1"), source("192.0.2.2"));
    }

    #[test]
    fn one_source_loses_its_own_oldest() {
        let mut places = places();
        let (other, _kept) = places.enter(source("192.0.2.2"));
        let (first, _gone) = places.enter(source("192.0.2.1"));
        for _ in 0..100 {
            places.enter(source("192.0.2.1"));
        }
        assert_eq!(held(&places, source("192.0.2.1")), 16);
        assert!(!places.pending.contains_key(&first), "the oldest");
        assert!(places.pending.contains_key(&other), "not its");
        assert_eq!(places.ended, 85);
    }

    #[test]
    fn a_full_pool_takes_from_whoever_has_most() {
        let mut places = places();
        let (quiet, _kept) = places.enter(source("198.51.100.1"));
        for number in 0..2000 {
            places.enter(source(&format!("192.0.2.{}", number % 64)));
        }
        assert_eq!(places.pending.len(), 512);
        assert!(places.pending.contains_key(&quiet));
        let (newcomer, _kept) = places.enter(source("198.51.100.2"));
        assert_eq!(places.pending.len(), 512);
        assert!(places.pending.contains_key(&newcomer));
        assert!(places.pending.contains_key(&quiet));
    }

    #[test]
    fn nobody_takes_the_places_of_this_machine_or_of_known_peers() {
        let mut places = places();
        places.known.insert(source("192.0.2.7"));
        let (local, _local) = places.enter(source("127.0.0.1"));
        let (known, _known) = places.enter(source("192.0.2.7"));
        let (relayed, _relayed) = places.enter(Source::of(None));
        for number in 0..2000_u32 {
            places.enter(Source::Net(std::net::Ipv4Addr::from_bits(number).into()));
        }
        for kept in [local, known, relayed] {
            assert!(places.pending.contains_key(&kept));
        }
        // Many approved peers may be behind one address.
        for _ in 0..100 {
            places.enter(source("192.0.2.7"));
        }
        assert_eq!(held(&places, source("192.0.2.7")), 101);
        for _ in 0..2000 {
            places.enter(source("127.0.0.1"));
        }
        assert_eq!(held(&places, source("127.0.0.1")), 512);
    }

    #[tokio::test]
    async fn a_flood_is_accepted_at_its_pace() {
        let (began, mut pace) = (Instant::now(), Pace::default());
        for _ in 0..(3 * BURST + 1) {
            std::future::poll_fn(|cx| pace.poll(cx)).await;
            pace.accept();
        }
        let took = began.elapsed();
        assert!(took >= BURST_TIME * 3, "{took:?}");
    }

    #[tokio::test]
    async fn a_handshake_that_ends_frees_its_place_and_one_that_loses_it_ends() {
        let handshakes = Handshakes::new(&NetLimits {
            pending_in: 1,
            ..NetLimits::default()
        });
        let silent = || futures::future::pending().boxed();
        let given_up = handshakes.hold(Source::Local, silent());
        drop(given_up);
        assert!(handshakes.places().pending.is_empty() && handshakes.places().taken.is_empty());
        let first = handshakes.hold(Source::Local, silent());
        let _second = handshakes.hold(Source::Local, silent());
        let error = first.await.map(|_| ()).expect_err("has no place");
        assert!(error.to_string().contains("newer"), "{error}");
        assert_eq!(handshakes.ended(), 1);
        assert_eq!(handshakes.places().pending.len(), 1);
    }
}

//! Guests that nobody wrote and that call the host: each ends or is ended within its limits, reaches nothing it has no grant for, and
//! leaves nothing behind.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    net::UdpSocket,
    os::unix::fs::symlink,
    path::Path,
    sync::Arc,
    time::{Duration, Instant},
};

use realm_manifest::{Limits, Outbound, VolumeMode};
use realm_runtime::{CellConfig, ExitStatus, Flavour, LogRing, Mount, Stdio};
use tokio::{net::TcpListener, task::JoinSet};

use crate::{
    calls::{Callee, Want, program},
    interfaces::worlds,
    malformed::{Dice, times},
    scene::{Scene, end, prebuilt, rss, scene, until, wasm},
};

/// Programs of each test.
const MODULES: u64 = 110;
const COMPONENTS: u64 = 110;
/// After so many the process has what it keeps: threads, and memory of its allocator.
const WARM: u64 = 30;
/// After so many a program that asks for nothing special runs, too.
const HEALTHY_EVERY: u64 = 25;
const DEADLINE: Duration = Duration::from_millis(150);
/// Behind the deadline, on a machine that other tests keep busy. How soon it is on a quiet one is another test's.
const LATE: Duration = Duration::from_secs(5);
const MIB: u64 = 1024 * 1024;
const GROWN_MAX: u64 = 32 * MIB;
/// Those of the pool for file operations come and go.
const THREADS_SPARE: usize = 8;

/// Preview 1: each function with what it wants. f: a descriptor; d: flags or a count; l: 64 bits; p: a pointer; t: a path;
/// b: a buffer; v: vectors; s: subscriptions.
const PREVIEW1: &str = "args_get:pp args_sizes_get:pp environ_get:pp environ_sizes_get:pp clock_res_get:dp clock_time_get:dlp \
    fd_advise:flld fd_allocate:fll fd_close:f fd_datasync:f fd_fdstat_get:fp fd_fdstat_set_flags:fd fd_fdstat_set_rights:fll \
    fd_filestat_get:fp fd_filestat_set_size:fl fd_filestat_set_times:flld fd_pread:fvlp fd_prestat_get:fp fd_prestat_dir_name:fb \
    fd_pwrite:fvlp fd_read:fvp fd_readdir:fblp fd_renumber:ff fd_seek:fldp fd_sync:f fd_tell:fp fd_write:fvp \
    path_create_directory:ft path_filestat_get:fdtp path_filestat_set_times:fdtlld path_link:fdtft path_open:fdtdlldp \
    path_readlink:ftbp path_remove_directory:ft path_rename:ftft path_symlink:tft path_unlink_file:ft poll_oneoff:S \
    proc_exit:d proc_raise:d sched_yield: random_get:b sock_accept:fdp sock_recv:fvdpp sock_send:fvdp sock_shutdown:fd";

fn preview1() -> Vec<Callee> {
    let callee = |line: &str| {
        let (name, wants) = line.split_once(':').unwrap();
        let want = |letter| match letter {
            'f' => Want::Descriptor,
            'd' => Want::Small,
            'l' => Want::Long,
            'p' => Want::Pointer,
            't' => Want::Path,
            'b' => Want::Buffer,
            'v' => Want::Vectors,
            // Subscriptions, room for events, how many, and how many there were.
            'S' => Want::Poll,
            letter => panic!("{letter}"),
        };
        Callee {
            name: name.into(),
            wants: wants.chars().map(want).collect(),
            returns: name != "proc_exit",
            gives: Vec::new(),
        }
    };
    PREVIEW1.split_whitespace().map(callee).collect()
}

fn module(dice: &mut Dice, callees: &[Callee]) -> Arc<[u8]> {
    let program = program(dice, callees);
    let imports: String = callees
        .iter()
        .map(|Callee { name, wants, returns, .. }| {
            let types: String = wants.iter().map(|want| want.types()).collect();
            let result = if *returns { "(result i32)" } else { "" };
            format!("(import \"wasi_snapshot_preview1\" \"{name}\" (func ${name} (param {types}) {result}))\n")
        })
        .collect();
    wasm(&format!(
        r#"(module {imports} (memory (export "memory") 2) {}
        (func $say (param $number i32)
            (i32.store8 (i32.const 16) (i32.add (i32.const 48) (i32.div_u (local.get $number) (i32.const 10))))
            (i32.store8 (i32.const 17) (i32.add (i32.const 48) (i32.rem_u (local.get $number) (i32.const 10))))
            (i32.store8 (i32.const 18) (i32.const 10))
            (i32.store (i32.const 0) (i32.const 16)) (i32.store (i32.const 4) (i32.const 3))
            (drop (call $fd_write (i32.const 1) (i32.const 0) (i32.const 1) (i32.const 8))))
        (func (export "_start") {}))"#,
        program.fields, program.body
    ))
}

/// A port that the guests may reach, where whoever connects is hung up on.
struct Peer {
    port: u16,
    _udp: UdpSocket,
    _server: JoinSet<()>,
}

impl Peer {
    async fn new() -> Self {
        // A port of one kind may be taken in the other.
        let (listener, udp) = loop {
            let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
            if let Ok(udp) = UdpSocket::bind(listener.local_addr().unwrap()) {
                break (listener, udp);
            }
        };
        let port = listener.local_addr().unwrap().port();
        let mut server = JoinSet::new();
        server.spawn(async move { while listener.accept().await.is_ok() {} });
        Self {
            port,
            _udp: udp,
            _server: server,
        }
    }

    fn grants(&self) -> Vec<Outbound> {
        let grant = |scheme| format!("{scheme}://127.0.0.1:{}", self.port).parse();
        ["tcp", "udp"].map(|scheme| grant(scheme).unwrap()).into()
    }
}

/// A volume, and beside it what no guest may touch.
struct Files(tempfile::TempDir);

impl Files {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("secret"), "secret").unwrap();
        Self(dir)
    }

    /// As it was at first, whatever the guest before made of it.
    fn volume(&self) -> Mount {
        let volume = self.0.path().join("volume");
        // It is not there at first.
        let _ = fs::remove_dir_all(&volume);
        fs::create_dir_all(volume.join("dir")).unwrap();
        fs::write(volume.join("file"), "inside").unwrap();
        symlink("..", volume.join("out")).unwrap();
        Mount {
            host: volume,
            guest: "/v".into(),
            mode: VolumeMode::Rw,
        }
    }

    fn check(&self) {
        let secret = fs::read_to_string(self.0.path().join("secret")).unwrap();
        assert_eq!(secret, "secret");
        let mut names: Vec<_> = fs::read_dir(self.0.path())
            .unwrap()
            .map(|entry| entry.unwrap().file_name())
            .collect();
        names.sort();
        assert_eq!(names, ["secret", "volume"]);
    }
}

fn entries(path: &str) -> usize {
    fs::read_dir(Path::new(path)).unwrap().count()
}

/// What came of all of them.
#[derive(Default)]
struct Sum {
    ends: BTreeMap<&'static str, usize>,
    returned: usize,
    /// Which came back to a guest, by their world.
    functions: BTreeSet<(usize, String)>,
    latest: Duration,
}

impl Sum {
    async fn run(
        &mut self,
        scene: &Scene,
        (peer, files): (&Peer, &Files),
        bytes: Arc<[u8]>,
        seed: u64,
    ) -> LogRing {
        let ring = LogRing::new();
        let mut config = CellConfig::new("test", Stdio::Log(ring.clone()));
        config.limits = Limits {
            memory_max_mb: 16,
            // Half of them are bounded by the deadline alone.
            fuel: if seed.is_multiple_of(2) { 3_000_000 } else { 0 },
            deadline_ms: u64::try_from(DEADLINE.as_millis()).ok(),
            ..Limits::default()
        };
        config.grants.args = vec!["one".into(), "two".into()];
        config.grants.env = vec![("KEY".into(), "value".into())];
        config.grants.allowed_outbound = peer.grants();
        config.mounts = vec![files.volume()];
        let flavour = Flavour::of(&config.limits);
        let prepared = scene.runtime.prepare(bytes, flavour).await;
        let prepared = prepared.unwrap_or_else(|error| panic!("{seed}: {error:?}"));
        let cell = scene.runtime.start(&prepared, config).unwrap();
        let began = Instant::now();
        let status = end(&cell).await;
        let took = began.elapsed();
        assert!(took < DEADLINE + LATE, "{seed}: {status} after {took:?}");
        self.latest = self.latest.max(took);
        let how = match status {
            ExitStatus::Exited(_) => "exited",
            ExitStatus::Trapped { .. } => "trapped",
            ExitStatus::LimitHit(hit) => hit.which.code(),
            status => panic!("{seed}: {status}"),
        };
        *self.ends.entry(how).or_default() += 1;
        assert_eq!(cell.stats().memory_bytes, 0, "{seed}");
        assert!(cell.stats().memory_peak_bytes <= 16 * MIB, "{seed}");
        ring
    }

    /// A program writes what it likes, too: only numbers of functions count.
    fn note(&mut self, ring: &LogRing, world: usize, callees: &[Callee]) {
        for line in ring.tail(usize::MAX) {
            let number = (line.text.len() < 3).then(|| line.text.parse::<usize>().ok());
            if let Some(callee) = number.flatten().and_then(|number| callees.get(number)) {
                self.returned += 1;
                self.functions.insert((world, callee.name.clone()));
            }
        }
    }

    /// Those that never came back.
    fn missing(&self, world: usize, callees: &[Callee]) -> Vec<String> {
        let names = callees.iter().map(|callee| callee.name.clone());
        names
            .filter(|name| !self.functions.contains(&(world, name.clone())))
            .collect()
    }
}

/// Runs so many, each of which is made from its number.
async fn all<'a>(
    peer: &Peer,
    count: u64,
    make: impl Fn(u64) -> (Arc<[u8]>, usize, &'a [Callee]),
) -> Sum {
    let scene = scene();
    let files = Files::new();
    let healthy = scene.runtime.prepare(prebuilt("hello.p1"), Flavour::Epoch);
    let healthy = healthy.await.unwrap();
    let mut sum = Sum::default();
    let mut warm = None;
    for seed in 0..count {
        let (bytes, world, callees) = make(seed);
        let ring = sum.run(&scene, (peer, &files), bytes, seed).await;
        sum.note(&ring, world, callees);
        files.check();
        if seed.is_multiple_of(HEALTHY_EVERY) || seed + 1 == count {
            let ring = LogRing::new();
            let config = CellConfig::new("healthy", Stdio::Log(ring.clone()));
            let cell = scene.runtime.start(&healthy, config).unwrap();
            assert_eq!(end(&cell).await, ExitStatus::Exited(0), "after {seed}");
            assert!(!ring.tail(1).is_empty(), "after {seed}");
        }
        if seed + 1 == WARM {
            warm = Some((rss(), entries("/proc/self/task"), entries("/proc/self/fd")));
        }
    }
    let (resident, threads, open) = warm.unwrap();
    assert_eq!(scene.runtime.cells(), 0);
    // What was open may be closed by another thread, a moment later.
    until(|| entries("/proc/self/fd") <= open).await;
    until(|| entries("/proc/self/task") <= threads + THREADS_SPARE).await;
    let grown = rss().saturating_sub(resident);
    println!(
        "{count} guests: {:?}; {} calls of {} functions came back; the latest end after {:?}; {} KiB more after {WARM}",
        sum.ends,
        sum.returned,
        sum.functions.len(),
        sum.latest,
        grown / 1024
    );
    assert!(grown <= GROWN_MAX, "{grown} bytes");
    for how in ["exited", "trapped", "deadline"] {
        assert!(sum.ends.contains_key(how), "{how}: {:?}", sum.ends);
    }
    sum
}

#[tokio::test]
async fn generated_modules_that_call_the_host_are_kept_within_their_limits() {
    let callees = preview1();
    let sum = all(&Peer::new().await, MODULES * times(), |seed| {
        let mut dice = Dice::new("caller", seed);
        (module(&mut dice, &callees), 0, &callees)
    })
    .await;
    // One ends the program.
    let missing = sum.missing(0, &callees);
    println!("never came back: {missing:?}");
    assert!(missing.len() <= 3, "{missing:?}");
    assert!(sum.returned >= 2_000, "{}", sum.returned);
}

#[tokio::test]
async fn generated_components_that_call_the_host_are_kept_within_their_limits() {
    let peer = Peer::new().await;
    let worlds = worlds(peer.port);
    let sum = all(&peer, COMPONENTS * times(), |seed| {
        let mut dice = Dice::new("component", seed);
        // Sockets and streams twice as often: most of what one does with them needs others that fit.
        let which = [0, 1, 2, 2, 3, 3][dice.below(6)];
        let world = &worlds[which];
        (world.component(&mut dice), which, &world.callees)
    })
    .await;
    for (number, world) in worlds.iter().enumerate() {
        let missing = sum.missing(number, &world.callees);
        println!("never came back, {number}: {missing:?}");
        // How far a program comes is a matter of its deadline, too.
        assert!(missing.len() * 3 <= world.callees.len(), "{missing:?}");
    }
    assert!(sum.returned >= 2_000, "{}", sum.returned);
}

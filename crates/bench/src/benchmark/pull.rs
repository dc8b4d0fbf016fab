//! A large artifact from node to node.

use std::{
    fs::{self, File},
    io::{BufWriter, Write as _},
    path::{Path, PathBuf},
    process::{Command, Stdio},
    sync::mpsc,
    time::{Duration, Instant, SystemTime},
};

use anyhow::{Context as _, Result};
use realm_testkit::{Cluster, wait_for};

use crate::{
    figure::{Bound, Figure},
    process::{Held, answers, cpu_seconds, free_port, look, timed, until},
    report::Measured,
    scene::{Scene, events, say},
};

/// What a node's compiler takes at most is 256 MiB.
const BYTES: usize = 256_000_000;
const ROUNDS: usize = 7;
/// Between two looks at the processor time of those who take part.
const LOOK: Duration = Duration::from_millis(10);
/// Between two questions whether it is done, which tells when it was.
const ASK: Duration = Duration::from_millis(500);
const PATIENCE: Duration = Duration::from_secs(600);
/// Memory that everybody finds ready: several times what a transfer takes.
const WARM_BYTES: usize = 2 << 30;
const PAGE_BYTES: usize = 4096;

pub fn run(scene: &Scene) -> Result<Measured> {
    let (nginx, curl) = (scene.peers.nginx()?, scene.peers.curl()?);
    let dir = tempfile::tempdir()?;
    let file = dir.path().join("large.wasm");
    let web = Web::start(&nginx, &curl, dir.path())?;
    let mut one = Pulls::default();
    let mut three = Pulls::default();
    for round in 0..scene.rounds(ROUNDS) {
        large(&scene.guest("sleeper.wasm"), &file, round)?;
        let (peer, synced) = web.transfer(&file)?;
        for (pulls, sources) in [(&mut one, 1), (&mut three, 3)] {
            let pull = pull(scene, &file, sources)?;
            say(
                "pull",
                format!(
                    "round {round}, {sources} sources: {:.0} MB/s, {:.1} CPU-s/GB; nginx and curl {:.0} MB/s, {:.1}",
                    pull.speed, pull.cpu, peer.speed, peer.cpu
                ),
            );
            pulls.speed.push(pull.speed);
            pulls.cpu.push(pull.cpu);
            pulls.speed_peer.push(peer.speed);
            pulls.cpu_peer.push(peer.cpu);
            pulls.speed_synced.push(synced);
        }
    }
    let mut figures = one.figures("1 source");
    figures.extend(three.figures("3 sources"));
    Ok(Measured {
        figures,
        notes: vec!["256,000,000 bytes: `sleeper.wasm` with random custom sections, which each round makes anew; each round has a new realm on this machine. The time is the one that the pulling agent tells in its event `pulled`, from the first request until the verified file is synced to disk under its name. curl writes the file to the same disk, without syncing it; nginx sends it in the clear. Before each transfer, theirs too, 2 GiB of memory are touched and freed, so that neither waits for memory that this machine's host had taken back. Processor time is that of all who take part.".into()],
        peers: vec![("nginx".into(), nginx), ("curl".into(), curl)],
    })
}

/// MB each second, and processor seconds for each GB.
#[derive(Debug, Clone, Copy)]
struct Transfer {
    speed: f64,
    cpu: f64,
}

impl Transfer {
    fn new(seconds: f64, cpu: f64) -> Self {
        let megabytes = BYTES as f64 / 1e6;
        Self {
            speed: megabytes / seconds,
            cpu: cpu / (megabytes / 1000.0),
        }
    }
}

#[derive(Debug, Default)]
struct Pulls {
    speed: Vec<f64>,
    cpu: Vec<f64>,
    speed_peer: Vec<f64>,
    cpu_peer: Vec<f64>,
    /// The peer's with the file synced to disk, as the pulled one is.
    speed_synced: Vec<f64>,
}

impl Pulls {
    fn figures(self, sources: &str) -> Vec<Figure> {
        let command = format!("realm push large large.wasm --tag dst, {sources}");
        let peer = "curl -s -o FILE http://127.0.0.1:PORT/large.wasm";
        let throughput = format!("{sources}, throughput");
        let synced = format!("{throughput}, beside curl with a sync");
        vec![
            Figure::new(&throughput, "MB/s", &command, self.speed.clone())
                .beside("nginx and curl", peer, self.speed_peer)
                .should(Bound::RatioAtLeast(0.35), Bound::RatioAtLeast(0.7)),
            Figure::new(&synced, "MB/s", &command, self.speed).beside(
                "nginx, curl, and a sync of the file",
                &format!("{peer}; sync FILE"),
                self.speed_synced,
            ),
            Figure::new(
                &format!("{sources}, processor time"),
                "s/GB",
                &command,
                self.cpu,
            )
            .beside("nginx and curl", peer, self.cpu_peer),
        ]
    }
}

/// A program that is large by what no engine looks at.
fn large(guest: &Path, to: &Path, seed: usize) -> Result<()> {
    /// Bytes of one custom section.
    const SECTION: usize = 16_000_000;
    /// The header of a section with five-byte lengths and a name of one letter.
    const HEADER: usize = 1 + 5 + 2;
    let guest = fs::read(guest)?;
    let mut out = BufWriter::new(File::create(to)?);
    out.write_all(&guest)?;
    let mut left = BYTES - guest.len();
    // xorshift: bytes that nothing can compress, the same for each seed.
    let mut state = 0x9e37_79b9_7f4a_7c15_u64 ^ (seed as u64 + 1);
    while left > HEADER {
        let size = left.min(SECTION);
        let body = size - HEADER;
        let length = (body + 2) as u32;
        out.write_all(&[0])?;
        let seven = |at: u32| ((length >> (7 * at)) & 0x7f) as u8 | if at < 4 { 0x80 } else { 0 };
        out.write_all(&[seven(0), seven(1), seven(2), seven(3), seven(4), 1, b'x'])?;
        let mut bytes = Vec::with_capacity(body + 8);
        while bytes.len() < body {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            bytes.extend(state.to_le_bytes());
        }
        out.write_all(&bytes[..body])?;
        left -= size;
    }
    Ok(out.flush()?)
}

/// A new realm whose node `dst` pulls what so many others have.
fn pull(scene: &Scene, file: &Path, sources: usize) -> Result<Transfer> {
    let names: Vec<String> = (1..=sources).map(|number| format!("src{number}")).collect();
    let mut realm = Cluster::new(&scene.realm);
    for name in &names {
        realm.add_node(name, &["src"]);
    }
    realm.add_node("dst", &["dst"]);
    realm.wait_ready("src1");
    let (via, file) = (realm.address("src1"), file.display().to_string());
    let wait = ["--wait", "--timeout", "10m", "--via", &via];
    if sources > 1 {
        // The first one has it from the command line, the others by running it.
        realm.ok(&[&["push", "held", &file, "--tag", "src"][..], &wait].concat());
        wait_linked(&realm, sources);
    }
    let mut pids: Vec<u32> = names.iter().map(|name| realm.pid(name)).collect();
    pids.push(realm.pid("dst"));
    let watch = Watch::start(pids);
    warm_memory();
    let began = SystemTime::now();
    realm.ok(&["push", "large", &file, "--tag", "dst", "--via", &via]);
    let mut pulled = None;
    // Seldom: asking takes processor time from what is measured.
    look(ASK, PATIENCE, "the artifact is pulled", || {
        let seen = events(&realm, &via, "pulled", began)?;
        pulled = seen.into_iter().find(|one| one.node == "dst");
        Ok(pulled.is_some())
    })?;
    let pulled = pulled.context("it was pulled")?;
    let took = pulled
        .message
        .rsplit(" in ")
        .next()
        .and_then(|took| took.strip_suffix(" s"));
    let took: f64 = took.context("the event tells no time")?.parse()?;
    let end = pulled.at / 1000.0;
    let cpu = watch.used(began, end - took, end)?;
    Ok(Transfer::new(took, cpu))
}

/// Waits until the node that pulls is linked to all who have it.
fn wait_linked(realm: &Cluster, sources: usize) {
    let via = realm.address("dst");
    wait_for("links to all sources", || {
        let printed = realm.run(&["network", "-o", "json", "--via", &via]);
        let network: serde_json::Value = serde_json::from_str(&printed.stdout).ok()?;
        let links = network["links"].as_array()?.len();
        (links >= sources).then_some(())
    });
}

/// Takes memory, touches it, and gives it back. The host of a virtual machine takes what was free for a while:
/// whoever comes first then would pay ten times as much for each page of a file.
fn warm_memory() {
    let mut memory = vec![0_u8; WARM_BYTES];
    memory
        .iter_mut()
        .step_by(PAGE_BYTES)
        .for_each(|byte| *byte = 1);
    std::hint::black_box(&memory);
}

/// Notes the processor time of processes, so that it is known for any part of the time.
struct Watch {
    stop: mpsc::SyncSender<()>,
    thread: std::thread::JoinHandle<Vec<(SystemTime, f64)>>,
}

impl Watch {
    fn start(pids: Vec<u32>) -> Self {
        let (stop, stopped) = mpsc::sync_channel(1);
        let thread = std::thread::spawn(move || {
            let mut seen = Vec::new();
            loop {
                let used = pids.iter().filter_map(|pid| cpu_seconds(*pid).ok()).sum();
                seen.push((SystemTime::now(), used));
                if stopped.recv_timeout(LOOK) != Err(mpsc::RecvTimeoutError::Timeout) {
                    return seen;
                }
            }
        });
        Self { stop, thread }
    }

    /// Seconds used between two points, told in seconds after `began`.
    fn used(self, began: SystemTime, from: f64, to: f64) -> Result<f64> {
        drop(self.stop);
        let seen = self
            .thread
            .join()
            .map_err(|_| anyhow::anyhow!("the watcher panicked"))?;
        let at = |seconds: f64| {
            let wanted = began + Duration::from_secs_f64(seconds.max(0.0));
            let before = seen.iter().take_while(|(when, _)| *when <= wanted).last();
            before
                .or(seen.first())
                .map(|(_, used)| *used)
                .context("nothing was seen")
        };
        Ok(at(to)? - at(from)?)
    }
}

/// nginx on loopback, for files of one directory.
struct Web {
    server: Held,
    curl: PathBuf,
    address: String,
    dir: PathBuf,
}

impl Web {
    fn start(nginx: &Path, curl: &Path, dir: &Path) -> Result<Self> {
        let address = format!("127.0.0.1:{}", free_port()?);
        let at = dir.display();
        let temporary = ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"];
        let temporary: String = temporary
            .iter()
            .map(|kind| format!("{kind}_temp_path {at}/{kind};"))
            .collect();
        // One process: what it uses is what /proc says of it.
        let config = format!(
            "daemon off; master_process off; pid {at}/nginx.pid; error_log {at}/error.log; events {{}}\n\
             http {{ access_log off; sendfile on; {temporary} server {{ listen {address}; root {at}; }} }}\n"
        );
        let file = dir.join("nginx.conf");
        fs::write(&file, config)?;
        fs::write(dir.join("ready"), "")?;
        let mut command = Command::new(nginx);
        command
            .arg("-e")
            .arg(dir.join("error.log"))
            .arg("-c")
            .arg(&file)
            .arg("-p")
            .arg(dir);
        let server = Held(command.stdin(Stdio::null()).stderr(Stdio::null()).spawn()?);
        until("nginx answers", Duration::from_secs(10), || {
            answers(&address, "/ready")
        })?;
        Ok(Self {
            server,
            curl: curl.into(),
            address,
            dir: dir.into(),
        })
    }

    /// What nginx and curl do, and MB each second with a sync at the end.
    fn transfer(&self, file: &Path) -> Result<(Transfer, f64)> {
        let name = file.file_name().context("a name")?.to_string_lossy();
        let to = self.dir.join("fetched");
        // What was fetched before is gone, as it is for a node.
        if to.exists() {
            fs::remove_file(&to)?;
        }
        let url = format!("http://{}/{name}", self.address);
        warm_memory();
        let before = cpu_seconds(self.server.0.id())?;
        let children = children_seconds()?;
        let began = Instant::now();
        timed(
            Command::new(&self.curl)
                .args(["-s", "-f", "-o"])
                .arg(&to)
                .arg(url),
        )?;
        let took = began.elapsed().as_secs_f64();
        let cpu = cpu_seconds(self.server.0.id())? - before + children_seconds()? - children;
        File::open(&to)?.sync_all()?;
        let synced = Transfer::new(began.elapsed().as_secs_f64(), cpu);
        Ok((Transfer::new(took, cpu), synced.speed))
    }
}

/// Processor seconds of this process's ended children.
fn children_seconds() -> Result<f64> {
    let stat = fs::read_to_string("/proc/self/stat")?;
    let numbers = stat.rsplit_once(')').context("no name in stat")?.1;
    let ticks = numbers
        .split_whitespace()
        .skip(13)
        .take(2)
        .map(str::parse::<f64>);
    Ok(ticks.sum::<Result<f64, _>>()? / 100.0)
}

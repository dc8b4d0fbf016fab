//! What the machine gives: files, memory, addresses, and a kernel that can confine a compiler.

use std::{
    io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener, UdpSocket},
    sync::Arc,
    time::{Duration, Instant, SystemTime},
};

use realm_manifest::Limits;
use realm_runtime::{CellConfig, ExitStatus, Flavour, Stdio};
use rustix::process::{Resource, getrlimit};

use super::{Finding, State, cache};
use crate::{
    commands::{Session, run},
    connection,
    error::{CliError, Context as _, Result},
};

/// An agent holds a file or two for each peer, artifact and cell: 1,024 peers and 1,000 cells fit.
const FILES: u64 = 4096;
const PORT: u16 = 2020;
const HTTP_PORT: u16 = 9920;
/// A datagram to oneself is there at once or not at all.
const LOOPED: Duration = Duration::from_millis(500);
/// Where mDNS speaks.
const MDNS: Ipv4Addr = Ipv4Addr::new(224, 0, 0, 251);
const MDNS_V6: Ipv6Addr = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 0xfb);

pub(super) fn look(session: &Session) -> Vec<Finding> {
    vec![files(), overcommit(), multicast(), ports(session)]
}

fn files() -> Finding {
    let limit = getrlimit(Resource::Nofile);
    let show = |limit: Option<u64>| limit.map_or("no bound".to_owned(), |limit| limit.to_string());
    let found = format!("{} open files at once", show(limit.current));
    if limit.current.is_none_or(|limit| limit >= FILES) {
        return Finding::new("files", State::Ok, found);
    }
    let help = format!(
        "an agent with many peers and cells wants {FILES}: ulimit -n {FILES}, or LimitNOFILE={FILES} in its unit (up to {} without root)",
        show(limit.maximum)
    );
    Finding::new("files", State::Warning, found).help(help)
}

/// Cells are given address space that most of them never touch.
fn overcommit() -> Finding {
    match std::fs::read_to_string("/proc/sys/vm/overcommit_memory") {
        Ok(mode) if mode.trim() == "2" => Finding::new(
            "memory",
            State::Problem,
            "the kernel gives no memory that is not there (vm.overcommit_memory is 2)",
        )
        .help("the space that cells are given is mostly never used: sysctl vm.overcommit_memory=0"),
        Ok(_) => Finding::new("memory", State::Ok, "address space for cells can be had"),
        Err(error) => Finding::new(
            "memory",
            State::Skipped,
            format!("the kernel does not say how it gives memory: {error}"),
        ),
    }
}

fn multicast() -> Finding {
    let over_v4 = || -> io::Result<()> {
        let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0))?;
        socket.join_multicast_v4(&MDNS, &Ipv4Addr::UNSPECIFIED)?;
        socket.set_multicast_loop_v4(true)?;
        loops(&socket, MDNS.into())
    };
    let over_v6 = || -> io::Result<()> {
        let socket = UdpSocket::bind((Ipv6Addr::UNSPECIFIED, 0))?;
        socket.join_multicast_v6(&MDNS_V6, 0)?;
        socket.set_multicast_loop_v6(true)?;
        loops(&socket, MDNS_V6.into())
    };
    let works = match realm_p2p::leads_nowhere_v4() {
        true => over_v6(),
        false => over_v4(),
    };
    match works {
        Ok(()) => Finding::new(
            "multicast",
            State::Ok,
            "nodes of the local network can be found",
        ),
        Err(error) => Finding::new(
            "multicast",
            State::Warning,
            format!("nodes of the local network are not found by themselves: {error}"),
        )
        .help("say where a node is: realm peer add ADDR, or --bootstrap ADDR in an invite"),
    }
}

/// Whether what is sent to a group comes back to who joined it.
fn loops(socket: &UdpSocket, group: IpAddr) -> io::Result<()> {
    socket.set_read_timeout(Some(LOOPED))?;
    socket.send_to(b"realm doctor", (group, socket.local_addr()?.port()))?;
    let mut answer = [0; 12];
    socket.recv_from(&mut answer)?;
    Ok(())
}

fn ports(session: &Session) -> Finding {
    if !connection::agents_here(session).is_empty() {
        return Finding::new("ports", State::Ok, "an agent of yours runs here");
    }
    let gone = connection::agents_gone(session);
    if !gone.is_empty() {
        let pids: Vec<String> = gone.iter().map(|agent| agent.pid.to_string()).collect();
        let found = format!(
            "the agent here (pid {}) ended without tidying up",
            pids.join(", ")
        );
        return Finding::new("ports", State::Warning, found).help("start it: realm agent");
    }
    let any = |port| SocketAddr::from((Ipv4Addr::UNSPECIFIED, port));
    let taken: Vec<String> = [
        ("udp", PORT, UdpSocket::bind(any(PORT)).err()),
        ("tcp", PORT, TcpListener::bind(any(PORT)).err()),
        (
            "tcp",
            HTTP_PORT,
            TcpListener::bind((Ipv4Addr::LOCALHOST, HTTP_PORT)).err(),
        ),
    ]
    .into_iter()
    .filter_map(|(kind, port, error)| Some(format!("{kind} {port}: {}", error?)))
    .collect();
    if taken.is_empty() {
        let found = format!("{PORT} and {HTTP_PORT} are free for an agent");
        return Finding::new("ports", State::Ok, found);
    }
    Finding::new("ports", State::Warning, taken.join("; ")).help(
        "another program, or another person's agent, has it: realm agent --listen ADDR --http ADDR",
    )
}

/// Whether a program can be compiled in the sandbox and run here, and is kept.
pub(super) async fn programs(session: &Session) -> Vec<Finding> {
    let program: Arc<[u8]> = program().into();
    let begun = Instant::now();
    let tried = try_program(session, &program).await;
    let took = begun.elapsed().as_millis();
    if let Err(error) = tried {
        return vec![Finding::failed("sandbox", &error, &sandbox_help(session))];
    }
    let found = format!("a program was compiled in the sandbox and run in {took} ms");
    vec![
        Finding::new("sandbox", State::Ok, found),
        cache::kept(session, &program).await,
    ]
}

fn sandbox_help(session: &Session) -> String {
    format!(
        "the compiler is this program, started once more, in a sandbox that wants Linux 5.13 or newer with Landlock, seccomp and 2 GiB of address space (ulimit -v); {} has to be writable",
        session.settings.state_dir().display()
    )
}

async fn try_program(session: &Session, program: &Arc<[u8]>) -> Result<()> {
    let runtime = run::runtime(session, run::Compiling::default())?;
    let limits = Limits::default();
    let preparing = runtime.prepare(program.clone(), Flavour::of(&limits));
    let prepared = preparing.await.context("programs are not compiled here")?;
    let cell = CellConfig::new("doctor", Stdio::Inherit { rate: None });
    let cell = runtime
        .start(&prepared, cell)
        .context("programs do not start here")?;
    let ended = cell.wait().await;
    runtime.shutdown().await;
    match ended {
        ExitStatus::Exited(0) => Ok(()),
        other => Err(CliError::failed(format!(
            "a program that does nothing ended with {other:?}"
        ))),
    }
}

/// A module that does nothing, and that no cache has: its last section names the moment.
fn program() -> Vec<u8> {
    const HEADER: &[u8] = b"\0asm\x01\0\0\0";
    const TYPES: &[u8] = b"\x01\x04\x01\x60\0\0";
    const FUNCTIONS: &[u8] = b"\x03\x02\x01\0";
    const EXPORTS: &[u8] = b"\x07\x0a\x01\x06_start\0\0";
    const CODE: &[u8] = b"\x0a\x04\x01\x02\0\x0b";
    /// A custom section: its length, then the length of its name and the name.
    const CUSTOM: &[u8] = b"\0\x12\x01t";
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
    let moment = now.unwrap_or_default().as_nanos().to_le_bytes();
    [HEADER, TYPES, FUNCTIONS, EXPORTS, CODE, CUSTOM, &moment].concat()
}

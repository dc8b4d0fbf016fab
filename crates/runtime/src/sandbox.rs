//! Confines this process to computing: no files, sockets or processes, and an end to its time and memory.

use std::collections::BTreeMap;

use landlock::{ABI, Access, AccessFs, AccessNet, Ruleset, RulesetAttr, RulesetStatus, Scope};
use rustix::process::{Resource, Rlimit, setrlimit};
use seccompiler::{BpfProgram, SeccompAction, SeccompFilter};

/// The newest Landlock this was written for; an older kernel enforces what it knows.
const LANDLOCK: ABI = ABI::V6;
/// After the processor limit's warning signal comes, this many seconds later, the one that cannot be caught.
const CPU_GRACE_SECONDS: u64 = 2;

#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    #[error("resource limits: {0}")]
    Limits(#[from] rustix::io::Errno),
    #[error("landlock: {0}")]
    Landlock(#[from] landlock::RulesetError),
    #[error("landlock is missing from this kernel")]
    NoLandlock,
    #[error("seccomp: {0}")]
    Seccomp(String),
}

/// Confines this process for good. Must run before a second thread exists.
pub(crate) fn enter(cpu_seconds: u64, memory_bytes: u64) -> Result<(), Error> {
    limit(
        Resource::Cpu,
        cpu_seconds,
        cpu_seconds.saturating_add(CPU_GRACE_SECONDS),
    )?;
    limit(Resource::As, memory_bytes, memory_bytes)?;
    limit(Resource::Core, 0, 0)?;
    limit(Resource::Fsize, 0, 0)?;
    landlock_all()?;
    seccomp_all()
}

fn limit(resource: Resource, soft: u64, hard: u64) -> Result<(), Error> {
    Ok(setrlimit(
        resource,
        Rlimit {
            current: Some(soft),
            maximum: Some(hard),
        },
    )?)
}

fn landlock_all() -> Result<(), Error> {
    let status = Ruleset::default()
        .handle_access(AccessFs::from_all(LANDLOCK))?
        .handle_access(AccessNet::from_all(LANDLOCK))?
        .scope(Scope::from_all(LANDLOCK))?
        .create()?
        .restrict_self()?;
    match status.ruleset {
        RulesetStatus::NotEnforced => Err(Error::NoLandlock),
        RulesetStatus::FullyEnforced | RulesetStatus::PartiallyEnforced => Ok(()),
    }
}

/// Allows what computing, reading standard input and writing standard output need; anything else kills.
fn seccomp_all() -> Result<(), Error> {
    let refused = |error: &dyn std::fmt::Display| Error::Seccomp(error.to_string());
    let rules: BTreeMap<i64, Vec<_>> = ALLOWED.iter().map(|call| (*call, Vec::new())).collect();
    let arch = std::env::consts::ARCH
        .try_into()
        .map_err(|error| refused(&error))?;
    let filter = SeccompFilter::new(
        rules,
        SeccompAction::KillProcess,
        SeccompAction::Allow,
        arch,
    )
    .map_err(|error| refused(&error))?;
    let program: BpfProgram = filter
        .try_into()
        .map_err(|error: seccompiler::BackendError| refused(&error))?;
    seccompiler::apply_filter(&program).map_err(|error| refused(&error))
}

const ALLOWED: &[i64] = &[
    libc::SYS_read,
    libc::SYS_write,
    libc::SYS_writev,
    libc::SYS_close,
    libc::SYS_lseek,
    libc::SYS_fstat,
    libc::SYS_mmap,
    libc::SYS_munmap,
    libc::SYS_mremap,
    libc::SYS_mprotect,
    libc::SYS_madvise,
    libc::SYS_brk,
    libc::SYS_futex,
    libc::SYS_getrandom,
    libc::SYS_clock_gettime,
    libc::SYS_sched_yield,
    libc::SYS_sched_getaffinity,
    libc::SYS_sigaltstack,
    libc::SYS_rt_sigaction,
    libc::SYS_rt_sigprocmask,
    libc::SYS_rt_sigreturn,
    libc::SYS_restart_syscall,
    libc::SYS_rseq,
    libc::SYS_set_robust_list,
    libc::SYS_getpid,
    libc::SYS_gettid,
    libc::SYS_tgkill,
    libc::SYS_exit,
    libc::SYS_exit_group,
];

/// Tries one forbidden thing, for tests that see from outside whether the walls stand. Returning at all is a hole,
/// except for `none`.
pub(crate) fn probe(what: &str) -> Result<(), String> {
    match what {
        "none" => Ok(()),
        "file" => tried(std::fs::File::open("/etc/hostname").map(drop)),
        "write" => tried(std::fs::File::create("/tmp/realm-probe").map(drop)),
        "socket" => tried(std::net::UdpSocket::bind("127.0.0.1:0").map(drop)),
        "process" => tried(std::process::Command::new("/bin/true").status().map(drop)),
        "thread" => tried(std::thread::Builder::new().spawn(|| ()).map(drop)),
        "memory" => {
            let mut held = Vec::new();
            loop {
                held.push(vec![1u8; 1024 * 1024]);
                std::hint::black_box(&held);
            }
        }
        "cpu" => loop {
            std::hint::black_box(());
        },
        other => Err(format!("unknown probe {other}")),
    }
}

fn tried(result: std::io::Result<()>) -> Result<(), String> {
    match result {
        Ok(()) => Err("it worked".into()),
        Err(error) => Err(format!("it failed, but was not fatal: {error}")),
    }
}

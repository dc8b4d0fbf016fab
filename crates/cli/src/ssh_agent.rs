//! A key that an ssh-agent holds: found by its name, and asked to sign, which may wait for a person.

use std::{
    io::{self, Read, Write},
    os::unix::net::UnixStream,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    thread::JoinHandle,
    time::{Duration, Instant},
};

use realm_identity::{
    PublicKey, Signature,
    format::{self, Format},
};
use ssh_agent_client_rs::{Client, Identity};
use tokio::sync::oneshot;

use crate::error::{CliError, Context as _, ExitCode, Result};

/// A person confirms, or touches a security key, within this: nodes wait for a proof a little longer.
const PATIENCE: Duration = Duration::from_secs(25);
/// How soon Ctrl-C is noticed.
const LOOK: Duration = Duration::from_millis(50);

/// A key whose private half never leaves the ssh-agent.
pub struct SshAgentKey {
    public: PublicKey,
    identity: ssh_key::PublicKey,
    // The agent's protocol is one request at a time on one socket.
    client: Mutex<Client>,
    failure: Mutex<Option<CliError>>,
    ctrl_c: CtrlC,
}

#[derive(Debug, thiserror::Error)]
pub enum SignError {
    #[error("the ssh-agent did not sign")]
    Agent(#[source] ssh_agent_client_rs::Error),
    #[error("the ssh-agent answered with a signature that does not verify")]
    Wrong,
}

impl SshAgentKey {
    /// The key `public` of the ssh-agent that `SSH_AUTH_SOCK` names.
    pub fn connect(public: PublicKey) -> Result<Self> {
        let line = format::write_public(&public, Format::OpenSsh, "")
            .context("cannot write the key as text")?;
        let identity = ssh_key::PublicKey::from_openssh(&line)
            .context("cannot name the key to the ssh-agent")?;
        let ctrl_c = CtrlC::watch()?;
        let client = Mutex::new(connect(&ctrl_c)?);
        Ok(Self {
            public,
            identity,
            client,
            failure: Mutex::new(None),
            ctrl_c,
        })
    }

    pub const fn public(&self) -> PublicKey {
        self.public
    }

    /// Waits for the ssh-agent, not for ever, and not beyond Ctrl-C.
    pub fn sign(&self, message: &[u8]) -> std::result::Result<Signature, SignError> {
        let signed = self.ask(message);
        let failure = signed.as_ref().err().map(|error| self.explain(error));
        *self.failure.lock().unwrap_or_else(PoisonError::into_inner) = failure;
        signed
    }

    /// Why it did not sign when it was asked last.
    pub fn failure(&self) -> Option<CliError> {
        let mut failure = self.failure.lock().unwrap_or_else(PoisonError::into_inner);
        failure.take()
    }

    fn ask(&self, message: &[u8]) -> std::result::Result<Signature, SignError> {
        let signature = self
            .client
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .sign(&self.identity, message)
            .map_err(SignError::Agent)?;
        let bytes = <[u8; 64]>::try_from(signature.as_bytes()).map_err(|_| SignError::Wrong)?;
        let signature = Signature::from_bytes(&bytes);
        if self.public.verify(message, &signature) {
            Ok(signature)
        } else {
            Err(SignError::Wrong)
        }
    }

    fn explain(&self, error: &SignError) -> CliError {
        if self.ctrl_c.pressed.load(Ordering::Relaxed) {
            return CliError::new(ExitCode::Interrupted, "interrupted");
        }
        let key = self.public;
        CliError::new(
            ExitCode::NotAuthorised,
            format!("your ssh-agent did not sign with {key}"),
        )
        .because(error)
        .help("is the key there (ssh-add -l), is the agent unlocked (ssh-add -X), was the signature confirmed in time?")
    }
}

/// Finds a key of the ssh-agent by its comment, or by its public key in any form.
pub fn find(wanted: &str) -> Result<PublicKey> {
    let ctrl_c = CtrlC::watch()?;
    let mut client = connect(&ctrl_c)?;
    let identities = client
        .list_all_identities()
        .context("the ssh-agent did not list its keys")?;
    let as_key = format::read_public(wanted).ok();
    let mut found = Vec::new();
    for identity in identities {
        // A certificate names a key too, but cannot be asked for by it.
        let Identity::PublicKey(identity) = identity else {
            continue;
        };
        let Some(ed25519) = identity.key_data().ed25519() else {
            continue;
        };
        let Ok(public) = PublicKey::from_bytes(ed25519.0) else {
            continue;
        };
        if as_key.map_or(identity.comment() == wanted, |key| key == public) {
            found.push(public);
        }
    }
    found.dedup();
    match found.as_slice() {
        [public] => Ok(*public),
        [] => Err(CliError::new(
            ExitCode::NotFound,
            format!("the ssh-agent has no ed25519 key {wanted:?}"),
        )
        .help("list its keys: ssh-add -l; give the comment or the public key of an ed25519 one")),
        _ => Err(CliError::new(
            ExitCode::Usage,
            format!("{wanted:?} names several keys of the ssh-agent"),
        )
        .help("give the public key instead of its comment")),
    }
}

fn connect(ctrl_c: &CtrlC) -> Result<Client> {
    let help = "start one and add a key: eval $(ssh-agent); ssh-add";
    let socket = std::env::var_os("SSH_AUTH_SOCK").filter(|path| !path.is_empty());
    let Some(socket) = socket else {
        return Err(CliError::failed("no ssh-agent: SSH_AUTH_SOCK is not set").help(help));
    };
    let socket = UnixStream::connect(socket)
        .and_then(|socket| socket.set_read_timeout(Some(LOOK)).map(|()| socket))
        .context("cannot reach the ssh-agent")
        .map_err(|error: CliError| error.help(help))?;
    Ok(Client::with_read_write(Box::new(Patient {
        socket,
        until: None,
        interrupted: ctrl_c.pressed.clone(),
    })))
}

/// A socket that is waited for, but not for ever, and not beyond Ctrl-C.
struct Patient {
    socket: UnixStream,
    /// When an answer is due.
    until: Option<Instant>,
    interrupted: Arc<AtomicBool>,
}

impl Read for Patient {
    fn read(&mut self, bytes: &mut [u8]) -> io::Result<usize> {
        loop {
            match self.socket.read(bytes) {
                Err(error) if is_early(&error) => {}
                read => return read,
            }
            if self.interrupted.load(Ordering::Relaxed) {
                return Err(io::Error::other("interrupted"));
            }
            if self.until.is_some_and(|until| Instant::now() > until) {
                let patience = humantime::format_duration(PATIENCE);
                let late = format!("no answer within {patience}");
                return Err(io::Error::new(io::ErrorKind::TimedOut, late));
            }
        }
    }
}

impl Write for Patient {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.until = Some(Instant::now() + PATIENCE);
        self.socket.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.socket.flush()
    }
}

fn is_early(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut | io::ErrorKind::Interrupted
    )
}

/// Notes Ctrl-C while the command's own thread waits in a signature. Its thread ends with it.
struct CtrlC {
    pressed: Arc<AtomicBool>,
    stop: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl CtrlC {
    fn watch() -> Result<Self> {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .context("cannot wait for Ctrl-C")?;
        let pressed = Arc::new(AtomicBool::new(false));
        let (stop, stopped) = oneshot::channel();
        let noted = pressed.clone();
        let watch = async move {
            tokio::select! {
                _ = tokio::signal::ctrl_c() => noted.store(true, Ordering::Relaxed),
                _ = stopped => {}
            }
        };
        let thread = std::thread::Builder::new()
            .name("ctrl-c".into())
            .spawn(move || runtime.block_on(watch))
            .context("cannot wait for Ctrl-C")?;
        Ok(Self {
            pressed,
            stop: Some(stop),
            thread: Some(thread),
        })
    }
}

impl Drop for CtrlC {
    fn drop(&mut self) {
        drop(self.stop.take());
        if let Some(thread) = self.thread.take() {
            // It only waited: a panic there changes nothing here.
            let _ = thread.join();
        }
    }
}

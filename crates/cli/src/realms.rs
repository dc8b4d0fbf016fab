//! The realms this person owns or uses, as the command line remembers them.
//!
//! `STATE/realms/<id>/genesis` holds the signed genesis, `mark` the highest revision seen
//! or signed, `head` which entry that is, `owner` who owns it after a change and who did before, `peers` addresses that answered, `outbox` and `kept`
//! signed intents (see `outbox.rs`), `lock` and `mark.lock` the turns of commands that run at once,
//! `invites` what the nodes will be called that were invited here, and what `realms/remembered.rs` says. `STATE/current` names the realm in use.

use std::path::{Path, PathBuf};

use realm_identity::{Genesis, PublicKey, RealmId, Signed, Timestamp};

use crate::{
    checked,
    error::{CliError, Context as _, ExitCode, Result},
    file,
    outbox::Outbox,
    signing_lock::SigningLock,
};

mod mark;
mod remembered;

/// No file of a realm's state is larger: an intent with its payload stays below this.
const MAX_BYTES: u64 = 256 * 1024;
/// Addresses remembered; the first that answers is used.
const MAX_PEERS: usize = 32;
/// Owners remembered, the latest first.
const MAX_OWNERS: usize = 64;
/// Invites remembered, the latest first, while they can be used.
const MAX_INVITES: usize = 256;

/// The realms of one state directory.
#[derive(Debug, Clone)]
pub struct Realms {
    dir: PathBuf,
}

/// One realm, with its verified genesis.
#[derive(Debug, Clone)]
pub struct Realm {
    pub id: RealmId,
    pub genesis: Signed<Genesis>,
    dir: PathBuf,
}

impl Realms {
    pub fn new(state_dir: &Path) -> Self {
        Self {
            dir: state_dir.to_path_buf(),
        }
    }

    /// A realm that is not kept yet: nothing is written.
    pub fn unsaved(&self, genesis: Signed<Genesis>) -> Realm {
        let id = genesis.realm_id();
        let dir = self.realm_dir(&id);
        Realm { id, genesis, dir }
    }

    /// Keeps a new realm and makes it the one in use.
    pub fn add(&self, genesis: Signed<Genesis>) -> Result<Realm> {
        let realm = self.unsaved(genesis);
        let path = realm.dir.join("genesis");
        match file::create(&path, &realm.genesis.to_wire()) {
            Err(error) if error.kind() != std::io::ErrorKind::AlreadyExists => {
                return Err(error).context(format!("cannot keep the realm in {}", path.display()));
            }
            _ => {}
        }
        self.select(&realm)?;
        self.tidy();
        Ok(realm)
    }

    /// Removes what is left of realms that were never kept because a command was cut short.
    fn tidy(&self) {
        let dir = self.dir.join("realms");
        for entry in std::fs::read_dir(dir).into_iter().flatten().flatten() {
            let begun = entry.path();
            let is_realm = entry
                .file_name()
                .to_string_lossy()
                .parse::<RealmId>()
                .is_ok();
            // Nothing depends on it: what cannot be removed stays, and is passed over.
            if is_realm && is_begun(&begun) && file::forget(&begun.join("genesis")).is_ok() {
                let _ = std::fs::remove_dir(begun);
            }
        }
    }

    /// Makes `realm` the one in use.
    pub fn select(&self, realm: &Realm) -> Result<()> {
        file::replace(&self.dir.join("current"), realm.id.to_string().as_bytes())
            .context("cannot remember which realm is in use")
    }

    /// Every realm that can be read; of the others a word is said.
    pub fn list(&self) -> Result<Vec<Realm>> {
        let mut realms = Vec::new();
        for id in self.ids()? {
            match self.open(id) {
                Ok(realm) => realms.push(realm),
                Err(error) => tracing::warn!("left out: {}", error.in_one_line()),
            }
        }
        realms.sort_by(|a, b| (&a.genesis.name, a.id).cmp(&(&b.genesis.name, b.id)));
        Ok(realms)
    }

    fn ids(&self) -> Result<Vec<RealmId>> {
        let dir = self.dir.join("realms");
        let entries = match std::fs::read_dir(&dir) {
            Ok(entries) => entries,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
            Err(error) => return Err(error).context(format!("cannot read {}", dir.display())),
        };
        let mut ids = Vec::new();
        for entry in entries {
            let name = entry
                .context(format!("cannot read {}", dir.display()))?
                .file_name();
            let id = name.to_string_lossy().parse::<RealmId>().ok();
            ids.extend(id.filter(|id| !is_begun(&self.realm_dir(id))));
        }
        Ok(ids)
    }

    /// The realm named by `asked` (its name, else the start of its id), else the one in use.
    pub fn find(&self, asked: Option<&str>) -> Result<Realm> {
        let Some(asked) = asked else {
            return self.current();
        };
        if asked.is_empty() {
            // Every id begins with nothing.
            return Err(
                CliError::new(ExitCode::Usage, "the name of the realm is empty")
                    .help("name one: realm ls; or leave it out for the one in use"),
            );
        }
        let mut realms = self.list()?;
        if realms.iter().any(|realm| realm.genesis.name == asked) {
            realms.retain(|realm| realm.genesis.name == asked);
            let one = realms.pop().filter(|_| realms.is_empty());
            return one.ok_or_else(|| ambiguous(asked));
        }
        let ids = self.ids()?.into_iter();
        let mut found = ids.filter(|id| id.to_string().starts_with(asked));
        match (found.next(), found.next()) {
            (Some(id), None) => self.open(id),
            (Some(_), Some(_)) => Err(ambiguous(asked)),
            (None, _) => Err(
                CliError::new(ExitCode::NotFound, format!("no realm {asked:?}"))
                    .help("list them: realm ls"),
            ),
        }
    }

    fn current(&self) -> Result<Realm> {
        let path = self.dir.join("current");
        let bytes =
            file::read(&path, MAX_BYTES).context(format!("cannot read {}", path.display()))?;
        let text = bytes.map(|bytes| String::from_utf8_lossy(&bytes).into_owned());
        let used = text.and_then(|text| text.trim().parse::<RealmId>().ok());
        if let Some(id) = used.filter(|id| self.realm_dir(id).exists()) {
            return self.open(id);
        }
        let mut realms = self.list()?;
        match realms.len() {
            1 => Ok(realms.swap_remove(0)),
            0 => Err(CliError::new(ExitCode::NotFound, "there is no realm yet")
                .help("make one: realm init")),
            _ => Err(
                CliError::new(ExitCode::Usage, "several realms, and none is in use")
                    .help("choose one: realm use NAME"),
            ),
        }
    }

    fn open(&self, id: RealmId) -> Result<Realm> {
        let dir = self.realm_dir(&id);
        let path = dir.join("genesis");
        let described = || format!("cannot read realm {}: {}", id.short(), path.display());
        let help = format!(
            "put the file back from a backup; or remove {} and take the realm from one of its nodes: realm adopt --via ADDR",
            dir.display()
        );
        let read = || {
            let wire = file::read(&path, MAX_BYTES)
                .context(described())?
                .ok_or_else(|| CliError::failed(format!("{} is missing", described())))?;
            let genesis = Signed::<Genesis>::from_wire(&wire).context(described())?;
            if genesis.realm_id() != id {
                return Err(CliError::failed(format!(
                    "{} is another realm's",
                    described()
                )));
            }
            Ok(genesis)
        };
        let genesis = read().map_err(|error: CliError| error.help(help))?;
        Ok(Realm { id, genesis, dir })
    }

    fn realm_dir(&self, id: &RealmId) -> PathBuf {
        self.dir.join("realms").join(id.to_string())
    }
}

/// Whether a realm was about to be kept here and never was: nothing has a name yet.
fn is_begun(dir: &Path) -> bool {
    let Ok(mut entries) = std::fs::read_dir(dir) else {
        return false;
    };
    entries.all(|entry| {
        entry.is_ok_and(|entry| entry.file_name().as_encoded_bytes().starts_with(b"."))
    })
}

fn ambiguous(asked: &str) -> CliError {
    CliError::new(
        ExitCode::Usage,
        format!("{asked:?} names more than one realm"),
    )
    .help("use the first digits of its id: realm ls")
}

impl Realm {
    /// Waits until no other command of this person signs for the realm.
    pub async fn lock(&self) -> Result<SigningLock> {
        SigningLock::take(&self.dir.join("lock")).await
    }

    /// Intents that were signed and are not safe with the nodes yet. Used by who holds the lock.
    pub fn outbox(&self) -> Outbox<'_> {
        Outbox::new(&self.dir)
    }

    /// Who owns the realm, as far as this person has seen; its founder at first.
    pub fn owner(&self) -> Result<PublicKey> {
        let owners = self.owners()?;
        Ok(owners.first().copied().unwrap_or(self.genesis.owner()))
    }

    /// Whether this person has seen that the realm was this key's at some time.
    pub fn was_owned_by(&self, key: PublicKey) -> bool {
        key == self.genesis.owner() || self.owners().is_ok_and(|owners| owners.contains(&key))
    }

    /// Those whom the realm was handed to, the latest first.
    fn owners(&self) -> Result<Vec<PublicKey>> {
        let path = self.dir.join("owner");
        let described = || format!("cannot read who owns this realm, {}", path.display());
        let Some(bytes) = file::read(&path, MAX_BYTES).context(described())? else {
            return Ok(Vec::new());
        };
        let owners = checked::unseal(&bytes)
            .and_then(|owners| owners.split(' ').map(|owner| owner.parse().ok()).collect());
        owners.ok_or_else(|| {
            CliError::failed(format!("{}: it is damaged", described())).help(format!(
                "remove it; the next command that asks a node writes it anew: rm {}",
                path.display()
            ))
        })
    }

    pub fn remember_owner(&self, owner: PublicKey) -> Result<()> {
        if self.owner().is_ok_and(|known| known == owner) {
            return Ok(());
        }
        // A file that cannot be read is written anew.
        let mut owners = self.owners().unwrap_or_default();
        owners.retain(|known| *known != owner);
        owners.insert(0, owner);
        owners.truncate(MAX_OWNERS);
        let owners: Vec<_> = owners.iter().map(PublicKey::to_string).collect();
        let sealed = checked::seal(&owners.join(" "));
        file::replace(&self.dir.join("owner"), sealed.as_bytes())
            .context("cannot remember who owns this realm")
    }

    /// Addresses that answered before, the latest first; what is no address is passed over.
    pub fn peers(&self) -> Result<Vec<String>> {
        let path = self.dir.join("peers");
        let bytes =
            file::read(&path, MAX_BYTES).context(format!("cannot read {}", path.display()))?;
        let text = String::from_utf8_lossy(&bytes.unwrap_or_default()).into_owned();
        let (peers, junk): (Vec<&str>, Vec<&str>) = text
            .lines()
            .partition(|line| realm_p2p::check_address(line).is_ok());
        if !junk.is_empty() {
            tracing::warn!(
                "{} has {} lines that are no addresses; they are passed over",
                path.display(),
                junk.len()
            );
        }
        Ok(peers
            .into_iter()
            .map(str::to_owned)
            .take(MAX_PEERS)
            .collect())
    }

    /// Remembers addresses, before the ones already known. They are a help and no more: where they
    /// cannot be kept, a word is said.
    pub fn save_peers(&self, addresses: &[String]) {
        if let Err(error) = self.try_save_peers(addresses) {
            tracing::warn!("{}", error.in_one_line());
        }
    }

    /// Until when an invite for a node of this name, made here, can be used.
    pub fn invited(&self, name: &str, now: Timestamp) -> Result<Option<Timestamp>> {
        let invites = self.invites(now)?.into_iter();
        let mut same = invites.filter(|(_, other)| other == name);
        Ok(same.next().map(|(until, _)| until))
    }

    pub fn remember_invite(&self, name: &str, until: Timestamp, now: Timestamp) -> Result<()> {
        let mut invites = self.invites(now)?;
        invites.insert(0, (until, name.to_owned()));
        invites.truncate(MAX_INVITES);
        let lines = invites
            .iter()
            .map(|(until, name)| format!("{} {name}\n", until.as_millis()));
        file::replace(
            &self.dir.join("invites"),
            lines.collect::<String>().as_bytes(),
        )
        .context("cannot remember the invite")
    }

    /// Those that can still be used, the latest first.
    fn invites(&self, now: Timestamp) -> Result<Vec<(Timestamp, String)>> {
        let lines = self.lines("invites", "cannot read which invites were made")?;
        let invites = lines.iter().filter_map(|line| {
            let (until, name) = line.split_once(' ')?;
            Some((Timestamp(until.parse().ok()?), name.to_owned()))
        });
        Ok(invites.filter(|(until, _)| *until > now).collect())
    }

    /// Whether the address was remembered, which it is no more.
    pub fn forget_peer(&self, address: &str) -> Result<bool> {
        let known = self.peers()?;
        let mut left: Vec<&str> = known.iter().map(String::as_str).collect();
        left.retain(|other| *other != address);
        if left.len() == known.len() {
            return Ok(false);
        }
        self.write_peers(&left).map(|()| true)
    }

    fn try_save_peers(&self, addresses: &[String]) -> Result<()> {
        let known = self.peers()?;
        let mut all: Vec<&str> = Vec::new();
        for address in addresses.iter().chain(&known) {
            if !all.contains(&address.as_str()) && all.len() < MAX_PEERS {
                all.push(address);
            }
        }
        if all.iter().copied().eq(known.iter().map(String::as_str)) {
            return Ok(());
        }
        self.write_peers(&all)
    }

    fn write_peers(&self, all: &[&str]) -> Result<()> {
        let path = self.dir.join("peers");
        file::replace(&path, all.join("\n").as_bytes())
            .context(format!("cannot remember addresses in {}", path.display()))
    }
}

#[cfg(test)]
mod tests;

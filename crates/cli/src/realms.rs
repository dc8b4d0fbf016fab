//! The realms this person owns or uses, as the command line remembers them.
//!
//! `STATE/realms/<id>/genesis` holds the signed genesis, `mark` the highest revision seen
//! or signed, `owner` who owns it after a change, `outbox` the one intent that was signed and not yet acknowledged, `peers`
//! addresses that answered, `names` what its nodes were called when their status was last read, `invites` what
//! the nodes will be called that were invited here. `STATE/current` names the realm in use.

use std::path::{Path, PathBuf};

use realm_identity::{Genesis, PublicKey, RealmId, Signed, Timestamp};

use crate::{
    error::{CliError, Context as _, ExitCode, Result},
    file,
};

/// No file of a realm's state is larger: an intent with its payload stays below this.
const MAX_BYTES: u64 = 256 * 1024;
/// Addresses remembered; the first that answers is used.
const MAX_PEERS: usize = 32;
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

    /// Keeps a new realm and makes it the one in use.
    pub fn add(&self, genesis: Signed<Genesis>) -> Result<Realm> {
        let id = genesis.realm_id();
        let dir = self.realm_dir(&id);
        match file::create(&dir.join("genesis"), &genesis.to_wire()) {
            Err(error) if error.kind() != std::io::ErrorKind::AlreadyExists => {
                return Err(error).context(format!("cannot keep realm {id}"));
            }
            _ => {}
        }
        let realm = Realm { id, genesis, dir };
        self.select(&realm)?;
        Ok(realm)
    }

    /// Makes `realm` the one in use.
    pub fn select(&self, realm: &Realm) -> Result<()> {
        file::replace(&self.dir.join("current"), realm.id.to_string().as_bytes())
            .context("cannot remember which realm is in use")
    }

    pub fn list(&self) -> Result<Vec<Realm>> {
        let dir = self.dir.join("realms");
        let entries = match std::fs::read_dir(&dir) {
            Ok(entries) => entries,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
            Err(error) => return Err(error).context(format!("cannot read {}", dir.display())),
        };
        let mut realms = Vec::new();
        for entry in entries {
            let name = entry
                .context(format!("cannot read {}", dir.display()))?
                .file_name();
            if let Ok(id) = name.to_string_lossy().parse() {
                realms.push(self.open(id)?);
            }
        }
        realms.sort_by(|a, b| (&a.genesis.name, a.id).cmp(&(&b.genesis.name, b.id)));
        Ok(realms)
    }

    /// The realm named by `asked` (a name, or the start of an id), else the one in use.
    pub fn find(&self, asked: Option<&str>) -> Result<Realm> {
        let realms = self.list()?;
        let Some(asked) = asked else {
            return self.current(realms);
        };
        let mut found = realms
            .into_iter()
            .filter(|realm| realm.genesis.name == asked || realm.id.to_string().starts_with(asked));
        match (found.next(), found.next()) {
            (Some(realm), None) => Ok(realm),
            (Some(_), Some(_)) => Err(CliError::new(
                ExitCode::Usage,
                format!("{asked:?} names more than one realm"),
            )
            .help("use the first digits of its id: realm ls")),
            (None, _) => Err(
                CliError::new(ExitCode::NotFound, format!("no realm {asked:?}"))
                    .help("list them: realm ls"),
            ),
        }
    }

    fn current(&self, mut realms: Vec<Realm>) -> Result<Realm> {
        let bytes = file::read(&self.dir.join("current"), MAX_BYTES)
            .context("cannot read which realm is in use")?;
        if let Some(bytes) = bytes {
            let text = String::from_utf8_lossy(&bytes);
            if let Some(index) = realms
                .iter()
                .position(|realm| realm.id.to_string() == text.trim())
            {
                return Ok(realms.swap_remove(index));
            }
        }
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
        let described = || format!("cannot read realm {}", id.short());
        let wire = file::read(&dir.join("genesis"), MAX_BYTES)
            .context(described())?
            .ok_or_else(|| CliError::failed(described()).help("its genesis file is missing"))?;
        let genesis = Signed::<Genesis>::from_wire(&wire).context(described())?;
        if genesis.realm_id() != id {
            return Err(CliError::failed(described()).help("its genesis is another realm's"));
        }
        Ok(Realm { id, genesis, dir })
    }

    fn realm_dir(&self, id: &RealmId) -> PathBuf {
        self.dir.join("realms").join(id.to_string())
    }
}

impl Realm {
    /// The highest revision this person saw or signed; 0 before the first.
    pub fn mark(&self) -> Result<u64> {
        let described = "cannot read the high-water mark of this realm";
        let Some(bytes) = file::read(&self.dir.join("mark"), MAX_BYTES).context(described)? else {
            return Ok(0);
        };
        String::from_utf8_lossy(&bytes)
            .trim()
            .parse()
            .context(described)
    }

    /// Raises the mark, durably; never lowers it.
    pub fn raise_mark(&self, revision: u64) -> Result<()> {
        if revision > self.mark()? {
            file::replace(&self.dir.join("mark"), revision.to_string().as_bytes())
                .context("cannot write the high-water mark of this realm")?;
        }
        Ok(())
    }

    /// Who owns the realm, as far as this person has seen; its founder at first.
    pub fn owner(&self) -> Result<PublicKey> {
        let described = "cannot read who owns this realm";
        match file::read(&self.dir.join("owner"), MAX_BYTES).context(described)? {
            Some(bytes) => String::from_utf8_lossy(&bytes)
                .trim()
                .parse()
                .context(described),
            None => Ok(self.genesis.owner()),
        }
    }

    pub fn remember_owner(&self, owner: PublicKey) -> Result<()> {
        if self.owner()? == owner {
            return Ok(());
        }
        file::replace(&self.dir.join("owner"), owner.to_string().as_bytes())
            .context("cannot remember who owns this realm")
    }

    /// Keeps a signed intent before it is sent, so that it can be sent again as it is.
    pub fn put_outbox(&self, entry: &[u8], payload: &[u8]) -> Result<()> {
        let bytes = minicbor::to_vec((
            minicbor::bytes::ByteVec::from(entry.to_vec()),
            minicbor::bytes::ByteVec::from(payload.to_vec()),
        ))
        .expect("writing to memory does not fail");
        file::replace(&self.dir.join("outbox"), &bytes).context("cannot write the outbox")
    }

    /// The intent that was signed and never acknowledged: its entry and its payload.
    pub fn outbox(&self) -> Result<Option<(Vec<u8>, Vec<u8>)>> {
        let Some(bytes) =
            file::read(&self.dir.join("outbox"), MAX_BYTES).context("cannot read the outbox")?
        else {
            return Ok(None);
        };
        let (entry, payload): (minicbor::bytes::ByteVec, minicbor::bytes::ByteVec) =
            minicbor::decode(&bytes).context("the outbox is damaged")?;
        Ok(Some((entry.into(), payload.into())))
    }

    pub fn clear_outbox(&self) -> Result<()> {
        match std::fs::remove_file(self.dir.join("outbox")) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                Err(error).context("cannot clear the outbox")
            }
            _ => Ok(()),
        }
    }

    /// Addresses that answered before, the latest first.
    pub fn peers(&self) -> Result<Vec<String>> {
        let mut peers = self.lines("peers", "cannot read saved peers")?;
        peers.truncate(MAX_PEERS);
        Ok(peers)
    }

    /// What the nodes of the realm were called when their status was last read.
    pub fn names(&self) -> Result<Vec<String>> {
        self.lines("names", "cannot read the names of the realm's nodes")
    }

    pub fn remember_names(&self, names: &[String]) -> Result<()> {
        if self.names()? == names {
            return Ok(());
        }
        file::replace(&self.dir.join("names"), names.join("\n").as_bytes())
            .context("cannot save the names of the realm's nodes")
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

    fn lines(&self, name: &str, failed: &str) -> Result<Vec<String>> {
        let bytes = file::read(&self.dir.join(name), MAX_BYTES).context(failed)?;
        let text = String::from_utf8_lossy(&bytes.unwrap_or_default()).into_owned();
        Ok(text.lines().map(str::to_owned).collect())
    }

    /// Remembers addresses, before the ones already known.
    pub fn save_peers(&self, addresses: &[String]) -> Result<()> {
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
        file::replace(&self.dir.join("peers"), all.join("\n").as_bytes())
            .context("cannot save peers")
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use realm_identity::SecretKey;

    use super::*;

    fn realm(name: &str, nonce: u8) -> Signed<Genesis> {
        let owner = SecretKey::from_seed(&[7; 32]);
        Signed::sign(
            Genesis::new(owner.public(), name.into(), [nonce; 32]),
            &owner,
        )
        .unwrap()
    }

    #[test]
    fn finds_realms_by_name_id_and_use() {
        let dir = tempfile::tempdir().unwrap();
        let realms = Realms::new(dir.path());
        assert_eq!(realms.find(None).unwrap_err().code, ExitCode::NotFound);
        let home = realms.add(realm("home", 1)).unwrap();
        let shop = realms.add(realm("shop", 2)).unwrap();
        assert_eq!(realms.find(None).unwrap().id, shop.id);
        assert_eq!(realms.find(Some("home")).unwrap().id, home.id);
        assert_eq!(
            realms.find(Some(&shop.id.to_string()[..10])).unwrap().id,
            shop.id
        );
        realms.select(&home).unwrap();
        assert_eq!(realms.find(None).unwrap().id, home.id);
        assert_eq!(realms.list().unwrap().len(), 2);
    }

    #[test]
    fn the_mark_never_falls_and_the_outbox_returns_what_was_put() {
        let dir = tempfile::tempdir().unwrap();
        let realm = Realms::new(dir.path()).add(realm("home", 1)).unwrap();
        realm.raise_mark(5).unwrap();
        realm.raise_mark(3).unwrap();
        assert_eq!(realm.mark().unwrap(), 5);
        realm.put_outbox(b"entry", b"payload").unwrap();
        assert_eq!(
            realm.outbox().unwrap().unwrap(),
            (b"entry".to_vec(), b"payload".to_vec())
        );
        realm.clear_outbox().unwrap();
        assert!(realm.outbox().unwrap().is_none());
    }

    #[test]
    fn invites_are_known_while_they_can_be_used() {
        let dir = tempfile::tempdir().unwrap();
        let realm = Realms::new(dir.path()).add(realm("home", 1)).unwrap();
        let now = Timestamp(1_000);
        realm.remember_invite("one", Timestamp(2_000), now).unwrap();
        realm.remember_invite("two", Timestamp(3_000), now).unwrap();
        let until = |name: &str, now: u64| realm.invited(name, Timestamp(now)).unwrap();
        assert_eq!(until("one", 1_999), Some(Timestamp(2_000)));
        assert_eq!(until("one", 2_000), None);
        assert_eq!(until("two", 2_000), Some(Timestamp(3_000)));
        assert_eq!(until("three", 1_000), None);
    }

    #[test]
    fn saved_peers_keep_the_latest_first_and_stay_few() {
        let dir = tempfile::tempdir().unwrap();
        let realm = Realms::new(dir.path()).add(realm("home", 1)).unwrap();
        realm.save_peers(&["a".into(), "b".into()]).unwrap();
        realm.save_peers(&["c".into(), "a".into()]).unwrap();
        assert_eq!(realm.peers().unwrap(), ["c", "a", "b"]);
    }
}

//! The node's sealing key on disk, and its certificate.
//!
//! `sealing.key` holds the secret, `sealing.cert` the certificate that was made for it, so that its
//! time stays what it was. A lost key is made anew and certified anew: the node stays who it is, and
//! the later certificate tells everybody that what was sealed before cannot be opened here any more.

use realm_identity::{SealingCertificate, SealingSecret, SecretKey, Signed};
use realm_store::DataDir;

use crate::{
    clock,
    trust::{TrustError, secret},
};

/// What others need to seal something for this node.
#[derive(Debug)]
pub struct Sealing {
    pub certificate: Signed<SealingCertificate>,
    /// Whether the key of an earlier certificate is gone.
    pub renewed: bool,
}

impl Sealing {
    /// Reads the key and its certificate, and makes what is missing.
    pub fn load(dir: &DataDir, node: &SecretKey) -> Result<Self, TrustError> {
        let key = SealingSecret::from_bytes(&secret(dir, "sealing.key")?).public();
        let file = dir.state_file("sealing.cert");
        // One of another node key is none.
        let known = file
            .read()?
            .and_then(|wire| SealingCertificate::verify(&wire, node.public()).ok());
        let renewed = known.as_ref().is_some_and(|known| known.key != key);
        let certificate = match known {
            Some(known) if !renewed => known,
            known => {
                let after = known.map_or(0, |known| known.created.0.saturating_add(1));
                let created = clock::wall().max(realm_identity::Timestamp(after));
                let word = SealingCertificate::new(node.public(), key, created);
                let signed = Signed::sign(word, node).unwrap_or_else(|never| match never {});
                file.write(&signed.to_wire())?;
                signed
            }
        };
        Ok(Self {
            certificate,
            renewed,
        })
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use std::os::unix::fs::PermissionsExt as _;

    use super::*;
    use crate::trust::node_key;

    #[test]
    fn the_key_stays_and_a_lost_one_is_certified_anew() {
        let temp = tempfile::tempdir().unwrap();
        let dir = DataDir::open(temp.path()).unwrap();
        let node = node_key(&dir).unwrap();
        let first = Sealing::load(&dir, &node).unwrap();
        assert!(!first.renewed);
        let path = temp.path().join("sealing.key");
        let mode = std::fs::metadata(&path).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);

        let again = Sealing::load(&dir, &node).unwrap();
        assert_eq!(again.certificate, first.certificate);
        // A certificate alone can be made again for the same key.
        std::fs::remove_file(temp.path().join("sealing.cert")).unwrap();
        let again = Sealing::load(&dir, &node).unwrap();
        assert_eq!(again.certificate.key, first.certificate.key);
        assert!(!again.renewed);

        std::fs::remove_file(&path).unwrap();
        let other = Sealing::load(&dir, &node).unwrap();
        assert!(other.renewed);
        assert_ne!(other.certificate.key, first.certificate.key);
        assert!(other.certificate.created > again.certificate.created);
        assert!(!Sealing::load(&dir, &node).unwrap().renewed, "told once");
    }

    #[test]
    fn a_key_that_others_may_read_is_refused() {
        let temp = tempfile::tempdir().unwrap();
        let dir = DataDir::open(temp.path()).unwrap();
        let node = node_key(&dir).unwrap();
        Sealing::load(&dir, &node).unwrap();
        let path = temp.path().join("sealing.key");
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o640)).unwrap();
        let error = Sealing::load(&dir, &node).unwrap_err();
        assert!(error.to_string().contains("sealing.key"), "{error}");
    }
}

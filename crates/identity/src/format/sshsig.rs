//! Detached signatures that `ssh-keygen -Y` makes and verifies.

use ssh_key::{
    Algorithm, HashAlg, SshSig,
    public::{Ed25519PublicKey, KeyData},
};

use crate::{PublicKey, Signature, Signer};

/// The namespace of signatures on manifest files (`realm.toml.sig`).
pub const MANIFEST_NAMESPACE: &str = "realm-manifest";

/// Longest signature file that is read.
pub const MAX_SSHSIG_BYTES: usize = 8 * 1024;

#[derive(Debug, thiserror::Error)]
pub enum SshSigError {
    #[error("malformed SSH signature")]
    Malformed(#[source] ssh_key::Error),
    #[error("{size} bytes are no SSH signature: at most {MAX_SSHSIG_BYTES} are read")]
    TooLong { size: usize },
    #[error("the signature was made by another key than {expected}")]
    OtherKey { expected: PublicKey },
    #[error("the signature is for the namespace {found:?}, not {expected:?}")]
    OtherNamespace { found: String, expected: String },
    #[error("the signature does not match the content")]
    Bad,
}

#[derive(Debug, thiserror::Error)]
pub enum SignError<E> {
    #[error("the key could not sign")]
    Signer(#[source] E),
    #[error("{0:?} is not a namespace")]
    Namespace(String),
    #[error("the signature could not be written")]
    Encode(#[source] ssh_key::Error),
}

/// Signs `content` for `namespace`; the result is a PEM block of `SSH SIGNATURE`.
pub fn sign<S: Signer + ?Sized>(
    signer: &S,
    namespace: &str,
    content: &[u8],
) -> Result<String, SignError<S::Error>> {
    let data = SshSig::signed_data(namespace, HashAlg::Sha512, content)
        .map_err(|_| SignError::Namespace(namespace.to_owned()))?;
    let signature = signer.sign(&data).map_err(SignError::Signer)?;
    let public = KeyData::Ed25519(Ed25519PublicKey(*signer.public().as_bytes()));
    ssh_key::Signature::new(Algorithm::Ed25519, signature.to_bytes())
        .and_then(|signature| SshSig::new(public, namespace, HashAlg::Sha512, signature))
        .and_then(|signature| signature.to_pem(ssh_key::LineEnding::LF))
        .map_err(SignError::Encode)
}

/// Checks that `key` signed `content` for `namespace`.
pub fn verify(
    key: &PublicKey,
    namespace: &str,
    content: &[u8],
    signature: &str,
) -> Result<(), SshSigError> {
    if signature.len() > MAX_SSHSIG_BYTES {
        return Err(SshSigError::TooLong {
            size: signature.len(),
        });
    }
    let signature = SshSig::from_pem(signature).map_err(SshSigError::Malformed)?;
    match signature.public_key() {
        KeyData::Ed25519(Ed25519PublicKey(bytes)) if bytes == key.as_bytes() => {}
        _ => return Err(SshSigError::OtherKey { expected: *key }),
    }
    if signature.namespace() != namespace {
        let (found, expected) = (signature.namespace().to_owned(), namespace.to_owned());
        return Err(SshSigError::OtherNamespace { found, expected });
    }
    let data = SshSig::signed_data(namespace, signature.hash_alg(), content)
        .map_err(SshSigError::Malformed)?;
    let bytes = <[u8; 64]>::try_from(signature.signature_bytes()).map_err(|_| SshSigError::Bad)?;
    let plain = signature.algorithm() == Algorithm::Ed25519 && signature.reserved().is_empty();
    if plain && key.verify(&data, &Signature::from_bytes(&bytes)) {
        Ok(())
    } else {
        Err(SshSigError::Bad)
    }
}

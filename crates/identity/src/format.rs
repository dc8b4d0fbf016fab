//! Keys as text: base58, OpenSSH, and PEM as openssl 3 reads it.

use ed25519_dalek::pkcs8::{
    DecodePrivateKey as _, DecodePublicKey as _, EncodePrivateKey as _, EncodePublicKey as _,
    KeypairBytes, PublicKeyBytes, spki::der::pem::LineEnding,
};
use ssh_key::{
    Kdf,
    private::{Ed25519Keypair, Ed25519PrivateKey, KeypairData},
    public::{Ed25519PublicKey, KeyData},
};
use zeroize::Zeroizing;

use crate::{PublicKey, SecretKey};

pub mod sshsig;

/// Longest text that is read as a key: an encrypted OpenSSH file with a long comment has about 600 bytes.
pub const MAX_KEY_TEXT_BYTES: usize = 16 * 1024;

/// Most rounds of bcrypt that a key file may ask for: about ten seconds of work.
const MAX_BCRYPT_ROUNDS: u32 = 1024;

/// Rounds for the files made here, as `ssh-keygen` of OpenSSH 9 writes them.
const BCRYPT_ROUNDS: u32 = 24;

const SECRET_PREFIX: &str = "ed25519-secret:";

/// How a key is written.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Format {
    /// `ed25519:<base58>`; a private key is `ed25519-secret:<base58 of the seed>`.
    #[default]
    Base58,
    /// A line of `authorized_keys`; a private key is a file of `ssh-keygen`.
    OpenSsh,
    /// SPKI; a private key is PKCS#8 version 1, without the public half, which openssl 3.0 cannot read.
    Pem,
}

/// Randomness for one encrypted file, made by the caller. Never use one twice.
#[derive(Clone, Copy)]
pub struct EncryptionNonce {
    pub salt: [u8; 16],
    /// Says after decryption whether the passphrase was right.
    pub check: u32,
}

#[derive(Debug, thiserror::Error)]
pub enum FormatError {
    #[error("unknown key format {0:?}: use base58, openssh or pem")]
    UnknownFormat(String),
    #[error("{size} bytes are no key: at most {MAX_KEY_TEXT_BYTES} are read")]
    TooLong { size: usize },
    #[error(
        "not a public key: expected ed25519:…, a line of OpenSSH (ssh-ed25519 …) or a PEM public key"
    )]
    UnknownPublic,
    #[error(
        "not a private key: expected an OpenSSH or PKCS#8 PEM private key, or ed25519-secret:…"
    )]
    UnknownSecret,
    #[error("this is a private key where a public one belongs: do not share it")]
    SecretForPublic,
    #[error("this is a public key where a private one belongs")]
    PublicForSecret,
    #[error("not an ed25519 key: {0} keys are not used here")]
    OtherAlgorithm(String),
    #[error("malformed OpenSSH key")]
    OpenSsh(#[source] ssh_key::Error),
    #[error("malformed PEM key: {0}")]
    Pem(String),
    #[error("malformed key")]
    Key(#[from] crate::ParseKeyError),
    #[error("the private key does not belong to the public key beside it")]
    Mismatch,
    #[error("the key is encrypted: a passphrase is needed")]
    PassphraseNeeded,
    #[error("the passphrase is wrong")]
    PassphraseWrong,
    #[error("encrypted PKCS#8 is not read here: convert it with `openssl pkey` first")]
    EncryptedPem,
    #[error(
        "the key file asks for {rounds} rounds of bcrypt, at most {MAX_BCRYPT_ROUNDS} are done"
    )]
    TooManyRounds { rounds: u32 },
}

impl std::str::FromStr for Format {
    type Err = FormatError;

    fn from_str(text: &str) -> Result<Self, FormatError> {
        match text {
            "base58" => Ok(Self::Base58),
            "openssh" => Ok(Self::OpenSsh),
            "pem" => Ok(Self::Pem),
            _ => Err(FormatError::UnknownFormat(text.to_owned())),
        }
    }
}

impl std::fmt::Debug for EncryptionNonce {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("EncryptionNonce")
    }
}

/// Writes a public key. `comment` stands in the OpenSSH form only. PEM ends with a newline.
pub fn write_public(key: &PublicKey, format: Format, comment: &str) -> Result<String, FormatError> {
    match format {
        Format::Base58 => Ok(key.to_string()),
        Format::OpenSsh => {
            let data = KeyData::Ed25519(Ed25519PublicKey(*key.as_bytes()));
            ssh_key::PublicKey::new(data, comment)
                .to_openssh()
                .map_err(FormatError::OpenSsh)
        }
        Format::Pem => PublicKeyBytes(*key.as_bytes())
            .to_public_key_pem(LineEnding::LF)
            .map_err(pem_error),
    }
}

/// Reads a public key in any of the three forms.
pub fn read_public(text: &str) -> Result<PublicKey, FormatError> {
    let text = bounded(text)?;
    if is_secret(text) {
        return Err(FormatError::SecretForPublic);
    }
    if text.starts_with("ed25519:") {
        return Ok(text.parse()?);
    }
    if text.starts_with("-----BEGIN PUBLIC KEY-----") {
        let PublicKeyBytes(bytes) =
            PublicKeyBytes::from_public_key_pem(&framed(text)).map_err(pem_error)?;
        return Ok(PublicKey::from_bytes(bytes)?);
    }
    match text.split_whitespace().next() {
        Some("ssh-ed25519") => {
            let key = ssh_key::PublicKey::from_openssh(text).map_err(FormatError::OpenSsh)?;
            return from_ssh(key.key_data());
        }
        Some(word)
            if ["ssh-", "ecdsa-", "sk-"]
                .iter()
                .any(|start| word.starts_with(start)) =>
        {
            return Err(FormatError::OtherAlgorithm(word.to_owned()));
        }
        _ => {}
    }
    Err(FormatError::UnknownPublic)
}

/// Writes a private key, not encrypted. `comment` stands in the OpenSSH form only.
pub fn write_secret(
    key: &SecretKey,
    format: Format,
    comment: &str,
) -> Result<Zeroizing<String>, FormatError> {
    match format {
        Format::Base58 => {
            let seed = Zeroizing::new(bs58::encode(*key.seed()).into_string());
            Ok(Zeroizing::new(format!("{SECRET_PREFIX}{}", *seed)))
        }
        Format::OpenSsh => {
            let key = to_ssh(key, comment).map_err(FormatError::OpenSsh)?;
            key.to_openssh(ssh_key::LineEnding::LF)
                .map_err(FormatError::OpenSsh)
        }
        Format::Pem => {
            let pair = KeypairBytes {
                secret_key: *key.seed(),
                public_key: None,
            };
            pair.to_pkcs8_pem(LineEnding::LF).map_err(pem_error)
        }
    }
}

/// Writes a private key as an OpenSSH file that `passphrase` opens. `ssh-keygen` reads it.
pub fn encrypt_secret(
    key: &SecretKey,
    comment: &str,
    passphrase: &[u8],
    nonce: EncryptionNonce,
) -> Result<Zeroizing<String>, FormatError> {
    let kdf = Kdf::Bcrypt {
        salt: nonce.salt.to_vec(),
        rounds: BCRYPT_ROUNDS,
    };
    let encrypt = || {
        to_ssh(key, comment)?
            .encrypt_with(ssh_key::Cipher::Aes256Ctr, kdf, nonce.check, passphrase)?
            .to_openssh(ssh_key::LineEnding::LF)
    };
    encrypt().map_err(FormatError::OpenSsh)
}

/// Reads a private key in any of the three forms; `passphrase` opens an encrypted OpenSSH file.
pub fn read_secret(text: &str, passphrase: Option<&[u8]>) -> Result<SecretKey, FormatError> {
    let text = bounded(text)?;
    if let Some(seed) = text.strip_prefix(SECRET_PREFIX) {
        let mut bytes = Zeroizing::new([0; 32]);
        return match bs58::decode(seed).onto(&mut *bytes) {
            Ok(32) => Ok(SecretKey::from_seed(&bytes)),
            _ => Err(FormatError::UnknownSecret),
        };
    }
    if text.starts_with("-----BEGIN ENCRYPTED PRIVATE KEY-----") {
        return Err(FormatError::EncryptedPem);
    }
    if text.starts_with("-----BEGIN PRIVATE KEY-----") {
        return read_pkcs8(text);
    }
    if text.starts_with("-----BEGIN OPENSSH PRIVATE KEY-----") {
        return from_ssh_secret(read_openssh(text)?, passphrase);
    }
    Err(if read_public(text).is_ok() {
        FormatError::PublicForSecret
    } else {
        FormatError::UnknownSecret
    })
}

/// Whether [`read_secret`] needs a passphrase for this text.
pub fn is_encrypted(text: &str) -> Result<bool, FormatError> {
    let text = bounded(text)?;
    if text.starts_with("-----BEGIN OPENSSH PRIVATE KEY-----") {
        return Ok(read_openssh(text)?.is_encrypted());
    }
    Ok(false)
}

fn bounded(text: &str) -> Result<&str, FormatError> {
    if text.len() > MAX_KEY_TEXT_BYTES {
        return Err(FormatError::TooLong { size: text.len() });
    }
    Ok(text.trim())
}

fn is_secret(text: &str) -> bool {
    text.starts_with(SECRET_PREFIX)
        || text
            .lines()
            .next()
            .is_some_and(|line| line.starts_with("-----BEGIN ") && line.contains("PRIVATE KEY"))
}

/// PEM readers want the newline at the end that trimming took away.
fn framed(text: &str) -> Zeroizing<String> {
    Zeroizing::new(format!("{text}\n"))
}

fn pem_error(error: impl std::fmt::Display) -> FormatError {
    FormatError::Pem(error.to_string())
}

fn read_pkcs8(text: &str) -> Result<SecretKey, FormatError> {
    let pair = KeypairBytes::from_pkcs8_pem(&framed(text)).map_err(pem_error)?;
    let key = SecretKey::from_seed(&pair.secret_key);
    match pair.public_key {
        Some(public) if public.0 != *key.public().as_bytes() => Err(FormatError::Mismatch),
        _ => Ok(key),
    }
}

fn read_openssh(text: &str) -> Result<ssh_key::PrivateKey, FormatError> {
    ssh_key::PrivateKey::from_openssh(framed(text).as_bytes()).map_err(|error| match error {
        ssh_key::Error::AlgorithmUnknown => FormatError::OtherAlgorithm("other".to_owned()),
        ssh_key::Error::AlgorithmUnsupported { algorithm } => {
            FormatError::OtherAlgorithm(algorithm.to_string())
        }
        error => FormatError::OpenSsh(error),
    })
}

fn to_ssh(key: &SecretKey, comment: &str) -> Result<ssh_key::PrivateKey, ssh_key::Error> {
    let pair = Ed25519Keypair {
        public: Ed25519PublicKey(*key.public().as_bytes()),
        private: Ed25519PrivateKey::from_bytes(&key.seed()),
    };
    ssh_key::PrivateKey::new(KeypairData::Ed25519(pair), comment)
}

fn from_ssh(data: &KeyData) -> Result<PublicKey, FormatError> {
    match data {
        KeyData::Ed25519(Ed25519PublicKey(bytes)) => Ok(PublicKey::from_bytes(*bytes)?),
        other => Err(FormatError::OtherAlgorithm(other.algorithm().to_string())),
    }
}

fn from_ssh_secret(
    key: ssh_key::PrivateKey,
    passphrase: Option<&[u8]>,
) -> Result<SecretKey, FormatError> {
    let public = from_ssh(key.public_key().key_data())?;
    let key = if key.is_encrypted() {
        if let Kdf::Bcrypt { rounds, .. } = key.kdf()
            && *rounds > MAX_BCRYPT_ROUNDS
        {
            return Err(FormatError::TooManyRounds { rounds: *rounds });
        }
        let passphrase = passphrase.ok_or(FormatError::PassphraseNeeded)?;
        // A wrong passphrase shows as a failed check number or as nonsense behind it.
        key.decrypt(passphrase)
            .map_err(|_| FormatError::PassphraseWrong)?
    } else {
        key
    };
    let KeypairData::Ed25519(pair) = key.key_data() else {
        return Err(FormatError::OtherAlgorithm(key.algorithm().to_string()));
    };
    let seed = Zeroizing::new(pair.private.to_bytes());
    let secret = SecretKey::from_seed(&seed);
    if secret.public() == public {
        Ok(secret)
    } else {
        Err(FormatError::Mismatch)
    }
}

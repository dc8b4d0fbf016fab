//! An invitation made offline, and the token that carries it.

use std::{fmt, str::FromStr};

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use minicbor::{Decode, Encode};

use crate::{
    Genesis, GenesisError, PublicKey, RealmId, SecretKey, Signed, Timestamp, VerifyError,
    canonical, message,
};

/// How far two clocks may differ where an invite, a claim or a graft is judged: 5 minutes.
pub const CLOCK_TOLERANCE_MS: u64 = 5 * 60 * 1000;

/// Longest text of a token, its prefix included: 8 KiB fit a terminal, a file and a QR code or two.
pub const MAX_TOKEN_BYTES: usize = 8 * 1024;

/// Most tags, and most addresses, that one invite carries.
pub const MAX_ITEMS: usize = 32;

/// Longest name, tag or address of an invite, in bytes.
pub const MAX_TEXT_BYTES: usize = 256;

const PREFIX: &str = "realm-invite:";

/// The owner's approval of whichever node first signs its key with the invite's key.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub struct Invite {
    #[n(0)]
    pub v: u16,
    #[n(1)]
    pub realm: RealmId,
    /// `Signed<Genesis>` as on the wire, so that the node can check the realm's id by itself.
    #[cbor(n(2), with = "minicbor::bytes")]
    pub genesis: Vec<u8>,
    /// The author: the owner of the realm when the invite was made.
    #[n(3)]
    pub owner: PublicKey,
    /// The public half of the key in the token.
    #[n(4)]
    pub key: PublicKey,
    /// The node's name, as the owner wants it; None leaves it to the node.
    #[n(5)]
    pub name: Option<String>,
    /// Tags the owner gives. Sorted, each once.
    #[n(6)]
    pub tags: Vec<String>,
    /// The last moment at which a claim may be witnessed.
    #[n(7)]
    pub not_after: Timestamp,
    #[n(8)]
    pub issued_at: Timestamp,
    /// Multiaddrs of nodes that may be asked to witness.
    #[n(9)]
    pub addresses: Vec<String>,
}

message!(Invite, "invite", |invite| invite.owner);

/// An invite with the private key that claims it: whoever holds it may enrol one node.
///
/// Shown as `realm-invite:` and base64url without padding of the CBOR array
/// `[Signed<Invite> as on the wire, 32-byte seed]`. `Debug` does not show the key.
#[derive(Clone)]
pub struct InviteToken {
    invite: Signed<Invite>,
    secret: SecretKey,
}

#[derive(Debug, thiserror::Error)]
pub enum InviteError {
    #[error("version {0} of invites is not known to this version of realm")]
    Version(u16),
    #[error("the genesis inside the invite cannot be verified")]
    Genesis(#[source] VerifyError),
    #[error("the realm of the invite is not usable")]
    Realm(#[from] GenesisError),
    #[error("the invite is for realm {}, its genesis is of another", realm.short())]
    OtherGenesis { realm: RealmId },
    #[error("the invite is for realm {}, not for {}", found.short(), expected.short())]
    OtherRealm { found: RealmId, expected: RealmId },
    #[error("the invite was signed by {0}, who does not own the realm")]
    NotOwner(PublicKey),
    #[error("the invite expires before it begins")]
    Window,
    #[error("more than {MAX_ITEMS} {0}")]
    TooMany(&'static str),
    #[error("a name, tag or address is empty or longer than {MAX_TEXT_BYTES} bytes")]
    Text,
    #[error("the invite is not valid yet: check this machine's clock")]
    Early,
    #[error("the invite has expired: ask the owner for a new one")]
    Expired,
}

#[derive(Debug, thiserror::Error)]
pub enum ParseTokenError {
    #[error("an invite token begins with \"realm-invite:\"")]
    Prefix,
    #[error("the token is {size} bytes long, at most {MAX_TOKEN_BYTES} are allowed")]
    TooLong { size: usize },
    #[error("the token is cut short or has characters that do not belong: copy the whole of it")]
    Base64(#[source] base64::DecodeError),
    #[error("the token is malformed: copy the whole of it")]
    Malformed(#[source] canonical::Error),
    #[error("the invite in the token cannot be verified")]
    Verify(#[from] VerifyError),
    #[error("the invite in the token is not usable")]
    Invite(#[from] InviteError),
    #[error("the token's key is not the invite's")]
    OtherKey,
}

impl Invite {
    /// An invite by `owner` that gives neither name nor tags nor addresses; set those before signing.
    pub fn new(
        genesis: &Signed<Genesis>,
        owner: PublicKey,
        key: PublicKey,
        issued_at: Timestamp,
        not_after: Timestamp,
    ) -> Self {
        Self {
            v: crate::VERSION,
            realm: genesis.hash(),
            genesis: genesis.to_wire(),
            owner,
            key,
            name: None,
            tags: Vec::new(),
            not_after,
            issued_at,
            addresses: Vec::new(),
        }
    }

    /// The genesis inside, verified, and of the realm that the invite names.
    pub fn genesis(&self) -> Result<Signed<Genesis>, InviteError> {
        let genesis = Signed::<Genesis>::from_wire(&self.genesis).map_err(InviteError::Genesis)?;
        if genesis.hash() == self.realm {
            Ok(genesis)
        } else {
            Err(InviteError::OtherGenesis { realm: self.realm })
        }
    }

    /// Checks all that the invite says by itself: version, genesis, bounds.
    pub fn check(&self) -> Result<(), InviteError> {
        if self.v != crate::VERSION {
            return Err(InviteError::Version(self.v));
        }
        if self.not_after < self.issued_at {
            return Err(InviteError::Window);
        }
        for (what, items) in [("tags", &self.tags), ("addresses", &self.addresses)] {
            if items.len() > MAX_ITEMS {
                return Err(InviteError::TooMany(what));
            }
        }
        let texts = self.name.iter().chain(&self.tags).chain(&self.addresses);
        if texts
            .into_iter()
            .any(|text| text.is_empty() || text.len() > MAX_TEXT_BYTES)
        {
            return Err(InviteError::Text);
        }
        Ok(self.genesis()?.check()?)
    }

    /// Checks that one of `owners` made this invite for `realm`.
    ///
    /// `owners` are the keys whose invites count: the present owner, and an earlier one for as
    /// long as the caller honours what it signed.
    pub fn check_owner(&self, realm: RealmId, owners: &[PublicKey]) -> Result<(), InviteError> {
        self.check()?;
        if self.realm != realm {
            return Err(InviteError::OtherRealm {
                found: self.realm,
                expected: realm,
            });
        }
        if owners.contains(&self.owner) {
            Ok(())
        } else {
            Err(InviteError::NotOwner(self.owner))
        }
    }

    /// Checks that `at` lies between issue and expiry, give or take [`CLOCK_TOLERANCE_MS`].
    pub fn check_time(&self, at: Timestamp) -> Result<(), InviteError> {
        if at.plus_millis(CLOCK_TOLERANCE_MS) < self.issued_at {
            return Err(InviteError::Early);
        }
        if at > self.not_after.plus_millis(CLOCK_TOLERANCE_MS) {
            return Err(InviteError::Expired);
        }
        Ok(())
    }
}

impl InviteToken {
    /// Joins an invite and its key; the key must be the one that the invite names.
    pub fn new(invite: Signed<Invite>, secret: SecretKey) -> Result<Self, ParseTokenError> {
        invite.check()?;
        if secret.public() != invite.key {
            return Err(ParseTokenError::OtherKey);
        }
        let token = Self { invite, secret };
        match token.to_string().len() {
            size if size > MAX_TOKEN_BYTES => Err(ParseTokenError::TooLong { size }),
            _ => Ok(token),
        }
    }

    pub fn invite(&self) -> &Signed<Invite> {
        &self.invite
    }

    /// The private key that claims the invite.
    pub fn secret(&self) -> &SecretKey {
        &self.secret
    }
}

/// The token's inner bytes.
#[derive(Encode, Decode)]
struct Token {
    #[cbor(n(0), with = "minicbor::bytes")]
    invite: Vec<u8>,
    #[cbor(n(1), with = "minicbor::bytes")]
    seed: [u8; 32],
}

impl fmt::Display for InviteToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let token = Token {
            invite: self.invite.to_wire(),
            seed: *self.secret.seed(),
        };
        let bytes = zeroize::Zeroizing::new(canonical::encode(&token));
        write!(f, "{PREFIX}{}", URL_SAFE_NO_PAD.encode(&*bytes))
    }
}

impl fmt::Debug for InviteToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("InviteToken")
            .field("invite", &self.invite)
            .finish_non_exhaustive()
    }
}

impl FromStr for InviteToken {
    type Err = ParseTokenError;

    fn from_str(text: &str) -> Result<Self, ParseTokenError> {
        let text = text.trim();
        if text.len() > MAX_TOKEN_BYTES {
            return Err(ParseTokenError::TooLong { size: text.len() });
        }
        let encoded = text.strip_prefix(PREFIX).ok_or(ParseTokenError::Prefix)?;
        let bytes = URL_SAFE_NO_PAD
            .decode(encoded)
            .map_err(ParseTokenError::Base64)?;
        let bytes = zeroize::Zeroizing::new(bytes);
        let token: Token =
            canonical::decode(&bytes, MAX_TOKEN_BYTES).map_err(ParseTokenError::Malformed)?;
        Self::new(
            Signed::from_wire(&token.invite)?,
            SecretKey::from_seed(&token.seed),
        )
    }
}

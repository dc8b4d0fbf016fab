//! Keys, key formats, the signed envelope and the rules of trust.
//!
//! Pure: no async, clock, disk or socket. Time and randomness are arguments.
//! Start at [`Signed`] for the one verify path, [`Entry`] for what a realm's log
//! holds, and [`authority`] for who may write what.

pub mod authority;
pub mod canonical;
pub mod challenge;
pub mod claim;
mod digest;
mod entry;
pub mod format;
mod genesis;
pub mod invite;
mod key;
pub mod sealing;
mod signed;
mod time;
pub mod trust;
mod words;

pub use challenge::{ChallengeError, GraftChallenge};
pub use claim::{Claim, ClaimError, Consent, VerifiedClaim, Witness, WitnessedClaim};
pub use digest::{Artifact, Hash, ParseHashError, RealmId};
pub use entry::{Body, Entry, Kind, Target, VERSION};
pub use genesis::{Genesis, GenesisError};
pub use invite::{Invite, InviteError, InviteToken, ParseTokenError};
pub use key::{ParseKeyError, PublicKey, SecretKey, Signature, Signer};
pub use sealing::{SealingCertificate, SealingKey, SealingSecret};
pub use signed::{MAX_SIGNED_BYTES, Message, Signed, VerifyError};
pub use time::Timestamp;
pub use trust::{OwnerPin, PinError};

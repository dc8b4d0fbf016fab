//! What a cell may reach. Nothing is granted by default.

use minicbor::{Decode, Encode};
use serde::{Deserialize, Serialize};

use crate::{Outbound, Volume};

/// Everything handed to a cell. Pairs are sorted by key, and a key stands once.
#[derive(Debug, Clone, Default, PartialEq, Eq, Encode, Decode, Serialize, Deserialize)]
#[cbor(map)]
#[serde(default, deny_unknown_fields)]
pub struct Grants {
    /// Arguments after the program's name.
    #[n(0)]
    pub args: Vec<String>,
    #[n(1)]
    pub env: Vec<(String, String)>,
    /// Values offered through `wasi:config`.
    #[n(2)]
    pub vars: Vec<(String, String)>,
    #[n(3)]
    pub allowed_outbound: Vec<Outbound>,
    #[n(4)]
    pub volumes: Vec<Volume>,
}

//! The spec of one component: what runs, where, within what, with what in hand.

use std::{fmt, str::FromStr};

use minicbor::{Decode, Encode};
use realm_identity::{Artifact, PublicKey};
use serde::{Deserialize, Serialize};

use crate::{Grants, Limits, Tag, VolumeMode, VolumeSource};

/// The desired form of one component, whole: a push replaces all of it.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct ComponentSpec {
    #[n(0)]
    pub artifact: Artifact,
    /// Where the bytes came from, for people.
    #[n(1)]
    pub source: Option<String>,
    /// A world that the component must fit, such as `wasi:cli/command`.
    #[n(2)]
    pub world: Option<String>,
    /// N in total; None is one on every eligible node.
    #[n(3)]
    pub replicas: Option<u32>,
    #[n(4)]
    pub placement: Placement,
    #[n(5)]
    pub limits: Limits,
    #[n(6)]
    pub grants: Grants,
    #[n(7)]
    pub restart: RestartPolicy,
    #[n(8)]
    pub http: Option<HttpSpec>,
    #[n(9)]
    pub image: Option<ImageSpec>,
    #[n(10)]
    pub native: Option<NativeSpec>,
    #[n(11)]
    pub rollout: Option<Rollout>,
    #[n(12)]
    pub health: Option<Health>,
    /// Handles this component may open.
    #[n(13)]
    pub secrets: Vec<String>,
    #[n(14)]
    pub calls: Vec<Call>,
}

/// Which nodes are eligible: all of `tags`, and one of `nodes` where any is named.
#[derive(Debug, Clone, Default, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct Placement {
    #[n(0)]
    pub nodes: Vec<PublicKey>,
    #[n(1)]
    pub tags: Vec<Tag>,
    /// A tag key to spread over, such as `zone`.
    #[n(2)]
    pub spread: Option<String>,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Encode, Decode, Serialize, Deserialize)]
#[cbor(index_only)]
#[serde(rename_all = "kebab-case")]
pub enum RestartPolicy {
    #[n(0)]
    Always,
    #[default]
    #[n(1)]
    OnFailure,
    #[n(2)]
    Never,
}

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is not a restart policy: use always, on-failure or never")]
pub struct ParseRestartError(String);

impl RestartPolicy {
    pub const ALL: [Self; 3] = [Self::Always, Self::OnFailure, Self::Never];

    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Always => "always",
            Self::OnFailure => "on-failure",
            Self::Never => "never",
        }
    }
}

impl FromStr for RestartPolicy {
    type Err = ParseRestartError;

    fn from_str(text: &str) -> Result<Self, ParseRestartError> {
        let found = Self::ALL.into_iter().find(|policy| policy.as_str() == text);
        found.ok_or_else(|| ParseRestartError(text.to_owned()))
    }
}

impl fmt::Display for RestartPolicy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

/// Serves HTTP under host and path.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct HttpSpec {
    #[n(0)]
    pub host: Option<String>,
    #[n(1)]
    pub path: String,
}

/// The artifact is an image: layers in order, with a kernel.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct ImageSpec {
    #[n(0)]
    pub layers: Vec<Artifact>,
    #[n(1)]
    pub entry: Option<String>,
}

/// The artifact is a program of the host; off unless a node allows it.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct NativeSpec {
    #[n(0)]
    pub command: Vec<String>,
}

#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct Rollout {
    #[n(0)]
    pub max_surge: u32,
    #[n(1)]
    pub max_unavailable: u32,
    #[n(2)]
    pub auto_revert: bool,
}

#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct Health {
    #[n(0)]
    pub probe: HealthProbe,
    #[n(1)]
    pub interval_ms: u64,
    #[n(2)]
    pub failures: u32,
}

#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub enum HealthProbe {
    #[n(0)]
    Http(#[n(0)] String),
    #[n(1)]
    Export(#[n(0)] String),
}

/// An import of this component satisfied by another component's export.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct Call {
    #[n(0)]
    pub import: String,
    #[n(1)]
    pub component: String,
}

/// A part of a spec that this version reads and keeps, but cannot do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("`{field}` is not supported by this version of realm")]
pub struct Unsupported {
    pub field: &'static str,
}

impl ComponentSpec {
    pub fn new(artifact: Artifact) -> Self {
        Self {
            artifact,
            source: None,
            world: None,
            replicas: None,
            placement: Placement::default(),
            limits: Limits::default(),
            grants: Grants::default(),
            restart: RestartPolicy::default(),
            http: None,
            image: None,
            native: None,
            rollout: None,
            health: None,
            secrets: Vec::new(),
            calls: Vec::new(),
        }
    }

    /// Whether its cells have data that does not follow them to another node.
    pub fn writes_named_volume(&self) -> bool {
        self.grants.volumes.iter().any(|volume| {
            volume.mode == VolumeMode::Rw && matches!(volume.source, VolumeSource::Named(_))
        })
    }

    /// The first part of the spec that this version refuses by name.
    pub fn unsupported(&self) -> Result<(), Unsupported> {
        let fields = [
            ("http", self.http.is_some()),
            ("image", self.image.is_some()),
            ("native", self.native.is_some()),
            ("rollout", self.rollout.is_some()),
            ("health", self.health.is_some()),
            ("secrets", !self.secrets.is_empty()),
            ("calls", !self.calls.is_empty()),
            ("world", self.world.is_some()),
            ("placement.spread", self.placement.spread.is_some()),
        ];
        match fields.into_iter().find(|(_, asked)| *asked) {
            Some((field, _)) => Err(Unsupported { field }),
            None => Ok(()),
        }
    }
}

//! What a realm is asked to be: component specs, the payloads of intents, and what nodes report back.
//!
//! Pure: no async, clock, disk or socket. [`ComponentSpec`] is the full type from the
//! start; what a node cannot do yet is refused by name ([`ComponentSpec::unsupported`]).

pub mod gist;
pub mod payload;
pub mod report;
pub mod units;

mod grants;
mod limits;
mod name;
mod outbound;
mod spec;
mod validate;
mod volume;

pub use grants::Grants;
pub use limits::Limits;
pub use name::{ComponentName, NameError, NodeName, Tag};
pub use outbound::{Outbound, OutboundError, OutboundHost, Scheme};
pub use realm_identity as identity;
pub use spec::{
    Call, ComponentSpec, Health, HealthProbe, HttpSpec, ImageSpec, NativeSpec, ParseRestartError,
    Placement, RestartPolicy, Rollout, Unsupported,
};
pub use validate::{
    MAX_CONCURRENCY, MAX_DEADLINE_MS, MAX_EPOCH_MS, MAX_GRANTS, MAX_MEMORY_MB, MAX_NOTE_BYTES,
    MAX_REPLICAS, Problem, Problems,
};
pub use volume::{Volume, VolumeError, VolumeMode, VolumeSource};

//! What makes a component spec wrong, all of it at once.
//!
//! The fold refuses what is wrong, so every bound here is a rule of consensus: changing one needs a
//! new entry version (`docs/decisions/0007-limits-of-a-spec-are-consensus.md`).

use std::{cmp::Ordering, collections::BTreeSet, fmt};

use realm_identity::{Hash, canonical};

use crate::{
    ComponentName, ComponentSpec, Grants, Limits, Outbound, Placement, Volume,
    payload::MAX_PAYLOAD_BYTES, units,
};

/// Most cells of one component.
pub const MAX_REPLICAS: u32 = 1000;
/// Largest memory of a cell, in MiB: 64 GiB.
pub const MAX_MEMORY_MB: u32 = 65_536;
/// Longest preemption slice, in milliseconds.
pub const MAX_EPOCH_MS: u32 = 10_000;
/// Longest deadline of one invocation, in milliseconds: 7 days.
pub const MAX_DEADLINE_MS: u64 = 7 * 24 * 3600 * 1000;
/// Most requests at once in one cell.
pub const MAX_CONCURRENCY: u32 = 10_000;
/// Most rules of outbound access, and most volumes, of one component.
pub const MAX_GRANTS: usize = 64;
/// Longest note (`-m`), in bytes.
pub const MAX_NOTE_BYTES: usize = 1024;
/// Longest single text that is neither an argument nor a value, in bytes.
const MAX_TEXT_BYTES: usize = 2048;

/// One thing that is wrong, and where.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    /// The key as `realm.toml` has it, such as `limits.memory_max_mb`.
    pub field: String,
    pub message: String,
}

/// Everything that is wrong with a spec; never empty.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub struct Problems(pub Vec<Problem>);

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.field, self.message)
    }
}

impl fmt::Display for Problems {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let lines: Vec<String> = self.0.iter().map(Problem::to_string).collect();
        f.write_str(&lines.join("; "))
    }
}

impl ComponentSpec {
    /// The spec's identity: SHA-256 of its canonical encoding. Cells report it, compare-and-set uses it.
    pub fn digest(&self) -> Hash {
        Hash::of(&canonical::encode(self))
    }

    /// Sorts what is a set, so that equal specs have equal bytes. Takes repeated items out, but
    /// leaves repeated keys for [`ComponentSpec::validate`] to name.
    pub fn normalize(&mut self) {
        fn set<T: Ord>(items: &mut Vec<T>) {
            items.sort();
            items.dedup();
        }
        set(&mut self.placement.nodes);
        set(&mut self.placement.tags);
        set(&mut self.secrets);
        set(&mut self.grants.env);
        set(&mut self.grants.vars);
        self.grants
            .allowed_outbound
            .sort_by_cached_key(Outbound::to_string);
        self.grants.allowed_outbound.dedup();
        self.grants.volumes.sort_by(|a, b| a.guest.cmp(&b.guest));
        self.grants.volumes.dedup();
        self.calls.sort_by(|a, b| a.import.cmp(&b.import));
        self.calls.dedup();
    }

    /// Checks everything that can be said of a spec without a node or its artifact.
    ///
    /// What is well formed but not built yet is for [`ComponentSpec::unsupported`].
    pub fn validate(&self) -> Result<(), Problems> {
        let mut found = Findings::default();
        found.unless(self.artifact.size > 0, "file", "is empty");
        if let Some(replicas) = self.replicas {
            found.range("replicas", replicas.into(), 0, MAX_REPLICAS.into());
        }
        found.text("source", self.source.as_deref());
        found.text("world", self.world.as_deref());
        limits(&self.limits, &mut found);
        grants(&self.grants, &mut found);
        placement(&self.placement, &mut found);
        references(self, &mut found);
        let size = canonical::encode(self).len();
        let room = MAX_PAYLOAD_BYTES - MAX_NOTE_BYTES - ENVELOPE_BYTES;
        found.unless(
            size <= room,
            "component",
            &format!(
                "is {size} bytes when encoded, at most {room} fit: pass large values in a volume"
            ),
        );
        if found.0.is_empty() {
            Ok(())
        } else {
            Err(Problems(found.0))
        }
    }
}

/// What a push has around its spec and note.
const ENVELOPE_BYTES: usize = 64;

#[derive(Default)]
struct Findings(Vec<Problem>);

impl Findings {
    fn add(&mut self, field: &str, message: impl fmt::Display) {
        self.0.push(Problem {
            field: field.to_owned(),
            message: message.to_string(),
        });
    }

    fn unless(&mut self, fine: bool, field: &str, message: &str) {
        if !fine {
            self.add(field, message);
        }
    }

    fn range(&mut self, field: &str, value: u64, min: u64, max: u64) {
        if !(min..=max).contains(&value) {
            self.add(field, format_args!("is {value}, must be {min} to {max}"));
        }
    }

    fn text(&mut self, field: &str, text: Option<&str>) {
        let fine = text.is_none_or(|text| (1..=MAX_TEXT_BYTES).contains(&text.len()));
        self.unless(fine, field, "is empty or too long");
    }

    fn name(&mut self, field: &str, name: &str) {
        if let Err(error) = ComponentName::new(name) {
            self.add(field, error);
        }
    }

    /// Each item once, in rising order.
    fn set<'a, T: Ord + fmt::Debug + 'a>(
        &mut self,
        field: &str,
        items: impl IntoIterator<Item = &'a T>,
    ) {
        let mut last: Option<&T> = None;
        for item in items {
            match last.map(|before| before.cmp(item)) {
                Some(Ordering::Equal) => {
                    self.add(field, format_args!("{item:?} is given twice"));
                }
                Some(Ordering::Greater) => {
                    self.add(field, format_args!("{item:?} is out of order"));
                }
                Some(Ordering::Less) | None => {}
            }
            last = Some(item);
        }
    }
}

fn limits(limits: &Limits, found: &mut Findings) {
    found.range(
        "limits.memory_max_mb",
        limits.memory_max_mb.into(),
        1,
        MAX_MEMORY_MB.into(),
    );
    found.range(
        "limits.epoch_ms",
        limits.epoch_ms.into(),
        1,
        MAX_EPOCH_MS.into(),
    );
    if let Some(deadline) = limits.deadline_ms {
        found.range("limits.deadline_ms", deadline, 1, MAX_DEADLINE_MS);
    }
    found.range(
        "limits.max_concurrency",
        limits.max_concurrency.into(),
        1,
        MAX_CONCURRENCY.into(),
    );
    found.unless(
        limits.output_bytes_per_sec > 0,
        "limits.output_bytes_per_sec",
        "is 0, must be at least 1",
    );
}

fn grants(grants: &Grants, found: &mut Findings) {
    for arg in grants.args.iter().filter(|arg| arg.contains('\0')) {
        found.add("args", format_args!("{arg:?} has a zero byte"));
    }
    for (field, pairs) in [("env", &grants.env), ("vars", &grants.vars)] {
        for error in pairs
            .iter()
            .filter_map(|(key, value)| units::check_pair(key, value).err())
        {
            found.add(field, error);
        }
        // Only keys are shown: a value may be a secret.
        found.set(field, pairs.iter().map(|(key, _)| key));
        found.range(field, pairs.len() as u64, 0, units::MAX_PAIRS as u64);
    }
    found.range(
        "allowed_outbound",
        grants.allowed_outbound.len() as u64,
        0,
        MAX_GRANTS as u64,
    );
    let texts: Vec<String> = grants
        .allowed_outbound
        .iter()
        .map(Outbound::to_string)
        .collect();
    for (rule, text) in grants.allowed_outbound.iter().zip(&texts) {
        // A rule that was not read from text may hold what no text says.
        let fine = text.parse().as_ref() == Ok(rule);
        found.unless(fine, "allowed_outbound", &format!("{text:?} is malformed"));
    }
    found.set("allowed_outbound", &texts);
    found.range("volumes", grants.volumes.len() as u64, 0, MAX_GRANTS as u64);
    for volume in &grants.volumes {
        let text = volume.to_string();
        let fine = text.parse::<Volume>().as_ref() == Ok(volume);
        found.unless(fine, "volumes", &format!("{text:?} is malformed"));
    }
    found.set("volumes", grants.volumes.iter().map(|volume| &volume.guest));
}

fn placement(placement: &Placement, found: &mut Findings) {
    found.set("placement.nodes", &placement.nodes);
    found.set("placement.tags", &placement.tags);
    found.text("placement.spread", placement.spread.as_deref());
}

fn references(spec: &ComponentSpec, found: &mut Findings) {
    for secret in &spec.secrets {
        found.name("secrets", secret);
    }
    found.set("secrets", &spec.secrets);
    let mut imports = BTreeSet::new();
    for call in &spec.calls {
        found.name("calls", &call.component);
        found.text("calls", Some(&call.import));
        found.unless(
            imports.insert(&call.import),
            "calls",
            "an import is given twice",
        );
    }
    if let Some(http) = &spec.http {
        found.unless(
            http.path.starts_with('/'),
            "http.path",
            "does not begin with '/'",
        );
        found.text("http.host", http.host.as_deref());
    }
    if let Some(health) = &spec.health {
        found.range("health.interval_ms", health.interval_ms, 1, MAX_DEADLINE_MS);
        found.range("health.failures", health.failures.into(), 1, 1000);
    }
}

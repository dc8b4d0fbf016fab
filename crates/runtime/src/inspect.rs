//! What an artifact is, read from its bytes without compiling them.

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use wasmparser::{Validator, WasmFeatures};

use crate::{PrepareError, prepared};

mod facts;
mod nesting;
mod offer;
mod render;

pub(crate) use facts::Facts;

/// A larger artifact is refused unread.
pub(crate) const SIZE_MAX: usize = 256 * 1024 * 1024;
/// Imports and exports that are listed; more than a real program has.
const ITEMS_MAX: usize = 16 * 1024;
/// Bytes of their names together.
const NAMES_MAX: usize = 1024 * 1024;

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Kind {
    Component,
    /// A core module.
    Module,
}

impl Kind {
    pub(crate) const fn as_str(self) -> &'static str {
        match self {
            Self::Component => "component",
            Self::Module => "module",
        }
    }
}

/// How an artifact is started.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Entry {
    /// `wasi:http/incoming-handler` 0.2.
    HttpP2,
    /// `wasi:http/handler` 0.3.
    HttpP3,
    /// `wasi:cli/run` 0.2.
    CliP2,
    /// `wasi:cli/run` 0.3.
    CliP3,
    /// A function `run` without parameters.
    BareRun,
    /// `_start` of a core module.
    Start,
}

/// The WASI an artifact was built for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub enum Preview {
    #[serde(rename = "0.1")]
    P1,
    #[serde(rename = "0.2")]
    P2,
    #[serde(rename = "0.3")]
    P3,
}

/// A kind of grant that an artifact may want, by its imports.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Need {
    Args,
    Env,
    Clocks,
    Random,
    Filesystem,
    Sockets,
    NameLookup,
    Http,
    Config,
}

/// A named import or export and its type, as WIT would write it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Item {
    pub name: String,
    #[serde(rename = "type")]
    pub ty: String,
}

/// A tool that made the artifact, by its own account.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Producer {
    pub field: String,
    pub name: String,
    pub version: String,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Inspection {
    pub kind: Kind,
    /// None is a library.
    pub entry: Option<Entry>,
    pub previews: Vec<Preview>,
    pub size: u64,
    pub sha256: String,
    #[serde(skip)]
    pub(crate) digest: [u8; 32],
    pub imports: Vec<Item>,
    pub exports: Vec<Item>,
    pub needs: Vec<Need>,
    pub producers: Vec<Producer>,
    /// Imports that this version of realm does not offer.
    pub missing: Vec<String>,
    /// Why this version of realm does not run it; None for what it runs, and for a library.
    pub refused: Option<String>,
    /// Whether it shares a memory between threads.
    #[serde(skip)]
    pub(crate) threads: bool,
}

#[derive(Debug, thiserror::Error, Serialize, Deserialize)]
pub enum InspectError {
    #[error("this is not WebAssembly: it begins with {0}")]
    NotWasm(String),
    #[error("this is WebAssembly text; convert it with `wasm-tools parse`")]
    Text,
    #[error("the file is empty")]
    Empty,
    #[error("{size} bytes is too large: at most {SIZE_MAX}")]
    TooLarge { size: usize },
    #[error("the file ends too early: it was truncated")]
    Truncated,
    #[error("invalid WebAssembly: {message} (at byte {offset})")]
    Invalid { message: String, offset: u64 },
    #[error(
        "more than WebAssembly allows: {message} (at byte {offset}); build the guest with less"
    )]
    Limit { message: String, offset: u64 },
    #[error(
        "{imports} imports and {exports} exports with {names} bytes of names, at least: at most {ITEMS_MAX} of each and {NAMES_MAX} bytes are taken"
    )]
    TooManyItems {
        imports: usize,
        exports: usize,
        names: usize,
    },
}

impl Inspection {
    pub(crate) fn new(facts: Facts, digest: &[u8; 32], size: u64) -> Self {
        let needs = |item: &Item| offer::needs(facts.kind, &item.name);
        let missing = facts.imports.iter();
        let missing = missing.filter(|item| !offer::offers(facts.kind, item));
        let mut inspection = Self {
            entry: offer::entry(facts.kind, &facts.exports),
            previews: offer::previews(&facts.imports, &facts.exports),
            size,
            sha256: hex::encode(digest),
            digest: *digest,
            needs: BTreeSet::from_iter(facts.imports.iter().flat_map(needs).copied())
                .into_iter()
                .collect(),
            missing: missing.map(|item| item.name.clone()).collect(),
            refused: None,
            threads: facts.threads,
            kind: facts.kind,
            imports: facts.imports,
            exports: facts.exports,
            producers: facts.producers,
        };
        inspection.refused = inspection.check().err().map(|error| error.to_string());
        inspection
    }

    pub fn is_library(&self) -> bool {
        self.entry.is_none()
    }

    /// Whether this version of realm could run it, as far as that is known before compiling. A
    /// library can: it is not run.
    pub fn check(&self) -> Result<(), PrepareError> {
        prepared::check(self)
    }
}

/// Validates and describes, right here. Time and memory grow with the input: an agent lets a child do it.
pub fn inspect(bytes: &[u8]) -> Result<Inspection, InspectError> {
    let facts = facts(bytes)?;
    let digest = Sha256::digest(bytes).into();
    Ok(Inspection::new(facts, &digest, bytes.len() as u64))
}

/// What the bytes themselves say.
pub(crate) fn facts(bytes: &[u8]) -> Result<Facts, InspectError> {
    check_head(bytes)?;
    nesting::check(bytes)?;
    let types = Validator::new_with_features(features())
        .validate_all(bytes)
        .map_err(|error| invalid(&error))?;
    Facts::read(bytes, &types)
}

/// What the engines accept: WebAssembly 3.0 and components with async.
fn features() -> WasmFeatures {
    WasmFeatures::default() | WasmFeatures::COMPONENT_MODEL | WasmFeatures::CM_ASYNC
}

/// What can be told at a glance.
pub(crate) fn check_head(bytes: &[u8]) -> Result<(), InspectError> {
    const MAGIC: &[u8] = b"\0asm";
    if bytes.is_empty() {
        return Err(InspectError::Empty);
    }
    if bytes.len() > SIZE_MAX {
        return Err(InspectError::TooLarge { size: bytes.len() });
    }
    if bytes.starts_with(MAGIC) {
        return if bytes.len() < 8 {
            Err(InspectError::Truncated)
        } else {
            Ok(())
        };
    }
    let text = bytes.trim_ascii_start();
    if [&b"(module"[..], b"(component", b";;", b"(;"]
        .iter()
        .any(|start| text.starts_with(start))
    {
        return Err(InspectError::Text);
    }
    Err(InspectError::NotWasm(
        String::from_utf8_lossy(&bytes[..bytes.len().min(8)])
            .escape_debug()
            .to_string(),
    ))
}

fn invalid(error: &wasmparser::BinaryReaderError) -> InspectError {
    let message = error.message();
    if message.contains("unexpected end") || message.contains("unexpected EOF") {
        return InspectError::Truncated;
    }
    let (message, offset) = (message.to_owned(), error.offset() as u64);
    // What the validator says when one of its own limits is met.
    const LIMITS: &[&str] = &[
        "exceed",
        "too many",
        "too deep",
        "implementation limit",
        "must be at most",
        "section is too large",
    ];
    if LIMITS.iter().any(|words| message.contains(words)) {
        InspectError::Limit { message, offset }
    } else {
        InspectError::Invalid { message, offset }
    }
}

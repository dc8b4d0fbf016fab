//! What an artifact is, read from its bytes without compiling them.

use std::collections::BTreeSet;

use serde::Serialize;
use sha2::{Digest, Sha256};
use wasmparser::{Encoding, Parser, Payload, Validator, WasmFeatures, types::Types};

mod nesting;
mod offer;
mod render;

use render::Renderer;

/// A larger artifact is refused unread.
pub(crate) const SIZE_MAX: usize = 256 * 1024 * 1024;
/// Imports and exports that are listed; more than a real program has.
const ITEMS_MAX: usize = 4096;
const PRODUCERS_MAX: usize = 64;

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
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
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Item {
    pub name: String,
    #[serde(rename = "type")]
    pub ty: String,
}

/// A tool that made the artifact, by its own account.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
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
}

#[derive(Debug, thiserror::Error)]
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
    #[error("more than WebAssembly allows: {message} (at byte {offset})")]
    Limit { message: String, offset: u64 },
    #[error("more than {ITEMS_MAX} imports or exports")]
    TooManyItems,
}

impl Inspection {
    pub fn is_library(&self) -> bool {
        self.entry.is_none()
    }

    /// Imports that this version of realm does not offer.
    pub fn missing(&self) -> impl Iterator<Item = String> + '_ {
        self.imports
            .iter()
            .filter(|item| !offer::offers(self.kind, item))
            .map(|item| item.name.clone())
    }
}

/// Validates and describes. Time and memory are bounded by the size of the input.
pub fn inspect(bytes: &[u8]) -> Result<Inspection, InspectError> {
    check_head(bytes)?;
    nesting::check(bytes)?;
    let types = Validator::new_with_features(features())
        .validate_all(bytes)
        .map_err(|error| invalid(&error))?;
    let scan = Scan::run(bytes, &types)?;
    let digest: [u8; 32] = Sha256::digest(bytes).into();
    Ok(Inspection {
        kind: scan.kind,
        entry: offer::entry(scan.kind, &scan.exports),
        previews: offer::previews(&scan.imports, &scan.exports),
        size: bytes.len() as u64,
        sha256: hex::encode(digest),
        digest,
        needs: scan
            .imports
            .iter()
            .flat_map(|item| offer::needs(scan.kind, &item.name))
            .copied()
            .collect::<BTreeSet<_>>()
            .into_iter()
            .collect(),
        imports: scan.imports,
        exports: scan.exports,
        producers: scan.producers,
    })
}

/// What the engines accept: WebAssembly 3.0 and components with async.
fn features() -> WasmFeatures {
    WasmFeatures::default() | WasmFeatures::COMPONENT_MODEL | WasmFeatures::CM_ASYNC
}

fn check_head(bytes: &[u8]) -> Result<(), InspectError> {
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

struct Scan {
    kind: Kind,
    imports: Vec<Item>,
    exports: Vec<Item>,
    producers: Vec<Producer>,
}

impl Scan {
    /// Reads the outermost module or component; nested ones are its own affair.
    fn run(bytes: &[u8], types: &Types) -> Result<Self, InspectError> {
        let mut scan = Self {
            kind: Kind::Module,
            imports: Vec::new(),
            exports: Vec::new(),
            producers: Vec::new(),
        };
        let mut depth = 0u32;
        for payload in Parser::new(0).parse_all(bytes) {
            let payload = payload.map_err(|error| invalid(&error))?;
            match &payload {
                Payload::Version { encoding, .. } => {
                    depth += 1;
                    if depth == 1 && *encoding == Encoding::Component {
                        scan.kind = Kind::Component;
                    }
                }
                Payload::End(_) => depth = depth.saturating_sub(1),
                _ if depth == 1 => scan.take(payload, types).map_err(|error| invalid(&error))?,
                _ => {}
            }
            if scan.imports.len() > ITEMS_MAX || scan.exports.len() > ITEMS_MAX {
                return Err(InspectError::TooManyItems);
            }
        }
        Ok(scan)
    }

    fn take(
        &mut self,
        payload: Payload<'_>,
        types: &Types,
    ) -> Result<(), wasmparser::BinaryReaderError> {
        let renderer = Renderer::new(types);
        match payload {
            Payload::ImportSection(section) => {
                for import in section.into_imports() {
                    let import = import?;
                    let name = format!("{}/{}", import.module, import.name);
                    self.imports.push(Item {
                        name,
                        ty: renderer.core(types.as_ref().entity_type_from_import(&import)),
                    });
                }
            }
            Payload::ExportSection(section) => {
                for export in section {
                    let export = export?;
                    let ty = renderer.core(types.as_ref().entity_type_from_export(&export));
                    self.exports.push(Item {
                        name: export.name.to_owned(),
                        ty,
                    });
                }
            }
            Payload::ComponentImportSection(section) => {
                for import in section {
                    let name = import?.name.name;
                    let item = types.component_item_for_import(name);
                    self.imports.push(Item {
                        name: name.to_owned(),
                        ty: renderer.item(item),
                    });
                }
            }
            Payload::ComponentExportSection(section) => {
                for export in section {
                    let name = export?.name.name;
                    let item = types.component_item_for_export(name);
                    self.exports.push(Item {
                        name: name.to_owned(),
                        ty: renderer.item(item),
                    });
                }
            }
            Payload::CustomSection(section) if section.name() == "producers" => {
                self.take_producers(section.data())
            }
            _ => {}
        }
        Ok(())
    }

    fn take_producers(&mut self, data: &[u8]) {
        // Custom sections may hold anything; what cannot be read is not said.
        let Ok(section) =
            wasmparser::ProducersSectionReader::new(wasmparser::BinaryReader::new(data, 0))
        else {
            return;
        };
        for field in section.into_iter().flatten() {
            for value in field.values.into_iter().flatten() {
                if self.producers.len() < PRODUCERS_MAX {
                    self.producers.push(Producer {
                        field: field.name.to_owned(),
                        name: value.name.to_owned(),
                        version: value.version.to_owned(),
                    });
                }
            }
        }
    }
}

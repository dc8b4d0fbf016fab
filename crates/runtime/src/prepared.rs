//! An artifact that is ready to start: checked, compiled, linked.

use std::sync::Arc;

use wasmtime::{
    Engine, InstancePre, Module,
    component::{Component, InstancePre as ComponentPre},
};
use wasmtime_wasi::{p2::bindings::CommandPre as CommandP2, p3::bindings::CommandPre as CommandP3};

use crate::{
    CompileError, Entry, Flavour, InspectError, Inspection, LimitHit,
    cache::{Compiled, InUse, Loaded},
    ending,
    guest::CellState,
    inspect::Need,
    linker::Linked,
};

/// Cheap to clone; every cell of one version shares the code and the resolved imports.
#[derive(Debug, Clone)]
pub struct Prepared(pub(crate) Arc<Inner>);

#[derive(Debug)]
pub(crate) struct Inner {
    pub(crate) inspection: Inspection,
    pub(crate) flavour: Flavour,
    pub(crate) kind: PreparedKind,
    /// None for a library.
    pub(crate) program: Option<Ready>,
}

/// What a cell is started from.
#[derive(Debug, Clone)]
pub(crate) struct Ready {
    pub(crate) engine: Engine,
    pub(crate) program: Program,
    /// Keeps the compiled code in the cache for as long as anything runs it.
    pub(crate) _in_use: Arc<InUse>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PreparedKind {
    /// Has an entry point and can be started.
    Program,
    /// Has none: these are its exports.
    Library { exports: Vec<String> },
}

/// Why an artifact cannot run here.
#[derive(Debug, thiserror::Error)]
pub enum PrepareError {
    #[error(transparent)]
    Inspect(#[from] InspectError),
    /// Everything that is missing, not only the first.
    #[error("this node does not offer what the artifact wants: {}", .missing.join("; "))]
    Missing { missing: Vec<String> },
    #[error("{what} is not supported by this version of realm")]
    NotYet { what: &'static str },
    #[error(transparent)]
    Compile(#[from] CompileError),
    /// It asks for more than any cell may have.
    #[error("{0}")]
    Limit(LimitHit),
    #[error("the compiled artifact could not be loaded")]
    Load(#[source] anyhow::Error),
    #[error("the artifact's imports do not fit what this node offers")]
    Link(#[source] anyhow::Error),
}

impl PrepareError {
    /// The engine refuses code that it has no room for when it loads it.
    pub(crate) fn load(error: anyhow::Error) -> Self {
        match ending::fixed_limit(&format!("{error:#}")) {
            Some((limit, value)) => Self::Limit(LimitHit::new(limit, value)),
            None => Self::Load(error),
        }
    }

    /// Whether the same bytes may succeed later, so that trying again makes sense.
    pub const fn is_transient(&self) -> bool {
        match self {
            Self::Compile(error) => error.is_transient(),
            _ => false,
        }
    }
}

impl Prepared {
    pub fn inspection(&self) -> &Inspection {
        &self.0.inspection
    }

    pub fn kind(&self) -> &PreparedKind {
        &self.0.kind
    }

    pub fn flavour(&self) -> Flavour {
        self.0.flavour
    }
}

/// Code with its imports resolved, by how it is called.
#[derive(Clone)]
pub(crate) enum Program {
    Preview1(InstancePre<CellState>),
    CliP2(CommandP2<CellState>),
    CliP3(CommandP3<CellState>),
    Bare(ComponentPre<CellState>),
}

impl std::fmt::Debug for Program {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Preview1(_) => "Preview1",
            Self::CliP2(_) => "CliP2",
            Self::CliP3(_) => "CliP3",
            Self::Bare(_) => "Bare",
        })
    }
}

/// What can be said before compiling. A library needs nothing: it is not run.
pub(crate) fn check(inspection: &Inspection) -> Result<(), PrepareError> {
    match inspection.entry {
        Some(Entry::HttpP2 | Entry::HttpP3) => {
            return Err(PrepareError::NotYet {
                what: "serving wasi:http",
            });
        }
        None => return Ok(()),
        Some(_) => {}
    }
    if !inspection.missing.is_empty() {
        let missing = inspection.missing.clone();
        return Err(PrepareError::Missing { missing });
    }
    if inspection.threads {
        return Err(PrepareError::NotYet {
            what: "a memory that is shared between threads (build without threads)",
        });
    }
    if inspection.needs.contains(&Need::Http) {
        return Err(PrepareError::NotYet {
            what: "wasi:http for outgoing requests",
        });
    }
    Ok(())
}

/// Resolves the imports of freshly loaded code.
pub(crate) fn link(linked: &Linked, entry: Entry, loaded: Loaded) -> Result<Ready, PrepareError> {
    let program = match loaded.code {
        Compiled::Module(module) => link_module(linked, &module),
        Compiled::Component(component) => link_component(linked, entry, &component),
    };
    Ok(Ready {
        engine: linked.engine.clone(),
        program: program.map_err(|error| PrepareError::Link(error.into()))?,
        _in_use: Arc::new(loaded.in_use),
    })
}

fn link_module(linked: &Linked, module: &Module) -> wasmtime::Result<Program> {
    Ok(Program::Preview1(
        linked.modules()?.instantiate_pre(module)?,
    ))
}

fn link_component(
    linked: &Linked,
    entry: Entry,
    component: &Component,
) -> wasmtime::Result<Program> {
    let pre = linked.components()?.instantiate_pre(component)?;
    Ok(match entry {
        Entry::CliP2 => Program::CliP2(CommandP2::new(pre)?),
        Entry::CliP3 => Program::CliP3(CommandP3::new(pre)?),
        _ => Program::Bare(pre),
    })
}

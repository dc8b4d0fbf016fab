//! Reads imports, exports and producers of the outermost module or component.

use serde::{Deserialize, Serialize};
use wasmparser::{Encoding, Parser, Payload, types::Types};

use super::{ITEMS_MAX, InspectError, Item, Kind, NAMES_MAX, Producer, invalid, render::Renderer};

const PRODUCERS_MAX: usize = 64;
/// Characters of each word about a producer.
const PRODUCER_CHARS: usize = 256;

/// Read from the bytes alone; what this version makes of them is [`super::Inspection`].
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Facts {
    pub(crate) kind: Kind,
    pub(crate) imports: Vec<Item>,
    pub(crate) exports: Vec<Item>,
    pub(crate) producers: Vec<Producer>,
    /// Whether a memory is shared between threads, at any depth.
    pub(crate) threads: bool,
}

impl Facts {
    /// Reads the outermost module or component; nested ones are its own affair.
    pub(super) fn read(bytes: &[u8], types: &Types) -> Result<Self, InspectError> {
        let mut facts = Self {
            kind: Kind::Module,
            imports: Vec::new(),
            exports: Vec::new(),
            producers: Vec::new(),
            threads: false,
        };
        let mut depth = 0u32;
        for payload in Parser::new(0).parse_all(bytes) {
            let payload = payload.map_err(|error| invalid(&error))?;
            match &payload {
                Payload::Version { encoding, .. } => {
                    depth += 1;
                    if depth == 1 && *encoding == Encoding::Component {
                        facts.kind = Kind::Component;
                    }
                }
                Payload::MemorySection(section) => {
                    for memory in section.clone() {
                        facts.threads |= memory.map_err(|error| invalid(&error))?.shared;
                    }
                }
                Payload::End(_) => depth = depth.saturating_sub(1),
                _ if depth == 1 => facts
                    .take(payload, types)
                    .map_err(|error| invalid(&error))?,
                _ => {}
            }
            facts.check_bounds()?;
        }
        Ok(facts)
    }

    fn check_bounds(&self) -> Result<(), InspectError> {
        let items = || self.imports.iter().chain(&self.exports);
        let names: usize = items().map(|item| item.name.len()).sum();
        if self.imports.len() > ITEMS_MAX || self.exports.len() > ITEMS_MAX || names > NAMES_MAX {
            return Err(InspectError::TooManyItems {
                imports: self.imports.len(),
                exports: self.exports.len(),
                names,
            });
        }
        Ok(())
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
                    if let wasmparser::TypeRef::Memory(memory) = &import.ty {
                        self.threads |= memory.shared;
                    }
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
                        field: short(field.name),
                        name: short(value.name),
                        version: short(value.version),
                    });
                }
            }
        }
    }
}

fn short(text: &str) -> String {
    text.chars().take(PRODUCER_CHARS).collect()
}

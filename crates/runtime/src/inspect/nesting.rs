//! How deep an artifact is nested, before anything reads it that uses its stack for each level.

use std::ops::Range;

use wasmparser::{
    BinaryReader, BinaryReaderError, ComponentAlias, ComponentExternName, ComponentImport,
    ComponentType, ComponentTypeRef, CoreType, Parser, Payload,
};

use super::{InspectError, features, invalid};

/// Components in components, and types in types. The validator has the same limit, but reads a whole type before
/// it looks, by calling itself.
const DEPTH_MAX: usize = 100;

const COMPONENT_TYPE: u8 = 0x41;
const INSTANCE_TYPE: u8 = 0x42;

pub(super) fn check(bytes: &[u8]) -> Result<(), InspectError> {
    let mut depth = 0;
    let mut parser = Parser::new(0);
    parser.set_features(features());
    for payload in parser.parse_all(bytes) {
        match payload.map_err(|error| invalid(&error))? {
            Payload::Version { range, .. } => {
                depth += 1;
                if depth > DEPTH_MAX {
                    return Err(too_deep(range.start));
                }
            }
            Payload::End(_) => depth -= 1,
            Payload::ComponentTypeSection(section) => types(bytes, section.range())?,
            _ => {}
        }
    }
    Ok(())
}

fn too_deep(offset: usize) -> InspectError {
    InspectError::Limit {
        message: format!("nested too deep, at most {DEPTH_MAX} levels"),
        offset: offset as u64,
    }
}

/// Walks a type section with a stack of its own. Errors of form are left to the validator.
fn types(bytes: &[u8], range: Range<usize>) -> Result<(), InspectError> {
    let Some(section) = bytes.get(range.clone()) else {
        return Ok(());
    };
    let mut reader = BinaryReader::new_features(section, range.start, features());
    let walked = walk(&mut reader);
    match walked {
        Ok(true) | Err(_) => Ok(()),
        Ok(false) => Err(too_deep(reader.original_position())),
    }
}

/// False if it is too deep.
fn walk(reader: &mut BinaryReader<'_>) -> Result<bool, BinaryReaderError> {
    // What is left of each list that is open: first the section's types, then declarations.
    let mut open = vec![reader.read_var_u32()?];
    while let Some(left) = open.last_mut() {
        if *left == 0 {
            open.pop();
            continue;
        }
        *left -= 1;
        if open.len() > 1 {
            match declaration(reader)? {
                Declaration::Type => {}
                Declaration::Other => continue,
                // The validator says what is wrong with it, and reads no further either.
                Declaration::Unknown => return Ok(true),
            }
        }
        match peek(reader)? {
            COMPONENT_TYPE | INSTANCE_TYPE => {
                reader.read_u8()?;
                open.push(reader.read_var_u32()?);
                if open.len() > DEPTH_MAX + 1 {
                    return Ok(false);
                }
            }
            // It holds no other declarations, so reading it calls nothing again.
            _ => {
                reader.read::<ComponentType<'_>>()?;
            }
        }
    }
    Ok(true)
}

enum Declaration {
    /// Its head was read; the type follows.
    Type,
    Other,
    Unknown,
}

fn declaration(reader: &mut BinaryReader<'_>) -> Result<Declaration, BinaryReaderError> {
    match reader.read_u8()? {
        0x00 => {
            reader.read::<CoreType<'_>>()?;
        }
        0x01 => return Ok(Declaration::Type),
        0x02 => {
            reader.read::<ComponentAlias<'_>>()?;
        }
        0x03 => {
            reader.read::<ComponentImport<'_>>()?;
        }
        0x04 => {
            reader.read::<ComponentExternName<'_>>()?;
            reader.read::<ComponentTypeRef>()?;
        }
        _ => return Ok(Declaration::Unknown),
    }
    Ok(Declaration::Other)
}

fn peek(reader: &BinaryReader<'_>) -> Result<u8, BinaryReaderError> {
    reader.clone().read_u8()
}

//! Types as text, in the manner of WIT. Bounded: types may be nested and repeated at will.

use wasmparser::{
    component_types::{
        ComponentDefinedType, ComponentDefinedTypeId, ComponentEntityType, ComponentFuncTypeId,
        ComponentInstanceTypeId, ComponentItem, ComponentValType,
    },
    types::{EntityType, Types},
};

/// Deeper types are shown as "...".
const DEPTH_MAX: u32 = 6;
/// What one item's type may take; the rest is "...".
const TEXT_MAX: usize = 2048;

pub(super) struct Renderer<'a> {
    types: &'a Types,
}

impl<'a> Renderer<'a> {
    pub(super) const fn new(types: &'a Types) -> Self {
        Self { types }
    }

    pub(super) fn core(&self, ty: Option<EntityType>) -> String {
        let Some(ty) = ty else {
            return "unknown".into();
        };
        match ty {
            EntityType::Func(id) | EntityType::FuncExact(id) => {
                let func = self.types[id].unwrap_func();
                let list = |types: &[wasmparser::ValType]| {
                    types
                        .iter()
                        .map(ToString::to_string)
                        .collect::<Vec<_>>()
                        .join(", ")
                };
                let results = list(func.results());
                let arrow = if results.is_empty() {
                    String::new()
                } else {
                    format!(" -> {results}")
                };
                cut(format!("func({}){arrow}", list(func.params())))
            }
            EntityType::Table(table) => cut(format!(
                "table {} {}",
                bounds(table.initial, table.maximum),
                table.element_type
            )),
            EntityType::Memory(memory) => {
                let wide = if memory.memory64 { " i64" } else { "" };
                let shared = if memory.shared { " shared" } else { "" };
                let pages = bounds(memory.initial, memory.maximum);
                format!("memory{wide} {pages} pages{shared}")
            }
            EntityType::Global(global) => format!("global {}", global.content_type),
            EntityType::Tag(_) => "tag".into(),
        }
    }

    pub(super) fn item(&self, item: Option<&ComponentItem>) -> String {
        let mut text = String::new();
        match item {
            Some(item) => self.entity(&mut text, &item.ty, 0),
            None => text.push_str("unknown"),
        }
        cut(text)
    }

    fn entity(&self, out: &mut String, ty: &ComponentEntityType, depth: u32) {
        if depth > DEPTH_MAX || out.len() > TEXT_MAX {
            return out.push_str("...");
        }
        match ty {
            ComponentEntityType::Func(id) => self.func(out, *id, depth),
            ComponentEntityType::Instance(id) => self.instance(out, *id, depth),
            ComponentEntityType::Value(value) => self.value(out, value, depth),
            ComponentEntityType::Type { .. } => out.push_str("type"),
            ComponentEntityType::Module(_) => out.push_str("module"),
            ComponentEntityType::Component(_) => out.push_str("component"),
        }
    }

    /// Functions of an interface; its types go without saying.
    fn instance(&self, out: &mut String, id: ComponentInstanceTypeId, depth: u32) {
        out.push_str("interface {");
        for (name, item) in &self.types[id].exports {
            if !matches!(item.ty, ComponentEntityType::Func(_)) {
                continue;
            }
            if out.len() > TEXT_MAX {
                out.push_str(" ...");
                break;
            }
            out.push(' ');
            out.push_str(name);
            out.push_str(": ");
            self.entity(out, &item.ty, depth + 1);
            out.push(';');
        }
        out.push_str(" }");
    }

    fn func(&self, out: &mut String, id: ComponentFuncTypeId, depth: u32) {
        let func = &self.types[id];
        out.push_str(if func.async_ { "async func(" } else { "func(" });
        for (index, (name, ty)) in func.params.iter().enumerate() {
            if index > 0 {
                out.push_str(", ");
            }
            if out.len() > TEXT_MAX {
                return out.push_str("...");
            }
            out.push_str(name);
            out.push_str(": ");
            self.value(out, ty, depth + 1);
        }
        out.push(')');
        if let Some(result) = &func.result {
            out.push_str(" -> ");
            self.value(out, result, depth + 1);
        }
    }

    fn value(&self, out: &mut String, ty: &ComponentValType, depth: u32) {
        if depth > DEPTH_MAX || out.len() > TEXT_MAX {
            return out.push_str("...");
        }
        match ty {
            ComponentValType::Primitive(primitive) => out.push_str(&primitive.to_string()),
            ComponentValType::Type(id) => self.defined(out, *id, depth),
        }
    }

    fn defined(&self, out: &mut String, id: ComponentDefinedTypeId, depth: u32) {
        let one = |out: &mut String, name: &str, ty: &ComponentValType| {
            out.push_str(name);
            out.push('<');
            self.value(out, ty, depth + 1);
            out.push('>');
        };
        match &self.types[id] {
            ComponentDefinedType::Primitive(primitive) => out.push_str(&primitive.to_string()),
            ComponentDefinedType::List { element, .. } => one(out, "list", element),
            ComponentDefinedType::Option { ty, .. } => one(out, "option", ty),
            ComponentDefinedType::Tuple(tuple) => {
                out.push_str("tuple<");
                for (index, ty) in tuple.types.iter().enumerate() {
                    if index > 0 {
                        out.push_str(", ");
                    }
                    if out.len() > TEXT_MAX {
                        return out.push_str("...");
                    }
                    self.value(out, ty, depth + 1);
                }
                out.push('>');
            }
            ComponentDefinedType::Result { ok, err, .. } => {
                out.push_str("result");
                if ok.is_some() || err.is_some() {
                    out.push('<');
                    self.or_nothing(out, ok.as_ref(), depth);
                    if err.is_some() {
                        out.push_str(", ");
                        self.or_nothing(out, err.as_ref(), depth);
                    }
                    out.push('>');
                }
            }
            ComponentDefinedType::Future { ty: Some(ty), .. } => one(out, "future", ty),
            ComponentDefinedType::Stream { ty: Some(ty), .. } => one(out, "stream", ty),
            ComponentDefinedType::Record(_) => out.push_str("record"),
            ComponentDefinedType::Variant(_) => out.push_str("variant"),
            ComponentDefinedType::Enum(_) => out.push_str("enum"),
            ComponentDefinedType::Flags(_) => out.push_str("flags"),
            ComponentDefinedType::Own(_) => out.push_str("resource"),
            ComponentDefinedType::Borrow(_) => out.push_str("borrow<resource>"),
            ComponentDefinedType::Future { ty: None, .. } => out.push_str("future"),
            ComponentDefinedType::Stream { ty: None, .. } => out.push_str("stream"),
            _ => out.push_str("..."),
        }
    }

    fn or_nothing(&self, out: &mut String, ty: Option<&ComponentValType>, depth: u32) {
        match ty {
            Some(ty) => self.value(out, ty, depth + 1),
            None => out.push('_'),
        }
    }
}

fn cut(mut text: String) -> String {
    if text.len() > TEXT_MAX {
        let end = (0..=TEXT_MAX)
            .rev()
            .find(|at| text.is_char_boundary(*at))
            .unwrap_or(0);
        text.truncate(end);
        text.push_str("...");
    }
    text
}

/// `2`, or `2..16`, or `2..` where nothing is said of the most.
fn bounds(least: u64, most: Option<u64>) -> String {
    match most {
        Some(most) if most == least => least.to_string(),
        Some(most) => format!("{least}..{most}"),
        None => format!("{least}.."),
    }
}

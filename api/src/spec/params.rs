//! The parameters that a workflow declares.

use std::collections::BTreeMap;

use quorate_model::workflow::{Param, ParamKind};
use quorate_model::{Json, Name};

use super::document::{Node, Scalar, Value};
use super::report::Path;
use super::section::{Item, Reader, Schema};
use super::{Code, Diagnostic, Severity, name};

/// Parameters of one workflow.
const PARAMS_MAX: usize = 256;

const PARAM: Schema = Schema {
    what: "a parameter",
    keys: &["type", "default", "description", "required"],
    spellings: &[],
    later: &["enum", "pattern", "min", "max", "secret"],
    hints: &[],
};

const KINDS: [(&str, ParamKind); 6] = [
    ("string", ParamKind::String),
    ("int", ParamKind::Int),
    ("float", ParamKind::Float),
    ("bool", ParamKind::Bool),
    ("list", ParamKind::List),
    ("map", ParamKind::Map),
];

/// The types of other programs, and ours.
const OTHER_KINDS: [(&str, &str); 8] = [
    ("str", "string"),
    ("text", "string"),
    ("integer", "int"),
    ("number", "float"),
    ("boolean", "bool"),
    ("array", "list"),
    ("object", "map"),
    ("dict", "map"),
];

const LATER_KINDS: [&str; 4] = ["date", "datetime", "enum", "secret"];

/// How a type is called in the file.
pub(super) fn kind_name(kind: ParamKind) -> &'static str {
    KINDS.iter().find(|(_, other)| *other == kind).map_or("", |(name, _)| name)
}

/// Whether a value is of a type. A whole number is a float, too.
pub(super) fn is_of_kind(kind: ParamKind, value: &serde_json::Value) -> bool {
    match kind {
        ParamKind::String => value.is_string(),
        ParamKind::Int => value.is_i64() || value.is_u64(),
        ParamKind::Float => value.is_number(),
        ParamKind::Bool => value.is_boolean(),
        ParamKind::List => value.is_array(),
        ParamKind::Map => value.is_object(),
    }
}

/// Reads `params`.
pub(super) fn read<'n>(reader: &mut Reader<'n>, item: Item<'n, '_>) -> BTreeMap<Name, Param> {
    let mut params = BTreeMap::new();
    let entries = reader.entries(item, "a mapping of names to defaults").unwrap_or_default();
    if entries.len() > PARAMS_MAX {
        let message = format!("{} parameters; {PARAMS_MAX} is the most", entries.len());
        reader.bad_value(item, Code::Limit, message);
        return params;
    }
    for (key, node) in entries {
        let path = Path::Key(&item.path, &key.text);
        let name = reader.name(name::param(&key.text), key.place, &path);
        let param = match &node.value {
            Value::Map(_) => declared(reader, node, &path),
            Value::Scalar(scalar) if !scalar.is_null() => default_only(reader, node, &path),
            Value::List(_) => default_only(reader, node, &path),
            Value::Scalar(_) => {
                let message = format!("the parameter `{}` has no default", key.text);
                let help = format!("say `{}: {{type: string, required: true}}`", key.text);
                reader.report.error_with_help(Code::MissingKey, key.place, &path, message, help);
                None
            }
        };
        params.extend(name.zip(param));
    }
    params
}

/// `region: eu`.
fn default_only<'n>(reader: &mut Reader<'n>, node: &'n Node<'n>, path: &Path<'_>) -> Option<Param> {
    let item = Item { node, key: None, path: *path };
    let default = reader.json(item)?;
    let kind = kind_of(&default);
    Some(Param { kind, default: Some(Json::new(&default)), description: String::new() })
}

/// `region: {type: string, default: eu}`.
fn declared<'n>(reader: &mut Reader<'n>, node: &'n Node<'n>, path: &Path<'_>) -> Option<Param> {
    let fields = reader.fields(node, path, &PARAM)?;
    let kind = fields.get("type").map(|item| kind(reader, item));
    let description = fields.get("description").and_then(|item| reader.text(item)).unwrap_or("");
    let required = fields.get("required").map(|item| flag(reader, item));
    let default = fields.get("default");
    let place = node.place;
    let mut refuse = |code, message: &str, help: &str| {
        if !fields.is_refused {
            reader.report.error_with_help(code, place, path, message.to_owned(), help);
        }
    };
    match (&default, required) {
        (Some(_), Some(true)) => {
            refuse(Code::Conflict, "`required` and `default` exclude each other", "drop one");
        }
        (None, Some(false)) => {
            refuse(
                Code::MissingKey,
                "a parameter that is not required needs a `default`",
                "add it",
            );
        }
        (None, _) if kind.is_none() => {
            let help = "add `type: string`, for example";
            refuse(Code::MissingKey, "a parameter needs a `type` or a `default`", help);
        }
        _ => {}
    }
    let default = match default {
        Some(item) => Some(self::default(reader, item, kind)?),
        None => None,
    };
    let kind = kind.flatten().or_else(|| default.as_ref().map(kind_of))?;
    Some(Param {
        kind,
        default: default.as_ref().map(Json::new),
        description: description.to_owned(),
    })
}

fn kind<'n>(reader: &mut Reader<'n>, item: Item<'n, '_>) -> Option<ParamKind> {
    let text = reader.fixed(item)?;
    let ours = OTHER_KINDS.iter().find(|(other, _)| *other == text).map(|(_, ours)| *ours);
    let word = ours.unwrap_or(text);
    if let Some((_, kind)) = KINDS.iter().find(|(name, _)| *name == word) {
        if let Some(ours) = ours {
            let message = format!("`{text}` is read as `{ours}`");
            let found = Diagnostic::new(Severity::Note, Code::OtherSpelling, message);
            reader.report.add(found.at(item.node.place.span, item.path.to_string()));
        }
        return Some(*kind);
    }
    if LATER_KINDS.contains(&text) {
        reader.bad_value(item, Code::NotSupportedYet, format!("not supported yet: {text}"));
        return None;
    }
    let names = KINDS.map(|(name, _)| name);
    let help = match name::nearest(text, names) {
        Some(near) => format!("did you mean `{near}`?"),
        None => format!("known are {}", names.join(", ")),
    };
    let message = format!("{text:?} is no type of a parameter");
    let place = item.node.place;
    reader.report.error_with_help(Code::BadValue, place, &item.path, message, help);
    None
}

fn flag<'n>(reader: &mut Reader<'n>, item: Item<'n, '_>) -> bool {
    let what = "true or false";
    let Some(scalar) = reader.scalar(item, what) else { return false };
    scalar.json().as_bool().unwrap_or_else(|| {
        reader.wrong_type(item, what);
        false
    })
}

/// A default, of the type declared, if one is.
fn default<'n>(
    reader: &mut Reader<'n>,
    item: Item<'n, '_>,
    kind: Option<Option<ParamKind>>,
) -> Option<serde_json::Value> {
    let value = match (&item.node.value, kind) {
        // A declared text is what is written: `1.10` stays `1.10`.
        (Value::Scalar(Scalar { .. }), Some(Some(ParamKind::String))) => reader.fixed(item)?.into(),
        _ => reader.json(item)?,
    };
    match kind {
        Some(None) => None,
        Some(Some(kind)) if !is_of_kind(kind, &value) => {
            let message = format!("the default must be of type {}", kind_name(kind));
            reader.bad_value(item, Code::WrongType, message);
            None
        }
        _ => Some(value),
    }
}

fn kind_of(value: &serde_json::Value) -> ParamKind {
    let fits = |kind: &ParamKind| is_of_kind(*kind, value);
    KINDS.map(|(_, kind)| kind).into_iter().find(fits).unwrap_or(ParamKind::String)
}

impl<'n> Reader<'n> {
    /// A value of any type.
    fn json(&mut self, item: Item<'n, '_>) -> Option<serde_json::Value> {
        match &item.node.value {
            Value::Scalar(scalar) if scalar.is_null() => Some(serde_json::Value::Null),
            Value::Scalar(scalar) => self.fixed(item).map(|_| scalar.json()),
            Value::List(items) => {
                let mut values = Vec::with_capacity(items.len());
                for (index, node) in items.iter().enumerate() {
                    let path = Path::Index(&item.path, index);
                    values.push(self.json(Item { node, key: None, path })?);
                }
                Some(values.into())
            }
            Value::Map(_) => {
                let mut values = serde_json::Map::new();
                for (key, node) in self.entries(item, "a mapping")? {
                    let path = Path::Key(&item.path, &key.text);
                    let value = self.json(Item { node, key: Some(key), path })?;
                    values.insert(key.text.clone().into_owned(), value);
                }
                Some(values.into())
            }
        }
    }
}

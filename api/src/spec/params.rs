//! The parameters that a workflow declares.

use std::cmp::Ordering;
use std::collections::{BTreeMap, BTreeSet};

use quorate_expression::Zone;
use quorate_model::workflow::{Param, ParamKind, Rules};
use quorate_model::{Json, Name};

use super::document::{Node, Scalar, Value};
use super::report::Path;
use super::section::{Fields, Item, Reader, Schema};
use super::template::Role;
use super::value::{KINDS, broken, compare, compile, kind_name, kind_of, of_kind};
use super::{Code, Diagnostic, Severity, default, name};

/// Parameters of one workflow.
const PARAMS_MAX: usize = 256;

/// Values that one parameter may be limited to.
const CHOICES_MAX: usize = 256;

/// Bounds of a length. Beyond, the parameters of a run are too large together.
const LENGTH_MAX: u32 = 256 * 1024;

pub(super) const PARAM: Schema = Schema {
    what: "a parameter",
    keys: &[
        "type",
        "default",
        "description",
        "required",
        "enum",
        "pattern",
        "min",
        "max",
        "min_length",
        "max_length",
    ],
    spellings: &[
        ("values", "enum"),
        ("options", "enum"),
        ("choices", "enum"),
        ("regex", "pattern"),
        ("minimum", "min"),
        ("maximum", "max"),
        ("minLength", "min_length"),
        ("maxLength", "max_length"),
    ],
    later: &["secret"],
    hints: &[],
};

/// The types of other programs, and ours.
const OTHER_KINDS: [(&str, &str); 11] = [
    ("str", "string"),
    ("text", "string"),
    ("integer", "int"),
    ("number", "float"),
    ("boolean", "bool"),
    ("array", "list"),
    ("object", "map"),
    ("dict", "map"),
    ("timestamp", "datetime"),
    ("date-time", "datetime"),
    ("choice", "enum"),
];

/// Not a type of its own: a text that is one of some.
const ENUM: &str = "enum";

const LATER_KINDS: [&str; 1] = ["secret"];

/// The type that is called so in the file.
pub(super) fn kind_named(name: &str) -> Option<ParamKind> {
    KINDS.iter().find(|(known, _)| *known == name).map(|&(_, kind)| kind)
}

/// Reads `params`.
pub(super) fn read<'n>(
    reader: &mut Reader<'n>,
    item: Item<'n, '_>,
    zone: &Zone,
) -> BTreeMap<Name, Param> {
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
            Value::Map(_) => declared(reader, node, &path, zone),
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
    check_circles(reader, item, &params);
    params
}

/// Reports defaults that refer to each other, so that none can be evaluated first.
fn check_circles(reader: &mut Reader<'_>, item: Item<'_, '_>, params: &BTreeMap<Name, Param>) {
    let mut open: BTreeMap<&str, BTreeSet<String>> = BTreeMap::new();
    for (name, param) in params {
        let default = param.default.as_ref().map(Json::value);
        let refers_to = default.map(|default| default::params_of(&default)).unwrap_or_default();
        open.insert(name.as_str(), refers_to);
    }
    loop {
        let free =
            |names: &BTreeSet<String>| !names.iter().any(|name| open.contains_key(name.as_str()));
        let done: Vec<&str> =
            open.iter().filter(|(_, names)| free(names)).map(|(name, _)| *name).collect();
        if done.is_empty() {
            break;
        }
        open.retain(|name, _| !done.contains(name));
    }
    if !open.is_empty() {
        let names: Vec<&str> = open.into_keys().collect();
        let message = format!("defaults that wait for each other: {}", names.join(", "));
        reader.bad_value(item, Code::Cycle, message);
    }
}

/// `region: eu`.
fn default_only<'n>(reader: &mut Reader<'n>, node: &'n Node<'n>, path: &Path<'_>) -> Option<Param> {
    let item = Item { node, key: None, path: *path };
    let default = reader.json(item)?;
    let kind = kind_of(&default);
    let (rules, description) = (Rules::default(), String::new());
    Some(Param { kind, default: Some(Json::new(&default)), rules, description })
}

/// `region: {type: string, default: eu}`.
fn declared<'n>(
    reader: &mut Reader<'n>,
    node: &'n Node<'n>,
    path: &Path<'_>,
    zone: &Zone,
) -> Option<Param> {
    let fields = reader.fields(node, path, &PARAM)?;
    let kind = fields.get("type").map(|item| kind(reader, item, &fields));
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
    let given = default;
    let default = match given {
        Some(item) => Some(self::default(reader, item, kind, zone)?),
        None => None,
    };
    let kind = kind.flatten().or_else(|| default.as_ref().map(kind_of))?;
    let rules = rules(reader, &fields, kind, zone);
    if let (Some(item), Some(value)) = (given, default.as_ref())
        && !default::is_template(value)
        && let Some(rule) = broken(&rules, kind, value, zone)
    {
        reader.bad_value(item, Code::BadValue, format!("the default must {rule}"));
    }
    let (default, description) = (default.as_ref().map(Json::new), description.to_owned());
    Some(Param { kind, default, rules, description })
}

fn kind<'n>(
    reader: &mut Reader<'n>,
    item: Item<'n, '_>,
    fields: &Fields<'n, '_>,
) -> Option<ParamKind> {
    let text = reader.fixed(item)?;
    let ours = OTHER_KINDS.iter().find(|(other, _)| *other == text).map(|(_, ours)| *ours);
    let word = ours.unwrap_or(text);
    if word == ENUM {
        if fields.get("enum").is_some() {
            return Some(ParamKind::String);
        }
        let message = "a parameter of type enum needs its values".to_owned();
        let help = "add them: `enum: [eu, us]`";
        reader.report.error_with_help(Code::MissingKey, item.node.place, &item.path, message, help);
        return None;
    }
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

/// A default, of the type declared, if one is. Of a template the type shows later.
fn default<'n>(
    reader: &mut Reader<'n>,
    item: Item<'n, '_>,
    kind: Option<Option<ParamKind>>,
    zone: &Zone,
) -> Option<serde_json::Value> {
    let value = match (&item.node.value, kind) {
        // A declared text is what is written: `1.10` stays `1.10`.
        (Value::Scalar(Scalar { .. }), Some(Some(ParamKind::String))) => {
            let text = reader.text(item)?;
            reader.template(item, text, Role::Default);
            text.into()
        }
        _ => reader.json(item)?,
    };
    match kind {
        Some(None) => None,
        Some(Some(kind)) if !default::is_template(&value) => {
            let read = of_kind(kind, &value, zone);
            if read.is_none() {
                let message = format!("the default must be of type {}", kind_name(kind));
                reader.bad_value(item, Code::WrongType, message);
            }
            read
        }
        Some(Some(_)) | None => Some(value),
    }
}

/// The rules beyond the type.
fn rules<'n>(
    reader: &mut Reader<'n>,
    fields: &Fields<'n, '_>,
    kind: ParamKind,
    zone: &Zone,
) -> Rules {
    let mut rules = Rules::default();
    let is_text = kind == ParamKind::String;
    let is_tree = matches!(kind, ParamKind::List | ParamKind::Map);
    let is_ordered = !is_text && !is_tree && kind != ParamKind::Bool;
    for (key, is_fit, of) in [
        ("enum", !is_tree && kind != ParamKind::Bool, "texts, numbers and times"),
        ("pattern", is_text, "texts"),
        ("min", is_ordered, "numbers and times"),
        ("max", is_ordered, "numbers and times"),
        ("min_length", is_text || is_tree, "texts, lists and maps"),
        ("max_length", is_text || is_tree, "texts, lists and maps"),
    ] {
        let Some(item) = fields.get(key) else { continue };
        if !is_fit {
            let message = format!("`{key}` is for {of}, not for type {}", kind_name(kind));
            reader.bad_value(item, Code::Conflict, message);
            continue;
        }
        match key {
            "enum" => rules.choices = choices(reader, item, kind, zone),
            "pattern" => rules.pattern = pattern(reader, item),
            "min" => rules.min = limit(reader, item, kind, zone),
            "max" => rules.max = limit(reader, item, kind, zone),
            "min_length" => rules.length_min = reader.whole(item, LENGTH_MAX),
            _ => rules.length_max = reader.whole(item, LENGTH_MAX),
        }
    }
    let ends = rules.min.as_ref().zip(rules.max.as_ref());
    let is_crossed = ends.is_some_and(|(min, max)| {
        compare(kind, &min.value(), &max.value(), zone) == Some(Ordering::Greater)
    });
    let lengths = rules.length_min.zip(rules.length_max);
    if is_crossed || lengths.is_some_and(|(min, max)| min > max) {
        let key = if is_crossed { "max" } else { "max_length" };
        if let Some(item) = fields.get(key) {
            let message = "no value is between these limits".to_owned();
            reader.bad_value(item, Code::Conflict, message);
        }
    }
    rules
}

fn choices<'n>(
    reader: &mut Reader<'n>,
    item: Item<'n, '_>,
    kind: ParamKind,
    zone: &Zone,
) -> Vec<Json> {
    let nodes = reader.list(item, "a list of values").unwrap_or_default();
    if nodes.is_empty() || nodes.len() > CHOICES_MAX {
        let message = format!("`enum` has {} values; give 1 to {CHOICES_MAX}", nodes.len());
        reader.bad_value(item, Code::Limit, message);
        return Vec::new();
    }
    let mut choices = Vec::with_capacity(nodes.len());
    for (index, node) in nodes.iter().enumerate() {
        let path = Path::Index(&item.path, index);
        choices.extend(limit(reader, Item { node, key: None, path }, kind, zone));
    }
    choices
}

/// A fixed value of a type.
fn limit<'n>(
    reader: &mut Reader<'n>,
    item: Item<'n, '_>,
    kind: ParamKind,
    zone: &Zone,
) -> Option<Json> {
    let text = reader.fixed(item)?;
    let scalar = reader.scalar(item, "a value")?;
    let value = if kind == ParamKind::String { text.into() } else { scalar.json() };
    let read = of_kind(kind, &value, zone);
    if read.is_none() {
        reader.wrong_type(item, &format!("of type {}", kind_name(kind)));
    }
    read.as_ref().map(Json::new)
}

fn pattern<'n>(reader: &mut Reader<'n>, item: Item<'n, '_>) -> Option<String> {
    let text = reader.fixed(item)?;
    if let Err(reason) = compile(text) {
        let message = format!("`pattern` is no regular expression: {reason}");
        reader.bad_value(item, Code::BadValue, message);
        return None;
    }
    Some(text.to_owned())
}

impl<'n> Reader<'n> {
    /// A value of any type.
    fn json(&mut self, item: Item<'n, '_>) -> Option<serde_json::Value> {
        match &item.node.value {
            Value::Scalar(scalar) if scalar.is_null() => Some(serde_json::Value::Null),
            Value::Scalar(scalar) => {
                let text = self.text(item)?;
                self.template(item, text, Role::Default);
                Some(scalar.json())
            }
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

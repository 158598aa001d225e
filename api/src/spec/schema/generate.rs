//! Documents that suit a schema, by chance. Takes the part of JSON Schema that ours is made of.

use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::select;
use proptest::string::string_regex;
use serde_json::{Map, Value, json};

/// Items of a list, and entries of a mapping without fixed keys.
const ITEMS_MAX: usize = 3;

/// Texts in which YAML, templates and names could go wrong.
const TEXT: &str = "[ a-zA-Z0-9.:#{}'\"|>&*!%@`,?~-]{1,24}";

/// Documents that suit `schema`.
pub(in crate::spec) fn document(schema: &Value) -> BoxedStrategy<Value> {
    value(schema, schema)
}

fn value(root: &Value, node: &Value) -> BoxedStrategy<Value> {
    if let Some(path) = node["$ref"].as_str() {
        return match path {
            "#/$defs/duration" | "#/$defs/timeout" => durations(),
            "#/$defs/task/properties/when" => conditions(),
            path => value(root, resolve(root, path)),
        };
    }
    if !node["const"].is_null() {
        return Just(node["const"].clone()).boxed();
    }
    if let Some(choices) = node["enum"].as_array() {
        return select(choices.clone()).boxed();
    }
    if node["type"] == "object" {
        return object(root, node);
    }
    if let Some(branches) = node["anyOf"].as_array().or_else(|| node["oneOf"].as_array()) {
        return union(branches.iter().map(|branch| value(root, branch)).collect());
    }
    match &node["type"] {
        Value::Array(kinds) => {
            let kinds = kinds.iter().map(|kind| {
                let mut one = node.clone();
                one["type"] = kind.clone();
                value(root, &one)
            });
            union(kinds.collect())
        }
        Value::String(kind) => of_kind(root, node, kind),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::Object(_) => {
            union(vec![text(node), Just(json!(7)).boxed(), Just(json!([1, "a"])).boxed()])
        }
    }
}

fn resolve<'s>(root: &'s Value, path: &str) -> &'s Value {
    root.pointer(path.trim_start_matches('#')).expect("what is referred to is there")
}

fn union(branches: Vec<BoxedStrategy<Value>>) -> BoxedStrategy<Value> {
    proptest::strategy::Union::new(branches).boxed()
}

fn of_kind(root: &Value, node: &Value, kind: &str) -> BoxedStrategy<Value> {
    let whole = |key: &str, default: u64| node[key].as_u64().unwrap_or(default);
    match kind {
        "string" => text(node),
        "integer" => (whole("minimum", 0)..=whole("maximum", 1_000)).prop_map(Value::from).boxed(),
        "number" => (whole("minimum", 0)..=whole("maximum", 100)).prop_map(Value::from).boxed(),
        "boolean" => any::<bool>().prop_map(Value::from).boxed(),
        "null" => Just(Value::Null).boxed(),
        "array" => {
            let least = usize::try_from(whole("minItems", 0)).unwrap_or(0);
            let items = node.get("items");
            let item = items.map_or_else(|| text(&Value::Null), |items| value(root, items));
            vec(item, least..=least + ITEMS_MAX).prop_map(Value::from).boxed()
        }
        other => panic!("a type that is not generated: {other}"),
    }
}

fn text(node: &Value) -> BoxedStrategy<Value> {
    let pattern = match node["pattern"].as_str() {
        None => TEXT,
        // One that is to be found somewhere in the text.
        Some(pattern) if !pattern.starts_with('^') => "echo [a-z]{1,9}",
        Some(pattern) => pattern,
    };
    // Look-ahead is not generated; what is left of the pattern suits it but for reserved names.
    let pattern = pattern.replace("(?!QUORATE_|LD_)", "");
    let pattern = pattern.trim_start_matches('^').trim_end_matches('$');
    let longest = usize::try_from(node["maxLength"].as_u64().unwrap_or(u64::MAX)).unwrap_or(0);
    let reserved = |text: &str| text.starts_with("QUORATE_") || text.starts_with("LD_");
    string_regex(&pattern.replace("[^\\s]", "[a-z]").replace("[^\\s/]", "[a-z]"))
        .unwrap_or_else(|error| panic!("{pattern}: {error}"))
        .prop_filter("no reserved name", move |text| !reserved(text))
        .prop_filter("short enough", move |text| text.len() <= longest)
        .prop_map(Value::from)
        .boxed()
}

/// What a condition is in, no schema says.
fn conditions() -> BoxedStrategy<Value> {
    select(vec![json!("true"), json!("1 < 2"), json!("${{ run.id == \"x\" }}")]).boxed()
}

fn durations() -> BoxedStrategy<Value> {
    let units = ["ms", "s", "m", "h", "d", " sec", " minutes", "m 30s", "h, 5m", "d 2h"];
    let spans = (1..=99_u32, select(units.to_vec())).prop_map(|(n, unit)| format!("{n}{unit}"));
    prop_oneof![spans, (1..=99_u32).prop_map(|n| format!("PT{n}M"))].prop_map(Value::from).boxed()
}

fn object(root: &Value, node: &Value) -> BoxedStrategy<Value> {
    let branches = node["oneOf"].as_array().or_else(|| node["anyOf"].as_array());
    let branches = branches.cloned().unwrap_or_else(|| vec![json!({})]);
    union(branches.iter().map(|branch| fields(root, node, branch)).collect())
}

/// Whether a branch has no place for a key.
fn banned(root: &Value, branch: &Value, key: &str) -> bool {
    let also = branch["$ref"].as_str().map(|path| &resolve(root, path)["properties"][key]);
    branch["properties"][key] == false || also.is_some_and(|also| *also == false)
}

/// The fields of a mapping, as one branch of it wants them.
fn fields(root: &Value, node: &Value, branch: &Value) -> BoxedStrategy<Value> {
    let is_in = |of: &Value, key: &str| {
        of["required"].as_array().is_some_and(|keys| keys.iter().any(|one| one == key))
    };
    let conditional = json!({"$ref": "#/$defs/task/properties/when"});
    let zone = json!({"enum": ["UTC", "Europe/Paris"]});
    let mut entries: BoxedStrategy<Map<String, Value>> = Just(Map::new()).boxed();
    for (key, mut property) in node["properties"].as_object().into_iter().flatten() {
        if key == "when" && node["properties"]["id"].is_object() {
            property = &conditional;
        }
        if key == "timezone" {
            property = &zone;
        }
        if banned(root, branch, key) {
            continue;
        }
        // An action of another branch.
        let others = node["oneOf"].as_array().into_iter().flatten();
        let is_required = is_in(node, key) || is_in(branch, key);
        if !is_required && others.clone().any(|other| is_in(other, key)) {
            continue;
        }
        let (key, field) = (key.clone(), value(root, property));
        let field = if is_required {
            field.prop_map(Some).boxed()
        } else {
            proptest::option::weighted(0.25, field).boxed()
        };
        entries = (entries, field)
            .prop_map(move |(mut entries, field)| {
                entries.extend(field.map(|field| (key.clone(), field)));
                entries
            })
            .boxed();
    }
    if !node["additionalProperties"].is_object() {
        return entries.prop_map(Value::from).boxed();
    }
    let names = match node["propertyNames"]["$ref"].as_str() {
        Some(path) => text(resolve(root, path)),
        None => text(&node["propertyNames"]),
    };
    let named = (names, value(root, &node["additionalProperties"]));
    (entries, vec(named, 0..=ITEMS_MAX))
        .prop_map(|(mut entries, more)| {
            let more = more.into_iter();
            entries
                .extend(more.map(|(key, value)| (key.as_str().unwrap_or("k").to_owned(), value)));
            Value::from(entries)
        })
        .boxed()
}

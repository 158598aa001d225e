//! `help file`: every key of a workflow file, read off its schema.

use std::fmt::{self, Write};

use quorate_api::spec::JSON_SCHEMA;
use serde_json::{Map, Value};

/// Columns of the text.
const WIDTH: usize = 92;

/// Columns before what is said of a key.
const MARGIN: usize = 18;

const INTRODUCTION: &str = "\
A workflow file is YAML, or JSON. The smallest is `run: echo hello`. Unless a task says what it
needs, it begins at once. Texts may hold templates, ${{ params.day }}; time spans have a unit.
Other programs' words for a key are understood: `quorate validate` tells, `quorate fmt` makes
ours of them. Editors take the schema: `quorate schema`, or /v1/schema/workflow.json of a server.
";

/// The reference as a text.
pub(super) fn text() -> String {
    let schema: Value = serde_json::from_str(JSON_SCHEMA).expect("the schema is JSON");
    let mut out = INTRODUCTION.to_owned();
    // A string takes all that is written to it.
    let _ = write_all(&mut out, &schema);
    out
}

fn write_all(out: &mut String, schema: &Value) -> fmt::Result {
    write_mapping(out, schema, "the file", schema)?;
    // What has no keys to explain is a value, or says which keys exclude each other.
    let is_mapping = |def: &Value| {
        let keys = def["properties"].as_object();
        keys.is_some_and(|keys| keys.values().all(Value::is_object))
    };
    for (name, mapping) in entries(&schema["$defs"]).filter(|(_, def)| is_mapping(def)) {
        write_mapping(out, schema, &name.replace('_', " "), mapping)?;
    }
    Ok(())
}

fn write_mapping(out: &mut String, schema: &Value, name: &str, mapping: &Value) -> fmt::Result {
    writeln!(out, "\n{}", name.to_uppercase())?;
    for (key, property) in entries(&mapping["properties"]) {
        let mut said = description(schema, property).to_owned();
        let kind = kind(schema, property);
        if !kind.is_empty() {
            write!(said, " Takes {kind}.")?;
        }
        if let Some(default) = member(schema, property, "default") {
            write!(said, " Default: {}.", shown(default))?;
        }
        let is_required =
            mapping["required"].as_array().is_some_and(|all| all.contains(&key.as_str().into()));
        if is_required {
            said.push_str(" Required.");
        }
        write_key(out, key, said.trim())?;
    }
    Ok(())
}

/// A key, and beside it what is said of it, on as many lines as that takes.
fn write_key(out: &mut String, key: &str, said: &str) -> fmt::Result {
    let mut line = format!("  {key:width$}", width = MARGIN - 2);
    if key.len() > MARGIN - 3 {
        line.push(' ');
    }
    let mut is_begun = false;
    for word in said.split_whitespace() {
        if is_begun && line.chars().count() + 1 + word.chars().count() > WIDTH {
            writeln!(out, "{line}")?;
            line = " ".repeat(MARGIN);
            is_begun = false;
        }
        if is_begun {
            line.push(' ');
        }
        line.push_str(word);
        is_begun = true;
    }
    writeln!(out, "{}", line.trim_end())
}

fn entries(value: &Value) -> impl Iterator<Item = (&String, &Value)> {
    value.as_object().into_iter().flat_map(Map::iter)
}

/// A member of a property, or of what it refers to.
fn member<'s>(schema: &'s Value, property: &'s Value, name: &str) -> Option<&'s Value> {
    let own = property.get(name);
    own.or_else(|| member(schema, referred(schema, property)?, name))
}

fn referred<'s>(schema: &'s Value, property: &Value) -> Option<&'s Value> {
    schema.pointer(property["$ref"].as_str()?.strip_prefix('#')?)
}

fn description<'s>(schema: &'s Value, property: &'s Value) -> &'s str {
    member(schema, property, "description").and_then(Value::as_str).unwrap_or("")
}

/// What values a property takes, in a few words.
fn kind(schema: &Value, property: &Value) -> String {
    if let Some(choices) = member(schema, property, "enum").and_then(Value::as_array) {
        return choices.iter().map(shown).collect::<Vec<_>>().join(" | ");
    }
    let branches = member(schema, property, "anyOf").and_then(Value::as_array);
    if let Some(branches) = branches.filter(|_| property["properties"].is_null()) {
        let mut kinds: Vec<String> = branches.iter().map(|branch| kind(schema, branch)).collect();
        kinds.dedup();
        return kinds.join(", or ");
    }
    match member(schema, property, "type") {
        Some(Value::String(kind)) => word(kind).to_owned(),
        Some(Value::Array(kinds)) => {
            let kinds = kinds.iter().filter_map(Value::as_str).filter(|kind| *kind != "null");
            kinds.map(word).collect::<Vec<_>>().join(", ")
        }
        _ => String::new(),
    }
}

fn word(kind: &str) -> &str {
    match kind {
        "object" => "a mapping",
        "array" => "a list",
        "string" => "a text",
        "integer" => "a whole number",
        "number" => "a number",
        "boolean" => "true or false",
        other => other,
    }
}

fn shown(value: &Value) -> String {
    value.as_str().map_or_else(|| value.to_string(), str::to_owned)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_key_is_there_with_what_it_takes() {
        let text = text();
        assert!(text.contains("\nTHE FILE\n") && text.contains("\nTASK\n"), "{text}");
        assert!(text.contains("\n  on_lost "), "{text}");
        assert!(text.contains("Takes retry | fail | hold. Default: retry."), "{text}");
        assert!(text.lines().all(|line| line.chars().count() <= WIDTH + MARGIN), "{text}");
        for line in text.lines().filter(|line| line.starts_with("  ") && !line.starts_with("   ")) {
            assert!(line.split_whitespace().count() > 1, "{line:?} says nothing");
        }
    }
}

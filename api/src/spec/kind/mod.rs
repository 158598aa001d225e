//! The kinds of task that workers carry out: what a file may say of each, a file a kind.
//!
//! What is read here is what the worker is told, as JSON; what it does with it is written down
//! where it is done.

pub(super) mod http;

use std::collections::BTreeSet;

use quorate_expression::SyntaxError;
use quorate_model::plan::RESPONSE;
use serde_json::{Map, Value as Json, json};

use super::document::Value;
use super::report::Path;
use super::section::{Item, Reader};
use super::template::Role;
use super::{Code, name};

pub(super) use http::read as http;

/// Outputs that a task may take from a response.
const OUTPUTS_MAX: usize = 256;

/// Texts that are evaluated over the response, once there is one.
#[derive(Debug, Default)]
struct Response(Map<String, Json>);

impl Response {
    /// A condition, without `${{ }}`.
    fn condition<'n>(&mut self, reader: &mut Reader<'n>, key: &str, item: Option<Item<'n, '_>>) {
        let Some(item) = item else { return };
        let Some(text) = reader.fixed(item) else { return };
        check(reader, item, quorate_expression::references_of_condition(text));
        self.0.insert(key.to_owned(), json!(text));
    }

    /// What of it the task puts out.
    fn outputs<'n>(&mut self, reader: &mut Reader<'n>, item: Option<Item<'n, '_>>) {
        let Some(item) = item else { return };
        let mut outputs = Map::new();
        let entries = reader.entries(item, "a mapping of names to templates").unwrap_or_default();
        if entries.len() > OUTPUTS_MAX {
            let message = format!("{} outputs; {OUTPUTS_MAX} is the most", entries.len());
            reader.bad_value(item, Code::Limit, message);
            return;
        }
        for (key, node) in entries {
            let path = Path::Key(&item.path, &key.text);
            let item = Item { node, key: Some(key), path };
            let Some(text) = reader.text(item) else { continue };
            check(reader, item, quorate_expression::references(text));
            if let Some(name) = reader.name(name::any(&key.text), key.place, &path) {
                outputs.insert(name.to_string(), json!(text));
            }
        }
        self.0.insert("outputs".to_owned(), outputs.into());
    }

    /// As the worker takes it.
    fn into_params(self, params: &mut Map<String, Json>) {
        if !self.0.is_empty() {
            params.insert(RESPONSE.to_owned(), self.0.into());
        }
    }
}

/// Reports a text that cannot be evaluated over a response alone.
fn check(
    reader: &mut Reader<'_>,
    item: Item<'_, '_>,
    names: Result<BTreeSet<String>, SyntaxError>,
) {
    let names = match names {
        Ok(names) => names,
        Err(error) => {
            let message = format!("not a template: {}", error.reason);
            reader.bad_value(item, Code::TemplateSyntax, message);
            return;
        }
    };
    let root = |name: &String| name.split('.').next().unwrap_or_default().to_owned();
    let strange: BTreeSet<String> =
        names.iter().map(root).filter(|name| name != RESPONSE).collect();
    for name in strange {
        let message = format!("`{name}` is not known here: this is evaluated by the worker");
        let help = "it can look up response: status, headers, text, json, url".to_owned();
        let place = item.node.place;
        reader.report.error_with_help(Code::UnknownReference, place, &item.path, message, help);
    }
}

/// A text that the leader evaluates before the worker is told.
fn template<'n>(reader: &mut Reader<'n>, item: Item<'n, '_>, index: usize) -> Option<&'n str> {
    let text = reader.text(item)?;
    reader.template(item, text, Role::Env(index));
    Some(text)
}

/// A mapping of names to such texts.
fn templates<'n>(reader: &mut Reader<'n>, item: Item<'n, '_>, index: usize) -> Map<String, Json> {
    let mut texts = Map::new();
    for (key, node) in reader.entries(item, "a mapping of names to texts").unwrap_or_default() {
        let path = Path::Key(&item.path, &key.text);
        if let Some(text) = template(reader, Item { node, key: Some(key), path }, index) {
            texts.insert(key.text.clone().into_owned(), json!(text));
        }
    }
    texts
}

/// Any value; the texts in it are evaluated by the leader.
fn tree<'n>(reader: &mut Reader<'n>, item: Item<'n, '_>, index: usize) -> Json {
    match &item.node.value {
        Value::Scalar(scalar) => {
            if scalar.json().is_string() {
                template(reader, item, index);
            }
            scalar.json()
        }
        Value::List(items) => {
            let items = items.iter().enumerate().map(|(at, node)| {
                let path = Path::Index(&item.path, at);
                tree(reader, Item { node, key: None, path }, index)
            });
            items.collect()
        }
        Value::Map(_) => {
            let mut values = Map::new();
            for (key, node) in reader.entries(item, "a mapping").unwrap_or_default() {
                let path = Path::Key(&item.path, &key.text);
                let value = tree(reader, Item { node, key: Some(key), path }, index);
                values.insert(key.text.clone().into_owned(), value);
            }
            values.into()
        }
    }
}
